//! Batches gathered in the background, and what can go wrong with them.

#[path = "../benches/common/mod.rs"]
mod files;

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_loader::{DataSet, Error, Loader, OnError, Options, Prefetch, Unit};

fn samples(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        let x = [number as f32; 64];
        let object = Object::dict([("x", Tensor::new::<f32>(&[64], &x).unwrap().into())]);
        fs::write(folder.path().join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    folder
}

/// Fails instead of hanging.
fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    std::thread::spawn(move || send.send(run()));
    receive.recv_timeout(Duration::from_secs(30)).expect("it hangs, or panicked")
}

fn epoch(folder: &Path) -> pt_loader::Epoch {
    Loader::new(&DataSet::open(folder).unwrap(), 4).epoch(0)
}

#[test]
fn the_batches_are_those_of_the_epoch() {
    let folder = samples(30);
    in_time(move || {
        let mut batches = Prefetch::new(epoch(folder.path()), 2, OnError::Fail);
        for expected in epoch(folder.path()) {
            let (expected, batch) = (expected.unwrap(), batches.next().unwrap().unwrap());
            assert_eq!(batch.samples(), expected.samples());
            assert_eq!(batch.tensor("x").unwrap().as_bytes(), expected.tensor("x").unwrap().as_bytes());
            batches.recycle(batch);
        }
        assert!(batches.next().is_none() && batches.next().is_none());
    });
}

#[test]
fn its_state_is_that_of_the_batches_taken() {
    let folder = samples(30);
    in_time(move || {
        let mut batches = Prefetch::new(epoch(folder.path()), 5, OnError::Fail);
        assert_eq!(batches.state(), epoch(folder.path()).state());
        batches.by_ref().take(2).for_each(drop);
        let data = DataSet::open(folder.path()).unwrap();
        let mut rest = Loader::new(&data, 4).resume(&batches.state()).unwrap();
        assert_eq!(rest.next().unwrap().unwrap().samples(), [8, 9, 10, 11]);
    });
}

#[test]
fn files_that_change_on_the_way_fail_or_are_skipped() {
    type Damage = fn(&Path);
    let truncated: Damage = |path| {
        let length = fs::metadata(path).unwrap().len();
        fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    };
    let deleted: Damage = |path| fs::remove_file(path).unwrap();
    let replaced: Damage = |path| {
        let other = path.with_file_name("other");
        fs::write(&other, b"something else").unwrap();
        fs::rename(other, path).unwrap();
    };
    let is_folder: Damage = |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    for damage in [truncated, deleted, replaced, is_folder] {
        for on_error in [OnError::Fail, OnError::Skip] {
            let folder = samples(30);
            in_time(move || {
                // Open first: the index knows the files as they were.
                let epoch = epoch(folder.path());
                let path = folder.path().join("013.pt");
                damage(&path);
                let mut batches = Prefetch::new(epoch, 2, on_error);
                let outcomes: Vec<_> = batches.by_ref().collect();
                match on_error {
                    OnError::Fail => {
                        assert_eq!(outcomes.len(), 4);
                        let error = outcomes.last().unwrap().as_ref().unwrap_err();
                        assert!(matches!(error, Error::At { sample: 13, .. }), "{error}");
                        assert!(error.to_string().contains("013.pt"), "{error}");
                        assert_eq!(batches.state().consumed, 12);
                    }
                    OnError::Skip => {
                        let samples: usize = outcomes.iter().map(|batch| batch.as_ref().unwrap().len()).sum();
                        assert_eq!((samples, batches.skipped()), (29, 1));
                    }
                }
            });
        }
    }
}

#[test]
fn dropping_it_ends_it() {
    let folder = samples(30);
    in_time(move || {
        for taken in 0..4 {
            let mut batches = Prefetch::new(epoch(folder.path()), 1, OnError::Fail);
            batches.by_ref().take(taken).for_each(drop);
        }
        // A consumer that panics drops it too.
        let consumer = std::thread::spawn({
            let mut batches = Prefetch::new(epoch(folder.path()), 1, OnError::Fail);
            move || {
                batches.next();
                std::panic::resume_unwind(Box::new("a panic"));
            }
        });
        assert!(consumer.join().is_err());
    });
}

#[cfg(unix)]
#[test]
fn more_files_than_descriptors_are_read() {
    let folder = samples(300);
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact child_with_few_descriptors --nocapture --ignored"])
        .arg(std::env::current_exe().unwrap())
        .env("PTVIEW_FOLDER", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all samples were read"), "{output:?}");
}

/// Run by the test above, under its limit.
#[test]
#[ignore = "run in a child process by the test above, under its limit of files"]
fn child_with_few_descriptors() {
    let Some(folder) = std::env::var_os("PTVIEW_FOLDER") else { return };
    for unit in [Unit::File, Unit::Row] {
        let data = DataSet::open_with(&folder, &Options { unit, ..Options::default() }).unwrap();
        let data = data.with_threads(8).unwrap();
        let batches = Prefetch::new(Loader::new(&data, 32).shuffle(1).epoch(0), 2, OnError::Fail);
        let samples: usize = batches.map(|batch| batch.unwrap().len()).sum();
        assert_eq!(samples, data.len());
    }
    println!("all samples were read");
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_stays_open_behind_a_pipeline() {
    let folder = samples(30);
    let open = || {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(folder.path())).count()
    };
    let mut batches = Prefetch::new(epoch(folder.path()), 2, OnError::Fail);
    batches.by_ref().take(3).for_each(drop);
    assert!(open() > 0);
    drop(batches);
    assert_eq!(open(), 0);
}

/// Bytes that are this process's own: not those of files.
#[cfg(target_os = "linux")]
fn anonymous_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn an_epoch_over_two_gibibytes_takes_no_more_than_its_buffers() {
    const ROWS: u64 = 2048;
    const AHEAD: usize = 2;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let storage = Storage::zeros(ROWS << 20);
    let x = Tensor::strided(DType::UInt8, &[ROWS, 1 << 20], &[1 << 20, 1], 0, &storage).unwrap();
    files::save(&folder.path().join("sparse.pt"), &Object::dict([("x", x.into())]));
    let data = DataSet::open_with(folder.path(), &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    let before = anonymous_bytes();
    let mut batches = Prefetch::new(Loader::new(&data, 8).shuffle(3).epoch(0), AHEAD, OnError::Fail);
    let (mut samples, mut most) = (0, 0);
    while let Some(batch) = batches.next() {
        let batch = batch.unwrap();
        samples += batch.len();
        most = most.max(anonymous_bytes().saturating_sub(before));
        batches.recycle(batch);
    }
    assert_eq!(samples as u64, ROWS);
    // Those ahead, the one being filled, the one that waits for room, the one in use; and what threads take.
    let buffers = (AHEAD + 3) * (8 << 20);
    println!("{} MiB of buffers, {} MiB grown", buffers >> 20, most >> 20);
    assert!(most < buffers + (16 << 20), "grown by {most} bytes");
}
