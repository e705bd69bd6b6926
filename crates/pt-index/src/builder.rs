//! Files to the bytes of an index.

use std::sync::Arc;

use bytemuck::{Pod, cast_slice};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use pt_format::Checkpoint;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::index::{FileEntry, Index, Leaf, Numbers};
use crate::layout::*;
use crate::paths::PathWriter;
use crate::record::{Cell, Record, Scratch, SharedRecord};
use crate::schema::{Layout, Schema};
use crate::sections::Sections;
use crate::strings::{Strings, number};
use crate::structure::Structure;

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
    schemas: Vec<Schema>,
    by_structure: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Structure and schema of the file added last.
    before: Option<(Arc<Structure>, u32)>,
    /// By the number that a schema has in an earlier index.
    adopted: HashMap<u32, Adopted>,
    /// Of the file that is adopted; kept from file to file.
    cells: Vec<Cell>,
    paths: PathWriter,
    path_hashes: Vec<u64>,
    file_schemas: Vec<u32>,
    texts: Strings,
    skipped: Vec<SkippedRow>,
    summary: SummaryRow,
}

/// A schema of an earlier index: which it is here, and the numbers of its files.
struct Adopted {
    schema: u32,
    numbers: Numbers,
}

impl IndexBuilder {
    /// Adds a file. Files are looked up by `path`, and come in the order of their paths, compared byte by byte.
    ///
    /// # Errors
    /// [`Error::PathOrder`] for a path that does not come behind the one before, [`Error::TooMany`] when the format cannot number
    /// that many rows. The builder is then of no more use.
    pub fn add(&mut self, path: &str, stamp: Stamp, checkpoint: &Checkpoint<'_>) -> Result<()> {
        let scratch = &mut Scratch::default();
        self.add_record(path, Record::new(stamp, checkpoint, scratch)?.shared(scratch))
    }

    /// Adds a file that was taken down already.
    pub(crate) fn add_record(&mut self, path: &str, record: SharedRecord) -> Result<()> {
        let SharedRecord { stamp, fingerprint, structure, numbers, mut cells, text, .. } = record;
        for cell in cells.iter_mut().filter(|cell| cell.kind == column::STR) {
            cell.bits = self.texts.intern(cell.text(&text))?.into();
        }
        let head = head(stamp, fingerprint);
        let schema = match &self.before {
            Some((before, schema)) if Arc::ptr_eq(before, &structure) => {
                self.schemas[*schema as usize].push(head, &numbers, &cells);
                *schema
            }
            _ => {
                let schema = self.add_structure(head, &structure, &numbers, &cells)?;
                self.before = Some((structure, schema));
                schema
            }
        };
        self.add_path(path, stamp, schema)
    }

    /// Adds a file as an earlier index has it, with a new stamp. Nothing of the file is read. All files that are adopted
    /// come from one index.
    pub(crate) fn adopt(&mut self, path: &str, stamp: Stamp, file: FileEntry<'_>) -> Result<()> {
        let mut cells = std::mem::take(&mut self.cells);
        cells.clear();
        for leaf in file.values() {
            cells.push(match leaf {
                Leaf::Str(text) => Cell { kind: column::STR, bits: self.texts.intern(text)?.into() },
                leaf => Cell::new(leaf, &mut String::new()),
            });
        }
        let head = head(stamp, file.fingerprint().digest);
        let schema = match self.adopted.get_mut(&file.schema_number()) {
            Some(Adopted { schema, numbers }) => {
                self.schemas[*schema as usize].push(head, numbers.of(file), &cells);
                *schema
            }
            None => {
                let structure = Arc::new(Structure::of_entry(file)?);
                let numbers: Vec<u64> = structure.numbers().collect();
                let schema = self.add_structure(head, &structure, &numbers, &cells)?;
                if file.schema().file_count() > 1 {
                    let numbers = Numbers::new(file, numbers);
                    self.adopted.insert(file.schema_number(), Adopted { schema, numbers });
                }
                schema
            }
        };
        self.cells = cells;
        self.add_path(path, stamp, schema)
    }

    /// Notes a file that was met and could not be indexed.
    pub(crate) fn skip(&mut self, path: &str, stamp: Stamp, reason: &str) -> Result<()> {
        let (path, reason) = (self.texts.intern(path)?, self.texts.intern(reason)?);
        self.skipped.push(SkippedRow { size: stamp.size, modified_ns: stamp.modified_ns, path, reason });
        Ok(())
    }

    /// Puts a file with its schema, a new one if there is none like it, and returns the schema's number.
    fn add_structure(
        &mut self,
        head: [u64; SchemaRow::NUMBERS],
        structure: &Arc<Structure>,
        numbers: &[u64],
        cells: &[Cell],
    ) -> Result<u32> {
        let hash = structure.hash(&self.hasher);
        let same = |&id: &u32| self.schemas[id as usize].structure.same(structure);
        if let Some(&id) = self.by_structure.find(hash, same) {
            self.schemas[id as usize].push(head, numbers, cells);
            return Ok(id);
        }
        let id = number(self.schemas.len())?;
        // Files that share a structure come after the one it was taken from.
        debug_assert!(structure.numbers().eq(numbers.iter().copied()), "numbers of another file");
        self.schemas.push(Schema::new(hash, Arc::clone(structure), head, cells));
        let schemas = &self.schemas;
        self.by_structure.insert_unique(hash, id, |&id| schemas[id as usize].hash);
        Ok(id)
    }

    fn add_path(&mut self, path: &str, stamp: Stamp, schema: u32) -> Result<()> {
        number(self.file_schemas.len())?;
        if !self.file_schemas.is_empty() && path <= self.paths.last() {
            return Err(Error::PathOrder { path: path.to_owned() });
        }
        self.paths.push(path);
        self.path_hashes.push(xxh3_64(path.as_bytes()));
        self.file_schemas.push(schema);
        self.summary.bytes = self.summary.bytes.saturating_add(stamp.size);
        Ok(())
    }

    /// Lays the index out.
    ///
    /// # Errors
    /// [`Error::TooMany`] when the format cannot number that many rows.
    pub fn finish(self) -> Result<Index> {
        let Self { schemas, before, paths, path_hashes, file_schemas, texts, skipped, mut summary, .. } =
            self;
        // Schemas then own their structures.
        drop(before);
        let mut layout = Layout::default();
        for schema in schemas {
            layout.add(schema)?;
        }
        summary.files = file_schemas.len() as u64;
        (summary.tensors, summary.storages) = (layout.tensors_before, layout.storages_before);
        // Of one schema alone, files are its rows.
        let (file_schemas, schema_rows, schema_files) = match layout.schemas.len() {
            0 | 1 => Default::default(),
            count => numbered(file_schemas, count, &mut layout.schemas),
        };
        let (file_buckets, file_slots) = lookup_table(path_hashes.into_iter());
        Index::of(Sections::assemble([
            (Kind::Summary, bytemuck::bytes_of(&summary)),
            (Kind::Schemas, cast(&layout.schemas)),
            (Kind::Tensors, cast(&layout.tensors)),
            (Kind::Dims, cast(&layout.dims)),
            (Kind::Storages, cast(&layout.storages)),
            (Kind::Nodes, cast(&layout.nodes)),
            (Kind::Columns, cast(&layout.columns)),
            (Kind::ColumnData, &layout.column_data),
            (Kind::Quantizers, cast(&layout.quantizers)),
            (Kind::PathParts, cast(&layout.path_parts)),
            (Kind::Varying, cast(&layout.varying)),
            (Kind::FileRows, &layout.file_rows),
            (Kind::FileSchemas, cast(&file_schemas)),
            (Kind::SchemaRows, cast(&schema_rows)),
            (Kind::SchemaFiles, cast(&schema_files)),
            (Kind::StringEnds, cast(&layout.strings.ends)),
            (Kind::StringBytes, &layout.strings.bytes),
            (Kind::TextEnds, cast(&texts.ends)),
            (Kind::TextBytes, &texts.bytes),
            (Kind::PathBlocks, cast(&paths.blocks)),
            (Kind::PathBytes, &paths.bytes),
            (Kind::NameBuckets, cast(&layout.name_buckets)),
            (Kind::NameSlots, cast(&layout.name_slots)),
            (Kind::FileBuckets, cast(&file_buckets)),
            (Kind::FileSlots, cast(&file_slots)),
            (Kind::Skipped, cast(&skipped)),
            (Kind::Root, &[]),
        ])?)
    }
}

fn head(stamp: Stamp, fingerprint: u64) -> [u64; SchemaRow::NUMBERS] {
    [stamp.size, stamp.modified_ns as u64, fingerprint]
}

/// Returns the schema of each file, its row among the schema's, and, schema by schema, the files.
fn numbered(
    file_schemas: Vec<u32>,
    count: usize,
    schemas: &mut [SchemaRow],
) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut rows = vec![0u32; count];
    let schema_rows: Vec<u32> = file_schemas
        .iter()
        .map(|&schema| {
            let row = &mut rows[schema as usize];
            *row += 1;
            *row - 1
        })
        .collect();
    let mut start = 0;
    for schema in schemas.iter_mut() {
        schema.files_start = start;
        start += schema.rows_count;
    }
    let mut schema_files = vec![0u32; file_schemas.len()];
    for (file, (&schema, &row)) in file_schemas.iter().zip(&schema_rows).enumerate() {
        schema_files[(schemas[schema as usize].files_start + row) as usize] = file as u32;
    }
    (file_schemas, schema_rows, schema_files)
}

/// Sorts rows by bucket; rows of one bucket stay in their order, so the first of equal names is found first.
pub(crate) fn lookup_table(hashes: impl ExactSizeIterator<Item = u64> + Clone) -> (Vec<u32>, Vec<Slot>) {
    let count = bucket_count(hashes.len());
    let mut starts = vec![0u32; count + 1];
    for hash in hashes.clone() {
        starts[bucket_of(hash, count) + 1] += 1;
    }
    for bucket in 0..count {
        starts[bucket + 1] += starts[bucket];
    }
    let mut next = starts.clone();
    let mut slots = vec![Slot { hash: 0, row: 0 }; hashes.len()];
    for (row, hash) in hashes.enumerate() {
        let at = &mut next[bucket_of(hash, count)];
        slots[*at as usize] = Slot { hash: hash as u32, row: row as u32 };
        *at += 1;
    }
    (starts, slots)
}

fn cast<T: Pod>(rows: &[T]) -> &[u8] {
    cast_slice(rows)
}
