//! `ptview.load` of the folder of a distributed checkpoint: what its processes saved, put together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pt_format::distributed::{Content, Entry, Item, Metadata};
use pt_format::{Checkpoint, Limits, Source, Window};
use pt_index::FileSource;
use pt_view::FileBytes;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::error::{Class, Result};
use crate::load::{Loader, parsed};
use crate::opened::Opened;
use crate::tensor::Tensor;
use crate::tree::Object;

/// A value, where it stands, and whether it is a tensor by the plan.
type Placed<'py> = (Vec<Bound<'py, PyAny>>, Bound<'py, PyAny>, bool);

/// The values of a distributed checkpoint, each with its path: keys of dicts as `str`, positions in lists as `int`, none of
/// them larger than the number of values. `restore` brings the storages of objects where they belong, not those of tensors.
#[pyfunction]
pub(crate) fn load_distributed<'py>(
    py: Python<'py>,
    path: PathBuf,
    restore: Option<Bound<'py, PyAny>>,
) -> Result<Vec<Placed<'py>>> {
    let opened = Arc::new(py.detach(|| Opened::open(&path))?);
    let plan = py.detach(|| read_plan(&path))?;
    let mut items: HashMap<&str, &Item> = HashMap::new();
    for item in &plan.items {
        items.entry(&item.fqn).or_insert(item);
    }
    let mut values = Vec::with_capacity(plan.entries.len());
    for entry in &plan.entries {
        py.check_signals()?;
        let is_tensor = matches!(entry.content, Content::Tensor { .. });
        let value = match entry.content {
            Content::Tensor { .. } => tensor(py, &opened, entry)?,
            _ => {
                let item = items.get(&*entry.fqn).copied().ok_or_else(|| {
                    Class::Format.error(format!("{}: `{}` is nowhere stored", path.display(), entry.fqn))
                })?;
                object(py, &path, item, restore.as_ref())?
            }
        };
        values.push((steps(py, &path, entry, plan.entries.len())?, value, is_tensor));
    }
    Ok(values)
}

fn read_plan(folder: &Path) -> Result<Metadata> {
    let path = folder.join(".metadata");
    let source = FileSource::open(&path)?;
    let plan = Metadata::parse(&source, &Limits::default());
    Ok(plan.map_err(|source| pt_index::Error::Metadata { path, source })?)
}

fn tensor<'py>(py: Python<'py>, opened: &Arc<Opened>, entry: &Entry) -> Object<'py> {
    let found = opened.find(&entry.fqn);
    let (file, number) = found.ok_or_else(|| {
        let folder = opened.path().display();
        Class::Format.error(format!("{folder}: tensor `{}` is nowhere stored", entry.fqn))
    })?;
    Tensor::new(opened.clone(), file, number).torch(py)
}

/// Makes an object that is no tensor, of the archive it lies in.
fn object<'py>(
    py: Python<'py>,
    folder: &Path,
    item: &Item,
    restore: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let path = folder.join(&*item.file);
    if let Some(transform) = item.transforms.first() {
        let message = format!(
            "{}: `{}` was written through {transform}; save the checkpoint without that",
            path.display(),
            item.fqn
        );
        return Err(Class::Format.error(message));
    }
    let bytes = py.detach(|| -> Result<Option<Vec<u8>>> {
        let source = FileSource::open(&path)?;
        let Some(window) = Window::new(&source, item.offset, item.length) else { return Ok(None) };
        Ok(Some(window.read_at(0, item.length as usize)?.into_owned()))
    })?;
    let bytes =
        bytes.ok_or_else(|| Class::Format.error(format!("{}: the file was cut off", path.display())))?;
    let checkpoint = parsed(&path, Checkpoint::parse(&bytes, &Limits::default()))?;
    let mut loader = Loader::new(py, &path, FileBytes::new(&bytes), &checkpoint, None);
    loader.restore = restore.cloned();
    loader.value(checkpoint.values())
}

fn steps<'py>(py: Python<'py>, folder: &Path, entry: &Entry, count: usize) -> Result<Vec<Bound<'py, PyAny>>> {
    let step = |(part, &is_position): (&Arc<str>, &bool)| match is_position {
        false => Ok(part.into_bound_py_any(py)?),
        true => match part.parse::<usize>() {
            // Lists are made as long as their positions say.
            Ok(position) if position < count => Ok(position.into_bound_py_any(py)?),
            _ => Err(Class::Format.error(format!(
                "{}: `{}` stands at position {part} of a list, in a checkpoint of {count} values",
                folder.display(),
                entry.fqn
            ))),
        },
    };
    entry.path.iter().zip(&entry.positions).map(step).collect()
}
