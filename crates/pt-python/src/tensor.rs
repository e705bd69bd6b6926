//! A tensor of an open file: shape and type known, elements not read.

use std::sync::Arc;

use pt_view::{Mapping, TensorView};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::{Class, Result};

/// A tensor of an open file, not read.
#[pyclass(frozen, module = "ptview")]
pub(crate) struct Tensor {
    mapping: Arc<Mapping>,
    number: usize,
}

impl Tensor {
    pub(crate) fn new(mapping: Arc<Mapping>, number: usize) -> Self {
        Self { mapping, number }
    }

    fn view(&self) -> Result<TensorView<'_>> {
        self.mapping.tensor_at(self.number).ok_or_else(|| Class::Range.error("no such tensor"))
    }
}

#[pymethods]
impl Tensor {
    /// The dotted name.
    #[getter]
    fn name(&self) -> Result<&str> {
        Ok(self.view()?.name())
    }

    /// The sizes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyTuple>>> {
        Ok(self.view()?.shape().map(|shape| PyTuple::new(py, shape)).transpose()?)
    }
}
