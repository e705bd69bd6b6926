//! Tensors as typed slices: every dtype, whole and in parts.

mod common;

use pt_format::element::*;
use pt_format::write::{self, Object, Storage, Tensor};
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

    /// The only tensor, or the last.
    fn view(&self) -> TensorView<'_> {
        let last = self.index.tensor_count() - 1;
        TensorView::new(self.index.tensor(last).unwrap(), FileBytes::new(&self.bytes))
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

/// A tensor of bytes 0, 1, 2, … in a storage of 240, of any shape, stride and offset.
fn strided(shape: &[u64], stride: &[u64], offset: u64) -> File {
    let storage = Storage::new((0..240).collect::<Vec<u8>>());
    let tensor =
        |shape, stride, offset| Tensor::strided(DType::UInt8, shape, stride, offset, &storage).unwrap();
    // What shares its storage is written as it lies; alone it would be written contiguous.
    File::of(Object::list([tensor(&[240], &[1], 0).into(), tensor(shape, stride, offset).into()]))
}

/// What a view must hold: the storage's bytes are their own offsets.
fn expected(shape: &[u64], stride: &[u64], offset: u64) -> Vec<u8> {
    match shape.split_first() {
        None => vec![offset as u8],
        Some((&size, rest)) => {
            (0..size).flat_map(|at| expected(rest, &stride[1..], offset + at * stride[0])).collect()
        }
    }
}

/// Compares a view with shape, stride and offset worked out by hand, in every way to read it.
fn same(view: &TensorView<'_>, shape: &[u64], stride: &[u64], offset: u64) {
    let expected = expected(shape, stride, offset);
    assert_eq!((view.shape(), view.stride()), (Some(shape), Some(stride)));
    assert_eq!(view.to_vec::<u8>().unwrap(), expected);
    assert_eq!(view.to_cow::<u8>().unwrap(), expected);
    assert_eq!(view.iter::<u8>().unwrap().collect::<Vec<_>>(), expected);
    assert_eq!((view.numel(), view.nbytes()), (Some(expected.len() as u64), Some(expected.len() as u64)));
    let mut copy = vec![0; expected.len()];
    view.read_into(&mut copy).unwrap();
    assert_eq!(copy, expected);
    match view.as_slice::<u8>() {
        Ok(slice) => assert!(slice == expected && view.caps().typed),
        Err(error) => {
            assert_eq!(view.caps().reason, Some(obstacle::<()>(Err(error))));
            assert!(!pt_format::geometry::is_contiguous(shape, stride));
        }
    }
    let storage = view.entry().storage().unwrap().record().unwrap();
    let place = view.locate().unwrap();
    assert_eq!(place.length, pt_format::geometry::extent(shape, stride).unwrap());
    if !expected.is_empty() {
        assert_eq!(place.offset, storage.data_offset + offset);
    }
}

#[test]
fn parts_of_parts_are_what_arithmetic_says_whatever_the_strides() {
    let cases: [(&[u64], &[u64], u64); 7] = [
        (&[4, 3, 5], &[15, 5, 1], 0),
        (&[4, 3, 5], &[15, 5, 1], 90),
        (&[5, 3, 4], &[1, 5, 15], 7),
        (&[3, 4], &[0, 2], 11),
        (&[1, 6], &[i64::MAX as u64, 1], 3),
        (&[0, 4], &[4, 1], 0),
        (&[9], &[20], 5),
    ];
    let mut parts = 0;
    for (shape, stride, offset) in cases {
        let file = strided(shape, stride, offset);
        let mut views = vec![(file.view(), shape.to_vec(), stride.to_vec(), offset)];
        for _ in 0..3 {
            for (view, shape, stride, offset) in &views {
                same(view, shape, stride, *offset);
                parts += 1;
            }
            views = views.iter().flat_map(parts_of).collect();
        }
    }
    println!("{parts} parts");
}

type Part<'a> = (TensorView<'a>, Vec<u64>, Vec<u64>, u64);

fn parts_of<'a>((view, shape, stride, offset): &Part<'a>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for dim in 0..shape.len() {
        let size = shape[dim];
        for start in [0, size / 2, size.saturating_sub(1)] {
            if start < size {
                let (mut shape, mut stride) = (shape.clone(), stride.clone());
                shape.remove(dim);
                let offset = offset + start.wrapping_mul(stride.remove(dim));
                parts.push((view.select(dim, start).unwrap(), shape, stride, offset));
            }
            let mut shape = shape.clone();
            shape[dim] = size - start;
            let skipped = if shape[dim] == 0 { 0 } else { start.wrapping_mul(stride[dim]) };
            let view = view.narrow(dim, start, size - start).unwrap();
            parts.push((view, shape, stride.clone(), offset + skipped));
        }
    }
    parts
}

#[test]
fn parts_that_are_not_there_are_refused_by_name() {
    let file = strided(&[2, 3], &[3, 1], 0);
    let view = file.view();
    let out = |dim, start, end, size| Obstacle::OutOfBounds { dim, start, end, size };
    assert_eq!(obstacle(view.row(2)), out(0, 2, 3, 2));
    assert_eq!(obstacle(view.select(1, 3)), out(1, 3, 4, 3));
    assert_eq!(obstacle(view.narrow(1, 2, 2)), out(1, 2, 4, 3));
    assert_eq!(obstacle(view.narrow(0, 3, 0)), out(0, 3, 3, 2));
    assert_eq!(obstacle(view.narrow(0, u64::MAX, u64::MAX)), out(0, u64::MAX, u64::MAX, 2));
    assert_eq!(obstacle(view.select(2, 0)), Obstacle::NoSuchDim { dim: 2, rank: 2 });
    let scalar = view.row(0).unwrap().row(0).unwrap();
    assert_eq!(scalar.shape(), Some(&[][..]));
    assert_eq!(obstacle(scalar.row(0)), Obstacle::NoSuchDim { dim: 0, rank: 0 });
    assert_eq!(obstacle(scalar.rows::<u8>()), Obstacle::NoSuchDim { dim: 0, rank: 0 });
    assert_eq!(view.row(2).unwrap_err().to_string(), "tensor `1` has 2 elements in dimension 0, not 2..3");
    let quantized = File::fixture("zip/quantized.pt");
    assert_eq!(obstacle(quantized.tensor("float_qparams").row(0)), Obstacle::Packed(DType::QUInt4x2));
}

#[test]
fn rows_are_borrowed_one_after_the_other() {
    let file = strided(&[3, 2, 2], &[4, 2, 1], 8);
    let mut rows = file.view().rows::<u8>().unwrap();
    assert_eq!((rows.len(), rows.next().unwrap()), (3, &[8, 9, 10, 11][..]));
    assert_eq!((rows.nth(1).unwrap(), rows.next()), (&[16, 17, 18, 19][..], None));
    let empty = strided(&[3, 0], &[1, 1], 0);
    let mut rows = empty.view().rows::<u8>().unwrap();
    assert_eq!((rows.len(), rows.nth(2), rows.next()), (3, Some(&[][..]), None));
    assert_eq!(strided(&[0, 3], &[3, 1], 0).view().rows::<u8>().unwrap().len(), 0);
    let columns = strided(&[2, 3], &[1, 2], 0);
    assert!(matches!(obstacle(columns.view().rows::<u8>()), Obstacle::Strided { .. }));
    assert_eq!(columns.view().row(1).unwrap().to_vec::<u8>().unwrap(), [1, 3, 5]);
}

/// Whatever the gaps, reading by position gives what memory gives.
#[test]
fn strided_parts_are_read_as_they_are_borrowed() {
    const BYTES: u64 = 3 << 20;
    let storage = Storage::new((0..BYTES).map(|at| ((at * at) >> 7) as u8).collect::<Vec<_>>());
    let tensor = |shape: &[u64], stride: &[u64], offset| {
        Object::from(Tensor::strided(DType::Int16, shape, stride, offset, &storage).unwrap())
    };
    let cases: [(&[u64], &[u64], u64); 9] = [
        (&[20, 3], &[70_000, 1], 5),
        (&[3, 20], &[1, 70_000], 5),
        (&[20, 5, 40], &[70_000, 1000, 2], 0),
        (&[7, 1000], &[200_000, 100], 11),
        (&[1_500_000], &[1], 0),
        (&[700_000], &[2], 1),
        (&[1100, 1200], &[1, 1100], 3),
        (&[40, 0, 7], &[70_000, 7, 1], 0),
        (&[5, 4, 3], &[0, 300_000, 7], 9),
    ];
    let whole = ("whole".to_owned(), tensor(&[BYTES / 2], &[1], 0));
    let parts = cases
        .iter()
        .enumerate()
        .map(|(number, (shape, stride, offset))| (number.to_string(), tensor(shape, stride, *offset)));
    let object = Object::dict(std::iter::once(whole).chain(parts).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let bytes = write::to_vec(&object).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let file = pt_view::Mapping::open_read(&path, &Default::default()).unwrap();
    for (number, (shape, ..)) in cases.iter().enumerate() {
        let read = file.tensor(&number.to_string()).unwrap();
        let lent = TensorView::new(read.entry(), FileBytes::new(&bytes));
        assert_eq!(read.shape(), Some(*shape));
        assert!(read.to_vec::<i16>().unwrap() == lent.to_vec::<i16>().unwrap(), "{number}");
    }
}

#[test]
fn views_stay_small() {
    assert!(size_of::<TensorView<'_>>() <= 128, "{}", size_of::<TensorView<'_>>());
}
