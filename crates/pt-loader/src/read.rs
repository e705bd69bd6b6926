//! Where tensors lie in their files, and their bytes: all that this crate asks of pt-view.

use std::borrow::Cow;
use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use pt_format::{DType, Record, Source, geometry};
use pt_index::{FileSource, TensorEntry};
use pt_view::{Error as ViewError, Obstacle};

use crate::files::Opened;

/// Which tensors are known to lie in their files as they are, in a record whose header was checked. Asking pt-view each
/// time takes longer than copying a small tensor.
#[derive(Debug)]
pub(crate) struct Plain(Box<[AtomicU64]>);

/// Where the elements of a tensor lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: u64,
    /// The record, if its header was not checked yet.
    pub(crate) unchecked: Option<Record>,
}

impl Plain {
    pub(crate) fn new(tensors: usize) -> Self {
        Self((0..tensors.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn knows(&self, tensor: usize) -> bool {
        let word = self.0.get(tensor / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (tensor % 64) != 0)
    }

    /// Notes that a tensor is plain and its record's header is right.
    pub(crate) fn note(&self, tensor: TensorEntry<'_>) {
        let tensor = tensor.row();
        if let Some(word) = self.0.get(tensor / 64) {
            word.fetch_or(1 << (tensor % 64), Ordering::Relaxed);
        }
    }

    /// Returns where a tensor lies, if its bytes there are its elements: stored, row-major, little-endian, with nothing left
    /// to apply. If not, pt-view puts it together.
    pub(crate) fn place(&self, tensor: TensorEntry<'_>, file: &Opened<'_>) -> Option<Place> {
        let known = self.knows(tensor.row());
        if !known {
            // What is asked here holds as long as the index does, so it is asked once.
            let refused = file.view(tensor).caps().reason;
            if !matches!(refused, None | Some(Obstacle::Misaligned { .. })) {
                return None;
            }
        }
        let record = tensor.storage()?.record()?;
        let before = tensor.storage_offset().checked_mul(tensor.dtype()?.itemsize() as u64)?;
        // An empty tensor may point anywhere; it reads nothing.
        let start = if tensor.nbytes()? == 0 { 0 } else { record.data_offset.checked_add(before)? };
        let unchecked = (!known && record.header_offset.is_some()).then_some(record);
        if !known && unchecked.is_none() {
            self.note(tensor);
        }
        Some(Place { start, unchecked })
    }
}

/// Bytes of a file that are at hand.
pub(crate) struct Piece<'a> {
    pub(crate) start: u64,
    pub(crate) bytes: &'a [u8],
}

impl Source for Piece<'_> {
    fn len(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        let start = offset.checked_sub(self.start).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.bytes.read_at(start, length)
    }
}

/// Whether a read waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    /// What is not in memory is fetched meanwhile.
    No,
}

/// Fills buffers with a run of a file; returns whether they are filled by now.
pub(crate) fn read_run(
    source: &FileSource,
    start: u64,
    buffers: &mut [IoSliceMut<'_>],
    wait: Wait,
) -> Result<bool, Obstacle> {
    let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let result = match (wait, buffers) {
        (Wait::No, buffers) => source.read_or_fetch_vectored_at(buffers, start),
        (Wait::Yes, [one]) => source.read_exact_at(one, start).map(|()| true),
        (Wait::Yes, many) => source.read_exact_vectored_at(many, start).map(|()| true),
    };
    result.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let length = source.file().metadata().map_or(0, |metadata| metadata.len());
            Obstacle::OutsideFile { start, end: start.saturating_add(bytes as u64), length }
        }
        _ => Obstacle::Read(error.to_string()),
    })
}

pub(crate) fn refused(tensor: TensorEntry<'_>, obstacle: Obstacle) -> ViewError {
    ViewError::Refused { tensor: tensor.name().to_owned(), obstacle }
}

/// Says how a tensor differs from what the data set was planned with; a damaged index could promise anything.
pub(crate) fn check(tensor: TensorEntry<'_>, dtype: DType, bytes: Option<u64>) -> Result<(), String> {
    let has = || geometry::nbytes(dtype, tensor.shape().unwrap_or(&[]));
    match tensor.dtype() == Some(dtype) && has().zip(bytes).is_some_and(|(has, needs)| needs <= has) {
        true => Ok(()),
        false => Err(format!("is {:?} {:?}", tensor.dtype(), tensor.shape())),
    }
}

/// Puts elements into a batch, as `float32` where `cast` says which dtype they have and what to multiply them with.
#[inline]
pub(crate) fn copy(bytes: &[u8], cast: Option<(DType, f32)>, out: &mut [u8]) {
    fn each<const N: usize>(bytes: &[u8], out: &mut [u8], value: impl Fn([u8; N]) -> f32) {
        for (element, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<4>().0) {
            *out = value(*element).to_le_bytes();
        }
    }
    match cast {
        None => out.copy_from_slice(bytes),
        Some((DType::Float16, scale)) => {
            each(bytes, out, |element| half::f16::from_le_bytes(element).to_f32() * scale)
        }
        Some((DType::BFloat16, scale)) => {
            each(bytes, out, |element| half::bf16::from_le_bytes(element).to_f32() * scale)
        }
        Some((_, scale)) => each(bytes, out, |[element]| f32::from(element) * scale),
    }
}
