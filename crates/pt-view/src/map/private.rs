//! Files as memory that may be written to: what is written stays in this process, the file never changes.

use std::fs::File;
use std::io;
use std::ptr;

use super::check_range;
use crate::cache::CachedFile;
use crate::error::{Obstacle, Result};
use crate::mapping::{Mapping, map_error};
use crate::residency::{Advice, Residency};
use crate::view::TensorView;

/// A file mapped copy-on-write: a page that is written to becomes this process's own, and the file stays as it is.
///
/// For owners outside Rust, such as Python arrays, which want memory they may write to. They are lent pointers
/// ([`Self::lend`]), so that no Rust reference says that the bytes stay the same. Pages that nobody writes to are shared
/// with the page cache, and take no memory of their own.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pt");
/// # use pt_format::write::{self, Object, Tensor};
/// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
/// use pt_view::{Mapping, OpenOptions};
/// let file = Mapping::open_read(&path, &OpenOptions::default())?;
/// // SAFETY: nobody rewrites or truncates the file while it is mapped.
/// let map = unsafe { file.map_private()? };
/// let bytes = map.lend(&file.tensor("w")?)?;
/// // SAFETY: the map lives, and nobody else uses the bytes.
/// unsafe { (*bytes)[0] = 7 };
/// assert_eq!(unsafe { &*bytes }, [7, 2, 3]);
/// assert_eq!(file.tensor("w")?.to_vec::<u8>()?, [1, 2, 3]); // the file
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PrivateMap {
    map: memmap2::MmapRaw,
}

impl PrivateMap {
    /// Maps a whole file, without read-ahead. Nothing is read until it is touched, and no memory is set aside for pages that
    /// may never be written to.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Safety
    /// As [`Map::new`](crate::Map::new): nobody writes to the file or truncates it while the map lives. Writing to the map is no writing to
    /// the file.
    pub unsafe fn new(file: &File) -> io::Result<Self> {
        // SAFETY: what is written goes to private pages; our caller promised the rest.
        let map = unsafe { memmap2::MmapOptions::new().no_reserve_swap().map_copy(file) }?;
        let map = Self { map: map.into() };
        if !map.is_empty() {
            // Advice that the system does not take changes speed, never content.
            let _ = map.advise(Advice::Random, 0, map.len());
        }
        Ok(map)
    }

    /// Returns the bytes of the file.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first byte. It and the [`Self::len`] bytes from there may be read and written as long as the map lives, by
    /// whoever makes sure that nobody else does so at the same time.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Borrows all bytes, to read and write them.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the map is readable and writable, `len` bytes long, and lives as long as the borrow; the borrow is the only
        // one, and whoever writes through lent pointers has to know of it.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }

    /// Lends the bytes of a tensor of this file from its first element to its last, with the gaps of strides: they may be read
    /// and written as long as the map lives, by whoever makes sure that nobody else does so at the same time. Elements that
    /// share bytes are lent packed.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) where the bytes are not the values (compressed, big-endian, a lazy
    /// conjugate or negative bit), for no data, and for a tensor that ends outside the map.
    pub fn lend(&self, tensor: &TensorView<'_>) -> Result<*mut [u8]> {
        let (start, length) = tensor.lendable()?;
        let range = usize::try_from(start).ok().zip(usize::try_from(length).ok());
        let inside = range.filter(|&(start, length)| check_range(self.len(), start, length).is_ok());
        let (start, length) = inside.ok_or_else(|| {
            let end = start.saturating_add(length);
            tensor.refused(Obstacle::OutsideFile { start, end, length: self.len() as u64 })
        })?;
        Ok(ptr::slice_from_raw_parts_mut(self.as_mut_ptr().wrapping_add(start), length))
    }

    /// Returns which pages of a range lie in memory now; see [`Map::resident`](crate::Map::resident).
    pub fn resident(&self, offset: usize, length: usize) -> Option<Residency> {
        // SAFETY: the map lives as long as `self`.
        unsafe { super::resident(self.map.as_ptr(), self.map.len(), offset, length) }
    }

    /// Says how a range will be used. A hint: platforms without it do nothing, and neither does [`Advice::DontNeed`], which
    /// would take away what was written.
    ///
    /// # Errors
    /// As [`Map::advise`](crate::Map::advise).
    pub fn advise(&self, advice: Advice, offset: usize, length: usize) -> io::Result<()> {
        check_range(self.len(), offset, length)?;
        #[cfg(unix)]
        if let Some(advice) = super::checked_advice(advice) {
            return super::taken(advice, self.map.advise_range(advice, offset, length));
        }
        #[cfg(not(unix))]
        let _ = advice;
        Ok(())
    }
}

impl Mapping {
    /// Maps the file copy-on-write, however it was opened: for tensors that may be written to, without changing it.
    ///
    /// # Errors
    /// [`Error::Map`](crate::Error::Map).
    ///
    /// # Safety
    /// As [`Map::new`](crate::Map::new).
    pub unsafe fn map_private(&self) -> Result<PrivateMap> {
        // SAFETY: the contract is our caller's.
        unsafe { PrivateMap::new(self.source().file()) }.map_err(map_error(self.path()))
    }
}

impl CachedFile<'_> {
    /// Maps the file copy-on-write, however it was opened. The map stays when the cache closes the file.
    ///
    /// # Errors
    /// [`Error::Map`](crate::Error::Map).
    ///
    /// # Safety
    /// As [`Map::new`](crate::Map::new).
    pub unsafe fn map_private(&self) -> Result<PrivateMap> {
        // SAFETY: the contract is our caller's.
        unsafe { PrivateMap::new(self.source().file()) }.map_err(map_error(self.entry().path().as_ref()))
    }
}
