//! What like files share, taken from a parsed file or back out of an index.

use std::hash::{BuildHasher, Hasher};

use bytemuck::{bytes_of, cast_slice};
use hashbrown::DefaultHashBuilder;
use pt_format::{Layout, Part, PartKind, Quantizer, Storage, Tensor};

use crate::error::Result;
use crate::index::FileEntry;
use crate::layout::*;
use crate::strings::{Strings, number};

/// What like files share. Strings are numbered in the order in which the rows name them, so equal structures are equal
/// byte for byte; the numbers in the rows ([`Structure::numbers`]) are those of one file and do not count.
#[derive(Clone, Default)]
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

impl Structure {
    /// Leaves nothing but the memory for it.
    pub(crate) fn clear(&mut self) {
        let Self { flags, strings, tensors, dims, storages, quantizers, path_parts, nodes, columns } = self;
        *flags = 0;
        strings.clear();
        tensors.clear();
        dims.clear();
        storages.clear();
        quantizers.clear();
        path_parts.clear();
        nodes.clear();
        columns.clear();
    }

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

    pub(crate) fn key(&mut self, part: &Part<'_>) -> Result<(u32, u64)> {
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
    pub(crate) fn close(&mut self, around: &mut Vec<(usize, usize)>, depth: usize, row: usize) {
        for (container, _) in around.drain(depth.min(around.len())..) {
            self.nodes[container].end = row as u32;
        }
    }

    /// Makes containers opaque that hold neither tensor nor plain scalar nor a container of elsewhere, and leaves out what is in them: however much that is,
    /// like files stay like. Returns whether there were any.
    pub(crate) fn collapse(&mut self) -> bool {
        let count = self.nodes.len();
        // How many tensors, scalars, and containers met again there are from a node on.
        let mut parts = vec![0u32; count + 1];
        for (number, row) in self.nodes.iter().enumerate().rev() {
            parts[number] =
                parts[number + 1] + u32::from(matches!(row.kind, node::TENSOR | node::LEAF | node::SAME));
        }
        let is_idle = |number: usize, row: &NodeRow| {
            row.kind <= node::TUPLE
                && row.end as usize > number + 1
                && parts[number] == parts[row.end as usize]
        };
        if !self.nodes.iter().enumerate().any(|(number, row)| is_idle(number, row)) {
            return false;
        }
        // Where each node goes; what is left out goes nowhere.
        let mut places = vec![NONE; count + 1];
        let (mut kept, mut number) = (0, 0);
        while number < count {
            places[number] = kept;
            kept += 1;
            let row = &mut self.nodes[number];
            let next = row.end as usize;
            if is_idle(number, row) {
                (row.kind, row.target) = (node::OPAQUE, NONE);
                number = next;
            } else {
                number += 1;
            }
        }
        places[count] = kept;
        let rows =
            self.nodes.iter().zip(&places).filter(|(_, place)| **place != NONE).map(|(row, &place)| {
                let mut row = *row;
                row.end = if row.kind <= node::TUPLE { places[row.end as usize] } else { place + 1 };
                if row.kind == node::SAME {
                    // Of what was left out nothing can be the same.
                    match places[row.target as usize] {
                        NONE => (row.kind, row.target) = (node::OPAQUE, NONE),
                        target => row.target = target,
                    }
                }
                row
            });
        self.nodes = rows.collect();
        true
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
        let storages = self.storages.iter().flat_map(StorageRow::numbers);
        let tensors = self.tensors.iter().flat_map(|row| {
            let dims = &self.dims[row.dims as usize..][..row.dims_count()];
            std::iter::once(row.storage_offset).chain(dims.iter().copied())
        });
        storages.chain(tensors)
    }

    /// Returns how many numbers there are.
    pub(crate) fn numbers_count(&self) -> usize {
        let dims: usize = self.tensors.iter().map(TensorRow::dims_count).sum();
        self.storages.len() * StorageRow::NUMBERS as usize + self.tensors.len() + dims
    }

    /// Returns about how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.strings.bytes.len()
            + size_of_val(&self.strings.ends[..])
            + size_of_val(&self.tensors[..])
            + size_of_val(&self.dims[..])
            + size_of_val(&self.storages[..])
            + size_of_val(&self.path_parts[..])
            + size_of_val(&self.nodes[..])
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
            && same_rows(&self.tensors, &other.tensors, TensorRow::is_like)
            && same_rows(&self.storages, &other.storages, StorageRow::is_like)
            && self.quantizers == other.quantizers
            && self.path_parts == other.path_parts
            && self.nodes == other.nodes
            && self.columns == other.columns
    }
}

fn same_rows<T>(a: &[T], b: &[T], is_like: impl Fn(&T, &T) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_like(a, b))
}

impl TensorRow {
    /// Returns whether everything but the numbers is the same.
    fn is_like(&self, other: &Self) -> bool {
        // The storage offset comes first. As bytes: a copy without it would have to be written before it could be compared.
        bytes_of(self)[size_of::<u64>()..] == bytes_of(other)[size_of::<u64>()..]
    }
}

impl StorageRow {
    /// Returns whether everything but the numbers is the same; what is not there is not there in both.
    fn is_like(&self, other: &Self) -> bool {
        let is_missing = |row: &Self| (row.data_offset == NO_OFFSET, row.header_offset == NO_OFFSET);
        is_missing(self) == is_missing(other) && (self.method, self.fault) == (other.method, other.fault)
    }
}
