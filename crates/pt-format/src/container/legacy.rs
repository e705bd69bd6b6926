//! The stacked pickles of torch 0.1.10 to 1.5, and of `torch.save(…, _use_new_zipfile_serialization=False)` to this day.
//!
//! ```text
//! pickle: magic number · pickle: protocol 1001 · pickle: system info · pickle: the object
//! pickle: list of storage keys · for each key: i64 element count, then the bytes, nothing between
//! ```
//!
//! Each pickle ends at its STOP and the next begins behind it, so how long the head is shows only by reading it. Counts
//! and bytes are little-endian whatever machine wrote them. Source: `torch/serialization.py`, `_legacy_save`.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::container::Record;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::pickle::{Machine, Node, PersistentIds, Raw, Root, Tree};
use crate::rebuild::{Records, storage_class};
use crate::source::{Source, read, read_growing};

const PROTOCOL: i64 = 1001;
/// First read; longer heads are read again, longer.
const HEAD_BYTES: u64 = 1 << 20;
const COUNT_BYTES: u64 = 8;
/// Names of the pickles, for messages.
const PICKLES: [&str; 5] = ["magic number", "protocol number", "system info", "object", "storage keys"];

/// What is wrong with a legacy file as such.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LegacyProblem {
    /// The protocol number is not the one that was ever used.
    #[error("the protocol number is {0}, expected {PROTOCOL}")]
    Protocol(String),
    /// The fifth pickle is no list of keys.
    #[error("the list of storage keys holds something else than keys")]
    KeyList,
    /// A key in the list belongs to no tensor, so the length of its storage is unknown.
    #[error("the type of storage `{0}` is unknown, as no tensor refers to it; what follows cannot be found")]
    UnusedKey(String),
    /// A storage is listed twice.
    #[error("storage `{0}` is listed twice")]
    RepeatedKey(String),
    /// A storage's own count is not the one its tensors speak of.
    #[error("storage `{key}` counts {found} elements, its tensors speak of {expected}")]
    Count {
        /// Key of the storage.
        key: String,
        /// Count in front of the bytes.
        found: i64,
        /// Count in the persistent id.
        expected: u64,
    },
    /// The header of a tar member is damaged.
    #[error("tar header: {0}")]
    TarHeader(&'static str),
    /// A tar member is damaged.
    #[error("tar member `{member}`: {what}")]
    TarMember {
        /// Name of the member.
        member: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file ends too early.
    #[error("storage `{key}` needs {needs} more bytes; the file is cut off, fetch it again")]
    CutOff {
        /// Key of the storage.
        key: String,
        /// Bytes that are missing.
        needs: u64,
    },
}

/// The head of a legacy file, and where its storages lie.
pub(crate) struct Legacy<'s> {
    /// Values of the object.
    tree: Tree<'s>,
    /// Bytes up to the end of the fifth pickle.
    head_bytes: usize,
    records: LegacyRecords,
}

impl<'s> Legacy<'s> {
    /// Reads the five pickles and finds the storages.
    ///
    /// # Errors
    /// [`Error::Pickle`], [`Error::Legacy`], [`Error::Limit`] or [`Error::Read`].
    pub(crate) fn parse<S: Source + ?Sized>(source: &'s S, limits: &Limits) -> Result<Self> {
        let head = |text| read_head(text, limits);
        let (tree, keys, head_bytes) = read_growing(source, 0, source.len(), HEAD_BYTES, limits, head)?;
        let mut legacy = Self { tree, head_bytes, records: LegacyRecords::default() };
        legacy.find_storages(source, keys)?;
        Ok(legacy)
    }

    /// Walks from storage to storage: each has its count in front, and its type in the persistent ids.
    fn find_storages<S: Source + ?Sized>(&mut self, source: &S, keys: Vec<Vec<u8>>) -> Result<()> {
        let known = first_persistent_ids(&self.tree);
        let mut at = self.head_bytes as u64;
        for key in keys {
            let shown = || String::from_utf8_lossy(&key).into_owned();
            let fail = |problem| Err(Error::Legacy { offset: at, problem });
            let Some(&(expected, itemsize)) = known.get(&key) else {
                return fail(LegacyProblem::UnusedKey(shown()));
            };
            let left = source.len().saturating_sub(at);
            if left < COUNT_BYTES {
                return fail(LegacyProblem::CutOff { key: shown(), needs: COUNT_BYTES - left });
            }
            let count = match self.tree.text.get(at as usize..).and_then(|rest| rest.first_chunk()) {
                Some(count) => i64::from_le_bytes(*count),
                None => {
                    let bytes = read(source, at, COUNT_BYTES)?;
                    bytes.first_chunk().map_or(0, |count| i64::from_le_bytes(*count))
                }
            };
            if u64::try_from(count) != Ok(expected) {
                return fail(LegacyProblem::Count { key: shown(), found: count, expected });
            }
            let data_offset = at + COUNT_BYTES;
            let bytes = expected.saturating_mul(itemsize);
            let end = data_offset.saturating_add(bytes);
            if end > source.len() {
                return fail(LegacyProblem::CutOff { key: shown(), needs: end - source.len() });
            }
            if !self.records.add(key.clone(), data_offset, bytes) {
                return fail(LegacyProblem::RepeatedKey(shown()));
            }
            at = end;
        }
        Ok(())
    }

    /// Returns the bytes of the five pickles.
    pub(crate) fn head(&self) -> &[u8] {
        &self.tree.text[..self.head_bytes]
    }

    /// Hands out the tree and keeps the places.
    pub(crate) fn into_parts(self) -> (Tree<'s>, LegacyRecords) {
        (self.tree, self.records)
    }
}

/// Where the storages of a legacy file lie.
#[derive(Default)]
pub(crate) struct LegacyRecords {
    by_key: HashMap<Vec<u8>, usize>,
    /// Offset and length.
    places: Vec<(u64, u64)>,
}

impl LegacyRecords {
    /// Writes the places down, for a digest.
    pub(crate) fn describe(&self, out: &mut Vec<u8>) {
        for (data_offset, bytes) in &self.places {
            out.extend_from_slice(&data_offset.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
        }
    }

    /// Notes a storage; false when its key was noted before.
    pub(crate) fn add(&mut self, key: Vec<u8>, data_offset: u64, bytes: u64) -> bool {
        let next = self.places.len();
        let is_new = *self.by_key.entry(key).or_insert(next) == next;
        if is_new {
            self.places.push((data_offset, bytes));
        }
        is_new
    }
}

impl Records for LegacyRecords {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn record_name(&self, _: usize, key: &[u8], name: &mut Vec<u8>) {
        name.extend_from_slice(key);
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.by_key.get(name).copied()
    }

    fn place(&self, index: usize, bytes: u64) -> Result<Record, Fault> {
        let (offset, length) = self.places[index];
        if length != bytes {
            return Err(Fault::RecordLength { record: length, expected: bytes });
        }
        Ok(Record::plain(offset, length))
    }
}

type Head<'s> = (Tree<'s>, Vec<Vec<u8>>, usize);

/// Runs the five pickles over the first bytes of the file.
fn read_head<'s>(text: Cow<'s, [u8]>, limits: &Limits) -> Result<Head<'s>> {
    let run = |start: usize, name: usize| {
        let tree = Tree::new(Cow::Borrowed(&text[..]));
        let ids = if PICKLES[name] == "object" { PersistentIds::Legacy } else { PersistentIds::None };
        Machine::run(tree, start..text.len(), ids, limits, PICKLES[name])
    };
    let (_, _, at) = run(0, 0)?;
    let (protocol, number, after) = run(at, 1)?;
    match number {
        Raw::Int(PROTOCOL) => {}
        other => {
            let found = crate::pickle::repr(&protocol, other);
            return Err(Error::Legacy { offset: at as u64, problem: LegacyProblem::Protocol(found) });
        }
    }
    let (_, _, at) = run(after, 2)?;
    let (mut object, value, at) = run(at, 3)?;
    object.roots.push(Root::new(value, PICKLES[3]));
    let (keys, list, end) = run(at, 4)?;
    let key_list = Error::Legacy { offset: at as u64, problem: LegacyProblem::KeyList };
    let elements = keys.elements(list).ok_or(key_list)?;
    let keys: Option<Vec<_>> = elements.map(|key| keys.key_bytes(key).map(Cow::into_owned)).collect();
    let keys = keys.ok_or(Error::Legacy { offset: at as u64, problem: LegacyProblem::KeyList })?;
    object.lies_at(0..end, Ok(0));
    let object = object.without_text();
    Ok((object.with_text(text), keys, end))
}

/// Element count and bytes for each element of every storage, as the first persistent id of its key has them.
fn first_persistent_ids(tree: &Tree<'_>) -> HashMap<Vec<u8>, (u64, u64)> {
    let mut known = HashMap::new();
    for node in &tree.nodes {
        let Node::Persistent(id) = *node else { continue };
        let fields = tree.persistent_id(id).node().map(|node| tree.args(node)).unwrap_or_default();
        let &[_, class, key, _, Raw::Int(count), ..] = fields else { continue };
        let Some(key) = tree.key_bytes(key) else { continue };
        let itemsize =
            class.node().and_then(|class| storage_class(tree, class).ok()).map(|(_, itemsize)| itemsize);
        if let (Ok(count), Some(itemsize)) = (u64::try_from(count), itemsize) {
            known.entry(key.into_owned()).or_insert((count, itemsize));
        }
    }
    known
}
