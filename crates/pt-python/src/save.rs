//! `ptview.save`: Python objects to a `.pt` file.

use std::path::PathBuf;

use hashbrown::{HashMap, HashSet};
use pt_format::DType;
use pt_format::write::{self, Object, Options, Storage};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::error::{Class, Result};
use crate::export::Borrowed;

/// `torch.save` and pickle go no deeper either.
const DEPTH_MAX: usize = 900;

/// Writes an object to a file, whole or not at all.
#[pyfunction]
pub(crate) fn save(py: Python<'_>, object: &Bound<'_, PyAny>, path: PathBuf) -> Result<()> {
    let mut found = Found::default();
    walk(object, &mut |object, _| found.note(object))?;
    let storages: HashMap<usize, Storage<'_>> =
        found.buffers.iter().map(|(&key, buffer)| (key, Storage::new(buffer.bytes()))).collect();
    let mut written: Vec<Object<'_>> = Vec::new();
    walk(object, &mut |object, content| {
        let made = found.write(object, written.split_off(written.len() - content), &storages)?;
        written.push(made);
        Ok(())
    })?;
    let object = written.pop().unwrap_or(Object::None);
    let root = path.file_stem().map_or_else(|| "archive".into(), |stem| stem.to_string_lossy().into_owned());
    py.detach(|| {
        let mut failed = None;
        let saved = pt_index::write_atomic(&path, |file| {
            match write::write(file, &object, &Options::default().root(root)) {
                Ok(_) => Ok(()),
                Err(write::Error::Io(error)) => Err(error),
                Err(error) => {
                    failed = Some(error);
                    Err(std::io::ErrorKind::InvalidInput.into())
                }
            }
        });
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(saved?),
        }
    })
}

/// Calls a function with every object, content first: with so many objects directly in it.
fn walk<'py>(
    root: &Bound<'py, PyAny>,
    visit: &mut dyn FnMut(&Bound<'py, PyAny>, usize) -> Result<()>,
) -> Result<()> {
    enum Step<'py> {
        Enter(Bound<'py, PyAny>),
        Leave(Bound<'py, PyAny>, usize),
    }
    let mut steps = vec![Step::Enter(root.clone())];
    let mut above = HashSet::new();
    while let Some(step) = steps.pop() {
        match step {
            Step::Leave(object, count) => {
                above.remove(&(object.as_ptr() as usize));
                visit(&object, count)?;
            }
            Step::Enter(object) => {
                let content = content(&object)?;
                if content.is_empty() {
                    visit(&object, 0)?;
                    continue;
                }
                if !above.insert(object.as_ptr() as usize) {
                    return Err(Class::Error.error("the object contains itself"));
                }
                if above.len() > DEPTH_MAX {
                    return Err(
                        Class::Error.error(format!("the object is nested more than {DEPTH_MAX} deep"))
                    );
                }
                steps.push(Step::Leave(object, content.len()));
                steps.extend(content.into_iter().rev().map(Step::Enter));
            }
        }
    }
    Ok(())
}

/// The objects directly in a container; keys and values of a dict in turn.
fn content<'py>(object: &Bound<'py, PyAny>) -> Result<Vec<Bound<'py, PyAny>>> {
    if let Ok(dict) = object.cast::<PyDict>() {
        return Ok(dict.iter().flat_map(|(key, value)| [key, value]).collect());
    }
    if let Ok(list) = object.cast::<PyList>() {
        return Ok(list.iter().collect());
    }
    match object.cast::<PyTuple>() {
        Ok(tuple) => Ok(tuple.iter().collect()),
        Err(_) => Ok(Vec::new()),
    }
}

fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    object.is_none()
        || object.is_instance_of::<PyBool>()
        || object.is_instance_of::<PyInt>()
        || object.is_instance_of::<PyFloat>()
        || object.is_instance_of::<PyString>()
        || object.is_instance_of::<PyDict>()
        || object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>()
}

/// The tensors of an object, and the bytes they look into.
#[derive(Default)]
struct Found {
    tensors: HashMap<usize, Described>,
    /// By the address of what holds them.
    buffers: HashMap<usize, Borrowed>,
}

/// What `ptview/_save.py` says of a tensor.
#[derive(FromPyObject)]
struct Described {
    #[pyo3(item)]
    key: usize,
    #[pyo3(item)]
    dtype: String,
    #[pyo3(item)]
    shape: Vec<u64>,
    #[pyo3(item)]
    stride: Vec<u64>,
    #[pyo3(item)]
    offset: u64,
    #[pyo3(item)]
    requires_grad: bool,
    #[pyo3(item)]
    parameter: bool,
}

impl Found {
    /// Notes a tensor, and borrows its bytes.
    fn note(&mut self, object: &Bound<'_, PyAny>) -> Result<()> {
        static DESCRIBE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let identity = object.as_ptr() as usize;
        if is_plain(object) || self.tensors.contains_key(&identity) {
            return Ok(());
        }
        let py = object.py();
        let described = DESCRIBE.import(py, "ptview._save", "describe")?.call1((object,))?;
        let tensor: Described = described.extract()?;
        if !self.buffers.contains_key(&tensor.key) {
            let buffer = Borrowed::new(&described.get_item("buffer")?)?;
            self.buffers.insert(tensor.key, buffer);
        }
        self.tensors.insert(identity, tensor);
        Ok(())
    }

    fn write<'a>(
        &self,
        object: &Bound<'_, PyAny>,
        content: Vec<Object<'a>>,
        storages: &HashMap<usize, Storage<'a>>,
    ) -> Result<Object<'a>> {
        if let Some(tensor) = self.tensors.get(&(object.as_ptr() as usize)) {
            return tensor.write(storages);
        }
        Ok(if object.is_none() {
            Object::None
        } else if let Ok(value) = object.cast::<PyBool>() {
            Object::Bool(value.is_true())
        } else if object.is_instance_of::<PyInt>() {
            let too_large = |_| Class::Error.error("an int does not fit into 64 bits");
            Object::Int(object.extract().map_err(too_large)?)
        } else if object.is_instance_of::<PyFloat>() {
            Object::Float(object.extract()?)
        } else if object.is_instance_of::<PyString>() {
            let surrogates = |_| Class::Error.error("a str with lone surrogates cannot be written");
            Object::Str(object.extract::<String>().map_err(surrogates)?.into())
        } else if object.is_instance_of::<PyDict>() {
            let mut pairs = Vec::with_capacity(content.len() / 2);
            let mut content = content.into_iter();
            while let (Some(key), Some(value)) = (content.next(), content.next()) {
                pairs.push((key, value));
            }
            Object::Dict(pairs)
        } else if object.is_instance_of::<PyList>() {
            Object::List(content)
        } else if object.is_instance_of::<PyTuple>() {
            Object::Tuple(content)
        } else {
            return Err(PyTypeError::new_err("the object changed while it was saved").into());
        })
    }
}

impl Described {
    fn write<'a>(&self, storages: &HashMap<usize, Storage<'a>>) -> Result<Object<'a>> {
        let dtype = DType::from_name(&self.dtype);
        let dtype = dtype.ok_or_else(|| Class::Error.error(format!("{} cannot be written", self.dtype)))?;
        let storage = storages.get(&self.key).ok_or_else(|| Class::Error.error("no storage"))?;
        let tensor = write::Tensor::strided(dtype, &self.shape, &self.stride, self.offset, storage)?;
        let tensor = tensor.requires_grad(self.requires_grad);
        Ok(if self.parameter { tensor.parameter() } else { tensor }.into())
    }
}
