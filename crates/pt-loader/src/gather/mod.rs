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
use std::sync::{Mutex, OnceLock, PoisonError};

use self::reader::Reader;
use self::runs::Segment;
use self::slots::Slot;
use crate::dataset::{DataSet, Unit};
use crate::error::{Error, Result};
use crate::files::PathSpace;
use crate::plan::BatchPlan;
use crate::read::Wait;

pub(crate) use self::mapped::lent;

/// Batches of no more bytes are tried to be copied at once, by the thread that asks: another takes longer to wake up.
const COPY_BYTES_MAX: usize = 512 << 10;
/// Batches of more bytes are read as they come: what is asked for too early may have to leave again.
const FETCH_BYTES_MAX: usize = 64 << 20;
/// A batch is cut into so many pieces for each thread: the last one leaves others idle.
const PIECES_A_THREAD: usize = 16;
/// Batches that take less are read by the thread that asks: others would have to be woken up for it.
const ALONE_NS_MAX: usize = 25_000;

/// A batch that is read.
#[derive(Clone, Copy)]
struct Gather<'b> {
    plan: &'b BatchPlan,
    data: &'b DataSet,
    /// Whether samples seem not to be in memory, of files that are mapped.
    is_cold: bool,
}

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
    let is_cold = data.shared.files.maps() && mapped::is_cold(plan, data);
    let is_small = !is_cold && plan.bytes() <= COPY_BYTES_MAX && !data.drops_behind;
    if is_small && mapped::copy_known(plan, data, memory) {
        return Ok(());
    }
    read_sorted(Gather { plan, data, is_cold }, memory, threads)
}

/// Reads them sorted by file and place.
#[inline(never)]
fn read_sorted(batch: Gather<'_>, memory: &mut [u8], threads: Threads<'_>) -> Result<()> {
    let Gather { plan, data, .. } = batch;
    let mut slots = slots::slots(plan, data, memory);
    slots.sort_unstable_by_key(|slot| (slot.file, slot.number, slot.first));
    let count = match threads {
        Threads::Alone => 1,
        Threads::OfData => data.threads(),
        Threads::Pool(pool) => pool.current_num_threads(),
    };
    let count = match data.own_threads() {
        None if count > 1 => count.min(threads_worth(data, &slots)),
        _ => count,
    };
    let alone = slots.len() < 2 || count == 1;
    let read = |slots: &mut [Slot<'_>], wait| {
        if alone {
            return read_slots(batch, slots, wait);
        }
        cut(slots, PIECES_A_THREAD * count, plan.bytes(), data.set.unit);
        let pieces = Pieces::new(slots.chunk_by_mut(|one, other| one.piece == other.piece));
        let work = || pieces.take_turns(|slots| read_slots(batch, slots, wait));
        match (threads, data.own_threads()) {
            (Threads::Pool(pool), _) | (_, Some(pool)) => {
                pool.in_place_scope(|scope| share(scope, count, &work))
            }
            _ => rayon::in_place_scope(|scope| share(scope, count, &work)),
        }
        pieces.result()
    };
    // Files that do not stay open are opened twice if they have to be fetched: a disk takes longer by far. One read waits as long
    // for one place; of a map, each page would be waited for.
    let is_one = slots.len() < 2 && !data.shared.files.maps();
    if is_one || plan.bytes() > FETCH_BYTES_MAX {
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

/// Has so many threads do the work, this one among them. It begins at once: until another has woken up, half may be done.
fn share<'s>(scope: &rayon::Scope<'s>, count: usize, work: &'s (impl Fn() + Sync)) {
    (1..count).for_each(|_| scope.spawn(|_| work()));
    work();
}

/// Pieces of work, each taken by the thread that is free first.
struct Pieces<P> {
    left: Mutex<P>,
    failed: OnceLock<Error>,
}

impl<T, P: Iterator<Item = T>> Pieces<P> {
    fn new(pieces: P) -> Self {
        Self { left: Mutex::new(pieces), failed: OnceLock::new() }
    }

    /// Works on pieces until none is left, or one has failed.
    fn take_turns(&self, work: impl Fn(T) -> Result<()>) {
        let next = || self.left.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let (None, Some(piece)) = (self.failed.get(), next()) {
            if let Err(error) = work(piece) {
                // The first is told.
                let _ = self.failed.set(error);
            }
        }
    }

    fn result(self) -> Result<()> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }
}

/// Reads file by file, on this thread.
fn read_slots(batch: Gather<'_>, slots: &mut [Slot<'_>], wait: Wait) -> Result<()> {
    SPARE.with_borrow_mut(|spare| {
        let mut files = slots.chunk_by_mut(|one, other| one.file == other.file);
        files.try_for_each(|slots| Reader::open(batch, slots, wait, spare)?.read(slots, spare))
    })
}

/// How many threads are worth waking up, going by how long the reads take one after the other if nothing comes from a disk.
/// Files that have to be opened may wait, each for itself.
fn threads_worth(data: &DataSet, slots: &[Slot<'_>]) -> usize {
    const BYTES_PER_NS: usize = 8;
    const SLOT_NS: usize = 100;
    const CALL_NS: usize = 700;
    const OPEN_NS: usize = 6000;
    let files = slots.chunk_by(|one, other| one.file == other.file).count();
    let bytes: usize = slots.iter().map(|slot| slot.out.len()).sum();
    let calls = if data.shared.files.maps() { 0 } else { slots.len() };
    let opens = if data.shared.files.keeps() { 0 } else { files };
    let cost_ns = bytes / BYTES_PER_NS + slots.len() * SLOT_NS + calls * CALL_NS + opens * OPEN_NS;
    if cost_ns < ALONE_NS_MAX { 1 } else { (1 + cost_ns / ALONE_NS_MAX).max(opens) }
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
