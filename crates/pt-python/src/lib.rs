//! The Python module `ptview._ptview`: the Rust half of the package `ptview`.
//!
//! Classes and functions here speak Python's types and leave the work to the crates above. What is easier said in Python
//! (torch's own rebuild functions, progress bars, tables) stands in `python/ptview`. Unsafe code is in the modules
//! `export` and `data::memory`, and in the one method of `Tensor` that Python calls with a pointer.

#![deny(unsafe_code)]

mod data;
mod distributed;
mod dtype;
mod error;
#[allow(unsafe_code)]
mod export;
mod file;
mod kept;
mod lines;
mod load;
mod numpy;
mod opened;
mod save;
mod tensor;
mod tools;
mod torch;
mod tree;

use pyo3::prelude::*;

/// The Rust half of ptview.
#[pymodule]
mod _ptview {
    #[pymodule_export]
    use crate::data::{Layout, Memory, Order, Pipeline, Plan, Samples};
    #[pymodule_export]
    use crate::distributed::load_distributed;
    #[pymodule_export]
    use crate::export::Region;
    #[pymodule_export]
    use crate::file::{OpenFile, open_file};
    #[pymodule_export]
    use crate::load::load;
    #[pymodule_export]
    use crate::save::save;
    #[pymodule_export]
    use crate::tensor::Tensor;
    #[pymodule_export]
    use crate::tools::{globals, index, verify};

    /// The version of the package: that of the crates.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
