//! What several targets do with bytes.

use pt_format::{Checkpoint, Limits, audit};
use pt_index::Index;
use pt_view::{FileBytes, TensorView};

/// Tensors that would be copied into more than this are not: expanding a tensor of stride 0 is a right answer.
const TENSOR_BYTES_MAX: u64 = 1 << 20;

/// The defaults, but for what a small file may rightly cost: the fuzzer has 2 GB and a few seconds, and its code is slow.
pub fn limits() -> Limits {
    Limits {
        pickle_bytes: 4 << 20,
        inflated_bytes: 4 << 20,
        alias_paths: 1000,
        expanded_values: 10_000,
        ..Limits::default()
    }
}

/// Parses, indexes and reads a file.
pub fn exercise(bytes: &[u8]) {
    let limits = limits();
    let _ = audit(bytes, &limits);
    let Ok(checkpoint) = Checkpoint::parse(bytes, &limits) else { return };
    let _ = (checkpoint.check(), checkpoint.globals(), checkpoint.values().to_plain());
    let Ok(index) = pt_index::index_of(&checkpoint) else { return };
    let index = Index::from_bytes(index.as_bytes().to_vec()).expect("what we wrote can be read");
    walk(&index, bytes);
}

/// Calls every accessor of an index, and reads every tensor.
pub fn walk(index: &Index, file: &[u8]) {
    let _ = (index.verify(), format!("{index:?}"));
    for file in index.files() {
        let _ = (file.path(), file.stamp(), file.fingerprint(), file.byte_order(), format!("{file:?}"));
        let _ = (file.leaves().count(), file.leaf("epoch"), index.find_file(&file.path()).is_some());
        for tensor in file.tensors() {
            let _ = (file.tensor(tensor.name()).is_some(), tensor.file().row());
        }
    }
    for row in 0..index.tensor_count() {
        let Some(entry) = index.tensor(row) else { continue };
        let _ = (entry.path(), entry.numel(), entry.layout(), entry.flags(), format!("{entry:?}"));
        let _ = (entry.class(), entry.quantizer(), entry.fault(), entry.is_contiguous());
        let _ = (entry.alias_of().is_some(), entry.storage().map(|s| (s.nbytes(), s.record(), s.fault())));
        let view = TensorView::new(entry, FileBytes::new(file));
        let _ = (view.caps(), view.locate(), view.packed_bytes().is_ok(), view.as_slice::<f32>().is_ok());
        let record_bytes =
            entry.storage().and_then(|storage| storage.record()).map_or(0, |record| record.bytes);
        if entry.nbytes().is_some_and(|bytes| bytes.max(record_bytes) <= TENSOR_BYTES_MAX) {
            let copied = view.to_bytes();
            if let (Ok(lent), Ok(copied)) = (view.as_bytes(), &copied) {
                assert_eq!(lent, copied);
            }
        }
    }
}

/// An archive around a pickle, with two storages of 64 bytes: stored records without CRCs or padding.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    archive_of(pickle, |_| Vec::new())
}

/// The same with the padding of torch, so that its directory alone tells where its records are.
pub fn padded_archive(pickle: &[u8]) -> Vec<u8> {
    archive_of(pickle, |start| {
        let padding = (start + 4).next_multiple_of(64) - (start + 4);
        [&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat()
    })
}

/// `extra` makes the extra field of a local header, given where it starts.
fn archive_of(pickle: &[u8], extra: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in [("a/data.pkl", pickle), ("a/data/0", &[1; 64][..]), ("a/data/1", &[2; 64][..])] {
        let (offset, size) = (file.len() as u32, data.len() as u32);
        let mut sizes = [0; 4].to_vec();
        sizes.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        sizes.extend((name.len() as u16).to_le_bytes());
        let extra = extra(file.len() + 30 + name.len());
        let extra_bytes = (extra.len() as u16).to_le_bytes();
        file.extend(
            [&b"PK\x03\x04"[..], &[0; 10], &sizes, &extra_bytes, name.as_bytes(), &extra, data].concat(),
        );
        directory.extend(
            [&b"PK\x01\x02"[..], &[0; 12], &sizes, &[0; 12], &offset.to_le_bytes(), name.as_bytes()].concat(),
        );
    }
    let (offset, size) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend(
        [&b"PK\x05\x06\0\0\0\0\x03\0\x03\0"[..], &size.to_le_bytes(), &offset.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    file
}
