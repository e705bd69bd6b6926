//! Elements of a strided tensor, one by one, without copying them first.

use std::borrow::Cow;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::slice::ChunksExact;

use pt_format::Element;
use pt_format::strided::Offsets;

/// Iterator over the elements of a tensor in row-major order, whatever its strides.
pub struct Elements<'a, T> {
    /// From the first element to the last.
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) offsets: Offsets,
    pub(crate) left: u64,
    pub(crate) of: PhantomData<T>,
}

impl<T: Element> Iterator for Elements<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let start = self.offsets.step() as usize * size_of::<T>();
        // The view checked the extent; for bool it checked the values too.
        bytemuck::checked::try_pod_read_unaligned(&self.bytes[start..start + size_of::<T>()]).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

/// Iterator over the rows of a contiguous tensor: its parts along the first dimension, borrowed.
#[derive(Clone, Debug)]
pub struct Rows<'a, T> {
    /// All rows; none where rows are empty.
    pub(crate) elements: ChunksExact<'a, T>,
    /// Rows that are empty.
    pub(crate) empty: usize,
}

impl<'a, T> Iterator for Rows<'a, T> {
    type Item = &'a [T];

    fn next(&mut self) -> Option<&'a [T]> {
        match self.empty {
            0 => self.elements.next(),
            _ => {
                self.empty -= 1;
                Some(&[])
            }
        }
    }

    fn nth(&mut self, count: usize) -> Option<&'a [T]> {
        let empty = count.min(self.empty);
        self.empty -= empty;
        match self.empty {
            0 => self.elements.nth(count - empty),
            _ => self.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.elements.len() + self.empty;
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Rows<'_, T> {}

impl<T> FusedIterator for Rows<'_, T> {}
