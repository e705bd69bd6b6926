//! PyTorch checkpoint files, parsed without PyTorch.
//!
//! ```text
//! bytes (Source) -> container -> records -> pickle machine -> value tree -> Checkpoint { values, tensors, storages }
//! ```
//!
//! Nothing is executed: a global in the pickle is looked up in a table of known rebuild functions and otherwise stays
//! an inert pair of names. This crate has no unsafe code and opens no files; it sees bytes through a [`Source`].
//!
//! * [`Checkpoint`] — parse a file, list its [`Tensor`]s, walk its [`values`](Checkpoint::values).
//! * [`write`](mod@write) — write a `.pt` file that `torch.load(weights_only=True)` reads.
//! * [`distributed`] — the plan of a distributed checkpoint (`.metadata`).
//! * [`DType`], [`element`] — element types, and the Rust types that are theirs.
//! * [`geometry`], [`strided`] — shape and stride arithmetic, copies of any stride.

#![forbid(unsafe_code)]

mod audit;
mod checkpoint;
mod container;
pub mod distributed;
mod dtype;
pub mod element;
mod error;
mod fault;
pub mod geometry;
mod limits;
mod pickle;
mod rebuild;
mod source;
pub mod strided;
mod structure;
mod template;
mod tensor;
mod verify;
pub mod write;

pub use crate::audit::{Audit, audit};
pub use crate::checkpoint::{ByteOrder, Checkpoint, Fingerprint, fingerprint_of};
pub use crate::container::{Archive, ArchiveProblem, Container, Entry, LegacyProblem, Record, detect};
pub use crate::dtype::DType;
pub use crate::element::Element;
pub use crate::error::{Error, Result};
pub use crate::fault::Fault;
pub use crate::limits::Limits;
pub use crate::pickle::{GlobalUse, Kind, PickleProblem, Value, Verdict};
pub use crate::source::{Source, Window};
pub use crate::structure::{Part, PartKind, Structure};
pub use crate::template::{Alike, Scalar, Template};
pub use crate::tensor::{Flags, Layout, Quantizer, Storage, Tensor};
pub use crate::verify::{Contents, verify};
