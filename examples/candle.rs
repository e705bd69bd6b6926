//! Runs a small candle model whose weights stay in a PyTorch file until they are asked for.
//!
//! `cargo run --features candle --example candle` writes a model of two layers and runs it. With a file that torch wrote,
//! and the names of its linear layers in order, it runs that one, on ones:
//! `cargo run --features candle --example candle -- model.pt fc1 fc2`

use std::error::Error;
use std::path::{Path, PathBuf};

use pt_format::write::{self, Object, Tensor};
use pt_view::Mapping;
use pt_view::candle_core::{self as candle, DType, Device};
use pt_view::candle_nn::{self, Activation, Module, Sequential, VarBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = tempfile::tempdir()?;
    let (path, layers) = match arguments.next() {
        Some(path) => (PathBuf::from(path), arguments.collect()),
        None => written(folder.path())?,
    };
    // SAFETY: whoever runs this does not rewrite or truncate the file meanwhile.
    let mapping = unsafe { Mapping::open(&path)? };
    let device = Device::Cpu;
    let weights = mapping.var_builder(DType::F32, &device);

    let inputs = match layers.first() {
        Some(first) => sizes(&mapping, first)?.1,
        None => return Err("which layers?".into()),
    };
    let model = model(&mapping, &weights, &layers)?;
    if let (Some(resident), Some(bytes)) = (mapping.resident(), mapping.bytes()) {
        println!("{} of {} bytes of the file are in memory", resident.bytes().min(bytes.len()), bytes.len());
    }
    let ones = candle::Tensor::ones((1, inputs), DType::F32, &device)?;
    println!("{}", model.forward(&ones)?);
    Ok(())
}

/// Linear layers, with a rectifier between.
fn model(
    mapping: &Mapping,
    weights: &VarBuilder<'_>,
    layers: &[String],
) -> Result<Sequential, Box<dyn Error>> {
    let mut model = candle_nn::seq();
    for (number, layer) in layers.iter().enumerate() {
        if number > 0 {
            model = model.add(Activation::Relu);
        }
        let (outputs, inputs) = sizes(mapping, layer)?;
        model = model.add(candle_nn::linear(inputs, outputs, weights.pp(layer))?);
    }
    Ok(model)
}

/// How many numbers a layer gives and takes.
fn sizes(mapping: &Mapping, layer: &str) -> Result<(usize, usize), Box<dyn Error>> {
    match mapping.tensor(&format!("{layer}.weight"))?.shape() {
        Some(&[outputs, inputs]) => Ok((outputs.try_into()?, inputs.try_into()?)),
        shape => Err(format!("`{layer}` is no linear layer: {shape:?}").into()),
    }
}

/// A file as torch writes it, with a tensor that the model does not use.
fn written(folder: &Path) -> Result<(PathBuf, Vec<String>), Box<dyn Error>> {
    let layer = |outputs: u64, inputs: u64| -> Result<Object<'static>, write::Error> {
        let values: Vec<f32> = (0..outputs * inputs).map(|value| value as f32 / 8.0).collect();
        let bias = Tensor::from_bytes(pt_format::DType::Float32, &[outputs], vec![0; outputs as usize * 4])?;
        let weight = bytemuck::cast_slice(&values).to_vec();
        let weight = Tensor::from_bytes(pt_format::DType::Float32, &[outputs, inputs], weight)?;
        Ok(Object::dict([("weight", weight.into()), ("bias", bias.into())]))
    };
    let unused = Tensor::from_bytes(pt_format::DType::UInt8, &[8 << 20], vec![1; 8 << 20])?;
    let model = Object::dict([("fc1", layer(4, 3)?), ("fc2", layer(2, 4)?), ("optimizer", unused.into())]);
    let path = folder.join("model.pt");
    std::fs::write(&path, write::to_vec(&model)?)?;
    Ok((path, vec!["fc1".into(), "fc2".into()]))
}
