//! torch's objects, made of memory. torch is imported when the first of them is asked for.

use dlpark::ffi::DLDataType;
use pt_format::DType;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::dtype;
use crate::error::Result;
use crate::export::Region;
use crate::tree::Object;

/// Makes a tensor of elements that start where a region does; its storage reaches to the last of them.
pub(crate) fn strided<'py>(
    py: Python<'py>,
    region: &Region,
    dtype: DType,
    shape: &[u64],
    stride: &[u64],
) -> Object<'py> {
    match dtype::to_any_torch(dtype).filter(|_| region.is_aligned(dtype.alignment())) {
        Some(dtype) => in_dlpack(py, region, dtype, shape, stride),
        None => window(py, &storage(py, region)?, dtype, 0, shape, stride),
    }
}

/// Makes a tensor of a dtype that torch reads from DLPack.
pub(crate) fn in_dlpack<'py>(
    py: Python<'py>,
    region: &Region,
    dtype: DLDataType,
    shape: &[u64],
    stride: &[u64],
) -> Object<'py> {
    from_capsule(py, &region.capsule(py, dtype, shape, stride)?)
}

/// Makes an untyped storage of all bytes of a region.
pub(crate) fn storage<'py>(py: Python<'py>, region: &Region) -> Object<'py> {
    let bytes = region.capsule(py, DLDataType::U8, &[region.len() as u64], &[1])?;
    Ok(from_capsule(py, &bytes)?.call_method0("untyped_storage")?)
}

/// Makes a tensor that looks into a storage.
pub(crate) fn window<'py>(
    py: Python<'py>,
    storage: &Bound<'py, PyAny>,
    dtype: DType,
    offset: u64,
    shape: &[u64],
    stride: &[u64],
) -> Object<'py> {
    let dtype = dtype::to_torch(py, dtype)?;
    let sizes = (PyTuple::new(py, shape)?, PyTuple::new(py, stride)?);
    Ok(helper(py, &WINDOW, "window")?.call1((storage, dtype, offset, sizes.0, sizes.1))?)
}

static WINDOW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn from_capsule<'py>(py: Python<'py>, capsule: &Bound<'py, PyAny>) -> Object<'py> {
    static FROM_DLPACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(helper(py, &FROM_DLPACK, "from_dlpack")?.call1((capsule,))?)
}

/// Returns a function of `ptview/_torch.py`.
pub(crate) fn helper<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> Result<&'py Bound<'py, PyAny>> {
    Ok(cell.import(py, "ptview._torch", name)?)
}
