//! Elements of any stride to contiguous bytes.

/// Shape and stride without dimensions that do not matter: sizes of 1 are dropped, and neighbours that lie as one
/// dimension are joined.
pub(crate) fn coalesce(shape: &[u64], stride: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let mut out: (Vec<u64>, Vec<u64>) = (Vec::with_capacity(shape.len()), Vec::with_capacity(shape.len()));
    for (&size, &step) in shape.iter().zip(stride) {
        if size == 1 {
            continue;
        }
        match (out.0.last_mut(), out.1.last_mut()) {
            (Some(outer_size), Some(outer_step)) if *outer_step == step.saturating_mul(size) => {
                *outer_size *= size;
                *outer_step = step;
            }
            _ => {
                out.0.push(size);
                out.1.push(step);
            }
        }
    }
    out
}

/// Copies the elements of a strided tensor in row-major order. `source` begins at the first element and reaches to the
/// last; `out` holds exactly the elements.
///
/// # Panics
/// When `source` or `out` is shorter than shape and stride need.
pub(crate) fn copy_strided(source: &[u8], shape: &[u64], stride: &[u64], itemsize: usize, out: &mut [u8]) {
    if out.is_empty() {
        return;
    }
    let (shape, stride) = coalesce(shape, stride);
    let Some((&inner_size, outer_shape)) = shape.split_last() else {
        return out.copy_from_slice(&source[..itemsize]);
    };
    let (inner_step, outer_stride) = match stride.split_last() {
        Some((&step, outer)) => (step as usize * itemsize, outer),
        None => return,
    };
    let row_bytes = inner_size as usize * itemsize;
    let mut offsets = Offsets::new(outer_shape, outer_stride);
    for row in out.chunks_exact_mut(row_bytes) {
        let start = offsets.next() as usize * itemsize;
        let from = &source[start..];
        if inner_step == itemsize {
            row.copy_from_slice(&from[..row_bytes]);
            continue;
        }
        match itemsize {
            1 => copy_row::<1>(from, inner_step, row),
            2 => copy_row::<2>(from, inner_step, row),
            4 => copy_row::<4>(from, inner_step, row),
            8 => copy_row::<8>(from, inner_step, row),
            16 => copy_row::<16>(from, inner_step, row),
            _ => {
                for (index, element) in row.chunks_exact_mut(itemsize).enumerate() {
                    element.copy_from_slice(&from[index * inner_step..][..itemsize]);
                }
            }
        }
    }
}

/// A row of elements of a size known to the compiler.
fn copy_row<const N: usize>(from: &[u8], step: usize, row: &mut [u8]) {
    let mut at = 0;
    for element in row.chunks_exact_mut(N) {
        element.copy_from_slice(&from[at..at + N]);
        at += step;
    }
}

/// Offsets of a strided walk in row-major order, in elements. The caller knows how many there are.
pub(crate) struct Offsets<'d> {
    shape: &'d [u64],
    stride: &'d [u64],
    index: Vec<u64>,
    offset: u64,
}

impl<'d> Offsets<'d> {
    pub(crate) fn new(shape: &'d [u64], stride: &'d [u64]) -> Self {
        Self { shape, stride, index: vec![0; shape.len()], offset: 0 }
    }

    /// Returns the offset of this element and steps to the next, around to the first after the last.
    pub(crate) fn next(&mut self) -> u64 {
        let here = self.offset;
        for dim in (0..self.shape.len()).rev() {
            self.index[dim] += 1;
            // The stride of a dimension of size 1 is any number at all; what is added is taken back at once.
            self.offset = self.offset.wrapping_add(self.stride[dim]);
            if self.index[dim] < self.shape[dim] {
                break;
            }
            self.offset = self.offset.wrapping_sub(self.stride[dim].wrapping_mul(self.shape[dim]));
            self.index[dim] = 0;
        }
        here
    }
}

/// Swaps the byte order of values of `width` bytes.
pub(crate) fn swap(bytes: &mut [u8], width: usize) {
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

/// Flips the sign of floating point values of `width` bytes (little-endian): of every one, or of every second one (the
/// imaginary parts of complex numbers).
pub(crate) fn negate_floats(bytes: &mut [u8], width: usize, imaginary_only: bool) {
    let skip = usize::from(imaginary_only);
    for value in bytes.chunks_exact_mut(width).skip(skip).step_by(1 + skip) {
        value[width - 1] ^= 0x80;
    }
}

/// Negates little-endian integers of `width` bytes, wrapping.
pub(crate) fn negate_integers(bytes: &mut [u8], width: usize) {
    for value in bytes.chunks_exact_mut(width) {
        let mut carry = true;
        for byte in value {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(count: u8, shape: &[u64], stride: &[u64]) -> Vec<u8> {
        let source: Vec<u8> = (0..count).collect();
        let mut out = vec![0xFF; shape.iter().product::<u64>() as usize];
        copy_strided(&source, shape, stride, 1, &mut out);
        out
    }

    #[test]
    fn every_stride_comes_out_in_row_major_order() {
        assert_eq!(copied(6, &[2, 3], &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(copied(6, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(copied(2, &[2, 3], &[1, 0]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(copied(12, &[2, 1, 2, 2], &[6, 99, 2, 1]), [0, 1, 2, 3, 6, 7, 8, 9]);
        assert_eq!(copied(2, &[1, 2, 1], &[u64::MAX, 1, u64::MAX]), [0, 1]);
        assert_eq!(copied(1, &[], &[]), [0]);
        assert_eq!(copied(0, &[0, 4], &[4, 1]), [0u8; 0]);
    }

    #[test]
    fn neighbours_that_lie_as_one_dimension_are_joined() {
        assert_eq!(coalesce(&[2, 3, 4], &[12, 4, 1]), (vec![24], vec![1]));
        assert_eq!(coalesce(&[2, 1, 4], &[8, 77, 1]), (vec![2, 4], vec![8, 1]));
        assert_eq!(coalesce(&[5, 5], &[0, 0]), (vec![25], vec![0]));
    }

    #[test]
    fn values_are_swapped_and_negated_in_place() {
        let mut bytes = [1, 2, 3, 4];
        swap(&mut bytes, 2);
        assert_eq!(bytes, [2, 1, 4, 3]);
        let mut complex = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        negate_floats(&mut complex, 4, true);
        assert_eq!(complex, [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let mut integers = 5i16.to_le_bytes();
        negate_integers(&mut integers, 2);
        assert_eq!(i16::from_le_bytes(integers), -5);
    }
}
