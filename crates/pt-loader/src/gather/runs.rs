//! Reads of what lies close together in a file: one call for many places of a batch, and the headers of the records
//! checked with what is read anyway.

use std::io::IoSliceMut;

use pt_index::FileSource;
use pt_view::Obstacle;

use super::reader::Reader;
use super::slots::Slot;
use crate::error::{Error, Result};
use crate::read::{self, Piece, Wait};

/// What lies between two reads is read too, up to so many bytes: a page, which takes less time than another call.
const GAP_BYTES_MAX: u64 = 4096;
/// Buffers of one read.
const BUFFERS_MAX: usize = 32;
/// Reads are joined up to so many bytes.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// A part of a file that is to be read: steps of a tensor, or the header of its record.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) bytes: usize,
    /// Number of the tensor in its file, if this is the header of its record.
    pub(super) header_of: Option<usize>,
    /// Number and row of the slot: tensors that share a storage begin in one place.
    pub(super) slot: (usize, usize),
}

impl Reader<'_> {
    /// Reads run by run; slots and segments are sorted by where they lie.
    pub(super) fn read_plain(
        &self,
        source: &FileSource,
        slots: &mut [Slot<'_>],
        segments: &[Segment],
        spare: &mut Vec<u8>,
    ) -> Result<()> {
        let (mut slots, mut segments) = (slots, segments);
        while !segments.is_empty() {
            let (run, later) = segments.split_at(run_length(segments));
            let here = run.iter().filter(|segment| segment.header_of.is_none()).count();
            let (slots_here, slots_later) = slots.split_at_mut(here);
            self.read_run(source, slots_here, run, spare)?;
            (segments, slots) = (later, slots_later);
        }
        Ok(())
    }

    /// Reads one run: steps straight to where they belong, the rest into `spare`.
    fn read_run(
        &self,
        source: &FileSource,
        slots: &mut [Slot<'_>],
        run: &[Segment],
        spare: &mut Vec<u8>,
    ) -> Result<()> {
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
        let is_read = read::read_run(source, start, &mut buffers[..count], wait)
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
}

impl Segment {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes as u64)
    }
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
