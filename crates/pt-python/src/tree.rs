//! The values of a checkpoint as Python objects.
//!
//! A file chooses how deep its values nest, so nothing here recurses. What can be changed after it was made (lists, dicts,
//! opaque objects) is made empty at first and filled later, which is also how cycles are closed; what cannot (tuples, frozen
//! sets, tensors of several parts) is made after its content, with a stack.

use std::borrow::Cow;

use hashbrown::HashMap;
use pt_format::{Kind, Tensor, Value};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyByteArray, PyBytes, PyComplex, PyDict, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};

use crate::error::{Class, Error, Result};

/// Signals are looked for after so many objects.
const SIGNALS_EVERY: usize = 1 << 12;

/// Makes what differs between `ptview.load`, which gives torch's objects, and the tree of `ptview.open`, which gives its own.
pub(crate) trait Leaves<'py> {
    /// Returns what a tensor is made of besides its bytes; it is asked for first.
    fn parts<'c>(&self, tensor: Tensor<'c>, value: Value<'c>) -> Vec<Value<'c>>;
    /// Makes a tensor, given its parts.
    fn tensor(&mut self, tensor: Tensor<'_>, value: Value<'_>, parts: Vec<Bound<'py, PyAny>>) -> Object<'py>;
    /// Returns whether tensors take the attributes that were saved with them.
    fn takes_attributes(&self) -> bool;
    /// Makes a storage that was saved without a tensor.
    fn storage(&mut self, value: Value<'_>) -> Object<'py>;
    /// Makes a `torch.dtype`, by its name without `torch.`.
    fn dtype(&mut self, name: &str) -> Object<'py>;
    /// Makes a `torch.device`.
    fn device(&mut self, name: &str) -> Object<'py>;
    /// Makes a `torch.Size`.
    fn size(&mut self, sizes: Bound<'py, PyTuple>) -> Object<'py>;
    /// Makes another constant of torch, such as `torch.strided`, if it is one.
    fn constant(&mut self, name: &str) -> Result<Option<Bound<'py, PyAny>>>;
}

pub(crate) type Object<'py> = Result<Bound<'py, PyAny>>;

/// Makes a value, and everything in it.
pub(crate) fn build<'py>(py: Python<'py>, root: Value<'_>, leaves: &mut dyn Leaves<'py>) -> Object<'py> {
    let mut builder = Builder { py, leaves, made: HashMap::new(), to_fill: Vec::new(), steps: 0 };
    let object = builder.make(root)?;
    while let Some((value, object)) = builder.to_fill.pop() {
        builder.fill(value, &object)?;
    }
    Ok(object)
}

struct Builder<'py, 'c, 'l> {
    py: Python<'py>,
    leaves: &'l mut dyn Leaves<'py>,
    /// Objects by the identity of their values; none for those whose content is being made.
    made: HashMap<u32, Option<Bound<'py, PyAny>>>,
    to_fill: Vec<(Value<'c>, Bound<'py, PyAny>)>,
    steps: usize,
}

enum Step<'c> {
    Make(Value<'c>),
    /// All content is made: so many objects.
    Finish(Value<'c>, usize),
}

impl<'py, 'c> Builder<'py, 'c, '_> {
    fn make(&mut self, value: Value<'c>) -> Object<'py> {
        if let Some(object) = self.at_once(value)? {
            return Ok(object);
        }
        let mut steps = vec![Step::Make(value)];
        let mut made: Vec<Bound<'py, PyAny>> = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Make(value) => match self.at_once(value)? {
                    Some(object) => made.push(object),
                    None => {
                        let content = self.content(value);
                        self.remember(value, None);
                        steps.push(Step::Finish(value, content.len()));
                        steps.extend(content.into_iter().rev().map(Step::Make));
                    }
                },
                Step::Finish(value, count) => {
                    let content = made.split_off(made.len() - count);
                    let object = self.finish(value, content)?;
                    self.remember(value, Some(object.clone()));
                    self.fill_tensor_later(value, &object);
                    made.push(object);
                }
            }
        }
        Ok(made.remove(0))
    }

    fn remember(&mut self, value: Value<'c>, object: Option<Bound<'py, PyAny>>) {
        if let Some(identity) = value.identity() {
            self.made.insert(identity, object);
        }
    }

    /// Makes what needs no content: scalars, what was made before, and containers, which are filled later.
    fn at_once(&mut self, value: Value<'c>) -> Result<Option<Bound<'py, PyAny>>> {
        self.steps += 1;
        if self.steps.is_multiple_of(SIGNALS_EVERY) {
            self.py.check_signals()?;
        }
        if let Some(scalar) = self.scalar(value)? {
            return Ok(Some(scalar));
        }
        if let Some(known) = value.identity().and_then(|identity| self.made.get(&identity)) {
            let in_itself = || Class::Format.error("a tuple or tensor of the file contains itself");
            return Ok(Some(known.clone().ok_or_else(in_itself)?));
        }
        let object = match value.kind() {
            Kind::Tensor => return self.simple_tensor(value),
            Kind::List => PyList::empty(self.py).into_any(),
            Kind::Set => PySet::empty(self.py)?.into_any(),
            Kind::Dict => PyDict::new(self.py).into_any(),
            Kind::OrderedDict => self.of_collections(&ORDERED_DICT, "OrderedDict")?.call0()?,
            Kind::Opaque => match self.known_object(value)? {
                Some(object) => object,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.remember(value, Some(object.clone()));
        self.to_fill.push((value, object.clone()));
        Ok(Some(object))
    }

    fn scalar(&mut self, value: Value<'c>) -> Result<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        Ok(Some(match value.kind() {
            Kind::None => py.None().into_bound(py),
            Kind::Bool => value.as_bool().into_bound_py_any(py)?,
            Kind::Int => match value.as_i64() {
                Some(value) => value.into_bound_py_any(py)?,
                None => big_int(py, value.as_int_bytes().unwrap_or_default())?,
            },
            Kind::Float => value.as_f64().into_bound_py_any(py)?,
            Kind::Str => string(py, value)?,
            _ => return Ok(None),
        }))
    }

    fn simple_tensor(&mut self, value: Value<'c>) -> Result<Option<Bound<'py, PyAny>>> {
        let Some(tensor) = value.as_tensor() else { return Ok(None) };
        if !self.leaves.parts(tensor, value).is_empty() {
            return Ok(None);
        }
        let object = self.leaves.tensor(tensor, value, Vec::new())?;
        self.remember(value, Some(object.clone()));
        self.fill_tensor_later(value, &object);
        Ok(Some(object))
    }

    fn fill_tensor_later(&mut self, value: Value<'c>, object: &Bound<'py, PyAny>) {
        if self.leaves.takes_attributes() && value.as_tensor().is_some_and(|tensor| tensor.state().is_some())
        {
            self.to_fill.push((value, object.clone()));
        }
    }

    /// Objects that are made by calling their class, of classes that do nothing but hold values; else an opaque one.
    fn known_object(&mut self, value: Value<'c>) -> Result<Option<Bound<'py, PyAny>>> {
        let class = value.class().unwrap_or_default();
        match class.as_str() {
            "collections.Counter" => Ok(Some(self.of_collections(&COUNTER, "Counter")?.call0()?)),
            "collections.defaultdict" => {
                let factory = value.args().next().map(|factory| factory.as_global());
                let builtin = match factory {
                    None => Some(self.py.None().into_bound(self.py)),
                    Some(None) => None,
                    Some(Some(name)) => match name.strip_prefix("builtins.") {
                        Some(
                            name @ ("list" | "dict" | "set" | "int" | "float" | "str" | "bool" | "tuple"),
                        ) => Some(self.py.import("builtins")?.getattr(name)?),
                        _ => None,
                    },
                };
                match builtin {
                    Some(factory) => {
                        Ok(Some(self.of_collections(&DEFAULT_DICT, "defaultdict")?.call1((factory,))?))
                    }
                    None => self.opaque(&class).map(Some),
                }
            }
            "torch.serialization._get_layout" => {
                let name = value.args().next().and_then(Value::as_str).unwrap_or_default();
                match self.leaves.constant(name)? {
                    Some(constant) => Ok(Some(constant)),
                    None => self.opaque(&class).map(Some),
                }
            }
            _ => self.opaque(&class).map(Some),
        }
    }

    fn opaque(&self, class: &str) -> Object<'py> {
        static OPAQUE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        Ok(OPAQUE.import(self.py, "ptview._opaque", "Opaque")?.call1((class,))?)
    }

    fn of_collections(
        &self,
        class: &'static PyOnceLock<Py<PyType>>,
        name: &str,
    ) -> PyResult<&'py Bound<'py, PyType>> {
        class.import(self.py, "collections", name)
    }

    /// What must be there before a value can be made.
    fn content(&self, value: Value<'c>) -> Vec<Value<'c>> {
        match value.kind() {
            Kind::Tuple | Kind::FrozenSet | Kind::Size => value.items().collect(),
            Kind::Slice | Kind::Range | Kind::Complex => value.args().collect(),
            Kind::Tensor => {
                value.as_tensor().map_or_else(Vec::new, |tensor| self.leaves.parts(tensor, value))
            }
            _ => Vec::new(),
        }
    }

    fn finish(&mut self, value: Value<'c>, content: Vec<Bound<'py, PyAny>>) -> Object<'py> {
        let py = self.py;
        Ok(match value.kind() {
            Kind::Tuple => PyTuple::new(py, content)?.into_any(),
            Kind::FrozenSet => PyFrozenSet::new(py, content).map_err(|error| self.refused(error))?.into_any(),
            Kind::Size => self.leaves.size(PyTuple::new(py, content)?)?,
            Kind::Slice => py.import("builtins")?.getattr("slice")?.call1(PyTuple::new(py, content)?)?,
            Kind::Range => py.import("builtins")?.getattr("range")?.call1(PyTuple::new(py, content)?)?,
            Kind::Complex => match value.as_complex() {
                Some((real, imaginary)) => PyComplex::from_doubles(py, real, imaginary).into_any(),
                None => py.import("builtins")?.getattr("complex")?.call1(PyTuple::new(py, content)?)?,
            },
            Kind::Bytes => PyBytes::new(py, &value.as_bytes().unwrap_or_default()).into_any(),
            Kind::ByteArray => PyByteArray::new(py, &value.as_bytes().unwrap_or_default()).into_any(),
            Kind::DType => self.leaves.dtype(&value.as_dtype_name().unwrap_or_default())?,
            Kind::Device => self.leaves.device(&value.as_device().unwrap_or_default())?,
            Kind::Storage => self.leaves.storage(value)?,
            Kind::Tensor => {
                let tensor = value.as_tensor().ok_or_else(|| Class::Tensor.error("no tensor"))?;
                self.leaves.tensor(tensor, value, content)?
            }
            Kind::Global => {
                let name = value.as_global().unwrap_or_default();
                let constant =
                    name.strip_prefix("torch.").map(|name| self.leaves.constant(name)).transpose()?;
                match constant.flatten() {
                    Some(constant) => constant,
                    None => self.opaque(&name)?,
                }
            }
            _ => {
                return Err(
                    Class::Format.error(format!("the file holds a value that is not understood: {value:?}"))
                );
            }
        })
    }

    /// What Python does not take, such as a list as a key, is the file's fault.
    fn refused(&self, error: PyErr) -> Error {
        Class::Format.error(format!("the file holds what Python cannot: {}", error.value(self.py)))
    }

    /// Puts the content into a container.
    fn fill(&mut self, value: Value<'c>, object: &Bound<'py, PyAny>) -> Result<()> {
        match value.kind() {
            Kind::List => {
                let list = object.cast::<PyList>().map_err(PyErr::from)?;
                for item in value.items() {
                    list.append(self.make(item)?)?;
                }
            }
            Kind::Set => {
                let set = object.cast::<PySet>().map_err(PyErr::from)?;
                for item in value.items() {
                    set.add(self.make(item)?).map_err(|error| self.refused(error))?;
                }
            }
            Kind::Dict | Kind::OrderedDict => self.fill_dict(value, object)?,
            Kind::Tensor if object.hasattr("_fill")? => {
                // Of a class that is not loaded.
                for state in value.states() {
                    object.setattr("state", self.make(state)?)?;
                }
            }
            Kind::Tensor => {
                for (name, attribute) in value.attributes() {
                    let attribute = self.make(attribute)?;
                    if let Some(name) = name.as_str() {
                        object.getattr("__dict__")?.set_item(name, attribute)?;
                    }
                }
            }
            _ if object.is_instance_of::<PyDict>() => {
                // A Counter is called with a dict.
                for arg in value.args().filter(|arg| arg.kind() == Kind::Dict) {
                    self.fill_dict(arg, object)?;
                }
                self.fill_dict(value, object)?;
            }
            _ if object.hasattr("_fill")? => self.fill_opaque(value, object)?,
            _ => {}
        }
        Ok(())
    }

    fn fill_dict(&mut self, value: Value<'c>, object: &Bound<'py, PyAny>) -> Result<()> {
        let dict = object.cast::<PyDict>().map_err(PyErr::from)?;
        // An OrderedDict keeps an order of its own, which `PyDict_SetItem` would pass by.
        let is_plain = dict.is_exact_instance_of::<PyDict>();
        for (key, item) in value.entries() {
            let (key, item) = (self.make(key)?, self.make(item)?);
            let set = match is_plain {
                true => dict.set_item(key, item),
                false => object.set_item(key, item),
            };
            set.map_err(|error| self.refused(error))?;
        }
        if value.kind() == Kind::OrderedDict {
            for (name, attribute) in value.attributes() {
                let attribute = self.make(attribute)?;
                if let Some(name) = name.as_str() {
                    object.setattr(name, attribute)?;
                }
            }
        }
        Ok(())
    }

    fn fill_opaque(&mut self, value: Value<'c>, object: &Bound<'py, PyAny>) -> Result<()> {
        let args: Vec<_> = value.args().map(|arg| self.make(arg)).collect::<Result<_>>()?;
        let states: Vec<_> = value.states().map(|state| self.make(state)).collect::<Result<_>>()?;
        let items: Vec<_> = value.items().map(|item| self.make(item)).collect::<Result<_>>()?;
        let entries: Vec<_> = value
            .entries()
            .map(|(key, item)| Ok((self.make(key)?, self.make(item)?)))
            .collect::<Result<_>>()?;
        object.call_method1("_fill", (PyTuple::new(self.py, args)?, states, items, entries))?;
        Ok(())
    }
}

static ORDERED_DICT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static COUNTER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DEFAULT_DICT: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn string<'py>(py: Python<'py>, value: Value<'_>) -> Object<'py> {
    if let Some(text) = value.as_str() {
        return Ok(PyString::new(py, text).into_any());
    }
    // Lone surrogates.
    let bytes = PyBytes::new(py, value.as_str_bytes().unwrap_or_default());
    let decoded = bytes.call_method1("decode", ("utf-8", "surrogatepass"));
    decoded.map_err(|error| {
        Class::Format.error(format!("the file holds a string that is none: {}", error.value(py)))
    })
}

fn big_int<'py>(py: Python<'py>, bytes: Cow<'_, [u8]>) -> Object<'py> {
    let options = PyDict::new(py);
    options.set_item("signed", true)?;
    let int = py.get_type::<PyInt>();
    Ok(int.call_method("from_bytes", (PyBytes::new(py, &bytes), "little"), Some(&options))?)
}
