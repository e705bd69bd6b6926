//! numpy arrays over memory.

use pt_format::{DType, geometry};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::dtype;
use crate::error::Class;
use crate::export::Region;
use crate::tree::Object;

/// Makes an array of elements in a region, the first of them at `offset`.
pub(crate) fn array<'py>(
    py: Python<'py>,
    region: Region,
    dtype: DType,
    big_endian: bool,
    offset: u64,
    shape: &[u64],
    stride: &[u64],
) -> Object<'py> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let numpy_dtype = dtype::to_numpy(py, dtype, big_endian)?;
    let sizes = PyTuple::new(py, shape)?;
    // numpy wants the strides of what has no elements to be right, too.
    if geometry::numel(shape) == Some(0) {
        return Ok(EMPTY.import(py, "numpy", "empty")?.call1((sizes, numpy_dtype))?);
    }
    let itemsize = dtype.itemsize() as u64;
    let strides = stride.iter().map(|&step| step.checked_mul(itemsize)).collect::<Option<Vec<u64>>>();
    let (Some(strides), Some(offset)) = (strides, offset.checked_mul(itemsize)) else {
        return Err(too_far());
    };
    let array = ARRAY.import(py, "numpy", "ndarray")?;
    Ok(array.call1((sizes, numpy_dtype, Bound::new(py, region)?, offset, PyTuple::new(py, strides)?))?)
}

#[cold]
fn too_far() -> crate::error::Error {
    Class::Tensor.error("the strides of the tensor do not fit into 64 bits")
}
