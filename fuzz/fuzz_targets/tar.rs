//! A tar archive of torch before 0.1.10, made of members that each end with a line of four dots: a sound archive around
//! bytes that need not be.
#![no_main]

/// The members in torch's order.
const MEMBERS: [&str; 4] = ["sys_info", "storages", "tensors", "pickle"];
const SEPARATOR: &[u8] = b"\n....\n";
const BLOCK_BYTES: usize = 512;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ptview_fuzz::exercise(&archive(bytes)));

fn archive(mut rest: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for name in MEMBERS {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let content = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |end| &rest[end + SEPARATOR.len()..]);
        let mut header = [0; BLOCK_BYTES];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[257..262].copy_from_slice(b"ustar");
        file.extend(header);
        file.extend(content);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    file.extend([0; 2 * BLOCK_BYTES]);
    file
}
