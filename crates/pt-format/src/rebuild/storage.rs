//! Persistent ids to storages.

use std::collections::HashMap;

use crate::checkpoint::ByteOrder;
use crate::container::Record;
use crate::dtype::DType;
use crate::fault::Fault;
use crate::pickle::{Encoding, Known, Node, NodeId, Raw, Text, Tree, read_numbers};
use crate::rebuild::nested::{Nested, Place};
use crate::tensor::{StorageName, StorageRow};

/// Bytes of opcodes looked at for lists of numbers, as a multiple of the pickle: lists may be looked at as parts of others.
const NUMBERS_LOOKED_AT: u64 = 64;

/// Where the bytes of storages lie.
pub(crate) trait Records {
    /// Returns how many records there are.
    fn count(&self) -> usize;
    /// Writes the full name of the record that holds the storage with this key, as the pickle with this number means it.
    fn record_name(&self, root: usize, key: &[u8], name: &mut Vec<u8>);
    /// Finds a record.
    fn find(&self, name: &[u8]) -> Option<usize>;
    /// Returns whether this record is surely the one that [`Self::find`] would find for a key. A shortcut: writers number
    /// storages as they meet them and mostly write them in that order.
    fn is_record_of(&self, _record: usize, _root: usize, _key: &[u8]) -> bool {
        false
    }
    /// Returns the place of a record whose decoded length must be `bytes`.
    fn place(&self, index: usize, bytes: u64) -> Result<Record, Fault>;
}

/// The storages met so far, by key.
pub(crate) struct StorageTable<'r> {
    records: &'r dyn Records,
    /// Number of the pickle whose persistent ids are met.
    pub(crate) root: usize,
    /// Of the storages of that pickle, where it may be another than the file's.
    pub(crate) byte_order: Option<ByteOrder>,
    /// They may have been left out.
    pub(crate) is_hollow: bool,
    /// By number of the record: its storage, or [`UNUSED`].
    by_record: Vec<u32>,
    /// The record behind the one found last.
    next_record: usize,
    /// The class met last: most files have one.
    class: Option<(NodeId, StorageClass)>,
    missing: HashMap<Vec<u8>, u32>,
    nested: &'r Nested,
    /// Storages that no persistent id names, by the object they belong to or are.
    buffers: HashMap<NodeId, u32>,
    /// Shapes of lists of numbers, beside their storages.
    numbers: HashMap<(NodeId, DType), (u32, Vec<u64>)>,
    numbers_left: Option<u64>,
    /// Parts of storages, by the whole and their own key.
    views: HashMap<(u32, Vec<u8>), u32>,
    rows: Vec<StorageRow>,
    /// Name of the record looked for last.
    name: Vec<u8>,
}

const UNUSED: u32 = u32::MAX;

/// A storage as one persistent id sees it.
pub(crate) struct StorageUse {
    pub(crate) index: u32,
    pub(crate) bytes: u64,
    /// dtype of a typed storage class.
    pub(crate) dtype: Option<DType>,
    /// Of its bytes, where that is not the file's.
    pub(crate) byte_order: Option<ByteOrder>,
}

impl<'r> StorageTable<'r> {
    pub(crate) fn new(records: &'r dyn Records, nested: &'r Nested) -> Self {
        Self {
            records,
            nested,
            buffers: HashMap::new(),
            numbers: HashMap::new(),
            numbers_left: None,
            root: 0,
            byte_order: None,
            is_hollow: false,
            by_record: Vec::new(),
            next_record: 0,
            class: None,
            missing: HashMap::new(),
            views: HashMap::new(),
            rows: Vec::new(),
            name: Vec::new(),
        }
    }

    pub(crate) fn into_rows(self) -> Vec<StorageRow> {
        self.rows
    }

    /// Returns the storage a persistent id names: `("storage", class, key, location, element count)`, and perhaps, in
    /// legacy files, `(view key, offset, view element count)`, a part of that storage which is one of its own.
    pub(crate) fn storage(&mut self, tree: &Tree<'_>, pid: Raw) -> Result<StorageUse, Fault> {
        let root = self.whole(tree, pid)?;
        let fields = pid.node().map(|node| tree.args(node)).unwrap_or_default();
        match fields.get(5) {
            Some(&view) if !matches!(view, Raw::None) => self.view(tree, pid, view, root),
            _ => Ok(root),
        }
    }

    fn view(&mut self, tree: &Tree<'_>, pid: Raw, view: Raw, root: StorageUse) -> Result<StorageUse, Fault> {
        let malformed = |problem| Fault::Malformed { what: "the storage view in its persistent id", problem };
        let fields = view.node().map(|node| tree.args(node)).unwrap_or_default();
        let &[key, offset, numel] = fields else { return Err(malformed("not (key, offset, element count)")) };
        let key = tree.key_bytes(key).ok_or_else(|| malformed("without a key"))?.into_owned();
        let itemsize = root.dtype.map_or(1, |dtype| dtype.itemsize() as u64);
        let in_bytes = |value, what| {
            let count = count(tree, value, what)?;
            count.checked_mul(itemsize).ok_or(Fault::Overflow { what })
        };
        let offset = in_bytes(offset, "storage view offset")?;
        let bytes = in_bytes(numel, "storage view element count")?;
        let end = offset.checked_add(bytes).ok_or(Fault::Overflow { what: "storage view" })?;
        if end > root.bytes {
            return Err(Fault::OutOfStorage { needs: end, has: root.bytes });
        }
        let next = self.rows.len() as u32;
        let index = *self.views.entry((root.index, key)).or_insert(next);
        if index == next {
            let whole = &self.rows[root.index as usize];
            let record = whole.record.map(|record| Record::plain(record.data_offset + offset, bytes));
            let row = StorageRow { name: StorageName::Id(pid), bytes, record, fault: whole.fault.clone() };
            self.rows.push(row);
        }
        // A view met again must be the same part.
        let row = &self.rows[index as usize];
        let start = self.rows[root.index as usize].record.map(|record| record.data_offset + offset);
        if row.bytes != bytes || row.record.map(|record| record.data_offset) != start {
            return Err(malformed("unlike an earlier one with its key"));
        }
        Ok(StorageUse { index, bytes, ..root })
    }

    /// The storage a persistent id names, views aside.
    fn whole(&mut self, tree: &Tree<'_>, pid: Raw) -> Result<StorageUse, Fault> {
        let malformed = |problem| Fault::Malformed { what: "the persistent id of its storage", problem };
        let fields = pid.node().map(|node| tree.args(node)).unwrap_or_default();
        let &[_, class, key, _, numel, ..] = fields else { return Err(malformed("shorter than 5 fields")) };
        let class = class.node().ok_or_else(|| malformed("without a class"))?;
        let numel = count(tree, numel, "storage element count")?;
        let (dtype, itemsize) = match self.class {
            Some((known, meaning)) if known == class => meaning,
            _ => storage_class(tree, class)?,
        };
        self.class = Some((class, (dtype, itemsize)));
        let bytes = numel.checked_mul(itemsize).ok_or(Fault::Overflow { what: "storage length" })?;
        let key_bytes = tree.key_bytes(key);
        let key_bytes = key_bytes.ok_or_else(|| malformed("without a key that is text or integer"))?;

        if let Some(place) = self.nested.place(pid) {
            return Ok(self.nested(pid, place, bytes, dtype));
        }
        let record = self.find(&key_bytes);
        if self.by_record.is_empty() {
            self.by_record.resize(self.records.count(), UNUSED);
            self.rows.reserve(self.records.count());
        }
        let known = match record {
            Some(record) => Some(self.by_record[record]).filter(|&index| index != UNUSED),
            None => self.missing.get(&self.name).copied(),
        };
        if let Some(index) = known {
            let row = &mut self.rows[index as usize];
            if row.bytes != bytes && row.fault.is_none() {
                row.fault = Some(Box::new(Fault::StorageLengths { first: row.bytes, second: bytes }));
            }
            return Ok(StorageUse { index, bytes, dtype, byte_order: self.byte_order });
        }
        let index = self.rows.len() as u32;
        let mut row = StorageRow { name: StorageName::Id(pid), bytes, record: None, fault: None };
        match record {
            Some(record) => {
                self.by_record[record] = index;
                match self.records.place(record, bytes) {
                    Ok(record) => row.record = Some(record),
                    Err(fault) => {
                        let record = String::from_utf8_lossy(self.name(&key_bytes)).into_owned();
                        row.fault = Some(Box::new(Fault::Record { record, fault: Box::new(fault) }));
                    }
                }
            }
            None => {
                let name = self.name(&key_bytes).to_vec();
                let record = String::from_utf8_lossy(&name).into_owned();
                self.missing.insert(name, index);
                row.fault = Some(Box::new(Fault::MissingRecord { record }));
            }
        }
        self.rows.push(row);
        Ok(StorageUse { index, bytes, dtype, byte_order: self.byte_order })
    }

    /// Returns whether a storage was left out: there is a record for it, but without bytes.
    pub(crate) fn is_left_out(&self, index: u32) -> bool {
        let fault = self.rows[index as usize].fault.as_deref();
        let fault = if let Some(Fault::Record { fault, .. }) = fault { Some(&**fault) } else { fault };
        self.is_hollow && matches!(fault, Some(Fault::RecordLength { record: 0, .. }))
    }

    /// Returns why a call that should make a storage of a nested file makes none.
    pub(crate) fn nested_fault(&self, node: NodeId) -> Option<Fault> {
        self.nested.fault(node).cloned()
    }

    /// A storage whose place is known already.
    fn nested(&mut self, pid: Raw, place: &Place, bytes: u64, dtype: Option<DType>) -> StorageUse {
        let next = self.rows.len() as u32;
        let index = match pid {
            Raw::Node(node) => *self.buffers.entry(node).or_insert(next),
            _ => next,
        };
        if index == next {
            self.push(StorageName::Id(pid), place.record.clone(), bytes);
        }
        StorageUse { index, bytes, dtype, byte_order: Some(place.byte_order) }
    }

    /// Adds the storage of an object that holds its own bytes, and returns its number.
    pub(crate) fn buffer(
        &mut self,
        node: NodeId,
        record: Result<Record, Fault>,
        bytes: u64,
        numel: u64,
    ) -> u32 {
        let next = self.rows.len() as u32;
        let index = *self.buffers.entry(node).or_insert(next);
        if index == next {
            self.push(StorageName::Buffer { numel }, record, bytes);
        }
        index
    }

    fn push(&mut self, name: StorageName, record: Result<Record, Fault>, bytes: u64) {
        let (record, fault) = match record {
            Ok(record) => (Some(record), None),
            Err(fault) => (None, Some(Box::new(fault))),
        };
        self.rows.push(StorageRow { name, bytes, record, fault });
    }

    /// Returns the storage that a list of numbers is, and the shape of the list.
    pub(crate) fn numbers(
        &mut self,
        tree: &Tree<'_>,
        list: NodeId,
        dtype: DType,
    ) -> Result<(StorageUse, &[u64]), Fault> {
        let itemsize = dtype.itemsize() as u64;
        let key = (list, dtype);
        if !self.numbers.contains_key(&key) {
            let malformed = || Fault::Malformed { what: "its content", problem: "no list of numbers" };
            let start = tree.list_start(list).ok_or_else(malformed)?;
            let all = tree.text.len() as u64;
            let left = self.numbers_left.get_or_insert(all.saturating_mul(NUMBERS_LOOKED_AT));
            let opcodes = tree.text.get(start as usize..).unwrap_or_default();
            let opcodes = &opcodes[..opcodes.len().min(*left as usize)];
            let mut content = Vec::new();
            let numbers = read_numbers(opcodes, dtype, &mut content);
            let length = numbers.as_ref().map_or(opcodes.len(), |numbers| numbers.length);
            *left = left.saturating_sub(length as u64 + 1);
            let numbers = numbers.ok_or_else(malformed)?;
            // Whatever was put into the list later is elsewhere.
            if tree.element_count(Raw::Node(list)) as u64 != numbers.shape[0] {
                return Err(malformed());
            }
            let bytes = content.len() as u64;
            let record = match bytes {
                0 => Ok(Record::plain(0, 0)),
                _ => tree.file_offset(Text { start, length: 0 }).map(|offset| {
                    Record::written(offset, length as u64, bytes, Encoding::Numbers(dtype).method())
                }),
            };
            self.push(StorageName::Buffer { numel: bytes / itemsize }, record, bytes);
            self.numbers.insert(key, (self.rows.len() as u32 - 1, numbers.shape));
        }
        let (index, shape) = &self.numbers[&key];
        let bytes = self.rows[*index as usize].bytes;
        let found =
            StorageUse { index: *index, bytes, dtype: Some(dtype), byte_order: Some(ByteOrder::Little) };
        Ok((found, shape))
    }

    /// Finds the record of a key. Its name is in `name` where there is none.
    fn find(&mut self, key: &[u8]) -> Option<usize> {
        let record = match self.records.is_record_of(self.next_record, self.root, key) {
            true => self.next_record,
            false => self.records.find(self.name(key))?,
        };
        self.next_record = record + 1;
        Some(record)
    }

    /// Returns the full name of the record of a key, whether there is one or not.
    fn name(&mut self, key: &[u8]) -> &[u8] {
        self.name.clear();
        self.records.record_name(self.root, key, &mut self.name);
        &self.name
    }
}

/// What a storage class says: a dtype, unless it is untyped, and the bytes of each element it counts.
type StorageClass = (Option<DType>, u64);

/// Returns what a storage class says.
pub(crate) fn storage_class(tree: &Tree<'_>, class: NodeId) -> Result<StorageClass, Fault> {
    let unknown = || Fault::UnknownStorageClass { class: tree.global_name(class).unwrap_or_default() };
    let global = tree.global(class).filter(|global| global.known == Known::Storage).ok_or_else(unknown)?;
    match tree.bytes(global.name) {
        b"UntypedStorage" | b"_UntypedStorage" => Ok((None, 1)),
        name => {
            let name = std::str::from_utf8(name).unwrap_or_default();
            let dtype = DType::from_storage_class(name).ok_or_else(unknown)?;
            Ok((Some(dtype), dtype.itemsize() as u64))
        }
    }
}

/// Reads a count from the pickle: a non-negative integer of at most 63 bits.
pub(crate) fn count(tree: &Tree<'_>, value: Raw, what: &'static str) -> Result<u64, Fault> {
    match value {
        Raw::Int(value) => u64::try_from(value).map_err(|_| Fault::Negative { what, value }),
        Raw::Node(node) if matches!(tree.node(node), Node::BigInt { .. }) => Err(Fault::Overflow { what }),
        _ => Err(Fault::Malformed { what, problem: "not an integer" }),
    }
}
