//! A folder of files that hold like samples.

use std::path::{Path, PathBuf};

use pt_format::{DType, geometry};
use pt_index::{BuildOptions, FileEntry, FileSource, Index, Policy};
use pt_view::{CheckedRecords, FileBytes, TensorView};

use crate::batch::{Batch, Slot};
use crate::error::{Error, Result};

/// One tensor of every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Dotted name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes in elements, of one sample.
    pub shape: Vec<u64>,
    /// Bytes of one sample.
    pub(crate) bytes: usize,
}

/// A data set over a folder: a sample is a file. All samples have the tensors of the first one.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for name in ["a.pt", "b.pt"] {
/// #     let object = Object::dict([("x", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// let data = pt_loader::DataSet::open(folder.path())?;
/// assert_eq!((data.len(), data.fields().len()), (2, 1));
/// let batch = data.gather(&[1, 0])?;
/// assert_eq!(batch.tensor("x").unwrap().as_slice::<u8>()?, [1, 2, 3, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DataSet {
    folder: PathBuf,
    index: Index,
    fields: Vec<Field>,
    checked: CheckedRecords,
    policy: Policy,
}

impl DataSet {
    /// Opens a folder through its index, or indexes it in memory if there is none. Files are compared with the index
    /// when they are first read.
    ///
    /// # Errors
    /// [`Error::Index`] when the folder cannot be walked, [`Error::Empty`] when it holds no sample.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let kept = pt_index::sidecar_path(folder);
        let index = match kept.exists() {
            true => pt_index::read(&kept)?,
            false => pt_index::build_folder(folder, None, &BuildOptions::default(), |_| {})?.index,
        };
        Self::with_index(folder, index)
    }

    /// Makes a data set of an index over a folder.
    ///
    /// # Errors
    /// [`Error::Empty`], or [`Error::Differs`] when the first sample's tensors cannot be batched.
    pub fn with_index(folder: impl Into<PathBuf>, index: Index) -> Result<Self> {
        let folder = folder.into();
        let Some(first) = index.file(0) else { return Err(Error::Empty { path: folder }) };
        let fields = fields_of(first, &folder)?;
        let checked = CheckedRecords::new(index.storage_count());
        Ok(Self { folder, index, fields, checked, policy: Policy::default() })
    }

    /// Says how sure to be that files are those that were indexed; asked when a file is read.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.index.file_count()
    }

    /// Returns whether there are no samples; never so for a data set that opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the tensors every sample has.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Gathers samples into one batch, in this order. Reads run in parallel on rayon's pool.
    ///
    /// # Errors
    /// [`Error::NoSuchSample`], [`Error::Sample`] or [`Error::Differs`] naming the file, or [`Error::Index`] when a file
    /// is not the one that was indexed.
    pub fn gather(&self, samples: &[usize]) -> Result<Batch> {
        Batch::gather(self, samples)
    }

    /// Reads the tensors of one sample into their places.
    pub(crate) fn read_sample(&self, sample: usize, slots: Vec<Slot<'_>>) -> Result<()> {
        let count = self.len();
        let file = self.index.file(sample).ok_or(Error::NoSuchSample { sample, count })?;
        let path = self.folder.join(file.path());
        let source = FileSource::open(&path)?;
        file.check(&path, &source, self.policy)?;
        for (field, slot) in self.fields.iter().zip(slots) {
            let differs =
                |problem| Error::Differs { path: path.clone(), tensor: field.name.clone(), problem };
            let entry = file.tensor(&field.name).ok_or_else(|| differs("is missing".into()))?;
            if entry.dtype() != Some(field.dtype) || entry.shape() != Some(&field.shape) {
                return Err(differs(format!("is {:?} {:?}", entry.dtype(), entry.shape())));
            }
            TensorView::new(entry, FileBytes::read(&source, &self.checked))
                .read_into(slot)
                .map_err(|source| Error::Sample { path: path.clone(), source: source.into() })?;
        }
        Ok(())
    }
}

/// The tensors of a sample that have bytes and a shape; a name that occurs twice counts once.
fn fields_of(file: FileEntry<'_>, folder: &Path) -> Result<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::new();
    for tensor in file.tensors() {
        let name = tensor.name();
        let differs = |problem: &str| Error::Differs {
            path: folder.join(file.path()),
            tensor: name.to_owned(),
            problem: problem.to_owned(),
        };
        if fields.iter().any(|field| field.name == name) {
            continue;
        }
        let (Some(dtype), Some(shape)) = (tensor.dtype(), tensor.shape()) else {
            return Err(differs("has no dtype or shape to batch"));
        };
        let bytes = geometry::nbytes(dtype, shape).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| differs("is too large to batch"))?;
        fields.push(Field { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes });
    }
    Ok(fields)
}
