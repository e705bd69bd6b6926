//! Indexes that were opened last, kept open: who takes one tensor of a file takes another soon, and the data sets of a folder share one.
//!
//! Opening an index anew means to open, map and unmap a file, and to fault in the pages that are looked at: more than all else that opening
//! a checkpoint and making a tensor takes.

use std::fs::Metadata;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use lru::LruCache;
use pt_index::Index;

use crate::export;

/// So many. Each is a map, and no open file.
const INDEXES_MAX: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// Smaller ones are read: that is cheaper than a map and its page faults.
const READ_BYTES_MAX: u64 = 64 << 10;

static KEPT: LazyLock<Mutex<LruCache<PathBuf, (Identity, Index)>>> =
    LazyLock::new(|| Mutex::new(LruCache::new(INDEXES_MAX)));

/// Opens an index that is kept in a file, or takes it from those that are open, if it is still the file at this path.
pub(crate) fn open_index(path: &Path) -> pt_view::Result<Index> {
    let Some(found) = Identity::of_file(path) else { return export::open_index(path) };
    // A thread that waits for the GIL never has this lock, but one that is lost in a fork may have had it: then nothing is kept.
    if let Ok(mut kept) = KEPT.try_lock()
        && let Some((identity, index)) = kept.get(path)
        && *identity == found
    {
        return Ok(index.clone());
    }
    let index = match found.size <= READ_BYTES_MAX {
        true => pt_index::read(path)?,
        false => export::open_index(path)?,
    };
    let replaced = if Identity::of_file(path).as_ref() == Some(&found)
        && let Ok(mut kept) = KEPT.try_lock()
    {
        kept.push(path.to_owned(), (found, index.clone()))
    } else {
        None
    };
    // Unmapped here, without the lock.
    drop(replaced);
    Ok(index)
}

/// Which file it is, in which state.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    number: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Looks at a file; none where there is none, or files have no numbers.
    fn of_file(path: &Path) -> Option<Self> {
        Self::of(&path.metadata().ok()?)
    }

    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self {
            device: metadata.dev(),
            number: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Option<Self> {
        None
    }
}
