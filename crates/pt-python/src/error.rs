//! The one place where errors of the crates become Python exceptions.
//!
//! The classes are written in Python, in `ptview/_errors.py`. What the file system says stays an `OSError` of the kind that
//! belongs to it; everything else is a `ptview.Error`.

use std::io;
use std::path::Path;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Results of functions that Python calls.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An exception to be raised. Errors of all crates turn into one, so that `?` serves everywhere.
pub(crate) struct Error(PyErr);

/// The classes of `ptview/_errors.py`.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    /// What went wrong has no class of its own.
    Error,
    /// The file is not what it should be.
    Format,
    /// The index is not of the file that is there, or none at all.
    Index,
    /// A tensor cannot be handed out.
    Tensor,
    /// No such name: also a `KeyError`.
    Missing,
    /// No such number: also an `IndexError`.
    Range,
}

impl Class {
    const COUNT: usize = 6;

    fn name(self) -> &'static str {
        match self {
            Self::Error => "Error",
            Self::Format => "FormatError",
            Self::Index => "StaleIndexError",
            Self::Tensor => "TensorError",
            Self::Missing => "MissingError",
            Self::Range => "RangeError",
        }
    }

    /// Makes an exception of this class.
    #[cold]
    pub(crate) fn error(self, message: impl ToString) -> Error {
        static CLASSES: [PyOnceLock<Py<PyType>>; Class::COUNT] = [const { PyOnceLock::new() }; Class::COUNT];
        let message = message.to_string();
        Error(Python::attach(|py| match CLASSES[self as usize].import(py, "ptview._errors", self.name()) {
            Ok(class) => PyErr::from_type(class.clone(), message),
            Err(error) => error,
        }))
    }
}

impl From<Error> for PyErr {
    fn from(Error(error): Error) -> Self {
        error
    }
}

impl From<PyErr> for Error {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}

impl From<pt_view::Obstacle> for Error {
    fn from(obstacle: pt_view::Obstacle) -> Self {
        Class::Tensor.error(obstacle)
    }
}

impl From<pt_format::Error> for Error {
    fn from(error: pt_format::Error) -> Self {
        use pt_format::Error::*;
        match error {
            Tensor { .. } | Storage { .. } => Class::Tensor.error(error),
            Value { .. } => Class::Error.error(error),
            _ => Class::Format.error(error),
        }
    }
}

impl From<pt_format::write::Error> for Error {
    fn from(error: pt_format::write::Error) -> Self {
        Class::Error.error(error)
    }
}

impl From<pt_index::Error> for Error {
    fn from(error: pt_index::Error) -> Self {
        use pt_index::Error::*;
        match &error {
            Io { path, source, .. } => os_error(path, source, &error),
            File { source: pt_format::Error::Read { source, .. }, path } => os_error(path, source, &error),
            File { .. } | Shards { .. } | Metadata { .. } => Class::Format.error(error),
            NotAnIndex(_) | Version { .. } | Damaged { .. } | Stale { .. } => Class::Index.error(error),
            _ => Class::Error.error(error),
        }
    }
}

impl From<pt_view::Error> for Error {
    fn from(error: pt_view::Error) -> Self {
        use pt_view::Error::*;
        match error {
            Index(error) => error.into(),
            Map { ref path, ref source } | Advice { ref path, ref source } => os_error(path, source, &error),
            NoSuchTensor { .. } => Class::Missing.error(error),
            NoSuchFile { .. } => Class::Range.error(error),
            Refused { obstacle: pt_view::Obstacle::OutOfBounds { .. }, .. } => Class::Range.error(error),
            Refused { .. } => Class::Tensor.error(error),
            _ => Class::Error.error(error),
        }
    }
}

impl From<pt_loader::Error> for Error {
    fn from(error: pt_loader::Error) -> Self {
        use pt_loader::Error::*;
        match error {
            Index(error) => error.into(),
            Open(error) => error.into(),
            // The cause names the file.
            At { source, .. } => (*source).into(),
            Sample { .. } | WrongType { .. } => Class::Tensor.error(error),
            NoSuchField { .. } | NoSuchKey { .. } => Class::Missing.error(error),
            NoSuchSample { .. } => Class::Range.error(error),
            _ => Class::Error.error(error),
        }
    }
}

/// What the system said about a file, as Python says it: `OSError` picks `FileNotFoundError` and so on by the number.
#[cold]
fn os_error(path: &Path, source: &io::Error, shown: &dyn std::fmt::Display) -> Error {
    match source.raw_os_error() {
        Some(number) => {
            let said = source.to_string();
            let said = said.split(" (os error").next().unwrap_or(&said).to_owned();
            Error(PyOSError::new_err((number, said, path.as_os_str().to_owned())))
        }
        None => match source.kind() {
            io::ErrorKind::IsADirectory => {
                Error(pyo3::exceptions::PyIsADirectoryError::new_err(shown.to_string()))
            }
            _ => Error(PyOSError::new_err(shown.to_string())),
        },
    }
}
