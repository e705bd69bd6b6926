//! A batch: laid out, then read.

use std::sync::Arc;

use pt_index::Leaf;
use pt_loader::{BatchPlan, DataSet, Ragged};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::data::layout::Layout;
use crate::data::memory::{Lent, Memory, Pool};
use crate::data::threads::Threads;
use crate::error::Result;

/// A batch that is laid out: how large it is, and what lies where.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Plan {
    pub(crate) data: DataSet,
    pub(crate) ragged: Ragged,
    pub(crate) plan: Arc<BatchPlan>,
    pub(crate) pool: Arc<Pool>,
}

impl Plan {
    pub(crate) fn new(data: &DataSet, samples: &[usize], layout: &Layout, pool: &Arc<Pool>) -> Result<Self> {
        let mut plan = BatchPlan::default();
        data.plan_into(samples, layout.ragged, &mut plan)?;
        layout.check(&plan)?;
        Ok(Self { data: data.clone(), ragged: layout.ragged, plan: Arc::new(plan), pool: pool.clone() })
    }
}

#[pymethods]
impl Plan {
    fn __len__(&self) -> usize {
        self.plan.len()
    }

    /// Bytes the batch takes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.plan.bytes()
    }

    /// The numbers of its samples.
    #[getter]
    fn samples(&self) -> Vec<usize> {
        self.plan.samples().to_vec()
    }

    /// The schema of each sample.
    fn schemas(&self) -> Vec<usize> {
        let schema = |&sample: &usize| self.data.locate(sample).map_or(0, |(file, _)| file.schema().number());
        self.plan.samples().iter().map(schema).collect()
    }

    /// Of each field where it begins, its shape, the lengths of its samples, where they begin, and where its mask begins.
    fn fields<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyList>> {
        fields(py, &self.plan)
    }

    /// Of each plain scalar the values.
    fn columns<'py>(&self, py: Python<'py>) -> Result<Vec<Vec<Bound<'py, PyAny>>>> {
        let column = |column: &pt_loader::BatchColumn| {
            column.iter().map(|value| leaf(py, Some(value))).collect::<Result<Vec<_>>>()
        };
        self.plan.columns().iter().map(column).collect()
    }

    /// Reads the batch, and returns the memory it is in.
    #[pyo3(signature = (*, alone))]
    fn read(&self, py: Python<'_>, alone: bool) -> Result<Memory> {
        let bytes = self.plan.bytes();
        let mut buffer = self.pool.take(bytes)?;
        self.fill(py, buffer.as_mut_bytes(), alone)?;
        Ok(Memory::new(buffer, bytes, &self.pool))
    }

    /// Reads the batch into memory that nobody looks at yet.
    #[pyo3(signature = (memory, *, alone))]
    fn read_into(&self, py: Python<'_>, memory: &Bound<'_, PyAny>, alone: bool) -> Result<()> {
        self.fill(py, Lent::new(memory)?.as_mut_bytes(), alone)
    }
}

impl Plan {
    /// Reads on this thread alone, or on those that all data sets share.
    fn fill(&self, py: Python<'_>, memory: &mut [u8], alone: bool) -> Result<()> {
        if alone {
            return Ok(py.detach(|| self.plan.read_alone(memory))?);
        }
        let threads = Threads::shared(py)?;
        let pool = threads.pool()?;
        Ok(py.detach(|| self.plan.read_in_pool(memory, pool))?)
    }
}

/// What [`Plan::fields`] tells.
pub(crate) fn fields<'py>(py: Python<'py>, plan: &BatchPlan) -> Result<Bound<'py, PyList>> {
    let fields = PyList::empty(py);
    for field in plan.fields() {
        let shape = PyTuple::new(py, field.shape())?;
        let is_ragged = !field.offsets().is_empty();
        let lengths = is_ragged.then(|| field.lengths());
        let offsets = is_ragged.then(|| field.offsets());
        let mask_shape = PyTuple::new(py, field.mask_shape())?;
        let mask = field.mask_range().map(|range| (range.start, mask_shape));
        let sizes = field
            .field()
            .is_grid()
            .then(|| (0..plan.len()).map(|sample| field.sizes(sample)).collect::<Vec<_>>());
        fields.append((field.range().start, shape, lengths, offsets, mask, sizes))?;
    }
    Ok(fields)
}

/// A plain scalar as Python's.
pub(crate) fn leaf<'py>(py: Python<'py>, value: Option<Leaf<'_>>) -> Result<Bound<'py, PyAny>> {
    Ok(match value {
        Some(Leaf::Bool(value)) => PyBool::new(py, value).to_owned().into_any(),
        Some(Leaf::Int(value)) => PyInt::new(py, value).into_any(),
        Some(Leaf::Float(value)) => PyFloat::new(py, value).into_any(),
        Some(Leaf::Str(value)) => PyString::new(py, value).into_any(),
        _ => py.None().into_bound(py),
    })
}
