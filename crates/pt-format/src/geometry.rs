//! Shape and stride arithmetic, the same for the parser and for views.
//!
//! Shapes and strides are in elements and never negative. All products are checked: a stride of 0 makes tensors of
//! 2^40 elements over four bytes legal, and hostile files claim more.

use crate::dtype::DType;

/// Returns the number of elements, or `None` when it does not fit.
///
/// ```
/// use pt_format::geometry;
/// assert_eq!(geometry::numel(&[2, 3]), Some(6));
/// assert_eq!(geometry::numel(&[u64::MAX, 2]), None);
/// assert_eq!(geometry::numel(&[u64::MAX, 2, 0]), Some(0));
/// ```
#[inline]
pub fn numel(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size))
}

/// Returns how many elements, counted from the first one, the tensor reaches over: `Σ (size-1)·stride + 1`, 0 when
/// it is empty, `None` when that does not fit or the ranks differ.
///
/// ```
/// use pt_format::geometry;
/// assert_eq!(geometry::extent(&[2, 3], &[3, 1]), Some(6));
/// assert_eq!(geometry::extent(&[2, 3], &[100, 1]), Some(103));
/// assert_eq!(geometry::extent(&[0, 3], &[100, 1]), Some(0));
/// ```
#[inline]
pub fn extent(shape: &[u64], stride: &[u64]) -> Option<u64> {
    if shape.len() != stride.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(stride)
        .try_fold(1u64, |sum, (&size, &stride)| sum.checked_add((size - 1).checked_mul(stride)?))
}

/// Returns whether the elements lie in row-major order without gaps. Strides of dimensions of size 1 do not matter, and
/// an empty tensor always is contiguous.
///
/// ```
/// use pt_format::geometry;
/// assert!(geometry::is_contiguous(&[1, 4, 1], &[999, 1, 77]));
/// assert!(!geometry::is_contiguous(&[2, 3], &[1, 2]));
/// ```
#[inline]
pub fn is_contiguous(shape: &[u64], stride: &[u64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1u64;
    for (&size, &stride) in shape.iter().zip(stride).rev() {
        if size != 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(size);
    }
    true
}

/// Returns the row-major strides of a shape, as PyTorch gives them (sizes of 0 count as 1).
///
/// ```
/// use pt_format::geometry;
/// assert_eq!(geometry::contiguous_stride(&[2, 0, 3]), [3, 3, 1]);
/// ```
pub fn contiguous_stride(shape: &[u64]) -> Vec<u64> {
    let mut stride = vec![1u64; shape.len()];
    for dim in (0..shape.len().saturating_sub(1)).rev() {
        stride[dim] = stride[dim + 1].saturating_mul(shape[dim + 1].max(1));
    }
    stride
}

/// Returns the bytes a packed tensor takes: each row of the last dimension is padded to whole bytes.
pub(crate) fn packed_bytes(shape: &[u64], per_byte: u64) -> Option<u64> {
    match shape.split_last() {
        None => Some(1),
        Some((last, rest)) => numel(rest)?.checked_mul(last.div_ceil(per_byte)),
    }
}

/// Returns the bytes of a contiguous tensor, `None` when that does not fit.
///
/// ```
/// use pt_format::{DType, geometry};
/// assert_eq!(geometry::nbytes(DType::Float32, &[2, 3]), Some(24));
/// assert_eq!(geometry::nbytes(DType::QUInt4x2, &[3, 5]), Some(9));
/// ```
#[inline]
pub fn nbytes(dtype: DType, shape: &[u64]) -> Option<u64> {
    match dtype.packing() {
        Some(per_byte) => packed_bytes(shape, per_byte),
        None => numel(shape)?.checked_mul(dtype.itemsize() as u64),
    }
}
