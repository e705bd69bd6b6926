//! The zip archive, read from its directory alone.
//!
//! ```text
//! [local header · data · descriptor]*   one for each record, data 64-aligned by a padded extra field
//! [central directory header]*           names, sizes, offsets, CRCs
//! [zip64 end record · locator]          always there in torch files
//! [end record]
//! ```
//!
//! The directory is walked over its bytes: no allocation for each entry, 18 times faster than the `zip` crate
//! and without its guess about where the directory starts, which fails for archive names of 21 characters.
//! The zip64 locator is trusted whenever it is there, and the directory must end exactly where the end records
//! begin, so prepended or concatenated archives are refused instead of half read.
//!
//! Local headers hold the padding and so decide where data starts, but reading one for each record would touch
//! every part of a large file. [`Archive::computed_data_start`] works it out two independent ways from the
//! directory; where they disagree, and when a record is borrowed for the first time, the header itself is read.
//!
//! Source: PKWARE APPNOTE 6.3.10; PyTorch `caffe2/serialize/inline_container.cc` for the padding rule.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::container::record::{Record, name_hash};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::source::{Source, read};

const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
const LOCATOR_SIGNATURE: &[u8; 4] = b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const END64_SIGNATURE: &[u8; 4] = b"PK\x06\x06";
const END64_BYTES: u64 = 56;
const DIRECTORY_SIGNATURE: &[u8; 4] = b"PK\x01\x02";
const DIRECTORY_ENTRY_BYTES: usize = 46;
/// Where in an entry the checksum stands.
const CRC32_AT: usize = 16;
const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";
/// Fixed part of a local header; name and extra field follow.
pub(super) const LOCAL_HEADER_BYTES: u64 = 30;
/// CRC and two 32-bit sizes after the data, signature included.
const DESCRIPTOR_BYTES: u64 = 16;
/// The same with 64-bit sizes.
const DESCRIPTOR64_BYTES: u64 = 24;
/// Header of PyTorch's padding field ("FB"), there even when the padding is empty.
const PADDING_FIELD_BYTES: u64 = 4;
/// zip64 field of a local header with both sizes.
const ZIP64_SIZES_BYTES: u64 = 4 + 16;
/// zip64 field of a local header with the offset alone, which only PyTorch writes.
const ZIP64_OFFSET_BYTES: u64 = 4 + 8;
/// In a 32-bit field: see the zip64 extra field.
const IN_ZIP64: u32 = u32::MAX;
const ZIP64_FIELD: u16 = 1;

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// Patched data, strong encryption, masked headers.
const FLAGS_UNREADABLE: u16 = FLAG_ENCRYPTED | 1 << 5 | 1 << 6 | 1 << 13;
pub(super) const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// First read: the end records and, for up to about 1,000 records, the whole directory.
const TAIL_BYTES: u64 = 64 << 10;
/// The same of a small file, for up to about 10 records.
const SMALL_FILE_TAIL_BYTES: u64 = 1 << 10;
/// What a small file is. Such files are read by the million, often from memory, where every byte that is copied counts.
const SMALL_FILE_BYTES: u64 = 128 << 10;
/// A comment is at most this long, so an end record begins at most this far (and 22 bytes) from the end.
const COMMENT_BYTES_MAX: u64 = 0xFFFF;
/// Read beyond `data.pkl`, where the small records stand in files of torch 2.1 and newer: three, mostly of 128 bytes each with
/// header and padding, seldom of more than 192.
const READ_AHEAD_BYTES: u64 = 3 * 192;
/// `torch.serialization`'s alignment before it became an option (2.7), and still its default.
const DEFAULT_ALIGNMENT: u64 = 64;

/// Names of fewer records are compared with each other: that is cheaper than hashing them.
const TABLE_FROM: usize = 16;

/// What is wrong with the archive as such.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveProblem {
    /// No end record: the tail of the file is missing.
    #[error("no end record in the last bytes; the file is cut off, fetch it again")]
    NoEnd,
    /// The directory does not end where the end records begin.
    #[error(
        "the directory should end at byte {expected} but ends at {found}; bytes were put in front of the archive, or archives joined"
    )]
    DirectoryPlace {
        /// Where the end records begin.
        expected: u64,
        /// Where the directory is said to end.
        found: u64,
    },
    /// The end record and its zip64 twin say different things.
    #[error("the end record and the zip64 end record disagree about {field}")]
    Zip64Disagrees {
        /// The field in question.
        field: &'static str,
    },
    /// The zip64 end record is missing or not where the locator points.
    #[error("the zip64 locator points to byte {0}, which is no zip64 end record before it")]
    Zip64Place(u64),
    /// The archive is split over several files.
    #[error("the archive is one disk of several; join them first")]
    ManyDisks,
    /// The directory holds fewer or more entries than the end record says.
    #[error("the end record promises {expected} entries, the directory holds {found}")]
    Count {
        /// Entries according to the end record.
        expected: u64,
        /// Entries found.
        found: u64,
    },
    /// A directory entry is malformed.
    #[error("directory entry {index}: {what}")]
    Entry {
        /// Number of the entry.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The records do not share one top folder.
    #[error("record `{name}` is not in a folder; torch archives keep every record in one")]
    NoRoot {
        /// Name of the record.
        name: String,
    },
}

/// One record as the central directory describes it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    name_start: u32,
    name_bytes: u16,
    flags: u16,
    /// Compression method: 0 stored, 8 deflated.
    pub method: u16,
    troubles: u16,
    /// CRC-32 of the decoded bytes; 0 may mean "not computed".
    pub crc32: u32,
    /// Bytes in the archive.
    pub packed_size: u64,
    /// Bytes once decoded.
    pub size: u64,
    /// Position of the local header in the file.
    pub header_offset: u64,
    /// Position of the next local header, or of the directory: the record ends before it.
    pub limit: u64,
}

const TROUBLE_DUPLICATE: u16 = 1;
const TROUBLE_OVERLAP: u16 = 2;

impl Entry {
    /// Returns whether the bytes lie in the file as they are.
    pub fn is_stored(&self) -> bool {
        self.method == METHOD_STORED
    }

    /// Returns where in the directory its name stands.
    pub(crate) fn name_place(&self) -> Range<usize> {
        let start = self.name_start as usize;
        start..start + usize::from(self.name_bytes)
    }

    /// Returns where in the directory its checksum stands.
    pub(crate) fn crc32_place(&self) -> Range<usize> {
        let start = self.name_start as usize - DIRECTORY_ENTRY_BYTES + CRC32_AT;
        start..start + size_of::<u32>()
    }

    /// Returns whether no other record has its name.
    pub(crate) fn has_name_alone(&self) -> bool {
        self.troubles & TROUBLE_DUPLICATE == 0
    }

    /// Returns what forbids using this record, as far as the directory tells.
    pub fn fault(&self) -> Option<Fault> {
        if !self.has_name_alone() {
            return Some(Fault::DuplicateRecord);
        }
        if self.flags & FLAGS_UNREADABLE != 0 {
            return Some(Fault::Encrypted { flags: self.flags });
        }
        if !matches!(self.method, METHOD_STORED | METHOD_DEFLATED) {
            return Some(Fault::UnknownMethod { method: self.method });
        }
        if self.troubles & TROUBLE_OVERLAP != 0 {
            return Some(Fault::OverlappingRecord {
                offset: self.header_offset,
                length: self.packed_size,
                limit: self.limit,
            });
        }
        if self.is_stored() && self.size != self.packed_size {
            return Some(Fault::RecordLength { record: self.packed_size, expected: self.size });
        }
        None
    }
}

/// A zip archive: its directory, and how to read records of it.
pub struct Archive<'s, S: ?Sized> {
    source: &'s S,
    directory: Cow<'s, [u8]>,
    directory_offset: u64,
    entries: Vec<Entry>,
    /// Empty where there are only a few records.
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
    root_bytes: usize,
    alignment: u64,
    tail: Kept<'s>,
    head: Kept<'s>,
}

/// Bytes read earlier, kept because the next reads will be near.
#[derive(Default)]
struct Kept<'s> {
    offset: u64,
    bytes: Cow<'s, [u8]>,
}

impl Kept<'_> {
    fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?)
    }
}

impl<'s, S: Source + ?Sized> Archive<'s, S> {
    /// Reads the directory of an archive.
    ///
    /// # Errors
    /// [`Error::Archive`] when end records or directory are damaged or ambiguous, [`Error::Read`] when the source fails.
    pub fn parse(source: &'s S) -> Result<Self> {
        let file_bytes = source.len();
        let tail_bytes = if file_bytes > SMALL_FILE_BYTES { TAIL_BYTES } else { SMALL_FILE_TAIL_BYTES };
        let mut tail = read_window(source, file_bytes.saturating_sub(tail_bytes), file_bytes)?;
        let mut end = find_end(source, &tail, file_bytes);
        if end.is_err() && tail.offset > 0 {
            // A long comment, or one that looks like an end record: look once more, as far back as one can begin.
            tail = read_window(source, file_bytes.saturating_sub(COMMENT_BYTES_MAX + END_BYTES), file_bytes)?;
            end = find_end(source, &tail, file_bytes);
        }
        let end = end?;

        let directory_bytes = to_usize(end.directory_bytes)?;
        let directory = match tail.get(end.directory_offset, directory_bytes) {
            // The window stays for the other small records, so its bytes are lent only where they are borrowed.
            Some(_) => match &tail.bytes {
                Cow::Borrowed(bytes) => {
                    let start = (end.directory_offset - tail.offset) as usize;
                    Cow::Borrowed(&bytes[start..start + directory_bytes])
                }
                Cow::Owned(bytes) => {
                    let start = (end.directory_offset - tail.offset) as usize;
                    Cow::Owned(bytes[start..start + directory_bytes].to_vec())
                }
            },
            None => read(source, end.directory_offset, end.directory_bytes)?,
        };
        let mut archive = Self {
            source,
            directory,
            directory_offset: end.directory_offset,
            entries: Vec::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            root_bytes: 0,
            alignment: DEFAULT_ALIGNMENT,
            tail,
            head: Kept::default(),
        };
        archive.walk(&end)?;
        archive.find_limits(end.directory_offset);
        archive.find_root();
        archive.index_names();
        Ok(archive)
    }

    /// Returns the records in directory order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the name of a record, with the top folder. It may be any bytes.
    pub fn name(&self, entry: &Entry) -> &[u8] {
        &self.directory[entry.name_place()]
    }

    /// Returns the name of the record with this number, for people.
    pub(crate) fn shown_name(&self, index: usize) -> String {
        String::from_utf8_lossy(self.name(&self.entries[index])).into_owned()
    }

    /// Returns the top folder that holds all records, without the slash; empty when there is none.
    pub fn root(&self) -> &[u8] {
        self.entries.first().map_or(&[], |entry| &self.name(entry)[..self.root_bytes])
    }

    /// Returns what the archive is read from.
    pub(crate) fn source(&self) -> &'s S {
        self.source
    }

    /// Returns the bytes of the central directory.
    pub fn directory(&self) -> &[u8] {
        &self.directory
    }

    /// Returns the position of the central directory in the file.
    pub(crate) fn directory_offset(&self) -> u64 {
        self.directory_offset
    }

    /// Finds a record by its full name, matched exactly (torch itself ignores case, which lets two records answer
    /// to one name).
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        if self.by_name.is_empty() {
            return self.entries.iter().position(|entry| self.name(entry) == name);
        }
        let hash = self.hasher.hash_one(name);
        self.by_name
            .find(hash, |&index| self.name(&self.entries[index as usize]) == name)
            .map(|&index| index as usize)
    }

    /// Finds a record by its name below the top folder.
    pub fn find_in_root(&self, name: &str) -> Option<usize> {
        if !self.by_name.is_empty() {
            return self.find(&self.in_root(name));
        }
        // Ten of these lookups happen in every file, however small: nothing is copied for them.
        let root = self.root();
        let full_bytes = root.len() + 1 + name.len();
        self.entries.iter().position(|entry| {
            usize::from(entry.name_bytes) == full_bytes && is_below(self.name(entry), root, name.as_bytes())
        })
    }

    /// Returns the full name of a record below the top folder.
    pub fn in_root(&self, name: &str) -> Vec<u8> {
        [self.root(), b"/", name.as_bytes()].concat()
    }

    /// Returns the decoded bytes of a record.
    ///
    /// # Errors
    /// [`Error::Record`] when the record cannot be used, [`Error::Limit`] when it is larger than `bytes_max`.
    pub fn read_record(&self, index: usize, bytes_max: u64) -> Result<Cow<'_, [u8]>> {
        let entry = self.entries[index];
        let failed = |fault| self.record_error(&entry, fault);
        if let Some(fault) = entry.fault() {
            return Err(failed(fault));
        }
        if entry.size > bytes_max {
            return Err(Error::Limit {
                what: "record length",
                found: entry.size,
                limit: bytes_max,
                field: "pickle_bytes",
            });
        }
        let data_start = self.data_start(index)?;
        if entry.is_stored() {
            return self.read(data_start, to_usize(entry.size)?);
        }
        let record_bytes = data_start + entry.packed_size - entry.header_offset;
        let from_header = self.read(entry.header_offset, to_usize(record_bytes)?)?;
        self.record(index)?.decode(&from_header, bytes_max).map(Cow::Owned).map_err(failed)
    }

    /// Returns the first two bytes and the last one of a stored record, `None` when it is shorter than that.
    ///
    /// # Errors
    /// As [`Self::read_record`].
    pub(crate) fn read_ends(&self, index: usize) -> Result<Option<([u8; 2], u8)>> {
        let entry = self.entries[index];
        if let Some(fault) = entry.fault() {
            return Err(self.record_error(&entry, fault));
        }
        if entry.size < 3 {
            return Ok(None);
        }
        let start = self.data_start(index)?;
        let (first, last) = (self.read(start, 2)?, self.read(start + entry.size - 1, 1)?);
        Ok(Some(([first[0], first[1]], last[0])))
    }

    /// Reads a record and what stands shortly after it in one go, so that its small neighbours come for free.
    pub(crate) fn prefetch(&mut self, index: usize, limits: &Limits) -> Result<()> {
        let entry = self.entries[index];
        if entry.packed_size > limits.pickle_bytes || self.tail.offset <= entry.header_offset {
            return Ok(());
        }
        let end = (entry.limit + READ_AHEAD_BYTES).min(self.tail.offset.max(entry.limit));
        // A directory may promise a next header far away; read no more than the record can need.
        let needed = LOCAL_HEADER_BYTES + 2 * u64::from(u16::MAX) + entry.packed_size + READ_AHEAD_BYTES;
        let end = end.min(entry.header_offset.saturating_add(needed)).min(self.source.len());
        self.head = read_window(self.source, entry.header_offset.min(end), end)?;
        Ok(())
    }

    /// Takes note of the alignment the writer used (record `.storage_alignment`).
    pub(crate) fn set_alignment(&mut self, alignment: u64) {
        self.alignment = alignment;
    }

    /// Returns whether the writer used the usual alignment.
    pub(crate) fn has_usual_alignment(&self) -> bool {
        self.alignment == DEFAULT_ALIGNMENT
    }

    /// Returns the place of a record.
    ///
    /// # Errors
    /// As [`Self::data_start`].
    pub fn record(&self, index: usize) -> Result<Record> {
        let entry = &self.entries[index];
        Ok(Record {
            header_offset: Some(entry.header_offset),
            data_offset: self.data_start(index)?,
            packed_bytes: entry.packed_size,
            bytes: entry.size,
            method: entry.method,
            crc32: entry.crc32,
            name_hash: name_hash(self.name(entry)),
        })
    }

    /// Returns where the data of a record starts: computed if the directory allows it, else read from the local header.
    ///
    /// # Errors
    /// [`Error::Record`] when the local header contradicts the directory or the data leaves its place.
    pub fn data_start(&self, index: usize) -> Result<u64> {
        match self.computed_data_start(index) {
            Some(data_start) => Ok(data_start),
            None => self.read_data_start(index),
        }
    }

    /// Returns the position of a record's bytes in the file; the name of the record where they do not lie there as they are.
    pub(crate) fn stored_at(&self, index: usize) -> Result<u64, String> {
        let stored = self.entries[index].is_stored().then(|| self.data_start(index).ok()).flatten();
        stored.ok_or_else(|| self.shown_name(index))
    }

    /// Works out where the data of a record starts without reading its local header, in two independent ways:
    /// back from the next header (descriptor and size), and forward by PyTorch's alignment rule.
    /// `None` when they disagree.
    pub fn computed_data_start(&self, index: usize) -> Option<u64> {
        let entry = &self.entries[index];
        let large = entry.packed_size >= u64::from(IN_ZIP64);
        let far = entry.header_offset >= u64::from(IN_ZIP64);
        let descriptor = match (entry.flags & FLAG_DESCRIPTOR != 0, large || far) {
            (false, _) => 0,
            (true, false) => DESCRIPTOR_BYTES,
            (true, true) => DESCRIPTOR64_BYTES,
        };
        let backward = entry.limit.checked_sub(descriptor)?.checked_sub(entry.packed_size)?;

        let header =
            entry.header_offset + LOCAL_HEADER_BYTES + u64::from(entry.name_bytes) + PADDING_FIELD_BYTES;
        let agrees = |zip64_bytes: u64| {
            (header + zip64_bytes).checked_next_multiple_of(self.alignment) == Some(backward)
        };
        let forward = match (large, far) {
            (false, false) => agrees(0),
            (true, false) => agrees(ZIP64_SIZES_BYTES),
            // Only PyTorch writes the non-standard offset field in local headers.
            (false, true) => agrees(ZIP64_OFFSET_BYTES) || agrees(0),
            (true, true) => agrees(ZIP64_SIZES_BYTES + 8) || agrees(ZIP64_SIZES_BYTES),
        };
        forward.then_some(backward)
    }

    /// Reads the local header of a record and returns where its data starts.
    fn read_data_start(&self, index: usize) -> Result<u64> {
        let entry = &self.entries[index];
        let name = self.name(entry);
        let header = self
            .read(entry.header_offset, LOCAL_HEADER_BYTES as usize + name.len())
            .map_err(|_| self.record_error(entry, Fault::LocalHeader { offset: entry.header_offset }))?;
        let data_start = local_data_start(&header, entry.header_offset, name)
            .map_err(|fault| self.record_error(entry, fault))?;
        match data_start.checked_add(entry.packed_size) {
            Some(end) if end <= entry.limit => Ok(data_start),
            _ => Err(self.record_error(
                entry,
                Fault::OutsideFile { start: data_start, length: entry.packed_size, limit: entry.limit },
            )),
        }
    }

    fn record_error(&self, entry: &Entry, fault: Fault) -> Error {
        Error::Record { record: String::from_utf8_lossy(self.name(entry)).into_owned(), fault }
    }

    fn read(&self, offset: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        match self.head.get(offset, length).or_else(|| self.tail.get(offset, length)) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => read(self.source, offset, length as u64),
        }
    }

    /// Hands over the bytes of a record, and where in them it lies, without copying what was prefetched.
    pub(crate) fn take_record(
        &mut self,
        index: usize,
        bytes_max: u64,
    ) -> Result<(Cow<'s, [u8]>, usize, usize)> {
        let entry = self.entries[index];
        if !entry.is_stored() || entry.fault().is_some() || entry.size > bytes_max {
            let bytes = self.read_record(index, bytes_max)?.into_owned();
            let length = bytes.len();
            return Ok((Cow::Owned(bytes), 0, length));
        }
        let data_start = self.data_start(index)?;
        let length = to_usize(entry.size)?;
        // Always the header itself: its bytes were read with the record.
        for window in [&mut self.head, &mut self.tail] {
            if window.get(data_start, length).is_some() {
                let start = (data_start - window.offset) as usize;
                let bytes = match &window.bytes {
                    Cow::Borrowed(bytes) => Cow::Borrowed(*bytes),
                    Cow::Owned(bytes) if bytes.len() < 2 * length + TAIL_BYTES as usize => {
                        Cow::Owned(std::mem::take(window).bytes.into_owned())
                    }
                    Cow::Owned(bytes) => {
                        return Ok((Cow::Owned(bytes[start..start + length].to_vec()), 0, length));
                    }
                };
                return Ok((bytes, start, start + length));
            }
        }
        Ok((read(self.source, data_start, entry.size)?, 0, length))
    }

    /// Returns whether the directory holds a CRC for every record that has bytes.
    pub(crate) fn covers_content(&self) -> bool {
        self.entries.iter().all(|entry| entry.crc32 != 0 || entry.size == 0)
    }

    /// Walks the directory, entry by entry, over its bytes.
    fn walk(&mut self, end: &End) -> Result<()> {
        let directory = &self.directory[..];
        let count_max = directory.len() / DIRECTORY_ENTRY_BYTES;
        self.entries.reserve_exact(count_max.min(usize::try_from(end.entries).unwrap_or(usize::MAX)));
        let mut at = 0;
        while at < directory.len() {
            let index = self.entries.len();
            let bad = |what| {
                Error::archive(end.directory_offset + at as u64, ArchiveProblem::Entry { index, what })
            };
            let fixed: &[u8; DIRECTORY_ENTRY_BYTES] =
                directory[at..].first_chunk().ok_or_else(|| bad("cut off"))?;
            if fixed.first_chunk() != Some(DIRECTORY_SIGNATURE) {
                return Err(bad("no directory signature"));
            }
            let name_bytes = u16_at(fixed, 28);
            let extra_bytes = usize::from(u16_at(fixed, 30));
            let name_start = at + DIRECTORY_ENTRY_BYTES;
            let extra_start = name_start + usize::from(name_bytes);
            let next = extra_start + extra_bytes + usize::from(u16_at(fixed, 32));
            if next > directory.len() {
                return Err(bad("name, extra field or comment runs past the directory"));
            }
            let mut entry = Entry {
                name_start: u32::try_from(name_start).map_err(|_| bad("directory larger than 4 GiB"))?,
                name_bytes,
                flags: u16_at(fixed, 8),
                method: u16_at(fixed, 10),
                troubles: 0,
                crc32: u32_at(fixed, CRC32_AT),
                packed_size: u32_at(fixed, 20).into(),
                size: u32_at(fixed, 24).into(),
                header_offset: u32_at(fixed, 42).into(),
                limit: 0,
            };
            let disk = u16_at(fixed, 34);
            if disk != 0 && disk != u16::MAX {
                return Err(bad("lies on another disk"));
            }
            let wide = u64::from(IN_ZIP64);
            if entry.size == wide || entry.packed_size == wide || entry.header_offset == wide {
                let extra = &directory[extra_start..extra_start + extra_bytes];
                read_zip64_field(extra, &mut entry).ok_or_else(|| bad("zip64 field missing or too short"))?;
            }
            if entry.header_offset >= end.directory_offset {
                return Err(bad("local header offset lies past the records"));
            }
            self.entries.push(entry);
            at = next;
        }
        if self.entries.len() as u64 != end.entries {
            let problem = ArchiveProblem::Count { expected: end.entries, found: self.entries.len() as u64 };
            return Err(Error::archive(end.directory_offset, problem));
        }
        Ok(())
    }

    /// Notes for each record where the next one begins, and which records overlap.
    fn find_limits(&mut self, directory_offset: u64) {
        // By position; empty where the directory has that order, as nearly always.
        let mut order: Vec<u32> = Vec::new();
        if !self.entries.is_sorted_by_key(|entry| entry.header_offset) {
            order.extend(0..self.entries.len() as u32);
            order.sort_by_key(|&index| self.entries[index as usize].header_offset);
        }
        let index_at = |position: usize| order.get(position).map_or(position, |&index| index as usize);
        let mut previous = None;
        for position in 0..self.entries.len() {
            let next = self.entries.get(index_at(position + 1)).map(|next| next.header_offset);
            let entry = &mut self.entries[index_at(position)];
            entry.limit = next.unwrap_or(directory_offset);
            let smallest = entry
                .header_offset
                .saturating_add(LOCAL_HEADER_BYTES + u64::from(entry.name_bytes))
                .saturating_add(entry.packed_size);
            // Two entries that claim one local header: neither can be believed.
            if previous == Some(entry.header_offset) {
                entry.limit = entry.header_offset;
            }
            if smallest > entry.limit {
                entry.troubles |= TROUBLE_OVERLAP;
            }
            previous = Some(entry.header_offset);
        }
    }

    /// The top folder is what stands before the first slash of the first name, as torch has it; empty without one.
    fn find_root(&mut self) {
        let name = self.entries.first().map_or(&[][..], |first| self.name(first));
        self.root_bytes = name.iter().position(|&byte| byte == b'/').unwrap_or(0);
    }

    fn index_names(&mut self) {
        if self.entries.len() < TABLE_FROM {
            return self.compare_names();
        }
        let mut table = HashTable::with_capacity(self.entries.len());
        let mut duplicates = Vec::new();
        for index in 0..self.entries.len() as u32 {
            let name = self.name(&self.entries[index as usize]);
            let hash = self.hasher.hash_one(name);
            match table.find(hash, |&other: &u32| self.name(&self.entries[other as usize]) == name) {
                Some(&other) => duplicates.extend([index, other]),
                None => {
                    table.insert_unique(hash, index, |&other| {
                        self.hasher.hash_one(self.name(&self.entries[other as usize]))
                    });
                }
            }
        }
        for index in duplicates {
            self.entries[index as usize].troubles |= TROUBLE_DUPLICATE;
        }
        self.by_name = table;
    }

    /// Finds the duplicates among a few names.
    fn compare_names(&mut self) {
        for index in 1..self.entries.len() {
            let is_same = |other: &Entry| self.name(other) == self.name(&self.entries[index]);
            if let Some(other) = self.entries[..index].iter().position(is_same) {
                self.entries[index].troubles |= TROUBLE_DUPLICATE;
                self.entries[other].troubles |= TROUBLE_DUPLICATE;
            }
        }
    }
}

/// Returns whether a full name is this one in this folder.
fn is_below(full: &[u8], folder: &[u8], name: &[u8]) -> bool {
    let rest = full.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/"));
    rest == Some(name)
}

/// Returns where data starts, given a local header (fixed part and name) and the name it should carry.
pub(super) fn local_data_start(header: &[u8], header_offset: u64, name: &[u8]) -> Result<u64, Fault> {
    let broken = Fault::LocalHeader { offset: header_offset };
    let Some((fixed, rest)) = header.split_first_chunk::<{ LOCAL_HEADER_BYTES as usize }>() else {
        return Err(broken);
    };
    if fixed.first_chunk() != Some(LOCAL_SIGNATURE) {
        return Err(broken);
    }
    if usize::from(u16_at(fixed, 26)) != name.len() || rest.get(..name.len()) != Some(name) {
        return Err(Fault::LocalName { offset: header_offset });
    }
    Ok(header_offset + LOCAL_HEADER_BYTES + name.len() as u64 + u64::from(u16_at(fixed, 28)))
}

/// Returns whether the end records of a file are the same whatever stands in some ranges of its tail: whether it ends with
/// an end record without a comment, where another might stand, and those ranges cannot make a zip64 locator before it.
pub(crate) fn ends_alike(tail: &[u8], free: &[Range<usize>]) -> bool {
    let place = tail.len().checked_sub(END_BYTES as usize).and_then(|end| {
        let start = end.checked_sub(LOCATOR_BYTES as usize)?;
        (tail[end..].starts_with(END_SIGNATURE) && u16_at(&tail[end..], 20) == 0).then_some(start)
    });
    let Some(start) = place else { return false };
    let is_free = |at: &usize| free.iter().any(|range| range.contains(at));
    let places = start..start + LOCATOR_SIGNATURE.len();
    let differs = |at: usize| tail[at] != LOCATOR_SIGNATURE[at - start];
    !places.clone().any(|at| is_free(&at)) || places.filter(|at| !is_free(at)).any(differs)
}

/// What the end records say.
struct End {
    entries: u64,
    directory_bytes: u64,
    directory_offset: u64,
}

/// Finds the end record: the last one in the file that stands right behind the directory it speaks of.
///
/// A signature inside a comment or inside tensor data does not, and bytes after the record are tolerated
/// (torch accepts ten).
fn find_end<S: Source + ?Sized>(source: &S, tail: &Kept<'_>, file_bytes: u64) -> Result<End> {
    let mut first_problem = None;
    let candidates = tail.bytes.windows(4).enumerate().rev().filter(|(_, bytes)| bytes == END_SIGNATURE);
    for (at, _) in candidates {
        let Some(record) = tail.bytes[at..].first_chunk::<{ END_BYTES as usize }>() else { continue };
        let offset = tail.offset + at as u64;
        let comment_end = offset + END_BYTES + u64::from(u16_at(record, 20));
        if comment_end > file_bytes {
            continue;
        }
        match read_end(source, tail, record, offset) {
            Ok(end) => return Ok(end),
            Err(problem) => first_problem = first_problem.or(Some(problem)),
        }
    }
    Err(first_problem.unwrap_or_else(|| Error::archive(file_bytes, ArchiveProblem::NoEnd)))
}

fn read_end<S: Source + ?Sized>(source: &S, tail: &Kept<'_>, record: &[u8], offset: u64) -> Result<End> {
    let fail = |problem| Err(Error::archive(offset, problem));
    let mut end = End {
        entries: u16_at(record, 10).into(),
        directory_bytes: u32_at(record, 12).into(),
        directory_offset: u32_at(record, 16).into(),
    };
    let mut disks =
        [u16_at(record, 4), u16_at(record, 6)].into_iter().any(|disk| disk != 0 && disk != u16::MAX);
    let mut expected_end = offset;

    let bytes_at = |at: u64, length: u64| match tail.get(at, length as usize) {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        None => read(source, at, length),
    };
    let locator = match offset.checked_sub(LOCATOR_BYTES) {
        Some(at) => Some(bytes_at(at, LOCATOR_BYTES)?).filter(|bytes| bytes.starts_with(LOCATOR_SIGNATURE)),
        None => None,
    };
    if let Some(locator) = locator {
        let at = u64_at(&locator, 8);
        if at > (offset - LOCATOR_BYTES).saturating_sub(END64_BYTES) {
            return fail(ArchiveProblem::Zip64Place(at));
        }
        let record64 = bytes_at(at, END64_BYTES)?;
        let record64_bytes = u64_at(&record64, 4).saturating_add(12);
        if !record64.starts_with(END64_SIGNATURE)
            || at.checked_add(record64_bytes) != Some(offset - LOCATOR_BYTES)
        {
            return fail(ArchiveProblem::Zip64Place(at));
        }
        disks |= u32_at(&record64, 16) != 0 || u32_at(&record64, 20) != 0;
        let wide = [u64_at(&record64, 32), u64_at(&record64, 40), u64_at(&record64, 48)];
        let narrow =
            [(end.entries, 0xFFFF), (end.directory_bytes, 0xFFFF_FFFF), (end.directory_offset, 0xFFFF_FFFF)];
        for ((wide, (narrow, sentinel)), field) in
            wide.iter().zip(narrow).zip(["the entry count", "the directory length", "the directory offset"])
        {
            if narrow != sentinel && narrow != *wide {
                return fail(ArchiveProblem::Zip64Disagrees { field });
            }
        }
        [end.entries, end.directory_bytes, end.directory_offset] = wide;
        expected_end = at;
    }
    if disks {
        return fail(ArchiveProblem::ManyDisks);
    }
    let found = end.directory_offset.saturating_add(end.directory_bytes);
    if found != expected_end {
        return fail(ArchiveProblem::DirectoryPlace { expected: expected_end, found });
    }
    Ok(end)
}

/// Replaces the 32-bit fields that are all ones by their 64-bit values, which stand in a fixed order.
fn read_zip64_field(mut extra: &[u8], entry: &mut Entry) -> Option<()> {
    loop {
        let (header, rest) = extra.split_first_chunk::<4>()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16_at(header, 2)))?;
        if u16_at(header, 0) == ZIP64_FIELD {
            let mut values = data.chunks_exact(8).map(|bytes| u64_at(bytes, 0));
            for field in [&mut entry.size, &mut entry.packed_size, &mut entry.header_offset] {
                if *field == u64::from(IN_ZIP64) {
                    *field = values.next()?;
                }
            }
            return Some(());
        }
        extra = rest;
    }
}

fn read_window<'s, S: Source + ?Sized>(source: &'s S, start: u64, end: u64) -> Result<Kept<'s>> {
    Ok(Kept { offset: start, bytes: read(source, start, end - start)? })
}

fn to_usize(length: u64) -> Result<usize> {
    usize::try_from(length).map_err(|_| Error::Limit {
        what: "length in memory",
        found: length,
        limit: usize::MAX as u64,
        field: "pickle_bytes",
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::{self, Object, Tensor};

    /// An archive of `bytes` of tensor data, with a comment.
    fn commented(bytes: usize, comment: &[u8]) -> Vec<u8> {
        let values = vec![7; bytes];
        let tensor = Tensor::new::<u8>(&[bytes as u64], &values).unwrap();
        let mut archive = write::to_vec(&Object::dict([("x", tensor.into())])).unwrap();
        let length = archive.len();
        archive[length - 2..].copy_from_slice(&(comment.len() as u16).to_le_bytes());
        archive.extend_from_slice(comment);
        archive
    }

    #[test]
    fn the_end_record_is_found_before_comments_of_any_length() {
        // An end record that speaks of no directory; it may stand in the part that is read first.
        let mut misleading = vec![b' '; 3000];
        misleading[2500..2504].copy_from_slice(END_SIGNATURE);
        for comment in [&b""[..], &[b' '; 900], &[b' '; 5000], &[b' '; 0xFFFF], &misleading] {
            // Below and above what a small file is.
            for bytes in [10, 200_000] {
                let file = commented(bytes, comment);
                let archive = Archive::parse(&file).unwrap();
                assert!(archive.find_in_root("data.pkl").is_some(), "{bytes} {}", comment.len());
            }
        }
        let mut cut = commented(20_000, b"");
        cut.truncate(10_000);
        let error = Archive::parse(&cut).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains("no end record"), "{error}");
    }
}
