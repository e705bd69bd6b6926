//! Data sets: samples and batches of many files. `python/ptview/data.py` and `loader.py` make tensors of them.

mod buffer;
mod layout;
#[allow(unsafe_code)]
mod memory;
mod pipeline;
mod plan;
mod samples;
mod structure;
mod threads;

pub(crate) use layout::Layout;
pub(crate) use memory::Memory;
pub(crate) use pipeline::{Order, Pipeline};
pub(crate) use plan::Plan;
pub(crate) use samples::Samples;
