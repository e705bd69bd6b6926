//! Why bytes cannot be lent or read.

use std::io;
use std::path::PathBuf;

use pt_format::{DType, Fault};

/// What went wrong around a view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The index could not be built, opened or used.
    #[error(transparent)]
    Index(#[from] pt_index::Error),
    /// The file could not be mapped.
    #[error("{}: cannot map: {source}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not take advice about the file.
    #[error("{}: how it is used cannot be told to the system: {source}", path.display())]
    Advice {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index has no such file.
    #[error("file {number} does not exist; the index has {count}")]
    NoSuchFile {
        /// The number asked for.
        number: usize,
        /// Files there are.
        count: usize,
    },
    /// No tensor has this name.
    #[error("no tensor `{name}`; the file has {count}{}", nearest.as_ref().map_or_else(String::new, |n| format!(", such as `{n}`")))]
    NoSuchTensor {
        /// The name asked for.
        name: String,
        /// Tensors there are.
        count: usize,
        /// A name that is there.
        nearest: Option<String>,
    },
    /// The tensor cannot be handed out in the way asked for.
    #[error("{} {obstacle}", if tensor.is_empty() { "the tensor at the root".into() } else { format!("tensor `{tensor}`") })]
    Refused {
        /// Dotted name of the tensor.
        tensor: String,
        /// Why not.
        obstacle: Obstacle,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stands between a tensor and a borrowed slice, and the way around it.
#[derive(Debug, thiserror::Error, PartialEq, Clone)]
#[non_exhaustive]
pub enum Obstacle {
    /// The file has no bytes for it.
    #[error("has no bytes of its own ({0})")]
    NoData(&'static str),
    /// The file says something impossible about it.
    #[error("cannot be read: {0}")]
    Fault(String),
    /// The record's local header contradicts the directory.
    #[error("cannot be read, because of its record: {0}")]
    Record(#[from] Fault),
    /// Its bytes lie outside the file.
    #[error("needs bytes {start}..{end} of a file of {length}; the file was cut off")]
    OutsideFile {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
        /// Bytes the file has.
        length: u64,
    },
    /// The file is read by position, so there is nothing to borrow.
    #[error("cannot be borrowed: its file is read, not mapped; use `to_vec` or `read_into`")]
    NotMapped,
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(String),
    /// The type asked for is not the tensor's.
    #[error(
        "is {dtype}, not {asked}; ask for the type of {dtype} (see `pt_format::element`), or use `as_bytes`"
    )]
    WrongType {
        /// The tensor's dtype.
        dtype: DType,
        /// The dtype of the type asked for.
        asked: DType,
    },
    /// The bytes are compressed in the file, or written there as text.
    #[error("is compressed in the file, or written as text; `to_cow` or `read_into` decode it")]
    Compressed,
    /// The bytes are in the other byte order.
    #[error("is big-endian; `to_cow` or `read_into` swap it")]
    ForeignEndian,
    /// Conjugate or negative bit: the bytes are not the values.
    #[error("has its {0} bit set, so its bytes are not its values; `to_cow` or `read_into` apply it")]
    LazyBit(&'static str),
    /// Several elements share a byte.
    #[error("packs several elements into a byte ({0}); `packed_bytes` gives the storage as it is")]
    Packed(DType),
    /// The elements do not lie in row-major order without gaps.
    #[error(
        "is not contiguous (shape {shape:?}, stride {stride:?}); `iter` walks it, `to_cow` or `read_into` copy it"
    )]
    Strided {
        /// Sizes.
        shape: Vec<u64>,
        /// Strides.
        stride: Vec<u64>,
    },
    /// The first byte is not where the type needs it.
    #[error("starts at a multiple of {found} in memory, its type needs {needs}; `to_cow` or `iter` copy it")]
    Misaligned {
        /// Largest power of two that divides the address.
        found: usize,
        /// Alignment of the type.
        needs: usize,
    },
    /// A byte that is no value of the type.
    #[error("holds the byte {value:#04x} at element {element}, which is no bool; use `as_bytes`")]
    NotBool {
        /// Which element.
        element: usize,
        /// The byte.
        value: u8,
    },
    /// It lies in chunks, in several files.
    #[error("lies in chunks; `FileCache::chunked` puts them together")]
    InChunks,
    /// It does not lie in chunks.
    #[error("does not lie in chunks; a view of it reads it")]
    NotInChunks,
    /// Chunks are missing: of so many elements.
    #[error("has {has} of its {needs} elements in chunks; the others are missing from the checkpoint")]
    ChunksMissing {
        /// Elements in chunks.
        has: u64,
        /// Elements of the whole.
        needs: u64,
    },
    /// Two chunks hold the same element.
    #[error("has two chunks, at {first:?} and {second:?}, that overlap")]
    ChunksOverlap {
        /// Position of the first element of the one.
        first: Vec<u64>,
        /// Position of the first element of the other.
        second: Vec<u64>,
    },
    /// Chunks lie beside each other in so many ways that checking them would take too long: no sharding does that.
    #[error("has {chunks} chunks that lie beside each other in too many ways to check them")]
    ChunksEntangled {
        /// How many there are.
        chunks: usize,
    },
    /// A chunk is no part of the whole.
    #[error("has a chunk of {chunk_dtype} {sizes:?} at {offsets:?}, which is no part of {dtype} {shape:?}")]
    ChunkMisfit {
        /// Position of its first element.
        offsets: Vec<u64>,
        /// Its sizes.
        sizes: Vec<u64>,
        /// Its dtype.
        chunk_dtype: DType,
        /// Sizes of the whole.
        shape: Vec<u64>,
        /// The dtype of the whole.
        dtype: DType,
    },
    /// The system does not take advice about it.
    #[error("is used in a way that cannot be told to the system: {0}")]
    Advice(String),
    /// It has no such dimension.
    #[error("has {rank} dimensions, counted from 0, and so none of number {dim}")]
    NoSuchDim {
        /// The dimension asked for.
        dim: usize,
        /// Dimensions there are.
        rank: usize,
    },
    /// A dimension ends before.
    #[error("has {size} elements in dimension {dim}, not {start}..{end}")]
    OutOfBounds {
        /// The dimension.
        dim: usize,
        /// First element asked for.
        start: u64,
        /// Behind the last one asked for.
        end: u64,
        /// Elements there are.
        size: u64,
    },
    /// The buffer is not as long as the tensor.
    #[error("needs a buffer of {needs} bytes, got {has}")]
    BufferLength {
        /// Bytes of the tensor.
        needs: u64,
        /// Bytes of the buffer.
        has: u64,
    },
    /// The format has no name for the dtype.
    #[error("is {}, for which safetensors has no name; `{}` copies it", .0, copy_of(.0))]
    NotInSafetensors(DType),
    /// The crate has no type for the dtype.
    #[error("is {}, for which candle has no type; `{}` copies it", .0, copy_of(.0))]
    NotInCandle(DType),
    /// More elements than memory can hold.
    #[error("has {0} bytes once expanded, more than memory can hold; `iter` walks it")]
    TooLarge(u64),
}

/// The method that gives the bytes of a dtype which somebody else does not know.
fn copy_of(dtype: &DType) -> &'static str {
    match dtype.packing() {
        Some(_) => "packed_bytes",
        None => "to_bytes",
    }
}
