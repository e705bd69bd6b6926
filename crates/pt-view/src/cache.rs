//! The files of a folder, of which so many are open at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;
use pt_index::{Chunks, FileEntry, FileSource, Index, Policy};

use crate::access::{Access, Handle, MAP_BYTES_MIN};
use crate::bytes::{CheckedRecords, FileBytes};
use crate::error::{Error, Result};
use crate::map::Map;
use crate::mapping::no_such_tensor;
use crate::share::Share;
use crate::view::TensorView;

/// The data files of an index, opened when they are asked for; the ones used last stay open.
///
/// However many files there are, at most [`Self::capacity`] of them are open, besides those that are being opened and those
/// of which somebody still holds a [`CachedFile`]. Should the process run out of file descriptors (or maps) nevertheless, because others take them,
/// the cache closes files until the one asked for can be opened. Threads share it.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for (name, value) in [("a.pt", [1, 2]), ("b.pt", [3, 4])] {
/// #     let object = Object::dict([("x", Tensor::new::<u8>(&[2], &value)?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// use pt_view::FileCache;
/// let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?.index;
/// let files = FileCache::new(folder.path(), index).with_capacity(1);
/// for (number, expected) in [(1, [3, 4]), (0, [1, 2])] {
///     assert_eq!(files.file(number)?.tensor("x")?.to_vec::<u8>()?, expected);
/// }
/// assert_eq!(files.open_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileCache {
    folder: PathBuf,
    index: Index,
    checked: CheckedRecords,
    pub(crate) access: Access,
    policy: Policy,
    capacity: Capacity,
    open: Mutex<LruCache<usize, Arc<Handle>>>,
    making_room: Mutex<()>,
    /// Found when the first tensor in chunks is read.
    chunks: OnceLock<Chunks>,
}

/// How many files may stay open.
#[derive(Clone, Debug)]
enum Capacity {
    /// As many as the caller says.
    Own(usize),
    /// What this cache has of what all may have together.
    Share(Arc<Share>),
}

impl FileCache {
    /// Makes a cache for an index over a folder (or over the one file at this path). Files are read by position;
    /// [`Self::with_access`] maps them. No file is opened yet.
    pub fn new(folder: impl Into<PathBuf>, index: Index) -> Self {
        Self::of(folder.into(), index, Capacity::Share(Arc::default()))
    }

    fn of(folder: PathBuf, index: Index, capacity: Capacity) -> Self {
        let checked = CheckedRecords::new(index.storage_count());
        Self {
            folder,
            index,
            checked,
            access: Access::Read,
            policy: Policy::default(),
            capacity,
            open: Mutex::new(LruCache::unbounded()),
            making_room: Mutex::default(),
            chunks: OnceLock::new(),
        }
    }

    /// Makes a cache of one file that is open already.
    pub(crate) fn of_open(path: PathBuf, index: Index, handle: Handle) -> Self {
        let files = Self::of(path, index, Capacity::Own(1));
        files.keep(0, Arc::new(handle));
        files
    }

    /// Returns a cache of the same files, of which none is open, with the same capacity: for a process that was forked, in which a
    /// lock may be held by a thread that is not there. They are come by as here: what was promised when
    /// [`Self::with_access`] was called is promised for the same files.
    ///
    /// ```
    /// # fn show(files: pt_view::FileCache) {
    /// let files = files.reopened();
    /// assert_eq!(files.open_count(), 0);
    /// # }
    /// ```
    #[must_use]
    pub fn reopened(&self) -> Self {
        let capacity = self.capacity.clone();
        let (access, policy) = (self.access, self.policy);
        Self { access, policy, ..Self::of(self.folder.clone(), self.index.clone(), capacity) }
    }

    /// Says how many files may stay open; at least one. By default all caches of the process together keep no more than a
    /// quarter of the file descriptors that it may have, an eighth of its maps, and 1,024: who opens files first has room
    /// for all of them, and each has room for four.
    #[must_use]
    pub fn with_capacity(self, files: usize) -> Self {
        Self { capacity: Capacity::Own(files.max(1)), ..self }
    }

    /// Returns whether all files may stay open; if so, that room is this cache's as long as it lives.
    ///
    /// ```
    /// # fn show(files: pt_view::FileCache) {
    /// let files = files.with_capacity(1);
    /// assert_eq!(files.holds_all(), files.index().file_count() <= 1);
    /// # }
    /// ```
    pub fn holds_all(&self) -> bool {
        let files = self.index.file_count();
        match &self.capacity {
            Capacity::Own(capacity) => files <= *capacity,
            Capacity::Share(share) => share.claim_all(files),
        }
    }

    /// Returns whether all files may stay mapped without staying open, if that is how they are come by: the room is this
    /// cache's as long as it lives. All caches of a process together map no more than half as many files as it may have maps
    /// (on Linux, `vm.max_map_count`: 65,530 unless it was changed). See [`Self::open_apart`].
    ///
    /// ```
    /// # fn show(files: pt_view::FileCache) {
    /// assert!(files.access() != pt_view::Access::Read || !files.holds_all_mapped());
    /// # }
    /// ```
    pub fn holds_all_mapped(&self) -> bool {
        let files = self.index.file_count();
        // Where the first of them lies, there lie the others.
        let first = || FileSource::open(&self.path_of(self.index.file(0)?)).ok();
        let maps = match self.access {
            Access::Read => false,
            Access::Map => true,
            Access::Auto => first().is_none_or(|source| self.access.maps(&source, 0)),
        };
        maps && match &self.capacity {
            Capacity::Own(capacity) => files <= *capacity,
            Capacity::Share(share) => share.claim_all_mapped(files),
        }
    }

    /// Opens a file apart from those that this cache keeps, and maps it whatever its size, unless the access says that it is to be
    /// read: a file that is come back to pays for its map once. One that is mapped needs no descriptor any more.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::from(Tensor::new::<u8>(&[3], &[1, 2, 3])?))?)?;
    /// # let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?.index;
    /// use pt_view::{Access, FileCache};
    /// // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// let files = unsafe { FileCache::new(folder.path(), index).with_access(Access::Map) };
    /// let file = files.open_apart(0)?;
    /// assert_eq!(files.open_count(), 0);
    /// assert!(file.bytes().is_some() && file.source().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn open_apart(&self, number: usize) -> Result<OpenFile> {
        let entry = self.entry(number)?;
        let Handle { source, map } = self.open_file_of(entry, 0)?;
        Ok(match map {
            Some(map) => OpenFile(Kept::Mapped(Arc::new(map))),
            None => OpenFile(Kept::Open(Arc::new(Handle { source, map }))),
        })
    }

    /// Says how sure to be that files are those that were indexed; asked whenever a file is opened.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn chunks(&self) -> &Chunks {
        self.chunks.get_or_init(|| Chunks::new(&self.index))
    }

    /// Returns the folder that the paths of the index are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns how the bytes of files are come by.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns whether any file is mapped when it is opened, as far as its size decides.
    ///
    /// ```
    /// # fn show(files: pt_view::FileCache) {
    /// assert!(!files.reopened().maps_any() || files.access() != pt_view::Access::Read);
    /// # }
    /// ```
    pub fn maps_any(&self) -> bool {
        self.index.files().any(|file| self.access.maps_size(file.stamp().size, MAP_BYTES_MIN))
    }

    /// Returns how many files may stay open.
    pub fn capacity(&self) -> usize {
        match &self.capacity {
            Capacity::Own(files) => *files,
            Capacity::Share(share) => share.claim_some(self.index.file_count()),
        }
    }

    /// Returns how many files are open now.
    pub fn open_count(&self) -> usize {
        self.lock().len()
    }

    /// Returns the file with this number, opened if it is not open.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`]; [`Error::Index`] when the file cannot be opened or is not the one that was indexed;
    /// [`Error::Map`].
    pub fn file(&self, number: usize) -> Result<CachedFile<'_>> {
        let entry = self.entry(number)?;
        let open = self.lock().get(&number).cloned();
        let handle = match open {
            Some(handle) => handle,
            None => self.open(number, entry)?,
        };
        Ok(CachedFile { handle, entry, checked: &self.checked })
    }

    fn entry(&self, number: usize) -> Result<FileEntry<'_>> {
        let no_such_file = || Error::NoSuchFile { number, count: self.index.file_count() };
        self.index.file(number).ok_or_else(no_such_file)
    }

    fn open(&self, number: usize, entry: FileEntry<'_>) -> Result<Arc<Handle>> {
        let handle = self.open_file_of(entry, MAP_BYTES_MIN)?;
        let handle = self.keep(number, Arc::new(handle));
        self.shrink(self.capacity());
        Ok(handle)
    }

    /// Opens a file, and makes sure that it is the one that was indexed.
    fn open_file_of(&self, entry: FileEntry<'_>, map_bytes_min: u64) -> Result<Handle> {
        let path = self.path_of(entry);
        let handle = match self.open_file(&path, map_bytes_min) {
            Err(error) if is_exhausted(&error) => self.open_with_room(&path, map_bytes_min)?,
            result => result?,
        };
        entry.check(&path, &handle.source, self.policy)?;
        Ok(handle)
    }

    /// Opens a file, closing others until there are descriptors (and maps) for it. One thread at a time: what one has taken out of
    /// the cache and not closed yet, another would take for room that is not there.
    fn open_with_room(&self, path: &Path, map_bytes_min: u64) -> Result<Handle> {
        let _turn = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.open_file(path, map_bytes_min) {
                Err(error) if is_exhausted(&error) && self.shrink(self.open_count() / 2) => {}
                result => return result,
            }
        }
    }

    fn keep(&self, number: usize, handle: Arc<Handle>) -> Arc<Handle> {
        let mut open = self.lock();
        // Another thread may have been faster.
        Arc::clone(open.get_or_insert(number, || handle))
    }

    /// Returns the path of a file.
    pub fn path_of(&self, entry: FileEntry<'_>) -> PathBuf {
        let path = entry.path();
        match path.is_empty() {
            true => self.folder.clone(),
            false => self.folder.join(path),
        }
    }

    /// Closes files until so many are open; returns whether there was one to close.
    fn shrink(&self, files: usize) -> bool {
        let mut closed = Vec::new();
        let mut open = self.lock();
        while open.len() > files {
            closed.extend(open.pop_lru().map(|(_, handle)| handle));
        }
        // Closing takes time in which others can look for their files.
        drop(open);
        !closed.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<usize, Arc<Handle>>> {
        // No step under the lock can panic half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file of a [`FileCache`]; it stays open as long as this lives.
#[derive(Clone, Debug)]
pub struct CachedFile<'c> {
    handle: Arc<Handle>,
    entry: FileEntry<'c>,
    checked: &'c CheckedRecords,
}

impl<'c> CachedFile<'c> {
    /// Returns the row of the index.
    pub fn entry(&self) -> FileEntry<'c> {
        self.entry
    }

    /// Returns the open file, for those who do their own input.
    pub fn source(&self) -> &FileSource {
        &self.handle.source
    }

    /// Returns the file itself, to be kept open longer than the cache would.
    pub fn into_open(self) -> OpenFile {
        OpenFile(Kept::Open(self.handle))
    }

    /// Returns the views of all tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> + Clone {
        self.entry.tensors().map(|entry| TensorView::new(entry, self.handle.file_bytes(self.checked)))
    }

    /// Finds a tensor by its dotted name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let entry = self.entry.tensor(name).ok_or_else(|| no_such_tensor(Some(self.entry), name))?;
        Ok(TensorView::new(entry, self.handle.file_bytes(self.checked)))
    }

    /// Returns the view of the tensor with this number among the file's.
    #[inline]
    pub fn tensor_at(&self, number: usize) -> Option<TensorView<'_>> {
        let entry = self.entry.tensor_at(number)?;
        Some(TensorView::new(entry, self.handle.file_bytes(self.checked)))
    }
}

/// A file that is open or mapped, or both, as long as one of its clones lives.
#[derive(Clone, Debug)]
pub struct OpenFile(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Open(Arc<Handle>),
    Mapped(Arc<Map>),
}

impl OpenFile {
    /// Returns the file to be read by position, unless nothing is kept of it but its map.
    pub fn source(&self) -> Option<&FileSource> {
        match &self.0 {
            Kept::Open(handle) => Some(&handle.source),
            Kept::Mapped(_) => None,
        }
    }

    /// Returns the whole file, if it is mapped.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.map().map(|map| &**map)
    }

    pub(crate) fn map(&self) -> Option<&Map> {
        match &self.0 {
            Kept::Open(handle) => handle.map.as_ref(),
            Kept::Mapped(map) => Some(map),
        }
    }

    /// Returns its bytes for views; the notes are those of the index.
    pub fn file_bytes<'a>(&'a self, checked: &'a CheckedRecords) -> FileBytes<'a> {
        let (bytes, map) = (self.bytes(), self.map());
        FileBytes { bytes, map, source: self.source(), checked: Some(checked) }
    }
}

/// Returns whether the process has no more descriptors or maps.
fn is_exhausted(error: &Error) -> bool {
    let source: &io::Error = match error {
        Error::Index(pt_index::Error::Io { source, .. }) | Error::Map { source, .. } => source,
        _ => return false,
    };
    #[cfg(unix)]
    return matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    #[cfg(not(unix))]
    {
        let _ = source;
        false
    }
}
