//! Which samples there are: files, rows or tensors of an index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pt_format::{Checkpoint, DType, Limits, geometry};
use pt_index::{BuildOptions, FileEntry, FileSource, Index, IndexBuilder, Leaf, Listing, Policy, Stamp};
use pt_view::{Access, FileCache};

use crate::batch::{Batch, Ragged};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::gather;
use crate::permutation::Permutation;
use crate::plan::BatchPlan;
use crate::read::Plain;
use crate::samples::Samples;
use crate::structure::Structure;

/// What a sample is.
///
/// ```
/// assert_eq!(pt_loader::Unit::default(), pt_loader::Unit::File);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// A file, with all its tensors.
    #[default]
    File,
    /// A row: the same position along the first dimension of all tensors of a file. Files may have any number of rows.
    Row,
    /// A tensor. All have one dtype; the batch calls them `tensor`.
    Tensor,
}

/// What becomes of files that lack a tensor or have it with another dtype or rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misfits {
    /// Opening the data set fails and names one.
    #[default]
    Fail,
    /// They have no samples.
    LeaveOut,
}

/// How a data set is made of files.
///
/// ```
/// use pt_loader::{Options, Unit};
/// let options = Options { unit: Unit::Row, keys: vec!["x".into()], ..Options::default() };
/// assert!(options.include.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What a sample is.
    pub unit: Unit,
    /// Names of tensors and columns, or of the dicts and lists they stand in. Empty: all.
    pub keys: Vec<String>,
    /// Globs over the paths of the folder; see [`pt_index::Selection::include`]. With them, a kept index is not asked.
    pub include: Vec<String>,
    /// What becomes of files unlike the first.
    pub misfits: Misfits,
    /// How sure to be that files are those that were indexed; asked when a file is opened. Files that stay open stay those
    /// they were.
    pub policy: Policy,
}

/// One tensor of every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Dotted name.
    pub name: String,
    /// Element type in a batch.
    pub dtype: DType,
    /// Sizes in elements, of one sample; of a ragged field, the largest there are.
    pub shape: Vec<u64>,
    /// Whether samples differ in a size.
    pub is_ragged: bool,
    /// In which sizes samples differ, in ascending order: the number of the dimension.
    pub ragged_dims: Vec<usize>,
    /// Element type in the files.
    pub(crate) stored: DType,
    /// What elements are multiplied with when they become `float32`.
    pub(crate) scale: f32,
}

impl Field {
    /// Returns whether samples differ in other sizes than the first: then elements are what steps are otherwise.
    pub fn is_grid(&self) -> bool {
        self.ragged_dims.iter().any(|&dim| dim > 0)
    }

    /// Bytes in a file of one step along the first dimension of a sample: of one element where others are ragged, and of the
    /// sample where none is.
    pub(crate) fn step_bytes(&self, dtype: DType) -> Option<usize> {
        let first = if self.is_grid() { self.shape.len() } else { usize::from(self.is_ragged) };
        let rest = self.shape.get(first..).unwrap_or_default();
        geometry::nbytes(dtype, rest).and_then(|bytes| usize::try_from(bytes).ok())
    }
}

/// A data set: samples of an index. Nothing of the files is read before a batch asks for it. Clones, filtered and split
/// ones share the index.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for name in ["a.pt", "b.pt"] {
/// #     let object = Object::dict([("x", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{DataSet, Options, Unit};
/// let data = DataSet::open(folder.path())?;
/// assert_eq!((data.len(), data.fields().len()), (2, 1));
/// let batch = data.gather(&[1, 0])?;
/// assert_eq!(batch.tensor("x").unwrap().as_slice::<u8>()?, [1, 2, 3, 1, 2, 3]);
///
/// let rows = DataSet::open_with(folder.path(), &Options { unit: Unit::Row, ..Options::default() })?;
/// let batch = rows.gather(&[0, 5])?;
/// assert_eq!(batch.tensor("x").unwrap().as_slice::<u8>()?, [1, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DataSet {
    pub(crate) shared: Arc<Shared>,
    pub(crate) set: Arc<Samples>,
    /// Which samples of the set, if not all.
    picked: Option<Arc<[usize]>>,
    /// Threads of its own.
    threads: Option<Arc<rayon::ThreadPool>>,
    pub(crate) drops_behind: bool,
}

/// What all views of a data set have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) files: Files,
    pub(crate) options: Options,
    pub(crate) plain: Plain,
}

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
        if set.len(index) == 0 {
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
        self.reopened_as(|files| files)
    }

    /// Returns the same data set with files that are opened anew, in the caller's way: as [`Self::with_files`] for a data set that is
    /// there, with what it picked of its samples. Threads of its own are not taken over.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// // SAFETY: nobody writes to the files or truncates them.
    /// let data = data.reopened_as(|files| unsafe { files.with_access(pt_view::Access::Auto) });
    /// # }
    /// ```
    #[must_use]
    pub fn reopened_as(&self, change: impl FnOnce(FileCache) -> FileCache) -> Self {
        let Shared { files, options, .. } = &*self.shared;
        let shared = Shared {
            files: files.reopened(change),
            options: options.clone(),
            plain: Plain::new(self.index().tensor_count()),
        };
        Self { shared: Arc::new(shared), threads: None, ..self.clone() }
    }

    /// Reads with so many threads of its own (at least one), instead of rayon's pool of as many as there are cores. On a network
    /// file system, this is how many files are opened at a time. A disk gets all requests of a batch at once anyway, if it
    /// is Linux that asks.
    ///
    /// # Errors
    /// [`Error::Threads`] when the system has no more threads.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let data = data.with_threads(32)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_threads(self, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool = pool.map_err(|error| Error::Threads { threads, problem: error.to_string() })?;
        Ok(Self { threads: Some(Arc::new(pool)), ..self })
    }

    /// Takes the pages of mapped files out of the process's memory once they were copied into a batch, so that an epoch over
    /// any number of bytes stays as small as one that reads. They stay in the page cache as long as the system likes. Costs
    /// a call of the system for each file of a batch. Has an effect on a data set
    /// [with files](Self::with_files) that are mapped, and on batches; views of single samples stay mapped.
    ///
    /// ```
    /// # fn show(files: pt_view::FileCache) -> pt_loader::Result<()> {
    /// let data = pt_loader::DataSet::with_files(files, &Default::default())?.drop_behind();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn drop_behind(self) -> Self {
        Self { drops_behind: true, ..self }
    }

    /// Turns a field of `float16`, `bfloat16` or `uint8` into `float32` as batches are gathered, multiplied with a
    /// number.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object, Tensor};
    /// # let object = Object::dict([("x", Tensor::new::<u8>(&[2], &[0, 255])?.into())]);
    /// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&object)?)?;
    /// let data = pt_loader::DataSet::open(folder.path())?.to_float32("x", 1.0 / 255.0)?;
    /// assert_eq!(data.gather(&[0])?.tensor("x").unwrap().as_slice::<f32>()?, [0.0, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchField`], [`Error::WrongType`] for other dtypes.
    pub fn to_float32(mut self, name: &str, scale: f32) -> Result<Self> {
        let set = Arc::make_mut(&mut self.set);
        let field = set.fields.iter_mut().find(|field| field.name == name);
        let field = field.ok_or_else(|| Error::NoSuchField { name: name.to_owned() })?;
        match field.stored {
            DType::Float16 | DType::BFloat16 | DType::UInt8 => {
                (field.dtype, field.scale) = (DType::Float32, scale);
                Ok(self)
            }
            dtype => Err(Error::WrongType { tensor: name.to_owned(), dtype, asked: DType::Float32 }),
        }
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.picked.as_ref().map_or_else(|| self.set.len(self.index()), |picked| picked.len())
    }

    /// Returns whether there are no samples; possible only after filtering and splitting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the folder that the paths of the index are relative to; empty when they are not.
    pub fn root(&self) -> &Path {
        self.shared.files.cache().folder()
    }

    /// Returns the options it was opened with.
    ///
    /// With [`Self::root`], [`Self::index`] and [`Self::picked`] they make the same data set in another process:
    ///
    /// ```
    /// # fn show(data: &pt_loader::DataSet) -> Result<(), Box<dyn std::error::Error>> {
    /// use pt_loader::DataSet;
    /// let (root, index, options) = (data.root(), data.index().as_bytes().to_vec(), data.options());
    /// let mut again = DataSet::with_index(root, pt_index::Index::from_bytes(index)?, options)?;
    /// if let Some(picked) = data.picked() {
    ///     again = again.select(picked)?;
    /// }
    /// for (name, scale) in data.casts() {
    ///     again = again.to_float32(name, scale)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Returns which fields [`Self::to_float32`] casts, and what their elements are multiplied with.
    pub fn casts(&self) -> impl Iterator<Item = (&str, f32)> {
        let cast = self.fields().iter().filter(|field| field.dtype != field.stored);
        cast.map(|field| (&field.name[..], field.scale))
    }

    /// Returns which samples of the whole data set these are, after filtering, splitting and selecting; `None` before.
    pub fn picked(&self) -> Option<&[usize]> {
        self.picked.as_deref()
    }

    /// Returns how a sample is built: the dicts, lists and tuples around its tensors and plain scalars, as the first file has
    /// them, each container before its content. Empty where a sample is a tensor.
    pub fn structure(&self) -> Structure<'_> {
        Structure::new(self.index(), &self.set.structure)
    }

    /// Returns the names of the plain scalars every batch has as [`BatchColumn`](crate::BatchColumn)s.
    pub fn columns(&self) -> &[String] {
        &self.set.columns
    }

    /// Returns the tensors every sample has.
    pub fn fields(&self) -> &[Field] {
        &self.set.fields
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        self.shared.files.cache().index()
    }

    /// Returns the file a sample is in, and its number among the samples of that file.
    pub fn locate(&self, sample: usize) -> Option<(FileEntry<'_>, usize)> {
        let (file, within) = self.place(sample)?;
        Some((self.index().file(file)?, within as usize))
    }

    /// Number of the file a sample is in, and its number among the samples of that file.
    pub(crate) fn place(&self, sample: usize) -> Option<(usize, u64)> {
        let sample = match &self.picked {
            Some(picked) => *picked.get(sample)?,
            None if sample < self.len() => sample,
            None => return None,
        };
        self.set.locate(sample)
    }

    /// Where runs of neighbouring samples of one file begin, and where the last one ends.
    pub(crate) fn runs(&self) -> Vec<usize> {
        let (mut starts, mut at) = (vec![0], 0);
        while at < self.len() {
            at = match &self.picked {
                None => self.set.beside(at).end,
                Some(picked) => {
                    let beside = self.set.beside(picked[at]);
                    at + picked[at..].iter().take_while(|sample| beside.contains(sample)).count()
                }
            };
            starts.push(at);
        }
        starts
    }

    /// The sizes of a sample of a ragged field.
    pub(crate) fn sizes(&self, (file, within): (usize, u64), field: usize) -> &[u64] {
        let file = self.index().file(file);
        let schema = file.and_then(|file| self.set.schemas.get(file.schema().number()));
        let number = if self.set.unit == Unit::Tensor { within as usize } else { field };
        let tensor = schema.and_then(|schema| file?.tensor_at(*schema.tensors.get(number)?));
        tensor.and_then(|tensor| tensor.shape()).unwrap_or_default()
    }

    /// Whether it is the same in every respect.
    pub(crate) fn is(&self, other: &Self) -> bool {
        fn same<T: ?Sized>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
            one.as_ref().map(Arc::as_ptr).map(<*const T>::cast::<u8>)
                == other.as_ref().map(Arc::as_ptr).map(<*const T>::cast::<u8>)
        }
        Arc::ptr_eq(&self.shared, &other.shared)
            && Arc::ptr_eq(&self.set, &other.set)
            && same(&self.picked, &other.picked)
            && same(&self.threads, &other.threads)
    }

    pub(crate) fn has_own_threads(&self) -> bool {
        self.threads.is_some()
    }

    /// How many threads read.
    pub(crate) fn threads(&self) -> usize {
        self.threads.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
    }

    /// Runs on the threads that read.
    pub(crate) fn install<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        match &self.threads {
            Some(pool) => pool.install(run),
            None => run(),
        }
    }

    /// Returns the samples whose column has a value that is wanted. Opens no file.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// use pt_index::Leaf;
    /// let sevens = data.filter("label", |label| label == Leaf::Int(7));
    /// # }
    /// ```
    #[must_use]
    pub fn filter(&self, column: &str, mut wanted: impl FnMut(Leaf<'_>) -> bool) -> Self {
        let mut last = None;
        self.pick(|data, sample| {
            let Some((file, _)) = data.locate(sample) else { return false };
            match last {
                Some((row, verdict)) if row == file.row() => verdict,
                _ => {
                    let verdict = wanted(file.leaf(column).unwrap_or(Leaf::None));
                    last = Some((file.row(), verdict));
                    verdict
                }
            }
        })
    }

    /// Returns the samples with these numbers, in this order; one may come several times.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let first_ten = data.select(&Vec::from_iter(0..10))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchSample`].
    pub fn select(&self, samples: &[usize]) -> Result<Self> {
        let count = self.len();
        let number = |&sample: &usize| match sample < count {
            true => Ok(self.picked.as_ref().map_or(sample, |picked| picked[sample])),
            false => Err(Error::NoSuchSample { sample, count }),
        };
        let picked = samples.iter().map(number).collect::<Result<_>>()?;
        Ok(Self { picked: Some(picked), ..self.clone() })
    }

    /// Splits the samples at random in two: so large a part, and the rest. Both keep the order. Rows and tensors of
    /// one file may come to lie on both sides.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// let (train, test) = data.split(0.9, 42);
    /// assert_eq!(train.len() + test.len(), data.len());
    /// # }
    /// ```
    #[must_use]
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let order = Permutation::new(self.len(), seed, 0);
        let first = (self.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
        let is_first = |sample: usize| order.at(sample) < first;
        (self.pick(|_, sample| is_first(sample)), self.pick(|_, sample| !is_first(sample)))
    }

    fn pick(&self, mut wanted: impl FnMut(&Self, usize) -> bool) -> Self {
        let number = |sample| self.picked.as_ref().map_or(sample, |picked| picked[sample]);
        let picked = (0..self.len()).filter(|&sample| wanted(self, sample)).map(number).collect();
        Self { picked: Some(picked), ..self.clone() }
    }

    /// Gathers samples into one batch, in this order. Reads run in parallel on rayon's pool.
    ///
    /// # Errors
    /// [`Error::At`] naming sample and file, [`Error::NoSuchSample`], [`Error::Uneven`] when ragged samples differ.
    pub fn gather(&self, samples: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        self.gather_into(samples, Ragged::Refuse, &mut batch)?;
        Ok(batch)
    }

    /// Gathers samples into a batch whose memory is used again; ragged fields as asked.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// use pt_loader::{Batch, Pad, Ragged};
    /// let mut batch = Batch::default();
    /// for samples in [[0, 1], [2, 3]] {
    ///     data.gather_into(&samples, Ragged::Pad(Pad::default()), &mut batch)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`gather`](Self::gather). The batch is empty then.
    pub fn gather_into(&self, samples: &[usize], ragged: Ragged, batch: &mut Batch) -> Result<()> {
        batch.gather(self, samples, ragged)
    }

    /// Lends the elements of one field of a sample, without copying, as bytes. `None` where they cannot be lent: the files are not mapped (see
    /// [`Self::with_files`]) or too many to be kept open, the field is to be cast, or its elements do not lie in the file as they
    /// are.
    ///
    /// # Errors
    /// [`Error::NoSuchSample`]; [`Error::At`] when the file cannot be opened.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let field = data.fields().iter().position(|field| field.name == "x").unwrap();
    /// if let Some(bytes) = data.lend(7, field)? {
    ///     println!("{} bytes in place", bytes.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn lend(&self, sample: usize, field: usize) -> Result<Option<&[u8]>> {
        if let Some(bytes) = gather::lent(self, sample, field) {
            return Ok(Some(bytes));
        }
        if sample >= self.len() {
            return Err(Error::NoSuchSample { sample, count: self.len() });
        }
        if self.shared.files.cache().access() == Access::Read {
            return Ok(None);
        }
        // Opens the file, and finds and checks all that is asked when a batch is read.
        self.gather_into(&[sample], Ragged::Refuse, &mut Batch::default())?;
        Ok(gather::lent(self, sample, field))
    }

    /// Reads samples each alone, and returns those that can be read; `failed` is told of the others, and why. For batches that
    /// failed and are to go on without what is broken.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let good = data.readable(&[3, 1, 4], |sample, error| eprintln!("sample {sample}: {error}"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What is no fault of a single sample: [`Error::NoSuchSample`], [`Error::TooLarge`].
    pub fn readable(&self, samples: &[usize], mut failed: impl FnMut(usize, Error)) -> Result<Vec<usize>> {
        let mut good = Vec::with_capacity(samples.len());
        let (mut one, mut memory) = (BatchPlan::default(), Vec::new());
        for &sample in samples {
            self.plan_into(&[sample], Ragged::Joined, &mut one)?;
            let more = one.bytes().saturating_sub(memory.len());
            memory.try_reserve(more).map_err(|_| Error::TooLarge { samples: 1 })?;
            memory.resize(one.bytes().max(memory.len()), 0);
            match one.read_alone(&mut memory) {
                Ok(()) => good.push(sample),
                Err(Error::At { source, .. }) => failed(sample, *source),
                Err(error) => return Err(error),
            }
        }
        Ok(good)
    }

    /// Lays out a batch without reading it; see [`BatchPlan`].
    ///
    /// # Errors
    /// [`Error::NoSuchSample`], [`Error::Uneven`], [`Error::TooLarge`]. The plan is empty then.
    pub fn plan_into(&self, samples: &[usize], ragged: Ragged, plan: &mut BatchPlan) -> Result<()> {
        let result = plan.set(self, samples, ragged);
        if result.is_err() {
            plan.clear();
        }
        result
    }
}
