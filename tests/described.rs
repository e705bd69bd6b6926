//! Containers whose tensors are described in JSON: safetensors, and TorchScript of torch 1.0.

mod common;

use pt_format::{Checkpoint, Container, DType, Error, Limits};
use serde_json::{Value as Json, json};

use crate::common::{Opened, fixtures, torch_like};

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn a_safetensors_file_has_views_like_any_other() {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
        "empty": {"dtype": "I64", "shape": [0, 3], "data_offsets": [10, 10]},
    });
    let data = [&1f32.to_le_bytes()[..], &2f32.to_le_bytes(), &[0x80, 0x3F]].concat();
    let file = safetensors(&header.to_string(), &data);
    let opened = Opened::new(&file).unwrap();
    assert_eq!(opened.checkpoint.container(), Container::Safetensors);
    let described: Vec<_> =
        opened.tensors().map(|(t, _)| (t.name(), t.dtype(), t.shape().unwrap())).collect();
    let expected: [(&str, Option<DType>, &[u64]); 3] = [
        ("a.weight", Some(DType::Float32), &[2, 1]),
        ("b", Some(DType::BFloat16), &[]),
        ("empty", Some(DType::Int64), &[0, 3]),
    ];
    assert_eq!(described, expected);
    let bytes: Vec<_> = opened.tensors().map(|(_, view)| view.to_bytes().unwrap()).collect();
    assert_eq!(bytes.concat(), data);
    let format = opened.checkpoint.values().path(["__metadata__", "format"]).unwrap();
    assert_eq!(format.as_str(), Some("pt"));
}

#[test]
fn one_odd_safetensors_entry_does_not_fail_the_file() {
    let header = json!({
        "fine": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "new": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]},
        "long": {"dtype": "U8", "shape": [4], "data_offsets": [0, 3]},
        "negative": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]},
    });
    let file = safetensors(&header.to_string(), &[1, 2, 3]);
    let opened = Opened::new(&file).unwrap();
    let faults: Vec<_> = opened.tensors().map(|(t, _)| t.fault().map(ToString::to_string)).collect();
    println!("{faults:#?}");
    assert_eq!(faults.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
}

#[test]
fn malformed_descriptions_are_refused() {
    for header in [
        "{ ",
        "{\"a\": 1}",
        "{\"a\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [0, 9]}}",
        "{\"a\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [2, 1]}}",
        "{\"a\": {\"dtype\": \"U8\", \"shape\": [0], \"data_offsets\": [0, 0]}, \"a\": {\"dtype\": \"U8\", \"shape\": [0], \"data_offsets\": [0, 0]}}",
        "{\"__metadata__\": {\"n\": 1}}",
    ] {
        let file = safetensors(header, b"x");
        let error = Checkpoint::parse(&file, &Limits::default()).unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Record { .. }), "{error}");
    }
}

#[test]
fn torchscript_of_torch_1_0_is_read_from_its_model_json() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == "ts/v1_modeljson.pt").unwrap();
    let bytes = fixture.bytes();
    let opened = Opened::new(&bytes).unwrap();
    let found: Vec<Json> = opened
        .tensors()
        .map(|(tensor, view)| {
            json!({
                "name": tensor.name(),
                "dtype": tensor.dtype().unwrap().name(),
                "shape": tensor.shape(),
                "stride": tensor.stride(),
                "storage_offset": tensor.storage_offset(),
                "requires_grad": tensor.requires_grad(),
                "data_offset": view.locate().unwrap().offset,
            })
        })
        .collect();
    assert_eq!(Json::Array(found), fixture.entry["tensors"]);
}

#[test]
fn weights_beside_compiled_code_have_faults_of_their_own() {
    let fixture = fixtures().into_iter().find(|fixture| fixture.name == "pkg/compiled_broken.pt2").unwrap();
    let bytes = fixture.bytes();
    let opened = Opened::new(&bytes).unwrap();
    let found: Vec<_> = opened
        .tensors()
        .map(|(tensor, _)| (tensor.name(), tensor.dtype(), tensor.fault().map(ToString::to_string)))
        .collect();
    println!("{found:#?}");
    let float = Some(DType::Float32);
    let cut = |found: &Option<String>| found.as_ref().is_some_and(|fault| fault.contains("weights/cut"));
    let [fine, missing, cut_first, empty, cut_again, value, beside] = &found[..] else {
        panic!("{}", found.len())
    };
    assert_eq!(fine, &("AOTINDUCTOR.fine", float, None));
    assert_eq!(beside, &("AOTINDUCTOR.beside", float, None));
    assert!(missing.2.as_ref().unwrap().contains("no record `package/data/weights/missing`"));
    assert!(empty.2.as_ref().unwrap().ends_with("it is empty"));
    assert!(value.2.as_ref().unwrap().ends_with("something else than a tensor"));
    assert!(cut(&cut_first.2) && cut(&cut_again.2));
    // The dtype would be in the file; the shape is not.
    assert!(found.iter().all(|(_, dtype, fault)| dtype.is_none() == fault.is_some()));
    let shapes = opened.tensors().map(|(tensor, _)| tensor.shape().unwrap().to_vec());
    assert!(shapes.into_iter().all(|shape| shape == [2]));
}

#[test]
fn malformed_descriptions_of_compiled_weights_are_refused() {
    for config in ["[]", "{\"a\": 1}", "{\"a\": [\"weight_0\", [1], [1]]}", "{\"a\": [\"f\", [1.5], [1], 0]}"]
    {
        let members = [
            ("archive_format", &b"pt2"[..]),
            ("data/aotinductor/model/weights_config.json", config.as_bytes()),
        ];
        let file = torch_like("package", &members);
        let error = Checkpoint::parse(&file, &Limits::default()).unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Record { .. }), "{error}");
    }
}
