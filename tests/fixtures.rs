//! Every fixture of `testdata/` against `testdata/expected.json`: what must be read is read exactly so, what must be
//! refused is refused with the message in `golden/refusals.txt`, and nothing hangs, panics or runs code.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pt_format::{Checkpoint, DType, Error, Kind, Limits, PartKind};
use pt_index::FileSource;
use pt_view::{CheckedRecords, FileBytes, IndexPolicy, Mapping, OpenOptions, TensorView};
use serde_json::Value as Json;

use crate::common::{Fixture, Opened, describe, fixtures, normalized, readable_fixtures, root, tree};

/// No fixture may keep a reader longer than this, whatever it holds. They take milliseconds; the rest is for busy machines.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn tensors_are_those_expected() {
    let (mut files, mut tensors, mut wrong) = (0, 0, Vec::new());
    for fixture in readable_fixtures().iter().filter(|fixture| is_read(fixture)) {
        let bytes = fixture.bytes();
        let mut found = describe(&Opened::new(&bytes).unwrap());
        let mut expected = with_constants(&fixture.entry);
        if fixture.text("container") == "pt2" {
            // What is pickled comes after what is described.
            found.sort_by_key(|tensor| tensor["path"].to_string());
            expected.sort_by_key(|tensor| tensor["path"].to_string());
        }
        if found.len() != expected.len() {
            wrong.push(format!("{}: {} tensors instead of {}", fixture.name, found.len(), expected.len()));
        }
        let mut first_use = BTreeMap::new();
        for (found, expected) in found.iter().zip(&expected) {
            let place = format!("{} {}", fixture.name, expected["path"]);
            let itemsize = expected["dtype"].as_str().and_then(DType::from_name).map_or(1, DType::itemsize);
            let mut expected = match expected["storage"]["view"].is_array() {
                true => as_own_storage(expected.clone(), itemsize as u64),
                false => with_first_use(expected, &mut first_use),
            };
            if expected["storage"]["class"] == "raw" {
                // Raw bytes are an untyped storage, which counts bytes.
                expected["storage"]["class"] = "UntypedStorage".into();
                expected["storage"]["numel"] = expected["storage"]["nbytes"].clone();
            }
            let mut found = found.clone();
            if not_said_to_share(fixture) {
                for flags in [&mut expected["flags"], &mut found["flags"]] {
                    flags.as_array_mut().unwrap().retain(|flag| flag != "shared_storage");
                }
            }
            differences(&place, &found, &expected, &mut wrong);
        }
        files += 1;
        tensors += expected.len();
    }
    println!("{tensors} tensors of {files} files");
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// Views of a storage are storages of their own to us, so neither is shared; and of `.pt2` files the truth does not say.
fn not_said_to_share(fixture: &Fixture) -> bool {
    let views = ["legacy/view_metadata.pth", "legacy/tar_v0.pt"];
    views.contains(&&*fixture.name) || fixture.text("container") == "pt2"
}

/// The constants of TorchScript code come after the attributes, under a name of their own; then what a model was traced or
/// exported with.
fn with_constants(entry: &Json) -> Vec<Json> {
    let mut expected = entry["tensors"].as_array().unwrap().clone();
    for constant in entry["constants"].as_array().into_iter().flatten() {
        let mut constant = constant.clone();
        if entry["container"] == "torchscript" {
            let number = format!("c{}", constant["name"].as_str().unwrap());
            constant["name"] = format!("CONSTANTS.{number}").into();
            constant["path"] = serde_json::json!(["CONSTANTS", number]);
        }
        expected.push(constant);
    }
    expected.extend(entry["inputs"].as_array().into_iter().flatten().cloned());
    expected
}

/// A storage is described by the persistent id that named it first; `expected.json` gives each tensor its own.
fn with_first_use(expected: &Json, first_use: &mut BTreeMap<String, Json>) -> Json {
    let mut expected = expected.clone();
    // Storages of numpy arrays have no key.
    if let Some(key) = expected["storage"]["key"].as_str().filter(|key| !key.is_empty()) {
        // Archives inside an archive have keys of their own.
        let key = format!("{key} {}", expected["storage"]["file_offset"]);
        let first = first_use.entry(key).or_insert_with(|| expected["storage"].clone());
        expected["storage"] = first.clone();
    }
    expected
}

/// A view of a legacy storage is a storage of its own to us; `expected.json` describes the whole and where the view is.
fn as_own_storage(mut expected: Json, itemsize: u64) -> Json {
    if let Some([_, offset, numel]) = expected["storage"]["view"].as_array().map(Vec::as_slice) {
        let [offset, numel] = [offset, numel].map(|number| number.as_u64().unwrap() * itemsize);
        let whole = expected["storage"]["file_offset"].as_u64().unwrap();
        expected["storage"]["file_offset"] = (whole + offset).into();
        expected["storage"]["nbytes"] = numel.into();
    }
    expected
}

/// Notes the fields of `found` that `expected` contradicts; fields that only `expected` has are not ours to say.
fn differences(place: &str, found: &Json, expected: &Json, wrong: &mut Vec<String>) {
    for (field, value) in found.as_object().unwrap() {
        match (value, &expected[field]) {
            (Json::Object(_), Json::Object(_)) => {
                differences(&format!("{place} {field}"), value, &expected[field], wrong);
            }
            (value, expected) if value == expected => {}
            (value, expected) => wrong.push(format!("{place}: {field} is {value}, expected {expected}")),
        }
    }
}

#[test]
fn values_are_those_expected() {
    let (mut values, mut wrong) = (0, Vec::new());
    for fixture in readable_fixtures().iter().filter(|fixture| has_values(fixture)) {
        let bytes = fixture.bytes();
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        let (found, expected) = (tree(&checkpoint), normalized(&fixture.entry["value"]));
        values += expected.to_string().matches("\"t\":").count();
        if found != expected {
            wrong.push(format!("{}: {}", fixture.name, first_difference(&found, &expected)));
        }
    }
    println!("{values} values");
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

fn first_difference(found: &Json, expected: &Json) -> String {
    match (found, expected) {
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            let (a, b) = a.iter().zip(b).find(|(a, b)| a != b).unwrap();
            first_difference(a, b)
        }
        (Json::Object(a), Json::Object(b)) if a.keys().eq(b.keys()) => {
            let (key, a) = a.iter().find(|(key, a)| **a != b[*key]).unwrap();
            format!("{key} {}", first_difference(a, &b[key]))
        }
        _ => format!("is {found}, expected {expected}"),
    }
}

/// Every tensor is reached from the root by its own path, as far as its components are keys, positions and attributes.
#[test]
fn paths_lead_to_their_tensors() {
    let (mut reached, mut wrong) = (0, Vec::new());
    for fixture in readable_fixtures().iter().filter(|fixture| is_read(fixture)) {
        let bytes = fixture.bytes();
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        for tensor in checkpoint.tensors() {
            let path = tensor.path();
            let is_plain = |component: &String| {
                let apart = ["CONSTANTS", "SAMPLE_INPUTS", "TRACED_INPUTS", "model_a", "model_b"];
                !matches!(&component[..], "__args__" | "__state__" | "__dict__")
                    && !apart.contains(&&component[..])
            };
            if !path.iter().all(is_plain) {
                continue;
            }
            let first = tensor.alias_of().unwrap_or(tensor).index();
            let mut roots = checkpoint.pickles().map(|(_, root)| root);
            let value = roots.find_map(|root| root.path(path.iter().map(String::as_str))?.as_tensor());
            match value {
                Some(found) if found.index() == first => reached += 1,
                found => wrong.push(format!("{} {path:?}: {found:?}", fixture.name)),
            }
        }
    }
    println!("{reached} tensors reached by path");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file is in memory, mapped, or read by position, its tensors are the same, and so are the refusals.
#[test]
fn every_way_of_reading_gives_the_same_bytes() {
    let (mut tensors, mut bytes_read) = (0, 0);
    for fixture in readable_fixtures().iter().filter(|fixture| is_read(fixture)) {
        let (path, bytes) = (fixture.path(), fixture.bytes());
        let opened = Opened::new(&bytes).unwrap();
        // SAFETY: nobody writes to the fixtures while tests run.
        let mapping = unsafe {
            Mapping::open_with(&path, &OpenOptions { index: IndexPolicy::Parse, ..Default::default() })
        }
        .unwrap();
        let source = FileSource::open(&path).unwrap();
        let checked = CheckedRecords::new(opened.index.storage_count());
        for ((_, in_memory), mapped) in opened.tensors().zip(mapping.tensors()) {
            let read = TensorView::new(in_memory.entry(), FileBytes::read(&source, &checked));
            let expected = outcome(in_memory.to_bytes());
            assert_eq!(outcome(mapped.to_bytes()), expected, "{}", fixture.name);
            assert_eq!(outcome(read.to_bytes()), expected, "{}", fixture.name);
            assert_eq!(mapped.as_bytes().ok(), in_memory.as_bytes().ok(), "{}", fixture.name);
            assert_eq!(
                (mapped.caps(), mapped.locate()),
                (in_memory.caps(), in_memory.locate()),
                "{}",
                fixture.name
            );
            if let Ok(lent) = in_memory.as_bytes() {
                assert_eq!(Some(lent), expected.as_deref().ok(), "{}", fixture.name);
            }
            tensors += 1;
            bytes_read += expected.map_or(0, |bytes| bytes.len());
        }
    }
    println!("{tensors} tensors, {bytes_read} bytes");
}

fn outcome(bytes: pt_view::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    bytes.map_err(|error| error.to_string())
}

/// The law of the house: an index that went through bytes says the same as the parsed file.
///
/// The index has no word for keys, classes and locations of storages, nor for `is_coalesced`.
#[test]
fn index_and_file_say_the_same() {
    let (mut tensors, mut leaves) = (0, 0);
    for fixture in readable_fixtures().iter().filter(|fixture| is_read(fixture)) {
        let bytes = fixture.bytes();
        let opened = Opened::new(&bytes).unwrap();
        opened.index.verify().unwrap();
        let (checkpoint, file) = (&opened.checkpoint, opened.index.file(0).unwrap());
        assert_eq!(file.fingerprint(), checkpoint.fingerprint());
        assert_eq!(file.byte_order(), checkpoint.byte_order());
        assert_eq!(opened.index.storage_count(), checkpoint.storages().len());

        for (tensor, view) in opened.tensors() {
            let entry = view.entry();
            let what = format!("{} {}", fixture.name, tensor.name());
            assert_eq!(entry.name(), tensor.name(), "{what}");
            assert_eq!(entry.path(), tensor.path(), "{what}");
            assert_eq!(entry.dtype(), tensor.dtype(), "{what}");
            assert_eq!(entry.shape(), tensor.shape(), "{what}");
            assert_eq!(entry.stride(), tensor.stride(), "{what}");
            assert_eq!(entry.numel(), tensor.numel(), "{what}");
            assert_eq!(entry.storage_offset(), tensor.storage_offset(), "{what}");
            assert_eq!(entry.layout(), tensor.layout(), "{what}");
            assert_eq!(entry.flags(), tensor.flags(), "{what}");
            assert_eq!(entry.class(), tensor.class().as_deref(), "{what}");
            assert_eq!(entry.quantizer().as_ref(), tensor.quantizer(), "{what}");
            assert_eq!(entry.fault(), tensor.fault().map(ToString::to_string).as_deref(), "{what}");
            assert_eq!(entry.is_contiguous(), tensor.is_contiguous(), "{what}");
            assert_eq!(entry.alias_of().map(|t| t.row()), tensor.alias_of().map(|t| t.index()), "{what}");
            let (ours, theirs) = (entry.storage(), tensor.storage());
            assert_eq!(ours.map(|s| s.row()), theirs.map(|s| s.index()), "{what}");
            assert_eq!(ours.map(|s| s.nbytes()), theirs.map(|s| s.nbytes()), "{what}");
            assert_eq!(ours.and_then(|s| s.record()), theirs.and_then(|s| s.record()), "{what}");
            let first = checkpoint.tensor(tensor.name()).unwrap().index();
            assert_eq!(file.tensor(tensor.name()).map(|t| t.row()), Some(first), "{what}");
            tensors += 1;
        }

        let plain = plain_leaves(checkpoint);
        let indexed: Vec<_> =
            file.leaves().map(|(name, leaf)| (name.to_owned(), indexed_leaf(leaf))).collect();
        assert_eq!(indexed, plain, "{}", fixture.name);
        leaves += indexed.len();
    }
    println!("{tensors} tensors and {leaves} leaves");
}

/// The plain scalars of the saved object, with their dotted names.
fn plain_leaves(checkpoint: &Checkpoint<'_>) -> Vec<(String, String)> {
    let mut around: Vec<String> = Vec::new();
    let mut leaves = Vec::new();
    for part in checkpoint.structure() {
        around.truncate(part.depth);
        around.push(part.key.map_or_else(|| part.position.to_string(), |key| key.component()));
        if part.kind == PartKind::Leaf {
            // What is around the root is nothing.
            leaves.push((around[1..].join("."), plain_leaf(part.value)));
        }
    }
    leaves
}

/// Floats by their bits, so that NaN equals itself.
fn plain_leaf(value: pt_format::Value<'_>) -> String {
    match value.as_f64() {
        Some(float) => format!("Float({:016x})", float.to_bits()),
        None => match value.kind() {
            Kind::Str => format!("Str({:?})", value.as_str().unwrap()),
            Kind::Int => format!("Int({})", value.as_i64().unwrap()),
            Kind::Bool => format!("Bool({})", value.as_bool().unwrap()),
            kind => format!("{kind:?}"),
        },
    }
}

fn indexed_leaf(leaf: pt_index::Leaf<'_>) -> String {
    match leaf {
        pt_index::Leaf::Float(float) => format!("Float({:016x})", float.to_bits()),
        other => format!("{other:?}"),
    }
}

/// Refused are also files of which only a tensor cannot be read: by `check`, or at the latest when its bytes are asked
/// for.
#[test]
fn bad_files_are_refused_for_the_right_reason() {
    let mut lines = Vec::new();
    for fixture in fixtures().iter().filter(|f| f.text("result") == "error" && is_read(f)) {
        match refusal(&fixture.bytes()) {
            Some(message) => {
                lines.push(format!("{}: {}", fixture.name, message.replace(char::is_control, "?")))
            }
            None => panic!("{} was not refused: {}", fixture.name, fixture.text("note")),
        }
    }
    lines.sort();
    println!("{} files refused", lines.len());
    assert_golden("refusals.txt", &lines);
}

fn refusal(bytes: &[u8]) -> Option<String> {
    let opened = match Opened::new(bytes) {
        Ok(opened) => opened,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = opened.checkpoint.check() {
        return Some(error.to_string());
    }
    opened.tensors().find_map(|(_, view)| view.to_bytes().err()).map(|error| error.to_string())
}

/// Compares lines with a golden file; with `PTVIEW_BLESS=1` writes them there instead.
fn assert_golden(name: &str, lines: &[String]) {
    let path = root().join("tests/golden").join(name);
    let found = lines.join("\n") + "\n";
    if std::env::var_os("PTVIEW_BLESS").is_some() {
        return fs::write(path, found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> = golden.lines().filter(|line| !lines.iter().any(|l| l == line)).collect();
    let new: Vec<_> = lines.iter().filter(|line| !golden.lines().any(|l| l == *line)).collect();
    assert!(found == golden, "{name} differs; PTVIEW_BLESS=1 rewrites it\n- {changed:#?}\n+ {new:#?}");
}

#[test]
fn hostile_files_end_quickly_and_run_nothing() {
    let mut slowest = (Duration::ZERO, String::new());
    let (mut files, mut read) = (0, 0);
    for fixture in fixtures() {
        let bytes = fixture.bytes();
        let start = Instant::now();
        read += usize::from(refusal(&bytes).is_none());
        let took = start.elapsed();
        assert!(took < PATIENCE, "{} took {took:?}", fixture.name);
        slowest = slowest.max((took, fixture.name));
        files += 1;
    }
    for folder in [Path::new("."), root(), &root().join("testdata/fixtures/attack"), &std::env::temp_dir()] {
        assert!(!folder.join("PWNED.txt").exists(), "code of a fixture was run");
    }
    println!("{files} files, {read} of them read whole; the slowest: {slowest:?}");
}

/// `not_read_yet.txt` names every fixture in a container that this version does not read, and no other.
#[test]
fn containers_not_read_yet_say_so() {
    let listed = not_read_yet();
    for fixture in fixtures() {
        let parsed = Checkpoint::parse(&fixture.bytes(), &Limits::default()).map(drop);
        let unsupported = matches!(parsed, Err(Error::UnsupportedContainer { .. }));
        // A folder and a JSON file have no container of their own: they are merely refused.
        let indirect = ["dcp", "hf_index"].contains(&fixture.text("container"));
        match listed.contains(&fixture.name) {
            true if indirect => assert!(parsed.is_err(), "{} is read: take it off the list", fixture.name),
            true => assert!(unsupported, "{}: {parsed:?}; take it off the list", fixture.name),
            false => assert!(!unsupported && !indirect, "{} belongs on the list", fixture.name),
        }
    }
    println!("{} fixtures in containers not read yet", listed.len());
}

fn not_read_yet() -> Vec<String> {
    let text = fs::read_to_string(root().join("tests/not_read_yet.txt")).unwrap();
    let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.map(str::to_owned).collect()
}

/// A `.pt2` file describes its tensors and holds no object.
fn has_values(fixture: &Fixture) -> bool {
    is_read(fixture) && !fixture.entry["value"].is_null()
}

fn is_read(fixture: &Fixture) -> bool {
    !not_read_yet().contains(&fixture.name)
}
