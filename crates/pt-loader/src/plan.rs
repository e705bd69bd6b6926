//! A batch laid out before anything is read: how many bytes, and where each field lies in them.

use std::ops::Range;

use pt_format::{DType, geometry};

use crate::batch::{BatchTensor, Ragged};
use crate::column::BatchColumn;
use crate::dataset::{DataSet, Field};
use crate::error::{Error, Result};
use crate::gather::{self, Threads};
use crate::grid::Grid;
use crate::pad::{Pad, Side};

/// Fields begin at multiples of so many bytes: what the widest vector instructions like, and PyTorch's own alignment.
pub(crate) const ALIGNMENT: usize = 64;

/// A batch that is laid out and not yet read. The caller gives the memory: a shared one, a pinned one, another library's.
///
/// A plan is made again and again by [`DataSet::plan_into`]; only the first ones allocate. [`Batch`](crate::Batch) is a
/// plan with a buffer of its own.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for (name, x) in [("a.pt", [1, 2, 3]), ("b.pt", [4, 5, 6])] {
/// #     let object = Object::dict([("x", Tensor::new::<u8>(&[3], &x)?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{BatchPlan, DataSet, Ragged};
/// let data = DataSet::open(folder.path())?;
/// let mut plan = BatchPlan::default();
/// data.plan_into(&[1, 0], Ragged::Refuse, &mut plan)?;
///
/// let mut memory = vec![0; plan.bytes()];
/// plan.read_into(&mut memory)?;
/// let x = &plan.fields()[0];
/// assert_eq!((x.name(), x.shape()), ("x", &[2, 3][..]));
/// assert_eq!(memory[x.range()], [4, 5, 6, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct BatchPlan {
    pub(crate) data: Option<DataSet>,
    pub(crate) ragged: Ragged,
    pub(crate) fields: Vec<BatchField>,
    columns: Vec<BatchColumn>,
    pub(crate) samples: Vec<usize>,
    /// File and number in the file of each sample.
    pub(crate) places: Vec<(usize, u64)>,
    bytes: usize,
}

impl BatchPlan {
    /// Returns how many bytes the batch takes.
    pub fn bytes(&self) -> usize {
        self.bytes
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

    /// Returns the fields, and where they lie.
    pub fn fields(&self) -> &[BatchField] {
        &self.fields
    }

    /// Returns the plain scalars of the samples: labels, ids. They come from the index, not from the files.
    pub fn columns(&self) -> &[BatchColumn] {
        &self.columns
    }

    /// Finds a column by its dotted name.
    pub fn column(&self, name: &str) -> Option<&BatchColumn> {
        self.columns.iter().find(|column| column.name() == name)
    }

    /// Reads the batch into memory of the caller, in parallel on rayon's pool. Each byte up to [`Self::bytes`] that belongs to a field is
    /// written, padding included; what lies between fields, and behind, is left as it is. Memory that begins at a multiple
    /// of 64 makes all fields aligned.
    ///
    /// # Errors
    /// [`Error::At`] naming sample and file; [`Error::TooShort`].
    pub fn read_into(&self, memory: &mut [u8]) -> Result<()> {
        self.read(memory, Threads::OfData)
    }

    /// Reads the batch as [`Self::read_into`] does, on this thread alone: for single samples, and for processes that are
    /// many themselves. Starts no threads.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_alone(&self, memory: &mut [u8]) -> Result<()> {
        self.read(memory, Threads::Alone)
    }

    /// Reads the batch as [`Self::read_into`] does, on the threads of a pool instead of the data set's. What takes less time than to
    /// wake them is read by the thread that asks.
    ///
    /// ```
    /// # fn show(plan: pt_loader::BatchPlan) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build()?;
    /// let mut memory = vec![0; plan.bytes()];
    /// plan.read_in_pool(&mut memory, &pool)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_in_pool(&self, memory: &mut [u8], pool: &rayon::ThreadPool) -> Result<()> {
        self.read(memory, Threads::Pool(pool))
    }

    fn read(&self, memory: &mut [u8], threads: Threads<'_>) -> Result<()> {
        let Some(data) = &self.data else { return Ok(()) };
        let Some(memory) = memory.get_mut(..self.bytes) else {
            return Err(Error::TooShort { needs: self.bytes, has: memory.len() });
        };
        self.fields.iter().for_each(|field| field.write_mask(memory));
        gather::read(self, data, memory, threads)
    }

    /// Looks at the fields in memory that [`Self::read_into`] filled.
    ///
    /// # Panics
    /// When the memory is shorter than [`Self::bytes`].
    pub fn tensors<'b>(&'b self, memory: &'b [u8]) -> impl ExactSizeIterator<Item = BatchTensor<'b>> {
        self.fields.iter().map(move |field| BatchTensor::new(field, memory))
    }

    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.fields.clear();
        self.columns.clear();
        self.bytes = 0;
    }

    pub(crate) fn set(&mut self, data: &DataSet, samples: &[usize], ragged: Ragged) -> Result<()> {
        let same = self.data.as_ref().is_some_and(|known| known.is(data));
        if !same {
            self.data = Some(data.clone());
        }
        self.ragged = ragged;
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.places.clear();
        for &sample in samples {
            let no_such_sample = || Error::NoSuchSample { sample, count: data.len() };
            self.places.push(data.place(sample).ok_or_else(no_such_sample)?);
        }
        if !same || self.fields.len() != data.fields().len() {
            self.fields = data.fields().iter().map(BatchField::new).collect();
        }
        let mut end = 0usize;
        for (number, field) in self.fields.iter_mut().enumerate() {
            let sizes = |row: usize| data.sizes(self.places[row], number);
            end = field.lay_out(samples, sizes, ragged, end)?;
        }
        self.bytes = end;
        self.fill_columns(data, same);
        Ok(())
    }

    fn fill_columns(&mut self, data: &DataSet, is_same: bool) {
        let names = &data.set.columns;
        if !is_same || self.columns.len() != names.len() {
            self.columns = names.iter().map(|name| BatchColumn::new(name)).collect();
        }
        self.columns.iter_mut().for_each(|column| column.clear(self.samples.len()));
        if names.is_empty() {
            return;
        }
        for (row, &(file, _)) in self.places.iter().enumerate() {
            let Some(file) = data.index().file(file) else { continue };
            let numbers = &data.set.schemas[file.schema().number()].columns;
            for ((_, leaf), number) in file.leaves().zip(numbers) {
                if let Some(number) = number {
                    self.columns[*number].set(row, leaf);
                }
            }
        }
    }
}

/// A field of a batch, and where it lies.
#[derive(Debug)]
pub struct BatchField {
    pub(crate) field: Field,
    /// Whether samples differ in other sizes than the first. Then elements are their steps.
    pub(crate) is_grid: bool,
    /// Bytes of a step of a sample (of all of it if it is not ragged), in the batch and in the file.
    pub(crate) step: usize,
    pub(crate) stored_step: usize,
    shape: Vec<u64>,
    range: Range<usize>,
    mask: Option<Range<usize>>,
    side: Side,
    /// Where samples begin, in steps, and the end of the last; of ragged fields only.
    pub(crate) offsets: Vec<u64>,
    /// True lengths; of ragged fields only.
    pub(crate) lengths: Vec<u64>,
    /// True sizes, sample by sample; of grids only.
    sizes: Vec<u64>,
}

impl BatchField {
    fn new(field: &Field) -> Self {
        let (shape, offsets, lengths, sizes) = Default::default();
        // So many that no batch can be laid out.
        let step = |dtype| field.step_bytes(dtype).unwrap_or(usize::MAX);
        let (step, stored_step) = (step(field.dtype), step(field.stored));
        Self {
            field: field.clone(),
            is_grid: field.is_grid(),
            step,
            stored_step,
            shape,
            range: 0..0,
            mask: None,
            side: Side::Right,
            offsets,
            lengths,
            sizes,
        }
    }

    /// Returns which field of the data set it is.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &str {
        &self.field.name
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.field.dtype
    }

    /// Returns the sizes: samples first, then those of one sample; of joined samples all their steps first, or only the number of
    /// all their elements where they differ in other sizes than the first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Returns which bytes of the batch are its elements, row-major and little-endian.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Returns which bytes of the batch are its mask, if one was asked for and the field is ragged: a `bool` of each step, of
    /// [`Self::mask_shape`], true where it is of the sample and false where it is padding.
    pub fn mask_range(&self) -> Option<Range<usize>> {
        self.mask.clone()
    }

    /// Returns the sizes of the mask: `[samples, steps]`, and those of all other dimensions up to the last ragged one.
    pub fn mask_shape(&self) -> &[u64] {
        let last = self.field.ragged_dims.last().copied().unwrap_or(0);
        self.shape.get(..last + 2).unwrap_or(&self.shape)
    }

    /// Returns the first size each sample of a ragged field has in its file, before padding and truncation. Empty for
    /// other fields.
    pub fn lengths(&self) -> &[u64] {
        &self.lengths
    }

    /// Returns all sizes that a sample has in its file, of a field whose samples differ in other sizes than the first (see
    /// [`Field::ragged_dims`]). Empty for other fields, and for samples that are not of the batch.
    pub fn sizes(&self, sample: usize) -> &[u64] {
        let rank = if self.is_grid { self.field.shape.len() } else { 0 };
        sample.checked_mul(rank).and_then(|at| self.sizes.get(at..at + rank)).unwrap_or_default()
    }

    /// Returns where each sample of a ragged field begins, in steps, and where the last one ends; in elements, where samples
    /// differ in other sizes than the first. Empty for other fields.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Decides size and place, from byte `end` on; returns where it ends.
    fn lay_out<'d>(
        &mut self,
        samples: &[usize],
        sizes: impl Fn(usize) -> &'d [u64],
        ragged: Ragged,
        end: usize,
    ) -> Result<usize> {
        match ragged {
            Ragged::Refuse if self.field.is_ragged => self.check_even(samples, &sizes)?,
            Ragged::Pad(pad) if self.field.is_ragged => pad.to.check(&self.field)?,
            _ => {}
        }
        let samples = samples.len();
        let too_large = || Error::TooLarge { samples };
        self.offsets.clear();
        self.lengths.clear();
        self.sizes.clear();
        self.shape.clear();
        self.mask = None;
        let mut steps = samples as u64;
        let mut mask_steps = None;
        if self.is_grid {
            steps = self.lay_out_grid(samples, sizes, ragged)?;
            if let Ragged::Pad(Pad { mask: true, .. }) = ragged {
                mask_steps = Some(geometry::numel(self.mask_shape()).ok_or_else(too_large)?);
            }
        } else if self.field.is_ragged {
            self.lengths.extend((0..samples).map(|row| sizes(row).first().copied().unwrap_or(0)));
            let longest = self.lengths.iter().copied().max().unwrap_or(0);
            let to = match ragged {
                Ragged::Pad(pad) => Some(pad.to.along(&self.field, 0).unwrap_or(longest)),
                Ragged::Refuse => Some(longest),
                Ragged::Joined => None,
            };
            let mut at = 0u64;
            self.offsets.push(0);
            for &length in &self.lengths {
                at = at.checked_add(to.unwrap_or(length)).ok_or_else(too_large)?;
                self.offsets.push(at);
            }
            match to {
                Some(to) => self.shape.extend([samples as u64, to]),
                None => self.shape.push(at),
            }
            self.shape.extend_from_slice(&self.field.shape[1..]);
            steps = at;
            if let Ragged::Pad(Pad { mask: true, .. }) = ragged {
                mask_steps = Some(steps);
            }
        } else {
            self.shape.push(samples as u64);
            self.shape.extend_from_slice(&self.field.shape);
        }
        if let Ragged::Pad(Pad { side, .. }) = ragged {
            self.side = side;
        }
        let steps = usize::try_from(steps).map_err(|_| too_large())?;
        let place = |end: usize, bytes: usize| {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            Some(start..start.checked_add(bytes)?)
        };
        let bytes = steps.checked_mul(self.step).ok_or_else(too_large)?;
        self.range = place(end, bytes).ok_or_else(too_large)?;
        if let Some(steps) = mask_steps {
            let steps = usize::try_from(steps).map_err(|_| too_large())?;
            self.mask = Some(place(self.range.end, steps).ok_or_else(too_large)?);
        }
        Ok(self.mask.as_ref().unwrap_or(&self.range).end)
    }

    /// Refuses samples that differ in size.
    fn check_even<'d>(&self, samples: &[usize], sizes: impl Fn(usize) -> &'d [u64]) -> Result<()> {
        let Some(row) = (1..samples.len()).find(|&row| sizes(row) != sizes(0)) else { return Ok(()) };
        Err(Error::Uneven {
            tensor: self.field.name.clone(),
            sample: samples[row],
            sizes: sizes(row).to_vec(),
            other: samples[0],
            other_sizes: sizes(0).to_vec(),
        })
    }

    /// Decides the sizes of a batch whose samples differ in other sizes than the first; returns its number of elements.
    fn lay_out_grid<'d>(
        &mut self,
        samples: usize,
        sizes: impl Fn(usize) -> &'d [u64],
        ragged: Ragged,
    ) -> Result<u64> {
        let too_large = || Error::TooLarge { samples };
        let rank = self.field.shape.len();
        self.shape.push(samples as u64);
        self.shape.resize(1 + rank, 0);
        for row in 0..samples {
            let sizes = sizes(row);
            // A damaged index can say anything.
            self.sizes.extend((0..rank).map(|dim| sizes.get(dim).copied().unwrap_or(0)));
            self.lengths.push(self.sizes[row * rank]);
            let largest = self.shape[1..].iter_mut().zip(&self.sizes[row * rank..]);
            largest.for_each(|(largest, &size)| *largest = size.max(*largest));
        }
        if let Ragged::Pad(pad) = ragged {
            for (dim, size) in self.shape[1..].iter_mut().enumerate() {
                *size = pad.to.along(&self.field, dim).unwrap_or(*size);
            }
        }
        self.offsets.push(0);
        let mut end = 0u64;
        for row in 0..samples {
            let stored = geometry::numel(self.sizes(row)).ok_or_else(too_large)?;
            let takes = match ragged {
                Ragged::Joined => stored,
                _ => geometry::numel(&self.shape[1..]).ok_or_else(too_large)?,
            };
            end = end.checked_add(takes).ok_or_else(too_large)?;
            self.offsets.push(end);
        }
        if ragged == Ragged::Joined {
            self.shape.clear();
            self.shape.push(end);
        }
        Ok(end)
    }

    fn write_mask(&self, memory: &mut [u8]) {
        let (Some(mask), Some(&to)) = (&self.mask, self.shape.get(1)) else { return };
        if mask.is_empty() {
            return;
        }
        if self.is_grid {
            let room = &self.mask_shape()[1..];
            let size = room.iter().product::<u64>() as usize;
            for (row, out) in memory[mask.clone()].chunks_exact_mut(size.max(1)).enumerate() {
                out.fill(0);
                match Grid::new(&self.sizes(row)[..room.len()], room, self.side) {
                    Some(grid) => grid.rows(|_, place, count| out[place..place + count].fill(1)),
                    None => out.fill(1),
                }
            }
            return;
        }
        let rows = memory[mask.clone()].chunks_exact_mut((to as usize).max(1));
        for (row, &length) in rows.zip(&self.lengths) {
            let inside = self.side.place(row.len(), length.min(to) as usize);
            row[..inside.start].fill(0);
            row[inside.clone()].fill(1);
            row[inside.end..].fill(0);
        }
    }
}
