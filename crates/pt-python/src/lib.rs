//! The Python module `ptview._ptview`: the Rust half of the package `ptview`.
//!
//! Classes and functions here speak Python's types and leave the work to the crates above. What is easier said in Python
//! (building torch's own objects, progress bars, representations) stands in `python/ptview`.

mod error;
mod file;
mod tensor;

use pyo3::prelude::*;

/// The Rust half of ptview.
#[pymodule]
mod _ptview {
    #[pymodule_export]
    use crate::file::{File, open};
    #[pymodule_export]
    use crate::tensor::Tensor;

    /// The version of the package: that of the crates.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
