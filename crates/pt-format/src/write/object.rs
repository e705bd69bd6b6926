//! What can be written: plain values, containers, tensors.

use std::borrow::Cow;
use std::sync::Arc;

use crate::dtype::DType;
use crate::element::Element;
use crate::geometry;
use crate::write::{Error, Result};

/// A value to write.
#[derive(Clone, Debug)]
pub enum Object<'a> {
    /// `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(Cow<'a, str>),
    /// `list`.
    List(Vec<Object<'a>>),
    /// `tuple`.
    Tuple(Vec<Object<'a>>),
    /// `dict`, in this order.
    Dict(Vec<(Object<'a>, Object<'a>)>),
    /// A tensor.
    Tensor(Tensor<'a>),
}

impl<'a> Object<'a> {
    /// Makes a `dict`.
    pub fn dict<K: Into<Object<'a>>>(pairs: impl IntoIterator<Item = (K, Object<'a>)>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// Makes a `list`.
    pub fn list(items: impl IntoIterator<Item = Object<'a>>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// Makes a `tuple`.
    pub fn tuple(items: impl IntoIterator<Item = Object<'a>>) -> Self {
        Self::Tuple(items.into_iter().collect())
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident,)*) => {
        $(impl<'a> From<$type> for Object<'a> {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from! {
    bool => Bool,
    i32 => Int,
    i64 => Int,
    f64 => Float,
    &'a str => Str,
    String => Str,
    Tensor<'a> => Tensor,
}

/// A flat run of bytes that one or several tensors look into. Clones are the same storage.
#[derive(Clone, Debug)]
pub struct Storage<'a>(pub(crate) Arc<Content<'a>>);

#[derive(Debug)]
pub(crate) enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    Zeros(u64),
}

impl<'a> Storage<'a> {
    /// Takes bytes as a storage: little-endian elements.
    ///
    /// ```
    /// use pt_format::DType;
    /// use pt_format::write::{self, Object, Storage, Tensor};
    /// let storage = Storage::new((0u8..6).collect::<Vec<_>>());
    /// let all = Tensor::strided(DType::UInt8, &[6], &[1], 0, &storage)?;
    /// let odd = Tensor::strided(DType::UInt8, &[3], &[2], 1, &storage)?;
    /// let bytes = write::to_vec(&Object::list([all.into(), odd.into()]))?;
    /// # Ok::<(), write::Error>(())
    /// ```
    pub fn new(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self(Arc::new(Content::Bytes(bytes.into())))
    }

    /// Makes a storage of zeros that takes no memory, to reserve room in a file.
    pub fn zeros(bytes: u64) -> Self {
        Self(Arc::new(Content::Zeros(bytes)))
    }

    /// Returns its length in bytes.
    pub fn nbytes(&self) -> u64 {
        match &*self.0 {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(bytes) => *bytes,
        }
    }
}

/// A tensor to write: dtype, shape, stride and offset over a [`Storage`].
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    pub(crate) stride: Vec<u64>,
    pub(crate) storage_offset: u64,
    pub(crate) storage: Storage<'a>,
    pub(crate) requires_grad: bool,
    pub(crate) parameter: bool,
}

impl<'a> Tensor<'a> {
    /// Takes the elements of a contiguous tensor.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many elements as the shape says.
    pub fn new<T: Element>(shape: &[u64], elements: &'a [T]) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// Takes the bytes of a contiguous tensor, little-endian.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many bytes as the shape needs.
    pub fn from_bytes(dtype: DType, shape: &[u64], bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self> {
        let storage = Storage::new(bytes);
        let has = storage.nbytes();
        match geometry::numel(shape).and_then(|numel| numel.checked_mul(dtype.itemsize() as u64)) {
            Some(needs) if needs == has => {
                Self::strided(dtype, shape, &geometry::contiguous_stride(shape), 0, &storage)
            }
            needs => {
                Err(Error::Length { shape: shape.to_vec(), dtype, needs: needs.unwrap_or(u64::MAX), has })
            }
        }
    }

    /// Looks into a storage: shape, stride and offset in elements.
    ///
    /// # Errors
    /// [`Error::OutOfStorage`] when the tensor leaves the storage, [`Error::Unsupported`] for quantized dtypes.
    pub fn strided(
        dtype: DType,
        shape: &[u64],
        stride: &[u64],
        storage_offset: u64,
        storage: &Storage<'a>,
    ) -> Result<Self> {
        let quantized =
            matches!(dtype, DType::QInt8 | DType::QUInt8 | DType::QInt32 | DType::QUInt4x2 | DType::QUInt2x4);
        if quantized {
            return Err(Error::Unsupported { dtype });
        }
        let end = match geometry::extent(shape, stride) {
            Some(0) => Some(0),
            extent => extent
                .and_then(|extent| extent.checked_add(storage_offset))
                .and_then(|elements| elements.checked_mul(dtype.itemsize() as u64)),
        };
        if end.is_none_or(|end| end > storage.nbytes()) {
            return Err(Error::OutOfStorage {
                shape: shape.to_vec(),
                stride: stride.to_vec(),
                offset: storage_offset,
                has: storage.nbytes(),
            });
        }
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            stride: stride.to_vec(),
            storage_offset,
            storage: storage.clone(),
            requires_grad: false,
            parameter: false,
        })
    }

    /// Sets `requires_grad`.
    #[must_use]
    pub fn requires_grad(self, requires_grad: bool) -> Self {
        Self { requires_grad, ..self }
    }

    /// Makes it a `torch.nn.Parameter`.
    #[must_use]
    pub fn parameter(self) -> Self {
        Self { parameter: true, ..self }
    }
}
