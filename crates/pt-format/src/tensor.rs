//! Tensors and storages as the file describes them.

use std::fmt;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::container::Record;
use crate::dtype::DType;
use crate::fault::Fault;
use crate::geometry;
use crate::pickle::{NodeId, Raw, Value};
use crate::rebuild::{Component, write_component};

/// How a tensor's elements are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Layout {
    /// Shape and stride over one storage.
    Strided = 0,
    /// Coordinates: parts `#indices`, `#values`.
    SparseCoo = 1,
    /// Compressed rows: parts `#crow_indices`, `#col_indices`, `#values`.
    SparseCsr = 2,
    /// Compressed columns: parts `#ccol_indices`, `#row_indices`, `#values`.
    SparseCsc = 3,
    /// Compressed rows of blocks.
    SparseBsr = 4,
    /// Compressed columns of blocks.
    SparseBsc = 5,
    /// Nested: parts `#buffer`, `#sizes`, `#strides`, `#offsets`.
    NestedStrided = 6,
    /// Nested, jagged: parts `#values`, `#offsets` and perhaps `#lengths`.
    NestedJagged = 7,
    /// A wrapper subclass: no bytes of its own, parts under their attribute names.
    Wrapper = 8,
    /// A tensor of a distributed checkpoint in several chunks: no bytes of its own, parts under their positions in the whole, such
    /// as `#[0, 4]`.
    Chunked = 9,
}

impl Layout {
    /// Returns the name used by PyTorch (`strided`, `sparse_coo`, …) or, for nested and wrapper tensors, ours.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strided => "strided",
            Self::SparseCoo => "sparse_coo",
            Self::SparseCsr => "sparse_csr",
            Self::SparseCsc => "sparse_csc",
            Self::SparseBsr => "sparse_bsr",
            Self::SparseBsc => "sparse_bsc",
            Self::NestedStrided => "nested_strided",
            Self::NestedJagged => "nested_jagged",
            Self::Wrapper => "wrapper",
            Self::Chunked => "chunked",
        }
    }

    /// Returns the layout with this number, the inverse of `layout as u8`.
    #[inline]
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::Strided,
            Self::SparseCoo,
            Self::SparseCsr,
            Self::SparseCsc,
            Self::SparseBsr,
            Self::SparseBsc,
            Self::NestedStrided,
            Self::NestedJagged,
            Self::Wrapper,
            Self::Chunked,
        ]
        .get(usize::from(code))
        .copied()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Yes-or-no properties of a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub(crate) u16);

impl Flags {
    /// `requires_grad` was set.
    pub const REQUIRES_GRAD: Self = Self(1);
    /// The tensor is a `torch.nn.Parameter`.
    pub const PARAMETER: Self = Self(1 << 1);
    /// The logical values are the complex conjugates of the stored ones.
    pub const CONJ: Self = Self(1 << 2);
    /// The logical values are the negatives of the stored ones.
    pub const NEG: Self = Self(1 << 3);
    /// Integers with a scale and a zero point.
    pub const QUANTIZED: Self = Self(1 << 4);
    /// No bytes anywhere: a tensor of the `meta` device, or one that a module was traced with, of which torch keeps the
    /// shape alone.
    pub const META: Self = Self(1 << 5);
    /// A part of a composite (sparse, quantized, nested, wrapper) tensor.
    pub const PART: Self = Self(1 << 6);
    /// A numpy array or scalar, not a tensor.
    pub const NUMPY: Self = Self(1 << 7);
    /// The bytes are in the other order than those of the file's storages: numpy arrays have one of their own.
    pub const SWAPPED: Self = Self(1 << 8);

    /// Returns whether all of `other` are set.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits, for storing.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Returns the flags with these bits, unknown ones dropped.
    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits & 0x1FF)
    }

    pub(crate) fn set(&mut self, other: Self, on: bool) {
        if on {
            self.0 |= other.0;
        } else {
            self.0 &= !other.0;
        }
    }
}

/// How integers of a quantized tensor become numbers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Quantizer {
    /// One scale and zero point for all elements.
    PerTensor {
        /// `torch.per_tensor_affine` or its symmetric kin, without `torch.`.
        scheme: String,
        /// Factor of (integer - zero point).
        scale: f64,
        /// Integer that stands for 0.
        zero_point: i64,
    },
    /// One scale and zero point for each index of a dimension; they are the parts `#scales` and `#zero_points`.
    PerChannel {
        /// `torch.per_channel_affine` or its kin, without `torch.`.
        scheme: String,
        /// The dimension.
        axis: u64,
    },
}

/// A storage: a flat run of bytes that tensors look into.
#[derive(Clone, Debug)]
pub(crate) struct StorageRow {
    pub(crate) name: StorageName,
    pub(crate) bytes: u64,
    pub(crate) record: Option<Record>,
    pub(crate) fault: Option<Box<Fault>>,
}

/// How the file speaks of a storage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StorageName {
    /// By a persistent id, this one first: `("storage", class, key, location, element count)`.
    Id(Raw),
    /// Not at all: the bytes belong to an array, or stand where a storage is made of them.
    Buffer { numel: u64 },
}

/// One row of the tensor list.
#[derive(Clone, Debug)]
pub(crate) struct TensorRow {
    pub(crate) name_start: u32,
    pub(crate) name_bytes: u32,
    pub(crate) step: u32,
    pub(crate) dims_start: u32,
    /// `None` for nested tensors, which have no single shape.
    pub(crate) rank: Option<u16>,
    pub(crate) dtype: Option<DType>,
    pub(crate) layout: Layout,
    pub(crate) flags: Flags,
    pub(crate) storage: Option<u32>,
    pub(crate) storage_offset: u64,
    pub(crate) alias_of: Option<u32>,
    /// Class of a tensor subclass.
    pub(crate) class: Option<NodeId>,
    pub(crate) details: Option<Arc<Details>>,
}

/// What few tensors have. Aliases share that of the tensor they are another name of.
#[derive(Debug, Default)]
pub(crate) struct Details {
    pub(crate) fault: Option<Fault>,
    pub(crate) quantizer: Option<Quantizer>,
    pub(crate) coalesced: Option<bool>,
    pub(crate) state: Option<Raw>,
    pub(crate) parts: Vec<(Component, Raw)>,
}

/// A tensor of a [`Checkpoint`]: a window into a storage.
///
/// ```
/// use pt_format::{Checkpoint, Limits, write};
/// let object = write::Object::dict([("w", write::Tensor::new::<f32>(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?.into())]);
/// let bytes = write::to_vec(&object)?;
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
/// let tensor = checkpoint.tensor("w").unwrap();
/// assert_eq!(tensor.shape(), Some(&[2, 2][..]));
/// assert_eq!(tensor.stride(), Some(&[2, 1][..]));
/// assert_eq!(tensor.storage().unwrap().data_offset().unwrap() % 64, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Tensor<'c> {
    pub(crate) checkpoint: &'c Checkpoint<'c>,
    pub(crate) index: u32,
}

impl<'c> Tensor<'c> {
    fn row(&self) -> &'c TensorRow {
        &self.checkpoint.tensors[self.index as usize]
    }

    fn details(&self) -> Option<&'c Details> {
        self.row().details.as_deref()
    }

    /// Returns the number of the tensor in its checkpoint, in file order.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// Returns the path through the object tree joined with dots; for a pickled `nn.Module` it equals the
    /// `state_dict()` key. Text that is not valid Unicode is shown with replacement characters.
    pub fn name(&self) -> &'c str {
        let row = self.row();
        &self.checkpoint.names[row.name_start as usize..(row.name_start + row.name_bytes) as usize]
    }

    /// Returns the path itself: dict keys, list positions, attributes, nothing elided.
    pub fn path(&self) -> Vec<String> {
        self.checkpoint.path_of(self.row().step)
    }

    /// Returns whether the path is one component that shows in the name as it is.
    pub fn is_top_level(&self) -> bool {
        let step = &self.checkpoint.steps[self.row().step as usize];
        self.row().step != 0 && step.parent == 0 && !step.elided
    }

    /// Returns the dtype; `None` when the file's is unknown.
    pub fn dtype(&self) -> Option<DType> {
        self.row().dtype
    }

    /// Returns the sizes in elements; `None` for nested tensors and where the file's are malformed.
    pub fn shape(&self) -> Option<&'c [u64]> {
        let row = self.row();
        let start = row.dims_start as usize;
        Some(&self.checkpoint.dims[start..start + usize::from(row.rank?)])
    }

    /// Returns the strides in elements; `None` where there are none (sparse, nested).
    pub fn stride(&self) -> Option<&'c [u64]> {
        let row = self.row();
        if !matches!(row.layout, Layout::Strided | Layout::Wrapper) {
            return None;
        }
        let rank = usize::from(row.rank?);
        let start = row.dims_start as usize + rank;
        Some(&self.checkpoint.dims[start..start + rank])
    }

    /// Returns the position of the first element in the storage, in elements of the tensor's dtype.
    pub fn storage_offset(&self) -> u64 {
        self.row().storage_offset
    }

    /// Returns the number of elements, if shape and number are known.
    pub fn numel(&self) -> Option<u64> {
        geometry::numel(self.shape()?)
    }

    /// Returns the layout.
    pub fn layout(&self) -> Layout {
        self.row().layout
    }

    /// Returns the yes-or-no properties.
    pub fn flags(&self) -> Flags {
        self.row().flags
    }

    /// Returns whether `requires_grad` was set.
    pub fn requires_grad(&self) -> bool {
        self.flags().contains(Flags::REQUIRES_GRAD)
    }

    /// Returns the storage the tensor looks into; composite and meta tensors have none.
    pub fn storage(&self) -> Option<Storage<'c>> {
        self.row().storage.map(|index| Storage { checkpoint: self.checkpoint, index })
    }

    /// Returns the earlier tensor that is the very same object, if this is another name of it.
    pub fn alias_of(&self) -> Option<Tensor<'c>> {
        self.row().alias_of.map(|index| Tensor { checkpoint: self.checkpoint, index })
    }

    /// Returns the Python class of a tensor subclass.
    pub fn class(&self) -> Option<String> {
        self.checkpoint.tree.global_name(self.row().class?)
    }

    /// Returns scale and zero point of a quantized tensor.
    pub fn quantizer(&self) -> Option<&'c Quantizer> {
        self.details()?.quantizer.as_ref()
    }

    /// Returns whether a sparse COO tensor is coalesced, where the file says.
    pub fn is_coalesced(&self) -> Option<bool> {
        self.details()?.coalesced
    }

    /// Returns the Python state that was saved with the tensor: usually a dict of attributes, for classes with slots a
    /// pair of dicts.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Tensor::new::<u8>(&[1], &[7])?.into())?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// assert!(checkpoint.tensors().next().unwrap().state().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state(&self) -> Option<Value<'c>> {
        let raw = self.details()?.state?;
        Some(Value { checkpoint: self.checkpoint, raw })
    }

    /// Returns what a composite tensor is made of, with the components that name the parts: `#indices` and `#values`
    /// of a sparse tensor, `#scales` of a quantized one, the attributes of a wrapper subclass.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Tensor::new::<u8>(&[1], &[7])?.into())?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// assert_eq!(checkpoint.tensors().next().unwrap().parts().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parts(&self) -> impl Iterator<Item = (String, Value<'c>)> + use<'c> {
        let checkpoint = self.checkpoint;
        let parts = self.details().map_or(&[][..], |details| &details.parts);
        let parts = parts.iter().map(move |&(component, raw)| {
            let mut name = String::new();
            write_component(&checkpoint.tree, component, &mut name);
            (name, Value { checkpoint, raw })
        });
        let state = self.state().filter(|_| self.layout() == Layout::Wrapper);
        let attributes = state.into_iter().flat_map(Value::state_pairs);
        parts.chain(attributes.map(|(key, value)| (key.component(), value)))
    }

    /// Returns why the tensor cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'c Fault> {
        let own = self.details().and_then(|details| details.fault.as_ref());
        own.or_else(|| self.storage()?.fault())
    }

    /// Returns whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        match (self.shape(), self.stride()) {
            (Some(shape), Some(stride)) => geometry::is_contiguous(shape, stride),
            _ => false,
        }
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .field("stride", &self.stride())
            .field("storage_offset", &self.storage_offset())
            .field("fault", &self.fault())
            .finish_non_exhaustive()
    }
}

/// A storage of a [`Checkpoint`]: a flat run of bytes, in the file or inflated from it.
#[derive(Clone, Copy)]
pub struct Storage<'c> {
    pub(crate) checkpoint: &'c Checkpoint<'c>,
    pub(crate) index: u32,
}

impl<'c> Storage<'c> {
    fn row(&self) -> &'c StorageRow {
        &self.checkpoint.storages[self.index as usize]
    }

    /// Returns a field of the persistent id, `None` where there is no id.
    fn field(&self, index: usize) -> Option<Value<'c>> {
        let StorageName::Id(pid) = self.row().name else { return None };
        let fields = pid.node().map(|node| self.checkpoint.tree.args(node)).unwrap_or_default();
        let raw = fields.get(index).copied().unwrap_or(Raw::None);
        Some(Value { checkpoint: self.checkpoint, raw })
    }

    /// Returns the number of the storage in its checkpoint.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// Returns the key that names it in the file; empty for those without a name, which lie in the pickle itself: of numpy
    /// arrays and of tensors that are lists of numbers.
    pub fn key(&self) -> String {
        self.field(2).map_or_else(String::new, Value::component)
    }

    /// Returns the Python storage class, such as `torch.FloatStorage`; empty where there is no key.
    pub fn class(&self) -> String {
        self.field(1).and_then(Value::as_global).unwrap_or_default()
    }

    /// Returns the device it was saved from, such as `cuda:0`. It does not affect the bytes.
    pub fn location(&self) -> String {
        self.field(3).map_or_else(|| "cpu".into(), Value::component)
    }

    /// Returns the elements of the storage class (bytes, for untyped storages), or of the array it belongs to.
    pub fn numel(&self) -> u64 {
        match self.row().name {
            StorageName::Buffer { numel } => numel,
            StorageName::Id(_) => self.field(4).and_then(Value::as_i64).map_or(0, i64::unsigned_abs),
        }
    }

    /// Returns its length in bytes, decoded.
    pub fn nbytes(&self) -> u64 {
        self.row().bytes
    }

    /// Returns the absolute file offset of its first byte; `None` when it is compressed or cannot be read.
    pub fn data_offset(&self) -> Option<u64> {
        self.record().filter(Record::is_stored).map(|record| record.data_offset)
    }

    /// Returns where its bytes lie, compressed or not; `None` when the file has no place for them.
    pub fn record(&self) -> Option<Record> {
        self.row().record
    }

    /// Returns why it cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'c Fault> {
        self.row().fault.as_deref()
    }
}

impl fmt::Debug for Storage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("key", &self.key())
            .field("class", &self.class())
            .field("nbytes", &self.nbytes())
            .field("data_offset", &self.data_offset())
            .field("fault", &self.fault())
            .finish_non_exhaustive()
    }
}
