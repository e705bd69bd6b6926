//! Strided tensors of files that are read by position: piece by piece, leaving wide gaps out.

use pt_format::geometry;
use pt_format::strided::{Offsets, copy_strided};

use crate::bytes::FileBytes;
use crate::error::{Obstacle, Result};

/// What a positioned read costs beside its bytes: as much as so many bytes more.
const READ_BYTES: u128 = 16 << 10;
/// As much is read at a time, where the elements allow it.
const PIECE_BYTES: u64 = 1 << 20;

impl FileBytes<'_> {
    /// Reads elements that lie apart, the first of them at `start`, into `out` in row-major order, by way of `scratch`. The caller has checked
    /// that they lie inside the file, and that `out` holds them.
    pub(crate) fn read_strided(
        &self,
        start: u64,
        (shape, stride): (&[u64], &[u64]),
        itemsize: usize,
        scratch: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<(), Obstacle> {
        if out.is_empty() {
            return Ok(());
        }
        let leading = leading_dims(shape, stride, itemsize);
        let ((outer_shape, shape), (outer_stride, stride)) =
            (shape.split_at(leading), stride.split_at(leading));
        let blocks = geometry::numel(outer_shape).unwrap_or(1).max(1) as usize;
        let mut firsts = Offsets::new(outer_shape, outer_stride);
        for block in out.chunks_exact_mut(out.len() / blocks) {
            let start = start + firsts.step() * itemsize as u64;
            self.read_block(start, (shape, stride), itemsize, block, scratch)?;
        }
        Ok(())
    }

    /// Reads elements from the first to the last, gaps and all, so many rows at a time.
    fn read_block(
        &self,
        start: u64,
        (shape, stride): (&[u64], &[u64]),
        itemsize: usize,
        out: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Obstacle> {
        if geometry::is_contiguous(shape, stride) {
            return self.read_exact(out, start);
        }
        let (Some((&rows, inner_shape)), Some((&step, inner_stride))) =
            (shape.split_first(), stride.split_first())
        else {
            return self.read_exact(out, start);
        };
        let row_bytes = out.len() / rows as usize;
        let row_extent = geometry::extent(inner_shape, inner_stride).unwrap_or(0);
        let rows_at_a_time = match step >= row_extent && step > 0 {
            true => (PIECE_BYTES / itemsize as u64).saturating_sub(row_extent) / step + 1,
            // Rows that lie in each other would be read again and again.
            false => rows,
        };
        let mut start = start;
        // The last piece may have fewer rows.
        let mut fewer = Vec::new();
        for piece in out.chunks_mut(rows_at_a_time.min(rows) as usize * row_bytes) {
            let rows_here = (piece.len() / row_bytes) as u64;
            let shape = if rows_here == rows {
                shape
            } else {
                fewer.clear();
                fewer.push(rows_here);
                fewer.extend_from_slice(inner_shape);
                &fewer
            };
            scratch.resize(((rows_here - 1) * step + row_extent) as usize * itemsize, 0);
            self.read_exact(scratch, start)?;
            copy_strided(scratch, shape, stride, itemsize, piece);
            start += rows_here * step * itemsize as u64;
        }
        Ok(())
    }
}

/// How many of the first dimensions to walk so that what is read costs least: each place of them is a read of what the
/// others reach over.
fn leading_dims(shape: &[u64], stride: &[u64], itemsize: usize) -> usize {
    let cost = |leading: &usize| {
        let reads = geometry::numel(&shape[..*leading]).unwrap_or(u64::MAX);
        let extent = geometry::extent(&shape[*leading..], &stride[*leading..]).unwrap_or(u64::MAX);
        u128::from(reads).saturating_mul(READ_BYTES + u128::from(extent) * itemsize as u128)
    };
    (0..=shape.len()).min_by_key(cost).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_gaps_are_left_out_and_narrow_ones_read() {
        let cases: [(&[u64], &[u64], usize); 6] = [
            (&[2048], &[1 << 20], 1),          // a column of wide rows: one by one
            (&[2048], &[1000], 0),             // of narrow ones: all at once
            (&[100, 100], &[1, 100], 0),       // transposed
            (&[8, 1 << 20], &[1 << 30, 1], 1), // rows that lie far apart
            (&[4, 4, 512], &[1 << 30, 1024, 1], 1),
            (&[1 << 40], &[0], 0), // expanded
        ];
        for (shape, stride, expected) in cases {
            assert_eq!(leading_dims(shape, stride, 1), expected, "{shape:?} {stride:?}");
        }
    }
}
