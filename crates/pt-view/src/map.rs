//! The one unsafe module: files as memory.
//!
//! Two things cannot be proved by the compiler. A mapping is a promise about the outside world, so [`Map::new`] and the
//! constructors of [`Mapping`] hand that promise to their caller. And `mincore` writes to memory it is given, and
//! `MADV_DONTNEED` takes pages away, which is done here with the reasons beside it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use bytes::Bytes;
use pt_format::Limits;
use pt_index::{FileSource, Freshness, Index, Policy};

use crate::bytes::CheckedRecords;
use crate::error::Result;
use crate::mapping::{IndexPolicy, Mapping, map_error};
use crate::residency::{Advice, Residency};

/// A file mapped read-only.
#[derive(Debug)]
pub struct Map {
    map: memmap2::Mmap,
}

impl Map {
    /// Maps a whole file, without read-ahead. Nothing is read until it is touched.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Safety
    /// Nobody writes to the file or truncates it while the map lives. A changed byte is undefined behaviour for whoever
    /// holds a slice of it; a truncated file kills the process with SIGBUS at the next touch. Replacing a file by
    /// renaming another over it is fine: the map keeps the old one.
    pub unsafe fn new(file: &File) -> io::Result<Self> {
        // SAFETY: opened read-only; our caller promised the file stays unchanged while the map lives.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        let map = Self { map };
        if !map.is_empty() {
            // Advice that the system does not take changes speed, never content.
            let _ = map.advise(Advice::Random, 0, map.len());
        }
        Ok(map)
    }

    /// Says how a range will be used. A hint: platforms without it do nothing.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::InvalidInput`] for a range outside the map.
    pub fn advise(&self, advice: Advice, offset: usize, length: usize) -> io::Result<()> {
        self.check_range(offset, length)?;
        #[cfg(unix)]
        {
            let advice = match advice {
                Advice::Random => memmap2::Advice::Random,
                Advice::Sequential => memmap2::Advice::Sequential,
                Advice::WillNeed => memmap2::Advice::WillNeed,
                #[cfg(target_os = "linux")]
                Advice::HugePages => {
                    // Kernels without huge pages do not know the word.
                    return match self.map.advise_range(memmap2::Advice::HugePage, offset, length) {
                        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                        result => result,
                    };
                }
                #[cfg(not(target_os = "linux"))]
                Advice::HugePages => return Ok(()),
                Advice::DontNeed => {
                    let advice = memmap2::UncheckedAdvice::DontNeed;
                    // SAFETY: the map is shared, of a file, and never written to: what is dropped is read from the file
                    // again, and whoever made the map promised that the file does not change. The range is inside.
                    return unsafe { self.map.unchecked_advise_range(advice, offset, length) };
                }
            };
            self.map.advise_range(advice, offset, length)
        }
        #[cfg(not(unix))]
        {
            let _ = advice;
            Ok(())
        }
    }

    /// Reads a range into memory and maps its pages; returns whether that was done. Linux 5.14 and newer can; elsewhere
    /// nothing is touched.
    ///
    /// # Errors
    /// What the system says, also when the file was cut off; [`io::ErrorKind::InvalidInput`] for a range outside the map.
    pub fn populate(&self, offset: usize, length: usize) -> io::Result<bool> {
        self.check_range(offset, length)?;
        #[cfg(target_os = "linux")]
        loop {
            match self.map.advise_range(memmap2::Advice::PopulateRead, offset, length) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        #[cfg(not(target_os = "linux"))]
        Ok(false)
    }

    /// Returns which pages of a range lie in memory now, whoever read them. `None` where the platform does not tell (all but
    /// Linux), and for a range outside the map.
    pub fn resident(&self, offset: usize, length: usize) -> Option<Residency> {
        self.check_range(offset, length).ok()?;
        #[cfg(target_os = "linux")]
        {
            // SAFETY: a query without arguments that live in memory.
            let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
            if length == 0 {
                return Some(Residency { page_bytes, pages: Vec::new() });
            }
            let first = offset / page_bytes * page_bytes;
            let bytes = offset + length - first;
            let mut pages = vec![0u8; bytes.div_ceil(page_bytes)];
            // SAFETY: the range was checked to lie in the live mapping, which starts at a page; so `first`, a multiple of
            // the page size, is page-aligned and inside, and `bytes` ends inside. `pages` has one byte for each page from
            // there on, as mincore(2) asks. The mapping is only read.
            let status = unsafe {
                let start = self.map.as_ptr().add(first).cast_mut();
                libc::mincore(start.cast(), bytes, pages.as_mut_ptr())
            };
            let pages = pages.into_iter().map(|page| page & 1 != 0).collect();
            (status == 0).then_some(Residency { page_bytes, pages })
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    fn check_range(&self, offset: usize, length: usize) -> io::Result<()> {
        match offset.checked_add(length).is_some_and(|end| end <= self.map.len()) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// Opens an index that is kept in a file, by mapping it: in the same time whatever its size, and only what is looked at is read.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object};
/// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::from(7))?)?;
/// # let built = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?;
/// # pt_index::save(&built.index, &pt_index::sidecar_path(folder.path()))?;
/// // SAFETY: `pt_index::save` renames indexes into place; nobody writes into one that is there.
/// let index = unsafe { pt_view::open_index(&pt_index::sidecar_path(folder.path()))? };
/// assert_eq!(index.file_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the file is not there, cannot be mapped, or is no index.
///
/// # Safety
/// As [`Map::new`].
pub unsafe fn open_index(path: &Path) -> Result<Index> {
    let file = FileSource::open(path)?;
    // SAFETY: the contract is our caller's.
    let map = unsafe { Map::new(file.file()) }.map_err(map_error(path))?;
    Ok(Index::from_bytes(Bytes::from_owner(map))?)
}

impl Mapping {
    /// Opens a file with [`IndexPolicy::Auto`] and default limits.
    ///
    /// # Errors
    /// When the file is not there, is no PyTorch file, or cannot be mapped.
    ///
    /// # Safety
    /// As [`Map::new`]: nobody writes to the file (or its sidecar) or truncates it while it is mapped.
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the contract is our caller's.
        unsafe { Self::open_with(path.as_ref(), IndexPolicy::Auto, &Limits::default()) }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Self::open`]; with [`IndexPolicy::Sidecar`] also when the sidecar is missing or stale.
    ///
    /// # Safety
    /// As [`Self::open`].
    pub unsafe fn open_with(path: &Path, policy: IndexPolicy, limits: &Limits) -> Result<Self> {
        let source = FileSource::open(path)?;
        // SAFETY: the contract is our caller's.
        let sidecar = unsafe { Self::sidecar(path, &source, policy)? };
        let index = match sidecar {
            Some(index) => index,
            None => pt_index::build_source(path, &source, limits)?,
        };
        // SAFETY: the contract is our caller's.
        let map = unsafe { Map::new(source.file()) }.map_err(map_error(path))?;
        let checked = CheckedRecords::new(index.storage_count());
        Ok(Self { path: path.to_owned(), source, map, index, checked })
    }

    unsafe fn sidecar(path: &Path, source: &FileSource, policy: IndexPolicy) -> Result<Option<Index>> {
        if policy == IndexPolicy::Parse {
            return Ok(None);
        }
        let sidecar = pt_index::sidecar_path(path);
        // SAFETY: the contract is our caller's.
        let index = match unsafe { open_index(&sidecar) } {
            Ok(index) => index,
            Err(error) if policy == IndexPolicy::Sidecar => return Err(error),
            // Missing, damaged or of another version: the file itself is the truth.
            Err(_) => return Ok(None),
        };
        let freshness =
            index.file(0).map_or(Freshness::Stale, |file| file.freshness_of(source, Policy::Stat));
        match freshness {
            Freshness::Fresh | Freshness::Touched => Ok(Some(index)),
            freshness if policy == IndexPolicy::Sidecar => {
                Err(pt_index::Error::Stale { path: path.to_owned(), freshness }.into())
            }
            _ => Ok(None),
        }
    }
}
