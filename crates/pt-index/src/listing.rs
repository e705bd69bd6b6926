//! The files of a folder beside those of its index, by their names alone.

use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

use hashbrown::HashSet;

use crate::earlier::Earlier;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::scope::Scope;
use crate::walk::{Selection, data_files};

/// How the files of a folder differ from those of the index that is kept there. What they hold is not looked at.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// # use pt_format::write::{self, Object};
/// # let bytes = write::to_vec(&Object::from(7))?;
/// std::fs::write(folder.join("a.pt"), &bytes)?;
/// let index = pt_index::build_folder(folder, None, &Default::default(), |_| {})?.index;
/// let kept = pt_index::sidecar_path(folder);
/// pt_index::save(&index, &kept)?;
/// assert!(!pt_index::Listing::compare(folder, &index, &kept)?.is_outdated());
///
/// # std::thread::sleep(std::time::Duration::from_millis(20));
/// std::fs::write(folder.join("b.pt"), &bytes)?;
/// std::fs::remove_file(folder.join("a.pt"))?;
/// let listing = pt_index::Listing::compare(folder, &index, &kept)?;
/// assert_eq!((listing.added, listing.vanished, listing.chosen), (1, 1, 0));
/// assert!(listing.is_outdated());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Files that came after the index.
    pub added: usize,
    /// Files of the index that are no longer there.
    pub vanished: usize,
    /// Files that were there before the index and were left out, and files of it that are reached by links: whoever made it
    /// chose its files.
    pub chosen: usize,
}

impl Listing {
    /// Lists a folder, beside the index of it that is kept at `kept`. Only files that the index does not know are asked for their times.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn compare(folder: &Path, index: &Index, kept: &Path) -> Result<Self> {
        let everything = Scope::everything();
        let known = Earlier::new(index, &everything);
        let others = data_files(folder, &Selection::default(), &everything, |files| {
            files.retain(|file| !known.meet(&file.path, |_| true));
            Ok(())
        })?;
        let indexed = kept.metadata().map_err(Error::io(kept, "stat"))?;
        let mut listing = Self::default();
        if !others.is_empty() {
            let skipped: HashSet<&str> = index.skipped().map(|file| file.path).collect();
            for file in others.iter().filter(|file| !skipped.contains(&*file.path)) {
                // One that is gone meanwhile was neither.
                let Ok(metadata) = folder.join(&file.path).metadata() else { continue };
                match changed(&metadata) > changed(&indexed) {
                    true => listing.added += 1,
                    false => listing.chosen += 1,
                }
            }
        }
        let mut missing = known.missing();
        while let Some((path, _)) = missing.next_until(None) {
            match folder.join(path).exists() {
                true => listing.chosen += 1,
                false => listing.vanished += 1,
            }
        }
        Ok(listing)
    }

    /// Returns whether an index of the files that are there would be another one: files came or went, and the index was made of
    /// all there were.
    pub fn is_outdated(&self) -> bool {
        self.chosen == 0 && self.added + self.vanished > 0
    }
}

/// When a file got its name or its content, which of them was later.
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        use std::time::{Duration, UNIX_EPOCH};
        let seconds = u64::try_from(metadata.ctime()).ok()?;
        Some(UNIX_EPOCH + Duration::new(seconds, metadata.ctime_nsec() as u32))
    }
    #[cfg(not(unix))]
    metadata.modified().ok()
}
