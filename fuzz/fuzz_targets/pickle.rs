//! A pickle, as `data.pkl` of an archive that is otherwise sound and has two storages of 64 bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| ptview_fuzz::exercise(&ptview_fuzz::archive(pickle)));
