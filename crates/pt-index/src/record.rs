//! One file as an index keeps it: its structure, which like files share, and the numbers that are its own.

use std::ops::Range;
use std::sync::Arc;

use pt_format::{ByteOrder, Checkpoint, Kind, Part, PartKind, Value};

use crate::error::Result;
use crate::freshness::Stamp;
use crate::index::Leaf;
use crate::layout::*;
use crate::strings::number;
use crate::structure::Structure;

/// Keys, classes and names of columns of a file together, shared ones counted each time. A file with more keeps its
/// structure for itself.
const NODE_TEXT_BYTES_MAX: usize = 64 << 20;
/// The same for plain scalars: no honest sample has so many labels.
const COLUMNS_MAX: usize = 1 << 16;

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

/// A [`Record`] whose structure may be that of other files too: of it, only the numbers are its own.
pub(crate) struct SharedRecord {
    pub(crate) stamp: Stamp,
    pub(crate) fingerprint: u64,
    pub(crate) structure: Arc<Structure>,
    /// [`Structure::numbers`] of this file.
    pub(crate) numbers: Vec<u64>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) text: String,
    /// Whether its structure is that of the file before it.
    pub(crate) is_like_before: bool,
}

/// What is kept from file to file while many are taken down.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Structure of the file before.
    before: Option<Arc<Structure>>,
    /// One that was the same as that of the file before it: its memory is for the next.
    spare: Structure,
    /// The containers around a part: their node, and how long the dotted name is up to them.
    around: Vec<(usize, usize)>,
    /// The dotted name of a part.
    name: String,
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
        text.get(self.text_range()).unwrap_or_default()
    }

    /// Returns where the string of a string cell stands.
    pub(crate) fn text_range(self) -> Range<usize> {
        let start = (self.bits >> 32) as usize;
        start..start + self.bits as u32 as usize
    }
}

impl Record {
    /// Takes down a parsed file.
    pub(crate) fn new(stamp: Stamp, checkpoint: &Checkpoint<'_>, scratch: &mut Scratch) -> Result<Self> {
        let fingerprint = checkpoint.fingerprint();
        let flags = match checkpoint.byte_order() {
            ByteOrder::Big => FILE_BIG_ENDIAN,
            ByteOrder::Little => 0,
        };
        let mut structure = std::mem::take(&mut scratch.spare);
        structure.clear();
        structure.flags = flags;
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
        record.add_nodes(checkpoint, scratch)?;
        Ok(record)
    }

    /// Keeps the structure only if it is not that of the file before.
    pub(crate) fn shared(self, scratch: &mut Scratch) -> SharedRecord {
        let Self { stamp, fingerprint, structure, cells, text } = self;
        let mut numbers = Vec::with_capacity(structure.numbers_count());
        numbers.extend(structure.numbers());
        let (structure, is_like_before) = match &scratch.before {
            Some(before) if before.same(&structure) => {
                scratch.spare = structure;
                (Arc::clone(before), true)
            }
            _ => (Arc::clone(scratch.before.insert(Arc::new(structure))), false),
        };
        SharedRecord { stamp, fingerprint, structure, numbers, cells, text, is_like_before }
    }

    /// Takes down the parts of the saved object. Scalars become columns.
    fn add_nodes(&mut self, checkpoint: &Checkpoint<'_>, scratch: &mut Scratch) -> Result<()> {
        let Scratch { around, name, .. } = scratch;
        around.clear();
        let mut text_bytes = 0;
        for part in checkpoint.structure() {
            let row = self.structure.nodes.len();
            self.structure.close(around, part.depth, row);
            name.truncate(around.last().map_or(0, |&(_, length)| length));
            write_component(&part, name);
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
                    self.structure.columns.push(self.structure.strings.intern(name)?);
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
            if text_bytes > NODE_TEXT_BYTES_MAX || self.structure.columns.len() > COLUMNS_MAX {
                return self.without_nodes();
            }
            self.structure.nodes.push(NodeRow { key, end: number(row + 1)?, target, kind, key_kind });
        }
        let rows = self.structure.nodes.len();
        self.structure.close(around, 0, rows);
        if self.structure.collapse() {
            self.structure.renumber_strings()?;
        }
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

impl SharedRecord {
    /// Returns about how many bytes of memory it takes, with its share of the structure.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.structure.memory_bytes() / Arc::strong_count(&self.structure)
            + size_of_val(&self.numbers[..])
            + size_of_val(&self.cells[..])
            + self.text.len()
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
