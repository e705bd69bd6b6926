//! The plan of a distributed checkpoint against what torch itself says is stored where, and its items as files of their
//! own.

mod common;

use std::fs;

use pt_format::{Checkpoint, Limits, Window, distributed::Metadata};
use serde_json::{Value as Json, json};

use crate::common::{fixtures, sha256};

#[test]
fn items_of_a_distributed_checkpoint_are_where_torch_says() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.text("container") == "dcp").unwrap();
    let metadata = Metadata::parse(&fixture.bytes(), &Limits::default()).unwrap();
    let entries = fixture.entry["entries"].as_array().unwrap();
    assert_eq!(metadata.items.len(), entries.len());
    for (item, expected) in metadata.items.iter().zip(entries) {
        assert_eq!(json!(&*item.fqn), expected["fqn"]);
        assert_eq!(json!(item.offsets), expected["offset"]);
        assert_eq!(json!(&*item.file), expected["file"]);
        assert_eq!(json!([item.offset, item.length]), json!([expected["entry_offset"], expected["length"]]));

        let file = fs::read(fixture.path().join(&*item.file)).unwrap();
        let window = Window::new(&file, item.offset, item.length).unwrap();
        let checkpoint = Checkpoint::parse(&window, &Limits::default()).unwrap();
        let tensors = expected["tensors"].as_array().unwrap();
        assert_eq!(checkpoint.tensors().len(), tensors.len());
        for (tensor, expected) in checkpoint.tensors().zip(tensors) {
            let record = tensor.storage().unwrap().record().unwrap();
            record.verify(&window).unwrap();
            let start = (item.offset + record.data_offset) as usize;
            assert_eq!(json!(start), expected["data_offset"]);
            assert_eq!(json!(sha256(&file[start..start + record.bytes as usize])), expected["sha256"]);
        }
    }

    let planned: Json = metadata
        .entries
        .iter()
        .map(|entry| {
            (entry.fqn.to_string(), json!(entry.path.iter().map(|part| &**part).collect::<Vec<_>>()))
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(planned, fixture.entry["planner_data"]);
}
