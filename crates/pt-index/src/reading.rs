//! How files are read to be parsed: whole, or both ends of them.

use std::path::PathBuf;

use pt_format::{Checkpoint, Container, Limits, Source, detect};

use crate::error::{Error, Result};
use crate::source::{Ends, OpenFile};

/// Files up to this size are read in one go, unless they are in memory; of larger ones only directory and pickle are.
const WHOLE_FILE_BYTES: u64 = 128 << 10;
/// What is read at each end of an archive that is in memory: directory and pickle of one with some five tensors.
const END_BYTES: usize = 1 << 10;
/// The system begins to fetch what it is asked for in vain, but only that: the file then takes a second read from the disk.
/// Others of its folder are mostly not in memory either.
const WHOLE_AFTER_MISS: u32 = 64;
/// Below this, copying all of a file costs less than asking for a second piece of it.
const ENDS_FROM_BYTES: u64 = 8 << 10;

/// Parses a file. `path` is for messages.
pub(crate) fn with_checkpoint<T>(
    path: impl Fn() -> PathBuf,
    file: &OpenFile,
    limits: &Limits,
    then: impl FnOnce(&Checkpoint<'_>) -> T,
) -> Result<T> {
    with_source(path, file, &mut Reading::of_one(), |source| Ok(then(&Checkpoint::parse(source, limits)?)))
}

/// Reads as much of a file as its parser will want: a small one is read whole, of a large one, and of one that is in memory,
/// the directory and the pickle are.
pub(crate) fn with_source<T>(
    path: impl Fn() -> PathBuf,
    file: &OpenFile,
    reading: &mut Reading,
    then: impl FnOnce(&dyn Source) -> Result<T, pt_format::Error>,
) -> Result<T> {
    let failed = |source| Error::File { path: path(), source };
    if file.len() > WHOLE_FILE_BYTES {
        let read = |buffer: &mut [u8], offset| file.read_exact_at(buffer, offset).is_ok();
        let ends = if reading.may_be_like { reading.ends(file, read) } else { None };
        return match &ends {
            Some(ends) => then(ends).map_err(failed),
            None => then(file).map_err(failed),
        };
    }
    // From a disk, all of it comes as fast as parts do. In memory most of it would be copied for nothing.
    if file.len() >= ENDS_FROM_BYTES
        && reading.may_be_in_memory()
        && let Some(ends) = reading.ends(file, |buffer, offset| file.read_cached_at(buffer, offset))
    {
        return then(&ends).map_err(failed);
    }
    let buffer = &mut reading.buffer;
    // Kept from file to file: neither taken anew nor filled with zeros each time.
    let length = file.len() as usize;
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let bytes = &mut buffer[..length];
    file.read_exact_at(bytes, 0).map_err(|error| Error::io(&path(), "read")(error))?;
    then(&&*bytes).map_err(failed)
}

/// How files are read, one after the other.
#[derive(Default)]
pub(crate) struct Reading {
    buffer: Vec<u8>,
    /// Whether a large file may be like one before, which shows in its ends.
    pub(crate) may_be_like: bool,
    /// So many files are read whole before one is asked again whether it is in memory.
    whole: u32,
}

impl Reading {
    /// Reads single files.
    fn of_one() -> Self {
        Self { whole: u32::MAX, ..Self::default() }
    }

    /// Reads both ends of an archive; `None` for other files, and where `read` says that it did not.
    fn ends<'a>(&'a mut self, file: &'a OpenFile, read: impl Fn(&mut [u8], u64) -> bool) -> Option<Ends<'a>> {
        if self.buffer.len() < 2 * END_BYTES {
            self.buffer.resize(2 * END_BYTES, 0);
        }
        let (first, last) = self.buffer[..2 * END_BYTES].split_at_mut(END_BYTES);
        if !read(first, 0) || !read(last, file.len() - END_BYTES as u64) {
            self.whole = WHOLE_AFTER_MISS;
            return None;
        }
        let is_archive = detect(&*first).is_ok_and(|container| container == Container::Zip);
        is_archive.then_some(Ends { file, first, last })
    }

    /// Returns whether a small file should be asked whether it is in memory.
    fn may_be_in_memory(&mut self) -> bool {
        let left = self.whole.checked_sub(1);
        self.whole = left.unwrap_or_default();
        left.is_none()
    }
}
