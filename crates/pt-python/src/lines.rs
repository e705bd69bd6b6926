//! Memory of our own, before Python sees it.

use bytemuck::{Pod, Zeroable};

use crate::error::{Class, Result};

/// 64 bytes at a multiple of 64: PyTorch's own alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// Bytes that nobody else looks at.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) Box<[Line]>);

impl Lines {
    /// Takes so many zero bytes, and what is missing to the next multiple of 64.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let lines = bytemuck::allocation::try_zeroed_slice_box(bytes.div_ceil(size_of::<Line>()));
        lines.map(Self).map_err(|()| Class::Error.error(format!("no memory for {bytes} bytes")))
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}
