//! The reads of a batch: sorted by file and place, joined where they lie close, run in parallel, straight into the memory
//! of the batch. What is not in memory is asked for first, all of it, and read when the rest is done: so a disk has as many
//! requests at once as the batch has reads, whatever the number of threads.
//!
//! Here is the way of a batch as a whole. [`slots`] cuts it into places, [`reader`] finds where in a file they come from,
//! [`runs`] reads that and [`mapped`] copies it; [`fit`] says what has to be done to it on the way.

mod fit;
mod mapped;
mod reader;
mod runs;
mod slots;

use std::cell::RefCell;

use rayon::prelude::*;

use self::reader::Reader;
use self::runs::Segment;
use self::slots::Slot;
use crate::dataset::{DataSet, Unit};
use crate::error::Result;
use crate::files::PathSpace;
use crate::plan::BatchPlan;
use crate::read::Wait;

pub(crate) use self::mapped::lent;

/// Batches of fewer bytes are tried to be copied at once.
const COPY_BYTES_MAX: usize = 256 << 10;
/// Batches of more bytes are read as they come: what is asked for too early may have to leave again.
const FETCH_BYTES_MAX: usize = 64 << 20;
/// Batches that take less are read by the thread that asks: others would have to be woken up for it.
const ALONE_NS_MAX: usize = 25_000;

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

/// Reads all tensors of a batch into its memory; `alone`, on this thread, and without so much as asking for others.
pub(crate) fn read(plan: &BatchPlan, data: &DataSet, memory: &mut [u8], alone: bool) -> Result<()> {
    if plan.bytes() < COPY_BYTES_MAX && !data.drops_behind && mapped::copy_known(plan, data, memory) {
        return Ok(());
    }
    read_sorted(plan, data, memory, alone)
}

#[inline(never)]
fn read_sorted(plan: &BatchPlan, data: &DataSet, memory: &mut [u8], alone: bool) -> Result<()> {
    let mut slots = slots::slots(plan, data, memory);
    slots.sort_unstable_by_key(|slot| (slot.file, slot.number, slot.first));
    let threads = data.threads();
    let is_small = || !data.has_own_threads() && cost_ns(data, &slots) < ALONE_NS_MAX;
    let alone = alone || slots.len() < 2 || threads == 1 || is_small();
    let read = |slots: &mut [Slot<'_>], wait| {
        if alone {
            return read_slots(plan, data, slots, wait);
        }
        cut(slots, 4 * threads, plan.bytes(), data.set.unit);
        let pieces = slots.par_chunk_by_mut(|one, other| one.piece == other.piece);
        data.install(|| pieces.try_for_each(|slots| read_slots(plan, data, slots, wait)))
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

/// Guesses how long the reads take one after the other, if nothing comes from a disk.
fn cost_ns(data: &DataSet, slots: &[Slot<'_>]) -> usize {
    const BYTES_PER_NS: usize = 8;
    const SLOT_NS: usize = 100;
    const CALL_NS: usize = 700;
    const OPEN_NS: usize = 6000;
    let files = slots.chunk_by(|one, other| one.file == other.file).count();
    let bytes: usize = slots.iter().map(|slot| slot.out.len()).sum();
    let calls = if data.shared.files.cache().access() == pt_view::Access::Map { 0 } else { slots.len() };
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
