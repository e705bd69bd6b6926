//! What is touched is read, and nothing else: a 1 GiB file of which one 4 KiB tensor is used.

#[path = "../benches/common/mod.rs"]
mod files;

use std::path::Path;
use std::process::Command;

use pt_format::DType;
use pt_format::write::{Object, Storage, Tensor};
use pt_index::FileSource;
use pt_view::{CheckedRecords, FileBytes, IndexPolicy, Mapping, TensorView};

const PAGE_TENSOR_BYTES: u64 = 4096;
const RESIDENT_BYTES_MAX: usize = 2 << 20;

fn gibibyte(path: &Path) {
    let zeros = |bytes: u64| {
        let storage = Storage::zeros(bytes);
        Object::from(Tensor::strided(DType::UInt8, &[bytes], &[1], 0, &storage).unwrap())
    };
    let large = (0..64).map(|number| (format!("large.{number}"), zeros(16 << 20)));
    let small = std::iter::once(("small".to_owned(), zeros(PAGE_TENSOR_BYTES)));
    files::save(path, &Object::dict(large.chain(small).collect::<Vec<_>>()));
}

#[test]
fn one_small_tensor_of_a_large_file_leaves_the_rest_on_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("gibibyte.pt");
    gibibyte(&path);
    assert!(std::fs::metadata(&path).unwrap().len() > 1 << 30);
    // Writing it left pages behind; without `dd` they only make the test stricter.
    let _ = Command::new("sync").arg(&path).status();
    let _ = Command::new("dd")
        .args([&format!("if={}", path.display()), "iflag=nocache", "count=0", "status=none"])
        .status();

    for policy in [IndexPolicy::Parse, IndexPolicy::Sidecar] {
        if policy == IndexPolicy::Sidecar {
            pt_index::save(
                &pt_index::build_file(&path, &Default::default()).unwrap(),
                &pt_index::sidecar_path(&path),
            )
            .unwrap();
        }
        // SAFETY: the file is this test's own.
        let mapping = unsafe { Mapping::open_with(&path, policy, &Default::default()) }.unwrap();
        let small = mapping.tensor("small").unwrap();
        assert_eq!(small.as_slice::<u8>().unwrap().iter().map(|&byte| u64::from(byte)).sum::<u64>(), 0);
        let Some(resident) = mapping.resident_bytes() else {
            println!("skipped: this platform does not tell which pages are resident");
            return;
        };
        println!("{policy:?}: {resident} bytes of {} resident", mapping.bytes().len());
        assert!(
            resident >= PAGE_TENSOR_BYTES as usize,
            "{policy:?}: the tensor that was read must be resident"
        );
        assert!(resident < RESIDENT_BYTES_MAX, "{policy:?}: {resident} bytes are resident");
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
