//! Where the elements of a tensor lie, and what their bits mean.

use std::borrow::Cow;

use pt_format::strided::Offsets;
use pt_format::{ByteOrder, DType, Flags, Layout, Record, geometry};

use crate::bytes::FileBytes;
use crate::error::{Obstacle, Result};
use crate::values::{negate_floats, negate_integers, swap};
use crate::view::{DECODED_BYTES_MAX, TensorView};

/// Deflate makes no more out of a byte. Source: the technical details page of zlib.
const DEFLATE_RATIO_MAX: u64 = 1032;

/// Where the elements of a tensor lie: inside the storage, checked.
pub(crate) struct Place<'v> {
    pub(crate) record: Record,
    pub(crate) storage: usize,
    pub(crate) dtype: DType,
    pub(crate) shape: &'v [u64],
    pub(crate) stride: &'v [u64],
    /// First element, in bytes of the storage.
    pub(crate) start: u64,
    /// Bytes from there to the end of the last element.
    pub(crate) length: u64,
    byte_order: ByteOrder,
    flags: Flags,
}

impl Place<'_> {
    pub(crate) fn foreign_endian(&self) -> Option<Obstacle> {
        (self.is_big_endian() && self.dtype.alignment() > 1).then_some(Obstacle::ForeignEndian)
    }

    pub(crate) fn is_big_endian(&self) -> bool {
        (self.byte_order == ByteOrder::Big) != self.flags.contains(Flags::SWAPPED)
    }

    pub(crate) fn lazy_bit(&self) -> Option<Obstacle> {
        let conj = self.flags.contains(Flags::CONJ) && self.dtype.is_complex();
        let neg = self.flags.contains(Flags::NEG);
        conj.then_some(Obstacle::LazyBit("conjugate")).or(neg.then_some(Obstacle::LazyBit("negative")))
    }
}

impl<'a> TensorView<'a> {
    /// The short way to the bytes of the usual tensor, which nothing stands in the way of and whose record was checked: a few
    /// loads and comparisons. `None` sends the caller the long way ([`Self::place`]), which says what is in the way.
    #[inline]
    pub(crate) fn plain(&self, dtype: DType, itemsize: u64) -> Option<&'a [u8]> {
        let (bytes, checked) = (self.file.bytes?, self.file.checked?);
        let usual = self.entry.usual()?;
        if usual.dtype != dtype || !checked.is_checked(usual.storage) {
            return None;
        }
        let (shape, stride, first) = self.window_of(&usual)?;
        let start = first.checked_mul(itemsize)?;
        let end = contiguous_numel(shape, stride)?.checked_mul(itemsize)?.checked_add(start)?;
        if end > usual.storage_bytes {
            return None;
        }
        let in_file = |at: u64| usize::try_from(usual.data_offset.checked_add(at)?).ok();
        bytes.get(in_file(start)?..in_file(end)?)
    }
}

impl TensorView<'_> {
    /// Works out where the elements lie, and checks that against the storage. The index is not trusted.
    pub(crate) fn place(&self) -> Result<Place<'_>> {
        self.find_place().map_err(|obstacle| self.refused(obstacle))
    }

    fn find_place(&self) -> Result<Place<'_>, Obstacle> {
        let entry = self.entry;
        if let Some(fault) = entry.fault() {
            return Err(Obstacle::Fault(fault.to_owned()));
        }
        if entry.layout() == Layout::Chunked {
            return Err(Obstacle::InChunks);
        }
        if entry.layout() != Layout::Strided {
            return Err(Obstacle::NoData("it is a composite: its parts are listed below its name"));
        }
        if entry.flags().contains(Flags::META) {
            return Err(Obstacle::NoData("it is a meta tensor"));
        }
        let storage = entry.storage().ok_or(Obstacle::NoData("it has no storage"))?;
        let record = storage.record().ok_or(Obstacle::NoData("its storage is not in the file"))?;
        let dtype = entry.dtype().ok_or(Obstacle::NoData("its dtype is unknown"))?;
        let shape = self.shape().ok_or(Obstacle::NoData("its shape is unknown"))?;
        let stride = self.stride().ok_or(Obstacle::NoData("its stride is unknown"))?;

        let overflow = || Obstacle::Fault("its extent does not fit into 64 bits".into());
        let itemsize = dtype.itemsize() as u64;
        let length = match dtype.packing() {
            Some(_) => geometry::nbytes(dtype, shape),
            None => geometry::extent(shape, stride).and_then(|extent| extent.checked_mul(itemsize)),
        };
        let length = length.ok_or_else(overflow)?;
        let first = self.storage_offset();
        // An empty tensor may point anywhere; it reads nothing.
        let start = match length {
            0 => first.unwrap_or(u64::MAX).saturating_mul(itemsize).min(storage.nbytes()),
            _ => first.and_then(|first| first.checked_mul(itemsize)).ok_or_else(overflow)?,
        };
        let end = start.checked_add(length).ok_or_else(overflow)?;
        if end > storage.nbytes() {
            return Err(Obstacle::Fault(format!(
                "needs {end} bytes but its storage has {}",
                storage.nbytes()
            )));
        }
        self.file.check_extent(&record, end)?;
        let byte_order = entry.file().byte_order();
        let flags = entry.flags();
        Ok(Place { record, storage: storage.row(), dtype, shape, stride, start, length, byte_order, flags })
    }
}

impl FileBytes<'_> {
    /// Returns the decoded length of a record, after checking that the file is long enough to hold that much, and the record's
    /// local header: as much memory may then be taken for it.
    ///
    /// # Errors
    /// The obstacle.
    pub fn check_record(&self, record: &Record) -> Result<usize, Obstacle> {
        self.check_extent(record, record.bytes)?;
        match self.source {
            Some(source) => record.verify(source)?,
            None => record.verify(self.bytes.unwrap_or_default())?,
        }
        usize::try_from(record.bytes).map_err(|_| Obstacle::TooLarge(record.bytes))
    }

    /// Reads a whole record, decoded, into a buffer as long as [`Self::check_record`] says.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// use pt_view::FileBytes;
    /// let file = write::to_vec(&write::Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())?;
    /// let checkpoint = Checkpoint::parse(&file, &Limits::default())?;
    /// let record = checkpoint.storages().next().unwrap().record().unwrap();
    /// let file = FileBytes::new(&file);
    /// let mut bytes = vec![0; file.check_record(&record)?];
    /// file.read_record(&record, &mut bytes)?;
    /// assert_eq!(bytes, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The obstacle: the bytes cannot be read, do not decode, or are not as many.
    pub fn read_record(&self, record: &Record, out: &mut [u8]) -> Result<(), Obstacle> {
        let length = |needs: u64| Obstacle::BufferLength { needs, has: out.len() as u64 };
        if out.len() as u64 != record.bytes {
            return Err(length(record.bytes));
        }
        if record.is_stored() && self.bytes.is_none() {
            return self.read_exact(out, record.data_offset);
        }
        let start = record.header_offset.filter(|_| !record.is_stored()).unwrap_or(record.data_offset);
        let from_header = self.range(start, record.data_offset.saturating_add(record.packed_bytes))?;
        let bytes = match record.is_stored() {
            true => from_header,
            false => Cow::Owned(record.decode(&from_header, DECODED_BYTES_MAX)?),
        };
        if bytes.len() < out.len() {
            return Err(length(bytes.len() as u64));
        }
        out.copy_from_slice(&bytes[..out.len()]);
        Ok(())
    }

    /// Checks that the file can hold the first `end` bytes of a record, before anything is allocated for them.
    fn check_extent(&self, record: &Record, end: u64) -> Result<(), Obstacle> {
        let packed_end = if record.is_stored() { end } else { record.packed_bytes };
        let (start, length) = (record.data_offset, self.length());
        if start.checked_add(packed_end).is_none_or(|end| end > length) {
            return Err(Obstacle::OutsideFile { start, end: start.saturating_add(packed_end), length });
        }
        if !record.is_stored() && end > packed_end.saturating_mul(DEFLATE_RATIO_MAX) {
            return Err(Obstacle::Fault(format!(
                "{packed_end} compressed bytes cannot hold the {end} it needs"
            )));
        }
        Ok(())
    }
}

/// The number of elements, if they lie in row-major order without gaps and are some.
#[inline(always)]
fn contiguous_numel(shape: &[u64], stride: &[u64]) -> Option<u64> {
    let mut numel = 1u64;
    for (&size, &step) in shape.iter().zip(stride).rev() {
        if size != 1 && step != numel {
            return None;
        }
        numel = numel.checked_mul(size)?;
    }
    (shape.len() == stride.len()).then_some(numel)
}

/// Makes stored bytes the logical values: byte order, negative and conjugate bits.
pub(crate) fn finish(place: &Place<'_>, bytes: &mut [u8]) {
    let width = place.dtype.alignment();
    if place.is_big_endian() {
        swap(bytes, width);
    }
    let is_float = place.dtype.is_float() || place.dtype.is_complex();
    if place.flags.contains(Flags::NEG) {
        match is_float {
            true => negate_floats(bytes, width, false),
            false => negate_integers(bytes, width),
        }
    }
    if place.flags.contains(Flags::CONJ) && place.dtype.is_complex() {
        negate_floats(bytes, width, true);
    }
}

/// Returns whether all elements are 0 or 1. Gaps between them may hold anything, unless elements outnumber the bytes.
pub(crate) fn are_bools(bytes: &[u8], shape: &[u64], stride: &[u64], numel: u64) -> bool {
    if numel >= bytes.len() as u64 {
        return bytes.iter().all(|&byte| byte <= 1);
    }
    let mut offsets = Offsets::new(shape, stride);
    (0..numel).all(|_| bytes[offsets.step() as usize] <= 1)
}
