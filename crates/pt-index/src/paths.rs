//! Paths of files, front-coded: each says how much it shares with the one before.
//!
//! ```text
//! block of 16 paths:   0, length, bytes · shared, length, bytes · shared, length, bytes · …
//! ```
//!
//! Numbers are LEB128: seven bits a byte, the lowest first, the top bit set on all but the last. Sorted paths take a few
//! bytes each; any one is found by walking at most its block.

/// Paths that are coded one upon the other.
pub(crate) const BLOCK: usize = 16;

/// Codes paths one after the other.
#[derive(Default)]
pub(crate) struct PathWriter {
    pub(crate) blocks: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    last: String,
    count: usize,
}

impl PathWriter {
    pub(crate) fn push(&mut self, path: &str) {
        let shared = if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len() as u64);
            0
        } else {
            let same = self.last.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
            (0..=same).rev().find(|&at| path.is_char_boundary(at)).unwrap_or(0)
        };
        write_number(&mut self.bytes, shared);
        write_number(&mut self.bytes, path.len() - shared);
        self.bytes.extend_from_slice(&path.as_bytes()[shared..]);
        self.last.truncate(shared);
        self.last.push_str(&path[shared..]);
        self.count += 1;
    }
}

/// Writes the bytes of a path into `out`; false where the blocks are damaged.
pub(crate) fn read_path(blocks: &[u64], bytes: &[u8], number: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(&start) = blocks.get(number / BLOCK) else { return false };
    let Some(mut rest) = usize::try_from(start).ok().and_then(|start| bytes.get(start..)) else {
        return false;
    };
    for _ in 0..=number % BLOCK {
        let (Some(shared), Some(length)) = (read_number(&mut rest), read_number(&mut rest)) else {
            return false;
        };
        let Some((own, after)) = rest.split_at_checked(length) else { return false };
        if shared > out.len() {
            return false;
        }
        out.truncate(shared);
        out.extend_from_slice(own);
        rest = after;
    }
    true
}

fn write_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number and moves behind it.
pub(crate) fn read_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0usize;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_and_damage_is_noticed() {
        let paths: Vec<String> = (0..50).map(|n| format!("train/é{}/sample_{n:03}.pt", n / 20)).collect();
        let mut writer = PathWriter::default();
        paths.iter().for_each(|path| writer.push(path));
        writer.push(&"long/".repeat(100));
        let mut out = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            assert!(read_path(&writer.blocks, &writer.bytes, number, &mut out));
            assert_eq!(out, path.as_bytes());
        }
        assert!(read_path(&writer.blocks, &writer.bytes, 50, &mut out) && out.len() == 500);
        assert!(!read_path(&writer.blocks, &writer.bytes, 51, &mut out));
        assert!(!read_path(&writer.blocks, &writer.bytes, 999, &mut out));
        assert!(writer.bytes.len() < 50 * 12 + 510, "{}", writer.bytes.len());
        for at in 0..writer.bytes.len() {
            let mut damaged = writer.bytes.clone();
            damaged[at] ^= 0xFF;
            for number in 0..51 {
                let _ = read_path(&writer.blocks, &damaged, number, &mut out);
            }
        }
    }
}
