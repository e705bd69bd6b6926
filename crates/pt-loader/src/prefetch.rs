//! Batches gathered ahead of need, in the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::loader::{Epoch, State};

/// What happens to samples that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The batch is an error, and the last one.
    #[default]
    Fail,
    /// The sample is left out of its batch and counted.
    Skip,
}

/// Batches of an epoch, gathered ahead by a thread (whose reads run on rayon's pool).
///
/// Batches that were given back with [`recycle`](Self::recycle) are filled again, so that a long epoch keeps to the memory
/// of its first batches. Dropping the pipeline ends the thread after the batch it is at.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for number in 0..5u8 {
/// #     let element = [number];
/// #     let object = Object::from(Tensor::new::<u8>(&[1], &element)?);
/// #     std::fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{DataSet, Loader, OnError, Prefetch};
/// let data = DataSet::open(folder.path())?;
/// let mut batches = Prefetch::new(Loader::new(&data, 2).shuffle(7).epoch(0), 3, OnError::Fail);
/// let mut samples = 0;
/// while let Some(batch) = batches.next() {
///     let batch = batch?;
///     samples += batch.len();
///     batches.recycle(batch);
/// }
/// assert_eq!(samples, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Prefetch {
    batches: Option<Receiver<Message>>,
    used: Option<Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
    state: State,
    skipped: usize,
    left: usize,
}

#[derive(Debug)]
struct Message {
    batch: Result<Batch>,
    /// Where the epoch stands behind this batch.
    state: State,
    skipped: usize,
}

impl Prefetch {
    /// Starts to gather what is left of an epoch, so many batches ahead (at least one).
    pub fn new(epoch: Epoch, ahead: usize, on_error: OnError) -> Self {
        let (state, left) = (epoch.state(), epoch.len());
        let (send, batches) = sync_channel(ahead.max(1));
        let (used, free) = channel();
        let thread = thread::spawn(move || work(epoch, on_error, &send, &free));
        Self { batches: Some(batches), used: Some(used), thread: Some(thread), state, skipped: 0, left }
    }

    /// Gives back a batch that is no longer needed.
    pub fn recycle(&self, batch: Batch) {
        if let Some(used) = &self.used {
            // At the end of the epoch nobody takes it.
            let _ = used.send(batch);
        }
    }

    /// Returns where the epoch stands behind the last batch that was taken; what was gathered ahead does not count.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns how many samples could not be read and were left out, of the batches taken.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Returns how many batches are left at most.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.batches.as_ref()?.recv().ok()?;
        self.left = self.left.saturating_sub(1);
        self.skipped += message.skipped;
        if message.batch.is_ok() {
            self.state = message.state;
        } else {
            self.left = 0;
        }
        Some(message.batch)
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // A thread that waits for room, or for a batch, wakes up.
        self.batches.take();
        self.used.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut epoch: Epoch, on_error: OnError, send: &SyncSender<Message>, free: &Receiver<Batch>) {
    while epoch.advance() {
        let mut batch = free.try_recv().unwrap_or_default();
        let gathered = catch_unwind(AssertUnwindSafe(|| gather(&epoch, on_error, &mut batch)));
        let gathered = gathered.unwrap_or(Err(Error::Panicked));
        let (result, skipped) = match gathered {
            Ok(skipped) => (Ok(batch), skipped),
            Err(error) => (Err(error), 0),
        };
        let failed = result.is_err();
        if send.send(Message { batch: result, state: epoch.state(), skipped }).is_err() || failed {
            return;
        }
    }
}

/// Gathers the samples of the epoch's batch; returns how many were left out.
fn gather(epoch: &Epoch, on_error: OnError, batch: &mut Batch) -> Result<usize> {
    let loader = epoch.loader();
    let gather =
        |samples: &[usize], batch: &mut Batch| loader.data.gather_into(samples, loader.ragged, batch);
    let wanted = epoch.samples();
    match (gather(wanted, batch), on_error) {
        (Ok(()), _) => return Ok(0),
        (Err(Error::At { .. }), OnError::Skip) => {}
        (Err(error), _) => return Err(error),
    }
    let mut skipped = 0;
    let good = loader.data.readable(wanted, |_, _| skipped += 1)?;
    gather(&good, batch)?;
    Ok(skipped)
}
