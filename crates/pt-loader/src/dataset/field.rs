//! One tensor of every sample: name, dtype and sizes.

use pt_format::{DType, geometry};

/// One tensor of every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Dotted name.
    pub name: String,
    /// Element type in a batch.
    pub dtype: DType,
    /// Sizes in elements, of one sample; of a ragged field, the largest there are.
    pub shape: Vec<u64>,
    /// Whether samples differ in a size.
    pub is_ragged: bool,
    /// In which sizes samples differ, in ascending order: the number of the dimension.
    pub ragged_dims: Vec<usize>,
    /// Element type in the files.
    pub(crate) stored: DType,
    /// What elements are multiplied with when they become `float32`.
    pub(crate) scale: f32,
}

impl Field {
    /// Returns whether samples differ in other sizes than the first: then elements are what steps are otherwise.
    pub fn is_grid(&self) -> bool {
        self.ragged_dims.iter().any(|&dim| dim > 0)
    }

    /// Bytes in a file of one step along the first dimension of a sample: of one element where others are ragged, and of the
    /// sample where none is.
    pub(crate) fn step_bytes(&self, dtype: DType) -> Option<usize> {
        let first = if self.is_grid() { self.shape.len() } else { usize::from(self.is_ragged) };
        let rest = self.shape.get(first..).unwrap_or_default();
        geometry::nbytes(dtype, rest).and_then(|bytes| usize::try_from(bytes).ok())
    }
}
