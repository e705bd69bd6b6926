//! Whether an index still speaks of the file that is there.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use pt_format::{Limits, fingerprint_of};

use crate::error::{Error, Result};
use crate::index::FileEntry;
use crate::source::FileSource;

/// Size and modification time of a file: enough to tell a changed file from an unchanged one without reading it.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("x");
/// # std::fs::write(&path, b"abc")?;
/// let stamp = pt_index::Stamp::of(&std::fs::metadata(&path)?);
/// assert_eq!(stamp.size, 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970; 0 where the file system keeps no times.
    pub modified_ns: i64,
}

impl Stamp {
    /// Takes the stamp from file metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let modified_ns = match metadata.modified().map(|time| time.duration_since(UNIX_EPOCH)) {
            Ok(Ok(after)) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Ok(Err(before)) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
            Err(_) => 0,
        };
        Self { size: metadata.len(), modified_ns }
    }
}

/// How a file compares with its row in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Size and time are those that were indexed.
    Fresh,
    /// The time differs, the fingerprint is the same: copied or touched.
    Touched,
    /// Another file stands there.
    Stale,
    /// No file stands there.
    Missing,
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Touched => "of a file with another time but the same content",
            Self::Stale => "stale: the file has changed since it was indexed",
            Self::Missing => "of a file that is not there",
        })
    }
}

impl FileEntry<'_> {
    /// Compares this row with the file at `path`: size and time first, then the fingerprint of directory and pickle.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is there but cannot be read.
    pub fn freshness(&self, path: &Path) -> Result<Freshness> {
        let source = match FileSource::open(path) {
            Ok(source) => source,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Freshness::Missing);
            }
            Err(error) => return Err(error),
        };
        Ok(self.freshness_of(&source))
    }

    /// Compares this row with an open file.
    pub fn freshness_of(&self, source: &FileSource) -> Freshness {
        let found = Stamp::of(source.metadata());
        if found == self.stamp() {
            return Freshness::Fresh;
        }
        if found.size != self.stamp().size {
            return Freshness::Stale;
        }
        match fingerprint_of(source, &Limits::default()) {
            Ok(fingerprint) if fingerprint == self.fingerprint() => Freshness::Touched,
            _ => Freshness::Stale,
        }
    }
}
