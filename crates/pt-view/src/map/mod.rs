//! The one unsafe module: files as memory.
//!
//! Two things cannot be proved by the compiler. A mapping is a promise about the outside world, so [`Map::new`],
//! [`PrivateMap::new`] and the constructors of [`Mapping`] and [`FileCache`] that map hand that promise to their caller. And
//! `mincore` writes to memory it is given, and `MADV_DONTNEED` takes pages away, which is done here with the reasons beside
//! it.

mod private;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use bytes::Bytes;
use pt_index::{FileSource, Index};

pub use self::private::PrivateMap;
use crate::access::{Access, Handle, MAP_BYTES_MIN, OpenOptions};
use crate::cache::FileCache;
use crate::error::Result;
use crate::mapping::{Mapping, map_error};
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
        check_range(self.len(), offset, length)?;
        #[cfg(unix)]
        match checked_advice(advice) {
            Some(advice) => taken(advice, self.map.advise_range(advice, offset, length)),
            None if advice == Advice::DontNeed => {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: the map is shared, of a file, and never written to: what is dropped is read from the file
                // again, and whoever made the map promised that the file does not change. The range is inside.
                unsafe { self.map.unchecked_advise_range(advice, offset, length) }
            }
            None => Ok(()),
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
        check_range(self.len(), offset, length)?;
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
        // SAFETY: the map lives as long as `self`.
        unsafe { resident(self.map.as_ptr(), self.map.len(), offset, length) }
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

fn check_range(bytes: usize, offset: usize, length: usize) -> io::Result<()> {
    match offset.checked_add(length).is_some_and(|end| end <= bytes) {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The advice that is nothing but a hint, as the system calls it; `None` where it has no word for it.
#[cfg(unix)]
fn checked_advice(advice: Advice) -> Option<memmap2::Advice> {
    match advice {
        Advice::Random => Some(memmap2::Advice::Random),
        Advice::Sequential => Some(memmap2::Advice::Sequential),
        Advice::WillNeed => Some(memmap2::Advice::WillNeed),
        #[cfg(target_os = "linux")]
        Advice::HugePages => Some(memmap2::Advice::HugePage),
        #[cfg(not(target_os = "linux"))]
        Advice::HugePages => None,
        Advice::DontNeed => None,
    }
}

/// Kernels without huge pages do not know the word; that is no error.
#[cfg(unix)]
fn taken(advice: memmap2::Advice, result: io::Result<()>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if matches!(advice, memmap2::Advice::HugePage) {
        return result.or_else(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Ok(()),
            _ => Err(error),
        });
    }
    let _ = advice;
    result
}

/// Returns which pages of a range of a map lie in memory.
///
/// # Safety
/// A map of `mapped` bytes starts at `address` and lives.
unsafe fn resident(address: *const u8, mapped: usize, offset: usize, length: usize) -> Option<Residency> {
    if offset.checked_add(length).is_none_or(|end| end > mapped) {
        return None;
    }
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
            let start = address.add(first).cast_mut();
            libc::mincore(start.cast(), bytes, pages.as_mut_ptr())
        };
        let pages = pages.into_iter().map(|page| page & 1 != 0).collect();
        (status == 0).then_some(Residency { page_bytes, pages })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        None
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
    /// Opens and maps a file, with [`Auto`](crate::IndexPolicy::Auto) and default limits.
    ///
    /// # Errors
    /// When the file is not there, is no PyTorch file, or cannot be mapped.
    ///
    /// # Safety
    /// As [`Map::new`]: nobody writes to the file (or its sidecar) or truncates it while it is mapped.
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the contract is our caller's.
        unsafe { Self::open_with(path, &OpenOptions::default()) }
    }

    /// Opens a file. [`Self::open_read`] opens one to be read, without a promise.
    ///
    /// # Errors
    /// As [`Self::open`]; with [`Sidecar`](crate::IndexPolicy::Sidecar) also when the sidecar is missing or stale.
    ///
    /// # Safety
    /// As [`Self::open`]; with [`Access::Read`] the sidecar alone is mapped.
    pub unsafe fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        // SAFETY: the contract is our caller's.
        let handle = unsafe { Handle::open(path, options.access, MAP_BYTES_MIN)? };
        // SAFETY: the contract is our caller's.
        Self::of(path, handle, options, |sidecar| unsafe { open_index(sidecar) })
    }
}

impl Handle {
    /// Opens a file, and maps it if that is how it is to be accessed.
    ///
    /// # Safety
    /// As [`Map::new`], unless the access is [`Access::Read`].
    unsafe fn open(path: &Path, access: Access, bytes_min: u64) -> Result<Self> {
        let mut handle = Self::open_read(path)?;
        if access.maps(&handle.source, bytes_min) {
            // SAFETY: the contract is our caller's.
            handle.map = Some(unsafe { Map::new(handle.source.file()) }.map_err(map_error(path))?);
        }
        Ok(handle)
    }
}

impl FileCache {
    /// Says how the bytes of files are come by, from the next file on that is opened, by this cache and by those that are
    /// [`reopened`](Self::reopened) from it.
    ///
    /// # Safety
    /// As [`Map::new`] for every file of the index: nobody writes to or truncates one that the cache, or one reopened from it,
    /// may have mapped.
    #[must_use]
    pub unsafe fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(crate) fn open_file(&self, path: &Path, map_bytes_min: u64) -> Result<Handle> {
        match self.access {
            Access::Read => Handle::open_read(path),
            // SAFETY: the contract is that of whoever called `with_access`; a cache begins with `Access::Read`,
            // and `reopened` passes on what holds for the same files.
            access => unsafe { Handle::open(path, access, map_bytes_min) },
        }
    }
}
