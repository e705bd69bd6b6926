//! Batches gathered in the background, and what can go wrong with them.

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use pt_format::write::{self, Object, Tensor};
use pt_loader::{DataSet, Error, Loader, OnError, Prefetch};

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

#[cfg(unix)]
#[test]
fn files_without_permission_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = samples(8);
    let path = folder.path().join("005.pt");
    let epoch = epoch(folder.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::File::open(&path).is_ok() {
        return println!("skipped: whoever runs this may read anything");
    }
    let error = in_time(move || Prefetch::new(epoch, 2, OnError::Fail).find_map(Result::err).unwrap());
    assert!(matches!(error, Error::At { sample: 5, .. }), "{error}");
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
