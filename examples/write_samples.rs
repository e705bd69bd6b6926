//! Writes a folder of `.pt` files that use everything the writer can do. The Python tests read them with real torch.
//!
//! `cargo run --example write_samples -- FOLDER`

use std::error::Error;
use std::fs::File;
use std::path::Path;

use half::{bf16, f16};
use pt_format::DType;
use pt_format::element::Complex;
use pt_format::write::{self, Object, Options, Storage, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: write_samples FOLDER")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let save = |name: &str, object: &Object<'_>, options: Options| -> Result<(), Box<dyn Error>> {
        write::write(File::create(folder.join(name))?, object, &options)?;
        Ok(())
    };

    save("dtypes.pt", &dtypes()?, Options::default())?;
    save("values.pt", &values(), Options::default())?;
    save("views.pt", &views()?, Options::default())?;
    save("parameters.pt", &parameters()?, Options::default())?;
    save("root_tensor.pt", &Tensor::new::<i64>(&[2, 2], &[1, -2, 3, -4])?.into(), Options::default())?;
    for alignment in [1, 8, 4096] {
        save(&format!("alignment_{alignment}.pt"), &dtypes()?, Options::default().alignment(alignment))?;
    }
    // 21 characters: a name at which other readers stumble.
    save("checkpoint_epoch_0100.pt", &dtypes()?, Options::default().root("checkpoint_epoch_0100"))?;
    save("many.pt", &many(), Options::default().root("many"))?;
    Ok(())
}

fn dtypes() -> write::Result<Object<'static>> {
    fn sample(dtype: DType) -> write::Result<(String, Object<'static>)> {
        // Bytes that are ordinary values in every type: small integers, and 0 or 1 for bool.
        let bytes: Vec<u8> = match dtype {
            DType::Bool => vec![1, 0, 1, 1, 0, 0],
            _ => (0..6 * dtype.itemsize()).map(|at| (at * 7 % 61) as u8).collect(),
        };
        Ok((dtype.name().to_owned(), Tensor::from_bytes(dtype, &[2, 3], bytes)?.into()))
    }
    let quantized = |dtype: &DType| dtype.name().starts_with('q');
    Ok(Object::dict(
        DType::all().filter(|dtype| !quantized(dtype)).map(sample).collect::<write::Result<Vec<_>>>()?,
    ))
}

fn values() -> Object<'static> {
    let ints = [
        0,
        1,
        255,
        256,
        65_535,
        65_536,
        i64::from(i32::MAX),
        1 << 31,
        -1,
        i64::from(i32::MIN),
        i64::MAX,
        i64::MIN,
    ];
    Object::dict([
        ("ints", Object::list(ints.map(Object::from))),
        ("floats", Object::tuple([0.5, -0.0, 1e300, f64::INFINITY].map(Object::from))),
        ("text", "é 日本 \n \0".into()),
        ("none", Object::None),
        ("yes", true.into()),
        ("no", false.into()),
        ("empty", Object::tuple([Object::list([]), Object::tuple([]), Object::Dict(vec![])])),
        ("long", Object::list((0..2500).map(Object::from))),
        ("keys", Object::dict([(1, "one".into()), (2, "two".into())])),
        ("deep", (0..100).fold(Object::None, |inner, _| Object::list([inner]))),
    ])
}

fn views() -> write::Result<Object<'static>> {
    let bytes: Vec<u8> = (0..24).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let shared = Storage::new(bytes.clone());
    let view = |shape: &[u64], stride: &[u64], offset, storage: &Storage<'static>| {
        Tensor::strided(DType::Float32, shape, stride, offset, storage).map(Object::from)
    };
    Ok(Object::dict([
        ("whole", view(&[24], &[1], 0, &shared)?),
        ("matrix", view(&[4, 6], &[6, 1], 0, &shared)?),
        ("transposed", view(&[6, 4], &[1, 6], 0, &shared)?),
        ("block", view(&[2, 3], &[6, 1], 8, &shared)?),
        ("expanded", view(&[3, 2], &[0, 1], 4, &shared)?),
        ("empty", view(&[0, 3], &[3, 1], 0, &shared)?),
        // On its own, so it is written contiguous and its storage holds no more.
        ("column", view(&[4], &[6], 1, &Storage::new(bytes))?),
        ("reserved", view(&[1000], &[1], 0, &Storage::zeros(4000))?),
    ]))
}

fn parameters() -> write::Result<Object<'static>> {
    static COMPLEX: [Complex<f32>; 1] = [Complex::new(1.0, -1.0)];
    static WEIGHT: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
    let halves: &'static [f16] = Box::leak(Box::new([1.5, -2.5].map(f16::from_f32)));
    let brains: &'static [bf16] = Box::leak(Box::new([0.5, 3.0].map(bf16::from_f32)));
    Ok(Object::dict([
        ("weight", Tensor::new(&[2, 2], &WEIGHT)?.parameter().requires_grad(true).into()),
        ("frozen", Tensor::new(&[2], halves)?.parameter().into()),
        ("leaf", Tensor::new(&[4], &WEIGHT)?.requires_grad(true).into()),
        ("plain", Tensor::new(&[2], brains)?.into()),
        ("complex", Tensor::new(&[1], &COMPLEX)?.into()),
    ]))
}

fn many() -> Object<'static> {
    static ELEMENTS: [u8; 3] = [1, 2, 3];
    let tensor = |number: usize| {
        let tensor = Tensor::new::<u8>(&[3], &ELEMENTS).map_or(Object::None, Object::from);
        (format!("t{number}"), tensor)
    };
    Object::dict((0..1001).map(tensor).collect::<Vec<_>>())
}
