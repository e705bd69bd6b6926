//! Reading an index in place.

mod file;
mod schema;
mod tensor;

use std::fmt;

use bytemuck::Pod;
use bytes::Bytes;
use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::file::Numbers;
pub use self::file::{FileEntry, Leaf};
pub use self::schema::{Key, Node, NodeKind, Schema};
pub use self::tensor::{StorageEntry, TensorEntry, UsualTensor};
use crate::column::Column;
use crate::error::Result;
use crate::freshness::Stamp;
use crate::layout::*;
use crate::paths::{BLOCK, PathReader, count_before, is_path, read_path};
use crate::sections::{Sections, damaged};

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
    sections: Sections,
}

impl Index {
    /// Takes the bytes of an index and checks their header. The work does not grow with the content, except that bytes
    /// which are not 8-aligned in memory are copied (a mapped file always is aligned).
    ///
    /// # Errors
    /// [`NotAnIndex`](crate::Error::NotAnIndex), [`Version`](crate::Error::Version) or [`Damaged`](crate::Error::Damaged).
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        Self::of(Sections::open(bytes.into())?)
    }

    pub(crate) fn of(sections: Sections) -> Result<Self> {
        let index = Self { sections };
        index.check_summary()?;
        Ok(index)
    }

    /// Checks that there can be as many files, tensors and storages as the summary says: callers take memory for them.
    fn check_summary(&self) -> Result<()> {
        let SummaryRow { files, tensors, storages, .. } = self.summary();
        let files_max = self.section::<u64>(Kind::PathBlocks).len() as u64 * BLOCK as u64;
        let most = |rows: usize| files.saturating_mul(rows as u64);
        let possible = files <= files_max
            && tensors <= most(self.section::<TensorRow>(Kind::Tensors).len())
            && storages <= most(self.section::<StorageRow>(Kind::Storages).len());
        match possible {
            true => Ok(()),
            false => Err(damaged(self.section_offset(Kind::Summary), "it speaks of more than there is")),
        }
    }

    /// Returns the bytes of the index, to write to a file.
    pub fn as_bytes(&self) -> &[u8] {
        self.sections.bytes()
    }

    /// Returns the checksum in its header. It covers the checksums of all sections, so that indexes of other content have another.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// assert_ne!(index.checksum(), index.with_root("elsewhere")?.checksum());
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn checksum(&self) -> u64 {
        let bytes = self.as_bytes().get(CHECKSUM_OFFSET..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    pub(crate) fn section_table(&self) -> &[SectionRow] {
        self.sections.table()
    }

    pub(crate) fn section_offset(&self, kind: Kind) -> usize {
        self.sections.offset(kind)
    }

    #[inline]
    pub(crate) fn section<T: Pod>(&self, kind: Kind) -> &[T] {
        self.sections.rows(kind)
    }

    #[inline]
    pub(crate) fn section_bytes(&self, kind: Kind) -> &[u8] {
        self.sections.get(kind)
    }

    /// Returns `count` rows of a section from `start` on; none where they are not all there.
    #[inline]
    fn rows<T: Pod>(&self, kind: Kind, start: u32, count: u32) -> &[T] {
        self.sections.some_rows(kind, start, count).unwrap_or_default()
    }

    pub(crate) fn string(&self, id: u32) -> &str {
        text(self.string_bytes(id))
    }

    fn string_bytes(&self, id: u32) -> Option<&[u8]> {
        self.pooled(Kind::StringEnds, Kind::StringBytes, id)
    }

    /// Returns the value of a string scalar.
    pub(crate) fn text(&self, id: u32) -> &str {
        text(self.pooled(Kind::TextEnds, Kind::TextBytes, id))
    }

    fn pooled(&self, ends: Kind, bytes: Kind, id: u32) -> Option<&[u8]> {
        let ends = self.section::<u64>(ends);
        let end = *ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |before| ends[before]);
        self.section_bytes(bytes).get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    #[inline]
    fn optional_string(&self, id: u32) -> Option<&str> {
        (id != NONE).then(|| self.string(id))
    }

    #[inline]
    pub(crate) fn summary(&self) -> SummaryRow {
        self.section(Kind::Summary).first().copied().unwrap_or_default()
    }

    /// Returns where the data is, seen from the folder the index is kept in; empty when it is there, or beside.
    pub fn root(&self) -> &str {
        text(Some(self.section_bytes(Kind::Root)))
    }

    /// Returns the same index, to be kept in a folder from which the data is at `root`.
    ///
    /// # Errors
    /// As [`Self::from_bytes`], for an index whose header was right and whose content is not.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// assert_eq!(index.root(), "");
    /// assert_eq!(index.with_root("../data")?.root(), "../data");
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn with_root(&self, root: &str) -> Result<Self> {
        Self::of(Sections::assemble(Kind::ALL.map(|kind| match kind {
            Kind::Root => (kind, root.as_bytes()),
            _ => (kind, self.section_bytes(kind)),
        }))?)
    }

    /// Returns the number of files.
    pub fn file_count(&self) -> usize {
        self.summary().files as usize
    }

    /// Returns the bytes of all data files, as they were when they were indexed.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// assert_eq!((index.file_count(), index.data_bytes()), (0, 0));
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn data_bytes(&self) -> u64 {
        self.summary().bytes
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = FileEntry<'_>> + Clone {
        (0..self.file_count()).map_while(|number| self.file(number))
    }

    /// Returns the file with this number.
    #[inline]
    pub fn file(&self, number: usize) -> Option<FileEntry<'_>> {
        let number = u32::try_from(number).ok().filter(|&number| u64::from(number) < self.summary().files)?;
        let file_schemas = self.section::<u32>(Kind::FileSchemas);
        let (schema, row) = match file_schemas.get(number as usize) {
            None if file_schemas.is_empty() => (0, number),
            Some(&schema) => (schema, *self.section(Kind::SchemaRows).get(number as usize)?),
            None => return None,
        };
        self.row_of_schema(schema, row, number)
    }

    #[inline]
    fn row_of_schema(&self, schema: u32, row: u32, number: u32) -> Option<FileEntry<'_>> {
        let schema_row = self.section::<SchemaRow>(Kind::Schemas).get(schema as usize)?;
        if row >= schema_row.rows_count {
            return None;
        }
        let bytes = u64::from(schema_row.row_bytes);
        let start = (bytes * u64::from(row)).checked_add(schema_row.rows_start)?;
        let start = usize::try_from(start).ok()?;
        let bytes = self.section_bytes(Kind::FileRows).get(start..start.checked_add(bytes as usize)?)?;
        Some(FileEntry::new(self, schema_row, bytes, number, schema, row))
    }

    /// Finds a file by its path relative to the data, with `/` between parts.
    pub fn find_file(&self, path: &str) -> Option<FileEntry<'_>> {
        let hash = xxh3_64(path.as_bytes());
        let (buckets, slots) = (self.section(Kind::FileBuckets), self.section(Kind::FileSlots));
        let (blocks, bytes) = (self.section(Kind::PathBlocks), self.section_bytes(Kind::PathBytes));
        let is_this = |number: &u32| is_path(blocks, bytes, *number as usize, path.as_bytes());
        let number = lookup(buckets, slots, hash).find(is_this)?;
        self.file(number as usize)
    }

    /// Returns the number of the first file whose path does not come before this one.
    pub(crate) fn first_file_from(&self, path: &str) -> usize {
        let (blocks, bytes) = (self.section(Kind::PathBlocks), self.section_bytes(Kind::PathBytes));
        count_before(blocks, bytes, self.file_count(), path)
    }

    /// Returns the paths of the files, to be read one after the other.
    pub(crate) fn paths(&self) -> PathReader<'_> {
        PathReader::new(self.section(Kind::PathBlocks), self.section_bytes(Kind::PathBytes))
    }

    fn read_path(&self, number: usize, out: &mut Vec<u8>) -> bool {
        read_path(self.section(Kind::PathBlocks), self.section_bytes(Kind::PathBytes), number, out)
    }

    /// Finds a tensor by its dotted name in any of the files; the first one where names collide. Asks one file of each
    /// schema: for the few shards of one checkpoint.
    pub fn find_tensor(&self, name: &str) -> Option<TensorEntry<'_>> {
        self.schemas().find_map(|schema| schema.files().next()?.tensor(name))
    }

    /// Returns the number of tensors of all files.
    pub fn tensor_count(&self) -> usize {
        self.summary().tensors as usize
    }

    /// Returns the tensor with this number, counted over all files: schema by schema, of each its files in order.
    pub fn tensor(&self, number: usize) -> Option<TensorEntry<'_>> {
        let schemas = self.section::<SchemaRow>(Kind::Schemas);
        let number = number as u64;
        let schema = schemas.partition_point(|schema| schema.tensors_before <= number).checked_sub(1)?;
        let row = &schemas[schema];
        let within = number - row.tensors_before;
        let file = within.checked_div(row.tensors_count.into())?;
        let file = self.file_of_schema(schema as u32, u32::try_from(file).ok()?)?;
        file.tensor_at((within % u64::from(row.tensors_count)) as usize)
    }

    fn file_of_schema(&self, schema: u32, row: u32) -> Option<FileEntry<'_>> {
        let files = self.section::<u32>(Kind::SchemaFiles);
        let number = match files.is_empty() {
            true => row,
            false => {
                let start = self.section::<SchemaRow>(Kind::Schemas).get(schema as usize)?.files_start;
                *files.get(start as usize + row as usize)?
            }
        };
        self.row_of_schema(schema, row, number)
    }

    /// Returns the number of storages of all files.
    pub fn storage_count(&self) -> usize {
        self.summary().storages as usize
    }

    /// Returns the schemas: what like files have in common.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # let bytes = write::to_vec(&write::Object::dict([("y", 3.into())]))?;
    /// # let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// let mut builder = pt_index::IndexBuilder::default();
    /// builder.add("a.pt", Default::default(), &checkpoint)?;
    /// builder.add("b.pt", Default::default(), &checkpoint)?;
    /// let index = builder.finish()?;
    /// assert_eq!(index.schemas().next().unwrap().file_count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schemas(&self) -> impl ExactSizeIterator<Item = Schema<'_>> + Clone {
        let rows = self.section::<SchemaRow>(Kind::Schemas);
        rows.iter().enumerate().map(|(number, row)| Schema::new(self, row, number as u32))
    }

    /// Returns the values of a plain scalar in all files, in file order, without touching one: borrowed where all files
    /// have one schema, else put together. `None` when no file has it.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// let mut builder = pt_index::IndexBuilder::default();
    /// for label in [7, 8] {
    ///     let bytes = write::to_vec(&write::Object::dict([("label", label.into())]))?;
    ///     let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    ///     builder.add(&format!("{label}.pt"), Default::default(), &checkpoint)?;
    /// }
    /// let index = builder.finish()?;
    /// assert_eq!(index.column("label").unwrap().as_ints(), Some(&[7, 8][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn column(&self, name: &str) -> Option<Column<'_>> {
        Column::of_index(self, name)
    }

    /// Returns the names of all columns, in the order of the schemas that have them.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// assert!(index.column_names().is_empty());
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn column_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        for column in self.section::<ColumnRow>(Kind::Columns) {
            if seen.insert(column.name) {
                names.push(self.string(column.name));
            }
        }
        names
    }

    /// Returns the files that were met and could not be indexed: path and reason.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// assert_eq!(index.skipped().len(), 0);
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn skipped(&self) -> impl ExactSizeIterator<Item = SkippedEntry<'_>> {
        self.section::<SkippedRow>(Kind::Skipped).iter().map(|row| SkippedEntry {
            path: self.text(row.path),
            reason: self.text(row.reason),
            stamp: Stamp { size: row.size, modified_ns: row.modified_ns },
        })
    }

    pub(crate) fn column_data(&self) -> &[u8] {
        self.section_bytes(Kind::ColumnData)
    }
}

/// A file that was met when the index was built, and is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedEntry<'i> {
    /// Path relative to the data.
    pub path: &'i str,
    /// Why not.
    pub reason: &'i str,
    /// Size and time it had.
    pub stamp: Stamp,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("files", &self.file_count())
            .field("tensors", &self.tensor_count())
            .field("bytes", &self.as_bytes().len())
            .finish()
    }
}

/// Returns the rows whose hash ends as this one does.
fn lookup<'i>(buckets: &'i [u32], slots: &'i [Slot], hash: u64) -> impl Iterator<Item = u32> + use<'i> {
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

fn text(bytes: Option<&[u8]>) -> &str {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}
