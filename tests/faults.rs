//! Files that are gone, cut off, replaced or locked away under a reader, and disks that are full under a writer.

#![cfg(unix)]

use std::fs::{self, OpenOptions as FileOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use pt_format::write::{self, Object, Tensor};
use pt_index::{Index, Policy};
use pt_loader::{DataSet, Loader, OnError, Prefetch};
use pt_view::{Error, FileCache, Mapping, Obstacle, OpenOptions};

const ELEMENTS: usize = 10_000;
/// `nobody`, or anybody else who owns no files.
const STRANGER: u32 = 65_534;

fn file_of(number: u32) -> Vec<u8> {
    let elements = vec![number; ELEMENTS];
    let tensor = Tensor::new(&[ELEMENTS as u64], &elements).unwrap();
    write::to_vec(&Object::dict([("x", tensor.into())])).unwrap()
}

fn folder_of(folder: &Path, files: u32) -> Index {
    for number in 0..files {
        fs::write(folder.join(format!("{number}.pt")), file_of(number)).unwrap();
    }
    pt_index::build_folder(folder, None, &Default::default(), |_| {}).unwrap().index
}

fn value(files: &FileCache, number: usize) -> pt_view::Result<u32> {
    files.file(number)?.tensor("x")?.row(7)?.to_vec::<u32>().map(|values| values[0])
}

/// Runs a test of this file, marked as ignored, in a process of its own.
fn child(name: &str, shell: &str, user: Option<u32>, folder: &Path) -> std::process::Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" --exact {name} --nocapture --ignored")]);
    command.arg(std::env::current_exe().unwrap()).env("PTVIEW_FOLDER", folder);
    if let Some(user) = user {
        command.uid(user);
    }
    command.output().unwrap()
}

#[test]
fn what_happens_to_a_file_is_an_error_of_that_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder_of(folder.path(), 6);
    let path = |number: u32| folder.path().join(format!("{number}.pt"));
    let files = FileCache::new(folder.path(), index).with_capacity(2);
    assert_eq!(value(&files, 0).unwrap(), 0);

    // Open files stay what they were.
    fs::remove_file(path(0)).unwrap();
    assert_eq!(value(&files, 0).unwrap(), 0);
    assert_eq!(value(&files, 1).unwrap(), 1);
    fs::write(folder.path().join("new"), file_of(100)).unwrap();
    fs::rename(folder.path().join("new"), path(1)).unwrap();
    assert_eq!(value(&files, 1).unwrap(), 1);

    // Others are looked at when they are opened.
    fs::remove_file(path(2)).unwrap();
    FileOptions::new().write(true).open(path(3)).unwrap().set_len(1000).unwrap();
    let gone = value(&files, 2).unwrap_err();
    assert!(matches!(gone, Error::Index(pt_index::Error::Io { .. })), "{gone}");
    assert!(gone.to_string().contains("2.pt"), "{gone}");
    let cut = value(&files, 3).unwrap_err();
    assert!(matches!(cut, Error::Index(pt_index::Error::Stale { .. })), "{cut}");
    assert!(cut.to_string().contains("3.pt"), "{cut}");
    assert_eq!(value(&files, 4).unwrap(), 4);

    // Once closed, the replaced and the deleted one are what is there now.
    assert!(matches!(value(&files, 0), Err(Error::Index(pt_index::Error::Io { .. }))));
    assert_eq!(files.open_count(), 2, "what cannot be opened takes no room");
    assert_eq!(value(&files, 5).unwrap(), 5);
    let replaced = value(&files, 1).unwrap_err();
    assert!(matches!(replaced, Error::Index(pt_index::Error::Stale { .. })), "{replaced}");
}

/// The size is looked at even by who trusts, before anything is read.
#[test]
fn a_file_cut_off_under_a_trusting_reader_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder_of(folder.path(), 1);
    let path = folder.path().join("0.pt");
    let files = FileCache::new(folder.path(), index).with_policy(Policy::Trust);
    assert_eq!(value(&files, 0).unwrap(), 0);
    FileOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    let file = files.file(0).unwrap();
    match file.tensor("x").unwrap().to_vec::<u32>().unwrap_err() {
        Error::Refused { tensor, obstacle: Obstacle::OutsideFile { length: 20_000, .. } } => {
            assert_eq!(tensor, "x");
        }
        other => panic!("{other}"),
    }
    assert_eq!(value(&files, 0).unwrap(), 0, "what is left can be read");
}

#[test]
fn a_file_that_may_not_be_read_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder_of(folder.path(), 2);
    pt_index::save(&index, &pt_index::sidecar_path(folder.path())).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path().join("1.pt"), Permissions::from_mode(0o000)).unwrap();
    // The superuser may read everything.
    let user = (fs::read(folder.path().join("1.pt")).is_ok()).then_some(STRANGER);
    let output = child("locked_away", "", user, folder.path());
    let text = String::from_utf8_lossy(&output.stdout);
    if user.is_some() && !output.status.success() && !text.contains("running") {
        println!("skipped: another user cannot run this test: {output:?}");
        return;
    }
    assert!(output.status.success() && text.contains("it was refused"), "{output:?}");
}

#[test]
#[ignore = "run in a child process by the test above, as a user who may not read the file"]
fn locked_away() {
    let Some(folder) = std::env::var_os("PTVIEW_FOLDER") else { return };
    let folder = Path::new(&folder);
    let index = pt_index::read(&pt_index::sidecar_path(folder)).unwrap();
    let files = FileCache::new(folder, index);
    assert_eq!(value(&files, 0).unwrap(), 0);
    let locked = value(&files, 1).unwrap_err();
    match &locked {
        Error::Index(pt_index::Error::Io { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other}"),
    }
    assert!(locked.to_string().contains("1.pt"), "{locked}");
    let data = DataSet::open(folder).unwrap();
    let mut batches = Prefetch::new(Loader::new(&data, 1).epoch(0), 2, OnError::Fail);
    assert!(batches.next().unwrap().is_ok());
    let error = batches.next().unwrap().unwrap_err();
    assert!(matches!(error, pt_loader::Error::At { sample: 1, .. }), "{error}");
    let locked = Mapping::open_read(folder.join("1.pt"), &OpenOptions::default()).unwrap_err();
    println!("it was refused: {locked}");
}

/// A limit of the file size does to a writer what a full disk does: a write comes back short.
#[test]
fn a_full_disk_leaves_no_half_index() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder_of(folder.path(), 1);
    let sidecar = pt_index::sidecar_path(folder.path());
    pt_index::save(&old, &sidecar).unwrap();
    let before = fs::read(&sidecar).unwrap();
    for number in 1..300 {
        let names =
            (0..20).map(|name| (format!("key {number} {name}"), Object::from(name))).collect::<Vec<_>>();
        let bytes = write::to_vec(&Object::dict(names)).unwrap();
        fs::write(folder.path().join(format!("more{number}.pt")), bytes).unwrap();
    }
    // In blocks of 512 or 1024 bytes; the signal that comes with it is not wanted, the error is.
    let output = child("disk_full", "trap '' XFSZ; ulimit -f 4 &&", None, folder.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("it was refused"), "{output:?}");
    assert_eq!(fs::read(&sidecar).unwrap(), before, "the old index is whole");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 301, "nothing else is left behind");
}

#[test]
#[ignore = "run in a child process by the test above, with a limit of what it may write"]
fn disk_full() {
    let Some(folder) = std::env::var_os("PTVIEW_FOLDER") else { return };
    let folder = Path::new(&folder);
    let index = pt_index::build_folder(folder, None, &Default::default(), |_| {}).unwrap().index;
    assert!(index.as_bytes().len() > 64 << 10, "{}", index.as_bytes().len());
    let entries = || fs::read_dir(folder).unwrap().count();
    let before = entries();
    let refused = pt_index::save(&index, &pt_index::sidecar_path(folder)).unwrap_err();
    assert_eq!(entries(), before, "nothing is left in the folder");
    println!("it was refused: {refused}");
}
