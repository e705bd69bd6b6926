//! Whole `torch.save` files inside a pickle: `torch.storage._load_from_bytes(b"…")`, which is how `pickle.dump` writes a
//! storage since torch 0.4.
//!
//! Each call is turned into what newer files hold in its place, a persistent id, and its bytes are found where they stand
//! in the outer file; from there on everything goes the usual way.

use std::collections::HashMap;

use crate::checkpoint::ByteOrder;
use crate::container::{ArchiveRecords, File, Record};
use crate::error::Result;
use crate::fault::{Fault, shortened};
use crate::limits::Limits;
use crate::pickle::{Known, Node, NodeId, Raw, Tree, Written};
use crate::rebuild::storage::{Records, storage_class};

/// Storages that lie inside pickles.
#[derive(Debug, Default)]
pub(crate) struct Nested {
    /// By the tuple that is the persistent id.
    places: HashMap<NodeId, Place>,
    /// Calls of which nothing could be made.
    faults: HashMap<NodeId, Fault>,
}

/// Where a storage lies that no record of the container holds.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) record: Result<Record, Fault>,
    pub(crate) byte_order: ByteOrder,
}

impl Nested {
    /// Reads every nested file of a tree, and puts persistent ids in the place of the calls.
    pub(crate) fn resolve(tree: &mut Tree<'_>, limits: &Limits) -> Self {
        let faults = std::mem::take(&mut tree.broken).into_iter().collect();
        let mut nested = Self { places: HashMap::new(), faults };
        if !tree.globals.iter().any(|global| global.known == Known::LoadFromBytes) {
            return nested;
        }
        // A file that many calls share is read once.
        let mut read: HashMap<u64, Result<Raw, Fault>> = HashMap::new();
        for id in 0..tree.nodes.len() {
            let Node::Object { callable, args, .. } = tree.nodes[id] else { continue };
            if tree.known(callable) != Known::LoadFromBytes {
                continue;
            }
            let written = tree.args(args).first().and_then(|&bytes| Written::of(tree, bytes));
            let made = match written {
                None => Err(unreadable("it is not given as bytes".into())),
                Some(written) => match read.get(&written.text.start) {
                    Some(made) => made.clone(),
                    None => {
                        let made = storage(tree, &written, limits).map(|storage| nested.add(tree, storage));
                        read.insert(written.text.start, made.clone());
                        made
                    }
                },
            };
            match made {
                Ok(Raw::Node(storage)) => tree.nodes[id] = tree.nodes[storage as usize],
                Ok(_) => {}
                Err(fault) => drop(nested.faults.insert(id as NodeId, fault)),
            }
        }
        nested
    }

    /// Returns the place of the storage with this persistent id.
    pub(crate) fn place(&self, pid: Raw) -> Option<&Place> {
        match pid {
            Raw::Node(node) if !self.places.is_empty() => self.places.get(&node),
            _ => None,
        }
    }

    /// Returns why a call that should make a storage makes none.
    pub(crate) fn fault(&self, node: NodeId) -> Option<&Fault> {
        self.faults.get(&node)
    }

    /// Adds the persistent id of a storage to the tree.
    fn add(&mut self, tree: &mut Tree<'_>, storage: NestedStorage) -> Raw {
        let (module, name) = storage.class.rsplit_once('.').unwrap_or(("torch", &storage.class));
        let fields = [
            tree.keep_str("storage"),
            tree.add_global(module, name, Known::Storage),
            tree.keep_str(&storage.key),
            tree.keep_str(&storage.location),
            Raw::Int(storage.count),
        ];
        let id = tree.add_tuple(&fields);
        if let Raw::Node(id) = id {
            self.places.insert(id, storage.place);
        }
        tree.add_persistent(id)
    }
}

/// The one storage of a nested file.
struct NestedStorage {
    class: String,
    /// Unlike any other of the outer file: position of the nested one, and the key in it.
    key: String,
    location: String,
    count: i64,
    place: Place,
}

/// Reads a nested file.
fn storage(tree: &Tree<'_>, written: &Written, limits: &Limits) -> Result<NestedStorage, Fault> {
    let bytes = written.content(tree).ok_or_else(|| unreadable("its text does not decode".into()))?;
    let file = File::read(&bytes[..], limits).map_err(|error| unreadable(error.to_string()))?;
    let byte_order = file.byte_order();
    let found = |inner: &Tree<'_>, records: &dyn Records| {
        let root = inner.roots.first().and_then(|root| root.value.node()).map(|node| inner.node(node));
        let Some(Node::Persistent(id)) = root else {
            return Err(unreadable("it holds something else than one storage".into()));
        };
        let fields = inner.persistent_id(id).node().map(|node| inner.args(node)).unwrap_or_default();
        let &[_, Raw::Node(class), key, location, Raw::Int(count), ref view @ ..] = fields else {
            return Err(unreadable("its storage is not given by class, key, location and count".into()));
        };
        if view.first().is_some_and(|view| !matches!(view, Raw::None)) {
            return Err(unreadable("its storage is a part of another".into()));
        }
        let (_, itemsize) = storage_class(inner, class).map_err(|fault| unreadable(fault.to_string()))?;
        let key = inner.key_bytes(key).unwrap_or_default();
        let bytes = u64::try_from(count).ok().and_then(|count| count.checked_mul(itemsize));
        let bytes = bytes.ok_or_else(|| unreadable("the length of its storage is impossible".into()))?;
        let mut name = Vec::new();
        records.record_name(0, &key, &mut name);
        let record = records
            .find(&name)
            .ok_or_else(|| Fault::MissingRecord { record: String::from_utf8_lossy(&name).into_owned() });
        let record = record.and_then(|record| records.place(record, bytes));
        Ok(NestedStorage {
            class: inner.global_name(class).unwrap_or_default(),
            key: format!(
                "{}/{}",
                tree.file_offset(written.text).unwrap_or(written.text.start),
                String::from_utf8_lossy(&key)
            ),
            location: String::from_utf8_lossy(inner.str_bytes(location).unwrap_or_default()).into_owned(),
            count,
            place: Place { record: record.and_then(|record| outer(tree, written, record)), byte_order },
        })
    };
    match file {
        File::Legacy(legacy) => {
            let (inner, records) = legacy.into_parts();
            found(&inner, &records)
        }
        File::Pickles(archive, pickles) => {
            let (inner, folders) = pickles.run(limits).map_err(|error| unreadable(error.to_string()))?;
            found(&inner, &ArchiveRecords::new(&archive, folders))
        }
        file => Err(unreadable(format!("it is a file of {}", file.container()))),
    }
}

/// Finds a record of the nested file in the outer one.
fn outer(tree: &Tree<'_>, written: &Written, record: Record) -> Result<Record, Fault> {
    if written.encoding.is_none() {
        return Ok(record.moved(tree.file_offset(written.text)?));
    }
    if !record.is_stored() {
        return Err(unreadable("it is compressed, and written as text".into()));
    }
    let end = record.data_offset.saturating_add(record.bytes);
    let part = written.part(tree, record.data_offset, end);
    part.ok_or_else(|| unreadable("its storage leaves it".into()))?.record(tree, record.bytes)
}

/// Many calls may share one file, and each has the fault: what it quotes is kept short.
fn unreadable(problem: String) -> Fault {
    Fault::Nested { problem: shortened(&problem) }
}
