//! The bytes of an index: header, section table, rows.
//!
//! ```text
//! 0    8 magic "PTVIEWIX"
//! 8    2 version (major)      readers refuse a newer major
//! 10   2 version (minor)
//! 12   4 section count
//! 16   8 length of the whole index in bytes
//! 24   8 checksum of bytes 0..24 and of the section table
//! 32     section table: 32 bytes a section
//!        4 kind · 4 zero · 8 offset · 8 length · 8 checksum (XXH3-64)
//! …      sections, each 8-aligned, zero bytes between
//! ```
//!
//! `docs/index-format.md` says the same to readers in other languages; a test compares the constants.

use bytemuck::{Pod, Zeroable};

pub(crate) const MAGIC: &[u8; 8] = b"PTVIEWIX";
pub(crate) const VERSION_MAJOR: u16 = 0;
pub(crate) const VERSION_MINOR: u16 = 1;

pub(crate) const MAGIC_OFFSET: usize = 0;
pub(crate) const MAJOR_OFFSET: usize = MAGIC_OFFSET + MAGIC.len();
pub(crate) const MINOR_OFFSET: usize = MAJOR_OFFSET + size_of::<u16>();
pub(crate) const SECTION_COUNT_OFFSET: usize = MINOR_OFFSET + size_of::<u16>();
pub(crate) const LENGTH_OFFSET: usize = SECTION_COUNT_OFFSET + size_of::<u32>();
pub(crate) const CHECKSUM_OFFSET: usize = LENGTH_OFFSET + size_of::<u64>();
pub(crate) const HEADER_BYTES: usize = CHECKSUM_OFFSET + size_of::<u64>();

/// No string, no storage, no row.
pub(crate) const NONE: u32 = u32::MAX;
/// No offset.
pub(crate) const NO_OFFSET: u64 = u64::MAX;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Files = 0,
    Tensors = 1,
    Dims = 2,
    Storages = 3,
    Leaves = 4,
    Quantizers = 5,
    PathParts = 6,
    StringEnds = 7,
    StringBytes = 8,
    TensorBuckets = 9,
    TensorSlots = 10,
    FileBuckets = 11,
    FileSlots = 12,
}

impl Kind {
    pub(crate) const COUNT: usize = 13;
}

/// One line of the section table.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SectionRow {
    pub(crate) kind: u32,
    pub(crate) zero: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) checksum: u64,
}

/// A data file, in path order.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct FileRow {
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) fingerprint: u64,
    /// String: path relative to the folder of the index, `/` between parts; empty in the sidecar of one file.
    pub(crate) path: u32,
    pub(crate) flags: u32,
    pub(crate) tensors_start: u32,
    pub(crate) tensors_count: u32,
    pub(crate) storages_start: u32,
    pub(crate) storages_count: u32,
    pub(crate) leaves_start: u32,
    pub(crate) leaves_count: u32,
}

pub(crate) const FILE_BIG_ENDIAN: u32 = 1;
pub(crate) const FILE_COVERS_CONTENT: u32 = 2;

/// A tensor, in file order.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TensorRow {
    pub(crate) storage_offset: u64,
    /// String.
    pub(crate) name: u32,
    /// Row of `Files`.
    pub(crate) file: u32,
    /// First shape entry in `Dims`; the strides follow the shape.
    pub(crate) dims_start: u32,
    /// Row of `Storages`, or `NONE`.
    pub(crate) storage: u32,
    /// Row of `Tensors`, or `NONE`.
    pub(crate) alias_of: u32,
    /// Row of `Quantizers`, or `NONE`.
    pub(crate) quantizer: u32,
    /// String saying why the tensor cannot be read, or `NONE`.
    pub(crate) fault: u32,
    /// String: the class of a tensor subclass, or `NONE`.
    pub(crate) class: u32,
    /// First component in `PathParts`.
    pub(crate) path_start: u32,
    /// Components of the path; 0 when the name is the only one.
    pub(crate) path_count: u16,
    pub(crate) flags: u16,
    /// 255 where there is no shape.
    pub(crate) rank: u8,
    /// 255 where it is unknown.
    pub(crate) dtype: u8,
    pub(crate) layout: u8,
    /// 1 where strides follow the shape in `Dims`.
    pub(crate) has_stride: u8,
    pub(crate) zero: u32,
}

pub(crate) const NO_RANK: u8 = u8::MAX;
pub(crate) const NO_DTYPE: u8 = u8::MAX;

/// A storage: a run of bytes of a file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct StorageRow {
    /// First byte, or `NO_OFFSET` where the file has none.
    pub(crate) data_offset: u64,
    /// Zip local header, or `NO_OFFSET`.
    pub(crate) header_offset: u64,
    pub(crate) packed_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) crc32: u32,
    /// Low half of XXH3-64 of the record's full name.
    pub(crate) name_hash: u32,
    pub(crate) method: u32,
    /// String saying why it cannot be read, or `NONE`.
    pub(crate) fault: u32,
}

/// A plain scalar of a file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct LeafRow {
    /// i64, f64 bits, 0 or 1, or a string.
    pub(crate) value: u64,
    /// String.
    pub(crate) name: u32,
    pub(crate) kind: u32,
}

pub(crate) const LEAF_NONE: u32 = 0;
pub(crate) const LEAF_BOOL: u32 = 1;
pub(crate) const LEAF_INT: u32 = 2;
pub(crate) const LEAF_FLOAT: u32 = 3;
pub(crate) const LEAF_STR: u32 = 4;

/// Scale and zero point, or the axis of the parts that hold them.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct QuantizerRow {
    /// f64 bits; 0 for per-channel quantizers.
    pub(crate) scale: u64,
    /// Zero point, or axis of a per-channel quantizer.
    pub(crate) zero_point: i64,
    /// String.
    pub(crate) scheme: u32,
    pub(crate) per_channel: u32,
}

/// An entry of a lookup table: rows in order of their hash, found through the buckets.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slot {
    /// Low half of the hash.
    pub(crate) hash: u32,
    pub(crate) row: u32,
}

/// Returns the bucket of a hash among `count` buckets (a power of two): its top bits.
pub(crate) fn bucket_of(hash: u64, count: usize) -> usize {
    (hash >> 32) as usize & (count - 1)
}

/// Returns how many buckets a table of so many rows has: the next power of two.
pub(crate) fn bucket_count(rows: usize) -> usize {
    rows.max(1).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_document_gives_the_same_sizes() {
        let document = include_str!("../../../docs/index-format.md");
        for (name, bytes) in [
            ("Header", HEADER_BYTES),
            ("Section", size_of::<SectionRow>()),
            ("File", size_of::<FileRow>()),
            ("Tensor", size_of::<TensorRow>()),
            ("Storage", size_of::<StorageRow>()),
            ("Leaf", size_of::<LeafRow>()),
            ("Quantizer", size_of::<QuantizerRow>()),
            ("Slot", size_of::<Slot>()),
        ] {
            let line = format!("### {name} ({bytes} bytes)");
            assert!(document.contains(&line), "docs/index-format.md should have the line `{line}`");
        }
        assert!(document.contains(&format!("version {VERSION_MAJOR}.{VERSION_MINOR}")));
    }
}
