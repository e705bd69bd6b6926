//! How the samples of a schema are built, as nested tuples that `ptview/_structure.py` makes functions of.
//!
//! `("t", field, kind)` a tensor: plain (0), with `requires_grad` (1), a parameter that has none (2) or has (3);
//! `("c", column)` a plain scalar; `("d", [(key, part)…], ordered)`, `("l", [part…])`, `("u", [part…])` containers;
//! `("o", [step…])` what is read from the pickle in the file, by the steps that lead to it: keys, and for a key that is neither
//! `str` nor `int` its `repr()` in a tuple.

use std::collections::HashSet;

use pt_format::Flags;
use pt_index::{FileEntry, Key, Node, NodeKind, Schema};
use pt_loader::DataSet;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString, PyTuple};

use crate::error::Result;

/// A container whose content is being collected.
struct Open<'i, 'py> {
    node: Node<'i>,
    number: usize,
    parts: Vec<Bound<'py, PyAny>>,
}

/// Builds the structure of the samples that files of a schema have; `None` where there is nothing of the keys that are selected.
pub(crate) fn of_schema<'py>(
    py: Python<'py>,
    data: &DataSet,
    schema: Schema<'_>,
) -> Result<Option<Bound<'py, PyAny>>> {
    let Some(file) = schema.files().next() else { return Ok(None) };
    let names = Names::new(data, schema);
    let nodes: Vec<Node<'_>> = schema.nodes().collect();
    let mut built: Vec<Option<Bound<'py, PyAny>>> = vec![None; nodes.len()];
    let mut open: Vec<Open<'_, 'py>> = Vec::new();
    let mut root = None;
    for number in 0..=nodes.len() {
        // What ends here goes into what is around it.
        while open.last().is_some_and(|container| container.node.end <= number || number == nodes.len()) {
            let Some(Open { node, number, parts }) = open.pop() else { break };
            // Without a part that is selected it would not be there.
            if parts.is_empty() && !names.all {
                continue;
            }
            let part = container(py, node, parts)?;
            built[number] = Some(part.clone());
            add(py, &mut open, &mut root, node, part)?;
        }
        let Some(&node) = nodes.get(number) else { break };
        let part = match node.kind {
            NodeKind::Dict | NodeKind::OrderedDict | NodeKind::List | NodeKind::Tuple => {
                open.push(Open { node, number, parts: Vec::new() });
                continue;
            }
            NodeKind::Tensor(tensor) => names.tensor(py, file, tensor)?,
            NodeKind::Leaf(leaf) => match names.columns.get(leaf).copied().flatten() {
                Some(column) => Some(("c", column).into_pyobject(py)?.into_any()),
                None => None,
            },
            // A container that holds itself is not built yet.
            NodeKind::Same(number) => built.get(number).cloned().flatten(),
            _ => None,
        };
        let part = match part {
            None if names.all => Some(("o", steps(py, &open, node)?).into_pyobject(py)?.into_any()),
            part => part,
        };
        if let Some(part) = part {
            built[number] = Some(part.clone());
            add(py, &mut open, &mut root, node, part)?;
        }
    }
    Ok(root)
}

/// Which tensors and scalars of a schema are the data set's.
struct Names<'d> {
    data: &'d DataSet,
    all: bool,
    columns: Vec<Option<usize>>,
}

impl<'d> Names<'d> {
    fn new(data: &'d DataSet, schema: Schema<'_>) -> Self {
        let mut seen = HashSet::new();
        let twice: HashSet<&str> =
            schema.columns().map(|column| column.name()).filter(|name| !seen.insert(*name)).collect();
        let number = |name: &str| match twice.contains(name) {
            true => None,
            false => data.columns().iter().position(|column| column == name),
        };
        let columns = schema.columns().map(|column| number(column.name())).collect();
        Self { data, all: data.options().keys.is_empty(), columns }
    }

    fn tensor<'py>(
        &self,
        py: Python<'py>,
        file: FileEntry<'_>,
        number: usize,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        let Some(tensor) = file.tensor_at(number) else { return Ok(None) };
        // A name that occurs twice is that of the first one.
        let is_first = file.tensor(tensor.name()).is_some_and(|first| first.number() == number);
        let field = self.data.fields().iter().position(|field| field.name == tensor.name());
        let Some(field) = field.filter(|_| is_first) else { return Ok(None) };
        let kind = match (tensor.flags().contains(Flags::PARAMETER), tensor.requires_grad()) {
            (false, requires_grad) => u8::from(requires_grad),
            (true, requires_grad) => 2 + u8::from(requires_grad),
        };
        Ok(Some(("t", field, kind).into_pyobject(py)?.into_any()))
    }
}

fn container<'py>(
    py: Python<'py>,
    node: Node<'_>,
    parts: Vec<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    let parts = PyList::new(py, parts)?;
    Ok(match node.kind {
        NodeKind::Dict => ("d", parts, false).into_pyobject(py)?.into_any(),
        NodeKind::OrderedDict => ("d", parts, true).into_pyobject(py)?.into_any(),
        NodeKind::List => ("l", parts).into_pyobject(py)?.into_any(),
        _ => ("u", parts).into_pyobject(py)?.into_any(),
    })
}

fn add<'i, 'py>(
    py: Python<'py>,
    open: &mut [Open<'i, 'py>],
    root: &mut Option<Bound<'py, PyAny>>,
    node: Node<'i>,
    part: Bound<'py, PyAny>,
) -> Result<()> {
    match open.last_mut() {
        None => *root = Some(part),
        Some(around) if matches!(around.node.kind, NodeKind::Dict | NodeKind::OrderedDict) => {
            around.parts.push((key(py, node)?, part).into_pyobject(py)?.into_any());
        }
        Some(around) => around.parts.push(part),
    }
    Ok(())
}

fn key<'py>(py: Python<'py>, node: Node<'_>) -> Result<Bound<'py, PyAny>> {
    Ok(match node.key {
        Some(Key::Str(text)) => PyString::new(py, text).into_any(),
        Some(Key::Int(number)) => PyInt::new(py, number).into_any(),
        Some(Key::Other(shown)) => PyTuple::new(py, [shown])?.into_any(),
        _ => py.None().into_bound(py),
    })
}

/// The steps that lead to a node whose containers are open.
fn steps<'py>(py: Python<'py>, open: &[Open<'_, 'py>], node: Node<'_>) -> Result<Bound<'py, PyList>> {
    let steps = PyList::empty(py);
    let below = open.iter().skip(1).map(|container| container.node).chain([node]);
    for (around, node) in open.iter().zip(below) {
        match around.node.kind {
            NodeKind::Dict | NodeKind::OrderedDict => steps.append(key(py, node)?)?,
            // With all keys selected, nothing before it was left out.
            _ => steps.append(around.parts.len())?,
        }
    }
    Ok(steps)
}
