//! A file of an index: what it shares with its like, and what is its own.

use std::fmt;

use pt_format::{ByteOrder, Fingerprint};
use xxhash_rust::xxh3::xxh3_64;

use crate::freshness::Stamp;
use crate::index::{Index, Schema, StorageEntry, TensorEntry, lookup};
use crate::layout::*;

/// A file of an index.
#[derive(Clone, Copy)]
pub struct FileEntry<'i> {
    index: &'i Index,
    schema: &'i SchemaRow,
    /// The numbers of this file alone.
    bytes: &'i [u8],
    number: u32,
    schema_number: u32,
    row: u32,
}

/// The rows of a file's schema, and the sections they point into.
pub(crate) struct SchemaRows<'i> {
    pub(crate) flags: u32,
    pub(crate) tensors: &'i [TensorRow],
    pub(crate) storages: &'i [StorageRow],
    pub(crate) nodes: &'i [NodeRow],
    pub(crate) columns: &'i [ColumnRow],
    pub(crate) all_quantizers: &'i [QuantizerRow],
    pub(crate) all_path_parts: &'i [u32],
}

impl<'i> FileEntry<'i> {
    #[inline]
    pub(super) fn new(
        index: &'i Index,
        schema: &'i SchemaRow,
        bytes: &'i [u8],
        number: u32,
        schema_number: u32,
        row: u32,
    ) -> Self {
        Self { index, schema, bytes, number, schema_number, row }
    }

    /// What all files of its schema have in common.
    #[inline]
    pub(super) fn schema_row_data(&self) -> &'i SchemaRow {
        self.schema
    }

    /// Returns bytes of the file's own row.
    #[inline]
    pub(super) fn own_bytes(&self, start: usize, length: usize) -> &'i [u8] {
        self.bytes.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    /// Returns the number of the file in its index.
    pub fn row(&self) -> usize {
        self.number as usize
    }

    /// Returns the path relative to the data, with `/` between parts; empty in the sidecar of one file.
    pub fn path(&self) -> String {
        let mut path = Vec::new();
        match self.index.read_path(self.row(), &mut path) {
            true => String::from_utf8(path).unwrap_or_default(),
            false => String::new(),
        }
    }

    /// Writes the path into a buffer in place of what it holds, so that reading many paths allocates nothing.
    ///
    /// ```
    /// # use pt_index::Index;
    /// # fn show(index: &Index) {
    /// let mut path = Vec::new();
    /// for file in index.files() {
    ///     file.read_path(&mut path);
    ///     println!("{}", String::from_utf8_lossy(&path));
    /// }
    /// # }
    /// ```
    pub fn read_path(&self, out: &mut Vec<u8>) {
        if !self.index.read_path(self.row(), out) {
            out.clear();
        }
    }

    /// Returns what it has in common with others.
    pub fn schema(&self) -> Schema<'i> {
        Schema::new(self.index, self.schema, self.schema_number)
    }

    /// Returns its number among the files of its schema: that of its values in the schema's columns.
    pub fn schema_row(&self) -> usize {
        self.row as usize
    }

    pub(crate) fn index(&self) -> &'i Index {
        self.index
    }

    pub(crate) fn schema_number(&self) -> u32 {
        self.schema_number
    }

    pub(crate) fn schema_rows(&self) -> SchemaRows<'i> {
        let (index, schema) = (self.index, self.schema);
        SchemaRows {
            flags: schema.flags,
            tensors: self.tensor_rows(),
            storages: self.storage_rows(),
            nodes: index.rows(Kind::Nodes, schema.nodes_start, schema.nodes_count),
            columns: index.rows(Kind::Columns, schema.columns_start, schema.columns_count),
            all_quantizers: index.section(Kind::Quantizers),
            all_path_parts: index.section(Kind::PathParts),
        }
    }

    #[inline]
    fn tensor_rows(&self) -> &'i [TensorRow] {
        self.index.rows(Kind::Tensors, self.schema.tensors_start, self.schema.tensors_count)
    }

    #[inline]
    pub(super) fn storage_rows(&self) -> &'i [StorageRow] {
        self.index.rows(Kind::Storages, self.schema.storages_start, self.schema.storages_count)
    }

    /// Returns the place of the number at `position` of a row, if files differ in it.
    #[inline]
    pub(super) fn varying(&self, first: u32, mask: u32, position: u32) -> Option<VaryingRow> {
        if mask & 1 << position == 0 {
            return None;
        }
        let before = (mask & ((1 << position) - 1)).count_ones();
        self.index.section::<VaryingRow>(Kind::Varying).get(first.checked_add(before)? as usize).copied()
    }

    /// Returns the number of this file: what all files have in common, and what is its own.
    #[inline]
    pub(super) fn number_of(&self, base: u64, first: u32, mask: u32, position: u32) -> u64 {
        match mask & 1 << position {
            0 => base,
            _ => self.own_number(base, first, mask, position),
        }
    }

    fn own_number(&self, base: u64, first: u32, mask: u32, position: u32) -> u64 {
        let Some(place) = self.varying(first, mask, position) else { return base };
        base.wrapping_add(number_at(self.bytes, place))
    }

    /// The number among the rows of all files of one that is `local` in this file, where each file of the schema has
    /// `count`.
    #[inline]
    pub(super) fn number_in_index(&self, before: u64, count: u32, local: u32) -> usize {
        before.saturating_add(u64::from(count) * u64::from(self.row)).saturating_add(local.into()) as usize
    }

    /// Returns size and time the file had when it was indexed.
    pub fn stamp(&self) -> Stamp {
        let SchemaRow { size, modified_ns, varying, varying_mask, .. } = *self.schema;
        Stamp {
            size: self.number_of(size, varying, varying_mask, 0),
            modified_ns: self.number_of(modified_ns, varying, varying_mask, 1) as i64,
        }
    }

    /// Returns the digest of the bytes this row was computed from.
    pub fn fingerprint(&self) -> Fingerprint {
        let SchemaRow { fingerprint, varying, varying_mask, flags, .. } = *self.schema;
        Fingerprint {
            digest: self.number_of(fingerprint, varying, varying_mask, 2),
            covers_content: flags & FILE_COVERS_CONTENT != 0,
        }
    }

    /// Returns whether the file is no checkpoint by itself, but a part of a distributed one.
    ///
    /// ```
    /// # use std::path::Path;
    /// let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg/dcp"));
    /// assert!(pt_index::build_distributed(folder, &Default::default())?.files().all(|file| file.is_part()));
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn is_part(&self) -> bool {
        self.schema.flags & FILE_IS_PART != 0
    }

    /// Returns the order of bytes inside the storages.
    #[inline]
    pub fn byte_order(&self) -> ByteOrder {
        match self.schema.flags & FILE_BIG_ENDIAN {
            0 => ByteOrder::Little,
            _ => ByteOrder::Big,
        }
    }

    /// Returns the tensors in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorEntry<'i>> + Clone + use<'i> {
        let file = *self;
        let rows = self.tensor_rows().iter().enumerate();
        rows.map(move |(local, data)| TensorEntry::new(file, local as u32, data))
    }

    /// Returns the tensor with this number among the file's.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Tensor::new::<u8>(&[1], &[7])?.into())?;
    /// let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default())?)?;
    /// assert_eq!(index.file(0).unwrap().tensor_at(0).unwrap().shape(), Some(&[1][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn tensor_at(&self, number: usize) -> Option<TensorEntry<'i>> {
        let data = self.tensor_rows().get(number)?;
        Some(TensorEntry::new(*self, number as u32, data))
    }

    /// Finds a tensor by its dotted name; the first one where names collide.
    pub fn tensor(&self, name: &str) -> Option<TensorEntry<'i>> {
        let SchemaRow { buckets_start, buckets_count, tensors_start, tensors_count, .. } = *self.schema;
        let index = self.index;
        let buckets = index.rows(Kind::NameBuckets, buckets_start, buckets_count.saturating_add(1));
        let slots = index.rows(Kind::NameSlots, tensors_start, tensors_count);
        lookup(buckets, slots, xxh3_64(name.as_bytes())).find_map(|number| {
            let tensor = self.tensor_at(number as usize)?;
            (index.string_bytes(tensor.name_id())? == name.as_bytes()).then_some(tensor)
        })
    }

    /// Returns the storages.
    pub fn storages(&self) -> impl ExactSizeIterator<Item = StorageEntry<'i>> + Clone + use<'i> {
        let file = *self;
        let rows = self.storage_rows().iter().enumerate();
        rows.map(move |(local, data)| StorageEntry::new(file, local as u32, data))
    }

    /// Returns the plain scalars of the file with their dotted names.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (&'i str, Leaf<'i>)> + use<'i> {
        let row = self.schema_row();
        self.schema().columns().map(move |column| (column.name(), column.get(row).unwrap_or(Leaf::None)))
    }

    /// Returns the plain scalars of the file.
    pub(crate) fn values(&self) -> impl Iterator<Item = Leaf<'i>> + use<'i> {
        let row = self.schema_row();
        self.schema().columns().map(move |column| column.get(row).unwrap_or(Leaf::None))
    }

    /// Finds a plain scalar by its dotted name.
    pub fn leaf(&self, name: &str) -> Option<Leaf<'i>> {
        self.leaves().find(|(leaf, _)| *leaf == name).map(|(_, leaf)| leaf)
    }
}

/// The numbers in which files of a schema may differ, in the order of [`crate::structure::Structure::numbers`], for one file
/// after the other: those that are the same in all are not read again.
pub(crate) struct Numbers {
    numbers: Vec<u64>,
    own: Vec<OwnNumber>,
}

/// A number that files have for themselves.
struct OwnNumber {
    position: usize,
    base: u64,
    place: VaryingRow,
}

impl Numbers {
    /// Takes the numbers of a file of the schema.
    pub(crate) fn new(file: FileEntry<'_>, numbers: Vec<u64>) -> Self {
        let mut numbers = Self { numbers, own: Vec::new() };
        let mut position = 0;
        let mut next = |base, place: Option<VaryingRow>| {
            numbers.own.extend(place.map(|place| OwnNumber { position, base, place }));
            position += 1;
        };
        for row in file.storage_rows() {
            let StorageRow { varying, varying_mask, .. } = *row;
            for (field, base) in (0..).zip(row.numbers()) {
                next(base, file.varying(varying, varying_mask, field));
            }
        }
        for row in file.tensor_rows() {
            let TensorRow { varying, varying_mask, storage_offset, .. } = *row;
            next(storage_offset, file.varying(varying, varying_mask, 0));
            let dims = file.varying(varying, varying_mask, TensorRow::DIMS.trailing_zeros());
            for at in 0..row.dims_count() as u32 {
                let place = |first: VaryingRow| VaryingRow {
                    offset: first.offset.saturating_add(u64::BITS / 8 * at),
                    width: u64::BITS / 8,
                };
                next(0, dims.map(place));
            }
        }
        numbers
    }

    /// Returns those of another file of the schema.
    pub(crate) fn of(&mut self, file: FileEntry<'_>) -> &[u64] {
        for OwnNumber { position, base, place } in &self.own {
            if let Some(number) = self.numbers.get_mut(*position) {
                *number = base.wrapping_add(number_at(file.bytes, *place));
            }
        }
        &self.numbers
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

/// Returns the number at some place of a row: in whole words, of which the bytes of its neighbours are cut off, where the row
/// is long enough. Copies of a few bytes take several times as long.
#[inline]
fn number_at(row: &[u8], place: VaryingRow) -> u64 {
    const WORD: usize = size_of::<u64>();
    let (start, width) = (place.offset as usize, (place.width as usize).min(WORD));
    let word_at = |start: usize| row.get(start..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
    let others = u64::BITS - 8 * width as u32;
    if let Some(word) = word_at(start) {
        return word.unbounded_shl(others).unbounded_shr(others);
    }
    if let Some(word) = (start + width).checked_sub(WORD).and_then(word_at) {
        return word.unbounded_shr(others);
    }
    let own = row.get(start..start + width).unwrap_or_default();
    own.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_width_are_read_anywhere_in_a_row() {
        let row: Vec<u8> = (1..=20).map(|byte| byte * 12).collect();
        for length in 0..=row.len() {
            let row = &row[..length];
            for (start, width) in (0..=length).flat_map(|start| (0..=8).map(move |width| (start, width))) {
                let own = row.get(start..start + width).unwrap_or_default();
                let mut number = [0; 8];
                number[..own.len()].copy_from_slice(own);
                let place = VaryingRow { offset: start as u32, width: width as u32 };
                assert_eq!(number_at(row, place), u64::from_le_bytes(number), "{length} {start} {width}");
            }
        }
    }
}
