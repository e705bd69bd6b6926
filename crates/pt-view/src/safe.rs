//! Tensors as the crate `safetensors` writes them.

use std::borrow::Cow;

use pt_format::DType;
use safetensors::{Dtype, View};

use crate::error::{Obstacle, Result};
use crate::view::TensorView;

/// A tensor to be written to a `.safetensors` file: borrowed from its own file where it lies there as it is, else decoded.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let (path, out) = (folder.path().join("model.pt"), folder.path().join("model.safetensors"));
/// # use pt_format::write::{self, Object, Tensor};
/// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
/// # // SAFETY: nobody rewrites or truncates the file while it is mapped.
/// # let mapping = unsafe { pt_view::Mapping::open(&path)? };
/// let tensors = mapping.tensors().map(|view| Ok((view.name(), view.to_safetensor()?)));
/// let tensors = tensors.collect::<pt_view::Result<Vec<_>>>()?;
/// pt_view::safetensors::serialize_to_file(tensors, None, &out)?;
/// # let bytes = std::fs::read(&out)?;
/// # assert_eq!(pt_view::safetensors::SafeTensors::deserialize(&bytes)?.tensor("w")?.data(), [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SafeTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> TensorView<'a> {
    /// Returns the tensor as `safetensors` takes it. Nothing is read of a tensor that [`Self::as_bytes`] can lend.
    ///
    /// # Errors
    /// As [`Self::to_bytes`], and [`Obstacle::NotInSafetensors`] for a dtype that format has no name for.
    pub fn to_safetensor(&self) -> Result<SafeTensor<'a>> {
        let dtype = self.dtype().ok_or_else(|| self.refused(Obstacle::NoData("its dtype is unknown")))?;
        let name = name_of(dtype).ok_or_else(|| self.refused(Obstacle::NotInSafetensors(dtype)))?;
        let bytes = match self.as_bytes() {
            Ok(bytes) => Cow::Borrowed(bytes),
            Err(_) => Cow::Owned(self.to_bytes()?),
        };
        // The bytes are in memory, so the sizes fit; those of an empty tensor need not.
        let shape = self.shape().unwrap_or_default().iter().map(|&size| usize::try_from(size));
        let shape = shape.collect::<Result<_, _>>();
        let shape = shape.map_err(|_| self.refused(Obstacle::TooLarge(u64::MAX)))?;
        Ok(SafeTensor { dtype: name, shape, bytes })
    }
}

impl View for SafeTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Returns what `safetensors` calls a dtype.
fn name_of(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::Bool => Dtype::BOOL,
        DType::UInt8 => Dtype::U8,
        DType::Int8 => Dtype::I8,
        DType::UInt16 => Dtype::U16,
        DType::Int16 => Dtype::I16,
        DType::Float16 => Dtype::F16,
        DType::BFloat16 => Dtype::BF16,
        DType::UInt32 => Dtype::U32,
        DType::Int32 => Dtype::I32,
        DType::Float32 => Dtype::F32,
        DType::UInt64 => Dtype::U64,
        DType::Int64 => Dtype::I64,
        DType::Float64 => Dtype::F64,
        DType::Complex64 => Dtype::C64,
        DType::Float8E4M3Fn => Dtype::F8_E4M3,
        DType::Float8E5M2 => Dtype::F8_E5M2,
        DType::Float8E4M3FnUz => Dtype::F8_E4M3FNUZ,
        DType::Float8E5M2FnUz => Dtype::F8_E5M2FNUZ,
        DType::Float8E8M0Fnu => Dtype::F8_E8M0,
        _ => return None,
    })
}
