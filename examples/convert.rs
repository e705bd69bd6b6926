//! Turns a `.pt` file into a `.safetensors` file, without loading it: tensors go from one map to the other file.
//!
//! `cargo run --features safetensors --example convert -- model.pt model.safetensors`

use std::error::Error;
use std::path::PathBuf;

use pt_view::Mapping;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: convert FROM.pt TO.safetensors";
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (from, to) = arguments.next().zip(arguments.next()).ok_or(usage)?;
    // SAFETY: whoever runs this does not rewrite or truncate the file meanwhile.
    let mapping = unsafe { Mapping::open(&from)? };
    // Composite tensors have no bytes of their own; their parts are listed too.
    let with_bytes = mapping.tensors().filter(|tensor| tensor.entry().storage().is_some());
    let mut tensors = Vec::new();
    for tensor in with_bytes {
        match tensor.to_safetensor() {
            Ok(safe) => tensors.push((tensor.name(), safe)),
            Err(error) => eprintln!("left out: {error}"),
        }
    }
    let count = tensors.len();
    pt_view::safetensors::serialize_to_file(tensors, None, &to)?;
    println!("{}: {count} tensors", to.display());
    Ok(())
}
