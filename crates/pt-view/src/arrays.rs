//! Tensors as arrays of the crate `ndarray`.

use ndarray::{ArrayViewD, IxDyn, ShapeBuilder};
use pt_format::Element;

use crate::error::{Obstacle, Result};
use crate::view::TensorView;

impl<'a> TensorView<'a> {
    /// Borrows the elements as an `ndarray` view; strides are kept, so nothing is copied.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # use pt_view::{FileBytes, TensorView};
    /// # let file = write::to_vec(&write::Tensor::new::<u8>(&[2, 3], &[1, 2, 3, 4, 5, 6])?.into())?;
    /// # let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// # let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// let columns = view.narrow(1, 1, 2)?;
    /// let array = columns.as_array::<u8>()?;
    /// assert_eq!(array, ndarray::array![[2, 3], [5, 6]].into_dyn());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::as_slice`], strides aside; [`Obstacle::TooLarge`] for more than `ndarray` can count.
    pub fn as_array<T: Element>(&self) -> Result<ArrayViewD<'a, T>> {
        let (elements, shape, stride) = self.strided_slice::<T>()?;
        let counted = |numbers: &[u64]| -> Option<Vec<usize>> {
            numbers.iter().map(|&number| usize::try_from(number).ok()).collect()
        };
        let dims = counted(shape).zip(counted(stride));
        let array = dims.and_then(|(shape, mut stride)| {
            if elements.is_empty() {
                return ArrayViewD::from_shape(IxDyn(&shape), elements).ok();
            }
            // The stride of a dimension of size 1 is any number; `ndarray` wants one that fits.
            stride.iter_mut().zip(&shape).filter(|(_, size)| **size == 1).for_each(|(stride, _)| *stride = 0);
            ArrayViewD::from_shape(IxDyn(&shape).strides(IxDyn(&stride)), elements).ok()
        });
        array.ok_or_else(|| self.refused(Obstacle::TooLarge(self.nbytes().unwrap_or(u64::MAX))))
    }
}
