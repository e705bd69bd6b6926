//! What can be wrong with a file, typed.

use std::io;

use crate::container::{ArchiveProblem, Container, LegacyProblem};
use crate::fault::Fault;
use crate::pickle::PickleProblem;

/// Why a file, or a part of it, could not be read.
///
/// Messages name the record, the byte offset and what was expected. The crates that open files put the
/// path in front.
///
/// ```
/// use pt_format::{Checkpoint, Error, Limits};
/// let error = Checkpoint::parse(&b"<!DOCTYPE html>"[..], &Limits::default()).unwrap_err();
/// assert!(matches!(error, Error::Foreign { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source failed while being read.
    #[error("cannot read {length} bytes at offset {offset}: {source}")]
    Read {
        /// First byte asked for.
        offset: u64,
        /// How many bytes were asked for.
        length: u64,
        /// What the medium said.
        source: io::Error,
    },
    /// The bytes are something else than a PyTorch file.
    #[error("not a PyTorch file: it looks like {found}; {advice}")]
    Foreign {
        /// What the first bytes say.
        found: &'static str,
        /// What to do about it.
        advice: String,
    },
    /// The file is a PyTorch container that this version does not read.
    #[error("{container} files are not read by this version; load the file with torch and save it again")]
    UnsupportedContainer {
        /// The container found.
        container: Container,
    },
    /// The `.pt2` package was compiled by AOTInductor, and says of no weights where they are.
    #[error(
        "this .pt2 package holds compiled code and no weights as tensors: they are part of the code, or were left out; \
         with `aot_inductor.package_constants_on_disk_format` set to \"pickle_weights\" they are packed beside it"
    )]
    CompiledOnly,
    /// The zip archive is damaged or ambiguous.
    #[error("damaged zip archive at byte {offset}: {problem}")]
    Archive {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        problem: ArchiveProblem,
    },
    /// The legacy file is damaged.
    #[error("damaged legacy file at byte {offset}: {problem}")]
    Legacy {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        problem: LegacyProblem,
    },
    /// One record of the archive cannot be used.
    #[error("record `{record}`: {fault}")]
    Record {
        /// Name of the record inside the archive.
        record: String,
        /// Why not.
        fault: Fault,
    },
    /// A record that every checkpoint has is not there.
    #[error("record `{record}` is missing; the archive has {records} other records")]
    MissingRecord {
        /// The name looked for.
        record: String,
        /// Records the archive does have.
        records: usize,
    },
    /// The pickle is malformed.
    #[error("pickle `{record}`, byte {offset}: {problem}")]
    Pickle {
        /// Name of the record that holds the pickle.
        record: String,
        /// Byte inside the pickle.
        offset: u64,
        /// What is wrong there.
        problem: PickleProblem,
    },
    /// A tensor is listed in the file but cannot be read.
    #[error("{}: {fault}", named("tensor", tensor))]
    Tensor {
        /// Dotted name of the tensor.
        tensor: String,
        /// Why it cannot be read.
        fault: Fault,
    },
    /// A storage that was saved as such, without a tensor, cannot be read.
    #[error("{}: {fault}", named("storage", path))]
    Storage {
        /// Dotted path of the storage.
        path: String,
        /// Why it cannot be read.
        fault: Fault,
    },
    /// The file asks for more than [`Limits`](crate::Limits) allows.
    #[error("{what}: {found} exceeds the limit of {limit}{}", way_out(field))]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much the file asks for.
        found: u64,
        /// How much is allowed.
        limit: u64,
        /// The field of `Limits` that says so; empty where the limit is fixed.
        field: &'static str,
    },
    /// A value is not of the kind that was asked for.
    #[error("value `{path}` is {found}, expected {expected}")]
    Value {
        /// Dotted path of the value.
        path: String,
        /// What is there.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn archive(offset: u64, problem: ArchiveProblem) -> Self {
        Self::Archive { offset, problem }
    }
}

/// The object that was saved has the empty name, which would look like none.
fn named(what: &str, name: &str) -> String {
    match name {
        "" => format!("the {what} at the root"),
        name => format!("{what} `{name}`"),
    }
}

fn way_out(field: &str) -> String {
    match field {
        "" => String::new(),
        field => format!("; raise `Limits::{field}` if the file can be trusted"),
    }
}
