//! A file, or a checkpoint of several, as a mapping of names to tensors.

use std::path::PathBuf;
use std::sync::Arc;

use pt_view::{Mapping, OpenOptions};
use pyo3::prelude::*;

use crate::error::Result;
use crate::tensor::Tensor;

/// An open checkpoint: its tensors by name, none of them read.
#[pyclass(frozen, module = "ptview", mapping)]
pub(crate) struct File {
    mapping: Arc<Mapping>,
}

/// Opens a checkpoint.
#[pyfunction]
pub(crate) fn open(py: Python<'_>, path: PathBuf) -> Result<File> {
    let mapping = py.detach(|| Mapping::open_read(path, &OpenOptions::default()))?;
    Ok(File { mapping: Arc::new(mapping) })
}

#[pymethods]
impl File {
    fn __len__(&self) -> usize {
        self.mapping.index().tensor_count()
    }

    fn __getitem__(&self, name: &str) -> Result<Tensor> {
        let number = self.mapping.tensor(name)?.entry().number();
        Ok(Tensor::new(self.mapping.clone(), number))
    }

    fn __contains__(&self, name: &str) -> bool {
        self.mapping.tensor(name).is_ok()
    }

    /// The names of all tensors, in file order.
    fn keys(&self) -> Vec<String> {
        self.mapping.tensors().map(|tensor| tensor.name().to_owned()).collect()
    }
}
