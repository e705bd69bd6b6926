//! An index, which is as little to be trusted as the file it speaks of.
#![no_main]

use pt_index::Index;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::from_bytes(bytes.to_vec()) {
        // Offsets may point into the file or not; the index's own bytes are as good as any.
        ptview_fuzz::walk(&index, bytes);
    }
});
