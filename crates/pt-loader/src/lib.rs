//! Folders of PyTorch files as data sets: one sample a file, shuffled, batched, gathered lazily.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # use pt_format::write::{self, Object, Tensor};
//! # for number in 0..10 {
//! #     let x = [number as f32; 4];
//! #     let object = Object::dict([("x", Tensor::new::<f32>(&[2, 2], &x)?.into()), ("y", Object::from(number))]);
//! #     std::fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object)?)?;
//! # }
//! use pt_loader::{DataSet, Loader};
//!
//! let data = DataSet::open(folder.path())?;
//! let loader = Loader::new(&data, 4).shuffle(42);
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     let x: &[f32] = batch.tensor("x").unwrap().as_slice()?;
//!     assert_eq!(x.len(), batch.len() * 4);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing is read before it is asked for, and every batch is one buffer: the reads of a batch are planned, run in
//! parallel, and land where the batch wants them.

#![forbid(unsafe_code)]

mod batch;
mod column;
mod dataset;
mod error;
mod files;
mod gather;
mod grid;
mod loader;
mod order;
mod pad;
mod permutation;
mod plan;
mod prefetch;
mod read;
mod samples;
mod structure;
mod windows;

pub use crate::batch::{Batch, BatchTensor, Ragged};
pub use crate::column::BatchColumn;
pub use crate::dataset::{DataSet, Field, Misfits, Options, Unit};
pub use crate::error::{Error, Result};
pub use crate::loader::{Epoch, Loader, State};
pub use crate::order::Shards;
pub use crate::pad::{Lengths, Mode, Pad, Side, To};
pub use crate::permutation::Permutation;
pub use crate::plan::{BatchField, BatchPlan};
pub use crate::prefetch::{OnError, Prefetch};
pub use crate::structure::Structure;
