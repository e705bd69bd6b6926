//! Where bytes come from.
//!
//! Parsers in this crate never see a path or a file, only a [`Source`]: a length and positioned
//! reads. A mapped file or a byte slice lends its bytes; anything else returns owned ones.

use std::borrow::Cow;
use std::io;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::PickleProblem;

/// Bytes that can be read at any position.
///
/// ```
/// use pt_format::Source;
/// let bytes: &[u8] = b"0123456789";
/// assert_eq!(bytes.len(), 10);
/// assert_eq!(Source::read_at(bytes, 3, 4).unwrap().as_ref(), b"3456");
/// ```
pub trait Source {
    /// Returns the number of bytes there are.
    fn len(&self) -> u64;

    /// Returns exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the source ends earlier, or whatever the medium says.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>>;

    /// Returns whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(length)?))
            .map(Cow::Borrowed)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Source::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        self.as_slice().read_at(offset, length)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        (**self).read_at(offset, length)
    }
}

/// A part of another source, read as one of its own: an archive that lies inside a file. Positions count from its start.
///
/// ```
/// use pt_format::{Source, Window};
/// let window = Window::new(&b"0123456789"[..], 2, 5).unwrap();
/// assert_eq!((window.len(), window.offset()), (5, 2));
/// assert_eq!(window.read_at(3, 2)?.as_ref(), b"56");
/// assert!(window.read_at(3, 3).is_err());
/// assert!(Window::new(&b"0123456789"[..], 6, 5).is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Window<S> {
    source: S,
    offset: u64,
    length: u64,
}

impl<S: Source> Window<S> {
    /// Looks at `length` bytes from `offset` on; `None` when the source ends earlier.
    pub fn new(source: S, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= source.len()).then_some(Self { source, offset, length })
    }

    /// Returns where in the source it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl<S: Source> Source for Window<S> {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.length);
        match inside {
            true => self.source.read_at(self.offset + offset, length),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads a range that some field speaks of: one that leaves the source is refused before memory is taken for it.
pub(crate) fn read<S: Source + ?Sized>(source: &S, offset: u64, length: u64) -> Result<Cow<'_, [u8]>> {
    let inside = offset.checked_add(length).is_some_and(|end| end <= source.len());
    let bytes = match usize::try_from(length) {
        Ok(length) if inside => source.read_at(offset, length),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    };
    bytes.map_err(|source| Error::Read { offset, length, source })
}

/// Reads what shows its end only when it is parsed: `first` bytes from `start`, and more and more up to `end` while
/// `parse` finds its pickle cut off.
pub(crate) fn read_growing<'s, S: Source + ?Sized, T>(
    source: &'s S,
    start: u64,
    end: u64,
    first: u64,
    limits: &Limits,
    mut parse: impl FnMut(Cow<'s, [u8]>) -> Result<T>,
) -> Result<T> {
    const GROWTH: u64 = 8;
    let all = end.saturating_sub(start);
    let bytes_max = limits.pickle_bytes.min(all);
    let mut window = first.min(bytes_max);
    loop {
        match parse(read(source, start, window)?) {
            Err(Error::Pickle { problem: PickleProblem::CutOff { .. }, .. }) if window < bytes_max => {
                window = (window * GROWTH).min(bytes_max);
            }
            Err(Error::Pickle { problem: PickleProblem::CutOff { .. }, .. }) if window < all => {
                let limit = limits.pickle_bytes;
                return Err(Error::Limit {
                    what: "bytes of pickles",
                    found: all,
                    limit,
                    field: "pickle_bytes",
                });
            }
            parsed => return parsed,
        }
    }
}
