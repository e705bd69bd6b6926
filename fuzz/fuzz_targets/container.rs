//! The zip directory, and every record it speaks of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pt_format::Archive;

fuzz_target!(|bytes: &[u8]| {
    let Ok(archive) = Archive::parse(bytes) else { return };
    let _ = archive.root();
    for (index, entry) in archive.entries().iter().enumerate() {
        let _ = (archive.find(archive.name(entry)), entry.fault(), archive.record(index));
        let computed = archive.computed_data_start(index);
        if let Ok(read) = archive.read_record(index, 1 << 20) {
            assert_eq!(read.len() as u64, entry.size);
        }
        let _ = (computed, archive.record(index).map(|record| record.verify(bytes)));
    }
});
