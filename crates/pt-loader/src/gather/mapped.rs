//! Copies from files that are mapped, and loans of what lies there.

use pt_format::geometry;
use pt_view::Obstacle;

use super::fit::Fit;
use super::reader::Reader;
use super::slots::{NOT_PLAIN, Slot, Steps, step_start};
use crate::dataset::{DataSet, Unit};
use crate::error::Result;
use crate::plan::BatchPlan;

/// Copies a small batch from maps that are open, where all tensors are known to begin; returns whether that could be done.
pub(super) fn copy_known(plan: &BatchPlan, data: &DataSet, memory: &mut [u8]) -> bool {
    let is_tensor = data.set.unit == Unit::Tensor;
    for (number, field) in plan.fields.iter().enumerate() {
        let region = &mut memory[field.range()];
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

/// Lends a field of a sample from a map that is open, where the tensor is known to begin.
pub(crate) fn lent(data: &DataSet, sample: usize, number: usize) -> Option<&[u8]> {
    let (file, within) = data.place(sample)?;
    let field = data.set.fields.get(number).filter(|field| field.dtype == field.stored)?;
    let kept = data.shared.files.kept(file)?;
    let is_tensor = data.set.unit == Unit::Tensor;
    let start = kept.start(if is_tensor { within as usize } else { number })?;
    let step = field.step_bytes(field.stored)?;
    if field.is_ragged {
        let sizes = data.sizes((file, within), number);
        let steps = if field.is_grid() { geometry::numel(sizes)? } else { *sizes.first()? };
        return slice(kept.bytes()?, start, step.checked_mul(usize::try_from(steps).ok()?)?);
    }
    let first = if data.set.unit == Unit::Row { within } else { 0 };
    slice(kept.bytes()?, step_start(start, first, step), step)
}

impl Reader<'_> {
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
fn slice(bytes: &[u8], start: u64, length: usize) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(length)?)
}
