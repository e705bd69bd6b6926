//! Tensors of distributed checkpoints that lie in chunks, put together.

use std::ops::Range;

use pt_format::strided::Offsets;
use pt_format::{DType, Layout, geometry};
use pt_index::{ChunkPlace, TensorEntry};

use crate::cache::FileCache;
use crate::error::{Error, Obstacle, Result};
use crate::view::{TensorView, sane_bytes};

/// Pairs of chunks that are looked at before a tensor is refused: about a second. A grid of 10,000 chunks takes a million.
const COMPARISONS_MAX: u64 = 1 << 27;

/// A tensor that lies in chunks, in several files, or a part of one. Reading copies: there is no place where the elements lie
/// together.
///
/// Made by [`FileCache::chunked`], without reading; so are parts of it, and reading a part opens only the files with
/// chunks of it.
///
/// ```
/// # use pt_view::FileCache;
/// # fn show(folder: &std::path::Path) -> pt_view::Result<()> {
/// let index = pt_index::build_distributed(folder, &Default::default())?;
/// let files = FileCache::new(folder, index);
/// let weight = files.chunked("model.weight")?;
/// let first_rows = weight.narrow(0, 0, 10)?.to_bytes()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Chunked<'c> {
    files: &'c FileCache,
    entry: TensorEntry<'c>,
    dtype: DType,
    whole: &'c [u64],
    /// Of each dimension of the whole, the elements in this part.
    ranges: Vec<Range<u64>>,
    /// The dimensions that this part has.
    dims: Vec<usize>,
    shape: Vec<u64>,
}

impl FileCache {
    /// Looks at a tensor that lies in chunks (layout [`Layout::Chunked`]). Nothing is read.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Refused`] with [`Obstacle::NotInChunks`], and for a tensor whose shape or dtype is
    /// unknown or whose elements share bytes.
    pub fn chunked(&self, name: &str) -> Result<Chunked<'_>> {
        let entry = self.index().files().find_map(|file| file.tensor(name));
        let missing = || {
            let count = self.index().tensor_count();
            Error::NoSuchTensor { name: name.to_owned(), count, nearest: None }
        };
        self.chunked_at(entry.ok_or_else(missing)?)
    }

    /// Looks at a tensor of its index that lies in chunks.
    ///
    /// # Errors
    /// As [`Self::chunked`].
    pub fn chunked_at<'c>(&'c self, entry: TensorEntry<'c>) -> Result<Chunked<'c>> {
        let refused = |obstacle| Error::Refused { tensor: entry.name().to_owned(), obstacle };
        if entry.layout() != Layout::Chunked {
            return Err(refused(Obstacle::NotInChunks));
        }
        let unknown = || refused(Obstacle::NoData("its dtype or shape is unknown"));
        let (dtype, whole) = entry.dtype().zip(entry.shape()).ok_or_else(unknown)?;
        if dtype.packing().is_some() {
            return Err(refused(Obstacle::Packed(dtype)));
        }
        let ranges = whole.iter().map(|&size| 0..size).collect();
        let dims = (0..whole.len()).collect();
        Ok(Chunked { files: self, entry, dtype, whole, ranges, dims, shape: whole.to_vec() })
    }
}

impl Chunked<'_> {
    /// Returns the dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the sizes in elements.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Returns the bytes of the elements; `None` where the number does not fit.
    pub fn nbytes(&self) -> Option<u64> {
        geometry::nbytes(self.dtype, &self.shape)
    }

    /// Looks at `length` elements of a dimension, from `start` on. Nothing is read.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Obstacle::NoSuchDim`] or [`Obstacle::OutOfBounds`].
    pub fn narrow(&self, dim: usize, start: u64, length: u64) -> Result<Self> {
        let mut part = self.clone();
        let end = start.saturating_add(length);
        let range = part.range_of(dim, start, end)?;
        (range.start, range.end) = (range.start + start, range.start + end);
        part.shape[dim] = length;
        Ok(part)
    }

    /// Looks at one place of a dimension, which falls away. Nothing is read.
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn select(&self, dim: usize, index: u64) -> Result<Self> {
        let mut part = self.narrow(dim, index, 1)?;
        part.dims.remove(dim);
        part.shape.remove(dim);
        Ok(part)
    }

    fn range_of(&mut self, dim: usize, start: u64, end: u64) -> Result<&mut Range<u64>> {
        let Some(&size) = self.shape.get(dim) else {
            return Err(self.refused(Obstacle::NoSuchDim { dim, rank: self.shape.len() }));
        };
        match end <= size {
            true => Ok(&mut self.ranges[self.dims[dim]]),
            false => Err(self.refused(Obstacle::OutOfBounds { dim, start, end, size })),
        }
    }

    /// Checks by the index alone that every element of the whole tensor is in one chunk: that there are as many elements in
    /// chunks, and no two chunks with the same.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Obstacle::ChunksMissing`], [`Obstacle::ChunksOverlap`] or [`Obstacle::ChunkMisfit`]; for a
    /// chunk that is known to be unreadable, under its name.
    pub fn check(&self) -> Result<()> {
        let mut boxes: Vec<(&[u64], &[u64])> = Vec::new();
        let mut has = 0u64;
        for chunk in self.chunks() {
            let sizes = self.sizes_of(chunk)?;
            let numel = geometry::numel(sizes).unwrap_or(u64::MAX);
            has = has.saturating_add(numel);
            if numel > 0 {
                boxes.push((&chunk.offsets, sizes));
            }
        }
        self.check_overlaps(&mut boxes)?;
        match geometry::numel(self.whole).unwrap_or(u64::MAX) {
            needs if needs == has => Ok(()),
            needs => Err(self.refused(Obstacle::ChunksMissing { has, needs })),
        }
    }

    /// Returns how many bytes the buffer for [`Self::read_into`] takes, after checking that the chunks fit together and that
    /// their files hold them: so much memory may then be taken.
    ///
    /// # Errors
    /// As [`Self::check`] and [`FileCache::file`]; [`Error::Refused`] for a chunk whose bytes are not there, under its name.
    pub fn buffer_bytes(&self) -> Result<usize> {
        self.check()?;
        let mut held = 0u64;
        self.each_part(|view, _| {
            held = held.saturating_add(view.place()?.length);
            Ok(())
        })?;
        let bytes = self.nbytes().unwrap_or(u64::MAX);
        sane_bytes(bytes, held).ok_or_else(|| self.refused(Obstacle::TooLarge(bytes)))
    }

    /// Copies the elements into a buffer of exactly [`Self::nbytes`] bytes: row-major, little-endian.
    ///
    /// # Errors
    /// As [`Self::buffer_bytes`]; for a buffer of another length, and for bytes that do not decode.
    pub fn read_into(&self, out: &mut [u8]) -> Result<()> {
        self.check()?;
        let needs = self.nbytes().unwrap_or(u64::MAX);
        if out.len() as u64 != needs {
            return Err(self.refused(Obstacle::BufferLength { needs, has: out.len() as u64 }));
        }
        if out.is_empty() {
            return Ok(());
        }
        let itemsize = self.dtype.itemsize();
        let sizes: Vec<u64> = self.ranges.iter().map(|range| range.end - range.start).collect();
        let stride = geometry::contiguous_stride(&sizes);
        let (mut packed, mut spare) = (Vec::new(), Vec::new());
        self.each_part(|view, at| {
            let shape = view.shape().unwrap_or_default();
            // It lies inside the whole, which is as long as the buffer.
            let first = at.iter().zip(&stride).map(|(&at, &step)| at * step).sum::<u64>() as usize * itemsize;
            if geometry::is_contiguous(shape, &stride) {
                let bytes = view.nbytes().unwrap_or(u64::MAX) as usize;
                return view.read_into_with(&mut out[first..first + bytes], &mut spare);
            }
            packed.resize(view.buffer_bytes()?, 0);
            view.read_into_with(&mut packed, &mut spare)?;
            scatter(&packed, shape, &stride, itemsize, &mut out[first..]);
            Ok(())
        })
    }

    /// Copies the elements as bytes: row-major, little-endian.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = vec![0; self.buffer_bytes()?];
        self.read_into(&mut out)?;
        Ok(out)
    }

    /// Starts reading the elements into memory, and does not wait for it.
    ///
    /// # Errors
    /// As [`TensorView::prefetch`].
    pub fn prefetch(&self) -> Result<()> {
        self.each_part(|view, _| view.prefetch())
    }

    fn chunks(&self) -> &[ChunkPlace] {
        self.files.chunks().of(self.entry.name())
    }

    /// Looks at the part of each chunk that belongs to this part of the tensor, and says where in it.
    fn each_part(&self, mut look: impl FnMut(&TensorView<'_>, &[u64]) -> Result<()>) -> Result<()> {
        for chunk in self.chunks() {
            let sizes = self.sizes_of(chunk)?;
            let ends = chunk.offsets.iter().zip(sizes).map(|(&start, &size)| start.saturating_add(size));
            let wanted = self.ranges.iter().zip(chunk.offsets.iter().zip(ends));
            let common: Vec<Range<u64>> =
                wanted.map(|(range, (&start, end))| range.start.max(start)..range.end.min(end)).collect();
            if common.iter().any(|range| range.start >= range.end) {
                continue;
            }
            let file = self.files.file(chunk.file)?;
            let view = file.tensor_at(chunk.number).ok_or_else(|| self.refused(Obstacle::NotInChunks))?;
            let within = common.iter().zip(&chunk.offsets).enumerate();
            let view = within
                .filter(|(dim, (range, _))| range.end - range.start != sizes[*dim])
                .try_fold(view, |view, (dim, (range, &start))| {
                    view.narrow(dim, range.start - start, range.end - range.start)
                })?;
            let at: Vec<u64> =
                common.iter().zip(&self.ranges).map(|(part, range)| part.start - range.start).collect();
            look(&view, &at)?;
        }
        Ok(())
    }

    /// The sizes of a chunk, which is of the tensor's type and has as many dimensions.
    fn sizes_of(&self, chunk: &ChunkPlace) -> Result<&[u64]> {
        let file = self.files.index().file(chunk.file);
        let entry = file.and_then(|file| file.tensor_at(chunk.number));
        let entry = entry.ok_or_else(|| self.refused(Obstacle::NotInChunks))?;
        if let Some(fault) = entry.fault() {
            let obstacle = Obstacle::Fault(fault.to_owned());
            return Err(Error::Refused { tensor: entry.name().to_owned(), obstacle });
        }
        let (sizes, chunk_dtype) = (entry.shape().unwrap_or_default(), entry.dtype().unwrap_or(self.dtype));
        let rank = self.whole.len();
        let ends = chunk.offsets.iter().zip(sizes).map(|(&start, &size)| start.checked_add(size));
        let is_inside = ends.zip(self.whole).all(|(end, &size)| end.is_some_and(|end| end <= size));
        if (sizes.len(), chunk.offsets.len(), chunk_dtype) == (rank, rank, self.dtype) && is_inside {
            return Ok(sizes);
        }
        Err(self.refused(Obstacle::ChunkMisfit {
            offsets: chunk.offsets.to_vec(),
            sizes: sizes.to_vec(),
            chunk_dtype,
            shape: self.whole.to_vec(),
            dtype: self.dtype,
        }))
    }

    /// Checks each chunk against those that begin before it ends, along the dimension that tells them apart best.
    fn check_overlaps(&self, boxes: &mut [(&[u64], &[u64])]) -> Result<()> {
        let starts = |dim: &usize| {
            let mut starts: Vec<u64> = boxes.iter().map(|(offsets, _)| offsets[*dim]).collect();
            starts.sort_unstable();
            starts.dedup();
            starts.len()
        };
        let dim = (0..self.whole.len()).max_by_key(starts);
        boxes.sort_unstable_by_key(|(offsets, _)| dim.map(|dim| offsets[dim]));
        let mut left = COMPARISONS_MAX;
        for (number, (offsets, sizes)) in boxes.iter().enumerate() {
            let later = boxes[number + 1..].iter();
            let near =
                later.take_while(|(other, _)| dim.is_none_or(|dim| other[dim] < offsets[dim] + sizes[dim]));
            for (other, other_sizes) in near {
                left = left
                    .checked_sub(1)
                    .ok_or_else(|| self.refused(Obstacle::ChunksEntangled { chunks: boxes.len() }))?;
                let apart = |dim: usize| {
                    offsets[dim] + sizes[dim] <= other[dim] || other[dim] + other_sizes[dim] <= offsets[dim]
                };
                if !(0..self.whole.len()).any(apart) {
                    let (first, second) = (offsets.to_vec(), other.to_vec());
                    return Err(self.refused(Obstacle::ChunksOverlap { first, second }));
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn refused(&self, obstacle: Obstacle) -> Error {
        Error::Refused { tensor: self.entry.name().to_owned(), obstacle }
    }
}

/// Copies elements in row-major order to where a stride puts them. The last dimension has the stride 1.
fn scatter(packed: &[u8], shape: &[u64], stride: &[u64], itemsize: usize, out: &mut [u8]) {
    let (Some((&row, outer)), Some((_, outer_stride))) = (shape.split_last(), stride.split_last()) else {
        return out[..itemsize].copy_from_slice(packed);
    };
    let row_bytes = row as usize * itemsize;
    let mut offsets = Offsets::new(outer, outer_stride);
    for row in packed.chunks_exact(row_bytes) {
        let start = offsets.step() as usize * itemsize;
        out[start..start + row_bytes].copy_from_slice(row);
    }
}
