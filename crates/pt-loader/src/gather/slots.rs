//! The places of a batch, and which part of which tensor goes to each.

use pt_format::geometry;

use crate::batch::Ragged;
use crate::dataset::{DataSet, Unit};
use crate::plan::{BatchField, BatchPlan};

/// A place of the batch, and what goes there.
pub(super) struct Slot<'b> {
    pub(super) file: usize,
    /// Of the tensors of its schema that are samples or fields, the number.
    pub(super) number: usize,
    /// Sample of the batch.
    pub(super) row: usize,
    /// Steps along the first dimension that are wanted; where all are, the whole tensor is one step.
    pub(super) first: u64,
    pub(super) count: u64,
    /// Where they lie in the file; [`NOT_PLAIN`] if they do not lie there as they are.
    pub(super) start: u64,
    /// Which part of the batch's work it belongs to.
    pub(super) piece: usize,
    /// Its bytes are on their way to memory, and are to be read when all others are.
    pub(super) is_fetched: bool,
    pub(super) out: &'b mut [u8],
}

pub(super) const NOT_PLAIN: u64 = u64::MAX;

/// Cuts the memory of a batch into the places of its samples.
pub(super) fn slots<'b>(plan: &BatchPlan, data: &DataSet, mut rest: &'b mut [u8]) -> Vec<Slot<'b>> {
    let places = &plan.places;
    let mut slots = Vec::with_capacity(places.len() * plan.fields.len());
    let mut at = 0;
    for (number, field) in plan.fields.iter().enumerate() {
        let range = field.range();
        let (_, from_here) = std::mem::take(&mut rest).split_at_mut(range.start - at);
        let (mut region, after) = from_here.split_at_mut(range.len());
        (rest, at) = (after, range.end);
        let mut row = 0;
        while row < places.len() {
            let (file, within) = places[row];
            let Steps { first, mut count, mut bytes } = Steps::of(plan, data, field, row);
            let mut rows = 1;
            if data.set.unit == Unit::Row {
                // Rows that follow each other in the file and in the batch are one read, in place.
                let follows = |rows: &usize| places.get(row + rows) == Some(&(file, within + *rows as u64));
                rows = (1..).find(|rows| !follows(rows)).unwrap_or(1);
                (count, bytes) = (rows as u64, rows * bytes);
            }
            let (out, others) = std::mem::take(&mut region).split_at_mut(bytes);
            region = others;
            let number = if data.set.unit == Unit::Tensor { within as usize } else { number };
            slots.push(Slot { file, number, row, first, count, start: 0, piece: 0, is_fetched: false, out });
            row += rows;
        }
    }
    slots
}

/// Which steps along the first dimension of a tensor a sample has, and how many bytes of the batch are for them. Where the
/// whole tensor is wanted, it is one step.
pub(super) struct Steps {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) bytes: usize,
}

impl Steps {
    #[inline]
    pub(super) fn of(plan: &BatchPlan, data: &DataSet, field: &BatchField, row: usize) -> Self {
        let step = field.step;
        if !field.field.is_ragged {
            let first = if data.set.unit == Unit::Row { plan.places[row].1 } else { 0 };
            return Self { first, count: 1, bytes: step };
        }
        let gets = field.offsets[row + 1] - field.offsets[row];
        if field.is_grid {
            // All of it is read: what is cut off lies in between.
            let count = geometry::numel(field.sizes(row)).unwrap_or(0);
            return Self { first: 0, count, bytes: gets as usize * step };
        }
        let has = field.lengths[row];
        let count = has.min(gets);
        let first = if let Ragged::Pad(pad) = plan.ragged { pad.first(has, count) } else { 0 };
        Self { first, count, bytes: gets as usize * step }
    }
}

/// Where a step begins. A damaged index can place it beyond all bytes; it stays there, and is refused when it is read.
#[inline]
pub(super) fn step_start(start: u64, first: u64, step: usize) -> u64 {
    start.saturating_add(first.saturating_mul(step as u64)).min(NOT_PLAIN - 1)
}
