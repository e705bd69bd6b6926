//! The rows of schemas.

use super::{Problem, Verifier, lookup_table_problem, wrong};
use crate::error::Result;
use crate::layout::*;

/// What the schemas that were looked at take up.
#[derive(Default)]
struct Taken {
    tensors: usize,
    storages: usize,
    columns: usize,
    nodes: usize,
    buckets: usize,
    varying: usize,
    column_data: usize,
    file_rows: usize,
    files: u64,
    tensors_of_files: u64,
    storages_of_files: u64,
}

/// What keys the parts of a container have.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    None,
    All,
    /// Of containers of newer versions.
    Any,
}

type Checked = Result<(), &'static str>;

fn check(condition: bool, what: &'static str) -> Checked {
    condition.then_some(()).ok_or(what)
}

impl Verifier<'_> {
    pub(super) fn schemas(&self) -> Result<()> {
        let index = self.index;
        let mut taken = Taken::default();
        for (number, schema) in index.section::<SchemaRow>(Kind::Schemas).iter().enumerate() {
            let damaged = |what| wrong(index, Kind::Schemas, number, what);
            self.head(number, schema, &mut taken).map_err(damaged)?;
            for at in taken.storages..taken.storages + schema.storages_count as usize {
                let checked = self.storage(at, schema, &mut taken);
                checked.map_err(|what| wrong(index, Kind::Storages, at, what))?;
            }
            for at in 0..schema.tensors_count as usize {
                let checked = self.tensor(at, schema, &mut taken);
                checked.map_err(|what| wrong(index, Kind::Tensors, taken.tensors + at, what))?;
            }
            self.names(schema, &taken)?;
            self.nodes(schema, &taken)?;
            for at in taken.columns..taken.columns + schema.columns_count as usize {
                let checked = self.column(at, schema, &mut taken);
                checked.map_err(|what| wrong(index, Kind::Columns, at, what))?;
            }
            taken.tensors += schema.tensors_count as usize;
            taken.storages += schema.storages_count as usize;
            taken.columns += schema.columns_count as usize;
            taken.nodes += schema.nodes_count as usize;
            taken.buckets += schema.buckets_count as usize + 1;
        }
        for (kind, end) in [
            (Kind::Tensors, taken.tensors),
            (Kind::NameSlots, taken.tensors),
            (Kind::Storages, taken.storages),
            (Kind::Columns, taken.columns),
            (Kind::Nodes, taken.nodes),
            (Kind::NameBuckets, taken.buckets),
            (Kind::Varying, taken.varying),
            (Kind::FileRows, taken.file_rows),
        ] {
            if index.section_bytes(kind).len() != end * super::ROW_BYTES[kind as usize] {
                return Err(wrong(index, kind, end, "rows belong to no schema"));
            }
        }
        let SummaryRow { files, tensors, storages, .. } = *self.summary;
        match (files, tensors, storages) == (taken.files, taken.tensors_of_files, taken.storages_of_files) {
            true => Ok(()),
            false => Err(wrong(index, Kind::Summary, 0, "the schemas have another sum of files or rows")),
        }
    }

    /// Checks where the rows of a schema are, and the rows of its files.
    fn head(&self, number: usize, schema: &SchemaRow, taken: &mut Taken) -> Checked {
        let follows = |start: u32, count: usize, taken: usize, kind: Kind| {
            let there = self.index.section_bytes(kind).len() / super::ROW_BYTES[kind as usize];
            check(start as usize == taken && count <= there - taken, "rows do not follow those before")
        };
        let tensors = schema.tensors_count as usize;
        follows(schema.tensors_start, tensors, taken.tensors, Kind::Tensors)?;
        follows(schema.tensors_start, tensors, taken.tensors, Kind::NameSlots)?;
        follows(schema.storages_start, schema.storages_count as usize, taken.storages, Kind::Storages)?;
        follows(schema.columns_start, schema.columns_count as usize, taken.columns, Kind::Columns)?;
        follows(schema.nodes_start, schema.nodes_count as usize, taken.nodes, Kind::Nodes)?;
        let buckets = (schema.buckets_count as usize).saturating_add(1);
        follows(schema.buckets_start, buckets, taken.buckets, Kind::NameBuckets)?;

        check(schema.rows_count > 0, "a schema has no files")?;
        let rows = u64::from(schema.rows_count);
        let files_start = if number > 0 { taken.files } else { 0 };
        check(u64::from(schema.files_start) == files_start, "files do not follow those before")?;
        check(schema.tensors_before == taken.tensors_of_files, "there are not as many tensors before")?;
        check(schema.storages_before == taken.storages_of_files, "there are not as many storages before")?;
        // More files than the summary says end it: no overflow.
        taken.files += rows;
        check(taken.files <= self.summary.files, "the schemas have more files than there are")?;
        let all = |count: u32| u64::from(count).checked_mul(rows).ok_or("there are too many rows");
        let sum = |before: u64, more: u64| before.checked_add(more).ok_or("there are too many rows");
        taken.tensors_of_files = sum(taken.tensors_of_files, all(schema.tensors_count)?)?;
        taken.storages_of_files = sum(taken.storages_of_files, all(schema.storages_count)?)?;

        let start = taken.file_rows.next_multiple_of(8);
        check(schema.rows_start == start as u64, "file rows do not follow those before")?;
        let bytes = usize::try_from(all(schema.row_bytes)?).unwrap_or(usize::MAX);
        let file_rows = self.index.section_bytes(Kind::FileRows);
        let gap = file_rows.get(taken.file_rows..start).unwrap_or_default();
        check(gap.iter().all(|&byte| byte == 0), "something stands between file rows")?;
        check(bytes <= file_rows.len().saturating_sub(start), "file rows lie outside their section")?;
        taken.file_rows = start.saturating_add(bytes);
        check(taken.file_rows <= file_rows.len(), "file rows lie outside their section")?;
        let count = SchemaRow::NUMBERS as u32;
        self.varying(schema.varying, schema.varying_mask, count, None, schema, taken)
    }

    /// Checks that the numbers that a row lists lie inside the file rows. `dims` is how many sizes and strides there are,
    /// where the last bit stands for them.
    fn varying(
        &self,
        first: u32,
        mask: u32,
        count: u32,
        dims: Option<usize>,
        schema: &SchemaRow,
        taken: &mut Taken,
    ) -> Checked {
        if mask == 0 {
            return Ok(());
        }
        check(mask >> count == 0, "a number varies that is not there")?;
        check(first as usize == taken.varying, "varying rows do not follow those before")?;
        let row_bytes = schema.row_bytes as usize;
        for position in (0..count).filter(|position| mask & 1 << position != 0) {
            let rows = self.index.section::<VaryingRow>(Kind::Varying);
            let &VaryingRow { offset, width } =
                rows.get(taken.varying).ok_or("a varying row is not there")?;
            taken.varying += 1;
            let (offset, width) = (offset as usize, width as usize);
            let end = match dims.filter(|_| position + 1 == count) {
                Some(dims) => {
                    let aligned = [offset, row_bytes].iter().all(|number| number.is_multiple_of(8));
                    check(width == 0 && aligned, "sizes that vary are not aligned")?;
                    offset.saturating_add(8 * dims)
                }
                None => {
                    check((1..=8).contains(&width), "a number that varies has an impossible width")?;
                    offset.saturating_add(width)
                }
            };
            check(end <= row_bytes, "a number that varies lies outside its file row")?;
        }
        Ok(())
    }

    fn storage(&self, at: usize, schema: &SchemaRow, taken: &mut Taken) -> Checked {
        let storage = &self.index.section::<StorageRow>(Kind::Storages)[at];
        check(self.is_string_or_none(storage.fault), "the fault of a storage is no string")?;
        check(storage.method <= u16::MAX.into(), "a storage has an impossible method")?;
        let halves = [storage.crc32, storage.name_hash];
        check(halves.iter().all(|&half| half <= u32::MAX.into()), "a checksum of a storage is too large")?;
        let count = StorageRow::NUMBERS;
        self.varying(storage.varying, storage.varying_mask, count, None, schema, taken)
    }

    /// `at` counts from the first of the schema.
    fn tensor(&self, at: usize, schema: &SchemaRow, taken: &mut Taken) -> Checked {
        let index = self.index;
        let tensor = &index.section::<TensorRow>(Kind::Tensors)[taken.tensors + at];
        check(self.is_string(tensor.name), "the name of a tensor is no string")?;
        check(self.is_string_or_none(tensor.fault), "the fault of a tensor is no string")?;
        check(self.is_string_or_none(tensor.class), "the class of a tensor is no string")?;
        check(
            tensor.storage == NONE || tensor.storage < schema.storages_count,
            "the storage of a tensor is not there",
        )?;
        check(
            tensor.alias_of == NONE || (tensor.alias_of as usize) < at,
            "a tensor is the alias of a later one",
        )?;
        let inside = |kind: Kind, start: u32, count: usize| {
            let there = index.section_bytes(kind).len() / super::ROW_BYTES[kind as usize];
            (start as usize).saturating_add(count) <= there
        };
        let quantizer = tensor.quantizer == NONE || inside(Kind::Quantizers, tensor.quantizer, 1);
        check(quantizer, "the quantizer of a tensor is not there")?;
        let path_count = usize::from(tensor.path_count);
        let path = path_count == 0 || inside(Kind::PathParts, tensor.path, path_count);
        check(path, "the path of a tensor is not there")?;
        check(tensor.has_stride <= 1, "a tensor neither has strides nor has none")?;
        check(
            inside(Kind::Dims, tensor.dims, tensor.dims_count()),
            "the sizes and strides of a tensor are not there",
        )?;
        let dims = Some(tensor.dims_count());
        self.varying(tensor.varying, tensor.varying_mask, 2, dims, schema, taken)
    }

    /// Checks that tensors are found by their names.
    fn names(&self, schema: &SchemaRow, taken: &Taken) -> Result<()> {
        let index = self.index;
        let count = schema.tensors_count as usize;
        let tensors = &index.section::<TensorRow>(Kind::Tensors)[taken.tensors..];
        let buckets = &index.section(Kind::NameBuckets)[taken.buckets..][..schema.buckets_count as usize + 1];
        let slots = &index.section(Kind::NameSlots)[taken.tensors..][..count];
        let hash_of = |row: usize| self.string_hashes[tensors[row].name as usize];
        let (kind, at, what) = match lookup_table_problem(buckets, slots, count, hash_of) {
            None => return Ok(()),
            Some(Problem::Bucket(at, what)) => (Kind::NameBuckets, taken.buckets + at, what),
            Some(Problem::Slot(at, what)) => (Kind::NameSlots, taken.tensors + at, what),
        };
        Err(wrong(index, kind, at, what))
    }

    /// Checks the structure of the saved object.
    fn nodes(&self, schema: &SchemaRow, taken: &Taken) -> Result<()> {
        let index = self.index;
        let nodes = &index.section::<NodeRow>(Kind::Nodes)[taken.nodes..][..schema.nodes_count as usize];
        let mut around: Vec<(usize, Keys)> = Vec::new();
        let mut columns = 0;
        for (at, node) in nodes.iter().enumerate() {
            while around.last().is_some_and(|&(end, _)| end <= at) {
                around.pop();
            }
            let (limit, keys) = around.last().copied().unwrap_or((nodes.len(), Keys::None));
            let checked = self.node(at, node, limit, keys, schema, &mut columns).and_then(|()| {
                check(at > 0 || node.end as usize == nodes.len(), "nodes stand outside the saved object")
            });
            checked.map_err(|what| wrong(index, Kind::Nodes, taken.nodes + at, what))?;
            let keys = match node.kind {
                node::DICT | node::ORDERED_DICT => Keys::All,
                node::LIST | node::TUPLE => Keys::None,
                _ => Keys::Any,
            };
            // One without content goes at the next node.
            around.push((node.end as usize, keys));
        }
        match nodes.is_empty() || columns != schema.columns_count {
            true => {
                Err(wrong(index, Kind::Nodes, taken.nodes, "the saved object has other nodes or columns"))
            }
            false => Ok(()),
        }
    }

    fn node(
        &self,
        at: usize,
        node: &NodeRow,
        limit: usize,
        keys: Keys,
        schema: &SchemaRow,
        columns: &mut u32,
    ) -> Checked {
        let end = node.end as usize;
        check((at + 1..=limit).contains(&end), "a node ends where it cannot")?;
        let single = end == at + 1;
        let target = node.target;
        match node.kind {
            node::DICT | node::ORDERED_DICT | node::LIST | node::TUPLE => {}
            node::TENSOR => check(single && target < schema.tensors_count, "a tensor node has no tensor")?,
            node::LEAF => {
                check(single && target == *columns, "a plain value is not the next column")?;
                *columns += 1;
            }
            node::SAME => check(single && (target as usize) < at, "a node is the same as a later one")?,
            node::OPAQUE => check(single && self.is_string_or_none(target), "an opaque node has no class")?,
            // Of a newer version: as good as opaque.
            _ => {}
        }
        let is_string = usize::try_from(node.key).is_ok_and(|id| id < self.string_hashes.len());
        let is_text = matches!(node.key_kind, key::STR | key::OTHER);
        check(!is_text || is_string, "the key of a node is no string")?;
        let has_key = node.key_kind != key::NONE;
        check(keys == Keys::Any || has_key == (keys == Keys::All), "a node has a key where none is, or none")
    }

    fn column(&self, at: usize, schema: &SchemaRow, taken: &mut Taken) -> Checked {
        let column = &self.index.section::<ColumnRow>(Kind::Columns)[at];
        check(self.is_string(column.name), "the name of a column is no string")?;
        let rows = schema.rows_count as usize;
        let data = self.index.column_data();
        // Bytes that begin where they may, behind those before.
        let mut take = |start: u64, count: usize, width: usize| {
            let start = usize::try_from(start).ok().filter(|start| start.is_multiple_of(8))?;
            let end = start.checked_add(count.checked_mul(width)?)?;
            let bytes = data.get(start..end).filter(|_| start >= taken.column_data)?;
            taken.column_data = end;
            Some(bytes)
        };
        let width = match column.kind {
            column::NONE => 0,
            column::BOOL => 1,
            column::STR => 4,
            column::INT | column::FLOAT | column::MIXED => 8,
            // Of a newer version: reads as absent.
            _ => return Ok(()),
        };
        let values = take(column.values, rows, width).ok_or("the values of a column are not there")?;
        let marks = match column.marks {
            NO_OFFSET => None,
            start if column.kind == column::MIXED => Some(take(start, rows, 1)),
            start => Some(take(start, rows.div_ceil(8), 1)),
        };
        let marks = marks.map(|marks| marks.ok_or("the marks of a column are not there")).transpose()?;
        let number =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
        let texts = self.text_count as u64;
        match (column.kind, marks) {
            (column::NONE, marks) => check(marks.is_none(), "a column without values has marks"),
            (column::BOOL, _) => check(values.iter().all(|&value| value <= 1), "a bool is neither"),
            (column::STR, marks) => {
                let is_there = |row: usize| marks.is_none_or(|marks| marks[row / 8] & 1 << (row % 8) != 0);
                let mut values = values.chunks_exact(4).enumerate();
                check(
                    values.all(|(row, value)| !is_there(row) || number(value) < texts),
                    "a value of a column is no text",
                )
            }
            (column::MIXED, None) => Err("a mixed column has no marks"),
            (column::MIXED, Some(kinds)) => {
                let mut values = kinds.iter().zip(values.chunks_exact(8));
                let is_sound = |kind: u8, value| match kind.into() {
                    column::BOOL => value <= 1,
                    column::STR => value < texts,
                    _ => true,
                };
                check(
                    values.all(|(&kind, value)| is_sound(kind, number(value))),
                    "a value of a column is not of its kind",
                )
            }
            _ => Ok(()),
        }
    }
}
