//! A tensor as bytes and as slices.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use pt_format::strided::{Offsets, copy_strided};
use pt_format::{DType, Element, geometry};
use pt_index::TensorEntry;

use crate::bytes::FileBytes;
use crate::error::{Error, Obstacle, Result};
use crate::iter::Elements;
use crate::place::{Place, are_bools, finish};
use crate::shape::Window;

/// Decoded records are held in memory; no honest one is larger.
pub(crate) const DECODED_BYTES_MAX: u64 = 16 << 30;

/// What a copy of an expanded tensor (stride 0) may take: so much in any case, or so many times its bytes in the file.
const EXPANDED_BYTES: u64 = 1 << 30;
const EXPANDED_RATIO: u64 = 64;

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

/// A tensor of a file, or a part of one: an index row, the file's bytes, and which of the elements.
///
/// Views are made without reading; so are the views that [`narrow`](Self::narrow), [`select`](Self::select) and
/// [`row`](Self::row) make of them.
#[derive(Clone)]
pub struct TensorView<'a> {
    pub(crate) entry: TensorEntry<'a>,
    pub(crate) file: FileBytes<'a>,
    pub(crate) window: Window,
}

impl<'a> TensorView<'a> {
    /// Looks at a row of an index with the bytes of its file.
    #[inline]
    pub fn new(entry: TensorEntry<'a>, file: FileBytes<'a>) -> Self {
        Self { entry, file, window: Window::default() }
    }

    /// Returns the row of the index: that of the whole tensor, also for a part of it.
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

    /// Borrows the elements as a slice, without copying.
    ///
    /// # Errors
    /// [`Error::Refused`] with the obstacle: another type, strided, misaligned, compressed, big-endian, a lazy
    /// conjugate or negative bit, no data. [`Self::to_cow`] copies its way around all but the first and the last.
    #[inline]
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T]> {
        let bytes = match self.plain(T::DTYPE, size_of::<T>() as u64) {
            Some(bytes) => bytes,
            None => {
                self.check_type::<T>()?;
                self.lend()?
            }
        };
        self.cast(bytes)
    }

    /// Borrows the elements from the first to the last as they lie, gaps and all, with shape and stride.
    #[cfg(feature = "ndarray")]
    pub(crate) fn strided_slice<T: Element>(&self) -> Result<(&'a [T], &[u64], &[u64])> {
        self.check_type::<T>()?;
        let place = self.place()?;
        match self.obstacle_to_bytes(&place) {
            None | Some(Obstacle::Strided { .. }) => {}
            Some(obstacle) => return Err(self.refused(obstacle)),
        }
        let elements = self.cast(self.extent_bytes(&place)?)?;
        Ok((elements, place.shape, place.stride))
    }

    /// The bytes of the file from the first element to the last (first and number), if they are the values.
    pub(crate) fn lendable(&self) -> Result<(u64, u64)> {
        let place = self.place()?;
        match self.obstacle_to_bytes(&place) {
            None | Some(Obstacle::Strided { .. } | Obstacle::Packed(_)) => {}
            Some(obstacle) => return Err(self.refused(obstacle)),
        }
        self.check_header(&place)?;
        Ok((place.record.data_offset.saturating_add(place.start), place.length))
    }

    #[inline]
    fn cast<T: Element>(&self, bytes: &'a [u8]) -> Result<&'a [T]> {
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
    #[inline]
    pub fn as_bytes(&self) -> Result<&'a [u8]> {
        let dtype = self.dtype().filter(|dtype| dtype.packing().is_none());
        match dtype.and_then(|dtype| self.plain(dtype, dtype.itemsize() as u64)) {
            Some(bytes) => Ok(bytes),
            None => self.lend(),
        }
    }

    /// [`Self::as_bytes`] the long way, with the record checked and the reason for a refusal.
    fn lend(&self) -> Result<&'a [u8]> {
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

    /// Copies the elements into a buffer of exactly [`Self::nbytes`] bytes: row-major, little-endian, conjugate
    /// and negative bits applied.
    ///
    /// # Errors
    /// [`Error::Refused`] for a buffer of another length, packed elements, no data, or bytes that do not decode.
    pub fn read_into(&self, out: &mut [u8]) -> Result<()> {
        self.read_into_with(out, &mut Vec::new())
    }

    /// Does what [`Self::read_into`] does. Elements that must be read before they can be put in order go through `spare`: who reads
    /// many tensors keeps it, and allocates for the largest alone. (Decompressing allocates every time.)
    ///
    /// # Errors
    /// As [`Self::read_into`].
    ///
    /// ```
    /// # fn show<'a>(tensors: impl Iterator<Item = pt_view::TensorView<'a>>, out: &mut [u8]) -> pt_view::Result<()> {
    /// let mut spare = Vec::new();
    /// for tensor in tensors {
    ///     let bytes = tensor.nbytes().unwrap() as usize;
    ///     tensor.read_into_with(&mut out[..bytes], &mut spare)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_into_with(&self, out: &mut [u8], spare: &mut Vec<u8>) -> Result<()> {
        let place = self.place()?;
        if let Some(packed) = place.dtype.packing().map(|_| Obstacle::Packed(place.dtype)) {
            return Err(self.refused(packed));
        }
        let needs = self.nbytes().unwrap_or(u64::MAX);
        if out.len() as u64 != needs {
            return Err(self.refused(Obstacle::BufferLength { needs, has: out.len() as u64 }));
        }
        let (dims, itemsize) = ((place.shape, place.stride), place.dtype.itemsize());
        if self.file.bytes.is_none() && place.record.is_stored() {
            self.check_header(&place)?;
            let start = place.record.data_offset.saturating_add(place.start);
            let read = self.file.read_strided(start, dims, itemsize, spare, out);
            read.map_err(|obstacle| self.refused(obstacle))?;
        } else {
            copy_strided(&self.decoded(&place)?, dims.0, dims.1, itemsize, out);
        }
        finish(&place, out);
        Ok(())
    }

    /// Walks the elements in row-major order, whatever the strides, without copying them (unless they are compressed).
    /// Of a file that is read by position, elements that lie apart are read as by [`Self::read_into`], without wide gaps.
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
        // What must be read is read without the gaps, and then lies together.
        let own = left.saturating_mul(size_of::<T>() as u64);
        let is_read = self.file.bytes.is_none() && place.record.is_stored();
        let contiguous;
        let (bytes, stride) = if is_read && own < place.length {
            contiguous = geometry::contiguous_stride(place.shape);
            (Cow::Owned(self.to_bytes()?), &contiguous[..])
        } else {
            (self.decoded(&place)?, place.stride)
        };
        if T::DTYPE == DType::Bool && !are_bools(&bytes, place.shape, stride, left) {
            return Err(self.refused(not_bool(&bytes)));
        }
        Ok(Elements { bytes, offsets: Offsets::new(place.shape, stride), left, of: PhantomData })
    }

    /// Returns where the tensor lies in its file; `None` when it is compressed or has no bytes.
    pub fn locate(&self) -> Option<Location> {
        let place = self.place().ok().filter(|place| place.record.is_stored())?;
        Some(Location { offset: place.record.data_offset + place.start, length: place.length })
    }

    /// Returns where the tensor lies in its file, after checking the local header of its record as borrowing does: for those
    /// who have the file in memory themselves.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Obstacle::Compressed`] where the bytes do not lie in the file as they are.
    pub fn locate_checked(&self) -> Result<Location> {
        let place = self.place()?;
        if !place.record.is_stored() {
            return Err(self.refused(Obstacle::Compressed));
        }
        self.check_header(&place)?;
        Ok(Location { offset: place.record.data_offset + place.start, length: place.length })
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
    fn obstacle_to_bytes(&self, place: &Place<'_>) -> Option<Obstacle> {
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

    /// The stored bytes from the first element to the last.
    fn extent_bytes(&self, place: &Place<'_>) -> Result<&'a [u8]> {
        self.check_header(place)?;
        let start = place.record.data_offset.saturating_add(place.start);
        let end = start.saturating_add(place.length);
        let bytes = self.file.bytes.ok_or(Obstacle::NotMapped);
        bytes.and_then(|bytes| self.file.borrow(bytes, start, end)).map_err(|obstacle| self.refused(obstacle))
    }

    /// The bytes from the first element to the last, decoded if need be.
    fn decoded(&self, place: &Place<'_>) -> Result<Cow<'a, [u8]>> {
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
    fn check_header(&self, place: &Place<'_>) -> Result<()> {
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

    /// Returns how many bytes the buffer for [`Self::read_into`] takes: [`Self::nbytes`], where that is no trap. Strides of 0
    /// make terabytes of a few bytes.
    ///
    /// ```
    /// # fn show(tensor: pt_view::TensorView<'_>) -> pt_view::Result<()> {
    /// let mut buffer = vec![0; tensor.buffer_bytes()?];
    /// tensor.read_into(&mut buffer)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] for more than 1 GiB that is more than 64 times what lies in the file, and for no data.
    pub fn buffer_bytes(&self) -> Result<usize> {
        let bytes = self.nbytes().ok_or_else(|| match self.place() {
            Err(error) => error,
            Ok(_) => self.refused(Obstacle::TooLarge(u64::MAX)),
        })?;
        let bytes_here = sane_bytes(bytes, self.place()?.length);
        bytes_here.ok_or_else(|| self.refused(Obstacle::TooLarge(bytes)))
    }

    #[cold]
    pub(crate) fn refused(&self, obstacle: Obstacle) -> Error {
        Error::Refused { tensor: self.name().to_owned(), obstacle }
    }
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .field("stride", &self.stride())
            .finish_non_exhaustive()
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

/// The bytes of a copy, where so many in the file make that no trap: a stride of 0 makes terabytes of nothing.
pub(crate) fn sane_bytes(bytes: u64, held: u64) -> Option<usize> {
    let sane = held.saturating_mul(EXPANDED_RATIO).max(EXPANDED_BYTES);
    usize::try_from(bytes).ok().filter(|_| bytes <= sane)
}

fn misaligned(bytes: &[u8], needs: usize) -> Obstacle {
    Obstacle::Misaligned { found: 1 << (bytes.as_ptr() as usize).trailing_zeros(), needs }
}

fn not_bool(bytes: &[u8]) -> Obstacle {
    let element = bytes.iter().position(|&byte| byte > 1).unwrap_or(0);
    Obstacle::NotBool { element, value: bytes.get(element).copied().unwrap_or(0) }
}
