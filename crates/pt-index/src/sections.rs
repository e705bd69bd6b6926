//! Header, section table and sections: the bytes of an index as a whole.

use bytemuck::{Pod, cast_slice};
use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{Error, Result};
use crate::layout::*;

/// The bytes of an index, cut into sections.
#[derive(Clone)]
pub(crate) struct Sections {
    bytes: Bytes,
    /// Where each begins, and how long it is.
    places: [(usize, usize); Kind::COUNT],
}

impl Sections {
    /// Takes the bytes of an index and checks header and section table. The work does not grow with the content, except that
    /// bytes which are not 8-aligned in memory are copied.
    pub(crate) fn open(bytes: Bytes) -> Result<Self> {
        let bytes = aligned(bytes);
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
        let mut places = [(0, 0); Kind::COUNT];
        for row in rows::<SectionRow>(table_bytes) {
            let end = row.offset.checked_add(row.length);
            if row.offset % 8 != 0 || end.is_none_or(|end| end > bytes.len() as u64) {
                return Err(damaged(HEADER_BYTES, "a section lies outside the index"));
            }
            // Sections of newer minor versions are passed over.
            if let Some(place) = places.get_mut(row.kind as usize) {
                *place = (row.offset as usize, row.length as usize);
            }
        }
        Ok(Self { bytes, places })
    }

    /// Puts header, section table and sections together.
    pub(crate) fn assemble(sections: [(Kind, &[u8]); Kind::COUNT]) -> Result<Self> {
        let mut offset = HEADER_BYTES + sections.len() * size_of::<SectionRow>();
        let mut table = Vec::with_capacity(sections.len());
        for (kind, content) in sections {
            let (kind, length, checksum) = (kind as u32, content.len() as u64, xxh3_64(content));
            table.push(SectionRow { kind, zero: 0, offset: offset as u64, length, checksum });
            offset = (offset + content.len()).next_multiple_of(8);
        }

        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION_MAJOR.to_le_bytes());
        header.extend_from_slice(&VERSION_MINOR.to_le_bytes());
        header.extend_from_slice(&(table.len() as u32).to_le_bytes());
        header.extend_from_slice(&(offset as u64).to_le_bytes());
        let mut hasher = Xxh3::new();
        hasher.update(&header);
        hasher.update(cast_slice(&table));
        header.extend_from_slice(&hasher.digest().to_le_bytes());

        let mut out = Aligned::zeroed(offset);
        let bytes = out.as_mut();
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        bytes[HEADER_BYTES..][..size_of_val(&table[..])].copy_from_slice(cast_slice(&table));
        for (row, (_, content)) in table.iter().zip(sections) {
            bytes[row.offset as usize..][..content.len()].copy_from_slice(content);
        }
        Self::open(Bytes::from_owner(out))
    }

    /// Returns all bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the section table, all of which lies inside the index.
    pub(crate) fn table(&self) -> &[SectionRow] {
        let count = self.bytes[SECTION_COUNT_OFFSET..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        rows(&self.bytes[HEADER_BYTES..HEADER_BYTES + count as usize * size_of::<SectionRow>()])
    }

    /// Returns where a section begins in the index.
    pub(crate) fn offset(&self, kind: Kind) -> usize {
        self.places[kind as usize].0
    }

    /// Returns the bytes of a section.
    #[inline]
    pub(crate) fn get(&self, kind: Kind) -> &[u8] {
        let (start, length) = self.places[kind as usize];
        &self.bytes[start..start + length]
    }

    /// Returns `count` rows of a section from `start` on; `None` where they are not all there.
    #[inline]
    pub(crate) fn some_rows<T: Pod>(&self, kind: Kind, start: u32, count: u32) -> Option<&[T]> {
        let (begin, length) = self.places[kind as usize];
        let bytes = size_of::<T>() as u64;
        let (first, end) = (u64::from(start) * bytes, (u64::from(start) + u64::from(count)) * bytes);
        if end > length as u64 {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes.get(begin + first as usize..begin + end as usize)?).ok()
    }

    /// Returns the rows of a section.
    #[inline]
    pub(crate) fn rows<T: Pod>(&self, kind: Kind) -> &[T] {
        rows(self.get(kind))
    }
}

pub(crate) fn damaged(offset: usize, what: &'static str) -> Error {
    Error::Damaged { offset: offset as u64, what }
}

/// Rows of a section; a rest that makes no row is left out.
#[inline]
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
struct Aligned {
    words: Vec<u64>,
    bytes: usize,
}

impl Aligned {
    fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    fn as_mut(&mut self) -> &mut [u8] {
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
