//! The files of a data set: kept where batches come back to them, open or mapped, else opened and closed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pt_index::{FileEntry, FileSource, Folder, Freshness, Policy, TensorEntry};
use pt_view::{CachedFile, CheckedRecords, FileBytes, FileCache, OpenFile, TensorView};

use crate::error::{Error, Result};

/// Nothing begins there: every file begins with something of its format.
const UNKNOWN: u64 = 0;

#[derive(Debug)]
pub(crate) struct Files {
    cache: FileCache,
    policy: Policy,
    checked: CheckedRecords,
    comes_back: bool,
    /// Found when the first file is opened: a data set that nobody reads keeps nobody else from keeping files open.
    kind: OnceLock<Kind>,
    /// Whether files are mapped, and whether all are and stay so.
    maps: OnceLock<bool>,
    keeps_maps: OnceLock<bool>,
}

#[derive(Debug)]
enum Kind {
    /// All fit: each is opened once, or mapped and closed.
    All(Box<[OnceLock<Kept>]>),
    /// Those used last stay open.
    Some,
    /// None stays open.
    None(Option<Folder>),
}

/// A file that stays open or mapped.
#[derive(Debug)]
pub(crate) struct Kept {
    file: OpenFile,
    /// Where tensors begin in it that lie there as they are, by their number in the schema's plan.
    starts: Box<[AtomicU64]>,
}

/// How the bytes of a file are come by.
#[derive(Clone, Copy)]
pub(crate) enum Content<'f> {
    Mapped(&'f [u8]),
    Read(&'f FileSource),
}

/// An open file.
pub(crate) enum Opened<'f> {
    Kept(&'f Kept, &'f CheckedRecords),
    Cached(OpenFile, &'f CheckedRecords),
    Once(FileSource, &'f CheckedRecords),
}

impl Files {
    /// `comes_back` says whether samples that are apart in the order of an epoch may lie in one file.
    pub(crate) fn new(cache: FileCache, policy: Policy, comes_back: bool) -> Self {
        let checked = CheckedRecords::new(cache.index().storage_count());
        let cache = cache.with_policy(policy);
        let (kind, maps, keeps_maps) = Default::default();
        Self { cache, policy, checked, comes_back, kind, maps, keeps_maps }
    }

    #[inline]
    fn kind(&self) -> &Kind {
        self.kind.get_or_init(|| {
            if self.keeps_maps() || self.cache.holds_all() {
                let files = self.cache.index().file_count();
                Kind::All((0..files).map(|_| OnceLock::new()).collect())
            } else if self.comes_back || self.maps() {
                Kind::Some
            } else {
                // Of many files that are read once an epoch, those kept are not those that come next.
                Kind::None(Folder::open(self.cache.folder()).ok())
            }
        })
    }

    /// The same files, of which none is open; `change` says how they are opened.
    pub(crate) fn reopened_as(&self, change: impl FnOnce(FileCache) -> FileCache) -> Self {
        Self::new(change(self.cache.reopened()), self.policy, self.comes_back)
    }

    /// The same files, of which none is open. Those that are mapped stay so: a map needs nothing of the process that made it.
    pub(crate) fn reopened(&self) -> Self {
        let files = self.reopened_as(|cache| cache);
        // What a thread was about to find when the process was forked is never found here: only what is known is asked for.
        if self.keeps_maps.get() == Some(&true)
            && let Some(Kind::All(mine)) = self.kind.get()
            && let Kind::All(other) = files.kind()
        {
            for (mine, other) in mine.iter().zip(other) {
                let kept = mine.get().filter(|kept| kept.file.source().is_none());
                // Where tensors begin is found again: that costs no read.
                let _ = kept.map(|kept| other.set(Kept::new(kept.file.clone(), kept.starts.len())));
            }
        }
        files
    }

    pub(crate) fn cache(&self) -> &FileCache {
        &self.cache
    }

    /// Returns whether there are files that are mapped.
    pub(crate) fn maps(&self) -> bool {
        *self.maps.get_or_init(|| self.keeps_maps() || self.cache.maps_any())
    }

    /// Returns whether all files are mapped, and stay so without being open.
    fn keeps_maps(&self) -> bool {
        *self.keeps_maps.get_or_init(|| self.cache.holds_all_mapped())
    }

    /// Returns whether files stay open.
    pub(crate) fn keeps(&self) -> bool {
        !matches!(self.kind(), Kind::None(_))
    }

    /// Returns a file that is open and stays so.
    #[inline]
    pub(crate) fn kept(&self, file: usize) -> Option<&Kept> {
        match self.kind() {
            Kind::All(files) => files.get(file)?.get(),
            _ => None,
        }
    }

    /// Opens a file, unless it is open, and makes sure that it is the one that was indexed. `tensors` of it are in samples.
    pub(crate) fn open(
        &self,
        entry: FileEntry<'_>,
        tensors: usize,
        path: &mut PathSpace,
    ) -> Result<Opened<'_>> {
        match self.kind() {
            Kind::All(files) => {
                let Some(slot) = files.get(entry.row()) else { return self.cached(entry) };
                if let Some(kept) = slot.get() {
                    return Ok(Opened::Kept(kept, &self.checked));
                }
                let file = match self.keeps_maps() {
                    true => self.opened(entry, self.cache.open_apart(entry.row()))?,
                    false => self.open_cached(entry)?,
                };
                Ok(Opened::Kept(slot.get_or_init(|| Kept::new(file, tensors)), &self.checked))
            }
            Kind::Some => self.cached(entry),
            Kind::None(folder) => {
                let relative = path.relative(entry);
                let source = match folder {
                    Some(folder) => folder.source(relative)?,
                    None => FileSource::open(path.join(self.cache.folder()))?,
                };
                match entry.freshness_of(&source, self.policy) {
                    Freshness::Fresh | Freshness::Touched => {}
                    _ => entry.check(path.join(self.cache.folder()), &source, self.policy)?,
                }
                Ok(Opened::Once(source, &self.checked))
            }
        }
    }

    fn cached(&self, entry: FileEntry<'_>) -> Result<Opened<'_>> {
        Ok(Opened::Cached(self.open_cached(entry)?, &self.checked))
    }

    fn open_cached(&self, entry: FileEntry<'_>) -> Result<OpenFile> {
        self.opened(entry, self.cache.file(entry.row()).map(CachedFile::into_open))
    }

    fn opened(&self, entry: FileEntry<'_>, result: pt_view::Result<OpenFile>) -> Result<OpenFile> {
        match result {
            Ok(file) => Ok(file),
            Err(pt_view::Error::Index(error)) => Err(error.into()),
            Err(source) => {
                let path = self.cache.folder().join(entry.path());
                Err(Error::Sample { path, source: Box::new(source) })
            }
        }
    }
}

impl Kept {
    fn new(file: OpenFile, tensors: usize) -> Self {
        Self { file, starts: (0..tensors).map(|_| AtomicU64::new(UNKNOWN)).collect() }
    }

    /// Returns the whole file, if it is mapped.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.file.bytes()
    }

    /// Returns whether a byte of a mapped file is not in memory, as far as the system tells.
    pub(crate) fn is_absent(&self, at: u64) -> bool {
        self.file.resident(at, 1).is_some_and(|resident| resident.bytes() == 0)
    }

    /// Returns where a tensor begins, if that is known by now.
    #[inline]
    pub(crate) fn start(&self, number: usize) -> Option<u64> {
        let start = self.starts.get(number)?.load(Ordering::Relaxed);
        (start != UNKNOWN).then_some(start)
    }

    fn note_start(&self, number: usize, start: u64) {
        if let Some(known) = self.starts.get(number) {
            known.store(start, Ordering::Relaxed);
        }
    }
}

impl Opened<'_> {
    pub(crate) fn content(&self) -> Content<'_> {
        let file = match self {
            Self::Kept(kept, _) => &kept.file,
            Self::Cached(file, _) => file,
            Self::Once(source, _) => return Content::Read(source),
        };
        match file.source() {
            Some(source) if file.bytes().is_none() => Content::Read(source),
            _ => Content::Mapped(file.bytes().unwrap_or_default()),
        }
    }

    /// Starts reading a range of the file into memory.
    pub(crate) fn prefetch(&self, start: u64, length: u64) {
        // Whether the system follows changes no content. What lies outside of the file is refused when it is copied.
        let _ = match self {
            Self::Kept(kept, _) => kept.file.prefetch(start, length),
            Self::Cached(file, _) => file.prefetch(start, length),
            Self::Once(..) => Ok(()),
        };
    }

    /// Takes a range of a mapped file out of this process's memory.
    pub(crate) fn release(&self, start: u64, length: u64) {
        // Whether the system follows changes no content.
        let _ = match self {
            Self::Kept(kept, _) => kept.file.release(start, length),
            Self::Cached(file, _) => file.release(start, length),
            Self::Once(..) => Ok(()),
        };
    }

    pub(crate) fn view<'a>(&'a self, tensor: TensorEntry<'a>) -> TensorView<'a> {
        TensorView::new(
            tensor,
            match self {
                Self::Kept(kept, checked) => kept.file.file_bytes(checked),
                Self::Cached(file, checked) => file.file_bytes(checked),
                Self::Once(source, checked) => FileBytes::read(source, checked),
            },
        )
    }

    /// Returns where a tensor begins, if that is known by now.
    pub(crate) fn start(&self, number: usize) -> Option<u64> {
        match self {
            Self::Kept(kept, _) => kept.start(number),
            _ => None,
        }
    }

    /// Notes where a tensor begins that lies in the file as it is, its header checked.
    pub(crate) fn note_start(&self, number: usize, start: u64) {
        if let Self::Kept(kept, _) = self {
            kept.note_start(number, start);
        }
    }
}

/// Memory for the path of a file.
#[derive(Debug, Default)]
pub(crate) struct PathSpace {
    relative: Vec<u8>,
    whole: PathBuf,
}

impl PathSpace {
    fn relative(&mut self, file: FileEntry<'_>) -> &str {
        file.read_path(&mut self.relative);
        std::str::from_utf8(&self.relative).unwrap_or_default()
    }

    /// Puts the path of the last file behind a folder.
    fn join(&mut self, folder: &Path) -> &Path {
        self.whole.as_mut_os_string().clear();
        self.whole.push(folder);
        if !self.relative.is_empty() {
            self.whole.push(std::str::from_utf8(&self.relative).unwrap_or_default());
        }
        &self.whole
    }
}
