//! The bytes of an index: header, section table, rows.
//!
//! ```text
//! 0    8 magic "PTVIEWIX"
//! 8    2 version (major)      readers refuse another major
//! 10   2 version (minor)
//! 12   4 section count
//! 16   8 length of the whole index in bytes
//! 24   8 checksum of bytes 0..24 and of the section table
//! 32     section table: 32 bytes a section
//!        4 kind · 4 zero · 8 offset · 8 length · 8 checksum (XXH3-64)
//! …      sections, each 8-aligned, zero bytes between
//! ```
//!
//! Like files share a *schema*: rows that say what every one of them holds, with a list of the numbers in which they
//! differ. Those numbers, and nothing else, are kept for each file.
//!
//! `docs/index-format.md` says the same to readers in other languages; a test compares the constants.

use bytemuck::{Pod, Zeroable};

pub(crate) const MAGIC: &[u8; 8] = b"PTVIEWIX";
pub(crate) const VERSION_MAJOR: u16 = 1;
pub(crate) const VERSION_MINOR: u16 = 0;

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
    Summary = 0,
    Schemas = 1,
    Tensors = 2,
    Dims = 3,
    Storages = 4,
    Nodes = 5,
    Columns = 6,
    ColumnData = 7,
    Quantizers = 8,
    PathParts = 9,
    Varying = 10,
    FileRows = 11,
    FileSchemas = 12,
    SchemaRows = 13,
    SchemaFiles = 14,
    StringEnds = 15,
    StringBytes = 16,
    TextEnds = 17,
    TextBytes = 18,
    PathBlocks = 19,
    PathBytes = 20,
    NameBuckets = 21,
    NameSlots = 22,
    FileBuckets = 23,
    FileSlots = 24,
    Skipped = 25,
    Root = 26,
}

impl Kind {
    pub(crate) const COUNT: usize = Self::ALL.len();
    pub(crate) const ALL: [Self; 27] = [
        Self::Summary,
        Self::Schemas,
        Self::Tensors,
        Self::Dims,
        Self::Storages,
        Self::Nodes,
        Self::Columns,
        Self::ColumnData,
        Self::Quantizers,
        Self::PathParts,
        Self::Varying,
        Self::FileRows,
        Self::FileSchemas,
        Self::SchemaRows,
        Self::SchemaFiles,
        Self::StringEnds,
        Self::StringBytes,
        Self::TextEnds,
        Self::TextBytes,
        Self::PathBlocks,
        Self::PathBytes,
        Self::NameBuckets,
        Self::NameSlots,
        Self::FileBuckets,
        Self::FileSlots,
        Self::Skipped,
        Self::Root,
    ];
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

/// How much there is of everything: one row.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SummaryRow {
    pub(crate) files: u64,
    /// Tensors of all files.
    pub(crate) tensors: u64,
    /// Storages of all files.
    pub(crate) storages: u64,
    /// Bytes of all data files.
    pub(crate) bytes: u64,
}

/// What like files have in common.
///
/// The first three numbers are those of every file, unless `varying` lists them.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SchemaRow {
    pub(crate) size: u64,
    pub(crate) modified_ns: u64,
    pub(crate) fingerprint: u64,
    /// Where the rows of its files begin in `FileRows`.
    pub(crate) rows_start: u64,
    /// Tensors of all files of the schemas before this one.
    pub(crate) tensors_before: u64,
    /// Storages of all files of the schemas before this one.
    pub(crate) storages_before: u64,
    /// Files.
    pub(crate) rows_count: u32,
    /// Bytes of one file's row.
    pub(crate) row_bytes: u32,
    /// First number in `SchemaFiles`.
    pub(crate) files_start: u32,
    pub(crate) flags: u32,
    pub(crate) tensors_start: u32,
    pub(crate) tensors_count: u32,
    pub(crate) storages_start: u32,
    pub(crate) storages_count: u32,
    pub(crate) columns_start: u32,
    pub(crate) columns_count: u32,
    pub(crate) nodes_start: u32,
    pub(crate) nodes_count: u32,
    /// First number in `NameBuckets`; there is one more than buckets.
    pub(crate) buckets_start: u32,
    pub(crate) buckets_count: u32,
    pub(crate) varying: u32,
    pub(crate) varying_mask: u32,
}

impl SchemaRow {
    pub(crate) const NUMBERS: usize = 3;
}

pub(crate) const FILE_BIG_ENDIAN: u32 = 1;
pub(crate) const FILE_COVERS_CONTENT: u32 = 2;
/// The file is no checkpoint by itself but a part of one: its fingerprint is the hash of its ends.
pub(crate) const FILE_IS_PART: u32 = 4;

/// A tensor of a schema, in file order. Numbers of other rows count from the schema's first.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TensorRow {
    pub(crate) storage_offset: u64,
    /// String.
    pub(crate) name: u32,
    /// First size in `Dims`; the strides follow the sizes.
    pub(crate) dims: u32,
    /// Row of the schema's storages, or `NONE`.
    pub(crate) storage: u32,
    /// Row of the schema's tensors, or `NONE`.
    pub(crate) alias_of: u32,
    /// Row of `Quantizers`, or `NONE`.
    pub(crate) quantizer: u32,
    /// String saying why the tensor cannot be read, or `NONE`.
    pub(crate) fault: u32,
    /// String: the class of a tensor subclass, or `NONE`.
    pub(crate) class: u32,
    /// First component in `PathParts`.
    pub(crate) path: u32,
    /// Components of the path; 0 when the name is the only one.
    pub(crate) path_count: u16,
    pub(crate) flags: u16,
    /// 255 where there is no shape.
    pub(crate) rank: u8,
    /// 255 where it is unknown.
    pub(crate) dtype: u8,
    pub(crate) layout: u8,
    /// 1 where strides follow the sizes.
    pub(crate) has_stride: u8,
    pub(crate) varying: u32,
    /// Bit 0: the storage offset; bit 1: sizes and strides ([`Self::DIMS`]).
    pub(crate) varying_mask: u32,
}

impl TensorRow {
    pub(crate) const DIMS: u32 = 2;

    /// How many sizes and strides there are.
    pub(crate) fn dims_count(&self) -> usize {
        match self.rank {
            NO_RANK => 0,
            rank => usize::from(rank) * (1 + usize::from(self.has_stride != 0)),
        }
    }
}

pub(crate) const NO_RANK: u8 = u8::MAX;
pub(crate) const NO_DTYPE: u8 = u8::MAX;

/// A storage of a schema: a run of bytes of each of its files.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct StorageRow {
    /// First byte, or `NO_OFFSET` where the file has none.
    pub(crate) data_offset: u64,
    /// Zip local header, or `NO_OFFSET`.
    pub(crate) header_offset: u64,
    pub(crate) packed_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) crc32: u64,
    /// Low half of XXH3-64 of the record's full name.
    pub(crate) name_hash: u64,
    pub(crate) method: u32,
    /// String saying why it cannot be read, or `NONE`.
    pub(crate) fault: u32,
    pub(crate) varying: u32,
    /// Bits 0 to 5: the fields above, in their order.
    pub(crate) varying_mask: u32,
}

impl StorageRow {
    /// Fields in which files may differ: the first ones.
    pub(crate) const NUMBERS: u32 = 6;

    /// Returns those fields.
    pub(crate) fn numbers(&self) -> [u64; Self::NUMBERS as usize] {
        [self.data_offset, self.header_offset, self.packed_bytes, self.bytes, self.crc32, self.name_hash]
    }
}

/// A number in which files differ: it is `base + the bytes at offset`, little-endian, wrapping. Sizes and strides that
/// differ stand at the offset as 8-aligned u64 numbers instead, and their width is 0.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct VaryingRow {
    /// Byte of the file's row.
    pub(crate) offset: u32,
    /// Bytes, 1 to 8.
    pub(crate) width: u32,
}

/// A part of the saved object: containers come before their content.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct NodeRow {
    /// Integer or string, see `key_kind`.
    pub(crate) key: u64,
    /// The node behind the content of a container, counted from the schema's first.
    pub(crate) end: u32,
    /// Tensor, column or node of the schema; string with the class of an opaque object, or `NONE`.
    pub(crate) target: u32,
    pub(crate) kind: u32,
    pub(crate) key_kind: u32,
}

/// Kinds of nodes.
pub(crate) mod node {
    pub(crate) const DICT: u32 = 0;
    pub(crate) const ORDERED_DICT: u32 = 1;
    pub(crate) const LIST: u32 = 2;
    pub(crate) const TUPLE: u32 = 3;
    pub(crate) const TENSOR: u32 = 4;
    pub(crate) const LEAF: u32 = 5;
    pub(crate) const SAME: u32 = 6;
    pub(crate) const OPAQUE: u32 = 7;
}

/// Kinds of keys.
pub(crate) mod key {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const STR: u32 = 1;
    pub(crate) const INT: u32 = 2;
    pub(crate) const OTHER: u32 = 3;
}

/// A plain scalar of a schema: one value a file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ColumnRow {
    /// First byte of the values in `ColumnData`, 8-aligned.
    pub(crate) values: u64,
    /// First byte of the marks in `ColumnData`, or `NO_OFFSET`: a bit a file, set where there is a value; of mixed
    /// columns a byte a file, the kind of the value.
    pub(crate) marks: u64,
    /// String: the dotted name.
    pub(crate) name: u32,
    pub(crate) kind: u32,
}

/// Kinds of columns, and of single values in mixed ones.
pub(crate) mod column {
    pub(crate) const NONE: u32 = 0;
    /// A byte each, 0 or 1.
    pub(crate) const BOOL: u32 = 1;
    /// i64.
    pub(crate) const INT: u32 = 2;
    /// f64.
    pub(crate) const FLOAT: u32 = 3;
    /// u32: number of a text.
    pub(crate) const STR: u32 = 4;
    /// 8 bytes each: any of the above.
    pub(crate) const MIXED: u32 = 5;
}

/// Scale and zero point, or the axis of the parts that hold them.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
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

/// A file that was met and could not be indexed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SkippedRow {
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    /// Texts.
    pub(crate) path: u32,
    pub(crate) reason: u32,
}

/// Rows a bucket holds on average, at most.
const BUCKET_ROWS: usize = 4;

/// Returns the bucket of a hash among `count` buckets (a power of two): the low bits of its high half.
pub(crate) fn bucket_of(hash: u64, count: usize) -> usize {
    (hash >> 32) as usize & (count - 1)
}

/// Returns how many buckets a table of so many rows has.
pub(crate) fn bucket_count(rows: usize) -> usize {
    rows.div_ceil(BUCKET_ROWS).max(1).next_power_of_two()
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
            ("Summary", size_of::<SummaryRow>()),
            ("Schema", size_of::<SchemaRow>()),
            ("Tensor", size_of::<TensorRow>()),
            ("Storage", size_of::<StorageRow>()),
            ("Varying", size_of::<VaryingRow>()),
            ("Node", size_of::<NodeRow>()),
            ("Column", size_of::<ColumnRow>()),
            ("Quantizer", size_of::<QuantizerRow>()),
            ("Slot", size_of::<Slot>()),
            ("Skipped", size_of::<SkippedRow>()),
        ] {
            let line = format!("### {name} ({bytes} bytes)");
            assert!(document.contains(&line), "docs/index-format.md should have the line `{line}`");
        }
        assert!(document.contains(&format!("version {VERSION_MAJOR}.{VERSION_MINOR}")));
    }
}
