//! Parts of a tensor, found without reading: shape, stride and first element are all that changes.

use std::ops::Range;
use std::sync::Arc;

use pt_format::{Element, Layout, geometry};
use pt_index::UsualTensor;

use crate::error::{Obstacle, Result};
use crate::iter::Rows;
use crate::view::TensorView;

/// Which of a tensor's elements a view shows.
#[derive(Clone, Default)]
pub(crate) struct Window {
    dims: Dims,
    /// Elements between the tensor's first and the view's.
    skipped: u64,
}

/// Shape and stride of a view.
#[derive(Clone)]
enum Dims {
    /// Those of the index row without so many of the first dimensions: rows, and whole tensors.
    Last { dropped: usize },
    /// Sizes, then strides.
    Own(Arc<[u64]>),
}

impl Default for Dims {
    fn default() -> Self {
        Self::Last { dropped: 0 }
    }
}

impl<'a> TensorView<'a> {
    /// Returns the sizes in elements; `None` for nested tensors.
    #[inline]
    pub fn shape(&self) -> Option<&[u64]> {
        match &self.window.dims {
            Dims::Last { dropped } => self.entry.shape()?.get(*dropped..),
            Dims::Own(dims) => Some(&dims[..dims.len() / 2]),
        }
    }

    /// Returns the strides in elements; `None` for sparse and nested tensors.
    #[inline]
    pub fn stride(&self) -> Option<&[u64]> {
        match &self.window.dims {
            Dims::Last { dropped } => self.entry.stride()?.get(*dropped..),
            Dims::Own(dims) => Some(&dims[dims.len() / 2..]),
        }
    }

    /// Returns the number of elements; `None` where the shape is unknown or the number does not fit.
    pub fn numel(&self) -> Option<u64> {
        geometry::numel(self.shape()?)
    }

    /// Returns the bytes of the elements: what a copy takes. `None` where shape or dtype is unknown.
    pub fn nbytes(&self) -> Option<u64> {
        geometry::nbytes(self.dtype()?, self.shape()?)
    }

    /// Shape and stride of a usual tensor's view, and its first element in the storage.
    #[inline]
    pub(crate) fn window_of<'v>(&'v self, usual: &UsualTensor<'v>) -> Option<(&'v [u64], &'v [u64], u64)> {
        let (shape, stride) = match &self.window.dims {
            Dims::Last { dropped } => (usual.shape.get(*dropped..)?, usual.stride.get(*dropped..)?),
            Dims::Own(dims) => dims.split_at(dims.len() / 2),
        };
        Some((shape, stride, usual.storage_offset.checked_add(self.window.skipped)?))
    }

    /// The view's first element in the storage.
    #[inline]
    pub(crate) fn storage_offset(&self) -> Option<u64> {
        self.entry.storage_offset().checked_add(self.window.skipped)
    }

    /// Views `length` elements of a dimension, from `start` on. Nothing is read.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # use pt_view::{FileBytes, TensorView};
    /// # let file = write::to_vec(&write::Tensor::new::<u8>(&[2, 3], &[1, 2, 3, 4, 5, 6])?.into())?;
    /// # let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// # let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// assert_eq!(view.to_vec::<u8>()?, [1, 2, 3, 4, 5, 6]); // two rows of three
    /// let columns = view.narrow(1, 1, 2)?;
    /// assert_eq!(columns.shape(), Some(&[2, 2][..]));
    /// assert_eq!(columns.to_vec::<u8>()?, [2, 3, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with [`Obstacle::NoSuchDim`] or [`Obstacle::OutOfBounds`]; for
    /// composite tensors and those whose elements share bytes.
    pub fn narrow(&self, dim: usize, start: u64, length: u64) -> Result<Self> {
        let end = start.saturating_add(length);
        let (shape, stride, skipped) = self.part(dim, start..end)?;
        let dims = shape.iter().chain(stride).enumerate();
        let dims = dims.map(|(at, &number)| if at == dim { length } else { number }).collect();
        Ok(self.with(Dims::Own(dims), skipped))
    }

    /// Views one place of a dimension, which falls away. Nothing is read.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # use pt_view::{FileBytes, TensorView};
    /// # let file = write::to_vec(&write::Tensor::new::<u8>(&[2, 3], &[1, 2, 3, 4, 5, 6])?.into())?;
    /// # let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// # let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// assert_eq!(view.to_vec::<u8>()?, [1, 2, 3, 4, 5, 6]); // two rows of three
    /// assert_eq!(view.select(1, 2)?.to_vec::<u8>()?, [3, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn select(&self, dim: usize, index: u64) -> Result<Self> {
        let (shape, stride, skipped) = self.part(dim, index..index.saturating_add(1))?;
        let dims = match self.window.dims {
            Dims::Last { dropped } if dim == 0 => Dims::Last { dropped: dropped + 1 },
            _ => {
                let others = |dims: &[u64]| [&dims[..dim], &dims[dim + 1..]].concat();
                Dims::Own([others(shape), others(stride)].concat().into())
            }
        };
        Ok(self.with(dims, skipped))
    }

    /// Views one row: a place of the first dimension. Nothing is read, and when the row is, nothing else of the tensor.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # use pt_view::{FileBytes, TensorView};
    /// # let file = write::to_vec(&write::Tensor::new::<u8>(&[2, 3], &[1, 2, 3, 4, 5, 6])?.into())?;
    /// # let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// # let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// assert_eq!(view.to_vec::<u8>()?, [1, 2, 3, 4, 5, 6]); // two rows of three
    /// assert_eq!(view.row(1)?.as_slice::<u8>()?, [4, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn row(&self, index: u64) -> Result<Self> {
        self.select(0, index)
    }

    /// Borrows the rows one after the other, each as a slice.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # use pt_view::{FileBytes, TensorView};
    /// # let file = write::to_vec(&write::Tensor::new::<u8>(&[2, 3], &[1, 2, 3, 4, 5, 6])?.into())?;
    /// # let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// # let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// let sums: Vec<u8> = view.rows::<u8>()?.map(|row| row.iter().sum()).collect();
    /// assert_eq!(sums, [6, 15]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::as_slice`], and [`Obstacle::NoSuchDim`] for a tensor without dimensions. [`Self::row`] views the rows of
    /// tensors that are not contiguous too.
    pub fn rows<T: Element>(&self) -> Result<Rows<'a, T>> {
        let elements = self.as_slice::<T>()?;
        let no_rows = || self.refused(Obstacle::NoSuchDim { dim: 0, rank: 0 });
        let (&count, row) = self.shape().and_then(<[u64]>::split_first).ok_or_else(no_rows)?;
        // They are in memory, so their numbers fit.
        match geometry::numel(row).unwrap_or(0) as usize {
            0 => Ok(Rows { elements: elements.chunks_exact(1), empty: count as usize }),
            length => Ok(Rows { elements: elements.chunks_exact(length), empty: 0 }),
        }
    }

    /// Checks that a dimension has a range; returns shape and stride, and how many elements lie before the range.
    fn part(&self, dim: usize, range: Range<u64>) -> Result<(&[u64], &[u64], u64)> {
        self.find_part(dim, range).map_err(|obstacle| self.refused(obstacle))
    }

    fn find_part(&self, dim: usize, range: Range<u64>) -> Result<(&[u64], &[u64], u64), Obstacle> {
        if self.entry.layout() == Layout::Chunked {
            return Err(Obstacle::InChunks);
        }
        if self.entry.layout() != Layout::Strided {
            return Err(Obstacle::NoData("it is a composite: its parts are listed below its name"));
        }
        if let Some(packed) = self.dtype().filter(|dtype| dtype.packing().is_some()) {
            return Err(Obstacle::Packed(packed));
        }
        let shape = self.shape().ok_or(Obstacle::NoData("its shape is unknown"))?;
        let stride = self.stride().ok_or(Obstacle::NoData("its stride is unknown"))?;
        let Some((&size, &step)) = shape.get(dim).zip(stride.get(dim)) else {
            return Err(Obstacle::NoSuchDim { dim, rank: shape.len() });
        };
        let Range { start, end } = range;
        if end > size {
            return Err(Obstacle::OutOfBounds { dim, start, end, size });
        }
        // What holds nothing begins anywhere; its stride may be any number.
        let before = if start == end { Some(0) } else { start.checked_mul(step) };
        let skipped = before.and_then(|before| before.checked_add(self.window.skipped));
        let overflow = || Obstacle::Fault("its extent does not fit into 64 bits".into());
        Ok((shape, stride, skipped.ok_or_else(overflow)?))
    }

    fn with(&self, dims: Dims, skipped: u64) -> Self {
        Self { entry: self.entry, file: self.file, window: Window { dims, skipped } }
    }
}
