//! The ways to a data set: from a folder, an index, a list of files, files that are opened in the caller's way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pt_format::{Checkpoint, Limits};
use pt_index::{BuildOptions, FileSource, Index, IndexBuilder, Listing, Stamp};
use pt_view::FileCache;

use super::{DataSet, Options, Shared, Unit};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::read::Plain;
use crate::samples::Samples;

impl DataSet {
    /// Opens a folder, a sample a file, through its index, or indexes it in memory if there is none. Files that came or went since the
    /// index was made are parsed or left out, in memory (see [`Listing`]); the others are compared with the index when they are first
    /// read.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &Options::default())
    }

    /// Opens a folder, or an index file, with options.
    ///
    /// # Errors
    /// [`Error::Index`] when the folder cannot be walked, [`Error::Empty`] when it holds no sample, [`Error::Differs`]
    /// when files make no batch with each other.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::open_by(path, options, |kept| Ok(pt_index::read(kept)?))
    }

    /// Opens a folder, or an index file, as [`open_with`](Self::open_with) does; the index by `open_index`: for callers who map it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object};
    /// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::dict([("y", 7.into())]))?)?;
    /// # let built = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?;
    /// # pt_index::save(&built.index, &pt_index::sidecar_path(folder.path()))?;
    /// use pt_loader::{DataSet, Options};
    /// // SAFETY: nobody writes into an index that is there.
    /// let open_index = |path: &std::path::Path| unsafe { pt_view::open_index(path) };
    /// let data = DataSet::open_by(folder.path(), &Options::default(), open_index)?;
    /// assert_eq!(data.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open_by(
        path: impl AsRef<Path>,
        options: &Options,
        open_index: impl FnOnce(&Path) -> Result<Index, pt_view::Error>,
    ) -> Result<Self> {
        let path = path.as_ref();
        if path.extension().is_some_and(|extension| extension == pt_index::SIDECAR_EXTENSION) {
            let index = open_index(path)?;
            return Self::with_index(pt_index::data_path(path, &index), index, options);
        }
        let kept = pt_index::sidecar_path(path);
        let index = match options.include.is_empty() && kept.exists() {
            true => Some(open_index(&kept)?),
            false => None,
        };
        let build = |earlier: Option<&Index>| {
            let mut build = BuildOptions::default();
            build.selection.include.clone_from(&options.include);
            pt_index::build_folder(path, earlier, &build, |_| {})
        };
        let index = match index {
            None => build(None)?.index,
            Some(index) if Listing::compare(path, &index, &kept)?.is_outdated() => build(Some(&index))?.index,
            Some(index) => index,
        };
        Self::with_index(path, index, options)
    }

    /// Indexes a list of files, in the order of their paths. A file named twice counts once.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with), and [`Error::Index`] for a file that cannot be parsed.
    pub fn of_files<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self> {
        let mut paths: Vec<String> =
            paths.iter().map(|path| path.as_ref().to_string_lossy().into_owned()).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut builder = IndexBuilder::default();
        for path in &paths {
            let source = FileSource::open(Path::new(path))?;
            let checkpoint = Checkpoint::parse(&source, &Limits::default())
                .map_err(|source| pt_index::Error::File { path: path.into(), source })?;
            builder.add(path, Stamp::of(source.metadata()), &checkpoint)?;
        }
        Self::with_index("", builder.finish()?, options)
    }

    /// Makes a data set of an index and the folder its paths are relative to.
    ///
    /// # Errors
    /// [`Error::Empty`], or [`Error::Differs`] when files make no batch with each other.
    pub fn with_index(root: impl Into<PathBuf>, index: Index, options: &Options) -> Result<Self> {
        Self::with_files(FileCache::new(root, index), options)
    }

    /// Makes a data set of files that are opened in the caller's way: so many at a time, or mapped.
    ///
    /// From maps, batches are gathered as fast as memory is copied, and small samples several times faster than by reading.
    /// In exchange the caller promises that no file is written to or truncated (see [`pt_view::Access::Map`]); that is
    /// why mapping is `unsafe`, and never the default.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object, Tensor};
    /// # let object = Object::dict([("x", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]);
    /// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&object)?)?;
    /// use pt_loader::DataSet;
    /// use pt_view::{Access, FileCache};
    /// let data = DataSet::open(folder.path())?;
    /// let files = FileCache::new(data.root(), data.index().clone());
    /// // SAFETY: nobody writes to the files or truncates them.
    /// let files = unsafe { files.with_access(Access::Map) };
    /// let data = DataSet::with_files(files, data.options())?;
    /// assert_eq!(data.gather(&[0])?.tensor("x").unwrap().as_slice::<u8>()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::with_index`].
    pub fn with_files(files: FileCache, options: &Options) -> Result<Self> {
        let (index, root) = (files.index(), files.folder());
        let set = Samples::new(index, root, options)?;
        if set.len() == 0 {
            return Err(Error::Empty { path: root.to_owned() });
        }
        let plain = Plain::new(index.tensor_count());
        let files = Files::new(files, options.policy, options.unit != Unit::File);
        Ok(Self {
            shared: Arc::new(Shared { files, options: options.clone(), plain }),
            set: Arc::new(set),
            picked: None,
            threads: None,
            drops_behind: false,
        })
    }

    /// Returns the same data set with files that are opened anew. In a process that was forked, locks of the other one may be
    /// held by threads that are not there. Threads of its own are not taken over.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// let data = data.reopened();
    /// # }
    /// ```
    #[must_use]
    pub fn reopened(&self) -> Self {
        self.with_files_of(self.shared.files.reopened())
    }

    /// Returns the same data set with files that are opened anew, in the caller's way: as [`Self::with_files`] for a data set that is
    /// there, with what was picked of its samples. Threads of its own are not taken over.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// // SAFETY: nobody writes to the files or truncates them.
    /// let data = data.reopened_as(|files| unsafe { files.with_access(pt_view::Access::Auto) });
    /// # }
    /// ```
    #[must_use]
    pub fn reopened_as(&self, change: impl FnOnce(FileCache) -> FileCache) -> Self {
        self.with_files_of(self.shared.files.reopened_as(change))
    }

    fn with_files_of(&self, files: Files) -> Self {
        let plain = Plain::new(self.index().tensor_count());
        let shared = Shared { files, options: self.shared.options.clone(), plain };
        Self { shared: Arc::new(shared), threads: None, ..self.clone() }
    }
}
