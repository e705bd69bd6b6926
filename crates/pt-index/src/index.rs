//! Reading an index in place.

use std::fmt;

use bytemuck::Pod;
use bytes::Bytes;
use pt_format::{ByteOrder, DType, Fingerprint, Flags, Layout, Quantizer, Record, geometry};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::layout::*;

/// An index over one or many files: a run of bytes, read in place.
///
/// Opening checks header and section table; [`Self::verify`] checks everything. Rows that point outside the index read
/// as absent, and views check every offset again before they hand out bytes.
///
/// ```
/// use pt_format::{Checkpoint, Limits, write};
/// let object = write::Object::dict([
///     ("x", write::Tensor::new::<f32>(&[2], &[1.0, 2.0])?.into()),
///     ("y", 3.into()),
/// ]);
/// let bytes = write::to_vec(&object)?;
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
///
/// let index = pt_index::index_of(&checkpoint)?;
/// let again = pt_index::Index::from_bytes(index.as_bytes().to_vec())?;
/// let file = again.file(0).unwrap();
/// assert_eq!(file.tensor("x").unwrap().shape(), Some(&[2][..]));
/// assert_eq!(file.leaf("y"), Some(pt_index::Leaf::Int(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Index {
    bytes: Bytes,
    sections: [(usize, usize); Kind::COUNT],
}

impl Index {
    /// Takes the bytes of an index and checks their header. The work does not grow with the content, except that bytes
    /// which are not 8-aligned in memory are copied (a mapped file always is aligned).
    ///
    /// # Errors
    /// [`Error::NotAnIndex`], [`Error::Version`] or [`Error::Damaged`].
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = aligned(bytes.into());
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::NotAnIndex("it is shorter than a header"));
        };
        if &header[..MAGIC.len()] != MAGIC {
            return Err(Error::NotAnIndex("its first bytes are not `PTVIEWIX`"));
        }
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u64_at = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let major = u16_at(MAJOR_OFFSET);
        if major != VERSION_MAJOR {
            return Err(Error::Version { found: major, supported: VERSION_MAJOR });
        }
        let count = u64_at(SECTION_COUNT_OFFSET) as u32 as usize;
        if u64_at(LENGTH_OFFSET) != bytes.len() as u64 {
            return Err(damaged(LENGTH_OFFSET, "its length is not the one it was written with"));
        }
        let table = HEADER_BYTES..HEADER_BYTES.saturating_add(count.saturating_mul(size_of::<SectionRow>()));
        let table_bytes = bytes.get(table).ok_or(damaged(SECTION_COUNT_OFFSET, "too many sections"))?;
        let mut hasher = Xxh3::new();
        hasher.update(&header[..CHECKSUM_OFFSET]);
        hasher.update(table_bytes);
        if hasher.digest() != u64_at(CHECKSUM_OFFSET) {
            return Err(damaged(CHECKSUM_OFFSET, "checksum of header and section table differs"));
        }
        let mut sections = [(0, 0); Kind::COUNT];
        for row in rows::<SectionRow>(table_bytes) {
            let end = row.offset.checked_add(row.length);
            if row.offset % 8 != 0 || end.is_none_or(|end| end > bytes.len() as u64) {
                return Err(damaged(HEADER_BYTES, "a section lies outside the index"));
            }
            // Sections of newer minor versions are passed over.
            if let Some(section) = sections.get_mut(row.kind as usize) {
                *section = (row.offset as usize, row.length as usize);
            }
        }
        Ok(Self { bytes, sections })
    }

    /// Returns the bytes of the index, to write to a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks every section against its checksum, and that rows and strings lie inside the index.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first place that is wrong.
    pub fn verify(&self) -> Result<()> {
        let count =
            self.bytes[SECTION_COUNT_OFFSET..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b)) as usize;
        let table = &self.bytes[HEADER_BYTES..HEADER_BYTES + count * size_of::<SectionRow>()];
        for row in rows::<SectionRow>(table) {
            let content = &self.bytes[row.offset as usize..(row.offset + row.length) as usize];
            if xxh3_64(content) != row.checksum {
                return Err(damaged(row.offset as usize, "checksum of a section differs"));
            }
        }
        Ok(())
    }

    fn section<T: Pod>(&self, kind: Kind) -> &[T] {
        rows(self.section_bytes(kind))
    }

    fn section_bytes(&self, kind: Kind) -> &[u8] {
        let (start, length) = self.sections[kind as usize];
        &self.bytes[start..start + length]
    }

    fn string(&self, id: u32) -> &str {
        self.string_bytes(id).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn string_bytes(&self, id: u32) -> Option<&[u8]> {
        let ends = self.section::<u64>(Kind::StringEnds);
        let end = *ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |before| ends[before]);
        self.section_bytes(Kind::StringBytes).get(start as usize..end as usize)
    }

    fn optional_string(&self, id: u32) -> Option<&str> {
        (id != NONE).then(|| self.string(id))
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileEntry<'_>> + Clone {
        (0..self.section::<FileRow>(Kind::Files).len()).map(|row| FileEntry { index: self, row: row as u32 })
    }

    /// Returns the file with this number.
    pub fn file(&self, row: usize) -> Option<FileEntry<'_>> {
        (row < self.section::<FileRow>(Kind::Files).len())
            .then_some(FileEntry { index: self, row: row as u32 })
    }

    /// Finds a file by its path relative to the index, with `/` between parts.
    pub fn find_file(&self, path: &str) -> Option<FileEntry<'_>> {
        let hash = xxh3_64(path.as_bytes());
        self.lookup(Kind::FileBuckets, Kind::FileSlots, hash)
            .find_map(|row| self.file(row as usize).filter(|file| file.path() == path))
    }

    /// Finds a tensor by its dotted name in any of the files; the first one where names collide. Asks every file: for the
    /// few shards of one checkpoint.
    pub fn find_tensor(&self, name: &str) -> Option<TensorEntry<'_>> {
        self.files().find_map(|file| file.tensor(name))
    }

    /// Returns the number of tensors of all files.
    pub fn tensor_count(&self) -> usize {
        self.section::<TensorRow>(Kind::Tensors).len()
    }

    /// Returns the tensor with this number, counted over all files.
    pub fn tensor(&self, row: usize) -> Option<TensorEntry<'_>> {
        let rows = self.section::<TensorRow>(Kind::Tensors);
        rows.get(row).map(|data| TensorEntry { index: self, row: row as u32, data })
    }

    /// Returns the number of storages of all files.
    pub fn storage_count(&self) -> usize {
        self.section::<StorageRow>(Kind::Storages).len()
    }

    /// Returns the rows whose hash ends as this one does.
    fn lookup(&self, buckets: Kind, slots: Kind, hash: u64) -> impl Iterator<Item = u32> {
        let buckets = self.section::<u32>(buckets);
        let slots = self.section::<Slot>(slots);
        let range = match buckets.len().checked_sub(1) {
            Some(count) if count.is_power_of_two() => {
                let bucket = bucket_of(hash, count);
                buckets[bucket] as usize..buckets[bucket + 1] as usize
            }
            _ => 0..0,
        };
        let here = slots.get(range).unwrap_or_default();
        here.iter().filter(move |slot| slot.hash == hash as u32).map(|slot| slot.row)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("files", &self.files().len())
            .field("tensors", &self.tensor_count())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// A file of an index.
#[derive(Clone, Copy)]
pub struct FileEntry<'i> {
    index: &'i Index,
    row: u32,
}

impl<'i> FileEntry<'i> {
    fn data(&self) -> &'i FileRow {
        &self.index.section::<FileRow>(Kind::Files)[self.row as usize]
    }

    /// Returns the number of the file in its index.
    pub fn row(&self) -> usize {
        self.row as usize
    }

    /// Returns the path relative to the folder of the index, with `/` between parts; empty in the sidecar of one file.
    pub fn path(&self) -> &'i str {
        self.index.string(self.data().path)
    }

    /// Returns size and time the file had when it was indexed.
    pub fn stamp(&self) -> Stamp {
        let data = self.data();
        Stamp { size: data.size, modified_ns: data.modified_ns }
    }

    /// Returns the digest of the bytes this row was computed from.
    pub fn fingerprint(&self) -> Fingerprint {
        let data = self.data();
        Fingerprint { digest: data.fingerprint, covers_content: data.flags & FILE_COVERS_CONTENT != 0 }
    }

    /// Returns the order of bytes inside the storages.
    pub fn byte_order(&self) -> ByteOrder {
        match self.data().flags & FILE_BIG_ENDIAN {
            0 => ByteOrder::Little,
            _ => ByteOrder::Big,
        }
    }

    /// Returns the tensors in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorEntry<'i>> + Clone + use<'i> {
        let (index, data) = (self.index, self.data());
        let start = data.tensors_start as usize;
        let rows = index.section::<TensorRow>(Kind::Tensors);
        let rows = rows.get(start..start.saturating_add(data.tensors_count as usize)).unwrap_or_default();
        rows.iter().enumerate().map(move |(at, data)| TensorEntry { index, row: (start + at) as u32, data })
    }

    /// Finds a tensor by its dotted name; the first one where names collide.
    pub fn tensor(&self, name: &str) -> Option<TensorEntry<'i>> {
        let hash = tensor_hash(self.row, name.as_bytes());
        let index = self.index;
        let same = |row| {
            let tensor = index.tensor(row as usize)?;
            (tensor.data.file == self.row && index.string_bytes(tensor.data.name)? == name.as_bytes())
                .then_some(tensor)
        };
        index.lookup(Kind::TensorBuckets, Kind::TensorSlots, hash).find_map(same)
    }

    /// Returns the plain scalars of the file with their dotted names.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (&'i str, Leaf<'i>)> + use<'i> {
        let (index, data) = (self.index, self.data());
        let start = data.leaves_start as usize;
        let rows = index.section::<LeafRow>(Kind::Leaves);
        let rows = rows.get(start..start.saturating_add(data.leaves_count as usize)).unwrap_or_default();
        rows.iter().map(move |row| (index.string(row.name), Leaf::of(index, row)))
    }

    /// Finds a plain scalar by its dotted name.
    pub fn leaf(&self, name: &str) -> Option<Leaf<'i>> {
        self.leaves().find(|(leaf, _)| *leaf == name).map(|(_, leaf)| leaf)
    }
}

impl fmt::Debug for FileEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileEntry")
            .field("path", &self.path())
            .field("tensors", &self.tensors().len())
            .finish()
    }
}

/// A plain scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Leaf<'i> {
    /// `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(&'i str),
}

impl<'i> Leaf<'i> {
    fn of(index: &'i Index, row: &LeafRow) -> Self {
        match row.kind {
            LEAF_BOOL => Self::Bool(row.value != 0),
            LEAF_INT => Self::Int(row.value as i64),
            LEAF_FLOAT => Self::Float(f64::from_bits(row.value)),
            LEAF_STR => Self::Str(index.string(row.value as u32)),
            _ => Self::None,
        }
    }
}

/// A tensor of an index.
#[derive(Clone, Copy)]
pub struct TensorEntry<'i> {
    index: &'i Index,
    row: u32,
    data: &'i TensorRow,
}

impl<'i> TensorEntry<'i> {
    /// Returns the number of the tensor in its index.
    pub fn row(&self) -> usize {
        self.row as usize
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'i str {
        self.index.string(self.data.name)
    }

    /// Returns the path: dict keys, list positions, attributes, nothing elided.
    pub fn path(&self) -> Vec<&'i str> {
        let start = self.data.path_start as usize;
        let parts = self.index.section::<u32>(Kind::PathParts);
        match self.data.path_count {
            0 if self.data.path_start == NONE => Vec::new(),
            0 => vec![self.name()],
            count => {
                let parts = parts.get(start..start + usize::from(count)).unwrap_or_default();
                parts.iter().map(|&id| self.index.string(id)).collect()
            }
        }
    }

    /// Returns the file the tensor is in.
    pub fn file(&self) -> Option<FileEntry<'i>> {
        self.index.file(self.data.file as usize)
    }

    /// Returns the dtype; `None` when the file's is unknown.
    pub fn dtype(&self) -> Option<DType> {
        DType::from_code(self.data.dtype)
    }

    /// Returns the sizes in elements; `None` for nested tensors.
    pub fn shape(&self) -> Option<&'i [u64]> {
        self.dims(0)
    }

    /// Returns the strides in elements; `None` where there are none (sparse, nested).
    pub fn stride(&self) -> Option<&'i [u64]> {
        match self.data.has_stride {
            0 => None,
            _ => self.dims(usize::from(self.data.rank)),
        }
    }

    fn dims(&self, skip: usize) -> Option<&'i [u64]> {
        if self.data.rank == NO_RANK {
            return None;
        }
        let start = self.data.dims_start as usize + skip;
        self.index.section::<u64>(Kind::Dims).get(start..start + usize::from(self.data.rank))
    }

    /// Returns the position of the first element in the storage, in elements.
    pub fn storage_offset(&self) -> u64 {
        self.data.storage_offset
    }

    /// Returns the number of elements, if shape and number are known.
    pub fn numel(&self) -> Option<u64> {
        geometry::numel(self.shape()?)
    }

    /// Returns the bytes of the logical elements: what a contiguous copy takes. `None` where there is no shape or dtype.
    pub fn nbytes(&self) -> Option<u64> {
        geometry::nbytes(self.dtype()?, self.shape()?)
    }

    /// Returns the layout.
    pub fn layout(&self) -> Layout {
        Layout::from_code(self.data.layout).unwrap_or(Layout::Wrapper)
    }

    /// Returns the yes-or-no properties.
    pub fn flags(&self) -> Flags {
        Flags::from_bits(self.data.flags)
    }

    /// Returns whether `requires_grad` was set.
    pub fn requires_grad(&self) -> bool {
        self.flags().contains(Flags::REQUIRES_GRAD)
    }

    /// Returns the storage the tensor looks into; composite and meta tensors have none.
    pub fn storage(&self) -> Option<StorageEntry<'i>> {
        let rows = self.index.section::<StorageRow>(Kind::Storages);
        let data = rows.get(self.data.storage as usize)?;
        Some(StorageEntry { index: self.index, row: self.data.storage, data })
    }

    /// Returns the earlier tensor that is the very same object.
    pub fn alias_of(&self) -> Option<TensorEntry<'i>> {
        self.index.tensor(self.data.alias_of as usize)
    }

    /// Returns the Python class of a tensor subclass.
    pub fn class(&self) -> Option<&'i str> {
        self.index.optional_string(self.data.class)
    }

    /// Returns scale and zero point of a quantized tensor.
    pub fn quantizer(&self) -> Option<Quantizer> {
        let row = self.index.section::<QuantizerRow>(Kind::Quantizers).get(self.data.quantizer as usize)?;
        let scheme = self.index.string(row.scheme).to_owned();
        Some(match row.per_channel {
            0 => {
                Quantizer::PerTensor { scheme, scale: f64::from_bits(row.scale), zero_point: row.zero_point }
            }
            _ => Quantizer::PerChannel { scheme, axis: row.zero_point as u64 },
        })
    }

    /// Returns why the tensor cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'i str> {
        let own = self.index.optional_string(self.data.fault);
        own.or_else(|| self.index.optional_string(self.storage()?.data.fault))
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

/// A storage of an index.
#[derive(Clone, Copy)]
pub struct StorageEntry<'i> {
    index: &'i Index,
    row: u32,
    data: &'i StorageRow,
}

impl<'i> StorageEntry<'i> {
    /// Returns the number of the storage in its index.
    pub fn row(&self) -> usize {
        self.row as usize
    }

    /// Returns its length in bytes, decoded.
    pub fn nbytes(&self) -> u64 {
        self.data.bytes
    }

    /// Returns where its bytes lie; `None` when the file has no place for them.
    pub fn record(&self) -> Option<Record> {
        let data = self.data;
        (data.data_offset != NO_OFFSET).then_some(Record {
            header_offset: Some(data.header_offset).filter(|&offset| offset != NO_OFFSET),
            data_offset: data.data_offset,
            packed_bytes: data.packed_bytes,
            bytes: data.bytes,
            method: data.method as u16,
            crc32: data.crc32,
            name_hash: data.name_hash,
        })
    }

    /// Returns why it cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'i str> {
        self.index.optional_string(self.data.fault)
    }
}

/// Hash of a tensor's name inside a file.
pub(crate) fn tensor_hash(file: u32, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, file.into())
}

fn damaged(offset: usize, what: &'static str) -> Error {
    Error::Damaged { offset: offset as u64, what }
}

/// Rows of a section; a rest that makes no row is left out.
fn rows<T: Pod>(bytes: &[u8]) -> &[T] {
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    bytemuck::try_cast_slice(&bytes[..whole]).unwrap_or_default()
}

/// Copies the bytes to an 8-aligned place if they are not in one.
fn aligned(bytes: Bytes) -> Bytes {
    if bytes.as_ptr().align_offset(8) == 0 {
        return bytes;
    }
    Bytes::from_owner(Aligned::from(&bytes[..]))
}

/// Bytes in an 8-aligned place.
pub(crate) struct Aligned {
    words: Vec<u64>,
    bytes: usize,
}

impl Aligned {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl From<&[u8]> for Aligned {
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.as_mut().copy_from_slice(bytes);
        aligned
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}
