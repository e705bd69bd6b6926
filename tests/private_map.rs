//! Maps that may be written to: what is written is seen by nobody else.

#[path = "../benches/common/mod.rs"]
mod files;

use std::fs;
use std::path::Path;

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_view::{Advice, Error, FileCache, Mapping, Obstacle, OpenOptions};

fn open(path: &Path) -> Mapping {
    Mapping::open_read(path, &OpenOptions::default()).unwrap()
}

/// `whole`: 0, 1, 2, … as int32; `part`: a column of it.
fn two_views(path: &Path) {
    let storage = Storage::new(bytemuck::cast_slice(&(0..60).collect::<Vec<i32>>()).to_vec());
    let tensor = |shape: &[u64], stride: &[u64], offset| {
        Object::from(Tensor::strided(DType::Int32, shape, stride, offset, &storage).unwrap())
    };
    let object = [("whole", tensor(&[60], &[1], 0)), ("part", tensor(&[5], &[10], 3))];
    fs::write(path, write::to_vec(&Object::dict(object)).unwrap()).unwrap();
}

#[test]
fn what_is_written_to_a_private_map_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    two_views(&path);
    let before = fs::read(&path).unwrap();
    let file = open(&path);
    // SAFETY: the file is this test's own, and not written to while it is mapped.
    let (one, other) = unsafe { (file.map_private().unwrap(), file.map_private().unwrap()) };
    let part = one.lend(&file.tensor("part").unwrap()).unwrap();
    assert_eq!(part.len(), (4 * 10 + 1) * 4, "from the first element to the last");
    // SAFETY: the map lives, and nobody else uses these bytes now.
    unsafe { (*part).copy_from_slice(&[0xFF; 41 * 4]) };
    one.advise(Advice::DontNeed, 0, one.len()).unwrap();
    for (map, expected) in [(&one, -1), (&other, 3)] {
        let whole = map.lend(&file.tensor("whole").unwrap()).unwrap();
        // SAFETY: as above.
        let whole: &[i32] = bytemuck::cast_slice(unsafe { &*whole });
        assert_eq!((whole[2], whole[3], whole[59]), (2, expected, 59));
    }
    drop(one);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(file.tensor("part").unwrap().to_vec::<i32>().unwrap(), [3, 13, 23, 33, 43]);

    let mut map = other;
    assert_eq!(map.as_mut_slice(), before);
    map.as_mut_slice().fill(0);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_not_there_as_it_is_is_not_lent() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fixtures");
    let mut refused = 0;
    for entry in ["zip", "legacy"].into_iter().flat_map(|kind| fs::read_dir(fixtures.join(kind)).unwrap()) {
        let path = entry.unwrap().path();
        let Ok(file) = Mapping::open_read(&path, &OpenOptions::default()) else { continue };
        // SAFETY: nobody writes to the fixtures.
        let map = unsafe { file.map_private() }.unwrap();
        for tensor in file.tensors() {
            match map.lend(&tensor) {
                Ok(bytes) => {
                    // SAFETY: the map lives, and nobody else uses these bytes.
                    let lent = unsafe { &*bytes };
                    match tensor.caps().needs_gather || tensor.dtype().unwrap().packing().is_some() {
                        true => assert_eq!(lent.len() as u64, tensor.locate().unwrap().length),
                        false => assert_eq!(lent, tensor.to_bytes().unwrap()),
                    }
                }
                Err(error) => {
                    assert!(!tensor.caps().typed, "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_map_of_a_shorter_file_lends_nothing_behind_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    two_views(&path);
    let file = open(&path);
    let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap().index;
    let files = FileCache::new(folder.path(), index);
    let cached = files.file(0).unwrap();
    file.tensor("whole").unwrap().to_bytes().unwrap(); // its local header is checked
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    // SAFETY: the file is this test's own, and not written to while it is mapped.
    let map = unsafe { cached.map_private() }.unwrap();
    assert_eq!(map.len(), 100);
    match map.lend(&file.tensor("whole").unwrap()) {
        Err(Error::Refused { obstacle: Obstacle::OutsideFile { length: 100, .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Memory for pages that nobody writes to is not set aside, so files larger than memory can be mapped.
#[test]
fn a_file_larger_than_memory_is_mapped() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("sparse.pt");
    let storage = Storage::zeros(1 << 30);
    let tensor = Tensor::strided(DType::UInt8, &[1 << 30], &[1], 0, &storage).unwrap();
    files::save(&path, &Object::dict([("x", tensor.into())]));
    let longer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let file = open(&path);
    longer.set_len(1 << 42).unwrap();
    // SAFETY: the file is this test's own, and not written to while it is mapped.
    let map = unsafe { file.map_private() }.unwrap();
    let bytes = map.lend(&file.tensor("x").unwrap()).unwrap();
    // SAFETY: the map lives, and nobody else uses the bytes.
    let bytes = unsafe { &mut *bytes };
    bytes[1 << 29] = 1;
    assert_eq!(bytes[(1 << 29) - 1..][..3], [0, 1, 0]);
}
