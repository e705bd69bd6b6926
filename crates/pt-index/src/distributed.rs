//! Distributed checkpoints: a folder with a plan, `.metadata`, and files of items, opened as one checkpoint.
//!
//! Every item is an archive that lies somewhere in a `.distcp` file. Its tensors become rows of that file, with positions in
//! the file itself. A tensor in several chunks is listed once as a whole, with the plan, and its chunks as parts named by their
//! place, such as `weight#[0, 4]`; [`Chunks`](crate::Chunks) finds them again.
//!
//! Source: `torch/distributed/checkpoint/filesystem.py`; [`pt_format::distributed`] reads the plan.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pt_format::distributed::{Content, Entry, Item, Metadata};
use pt_format::{Checkpoint, DType, Flags, Layout, Limits, PartKind, Source, Window};

use crate::builder::IndexBuilder;
use crate::chunks::name_of_chunk;
use crate::error::{Error, Result};
use crate::freshness::{Stamp, fingerprint_of_ends};
use crate::index::Index;
use crate::layout::*;
use crate::record::{Cell, Record, Scratch, leaf_of};
use crate::source::FileSource;
use crate::strings::number;
use crate::structure::Structure;

/// Name of the plan.
const METADATA: &str = ".metadata";

/// Returns whether a path is a folder with a distributed checkpoint.
///
/// ```
/// # use std::path::Path;
/// let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg"));
/// assert!(pt_index::is_distributed(&fixtures.join("dcp")) && !pt_index::is_distributed(fixtures));
/// ```
pub fn is_distributed(path: &Path) -> bool {
    path.join(METADATA).is_file()
}

/// Builds one index over all files of a distributed checkpoint. Paths are relative to the folder.
///
/// An item that cannot be read is listed with the reason and fails nothing else.
///
/// # Errors
/// [`Error::Metadata`] when the plan cannot be read, [`Error::Io`] when a file cannot.
///
/// ```
/// # use std::path::Path;
/// let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg/dcp"));
/// let index = pt_index::build_distributed(folder, &Default::default())?;
/// let tensor = index.find_tensor("w").unwrap();
/// assert_eq!((tensor.shape(), tensor.file().path()), (Some(&[2, 3][..]), "__0_0.distcp".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build_distributed(folder: &Path, limits: &Limits) -> Result<Index> {
    let path = folder.join(METADATA);
    let source = FileSource::open(&path)?;
    let plan =
        Metadata::parse(&source, limits).map_err(|source| Error::Metadata { path: path.clone(), source })?;
    let entries: HashMap<&str, &Entry> = plan.entries.iter().map(|entry| (&*entry.fqn, entry)).collect();
    let mut items: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in &plan.items {
        items.entry(&*item.file).or_default().push(item);
    }

    let mut builder = IndexBuilder::default();
    let mut wholes = Items::new(&path, &source)?;
    for entry in plan.entries.iter().filter(|entry| is_chunked(entry)) {
        wholes.add_whole(entry)?;
    }
    builder.add_record(METADATA, wholes.finish()?.shared(&mut Scratch::default()))?;
    for (file, mut items) in items {
        items.sort_by_key(|item| item.offset);
        let path = folder.join(file);
        let source = FileSource::open(&path)?;
        let mut rows = Items::new(&path, &source)?;
        for item in items {
            rows.add(item, entries.get(&*item.fqn).copied(), &source, limits)?;
        }
        builder.add_record(file, rows.finish()?.shared(&mut Scratch::default()))?;
    }
    builder.finish()
}

/// Whether a tensor lies in several chunks, or in one that is not all of it.
fn is_chunked(entry: &Entry) -> bool {
    match &entry.content {
        Content::Tensor { chunks, size, .. } => !matches!(&chunks[..], [only] if only.sizes == *size),
        _ => false,
    }
}

/// The rows of one file.
struct Items {
    record: Record,
}

impl Items {
    fn new(path: &Path, source: &FileSource) -> Result<Self> {
        let digest = fingerprint_of_ends(source).map_err(Error::io(path, "read"))?.digest;
        let mut structure = Structure { flags: FILE_IS_PART, ..Structure::default() };
        let root = NodeRow { key: 0, end: 1, target: NONE, kind: node::DICT, key_kind: key::NONE };
        structure.nodes.push(root);
        let stamp = Stamp::of(source.metadata());
        let record = Record { stamp, fingerprint: digest, structure, cells: Vec::new(), text: String::new() };
        Ok(Self { record })
    }

    fn finish(mut self) -> Result<Record> {
        let structure = &mut self.record.structure;
        structure.nodes[0].end = number(structure.nodes.len())?;
        structure.renumber_strings()?;
        Ok(self.record)
    }

    /// Adds what one item holds.
    fn add(
        &mut self,
        item: &Item,
        entry: Option<&Entry>,
        source: &FileSource,
        limits: &Limits,
    ) -> Result<()> {
        let (name, path) = name_of(item, entry);
        let problem = if item.transforms.is_empty() {
            match Window::new(source, item.offset, item.length) {
                None => format!(
                    "its {} bytes at {} run past the end of the file, which has {}",
                    item.length,
                    item.offset,
                    source.len()
                ),
                Some(window) => match Checkpoint::parse(&window, limits) {
                    Ok(checkpoint) => return self.add_checkpoint(&checkpoint, item, &name, &path, entry),
                    Err(error) => format!("its item at byte {} cannot be read: {error}", item.offset),
                },
            }
        } else {
            let transforms = item.transforms.join(", ");
            format!("it was written through {transforms}; save the checkpoint without that")
        };
        match entry.map(|entry| &entry.content) {
            Some(Content::Tensor { dtype, size, .. }) => {
                let part = entry.is_some_and(is_chunked);
                let shape = if part { None } else { Some(&size[..]) };
                let flags = if part { Flags::PART.bits() } else { 0 };
                self.add_described(&name, &path, *dtype, shape, Layout::Strided, flags, Some(&problem))
            }
            // What is no tensor is read from the file when it is asked for, and the reason is met then.
            _ => self.add_node(&name, node::OPAQUE, NONE),
        }
    }

    /// Adds the tensors of an item, and the object itself if it is a plain scalar.
    fn add_checkpoint(
        &mut self,
        checkpoint: &Checkpoint<'_>,
        item: &Item,
        name: &str,
        path: &[String],
        entry: Option<&Entry>,
    ) -> Result<()> {
        let structure = &mut self.record.structure;
        let (tensors, storages) = (structure.tensors.len(), structure.storages.len());
        for storage in checkpoint.storages() {
            structure.add_storage(storage)?;
        }
        for row in &mut structure.storages[storages..] {
            for offset in [&mut row.data_offset, &mut row.header_offset] {
                if *offset != NO_OFFSET {
                    *offset = offset.saturating_add(item.offset);
                }
            }
        }
        for tensor in checkpoint.tensors() {
            structure.add_tensor(tensor)?;
            let inner = tensor.path();
            let full = path.iter().map(String::as_str).chain(inner.iter().map(String::as_str));
            let own_name = match tensor.name() {
                "" => name.to_owned(),
                inner => format!("{name}.{inner}"),
            };
            let name = structure.strings.intern(&own_name)?;
            let place = structure.add_path(full)?;
            if let Some(row) = structure.tensors.last_mut() {
                row.name = name;
                (row.path, row.path_count) = place;
            }
        }
        let part = entry.is_some_and(is_chunked);
        for row in &mut structure.tensors[tensors..] {
            if row.storage != NONE {
                row.storage += storages as u32;
            }
            if row.alias_of != NONE {
                row.alias_of += tensors as u32;
            }
            if part {
                row.flags |= Flags::PART.bits();
            }
        }
        let root = checkpoint.structure().next();
        match root.map(|part| (part.kind, leaf_of(part.value))) {
            Some((PartKind::Tensor(tensor), _)) => {
                self.add_node(name, node::TENSOR, number(tensors + tensor)?)
            }
            Some((PartKind::Leaf, Some(leaf))) => {
                let record = &mut self.record;
                record.cells.push(Cell::new(leaf, &mut record.text));
                record.structure.columns.push(record.structure.strings.intern(name)?);
                let column = number(record.structure.columns.len() - 1)?;
                self.add_node(name, node::LEAF, column)
            }
            _ => self.add_node(name, node::OPAQUE, NONE),
        }
    }

    /// Adds a tensor that lies in chunks elsewhere.
    fn add_whole(&mut self, entry: &Entry) -> Result<()> {
        let Content::Tensor { dtype, size, requires_grad, .. } = &entry.content else { return Ok(()) };
        let flags = if *requires_grad { Flags::REQUIRES_GRAD.bits() } else { 0 };
        let path: Vec<String> = entry.path.iter().map(|part| part.to_string()).collect();
        self.add_described(&entry.fqn, &path, *dtype, Some(size), Layout::Chunked, flags, None)
    }

    /// Adds a tensor of which only the plan speaks.
    #[allow(clippy::too_many_arguments)] // They are the row.
    fn add_described(
        &mut self,
        name: &str,
        path: &[String],
        dtype: Option<DType>,
        shape: Option<&[u64]>,
        layout: Layout,
        flags: u16,
        fault: Option<&str>,
    ) -> Result<()> {
        let structure = &mut self.record.structure;
        let shape = shape.filter(|shape| shape.len() < usize::from(NO_RANK));
        let dims = number(structure.dims.len())?;
        structure.dims.extend(shape.into_iter().flatten());
        let (path, path_count) = structure.add_path(path.iter().map(String::as_str))?;
        let row = TensorRow {
            storage_offset: 0,
            name: structure.strings.intern(name)?,
            dims,
            storage: NONE,
            alias_of: NONE,
            quantizer: NONE,
            fault: structure.strings.intern_optional(fault)?,
            class: NONE,
            path,
            path_count,
            flags,
            rank: shape.map_or(NO_RANK, |shape| shape.len() as u8),
            dtype: dtype.map_or(NO_DTYPE, |dtype| dtype as u8),
            layout: layout as u8,
            has_stride: 0,
            varying: 0,
            varying_mask: 0,
        };
        structure.tensors.push(row);
        let tensor = number(structure.tensors.len() - 1)?;
        self.add_node(name, node::TENSOR, tensor)
    }

    fn add_node(&mut self, name: &str, kind: u32, target: u32) -> Result<()> {
        let structure = &mut self.record.structure;
        let key = structure.strings.intern(name)?.into();
        let end = number(structure.nodes.len() + 1)?;
        structure.nodes.push(NodeRow { key, end, target, kind, key_kind: key::STR });
        Ok(())
    }
}

/// Returns name and path of what an item holds.
fn name_of(item: &Item, entry: Option<&Entry>) -> (String, Vec<String>) {
    let mut name = item.fqn.to_string();
    let mut path: Vec<String> = match entry {
        Some(entry) => entry.path.iter().map(|part| part.to_string()).collect(),
        None => vec![name.clone()],
    };
    if let Some(offsets) = item.offsets.as_ref().filter(|_| entry.is_some_and(is_chunked)) {
        let chunk = name_of_chunk(&name, offsets);
        path.push(chunk[name.len()..].to_owned());
        name = chunk;
    }
    (name, path)
}
