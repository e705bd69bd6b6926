//! Like files, collected under their schema, and how they are laid out in an index.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::builder::lookup_table;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::record::Cell;
use crate::strings::{Strings, number};
use crate::structure::Structure;

/// The files of one structure.
pub(crate) struct Schema {
    pub(crate) hash: u64,
    /// With the numbers of the first file.
    pub(crate) structure: Arc<Structure>,
    /// Stamp and fingerprint of the first file.
    head: [u64; SchemaRow::NUMBERS],
    /// The numbers of the first file, one after the other as `head` and [`Structure::numbers`] have them. Empty while there
    /// is one file.
    first: Vec<u64>,
    /// The same numbers of all files: of those that are always the same none.
    varying: Vec<Vec<u64>>,
    columns: Vec<Column>,
    rows: u32,
}

/// Values of one scalar in all files.
#[derive(Default)]
struct Column {
    kinds: Vec<u8>,
    bits: Vec<u64>,
}

impl Schema {
    pub(crate) fn new(
        hash: u64,
        structure: Arc<Structure>,
        head: [u64; SchemaRow::NUMBERS],
        cells: &[Cell],
    ) -> Self {
        let columns = structure.columns.iter().map(|_| Column::default()).collect();
        let (first, varying) = (Vec::new(), Vec::new());
        let mut schema = Self { hash, structure, head, first, varying, columns, rows: 1 };
        schema.push_cells(cells);
        schema
    }

    /// Adds a file of this structure.
    pub(crate) fn push(&mut self, head: [u64; SchemaRow::NUMBERS], numbers: &[u64], cells: &[Cell]) {
        if self.first.is_empty() {
            self.first.extend(self.head.into_iter().chain(self.structure.numbers()));
            self.varying.resize(self.first.len(), Vec::new());
        }
        self.push_numbers(0, &head);
        self.push_numbers(head.len(), numbers);
        self.rows += 1;
        self.push_cells(cells);
    }

    /// Adds numbers of a file that stand behind `before` others.
    fn push_numbers(&mut self, before: usize, numbers: &[u64]) {
        let first = &self.first[before..];
        for (all, (first, this)) in self.varying[before..].iter_mut().zip(first.iter().zip(numbers)) {
            if all.is_empty() && first != this {
                all.resize(self.rows as usize, *first);
            }
            if !all.is_empty() {
                all.push(*this);
            }
        }
    }

    fn push_cells(&mut self, cells: &[Cell]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.kinds.push(cell.kind as u8);
            column.bits.push(cell.bits);
        }
    }
}

/// The sections of an index that hold its schemas.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) schemas: Vec<SchemaRow>,
    pub(crate) tensors: Vec<TensorRow>,
    pub(crate) dims: Vec<u64>,
    pub(crate) storages: Vec<StorageRow>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) columns: Vec<ColumnRow>,
    pub(crate) column_data: Vec<u8>,
    pub(crate) quantizers: Vec<QuantizerRow>,
    pub(crate) path_parts: Vec<u32>,
    pub(crate) varying: Vec<VaryingRow>,
    pub(crate) file_rows: Vec<u8>,
    pub(crate) strings: Strings,
    pub(crate) name_buckets: Vec<u32>,
    pub(crate) name_slots: Vec<Slot>,
    pub(crate) tensors_before: u64,
    pub(crate) storages_before: u64,
}

impl Layout {
    /// Puts a schema and the rows of its files behind the others.
    pub(crate) fn add(&mut self, schema: Schema) -> Result<()> {
        let Schema { structure, head, varying, columns, rows, .. } = schema;
        let mut structure = Arc::unwrap_or_clone(structure);
        let own = std::mem::take(&mut structure.strings);
        if self.strings.is_empty() {
            self.strings = own;
        } else {
            structure.map_strings(|id| self.strings.intern(own.get(id)))?;
        }
        let [size, modified_ns, fingerprint] = head;
        let mut row = SchemaRow {
            tensors_before: self.tensors_before,
            storages_before: self.storages_before,
            size,
            modified_ns,
            fingerprint,
            rows_count: rows,
            flags: structure.flags,
            tensors_start: number(self.tensors.len())?,
            tensors_count: number(structure.tensors.len())?,
            storages_start: number(self.storages.len())?,
            storages_count: number(structure.storages.len())?,
            columns_start: number(self.columns.len())?,
            columns_count: number(columns.len())?,
            nodes_start: number(self.nodes.len())?,
            nodes_count: number(structure.nodes.len())?,
            buckets_start: number(self.name_buckets.len())?,
            ..SchemaRow::default()
        };
        self.tensors_before += u64::from(row.tensors_count) * u64::from(row.rows_count);
        self.storages_before += u64::from(row.storages_count) * u64::from(row.rows_count);
        self.add_rows(&mut structure, varying, &mut row)?;
        self.add_names(&structure, &mut row);
        for (column, &name) in columns.iter().zip(&structure.columns) {
            self.add_column(column, name);
        }

        let Structure { mut tensors, dims, storages, quantizers, path_parts, nodes, .. } = structure;
        let (dims_before, quantizers_before) = (number(self.dims.len())?, number(self.quantizers.len())?);
        let parts_before = number(self.path_parts.len())?;
        number(self.dims.len() + dims.len())?;
        number(self.path_parts.len() + path_parts.len())?;
        for tensor in &mut tensors {
            tensor.dims += dims_before;
            if tensor.quantizer != NONE {
                tensor.quantizer += quantizers_before;
            }
            if tensor.path_count > 0 {
                tensor.path += parts_before;
            }
        }
        join(&mut self.tensors, tensors);
        join(&mut self.dims, dims);
        join(&mut self.storages, storages);
        join(&mut self.quantizers, quantizers);
        join(&mut self.path_parts, path_parts);
        join(&mut self.nodes, nodes);
        self.schemas.push(row);
        Ok(())
    }

    /// Works out which numbers differ from file to file and in how many bytes, and writes those of every file.
    fn add_rows(
        &mut self,
        structure: &mut Structure,
        varying: Vec<Vec<u64>>,
        row: &mut SchemaRow,
    ) -> Result<()> {
        let mut plan = Plan::default();
        let mut varying = varying.into_iter();
        if varying.len() > 0 {
            let fields = [&mut row.size, &mut row.modified_ns, &mut row.fingerprint];
            (row.varying, row.varying_mask) = plan.fields(&mut self.varying, fields, &mut varying)?;
            for storage in &mut structure.storages {
                let StorageRow { data_offset, header_offset, packed_bytes, bytes, crc32, name_hash, .. } =
                    storage;
                let fields = [data_offset, header_offset, packed_bytes, bytes, crc32, name_hash];
                let listed = plan.fields(&mut self.varying, fields, &mut varying)?;
                (storage.varying, storage.varying_mask) = listed;
            }
            for tensor in &mut structure.tensors {
                let fields = [&mut tensor.storage_offset];
                (tensor.varying, tensor.varying_mask) =
                    plan.fields(&mut self.varying, fields, &mut varying)?;
                let start = tensor.dims as usize;
                let dims = &structure.dims[start..start + tensor.dims_count()];
                if plan.dims(&mut self.varying, dims, &mut varying)? {
                    tensor.varying_mask |= TensorRow::DIMS;
                }
            }
        }
        self.file_rows.resize(self.file_rows.len().next_multiple_of(8), 0);
        row.rows_start = self.file_rows.len() as u64;
        row.row_bytes = plan.write(&mut self.varying, row.rows_count as usize, &mut self.file_rows)?;
        Ok(())
    }

    fn add_names(&mut self, structure: &Structure, row: &mut SchemaRow) {
        let hashes: Vec<u64> =
            structure.tensors.iter().map(|row| xxh3_64(self.strings.get(row.name).as_bytes())).collect();
        let (buckets, slots) = lookup_table(hashes.into_iter());
        row.buckets_count = buckets.len() as u32 - 1;
        join(&mut self.name_buckets, buckets);
        join(&mut self.name_slots, slots);
    }

    fn add_column(&mut self, column: &Column, name: u32) {
        let Column { kinds, bits } = column;
        let first = kinds.iter().copied().find(|&kind| u32::from(kind) != column::NONE);
        let same = |&kind: &u8| u32::from(kind) == column::NONE || Some(kind) == first;
        let kind = match first {
            None => column::NONE,
            Some(kind) if kinds.iter().all(same) => kind.into(),
            Some(_) => column::MIXED,
        };
        let out = &mut self.column_data;
        let values = begin(out);
        match kind {
            column::NONE => {}
            column::BOOL => out.extend(bits.iter().map(|&bits| bits as u8)),
            column::STR => out.extend(bits.iter().flat_map(|&bits| (bits as u32).to_le_bytes())),
            _ => out.extend_from_slice(bytemuck::cast_slice(bits)),
        }
        let missing = kinds.iter().any(|&kind| u32::from(kind) == column::NONE);
        let marks = match kind {
            column::MIXED => {
                let marks = begin(out);
                out.extend_from_slice(kinds);
                marks
            }
            kind if missing && kind != column::NONE => {
                let marks = begin(out);
                let bit = |(at, &kind): (usize, &u8)| u8::from(u32::from(kind) != column::NONE) << at;
                out.extend(
                    kinds.chunks(8).map(|kinds| kinds.iter().enumerate().map(bit).fold(0, |a, b| a | b)),
                );
                marks
            }
            _ => NO_OFFSET,
        };
        self.columns.push(ColumnRow { values, marks, name, kind });
    }
}

/// Pads to the next multiple of 8 and returns where that is.
fn begin(out: &mut Vec<u8>) -> u64 {
    out.resize(out.len().next_multiple_of(8), 0);
    out.len() as u64
}

/// The row of a file: what stands in it, in the order it was found.
#[derive(Default)]
struct Plan {
    entries: Vec<Entry>,
}

struct Entry {
    /// Which row of the varying ones says where it stands.
    listed: usize,
    base: u64,
    /// 0: eight bytes each of several, 8-aligned.
    width: usize,
    /// By file.
    numbers: Vec<Vec<u64>>,
}

impl Plan {
    /// Takes the fields that differ; each then holds the least of its numbers. Returns the first row that lists one, and
    /// which fields they are.
    fn fields<const N: usize>(
        &mut self,
        varying: &mut Vec<VaryingRow>,
        fields: [&mut u64; N],
        numbers: &mut impl Iterator<Item = Vec<u64>>,
    ) -> Result<(u32, u32)> {
        let first = number(varying.len())?;
        let mut mask = 0;
        for (position, field) in fields.into_iter().enumerate() {
            let numbers = numbers.next().unwrap_or_default();
            let (Some(&least), Some(&most)) = (numbers.iter().min(), numbers.iter().max()) else { continue };
            mask |= 1 << position;
            *field = least;
            let width = (u64::BITS - (most - least).leading_zeros()).div_ceil(8).max(1) as usize;
            let listed = varying.len();
            varying.push(VaryingRow { offset: 0, width: width as u32 });
            self.entries.push(Entry { listed, base: least, width, numbers: vec![numbers] });
        }
        Ok((first, mask))
    }

    /// Takes the sizes and strides of a tensor, all of them if any differs.
    fn dims(
        &mut self,
        varying: &mut Vec<VaryingRow>,
        dims: &[u64],
        numbers: &mut impl Iterator<Item = Vec<u64>>,
    ) -> Result<bool> {
        let mut numbers: Vec<Vec<u64>> = numbers.by_ref().take(dims.len()).collect();
        let Some(rows) = numbers.iter().map(Vec::len).max().filter(|&rows| rows > 0) else {
            return Ok(false);
        };
        for (numbers, &constant) in numbers.iter_mut().zip(dims) {
            numbers.resize(rows, constant);
        }
        let listed = varying.len();
        number(listed)?;
        varying.push(VaryingRow { offset: 0, width: 0 });
        self.entries.push(Entry { listed, base: 0, width: 0, numbers });
        Ok(true)
    }

    /// Gives every number its place, and writes the row of every file. Returns the bytes of one.
    fn write(mut self, varying: &mut [VaryingRow], rows: usize, out: &mut Vec<u8>) -> Result<u32> {
        // What must be aligned comes first.
        self.entries.sort_by_key(|entry| entry.width > 0);
        let mut end = 0usize;
        for entry in &self.entries {
            varying[entry.listed].offset = number(end)?;
            end += if entry.width == 0 { 8 * entry.numbers.len() } else { entry.width };
        }
        if self.entries.first().is_some_and(|entry| entry.width == 0) {
            end = end.next_multiple_of(8);
        }
        let bytes = number(end)?;
        let total = end.checked_mul(rows).ok_or(Error::TooMany { what: "rows", count: rows })?;
        let start = out.len();
        out.resize(start + total, 0);
        if end == 0 {
            return Ok(0);
        }
        for (row, out) in out[start..].chunks_exact_mut(end).enumerate() {
            for entry in &self.entries {
                let at = varying[entry.listed].offset as usize;
                let width = if entry.width == 0 { 8 } else { entry.width };
                for (slot, numbers) in out[at..].chunks_exact_mut(width).zip(&entry.numbers) {
                    slot.copy_from_slice(&numbers[row].wrapping_sub(entry.base).to_le_bytes()[..width]);
                }
            }
        }
        Ok(bytes)
    }
}

/// Moves rows behind others.
fn join<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    match all.is_empty() {
        true => *all = more,
        false => all.append(&mut more),
    }
}
