//! A file of any container: parsed, indexed, read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ptview_fuzz::exercise(bytes));
