//! Parsed files to the bytes of an index.

use std::hash::BuildHasher;

use bytemuck::Pod;
use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use pt_format::{ByteOrder, Checkpoint, Kind as ValueKind, Layout, Quantizer, Tensor, Value};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::index::{Aligned, Index, tensor_hash};
use crate::layout::*;

/// Collects files into an index. The same files in the same order give the same bytes.
///
/// ```
/// use pt_format::{Checkpoint, Limits, write};
/// let bytes = write::to_vec(&write::Object::dict([("y", 3.into())]))?;
/// let mut builder = pt_index::IndexBuilder::default();
/// builder.add("a.pt", pt_index::Stamp::default(), &Checkpoint::parse(&bytes, &Limits::default())?)?;
/// let index = builder.finish()?;
/// assert_eq!(index.find_file("a.pt").unwrap().leaves().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct IndexBuilder {
    files: Vec<FileRow>,
    tensors: Vec<TensorRow>,
    dims: Vec<u64>,
    storages: Vec<StorageRow>,
    leaves: Vec<LeafRow>,
    quantizers: Vec<QuantizerRow>,
    path_parts: Vec<u32>,
    strings: Strings,
}

impl IndexBuilder {
    /// Adds a file. Files are looked up by `path`; they should come in path order.
    ///
    /// # Errors
    /// [`Error::TooMany`] when the format cannot number that many rows.
    pub fn add(&mut self, path: &str, stamp: Stamp, checkpoint: &Checkpoint<'_>) -> Result<()> {
        let storages_start = self.storages.len();
        self.storages.reserve(checkpoint.storages().len());
        self.tensors.reserve(checkpoint.tensors().len());
        self.strings.reserve(checkpoint.tensors().len());
        for storage in checkpoint.storages() {
            let record = storage.record();
            let fault = match storage.fault() {
                Some(fault) => self.strings.intern(&fault.to_string())?,
                None => NONE,
            };
            self.storages.push(StorageRow {
                data_offset: record.map_or(NO_OFFSET, |record| record.data_offset),
                header_offset: record.and_then(|record| record.header_offset).unwrap_or(NO_OFFSET),
                packed_bytes: record.map_or(0, |record| record.packed_bytes),
                bytes: storage.nbytes(),
                crc32: record.map_or(0, |record| record.crc32),
                name_hash: record.map_or(0, |record| record.name_hash),
                method: record.map_or(0, |record| record.method.into()),
                fault,
            });
        }

        let tensors_start = self.tensors.len();
        for tensor in checkpoint.tensors() {
            self.add_tensor(tensor, number(tensors_start)?, number(storages_start)?)?;
        }

        let leaves_start = self.leaves.len();
        for (name, value) in checkpoint.leaves() {
            if let Some((kind, value)) = self.leaf(value)? {
                let name = self.strings.intern(&name)?;
                self.leaves.push(LeafRow { value, name, kind });
            }
        }

        let fingerprint = checkpoint.fingerprint();
        let big_endian = if checkpoint.byte_order() == ByteOrder::Big { FILE_BIG_ENDIAN } else { 0 };
        let covers_content = if fingerprint.covers_content { FILE_COVERS_CONTENT } else { 0 };
        self.files.push(FileRow {
            size: stamp.size,
            modified_ns: stamp.modified_ns,
            fingerprint: fingerprint.digest,
            path: self.strings.intern(path)?,
            flags: big_endian | covers_content,
            tensors_start: number(tensors_start)?,
            tensors_count: number(self.tensors.len() - tensors_start)?,
            storages_start: number(storages_start)?,
            storages_count: number(self.storages.len() - storages_start)?,
            leaves_start: number(leaves_start)?,
            leaves_count: number(self.leaves.len() - leaves_start)?,
        });
        Ok(())
    }

    fn add_tensor(&mut self, tensor: Tensor<'_>, tensors_start: u32, storages_start: u32) -> Result<()> {
        let shape = tensor.shape();
        let stride = tensor.stride();
        let dims_start = number(self.dims.len())?;
        self.dims.extend(shape.into_iter().flatten());
        self.dims.extend(stride.into_iter().flatten());

        let name = self.strings.intern(tensor.name())?;
        let (path_start, path_count) = self.path(tensor, name)?;
        let own_fault =
            tensor.fault().filter(|_| tensor.storage().is_none_or(|storage| storage.fault().is_none()));
        let fault = match own_fault {
            Some(fault) => self.strings.intern(&fault.to_string())?,
            None => NONE,
        };
        let class = match tensor.class() {
            Some(class) => self.strings.intern(&class)?,
            None => NONE,
        };
        let quantizer = match tensor.quantizer() {
            Some(quantizer) => self.quantizer(quantizer)?,
            None => NONE,
        };
        self.tensors.push(TensorRow {
            storage_offset: tensor.storage_offset(),
            name,
            file: number(self.files.len())?,
            dims_start,
            storage: tensor.storage().map_or(NONE, |storage| storages_start + storage.index() as u32),
            alias_of: tensor.alias_of().map_or(NONE, |first| tensors_start + first.index() as u32),
            quantizer,
            fault,
            class,
            path_start,
            path_count,
            flags: tensor.flags().bits(),
            rank: shape.map_or(NO_RANK, |shape| shape.len() as u8),
            dtype: tensor.dtype().map_or(NO_DTYPE, |dtype| dtype as u8),
            layout: tensor.layout() as u8,
            has_stride: matches!(tensor.layout(), Layout::Strided | Layout::Wrapper).into(),
            zero: 0,
        });
        Ok(())
    }

    /// A path of one component is the name itself; others are listed.
    fn path(&mut self, tensor: Tensor<'_>, name: u32) -> Result<(u32, u16)> {
        if tensor.is_top_level() {
            return Ok((0, 0));
        }
        let path = tensor.path();
        let start = match path.len() {
            0 => NONE,
            _ => number(self.path_parts.len())?,
        };
        for component in &path {
            let part = if path.len() == 1 { name } else { self.strings.intern(component)? };
            self.path_parts.push(part);
        }
        Ok((start, path.len() as u16))
    }

    fn quantizer(&mut self, quantizer: &Quantizer) -> Result<u32> {
        let row = match quantizer {
            Quantizer::PerTensor { scheme, scale, zero_point } => QuantizerRow {
                scale: scale.to_bits(),
                zero_point: *zero_point,
                scheme: self.strings.intern(scheme)?,
                per_channel: 0,
            },
            Quantizer::PerChannel { scheme, axis } => QuantizerRow {
                scale: 0,
                zero_point: *axis as i64,
                scheme: self.strings.intern(scheme)?,
                per_channel: 1,
            },
            _ => return Ok(NONE),
        };
        self.quantizers.push(row);
        number(self.quantizers.len() - 1)
    }

    fn leaf(&mut self, value: Value<'_>) -> Result<Option<(u32, u64)>> {
        Ok(match value.kind() {
            ValueKind::None => Some((LEAF_NONE, 0)),
            ValueKind::Bool => value.as_bool().map(|value| (LEAF_BOOL, value.into())),
            ValueKind::Int => value.as_i64().map(|value| (LEAF_INT, value as u64)),
            ValueKind::Float => value.as_f64().map(|value| (LEAF_FLOAT, value.to_bits())),
            ValueKind::Str => match value.as_str() {
                Some(text) => Some((LEAF_STR, self.strings.intern(text)?.into())),
                None => None,
            },
            _ => None,
        })
    }

    /// Lays the index out.
    ///
    /// # Errors
    /// None today; later versions may refuse what they cannot hold.
    pub fn finish(self) -> Result<Index> {
        let tensor_hashes = self.tensors.iter().map(|row| tensor_hash(row.file, self.strings.get(row.name)));
        let (tensor_buckets, tensor_slots) = lookup_table(tensor_hashes.collect());
        let file_hashes = self.files.iter().map(|row| xxh3_64(self.strings.get(row.path)));
        let (file_buckets, file_slots) = lookup_table(file_hashes.collect());
        let sections: [(Kind, &[u8]); Kind::COUNT] = [
            (Kind::Files, cast(&self.files)),
            (Kind::Tensors, cast(&self.tensors)),
            (Kind::Dims, cast(&self.dims)),
            (Kind::Storages, cast(&self.storages)),
            (Kind::Leaves, cast(&self.leaves)),
            (Kind::Quantizers, cast(&self.quantizers)),
            (Kind::PathParts, cast(&self.path_parts)),
            (Kind::StringEnds, cast(&self.strings.ends)),
            (Kind::StringBytes, &self.strings.bytes),
            (Kind::TensorBuckets, cast(&tensor_buckets)),
            (Kind::TensorSlots, cast(&tensor_slots)),
            (Kind::FileBuckets, cast(&file_buckets)),
            (Kind::FileSlots, cast(&file_slots)),
        ];
        let mut offset = HEADER_BYTES + sections.len() * size_of::<SectionRow>();
        let mut table = Vec::with_capacity(sections.len());
        for (kind, content) in sections {
            let row = SectionRow {
                kind: kind as u32,
                zero: 0,
                offset: offset as u64,
                length: content.len() as u64,
                checksum: xxh3_64(content),
            };
            table.push(row);
            offset = (offset + content.len()).next_multiple_of(8);
        }

        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION_MAJOR.to_le_bytes());
        header.extend_from_slice(&VERSION_MINOR.to_le_bytes());
        header.extend_from_slice(&(table.len() as u32).to_le_bytes());
        header.extend_from_slice(&(offset as u64).to_le_bytes());
        let mut hasher = Xxh3::new();
        hasher.update(&header);
        hasher.update(cast(&table));
        header.extend_from_slice(&hasher.digest().to_le_bytes());

        let mut out = Aligned::zeroed(offset);
        let bytes = out.as_mut();
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        bytes[HEADER_BYTES..][..size_of_val(&table[..])].copy_from_slice(cast(&table));
        for (row, (_, content)) in table.iter().zip(sections) {
            bytes[row.offset as usize..][..content.len()].copy_from_slice(content);
        }
        Index::from_bytes(Bytes::from_owner(out))
    }
}

/// Strings, each kept once.
#[derive(Default)]
struct Strings {
    ends: Vec<u64>,
    bytes: Vec<u8>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Strings {
    fn intern(&mut self, text: &str) -> Result<u32> {
        let hash = self.hasher.hash_one(text.as_bytes());
        let get = |id: u32| slice(&self.ends, &self.bytes, id);
        if let Some(&id) = self.table.find(hash, |&id| get(id) == text.as_bytes()) {
            return Ok(id);
        }
        let id = number(self.ends.len())?;
        self.table.insert_unique(hash, id, |&id| self.hasher.hash_one(slice(&self.ends, &self.bytes, id)));
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u64);
        Ok(id)
    }

    fn reserve(&mut self, count: usize) {
        self.ends.reserve(count);
        self.table.reserve(count, |&id| self.hasher.hash_one(slice(&self.ends, &self.bytes, id)));
    }

    fn get(&self, id: u32) -> &[u8] {
        slice(&self.ends, &self.bytes, id)
    }
}

fn slice<'b>(ends: &[u64], bytes: &'b [u8], id: u32) -> &'b [u8] {
    let start = (id as usize).checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[start as usize..ends[id as usize] as usize]
}

/// Sorts rows by bucket; rows of one bucket stay in their order, so the first of equal names is found first.
fn lookup_table(hashes: Vec<u64>) -> (Vec<u32>, Vec<Slot>) {
    let count = bucket_count(hashes.len());
    let mut starts = vec![0u32; count + 1];
    for &hash in &hashes {
        starts[bucket_of(hash, count) + 1] += 1;
    }
    for bucket in 0..count {
        starts[bucket + 1] += starts[bucket];
    }
    let mut next = starts.clone();
    let mut slots = vec![Slot { hash: 0, row: 0 }; hashes.len()];
    for (row, &hash) in hashes.iter().enumerate() {
        let at = &mut next[bucket_of(hash, count)];
        slots[*at as usize] = Slot { hash: hash as u32, row: row as u32 };
        *at += 1;
    }
    (starts, slots)
}

/// Row numbers are 32-bit, and the last one means "none".
fn number(count: usize) -> Result<u32> {
    u32::try_from(count).ok().filter(|&number| number != NONE).ok_or(Error::TooMany { what: "rows", count })
}

fn cast<T: Pod>(rows: &[T]) -> &[u8] {
    bytemuck::cast_slice(rows)
}
