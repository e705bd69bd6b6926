//! Checkpoints split over several files, with an index of shards beside them.

mod common;

use std::fs;
use std::path::Path;

use pt_format::write::{self, Object, Tensor};
use pt_index::{Error, FileSource, Freshness, Leaf, build_distributed, build_shards};
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
fn an_index_of_shards_is_kept_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        fixtures().into_iter().find(|fixture| fixture.name == "pkg/hf/pytorch_model.bin.index.json").unwrap();
    for entry in fs::read_dir(source.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("pytorch_model.bin.index.json");
    for arguments in [&["index"][..], &["verify", "--deep"], &["index", "--refresh"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ptview"));
        let output = command.args(arguments).arg(&path).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_folder_of_a_distributed_checkpoint_is_one_checkpoint() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == "pkg/dcp").unwrap();
    let index = build_distributed(&fixture.path(), &Default::default()).unwrap();
    index.verify().unwrap();
    let (mut tensors, mut scalars) = (0, 0);
    for entry in fixture.entry["entries"].as_array().unwrap() {
        let name = entry["fqn"].as_str().unwrap();
        let file = index.find_file(entry["file"].as_str().unwrap()).unwrap();
        if let Some(value) = entry["value"]["v"].as_str() {
            assert_eq!(file.leaf(name), Some(Leaf::Int(value.parse().unwrap())));
            scalars += 1;
            continue;
        }
        let expected = &entry["tensors"][0];
        let tensor = index.find_tensor(name).unwrap();
        assert_eq!(json!(tensor.path()), fixture.entry["planner_data"][name]);
        assert_eq!(json!(tensor.shape()), expected["shape"]);
        assert_eq!(json!(tensor.dtype().unwrap().name()), expected["dtype"]);
        let source = FileSource::open(&fixture.path().join(file.path())).unwrap();
        let checked = CheckedRecords::new(index.storage_count());
        let view = TensorView::new(tensor, FileBytes::read(&source, &checked));
        assert_eq!(expected["sha256"], sha256(&view.to_bytes().unwrap()));
        assert_eq!(json!(view.locate().unwrap().offset), expected["data_offset"]);
        assert_eq!(json!(view.caps().zero_copy), expected["zero_copy"]);
        tensors += 1;
    }
    assert_eq!((tensors, scalars), (3, 1));
    let ptview = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ptview"));
        let output = command.args(arguments).arg(fixture.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (listed, said) = ptview(&["ls"]);
    assert!(listed && said.contains("nested.x") && said.contains("3 tensors"), "{said}");
    for file in index.files() {
        assert_eq!(file.freshness(&fixture.path().join(file.path())).unwrap(), Freshness::Fresh);
    }
}

#[test]
fn a_distributed_checkpoint_lists_what_it_cannot_read() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == "pkg/dcp").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture.path().join(".metadata"), folder.path().join(".metadata")).unwrap();
    let whole = fs::read(fixture.path().join("__0_0.distcp")).unwrap();
    // Cut off inside the last item, and one before it damaged.
    let mut bytes = whole[..whole.len() - 300].to_vec();
    bytes[2838..2848].fill(0);
    fs::write(folder.path().join("__0_0.distcp"), bytes).unwrap();
    let index = build_distributed(folder.path(), &Default::default()).unwrap();
    index.verify().unwrap();
    let kept = pt_index::sidecar_path(folder.path());
    pt_index::save(&index, &kept).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ptview"))
        .args(["verify", "--deep", folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.contains("2 fresh") && said.contains("2 problems"), "{said}");
    assert!(complained.contains("`l.0`") && complained.contains("`nested.x`"), "{complained}");
    assert_eq!(index.find_tensor("w").unwrap().fault(), None);
    for (name, words) in [("l.0", "run past the end"), ("nested.x", "cannot be read")] {
        let tensor = index.find_tensor(name).unwrap();
        let fault = tensor.fault().unwrap();
        println!("{name}: {fault}");
        assert!(fault.contains(words), "{fault}");
        assert!(tensor.shape().is_some() && tensor.dtype().is_some());
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
