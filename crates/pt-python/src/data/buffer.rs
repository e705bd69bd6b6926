//! Memory that a batch is read into, before Python sees it.

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Class, Result};
use crate::lines::Lines;

/// Bytes of a batch. Large ones come from the system as they are, page by page when they are written to: memory of the
/// allocator that begins at a multiple of 64 would be zeroed first, by one thread.
pub(crate) enum Buffer {
    Lines(Lines),
    Pages(MmapMut),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Lines(Lines::default())
    }
}

impl Buffer {
    /// Smaller ones are for the allocator.
    pub(crate) const PAGES_BYTES_MIN: usize = 256 << 10;
    /// A huge page. The system finds places for those in what is a multiple of them.
    const HUGE_BYTES: usize = 2 << 20;

    /// Takes at least so many bytes.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        if bytes < Self::PAGES_BYTES_MIN {
            return Lines::new(bytes).map(Self::Lines);
        }
        let pages = MmapOptions::new().len(room(bytes)).map_anon();
        let pages =
            pages.map_err(|error| Class::Error.error(format!("no memory for {bytes} bytes: {error}")))?;
        // A page of the usual size costs a fault for each 4 KiB, again after every fork: of a large batch that takes longer than
        // reading it. Where the system does not take the advice, it is slower.
        #[cfg(target_os = "linux")]
        if pages.len() >= Self::HUGE_BYTES {
            let _ = pages.advise(memmap2::Advice::HugePage);
        }
        Ok(Self::Pages(pages))
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Lines(lines) => lines.as_mut_bytes(),
            Self::Pages(pages) => pages,
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            Self::Lines(lines) => lines.as_mut_ptr(),
            Self::Pages(pages) => pages.as_mut_ptr(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.bytes(),
            Self::Pages(pages) => pages.len(),
        }
    }
}

/// Rounds a size up, by an eighth at most or to whole huge pages, so that ragged batches that differ a little fit into each other's
/// memory. What is not written to takes none.
fn room(bytes: usize) -> usize {
    let eighth = bytes.checked_next_power_of_two().map_or(1, |size| size / 8);
    let step = if bytes < Buffer::HUGE_BYTES { eighth } else { eighth.max(Buffer::HUGE_BYTES) };
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}
