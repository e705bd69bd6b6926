//! Strings, each kept once and known by its number.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result};
use crate::layout::NONE;

/// Pools of fewer strings have no table.
const TABLE_FROM: usize = 16;

/// A growing pool of strings.
#[derive(Clone, Default)]
pub(crate) struct Strings {
    pub(crate) ends: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Strings {
    /// Returns the number of a string.
    pub(crate) fn intern(&mut self, text: &str) -> Result<u32> {
        if self.ends.len() < TABLE_FROM {
            return self.intern_among_few(text);
        }
        if self.table.is_empty() {
            for id in 0..self.ends.len() as u32 {
                let hash_of = |&id: &u32| self.hasher.hash_one(slice(&self.ends, &self.bytes, id));
                self.table.insert_unique(hash_of(&id), id, hash_of);
            }
        }
        let hash = self.hasher.hash_one(text.as_bytes());
        let get = |id: u32| slice(&self.ends, &self.bytes, id);
        if let Some(&id) = self.table.find(hash, |&id| get(id) == text.as_bytes()) {
            return Ok(id);
        }
        let id = number(self.ends.len())?;
        self.table.insert_unique(hash, id, |&id| self.hasher.hash_one(slice(&self.ends, &self.bytes, id)));
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u64);
        Ok(id)
    }

    /// Comparing with a few is cheaper than hashing, and most files of a data set have only a few.
    fn intern_among_few(&mut self, text: &str) -> Result<u32> {
        let same = |&id: &u32| slice(&self.ends, &self.bytes, id) == text.as_bytes();
        if let Some(id) = (0..self.ends.len() as u32).find(same) {
            return Ok(id);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u64);
        number(self.ends.len() - 1)
    }

    pub(crate) fn intern_optional(&mut self, text: Option<&str>) -> Result<u32> {
        text.map_or(Ok(NONE), |text| self.intern(text))
    }

    pub(crate) fn reserve(&mut self, count: usize) {
        self.ends.reserve(count);
        if self.ends.len() + count < TABLE_FROM {
            return;
        }
        self.table.reserve(count, |&id| self.hasher.hash_one(slice(&self.ends, &self.bytes, id)));
    }

    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
        self.table.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn get(&self, id: u32) -> &str {
        // Only strings were put in.
        std::str::from_utf8(slice(&self.ends, &self.bytes, id)).unwrap_or_default()
    }

    /// Returns whether both hold the same strings under the same numbers.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.ends == other.ends && self.bytes == other.bytes
    }
}

fn slice<'b>(ends: &[u64], bytes: &'b [u8], id: u32) -> &'b [u8] {
    let start = (id as usize).checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[start as usize..ends[id as usize] as usize]
}

/// Row numbers are 32-bit, and the last one means "none".
pub(crate) fn number(count: usize) -> Result<u32> {
    u32::try_from(count).ok().filter(|&number| number != NONE).ok_or(Error::TooMany { what: "rows", count })
}
