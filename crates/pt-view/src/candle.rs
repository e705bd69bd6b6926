//! Tensors of the crate `candle`, and models that take their weights from a file.

use std::borrow::Cow;

use candle_core::{Device, Error as CandleError, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use pt_format::DType;

use crate::error::{Error, Obstacle, Result};
use crate::mapping::Mapping;
use crate::view::TensorView;

impl Mapping {
    /// Returns what candle builds models from. Weights are read when the model asks for them, one by one and straight from
    /// the file's map; those that it does not ask for stay on disk.
    ///
    /// Names are those of the index, so that a state dict under a key is found below it: `builder.pp("state_dict")`. Weights
    /// of another dtype are cast, as candle's own backends do.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # let weight = Tensor::new::<f32>(&[1, 2], &[2.0, 3.0])?;
    /// # let layer = Object::dict([("weight", weight.into()), ("bias", Tensor::new::<f32>(&[1], &[0.5])?.into())]);
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("fc", layer)]))?)?;
    /// use pt_view::candle_core::{self as candle, DType, Device};
    /// use pt_view::candle_nn::{self, Module};
    /// // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// let mapping = unsafe { pt_view::Mapping::open(&path)? };
    /// let weights = mapping.var_builder(DType::F32, &Device::Cpu);
    /// let layer = candle_nn::linear(2, 1, weights.pp("fc"))?;
    /// let output = layer.forward(&candle::Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?)?;
    /// assert_eq!(output.to_vec2::<f32>()?, [[5.5]]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn var_builder(&self, dtype: candle_core::DType, device: &Device) -> VarBuilder<'_> {
        VarBuilder::from_backend(Box::new(Weights { mapping: self }), dtype, device.clone())
    }
}

impl TensorView<'_> {
    /// Copies the elements into a tensor of candle; `bool` becomes `u8`, which candle has instead.
    ///
    /// # Errors
    /// As [`Self::to_bytes`], and [`Obstacle::NotInCandle`] for a dtype candle has no type for; what candle says.
    pub fn to_candle(&self, device: &Device) -> candle_core::Result<Tensor> {
        let (dtype, shape, bytes) = self.for_candle().map_err(CandleError::wrap)?;
        Tensor::from_raw_buffer(&bytes, dtype, &shape, device)
    }

    fn for_candle(&self) -> Result<(candle_core::DType, Vec<usize>, Cow<'_, [u8]>)> {
        let dtype = self.dtype().ok_or_else(|| self.refused(Obstacle::NoData("its dtype is unknown")))?;
        let name = name_of(dtype).ok_or_else(|| self.refused(Obstacle::NotInCandle(dtype)))?;
        let bytes = match self.as_bytes() {
            Ok(bytes) => Cow::Borrowed(bytes),
            Err(_) => Cow::Owned(self.to_bytes()?),
        };
        let shape = self.shape().unwrap_or_default().iter().map(|&size| usize::try_from(size));
        let shape = shape.collect::<Result<_, _>>();
        Ok((name, shape.map_err(|_| self.refused(Obstacle::TooLarge(u64::MAX)))?, bytes))
    }
}

/// The weights of a model, as candle asks for them.
struct Weights<'m> {
    mapping: &'m Mapping,
}

impl Weights<'_> {
    fn tensor(&self, name: &str) -> candle_core::Result<TensorView<'_>> {
        self.mapping.tensor(name).map_err(|error| match error {
            Error::NoSuchTensor { name, .. } => CandleError::CannotFindTensor { path: name }.bt(),
            other => CandleError::wrap(other),
        })
    }
}

impl SimpleBackend for Weights<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: candle_core::DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.tensor(name)?;
        let found = tensor.shape().unwrap_or_default();
        // Before anything is read.
        if !found.iter().copied().eq(shape.dims().iter().map(|&size| size as u64)) {
            return Err(CandleError::UnexpectedShape {
                msg: format!("shape mismatch for {name}"),
                expected: shape,
                got: found.iter().map(|&size| size as usize).collect::<Vec<_>>().into(),
            }
            .bt());
        }
        tensor.to_candle(device)?.to_dtype(dtype)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: candle_core::DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.tensor(name)?.to_candle(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.mapping.tensor(name).is_ok()
    }
}

/// Returns what candle calls a dtype.
fn name_of(dtype: DType) -> Option<candle_core::DType> {
    Some(match dtype {
        DType::Bool | DType::UInt8 => candle_core::DType::U8,
        DType::UInt32 => candle_core::DType::U32,
        DType::Int16 => candle_core::DType::I16,
        DType::Int32 => candle_core::DType::I32,
        DType::Int64 => candle_core::DType::I64,
        DType::BFloat16 => candle_core::DType::BF16,
        DType::Float16 => candle_core::DType::F16,
        DType::Float32 => candle_core::DType::F32,
        DType::Float64 => candle_core::DType::F64,
        DType::Float8E4M3Fn => candle_core::DType::F8E4M3,
        DType::Float8E8M0Fnu => candle_core::DType::F8E8M0,
        _ => return None,
    })
}
