//! Tensors and storages of a file of an index.

use std::fmt;

use pt_format::{ByteOrder, DType, Flags, Layout, Quantizer, Record, geometry};

use crate::index::{FileEntry, Index};
use crate::layout::*;

/// A tensor of an index.
#[derive(Clone, Copy)]
pub struct TensorEntry<'i> {
    file: FileEntry<'i>,
    local: u32,
    data: &'i TensorRow,
}

impl<'i> TensorEntry<'i> {
    #[inline]
    pub(super) fn new(file: FileEntry<'i>, local: u32, data: &'i TensorRow) -> Self {
        Self { file, local, data }
    }

    pub(super) fn name_id(&self) -> u32 {
        self.data.name
    }

    fn index(&self) -> &'i Index {
        self.file.index()
    }

    /// Returns the number of the tensor in its index.
    #[inline]
    pub fn row(&self) -> usize {
        let schema = self.file.schema_row_data();
        self.file.number_in_index(schema.tensors_before, schema.tensors_count, self.local)
    }

    /// Returns the number of the tensor in its file.
    #[inline]
    pub fn number(&self) -> usize {
        self.local as usize
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'i str {
        self.index().string(self.data.name)
    }

    /// Returns the path: dict keys, list positions, attributes, nothing elided.
    pub fn path(&self) -> Vec<&'i str> {
        let index = self.index();
        match self.data.path_count {
            0 if self.data.path == NONE => Vec::new(),
            0 => vec![self.name()],
            count => {
                let parts = index.rows::<u32>(Kind::PathParts, self.data.path, count.into());
                parts.iter().map(|&id| index.string(id)).collect()
            }
        }
    }

    /// Returns the file the tensor is in.
    #[inline]
    pub fn file(&self) -> FileEntry<'i> {
        self.file
    }

    /// Returns the dtype; `None` when the file's is unknown.
    #[inline]
    pub fn dtype(&self) -> Option<DType> {
        DType::from_code(self.data.dtype)
    }

    /// Returns the sizes in elements; `None` for nested tensors.
    #[inline]
    pub fn shape(&self) -> Option<&'i [u64]> {
        match self.data.rank {
            NO_RANK => None,
            rank => self.dims().get(..rank.into()),
        }
    }

    /// Returns the strides in elements; `None` where there are none (sparse, nested).
    #[inline]
    pub fn stride(&self) -> Option<&'i [u64]> {
        match self.data.has_stride {
            0 => None,
            _ => self.dims().get(self.data.rank.into()..),
        }
    }

    /// Returns whether files of this schema differ in the tensor's sizes or strides. If not, one file speaks for all.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// let mut builder = pt_index::IndexBuilder::default();
    /// for length in [2, 3] {
    ///     let values = vec![7u8; length];
    ///     let object = write::Object::dict([
    ///         ("fixed", write::Tensor::new(&[1], &[7u8])?.into()),
    ///         ("ragged", write::Tensor::new(&[length as u64], &values)?.into()),
    ///     ]);
    ///     let bytes = write::to_vec(&object)?;
    ///     let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    ///     builder.add(&format!("{length}.pt"), Default::default(), &checkpoint)?;
    /// }
    /// let index = builder.finish()?;
    /// let varies = |name| index.find_tensor(name).unwrap().shape_varies();
    /// assert_eq!((varies("fixed"), varies("ragged")), (false, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shape_varies(&self) -> bool {
        self.data.varying_mask & TensorRow::DIMS != 0
    }

    /// Sizes, then strides.
    #[inline(always)]
    pub(crate) fn dims(&self) -> &'i [u64] {
        let count = self.data.dims_count();
        let TensorRow { varying, varying_mask, dims, .. } = *self.data;
        match varying_mask & TensorRow::DIMS {
            0 => self.index().rows(Kind::Dims, dims, count as u32),
            _ => self.own_dims(varying, varying_mask, count),
        }
    }

    fn own_dims(&self, varying: u32, varying_mask: u32, count: usize) -> &'i [u64] {
        let place = self.file.varying(varying, varying_mask, TensorRow::DIMS.trailing_zeros());
        let start = place.map_or(usize::MAX, |place| place.offset as usize);
        bytemuck::try_cast_slice(self.file.own_bytes(start, 8 * count)).unwrap_or_default()
    }

    /// Returns the position of the first element in the storage, in elements.
    #[inline]
    pub fn storage_offset(&self) -> u64 {
        self.file.number_of(self.data.storage_offset, self.data.varying, self.data.varying_mask, 0)
    }

    /// Returns the number of elements, if shape and number are known.
    pub fn numel(&self) -> Option<u64> {
        geometry::numel(self.shape()?)
    }

    /// Returns the bytes of the logical elements: what a contiguous copy takes. `None` where there is no shape or dtype.
    #[inline]
    pub fn nbytes(&self) -> Option<u64> {
        geometry::nbytes(self.dtype()?, self.shape()?)
    }

    /// Returns the layout.
    #[inline]
    pub fn layout(&self) -> Layout {
        Layout::from_code(self.data.layout).unwrap_or(Layout::Wrapper)
    }

    /// Returns the yes-or-no properties.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags::from_bits(self.data.flags)
    }

    /// Returns whether `requires_grad` was set.
    pub fn requires_grad(&self) -> bool {
        self.flags().contains(Flags::REQUIRES_GRAD)
    }

    /// Returns the storage the tensor looks into; composite and meta tensors have none.
    #[inline]
    pub fn storage(&self) -> Option<StorageEntry<'i>> {
        let data = self.file.storage_rows().get(self.data.storage as usize)?;
        Some(StorageEntry::new(self.file, self.data.storage, data))
    }

    /// Returns what reading the usual tensor takes, all at once. `None` for any other, of which the methods say more: one with
    /// a fault, without shape, stride or place in the file, compressed, big-endian, conjugate or negative.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Tensor::new::<u8>(&[2], &[7, 8])?.into())?;
    /// let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default())?)?;
    /// let usual = index.tensor(0).unwrap().usual().unwrap();
    /// assert_eq!((usual.shape, usual.storage_bytes), (&[2][..], 2));
    /// assert_eq!(bytes[usual.data_offset as usize..][..2], [7, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn usual(&self) -> Option<UsualTensor<'i>> {
        const ODD: [Flags; 4] = [Flags::META, Flags::CONJ, Flags::NEG, Flags::SWAPPED];
        let (data, file) = (self.data, &self.file);
        let (shape, stride) = self.dims().split_at_checked(data.rank.into())?;
        let storage = file.storage_rows().get(data.storage as usize)?;
        let flags = self.flags();
        let is_usual = [data.fault, storage.fault] == [NONE; 2]
            && data.layout == Layout::Strided as u8
            && data.has_stride != 0
            && storage.method == 0
            && !ODD.into_iter().any(|odd| flags.contains(odd))
            && file.byte_order() == ByteOrder::Little;
        if !is_usual {
            return None;
        }
        // Without the copy of `self.file` that a `StorageEntry` is: that costs more than the rest.
        let number = |base, position| file.number_of(base, storage.varying, storage.varying_mask, position);
        let schema = file.schema_row_data();
        let data_offset = number(storage.data_offset, 0);
        (data_offset != NO_OFFSET).then_some(UsualTensor {
            dtype: self.dtype()?,
            shape,
            stride,
            storage_offset: self.storage_offset(),
            storage: file.number_in_index(schema.storages_before, schema.storages_count, data.storage),
            data_offset,
            storage_bytes: number(storage.bytes, 3),
        })
    }

    /// Returns the earlier tensor that is the very same object.
    pub fn alias_of(&self) -> Option<TensorEntry<'i>> {
        self.file.tensor_at(self.data.alias_of as usize)
    }

    /// Returns the Python class of a tensor subclass.
    pub fn class(&self) -> Option<&'i str> {
        self.index().optional_string(self.data.class)
    }

    /// Returns scale and zero point of a quantized tensor.
    pub fn quantizer(&self) -> Option<Quantizer> {
        let rows = self.index().section::<QuantizerRow>(Kind::Quantizers);
        let row = rows.get(self.data.quantizer as usize)?;
        let scheme = self.index().string(row.scheme).to_owned();
        Some(match row.per_channel {
            0 => {
                Quantizer::PerTensor { scheme, scale: f64::from_bits(row.scale), zero_point: row.zero_point }
            }
            _ => Quantizer::PerChannel { scheme, axis: row.zero_point as u64 },
        })
    }

    /// Returns why the tensor cannot be read, if it cannot.
    #[inline]
    pub fn fault(&self) -> Option<&'i str> {
        let own = self.index().optional_string(self.data.fault);
        own.or_else(|| self.index().optional_string(self.storage()?.data.fault))
    }

    /// Returns whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        match (self.shape(), self.stride()) {
            (Some(shape), Some(stride)) => geometry::is_contiguous(shape, stride),
            _ => false,
        }
    }
}

impl fmt::Debug for TensorEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorEntry")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .field("stride", &self.stride())
            .finish_non_exhaustive()
    }
}

/// A tensor whose bytes stand in the file as they are in memory; see [`TensorEntry::usual`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UsualTensor<'i> {
    /// The dtype.
    pub dtype: DType,
    /// Sizes in elements.
    pub shape: &'i [u64],
    /// Strides in elements.
    pub stride: &'i [u64],
    /// Position of the first element in the storage, in elements.
    pub storage_offset: u64,
    /// Number of the storage in the index.
    pub storage: usize,
    /// First byte of the storage in the file.
    pub data_offset: u64,
    /// Bytes of the storage.
    pub storage_bytes: u64,
}

/// A storage of an index.
#[derive(Clone, Copy)]
pub struct StorageEntry<'i> {
    file: FileEntry<'i>,
    local: u32,
    data: &'i StorageRow,
}

impl<'i> StorageEntry<'i> {
    #[inline]
    pub(super) fn new(file: FileEntry<'i>, local: u32, data: &'i StorageRow) -> Self {
        Self { file, local, data }
    }

    /// Returns the number of the storage in its index.
    #[inline]
    pub fn row(&self) -> usize {
        let schema = self.file.schema_row_data();
        self.file.number_in_index(schema.storages_before, schema.storages_count, self.local)
    }

    #[inline]
    fn number(&self, base: u64, position: u32) -> u64 {
        self.file.number_of(base, self.data.varying, self.data.varying_mask, position)
    }

    /// The row with the numbers of this file.
    #[inline]
    pub(crate) fn data(&self) -> StorageRow {
        let data = self.data;
        StorageRow {
            data_offset: self.number(data.data_offset, 0),
            header_offset: self.number(data.header_offset, 1),
            packed_bytes: self.number(data.packed_bytes, 2),
            bytes: self.number(data.bytes, 3),
            crc32: self.number(data.crc32, 4),
            name_hash: self.number(data.name_hash, 5),
            ..*data
        }
    }

    /// Returns its length in bytes, decoded.
    #[inline]
    pub fn nbytes(&self) -> u64 {
        self.number(self.data.bytes, 3)
    }

    /// Returns where its bytes lie; `None` when the file has no place for them.
    #[inline]
    pub fn record(&self) -> Option<Record> {
        let data = self.data();
        (data.data_offset != NO_OFFSET).then_some(Record {
            header_offset: Some(data.header_offset).filter(|&offset| offset != NO_OFFSET),
            data_offset: data.data_offset,
            packed_bytes: data.packed_bytes,
            bytes: data.bytes,
            method: data.method as u16,
            crc32: data.crc32 as u32,
            name_hash: data.name_hash as u32,
        })
    }

    /// Returns why it cannot be read, if it cannot.
    #[inline]
    pub fn fault(&self) -> Option<&'i str> {
        self.file.index().optional_string(self.data.fault)
    }
}
