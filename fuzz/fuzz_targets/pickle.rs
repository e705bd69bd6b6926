//! A pickle, as `data.pkl` of an archive that is otherwise sound and has two storages of 64 bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| ptview_fuzz::exercise(&archive(pickle)));

/// Stored records without CRCs or padding.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in [("a/data.pkl", pickle), ("a/data/0", &[1; 64][..]), ("a/data/1", &[2; 64][..])] {
        let (offset, size) = (file.len() as u32, data.len() as u32);
        let mut sizes = [0; 4].to_vec();
        sizes.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        sizes.extend((name.len() as u16).to_le_bytes());
        file.extend([&b"PK\x03\x04"[..], &[0; 10], &sizes, &[0; 2], name.as_bytes(), data].concat());
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
