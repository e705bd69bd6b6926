//! What like files have in common.

use std::fmt;

use crate::column::Column;
use crate::index::{FileEntry, Index};
use crate::layout::*;

/// What like files have in common: tensors with their names and dtypes, the structure around them.
#[derive(Clone, Copy)]
pub struct Schema<'i> {
    index: &'i Index,
    row: &'i SchemaRow,
    number: u32,
}

impl<'i> Schema<'i> {
    pub(super) fn new(index: &'i Index, row: &'i SchemaRow, number: u32) -> Self {
        Self { index, row, number }
    }

    /// Returns the number of the schema in its index.
    pub fn number(&self) -> usize {
        self.number as usize
    }

    /// Returns how many files have it.
    pub fn file_count(&self) -> usize {
        self.row.rows_count as usize
    }

    /// Returns the files that have it, in order.
    pub fn files(&self) -> impl Iterator<Item = FileEntry<'i>> + Clone + use<'i> {
        let (index, number) = (self.index, self.number);
        (0..self.row.rows_count).map_while(move |row| index.file_of_schema(number, row))
    }

    /// Returns the columns: plain scalars of which every file has one, in file order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Column<'i>> + use<'i> {
        let (index, row) = (self.index, self.row);
        let columns = index.rows::<ColumnRow>(Kind::Columns, row.columns_start, row.columns_count);
        columns.iter().map(move |column| Column::of_schema(index, row, column))
    }

    /// Returns the parts of the saved object, each container before its content.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'i>> + use<'i> {
        let index = self.index;
        let rows = index.rows::<NodeRow>(Kind::Nodes, self.row.nodes_start, self.row.nodes_count);
        rows.iter().map(move |row| Node {
            kind: match row.kind {
                node::DICT => NodeKind::Dict,
                node::ORDERED_DICT => NodeKind::OrderedDict,
                node::LIST => NodeKind::List,
                node::TUPLE => NodeKind::Tuple,
                node::TENSOR => NodeKind::Tensor(row.target as usize),
                node::LEAF => NodeKind::Leaf(row.target as usize),
                node::SAME => NodeKind::Same(row.target as usize),
                _ => NodeKind::Opaque(index.optional_string(row.target)),
            },
            key: match row.key_kind {
                key::STR => Some(Key::Str(index.string(row.key as u32))),
                key::INT => Some(Key::Int(row.key as i64)),
                key::OTHER => Some(Key::Other(index.string(row.key as u32))),
                _ => None,
            },
            end: row.end as usize,
        })
    }
}

impl fmt::Debug for Schema<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("files", &self.row.rows_count)
            .field("tensors", &self.row.tensors_count)
            .field("columns", &self.row.columns_count)
            .finish()
    }
}

/// A part of the saved object.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node<'i> {
    /// What it is.
    pub kind: NodeKind<'i>,
    /// Its key, where it stands in a dict.
    pub key: Option<Key<'i>>,
    /// Number of the node behind its content.
    pub end: usize,
}

/// What a [`Node`] is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NodeKind<'i> {
    /// `dict`, `collections.defaultdict` or `collections.Counter`.
    Dict,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `list`.
    List,
    /// `tuple` or `torch.Size`.
    Tuple,
    /// The tensor with this number among the file's.
    Tensor(usize),
    /// The plain scalar with this number among the file's.
    Leaf(usize),
    /// The container that is the node with this number.
    Same(usize),
    /// Anything else, to be read from the pickle in the data file; its class, where it is an object of one.
    Opaque(Option<&'i str>),
}

/// A key of a dict.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Key<'i> {
    /// `str`.
    Str(&'i str),
    /// `int`.
    Int(i64),
    /// Any other, as Python's `repr()` shows it.
    Other(&'i str),
}
