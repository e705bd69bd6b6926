//! The reads of a batch: sorted by file and place, run in parallel.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::batch::Ragged;
use crate::dataset::{DataSet, Field, Unit};
use crate::error::{Error, Result};
use crate::pad::{Pad, fill};
use crate::plan::{BatchPlan, tensor_number};
use crate::read;

/// Neighbours that lie together in a file are read at once, up to so many bytes.
const RUN_BYTES_MAX: usize = 256 << 10;

/// A place of the batch, and what goes there.
struct Slot<'b> {
    file: usize,
    /// Number of the tensor in its file.
    tensor: usize,
    sample: usize,
    field: &'b Field,
    first: u64,
    count: u64,
    pad: Option<Pad>,
    out: &'b mut [u8],
}

/// What a thread keeps from read to read.
#[derive(Default)]
struct Spare {
    path: Vec<u8>,
    tensor: Vec<u8>,
    run: Vec<u8>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Reads all tensors of a batch into its memory, on rayon's threads.
pub(crate) fn read(plan: &BatchPlan, data: &DataSet, memory: &mut [u8]) -> Result<()> {
    let mut slots = slots(plan, data, memory);
    // A few pieces a thread even out what files cost; each opens its files once.
    let piece = slots.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    slots.par_chunks_mut(piece).try_for_each(|slots| read_slots(data, slots))
}

/// Reads all tensors of a batch into its memory, on this thread.
pub(crate) fn read_alone(plan: &BatchPlan, data: &DataSet, memory: &mut [u8]) -> Result<()> {
    read_slots(data, &mut slots(plan, data, memory))
}

/// Cuts memory into the places of a batch, in the order in which they are read.
fn slots<'b>(plan: &'b BatchPlan, data: &DataSet, mut rest: &'b mut [u8]) -> Vec<Slot<'b>> {
    let BatchPlan { samples, places, ragged, .. } = plan;
    let mut slots: Vec<Slot<'_>> = Vec::with_capacity(samples.len() * plan.fields.len());
    let mut at = 0;
    for (number, part) in plan.fields.iter().enumerate() {
        let (field, range) = (&part.field, part.range());
        let (_, from_here) = std::mem::take(&mut rest).split_at_mut(range.start - at);
        let (mut region, after) = from_here.split_at_mut(range.len());
        (rest, at) = (after, range.end);
        let step = field.step_bytes(field.dtype).unwrap_or(0);
        let mut row = 0;
        while row < samples.len() {
            let (file, within) = places[row];
            let (mut steps, mut first, mut count, mut pad) = (1, 0, 1, None);
            let mut taken = 1;
            if data.set.unit == Unit::Row {
                // Rows that follow each other in the file and in the batch are one read, in place.
                let follows =
                    |taken: &usize| places.get(row + taken) == Some(&(file, within + *taken as u64));
                taken = (1..).find(|taken| !follows(taken)).unwrap_or(1);
                (steps, first, count) = (taken, within, taken as u64);
            } else if field.is_ragged {
                let has = part.lengths[row];
                let gets = part.offsets[row + 1] - part.offsets[row];
                (steps, count) = (gets as usize, has.min(gets));
                if let Ragged::Pad(how) = *ragged {
                    first = how.first(has, count);
                    pad = Some(how);
                }
            } else if let Some(&steps) = field.shape.first() {
                count = steps;
            }
            let (out, others) = std::mem::take(&mut region).split_at_mut(steps * step);
            region = others;
            let tensor = tensor_number(data, places[row], number);
            slots.push(Slot { file, tensor, sample: samples[row], field, first, count, pad, out });
            row += taken;
        }
    }
    slots.sort_unstable_by_key(|slot| (slot.file, slot.tensor, slot.first));
    slots
}

fn read_slots(data: &DataSet, slots: &mut [Slot<'_>]) -> Result<()> {
    SPARE.with_borrow_mut(|spare| {
        slots
            .chunk_by_mut(|one, other| one.file == other.file)
            .try_for_each(|slots| read_file(data, slots, spare))
    })
}

/// Reads what the batch wants of one file; the slots are in its order.
fn read_file(data: &DataSet, mut slots: &mut [Slot<'_>], spare: &mut Spare) -> Result<()> {
    let shared = &*data.shared;
    let Some(head) = slots.first() else { return Ok(()) };
    let sample = head.sample;
    let file = data.index().file(head.file).ok_or(Error::NoSuchSample { sample, count: data.len() })?;
    let path = full_path(shared.root.as_os_str().as_encoded_bytes(), file, &mut spare.path);
    let path = std::path::Path::new(path);
    let at = |sample, source: Error| Error::At { sample, source: Box::new(source) };
    let source = read::open(path).map_err(|error| at(sample, error))?;
    file.check(path, &source, data.set.policy).map_err(|error| at(sample, error.into()))?;
    while let Some(head) = slots.first() {
        let (sample, field) = (head.sample, head.field);
        let differs = |problem| {
            let (path, tensor) = (path.to_owned(), field.name.clone());
            at(sample, Error::Differs { path, tensor, problem })
        };
        let entry = file.tensor_at(head.tensor).ok_or_else(|| differs("is missing".into()))?;
        let run = run_length(slots, entry.shape().is_none_or(<[_]>::is_empty));
        let (here, after) = slots.split_at_mut(run);
        let last = &here[run - 1];
        let (first, count) = (here[0].first, last.first + last.count - here[0].first);
        read::check(entry, field.stored, first + count).map_err(differs)?;
        let failed = |source| at(sample, Error::Sample { path: path.to_owned(), source: Box::new(source) });
        let mut read = |out: &mut [u8]| {
            let spare = &mut spare.tensor;
            read::read_steps(entry, &source, (&shared.checked, &shared.plain), (first, count), spare, out)
                .map_err(failed)
        };
        match here {
            [slot] if field.dtype == field.stored => {
                let has = slot.out.len();
                let step = if slot.pad.is_some() { field.step_bytes(field.dtype).unwrap_or(0) } else { 0 };
                match slot.pad {
                    None => read(slot.out)?,
                    Some(pad) => {
                        let bytes = slot.count as usize * step;
                        let range = pad.side.place(has, bytes);
                        read(&mut slot.out[range.clone()])?;
                        fill(slot.out, range, step, field.dtype, pad);
                    }
                }
            }
            here => {
                let step = match field.is_ragged || data.set.unit == Unit::Row {
                    true => field.step_bytes(field.stored),
                    false => entry.nbytes().map(|bytes| bytes as usize / (count.max(1) as usize)),
                };
                let step = step.ok_or_else(|| differs("is too large to batch".into()))?;
                let bytes = step * count as usize;
                if spare.run.len() < bytes {
                    spare.run.resize(bytes, 0);
                }
                let run = &mut spare.run[..bytes];
                read(run)?;
                for slot in here {
                    let start = (slot.first - first) as usize * step;
                    let from = &run[start..start + slot.count as usize * step];
                    let widened = from.len() / field.stored.itemsize() * field.dtype.itemsize();
                    let range =
                        slot.pad.map_or(0..slot.out.len(), |pad| pad.side.place(slot.out.len(), widened));
                    match field.dtype == field.stored {
                        true => slot.out[range.clone()].copy_from_slice(from),
                        false => {
                            read::to_float32(field.stored, from, field.scale, &mut slot.out[range.clone()])
                        }
                    }
                    if let Some(pad) = slot.pad {
                        let step = field.step_bytes(field.dtype).unwrap_or(0);
                        fill(slot.out, range, step, field.dtype, pad);
                    }
                }
            }
        }
        slots = after;
    }
    Ok(())
}

/// How many of the slots are neighbours in one tensor that are worth one read.
fn run_length(slots: &[Slot<'_>], is_scalar: bool) -> usize {
    let head = &slots[0];
    if is_scalar || head.pad.is_some() {
        return 1;
    }
    let mut bytes = head.out.len();
    let follows = |pair: &[Slot<'_>]| {
        bytes += pair[1].out.len();
        pair[1].tensor == head.tensor
            && pair[1].first == pair[0].first + pair[0].count
            && bytes <= RUN_BYTES_MAX
    };
    1 + slots.windows(2).map(follows).take_while(|&follows| follows).count()
}

/// Puts the path of a file together in `out`.
fn full_path<'s>(root: &[u8], file: pt_index::FileEntry<'_>, out: &'s mut Vec<u8>) -> &'s str {
    file.read_path(out);
    if !root.is_empty() {
        let own = out.len();
        let slash = usize::from(own > 0 && !root.ends_with(b"/"));
        out.resize(own + root.len() + slash, b'/');
        out.copy_within(..own, root.len() + slash);
        out[..root.len()].copy_from_slice(root);
        if slash == 1 {
            out[root.len()] = b'/';
        }
    }
    std::str::from_utf8(out).unwrap_or_default()
}
