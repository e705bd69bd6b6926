//! A batch: one buffer that holds every sample's tensors, field by field.

use std::collections::BTreeMap;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use pt_format::{DType, Element};
use pt_index::Leaf;
use rayon::prelude::*;

use crate::dataset::{DataSet, Field};
use crate::error::{Error, Result};

/// Where one tensor of one sample goes.
pub(crate) type Slot<'b> = &'b mut [u8];

/// 64 bytes at a multiple of 64: what the widest vector instructions like, and PyTorch's own alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Samples gathered into one buffer. Each field is contiguous: `[samples, …shape]`, 64-aligned.
pub struct Batch {
    buffer: Vec<Line>,
    tensors: Vec<(Field, Range<usize>)>,
    columns: BTreeMap<String, Vec<Scalar>>,
    samples: Vec<usize>,
}

/// A plain scalar of a sample, owned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Scalar {
    /// The sample has none.
    None,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(String),
}

impl Batch {
    pub(crate) fn gather(data: &DataSet, samples: &[usize]) -> Result<Self> {
        let too_large = || Error::TooLarge { samples: samples.len() };
        let mut tensors = Vec::with_capacity(data.fields().len());
        let mut end = 0usize;
        for field in data.fields() {
            let bytes = field.bytes.checked_mul(samples.len()).ok_or_else(too_large)?;
            let start = end.checked_next_multiple_of(size_of::<Line>()).ok_or_else(too_large)?;
            end = start.checked_add(bytes).ok_or_else(too_large)?;
            tensors.push((field.clone(), start..end));
        }
        let mut buffer: Vec<Line> = Vec::new();
        buffer.try_reserve_exact(end.div_ceil(size_of::<Line>())).map_err(|_| too_large())?;
        buffer.resize(end.div_ceil(size_of::<Line>()), Line::zeroed());

        // Hand every sample its place in every field.
        let mut slots: Vec<Vec<Slot<'_>>> =
            samples.iter().map(|_| Vec::with_capacity(tensors.len())).collect();
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut buffer);
        let mut at = 0;
        for (field, range) in &tensors {
            let (_, from_here) = std::mem::take(&mut rest).split_at_mut(range.start - at);
            let (region, after) = from_here.split_at_mut(range.len());
            match field.bytes {
                0 => slots.iter_mut().for_each(|sample| sample.push(&mut [])),
                bytes => {
                    slots
                        .iter_mut()
                        .zip(region.chunks_exact_mut(bytes))
                        .for_each(|(sample, slot)| sample.push(slot));
                }
            }
            (rest, at) = (after, range.end);
        }
        samples.par_iter().zip(slots).try_for_each(|(&sample, slots)| data.read_sample(sample, slots))?;

        let columns = columns(data, samples);
        Ok(Self { buffer, tensors, columns, samples: samples.to_vec() })
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns which samples these are.
    pub fn samples(&self) -> &[usize] {
        &self.samples
    }

    /// Returns the tensors of the batch.
    pub fn tensors(&self) -> impl Iterator<Item = BatchTensor<'_>> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.buffer);
        let count = self.samples.len();
        self.tensors.iter().map(move |(field, range)| BatchTensor {
            field,
            bytes: &bytes[range.clone()],
            count,
        })
    }

    /// Finds a tensor by its dotted name.
    pub fn tensor(&self, name: &str) -> Option<BatchTensor<'_>> {
        self.tensors().find(|tensor| tensor.field.name == name)
    }

    /// Returns a plain scalar of every sample: labels, ids. They come from the index, not from the files.
    pub fn column(&self, name: &str) -> Option<&[Scalar]> {
        self.columns.get(name).map(Vec::as_slice)
    }
}

/// Scalars of the samples, by name; a sample without one has `None`.
fn columns(data: &DataSet, samples: &[usize]) -> BTreeMap<String, Vec<Scalar>> {
    let mut columns: BTreeMap<String, Vec<Scalar>> = BTreeMap::new();
    for (row, &sample) in samples.iter().enumerate() {
        for (name, leaf) in data.index().file(sample).into_iter().flat_map(|file| file.leaves()) {
            if !columns.contains_key(name) {
                columns.insert(name.to_owned(), vec![Scalar::None; samples.len()]);
            }
            if let Some(column) = columns.get_mut(name) {
                column[row] = match leaf {
                    Leaf::Bool(value) => Scalar::Bool(value),
                    Leaf::Int(value) => Scalar::Int(value),
                    Leaf::Float(value) => Scalar::Float(value),
                    Leaf::Str(value) => Scalar::Str(value.to_owned()),
                    _ => Scalar::None,
                };
            }
        }
    }
    columns
}

/// One field of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchTensor<'b> {
    field: &'b Field,
    bytes: &'b [u8],
    count: usize,
}

impl<'b> BatchTensor<'b> {
    /// Returns the dotted name.
    pub fn name(&self) -> &'b str {
        &self.field.name
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.field.dtype
    }

    /// Returns the sizes: samples first, then those of one sample.
    pub fn shape(&self) -> Vec<u64> {
        [&[self.count as u64], &self.field.shape[..]].concat()
    }

    /// Returns the elements of all samples as bytes, row-major and little-endian.
    pub fn as_bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Returns the elements of all samples, row-major.
    ///
    /// # Errors
    /// [`Error::WrongType`] when `T` is not the tensor's type, or when a byte of a `bool` tensor is no bool.
    pub fn as_slice<T: Element>(&self) -> Result<&'b [T]> {
        let wrong =
            Error::WrongType { tensor: self.field.name.clone(), dtype: self.field.dtype, asked: T::DTYPE };
        if self.field.dtype != T::DTYPE {
            return Err(wrong);
        }
        bytemuck::checked::try_cast_slice(self.bytes).map_err(|_| wrong)
    }
}
