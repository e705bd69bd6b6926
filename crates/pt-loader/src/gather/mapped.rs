//! Copies from files that are mapped, and loans of what lies there.

use pt_format::geometry;
use pt_view::Obstacle;

use super::fit::Fit;
use super::reader::Reader;
use super::runs::Segment;
use super::slots::{NOT_PLAIN, Slot, Steps, step_start};
use crate::dataset::{DataSet, Field, Unit};
use crate::error::Result;
use crate::plan::BatchPlan;

/// Copies a small batch from maps that are open, where all tensors are known to begin; returns whether that could be done.
pub(super) fn copy_known(plan: &BatchPlan, data: &DataSet, memory: &mut [u8]) -> bool {
    let is_tensor = data.set.unit == Unit::Tensor;
    for (number, field) in plan.fields.iter().enumerate() {
        let region = &mut memory[field.range()];
        if is_plain(&field.field) && !field.field.is_ragged && field.step > 0 {
            let mut rows = region.chunks_exact_mut(field.step).zip(&plan.places);
            let copy = |(out, &place): (&mut [u8], _)| {
                let from = known(data, place, number).filter(|from| from.len() == out.len());
                from.map(|from| out.copy_from_slice(from)).is_some()
            };
            match rows.all(copy) {
                true => continue,
                false => return false,
            }
        }
        let mut at = 0;
        for (row, &(file, within)) in plan.places.iter().enumerate() {
            let steps = Steps::of(plan, data, field, row);
            let Some(kept) = data.shared.files.kept(file) else { return false };
            let number = if is_tensor { within as usize } else { number };
            let (Some(start), Some(bytes)) = (kept.start(number), kept.bytes()) else { return false };
            let out = &mut region[at..at + steps.bytes];
            at += steps.bytes;
            let fit = Fit::new(field, plan.ragged, row, steps.count, out.len());
            let start = step_start(start, steps.first, fit.stored_step);
            let Some(from) = slice(bytes, start, fit.stored) else { return false };
            fit.put(from, out);
        }
    }
    true
}

/// So many bytes, or so many places, of a batch are worth looking whether one of them is in memory.
const BYTES_PER_LOOK: usize = 16 << 10;
const PLACES_PER_LOOK: usize = 16;
/// If one of two places is in memory, the batch is seen to be cold in 15 cases of 16.
const LOOKS_MAX: usize = 4;

/// Returns whether a batch seems not to be in memory: some of its places are looked at, in files that are open.
pub(super) fn is_cold(plan: &BatchPlan, data: &DataSet) -> bool {
    let places = plan.places.len() * plan.fields.len();
    let looks = (plan.bytes() / BYTES_PER_LOOK).max(places / PLACES_PER_LOOK).min(LOOKS_MAX).min(places);
    (0..looks).any(|look| {
        let place = look * places / looks;
        let (number, row) = (place / plan.places.len(), place % plan.places.len());
        let (field, (file, within)) = (&plan.fields[number], plan.places[row]);
        let number = if data.set.unit == Unit::Tensor { within as usize } else { number };
        let kept = data.shared.files.kept(file);
        kept.and_then(|kept| Some((kept, kept.start(number)?))).is_some_and(|(kept, start)| {
            let steps = Steps::of(plan, data, field, row);
            kept.is_absent(step_start(start, steps.first, field.stored_step))
        })
    })
}

/// Lends a field of a sample from a map that is open, where the tensor is known to begin.
#[inline]
pub(crate) fn lent(data: &DataSet, sample: usize, number: usize) -> Option<&[u8]> {
    let place = data.place(sample)?;
    data.set.fields.get(number).filter(|field| is_plain(field))?;
    known(data, place, number)
}

/// Whether elements have in a batch the bits that they have in the files.
fn is_plain(field: &Field) -> bool {
    field.dtype == field.stored
}

/// The bytes of a field in the map of a file that is open, where the tensor is known to begin. A few loads and comparisons:
/// whoever reads one sample after the other waits for memory, and what is to be done for the next one should not have to wait too.
#[inline]
fn known(data: &DataSet, place: (usize, u64), number: usize) -> Option<&[u8]> {
    let (file, within) = place;
    let set = &*data.set;
    let kept = data.shared.files.kept(file)?;
    let start = kept.start(if set.unit == Unit::Tensor { within as usize } else { number })?;
    let first = if set.unit == Unit::Row { within } else { 0 };
    let bytes = match *set.even_bytes.get(number)? {
        Some(bytes) => bytes,
        None => own_bytes(data, place, number)?,
    };
    slice(kept.bytes()?, step_start(start, first, bytes), bytes)
}

/// The bytes of one sample of a ragged field.
fn own_bytes(data: &DataSet, place: (usize, u64), number: usize) -> Option<usize> {
    let (field, sizes) = (data.set.fields.get(number)?, data.sizes(place, number));
    let steps = if field.is_grid() { geometry::numel(sizes)? } else { *sizes.first()? };
    field.step_bytes(field.stored)?.checked_mul(usize::try_from(steps).ok()?)
}

impl Reader<'_> {
    /// Asks for what is wanted of a map; whoever touches it waits for it.
    pub(super) fn fetch(&self, slots: &mut [Slot<'_>], headers: &[Segment]) {
        for header in headers {
            self.file.prefetch(header.start, header.bytes as u64);
        }
        for slot in slots.iter_mut().filter(|slot| slot.start != NOT_PLAIN) {
            slot.is_fetched = true;
            self.file.prefetch(slot.start, self.fit(slot).stored as u64);
        }
    }

    /// Copies from a map.
    pub(super) fn copy(&self, slots: &mut [Slot<'_>], bytes: &[u8]) -> Result<()> {
        for slot in slots.iter_mut().filter(|slot| slot.start != NOT_PLAIN) {
            let fit = self.fit(slot);
            let Some(from) = slice(bytes, slot.start, fit.stored) else {
                let (start, end) = (slot.start, slot.start.saturating_add(fit.stored as u64));
                let length = bytes.len() as u64;
                let tensor = self.tensor(slot)?;
                return Err(self.refused(slot, tensor, Obstacle::OutsideFile { start, end, length }));
            };
            fit.put(from, slot.out);
        }
        Ok(())
    }
}

/// A part of a file that is mapped.
#[inline]
fn slice(bytes: &[u8], start: u64, length: usize) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(length)?)
}
