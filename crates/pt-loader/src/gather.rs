//! The reads of a batch: sorted by file and place, joined where they lie close, run in parallel, straight into the memory
//! of the batch. What is not in memory is asked for first, all of it, and read when the rest is done: so a disk has as many
//! requests at once as the batch has reads, whatever the number of threads.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::ops::Range;

use pt_format::{DType, geometry};
use pt_index::{FileEntry, TensorEntry};
use pt_view::Obstacle;
use rayon::prelude::*;

use crate::batch::Ragged;
use crate::dataset::{DataSet, Field, Unit};
use crate::error::{Error, Result};
use crate::files::{Opened, PathSpace};
use crate::grid::Grid;
use crate::pad::{Pad, fill};
use crate::plan::{BatchField, BatchPlan};
use crate::read::{self, Piece, Place, Wait};

/// What lies between two reads is read too, up to so many bytes: a page, which takes less time than another call.
const GAP_BYTES_MAX: u64 = 4096;
/// Buffers of one read.
const BUFFERS_MAX: usize = 32;
/// Reads are joined up to so many bytes.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Batches of no more bytes are tried to be copied at once, by the thread that asks: another takes longer to wake up.
const COPY_BYTES_MAX: usize = 512 << 10;
/// Batches of more bytes are read as they come: what is asked for too early may have to leave again.
const FETCH_BYTES_MAX: usize = 64 << 20;
/// Local headers are shorter, names and extra fields included.
const HEADER_BYTES_MAX: u64 = 1 << 18;
/// Batches that take less are read by the thread that asks: others would have to be woken up for it.
const ALONE_NS_MAX: usize = 25_000;

/// A place of the batch, and what goes there.
struct Slot<'b> {
    file: usize,
    /// Of the tensors of its schema that are samples or fields, the number.
    number: usize,
    /// Sample of the batch.
    row: usize,
    /// Steps along the first dimension that are wanted; where all are, the whole tensor is one step.
    first: u64,
    count: u64,
    /// Where they lie in the file; [`NOT_PLAIN`] if they do not lie there as they are.
    start: u64,
    /// Which part of the batch's work it belongs to.
    piece: usize,
    /// Its bytes are on their way to memory, and are to be read when all others are.
    is_fetched: bool,
    out: &'b mut [u8],
}

const NOT_PLAIN: u64 = u64::MAX;

/// What a thread keeps from read to read.
#[derive(Default)]
struct Spare {
    path: PathSpace,
    tensor: Vec<u8>,
    run: Vec<u8>,
    segments: Vec<Segment>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Who reads a batch.
#[derive(Clone, Copy)]
pub(crate) enum Threads<'t> {
    /// The thread that asks, without so much as asking for others.
    Alone,
    /// Those of the data set.
    OfData,
    Pool(&'t rayon::ThreadPool),
}

/// Reads all tensors of a batch into its memory.
pub(crate) fn read(plan: &BatchPlan, data: &DataSet, memory: &mut [u8], threads: Threads<'_>) -> Result<()> {
    if plan.bytes() <= COPY_BYTES_MAX && !data.drops_behind && copy_known(plan, data, memory) {
        return Ok(());
    }
    let mut slots = slots(plan, data, memory);
    slots.sort_unstable_by_key(|slot| (slot.file, slot.number, slot.first));
    let count = match threads {
        Threads::Alone => 1,
        Threads::OfData => data.threads(),
        Threads::Pool(pool) => pool.current_num_threads(),
    };
    let is_small = || !data.has_own_threads() && cost_ns(data, &slots) < ALONE_NS_MAX;
    let alone = slots.len() < 2 || count == 1 || is_small();
    let read = |slots: &mut [Slot<'_>], wait| {
        if alone {
            return read_slots(plan, data, slots, wait);
        }
        cut(slots, 4 * count, plan.bytes(), data.set.unit);
        let pieces = slots.par_chunk_by_mut(|one, other| one.piece == other.piece);
        let run = || pieces.try_for_each(|slots| read_slots(plan, data, slots, wait));
        match threads {
            Threads::Pool(pool) => pool.install(run),
            _ => data.install(run),
        }
    };
    // Files that do not stay open are opened twice if they have to be fetched: a disk takes longer by far.
    if slots.len() < 2 || plan.bytes() > FETCH_BYTES_MAX {
        return read(&mut slots, Wait::Yes);
    }
    read(&mut slots, Wait::No)?;
    if slots.iter().all(|slot| !slot.is_fetched) {
        return Ok(());
    }
    slots.retain(|slot| slot.is_fetched);
    slots.sort_unstable_by_key(|slot| (slot.file, slot.number, slot.first));
    read(&mut slots, Wait::Yes)
}

/// Reads file by file, on this thread.
fn read_slots(plan: &BatchPlan, data: &DataSet, slots: &mut [Slot<'_>], wait: Wait) -> Result<()> {
    SPARE.with_borrow_mut(|spare| {
        let mut files = slots.chunk_by_mut(|one, other| one.file == other.file);
        files.try_for_each(|slots| Reader::open(plan, data, slots, wait, spare)?.read(slots, spare))
    })
}

/// Copies a small batch from maps that are open, where all tensors are known to begin; returns whether that could be done.
fn copy_known(plan: &BatchPlan, data: &DataSet, memory: &mut [u8]) -> bool {
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

/// Cuts the memory of a batch into the places of its samples.
fn slots<'b>(plan: &BatchPlan, data: &DataSet, mut rest: &'b mut [u8]) -> Vec<Slot<'b>> {
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
struct Steps {
    first: u64,
    count: u64,
    bytes: usize,
}

impl Steps {
    fn of(plan: &BatchPlan, data: &DataSet, field: &BatchField, row: usize) -> Self {
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

/// Guesses how long the reads take one after the other, if nothing comes from a disk.
fn cost_ns(data: &DataSet, slots: &[Slot<'_>]) -> usize {
    const BYTES_PER_NS: usize = 8;
    const SLOT_NS: usize = 100;
    const CALL_NS: usize = 700;
    const OPEN_NS: usize = 6000;
    let files = slots.chunk_by(|one, other| one.file == other.file).count();
    let bytes: usize = slots.iter().map(|slot| slot.out.len()).sum();
    let calls = if data.shared.files.maps() { 0 } else { slots.len() };
    let opens = if data.shared.files.keeps() { 0 } else { files };
    bytes / BYTES_PER_NS + slots.len() * SLOT_NS + calls * CALL_NS + opens * OPEN_NS
}

/// Says which part of the work each slot belongs to, a few for each thread: that evens out what they cost.
fn cut(slots: &mut [Slot<'_>], pieces: usize, bytes: usize, unit: Unit) {
    // A slot has its price too.
    const SLOT_BYTES: usize = 4096;
    let most = (bytes + slots.len() * SLOT_BYTES).div_ceil(pieces);
    let (mut piece, mut weight, mut file) = (0, 0, usize::MAX);
    for slot in slots {
        // Where a sample is a file, each is opened once.
        if weight >= most && (unit != Unit::File || slot.file != file) {
            (piece, weight) = (piece + 1, 0);
        }
        (slot.piece, file) = (piece, slot.file);
        weight += slot.out.len() + SLOT_BYTES;
    }
}

/// Reads what the batch wants of one file.
struct Reader<'b> {
    plan: &'b BatchPlan,
    data: &'b DataSet,
    entry: FileEntry<'b>,
    file: Opened<'b>,
    /// The first sample that lies there.
    sample: usize,
    wait: Wait,
}

/// A part of a file that is to be read: steps of a tensor, or the header of its record.
#[derive(Clone, Copy)]
struct Segment {
    start: u64,
    bytes: usize,
    /// Number of the tensor in its file, if this is the header of its record.
    header_of: Option<usize>,
    /// Number and row of the slot: tensors that share a storage begin in one place.
    slot: (usize, usize),
}

/// How what is stored fits a slot.
struct Fit<'b> {
    /// Bytes in the file, of all steps and of one.
    stored: usize,
    stored_step: usize,
    /// Where they go; around that it is padded.
    inside: Range<usize>,
    /// Bytes of a step.
    step: usize,
    dtype: DType,
    /// The dtype that elements have in the file, and what they are multiplied with.
    cast: Option<(DType, f32)>,
    pad: Option<Pad>,
    /// Of a sample that is not as large as its box, which are padded in more than one dimension.
    grid: Option<Grid<'b>>,
}

impl<'b> Reader<'b> {
    fn open(
        plan: &'b BatchPlan,
        data: &'b DataSet,
        slots: &[Slot<'_>],
        wait: Wait,
        spare: &mut Spare,
    ) -> Result<Self> {
        let sample = slots.first().map_or(0, |slot| plan.samples[slot.row]);
        let file = slots.first().and_then(|slot| data.index().file(slot.file));
        let entry = file.ok_or(Error::NoSuchSample { sample, count: data.len() })?;
        let tensors = data.set.schemas.get(entry.schema().number()).map_or(0, |schema| schema.tensors.len());
        let file = data.shared.files.open(entry, tensors, &mut spare.path);
        let file = file.map_err(|error| Error::At { sample, source: Box::new(error) })?;
        Ok(Self { plan, data, entry, file, sample, wait })
    }

    fn read(&self, slots: &mut [Slot<'_>], spare: &mut Spare) -> Result<()> {
        spare.segments.clear();
        for slots in slots.chunk_by_mut(|one, other| one.number == other.number) {
            self.locate(slots, &mut spare.segments)?;
        }
        match self.file.mapped() {
            Some(bytes) => self.copy(slots, bytes)?,
            None => {
                // Fields mostly lie in the order in which they are listed; then there is nothing to sort.
                slots.sort_unstable_by_key(|slot| (slot.start, slot.number, slot.row));
                spare.segments.sort_unstable_by_key(|segment| (segment.start, segment.slot));
                self.read_plain(slots, &spare.segments, &mut spare.run)?;
            }
        }
        let odd = slots.iter_mut().filter(|slot| slot.start == NOT_PLAIN);
        self.put_together(odd, &mut spare.tensor, &mut spare.run)?;
        if self.data.drops_behind {
            self.drop_behind(slots);
        }
        Ok(())
    }

    /// Lets go of the pages that slots were copied from.
    fn drop_behind(&self, slots: &[Slot<'_>]) {
        if slots.iter().any(|slot| slot.start == NOT_PLAIN) {
            return self.file.release(0, u64::MAX);
        }
        let start = slots.iter().map(|slot| slot.start).min().unwrap_or(0);
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
        let is_mapped = self.file.mapped().is_some();
        if let Some(record) = unchecked.filter(|_| is_mapped) {
            let verified = record.verify(self.file.source());
            verified.map_err(|fault| self.refused(&slots[0], tensor, fault.into()))?;
            plain.note(tensor);
        }
        if unchecked.is_none() || is_mapped {
            self.file.note_start(number, start);
        }
        if is_mapped {
            return Ok(());
        }
        if let Some((record, header)) = unchecked.and_then(|record| Some((record, record.header_offset?))) {
            let bytes = record.data_offset.saturating_sub(header).min(HEADER_BYTES_MAX) as usize;
            segments.push(Segment { start: header, bytes, header_of: Some(tensor.number()), slot: (0, 0) });
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

    /// Copies from a map.
    fn copy(&self, slots: &mut [Slot<'_>], bytes: &[u8]) -> Result<()> {
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

    /// Reads run by run; slots and segments are sorted by where they lie.
    fn read_plain(&self, slots: &mut [Slot<'_>], segments: &[Segment], spare: &mut Vec<u8>) -> Result<()> {
        let (mut slots, mut segments) = (slots, segments);
        while !segments.is_empty() {
            let (run, later) = segments.split_at(run_length(segments));
            let here = run.iter().filter(|segment| segment.header_of.is_none()).count();
            let (slots_here, slots_later) = slots.split_at_mut(here);
            self.read_run(slots_here, run, spare)?;
            (segments, slots) = (later, slots_later);
        }
        Ok(())
    }

    /// Reads one run: steps straight to where they belong, the rest into `spare`.
    fn read_run(&self, slots: &mut [Slot<'_>], run: &[Segment], spare: &mut Vec<u8>) -> Result<()> {
        let start = run[0].start;
        // Nobody comes back for a run that is only a header.
        let wait = if slots.is_empty() { Wait::Yes } else { self.wait };
        let needs = self.spare_bytes(slots, run);
        if let Some(more) = needs.checked_sub(spare.len()) {
            // What a sample is cut from can be larger than the batch.
            let too_large = |_| self.run_failed(slots, run, Obstacle::TooLarge(needs as u64));
            spare.try_reserve(more).map_err(too_large)?;
            spare.resize(needs, 0);
        }
        let mut buffers: [IoSliceMut<'_>; BUFFERS_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        let mut rest = &mut spare[..];
        let mut at = start;
        let mut push = |buffer| {
            buffers[count] = IoSliceMut::new(buffer);
            count += 1;
        };
        let mut waiting = slots.iter_mut();
        for segment in run {
            if segment.start > at {
                push(take(&mut rest, (segment.start - at) as usize));
            }
            at = segment.end();
            let direct = match segment.header_of {
                None => waiting.next().map(|slot| (self.fit(slot), slot)).filter(|(fit, _)| fit.is_direct()),
                Some(_) => None,
            };
            match direct {
                Some((fit, slot)) => push(&mut slot.out[fit.inside]),
                None => push(take(&mut rest, segment.bytes)),
            }
        }
        let is_read = read::read_run(self.file.source(), start, &mut buffers[..count], wait)
            .map_err(|obstacle| self.run_failed(slots, run, obstacle))?;
        if is_read {
            return self.finish_run(slots, run, spare);
        }
        slots.iter_mut().for_each(|slot| slot.is_fetched = true);
        Ok(())
    }

    /// How many bytes of a run do not go where they belong at once.
    fn spare_bytes(&self, slots: &[Slot<'_>], run: &[Segment]) -> usize {
        let (mut bytes, mut at) = (0, run[0].start);
        let mut slots = slots.iter();
        for segment in run {
            bytes += (segment.start - at) as usize;
            at = segment.end();
            let is_direct =
                segment.header_of.is_none() && slots.next().is_some_and(|slot| self.fit(slot).is_direct());
            bytes += if is_direct { 0 } else { segment.bytes };
        }
        bytes
    }

    /// Checks the headers that were read, and finishes what does not stand in its place yet.
    fn finish_run(&self, slots: &mut [Slot<'_>], run: &[Segment], mut spare: &[u8]) -> Result<()> {
        let mut at = run[0].start;
        let mut slots = slots.iter_mut();
        for segment in run {
            spare = &spare[(segment.start - at) as usize..];
            at = segment.end();
            let Some(number) = segment.header_of else {
                let Some(slot) = slots.next() else { continue };
                let fit = self.fit(slot);
                if !fit.is_direct() {
                    let (bytes, rest) = spare.split_at(segment.bytes);
                    spare = rest;
                    fit.put(bytes, slot.out);
                } else {
                    fit.pad(slot.out);
                }
                continue;
            };
            let (bytes, rest) = spare.split_at(segment.bytes);
            spare = rest;
            let Some(tensor) = self.entry.tensor_at(number) else { continue };
            let record = tensor.storage().and_then(|storage| storage.record());
            let verified = record.map(|record| record.verify(&Piece { start: segment.start, bytes }));
            if let Some(Err(fault)) = verified {
                return Err(self.failed(self.sample, read::refused(tensor, fault.into())));
            }
            self.data.shared.plain.note(tensor);
        }
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

    fn tensor(&self, slot: &Slot<'_>) -> Result<TensorEntry<'b>> {
        let schema = self.data.set.schemas.get(self.entry.schema().number());
        let number = schema.and_then(|schema| schema.tensors.get(slot.number).copied());
        let missing = || {
            let tensor = self.field(slot).name().to_owned();
            let source = Error::Differs { path: self.path(), tensor, problem: "is missing".into() };
            Error::At { sample: self.plan.samples[slot.row], source: Box::new(source) }
        };
        number.and_then(|number| self.entry.tensor_at(number)).ok_or_else(missing)
    }

    fn fit(&self, slot: &Slot<'_>) -> Fit<'b> {
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
    fn run_failed(&self, slots: &[Slot<'_>], run: &[Segment], obstacle: Obstacle) -> Error {
        // Of a file that was cut off, the first that is not whole.
        let whole = match obstacle {
            Obstacle::OutsideFile { length, .. } => {
                run.iter().filter(|segment| segment.header_of.is_none() && segment.end() <= length).count()
            }
            _ => 0,
        };
        let slot = slots.get(whole).or(slots.last());
        match slot.map(|slot| (slot, self.tensor(slot))) {
            Some((slot, Ok(tensor))) => self.refused(slot, tensor, obstacle),
            Some((_, Err(error))) => error,
            // Only a header.
            None => {
                let tensor = run.iter().find_map(|segment| self.entry.tensor_at(segment.header_of?));
                let tensor = tensor.map_or_else(String::new, |tensor| tensor.name().to_owned());
                self.failed(self.sample, pt_view::Error::Refused { tensor, obstacle })
            }
        }
    }

    #[cold]
    fn refused(&self, slot: &Slot<'_>, tensor: TensorEntry<'_>, obstacle: Obstacle) -> Error {
        self.failed(self.plan.samples[slot.row], read::refused(tensor, obstacle))
    }

    #[cold]
    fn failed(&self, sample: usize, source: pt_view::Error) -> Error {
        let source = Error::Sample { path: self.path(), source: Box::new(source) };
        Error::At { sample, source: Box::new(source) }
    }
}

impl Segment {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes as u64)
    }
}

impl<'b> Fit<'b> {
    fn new(field: &'b BatchField, ragged: Ragged, row: usize, count: u64, room: usize) -> Self {
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
    fn is_direct(&self) -> bool {
        self.cast.is_none() && self.grid.is_none()
    }

    /// Puts what was stored where it belongs.
    fn put(&self, from: &[u8], out: &mut [u8]) {
        if let (Some(grid), Some(pad)) = (self.grid, self.pad) {
            return grid.put(from, self.cast, out, self.dtype, pad);
        }
        read::copy(from, self.cast, &mut out[self.inside.clone()]);
        self.pad(out);
    }

    fn pad(&self, out: &mut [u8]) {
        if let Some(pad) = self.pad {
            fill(out, self.inside.clone(), self.step, self.dtype, pad);
        }
    }
}

/// Where a step begins. A damaged index can place it beyond all bytes; it stays there, and is refused when it is read.
fn step_start(start: u64, first: u64, step: usize) -> u64 {
    start.saturating_add(first.saturating_mul(step as u64)).min(NOT_PLAIN - 1)
}

/// A part of a file that is mapped.
fn slice(bytes: &[u8], start: u64, length: usize) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(length)?)
}

/// How many segments are worth one read.
fn run_length(segments: &[Segment]) -> usize {
    let start = segments[0].start;
    let follows = |pair: &[Segment]| {
        let end = pair[0].end();
        pair[1].start >= end && pair[1].start - end <= GAP_BYTES_MAX && pair[1].end() - start <= RUN_BYTES_MAX
    };
    // Each may need a buffer for what lies before it.
    let most = segments.len().min(BUFFERS_MAX / 2);
    1 + segments[..most].windows(2).take_while(|pair| follows(pair)).count()
}

/// Takes so many bytes off the front.
fn take<'a>(rest: &mut &'a mut [u8], bytes: usize) -> &'a mut [u8] {
    let (taken, left) = std::mem::take(rest).split_at_mut(bytes);
    *rest = left;
    taken
}
