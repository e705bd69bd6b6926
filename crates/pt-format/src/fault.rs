//! What can be wrong with one tensor, or with the record its bytes are in.

/// Why a tensor that is listed cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// The arguments of a rebuild function are not those PyTorch writes.
    #[error("`{function}` has malformed arguments: {what}")]
    Arguments {
        /// The rebuild function.
        function: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// Some part of a tensor's description is not of the kind PyTorch writes.
    #[error("{what} is {problem}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What it is instead.
        problem: &'static str,
    },
    /// A size, stride, offset or element count is negative.
    #[error("negative {what}: {value}")]
    Negative {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A number does not fit into 63 bits, or a product of them into 64.
    #[error("{what} does not fit into 64 bits")]
    Overflow {
        /// Which number.
        what: &'static str,
    },
    /// Shape and stride have different ranks.
    #[error("shape has {shape} dimensions, stride has {stride}")]
    RankMismatch {
        /// Dimensions of the shape.
        shape: usize,
        /// Dimensions of the stride.
        stride: usize,
    },
    /// More dimensions than allowed.
    #[error("{rank} dimensions exceed the limit of {limit}; raise `Limits::rank` if the file can be trusted")]
    Rank {
        /// Dimensions in the file.
        rank: usize,
        /// Dimensions allowed.
        limit: usize,
    },
    /// The tensor reaches past the end of its storage.
    #[error("needs {needs} bytes but its storage has {has}")]
    OutOfStorage {
        /// Bytes from the start of the storage to the last element's end.
        needs: u64,
        /// Bytes of the storage.
        has: u64,
    },
    /// The storage class is none that PyTorch has.
    #[error("unknown storage class `{class}`")]
    UnknownStorageClass {
        /// Module and name of the class.
        class: String,
    },
    /// The dtype is none that a tensor can have.
    #[error("unknown dtype `{dtype}`")]
    UnknownDType {
        /// Module and name of the dtype.
        dtype: String,
    },
    /// The archive has no record for the storage.
    #[error("the file has no record `{record}` for its storage")]
    MissingRecord {
        /// Name of the record.
        record: String,
    },
    /// A record that cannot be used.
    #[error("record `{record}`: {fault}")]
    Record {
        /// Name of the record inside the archive.
        record: String,
        /// Why not.
        fault: Box<Fault>,
    },
    /// A record of a fixed content holds another one.
    #[error("it holds {found}, expected {expected}")]
    Content {
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The bytes lie inside a compressed record, so no place in the file can be given for them.
    #[error(
        "its bytes lie inside the compressed record `{record}`; make the archive anew with that record stored"
    )]
    InsideRecord {
        /// Name of the record inside the archive.
        record: String,
    },
    /// A `torch.save` file that lies inside another file cannot be read.
    #[error("the torch.save file inside the file cannot be read: {problem}")]
    Nested {
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes that the pickle holds as text or numbers are not what such text must be.
    #[error("its bytes, written as text at {offset}, do not decode; fetch the file again")]
    Written {
        /// First byte of the text.
        offset: u64,
    },
    /// The record's length is not what it should be: element count times element size, for a storage.
    #[error("it has {record} bytes, expected {expected}")]
    RecordLength {
        /// Bytes the record has.
        record: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// A description in JSON is malformed.
    #[error("malformed JSON: {problem}")]
    Json {
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Two references to one storage disagree about its length.
    #[error("one reference to its storage counts {first} bytes, another {second}")]
    StorageLengths {
        /// Bytes according to the first.
        first: u64,
        /// Bytes according to another.
        second: u64,
    },
    /// Two records have the same name.
    #[error("another record has the same name, and torch may take either; make the archive anew")]
    DuplicateRecord,
    /// The record overlaps another one, or the directory.
    #[error(
        "its header at byte {offset} and {length} bytes of data run past byte {limit}, where something else begins"
    )]
    OverlappingRecord {
        /// Position of the local header.
        offset: u64,
        /// Bytes of data.
        length: u64,
        /// Where the next local header, or the directory, begins.
        limit: u64,
    },
    /// The record is encrypted or patched.
    #[error("it is encrypted or patched (flags {flags:#06x}); make the archive anew without that")]
    Encrypted {
        /// General purpose flags.
        flags: u16,
    },
    /// The compression method is neither stored nor deflated.
    #[error("its compression method {method} is not supported; make the archive anew, stored or deflated")]
    UnknownMethod {
        /// Number of the method.
        method: u16,
    },
    /// There is no local header where the directory says.
    #[error("it has no local header at byte {offset}")]
    LocalHeader {
        /// Where it should be.
        offset: u64,
    },
    /// The local header carries another name than the directory.
    #[error("its local header at byte {offset} carries another name than the directory")]
    LocalName {
        /// Position of the local header.
        offset: u64,
    },
    /// The data starts somewhere else than worked out from the directory.
    #[error("its local header says the data starts at byte {found}, the directory implies {expected}")]
    DataStart {
        /// From the local header.
        found: u64,
        /// From the directory.
        expected: u64,
    },
    /// The data runs past the place it has.
    #[error("its {length} bytes at {start} run past byte {limit}")]
    OutsideFile {
        /// First byte.
        start: u64,
        /// How many bytes.
        length: u64,
        /// First byte that belongs to something else.
        limit: u64,
    },
    /// A compressed record does not decode.
    #[error(
        "its compressed bytes at {offset} (method {method}) do not decode: {problem}; fetch the file again"
    )]
    Inflate {
        /// First byte.
        offset: u64,
        /// Compression method.
        method: u16,
        /// What the decoder says.
        problem: String,
    },
    /// The bytes of a record are not those that were written.
    #[error("its bytes have the CRC {found:08x}, the directory says {expected:08x}; fetch the file again")]
    Crc {
        /// CRC-32 of the bytes that are there.
        found: u32,
        /// CRC-32 in the directory.
        expected: u32,
    },
    /// The bytes of a record cannot be read.
    #[error("its bytes cannot be read: {problem}")]
    Unreadable {
        /// What the system says.
        problem: String,
    },
    /// A compressed record would decode to more than allowed.
    #[error("it decodes to {size} bytes, more than the limit of {limit}; raise `Limits::inflated_bytes`")]
    TooLargeInflated {
        /// Bytes once decoded.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// Names that are quoted by the faults of many tensors are cut at this length.
const QUOTED_CHARS_MAX: usize = 200;

/// Returns a text that may be kept once for every tensor of a file.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
