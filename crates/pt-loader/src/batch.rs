//! A batch: one buffer that holds every sample's tensors, field by field.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use pt_format::{DType, Element};
use rayon::prelude::*;

use crate::column::BatchColumn;
use crate::dataset::{DataSet, Field, Unit};
use crate::error::{Error, Result};
use crate::pad::{Pad, To, fill};
use crate::read;

/// Neighbours that lie together in a file are read at once, up to so many bytes.
const RUN_BYTES_MAX: usize = 256 << 10;

/// 64 bytes at a multiple of 64: what the widest vector instructions like, and PyTorch's own alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// What becomes of samples that differ in their first size.
///
/// ```
/// use pt_loader::{Pad, Ragged, To};
/// let to_512 = Ragged::Pad(Pad { to: To::Length(512), ..Pad::default() });
/// assert_ne!(to_512, Ragged::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ragged {
    /// They make no batch, unless those of the batch happen to be of one size.
    #[default]
    Refuse,
    /// Shorter ones are padded, longer ones truncated.
    Pad(Pad),
    /// They stand one behind the other; [`BatchTensor::offsets`] says where each begins.
    Joined,
}

/// Samples gathered into one buffer. Each field is contiguous and 64-aligned: `[samples, …shape]`, or of joined ragged
/// samples `[all steps, …shape]`.
///
/// A batch is filled again and again by [`DataSet::gather_into`]; only the first ones allocate.
#[derive(Default)]
pub struct Batch {
    buffer: Vec<Line>,
    tensors: Vec<Part>,
    columns: Vec<BatchColumn>,
    samples: Vec<usize>,
    /// File and number in the file of each sample.
    places: Vec<(usize, u64)>,
}

/// A field of the batch and where it is.
struct Part {
    field: Field,
    shape: Vec<u64>,
    range: Range<usize>,
    /// Where samples begin, in steps, and the end of the last; of ragged fields only.
    offsets: Vec<u64>,
    /// True lengths; of ragged fields only.
    lengths: Vec<u64>,
}

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

impl Batch {
    pub(crate) fn gather(&mut self, data: &DataSet, samples: &[usize], ragged: Ragged) -> Result<()> {
        let result = self.try_gather(data, samples, ragged);
        if result.is_err() {
            self.samples.clear();
            self.tensors.clear();
            self.columns.clear();
        }
        result
    }

    fn try_gather(&mut self, data: &DataSet, samples: &[usize], ragged: Ragged) -> Result<()> {
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.places.clear();
        for &sample in samples {
            let place = data.locate(sample);
            let (file, within) = place.ok_or(Error::NoSuchSample { sample, count: data.len() })?;
            self.places.push((file.row(), within as u64));
        }
        let end = self.lay_out(data, ragged)?;
        let lines = end.div_ceil(size_of::<Line>());
        let more = lines.saturating_sub(self.buffer.len());
        self.buffer.try_reserve(more).map_err(|_| Error::TooLarge { samples: samples.len() })?;
        // Lines of an earlier batch are written over, not zeroed.
        if more > 0 {
            self.buffer.resize(lines, Line::zeroed());
        }
        self.fill_columns(data);
        self.read(data, ragged)
    }

    /// Decides sizes and places of all fields; returns the end of the last.
    fn lay_out(&mut self, data: &DataSet, ragged: Ragged) -> Result<usize> {
        let too_large = || Error::TooLarge { samples: self.samples.len() };
        let same = self.tensors.iter().map(|part| &part.field).eq(data.fields());
        if !same {
            let part = |field: &Field| Part {
                field: field.clone(),
                shape: Vec::new(),
                range: 0..0,
                offsets: Vec::new(),
                lengths: Vec::new(),
            };
            self.tensors = data.fields().iter().map(part).collect();
        }
        let mut end = 0usize;
        for (number, part) in self.tensors.iter_mut().enumerate() {
            part.offsets.clear();
            part.lengths.clear();
            part.shape.clear();
            let mut steps = self.samples.len() as u64;
            if part.field.is_ragged {
                part.lengths.extend(self.places.iter().map(|&place| length(data, place, number)));
                let longest = part.lengths.iter().copied().max().unwrap_or(0);
                let even = part.lengths.iter().all(|&length| length == longest);
                let to = match ragged {
                    Ragged::Refuse if !even => {
                        return Err(Error::Uneven { tensor: part.field.name.clone() });
                    }
                    Ragged::Pad(Pad { to: To::Length(length), .. }) => Some(length),
                    Ragged::Refuse | Ragged::Pad(_) => Some(longest),
                    Ragged::Joined => None,
                };
                let mut at = 0u64;
                part.offsets.push(0);
                for &length in &part.lengths {
                    at = at.checked_add(to.unwrap_or(length)).ok_or_else(too_large)?;
                    part.offsets.push(at);
                }
                match to {
                    Some(to) => part.shape.extend([self.samples.len() as u64, to]),
                    None => part.shape.push(at),
                }
                part.shape.extend_from_slice(&part.field.shape[1..]);
                steps = at;
            } else {
                part.shape.push(self.samples.len() as u64);
                part.shape.extend_from_slice(&part.field.shape);
            }
            let step = part.field.step_bytes(part.field.dtype).ok_or_else(too_large)?;
            let bytes = usize::try_from(steps).ok().and_then(|steps| steps.checked_mul(step));
            let start = end.checked_next_multiple_of(size_of::<Line>()).ok_or_else(too_large)?;
            end = bytes.and_then(|bytes| start.checked_add(bytes)).ok_or_else(too_large)?;
            part.range = start..end;
        }
        Ok(end)
    }

    fn fill_columns(&mut self, data: &DataSet) {
        let names = &data.plan.columns;
        if !self.columns.iter().map(BatchColumn::name).eq(names) {
            self.columns = names.iter().map(|name| BatchColumn::new(name)).collect();
        }
        self.columns.iter_mut().for_each(|column| column.clear(self.samples.len()));
        for (row, &(file, _)) in self.places.iter().enumerate() {
            let Some(file) = data.index().file(file) else { continue };
            let numbers = &data.plan.schemas[file.schema().number()].columns;
            for ((_, leaf), number) in file.leaves().zip(numbers) {
                if let Some(number) = number {
                    self.columns[*number].set(row, leaf);
                }
            }
        }
    }

    fn read(&mut self, data: &DataSet, ragged: Ragged) -> Result<()> {
        let (samples, places) = (&self.samples, &self.places);
        let mut slots: Vec<Slot<'_>> = Vec::with_capacity(samples.len() * self.tensors.len());
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffer);
        let mut at = 0;
        for (number, part) in self.tensors.iter().enumerate() {
            let field = &part.field;
            let (_, from_here) = std::mem::take(&mut rest).split_at_mut(part.range.start - at);
            let (mut region, after) = from_here.split_at_mut(part.range.len());
            (rest, at) = (after, part.range.end);
            let step = field.step_bytes(field.dtype).unwrap_or(0);
            let mut row = 0;
            while row < samples.len() {
                let (file, within) = places[row];
                let (mut steps, mut first, mut count, mut pad) = (1, 0, 1, None);
                let mut taken = 1;
                if data.plan.unit == Unit::Row {
                    // Rows that follow each other in the file and in the batch are one read, in place.
                    let follows =
                        |taken: &usize| places.get(row + taken) == Some(&(file, within + *taken as u64));
                    taken = (1..).find(|taken| !follows(taken)).unwrap_or(1);
                    (steps, first, count) = (taken, within, taken as u64);
                } else if field.is_ragged {
                    let has = part.lengths[row];
                    let gets = part.offsets[row + 1] - part.offsets[row];
                    (steps, count) = (gets as usize, has.min(gets));
                    if let Ragged::Pad(how) = ragged {
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
        // A few pieces a thread even out what files cost; each opens its files once.
        let piece = slots.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        slots.par_chunks_mut(piece).try_for_each(|slots| {
            SPARE.with_borrow_mut(|spare| {
                slots
                    .chunk_by_mut(|one, other| one.file == other.file)
                    .try_for_each(|slots| read_file(data, slots, spare))
            })
        })
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns which samples these are.
    pub fn samples(&self) -> &[usize] {
        &self.samples
    }

    /// Returns the tensors of the batch.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = BatchTensor<'_>> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.buffer);
        self.tensors.iter().map(move |part| BatchTensor { part, bytes: &bytes[part.range.clone()] })
    }

    /// Finds a tensor by its dotted name.
    pub fn tensor(&self, name: &str) -> Option<BatchTensor<'_>> {
        self.tensors().find(|tensor| tensor.name() == name)
    }

    /// Returns the plain scalars of the samples: labels, ids. They come from the index, not from the files.
    pub fn columns(&self) -> &[BatchColumn] {
        &self.columns
    }

    /// Finds a column by its dotted name.
    pub fn column(&self, name: &str) -> Option<&BatchColumn> {
        self.columns.iter().find(|column| column.name() == name)
    }
}

fn tensor_number(data: &DataSet, (file, within): (usize, u64), field: usize) -> usize {
    let schema = data.index().file(file).and_then(|file| data.plan.schemas.get(file.schema().number()));
    let number = if data.plan.unit == Unit::Tensor { within as usize } else { field };
    schema.and_then(|schema| schema.tensors.get(number).copied()).unwrap_or(usize::MAX)
}

/// The first size of a sample of a ragged field.
fn length(data: &DataSet, place: (usize, u64), field: usize) -> u64 {
    let tensor =
        data.index().file(place.0).and_then(|file| file.tensor_at(tensor_number(data, place, field)));
    tensor.and_then(|tensor| tensor.shape()?.first().copied()).unwrap_or(0)
}

/// Reads what the batch wants of one file; the slots are in its order.
fn read_file(data: &DataSet, mut slots: &mut [Slot<'_>], spare: &mut Spare) -> Result<()> {
    let shared = &*data.shared;
    let Some(head) = slots.first() else { return Ok(()) };
    let sample = head.sample;
    let file = shared.index.file(head.file).ok_or(Error::NoSuchSample { sample, count: data.len() })?;
    let path = full_path(shared.root.as_os_str().as_encoded_bytes(), file, &mut spare.path);
    let path = std::path::Path::new(path);
    let at = |sample, source: Error| Error::At { sample, source: Box::new(source) };
    let source = read::open(path).map_err(|error| at(sample, error))?;
    file.check(path, &source, data.plan.policy).map_err(|error| at(sample, error.into()))?;
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
                        let range = pad.place(has, bytes);
                        read(&mut slot.out[range.clone()])?;
                        fill(slot.out, range, step, field.dtype, pad);
                    }
                }
            }
            here => {
                let step = match field.is_ragged || data.plan.unit == Unit::Row {
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
                    let range = slot.pad.map_or(0..slot.out.len(), |pad| pad.place(slot.out.len(), widened));
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

/// One field of a batch.
#[derive(Clone, Copy)]
pub struct BatchTensor<'b> {
    part: &'b Part,
    bytes: &'b [u8],
}

impl std::fmt::Debug for BatchTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchTensor")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .finish()
    }
}

impl<'b> BatchTensor<'b> {
    /// Returns the dotted name.
    pub fn name(&self) -> &'b str {
        &self.part.field.name
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.part.field.dtype
    }

    /// Returns the sizes: samples first, then those of one sample; of joined samples all their steps first.
    pub fn shape(&self) -> &'b [u64] {
        &self.part.shape
    }

    /// Returns the first size each sample of a ragged field has in its file, before padding and truncation. Empty for
    /// other fields.
    pub fn lengths(&self) -> &'b [u64] {
        &self.part.lengths
    }

    /// Returns where each sample of a ragged field begins, in steps, and where the last one ends. Empty for other fields.
    pub fn offsets(&self) -> &'b [u64] {
        &self.part.offsets
    }

    /// Returns the elements of all samples as bytes, row-major and little-endian.
    pub fn as_bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Returns the elements of all samples, row-major.
    ///
    /// # Errors
    /// [`Error::WrongType`] when `T` is not the tensor's type, or when a byte of a `bool` tensor is no bool.
    pub fn as_slice<T: Element>(&self) -> Result<&'b [T]> {
        let wrong =
            || Error::WrongType { tensor: self.name().to_owned(), dtype: self.dtype(), asked: T::DTYPE };
        if self.dtype() != T::DTYPE {
            return Err(wrong());
        }
        bytemuck::checked::try_cast_slice(self.bytes).map_err(|_| wrong())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("samples", &self.len()).field("tensors", &self.tensors.len()).finish()
    }
}
