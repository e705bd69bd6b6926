//! An index kept beside a file: used while it is true, refused when it is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pt_format::write::{self, Object, Tensor};
use pt_index::{Error, Freshness, build_file, save, sidecar_path};
use pt_view::{IndexPolicy, Mapping, OpenOptions};

fn write_file(path: &Path, values: &[f32]) {
    let tensor = Tensor::new::<f32>(&[values.len() as u64], values).unwrap();
    let object = Object::dict([("w", tensor.into()), ("y", Object::from(7))]);
    fs::write(path, write::to_vec(&object).unwrap()).unwrap();
}

fn indexed(folder: &Path) -> PathBuf {
    let path = folder.join("model.pt");
    write_file(&path, &[1.0, 2.0, 3.0]);
    save(&build_file(&path, &Default::default()).unwrap(), &sidecar_path(&path)).unwrap();
    path
}

fn open(path: &Path, policy: IndexPolicy) -> pt_view::Result<Mapping> {
    // SAFETY: the files are this test's own, and are replaced, not rewritten, while they are mapped.
    unsafe { Mapping::open_with(path, &OpenOptions { index: policy, ..Default::default() }) }
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_view_cannot_tell_where_its_index_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = indexed(folder.path());
    let [parsed, kept] =
        [IndexPolicy::Parse, IndexPolicy::Sidecar].map(|policy| open(&path, policy).unwrap());
    assert_eq!(parsed.index().as_bytes(), kept.index().as_bytes());
    assert_eq!(kept.tensor("w").unwrap().as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(kept.index().file(0).unwrap().leaf("y"), Some(pt_index::Leaf::Int(7)));
}

#[test]
fn a_touched_file_stays_fresh_by_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = indexed(folder.path());
    set_modified(&path, SystemTime::now() + Duration::from_secs(1000));
    let index = pt_index::read(&sidecar_path(&path)).unwrap();
    assert_eq!(index.file(0).unwrap().freshness(&path).unwrap(), Freshness::Touched);
    assert!(open(&path, IndexPolicy::Sidecar).is_ok());
}

#[test]
fn a_stale_index_is_refused_or_passed_over_but_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = indexed(folder.path());
    // As long as before, with other values: the directory's CRCs tell them apart.
    let replacement = folder.path().join("new");
    write_file(&replacement, &[4.0, 5.0, 6.0]);
    set_modified(&replacement, SystemTime::now() + Duration::from_secs(1000));
    fs::rename(&replacement, &path).unwrap();
    let index = pt_index::read(&sidecar_path(&path)).unwrap();
    assert_eq!(index.file(0).unwrap().freshness(&path).unwrap(), Freshness::Stale);

    let error = open(&path, IndexPolicy::Sidecar).unwrap_err();
    assert!(matches!(error, pt_view::Error::Index(Error::Stale { .. })), "{error}");
    assert!(error.to_string().contains("ptview index"), "{error}");
    let mapping = open(&path, IndexPolicy::Auto).unwrap();
    assert_eq!(mapping.tensor("w").unwrap().as_slice::<f32>().unwrap(), [4.0, 5.0, 6.0]);

    fs::remove_file(&path).unwrap();
    assert_eq!(index.file(0).unwrap().freshness(&path).unwrap(), Freshness::Missing);
}

#[test]
fn a_damaged_or_newer_index_is_refused_or_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = indexed(folder.path());
    let sidecar = sidecar_path(&path);
    let bytes = fs::read(&sidecar).unwrap();
    let mut newer = bytes.clone();
    newer[8] = 9;
    for (what, bytes) in [
        ("empty", &[][..]),
        ("cut off", &bytes[..100]),
        ("foreign", b"not an index at all, just text, long enough"),
        ("newer", &newer),
    ] {
        fs::remove_file(&sidecar).unwrap();
        fs::write(&sidecar, bytes).unwrap();
        let error = open(&path, IndexPolicy::Sidecar).unwrap_err();
        println!("{what}: {error}");
        assert_eq!(
            matches!(error, pt_view::Error::Index(Error::Version { found: 9, .. })),
            what == "newer",
            "{error}"
        );
        assert_eq!(open(&path, IndexPolicy::Auto).unwrap().tensors().count(), 1, "{what}");
    }
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for number in 0..50 {
        write_file(
            &folder.path().join(if number % 2 == 0 { "sub" } else { "" }).join(format!("{number}.pt")),
            &[number as f32],
        );
    }
    fs::write(folder.path().join("notes.txt"), "not a tensor").unwrap();
    let build = || pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap();
    let (first, second) = (build(), build());
    assert_eq!(first.index.as_bytes(), second.index.as_bytes());
    assert_eq!(first.index.file_count(), 50);
    assert!(first.index.files().map(|file| file.path()).is_sorted());
    let skipped: Vec<_> = first.index.skipped().collect();
    assert_eq!((skipped.len(), skipped[0].path), (1, "notes.txt"));
    assert!(skipped[0].reason.contains("plain text"), "{}", skipped[0].reason);
    first.index.verify().unwrap();
    let file = first.index.find_file("sub/4.pt").unwrap();
    assert_eq!(file.tensor("w").unwrap().file().path(), "sub/4.pt");
    assert!(first.index.find_file("4.pt").is_none() && file.tensor("v").is_none());
}
