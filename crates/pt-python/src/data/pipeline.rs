//! Batches of an epoch, read ahead of need by a thread that never asks for the GIL.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pt_loader::{BatchPlan, DataSet, Epoch, Error as LoaderError, Loader, Ragged, Shards, State};
use pyo3::prelude::*;

use crate::data::buffer::Buffer;
use crate::data::memory::{Lent, Memory, Pool};
use crate::data::plan::Plan;
use crate::data::samples::Samples;
use crate::data::threads::{OfProcess, Threads};
use crate::error::{Class, Error, Result};

/// So often does a wait look whether the user has pressed Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// The order of an epoch, from some position on: the numbers of the samples of each batch.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Order {
    epoch: Mutex<Epoch>,
}

#[pymethods]
impl Order {
    /// Begins an epoch, or goes on with one of which `consumed` samples were had. `seed` is `None` for the order of files.
    #[new]
    #[pyo3(signature = (samples, batch_size, *, seed, window, drop_last, rank, world_size, epoch, consumed))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        samples: &Samples,
        batch_size: usize,
        seed: Option<u64>,
        window: Option<usize>,
        drop_last: bool,
        rank: usize,
        world_size: usize,
        epoch: u64,
        consumed: u64,
    ) -> Result<Self> {
        if rank >= world_size {
            return Err(Class::Error.error(format!("rank {rank} of {world_size}")));
        }
        let shards = if drop_last { Shards::Even } else { Shards::Padded };
        let mut loader = Loader::new(&samples.data(), batch_size).rank(rank, world_size, shards);
        if let Some(seed) = seed {
            loader = loader.shuffle(seed);
        }
        if let Some(window) = window {
            loader = loader.window(window);
        }
        if drop_last {
            loader = loader.drop_last();
        }
        let state = State { epoch, consumed, samples: samples.data().len() as u64 };
        Ok(Self { epoch: Mutex::new(loader.resume(&state)?) })
    }

    fn __len__(&self) -> usize {
        self.lock().len()
    }

    /// The samples of the next batch, and how many of the whole epoch all ranks have had behind it.
    fn next(&self) -> Option<(Vec<usize>, u64)> {
        let mut epoch = self.lock();
        let samples = epoch.next_samples()?.to_vec();
        Some((samples, epoch.state().consumed))
    }
}

impl Order {
    fn lock(&self) -> MutexGuard<'_, Epoch> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that reads batches one after the other, each on many threads.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Pipeline {
    thread: OfProcess<Thread>,
    pool: Arc<Pool>,
}

struct Thread {
    jobs: Option<Sender<Job>>,
    done: Mutex<Receiver<Done>>,
    handle: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

struct Job {
    data: DataSet,
    ragged: Ragged,
    plan: Arc<BatchPlan>,
    memory: Target,
}

/// What a batch is read into. It goes to the thread and comes back: what is lent is given back to Python by who holds the GIL.
enum Target {
    Own(Buffer),
    Lent(Lent),
}

struct Done {
    data: DataSet,
    ragged: Ragged,
    plan: Arc<BatchPlan>,
    memory: Target,
    /// Samples that could not be read, and why.
    skipped: Vec<(usize, LoaderError)>,
    result: Result<(), LoaderError>,
}

#[pymethods]
impl Pipeline {
    /// Starts the thread. `skip` leaves out samples that cannot be read.
    #[new]
    #[pyo3(signature = (samples, *, threads, skip))]
    fn new(py: Python<'_>, samples: &Samples, threads: Option<usize>, skip: bool) -> Result<Self> {
        let threads = match threads {
            Some(count) => Threads::new(count)?,
            None => Threads::shared(py)?,
        };
        let (jobs, work) = channel::<Job>();
        let (send, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = stop.clone();
        let handle = thread::Builder::new().name("ptview reader".into()).spawn(move || {
            while let Ok(job) = work.recv() {
                let done = if is_stopped.load(Ordering::Relaxed) {
                    job.give_back()
                } else {
                    job.run(&threads, skip)
                };
                if let Err(unwanted) = send.send(done) {
                    // Nobody waits; and this thread must not ask for the GIL.
                    std::mem::forget(unwanted);
                }
            }
        });
        let handle = handle.map_err(PyErr::from)?;
        let thread = Thread { jobs: Some(jobs), done: Mutex::new(done), handle: Some(handle), stop };
        Ok(Self { thread: OfProcess::new(thread), pool: samples.pool().clone() })
    }

    /// Has a batch read: into memory of ours, or that is given and that nobody looks at.
    #[pyo3(signature = (plan, memory=None))]
    fn submit(&self, plan: &Plan, memory: Option<&Bound<'_, PyAny>>) -> Result<()> {
        let memory = match memory {
            Some(memory) => Target::Lent(Lent::new(memory)?),
            None => Target::Own(self.pool.take(plan.plan.bytes())?),
        };
        let job = Job { data: plan.data.clone(), ragged: plan.ragged, plan: plan.plan.clone(), memory };
        let jobs = self.thread.here().and_then(|thread| thread.jobs.as_ref());
        jobs.and_then(|jobs| jobs.send(job).ok()).ok_or_else(ended)
    }

    /// Waits for the batch that was submitted first. Returns it as it was read, the memory it is in if that is ours, and which
    /// samples were left out and why.
    #[allow(clippy::type_complexity)]
    fn next(&self, py: Python<'_>) -> Result<(Plan, Option<Memory>, Vec<(usize, PyErr)>)> {
        let thread = self.thread.here().ok_or_else(ended)?;
        let done = loop {
            let wait =
                || thread.done.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNALS_EVERY);
            match py.detach(wait) {
                Ok(done) => break done,
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        };
        let Done { data, ragged, plan, memory, skipped, result } = done;
        let memory = match memory {
            Target::Own(buffer) => Some(Memory::new(buffer, plan.bytes(), &self.pool)),
            Target::Lent(_) => None,
        };
        result?;
        let skipped =
            skipped.into_iter().map(|(sample, error)| (sample, Error::from(error).into())).collect();
        Ok((Plan { data, ragged, plan, pool: self.pool.clone() }, memory, skipped))
    }
}

fn ended() -> Error {
    Class::Error.error("the threads of this iterator are gone: it was closed, or the process was forked")
}

impl Drop for Thread {
    /// Waits for the thread, which may be writing to memory that is lent. It asks for no GIL.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs.take();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Job {
    fn run(mut self, threads: &Threads, skip: bool) -> Done {
        let memory = match &mut self.memory {
            Target::Own(buffer) => buffer.as_mut_bytes(),
            Target::Lent(lent) => lent.as_mut_bytes(),
        };
        let read = |plan: &BatchPlan, memory: &mut [u8]| {
            let read = AssertUnwindSafe(|| threads.pool().map(|pool| plan.read_in_pool(memory, pool)));
            catch_unwind(read).ok().and_then(Result::ok).unwrap_or(Err(LoaderError::Panicked))
        };
        let mut result = read(&self.plan, memory);
        let mut skipped = Vec::new();
        if skip && matches!(result, Err(LoaderError::At { .. })) {
            let note = |sample, error| skipped.push((sample, error));
            result = self.data.readable(self.plan.samples(), note).and_then(|good| {
                let mut plan = BatchPlan::default();
                self.data.plan_into(&good, self.ragged, &mut plan)?;
                self.plan = Arc::new(plan);
                read(&self.plan, memory)
            });
        }
        Done { skipped, result, ..self.give_back() }
    }

    /// What is told of a batch that was not read.
    fn give_back(self) -> Done {
        let Self { data, ragged, plan, memory } = self;
        Done { data, ragged, plan, memory, skipped: Vec::new(), result: Err(LoaderError::Panicked) }
    }
}
