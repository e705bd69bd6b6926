//! The index: where every tensor of one file, or of a folder of files, lies.
//!
//! An index is one run of bytes, the same in memory and on disk. [`Index::from_bytes`] checks a header and is done,
//! whatever the size; names, shapes and offsets are read in place. `docs/index-format.md` describes the bytes.
//!
//! * [`build_any`], [`build_file`], [`build_folder`], [`build_shards`] — parse files and make an index.
//! * [`check`] — are files and index whole?
//! * [`save`], [`sidecar_path`] — keep it beside the data.
//! * [`FileEntry`], [`TensorEntry`], [`StorageEntry`] — what it says.
//! * [`FileEntry::freshness`] — whether it still speaks of the file that is there.
//!
//! This crate has no unsafe code. Mapping an index file is left to `pt-view`; [`read`] loads one into memory.

#![forbid(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("index rows are little-endian and read in place; big-endian hosts are not supported");

mod build;
mod builder;
mod check;
mod chunks;
mod column;
mod distributed;
mod earlier;
mod error;
mod freshness;
mod index;
mod layout;
mod listing;
mod mould;
mod paths;
mod reading;
mod record;
mod save;
mod schema;
mod scope;
mod sections;
mod shards;
mod source;
mod strings;
mod structure;
mod verify;
mod walk;

pub use crate::build::{
    BuildOptions, Built, Progress, Refreshed, build_file, build_folder, build_source, compare, index_of,
    refresh,
};
pub use crate::builder::IndexBuilder;
pub use crate::check::{CheckStep, Findings, build_any, check};
pub use crate::chunks::{ChunkPlace, Chunks};
pub use crate::column::Column;
pub use crate::distributed::{build_distributed, is_distributed};
pub use crate::error::{Error, Result};
pub use crate::freshness::{Freshness, Policy, Stamp};
pub use crate::index::{
    FileEntry, Index, Key, Leaf, Node, NodeKind, Schema, SkippedEntry, StorageEntry, TensorEntry, UsualTensor,
};
pub use crate::listing::Listing;
pub use crate::save::{
    FOLDER_INDEX, SIDECAR_EXTENSION, data_path, file_sidecar_path, keep, read, save, sidecar_path,
    write_atomic,
};
pub use crate::scope::changed_paths;
pub use crate::shards::{build_shards, is_shard_index, shard_files};
pub use crate::source::{FileSource, Folder};
pub use crate::walk::Selection;
