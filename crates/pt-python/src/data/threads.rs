//! Threads that read, own to each process: those of rayon's global pool are not there after a fork, and whoever waits for
//! them waits forever.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Class, Result};

/// Something of threads. Only the process that made it drops it; elsewhere, dropping would wait for threads that are not there.
pub(crate) struct OfProcess<T> {
    value: Option<T>,
    process: u32,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: process::id() }
    }

    /// Returns whether this process made it.
    pub(crate) fn is_here(&self) -> bool {
        self.process == process::id()
    }

    /// Returns the value in the process that made it.
    pub(crate) fn here(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.is_here())
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}

/// A pool of threads.
#[derive(Clone)]
pub(crate) struct Threads(Arc<OfProcess<ThreadPool>>);

impl Threads {
    /// Starts so many.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let builder = ThreadPoolBuilder::new().num_threads(count).thread_name(|_| "ptview".into());
        match builder.build() {
            Ok(pool) => Ok(Self(Arc::new(OfProcess::new(pool)))),
            Err(error) => Err(Class::Error.error(error)),
        }
    }

    /// Returns those that all data sets of this process share, as many as there are cores.
    pub(crate) fn shared(_py: Python<'_>) -> Result<Self> {
        static SHARED: Mutex<Option<Threads>> = Mutex::new(None);
        // Locked only by who holds the GIL, and not while it is given up: so no thread holds it when a process forks.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some(threads) if threads.0.is_here() => Ok(threads.clone()),
            _ => Ok(shared.insert(Self::new(0)?).clone()),
        }
    }

    /// Runs something that uses many threads, on these.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.pool()?.install(work))
    }

    pub(crate) fn pool(&self) -> Result<&ThreadPool> {
        self.0.here().ok_or_else(|| Class::Error.error("these threads are of another process"))
    }
}
