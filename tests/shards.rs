//! Checkpoints split over several files, with an index of shards beside them.

mod common;

use std::fs;
use std::path::Path;

use pt_format::write::{self, Object, Tensor};
use pt_index::{Error, FileSource, build_shards};
use pt_view::{CheckedRecords, FileBytes, TensorView};
use serde_json::json;

use crate::common::{fixtures, sha256};

#[test]
fn the_tensors_of_all_shards_are_found_by_name() {
    let name = "pkg/hf/pytorch_model.bin.index.json";
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == name).unwrap();
    let index = build_shards(&fixture.path(), &Default::default()).unwrap();
    let weight_map = fixture.entry["weight_map"].as_object().unwrap();
    assert_eq!(index.tensor_count(), weight_map.len());
    for (name, file) in weight_map {
        let entry = index.find_tensor(name).unwrap();
        assert_eq!(entry.file().path(), file.as_str().unwrap());
        let source = FileSource::open(&fixture.path().with_file_name(file.as_str().unwrap())).unwrap();
        let checked = CheckedRecords::new(index.storage_count());
        let bytes = TensorView::new(entry, FileBytes::read(&source, &checked)).to_bytes().unwrap();
        let expected = fixture.entry["shards"][file.as_str().unwrap()].as_array().unwrap();
        let expected = expected.iter().find(|tensor| tensor["name"] == **name).unwrap();
        assert_eq!(expected["sha256"], sha256(&bytes));
    }
}

#[test]
fn indexes_that_name_other_files_or_promise_too_much_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let object = Object::dict([("a", Tensor::new::<u8>(&[1], &[1]).unwrap().into())]);
    fs::write(folder.path().join("1.bin"), write::to_vec(&object).unwrap()).unwrap();
    let path = folder.path().join("model.bin.index.json");
    let build = |json: &str| {
        fs::write(&path, json).unwrap();
        build_shards(&path, &Default::default())
    };
    assert_eq!(build(r#"{"weight_map": {"a": "1.bin"}}"#).unwrap().tensor_count(), 1);
    for file in ["../1.bin", "/etc/passwd", "a/b", "..", "", "a\\b"] {
        let error = build(&json!({"weight_map": {"a": file}}).to_string()).unwrap_err();
        assert!(matches!(error, Error::Shards { .. }), "{file}: {error}");
    }
    for json in ["", "[]", "{}", r#"{"weight_map": {"b": "1.bin"}}"#] {
        let error = build(json).unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Shards { .. }), "{json}: {error}");
    }
    let error = build(r#"{"weight_map": {"a": "missing.bin"}}"#).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(Path::new("missing.bin"))), "{error}");
}
