//! Where the samples are and what they consist of, from the index alone.

use std::ops::Range;
use std::path::Path;

use pt_format::geometry;
use pt_index::{FileEntry, Index, Schema, TensorEntry};

use crate::dataset::{Field, Misfits, Options, Unit};
use crate::error::{Error, Result};
use crate::structure::{self, Part};

/// Where the samples are and what they consist of.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    pub(crate) unit: Unit,
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: Vec<String>,
    pub(crate) schemas: Vec<SchemaPlan>,
    /// The parts of a sample, as the first file has them.
    pub(crate) structure: Vec<Part>,
    /// Of each field, the bytes in a file of one sample, where all have as many.
    pub(crate) even_bytes: Vec<Option<usize>>,
    counts: Counts,
    total: usize,
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

/// How many samples files have.
#[derive(Clone, Debug)]
enum Counts {
    /// All files the same number.
    Even(usize),
    /// The first sample of each file, and the number of all.
    Starts(Vec<usize>),
}

impl Samples {
    pub(crate) fn new(index: &Index, root: &Path, options: &Options) -> Result<Self> {
        check_keys(index, options)?;
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
        let even = |field: &Field| field.step_bytes(field.stored).filter(|_| !field.is_ragged);
        let mut samples = Self {
            unit: options.unit,
            even_bytes: fields.iter().map(even).collect(),
            fields,
            columns,
            schemas,
            structure: Vec::new(),
            counts: Counts::Even(1),
            total: 0,
        };
        samples.structure = structure::of(index, &samples, options);
        if samples.unit != Unit::File || samples.schemas.iter().any(|schema| !schema.fits) {
            samples.counts = samples.count(index, root)?;
        }
        samples.total = match &samples.counts {
            Counts::Even(count) => index.file_count().saturating_mul(*count),
            Counts::Starts(starts) => starts.last().copied().unwrap_or(0),
        };
        Ok(samples)
    }

    /// Counts the samples of each file.
    fn count(&self, index: &Index, root: &Path) -> Result<Counts> {
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
        let first = starts.get(1).copied().unwrap_or(0);
        let even = starts.windows(2).all(|pair| pair[1] - pair[0] == first);
        Ok(if even { Counts::Even(first) } else { Counts::Starts(starts) })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.total
    }

    /// All samples of the file that a sample is in. The sample must be one.
    pub(crate) fn beside(&self, sample: usize) -> Range<usize> {
        match &self.counts {
            Counts::Even(count) => {
                let start = sample - sample.checked_rem(*count).unwrap_or(0);
                start..start.saturating_add(*count)
            }
            Counts::Starts(starts) => {
                let next = starts.partition_point(|&start| start <= sample);
                starts[next - 1]..starts[next]
            }
        }
    }

    /// Which file a sample is in, and which of its samples it is. The sample must be one.
    #[inline]
    pub(crate) fn locate(&self, sample: usize) -> Option<(usize, u64)> {
        match &self.counts {
            Counts::Even(1) => Some((sample, 0)),
            Counts::Even(count) => Some((sample.checked_div(*count)?, sample.checked_rem(*count)? as u64)),
            Counts::Starts(starts) => {
                let file = starts.partition_point(|&start| start <= sample).checked_sub(1)?;
                Some((file, (sample - starts[file]) as u64))
            }
        }
    }
}

fn is_wanted(name: &str, keys: &[String]) -> bool {
    keys.is_empty() || keys.iter().any(|key| is_below(name, key))
}

/// Whether a key selects a name: it is the name, or what it stands in.
fn is_below(name: &str, key: &str) -> bool {
    name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Refuses keys that select nothing.
fn check_keys(index: &Index, options: &Options) -> Result<()> {
    let tensors =
        || index.schemas().filter_map(|schema| schema.files().next()).flat_map(|file| file.tensors());
    let columns = || index.schemas().flat_map(|schema| schema.columns());
    let selects = |key: &&String| {
        tensors().any(|tensor| is_below(tensor.name(), key))
            || columns().any(|column| is_below(column.name(), key))
    };
    match options.keys.iter().find(|key| !selects(key)) {
        Some(key) => Err(Error::NoSuchKey { key: key.clone() }),
        None => Ok(()),
    }
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

/// Compares one tensor with its field, which becomes ragged in the sizes that differ.
fn join_tensor(
    tensor: TensorEntry<'_>,
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
            fields.push(Field {
                name,
                dtype,
                shape,
                is_ragged: false,
                ragged_dims: Vec::new(),
                stored: dtype,
                scale: 1.0,
            });
        }
        return Ok(());
    };
    if (field.stored, &field.shape[..]) == (dtype, shape) {
        return Ok(());
    }
    if field.stored != dtype || field.shape.len() != shape.len() || unit == Unit::Row {
        return Err(differs(format!("is {dtype} {shape:?}")));
    }
    field.is_ragged = true;
    for (dim, (largest, &size)) in field.shape.iter_mut().zip(shape).enumerate() {
        if *largest != size && !field.ragged_dims.contains(&dim) {
            field.ragged_dims.push(dim);
        }
        *largest = size.max(*largest);
    }
    field.ragged_dims.sort_unstable();
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
