//! Writing `.pt` files: what `torch.load(weights_only=True)` and `torch.load(mmap=True)` read.
//!
//! ```
//! use pt_format::write::{self, Object, Tensor};
//! let object = Object::dict([
//!     ("x", Tensor::new::<f32>(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?.into()),
//!     ("y", Object::from(3)),
//! ]);
//! let bytes = write::to_vec(&object)?;
//! assert!(bytes.starts_with(b"PK\x03\x04"));
//! # Ok::<(), write::Error>(())
//! ```

mod archive;
mod object;
mod pickler;

use std::io::{Cursor, Seek, Write};

pub use self::object::{Object, Storage, Tensor};

/// Why an object cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The destination failed.
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
    /// The archive writer failed.
    #[error("cannot write the archive: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// The elements given are not as many as the shape says.
    #[error("shape {shape:?} needs {needs} bytes of {dtype}, got {has}")]
    Length {
        /// The shape.
        shape: Vec<u64>,
        /// The dtype.
        dtype: crate::DType,
        /// Bytes the shape needs.
        needs: u64,
        /// Bytes given.
        has: u64,
    },
    /// Shape, stride and offset leave the storage, or do not fit into 64 bits.
    #[error("shape {shape:?} with stride {stride:?} from element {offset} leaves a storage of {has} bytes")]
    OutOfStorage {
        /// The shape.
        shape: Vec<u64>,
        /// The stride.
        stride: Vec<u64>,
        /// First element.
        offset: u64,
        /// Bytes of the storage.
        has: u64,
    },
    /// The dtype cannot be written on its own.
    #[error("{dtype} tensors cannot be written: they need a quantizer")]
    Unsupported {
        /// The dtype.
        dtype: crate::DType,
    },
    /// The options make no valid archive.
    #[error("{0}")]
    Options(String),
}

/// Results of writing.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How to lay the archive out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Name of the archive's top folder. `torch.save` uses the file's stem; `archive` is what it uses for buffers.
    pub root: String,
    /// Every record starts at a multiple of this many bytes: a power of two up to 32,768. Default 64.
    pub alignment: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: "archive".into(), alignment: 64 }
    }
}

impl Options {
    /// Sets the top folder's name.
    #[must_use]
    pub fn root(self, root: impl Into<String>) -> Self {
        Self { root: root.into(), ..self }
    }

    /// Sets the alignment of records.
    #[must_use]
    pub fn alignment(self, alignment: u64) -> Self {
        Self { alignment, ..self }
    }
}

/// Writes an object as a `.pt` file and returns the writer.
///
/// Storages are written as they are when several tensors share them; a tensor that has its storage to itself is written
/// contiguous, and only its own elements.
///
/// # Errors
/// When the destination fails, or when a dtype cannot be written.
pub fn write<W: Write + Seek>(out: W, object: &Object<'_>, options: &Options) -> Result<W> {
    let pickled = pickler::pickle(object)?;
    archive::write(out, &pickled, options)
}

/// Writes an object as the bytes of a `.pt` file.
///
/// # Errors
/// As [`write()`].
pub fn to_vec(object: &Object<'_>) -> Result<Vec<u8>> {
    Ok(write(Cursor::new(Vec::new()), object, &Options::default())?.into_inner())
}
