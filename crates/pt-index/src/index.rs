//! Reading an index in place.

use std::fmt;

use bytemuck::Pod;
use bytes::Bytes;
use hashbrown::HashSet;
use pt_format::{ByteOrder, DType, Fingerprint, Flags, Layout, Quantizer, Record, geometry};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::builder::assemble;
use crate::column::Column;
use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::layout::*;
use crate::paths::{BLOCK, PathReader, is_path, read_path};

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
    bytes: Bytes,
    sections: [(usize, usize); Kind::COUNT],
}

impl Index {
    /// Takes the bytes of an index and checks their header. The work does not grow with the content, except that bytes
    /// which are not 8-aligned in memory are copied (a mapped file always is aligned).
    ///
    /// # Errors
    /// [`Error::NotAnIndex`], [`Error::Version`] or [`Error::Damaged`].
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = aligned(bytes.into());
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::NotAnIndex("it is shorter than a header"));
        };
        if &header[..MAGIC.len()] != MAGIC {
            return Err(Error::NotAnIndex("its first bytes are not `PTVIEWIX`"));
        }
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u64_at = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let major = u16_at(MAJOR_OFFSET);
        if major != VERSION_MAJOR {
            return Err(Error::Version { found: major, supported: VERSION_MAJOR });
        }
        let count = u64_at(SECTION_COUNT_OFFSET) as u32 as usize;
        if u64_at(LENGTH_OFFSET) != bytes.len() as u64 {
            return Err(damaged(LENGTH_OFFSET, "its length is not the one it was written with"));
        }
        let table = HEADER_BYTES..HEADER_BYTES.saturating_add(count.saturating_mul(size_of::<SectionRow>()));
        let table_bytes = bytes.get(table).ok_or(damaged(SECTION_COUNT_OFFSET, "too many sections"))?;
        let mut hasher = Xxh3::new();
        hasher.update(&header[..CHECKSUM_OFFSET]);
        hasher.update(table_bytes);
        if hasher.digest() != u64_at(CHECKSUM_OFFSET) {
            return Err(damaged(CHECKSUM_OFFSET, "checksum of header and section table differs"));
        }
        let mut sections = [(0, 0); Kind::COUNT];
        for row in rows::<SectionRow>(table_bytes) {
            let end = row.offset.checked_add(row.length);
            if row.offset % 8 != 0 || end.is_none_or(|end| end > bytes.len() as u64) {
                return Err(damaged(HEADER_BYTES, "a section lies outside the index"));
            }
            // Sections of newer minor versions are passed over.
            if let Some(section) = sections.get_mut(row.kind as usize) {
                *section = (row.offset as usize, row.length as usize);
            }
        }
        let index = Self { bytes, sections };
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
            false => Err(damaged(self.sections[Kind::Summary as usize].0, "it speaks of more than there is")),
        }
    }

    /// Returns the bytes of the index, to write to a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the section table; [`Self::from_bytes`] has seen that all of it lies inside the index.
    pub(crate) fn section_table(&self) -> &[SectionRow] {
        let count = self.bytes[SECTION_COUNT_OFFSET..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        rows(&self.bytes[HEADER_BYTES..HEADER_BYTES + count as usize * size_of::<SectionRow>()])
    }

    /// Returns where a section begins in the index.
    pub(crate) fn section_offset(&self, kind: Kind) -> usize {
        self.sections[kind as usize].0
    }

    pub(crate) fn section<T: Pod>(&self, kind: Kind) -> &[T] {
        rows(self.section_bytes(kind))
    }

    pub(crate) fn section_bytes(&self, kind: Kind) -> &[u8] {
        let (start, length) = self.sections[kind as usize];
        &self.bytes[start..start + length]
    }

    /// Returns `count` rows of a section from `start` on; none where they are not all there.
    fn rows<T: Pod>(&self, kind: Kind, start: u32, count: u32) -> &[T] {
        let start = start as usize;
        self.section(kind).get(start..start + count as usize).unwrap_or_default()
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

    fn optional_string(&self, id: u32) -> Option<&str> {
        (id != NONE).then(|| self.string(id))
    }

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
        assemble(Kind::ALL.map(|kind| match kind {
            Kind::Root => (kind, root.as_bytes()),
            _ => (kind, self.section_bytes(kind)),
        }))
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

    fn row_of_schema(&self, schema: u32, row: u32, number: u32) -> Option<FileEntry<'_>> {
        let schema_row = self.section::<SchemaRow>(Kind::Schemas).get(schema as usize)?;
        if row >= schema_row.rows_count {
            return None;
        }
        let bytes = u64::from(schema_row.row_bytes);
        let start = (bytes * u64::from(row)).checked_add(schema_row.rows_start)?;
        let start = usize::try_from(start).ok()?;
        let bytes = self.section_bytes(Kind::FileRows).get(start..start.checked_add(bytes as usize)?)?;
        Some(FileEntry { index: self, schema: schema_row, bytes, number, schema_number: schema, row })
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

    /// Returns a cursor over the files that is moved along paths in their order.
    pub(crate) fn files_in_order(&self) -> FilesInOrder<'_> {
        let paths = PathReader::new(self.section(Kind::PathBlocks), self.section_bytes(Kind::PathBytes));
        FilesInOrder { index: self, paths, number: 0, ahead: false, found: 0 }
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
        rows.iter().enumerate().map(|(number, row)| Schema { index: self, row, number: number as u32 })
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

/// The files of an index, looked for in the order of their paths.
pub(crate) struct FilesInOrder<'i> {
    index: &'i Index,
    paths: PathReader<'i>,
    /// Files read.
    number: usize,
    /// The last one read comes behind the path looked for last.
    ahead: bool,
    found: usize,
}

impl<'i> FilesInOrder<'i> {
    /// Finds a file. Paths must come in order.
    pub(crate) fn find(&mut self, path: &str) -> Option<FileEntry<'i>> {
        loop {
            if !self.ahead {
                if self.number == self.index.file_count() || !self.paths.advance() {
                    return None;
                }
                self.number += 1;
                self.ahead = true;
            }
            match self.paths.path().cmp(path.as_bytes()) {
                std::cmp::Ordering::Less => self.ahead = false,
                std::cmp::Ordering::Greater => return None,
                std::cmp::Ordering::Equal => {
                    self.ahead = false;
                    self.found += 1;
                    return self.index.file(self.number - 1);
                }
            }
        }
    }

    /// Returns how many files were not looked for.
    pub(crate) fn passed_over(&self) -> usize {
        self.index.file_count() - self.found
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
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// What like files have in common: tensors with their names and dtypes, the structure around them.
#[derive(Clone, Copy)]
pub struct Schema<'i> {
    index: &'i Index,
    row: &'i SchemaRow,
    number: u32,
}

impl<'i> Schema<'i> {
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
    /// `dict`.
    Dict,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `list`.
    List,
    /// `tuple`.
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
        Schema { index: self.index, row: self.schema, number: self.schema_number }
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

    fn tensor_rows(&self) -> &'i [TensorRow] {
        self.index.rows(Kind::Tensors, self.schema.tensors_start, self.schema.tensors_count)
    }

    fn storage_rows(&self) -> &'i [StorageRow] {
        self.index.rows(Kind::Storages, self.schema.storages_start, self.schema.storages_count)
    }

    /// Returns the place of the number at `position` of a row, if files differ in it.
    fn varying(&self, first: u32, mask: u32, position: u32) -> Option<VaryingRow> {
        if mask & 1 << position == 0 {
            return None;
        }
        let before = (mask & ((1 << position) - 1)).count_ones();
        self.index.section::<VaryingRow>(Kind::Varying).get(first.checked_add(before)? as usize).copied()
    }

    /// Returns the number of this file: what all files have in common, and what is its own.
    fn number(&self, base: u64, first: u32, mask: u32, position: u32) -> u64 {
        let Some(place) = self.varying(first, mask, position) else { return base };
        let start = place.offset as usize;
        let own = self.bytes.get(start..start + (place.width as usize).min(8)).unwrap_or_default();
        let mut number = [0; 8];
        number[..own.len()].copy_from_slice(own);
        base.wrapping_add(u64::from_le_bytes(number))
    }

    /// The number among the rows of all files of one that is `local` in this file, where each file of the schema has
    /// `count`.
    fn number_in_index(&self, before: u64, count: u32, local: u32) -> usize {
        before.saturating_add(u64::from(count) * u64::from(self.row)).saturating_add(local.into()) as usize
    }

    /// Returns size and time the file had when it was indexed.
    pub fn stamp(&self) -> Stamp {
        let SchemaRow { size, modified_ns, varying, varying_mask, .. } = *self.schema;
        Stamp {
            size: self.number(size, varying, varying_mask, 0),
            modified_ns: self.number(modified_ns, varying, varying_mask, 1) as i64,
        }
    }

    /// Returns the digest of the bytes this row was computed from.
    pub fn fingerprint(&self) -> Fingerprint {
        let SchemaRow { fingerprint, varying, varying_mask, flags, .. } = *self.schema;
        Fingerprint {
            digest: self.number(fingerprint, varying, varying_mask, 2),
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
        rows.map(move |(local, data)| TensorEntry { file, local: local as u32, data })
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
    pub fn tensor_at(&self, number: usize) -> Option<TensorEntry<'i>> {
        let data = self.tensor_rows().get(number)?;
        Some(TensorEntry { file: *self, local: number as u32, data })
    }

    /// Finds a tensor by its dotted name; the first one where names collide.
    pub fn tensor(&self, name: &str) -> Option<TensorEntry<'i>> {
        let SchemaRow { buckets_start, buckets_count, tensors_start, tensors_count, .. } = *self.schema;
        let index = self.index;
        let buckets = index.rows(Kind::NameBuckets, buckets_start, buckets_count.saturating_add(1));
        let slots = index.rows(Kind::NameSlots, tensors_start, tensors_count);
        lookup(buckets, slots, xxh3_64(name.as_bytes())).find_map(|number| {
            let tensor = self.tensor_at(number as usize)?;
            (index.string_bytes(tensor.data.name)? == name.as_bytes()).then_some(tensor)
        })
    }

    /// Returns the storages.
    pub fn storages(&self) -> impl ExactSizeIterator<Item = StorageEntry<'i>> + Clone + use<'i> {
        let file = *self;
        let rows = self.storage_rows().iter().enumerate();
        rows.map(move |(local, data)| StorageEntry { file, local: local as u32, data })
    }

    /// Returns the plain scalars of the file with their dotted names.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (&'i str, Leaf<'i>)> + use<'i> {
        let row = self.schema_row();
        self.schema().columns().map(move |column| (column.name(), column.get(row).unwrap_or(Leaf::None)))
    }

    /// Finds a plain scalar by its dotted name.
    pub fn leaf(&self, name: &str) -> Option<Leaf<'i>> {
        self.leaves().find(|(leaf, _)| *leaf == name).map(|(_, leaf)| leaf)
    }

    /// The numbers in which this file may differ from others of its schema, in the order of
    /// [`crate::record::Structure::numbers`].
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> {
        let storages = self.storages().flat_map(|storage| {
            let row = storage.data();
            [row.data_offset, row.header_offset, row.packed_bytes, row.bytes, row.crc32, row.name_hash]
        });
        let tensors = self
            .tensors()
            .flat_map(|tensor| std::iter::once(tensor.storage_offset()).chain(tensor.dims().iter().copied()));
        storages.chain(tensors)
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

/// A tensor of an index.
#[derive(Clone, Copy)]
pub struct TensorEntry<'i> {
    file: FileEntry<'i>,
    local: u32,
    data: &'i TensorRow,
}

impl<'i> TensorEntry<'i> {
    fn index(&self) -> &'i Index {
        self.file.index
    }

    /// Returns the number of the tensor in its index.
    pub fn row(&self) -> usize {
        let schema = self.file.schema;
        self.file.number_in_index(schema.tensors_before, schema.tensors_count, self.local)
    }

    /// Returns the number of the tensor in its file.
    pub fn number(&self) -> usize {
        self.local as usize
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'i str {
        self.index().string(self.data.name)
    }

    /// Returns the path: dict keys, list positions, attributes, nothing elided.
    pub fn path(&self) -> Vec<&'i str> {
        let index = self.index();
        match self.data.path_count {
            0 if self.data.path == NONE => Vec::new(),
            0 => vec![self.name()],
            count => {
                let parts = index.rows::<u32>(Kind::PathParts, self.data.path, count.into());
                parts.iter().map(|&id| index.string(id)).collect()
            }
        }
    }

    /// Returns the file the tensor is in.
    pub fn file(&self) -> FileEntry<'i> {
        self.file
    }

    /// Returns the dtype; `None` when the file's is unknown.
    pub fn dtype(&self) -> Option<DType> {
        DType::from_code(self.data.dtype)
    }

    /// Returns the sizes in elements; `None` for nested tensors.
    pub fn shape(&self) -> Option<&'i [u64]> {
        match self.data.rank {
            NO_RANK => None,
            rank => self.dims().get(..rank.into()),
        }
    }

    /// Returns the strides in elements; `None` where there are none (sparse, nested).
    pub fn stride(&self) -> Option<&'i [u64]> {
        match self.data.has_stride {
            0 => None,
            _ => self.dims().get(self.data.rank.into()..),
        }
    }

    /// Returns whether files of this schema differ in the tensor's sizes or strides. If not, one file speaks for all.
    pub fn shape_varies(&self) -> bool {
        self.data.varying_mask & TensorRow::DIMS != 0
    }

    /// Sizes, then strides.
    pub(crate) fn dims(&self) -> &'i [u64] {
        let count = self.data.dims_count();
        let TensorRow { varying, varying_mask, dims, .. } = *self.data;
        if varying_mask & TensorRow::DIMS == 0 {
            return self.index().rows(Kind::Dims, dims, count as u32);
        }
        let place = self.file.varying(varying, varying_mask, TensorRow::DIMS.trailing_zeros());
        let start = place.map_or(usize::MAX, |place| place.offset as usize);
        let bytes = self.file.bytes.get(start..start.saturating_add(8 * count)).unwrap_or_default();
        bytemuck::try_cast_slice(bytes).unwrap_or_default()
    }

    /// Returns the position of the first element in the storage, in elements.
    pub fn storage_offset(&self) -> u64 {
        self.file.number(self.data.storage_offset, self.data.varying, self.data.varying_mask, 0)
    }

    /// Returns the number of elements, if shape and number are known.
    pub fn numel(&self) -> Option<u64> {
        geometry::numel(self.shape()?)
    }

    /// Returns the bytes of the logical elements: what a contiguous copy takes. `None` where there is no shape or dtype.
    pub fn nbytes(&self) -> Option<u64> {
        geometry::nbytes(self.dtype()?, self.shape()?)
    }

    /// Returns the layout.
    pub fn layout(&self) -> Layout {
        Layout::from_code(self.data.layout).unwrap_or(Layout::Wrapper)
    }

    /// Returns the yes-or-no properties.
    pub fn flags(&self) -> Flags {
        Flags::from_bits(self.data.flags)
    }

    /// Returns whether `requires_grad` was set.
    pub fn requires_grad(&self) -> bool {
        self.flags().contains(Flags::REQUIRES_GRAD)
    }

    /// Returns the storage the tensor looks into; composite and meta tensors have none.
    pub fn storage(&self) -> Option<StorageEntry<'i>> {
        let data = self.file.storage_rows().get(self.data.storage as usize)?;
        Some(StorageEntry { file: self.file, local: self.data.storage, data })
    }

    /// Returns the earlier tensor that is the very same object.
    pub fn alias_of(&self) -> Option<TensorEntry<'i>> {
        self.file.tensor_at(self.data.alias_of as usize)
    }

    /// Returns the Python class of a tensor subclass.
    pub fn class(&self) -> Option<&'i str> {
        self.index().optional_string(self.data.class)
    }

    /// Returns scale and zero point of a quantized tensor.
    pub fn quantizer(&self) -> Option<Quantizer> {
        let rows = self.index().section::<QuantizerRow>(Kind::Quantizers);
        let row = rows.get(self.data.quantizer as usize)?;
        let scheme = self.index().string(row.scheme).to_owned();
        Some(match row.per_channel {
            0 => {
                Quantizer::PerTensor { scheme, scale: f64::from_bits(row.scale), zero_point: row.zero_point }
            }
            _ => Quantizer::PerChannel { scheme, axis: row.zero_point as u64 },
        })
    }

    /// Returns why the tensor cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'i str> {
        let own = self.index().optional_string(self.data.fault);
        own.or_else(|| self.index().optional_string(self.storage()?.data.fault))
    }

    /// Returns whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        match (self.shape(), self.stride()) {
            (Some(shape), Some(stride)) => geometry::is_contiguous(shape, stride),
            _ => false,
        }
    }
}

impl fmt::Debug for TensorEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorEntry")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .field("stride", &self.stride())
            .finish_non_exhaustive()
    }
}

/// A storage of an index.
#[derive(Clone, Copy)]
pub struct StorageEntry<'i> {
    file: FileEntry<'i>,
    local: u32,
    data: &'i StorageRow,
}

impl<'i> StorageEntry<'i> {
    /// Returns the number of the storage in its index.
    pub fn row(&self) -> usize {
        let schema = self.file.schema;
        self.file.number_in_index(schema.storages_before, schema.storages_count, self.local)
    }

    fn number(&self, base: u64, position: u32) -> u64 {
        self.file.number(base, self.data.varying, self.data.varying_mask, position)
    }

    /// The row with the numbers of this file.
    pub(crate) fn data(&self) -> StorageRow {
        let data = self.data;
        StorageRow {
            data_offset: self.number(data.data_offset, 0),
            header_offset: self.number(data.header_offset, 1),
            packed_bytes: self.number(data.packed_bytes, 2),
            bytes: self.number(data.bytes, 3),
            crc32: self.number(data.crc32, 4),
            name_hash: self.number(data.name_hash, 5),
            ..*data
        }
    }

    /// Returns its length in bytes, decoded.
    pub fn nbytes(&self) -> u64 {
        self.number(self.data.bytes, 3)
    }

    /// Returns where its bytes lie; `None` when the file has no place for them.
    pub fn record(&self) -> Option<Record> {
        let data = self.data();
        (data.data_offset != NO_OFFSET).then_some(Record {
            header_offset: Some(data.header_offset).filter(|&offset| offset != NO_OFFSET),
            data_offset: data.data_offset,
            packed_bytes: data.packed_bytes,
            bytes: data.bytes,
            method: data.method as u16,
            crc32: data.crc32 as u32,
            name_hash: data.name_hash as u32,
        })
    }

    /// Returns why it cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&'i str> {
        self.file.index.optional_string(self.data.fault)
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

fn damaged(offset: usize, what: &'static str) -> Error {
    Error::Damaged { offset: offset as u64, what }
}

/// Rows of a section; a rest that makes no row is left out.
fn rows<T: Pod>(bytes: &[u8]) -> &[T] {
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    bytemuck::try_cast_slice(&bytes[..whole]).unwrap_or_default()
}

/// Copies the bytes to an 8-aligned place if they are not in one.
fn aligned(bytes: Bytes) -> Bytes {
    if bytes.as_ptr().align_offset(8) == 0 {
        return bytes;
    }
    Bytes::from_owner(Aligned::from(&bytes[..]))
}

/// Bytes in an 8-aligned place.
pub(crate) struct Aligned {
    words: Vec<u64>,
    bytes: usize,
}

impl Aligned {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl From<&[u8]> for Aligned {
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.as_mut().copy_from_slice(bytes);
        aligned
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}
