//! Files of other projects, as they lie about in the world, against what real torch says of them.
//!
//! They are not part of the project: the folder beside the checkout, or `PTVIEW_CORPUS`, holds them and their
//! `MANIFEST.json`. Without it this test passes and says that it was skipped.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use pt_format::{Flags, Quantizer, Tensor};
use pt_view::TensorView;
use serde_json::{Value as Json, json};

use crate::common::{Opened, root, sha256};

fn corpus() -> Option<PathBuf> {
    let folder = match std::env::var_os("PTVIEW_CORPUS") {
        Some(folder) => PathBuf::from(folder),
        None => root().join("../shared/corpus"),
    };
    folder.join("MANIFEST.json").exists().then_some(folder)
}

#[test]
fn real_files_are_read_as_torch_reads_them() {
    let Some(folder) = corpus() else { return println!("skipped: no corpus") };
    let manifest: Json =
        serde_json::from_str(&fs::read_to_string(folder.join("MANIFEST.json")).unwrap()).unwrap();
    let (mut files, mut refused, mut compared, mut more, mut arrays) = (0, 0, 0, 0, 0);
    let mut wrong = Vec::new();
    for entry in manifest["files"].as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let bytes = fs::read(folder.join(name)).unwrap();
        assert_eq!(sha256(&bytes), entry["sha256"], "{name} is not the file the manifest speaks of");
        match (Opened::new(&bytes), entry["expect"].as_str().unwrap()) {
            (Ok(opened), "tensors" | "no-tensors") => {
                let expected = with_constants(entry);
                let found = compare(&opened, &expected, &mut |what| wrong.push(format!("{name}: {what}")));
                arrays += compare_arrays(&opened, entry, &mut |what| wrong.push(format!("{name}: {what}")));
                compared += expected.len();
                more += found - expected.len().min(found);
                files += 1;
            }
            (Err(error), "error") => {
                println!("{name} is refused: {error}");
                refused += 1;
            }
            (opened, expect) => wrong.push(format!("{name}: {:?}, expected {expect}", opened.err())),
        }
    }
    println!(
        "{compared} tensors and {arrays} arrays of {files} files, {more} more under other names; {refused} refused"
    );
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// The constants of TorchScript code are listed apart in the manifest, by their number.
fn with_constants(entry: &Json) -> Vec<Json> {
    let mut expected = entry["tensors"].as_array().unwrap().clone();
    for constant in entry["constants"].as_array().into_iter().flatten() {
        let mut constant = constant.clone();
        constant["name"] = format!("CONSTANTS.c{}", constant["name"].as_str().unwrap()).into();
        // Numbered apart from the others' storages.
        constant["storage_id"] = Json::Null;
        expected.push(constant);
    }
    expected
}

/// Compares the tensors of a file with the manifest's; returns how many there are.
fn compare(opened: &Opened<'_>, expected: &[Json], wrong: &mut dyn FnMut(String)) -> usize {
    let mut by_name: HashMap<String, Vec<(Tensor<'_>, TensorView<'_>)>> = HashMap::new();
    let is_compared = |tensor: &Tensor<'_>| {
        !tensor.flags().contains(Flags::NUMPY)
            && tensor.path().first().is_none_or(|first| first != "TRACED_INPUTS")
    };
    for (tensor, view) in opened.tensors().filter(|(tensor, _)| is_compared(tensor)) {
        by_name.entry(without_tuple(&tensor.path().join("."))).or_default().push((tensor, view));
    }
    let found = by_name.values().map(Vec::len).sum();

    let mut storage_ids = (HashMap::new(), HashMap::new());
    for expected in expected {
        let name = expected["name"].as_str().unwrap();
        let same_name = by_name.get_mut(&without_tuple(name)).filter(|same| !same.is_empty());
        let Some((tensor, view)) = same_name.map(|same| same.remove(0)) else {
            wrong(format!("`{name}` is not found"));
            continue;
        };
        for (field, found) in describe(tensor, view) {
            let expected = &expected[field];
            if !expected.is_null() && found != *expected {
                wrong(format!("`{name}`: {field} is {found}, expected {expected}"));
            }
        }
        let alias_of = tensor.alias_of().map(|first| without_tuple(&first.path().join(".")));
        if alias_of != expected["alias_of"].as_str().map(without_tuple) {
            wrong(format!("`{name}`: alias of {alias_of:?}, expected {}", expected["alias_of"]));
        }
        if let (Some(id), Some(storage)) = (expected["storage_id"].as_u64(), tensor.storage()) {
            // The same id is the same storage, and another id another.
            let index = *storage_ids.0.entry(id).or_insert(storage.index());
            let back = *storage_ids.1.entry(storage.index()).or_insert(id);
            if (index, back) != (storage.index(), id) {
                wrong(format!("`{name}`: storage {}, expected the one with id {id}", storage.index()));
            }
        }
    }
    // The manifest walks a container once, and lists parts of composites under the name of the composite.
    let unexpected = by_name.into_values().flatten();
    for (tensor, _) in unexpected.filter(|(t, _)| t.alias_of().is_none() && !t.flags().contains(Flags::PART))
    {
        wrong(format!("`{}` is not in the manifest", tensor.path().join(".")));
    }
    found
}

/// Compares numpy arrays with the manifest's, which lists those of text as well but no scalars; returns how many there are.
fn compare_arrays(opened: &Opened<'_>, entry: &Json, wrong: &mut dyn FnMut(String)) -> usize {
    let mut by_name: HashMap<String, Vec<(Tensor<'_>, TensorView<'_>)>> = HashMap::new();
    for (tensor, view) in opened.tensors().filter(|(tensor, _)| tensor.flags().contains(Flags::NUMPY)) {
        by_name.entry(tensor.path().join(".")).or_default().push((tensor, view));
    }
    let mut compared = 0;
    for expected in entry["ndarrays"].as_array().into_iter().flatten() {
        let name = expected["name"].as_str().unwrap();
        let is_text = expected["dtype"].as_str().unwrap().starts_with('<');
        let found = by_name.get_mut(name).filter(|same| !same.is_empty()).map(|same| same.remove(0));
        match found {
            None if is_text => {}
            None => wrong(format!("array `{name}` is not found")),
            Some((tensor, view)) => {
                for (field, found) in describe(tensor, view) {
                    let expected = &expected[field];
                    if !expected.is_null() && found != *expected {
                        wrong(format!("array `{name}`: {field} is {found}, expected {expected}"));
                    }
                }
                compared += 1;
            }
        }
    }
    let unexpected = by_name.into_values().flatten();
    for (tensor, view) in unexpected.filter(|(tensor, _)| tensor.alias_of().is_none()) {
        let path = tensor.path().join(".");
        if tensor.shape().is_some_and(|shape| !shape.is_empty()) {
            wrong(format!("array `{path}` is not in the manifest"));
        }
        if let Err(error) = view.to_bytes() {
            wrong(error.to_string());
        }
    }
    compared
}

/// A key that is a tuple is shown in Python's way here, and in another in the manifest. Tensors below such keys are told
/// apart by their order. And the manifest shows the call that TorchScript puts around a list of tensors.
fn without_tuple(name: &str) -> String {
    let name = &name.replace("._flat_weights.__args__.0.", "._flat_weights.");
    let name = &*without_list_calls(name);
    match (name.find('('), name.rfind(')')) {
        (Some(start), Some(end)) if start < end => format!("{}(…){}", &name[..start], &name[end + 1..]),
        _ => name.to_owned(),
    }
}

/// `<list>.__args__.0.<position>` where the list stands in the state of a packed quantized layer.
fn without_list_calls(name: &str) -> String {
    match name.split_once(".__state__.") {
        Some((layer, state)) => format!("{layer}.__state__.{}", state.replace(".__args__.0.", ".")),
        None => name.to_owned(),
    }
}

fn describe(tensor: Tensor<'_>, view: TensorView<'_>) -> Vec<(&'static str, Json)> {
    let mut fields = vec![
        ("dtype", json!(tensor.dtype().map(|dtype| dtype.name()))),
        ("shape", json!(tensor.shape())),
        ("stride", json!(tensor.stride())),
        ("storage_offset", json!(tensor.storage_offset())),
        ("requires_grad", json!(tensor.requires_grad())),
        (
            "sha256",
            view.to_bytes().map_or_else(|error| json!(error.to_string()), |bytes| json!(sha256(&bytes))),
        ),
    ];
    if tensor.flags().contains(Flags::PARAMETER) {
        fields.push(("class", json!("Parameter")));
    }
    if let Some(Quantizer::PerTensor { scheme, scale, zero_point }) = tensor.quantizer() {
        fields.push(("qscheme", json!(scheme)));
        fields.push(("scale", json!(scale)));
        fields.push(("zero_point", json!(zero_point)));
    }
    fields
}
