//! What follows the magic number, protocol and system information of a legacy file.
#![no_main]

/// The three pickles as torch 1.0 writes them.
const HEAD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}q\x00(X\x10\0\0\0protocol_versionq\x01M\xe9\x03X\x0d\0\0\0little_endianq\x02\x88u.";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ptview_fuzz::exercise(&[HEAD, bytes].concat()));
