//! Memory that samples are read into and that numpy and torch look at: the unsafe code of the data sets.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pyo3::buffer::PyBuffer;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::data::buffer::Buffer;
use crate::error::{Class, Result};

/// Memory of batches that nobody looks at any more, to be filled again: pages that were written to once need no new
/// ones from the system.
///
/// Locked only by who holds the GIL, and never while it is given up: so no thread holds it when a process forks.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Free>);

/// Of one process: after a fork, each page that is written to would have to be copied first.
#[derive(Default)]
struct Free {
    process: u32,
    buffers: Vec<Buffer>,
}

impl Pool {
    /// A batch at work, one or two being read, one that comes back.
    const COUNT_MAX: usize = 4;

    pub(crate) fn take(&self, bytes: usize) -> Result<Buffer> {
        if bytes >= Buffer::PAGES_BYTES_MIN {
            let fits = |buffer: &Buffer| (bytes..=bytes.saturating_mul(2)).contains(&buffer.bytes());
            let mut free = self.lock();
            if let Some(number) = free.buffers.iter().rposition(fits) {
                return Ok(free.buffers.swap_remove(number));
            }
        }
        Buffer::new(bytes)
    }

    fn give_back(&self, buffer: Buffer) {
        if buffer.bytes() >= Buffer::PAGES_BYTES_MIN {
            let mut free = self.lock();
            if free.buffers.len() == Self::COUNT_MAX {
                free.buffers.remove(0);
            }
            free.buffers.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.process != process::id() {
            *free = Free { process: process::id(), buffers: Vec::new() };
        }
        free
    }
}

/// Bytes as a Python object with a writable buffer. Arrays and tensors that look at them keep it alive; when the last one
/// goes, they are filled again with another batch.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Memory {
    /// Rust does not look at them while Python does.
    buffer: UnsafeCell<Buffer>,
    bytes: usize,
    pool: Weak<Pool>,
}

// SAFETY: the cell is only asked for the address of the bytes; who reads and writes them is Python's business, as with any
// `bytearray`.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(buffer: Buffer, bytes: usize, pool: &Arc<Pool>) -> Self {
        Self { buffer: UnsafeCell::new(buffer), bytes, pool: Arc::downgrade(pool) }
    }
}

#[pymethods]
impl Memory {
    fn __len__(&self) -> usize {
        self.bytes
    }

    /// # Safety
    /// Python calls it with a view to fill.
    unsafe fn __getbuffer__(
        memory: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let Self { buffer, bytes, .. } = memory.get();
        // SAFETY: nobody borrows from the cell but for this moment, and only while holding the GIL.
        let start = unsafe { &mut *buffer.get() }.as_mut_ptr();
        // SAFETY: `bytes` bytes stand there as long as `memory` lives, of which the view takes a reference.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(view, memory.as_ptr(), start.cast(), *bytes as ffi::Py_ssize_t, 0, flags)
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(memory.py())) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give_back(std::mem::take(self.buffer.get_mut()));
        }
    }
}

/// Memory of torch (shared with other processes, or pinned) that a batch is read into.
pub(crate) struct Lent {
    buffer: PyBuffer<u8>,
}

impl Lent {
    pub(crate) fn new(memory: &Bound<'_, PyAny>) -> Result<Self> {
        let buffer = PyBuffer::<u8>::get(memory)?;
        match buffer.readonly() || !buffer.is_c_contiguous() {
            true => Err(Class::Error.error("a batch is read into contiguous memory that can be written to")),
            false => Ok(Self { buffer }),
        }
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        let (start, length) = (self.buffer.buf_ptr().cast(), self.buffer.len_bytes());
        // SAFETY: the buffer is contiguous, so long, and can be written to; it is kept until `self` goes. Nobody else looks at
        // it: `ptview/_memory.py` makes the memory anew for each batch, and shows it to nobody before the batch is read.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}
