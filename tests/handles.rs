//! Open files and maps: a folder of any size with few of them, and files that change under a reader.

use std::fs::{self, OpenOptions as FileOptions};
use std::path::Path;
use std::process::Command;

use pt_format::write::{self, Object, Tensor};
use pt_index::Index;
use pt_view::{Access, Error, FileCache, IndexPolicy, Mapping, Obstacle, OpenOptions};

const FILES: usize = 1000;

/// Writes files whose tensor `x` holds their own number, many times over, and indexes them.
fn folder_of(folder: &Path, files: usize, elements: usize) -> Index {
    for number in 0..files {
        let elements = vec![number as u32; elements];
        let tensor = Tensor::new(&[elements.len() as u64], &elements).unwrap();
        let object = Object::dict([("x", tensor.into())]);
        fs::write(folder.join(format!("{number:04}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    pt_index::build_folder(folder, None, &Default::default(), |_| {}).unwrap().index
}

fn obstacle<T>(result: pt_view::Result<T>) -> Obstacle {
    match result.err().expect("is refused") {
        Error::Refused { obstacle, .. } => obstacle,
        other => panic!("{other}"),
    }
}

/// How often this process holds something of a folder: descriptors, and maps.
#[cfg(target_os = "linux")]
fn held(folder: &Path) -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let maps = maps.lines().filter(|line| line.contains(folder.to_str().unwrap())).count();
    (links.filter(|link| link.starts_with(folder)).count(), maps)
}

/// Threads that panic while they hold files and views give them back, and leave the cache to the others.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_panics_with_views_in_hand_takes_nothing_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let index = folder_of(&folder, 40, 2000);
    for map in [false, true] {
        let files = FileCache::new(&folder, index.clone()).with_capacity(8);
        // SAFETY: the files are this test's own.
        let files = if map { unsafe { files.with_access(Access::Map) } } else { files };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let files = &files;
                let all_at_once = scope.spawn(move || {
                    let held: Vec<_> = (0..10).map(|at| files.file(thread * 10 + at).unwrap()).collect();
                    let views: Vec<_> = held.iter().map(|file| file.tensor("x").unwrap()).collect();
                    let values = views[3].to_cow::<u32>().unwrap();
                    assert!(values.is_empty(), "a consumer that panics");
                });
                assert!(all_at_once.join().is_err());
            }
        });
        let (descriptors, maps) = held(&folder);
        assert!(descriptors <= 8 && maps <= 8 && files.open_count() <= 8, "{descriptors}, {maps}");
        for number in 0..40 {
            let file = files.file(number).unwrap();
            assert_eq!(file.tensor("x").unwrap().to_cow::<u32>().unwrap()[7], number as u32);
        }
        drop(files);
        assert_eq!(held(&folder), (0, 0));
    }
}

#[cfg(unix)]
#[test]
fn a_thousand_files_are_read_with_sixty_four_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder_of(folder.path(), FILES, 3);
    pt_index::save(&index, &pt_index::sidecar_path(folder.path())).unwrap();
    for how in ["read", "map", "greedy"] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact child --nocapture --ignored"])
            .arg(std::env::current_exe().unwrap())
            .env("PTVIEW_FOLDER", folder.path())
            .env("PTVIEW_HOW", how)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("all files were read"), "{how}: {output:?}");
    }
}

/// Run by the test above, under its limit.
#[test]
#[ignore = "run in a child process by the test above, under its limit of files"]
fn child() {
    let (Some(folder), Ok(how)) = (std::env::var_os("PTVIEW_FOLDER"), std::env::var("PTVIEW_HOW")) else {
        return;
    };
    let folder = Path::new(&folder);
    let index = pt_index::read(&pt_index::sidecar_path(folder)).unwrap();
    let files = FileCache::new(folder, index);
    assert_eq!(files.capacity(), 16, "a quarter of the descriptors");
    let files = match &how[..] {
        "read" => files,
        // SAFETY: the files are this test's own.
        "map" => unsafe { files.with_access(Access::Map) },
        // More than there are: then the cache makes room when the system says no.
        _ => files.with_capacity(FILES),
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let files = &files;
            scope.spawn(move || {
                for step in 0..2 * FILES {
                    let number = (step * 7 + thread * 311) % FILES;
                    let file = files.file(number).unwrap();
                    assert_eq!(file.tensor("x").unwrap().to_cow::<u32>().unwrap()[..], [number as u32; 3]);
                }
            });
        }
    });
    assert!(files.open_count() <= files.capacity().min(64));
    println!("all files were read, {} are open", files.open_count());
}

#[test]
fn files_used_last_stay_open_and_those_in_use_too() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileCache::new(folder.path(), folder_of(folder.path(), 4, 3)).with_capacity(2);
    let first = files.file(0).unwrap();
    for number in 1..4 {
        files.file(number).unwrap();
        assert!(files.open_count() <= 2);
    }
    // Closed for the cache, not for who holds it.
    assert_eq!(first.tensor("x").unwrap().to_vec::<u32>().unwrap(), [0; 3]);
    assert_eq!(first.tensor_at(0).unwrap().name(), "x");
    assert_eq!(first.tensors().count(), 1);
    fs::remove_file(folder.path().join("0000.pt")).unwrap();
    fs::remove_file(folder.path().join("0003.pt")).unwrap();
    assert!(files.file(3).is_ok(), "it is still open");
    let gone = files.file(0).unwrap_err();
    assert!(matches!(gone, Error::Index(pt_index::Error::Io { .. })), "{gone}");
    assert!(matches!(files.file(4).unwrap_err(), Error::NoSuchFile { number: 4, count: 4 }));
    assert!(matches!(first.tensor("y").unwrap_err(), Error::NoSuchTensor { count: 1, .. }));
}

#[test]
fn another_file_in_its_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder_of(folder.path(), 2, 3);
    let path = folder.path().join("0001.pt");
    let other = write::to_vec(&Tensor::new(&[1], &[1.0f32]).unwrap().into()).unwrap();
    fs::write(&path, other).unwrap();
    let refused = FileCache::new(folder.path(), index).file(1).unwrap_err();
    assert!(matches!(refused, Error::Index(pt_index::Error::Stale { .. })), "{refused}");
}

#[test]
fn access_decides_what_can_be_borrowed() {
    let folder = tempfile::tempdir().unwrap();
    for (elements, access, mapped) in [
        (3, Access::Map, true),
        (3, Access::Auto, false),
        (1 << 19, Access::Auto, true),
        (1 << 19, Access::Read, false),
    ] {
        folder_of(folder.path(), 1, elements);
        let path = folder.path().join("0000.pt");
        let options = OpenOptions { access, index: IndexPolicy::Parse, ..Default::default() };
        // SAFETY: the file is this test's own, and not written to while it is open.
        let file = unsafe { Mapping::open_with(&path, &options) }.unwrap();
        let tensor = file.tensor("x").unwrap();
        assert_eq!(file.bytes().is_some(), mapped, "{elements} {access:?}");
        match mapped {
            true => assert_eq!(tensor.as_slice::<u32>().unwrap().len(), elements),
            false => assert_eq!(obstacle(tensor.as_slice::<u32>()), Obstacle::NotMapped),
        }
        assert_eq!(tensor.to_cow::<u32>().unwrap().len(), elements);
    }
}

/// A map would end the process here; see [`Access`].
#[test]
fn a_file_that_shrinks_is_an_error_for_who_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    folder_of(folder.path(), 1, 100_000);
    let path = folder.path().join("0000.pt");
    for read_before in [true, false] {
        folder_of(folder.path(), 1, 100_000);
        let file = Mapping::open_read(&path, &OpenOptions::default()).unwrap();
        let tensor = file.tensor("x").unwrap();
        if read_before {
            assert_eq!(tensor.to_vec::<u32>().unwrap().len(), 100_000);
        }
        FileOptions::new().write(true).open(&path).unwrap().set_len(200_000).unwrap();
        let refused = obstacle(tensor.to_vec::<u32>());
        assert!(matches!(refused, Obstacle::OutsideFile { length: 200_000, .. }), "{refused:?}");
        assert!(tensor.narrow(0, 0, 10).unwrap().to_vec::<u32>().is_ok(), "what is left can be read");
        FileOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(tensor.row(0).unwrap().to_vec::<u32>().is_err());
    }
}
