//! A pickle in a sound archive, as a template for the same file with some bytes changed: what matches must be what parsing it
//! says. Input: how many bytes are changed, where and to what, then the pickle.
#![no_main]

#[path = "../../tests/common/description.rs"]
mod description;

use pt_format::{Checkpoint, Template};

use crate::description::Description;

const CHANGE_BYTES: usize = 3;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let Some((changes, pickle)) = rest.split_at_checked(usize::from(count % 8) * CHANGE_BYTES) else {
        return;
    };
    let (mut file, limits) = (ptview_fuzz::padded_archive(pickle), ptview_fuzz::limits());
    let original = file.clone();
    let Ok(checkpoint) = Checkpoint::parse(&original, &limits) else { return };
    let Some(template) = Template::of(&original, &checkpoint, &limits) else { return };
    for change in changes.chunks_exact(CHANGE_BYTES) {
        // The places of the pickle, and those of the directory from the end on.
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]) % 2048);
        let at = if at < 1024 { at } else { file.len().wrapping_sub(at - 1023) };
        if let Some(byte) = file.get_mut(at) {
            *byte = change[2];
        }
    }
    let Some(alike) = template.compare(&file) else { return };
    let parsed = Checkpoint::parse(&file, &limits).expect("what matches can be parsed");
    assert_eq!(Description::of(&checkpoint).told_by(&alike), Description::of(&parsed));
});
