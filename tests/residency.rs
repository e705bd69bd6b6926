//! What is touched is read, and nothing else: a 2 GiB file of which one 4 KiB tensor is used.

#[path = "../benches/common/mod.rs"]
mod files;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pt_format::DType;
use pt_format::write::{Object, Storage, Tensor};
use pt_index::FileSource;
use pt_view::{Advice, CheckedRecords, FileBytes, IndexPolicy, Mapping, OpenOptions, TensorView};
use tempfile::TempDir;

const PAGE_TENSOR_BYTES: u64 = 4096;
/// What parsing the file may read of it.
const PARSED_BYTES_MAX: usize = 2 << 20;
/// What touching the tensor may.
const TOUCHED_BYTES_MAX: usize = 64 << 10;

/// A sparse file of 128 tensors of so many bytes, and a small one.
fn sparse(tensor_bytes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("sparse.pt");
    let zeros = |bytes: u64| {
        let storage = Storage::zeros(bytes);
        Object::from(Tensor::strided(DType::UInt8, &[bytes], &[1], 0, &storage).unwrap())
    };
    let large = (0..128).map(|number| (format!("large.{number}"), zeros(tensor_bytes)));
    let small = std::iter::once(("small".to_owned(), zeros(PAGE_TENSOR_BYTES)));
    files::save(&path, &Object::dict(large.chain(small).collect::<Vec<_>>()));
    (folder, path)
}

/// Writing a file, and parsing it, leaves pages behind; without `dd` they only make the tests stricter.
fn evict(path: &Path) {
    let _ = Command::new("sync").arg(path).status();
    let input = format!("if={}", path.display());
    let _ = Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status();
}

fn open(path: &Path, policy: IndexPolicy) -> Mapping {
    // SAFETY: the file is this test's own.
    unsafe { Mapping::open_with(path, &OpenOptions { index: policy, ..Default::default() }) }.unwrap()
}

#[test]
fn one_small_tensor_of_a_large_file_leaves_the_rest_on_disk() {
    let (_folder, path) = sparse(16 << 20);
    assert!(std::fs::metadata(&path).unwrap().len() > 2 << 30);
    let index = pt_index::build_file(&path, &Default::default()).unwrap();
    pt_index::save(&index, &pt_index::sidecar_path(&path)).unwrap();

    for policy in [IndexPolicy::Parse, IndexPolicy::Sidecar] {
        evict(&path);
        let mapping = open(&path, policy);
        let Some(opened) = mapping.resident() else {
            println!("skipped: this platform does not tell which pages are resident");
            return;
        };
        let small = mapping.tensor("small").unwrap();
        assert_eq!(small.as_slice::<u8>().unwrap().iter().map(|&byte| u64::from(byte)).sum::<u64>(), 0);
        let (opened, touched) = (opened.bytes(), mapping.resident().unwrap().bytes());
        println!(
            "{policy:?}: of {} bytes, {opened} are resident when it is open",
            mapping.bytes().unwrap().len()
        );
        println!("{policy:?}: {} more when the tensor was read", touched - opened);
        assert!(small.resident().unwrap().pages.iter().all(|&page| page), "what was read must be resident");
        match policy {
            IndexPolicy::Sidecar => assert!(touched < TOUCHED_BYTES_MAX, "{touched} bytes are resident"),
            _ => assert!(opened < PARSED_BYTES_MAX, "{opened} bytes are resident"),
        }
        assert!(touched - opened < TOUCHED_BYTES_MAX, "{policy:?}: {} bytes were read", touched - opened);
    }
}

/// The advice of one tensor brings it into memory and takes it out, and leaves the next one alone.
#[test]
fn advice_moves_one_tensor_in_and_out_of_memory() {
    let (_folder, path) = sparse(4 << 20);
    evict(&path);
    let mapping = open(&path, IndexPolicy::Parse);
    let (tensor, next) = (mapping.tensor("large.64").unwrap(), mapping.tensor("large.66").unwrap());
    let resident = |view: &TensorView<'_>| view.resident().map_or(0, |resident| resident.bytes());
    let Some(before) = tensor.resident() else {
        println!("skipped: this platform does not tell which pages are resident");
        return;
    };
    assert!(before.pages.len() * before.page_bytes >= 4 << 20);
    assert_eq!(before.bytes(), 0, "nothing was read yet");

    for advice in [Advice::Sequential, Advice::HugePages, Advice::Random] {
        tensor.advise(advice).unwrap();
        assert_eq!(resident(&tensor), 0);
    }
    tensor.prefetch().unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while resident(&tensor) < 4 << 20 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(tensor.resident().unwrap().pages.iter().all(|&page| page), "all of it is read ahead");
    assert_eq!(resident(&next), 0);

    if next.row(0).unwrap().populate().unwrap() {
        assert!(resident(&next) > 0);
        assert!(next.populate().unwrap());
        assert!(next.resident().unwrap().pages.iter().all(|&page| page));
    }
    assert_eq!(tensor.as_slice::<u8>().unwrap().iter().max(), Some(&0));
    tensor.advise(Advice::DontNeed).unwrap();
    assert!(resident(&tensor) < 4 << 12, "{} bytes stay", resident(&tensor));
    assert_eq!(tensor.as_slice::<u8>().unwrap()[1 << 20], 0);
    mapping.advise(Advice::DontNeed).unwrap();
    mapping.prefetch().unwrap();
}

/// Pages of files that this process has mapped and touched, in bytes.
fn mapped_and_touched() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Who goes through a large file and gives back what lies behind stays small.
#[test]
fn a_large_map_is_walked_in_little_memory() {
    const TENSOR_BYTES: u64 = 16 << 20;
    let (_folder, path) = sparse(TENSOR_BYTES);
    let mapping = open(&path, IndexPolicy::Parse);
    let Some(before) = mapped_and_touched() else {
        println!("skipped: this platform does not tell what is resident");
        return;
    };
    let grown = || mapped_and_touched().unwrap().saturating_sub(before);
    let touch = |tensor: &TensorView<'_>| {
        tensor.advise(Advice::Sequential).unwrap();
        assert!(tensor.as_slice::<u8>().unwrap().iter().step_by(4096).all(|&byte| byte == 0));
    };
    let (first, rest) = (8, mapping.tensors().skip(8));
    mapping.tensors().take(first).for_each(|tensor| touch(&tensor));
    assert!(
        grown() > 7 * TENSOR_BYTES,
        "what is touched stays, as long as nothing is given back: {}",
        grown()
    );
    mapping.tensors().take(first).for_each(|tensor| tensor.advise(Advice::DontNeed).unwrap());

    let mut most = 0;
    for tensor in rest {
        touch(&tensor);
        most = most.max(grown());
        tensor.advise(Advice::DontNeed).unwrap();
    }
    println!("at most {most} bytes were resident of {}", mapping.bytes().unwrap().len());
    assert!(most < 4 * TENSOR_BYTES, "{most}");
}

/// Files that are read have advice too, and no map to ask about.
#[test]
fn advice_for_files_that_are_read_or_in_memory_is_taken() {
    let (_folder, path) = sparse(1 << 20);
    let source = FileSource::open(&path).unwrap();
    let index = pt_index::build_source(&path, &source, &Default::default()).unwrap();
    let checked = CheckedRecords::new(index.storage_count());
    for file in [FileBytes::read(&source, &checked), FileBytes::new(&std::fs::read(&path).unwrap())] {
        let view = TensorView::new(index.find_tensor("large.7").unwrap(), file);
        for advice in
            [Advice::Random, Advice::Sequential, Advice::WillNeed, Advice::DontNeed, Advice::HugePages]
        {
            view.advise(advice).unwrap();
        }
        view.prefetch().unwrap();
        assert!(!view.populate().unwrap());
        assert_eq!(view.resident(), None);
    }
}

/// Bytes that this thread has read, from the page cache or the disk.
fn bytes_read() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test]
fn a_row_of_a_large_tensor_is_read_alone() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("rows.pt");
    const ROWS: u64 = 1 << 20;
    let storage = Storage::zeros(ROWS << 11);
    files::save(
        &path,
        &Tensor::strided(DType::Int16, &[ROWS, 1024], &[1024, 1], 0, &storage).unwrap().into(),
    );
    let source = FileSource::open(&path).unwrap();
    let index = pt_index::build_source(&path, &source, &Default::default()).unwrap();
    let checked = CheckedRecords::new(index.storage_count());
    let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::read(&source, &checked));

    let row = view.row(ROWS / 2).unwrap();
    let place = row.locate().unwrap();
    assert_eq!((place.offset - view.locate().unwrap().offset, place.length), (ROWS / 2 * 2048, 2048));
    row.to_vec::<i16>().unwrap(); // the local header is read once
    let before = bytes_read();
    for number in [0, 7, ROWS - 1] {
        assert_eq!(view.row(number).unwrap().to_vec::<i16>().unwrap(), [0; 1024]);
    }
    match before.zip(bytes_read()) {
        // Asking is reading, too.
        Some((before, after)) => {
            assert!((3 * 2048..4 * 2048).contains(&(after - before)), "{}", after - before)
        }
        None => println!("skipped: this platform does not tell what a thread has read"),
    }
}

/// A column of wide rows, read element by element; many columns of narrow rows, read at once but not all in memory.
#[test]
fn a_column_of_a_large_tensor_is_read_without_the_rows() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("columns.pt");
    let storage = Storage::zeros(1 << 30);
    files::save(
        &path,
        &Tensor::strided(DType::UInt8, &[1 << 10, 1 << 20], &[1 << 20, 1], 0, &storage).unwrap().into(),
    );
    let file = Mapping::open_read(&path, &OpenOptions::default()).unwrap();
    let view = file.tensor("").unwrap();
    view.row(0).unwrap().to_bytes().unwrap(); // the local header is read once
    let before = bytes_read();
    assert_eq!(view.select(1, 77).unwrap().to_bytes().unwrap(), [0; 1 << 10]);
    match before.zip(bytes_read()) {
        Some((before, after)) => assert!(after - before < 8 << 10, "{}", after - before),
        None => println!("skipped: this platform does not tell what a thread has read"),
    }
}

/// The elements of a few columns are read alone, and not the 256 MiB they lie in.
#[test]
fn walking_a_column_reads_the_column() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("walked.pt");
    let storage = Storage::zeros(1 << 28);
    files::save(
        &path,
        &Tensor::strided(DType::Int16, &[64, 1 << 21], &[1 << 21, 1], 0, &storage).unwrap().into(),
    );
    let source = FileSource::open(&path).unwrap();
    let index = pt_index::build_source(&path, &source, &Default::default()).unwrap();
    let checked = CheckedRecords::new(index.storage_count());
    let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::read(&source, &checked));
    let column = view.narrow(1, 1000, 3).unwrap();
    assert_eq!(column.iter::<i16>().unwrap().count(), 64 * 3); // the local header is read once
    let before = bytes_read();
    assert!(column.iter::<i16>().unwrap().eq([0; 64 * 3]));
    match before.zip(bytes_read()) {
        Some((before, after)) => assert!((64 * 6..4096).contains(&(after - before)), "{}", after - before),
        None => println!("skipped: this platform does not tell what a thread has read"),
    }
}
