//! The Rust half of `ptview.File`.

use std::path::PathBuf;
use std::sync::Arc;

use pt_format::Value;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::error::{Class, Result};
use crate::load::parse;
use crate::opened::Opened;
use crate::tensor::Tensor;
use crate::tree::{self, Leaves, Object};

/// An open checkpoint.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct OpenFile {
    opened: Arc<Opened>,
}

/// Opens a checkpoint.
#[pyfunction]
pub(crate) fn open_file(py: Python<'_>, path: PathBuf) -> Result<OpenFile> {
    let opened = py.detach(|| Opened::open(&path))?;
    Ok(OpenFile { opened: Arc::new(opened) })
}

#[pymethods]
impl OpenFile {
    fn __len__(&self) -> usize {
        self.opened.index().tensor_count()
    }

    /// The path it was opened by.
    #[getter]
    fn path(&self) -> std::ffi::OsString {
        self.opened.path().as_os_str().to_owned()
    }

    /// The data files.
    #[getter]
    fn files(&self) -> Vec<std::ffi::OsString> {
        self.opened.paths().into_iter().map(PathBuf::into_os_string).collect()
    }

    /// The names of all tensors, in file order.
    fn names<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyString>> {
        self.opened.tensors().map(|tensor| PyString::new(py, tensor.name())).collect()
    }

    /// The tensor with this name, or None.
    fn find(&self, name: &str) -> Option<Tensor> {
        let (file, number) = self.opened.find(name)?;
        Some(Tensor::new(self.opened.clone(), file, number))
    }

    /// The tensor with this name.
    fn get(&self, name: &str) -> Result<Tensor> {
        self.find(name).ok_or_else(|| Class::Missing.error(self.missing(name)))
    }

    /// The saved object, with :class:`ptview.Tensor` in the place of tensors.
    fn tree<'py>(&self, py: Python<'py>) -> Object<'py> {
        let file = self.opened.file(0)?;
        let path = self.opened.path_of(0);
        let checkpoint = py.detach(|| parse(&path, file.source()))?;
        tree::build(py, checkpoint.values(), &mut Handles { py, opened: &self.opened })
    }
}

impl OpenFile {
    fn missing(&self, name: &str) -> String {
        let count = self.opened.index().tensor_count();
        let common = |other: &str| {
            let start = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            start + name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count()
        };
        let nearest = self.opened.tensors().map(|tensor| tensor.name()).max_by_key(|other| common(other));
        let nearest = nearest.map_or_else(String::new, |nearest| format!(", such as `{nearest}`"));
        format!("no tensor `{name}`; there are {count}{nearest}")
    }
}

/// Tensors stay where they are; what only torch has becomes plain Python.
struct Handles<'py, 'o> {
    py: Python<'py>,
    opened: &'o Arc<Opened>,
}

impl<'py> Leaves<'py> for Handles<'py, '_> {
    fn parts<'c>(&self, _: pt_format::Tensor<'c>, _: Value<'c>) -> Vec<Value<'c>> {
        Vec::new()
    }

    fn tensor(
        &mut self,
        tensor: pt_format::Tensor<'_>,
        _: Value<'_>,
        _: Vec<Bound<'py, PyAny>>,
    ) -> Object<'py> {
        let handle = Tensor::new(self.opened.clone(), 0, tensor.index());
        Ok(Bound::new(self.py, handle)?.into_any())
    }

    fn takes_attributes(&self) -> bool {
        false
    }

    fn storage(&mut self, value: Value<'_>) -> Object<'py> {
        let class =
            value.storage().map_or_else(|| "torch.storage.UntypedStorage".into(), |storage| storage.class());
        Ok(self.py.import("ptview._opaque")?.getattr("Opaque")?.call1((class,))?)
    }

    fn dtype(&mut self, name: &str) -> Object<'py> {
        Ok(PyString::new(self.py, name).into_any())
    }

    fn device(&mut self, name: &str) -> Object<'py> {
        Ok(PyString::new(self.py, name).into_any())
    }

    fn size(&mut self, sizes: Bound<'py, PyTuple>) -> Object<'py> {
        Ok(sizes.into_any())
    }

    fn constant(&mut self, _: &str) -> Result<Option<Bound<'py, PyAny>>> {
        Ok(None)
    }
}
