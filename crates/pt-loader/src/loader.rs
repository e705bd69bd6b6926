//! Batches in the order of an epoch.

use crate::batch::{Batch, Ragged};
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::order::{Order, Shards};

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
#[derive(Clone, Debug)]
pub struct Loader {
    pub(crate) data: DataSet,
    pub(crate) batch_size: usize,
    pub(crate) ragged: Ragged,
    seed: Option<u64>,
    window: Option<usize>,
    drop_last: bool,
    rank: usize,
    world: usize,
    shards: Shards,
}

/// Where an epoch stands: enough to go on with exactly the samples that are left.
///
/// ```
/// # fn show(loader: pt_loader::Loader) -> pt_loader::Result<()> {
/// let mut epoch = loader.epoch(3);
/// epoch.next();
/// let state = epoch.state();
/// drop(epoch);
/// for batch in loader.resume(&state)? { /* from the second batch on */ }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The epoch.
    pub epoch: u64,
    /// Positions of the whole epoch that all ranks together have had, each rank having had as many batches as this one.
    pub consumed: u64,
    /// Samples of the data set.
    pub samples: u64,
}

impl Loader {
    /// Cuts a data set into batches of so many samples (at least one), in file order.
    pub fn new(data: &DataSet, batch_size: usize) -> Self {
        Self {
            data: data.clone(),
            batch_size: batch_size.max(1),
            ragged: Ragged::Refuse,
            seed: None,
            window: None,
            drop_last: false,
            rank: 0,
            world: 1,
            shards: Shards::default(),
        }
    }

    /// Shuffles every epoch, with this seed.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Shuffles in windows, for disks and networks that like to read on. Has effect together with [`shuffle`](Self::shuffle).
    ///
    /// Where a sample is a row or a tensor, files are taken whole and in random order, as many at a time as have so many
    /// samples together, and the samples of those are shuffled with each other. A window is longer than asked by at most a
    /// file; of files that are longer than a window, each is one. After filtering, splitting and selecting, neighbouring
    /// samples of one file are what stays together.
    ///
    /// Where a sample is a file, blocks of so many neighbouring files come in random order, shuffled within each block.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # use pt_format::write::{self, Object, Tensor};
    /// # for number in 0..4u8 {
    /// #     let values = [number; 3];
    /// #     let object = Object::from(Tensor::new::<u8>(&[3], &values)?);
    /// #     std::fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object)?)?;
    /// # }
    /// use pt_loader::{DataSet, Loader, Options, Unit};
    /// // Four files of three rows: two files are a window of six.
    /// let rows = DataSet::open_with(folder.path(), &Options { unit: Unit::Row, ..Options::default() })?;
    /// let loader = Loader::new(&rows, 6).shuffle(7).window(6);
    /// for batch in loader.epoch(0) {
    ///     let mut files: Vec<usize> = batch?.samples().iter().map(|row| row / 3).collect();
    ///     files.sort();
    ///     files.dedup();
    ///     assert_eq!(files.len(), 2);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn window(self, samples: usize) -> Self {
        Self { window: Some(samples.max(1)), ..self }
    }

    /// Says what becomes of ragged samples.
    #[must_use]
    pub fn ragged(self, ragged: Ragged) -> Self {
        Self { ragged, ..self }
    }

    /// Leaves out the last batch if it is not full.
    #[must_use]
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// Takes the share of one of several processes that read together: every `world`-th position of the common order.
    ///
    /// # Panics
    /// When `rank` is not below `world`.
    #[must_use]
    pub fn rank(self, rank: usize, world: usize, shards: Shards) -> Self {
        assert!(rank < world, "rank {rank} of {world}");
        Self { rank, world, shards, ..self }
    }

    /// Returns the batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.from(epoch, 0)
    }

    /// Returns the batches of an epoch that are left after a state was taken.
    ///
    /// The state may come from another rank, of as many or of another number of processes: those have had a whole number
    /// of batches each, so what is left is one run of the common order, which is split anew. Seed, window and data set must
    /// be those of then; batch size and padding may differ.
    ///
    /// # Errors
    /// [`Error::OtherData`] when the data set has another number of samples.
    pub fn resume(&self, state: &State) -> Result<Epoch> {
        let samples = self.data.len() as u64;
        if state.samples != samples || state.consumed > samples {
            return Err(Error::OtherData { then: state.samples, now: samples });
        }
        Ok(self.from(state.epoch, state.consumed as usize))
    }

    fn from(&self, epoch: u64, start: usize) -> Epoch {
        let samples = self.data.len();
        let order = Order::new(&self.data, self.seed, self.window, epoch);
        let left = samples - start;
        let share = match self.shards {
            Shards::Even => left / self.world,
            Shards::Padded => left.div_ceil(self.world),
        };
        let end = if self.drop_last { share - share % self.batch_size } else { share };
        Epoch { loader: self.clone(), order, epoch, start, next: 0, end, batch: Vec::new() }
    }
}

/// Iterator over the batches of one epoch.
#[derive(Debug)]
pub struct Epoch {
    loader: Loader,
    order: Order,
    epoch: u64,
    /// Position of the whole epoch where this part of it begins.
    start: usize,
    /// Position in this rank's share.
    next: usize,
    end: usize,
    batch: Vec<usize>,
}

impl Epoch {
    /// Returns where the epoch stands: what [`Loader::resume`] needs for the rest of it.
    pub fn state(&self) -> State {
        let samples = self.loader.data.len();
        let consumed = (self.start + self.next * self.loader.world).min(samples);
        State { epoch: self.epoch, consumed: consumed as u64, samples: samples as u64 }
    }

    /// Fills a batch with the next samples, using its memory again; returns false at the end of the epoch.
    ///
    /// ```
    /// # fn show(loader: pt_loader::Loader) -> pt_loader::Result<()> {
    /// let mut batch = pt_loader::Batch::default();
    /// let mut epoch = loader.epoch(0);
    /// while epoch.next_into(&mut batch)? {
    ///     println!("{}", batch.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DataSet::gather`]. The epoch goes on behind the batch that failed.
    pub fn next_into(&mut self, batch: &mut Batch) -> Result<bool> {
        if !self.advance() {
            return Ok(false);
        }
        let Loader { data, ragged, .. } = &self.loader;
        data.gather_into(&self.batch, *ragged, batch)?;
        Ok(true)
    }

    /// Returns which samples are next, and goes on behind them; `None` at the end. For those who read batches in their own
    /// way, as with [`DataSet::plan_into`].
    pub fn next_samples(&mut self) -> Option<&[usize]> {
        self.advance().then_some(&self.batch)
    }

    pub(crate) fn advance(&mut self) -> bool {
        let Loader { world, rank, batch_size, .. } = self.loader;
        let positions = self.next..self.next.saturating_add(batch_size).min(self.end);
        self.next = positions.end;
        self.batch.clear();
        let (samples, start) = (self.order.len(), self.start);
        // Padded shards begin again at the front of the epoch.
        let whole = |position: usize| (start + position * world + rank) % samples;
        self.batch.extend(positions.map(|position| self.order.at(whole(position))));
        !self.batch.is_empty()
    }

    pub(crate) fn samples(&self) -> &[usize] {
        &self.batch
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch::default();
        match self.next_into(&mut batch) {
            Ok(true) => Some(Ok(batch)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next).div_ceil(self.loader.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}
