//! Elements of a strided tensor, one by one, without copying them first.

use std::borrow::Cow;
use std::marker::PhantomData;

use pt_format::Element;
use pt_format::strided::Offsets;

/// Iterator over the elements of a tensor in row-major order, whatever its strides.
pub struct Elements<'a, T> {
    /// From the first element to the last.
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) offsets: Offsets<'a>,
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
