//! One file of a batch: opened, its tensors found, and brought to their places in the way that suits them.

use pt_index::{FileEntry, TensorEntry};
use pt_view::Obstacle;

use super::fit::Fit;
use super::runs::Segment;
use super::slots::{NOT_PLAIN, Slot, step_start};
use super::{Gather, Spare};
use crate::dataset::{DataSet, Unit};
use crate::error::{Error, Result};
use crate::files::{Content, Opened};
use crate::plan::{BatchField, BatchPlan};
use crate::read::{self, Place, Wait};

/// Local headers are shorter, names and extra fields included.
const HEADER_BYTES_MAX: u64 = 1 << 18;

/// Reads what the batch wants of one file.
pub(super) struct Reader<'b> {
    pub(super) plan: &'b BatchPlan,
    pub(super) data: &'b DataSet,
    pub(super) entry: FileEntry<'b>,
    pub(super) file: Opened<'b>,
    /// The first sample that lies there.
    pub(super) sample: usize,
    pub(super) wait: Wait,
    /// Whether, if it is mapped, what is wanted of it may not be in memory.
    pub(super) is_cold: bool,
}

impl<'b> Reader<'b> {
    pub(super) fn open(
        Gather { plan, data, is_cold }: Gather<'b>,
        slots: &[Slot<'_>],
        wait: Wait,
        spare: &mut Spare,
    ) -> Result<Self> {
        let sample = slots.first().map_or(0, |slot| plan.samples[slot.row]);
        let file = slots.first().and_then(|slot| data.index().file(slot.file));
        let entry = file.ok_or_else(|| Error::NoSuchSample { sample, count: data.len() })?;
        let tensors = data.set.schemas.get(entry.schema().number()).map_or(0, |schema| schema.tensors.len());
        let is_cold = is_cold || data.shared.files.kept(entry.row()).is_none();
        let file = data.shared.files.open(entry, tensors, &mut spare.path);
        let file = file.map_err(|error| Error::At { sample, source: Box::new(error) })?;
        Ok(Self { plan, data, entry, file, sample, wait, is_cold })
    }

    pub(super) fn read(&self, slots: &mut [Slot<'_>], spare: &mut Spare) -> Result<()> {
        spare.segments.clear();
        for slots in slots.chunk_by_mut(|one, other| one.number == other.number) {
            self.locate(slots, &mut spare.segments)?;
        }
        match self.file.content() {
            Content::Mapped(_) if self.is_fetched_first() => self.fetch(slots, &spare.segments),
            Content::Mapped(bytes) => self.copy(slots, bytes)?,
            Content::Read(source) => {
                // Fields mostly lie in the order in which they are listed; then there is nothing to sort.
                slots.sort_unstable_by_key(|slot| (slot.start, slot.number, slot.row));
                spare.segments.sort_unstable_by_key(|segment| (segment.start, segment.slot));
                self.read_plain(source, slots, &spare.segments, &mut spare.run)?;
            }
        }
        let odd = slots.iter_mut().filter(|slot| slot.start == NOT_PLAIN && !slot.is_fetched);
        self.put_together(odd, &mut spare.tensor, &mut spare.run)?;
        if self.data.drops_behind {
            self.drop_behind(slots, &spare.segments);
        }
        Ok(())
    }

    /// Whether, if the file is mapped, what is wanted of it is asked for before it is touched.
    fn is_fetched_first(&self) -> bool {
        self.is_cold && self.wait == Wait::No
    }

    /// Lets go of the pages that slots were copied from, and of those of the headers that were looked at.
    fn drop_behind(&self, slots: &[Slot<'_>], headers: &[Segment]) {
        if slots.iter().any(|slot| slot.start == NOT_PLAIN) {
            return self.file.release(0, u64::MAX);
        }
        let starts = slots.iter().map(|slot| slot.start).chain(headers.iter().map(|header| header.start));
        let start = starts.min().unwrap_or(0);
        let end = slots.iter().map(|slot| slot.start.saturating_add(self.fit(slot).stored as u64)).max();
        self.file.release(start, end.unwrap_or(0).saturating_sub(start));
    }

    /// Finds where the steps of one tensor lie.
    fn locate(&self, slots: &mut [Slot<'_>], segments: &mut Vec<Segment>) -> Result<()> {
        let plain = &self.data.shared.plain;
        let number = slots[0].number;
        let (tensor, field) = (self.tensor(&slots[0])?, self.field(&slots[0]));
        let step = field.stored_step;
        let (start, unchecked) = match self.file.start(number) {
            Some(start) => (start, None),
            None => {
                let last = slots.iter().map(|slot| slot.first + slot.count).max().unwrap_or(0);
                let needs = last.checked_mul(step as u64);
                let differs = |problem| self.differs(&slots[0], tensor, problem);
                read::check(tensor, field.field.stored, needs).map_err(differs)?;
                let Some(Place { start, unchecked }) = plain.place(tensor, &self.file) else {
                    slots.iter_mut().for_each(|slot| slot.start = NOT_PLAIN);
                    return Ok(());
                };
                (start, unchecked)
            }
        };
        for slot in slots.iter_mut() {
            slot.start = step_start(start, slot.first, step);
        }
        if let Some((record, header)) = unchecked.and_then(|record| Some((record, record.header_offset?))) {
            let bytes = record.data_offset.saturating_sub(header).min(HEADER_BYTES_MAX) as usize;
            segments.push(Segment { start: header, bytes, header_of: Some(tensor.number()), slot: (0, 0) });
        }
        let is_checked = match (unchecked, self.file.content()) {
            (Some(record), Content::Mapped(bytes)) if !self.is_fetched_first() => {
                let verified = record.verify(bytes);
                verified.map_err(|fault| self.refused(&slots[0], tensor, fault.into()))?;
                plain.note(tensor);
                true
            }
            (unchecked, _) => unchecked.is_none(),
        };
        if is_checked {
            self.file.note_start(number, start);
        }
        if let Content::Mapped(_) = self.file.content() {
            return Ok(());
        }
        let steps = slots.iter().map(|slot| Segment {
            start: slot.start,
            bytes: slot.count as usize * step,
            header_of: None,
            slot: (slot.number, slot.row),
        });
        segments.extend(steps);
        Ok(())
    }

    /// Reads tensors that do not lie in the file as they are: each once, as a whole.
    fn put_together<'s, 'm: 's>(
        &self,
        slots: impl Iterator<Item = &'s mut Slot<'m>>,
        whole: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<()> {
        let mut last = None;
        for slot in slots {
            let tensor = self.tensor(slot)?;
            let fit = self.fit(slot);
            let sample = self.plan.samples[slot.row];
            let failed = |error| self.failed(sample, error);
            let view = self.file.view(tensor);
            let bytes = tensor.nbytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
            if bytes == fit.stored && fit.is_direct() {
                view.read_into_with(&mut slot.out[fit.inside.clone()], spare).map_err(failed)?;
                fit.pad(slot.out);
                continue;
            }
            if last != Some(slot.number) {
                // Strides of 0 make terabytes of nothing.
                let too_large = |_| failed(read::refused(tensor, Obstacle::TooLarge(bytes as u64)));
                whole.clear();
                whole.try_reserve(bytes).map_err(too_large)?;
                whole.resize(bytes, 0);
                view.read_into_with(whole, spare).map_err(failed)?;
                last = Some(slot.number);
            }
            let start = slot.first as usize * fit.stored_step;
            fit.put(&whole[start..start + fit.stored], slot.out);
        }
        Ok(())
    }

    fn field(&self, slot: &Slot<'_>) -> &'b BatchField {
        let number = if self.data.set.unit == Unit::Tensor { 0 } else { slot.number };
        &self.plan.fields[number]
    }

    pub(super) fn tensor(&self, slot: &Slot<'_>) -> Result<TensorEntry<'b>> {
        let schema = self.data.set.schemas.get(self.entry.schema().number());
        let number = schema.and_then(|schema| schema.tensors.get(slot.number).copied());
        let missing = || {
            let tensor = self.field(slot).name().to_owned();
            let source = Error::Differs { path: self.path(), tensor, problem: "is missing".into() };
            Error::At { sample: self.plan.samples[slot.row], source: Box::new(source) }
        };
        number.and_then(|number| self.entry.tensor_at(number)).ok_or_else(missing)
    }

    pub(super) fn fit(&self, slot: &Slot<'_>) -> Fit<'b> {
        Fit::new(self.field(slot), self.plan.ragged, slot.row, slot.count, slot.out.len())
    }

    #[cold]
    fn path(&self) -> std::path::PathBuf {
        self.data.root().join(self.entry.path())
    }

    #[cold]
    fn differs(&self, slot: &Slot<'_>, tensor: TensorEntry<'_>, problem: String) -> Error {
        let source = Error::Differs { path: self.path(), tensor: tensor.name().to_owned(), problem };
        Error::At { sample: self.plan.samples[slot.row], source: Box::new(source) }
    }

    #[cold]
    pub(super) fn refused(&self, slot: &Slot<'_>, tensor: TensorEntry<'_>, obstacle: Obstacle) -> Error {
        self.failed(self.plan.samples[slot.row], read::refused(tensor, obstacle))
    }

    #[cold]
    pub(super) fn failed(&self, sample: usize, source: pt_view::Error) -> Error {
        let source = Error::Sample { path: self.path(), source: Box::new(source) };
        Error::At { sample, source: Box::new(source) }
    }
}
