//! Tensors handed to other crates, each behind its feature.

#![cfg(any(feature = "candle", feature = "ndarray", feature = "safetensors"))]

use pt_format::write::{self, Object, Storage, Tensor};
use pt_format::{Checkpoint, DType, Limits};
use pt_index::Index;
use pt_view::{FileBytes, TensorView};

/// Two tensors over one storage of 0, 1, 2, …: `whole`, and `part` as it is given.
fn strided(shape: &[u64], stride: &[u64], offset: u64) -> (Vec<u8>, Index) {
    let storage = Storage::new(bytemuck::cast_slice(&(0..60).collect::<Vec<i32>>()).to_vec());
    let tensor = |shape, stride, offset| {
        Object::from(Tensor::strided(DType::Int32, shape, stride, offset, &storage).unwrap())
    };
    let object = Object::dict([("whole", tensor(&[60], &[1], 0)), ("part", tensor(shape, stride, offset))]);
    let bytes = write::to_vec(&object).unwrap();
    let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default()).unwrap()).unwrap();
    (bytes, index)
}

fn view<'a>((bytes, index): &'a (Vec<u8>, Index), name: &str) -> TensorView<'a> {
    TensorView::new(index.find_tensor(name).unwrap(), FileBytes::new(bytes))
}

#[cfg(feature = "ndarray")]
#[test]
fn arrays_borrow_whatever_the_strides() {
    use pt_view::ndarray::Dimension;
    let cases: [(&[u64], &[u64], u64); 7] = [
        (&[3, 4, 5], &[20, 5, 1], 0),
        (&[5, 4, 3], &[1, 5, 20], 0),
        (&[2, 3], &[20, 7], 9),
        (&[3, 4], &[0, 1], 5),
        (&[1, 4], &[i64::MAX as u64, 2], 1),
        (&[0, 4], &[4, 1], 0),
        (&[], &[], 7),
    ];
    for (shape, stride, offset) in cases {
        let file = strided(shape, stride, offset);
        let part = view(&file, "part");
        let array = part.as_array::<i32>().unwrap();
        let sizes: Vec<u64> = array.raw_dim().slice().iter().map(|&size| size as u64).collect();
        assert_eq!(sizes, shape);
        assert_eq!(array.iter().copied().collect::<Vec<_>>(), part.to_vec::<i32>().unwrap());
        if let Some(first) = array.iter().next() {
            assert!(file.0.as_ptr_range().contains(&std::ptr::from_ref(first).cast()), "it is borrowed");
        }
    }
    let file = strided(&[3, 4], &[4, 1], 0);
    assert!(view(&file, "part").as_array::<u32>().is_err());
    let column = view(&file, "part").select(1, 2).unwrap();
    assert_eq!(column.as_array::<i32>().unwrap().iter().sum::<i32>(), 2 + 6 + 10);
}

#[cfg(feature = "safetensors")]
#[test]
fn a_file_becomes_safetensors_and_lends_its_bytes() {
    use pt_view::safetensors::{Dtype, SafeTensors, View, serialize};
    let file = strided(&[5, 4], &[1, 5], 0);
    let tensors = ["whole", "part"].map(|name| (name, view(&file, name).to_safetensor().unwrap()));
    assert!(file.0.as_ptr_range().contains(&tensors[0].1.data().as_ptr()), "it is borrowed");
    assert_eq!((tensors[1].1.dtype(), tensors[1].1.shape()), (Dtype::I32, &[5, 4][..]));
    let written = serialize(tensors, None).unwrap();
    let read = SafeTensors::deserialize(&written).unwrap();
    for name in ["whole", "part"] {
        assert_eq!(read.tensor(name).unwrap().data(), view(&file, name).to_bytes().unwrap(), "{name}");
    }
    // And this crate reads what came out.
    let checkpoint = Checkpoint::parse(&written[..], &Limits::default()).unwrap();
    let again = (written.clone(), pt_index::index_of(&checkpoint).unwrap());
    let part = view(&again, "part");
    assert_eq!(part.to_vec::<i32>().unwrap(), view(&file, "part").to_vec::<i32>().unwrap());
}

#[cfg(feature = "safetensors")]
#[test]
fn dtypes_safetensors_cannot_name_are_refused() {
    let tensor = Tensor::from_bytes(DType::Complex128, &[1], vec![0; 16]).unwrap();
    let bytes = write::to_vec(&tensor.into()).unwrap();
    let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default()).unwrap()).unwrap();
    let refused = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&bytes)).to_safetensor();
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the tensor at the root is complex128, for which safetensors has no name; `to_bytes` copies it"
    );
}

#[cfg(feature = "safetensors")]
#[test]
fn elements_that_share_bytes_are_sent_to_their_packed_bytes() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fixtures/zip/quantized.pt");
    let file = pt_view::Mapping::open_read(path, &Default::default()).unwrap();
    let view = file.tensor("float_qparams").unwrap();
    let refused = view.to_safetensor().unwrap_err().to_string();
    assert!(refused.contains("`packed_bytes` copies it"), "{refused}");
}

/// A file of a linear layer below the key `model`, in float64, beside what candle has no type for.
#[cfg(feature = "candle")]
fn layer() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let tensor = |shape: &[u64], values: &[f64]| {
        let bytes = bytemuck::cast_slice(values).to_vec();
        Object::from(Tensor::from_bytes(DType::Float64, shape, bytes).unwrap())
    };
    let layer = Object::dict([
        ("weight", tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("bias", tensor(&[2], &[0.5, -0.5])),
        ("odd", Tensor::from_bytes(DType::Complex64, &[1], vec![0; 8]).unwrap().into()),
        ("flag", Tensor::from_bytes(DType::Bool, &[2], vec![1, 0]).unwrap().into()),
    ]);
    std::fs::write(&path, write::to_vec(&Object::dict([("model", layer)])).unwrap()).unwrap();
    (folder, path)
}

#[cfg(feature = "candle")]
#[test]
fn candle_models_take_their_weights_from_a_file() {
    use pt_view::Mapping;
    use pt_view::candle_core::{DType, Device, Tensor};
    use pt_view::candle_nn::{self, Module};
    let (_folder, path) = layer();
    // SAFETY: the file is this test's own, and not written to while it is mapped.
    let mapped = unsafe { Mapping::open(&path) }.unwrap();
    let read = Mapping::open_read(&path, &Default::default()).unwrap();
    for file in [&mapped, &read] {
        let weights = file.var_builder(DType::F32, &Device::Cpu);
        let layer = candle_nn::linear(3, 2, weights.pp("model")).unwrap();
        let ones = Tensor::ones((1, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(layer.forward(&ones).unwrap().to_vec2::<f32>().unwrap(), [[6.5, 14.5]]);
        assert!(weights.contains_tensor("model.bias") && !weights.contains_tensor("bias"));
        let flag = file.tensor("model.flag").unwrap().to_candle(&Device::Cpu).unwrap();
        assert_eq!(flag.to_vec1::<u8>().unwrap(), [1, 0]);
        let column = file.tensor("model.weight").unwrap().select(1, 2).unwrap();
        assert_eq!(column.to_candle(&Device::Cpu).unwrap().to_vec1::<f64>().unwrap(), [3.0, 6.0]);
    }
}

#[cfg(feature = "candle")]
#[test]
fn what_candle_cannot_have_is_refused_by_name() {
    use pt_view::Mapping;
    use pt_view::candle_core::{DType, Device, Error, Tensor};
    let (_folder, path) = layer();
    let file = Mapping::open_read(&path, &Default::default()).unwrap();
    let weights = file.var_builder(DType::F32, &Device::Cpu).pp("model");
    let text = |result: Result<Tensor, Error>| result.unwrap_err().to_string();
    let odd = text(weights.get(1, "odd"));
    assert!(
        odd.contains("tensor `model.odd` is complex64, for which candle has no type; `to_bytes`"),
        "{odd}"
    );
    let missing = text(weights.get(1, "nowhere"));
    assert!(missing.contains("model.nowhere"), "{missing}");
    let shape = text(weights.get((3, 2), "weight"));
    assert!(shape.contains("model.weight") && shape.contains("[2, 3]"), "{shape}");
}
