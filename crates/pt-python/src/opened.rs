//! A checkpoint in one file or several: its index, and the memory of its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use pt_format::Limits;
use pt_index::{FileEntry, FileSource, Freshness, Index, TensorEntry};
use pt_view::{CachedFile, Chunked, FileCache, Mapping, OpenOptions, TensorView};

use crate::error::{Class, Result};
use crate::export::{Memory, Region};
use crate::kept;

/// Smaller files are read whole: that is cheaper than page faults.
const MAPPED_BYTES_MIN: u64 = 128 << 10;

/// An open checkpoint. Tensors that Python has look into its memories, and keep those alive, not this.
pub(crate) struct Opened {
    path: PathBuf,
    files: FileCache,
    memories: Mutex<HashMap<usize, Arc<Memory>>>,
}

impl Opened {
    /// Opens a file, an index of shards, the folder of a distributed checkpoint, or a folder with an index of shards.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let files = match pt_index::is_shard_index(path) {
            true => Self::of_shards(path)?,
            // That it is a folder is found when it is opened: asking before would cost each file a call.
            false => match Mapping::open_read_with(path, &OpenOptions::default(), kept::open_index) {
                Ok(file) => file.into_cache(),
                Err(_) if path.is_dir() => Self::of_folder(path)?,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Self { path: path.to_owned(), files, memories: Mutex::default() })
    }

    fn of_folder(path: &Path) -> Result<FileCache> {
        if !pt_index::is_distributed(path) {
            return Self::of_shards(&find_shard_index(path)?);
        }
        let kept = kept_index(&pt_index::sidecar_path(path), path);
        let index = kept.map_or_else(|| pt_index::build_distributed(path, &Limits::default()), Ok)?;
        Ok(FileCache::new(path, index))
    }

    fn of_shards(path: &Path) -> Result<FileCache> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let kept = kept_index(&pt_index::sidecar_path(path), &folder);
        let index = kept.map_or_else(|| pt_index::build_shards(path, &Limits::default()), Ok)?;
        Ok(FileCache::new(folder, index))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index(&self) -> &Index {
        self.files.index()
    }

    /// Returns the data files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.index().files().map(|file| self.files.path_of(file)).collect()
    }

    /// Returns the path of a data file.
    pub(crate) fn path_of(&self, number: usize) -> PathBuf {
        self.index().file(number).map_or_else(|| self.path.clone(), |file| self.files.path_of(file))
    }

    /// Returns all tensors: file by file.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorEntry<'_>> {
        self.index().files().flat_map(|file| file.tensors())
    }

    /// Finds a tensor: file and number in it.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, usize)> {
        let single = || self.index().file(0).filter(|_| self.index().file_count() == 1);
        let found = match single() {
            Some(file) => file.tensor(name),
            None => self.index().files().find_map(|file| file.tensor(name)),
        };
        found.map(|tensor| (tensor.file().row(), tensor.number()))
    }

    /// Opens a data file, if it is not open.
    pub(crate) fn file(&self, number: usize) -> Result<CachedFile<'_>> {
        Ok(self.files.file(number)?)
    }

    /// Returns the memory of a file.
    pub(crate) fn memory(&self, file: &CachedFile<'_>) -> Result<Arc<Memory>> {
        let number = file.entry().row();
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = memories.get(&number) {
            return Ok(memory.clone());
        }
        let memory = Arc::new(memory_of(file.source())?);
        memories.insert(number, memory.clone());
        Ok(memory)
    }

    /// Lends the bytes of a view, from its first element to its last.
    pub(crate) fn lend(&self, file: &CachedFile<'_>, view: &TensorView<'_>) -> Result<Lent> {
        if view.caps().zero_copy {
            let location = view.locate_checked()?;
            let region = Region::new(self.memory(file)?, location.offset, location.length);
            let region = region.ok_or_else(|| {
                Class::Tensor.error(format!("{}: the file was cut off", self.path.display()))
            })?;
            return Ok(Lent { region, in_place: true });
        }
        Self::copy(view)
    }

    /// Looks at a tensor that lies in chunks.
    pub(crate) fn chunked<'o>(&'o self, entry: TensorEntry<'o>) -> Result<Chunked<'o>> {
        Ok(self.files.chunked_at(entry)?)
    }

    /// Puts the chunks of a tensor together.
    pub(crate) fn assemble(chunked: &Chunked<'_>) -> Result<Lent> {
        let filled = Memory::owned(chunked.buffer_bytes()?, |out| chunked.read_into(out))?;
        Ok(Lent { region: Region::whole(filled), in_place: false })
    }

    /// Copies the elements of a view: contiguous, little-endian, as they are meant.
    pub(crate) fn copy(view: &TensorView<'_>) -> Result<Lent> {
        let filled = Memory::owned(view.buffer_bytes()?, |out| view.read_into(out))?;
        Ok(Lent { region: Region::whole(filled), in_place: false })
    }
}

/// The bytes of a tensor, in memory.
pub(crate) struct Lent {
    pub(crate) region: Region,
    /// They lie in the file's memory, as the file has them: strides, conjugate and negative bits included. Else they are
    /// contiguous values.
    pub(crate) in_place: bool,
}

/// Maps a file copy-on-write, or reads it if it is small.
pub(crate) fn memory_of(source: &FileSource) -> Result<Memory> {
    let length = source.metadata().len();
    if length >= MAPPED_BYTES_MIN {
        return Ok(Memory::map(source)?);
    }
    Memory::owned(length as usize, |out| source.read_exact_at(out, 0))
}

/// The index kept in a folder of several files, if it is there and of the files that are there.
fn kept_index(sidecar: &Path, folder: &Path) -> Option<Index> {
    let index = kept::open_index(sidecar).ok()?;
    let is_fresh = |file: FileEntry<'_>| {
        matches!(file.freshness(&folder.join(file.path())), Ok(Freshness::Fresh | Freshness::Touched))
    };
    (index.file_count() > 0 && index.files().all(is_fresh)).then_some(index)
}

/// Finds the one index of shards in a folder.
fn find_shard_index(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| pt_index::is_shard_index(path)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (None, _) => Err(Class::Format.error(format!(
            "{}: no checkpoint: neither the folder of a distributed one nor one with an index of shards (`….index.json`); \
             a folder of samples is a `ptview.Dataset`",
            folder.display()
        ))),
        (Some(_), false) => {
            let message = format!("{}: has several indexes of shards; open one of them", folder.display());
            Err(Class::Format.error(message))
        }
    }
}
