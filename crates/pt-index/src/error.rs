//! What can go wrong around an index.

use std::io;
use std::path::{Path, PathBuf};

use crate::freshness::Freshness;

/// Why an index cannot be built, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system said no.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A data file cannot be parsed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pt_format::Error,
    },
    /// An index of shards is malformed, or its shards are not as it says.
    #[error("{}: {problem}", path.display())]
    Shards {
        /// The index of shards.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What is said to have changed is not all there is to say.
    #[error("{}: {problem}", path.display())]
    Changed {
        /// A path of the list, or what it was to be indexed.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A glob is malformed.
    #[error("malformed pattern: {0}")]
    Pattern(#[from] globset::Error),
    /// The plan of a distributed checkpoint cannot be read.
    #[error("{}: {source}", path.display())]
    Metadata {
        /// The `.metadata` file.
        path: PathBuf,
        /// What is wrong with it.
        source: pt_format::Error,
    },
    /// The bytes are no index.
    #[error("not a ptview index: {0}")]
    NotAnIndex(&'static str),
    /// The index was written by a newer version.
    #[error(
        "the index has format version {found}, this ptview reads {supported}; update ptview or build the index anew"
    )]
    Version {
        /// Major version of the index.
        found: u16,
        /// Major version read here.
        supported: u16,
    },
    /// The index is damaged.
    #[error("damaged index at byte {offset}: {what}; build it anew")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More of something than the format can number.
    #[error("too many {what} for one index ({count}); index smaller folders")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Files must come in the order of their paths, each once.
    #[error("path `{}` does not come behind the one before it", path.escape_debug())]
    PathOrder {
        /// The path.
        path: String,
    },
    /// Whoever asked for the work stopped it.
    #[error("stopped")]
    Stopped,
    /// The data file is not the one that was indexed.
    #[error("{}: the index is {freshness}; run `ptview index` again", path.display())]
    Stale {
        /// The data file.
        path: PathBuf,
        /// What was found.
        freshness: Freshness,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Says what is wrong without the path, for where that is known.
    pub(crate) fn without_path(&self) -> String {
        match self {
            Self::Io { action, source, .. } => format!("cannot {action}: {source}"),
            Self::File { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    pub(crate) fn io<'p>(path: &'p Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<'p> {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}
