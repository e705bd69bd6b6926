//! A tensor of an open checkpoint: type and shape known, elements not read.

use std::ffi::c_int;
use std::sync::Arc;

use dlpark::python::ExportRequest;
use pt_format::{DType, Flags, Layout, geometry};
use pt_index::TensorEntry;
use pt_view::{CachedFile, CheckedRecords, Chunked, FileBytes, TensorView};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyEllipsis, PySlice, PyTuple};

use crate::error::{Class, Result};
use crate::export::{Elements, lend_buffer_of};
use crate::load::{Loader, Mapped, parse};
use crate::opened::{Lent, Opened};
use crate::tree::Object;
use crate::{dtype, numpy, torch};

/// A tensor of an open checkpoint. Nothing of it is read before it is asked for.
#[pyclass(frozen, module = "ptview")]
pub(crate) struct Tensor {
    opened: Arc<Opened>,
    file: usize,
    number: usize,
    cuts: Vec<Cut>,
}

/// A part of a tensor, found without reading it.
#[derive(Clone, Copy)]
enum Cut {
    Select { dim: usize, index: u64 },
    Narrow { dim: usize, start: u64, length: u64 },
}

impl Tensor {
    pub(crate) fn new(opened: Arc<Opened>, file: usize, number: usize) -> Self {
        Self { opened, file, number, cuts: Vec::new() }
    }

    fn entry(&self) -> Result<TensorEntry<'_>> {
        let entry = self.opened.index().file(self.file).and_then(|file| file.tensor_at(self.number));
        entry.ok_or_else(|| Class::Range.error("the index has no such tensor"))
    }

    /// Looks at the tensor, or the part of it, without its bytes.
    fn described<R>(&self, look: impl FnOnce(&TensorView<'_>) -> Result<R>) -> Result<R> {
        look(&self.cut(TensorView::new(self.entry()?, FileBytes::new(&[])))?)
    }

    /// Looks at the tensor, or the part of it, if it lies in chunks.
    fn in_chunks(&self) -> Result<Option<Chunked<'_>>> {
        let entry = self.entry()?;
        if entry.layout() != Layout::Chunked {
            return Ok(None);
        }
        let mut part = self.opened.chunked(entry)?;
        for next in &self.cuts {
            part = match *next {
                Cut::Select { dim, index } => part.select(dim, index)?,
                Cut::Narrow { dim, start, length } => part.narrow(dim, start, length)?,
            };
        }
        Ok(Some(part))
    }

    /// Returns the sizes of the tensor, or the part of it.
    fn sizes(&self) -> Result<Option<Vec<u64>>> {
        match self.in_chunks()? {
            Some(chunked) => Ok(Some(chunked.shape().to_vec())),
            None => self.described(|view| Ok(view.shape().map(<[u64]>::to_vec))),
        }
    }

    /// Looks at the tensor, or the part of it, in its file.
    fn in_file<R>(&self, look: impl FnOnce(&CachedFile<'_>, &TensorView<'_>) -> Result<R>) -> Result<R> {
        let file = self.opened.file(self.file)?;
        let view = file.tensor_at(self.number).ok_or_else(|| Class::Range.error("no such tensor"))?;
        look(&file, &self.cut(view)?)
    }

    fn cut<'v>(&self, view: TensorView<'v>) -> Result<TensorView<'v>> {
        let cut = |view: TensorView<'v>, cut: &Cut| match *cut {
            Cut::Select { dim, index } => view.select(dim, index),
            Cut::Narrow { dim, start, length } => view.narrow(dim, start, length),
        };
        Ok(self.cuts.iter().try_fold(view, cut)?)
    }

    /// Returns whether torch has more to say of it than elements: they are then made as `ptview.load` makes them.
    fn is_plain(&self, entry: TensorEntry<'_>) -> bool {
        let odd = [Flags::QUANTIZED, Flags::META, Flags::CONJ, Flags::NEG];
        entry.layout() == Layout::Strided
            && !odd.iter().any(|&flag| entry.flags().contains(flag))
            && entry.fault().is_none()
            && entry.class().is_none()
    }
}

#[pymethods]
impl Tensor {
    /// The dotted name.
    #[getter]
    fn name(&self) -> Result<&str> {
        Ok(self.entry()?.name())
    }

    /// The dtype as torch names it, without ``torch.``, such as ``"float32"``; None when the file's is unknown.
    #[getter]
    fn dtype(&self) -> Result<Option<&'static str>> {
        Ok(self.entry()?.dtype().map(|dtype| dtype.name()))
    }

    /// The sizes; None for nested tensors.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyTuple>>> {
        Ok(self.sizes()?.map(|shape| PyTuple::new(py, shape)).transpose()?)
    }

    /// The strides in elements; None for sparse and nested tensors, and for those in chunks, which lie nowhere together.
    #[getter]
    fn stride<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyTuple>>> {
        if self.in_chunks()?.is_some() {
            return Ok(None);
        }
        self.described(|view| Ok(view.stride().map(|stride| PyTuple::new(py, stride)).transpose()?))
    }

    /// The bytes of the elements; None where shape or dtype is unknown.
    #[getter]
    fn nbytes(&self) -> Result<Option<u64>> {
        match self.in_chunks()? {
            Some(chunked) => Ok(chunked.nbytes()),
            None => self.described(|view| Ok(view.nbytes())),
        }
    }

    /// Whether ``requires_grad`` was set.
    #[getter]
    fn requires_grad(&self) -> Result<bool> {
        Ok(self.entry()?.requires_grad())
    }

    /// How the elements are held: ``"strided"``, ``"sparse_coo"``, …; ``"chunked"`` in chunks, in several files.
    #[getter]
    fn layout(&self) -> Result<&'static str> {
        Ok(self.entry()?.layout().name())
    }

    /// How the bytes are come by: ``"in place"``, ``"copied"``, or why they cannot be read.
    #[getter]
    fn access(&self) -> Result<String> {
        if let Some(chunked) = self.in_chunks()? {
            return Ok(chunked.check().map_or_else(|error| error.to_string(), |()| "copied".into()));
        }
        self.in_file(|_, view| {
            let caps = view.caps();
            Ok(match caps.reason {
                _ if caps.zero_copy => "in place".into(),
                _ if caps.needs_decode || caps.needs_swap => "copied".into(),
                Some(pt_view::Obstacle::Misaligned { .. }) => "copied".into(),
                Some(reason) => reason.to_string(),
                None => "in place".into(),
            })
        })
    }

    /// The elements as a numpy array: in place where they lie in the file as they are in memory, else copied. Chunks of a
    /// distributed checkpoint are put together, in memory of their own.
    ///
    /// The array may be written to; the file does not change.
    fn numpy<'py>(&self, py: Python<'py>) -> Object<'py> {
        if let Some(chunked) = self.in_chunks()? {
            let (dtype, shape) = (chunked.dtype(), chunked.shape());
            dtype::to_numpy(py, dtype, false)?;
            let lent = py.detach(|| Opened::assemble(&chunked))?;
            return numpy::array(
                py,
                lent.region,
                dtype,
                false,
                0,
                shape,
                &geometry::contiguous_stride(shape),
            );
        }
        self.in_file(|file, view| {
            let flags = view.entry().flags();
            let lazy = flags.contains(Flags::CONJ) || flags.contains(Flags::NEG);
            let (Some(dtype), Some(shape), Some(stride)) = (view.dtype(), view.shape(), view.stride()) else {
                // It says what it is instead.
                view.locate_checked()?;
                return Err(Class::Tensor.error("the tensor has no array; `.torch()` gives it"));
            };
            if flags.contains(Flags::QUANTIZED) {
                let message = format!(
                    "tensor `{}` is quantized, which numpy does not know; use `.torch()`",
                    view.name()
                );
                return Err(Class::Tensor.error(message));
            }
            // It may be that numpy has no such type: said before anything is read.
            dtype::to_numpy(py, dtype, false)?;
            let lent = py.detach(|| if lazy { Opened::copy(view) } else { self.opened.lend(file, view) })?;
            match lent.in_place {
                true => numpy::array(py, lent.region, dtype, false, 0, shape, stride),
                false => {
                    numpy::array(py, lent.region, dtype, false, 0, shape, &geometry::contiguous_stride(shape))
                }
            }
        })
    }

    /// The tensor as torch has it, in place where it can be. A parameter comes as a plain tensor. Chunks of a distributed
    /// checkpoint are put together, in memory of their own.
    ///
    /// It may be written to; the file does not change.
    pub(crate) fn torch<'py>(&self, py: Python<'py>) -> Object<'py> {
        let entry = self.entry()?;
        if let Some(chunked) = self.in_chunks()? {
            let (dtype, shape) = (chunked.dtype(), chunked.shape());
            let Lent { region, .. } = py.detach(|| Opened::assemble(&chunked))?;
            let made = torch::strided(py, &region, dtype, shape, &geometry::contiguous_stride(shape))?;
            return with_grad(made, entry);
        }
        if !self.is_plain(entry) {
            return self.as_loaded(py);
        }
        let made = self.in_file(|file, view| {
            let (Some(dtype), Some(shape), Some(stride)) = (view.dtype(), view.shape(), view.stride()) else {
                return Err(Class::Tensor.error("the tensor has no shape"));
            };
            let Lent { region, in_place } = self.opened.lend(file, view)?;
            match in_place {
                true => torch::strided(py, &region, dtype, shape, stride),
                false => torch::strided(py, &region, dtype, shape, &geometry::contiguous_stride(shape)),
            }
        })?;
        with_grad(made, entry)
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> Object<'py> {
        let array = self.numpy(py)?;
        let options = PyDict::new(py);
        match (dtype, copy) {
            (None, Some(true)) => Ok(array.call_method0("copy")?),
            (None, _) => Ok(array),
            (Some(dtype), Some(false)) if !array.getattr("dtype")?.eq(&dtype)? => {
                Err(Class::Tensor.error(format!("{dtype} needs a copy")))
            }
            (Some(dtype), copy) => {
                options.set_item("copy", copy.unwrap_or(false))?;
                Ok(array.call_method("astype", (dtype,), Some(&options))?)
            }
        }
    }

    /// DLPack's capsule: the elements in place where they can be, for any library that reads it.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__(
        &self,
        py: Python<'_>,
        stream: Option<Bound<'_, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> Result<Py<PyAny>> {
        let only_a_copy =
            |name: &str| Class::Tensor.error(format!("tensor `{name}` cannot be lent without a copy"));
        let no_words = |name: &str, dtype: DType| {
            let message = format!("tensor `{name}` ({dtype}) has no words in DLPack; use `.torch()`");
            Class::Tensor.error(message)
        };
        if let Some(chunked) = self.in_chunks()? {
            let name = self.entry()?.name();
            let dtype = dtype::to_dlpack(chunked.dtype()).ok_or_else(|| no_words(name, chunked.dtype()))?;
            if copy == Some(false) {
                return Err(only_a_copy(name));
            }
            let Lent { region, .. } = py.detach(|| Opened::assemble(&chunked))?;
            let (shape, stride) = (chunked.shape(), geometry::contiguous_stride(chunked.shape()));
            let request = ExportRequest::parse(stream.as_ref(), max_version, dl_device, None)?;
            return Ok(Elements { region: &region, dtype, shape, stride: &stride }.export(py, request)?);
        }
        self.in_file(|file, view| {
            let (Some(dtype), Some(shape), Some(stride)) = (view.dtype(), view.shape(), view.stride()) else {
                return Err(
                    Class::Tensor.error("only strided tensors are lent by DLPack; `.torch()` gives others")
                );
            };
            let plain = dtype::to_dlpack(dtype).filter(|_| self.is_plain(view.entry()));
            let dtype = plain.ok_or_else(|| no_words(view.name(), dtype))?;
            let lent = if copy == Some(true) { Opened::copy(view)? } else { self.opened.lend(file, view)? };
            if copy == Some(false) && !lent.in_place {
                return Err(only_a_copy(view.name()));
            }
            let contiguous = geometry::contiguous_stride(shape);
            let stride = if lent.in_place { stride } else { &contiguous };
            let request = ExportRequest::parse(stream.as_ref(), max_version, dl_device, None)?;
            Ok(Elements { region: &lent.region, dtype, shape, stride }.export(py, request)?)
        })
    }

    /// Where the elements are, in DLPack's words: the CPU.
    fn __dlpack_device__(&self) -> (u32, i32) {
        (1, 0)
    }

    /// # Safety
    /// Called by Python, with a view to be filled.
    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let array = slf.get().numpy(slf.py())?;
        // SAFETY: the view is Python's.
        unsafe { lend_buffer_of(&array, view, flags) }
    }

    fn __len__(&self) -> Result<usize> {
        match self.sizes()?.unwrap_or_default().first() {
            Some(&size) => Ok(usize::try_from(size).unwrap_or(usize::MAX)),
            None => {
                Err(pyo3::exceptions::PyTypeError::new_err("a tensor without dimensions has no length")
                    .into())
            }
        }
    }

    fn __getitem__(&self, key: Bound<'_, PyAny>) -> Result<Self> {
        let mut part = Self {
            opened: self.opened.clone(),
            file: self.file,
            number: self.number,
            cuts: self.cuts.clone(),
        };
        let keys: Vec<Bound<'_, PyAny>> = match key.cast::<PyTuple>() {
            Ok(keys) => keys.iter().collect(),
            Err(_) => vec![key],
        };
        let mut dim = 0;
        for (position, key) in keys.iter().enumerate() {
            if key.is_instance_of::<PyEllipsis>() && position + 1 == keys.len() {
                break;
            }
            let size = part.sizes()?.and_then(|sizes| sizes.get(dim).copied());
            let size =
                size.ok_or_else(|| Class::Range.error(format!("the tensor has no dimension {dim}")))?;
            match cut_of(key, dim, size)? {
                Some(cut @ Cut::Select { .. }) => part.cuts.push(cut),
                Some(cut @ Cut::Narrow { .. }) => {
                    part.cuts.push(cut);
                    dim += 1;
                }
                None => dim += 1,
            }
        }
        part.sizes()?;
        Ok(part)
    }

    /// Starts reading the elements into memory, and does not wait for it.
    fn prefetch(&self, py: Python<'_>) -> Result<()> {
        if let Some(chunked) = self.in_chunks()? {
            return Ok(py.detach(|| chunked.prefetch())?);
        }
        self.in_file(|_, view| Ok(py.detach(|| view.prefetch())?))
    }

    /// How many bytes of the elements lie in memory now, counted in whole pages; None where the system does not tell, and for
    /// tensors that are copied.
    #[getter]
    fn resident(&self) -> Result<Option<u64>> {
        if self.in_chunks()?.is_some() {
            return Ok(None);
        }
        self.in_file(|file, view| {
            if !view.caps().zero_copy {
                return Ok(None);
            }
            let Lent { region, .. } = self.opened.lend(file, view)?;
            Ok(match region.is_mapped() {
                true => region.resident().map(|resident| (resident.bytes() as u64).min(region.len() as u64)),
                false => Some(region.len() as u64),
            })
        })
    }

    fn __repr__(&self) -> Result<String> {
        let entry = self.entry()?;
        let dtype = entry.dtype().map_or("unknown", |dtype| dtype.name());
        let shape = self.sizes()?.map_or("nested".into(), |shape| format!("{shape:?}"));
        let layout = match entry.layout() {
            Layout::Strided => String::new(),
            layout => format!(", {layout}"),
        };
        Ok(format!("<ptview.Tensor {:?} {dtype} {shape}{layout}>", entry.name()))
    }
}

impl Tensor {
    /// Makes the tensor as `ptview.load` does, of the value in the file.
    fn as_loaded<'py>(&self, py: Python<'py>) -> Object<'py> {
        if !self.cuts.is_empty() {
            return Err(
                Class::Tensor.error("parts are only made of plain tensors; take the part of `.torch()`")
            );
        }
        let entry = self.entry()?;
        let file = self.opened.file(self.file)?;
        let path = self.opened.path_of(self.file);
        let checkpoint = py.detach(|| parse(&path, file.source()))?;
        let not_there = || Class::Tensor.error(format!("tensor `{}` is not to be found", entry.name()));
        let value = checkpoint.values().path(entry.path()).ok_or_else(not_there)?;
        let memory = self.opened.memory(&file)?;
        let checked = CheckedRecords::new(0);
        let bytes = FileBytes::read(file.source(), &checked);
        let mapped = Mapped::new(memory, file.source());
        Loader::new(py, &path, bytes, &checkpoint, Some(mapped)).value(value)
    }
}

fn with_grad<'py>(made: Bound<'py, PyAny>, entry: TensorEntry<'_>) -> Object<'py> {
    if entry.requires_grad() {
        made.call_method1("requires_grad_", (true,))?;
    }
    Ok(made)
}

/// Reads one part of an index expression.
fn cut_of(key: &Bound<'_, PyAny>, dim: usize, size: u64) -> Result<Option<Cut>> {
    if let Ok(slice) = key.cast::<PySlice>() {
        let indices = slice.indices(isize::try_from(size).unwrap_or(isize::MAX))?;
        if indices.step != 1 {
            return Err(Class::Tensor
                .error("slices of a tensor have the step 1; take others of `.numpy()` or `.torch()`"));
        }
        let start = indices.start as u64;
        let length = (indices.stop - indices.start).max(0) as u64;
        return Ok(Some(Cut::Narrow { dim, start: start.min(size), length }));
    }
    let index: i64 = key.extract().map_err(|_| {
        pyo3::exceptions::PyTypeError::new_err(
            "a tensor is indexed by integers and slices; `.numpy()` takes more",
        )
    })?;
    let place = if index < 0 { index.checked_add_unsigned(size) } else { Some(index) };
    match place.and_then(|place| u64::try_from(place).ok()).filter(|&place| place < size) {
        Some(index) => Ok(Some(Cut::Select { dim, index })),
        None => {
            Err(Class::Range
                .error(format!("index {index} is out of bounds of dimension {dim} with size {size}")))
        }
    }
}
