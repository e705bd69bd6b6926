//! Elements of any stride to contiguous bytes, the same for the writer and for views.

use smallvec::SmallVec;

/// Tensors of more dimensions take memory of their own to be walked.
type Few<T> = SmallVec<[T; 6]>;

/// Shape and stride without dimensions that do not matter: sizes of 1 are dropped, and neighbours that lie as one
/// dimension are joined.
fn coalesce(shape: &[u64], stride: &[u64]) -> (Few<u64>, Few<u64>) {
    let mut out = (Few::<u64>::new(), Few::<u64>::new());
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
/// ```
/// let mut out = [0; 4];
/// pt_format::strided::copy_strided(&[0, 1, 2, 3, 4, 5], &[2, 2], &[1, 3], 1, &mut out);
/// assert_eq!(out, [0, 3, 1, 4]);
/// ```
///
/// # Panics
/// When `source` or `out` is shorter than shape and stride need.
pub fn copy_strided(source: &[u8], shape: &[u64], stride: &[u64], itemsize: usize, out: &mut [u8]) {
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
        let start = offsets.step() as usize * itemsize;
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
///
/// ```
/// let mut offsets = pt_format::strided::Offsets::new(&[2, 2], &[10, 1]);
/// assert_eq!([0; 4].map(|_| offsets.step()), [0, 1, 10, 11]);
/// ```
#[derive(Clone, Debug)]
pub struct Offsets {
    dims: Few<Dim>,
    offset: u64,
}

#[derive(Clone, Debug)]
struct Dim {
    size: u64,
    stride: u64,
    index: u64,
}

impl Offsets {
    /// Starts at the first element.
    pub fn new(shape: &[u64], stride: &[u64]) -> Self {
        let dims = shape.iter().zip(stride).map(|(&size, &stride)| Dim { size, stride, index: 0 });
        Self { dims: dims.collect(), offset: 0 }
    }

    /// Returns the offset of this element and steps to the next, around to the first after the last.
    pub fn step(&mut self) -> u64 {
        let here = self.offset;
        for dim in self.dims.iter_mut().rev() {
            dim.index += 1;
            // The stride of a dimension of size 1 is any number at all; what is added is taken back at once.
            self.offset = self.offset.wrapping_add(dim.stride);
            if dim.index < dim.size {
                break;
            }
            self.offset = self.offset.wrapping_sub(dim.stride.wrapping_mul(dim.size));
            dim.index = 0;
        }
        here
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

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
        assert_eq!(coalesce(&[2, 3, 4], &[12, 4, 1]), (smallvec![24], smallvec![1]));
        assert_eq!(coalesce(&[2, 1, 4], &[8, 77, 1]), (smallvec![2, 4], smallvec![8, 1]));
        assert_eq!(coalesce(&[5, 5], &[0, 0]), (smallvec![25], smallvec![0]));
    }
}
