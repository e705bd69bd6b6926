//! A tensor as bytes and as slices.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use pt_format::strided::{Offsets, copy_strided};
use pt_format::{ByteOrder, DType, Element, Flags, Layout, Record, geometry};
use pt_index::{FileSource, TensorEntry};

use crate::error::{Error, Obstacle, Result};
use crate::iter::Elements;
use crate::values::{negate_floats, negate_integers, swap};

/// Decoded records are held in memory; no honest one is larger.
const DECODED_BYTES_MAX: u64 = 16 << 30;

/// Deflate makes no more out of a byte. Source: the technical details page of zlib.
const DEFLATE_RATIO_MAX: u64 = 1032;

/// What a copy of an expanded tensor (stride 0) may take: so much in any case, or so many times its bytes in the file.
const EXPANDED_BYTES: u64 = 1 << 30;
const EXPANDED_RATIO: u64 = 64;

/// Where the bytes of a data file come from, and which of its records were checked already.
#[derive(Clone, Copy)]
pub struct FileBytes<'a> {
    /// The whole file, where it is in memory or mapped.
    bytes: Option<&'a [u8]>,
    /// The open file: for positioned reads, and for local headers, because touching those through a map would read it
    /// ahead.
    source: Option<&'a FileSource>,
    checked: Option<&'a CheckedRecords>,
}

impl<'a> FileBytes<'a> {
    /// Takes the bytes of a whole file that are in memory.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// use pt_view::{FileBytes, TensorView};
    /// let object = write::Object::from(write::Tensor::new::<i64>(&[2], &[7, 8])?);
    /// let file = write::to_vec(&object)?;
    /// let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// assert_eq!(view.to_vec::<i64>()?, [7, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Some(bytes), source: None, checked: None }
    }

    /// Takes an open file that is read by position, not mapped: a file that shrinks is then an error and not a signal,
    /// and small reads here and there are cheaper than page faults. Nothing can be borrowed; copies work as always.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::from(Tensor::new::<i64>(&[2], &[7, 8])?))?)?;
    /// use pt_view::{CheckedRecords, FileBytes, TensorView};
    /// let source = pt_index::FileSource::open(&path)?;
    /// let index = pt_index::build_source(&path, &source, &Default::default())?;
    /// let checked = CheckedRecords::new(index.storage_count());
    /// let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::read(&source, &checked));
    /// assert_eq!(view.to_vec::<i64>()?, [7, 8]);
    /// assert!(view.as_slice::<i64>().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(source: &'a FileSource, checked: &'a CheckedRecords) -> Self {
        Self { bytes: None, source: Some(source), checked: Some(checked) }
    }

    pub(crate) fn mapped(bytes: &'a [u8], source: &'a FileSource, checked: &'a CheckedRecords) -> Self {
        Self { bytes: Some(bytes), source: Some(source), checked: Some(checked) }
    }

    fn length(&self) -> u64 {
        match self.bytes {
            Some(bytes) => bytes.len() as u64,
            None => self.source.map_or(0, |source| source.metadata().len()),
        }
    }

    /// The bytes of a range of the file: lent if it is in memory, else read.
    fn range(&self, start: u64, end: u64) -> Result<Cow<'a, [u8]>, Obstacle> {
        if let Some(bytes) = self.bytes {
            return self.borrow(bytes, start, end).map(Cow::Borrowed);
        }
        // The index may claim anything; memory is only taken for bytes that are there.
        let length = self.length();
        if end > length {
            return Err(Obstacle::OutsideFile { start, end, length });
        }
        let mut bytes = vec![0; (end - start.min(end)) as usize];
        self.read_exact(&mut bytes, start)?;
        Ok(Cow::Owned(bytes))
    }

    fn borrow(&self, bytes: &'a [u8], start: u64, end: u64) -> Result<&'a [u8], Obstacle> {
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let length = bytes.len() as u64;
        range.and_then(|(start, end)| bytes.get(start..end)).ok_or(Obstacle::OutsideFile {
            start,
            end,
            length,
        })
    }

    fn read_exact(&self, out: &mut [u8], start: u64) -> Result<(), Obstacle> {
        let source = self.source.ok_or(Obstacle::NotMapped)?;
        source.read_exact_at(out, start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let length = source.file().metadata().map_or(0, |metadata| metadata.len());
                Obstacle::OutsideFile { start, end: start.saturating_add(out.len() as u64), length }
            }
            _ => Obstacle::Read(error.to_string()),
        })
    }
}

/// Which storages of an index had their record's local header checked; shared by all views of the data.
#[derive(Debug)]
pub struct CheckedRecords {
    checked: Box<[AtomicU64]>,
}

impl CheckedRecords {
    /// Notes of so many storages that none was checked yet.
    pub fn new(storages: usize) -> Self {
        Self { checked: (0..storages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn is_checked(&self, storage: usize) -> bool {
        let word = self.checked.get(storage / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (storage % 64) != 0)
    }

    fn set_checked(&self, storage: usize) {
        if let Some(word) = self.checked.get(storage / 64) {
            word.fetch_or(1 << (storage % 64), Ordering::Relaxed);
        }
    }
}

/// What can be done with a tensor without copying it, by the same tests that the methods run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Caps {
    /// The bytes lie in the file as they are in memory: stored, little-endian, aligned. Strides may still be needed.
    pub zero_copy: bool,
    /// [`TensorView::as_slice`] lends them as a slice of the dtype's type.
    pub typed: bool,
    /// [`TensorView::iter`] walks them in place.
    pub strided: bool,
    /// They are compressed.
    pub needs_decode: bool,
    /// They are in the other byte order.
    pub needs_swap: bool,
    /// They do not lie in row-major order.
    pub needs_gather: bool,
    /// The first obstacle to `typed`.
    pub reason: Option<Obstacle>,
}

/// Where a tensor lies in its file, for those who do their own input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Byte of the file at which the first element starts.
    pub offset: u64,
    /// Bytes from there to the end of the last element, gaps of strides included.
    pub length: u64,
}

/// A tensor of a file that is in memory: an index row and the file's bytes.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    entry: TensorEntry<'a>,
    file: FileBytes<'a>,
}

impl<'a> TensorView<'a> {
    /// Looks at a row of an index with the bytes of its file.
    pub fn new(entry: TensorEntry<'a>, file: FileBytes<'a>) -> Self {
        Self { entry, file }
    }

    /// Returns the row of the index.
    pub fn entry(&self) -> TensorEntry<'a> {
        self.entry
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'a str {
        self.entry.name()
    }

    /// Returns the dtype; `None` when the file's is unknown.
    pub fn dtype(&self) -> Option<DType> {
        self.entry.dtype()
    }

    /// Returns the sizes in elements; `None` for nested tensors.
    pub fn shape(&self) -> Option<&'a [u64]> {
        self.entry.shape()
    }

    /// Returns the strides in elements; `None` for sparse and nested tensors.
    pub fn stride(&self) -> Option<&'a [u64]> {
        self.entry.stride()
    }

    /// Borrows the elements as a slice, without copying.
    ///
    /// # Errors
    /// [`Error::Refused`] with the obstacle: another type, strided, misaligned, compressed, big-endian, a lazy
    /// conjugate or negative bit, no data. [`Self::to_cow`] copies its way around all but the first and the last.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T]> {
        self.check_type::<T>()?;
        let bytes = self.as_bytes()?;
        bytemuck::checked::try_cast_slice(bytes).map_err(|error| {
            self.refused(match error {
                bytemuck::checked::CheckedCastError::InvalidBitPattern => not_bool(bytes),
                _ => misaligned(bytes, align_of::<T>()),
            })
        })
    }

    /// Borrows the elements as bytes: row-major, little-endian. Alignment does not matter.
    ///
    /// # Errors
    /// As [`Self::as_slice`], type and alignment aside.
    pub fn as_bytes(&self) -> Result<&'a [u8]> {
        let place = self.place()?;
        match self.obstacle_to_bytes(&place) {
            Some(obstacle) => Err(self.refused(obstacle)),
            None => self.extent_bytes(&place),
        }
    }

    /// Borrows the packed bytes of a tensor whose elements share bytes.
    ///
    /// # Errors
    /// As [`Self::as_bytes`]; also when the tensor is not packed.
    pub fn packed_bytes(&self) -> Result<&'a [u8]> {
        let place = self.place()?;
        match (place.dtype.packing(), place.record.is_stored()) {
            (None, _) => self.as_bytes(),
            (_, false) => Err(self.refused(Obstacle::Compressed)),
            _ => self.extent_bytes(&place),
        }
    }

    /// Returns the elements, borrowed where [`Self::as_slice`] can lend them, else copied.
    ///
    /// # Errors
    /// [`Error::Refused`] for another type, packed elements, no data, or bytes that do not decode.
    pub fn to_cow<T: Element>(&self) -> Result<Cow<'a, [T]>> {
        match self.as_slice() {
            Ok(slice) => Ok(Cow::Borrowed(slice)),
            Err(_) => self.to_vec().map(Cow::Owned),
        }
    }

    /// Copies the elements in row-major order.
    ///
    /// # Errors
    /// As [`Self::to_cow`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check_type::<T>()?;
        let bytes = self.buffer_bytes()?;
        let mut elements = vec![T::zeroed(); bytes / size_of::<T>()];
        if let Some(out) = T::bytes_mut(&mut elements) {
            self.read_into(out)?;
            return Ok(elements);
        }
        let bytes = self.to_bytes()?;
        match bytemuck::checked::try_cast_slice(&bytes) {
            Ok(values) => Ok(values.to_vec()),
            Err(_) => Err(self.refused(not_bool(&bytes))),
        }
    }

    /// Copies the elements as bytes: row-major, little-endian, conjugate and negative bits applied.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = vec![0; self.buffer_bytes()?];
        self.read_into(&mut out)?;
        Ok(out)
    }

    /// Copies the elements into a buffer of exactly [`TensorEntry::nbytes`] bytes: row-major, little-endian, conjugate
    /// and negative bits applied.
    ///
    /// # Errors
    /// [`Error::Refused`] for a buffer of another length, packed elements, no data, or bytes that do not decode.
    pub fn read_into(&self, out: &mut [u8]) -> Result<()> {
        let place = self.place()?;
        if let Some(packed) = place.dtype.packing().map(|_| Obstacle::Packed(place.dtype)) {
            return Err(self.refused(packed));
        }
        let needs = self.entry.nbytes().unwrap_or(u64::MAX);
        if out.len() as u64 != needs {
            return Err(self.refused(Obstacle::BufferLength { needs, has: out.len() as u64 }));
        }
        let in_place = place.record.is_stored() && geometry::is_contiguous(place.shape, place.stride);
        if self.file.bytes.is_none() && in_place {
            self.check_header(&place)?;
            let start = place.record.data_offset.saturating_add(place.start);
            self.file.read_exact(out, start).map_err(|obstacle| self.refused(obstacle))?;
        } else {
            let bytes = self.decoded(&place)?;
            copy_strided(&bytes, place.shape, place.stride, place.dtype.itemsize(), out);
        }
        finish(&place, out);
        Ok(())
    }

    /// Walks the elements in row-major order, whatever the strides, without copying them (unless they are compressed).
    ///
    /// # Errors
    /// As [`Self::to_cow`]; big-endian elements and lazy bits too: [`Self::to_vec`] applies them.
    pub fn iter<T: Element>(&self) -> Result<Elements<'a, T>> {
        self.check_type::<T>()?;
        let place = self.place()?;
        if let Some(obstacle) = place.foreign_endian().or_else(|| place.lazy_bit()) {
            return Err(self.refused(obstacle));
        }
        let left = geometry::numel(place.shape).ok_or_else(|| self.refused(Obstacle::TooLarge(u64::MAX)))?;
        let bytes = self.decoded(&place)?;
        if T::DTYPE == DType::Bool && !are_bools(&bytes, &place, left) {
            return Err(self.refused(not_bool(&bytes)));
        }
        Ok(Elements { bytes, offsets: Offsets::new(place.shape, place.stride), left, of: PhantomData })
    }

    /// Returns where the tensor lies in its file; `None` when it is compressed or has no bytes.
    pub fn locate(&self) -> Option<Location> {
        let place = self.place().ok().filter(|place| place.record.is_stored())?;
        Some(Location { offset: place.record.data_offset + place.start, length: place.length })
    }

    /// Returns what can be done without copying, and what stands in the way.
    pub fn caps(&self) -> Caps {
        let place = match self.place() {
            Ok(place) => place,
            Err(Error::Refused { obstacle, .. }) => return Caps::none(obstacle),
            Err(other) => return Caps::none(Obstacle::Fault(other.to_string())),
        };
        let needs_swap = place.foreign_endian().is_some();
        let needs_decode = !place.record.is_stored();
        let needs_gather = !geometry::is_contiguous(place.shape, place.stride);
        let needs = place.dtype.alignment();
        // Maps begin at a page, so the place in the file decides.
        let offset = place.record.data_offset + place.start;
        let unaligned = offset % needs as u64 != 0;
        let misaligned =
            unaligned.then(|| Obstacle::Misaligned { found: 1 << offset.trailing_zeros(), needs });
        let zero_copy = !needs_decode && !needs_swap && !unaligned;
        let reason = self.obstacle_to_bytes(&place).or(misaligned);
        let strided =
            !needs_decode && !needs_swap && place.lazy_bit().is_none() && place.dtype.packing().is_none();
        Caps { zero_copy, typed: reason.is_none(), strided, needs_decode, needs_swap, needs_gather, reason }
    }

    fn check_type<T: Element>(&self) -> Result<()> {
        match self.entry.dtype() {
            Some(dtype) if dtype == T::DTYPE => Ok(()),
            Some(dtype) if dtype.packing().is_some() => Err(self.refused(Obstacle::Packed(dtype))),
            Some(dtype) => Err(self.refused(Obstacle::WrongType { dtype, asked: T::DTYPE })),
            None => Err(self.refused(Obstacle::NoData("its dtype is unknown"))),
        }
    }

    /// The first obstacle to lending contiguous little-endian bytes, alignment aside.
    fn obstacle_to_bytes(&self, place: &Place<'a>) -> Option<Obstacle> {
        if !place.record.is_stored() {
            return Some(Obstacle::Compressed);
        }
        if place.dtype.packing().is_some() {
            return Some(Obstacle::Packed(place.dtype));
        }
        if let Some(obstacle) = place.foreign_endian().or_else(|| place.lazy_bit()) {
            return Some(obstacle);
        }
        (!geometry::is_contiguous(place.shape, place.stride))
            .then(|| Obstacle::Strided { shape: place.shape.to_vec(), stride: place.stride.to_vec() })
    }

    /// Works out where the elements lie, and checks that against the storage. The index is not trusted.
    fn place(&self) -> Result<Place<'a>> {
        self.find_place().map_err(|obstacle| self.refused(obstacle))
    }

    fn find_place(&self) -> Result<Place<'a>, Obstacle> {
        let entry = self.entry;
        if let Some(fault) = entry.fault() {
            return Err(Obstacle::Fault(fault.to_owned()));
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
        let shape = entry.shape().ok_or(Obstacle::NoData("its shape is unknown"))?;
        let stride = entry.stride().ok_or(Obstacle::NoData("its stride is unknown"))?;

        let overflow = || Obstacle::Fault("its extent does not fit into 64 bits".into());
        let itemsize = dtype.itemsize() as u64;
        let length = match dtype.packing() {
            Some(_) => geometry::nbytes(dtype, shape),
            None => geometry::extent(shape, stride).and_then(|extent| extent.checked_mul(itemsize)),
        };
        let length = length.ok_or_else(overflow)?;
        // An empty tensor may point anywhere; it reads nothing.
        let start = match length {
            0 => entry.storage_offset().saturating_mul(itemsize).min(storage.nbytes()),
            _ => entry.storage_offset().checked_mul(itemsize).ok_or_else(overflow)?,
        };
        let end = start.checked_add(length).ok_or_else(overflow)?;
        if end > storage.nbytes() {
            return Err(Obstacle::Fault(format!(
                "needs {end} bytes but its storage has {}",
                storage.nbytes()
            )));
        }
        self.check_extent(&record, end)?;
        let byte_order = entry.file().byte_order();
        let flags = entry.flags();
        Ok(Place { record, storage: storage.row(), dtype, shape, stride, start, length, byte_order, flags })
    }

    /// Checks that the file can hold the first `end` bytes of a record, before anything is allocated for them.
    fn check_extent(&self, record: &Record, end: u64) -> Result<(), Obstacle> {
        let packed_end = if record.is_stored() { end } else { record.packed_bytes };
        let (start, length) = (record.data_offset, self.file.length());
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

    /// The stored bytes from the first element to the last.
    fn extent_bytes(&self, place: &Place<'a>) -> Result<&'a [u8]> {
        self.check_header(place)?;
        let start = place.record.data_offset.saturating_add(place.start);
        let end = start.saturating_add(place.length);
        let bytes = self.file.bytes.ok_or(Obstacle::NotMapped);
        bytes.and_then(|bytes| self.file.borrow(bytes, start, end)).map_err(|obstacle| self.refused(obstacle))
    }

    /// The bytes from the first element to the last, decoded if need be.
    fn decoded(&self, place: &Place<'a>) -> Result<Cow<'a, [u8]>> {
        self.check_header(place)?;
        let record = &place.record;
        let refused = |obstacle| self.refused(obstacle);
        if record.is_stored() {
            let start = record.data_offset.saturating_add(place.start);
            return self.file.range(start, start.saturating_add(place.length)).map_err(refused);
        }
        let start = record.header_offset.unwrap_or(record.data_offset);
        let end = record.data_offset.saturating_add(record.packed_bytes);
        let from_header = self.file.range(start, end).map_err(refused)?;
        let mut decoded =
            record.decode(&from_header, DECODED_BYTES_MAX).map_err(|fault| self.refused(fault.into()))?;
        let range = place.start as usize..(place.start + place.length) as usize;
        decoded.truncate(range.end);
        decoded.drain(..range.start);
        Ok(Cow::Owned(decoded))
    }

    /// Checks the record's local header at its first borrow.
    fn check_header(&self, place: &Place<'a>) -> Result<()> {
        if self.file.checked.is_some_and(|checked| checked.is_checked(place.storage)) {
            return Ok(());
        }
        let verified = match (self.file.source, self.file.bytes) {
            (Some(source), _) => place.record.verify(source),
            (None, bytes) => place.record.verify(bytes.unwrap_or_default()),
        };
        verified.map_err(|fault| self.refused(fault.into()))?;
        if let Some(checked) = self.file.checked {
            checked.set_checked(place.storage);
        }
        Ok(())
    }

    /// Bytes of a contiguous copy, as far as memory goes.
    fn buffer_bytes(&self) -> Result<usize> {
        let bytes = self.entry.nbytes().ok_or_else(|| match self.place() {
            Err(error) => error,
            Ok(_) => self.refused(Obstacle::TooLarge(u64::MAX)),
        })?;
        // A stride of 0 makes terabytes of nothing.
        let sane = self.place()?.length.saturating_mul(EXPANDED_RATIO).max(EXPANDED_BYTES);
        let bytes_here = usize::try_from(bytes).ok().filter(|_| bytes <= sane);
        bytes_here.ok_or_else(|| self.refused(Obstacle::TooLarge(bytes)))
    }

    #[cold]
    fn refused(&self, obstacle: Obstacle) -> Error {
        Error::Refused { tensor: self.name().to_owned(), obstacle }
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

impl Caps {
    fn none(reason: Obstacle) -> Self {
        Self {
            zero_copy: false,
            typed: false,
            strided: false,
            needs_decode: false,
            needs_swap: false,
            needs_gather: false,
            reason: Some(reason),
        }
    }
}

/// Where the elements of a tensor lie: inside the storage, checked.
struct Place<'a> {
    record: Record,
    storage: usize,
    dtype: DType,
    shape: &'a [u64],
    stride: &'a [u64],
    /// First element, in bytes of the storage.
    start: u64,
    /// Bytes from there to the end of the last element.
    length: u64,
    byte_order: ByteOrder,
    flags: Flags,
}

impl Place<'_> {
    fn foreign_endian(&self) -> Option<Obstacle> {
        (self.is_big_endian() && self.dtype.alignment() > 1).then_some(Obstacle::ForeignEndian)
    }

    fn is_big_endian(&self) -> bool {
        (self.byte_order == ByteOrder::Big) != self.flags.contains(Flags::SWAPPED)
    }

    fn lazy_bit(&self) -> Option<Obstacle> {
        let conj = self.flags.contains(Flags::CONJ) && self.dtype.is_complex();
        let neg = self.flags.contains(Flags::NEG);
        conj.then_some(Obstacle::LazyBit("conjugate")).or(neg.then_some(Obstacle::LazyBit("negative")))
    }
}

/// Makes stored bytes the logical values: byte order, negative and conjugate bits.
fn finish(place: &Place<'_>, bytes: &mut [u8]) {
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
fn are_bools(bytes: &[u8], place: &Place<'_>, numel: u64) -> bool {
    if numel >= bytes.len() as u64 {
        return bytes.iter().all(|&byte| byte <= 1);
    }
    let mut offsets = Offsets::new(place.shape, place.stride);
    (0..numel).all(|_| bytes[offsets.step() as usize] <= 1)
}

fn misaligned(bytes: &[u8], needs: usize) -> Obstacle {
    Obstacle::Misaligned { found: 1 << (bytes.as_ptr() as usize).trailing_zeros(), needs }
}

fn not_bool(bytes: &[u8]) -> Obstacle {
    let element = bytes.iter().position(|&byte| byte > 1).unwrap_or(0);
    Obstacle::NotBool { element, value: bytes.get(element).copied().unwrap_or(0) }
}
