//! Which bytes lie in memory, and telling the system which will be needed.
//!
//! All of it changes speed, never content. Where a platform has no such thing, advice does nothing and questions are
//! answered with `None` or `false`.

use std::io;

use crate::bytes::FileBytes;
use crate::cache::OpenFile;
use crate::error::{Error, Obstacle, Result};
use crate::mapping::Mapping;
use crate::view::TensorView;

/// What is asked for at a time: Linux reads no more than its read-ahead window (`read_ahead_kb`, 128 by default) for one
/// piece of advice, whatever the range.
const PREFETCH_BYTES: u64 = 128 << 10;

/// At a page fault Linux also maps the pages around that are in the page cache, of an aligned window of so many bytes
/// (`fault_around_bytes`).
const AROUND_BYTES: u64 = 64 << 10;

/// How a range of a file will be used.
///
/// On Linux, advice for a map is `madvise`, for a file that is read `posix_fadvise` (where [`Self::Random`] and
/// [`Self::Sequential`] speak of the whole file). Elsewhere on Unix only maps are advised; on Windows it does nothing.
/// [`Self::Random`] and [`Self::Sequential`] for a part of a map split it in two or three, of which the system has no
/// endless number (`vm.max_map_count`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Touched here and there: no read-ahead. How maps begin.
    Random,
    /// Touched from front to back: read ahead and drop behind.
    Sequential,
    /// Needed soon: start reading now. As much as the system reads ahead; `prefetch` asks for all of it.
    WillNeed,
    /// Not needed for now: pages leave the process, and, on Linux, the page cache if nobody else uses them. They are read
    /// again when they are touched.
    DontNeed,
    /// Worth large pages: fewer page faults and fewer misses of the address cache where a large map is walked at random.
    /// Linux takes the hint for files in memory (`tmpfs` with `huge=advise`), and with `CONFIG_READ_ONLY_THP_FOR_FS` for
    /// others, which it then merges in the background; elsewhere, and for files that are read, it does nothing.
    HugePages,
}

/// Which pages of a range lie in memory, whoever read them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Residency {
    /// Bytes of a page.
    pub page_bytes: usize,
    /// For each page that the range touches, in order, whether it is in memory.
    pub pages: Vec<bool>,
}

impl Residency {
    /// Returns the bytes in memory, in whole pages.
    pub fn bytes(&self) -> usize {
        self.pages.iter().filter(|&&resident| resident).count() * self.page_bytes
    }
}

impl Mapping {
    /// Says how the whole file will be used; maps begin as [`Advice::Random`].
    ///
    /// # Errors
    /// [`Error::Advice`] with what the system said.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.advised(self.file_bytes().advise(advice, 0, self.file_bytes().length()))
    }

    /// Starts reading the whole file into memory, and does not wait for it.
    ///
    /// # Errors
    /// As [`Self::advise`].
    pub fn prefetch(&self) -> Result<()> {
        self.advised(self.file_bytes().prefetch(0, self.file_bytes().length()))
    }

    /// Reads the whole file into memory and maps its pages, so that no touch has to wait; returns whether that was done.
    /// Linux 5.14 and newer can; elsewhere, and for files that are not mapped, nothing is touched.
    ///
    /// # Errors
    /// As [`Self::advise`]; also when the file was cut off, which is no signal here.
    pub fn populate(&self) -> Result<bool> {
        self.advised(self.file_bytes().populate(0, self.file_bytes().length()))
    }

    /// Returns which pages of the file lie in memory now; `None` where the platform does not tell (all but Linux) or the
    /// file is not mapped.
    pub fn resident(&self) -> Option<Residency> {
        self.file_bytes().resident(0, self.file_bytes().length())
    }

    fn advised<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|source| Error::Advice { path: self.path().to_owned(), source })
    }
}

impl TensorView<'_> {
    /// Says how the tensor's bytes will be used, with those that share their pages.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// # use pt_view::{Advice, Mapping};
    /// # // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// # let mapping = unsafe { Mapping::open(&path)? };
    /// let weight = mapping.tensor("w")?;
    /// weight.advise(Advice::Sequential)?;
    /// assert_eq!(weight.as_slice::<u8>()?, [1, 2, 3]);
    /// weight.advise(Advice::DontNeed)?; // read again if it is touched again
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] for a tensor without bytes, and with [`Obstacle::Advice`] and what the system said.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        let (start, length) = self.range()?;
        self.advised(self.file.advise(advice, start, length))
    }

    /// Starts reading the tensor into memory, and does not wait for it.
    ///
    /// # Errors
    /// As [`Self::advise`].
    pub fn prefetch(&self) -> Result<()> {
        let (start, length) = self.range()?;
        self.advised(self.file.prefetch(start, length))
    }

    /// Reads the tensor into memory and maps its pages; returns whether that was done. See [`Mapping::populate`].
    ///
    /// # Errors
    /// As [`Self::advise`]; also when the file was cut off.
    pub fn populate(&self) -> Result<bool> {
        let (start, length) = self.range()?;
        self.advised(self.file.populate(start, length))
    }

    /// Returns which pages of the tensor lie in memory now; `None` where the platform does not tell (all but Linux), where
    /// the file is not mapped, and for a tensor without bytes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// # // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// # let mapping = unsafe { pt_view::Mapping::open(&path)? };
    /// let weight = mapping.tensor("w")?;
    /// weight.as_slice::<u8>()?.first();
    /// if let Some(resident) = weight.resident() {
    ///     assert_eq!((resident.pages.len(), resident.bytes()), (1, resident.page_bytes));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resident(&self) -> Option<Residency> {
        let (start, length) = self.range().ok()?;
        self.file.resident(start, length)
    }

    /// The bytes of the file that reading the view touches: first and number.
    fn range(&self) -> Result<(u64, u64)> {
        let place = self.place()?;
        Ok(match place.record.is_stored() {
            true => (place.record.data_offset + place.start, place.length),
            false => (place.record.data_offset, place.record.packed_bytes),
        })
    }

    fn advised<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| self.refused(Obstacle::Advice(error.to_string())))
    }
}

impl OpenFile {
    /// Starts reading a range of the file into memory, and does not wait for it.
    ///
    /// ```
    /// # fn show(file: pt_view::OpenFile) -> std::io::Result<()> {
    /// file.prefetch(4096, 1 << 20)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the system says, also for a range outside of a map.
    pub fn prefetch(&self, start: u64, length: u64) -> io::Result<()> {
        self.parts().prefetch(start, length)
    }

    /// Returns which pages of a range lie in memory now; `None` as in [`TensorView::resident`], and for a range outside the file.
    ///
    /// ```
    /// # fn show(file: pt_view::OpenFile) {
    /// let is_in_memory = file.resident(4096, 1).is_none_or(|resident| resident.pages == [true]);
    /// # }
    /// ```
    pub fn resident(&self, start: u64, length: u64) -> Option<Residency> {
        self.parts().resident(start, length)
    }

    fn parts(&self) -> FileBytes<'_> {
        FileBytes { bytes: None, map: self.map(), source: self.source(), checked: None }
    }

    /// Takes a range of a mapped file out of this process's memory, with the pages that the system may have mapped around
    /// it. They stay in the page cache as long as the system likes, and are mapped again when they are touched. Of a file
    /// that is read, nothing is in the process, and nothing is done.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::from(Tensor::new::<u8>(&[3], &[1, 2, 3])?))?)?;
    /// # let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?.index;
    /// use pt_view::{Access, FileCache};
    /// // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// let files = unsafe { FileCache::new(folder.path(), index).with_access(Access::Map) };
    /// let file = files.file(0)?.into_open();
    /// let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    /// let before = sum(file.bytes().unwrap());
    /// file.release(0, u64::MAX)?;
    /// assert_eq!(sum(file.bytes().unwrap()), before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system says.
    pub fn release(&self, start: u64, length: u64) -> io::Result<()> {
        let Some(map) = self.map() else { return Ok(()) };
        let start = start.saturating_sub(AROUND_BYTES);
        let end = start.saturating_add(length).saturating_add(2 * AROUND_BYTES).min(map.len() as u64);
        match end.checked_sub(start) {
            None | Some(0) => Ok(()),
            Some(length) => {
                let (start, length) = in_memory(start, length)?;
                map.advise(Advice::DontNeed, start, length)
            }
        }
    }
}

impl FileBytes<'_> {
    fn advise(&self, advice: Advice, start: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if let Some(map) = self.map {
            let (start, length) = in_memory(start, length)?;
            map.advise(advice, start, length)?;
        }
        match self.source {
            // What is still mapped stays in the page cache, so the map comes first.
            Some(source) if self.map.is_none() || advice == Advice::DontNeed => {
                advise_file(source.file(), advice, start, length)
            }
            _ => Ok(()),
        }
    }

    fn prefetch(&self, start: u64, length: u64) -> io::Result<()> {
        let end = start.saturating_add(length);
        let mut at = start;
        while at < end {
            self.advise(Advice::WillNeed, at, PREFETCH_BYTES.min(end - at))?;
            at = at.saturating_add(PREFETCH_BYTES);
        }
        Ok(())
    }

    fn populate(&self, start: u64, length: u64) -> io::Result<bool> {
        let Some(map) = self.map else { return Ok(false) };
        // A map that is not read ahead would be populated page by page.
        self.prefetch(start, length)?;
        let (start, length) = in_memory(start, length)?;
        map.populate(start, length)
    }

    fn resident(&self, start: u64, length: u64) -> Option<Residency> {
        let (start, length) = in_memory(start, length).ok()?;
        self.map?.resident(start, length)
    }
}

/// A range of a file as one of its map.
fn in_memory(start: u64, length: u64) -> io::Result<(usize, usize)> {
    let range = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    range.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(target_os = "linux")]
fn advise_file(file: &std::fs::File, advice: Advice, start: u64, length: u64) -> io::Result<()> {
    let advice = match advice {
        Advice::Random => rustix::fs::Advice::Random,
        Advice::Sequential => rustix::fs::Advice::Sequential,
        Advice::WillNeed => rustix::fs::Advice::WillNeed,
        Advice::DontNeed => rustix::fs::Advice::DontNeed,
        Advice::HugePages => return Ok(()),
    };
    Ok(rustix::fs::fadvise(file, start, std::num::NonZeroU64::new(length), advice)?)
}

#[cfg(not(target_os = "linux"))]
fn advise_file(_: &std::fs::File, _: Advice, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}
