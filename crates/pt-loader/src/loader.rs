//! Batches in the order of an epoch.

use crate::batch::Batch;
use crate::dataset::DataSet;
use crate::error::Result;
use crate::permutation::Permutation;

/// How a data set is cut into batches. The order is a function of seed and epoch.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for number in 0..5u8 {
/// #     let element = [number];
/// #     let object = Object::from(Tensor::new::<u8>(&[1], &element)?);
/// #     std::fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{DataSet, Loader};
/// let data = DataSet::open(folder.path())?;
/// let loader = Loader::new(&data, 2).shuffle(7);
/// assert_eq!(loader.epoch(0).len(), 3);
/// let sizes: Vec<usize> = loader.epoch(0).map(|batch| batch.unwrap().len()).collect();
/// assert_eq!(sizes, [2, 2, 1]);
/// assert_eq!(loader.drop_last().epoch(0).len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Loader<'d> {
    data: &'d DataSet,
    batch_size: usize,
    seed: Option<u64>,
    drop_last: bool,
}

impl<'d> Loader<'d> {
    /// Cuts a data set into batches of so many samples (at least one), in file order.
    pub fn new(data: &'d DataSet, batch_size: usize) -> Self {
        Self { data, batch_size: batch_size.max(1), seed: None, drop_last: false }
    }

    /// Shuffles every epoch, with this seed.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Leaves out the last batch if it is not full.
    #[must_use]
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// Returns the batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch<'d> {
        let samples = self.data.len();
        let end = if self.drop_last { samples - samples % self.batch_size } else { samples };
        let order = self.seed.map(|seed| Permutation::new(samples, seed, epoch));
        Epoch { data: self.data, batch_size: self.batch_size, order, next: 0, end }
    }
}

/// Iterator over the batches of one epoch.
#[derive(Debug)]
pub struct Epoch<'d> {
    data: &'d DataSet,
    batch_size: usize,
    order: Option<Permutation>,
    next: usize,
    end: usize,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let positions = self.next..(self.next + self.batch_size).min(self.end);
        self.next = positions.end;
        let samples: Vec<usize> =
            positions.map(|position| self.order.map_or(position, |order| order.at(position))).collect();
        Some(self.data.gather(&samples))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch<'_> {}
