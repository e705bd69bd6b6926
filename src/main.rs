//! `ptview`: PyTorch files opened without PyTorch.

// One block maps an index that `bench` made for itself.
#![deny(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
