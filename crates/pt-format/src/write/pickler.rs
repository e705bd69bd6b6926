//! The object as a protocol 2 pickle, with storages as persistent ids, in the form `torch.save` writes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::geometry;
use crate::pickle::opcode as op;
use crate::strided::copy_strided;
use crate::write::object::{Content, Object, Storage, Tensor};
use crate::write::{Error, Result};

/// Python's pickler sets items in batches of this many.
const BATCH: usize = 1000;

/// A pickle and the storages it refers to, by number.
pub(crate) struct Pickled<'o> {
    pub(crate) pickle: Vec<u8>,
    pub(crate) storages: Vec<Written<'o>>,
}

/// The bytes of one storage.
pub(crate) enum Written<'o> {
    Bytes(Cow<'o, [u8]>),
    Zeros(u64),
}

impl Written<'_> {
    pub(crate) fn nbytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(bytes) => *bytes,
        }
    }
}

pub(crate) fn pickle<'o>(root: &'o Object<'_>) -> Result<Pickled<'o>> {
    let mut pickler = Pickler {
        out: vec![op::PROTO, 2],
        memo: HashMap::new(),
        uses: count_uses(root),
        numbers: HashMap::new(),
        storages: Vec::new(),
    };
    let mut tasks = vec![Task::Object(root)];
    while let Some(task) = tasks.pop() {
        match task {
            Task::Opcode(opcode) => pickler.out.push(opcode),
            Task::Object(object) => pickler.object(object, &mut tasks)?,
        }
    }
    pickler.out.push(op::STOP);
    Ok(Pickled { pickle: pickler.out, storages: pickler.storages })
}

/// What is left to write, last first.
enum Task<'o, 'a> {
    Object(&'o Object<'a>),
    Opcode(u8),
}

struct Pickler<'o> {
    out: Vec<u8>,
    /// Globals and strings that come again and again.
    memo: HashMap<Cow<'static, str>, u32>,
    /// How many tensors look into each storage.
    uses: HashMap<usize, usize>,
    numbers: HashMap<usize, usize>,
    storages: Vec<Written<'o>>,
}

fn address(storage: &Storage<'_>) -> usize {
    Arc::as_ptr(&storage.0).cast::<()>() as usize
}

fn count_uses(root: &Object<'_>) -> HashMap<usize, usize> {
    let mut uses = HashMap::new();
    let mut todo = vec![root];
    while let Some(object) = todo.pop() {
        match object {
            Object::Tensor(tensor) => *uses.entry(address(&tensor.storage)).or_insert(0) += 1,
            Object::List(items) | Object::Tuple(items) => todo.extend(items),
            Object::Dict(pairs) => todo.extend(pairs.iter().flat_map(|(key, value)| [key, value])),
            _ => {}
        }
    }
    uses
}

impl<'o> Pickler<'o> {
    fn object<'a>(&mut self, object: &'o Object<'a>, tasks: &mut Vec<Task<'o, 'a>>) -> Result<()> {
        match object {
            Object::None => self.out.push(op::NONE),
            Object::Bool(true) => self.out.push(op::NEWTRUE),
            Object::Bool(false) => self.out.push(op::NEWFALSE),
            Object::Int(value) => self.int(*value),
            Object::Float(value) => {
                self.out.push(op::BINFLOAT);
                self.out.extend_from_slice(&value.to_be_bytes());
            }
            Object::Str(text) => self.str(text)?,
            Object::Tuple(items) => {
                self.out.push(op::MARK);
                tasks.push(Task::Opcode(op::TUPLE));
                tasks.extend(items.iter().rev().map(Task::Object));
            }
            Object::List(items) => {
                self.out.push(op::EMPTY_LIST);
                for batch in items.chunks(BATCH).rev() {
                    tasks.push(Task::Opcode(op::APPENDS));
                    tasks.extend(batch.iter().rev().map(Task::Object));
                    tasks.push(Task::Opcode(op::MARK));
                }
            }
            Object::Dict(pairs) => {
                self.out.push(op::EMPTY_DICT);
                for batch in pairs.chunks(BATCH).rev() {
                    tasks.push(Task::Opcode(op::SETITEMS));
                    tasks.extend(batch.iter().rev().flat_map(|(k, v)| [Task::Object(v), Task::Object(k)]));
                    tasks.push(Task::Opcode(op::MARK));
                }
            }
            Object::Tensor(tensor) => self.tensor(tensor)?,
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &'o Tensor<'_>) -> Result<()> {
        if tensor.parameter {
            self.global("torch._utils", "_rebuild_parameter");
            self.out.push(op::MARK);
        }
        // dtypes without a storage class of their own look into untyped bytes.
        let class = tensor.dtype.storage_class();
        self.global(
            "torch._utils",
            if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" },
        );
        self.out.push(op::MARK);

        let (key, contiguous) = self.storage(tensor);
        let bytes = self.storages[key].nbytes();
        self.out.push(op::MARK);
        self.memoized_str("storage");
        let itemsize = tensor.dtype.itemsize() as u64;
        match &class {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.str(&key.to_string())?;
        self.memoized_str("cpu");
        self.count(if class.is_some() { bytes / itemsize } else { bytes })?;
        self.out.extend_from_slice(&[op::TUPLE, op::BINPERSID]);

        self.count(if contiguous { 0 } else { tensor.storage_offset })?;
        self.counts(&tensor.shape)?;
        match contiguous {
            true => self.counts(&geometry::contiguous_stride(&tensor.shape))?,
            false => self.counts(&tensor.stride)?,
        }
        self.out.push(if tensor.requires_grad && !tensor.parameter { op::NEWTRUE } else { op::NEWFALSE });
        self.no_hooks();
        if class.is_none() {
            self.global("torch", tensor.dtype.name());
        }
        self.out.extend_from_slice(&[op::TUPLE, op::REDUCE]);
        if tensor.parameter {
            self.out.push(if tensor.requires_grad { op::NEWTRUE } else { op::NEWFALSE });
            self.no_hooks();
            self.out.extend_from_slice(&[op::TUPLE, op::REDUCE]);
        }
        Ok(())
    }

    fn no_hooks(&mut self) {
        self.global("collections", "OrderedDict");
        self.out.extend_from_slice(&[op::EMPTY_TUPLE, op::REDUCE]);
    }

    /// Returns the number of a tensor's storage, and whether the tensor is written as contiguous from its start.
    fn storage(&mut self, tensor: &'o Tensor<'_>) -> (usize, bool) {
        let address = address(&tensor.storage);
        if self.uses[&address] > 1 {
            if let Some(&number) = self.numbers.get(&address) {
                return (number, false);
            }
            self.numbers.insert(address, self.storages.len());
            self.storages.push(whole(&tensor.storage));
            return (self.storages.len() - 1, false);
        }
        self.storages.push(own_elements(tensor));
        (self.storages.len() - 1, true)
    }

    fn counts(&mut self, counts: &[u64]) -> Result<()> {
        self.out.push(op::MARK);
        counts.iter().try_for_each(|&count| self.count(count))?;
        self.out.push(op::TUPLE);
        Ok(())
    }

    fn count(&mut self, count: u64) -> Result<()> {
        let count =
            i64::try_from(count).map_err(|_| Error::Options(format!("{count} does not fit into 63 bits")))?;
        self.int(count);
        Ok(())
    }

    fn int(&mut self, value: i64) {
        if let Ok(value) = u8::try_from(value) {
            self.out.extend_from_slice(&[op::BININT1, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.out.push(op::BININT2);
            self.out.extend_from_slice(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.out.push(op::BININT);
            self.out.extend_from_slice(&value.to_le_bytes());
        } else {
            self.out.extend_from_slice(&[op::LONG1, 8]);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn str(&mut self, text: &str) -> Result<()> {
        let length =
            u32::try_from(text.len()).map_err(|_| Error::Options("a string is longer than 4 GiB".into()))?;
        self.out.push(op::BINUNICODE);
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn memoized_str(&mut self, text: &'static str) {
        if self.recall(text) {
            return;
        }
        self.out.push(op::BINUNICODE);
        self.out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.memoize(Cow::Borrowed(text));
    }

    fn global(&mut self, module: &str, name: &str) {
        let line = format!("{module}\n{name}\n");
        if self.recall(&line) {
            return;
        }
        self.out.push(op::GLOBAL);
        self.out.extend_from_slice(line.as_bytes());
        self.memoize(Cow::Owned(line));
    }

    fn recall(&mut self, key: &str) -> bool {
        let Some(&index) = self.memo.get(key) else { return false };
        // No file has more than 256 different globals.
        self.out.extend_from_slice(&[op::BINGET, index as u8]);
        true
    }

    fn memoize(&mut self, key: Cow<'static, str>) {
        let index = self.memo.len() as u32;
        if index <= u32::from(u8::MAX) {
            self.out.extend_from_slice(&[op::BINPUT, index as u8]);
            self.memo.insert(key, index);
        }
    }
}

fn whole<'o>(storage: &'o Storage<'_>) -> Written<'o> {
    match &*storage.0 {
        Content::Bytes(bytes) => Written::Bytes(Cow::Borrowed(bytes)),
        Content::Zeros(bytes) => Written::Zeros(*bytes),
    }
}

/// The elements of a tensor in row-major order: borrowed where they lie so, else gathered.
fn own_elements<'o>(tensor: &'o Tensor<'_>) -> Written<'o> {
    let itemsize = tensor.dtype.itemsize();
    let numel = geometry::numel(&tensor.shape).unwrap_or(0) as usize;
    let bytes = match &*tensor.storage.0 {
        Content::Zeros(_) => return Written::Zeros((numel * itemsize) as u64),
        Content::Bytes(bytes) => bytes,
    };
    if numel == 0 {
        return Written::Bytes(Cow::Borrowed(&[]));
    }
    let start = tensor.storage_offset as usize * itemsize;
    if geometry::is_contiguous(&tensor.shape, &tensor.stride) {
        return Written::Bytes(Cow::Borrowed(&bytes[start..start + numel * itemsize]));
    }
    let mut gathered = vec![0; numel * itemsize];
    copy_strided(&bytes[start..], &tensor.shape, &tensor.stride, itemsize, &mut gathered);
    Written::Bytes(Cow::Owned(gathered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn a_tensor_of_its_own_is_written_contiguous_and_alone() {
        let storage = Storage::new((0u8..12).collect::<Vec<_>>());
        let column = Tensor::strided(DType::UInt8, &[3], &[4], 1, &storage).unwrap();
        let object = Object::Tensor(column);
        let pickled = pickle(&object).unwrap();
        let [Written::Bytes(bytes)] = &pickled.storages[..] else { panic!("one storage") };
        assert_eq!(bytes[..], [1, 5, 9]);
    }

    #[test]
    fn shared_storages_are_written_once_and_whole() {
        let storage = Storage::new(vec![0u8; 12]);
        let part = |offset| Tensor::strided(DType::UInt8, &[3], &[4], offset, &storage).unwrap().into();
        let object = Object::list([part(0), part(1)]);
        assert_eq!(pickle(&object).unwrap().storages.len(), 1);
    }
}
