//! Each refusal names the tensor and a way around it, and that way works.

mod common;

use std::path::Path;

use pt_format::element::Complex;
use pt_format::write::{self, Object, Options, Storage, Tensor};
use pt_format::{Checkpoint, DType, Limits};
use pt_index::Index;
use pt_view::{Error, FileBytes, Mapping, Obstacle, TensorView};

/// A file in memory with its index.
struct File {
    bytes: Vec<u8>,
    index: Index,
}

impl File {
    fn of(tensor: Object<'_>, options: &Options) -> Self {
        let mut bytes = Vec::new();
        let out = std::io::Cursor::new(&mut bytes);
        write::write(out, &Object::dict([("x", tensor)]), options).unwrap();
        let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default()).unwrap()).unwrap();
        Self { bytes, index }
    }

    fn tensor(&self) -> TensorView<'_> {
        TensorView::new(self.index.find_tensor("x").unwrap(), FileBytes::new(&self.bytes))
    }
}

fn fixture(name: &str) -> Mapping {
    Mapping::open_read(common::root().join("testdata/fixtures").join(name), &Default::default()).unwrap()
}

/// The fixture's bytes in memory, where they could be lent.
fn lent(name: &str) -> File {
    let path = common::root().join("testdata/fixtures").join(name);
    File {
        bytes: std::fs::read(&path).unwrap(),
        index: pt_index::build_file(&path, &Limits::default()).unwrap(),
    }
}

/// Takes the refusal apart, and makes sure that it names the tensor and these ways around it.
fn refused<T>(result: pt_view::Result<T>, tensor: &str, ways: &[&str]) -> Obstacle {
    let error = result.err().expect("is refused");
    let text = error.to_string();
    assert!(text.starts_with(&format!("tensor `{tensor}` ")), "{text}");
    for way in ways {
        assert!(text.contains(&format!("`{way}`")), "{text}: no `{way}`");
    }
    match error {
        Error::Refused { obstacle, .. } => obstacle,
        other => panic!("{other}"),
    }
}

#[test]
fn bytes_that_are_not_the_values_are_copied_on_request() {
    let big = lent("zip/big_endian.pt");
    let views = |file: &File, wanted: fn(&Obstacle) -> bool| -> Vec<(String, usize)> {
        let tensors = (0..file.index.tensor_count()).map(|number| file.index.tensor(number).unwrap());
        let of = tensors.map(|entry| (entry.row(), TensorView::new(entry, FileBytes::new(&file.bytes))));
        of.filter(|(_, view)| view.caps().reason.as_ref().is_some_and(wanted))
            .map(|(row, view)| (view.name().to_owned(), row))
            .collect()
    };
    /// Whether an obstacle is the one looked for, and what its message must name.
    type Kind<'f> = (&'f File, fn(&Obstacle) -> bool, &'f [&'f str]);
    let kinds: [Kind<'_>; 4] = [
        (&big, |found| *found == Obstacle::ForeignEndian, &["to_cow", "read_into"]),
        (&lent("zip/deflate.pt"), |found| *found == Obstacle::Compressed, &["to_cow", "read_into"]),
        (&lent("zip/conj_neg.pt"), |found| matches!(found, Obstacle::LazyBit(_)), &["to_cow", "read_into"]),
        (
            &lent("zip/channels_last.pt"),
            |found| matches!(found, Obstacle::Strided { .. }),
            &["iter", "to_cow"],
        ),
    ];
    for (file, wanted, ways) in kinds {
        let found = views(file, wanted);
        assert!(!found.is_empty());
        for (name, row) in found {
            let view = TensorView::new(file.index.tensor(row).unwrap(), FileBytes::new(&file.bytes));
            assert!(wanted(&refused(view.as_bytes(), &name, ways)));
            let copy = view.to_bytes().unwrap();
            let mut read = vec![0; copy.len()];
            view.read_into(&mut read).unwrap();
            assert_eq!(copy, read);
            if view.dtype() == Some(DType::Float32) {
                assert!(wanted(&refused(view.as_slice::<f32>(), &name, ways)));
                assert_eq!(view.to_cow::<f32>().unwrap().len() as u64, view.numel().unwrap());
            }
            if view.dtype() == Some(DType::Complex64) {
                assert!(wanted(&refused(view.as_slice::<Complex<f32>>(), &name, ways)));
            }
        }
    }
}

#[test]
fn another_type_misplaced_or_no_bool_has_a_way_too() {
    let file = File::of(Tensor::new::<i32>(&[2], &[1, 2]).unwrap().into(), &Options::default());
    let wrong = refused(file.tensor().as_slice::<f32>(), "x", &["pt_format::element", "as_bytes"]);
    assert_eq!(wrong, Obstacle::WrongType { dtype: DType::Int32, asked: DType::Float32 });
    assert_eq!(file.tensor().as_bytes().unwrap().len(), 8);

    let file =
        File::of(Tensor::from_bytes(DType::Bool, &[2], vec![1, 7]).unwrap().into(), &Options::default());
    let no_bool = refused(file.tensor().as_slice::<bool>(), "x", &["as_bytes"]);
    assert_eq!(no_bool, Obstacle::NotBool { element: 1, value: 7 });
    assert_eq!(file.tensor().as_bytes().unwrap(), [1, 7]);

    // At an odd place in memory, whatever the file's own alignment.
    let file = File::of(Tensor::new::<i64>(&[2], &[3, 4]).unwrap().into(), &Options::default());
    let mut shifted = vec![0; file.bytes.len() + 16];
    let at = (0..8).find(|at| shifted[*at..].as_ptr() as usize % 8 == 1).unwrap();
    shifted[at..at + file.bytes.len()].copy_from_slice(&file.bytes);
    let bytes = FileBytes::new(&shifted[at..at + file.bytes.len()]);
    let view = TensorView::new(file.index.find_tensor("x").unwrap(), bytes);
    let misaligned = refused(view.as_slice::<i64>(), "x", &["to_cow", "iter"]);
    assert_eq!(misaligned, Obstacle::Misaligned { found: 1, needs: 8 });
    assert_eq!(view.to_cow::<i64>().unwrap()[..], [3, 4]);
    assert_eq!(view.iter::<i64>().unwrap().collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn what_is_read_shared_or_huge_has_a_way_too() {
    let quantized = fixture("zip/quantized.pt");
    let packed = quantized.tensor("float_qparams").unwrap();
    assert_eq!(
        refused(packed.to_bytes(), "float_qparams", &["packed_bytes"]),
        Obstacle::Packed(DType::QUInt4x2)
    );
    let in_memory = lent("zip/quantized.pt");
    let view = TensorView::new(
        in_memory.index.find_tensor("float_qparams").unwrap(),
        FileBytes::new(&in_memory.bytes),
    );
    assert_eq!(view.packed_bytes().unwrap().len(), 4);

    let file = fixture("zip/state_dict.pt");
    let read =
        file.tensors().find(|tensor| tensor.caps().typed && tensor.dtype() == Some(DType::Float32)).unwrap();
    assert_eq!(refused(read.as_slice::<f32>(), read.name(), &["to_vec", "read_into"]), Obstacle::NotMapped);
    assert_eq!(read.to_vec::<f32>().unwrap().len() as u64, read.numel().unwrap());

    // Alone it would be written contiguous.
    let storage = Storage::new(vec![1, 2]);
    let part = Tensor::strided(DType::UInt8, &[1 << 40, 2], &[0, 1], 0, &storage).unwrap();
    let whole = Tensor::strided(DType::UInt8, &[2], &[1], 0, &storage).unwrap();
    let object = Object::dict([("whole", whole.into()), ("x", part.into())]);
    let bytes = write::to_vec(&object).unwrap();
    let index = pt_index::index_of(&Checkpoint::parse(&bytes, &Limits::default()).unwrap()).unwrap();
    let view = TensorView::new(index.find_tensor("x").unwrap(), FileBytes::new(&bytes));
    assert!(matches!(refused(view.to_vec::<u8>(), "x", &["iter"]), Obstacle::TooLarge(_)));
    assert_eq!(view.iter::<u8>().unwrap().take(3).collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn what_has_no_way_around_says_what_is_wrong() {
    let says = |obstacle: Obstacle, words: &str| {
        let text = Error::Refused { tensor: "x".into(), obstacle }.to_string();
        assert!(text.starts_with("tensor `x` ") && text.contains(words), "{text}");
    };
    says(
        Obstacle::OutsideFile { start: 5, end: 9, length: 7 },
        "bytes 5..9 of a file of 7; the file was cut off",
    );
    says(Obstacle::NoSuchDim { dim: 2, rank: 1 }, "1 dimensions");
    says(Obstacle::OutOfBounds { dim: 0, start: 1, end: 9, size: 3 }, "3 elements in dimension 0, not 1..9");
    says(Obstacle::BufferLength { needs: 8, has: 4 }, "buffer of 8 bytes, got 4");
    says(Obstacle::NoData("it is a meta tensor"), "it is a meta tensor");
    says(Obstacle::Read("input/output error".into()), "input/output error");

    let meta = fixture("zip/meta.pt");
    let without = meta.tensors().find(|tensor| !tensor.caps().typed).unwrap();
    assert!(matches!(refused(without.to_bytes(), without.name(), &[]), Obstacle::NoData(_)));
    let sparse = fixture("zip/sparse_coo.pt");
    let composite = sparse.tensors().find(|tensor| tensor.entry().storage().is_none()).unwrap();
    let text = composite.to_bytes().unwrap_err().to_string();
    assert!(text.contains("its parts are listed below its name"), "{text}");
    let part = format!("{}.", composite.name());
    assert!(sparse.tensors().any(|tensor| tensor.name().starts_with(part.trim_start_matches('.'))));
    assert!(Path::new(sparse.path()).exists());
}
