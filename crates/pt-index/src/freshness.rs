//! Whether an index still speaks of the file that is there.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use pt_format::{Fingerprint, Limits, Source, fingerprint_of};
use xxhash_rust::xxh3::Xxh3;

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

/// How sure to be that an index speaks of the file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Not at all: for data that never changes. A file of another size is still refused where bytes are read.
    Trust,
    /// By size and modification time; where only the time differs, by the fingerprint.
    #[default]
    Stat,
    /// By size and fingerprint, always: also finds a file replaced by one of the same size within the resolution of its
    /// time. Reads directory and pickle of each file.
    Fingerprint,
}

/// Computes the fingerprint of a file that is no checkpoint by itself: of its first and last bytes.
pub(crate) fn fingerprint_of_ends(source: &FileSource) -> io::Result<Fingerprint> {
    const END_BYTES: u64 = 64 << 10;
    let length = source.len();
    let first = length.min(END_BYTES);
    let mut hasher = Xxh3::new();
    hasher.update(&source.read_at(0, first as usize)?);
    let last = (length - first).min(END_BYTES);
    hasher.update(&source.read_at(length - last, last as usize)?);
    Ok(Fingerprint { digest: hasher.digest(), covers_content: false })
}

impl FileEntry<'_> {
    /// Compares this row with the file at `path`: by size and time, then by the fingerprint of directory and pickle.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is there but cannot be read.
    pub fn freshness(&self, path: &Path) -> Result<Freshness> {
        self.compare(path, Policy::Stat).map(|(freshness, _)| freshness)
    }

    /// Compares this row with the file at `path`, and returns the stamp found there.
    pub(crate) fn compare(&self, path: &Path, policy: Policy) -> Result<(Freshness, Stamp)> {
        // Of most files the stamp is enough, and needs no open file.
        let found = match fs::metadata(path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Freshness::Missing, Stamp::default()));
            }
            Err(error) => return Err(Error::io(path, "stat")(error)),
        };
        match self.judge(found, policy) {
            Some(freshness) => Ok((freshness, found)),
            None => Ok((self.freshness_of(&FileSource::open(path)?, policy), found)),
        }
    }

    /// Compares this row with an open file.
    pub fn freshness_of(&self, source: &FileSource, policy: Policy) -> Freshness {
        let found = Stamp::of(source.metadata());
        self.judge(found, policy).unwrap_or_else(|| {
            let fingerprint = match self.is_part() {
                true => fingerprint_of_ends(source).ok(),
                false => fingerprint_of(source, &Limits::default()).ok(),
            };
            match fingerprint {
                Some(fingerprint) if fingerprint == self.fingerprint() && found == self.stamp() => {
                    Freshness::Fresh
                }
                Some(fingerprint) if fingerprint == self.fingerprint() => Freshness::Touched,
                _ => Freshness::Stale,
            }
        })
    }

    /// Makes sure that this row speaks of an open file; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Stale`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("a.pt");
    /// # use pt_format::write::{self, Object};
    /// # std::fs::write(&path, write::to_vec(&Object::from(7))?)?;
    /// use pt_index::{FileSource, Policy};
    /// let index = pt_index::build_file(&path, &Default::default())?;
    /// index.file(0).unwrap().check(&path, &FileSource::open(&path)?, Policy::Fingerprint)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check(&self, path: &Path, source: &FileSource, policy: Policy) -> Result<()> {
        match self.freshness_of(source, policy) {
            Freshness::Fresh | Freshness::Touched => Ok(()),
            freshness => Err(Error::Stale { path: path.to_owned(), freshness }),
        }
    }

    /// Decides by the stamp, where it can.
    fn judge(&self, found: Stamp, policy: Policy) -> Option<Freshness> {
        let indexed = self.stamp();
        match policy {
            Policy::Trust => Some(Freshness::Fresh),
            _ if found.size != indexed.size => Some(Freshness::Stale),
            Policy::Stat if found == indexed => Some(Freshness::Fresh),
            _ => None,
        }
    }
}
