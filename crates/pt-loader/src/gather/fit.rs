//! How what lies in a file becomes what a batch holds: taken as it is, cast, padded, spread over a larger box.

use std::ops::Range;

use pt_format::DType;

use crate::batch::Ragged;
use crate::dataset::Field;
use crate::grid::Grid;
use crate::pad::{Pad, fill};
use crate::plan::BatchField;
use crate::read;

/// How what is stored fits a slot.
pub(super) struct Fit<'b> {
    /// Bytes in the file, of all steps and of one.
    pub(super) stored: usize,
    pub(super) stored_step: usize,
    /// Where they go; around that it is padded.
    pub(super) inside: Range<usize>,
    /// Bytes of a step.
    step: usize,
    dtype: DType,
    /// The dtype that elements have in the file, and what they are multiplied with.
    cast: Option<(DType, f32)>,
    pad: Option<Pad>,
    /// Of a sample that is not as large as its box, which are padded in more than one dimension.
    grid: Option<Grid<'b>>,
}

impl<'b> Fit<'b> {
    #[inline]
    pub(super) fn new(field: &'b BatchField, ragged: Ragged, row: usize, count: u64, room: usize) -> Self {
        let pad = match ragged {
            Ragged::Pad(pad) if field.field.is_ragged => Some(pad),
            _ => None,
        };
        let Field { dtype, stored, scale, .. } = field.field;
        let grid = match pad {
            Some(pad) if field.is_grid => Grid::new(field.sizes(row), &field.shape()[1..], pad.side),
            _ => None,
        };
        let bytes = if grid.is_some() { room } else { count as usize * field.step };
        Self {
            stored: count as usize * field.stored_step,
            stored_step: field.stored_step,
            inside: pad.map_or(0..bytes, |pad| pad.side.place(room, bytes)),
            step: field.step,
            dtype,
            cast: (dtype != stored).then_some((stored, scale)),
            pad,
            grid,
        }
    }

    /// Whether what is stored goes where it belongs as it is.
    pub(super) fn is_direct(&self) -> bool {
        self.cast.is_none() && self.grid.is_none()
    }

    /// Puts what was stored where it belongs.
    #[inline]
    pub(super) fn put(&self, from: &[u8], out: &mut [u8]) {
        if let (Some(grid), Some(pad)) = (self.grid, self.pad) {
            return grid.put(from, self.cast, out, self.dtype, pad);
        }
        read::copy(from, self.cast, &mut out[self.inside.clone()]);
        self.pad(out);
    }

    #[inline]
    pub(super) fn pad(&self, out: &mut [u8]) {
        if let Some(pad) = self.pad {
            fill(out, self.inside.clone(), self.step, self.dtype, pad);
        }
    }
}
