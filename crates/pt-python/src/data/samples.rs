//! A data set, as `ptview.Dataset` sees it: samples by number, batches planned and read, labels.

use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use pt_index::{Column, Index, Leaf};
use pt_loader::{BatchPlan, DataSet, Options, Unit};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::data::layout::Layout;
use crate::data::memory::{Memory, Pool};
use crate::data::plan::{Plan, leaf};
use crate::data::threads::Threads;
use crate::data::{plan, structure};
use crate::error::{Class, Result};
use crate::{export, kept};

/// Name, dtype, largest sizes, whether samples differ in size, and in which dimensions.
type FieldRow<'py> = (String, &'static str, Bound<'py, PyTuple>, bool, Bound<'py, PyTuple>);

/// Samples of an index. Numbers of samples may be negative, as in Python.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Samples {
    /// With the process that opened its files. Locked only by who holds the GIL, and not while it is given up: so no thread
    /// holds it when a process forks.
    data: Mutex<(u32, DataSet)>,
    pool: Arc<Pool>,
    /// Plans of one sample that were used.
    spare: Mutex<Vec<BatchPlan>>,
}

impl Samples {
    fn new(data: DataSet) -> Self {
        Self { data: Mutex::new((process::id(), data)), pool: Arc::default(), spare: Mutex::default() }
    }

    /// Returns the data set, in a process that was forked with files of its own.
    pub(crate) fn data(&self) -> DataSet {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if data.0 != process::id() {
            *data = (process::id(), data.1.reopened());
            // Plans hold the data set that they are of, and so the files that were inherited.
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        data.1.clone()
    }

    /// The numbers of samples in an iterable of them.
    pub(crate) fn numbers(&self, samples: &Bound<'_, PyAny>) -> Result<Vec<usize>> {
        let count = self.data().len();
        let mut numbers = Vec::with_capacity(samples.len().unwrap_or(0));
        for sample in samples.try_iter()? {
            numbers.push(number(&sample?, count)?);
        }
        Ok(numbers)
    }
}

/// The number of a sample, counted from the end if it is negative.
fn number(sample: &Bound<'_, PyAny>, count: usize) -> Result<usize> {
    let missing = |sample: String| {
        Class::Range.error(format!("sample {sample} does not exist; the data set has {count}"))
    };
    match sample.extract::<isize>() {
        Ok(number) => {
            let from_start = if number < 0 { number.checked_add_unsigned(count) } else { Some(number) };
            let from_start = from_start.and_then(|number| usize::try_from(number).ok());
            from_start.filter(|&number| number < count).ok_or_else(|| missing(number.to_string()))
        }
        Err(error) if error.is_instance_of::<PyOverflowError>(sample.py()) => {
            Err(missing(sample.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

#[pymethods]
impl Samples {
    /// Opens a folder, through its index if it has one, or an index file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, unit: &str, keys: Vec<String>) -> Result<Self> {
        let options = options(unit, keys)?;
        let threads = Threads::shared(py)?;
        let data = py.detach(|| threads.run(|| DataSet::open_by(&path, &options, kept::open_index)))??;
        Ok(Self::new(data))
    }

    /// Indexes a list of files. Samples are in the order of the list, and those of a file named twice come twice.
    #[staticmethod]
    fn of_files(py: Python<'_>, paths: Vec<String>, unit: &str, keys: Vec<String>) -> Result<Self> {
        let options = options(unit, keys)?;
        let data = py.detach(|| DataSet::of_files(&paths, &options))?;
        if paths.is_sorted_by(|one, other| one < other) {
            return Ok(Self::new(data));
        }
        Ok(Self::new(in_order(&data, &paths)?))
    }

    /// Opens an index that was in memory, of files whose paths are relative to `root`.
    #[staticmethod]
    fn of_index(root: PathBuf, index: &[u8], unit: &str, keys: Vec<String>) -> Result<Self> {
        let index = Index::from_bytes(index.to_vec())?;
        Ok(Self::new(DataSet::with_index(root, index, &options(unit, keys)?)?))
    }

    /// The folder that the paths of the index are relative to, and the bytes of the index.
    fn index<'py>(&self, py: Python<'py>) -> (PathBuf, Bound<'py, PyBytes>) {
        let data = self.data();
        (data.root().to_owned(), PyBytes::new(py, data.index().as_bytes()))
    }

    /// A number that tells the index from others.
    fn index_checksum(&self) -> u64 {
        self.data().index().checksum()
    }

    /// Whether the index is the one that is kept in a file.
    fn is_kept(&self, path: PathBuf) -> Result<bool> {
        Ok(kept::open_index(&path)?.checksum() == self.index_checksum())
    }

    /// Files that were met and could not be indexed, and why.
    fn skipped(&self) -> Vec<(String, String)> {
        let data = self.data();
        let skipped = data.index().skipped();
        skipped.map(|file| (file.path.to_owned(), file.reason.to_owned())).collect()
    }

    /// Reads a field as `float32`, multiplied with `scale`.
    fn to_float32(&self, field: &str, scale: f32) -> Result<Self> {
        let data = self.data();
        Ok(Self::new(data.to_float32(field, scale)?))
    }

    /// Reads files through maps of them.
    fn mapped(&self) -> Self {
        Self::new(export::mapped(&self.data()))
    }

    fn __len__(&self) -> usize {
        let data = self.data();
        data.len()
    }

    /// Name, dtype, largest sizes, whether samples differ in size, and in which dimensions.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> Result<Vec<FieldRow<'py>>> {
        let data = self.data();
        let field = |field: &pt_loader::Field| {
            let shape = PyTuple::new(py, &field.shape)?;
            let ragged_dims = PyTuple::new(py, &field.ragged_dims)?;
            Ok((field.name.clone(), field.dtype.name(), shape, field.is_ragged, ragged_dims))
        };
        data.fields().iter().map(field).collect()
    }

    /// The names of the plain scalars.
    #[getter]
    fn columns(&self) -> Vec<String> {
        let data = self.data();
        data.columns().to_vec()
    }

    /// The values of a plain scalar in all samples: `int`, `float` or `bool` and their bytes, or `str` or `object` and a list.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> Result<(&'static str, Bound<'py, PyAny>)> {
        let data = self.data();
        let column = data.index().column(name);
        let column =
            column.ok_or_else(|| Class::Missing.error(format!("the data set has no column `{name}`")))?;
        let values = || leaves(&data, &column);
        let (mut ints, mut floats, mut bools, mut texts, mut others) = (0, 0, 0, 0, 0);
        values().for_each(|leaf| match leaf {
            Leaf::Int(_) => ints += 1,
            Leaf::Float(_) => floats += 1,
            Leaf::Bool(_) => bools += 1,
            Leaf::Str(_) => texts += 1,
            _ => others += 1,
        });
        let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).into_any();
        Ok(match (ints, floats, bools, texts, others) {
            (_, _, 0, 0, 0) if floats > 0 => {
                let floats: Vec<f64> = values()
                    .map(|leaf| match leaf {
                        Leaf::Float(value) => value,
                        Leaf::Int(value) => value as f64,
                        _ => f64::NAN,
                    })
                    .collect();
                ("float", bytes(bytemuck::cast_slice(&floats)))
            }
            (_, 0, 0, 0, 0) => {
                let ints: Vec<i64> =
                    values().map(|leaf| if let Leaf::Int(value) = leaf { value } else { 0 }).collect();
                ("int", bytes(bytemuck::cast_slice(&ints)))
            }
            (0, 0, _, 0, 0) => {
                let bools: Vec<u8> = values().map(|leaf| u8::from(leaf == Leaf::Bool(true))).collect();
                ("bool", bytes(&bools))
            }
            (0, 0, 0, _, 0) => ("str", list(py, values())?),
            _ => ("object", list(py, values())?),
        })
    }

    /// The files that samples are in, each where its first sample is.
    fn files(&self) -> Vec<PathBuf> {
        let data = self.data();
        let mut last = None;
        let mut files = Vec::new();
        for sample in 0..data.len() {
            let Some((file, within)) = data.locate(sample) else { break };
            if data.options().unit == Unit::File
                || last.replace(file.row()) != Some(file.row())
                || within == 0
            {
                files.push(data.root().join(file.path()));
            }
        }
        files
    }

    /// The file a sample is in, and its number among the samples of that file.
    fn locate(&self, sample: &Bound<'_, PyAny>) -> Result<(PathBuf, usize)> {
        let data = self.data();
        let located = data.locate(number(sample, data.len())?);
        let located = located.map(|(file, within)| (data.root().join(file.path()), within));
        located.ok_or_else(|| Class::Range.error("no such sample"))
    }

    /// The samples with these numbers, in this order.
    fn select(&self, samples: &Bound<'_, PyAny>) -> Result<Self> {
        let data = self.data();
        Ok(Self::new(data.select(&self.numbers(samples)?)?))
    }

    /// The samples that are left of the whole data set, as the bytes of `uint64`; `None` if that is all of them.
    fn picked<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let data = self.data();
        let picked = data.picked()?;
        let bytes: Vec<u8> = picked.iter().flat_map(|&sample| (sample as u64).to_le_bytes()).collect();
        Some(PyBytes::new(py, &bytes))
    }

    /// The samples that [`Self::picked`] told of the whole data set.
    fn pick(&self, picked: &[u8]) -> Result<Self> {
        let data = self.data();
        let samples: Vec<usize> =
            picked.as_chunks().0.iter().map(|&number| u64::from_le_bytes(number) as usize).collect();
        Ok(Self::new(data.select(&samples)?))
    }

    /// Two data sets: so large a part at random, and the rest.
    fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let data = self.data();
        let (one, other) = data.split(fraction, seed);
        (Self::new(one), Self::new(other))
    }

    /// How samples are built, of each schema; see `structure.rs`.
    fn structures<'py>(&self, py: Python<'py>) -> Result<Vec<Option<Bound<'py, PyAny>>>> {
        let data = self.data();
        data.index().schemas().map(|schema| structure::of_schema(py, &data, schema)).collect()
    }

    /// Reads one sample: the memory it is in, its fields, its plain scalars, its schema.
    #[allow(clippy::type_complexity)]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        sample: &Bound<'py, PyAny>,
        layout: &Layout,
    ) -> Result<(Memory, Option<Bound<'py, PyList>>, Vec<Bound<'py, PyAny>>, usize)> {
        let data = self.data();
        let number = number(sample, data.len())?;
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut one = spare().pop().unwrap_or_default();
        data.plan_into(&[number], layout.ragged, &mut one)?;
        layout.check(&one)?;
        let bytes = one.bytes();
        let mut buffer = self.pool.take(bytes)?;
        py.detach(|| one.read_alone(buffer.as_mut_bytes()))?;
        let memory = Memory::new(buffer, bytes, &self.pool);
        let is_ragged = data.fields().iter().any(|field| field.is_ragged);
        let fields = if is_ragged { Some(plan::fields(py, &one)?) } else { None };
        let columns = one.columns().iter().map(|column| leaf(py, column.get(0))).collect::<Result<_>>()?;
        let schema = data.locate(number).map_or(0, |(file, _)| file.schema().number());
        spare().push(one);
        Ok((memory, fields, columns, schema))
    }

    /// Lays out a batch.
    fn plan(&self, samples: &Bound<'_, PyAny>, layout: &Layout) -> Result<Plan> {
        let data = self.data();
        Plan::new(&data, &self.numbers(samples)?, layout, &self.pool)
    }
}

impl Samples {
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

fn leaves<'c>(data: &DataSet, column: &'c Column<'_>) -> impl Iterator<Item = Leaf<'c>> {
    (0..data.len()).map(move |sample| {
        let row = data.locate(sample).map_or(usize::MAX, |(file, _)| file.row());
        column.get(row).unwrap_or(Leaf::None)
    })
}

fn list<'py, 'c>(py: Python<'py>, values: impl Iterator<Item = Leaf<'c>>) -> Result<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for value in values {
        list.append(leaf(py, Some(value))?)?;
    }
    Ok(list.into_any())
}

fn options(unit: &str, keys: Vec<String>) -> Result<Options> {
    let unit = match unit {
        "file" => Unit::File,
        "row" => Unit::Row,
        "tensor" => Unit::Tensor,
        _ => return Err(Class::Error.error(format!("mode is \"file\", \"row\" or \"tensor\", not {unit:?}"))),
    };
    Ok(Options { unit, keys, ..Options::default() })
}

/// Samples in the order in which files are listed; the index has them sorted.
fn in_order(data: &DataSet, paths: &[String]) -> Result<DataSet> {
    let mut samples_of: Vec<Vec<usize>> = vec![Vec::new(); data.index().file_count()];
    for sample in 0..data.len() {
        if let Some((file, _)) = data.locate(sample) {
            samples_of[file.row()].push(sample);
        }
    }
    let rows = paths.iter().filter_map(|path| data.index().find_file(path));
    let samples: Vec<usize> = rows.flat_map(|file| samples_of[file.row()].iter().copied()).collect();
    Ok(data.select(&samples)?)
}
