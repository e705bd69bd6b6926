//! Data sets and their epochs, and files that change under them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pt_format::write::{self, Object, Tensor};
use pt_loader::{DataSet, Error, Loader, Scalar};

fn write_sample(folder: &Path, number: u32) {
    let values: Vec<f32> = (0..12).map(|at| (number * 100 + at) as f32).collect();
    let mask = [number.is_multiple_of(2), true, false];
    let object = Object::dict([
        ("x", Tensor::new::<f32>(&[3, 4], &values).unwrap().into()),
        ("mask", Tensor::new::<bool>(&[3], &mask).unwrap().into()),
        ("y", Object::from(i64::from(number))),
        ("meta", Object::dict([("id", Object::from(format!("id-{number}")))])),
    ]);
    fs::write(folder.join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
}

fn samples(count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (0..count).for_each(|number| write_sample(folder.path(), number));
    folder
}

#[test]
fn an_epoch_brings_every_sample_once_with_its_own_values() {
    let folder = samples(103);
    let data = DataSet::open(folder.path()).unwrap();
    for (epoch, shuffle) in [(0, false), (0, true), (1, true)] {
        let loader = Loader::new(&data, 10);
        let loader = if shuffle { loader.shuffle(9) } else { loader };
        let mut order = Vec::new();
        for batch in loader.epoch(epoch) {
            let batch = batch.unwrap();
            let x = batch.tensor("x").unwrap();
            assert_eq!(x.shape(), [batch.len() as u64, 3, 4]);
            assert_eq!(x.as_bytes().as_ptr() as usize % 64, 0);
            let mask = batch.tensor("mask").unwrap().as_slice::<bool>().unwrap();
            for (row, &sample) in batch.samples().iter().enumerate() {
                let first = x.as_slice::<f32>().unwrap()[row * 12];
                assert_eq!(first, (sample * 100) as f32);
                assert_eq!(mask[row * 3..][..3], [sample % 2 == 0, true, false]);
                assert_eq!(batch.column("y").unwrap()[row], Scalar::Int(sample as i64));
                assert_eq!(batch.column("meta.id").unwrap()[row], Scalar::Str(format!("id-{sample}")));
            }
            order.extend_from_slice(batch.samples());
        }
        assert_eq!(order.is_sorted(), !shuffle);
        order.sort_unstable();
        assert_eq!(order, (0..103).collect::<Vec<_>>());
    }
    let wrong = data.gather(&[0]).unwrap();
    assert!(matches!(wrong.tensor("x").unwrap().as_slice::<f64>(), Err(Error::WrongType { .. })));
    assert!(matches!(data.gather(&[103]), Err(Error::NoSuchSample { sample: 103, count: 103 })));
    assert!(data.gather(&[]).unwrap().is_empty());
}

#[test]
fn a_kept_index_is_used() {
    let folder = samples(5);
    let built = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap();
    pt_index::save(&built.index, &pt_index::sidecar_path(folder.path())).unwrap();
    // A file that came later is not in the index.
    write_sample(folder.path(), 5);
    assert_eq!(DataSet::open(folder.path()).unwrap().len(), 5);
}

#[test]
fn files_that_change_are_errors_that_name_them() {
    let folder = samples(4);
    let data = DataSet::open(folder.path()).unwrap();
    data.gather(&[0, 1, 2, 3]).unwrap();

    // Cut off after it was indexed.
    let path = folder.path().join("001.pt");
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    // Gone.
    fs::remove_file(folder.path().join("002.pt")).unwrap();
    // Another sample in its place, of the same size.
    write_sample(folder.path(), 7);
    fs::rename(folder.path().join("007.pt"), folder.path().join("003.pt")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(100);
    fs::File::options().write(true).open(folder.path().join("003.pt")).unwrap().set_modified(later).unwrap();

    for (sample, expected) in [(1, "stale"), (2, "No such file"), (3, "stale")] {
        let error = data.gather(&[0, sample]).err().unwrap().to_string();
        println!("{error}");
        assert!(error.contains(&format!("{sample:03}.pt")) && error.contains(expected), "{error}");
    }
    data.gather(&[0]).unwrap();
}

#[test]
fn samples_that_differ_from_the_first_are_errors_that_say_how() {
    let folder = samples(2);
    let object = Object::dict([("x", Tensor::new::<f32>(&[2], &[1.0, 2.0]).unwrap().into())]);
    fs::write(folder.path().join("002.pt"), write::to_vec(&object).unwrap()).unwrap();
    let data = DataSet::open(folder.path()).unwrap();
    let error = data.gather(&[2]).err().unwrap();
    assert!(matches!(&error, Error::Differs { tensor, .. } if tensor == "x"), "{error}");
    assert!(matches!(DataSet::open(tempfile::tempdir().unwrap().path()), Err(Error::Empty { .. })));
}
