//! Computes with the tensors of a `.pt` file through `ndarray`, in place: mean and largest value of each float tensor.
//!
//! `cargo run --features ndarray --example ndarray -- model.pt`

use std::error::Error;

use pt_format::DType;
use pt_view::Mapping;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: ndarray FILE")?;
    // SAFETY: whoever runs this does not rewrite or truncate the file meanwhile.
    let mapping = unsafe { Mapping::open(&path)? };
    for tensor in mapping.tensors().filter(|tensor| tensor.dtype() == Some(DType::Float32)) {
        match tensor.as_array::<f32>() {
            Ok(array) => {
                let largest = array.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                println!(
                    "{}: {:?}, mean {:?}, largest {largest}",
                    tensor.name(),
                    array.shape(),
                    array.mean()
                );
            }
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
