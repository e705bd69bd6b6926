//! Which samples there are: files, rows or tensors of an index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pt_format::{Checkpoint, DType, Limits, geometry};
use pt_index::{BuildOptions, FileEntry, FileSource, Index, IndexBuilder, Leaf, Policy, Schema, Stamp};
use pt_view::CheckedRecords;

use crate::batch::{Batch, Ragged};
use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::read::Plain;

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
    /// How sure to be that files are those that were indexed; asked when a file is read.
    pub policy: Policy,
}

/// One tensor of every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Dotted name.
    pub name: String,
    /// Element type in a batch.
    pub dtype: DType,
    /// Sizes in elements, of one sample; of a ragged field, the first one is that of the longest sample.
    pub shape: Vec<u64>,
    /// Whether samples differ in the first size.
    pub is_ragged: bool,
    /// Element type in the files.
    pub(crate) stored: DType,
    /// What elements are multiplied with when they become `float32`.
    pub(crate) scale: f32,
}

impl Field {
    /// Bytes in a file of one step along the first dimension of a sample, or of the sample if it has none.
    pub(crate) fn step_bytes(&self, dtype: DType) -> Option<usize> {
        let rest = self.shape.get(usize::from(self.is_ragged)..).unwrap_or_default();
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
    pub(crate) plan: Arc<Plan>,
    /// Samples of the plan, if not all.
    picked: Option<Arc<[usize]>>,
}

/// What all views of a data set have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) index: Index,
    pub(crate) checked: CheckedRecords,
    pub(crate) plain: Plain,
}

/// Where the samples are and what they consist of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) unit: Unit,
    pub(crate) policy: Policy,
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: Vec<String>,
    pub(crate) schemas: Vec<SchemaPlan>,
    /// The first sample of each file, and the number of all; `None` where a sample is a file.
    starts: Option<Vec<usize>>,
}

/// Which tensors and columns of a schema are those of the data set.
#[derive(Clone, Debug)]
pub(crate) struct SchemaPlan {
    /// Of each field, or of each sample of a file where a sample is a tensor.
    pub(crate) tensors: Vec<usize>,
    /// Of each column of the schema, which of the data set it is.
    pub(crate) columns: Vec<Option<usize>>,
    fits: bool,
}

impl DataSet {
    /// Opens a folder, a sample a file, through its index, or indexes it in memory if there is none. Files are compared
    /// with the index when they are first read.
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
        let path = path.as_ref();
        if path.extension().is_some_and(|extension| extension == pt_index::SIDECAR_EXTENSION) {
            let index = pt_index::read(path)?;
            return Self::with_index(pt_index::data_path(path, &index), index, options);
        }
        let kept = pt_index::sidecar_path(path);
        let index = match options.include.is_empty() && kept.exists() {
            true => pt_index::read(&kept)?,
            false => {
                let mut build = BuildOptions::default();
                build.selection.include.clone_from(&options.include);
                pt_index::build_folder(path, None, &build, |_| {})?.index
            }
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
        let root = root.into();
        let plan = Plan::new(&index, &root, options)?;
        let checked = CheckedRecords::new(index.storage_count());
        let plain = Plain::new(index.tensor_count());
        let data = Self {
            shared: Arc::new(Shared { root, index, checked, plain }),
            plan: Arc::new(plan),
            picked: None,
        };
        match data.is_empty() {
            true => Err(Error::Empty { path: data.shared.root.clone() }),
            false => Ok(data),
        }
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
        let plan = Arc::make_mut(&mut self.plan);
        let field = plan.fields.iter_mut().find(|field| field.name == name);
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
        self.picked.as_ref().map_or_else(|| self.plan.len(&self.shared.index), |picked| picked.len())
    }

    /// Returns whether there are no samples; possible only after filtering and splitting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the tensors every sample has.
    pub fn fields(&self) -> &[Field] {
        &self.plan.fields
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// Returns the file a sample is in, and its number among the samples of that file.
    pub fn locate(&self, sample: usize) -> Option<(FileEntry<'_>, usize)> {
        let sample = match &self.picked {
            Some(picked) => *picked.get(sample)?,
            None => sample,
        };
        let (file, within) = self.plan.locate(sample)?;
        Some((self.shared.index.file(file)?, within))
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
}

impl Plan {
    fn new(index: &Index, root: &Path, options: &Options) -> Result<Self> {
        let mut fields: Vec<Field> = Vec::new();
        let mut columns = Vec::new();
        let mut schemas = Vec::new();
        // The files' own order: the schema of the first file comes first.
        for schema in index.schemas() {
            let fits = join_schema(schema, root, options, &mut fields);
            let (fits, tensors) = match fits {
                Ok(tensors) => (true, tensors),
                Err(_) if options.misfits == Misfits::LeaveOut => (false, Vec::new()),
                Err(error) => return Err(error),
            };
            let columns = schema.columns().map(|column| column_number(column.name(), options, &mut columns));
            schemas.push(SchemaPlan { tensors, columns: columns.collect(), fits });
        }
        let mut plan =
            Self { unit: options.unit, policy: options.policy, fields, columns, schemas, starts: None };
        if plan.unit != Unit::File || plan.schemas.iter().any(|schema| !schema.fits) {
            plan.starts = Some(plan.count(index, root)?);
        }
        Ok(plan)
    }

    /// Counts the samples before each file.
    fn count(&self, index: &Index, root: &Path) -> Result<Vec<usize>> {
        let mut starts = Vec::with_capacity(index.file_count() + 1);
        let mut end = 0usize;
        starts.push(0);
        for file in index.files() {
            let schema = &self.schemas[file.schema().number()];
            let count = match self.unit {
                _ if !schema.fits => 0,
                Unit::File => 1,
                Unit::Tensor => schema.tensors.len(),
                Unit::Row => rows(file, schema, root)?,
            };
            end = end.saturating_add(count);
            starts.push(end);
        }
        Ok(starts)
    }

    fn len(&self, index: &Index) -> usize {
        self.starts.as_ref().and_then(|starts| starts.last().copied()).unwrap_or(index.file_count())
    }

    /// Which file a sample is in, and which of its samples it is.
    fn locate(&self, sample: usize) -> Option<(usize, usize)> {
        let Some(starts) = &self.starts else { return Some((sample, 0)) };
        if sample >= *starts.last()? {
            return None;
        }
        let file = starts.partition_point(|&start| start <= sample).checked_sub(1)?;
        Some((file, sample - starts[file]))
    }
}

fn is_wanted(name: &str, keys: &[String]) -> bool {
    let is_below =
        |key: &String| name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    keys.is_empty() || keys.iter().any(is_below)
}

fn column_number(name: &str, options: &Options, columns: &mut Vec<String>) -> Option<usize> {
    if !is_wanted(name, &options.keys) {
        return None;
    }
    let known = columns.iter().position(|column| column == name);
    known.or_else(|| {
        columns.push(name.to_owned());
        Some(columns.len() - 1)
    })
}

/// Compares the tensors of a schema with the fields so far (of the first schema they become the fields), and returns
/// which they are.
fn join_schema(
    schema: Schema<'_>,
    root: &Path,
    options: &Options,
    fields: &mut Vec<Field>,
) -> Result<Vec<usize>> {
    let Some(first) = schema.files().next() else { return Ok(Vec::new()) };
    let mut joined = fields.clone();
    let mut tensors: Vec<usize> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for tensor in first.tensors().filter(|tensor| is_wanted(tensor.name(), &options.keys)) {
        // A name that occurs twice counts once.
        if names.contains(&tensor.name()) {
            continue;
        }
        names.push(tensor.name());
        let varies = tensor.shape_varies();
        let files = schema.files().take(if varies { usize::MAX } else { 1 });
        for entry in files.filter_map(|file| file.tensor_at(tensor.number())) {
            join_tensor(entry, root, options.unit, &mut joined, schema.number() == 0)?;
        }
        tensors.push(tensor.number());
    }
    let in_order = match options.unit {
        Unit::Tensor => tensors,
        _ => {
            let place =
                |field: &Field| names.iter().position(|name| *name == field.name).map(|at| tensors[at]);
            let missing = |field: &Field| Error::Differs {
                path: root.join(first.path()),
                tensor: field.name.clone(),
                problem: "is missing".into(),
            };
            joined.iter().map(|field| place(field).ok_or_else(|| missing(field))).collect::<Result<_>>()?
        }
    };
    *fields = joined;
    Ok(in_order)
}

/// Compares one tensor with its field, which becomes ragged where sizes differ.
fn join_tensor(
    tensor: pt_index::TensorEntry<'_>,
    root: &Path,
    unit: Unit,
    fields: &mut Vec<Field>,
    is_first: bool,
) -> Result<()> {
    let name = if unit == Unit::Tensor { "tensor" } else { tensor.name() };
    let differs = |problem: String| Error::Differs {
        path: root.join(tensor.file().path()),
        tensor: tensor.name().to_owned(),
        problem,
    };
    let (Some(dtype), Some(shape)) = (tensor.dtype(), tensor.shape()) else {
        return Err(differs("has no dtype or shape to batch".into()));
    };
    if geometry::nbytes(dtype, shape).and_then(|bytes| usize::try_from(bytes).ok()).is_none() {
        return Err(differs("is too large to batch".into()));
    }
    let shape = match unit {
        Unit::Row => shape.get(1..).ok_or_else(|| differs("has no rows".into()))?,
        _ => shape,
    };
    let Some(field) = fields.iter_mut().find(|field| field.name == name) else {
        // What only other files have is no field.
        if is_first {
            let (shape, name) = (shape.to_vec(), name.to_owned());
            fields.push(Field { name, dtype, shape, is_ragged: false, stored: dtype, scale: 1.0 });
        }
        return Ok(());
    };
    if (field.stored, &field.shape[..]) == (dtype, shape) {
        return Ok(());
    }
    let same_rest = field.shape.len() == shape.len() && field.shape.iter().skip(1).eq(shape.iter().skip(1));
    if field.stored != dtype || !same_rest || unit == Unit::Row {
        return Err(differs(format!("is {dtype} {shape:?}")));
    }
    field.is_ragged = true;
    field.shape[0] = field.shape[0].max(shape[0]);
    Ok(())
}

/// The number of rows all tensors of a file have.
fn rows(file: FileEntry<'_>, schema: &SchemaPlan, root: &Path) -> Result<usize> {
    let mut count = None;
    for tensor in schema.tensors.iter().filter_map(|&number| file.tensor_at(number)) {
        let rows = tensor.shape().and_then(|shape| shape.first().copied()).unwrap_or(0);
        if *count.get_or_insert(rows) != rows {
            return Err(Error::Differs {
                path: root.join(file.path()),
                tensor: tensor.name().to_owned(),
                problem: format!("has {rows} rows where others of the file have {}", count.unwrap_or(0)),
            });
        }
    }
    Ok(count.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0))
}
