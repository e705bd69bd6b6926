//! One file as an index keeps it: its structure, which like files share, and the numbers that are its own.

use std::hash::{BuildHasher, Hasher};

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice};
use hashbrown::DefaultHashBuilder;
use pt_format::{ByteOrder, Checkpoint, Kind, Layout, Part, PartKind, Quantizer, Storage, Tensor, Value};

use crate::error::Result;
use crate::freshness::Stamp;
use crate::index::{FileEntry, Leaf};
use crate::layout::*;
use crate::strings::{Strings, number};

/// Keys, classes and names of columns of a file together, shared ones counted each time. A file with more keeps its
/// structure for itself.
const NODE_TEXT_BYTES_MAX: usize = 64 << 20;

/// What like files share. Strings are numbered in the order in which the rows name them, so equal structures are equal
/// byte for byte; the numbers in the rows ([`Structure::numbers`]) are those of one file and do not count.
#[derive(Default)]
pub(crate) struct Structure {
    pub(crate) flags: u32,
    pub(crate) strings: Strings,
    pub(crate) tensors: Vec<TensorRow>,
    pub(crate) dims: Vec<u64>,
    pub(crate) storages: Vec<StorageRow>,
    pub(crate) quantizers: Vec<QuantizerRow>,
    pub(crate) path_parts: Vec<u32>,
    pub(crate) nodes: Vec<NodeRow>,
    /// Names.
    pub(crate) columns: Vec<u32>,
}

/// A file: its structure, and what it fills it with.
pub(crate) struct Record {
    pub(crate) stamp: Stamp,
    pub(crate) fingerprint: u64,
    pub(crate) structure: Structure,
    /// One for each column.
    pub(crate) cells: Vec<Cell>,
    /// What string cells refer to.
    pub(crate) text: String,
}

/// A plain scalar: kind, and 64 bits of it. Of a string in a [`Record`], where it starts and how long it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) kind: u32,
    pub(crate) bits: u64,
}

impl Cell {
    pub(crate) fn new(leaf: Leaf<'_>, text: &mut String) -> Self {
        let (kind, bits) = match leaf {
            Leaf::None => (column::NONE, 0),
            Leaf::Bool(value) => (column::BOOL, value.into()),
            Leaf::Int(value) => (column::INT, value as u64),
            Leaf::Float(value) => (column::FLOAT, value.to_bits()),
            Leaf::Str(value) => {
                let place = (text.len() as u64) << 32 | value.len() as u64;
                text.push_str(value);
                (column::STR, place)
            }
        };
        Self { kind, bits }
    }

    /// Returns the string of a string cell.
    pub(crate) fn text(self, text: &str) -> &str {
        let start = (self.bits >> 32) as usize;
        text.get(start..start + self.bits as u32 as usize).unwrap_or_default()
    }
}

impl Record {
    /// Takes down a parsed file.
    pub(crate) fn new(stamp: Stamp, checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let fingerprint = checkpoint.fingerprint();
        let flags = match checkpoint.byte_order() {
            ByteOrder::Big => FILE_BIG_ENDIAN,
            ByteOrder::Little => 0,
        };
        let mut structure = Structure { flags, ..Structure::default() };
        if fingerprint.covers_content {
            structure.flags |= FILE_COVERS_CONTENT;
        }
        structure.tensors.reserve(checkpoint.tensors().len());
        structure.strings.reserve(checkpoint.tensors().len());
        for tensor in checkpoint.tensors() {
            structure.add_tensor(tensor)?;
        }
        structure.storages.reserve(checkpoint.storages().len());
        for storage in checkpoint.storages() {
            structure.add_storage(storage)?;
        }
        let mut record = Self {
            stamp,
            fingerprint: fingerprint.digest,
            structure,
            cells: Vec::new(),
            text: String::new(),
        };
        record.add_nodes(checkpoint)?;
        Ok(record)
    }

    /// Returns about how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let structure = &self.structure;
        size_of::<Self>()
            + structure.strings.bytes.len()
            + size_of_val(&structure.strings.ends[..])
            + size_of_val(&structure.tensors[..])
            + size_of_val(&structure.dims[..])
            + size_of_val(&structure.storages[..])
            + size_of_val(&structure.path_parts[..])
            + size_of_val(&structure.nodes[..])
            + size_of_val(&self.cells[..])
            + self.text.len()
    }

    /// Takes down the parts of the saved object. Scalars become columns.
    fn add_nodes(&mut self, checkpoint: &Checkpoint<'_>) -> Result<()> {
        // The containers around a part: their node, and how long the dotted name is up to them.
        let mut around: Vec<(usize, usize)> = Vec::new();
        let mut name = String::new();
        let mut text_bytes = 0;
        for part in checkpoint.structure() {
            let row = self.structure.nodes.len();
            self.structure.close(&mut around, part.depth, row);
            name.truncate(around.last().map_or(0, |&(_, length)| length));
            write_component(&part, &mut name);
            let (key_kind, key) = self.structure.key(&part)?;
            let (kind, target) = match (part.kind, leaf_of(part.value)) {
                (PartKind::Dict, _) => (node::DICT, NONE),
                (PartKind::OrderedDict, _) => (node::ORDERED_DICT, NONE),
                (PartKind::List, _) => (node::LIST, NONE),
                (PartKind::Tuple, _) => (node::TUPLE, NONE),
                (PartKind::Tensor(tensor), _) => (node::TENSOR, number(tensor)?),
                (PartKind::Same(same), _) => (node::SAME, number(same)?),
                (PartKind::Leaf, Some(leaf)) => {
                    self.cells.push(Cell::new(leaf, &mut self.text));
                    self.structure.columns.push(self.structure.strings.intern(&name)?);
                    (node::LEAF, number(self.structure.columns.len() - 1)?)
                }
                _ => {
                    let class = part.value.class();
                    text_bytes += class.as_deref().map_or(0, str::len);
                    (node::OPAQUE, self.structure.strings.intern_optional(class.as_deref())?)
                }
            };
            if matches!(kind, node::DICT | node::ORDERED_DICT | node::LIST | node::TUPLE) {
                around.push((row, name.len()));
            }
            text_bytes += name.len();
            if text_bytes > NODE_TEXT_BYTES_MAX {
                return self.without_nodes();
            }
            self.structure.nodes.push(NodeRow { key, end: number(row + 1)?, target, kind, key_kind });
        }
        let rows = self.structure.nodes.len();
        self.structure.close(&mut around, 0, rows);
        Ok(())
    }

    /// Leaves the structure to the pickle in the file.
    fn without_nodes(&mut self) -> Result<()> {
        self.cells.clear();
        self.structure.columns.clear();
        self.structure.nodes.clear();
        let row = NodeRow { key: 0, end: 1, target: NONE, kind: node::OPAQUE, key_kind: key::NONE };
        self.structure.nodes.push(row);
        self.structure.renumber_strings()
    }
}

/// Puts the component of a part behind the dotted name of what is around it.
fn write_component(part: &Part<'_>, name: &mut String) {
    if part.depth == 0 {
        return;
    }
    if part.depth > 1 {
        name.push('.');
    }
    match part.key {
        Some(key) => match key.as_str() {
            Some(text) => name.push_str(text),
            None => name.push_str(&key.component()),
        },
        None => name.push_str(&part.position.to_string()),
    }
}

pub(crate) fn leaf_of(value: Value<'_>) -> Option<Leaf<'_>> {
    Some(match value.kind() {
        Kind::None => Leaf::None,
        Kind::Bool => Leaf::Bool(value.as_bool()?),
        Kind::Int => Leaf::Int(value.as_i64()?),
        Kind::Float => Leaf::Float(value.as_f64()?),
        Kind::Str => Leaf::Str(value.as_str()?),
        _ => return None,
    })
}

impl Structure {
    pub(crate) fn add_tensor(&mut self, tensor: Tensor<'_>) -> Result<()> {
        // The rank is a byte; `Limits::rank` would have to be raised for more.
        let shape = tensor.shape().filter(|shape| shape.len() < usize::from(NO_RANK));
        let stride = tensor.stride().filter(|_| shape.is_some());
        let dims = number(self.dims.len())?;
        self.dims.extend(shape.into_iter().flatten());
        self.dims.extend(stride.into_iter().flatten());
        let name = self.strings.intern(tensor.name())?;
        let (path, path_count) = self.path(tensor, name)?;
        let own_fault =
            tensor.fault().filter(|_| tensor.storage().is_none_or(|storage| storage.fault().is_none()));
        let fault = self.strings.intern_optional(own_fault.map(ToString::to_string).as_deref())?;
        let class = self.strings.intern_optional(tensor.class().as_deref())?;
        let quantizer = match tensor.quantizer() {
            Some(quantizer) => self.quantizer(quantizer)?,
            None => NONE,
        };
        self.tensors.push(TensorRow {
            storage_offset: tensor.storage_offset(),
            name,
            dims,
            storage: tensor.storage().map_or(NONE, |storage| storage.index() as u32),
            alias_of: tensor.alias_of().map_or(NONE, |first| first.index() as u32),
            quantizer,
            fault,
            class,
            path,
            path_count,
            flags: tensor.flags().bits(),
            rank: shape.map_or(NO_RANK, |shape| shape.len() as u8),
            dtype: tensor.dtype().map_or(NO_DTYPE, |dtype| dtype as u8),
            layout: tensor.layout() as u8,
            has_stride: (shape.is_some() && matches!(tensor.layout(), Layout::Strided | Layout::Wrapper))
                .into(),
            varying: 0,
            varying_mask: 0,
        });
        Ok(())
    }

    /// A path of one component is the name itself; others are listed.
    fn path(&mut self, tensor: Tensor<'_>, name: u32) -> Result<(u32, u16)> {
        if tensor.is_top_level() {
            return Ok((0, 0));
        }
        let path = tensor.path();
        match &path[..] {
            [_] => {
                self.path_parts.push(name);
                Ok((number(self.path_parts.len() - 1)?, 1))
            }
            _ => self.add_path(path.iter().map(String::as_str)),
        }
    }

    /// Lists the components of a path. Returns the first one, and how many there are.
    pub(crate) fn add_path<'p>(&mut self, path: impl Iterator<Item = &'p str>) -> Result<(u32, u16)> {
        let start = self.path_parts.len();
        for component in path {
            let component = self.strings.intern(component)?;
            self.path_parts.push(component);
        }
        match self.path_parts.len() - start {
            0 => Ok((NONE, 0)),
            count => Ok((number(start)?, count as u16)),
        }
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

    pub(crate) fn add_storage(&mut self, storage: Storage<'_>) -> Result<()> {
        let record = storage.record();
        let fault = self.strings.intern_optional(storage.fault().map(ToString::to_string).as_deref())?;
        self.storages.push(StorageRow {
            data_offset: record.map_or(NO_OFFSET, |record| record.data_offset),
            header_offset: record.and_then(|record| record.header_offset).unwrap_or(NO_OFFSET),
            packed_bytes: record.map_or(0, |record| record.packed_bytes),
            bytes: storage.nbytes(),
            crc32: record.map_or(0, |record| record.crc32.into()),
            name_hash: record.map_or(0, |record| record.name_hash.into()),
            method: record.map_or(0, |record| record.method.into()),
            fault,
            varying: 0,
            varying_mask: 0,
        });
        Ok(())
    }

    fn key(&mut self, part: &Part<'_>) -> Result<(u32, u64)> {
        let Some(value) = part.key else { return Ok((key::NONE, 0)) };
        Ok(match (value.as_str(), value.as_i64()) {
            (Some(text), _) => {
                // In a state dict the name is the key.
                let tensor = match part.kind {
                    PartKind::Tensor(tensor) => self.tensors.get(tensor),
                    _ => None,
                };
                let named = tensor.map(|tensor| tensor.name).filter(|&name| self.strings.get(name) == text);
                (key::STR, named.map_or_else(|| self.strings.intern(text), Ok)?.into())
            }
            (None, Some(number)) => (key::INT, number as u64),
            (None, None) => (key::OTHER, self.strings.intern(&value.component())?.into()),
        })
    }

    /// Notes for the containers that are deeper than `depth` that their content ends before node `row`.
    fn close(&mut self, around: &mut Vec<(usize, usize)>, depth: usize, row: usize) {
        for (container, _) in around.drain(depth.min(around.len())..) {
            self.nodes[container].end = row as u32;
        }
    }

    /// Takes the structure of a file back out of an index: the same, byte for byte, as when the file was parsed.
    pub(crate) fn of_entry(file: FileEntry<'_>) -> Result<Self> {
        let rows = file.schema_rows();
        let mut structure = Self {
            flags: rows.flags,
            strings: Strings::default(),
            dims: file.tensors().flat_map(|tensor| tensor.dims().to_vec()).collect(),
            tensors: rows.tensors.to_vec(),
            storages: rows.storages.to_vec(),
            quantizers: Vec::new(),
            path_parts: Vec::new(),
            nodes: rows.nodes.to_vec(),
            columns: rows.columns.iter().map(|column| column.name).collect(),
        };
        let mut dims = 0;
        for (row, tensor) in structure.tensors.iter_mut().zip(file.tensors()) {
            (row.dims, row.varying, row.varying_mask) = (number(dims)?, 0, 0);
            dims += row.dims_count();
            row.storage_offset = tensor.storage_offset();
            if let Some(quantizer) = rows.all_quantizers.get(row.quantizer as usize) {
                row.quantizer = number(structure.quantizers.len())?;
                structure.quantizers.push(*quantizer);
            }
            if row.path_count > 0 {
                let start = row.path as usize;
                let parts = rows.all_path_parts.get(start..start + usize::from(row.path_count));
                row.path = number(structure.path_parts.len())?;
                structure.path_parts.extend(parts.unwrap_or_default());
            }
        }
        for (row, storage) in structure.storages.iter_mut().zip(file.storages()) {
            *row = StorageRow { varying: 0, varying_mask: 0, ..storage.data() };
        }
        let mut strings = Strings::default();
        structure.map_strings(|id| strings.intern(file.index().string(id)))?;
        structure.strings = strings;
        Ok(structure)
    }

    /// Keeps the strings that rows name, numbered as when the structure is taken out of an index again.
    pub(crate) fn renumber_strings(&mut self) -> Result<()> {
        let strings = std::mem::take(&mut self.strings);
        let mut named = Strings::default();
        self.map_strings(|id| named.intern(strings.get(id)))?;
        self.strings = named;
        Ok(())
    }

    /// Gives every string another number, in the order in which rows of parsed files name them first.
    pub(crate) fn map_strings(&mut self, mut map: impl FnMut(u32) -> Result<u32>) -> Result<()> {
        let mut map = |id: &mut u32| -> Result<()> {
            if *id != NONE {
                *id = map(*id)?;
            }
            Ok(())
        };
        for tensor in &mut self.tensors {
            map(&mut tensor.name)?;
            if tensor.path_count > 0 {
                let start = tensor.path as usize;
                let parts = self.path_parts.get_mut(start..start + usize::from(tensor.path_count));
                parts.unwrap_or_default().iter_mut().try_for_each(&mut map)?;
            }
            map(&mut tensor.fault)?;
            map(&mut tensor.class)?;
            if let Some(quantizer) = self.quantizers.get_mut(tensor.quantizer as usize) {
                map(&mut quantizer.scheme)?;
            }
        }
        for storage in &mut self.storages {
            map(&mut storage.fault)?;
        }
        for node in &mut self.nodes {
            if matches!(node.key_kind, key::STR | key::OTHER) {
                let mut id = node.key as u32;
                map(&mut id)?;
                node.key = id.into();
            }
            match node.kind {
                node::LEAF => {
                    if let Some(name) = self.columns.get_mut(node.target as usize) {
                        map(name)?;
                    }
                }
                node::OPAQUE => map(&mut node.target)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the numbers in which like files may differ, in the order storages, tensors; a tensor's storage offset comes
    /// before its sizes and strides.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        let storages = self.storages.iter().flat_map(|row| {
            [row.data_offset, row.header_offset, row.packed_bytes, row.bytes, row.crc32, row.name_hash]
        });
        let tensors = self.tensors.iter().flat_map(|row| {
            let dims = &self.dims[row.dims as usize..][..row.dims_count()];
            std::iter::once(row.storage_offset).chain(dims.iter().copied())
        });
        storages.chain(tensors)
    }

    /// Returns a digest that tells structures apart well enough: of names, of what tensors are, of the parts around them.
    pub(crate) fn hash(&self, hasher: &DefaultHashBuilder) -> u64 {
        let mut hasher = hasher.build_hasher();
        hasher.write_u32(self.flags);
        hasher.write(cast_slice(&self.strings.ends));
        hasher.write(&self.strings.bytes);
        for row in &self.tensors {
            hasher.write_u64(u64::from(row.name) << 32 | u64::from(row.storage));
            hasher.write_u64(u64::from_le_bytes([
                row.rank,
                row.dtype,
                row.layout,
                row.flags as u8,
                0,
                0,
                0,
                0,
            ]));
        }
        hasher.write_usize(self.storages.len());
        hasher.write(cast_slice(&self.nodes));
        hasher.finish()
    }

    /// Returns whether everything but the numbers is the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.flags == other.flags
            && self.strings.same(&other.strings)
            && same_rows(&self.tensors, &other.tensors, TensorRow::fixed)
            && same_rows(&self.storages, &other.storages, StorageRow::fixed)
            && cast_slice::<_, u8>(&self.quantizers) == cast_slice::<_, u8>(&other.quantizers)
            && self.path_parts == other.path_parts
            && cast_slice::<_, u8>(&self.nodes) == cast_slice::<_, u8>(&other.nodes)
            && self.columns == other.columns
    }
}

fn same_rows<T: Pod>(a: &[T], b: &[T], fixed: impl Fn(&T) -> T) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bytes_of(&fixed(a)) == bytes_of(&fixed(b)))
}

impl TensorRow {
    /// The row without its numbers.
    fn fixed(&self) -> Self {
        Self { storage_offset: 0, ..*self }
    }
}

impl StorageRow {
    /// The row without its numbers; what is not there stays not there.
    fn fixed(&self) -> Self {
        let presence = |offset| if offset == NO_OFFSET { NO_OFFSET } else { 0 };
        Self {
            data_offset: presence(self.data_offset),
            header_offset: presence(self.header_offset),
            method: self.method,
            fault: self.fault,
            ..Self::zeroed()
        }
    }
}
