//! `ptview.load`: the object in a file, with torch's own tensors over the file's bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dlpark::ffi::DLDataType;
use pt_format::{
    ByteOrder, Checkpoint, DType, Flags, Kind, Layout, Limits, Quantizer, Source, Storage, Tensor, Value,
    geometry,
};
use pt_index::FileSource;
use pt_view::{CheckedRecords, FileBytes};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::error::{Class, Error, Result};
use crate::export::{Memory, Region};
use crate::opened::memory_of;
use crate::tree::{self, Leaves, Object};
use crate::{dtype, numpy, torch};

/// A file, parsed, and where the bytes of its storages are.
pub(crate) struct Loader<'c, 'py> {
    py: Python<'py>,
    path: &'c Path,
    file: FileBytes<'c>,
    checkpoint: &'c Checkpoint<'c>,
    /// The file itself; none where each storage is to be copied.
    mapped: Option<Mapped<'c>>,
    storages: Vec<Known<'py>>,
    /// torch's function that brings a storage where it belongs; none where that is the CPU in any case.
    pub(crate) restore: Option<Bound<'py, PyAny>>,
}

/// What is known of a storage by now.
#[derive(Default)]
struct Known<'py> {
    /// Tensors that look into it.
    uses: u32,
    region: Option<Region>,
    torch: Option<Bound<'py, PyAny>>,
}

/// Loads the object in a file.
#[pyfunction]
#[pyo3(signature = (path, restore, everywhere, mmap))]
pub(crate) fn load<'py>(
    py: Python<'py>,
    path: PathBuf,
    restore: Option<Bound<'py, PyAny>>,
    everywhere: bool,
    mmap: bool,
) -> Object<'py> {
    let source = py.detach(|| FileSource::open(&path))?;
    let checkpoint = py.detach(|| parse(&path, &source))?;
    let memory = if mmap { Some(Arc::new(memory_of(&source)?)) } else { None };
    // Whoever loads a file mostly wants all of it.
    memory.iter().for_each(|memory| memory.read_ahead());
    let mapped = memory.map(|memory| Mapped::new(memory, &source));
    let checked = CheckedRecords::new(0);
    let mut loader = Loader::new(py, &path, FileBytes::read(&source, &checked), &checkpoint, mapped);
    // Most files were saved from the CPU, where nothing is to be done.
    let moves = everywhere || checkpoint.storages().any(|storage| storage.location() != "cpu");
    loader.restore = restore.filter(|_| moves);
    loader.value(checkpoint.values())
}

pub(crate) fn parse<'s>(path: &Path, source: &'s FileSource) -> Result<Checkpoint<'s>> {
    parsed(path, Checkpoint::parse(source, &Limits::default()))
}

/// Names the file in the error, if there is one.
pub(crate) fn parsed<T>(path: &Path, parsed: pt_format::Result<T>) -> Result<T> {
    Ok(parsed.map_err(|source| pt_index::Error::File { path: path.to_owned(), source })?)
}

impl<'c, 'py> Loader<'c, 'py> {
    pub(crate) fn new(
        py: Python<'py>,
        path: &'c Path,
        file: FileBytes<'c>,
        checkpoint: &'c Checkpoint<'c>,
        mapped: Option<Mapped<'c>>,
    ) -> Self {
        let mut storages: Vec<Known<'py>> = Vec::new();
        storages.resize_with(checkpoint.storages().len(), Known::default);
        for storage in
            checkpoint.tensors().filter(|tensor| tensor.alias_of().is_none()).filter_map(|t| t.storage())
        {
            storages[storage.index()].uses += 1;
        }
        Self { py, path, file, checkpoint, mapped, storages, restore: None }
    }

    /// Makes one value of the file.
    pub(crate) fn value(&mut self, value: Value<'c>) -> Object<'py> {
        tree::build(self.py, value, self)
    }

    /// Brings the bytes of a storage into memory: those of the file where they can be used as they lie there.
    fn region(&mut self, storage: Storage<'_>, dtype: DType) -> Result<&Region> {
        let index = storage.index();
        if self.storages[index].region.is_none() {
            let region = match self.in_file(storage, dtype)? {
                Some(region) => region,
                None => self.copied(storage, dtype)?,
            };
            self.storages[index].region = Some(region);
        }
        self.storages[index].region.as_ref().ok_or_else(|| Class::Error.error("no storage"))
    }

    fn in_file(&self, storage: Storage<'_>, dtype: DType) -> Result<Option<Region>> {
        let (Some(Mapped { memory, headers }), Some(record)) = (&self.mapped, storage.record()) else {
            return Ok(None);
        };
        let native =
            self.checkpoint.byte_order() == ByteOrder::Little || self.swapped_width(storage, dtype) == 1;
        if !record.is_stored() || !native {
            return Ok(None);
        }
        record.verify(headers).map_err(pt_view::Obstacle::from)?;
        let region = Region::new(memory.clone(), record.data_offset, record.bytes);
        let region = region.ok_or_else(|| self.error("the file was cut off"))?;
        Ok(Some(region).filter(|region| region.is_aligned(dtype.alignment())))
    }

    fn copied(&self, storage: Storage<'_>, dtype: DType) -> Result<Region> {
        let Some(record) = storage.record() else {
            return Ok(Region::whole(Memory::owned(0, |_| Ok::<_, Error>(()))?));
        };
        let width = match self.checkpoint.byte_order() {
            ByteOrder::Big => self.swapped_width(storage, dtype),
            ByteOrder::Little => 1,
        };
        let file = self.file;
        let memory = self.py.detach(|| -> Result<Memory> {
            Memory::owned(file.check_record(&record)?, |out| {
                file.read_record(&record, out)?;
                swap(out, width);
                Ok::<_, pt_view::Obstacle>(())
            })
        })?;
        Ok(Region::whole(memory))
    }

    /// Bytes of the numbers in a storage: as its class says, else as the tensor that looks into it does.
    fn swapped_width(&self, storage: Storage<'_>, dtype: DType) -> usize {
        let class = storage.class();
        let class = class.rsplit('.').next().and_then(DType::from_storage_class);
        class.unwrap_or(dtype).alignment()
    }

    /// Makes a storage torch's, once.
    fn storage_of(&mut self, storage: Storage<'_>, dtype: DType) -> Object<'py> {
        let index = storage.index();
        if let Some(known) = &self.storages[index].torch {
            return Ok(known.clone());
        }
        let py = self.py;
        let made = torch::storage(py, self.region(storage, dtype)?)?;
        let made = match &self.restore {
            Some(restore) => restore.call1((made, storage.location()))?,
            None => made,
        };
        self.storages[index].torch = Some(made.clone());
        Ok(made)
    }

    /// Makes the tensor itself, without what Python knows of it.
    fn elements(&mut self, tensor: Tensor<'_>, parts: &Bound<'py, PyDict>) -> Object<'py> {
        let py = self.py;
        if tensor.layout() != Layout::Strided {
            return self.composite(tensor, parts);
        }
        let (Some(dtype), Some(shape), Some(stride)) = (tensor.dtype(), tensor.shape(), tensor.stride())
        else {
            return Err(self.tensor_error(tensor, "its dtype or shape is unknown"));
        };
        if tensor.flags().contains(Flags::META) {
            static META: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let sizes = (PyTuple::new(py, shape)?, PyTuple::new(py, stride)?);
            let dtype = dtype::to_torch(py, dtype)?;
            return Ok(torch::helper(py, &META, "meta")?.call1((dtype, sizes.0, sizes.1))?);
        }
        let Some(storage) = tensor.storage() else {
            return Err(self.tensor_error(tensor, "it has no storage"));
        };
        if let Some(quantizer) = tensor.quantizer() {
            return self.quantized(tensor, storage, dtype, quantizer, parts);
        }
        if let Some(in_dlpack) = self.alone(tensor, storage, dtype, shape, stride) {
            let region = self.region(storage, dtype)?;
            return torch::in_dlpack(py, region, in_dlpack, shape, stride);
        }
        let storage = self.storage_of(storage, dtype)?;
        torch::window(py, &storage, dtype, tensor.storage_offset(), shape, stride)
    }

    /// Returns the dtype in DLPack's words of a tensor that has its storage to itself, all of it: those are made faster.
    fn alone(
        &self,
        tensor: Tensor<'_>,
        storage: Storage<'_>,
        dtype: DType,
        shape: &[u64],
        stride: &[u64],
    ) -> Option<DLDataType> {
        let known = &self.storages[storage.index()];
        if known.uses != 1 || known.torch.is_some() || self.restore.is_some() || tensor.storage_offset() != 0
        {
            return None;
        }
        let bytes = geometry::extent(shape, stride)?.checked_mul(dtype.itemsize() as u64)?;
        dtype::to_any_torch(dtype).filter(|_| bytes > 0 && bytes == storage.nbytes())
    }

    fn quantized(
        &mut self,
        tensor: Tensor<'_>,
        storage: Storage<'_>,
        dtype: DType,
        quantizer: &Quantizer,
        parts: &Bound<'py, PyDict>,
    ) -> Object<'py> {
        static QUANTIZED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = self.py;
        let storage = self.storage_of(storage, dtype)?;
        let info = PyDict::new(py);
        match quantizer {
            Quantizer::PerTensor { scheme, scale, zero_point } => {
                info.set_item("scheme", scheme)?;
                info.set_item("scale", scale)?;
                info.set_item("zero_point", zero_point)?;
            }
            Quantizer::PerChannel { scheme, axis } => {
                info.set_item("scheme", scheme)?;
                info.set_item("axis", axis)?;
                info.set_item("scales", parts.get_item("#scales")?)?;
                info.set_item("zero_points", parts.get_item("#zero_points")?)?;
            }
            _ => return Err(self.tensor_error(tensor, "its quantizer is unknown")),
        }
        let shape = PyTuple::new(py, tensor.shape().unwrap_or_default())?;
        let stride = PyTuple::new(py, tensor.stride().unwrap_or_default())?;
        let args = (storage, dtype::to_torch(py, dtype)?, tensor.storage_offset(), shape, stride, info);
        Ok(torch::helper(py, &QUANTIZED, "quantized")?.call1(args)?)
    }

    fn composite(&mut self, tensor: Tensor<'_>, parts: &Bound<'py, PyDict>) -> Object<'py> {
        static COMPOSITE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = self.py;
        let shape = tensor.shape().map(|shape| PyTuple::new(py, shape)).transpose()?;
        let made = torch::helper(py, &COMPOSITE, "composite")?.call1((
            tensor.layout().name(),
            tensor.class(),
            shape,
            parts,
            tensor.is_coalesced(),
        ))?;
        Ok(made)
    }

    /// Says of a tensor what Python knows of it: parameter, gradient, lazy bits, attributes, subclass.
    fn dressed(&mut self, tensor: Tensor<'_>, made: Bound<'py, PyAny>) -> Object<'py> {
        static DRESSED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let flags = tensor.flags();
        let lazy = flags.contains(Flags::CONJ) || flags.contains(Flags::NEG);
        let plain = !lazy && !flags.contains(Flags::PARAMETER);
        let class = tensor.class().filter(|_| tensor.layout() != Layout::NestedJagged);
        if plain && class.is_none() {
            if tensor.requires_grad() {
                made.call_method1("requires_grad_", (true,))?;
            }
            return Ok(made);
        }
        let bits = (flags.contains(Flags::CONJ), flags.contains(Flags::NEG));
        let is_parameter = flags.contains(Flags::PARAMETER);
        let args = (made, class, is_parameter, tensor.requires_grad(), bits.0, bits.1);
        Ok(torch::helper(self.py, &DRESSED, "dressed")?.call1(args)?)
    }

    fn array(&mut self, tensor: Tensor<'_>, value: Value<'_>) -> Object<'py> {
        let (Some(dtype), Some(shape), Some(stride), Some(storage)) =
            (tensor.dtype(), tensor.shape(), tensor.stride(), tensor.storage())
        else {
            return Err(self.tensor_error(tensor, "it is an array of a kind that is not read"));
        };
        let swapped = tensor.flags().contains(Flags::SWAPPED);
        let big_endian = (self.checkpoint.byte_order() == ByteOrder::Big) != swapped;
        let py = self.py;
        // Arrays say their byte order themselves, whatever that of the file.
        let region = match self.in_file(storage, DType::UInt8)? {
            Some(region) => region,
            None => self.copied(storage, DType::UInt8)?,
        };
        let array = numpy::array(py, region, dtype, big_endian, tensor.storage_offset(), shape, stride)?;
        let is_scalar = value.class().is_some_and(|class| class.ends_with("multiarray.scalar"));
        Ok(if is_scalar { array.get_item(())? } else { array })
    }

    fn error(&self, what: &str) -> Error {
        Class::Format.error(format!("{}: {what}", self.path.display()))
    }

    fn tensor_error(&self, tensor: Tensor<'_>, what: impl std::fmt::Display) -> Error {
        let name = match tensor.name() {
            "" => "the tensor at the root".to_owned(),
            name => format!("tensor `{name}`"),
        };
        Class::Tensor.error(format!("{}: {name}: {what}", self.path.display()))
    }
}

/// A file in memory.
pub(crate) struct Mapped<'s> {
    memory: Arc<Memory>,
    /// The same file, for the small reads that check where records start.
    headers: Nearby<'s>,
}

impl<'s> Mapped<'s> {
    pub(crate) fn new(memory: Arc<Memory>, source: &'s FileSource) -> Self {
        Self { memory, headers: Nearby { source, page: RefCell::default() } }
    }
}

/// A file of which a page is kept: of small reads that come in the order of the file, few then ask the system.
struct Nearby<'s> {
    source: &'s FileSource,
    /// Where it begins, and its bytes.
    page: RefCell<(u64, Vec<u8>)>,
}

impl Source for Nearby<'_> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        const PAGE_BYTES: u64 = 4096;
        let (start, bytes) = &mut *self.page.borrow_mut();
        let kept = |start: u64, bytes: &[u8]| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            Some(Cow::Owned(bytes.get(from..from.checked_add(length)?)?.to_vec()))
        };
        if let Some(kept) = kept(*start, bytes) {
            return Ok(kept);
        }
        let page = PAGE_BYTES.min(self.len().saturating_sub(offset)) as usize;
        if length > page {
            return self.source.read_at(offset, length);
        }
        (*start, *bytes) = (offset, self.source.read_at(offset, page)?.into_owned());
        kept(*start, bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Reverses the bytes of numbers of a width.
fn swap(bytes: &mut [u8], width: usize) {
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

impl<'py> Leaves<'py> for Loader<'_, 'py> {
    fn parts<'c>(&self, tensor: Tensor<'c>, _: Value<'c>) -> Vec<Value<'c>> {
        tensor.parts().map(|(_, part)| part).collect()
    }

    fn takes_attributes(&self) -> bool {
        true
    }

    fn tensor(&mut self, tensor: Tensor<'_>, value: Value<'_>, parts: Vec<Bound<'py, PyAny>>) -> Object<'py> {
        if let Some(fault) = tensor.fault() {
            return Err(self.tensor_error(tensor, fault));
        }
        if tensor.flags().contains(Flags::NUMPY) {
            return self.array(tensor, value);
        }
        let named = PyDict::new(self.py);
        for ((name, value), part) in tensor.parts().zip(parts) {
            // Old files list scales and zero points; a list is only filled later.
            let numbers = value.items().filter(|_| value.kind() == Kind::List && name.starts_with('#'));
            let numbers: Vec<_> = numbers.filter_map(|item| number(self.py, item)).collect();
            named.set_item(
                name,
                if numbers.is_empty() { part } else { PyList::new(self.py, numbers)?.into_any() },
            )?;
        }
        if tensor.layout() == Layout::NestedJagged
            && let Some(index) = value.args().flat_map(ragged_index).next()
        {
            named.set_item("_ragged_idx", index)?;
        }
        let made = self.elements(tensor, &named)?;
        self.dressed(tensor, made)
    }

    fn storage(&mut self, value: Value<'_>) -> Object<'py> {
        static TYPED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let storage = value.storage().ok_or_else(|| self.error("a storage cannot be read"))?;
        if let Some(fault) = storage.fault() {
            return Err(self.error(&format!("storage `{}`: {fault}", storage.key())));
        }
        let class = storage.class();
        let dtype = class.rsplit('.').next().and_then(DType::from_storage_class);
        let dtype = dtype.unwrap_or(DType::UInt8);
        let made = self.storage_of(storage, dtype)?;
        let dtype = dtype::to_torch(self.py, dtype)?;
        Ok(torch::helper(self.py, &TYPED, "typed_storage")?.call1((made, dtype))?)
    }

    fn dtype(&mut self, name: &str) -> Object<'py> {
        self.constant(name)?.ok_or_else(|| self.error(&format!("this torch has no dtype {name}")))
    }

    fn device(&mut self, name: &str) -> Object<'py> {
        Ok(self.py.import("torch")?.getattr("device")?.call1((name,))?)
    }

    fn size(&mut self, sizes: Bound<'py, PyTuple>) -> Object<'py> {
        Ok(self.py.import("torch")?.getattr("Size")?.call1((sizes,))?)
    }

    fn constant(&mut self, name: &str) -> Result<Option<Bound<'py, PyAny>>> {
        static CONSTANT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let found = torch::helper(self.py, &CONSTANT, "constant")?.call1((name,))?;
        Ok(Some(found).filter(|found| !found.is_none()))
    }
}

fn number<'py>(py: Python<'py>, value: Value<'_>) -> Option<Bound<'py, PyAny>> {
    let float = value.as_f64().and_then(|value| value.into_bound_py_any(py).ok());
    float.or_else(|| value.as_i64()?.into_bound_py_any(py).ok())
}

/// The dimension in which a jagged tensor is ragged.
fn ragged_index(arg: Value<'_>) -> Option<i64> {
    match arg.kind() {
        Kind::Dict => arg.get("_ragged_idx")?.as_i64(),
        // `_rebuild_from_type_v2(_rebuild_njt, class, (kwargs,), state)`.
        Kind::Tuple => arg.items().next()?.get("_ragged_idx")?.as_i64(),
        _ => None,
    }
}
