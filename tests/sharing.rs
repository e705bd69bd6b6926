//! Descriptors that data sets keep: a share of those of the process, however many data sets there are.

use std::fs;
use std::process::Command;

use pt_format::write::{self, Object, Tensor};
use pt_loader::{DataSet, Options, Unit};
use pt_view::FileCache;

/// A folder of like files.
fn folder(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let object = Object::dict([("x", Tensor::new::<u8>(&[2], &[7, 8]).unwrap().into())]);
    for number in 0..count {
        let path = folder.path().join(format!("{number:04}.pt"));
        fs::write(path, write::to_vec(&object).unwrap()).unwrap();
    }
    folder
}

/// Runs itself again, alone in a process that may open 256 files.
#[test]
#[cfg(target_os = "linux")]
fn many_data_sets_keep_a_quarter_of_the_descriptors_together() {
    const INSIDE: &str = "PTVIEW_TEST_SHARING";
    if std::env::var_os(INSIDE).is_none() {
        let test = std::env::current_exe().unwrap();
        let name = "many_data_sets_keep_a_quarter_of_the_descriptors_together";
        let shell = format!("ulimit -n 256; exec '{}' {name} --exact", test.display());
        let done = Command::new("sh").args(["-c", &shell]).env(INSIDE, "1").status().unwrap();
        assert!(done.success());
        return;
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let folder = folder(40);
    let all: Vec<usize> = (0..40).collect();
    let before = open();
    let sets: Vec<DataSet> = (0..8).map(|_| DataSet::open(folder.path()).unwrap()).collect();
    assert_eq!(open(), before, "a data set that is only made opens nothing");
    for data in &sets {
        data.gather(&all).unwrap();
        data.gather(&all).unwrap();
    }
    // All files of one; of the others the folder.
    assert_eq!(open(), before + 40 + 7);
    let rows = Options { unit: Unit::Row, ..Options::default() };
    let rows = DataSet::open_with(folder.path(), &rows).unwrap();
    rows.gather(&(0..rows.len()).collect::<Vec<_>>()).unwrap();
    assert_eq!(open(), before + 40 + 7 + 24, "what is left of a quarter");
    drop((sets, rows));
    assert_eq!(open(), before);

    // What was given back is there for the next one; what nobody reads is claimed by nobody.
    let unread = DataSet::open(folder.path()).unwrap();
    let files = FileCache::new(folder.path(), unread.index().clone());
    assert!(files.holds_all());
    let again = files.reopened();
    drop(files);
    assert!(again.holds_all(), "the room goes on to the cache that is opened anew");
    assert_eq!(FileCache::new(folder.path(), unread.index().clone()).capacity(), 24);
    drop(again);
    assert_eq!(FileCache::new(folder.path(), unread.index().clone()).capacity(), 40);
}
