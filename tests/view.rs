//! Tensors as typed slices: every dtype, whole and in parts.

mod common;

use pt_format::element::*;
use pt_format::write::{self, Object, Tensor};
use pt_format::{Checkpoint, DType, Element, Limits};
use pt_index::Index;
use pt_view::{Error, FileBytes, Obstacle, TensorView};

/// A file in memory with its index.
struct File {
    bytes: Vec<u8>,
    index: Index,
}

impl File {
    fn fixture(name: &str) -> Self {
        let path = common::root().join("testdata/fixtures").join(name);
        Self {
            bytes: std::fs::read(&path).unwrap(),
            index: pt_index::build_file(&path, &Limits::default()).unwrap(),
        }
    }

    fn tensor(&self, name: &str) -> TensorView<'_> {
        TensorView::new(self.index.find_tensor(name).unwrap(), FileBytes::new(&self.bytes))
    }

    fn of(object: impl Into<Object<'static>>) -> Self {
        let bytes = write::to_vec(&object.into()).unwrap();
        let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default()).unwrap()).unwrap();
        Self { bytes, index }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.index.tensor(0).unwrap(), FileBytes::new(&self.bytes))
    }
}

fn obstacle<T>(result: pt_view::Result<T>) -> Obstacle {
    match result.err().expect("is refused") {
        Error::Refused { obstacle, .. } => obstacle,
        other => panic!("{other}"),
    }
}

/// Writes six elements of any bits and reads them back in every way; returns the dtype.
fn check<T: Element + PartialEq + std::fmt::Debug>() -> DType {
    let size = size_of::<T>();
    // No byte that makes a float not-a-number, which would not be equal to itself; for bool 0 and 1 alone.
    let bytes: Vec<u8> =
        (0..6 * size).map(|at| if T::DTYPE == DType::Bool { at as u8 % 2 } else { at as u8 }).collect();
    let file = File::of(Tensor::from_bytes(T::DTYPE, &[2, 3], bytes.clone()).unwrap());
    let view = file.view();
    let slice = view.as_slice::<T>().unwrap();
    assert_eq!(slice.len(), 6, "{}", T::DTYPE);
    assert_eq!(bytemuck::cast_slice::<T, u8>(slice), bytes);
    assert_eq!(view.to_vec::<T>().unwrap(), slice);
    assert_eq!(view.iter::<T>().unwrap().collect::<Vec<_>>(), slice);
    assert!(view.caps().typed, "{:?}", view.caps());
    T::DTYPE
}

macro_rules! check_all {
    ($($type:ty),* $(,)?) => { vec![$(check::<$type>()),*] };
}

#[test]
fn every_dtype_is_lent_as_its_rust_type() {
    let mut types = check_all![
        u8,
        u16,
        u32,
        u64,
        i8,
        i16,
        i32,
        i64,
        f32,
        f64,
        half::f16,
        half::bf16,
        bool,
        Complex<f32>,
        Complex<f64>,
        Complex<half::f16>,
        Complex<half::bf16>,
        Float8E4M3Fn,
        Float8E5M2,
        Float8E4M3FnUz,
        Float8E5M2FnUz,
        Float8E8M0Fnu,
        Float4E2M1FnX2,
        Bits8,
        Bits16,
        Bits1x8,
        Bits2x4,
        Bits4x2,
    ];
    let quantized = File::fixture("zip/quantized.pt");
    assert_eq!(quantized.tensor("qint8").as_slice::<QInt8>().unwrap().len(), 6);
    assert_eq!(quantized.tensor("quint8").as_slice::<QUInt8>().unwrap().len(), 6);
    assert_eq!(quantized.tensor("qint32").to_vec::<QInt32>().unwrap().len(), 6);
    types.extend([DType::QInt8, DType::QUInt8, DType::QInt32]);
    let rest: Vec<DType> = DType::all().filter(|dtype| !types.contains(dtype)).collect();
    assert_eq!(rest, [DType::QUInt4x2, DType::QUInt2x4]);
}

#[test]
fn types_are_not_taken_for_each_other() {
    let file = File::of(Tensor::from_bytes(DType::Float8E5M2, &[2], vec![1, 2]).unwrap());
    let wrong = file.view().as_slice::<Float8E4M3Fn>().unwrap_err().to_string();
    assert_eq!(
        wrong,
        "the tensor at the root is float8_e5m2, not float8_e4m3fn; ask for the type of float8_e5m2 (see \
         `pt_format::element`), or use `as_bytes`"
    );
    let file = File::of(Tensor::from_bytes(DType::Bool, &[3], vec![0, 1, 2]).unwrap());
    assert_eq!(obstacle(file.view().as_slice::<bool>()), Obstacle::NotBool { element: 2, value: 2 });
    assert_eq!(obstacle(file.view().to_vec::<bool>()), Obstacle::NotBool { element: 2, value: 2 });
}

#[test]
fn elements_that_share_bytes_are_refused_with_the_way_to_them() {
    let file = File::fixture("zip/quantized.pt");
    let view = file.tensor("float_qparams");
    for refused in
        [obstacle(view.as_slice::<u8>()), obstacle(view.to_vec::<u8>()), obstacle(view.iter::<u8>())]
    {
        assert_eq!(refused, Obstacle::Packed(DType::QUInt4x2));
        assert!(refused.to_string().contains("`packed_bytes`"));
    }
    assert_eq!(view.packed_bytes().unwrap().len(), 4); // two rows of four elements, two in a byte
}
