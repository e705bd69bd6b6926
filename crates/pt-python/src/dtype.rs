//! dtypes as numpy, torch and DLPack name them.

use dlpark::ffi::{DLDataType, DLDataTypeCode};
use pt_format::DType;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;

use crate::error::{Class, Result};

/// Returns the type in DLPack's words; none where it has none.
pub(crate) fn to_dlpack(dtype: DType) -> Option<DLDataType> {
    Some(match dtype {
        DType::Float64 => DLDataType::F64,
        DType::Float32 => DLDataType::F32,
        DType::Float16 => DLDataType::F16,
        DType::BFloat16 => DLDataType::BF16,
        DType::Int64 => DLDataType::I64,
        DType::Int32 => DLDataType::I32,
        DType::Int16 => DLDataType::I16,
        DType::Int8 => DLDataType::I8,
        DType::UInt8 => DLDataType::U8,
        DType::UInt16 => DLDataType::U16,
        DType::UInt32 => DLDataType::U32,
        DType::UInt64 => DLDataType::U64,
        DType::Bool => DLDataType::BOOL,
        DType::Complex32 => DLDataType::scalar(DLDataTypeCode::COMPLEX, 32),
        DType::Complex64 => DLDataType::C64,
        DType::Complex128 => DLDataType::C128,
        DType::Float8E4M3Fn => DLDataType::F8E4M3FN,
        DType::Float8E5M2 => DLDataType::F8E5M2,
        DType::Float8E4M3FnUz => DLDataType::F8E4M3FNUZ,
        DType::Float8E5M2FnUz => DLDataType::F8E5M2FNUZ,
        DType::Float8E8M0Fnu => DLDataType::F8E8M0FNU,
        _ => return None,
    })
}

/// Returns the type in DLPack's words where every torch that is served reads it. That of 2.1 reads no `bool`.
pub(crate) fn to_any_torch(dtype: DType) -> Option<DLDataType> {
    let is_old = dtype as u8 <= DType::Complex128 as u8 && dtype != DType::Bool;
    to_dlpack(dtype).filter(|_| is_old)
}

/// Returns the numpy dtype, in the byte order asked for.
pub(crate) fn to_numpy(py: Python<'_>, dtype: DType, big_endian: bool) -> Result<Bound<'_, PyAny>> {
    static DTYPES: PyOnceLock<Vec<PyOnceLock<Py<PyAny>>>> = PyOnceLock::new();
    let known = DTYPES.get_or_init(py, || DType::all().map(|_| PyOnceLock::new()).collect());
    let found = known[dtype as usize].get_or_try_init(py, || find_numpy(py, dtype).map(Bound::unbind))?;
    let found = found.bind(py).clone();
    Ok(if big_endian { found.call_method1("newbyteorder", (">",))? } else { found })
}

fn find_numpy(py: Python<'_>, dtype: DType) -> Result<Bound<'_, PyAny>> {
    let name = dtype.name();
    let numpy = PyModule::import(py, "numpy")?;
    let plain = matches!(dtype as u8, 0..=2 | 4..=11 | 14..=16);
    if plain {
        return Ok(numpy.call_method1("dtype", (name,))?);
    }
    let in_ml_dtypes = dtype == DType::BFloat16 || name.starts_with("float8");
    if !in_ml_dtypes {
        let message = format!("numpy has no type for {name}; `.torch()` gives the tensor");
        return Err(Class::Tensor.error(message));
    }
    let missing = |_| {
        Class::Tensor.error(format!("numpy has no {name} of its own: install `ml_dtypes`, or use `.torch()`"))
    };
    let extra = PyModule::import(py, "ml_dtypes").map_err(missing)?;
    Ok(numpy.call_method1("dtype", (extra.getattr(name).map_err(missing)?,))?)
}

/// Returns the torch dtype.
pub(crate) fn to_torch(py: Python<'_>, dtype: DType) -> Result<Bound<'_, PyAny>> {
    static DTYPES: PyOnceLock<Vec<PyOnceLock<Py<PyAny>>>> = PyOnceLock::new();
    let known = DTYPES.get_or_init(py, || DType::all().map(|_| PyOnceLock::new()).collect());
    let find = || {
        let torch = PyModule::import(py, "torch")?;
        let older = |_| Class::Tensor.error(format!("this torch has no {dtype}; a newer one is needed"));
        Ok::<_, crate::error::Error>(torch.getattr(dtype.name()).map_err(older)?.unbind())
    };
    Ok(known[dtype as usize].get_or_try_init(py, find)?.bind(py).clone())
}
