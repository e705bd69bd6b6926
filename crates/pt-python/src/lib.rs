//! The Python module `ptview._ptview`: the Rust half of the package `ptview`.
//!
//! Classes and functions here speak Python's types and leave the work to the crates above. What is easier said in Python
//! (building torch's own objects, progress bars, representations) stands in `python/ptview`.

mod dataset;
mod error;
mod file;
mod layout;
mod memory;
mod pipeline;
mod plan;
mod structure;
mod tensor;
mod threads;

use pyo3::prelude::*;

/// The Rust half of ptview.
#[pymodule]
mod _ptview {
    #[pymodule_export]
    use crate::dataset::Samples;
    #[pymodule_export]
    use crate::file::{File, open};
    #[pymodule_export]
    use crate::layout::Layout;
    #[pymodule_export]
    use crate::memory::Memory;
    #[pymodule_export]
    use crate::pipeline::{Order, Pipeline};
    #[pymodule_export]
    use crate::plan::Plan;
    #[pymodule_export]
    use crate::tensor::Tensor;

    /// The version of the package: that of the crates.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
