//! A file with its index. The constructors that map are `unsafe` and so stand in the module `map`.

use std::path::{Path, PathBuf};

use pt_index::{FileEntry, FileSource, Freshness, Index, Policy};

use crate::access::{Handle, OpenOptions};
use crate::bytes::{CheckedRecords, FileBytes};
use crate::cache::FileCache;
use crate::error::{Error, Result};
use crate::view::TensorView;

/// Where the index of a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IndexPolicy {
    /// From the sidecar if there is a fresh one, else from the file itself.
    #[default]
    Auto,
    /// From the sidecar; an error when it is missing or stale.
    Sidecar,
    /// From the file itself.
    Parse,
}

/// A PyTorch file with the index of its tensors; mapped, unless it is opened to be read.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pt");
/// # use pt_format::write::{self, Object, Tensor};
/// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
/// use pt_view::Mapping;
/// // SAFETY: nobody rewrites or truncates the file while it is mapped.
/// let mapping = unsafe { Mapping::open(&path)? };
/// for tensor in mapping.tensors() {
///     println!("{} {:?} {:?}", tensor.name(), tensor.dtype(), tensor.shape());
/// }
/// assert_eq!(mapping.tensor("w")?.as_slice::<u8>()?, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    path: PathBuf,
    handle: Handle,
    index: Index,
    checked: CheckedRecords,
}

impl Mapping {
    /// Opens a file to be read by position, whatever [`OpenOptions::access`] says. No promise is needed: a file that shrinks
    /// is an error. Nothing can be borrowed.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// use pt_view::{Mapping, OpenOptions};
    /// let file = Mapping::open_read(&path, &OpenOptions::default())?;
    /// assert_eq!(file.tensor("w")?.to_vec::<u8>()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open_read(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        Self::open_read_with(path, options, |sidecar| Ok(pt_index::read(sidecar)?))
    }

    /// Opens a file as [`Self::open_read`] does, its sidecar by `open_index`: for callers who keep indexes open. Whatever that returns
    /// is compared with the file; an error of it means that there is no sidecar.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// use pt_view::{Mapping, OpenOptions};
    /// let kept = pt_index::build_file(&path, &Default::default())?;
    /// let file = Mapping::open_read_with(&path, &OpenOptions::default(), |_| Ok(kept.clone()))?;
    /// assert_eq!(file.tensor("w")?.to_vec::<u8>()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open_read_with(
        path: impl AsRef<Path>,
        options: &OpenOptions,
        open_index: impl FnOnce(&Path) -> Result<Index>,
    ) -> Result<Self> {
        let path = path.as_ref();
        Self::of(path, Handle::open_read(path)?, options, open_index)
    }

    /// Finds the index of an open file.
    pub(crate) fn of(
        path: &Path,
        handle: Handle,
        options: &OpenOptions,
        open_index: impl FnOnce(&Path) -> Result<Index>,
    ) -> Result<Self> {
        let source = &handle.source;
        let kept = match options.index {
            IndexPolicy::Parse => None,
            IndexPolicy::Sidecar | IndexPolicy::Auto => sidecar(path, source, options.index, open_index)?,
        };
        let index = match kept {
            Some(index) => index,
            None => pt_index::build_source(path, source, &options.limits)?,
        };
        let checked = CheckedRecords::new(index.storage_count());
        Ok(Self { path: path.to_owned(), handle, index, checked })
    }

    /// Returns a cache of this one file, which is open already. Opened again, should the cache ever close it, it is read by position.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[1], &[7])?.into())]))?)?;
    /// use pt_view::{Mapping, OpenOptions};
    /// let files = Mapping::open_read(&path, &OpenOptions::default())?.into_cache();
    /// assert_eq!(files.open_count(), 1);
    /// assert_eq!(files.file(0)?.tensor("w")?.to_vec::<u8>()?, [7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_cache(self) -> FileCache {
        FileCache::of_open(self.path, self.index, self.handle)
    }

    /// Returns the path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the bytes of the file, if it is mapped.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.handle.map.as_deref()
    }

    /// Returns the views of all tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> + Clone {
        let entries = self.file().into_iter().flat_map(|file| file.tensors());
        entries.map(|entry| TensorView::new(entry, self.file_bytes()))
    }

    /// Finds a tensor by its dotted name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let entry = self.file().and_then(|file| file.tensor(name));
        entry
            .map(|entry| TensorView::new(entry, self.file_bytes()))
            .ok_or_else(|| no_such_tensor(self.file(), name))
    }

    /// Returns the view of the tensor with this number among the file's.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// # // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// # let mapping = unsafe { pt_view::Mapping::open(&path)? };
    /// let number = mapping.tensor("w")?.entry().number(); // once
    /// assert_eq!(mapping.tensor_at(number).unwrap().name(), "w"); // as often as need be, without a name to look up
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn tensor_at(&self, number: usize) -> Option<TensorView<'_>> {
        let entry = self.file()?.tensor_at(number)?;
        Some(TensorView::new(entry, self.file_bytes()))
    }

    /// Returns the open file, for those who do their own input.
    pub fn source(&self) -> &FileSource {
        &self.handle.source
    }

    #[inline]
    fn file(&self) -> Option<FileEntry<'_>> {
        self.index.file(0)
    }

    #[inline]
    pub(crate) fn file_bytes(&self) -> FileBytes<'_> {
        self.handle.file_bytes(&self.checked)
    }
}

/// Opens the sidecar of a file; none where the file itself is to be parsed.
fn sidecar(
    path: &Path,
    source: &FileSource,
    policy: IndexPolicy,
    open_index: impl FnOnce(&Path) -> Result<Index>,
) -> Result<Option<Index>> {
    let index = match open_index(&pt_index::file_sidecar_path(path)) {
        Ok(index) => index,
        Err(error) if policy == IndexPolicy::Sidecar => return Err(error),
        // Missing, damaged or of another version: the file itself is the truth.
        Err(_) => return Ok(None),
    };
    let freshness = index.file(0).map_or(Freshness::Stale, |file| file.freshness_of(source, Policy::Stat));
    match freshness {
        Freshness::Fresh | Freshness::Touched => Ok(Some(index)),
        freshness if policy == IndexPolicy::Sidecar => {
            Err(pt_index::Error::Stale { path: path.to_owned(), freshness }.into())
        }
        _ => Ok(None),
    }
}

#[cold]
pub(crate) fn no_such_tensor(file: Option<FileEntry<'_>>, name: &str) -> Error {
    let common =
        |other: &str| name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
    let names = || file.into_iter().flat_map(|file| file.tensors()).map(|tensor| tensor.name());
    let nearest = names().max_by_key(|other| common(other)).map(str::to_owned);
    Error::NoSuchTensor { name: name.to_owned(), count: names().count(), nearest }
}

pub(crate) fn map_error(path: &Path) -> impl Fn(std::io::Error) -> Error + use<'_> {
    move |source| Error::Map { path: path.to_owned(), source }
}
