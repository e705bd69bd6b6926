//! The slow and complete check of an index: every checksum, every string, every number that points somewhere.
//!
//! What `docs/index-format.md` says of an index holds of one that passes. The rows of schemas follow one another, so each is
//! looked at once and the work is linear in the length of the index, whatever it says.

mod schema;
#[cfg(test)]
mod tests;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::layout::*;
use crate::paths::{BLOCK, read_number};

/// Bytes of a row of each section; 1 where there are no rows.
const ROW_BYTES: [usize; Kind::COUNT] = {
    let mut bytes = [1; Kind::COUNT];
    bytes[Kind::Summary as usize] = size_of::<SummaryRow>();
    bytes[Kind::Schemas as usize] = size_of::<SchemaRow>();
    bytes[Kind::Tensors as usize] = size_of::<TensorRow>();
    bytes[Kind::Dims as usize] = size_of::<u64>();
    bytes[Kind::Storages as usize] = size_of::<StorageRow>();
    bytes[Kind::Nodes as usize] = size_of::<NodeRow>();
    bytes[Kind::Columns as usize] = size_of::<ColumnRow>();
    bytes[Kind::Quantizers as usize] = size_of::<QuantizerRow>();
    bytes[Kind::PathParts as usize] = size_of::<u32>();
    bytes[Kind::Varying as usize] = size_of::<VaryingRow>();
    bytes[Kind::FileSchemas as usize] = size_of::<u32>();
    bytes[Kind::SchemaRows as usize] = size_of::<u32>();
    bytes[Kind::SchemaFiles as usize] = size_of::<u32>();
    bytes[Kind::StringEnds as usize] = size_of::<u64>();
    bytes[Kind::TextEnds as usize] = size_of::<u64>();
    bytes[Kind::PathBlocks as usize] = size_of::<u64>();
    bytes[Kind::NameBuckets as usize] = size_of::<u32>();
    bytes[Kind::NameSlots as usize] = size_of::<Slot>();
    bytes[Kind::FileBuckets as usize] = size_of::<u32>();
    bytes[Kind::FileSlots as usize] = size_of::<Slot>();
    bytes[Kind::Skipped as usize] = size_of::<SkippedRow>();
    bytes
};

impl Index {
    /// Checks every section against its checksum, that strings are UTF-8, and that every number in every row points at
    /// something that is there. Takes time in proportion to the index.
    ///
    /// Whether the data files are still those that were indexed is another question:
    /// [`FileEntry::freshness`](crate::FileEntry::freshness).
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first place that is wrong.
    ///
    /// ```
    /// let index = pt_index::IndexBuilder::default().finish()?;
    /// index.verify()?;
    /// # Ok::<(), pt_index::Error>(())
    /// ```
    pub fn verify(&self) -> Result<()> {
        self.verify_sections()?;
        let [summary] = self.section::<SummaryRow>(Kind::Summary) else {
            return Err(wrong(self, Kind::Summary, 0, "it is not one row"));
        };
        let string_hashes = self.verify_pool(Kind::StringEnds, Kind::StringBytes)?;
        let text_count = self.verify_pool(Kind::TextEnds, Kind::TextBytes)?.len();
        if std::str::from_utf8(self.section_bytes(Kind::Root)).is_err() {
            return Err(wrong(self, Kind::Root, 0, "the root is not UTF-8"));
        }
        let verifier = Verifier { index: self, summary, string_hashes, text_count };
        verifier.paths()?;
        verifier.shared_rows()?;
        verifier.schemas()?;
        verifier.files()
    }

    /// Checks the section table, that nothing but zeros stands between sections, and checksums.
    fn verify_sections(&self) -> Result<()> {
        let table = self.section_table();
        let mut end = HEADER_BYTES + size_of_val(table);
        let mut seen = [false; Kind::COUNT];
        // Where sections begin, the end of one is rounded up to; the last one may end the index as it is.
        let follows = |end: usize, start: usize| {
            let gap = self.as_bytes().get(end..start).filter(|gap| gap.len() < 8);
            gap.is_some_and(|gap| gap.iter().all(|&byte| byte == 0))
        };
        for (number, row) in table.iter().enumerate() {
            let damaged = |what| {
                let offset = HEADER_BYTES + number * size_of::<SectionRow>();
                Err(Error::Damaged { offset: offset as u64, what })
            };
            // `Index::from_bytes` has seen that it lies inside.
            let (start, length) = (row.offset as usize, row.length as usize);
            if row.zero != 0 {
                return damaged("bytes of a section row that should be zero are not");
            }
            if let Some(seen) = seen.get_mut(row.kind as usize) {
                if std::mem::replace(seen, true) {
                    return damaged("a section stands twice");
                }
                if !length.is_multiple_of(ROW_BYTES[row.kind as usize]) {
                    return damaged("a section ends within a row");
                }
            }
            if !follows(end, start) {
                return damaged("a section does not follow the one before");
            }
            end = start + length;
            if xxh3_64(&self.as_bytes()[start..end]) != row.checksum {
                return Err(Error::Damaged { offset: row.offset, what: "checksum of a section differs" });
            }
        }
        match follows(end, self.as_bytes().len()) {
            true => Ok(()),
            false => Err(Error::Damaged { offset: end as u64, what: "bytes belong to no section" }),
        }
    }

    /// Checks a pool of strings and returns their hashes.
    fn verify_pool(&self, ends: Kind, bytes: Kind) -> Result<Vec<u64>> {
        let pool = self.section_bytes(bytes);
        let ends_of_all = self.section::<u64>(ends);
        let mut hashes = Vec::with_capacity(ends_of_all.len());
        let mut seen = HashSet::with_capacity(ends_of_all.len());
        let mut start = 0;
        for (number, &end) in ends_of_all.iter().enumerate() {
            let damaged = |what| Err(wrong(self, ends, number, what));
            let end = usize::try_from(end).unwrap_or(usize::MAX);
            let Some(string) = pool.get(start..end) else { return damaged("a string ends where none can") };
            if std::str::from_utf8(string).is_err() {
                return damaged("a string is not UTF-8");
            }
            if !seen.insert(string) {
                return damaged("a string stands twice");
            }
            hashes.push(xxh3_64(string));
            start = end;
        }
        match start == pool.len() {
            true => Ok(hashes),
            false => Err(wrong(self, bytes, start, "bytes belong to no string")),
        }
    }
}

/// An index whose sections and strings are sound.
struct Verifier<'i> {
    index: &'i Index,
    summary: &'i SummaryRow,
    string_hashes: Vec<u64>,
    text_count: usize,
}

impl Verifier<'_> {
    fn is_string(&self, id: u32) -> bool {
        (id as usize) < self.string_hashes.len()
    }

    fn is_string_or_none(&self, id: u32) -> bool {
        id == NONE || self.is_string(id)
    }

    /// Checks the paths of files, and that each is found.
    fn paths(&self) -> Result<()> {
        let index = self.index;
        let (blocks, bytes) = (index.section::<u64>(Kind::PathBlocks), index.section_bytes(Kind::PathBytes));
        // At most 16 for each block, as was checked when the index was opened.
        let files = self.summary.files as usize;
        if blocks.len() != files.div_ceil(BLOCK) {
            return Err(wrong(index, Kind::PathBlocks, 0, "there are not as many paths as files"));
        }
        let mut rest = bytes;
        let (mut path, mut before) = (Vec::new(), Vec::new());
        let mut hashes = Vec::new();
        for file in 0..files {
            let at = bytes.len() - rest.len();
            let damaged = |what| Err(wrong(index, Kind::PathBytes, at, what));
            std::mem::swap(&mut path, &mut before);
            let is_first = file.is_multiple_of(BLOCK);
            if is_first && blocks[file / BLOCK] != at as u64 {
                return Err(wrong(
                    index,
                    Kind::PathBlocks,
                    file / BLOCK,
                    "a block of paths begins elsewhere",
                ));
            }
            let (Some(shared), Some(length)) = (read_number(&mut rest), read_number(&mut rest)) else {
                return damaged("a path is cut off");
            };
            let Some(prefix) = before.get(..shared).filter(|_| shared == 0 || !is_first) else {
                return damaged("a path shares more than there is");
            };
            let Some((own, behind)) = rest.split_at_checked(length) else {
                return damaged("a path is cut off");
            };
            rest = behind;
            path.clear();
            path.extend_from_slice(prefix);
            path.extend_from_slice(own);
            if std::str::from_utf8(&path).is_err() {
                return damaged("a path is not UTF-8");
            }
            if file > 0 && path <= before {
                return damaged("a path does not come after the one before");
            }
            hashes.push(xxh3_64(&path));
        }
        if !rest.is_empty() {
            return Err(wrong(index, Kind::PathBytes, bytes.len() - rest.len(), "bytes belong to no path"));
        }
        let buckets = index.section(Kind::FileBuckets);
        let slots = index.section(Kind::FileSlots);
        let (kind, at, what) = match lookup_table_problem(buckets, slots, hashes.len(), |file| hashes[file]) {
            None => return Ok(()),
            Some(Problem::Bucket(at, what)) => (Kind::FileBuckets, at, what),
            Some(Problem::Slot(at, what)) => (Kind::FileSlots, at, what),
        };
        Err(wrong(index, kind, at, what))
    }

    /// Checks the rows that schemas point at and that point at strings only.
    fn shared_rows(&self) -> Result<()> {
        let index = self.index;
        for (at, quantizer) in index.section::<QuantizerRow>(Kind::Quantizers).iter().enumerate() {
            if !self.is_string(quantizer.scheme) || quantizer.per_channel > 1 {
                return Err(wrong(index, Kind::Quantizers, at, "a quantizer has an impossible number"));
            }
        }
        let parts = index.section::<u32>(Kind::PathParts);
        if let Some(at) = parts.iter().position(|&part| !self.is_string(part)) {
            return Err(wrong(index, Kind::PathParts, at, "a component of a path is no string"));
        }
        for (at, skipped) in index.section::<SkippedRow>(Kind::Skipped).iter().enumerate() {
            if [skipped.path, skipped.reason].iter().any(|&text| text as usize >= self.text_count) {
                return Err(wrong(index, Kind::Skipped, at, "a skipped file has no path or no reason"));
            }
        }
        Ok(())
    }

    /// Checks that files and rows of schemas are each other's, and the sum of sizes. The schemas are sound.
    fn files(&self) -> Result<()> {
        let index = self.index;
        let schemas = index.section::<SchemaRow>(Kind::Schemas);
        let [file_schemas, schema_rows, schema_files] =
            [Kind::FileSchemas, Kind::SchemaRows, Kind::SchemaFiles].map(|kind| index.section::<u32>(kind));
        let files = self.summary.files as usize;
        let listed = if schemas.len() > 1 { files } else { 0 };
        for (kind, list) in [
            (Kind::FileSchemas, file_schemas),
            (Kind::SchemaRows, schema_rows),
            (Kind::SchemaFiles, schema_files),
        ] {
            if list.len() != listed {
                return Err(wrong(index, kind, 0, "it does not list as many files as there are"));
            }
        }
        let mut next = vec![0; schemas.len()];
        for (file, (&schema, &row)) in file_schemas.iter().zip(schema_rows).enumerate() {
            let Some(next) = next.get_mut(schema as usize) else {
                return Err(wrong(index, Kind::FileSchemas, file, "a file has no schema"));
            };
            let schema = &schemas[schema as usize];
            if row != *next || row >= schema.rows_count {
                return Err(wrong(index, Kind::SchemaRows, file, "a file is not the next one of its schema"));
            }
            *next += 1;
            // Schemas follow one another and have as many rows as there are files, so it is there.
            let place = schema.files_start as usize + row as usize;
            if schema_files.get(place) != Some(&(file as u32)) {
                return Err(wrong(index, Kind::SchemaFiles, place, "a file is not where its schema has it"));
            }
        }
        let mut bytes = 0u64;
        for file in 0..files {
            let Some(entry) = index.file(file) else {
                return Err(wrong(index, Kind::Summary, 0, "there are fewer files than it says"));
            };
            bytes = bytes.saturating_add(entry.stamp().size);
        }
        match bytes == self.summary.bytes {
            true => Ok(()),
            false => Err(wrong(index, Kind::Summary, 0, "the sizes of the files have another sum")),
        }
    }
}

/// What is wrong with a lookup table, and with which of its rows.
enum Problem {
    Bucket(usize, &'static str),
    Slot(usize, &'static str),
}

/// Checks that each of `count` rows is found under its hash, the first of equals first.
fn lookup_table_problem(
    buckets: &[u32],
    slots: &[Slot],
    count: usize,
    hash_of: impl Fn(usize) -> u64,
) -> Option<Problem> {
    let bucket_count = bucket_count(count);
    if buckets.len() != bucket_count + 1 || slots.len() != count {
        return Some(Problem::Bucket(0, "a lookup table has another size"));
    }
    let mut slot = 0;
    for bucket in 0..bucket_count {
        let (start, end) = (buckets[bucket] as usize, buckets[bucket + 1] as usize);
        if start != slot || end < start || end > count {
            return Some(Problem::Bucket(bucket, "a bucket does not follow the one before"));
        }
        let mut before = None;
        for &Slot { hash, row } in &slots[start..end] {
            // Every row is in one bucket, and once in it; so if there are as many slots as rows, all are found.
            if row as usize >= count || before.is_some_and(|before| before >= row) {
                return Some(Problem::Slot(slot, "a slot holds no row, or not the next one"));
            }
            let expected = hash_of(row as usize);
            if hash != expected as u32 || bucket_of(expected, bucket_count) != bucket {
                return Some(Problem::Slot(slot, "a slot is not where its row is looked up"));
            }
            before = Some(row);
            slot += 1;
        }
    }
    (slot != count).then_some(Problem::Bucket(bucket_count, "the last bucket ends too early"))
}

/// The error for a row of a section.
fn wrong(index: &Index, kind: Kind, row: usize, what: &'static str) -> Error {
    let offset = index.section_offset(kind).saturating_add(row.saturating_mul(ROW_BYTES[kind as usize]));
    Error::Damaged { offset: offset as u64, what }
}
