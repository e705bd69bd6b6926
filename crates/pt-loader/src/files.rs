//! The files of a data set: kept open where batches come back to them, else opened and closed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pt_index::{FileEntry, FileSource, Folder, Freshness, Policy, TensorEntry};
use pt_view::{Access, CheckedRecords, FileBytes, FileCache, OpenFile, TensorView};

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
}

#[derive(Debug)]
enum Kind {
    /// All fit: each is opened once.
    All(Box<[OnceLock<Kept>]>),
    /// Those used last stay open.
    Some,
    /// None stays open.
    None(Option<Folder>),
}

/// A file that stays open.
#[derive(Debug)]
pub(crate) struct Kept {
    file: OpenFile,
    /// Where tensors begin in it that lie there as they are, by their number in the schema's plan.
    starts: Box<[AtomicU64]>,
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
        Self { cache: cache.with_policy(policy), policy, checked, comes_back, kind: OnceLock::new() }
    }

    #[inline]
    fn kind(&self) -> &Kind {
        self.kind.get_or_init(|| {
            if self.cache.holds_all() {
                let files = self.cache.index().file_count();
                Kind::All((0..files).map(|_| OnceLock::new()).collect())
            } else if self.comes_back || self.cache.access() != Access::Read {
                Kind::Some
            } else {
                // Of many files that are read once an epoch, those kept are not those that come next.
                Kind::None(Folder::open(self.cache.folder()).ok())
            }
        })
    }

    /// The same files, of which none is open.
    pub(crate) fn reopened(&self) -> Self {
        Self::new(self.cache.reopened(), self.policy, self.comes_back)
    }

    pub(crate) fn cache(&self) -> &FileCache {
        &self.cache
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
                let file = self.open_cached(entry)?;
                let starts = (0..tensors).map(|_| AtomicU64::new(UNKNOWN)).collect();
                Ok(Opened::Kept(slot.get_or_init(|| Kept { file, starts }), &self.checked))
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
        match self.cache.file(entry.row()) {
            Ok(file) => Ok(file.into_open()),
            Err(pt_view::Error::Index(error)) => Err(error.into()),
            Err(source) => {
                let path = self.cache.folder().join(entry.path());
                Err(Error::Sample { path, source: Box::new(source) })
            }
        }
    }
}

impl Kept {
    /// Returns the whole file, if it is mapped.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.file.bytes()
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
    pub(crate) fn source(&self) -> &FileSource {
        match self {
            Self::Kept(kept, _) => kept.file.source(),
            Self::Cached(file, _) => file.source(),
            Self::Once(source, _) => source,
        }
    }

    /// Returns the whole file, if it is mapped.
    pub(crate) fn mapped(&self) -> Option<&[u8]> {
        match self {
            Self::Kept(kept, _) => kept.bytes(),
            Self::Cached(file, _) => file.bytes(),
            Self::Once(..) => None,
        }
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
