//! Typed, borrowed, lazily paged views of the tensors in PyTorch files.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.pt");
//! use pt_format::write::{self, Object, Tensor};
//! # let weight = Tensor::new::<f32>(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
//! # std::fs::write(&path, write::to_vec(&Object::dict([("fc.weight", weight.into())]))?)?;
//! use pt_view::Mapping;
//!
//! // SAFETY: nobody rewrites or truncates the file while it is mapped.
//! let mapping = unsafe { Mapping::open(&path)? };
//! let values: &[f32] = mapping.tensor("fc.weight")?.as_slice()?;
//! assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`TensorView`] is made from an index row and the bytes of a file. Whether the index came from a sidecar or was
//! built a moment ago, the view cannot tell. Nothing is read until it is touched, and what can be borrowed is never
//! copied: stored, little-endian, aligned, contiguous. Anything else is a typed refusal that names the method to call
//! instead.
//!
//! Complex numbers are [`pt_format::element::Complex`], and with the feature `num-complex` also those of the crate of that name:
//!
#![cfg_attr(feature = "num-complex", doc = "```")]
#![cfg_attr(not(feature = "num-complex"), doc = "```ignore")]
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("spectrum.pt");
//! # use pt_format::write::{self, Tensor};
//! use num_complex::Complex;
//! # let spectrum = [Complex::new(3.0f32, 4.0), Complex::new(0.0, 1.0)];
//! # std::fs::write(&path, write::to_vec(&Tensor::new::<Complex<f32>>(&[2], &spectrum)?.into())?)?;
//! # use pt_view::Mapping;
//! # // SAFETY: nobody rewrites or truncates the file while it is mapped.
//! # let mapping = unsafe { Mapping::open(&path)? };
//! let spectrum: &[Complex<f32>] = mapping.tensor("")?.as_slice()?;
//! let power: Vec<f32> = spectrum.iter().map(|number| number.norm_sqr()).collect();
//! assert_eq!(power, [25.0, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Unsafe code is in the module `map` alone: mapping files, asking which of their pages are resident, and giving pages back.

#![deny(unsafe_code)]

mod access;
#[cfg(feature = "ndarray")]
mod arrays;
mod bytes;
mod cache;
#[cfg(feature = "candle")]
mod candle;
mod chunked;
mod error;
mod iter;
#[allow(unsafe_code)]
mod map;
mod mapping;
mod pieces;
mod place;
mod residency;
#[cfg(feature = "safetensors")]
mod safe;
mod shape;
mod share;
mod values;
mod view;

pub use crate::access::{Access, OpenOptions};
pub use crate::bytes::{CheckedRecords, FileBytes};
pub use crate::cache::{CachedFile, FileCache, OpenFile};
pub use crate::chunked::Chunked;
pub use crate::error::{Error, Obstacle, Result};
pub use crate::iter::{Elements, Rows};
pub use crate::map::{Map, PrivateMap, open_index};
pub use crate::mapping::{IndexPolicy, Mapping};
pub use crate::residency::{Advice, Residency};
#[cfg(feature = "safetensors")]
pub use crate::safe::SafeTensor;
pub use crate::view::{Caps, Location, TensorView};
#[cfg(feature = "candle")]
pub use candle_core;
#[cfg(feature = "candle")]
pub use candle_nn;
#[cfg(feature = "ndarray")]
pub use ndarray;
#[cfg(feature = "safetensors")]
pub use safetensors;
