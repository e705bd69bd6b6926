//! The one line of crates, and where unsafe code may stand.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::common::root;

/// Each crate may import those before it, and no other of ours.
const LINE: [&str; 4] = ["pt-format", "pt-index", "pt-view", "pt-loader"];
/// Crates that promise to have none.
const WITHOUT_UNSAFE: [&str; 3] = ["pt-format", "pt-index", "pt-loader"];

#[test]
fn crates_import_only_those_before_them() {
    for (position, name) in LINE.iter().enumerate() {
        let imported = imports(&root().join("crates").join(name).join("Cargo.toml"));
        let allowed = &LINE[..position];
        assert!(imported.iter().all(|import| allowed.contains(&&import[..])), "{name} imports {imported:?}");
    }
    let ours = imports(&root().join("Cargo.toml"));
    assert!(ours.iter().all(|import| LINE.contains(&&import[..])), "the root package imports {ours:?}");
    let folders = fs::read_dir(root().join("crates")).unwrap();
    let unknown: Vec<_> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .filter(|name| !LINE.contains(&&name[..]) && name != "pt-python")
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} stand outside the line");
}

/// Returns the crates of ours that a manifest names, in dependencies of every kind and for every target.
fn imports(manifest: &Path) -> Vec<String> {
    let manifest: Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let mut tables: Vec<&Table> = vec![&manifest];
    if let Some(Value::Table(targets)) = manifest.get("target") {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let dependencies =
        tables.iter().flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    let names = dependencies.flat_map(|table| table.iter()).map(|(key, value)| match value.get("package") {
        Some(Value::String(package)) => package.clone(),
        _ => key.clone(),
    });
    names.filter(|name| name.starts_with("pt-")).collect()
}

#[test]
fn unsafe_code_is_forbidden_or_in_one_module() {
    for name in WITHOUT_UNSAFE {
        let lib = fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).unwrap();
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
    let mut files = Vec::new();
    collect_sources(&root().join("crates/pt-view/src"), &mut files);
    let is_code = |line: &str| {
        let line = line.trim_start();
        // Comments, examples in them, and lint attributes.
        !line.starts_with("//") && !line.contains("allow(unsafe_code)") && !line.contains("deny(unsafe_code)")
    };
    for file in files.iter().filter(|file| !file.parent().unwrap().ends_with("src/map")) {
        let text = fs::read_to_string(file).unwrap();
        let found = text.lines().find(|line| is_code(line) && line.contains("unsafe"));
        assert_eq!(found, None, "{} has unsafe code", file.display());
    }
    assert!(files.len() > 3, "{files:?}");
}

#[test]
fn the_python_package_lends_memory_in_two_modules() {
    let mut files = Vec::new();
    collect_sources(&root().join("crates/pt-python/src"), &mut files);
    // Memory of files and tensors, and that of batches.
    let lends = |file: &&PathBuf| file.ends_with("export.rs") || file.ends_with("data/memory.rs");
    for file in files.iter().filter(|file| !lends(file)) {
        let text = fs::read_to_string(file).unwrap();
        let blocks = text.lines().filter(|line| line.contains("unsafe {")).count();
        // Python calls one method of a tensor with a pointer, which is handed on.
        let allowed = usize::from(file.ends_with("tensor.rs"));
        assert!(blocks <= allowed, "{} has {blocks} unsafe blocks", file.display());
    }
    assert!(files.len() > 5, "{files:?}");
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect_sources(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}
