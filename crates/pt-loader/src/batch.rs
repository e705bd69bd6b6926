//! A batch: one buffer that holds every sample's tensors, field by field.

use bytemuck::{Pod, Zeroable};
use pt_format::{DType, Element};

use crate::column::BatchColumn;
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::pad::Pad;
use crate::plan::{ALIGNMENT, BatchField, BatchPlan};

/// 64 bytes at a multiple of 64.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// What becomes of samples that differ in size.
///
/// ```
/// use pt_loader::{Pad, Ragged, To};
/// let to_512 = Ragged::Pad(Pad { to: To::Length(512), ..Pad::default() });
/// assert_ne!(to_512, Ragged::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ragged {
    /// They make no batch, unless those of the batch happen to be of one size.
    #[default]
    Refuse,
    /// Shorter ones are padded, longer ones truncated.
    Pad(Pad),
    /// They stand one behind the other; [`BatchTensor::offsets`] says where each begins. Of samples that differ in other sizes than
    /// the first, [`BatchTensor::sizes`] says what shape each has.
    Joined,
}

/// Samples gathered into one buffer. Each field is contiguous and 64-aligned: `[samples, …shape]`, or of joined ragged
/// samples `[all steps, …shape]`.
///
/// A batch is filled again and again by [`DataSet::gather_into`]; only the first ones allocate.
#[derive(Default)]
pub struct Batch {
    plan: BatchPlan,
    buffer: Vec<Line>,
}

impl Batch {
    pub(crate) fn gather(&mut self, data: &DataSet, samples: &[usize], ragged: Ragged) -> Result<()> {
        data.plan_into(samples, ragged, &mut self.plan)?;
        // The way without an error copies no room for one.
        if let Err(error) = self.read() {
            self.plan.clear();
            return Err(error);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let lines = self.plan.bytes().div_ceil(ALIGNMENT);
        // Lines of an earlier batch are written over, not zeroed.
        if let Some(more) = lines.checked_sub(self.buffer.len()) {
            let too_large = |_| Error::TooLarge { samples: self.plan.len() };
            self.buffer.try_reserve(more).map_err(too_large)?;
            self.buffer.resize(lines, Line::zeroed());
        }
        self.plan.read_into(bytemuck::cast_slice_mut(&mut self.buffer))
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.plan.len()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }

    /// Returns which samples these are.
    pub fn samples(&self) -> &[usize] {
        self.plan.samples()
    }

    /// Returns how the batch is laid out in [`Self::as_bytes`].
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// Returns the whole buffer.
    pub fn as_bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.buffer)[..self.plan.bytes()]
    }

    /// Returns the tensors of the batch.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = BatchTensor<'_>> {
        self.plan.tensors(self.as_bytes())
    }

    /// Finds a tensor by its dotted name.
    pub fn tensor(&self, name: &str) -> Option<BatchTensor<'_>> {
        self.tensors().find(|tensor| tensor.name() == name)
    }

    /// Returns the plain scalars of the samples: labels, ids. They come from the index, not from the files.
    pub fn columns(&self) -> &[BatchColumn] {
        self.plan.columns()
    }

    /// Finds a column by its dotted name.
    pub fn column(&self, name: &str) -> Option<&BatchColumn> {
        self.plan.column(name)
    }
}

/// One field of a batch, with its elements.
#[derive(Clone, Copy)]
pub struct BatchTensor<'b> {
    field: &'b BatchField,
    bytes: &'b [u8],
    mask: Option<&'b [bool]>,
}

impl std::fmt::Debug for BatchTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchTensor")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .finish()
    }
}

impl<'b> BatchTensor<'b> {
    pub(crate) fn new(field: &'b BatchField, memory: &'b [u8]) -> Self {
        // Written by this crate, so that no other byte is there unless the caller wrote it.
        let mask = field.mask_range().and_then(|mask| bytemuck::checked::try_cast_slice(&memory[mask]).ok());
        Self { field, bytes: &memory[field.range()], mask }
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'b str {
        self.field.name()
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.field.dtype()
    }

    /// Returns the sizes: samples first, then those of one sample; of joined samples all their steps first.
    pub fn shape(&self) -> &'b [u64] {
        self.field.shape()
    }

    /// Returns the first size each sample of a ragged field has in its file, before padding and truncation. Empty for
    /// other fields.
    pub fn lengths(&self) -> &'b [u64] {
        self.field.lengths()
    }

    /// Returns where each sample of a ragged field begins, and where the last one ends; see [`BatchField::offsets`].
    pub fn offsets(&self) -> &'b [u64] {
        self.field.offsets()
    }

    /// Returns all sizes that a sample has in its file; see [`BatchField::sizes`].
    pub fn sizes(&self, sample: usize) -> &'b [u64] {
        self.field.sizes(sample)
    }

    /// Returns of each step whether it is of the sample or padding, `[samples, steps]` (see [`BatchField::mask_shape`]), if
    /// [`Pad::mask`] asked for it and the field is ragged.
    pub fn mask(&self) -> Option<&'b [bool]> {
        self.mask
    }

    /// Returns the elements of all samples as bytes, row-major and little-endian.
    pub fn as_bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Returns the elements of all samples, row-major.
    ///
    /// # Errors
    /// [`Error::WrongType`] when `T` is not the tensor's type, or when a byte of a `bool` tensor is no bool;
    /// [`Error::Misaligned`] for memory of the caller that does not suit `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&'b [T]> {
        let wrong =
            || Error::WrongType { tensor: self.name().to_owned(), dtype: self.dtype(), asked: T::DTYPE };
        if self.dtype() != T::DTYPE {
            return Err(wrong());
        }
        if !(self.bytes.as_ptr() as usize).is_multiple_of(align_of::<T>()) {
            return Err(Error::Misaligned { tensor: self.name().to_owned(), needs: align_of::<T>() });
        }
        bytemuck::checked::try_cast_slice(self.bytes).map_err(|_| wrong())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("samples", &self.len()).field("tensors", &self.tensors().len()).finish()
    }
}
