//! Bytes of tensors into places of a batch: all that this crate asks of pt-view.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use pt_format::{DType, geometry};
use pt_index::{FileSource, TensorEntry};
use pt_view::{CheckedRecords, Error as ViewError, FileBytes, Obstacle, TensorView};

use crate::error::Result;

/// Opens a file whose index row is at hand.
pub(crate) fn open(path: &Path) -> Result<FileSource> {
    Ok(FileSource::open(path)?)
}

/// Which tensors are known to lie in their files as they are, with a record that was checked. Asking pt-view each time
/// would make an error value each time.
#[derive(Debug)]
pub(crate) struct Plain(Box<[AtomicU64]>);

impl Plain {
    pub(crate) fn new(tensors: usize) -> Self {
        Self((0..tensors.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether borrowed bytes are refused only because nothing is mapped: this checks the record's header and
    /// everything else that can be wrong.
    fn is_plain(&self, view: &TensorView<'_>) -> bool {
        let number = view.entry().row();
        let (word, bit) = (self.0.get(number / 64), 1 << (number % 64));
        if word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
            return true;
        }
        let refused = view.as_bytes();
        let is_plain = matches!(refused, Err(ViewError::Refused { obstacle: Obstacle::NotMapped, .. }));
        if let (true, Some(word)) = (is_plain, word) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        is_plain
    }
}

/// Reads `count` steps along the first dimension, from `first` on, as they lie in a row-major tensor. `spare` is used where
/// the tensor must be put together first.
pub(crate) fn read_steps(
    entry: TensorEntry<'_>,
    source: &FileSource,
    (checked, plain): (&CheckedRecords, &Plain),
    (first, count): (u64, u64),
    spare: &mut Vec<u8>,
    out: &mut [u8],
) -> Result<(), ViewError> {
    let view = TensorView::new(entry, FileBytes::read(source, checked));
    let steps = entry.shape().and_then(|shape| shape.first().copied()).unwrap_or(1);
    if first == 0 && count == steps {
        return view.read_into(out);
    }
    if out.is_empty() {
        return Ok(());
    }
    match view.locate().filter(|_| plain.is_plain(&view)) {
        Some(location) => {
            let step = location.length.checked_div(steps).unwrap_or(0);
            let start = location.offset + first * step;
            let end = start + out.len() as u64;
            source.read_exact_at(out, start).map_err(|error| ViewError::Refused {
                tensor: entry.name().to_owned(),
                obstacle: match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        let length = source.file().metadata().map_or(0, |metadata| metadata.len());
                        Obstacle::OutsideFile { start, end, length }
                    }
                    _ => Obstacle::Read(error.to_string()),
                },
            })
        }
        // Strided, compressed, of another byte order: the whole tensor, and of it these steps.
        _ => {
            let bytes = entry.nbytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
            spare.resize(bytes, 0);
            view.read_into(spare)?;
            let step = bytes / usize::try_from(steps).unwrap_or(usize::MAX).max(1);
            let start = step * first as usize;
            out.copy_from_slice(&spare[start..start + out.len()]);
            Ok(())
        }
    }
}

/// Says how a tensor differs from what the data set was planned with; a damaged index could promise anything.
pub(crate) fn check(entry: TensorEntry<'_>, dtype: DType, last: u64) -> Result<(), String> {
    let has = entry.shape().and_then(|shape| shape.first().copied()).unwrap_or(1);
    match entry.dtype() == Some(dtype)
        && last <= has
        && geometry::nbytes(dtype, entry.shape().unwrap_or(&[])).is_some()
    {
        true => Ok(()),
        false => Err(format!("is {:?} {:?}", entry.dtype(), entry.shape())),
    }
}

/// Turns elements into `float32`.
pub(crate) fn to_float32(stored: DType, bytes: &[u8], scale: f32, out: &mut [u8]) {
    fn each<const N: usize>(bytes: &[u8], out: &mut [u8], value: impl Fn([u8; N]) -> f32) {
        for (element, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<4>().0) {
            *out = value(*element).to_le_bytes();
        }
    }
    match stored {
        DType::Float16 => each(bytes, out, |element| half::f16::from_le_bytes(element).to_f32() * scale),
        DType::BFloat16 => each(bytes, out, |element| half::bf16::from_le_bytes(element).to_f32() * scale),
        _ => each(bytes, out, |[element]| f32::from(element) * scale),
    }
}
