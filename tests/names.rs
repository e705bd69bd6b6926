//! Archive names of every length, and numbers of tensors around every limit of the formats.
//!
//! The `zip` crate 9 refuses torch archives whose name has 21 characters, because it guesses where the directory starts.

mod common;

use std::io::Cursor;
use std::time::Instant;

use pt_format::write::{self, Object, Options, Storage, Tensor};
use pt_format::{Archive, Checkpoint, DType, Limits};
use pt_view::{FileBytes, TensorView};
use zip::ZipArchive;

use crate::common::torch_like;

#[test]
fn names_of_our_writer_are_read_by_all() {
    for length in 1..=64 {
        let root = "n".repeat(length);
        let object = Object::dict([("w", Tensor::new::<f32>(&[2], &[1.5, -2.5]).unwrap().into())]);
        let out =
            write::write(Cursor::new(Vec::new()), &object, &Options::default().root(root.clone())).unwrap();
        let bytes = out.into_inner();
        check_weight(&bytes, &root);
        let mut archive = ZipArchive::new(Cursor::new(&bytes)).unwrap();
        assert_eq!(archive.len(), 6);
        assert_eq!(archive.by_name(&format!("{root}/data/0")).unwrap().size(), 8);
    }
}

#[test]
fn names_of_torch_archives_are_read() {
    let object = Object::dict([("w", Tensor::new::<f32>(&[2], &[1.5, -2.5]).unwrap().into())]);
    let written = write::to_vec(&object).unwrap();
    let archive = Archive::parse(&written).unwrap();
    let pickle = archive.read_record(archive.find(b"archive/data.pkl").unwrap(), 1 << 20).unwrap();
    let data = [1.5f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat();

    let mut refused_by_zip = Vec::new();
    for length in 1..=64 {
        let root = "n".repeat(length);
        let bytes = torch_like(&root, &[("data.pkl", &pickle), ("data/0", &data), ("version", b"3\n")]);
        check_weight(&bytes, &root);
        if ZipArchive::new(Cursor::new(&bytes)).is_err() {
            refused_by_zip.push(length);
        }
    }
    println!("64 names; the zip crate refuses those of {refused_by_zip:?} characters");
}

fn check_weight(bytes: &Vec<u8>, root: &str) {
    assert_eq!(Archive::parse(bytes).unwrap().root(), root.as_bytes());
    let checkpoint = Checkpoint::parse(bytes, &Limits::default()).unwrap();
    checkpoint.check().unwrap();
    let index = pt_index::index_of(&checkpoint).unwrap();
    let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(bytes));
    assert_eq!(view.to_vec::<f32>().unwrap(), [1.5, -2.5], "{root}");
    assert_eq!(view.locate().unwrap().offset % 64, 0);
}

/// Batches of the pickler end at 1,000; record counts outgrow 16 bits.
#[test]
fn any_number_of_tensors_is_read() {
    for count in [1, 999, 1000, 1001, 65_535, 100_000] {
        let start = Instant::now();
        let name = |number: usize| format!("layers.{number}.weight");
        let values: Vec<u32> = (0..count as u32).collect();
        let object = Object::dict((0..count).map(|number| {
            (name(number), Tensor::new::<u32>(&[1], &values[number..=number]).unwrap().into())
        }));
        let bytes = write::to_vec(&object).unwrap();
        let written = start.elapsed();

        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        assert_eq!((checkpoint.tensors().len(), checkpoint.storages().len()), (count, count));
        let index = pt_index::index_of(&checkpoint).unwrap();
        let file = index.file(0).unwrap();
        let mut before = 0;
        for (number, entry) in file.tensors().enumerate() {
            assert_eq!(entry.name(), name(number));
            let location = TensorView::new(entry, FileBytes::new(&bytes)).locate().unwrap();
            assert!(location.offset > before && location.offset.is_multiple_of(64));
            assert_eq!(bytes[location.offset as usize..][..4], (number as u32).to_le_bytes());
            before = location.offset;
        }
        for number in [0, count / 2, count - 1] {
            assert_eq!(file.tensor(&name(number)).unwrap().row(), number);
        }
        assert!(file.tensor(&name(count)).is_none());
        println!("{count} tensors: written in {written:?}, all in {:?}", start.elapsed());
    }
}

/// One storage under many tensors stays one record.
#[test]
fn a_shared_storage_is_one_record() {
    let storage = Storage::new((0u8..200).collect::<Vec<_>>());
    let views = (0..200).map(|at| Tensor::strided(DType::UInt8, &[1], &[1], at, &storage).unwrap().into());
    let bytes = write::to_vec(&Object::list(views)).unwrap();
    let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
    assert_eq!((checkpoint.tensors().len(), checkpoint.storages().len()), (200, 1));
    assert!(checkpoint.tensors().enumerate().all(|(at, tensor)| tensor.storage_offset() == at as u64));
}
