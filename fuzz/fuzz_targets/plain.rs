//! A plain pickle, and the same bytes as the plan of a distributed checkpoint.
#![no_main]

use pt_format::distributed::Metadata;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ptview_fuzz::exercise(bytes);
    if let Ok(metadata) = Metadata::parse(bytes, &ptview_fuzz::limits()) {
        for item in &metadata.items {
            assert!(!item.file.contains(['/', '\\']) && *item.file != *"..");
        }
        let _ = format!("{metadata:?}");
    }
});
