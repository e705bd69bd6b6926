//! Which samples there are: files, rows or tensors of an index.
//!
//! [`options`] is what the caller chooses, [`open`] makes a data set of it, [`pick`] parts of one; [`gather`] has what reads.

mod field;
mod gather;
mod open;
mod options;
mod pick;

use std::path::Path;
use std::sync::Arc;

use pt_format::DType;
use pt_index::{FileEntry, Index};

use crate::error::{Error, Result};
use crate::files::Files;
use crate::read::Plain;
use crate::samples::Samples;
use crate::structure::Structure;

pub use self::field::Field;
pub use self::options::{Misfits, Options, Unit};

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
    #[inline]
    pub fn len(&self) -> usize {
        self.picked.as_ref().map_or(self.set.len(), |picked| picked.len())
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
    #[inline]
    pub fn fields(&self) -> &[Field] {
        &self.set.fields
    }

    /// Returns the index.
    #[inline]
    pub fn index(&self) -> &Index {
        self.shared.files.cache().index()
    }

    /// Returns the file a sample is in, and its number among the samples of that file.
    pub fn locate(&self, sample: usize) -> Option<(FileEntry<'_>, usize)> {
        let (file, within) = self.place(sample)?;
        Some((self.index().file(file)?, within as usize))
    }

    /// Number of the file a sample is in, and its number among the samples of that file.
    #[inline]
    pub(crate) fn place(&self, sample: usize) -> Option<(usize, u64)> {
        let sample = match &self.picked {
            Some(picked) => *picked.get(sample)?,
            None if sample < self.set.len() => sample,
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
    #[inline]
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

    /// The threads of its own that read, if it has some.
    pub(crate) fn own_threads(&self) -> Option<&rayon::ThreadPool> {
        self.threads.as_deref()
    }

    /// How many threads read.
    pub(crate) fn threads(&self) -> usize {
        self.threads.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
    }
}
