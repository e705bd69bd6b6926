//! The one unsafe module: memory that Python reads and writes.
//!
//! Tensors that Python gets look into a [`Memory`]: a file mapped copy-on-write, or bytes read into memory of our own. Rust
//! makes no reference to these bytes once they are shared; it keeps an address, and what Python does through it (two threads
//! that write to one tensor, say) is Python's to answer for, as with any array. A [`Region`] is a part of a memory that was
//! checked to lie inside, and keeps the memory alive; everything lent goes through one.

use std::ffi::c_int;
use std::fmt::Display;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use dlpark::ffi::{DLDataType, DLDevice, DLManagedTensor, DLManagedTensorVersioned};
use dlpark::metadata::Dynamic;
use dlpark::python::{DlpackExporter, ExportRequest, export_dlpack};
use dlpark::{DlpackFlags, Managed, ManagedTensorBase};
use pt_format::geometry;
use pt_index::{FileSource, Index};
use pt_loader::DataSet;
use pt_view::{Access, Advice, PrivateMap, Residency};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::lines::{Line, Lines};

/// Bytes that Python may write to; the file they came from never changes.
pub(crate) enum Memory {
    /// A file mapped copy-on-write: read when it is touched.
    Mapped(PrivateMap),
    /// Bytes that were read.
    Owned { lines: NonNull<[Line]>, length: usize },
}

// SAFETY: the memory is owned, and belongs to no thread. References to its bytes are not made; see the head of this file.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Owned { lines, .. } = self {
            // SAFETY: made by `Box::leak` in `owned`, and dropped here alone.
            drop(unsafe { Box::from_raw(lines.as_ptr()) });
        }
    }
}

impl Memory {
    /// Maps a whole file, copy-on-write.
    pub(crate) fn map(source: &FileSource) -> std::io::Result<Self> {
        // SAFETY: the documentation of `ptview.open` and `ptview.load` hands the promise on: nobody truncates the file while
        // its tensors live. The same holds for `torch.load(mmap=True)`.
        unsafe { PrivateMap::new(source.file()) }.map(Self::Mapped)
    }

    /// Takes memory of our own and fills it.
    pub(crate) fn owned<E>(length: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self>
    where
        Error: From<E>,
    {
        let mut lines = Lines::new(length)?;
        fill(&mut lines.as_mut_bytes()[..length])?;
        Ok(Self::Owned { lines: NonNull::from(Box::leak(lines.0)), length })
    }

    /// Has the system read on where a file is touched, instead of single pages.
    pub(crate) fn read_ahead(&self) {
        if let Self::Mapped(map) = self {
            // Advice that is not taken changes speed, never content.
            let _ = map.advise(Advice::Sequential, 0, map.len());
        }
    }

    fn address(&self) -> *mut u8 {
        match self {
            Self::Mapped(map) => map.as_mut_ptr(),
            Self::Owned { lines, .. } => lines.as_ptr().cast(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Mapped(map) => map.len(),
            Self::Owned { length, .. } => *length,
        }
    }
}

/// Opens an index that is kept in a file.
pub(crate) fn open_index(path: &Path) -> pt_view::Result<Index> {
    // SAFETY: whoever writes an index renames it into place; nobody writes into one that is there.
    unsafe { pt_view::open_index(path) }
}

/// Has the files of a data set mapped.
pub(crate) fn mapped(data: &DataSet) -> DataSet {
    // SAFETY: the documentation of `ptview.Dataset(mmap=True)` hands the promise on: nobody writes to the files or truncates them.
    // Bytes are copied out of the maps by Rust, and lent to nobody.
    data.reopened_as(|files| unsafe { files.with_access(Access::Auto) })
}

/// Bytes of a memory, lent to Python through the buffer protocol.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Region {
    memory: Arc<Memory>,
    start: usize,
    length: usize,
}

impl Region {
    /// Takes a part of a memory; none when it is not inside.
    pub(crate) fn new(memory: Arc<Memory>, start: u64, length: u64) -> Option<Self> {
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        (start.checked_add(length)? <= memory.len()).then_some(Self { memory, start, length })
    }

    /// Takes all of a memory.
    pub(crate) fn whole(memory: Memory) -> Self {
        let length = memory.len();
        Self { memory: Arc::new(memory), start: 0, length }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: `start` was checked to be inside the memory.
        unsafe { self.memory.address().add(self.start) }
    }

    /// Returns whether it starts at a multiple of so many bytes.
    pub(crate) fn is_aligned(&self, alignment: usize) -> bool {
        (self.address() as usize).is_multiple_of(alignment)
    }

    /// Returns whether it is a part of a map, read when it is touched.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(*self.memory, Memory::Mapped(_))
    }

    /// Returns which of its pages lie in memory; none where it is not mapped.
    pub(crate) fn resident(&self) -> Option<Residency> {
        match &*self.memory {
            Memory::Mapped(map) => map.resident(self.start, self.length),
            Memory::Owned { .. } => None,
        }
    }

    /// Makes a capsule of the first generation, which every torch reads, of elements that start where this does.
    pub(crate) fn capsule<'py>(
        &self,
        py: Python<'py>,
        dtype: DLDataType,
        shape: &[u64],
        stride: &[u64],
    ) -> Result<Bound<'py, PyAny>> {
        Ok(self.managed::<DLManagedTensor>(dtype, shape, stride)?.into_pyobject(py)?)
    }

    fn managed<M: ManagedTensorBase>(
        &self,
        dtype: DLDataType,
        shape: &[u64],
        stride: &[u64],
    ) -> PyResult<Managed<M>> {
        let bytes = u64::from(dtype.bits).saturating_mul(dtype.lanes.into()).div_ceil(8);
        let needs = geometry::extent(shape, stride).and_then(|elements| elements.checked_mul(bytes));
        if needs.is_none_or(|needs| needs > self.length as u64) || shape.len() != stride.len() {
            return Err(PyBufferError::new_err("the tensor does not lie in the memory it is lent from"));
        }
        let prepared = Dynamic::new(shape, stride).prepare_as::<M>().map_err(buffer_error)?;
        let mut initialized = prepared.initialize(self.memory.clone());
        initialized.set_data(self.address().cast()).set_device(DLDevice::CPU).set_dtype(dtype);
        // SAFETY: all elements lie inside the region, as was just checked, and the context keeps its memory alive. Shape and
        // strides were copied. The memory may be written to.
        Ok(unsafe { initialized.finish() })
    }
}

#[pymethods]
impl Region {
    /// # Safety
    /// Called by Python, with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (address, length) = (slf.get().address(), slf.get().length as ffi::Py_ssize_t);
        // SAFETY: the bytes are there as long as `slf`, to which the view gets a reference.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address.cast(), length, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }

    fn __len__(&self) -> usize {
        self.length
    }
}

/// Elements in a region, to be exported by `__dlpack__`.
pub(crate) struct Elements<'a> {
    pub(crate) region: &'a Region,
    pub(crate) dtype: DLDataType,
    pub(crate) shape: &'a [u64],
    pub(crate) stride: &'a [u64],
}

impl Elements<'_> {
    pub(crate) fn export(&self, py: Python<'_>, request: ExportRequest<'_>) -> PyResult<Py<PyAny>> {
        export_dlpack(self, py, request)
    }
}

impl DlpackExporter for Elements<'_> {
    fn device(&self) -> DLDevice {
        DLDevice::CPU
    }

    fn flags(&self) -> DlpackFlags {
        DlpackFlags::empty()
    }

    fn prepare_export(&self, _: Python<'_>, _: &ExportRequest<'_>) -> PyResult<()> {
        Ok(())
    }

    fn export_legacy(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensor>> {
        self.region.managed(self.dtype, self.shape, self.stride)
    }

    fn export_versioned(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensorVersioned>> {
        self.region.managed(self.dtype, self.shape, self.stride)
    }
}

/// Lends the buffer of another object, which releases it itself.
///
/// # Safety
/// `view` is one that Python gave to be filled.
pub(crate) unsafe fn lend_buffer_of(
    object: &Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // SAFETY: our caller's promise. The view will hold a reference to `object`, whose type releases it.
    match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view, flags) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(object.py())),
    }
}

/// Reads bytes that a Python object lends: of numpy arrays and torch tensors that are saved.
pub(crate) struct Borrowed {
    view: Box<ffi::Py_buffer>,
}

// SAFETY: the buffer is read by whoever has this, and released by a thread that is attached.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl Borrowed {
    /// Borrows from an object whose bytes lie in a row.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: a fresh view; it is released in `drop`.
        match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut *view, ffi::PyBUF_SIMPLE) } {
            0 => Ok(Self { view }),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    /// Returns the bytes. Python can write to them while they are read: a file then holds old or new bytes, as with
    /// `torch.save`.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.view.len == 0 {
            return &[];
        }
        // SAFETY: the view was filled by Python: so many bytes, there until it is released.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast(), self.view.len as usize) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: filled in `new`, released once.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&mut *self.view) });
    }
}

fn buffer_error(error: impl Display) -> PyErr {
    PyBufferError::new_err(error.to_string())
}
