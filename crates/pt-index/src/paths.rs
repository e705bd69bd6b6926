//! Paths of files, front-coded: each says how much it shares with the one before.
//!
//! ```text
//! block of 8 paths:   0, length, bytes · shared, length, bytes · shared, length, bytes · …
//! ```
//!
//! Numbers are LEB128: seven bits a byte, the lowest first, the top bit set on all but the last. Sorted paths take a few
//! bytes each; any one is found by walking at most its block.

/// Paths that are coded one upon the other.
pub(crate) const BLOCK: usize = 8;

/// Codes paths one after the other.
#[derive(Default)]
pub(crate) struct PathWriter {
    pub(crate) blocks: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    last: String,
    count: usize,
}

impl PathWriter {
    /// Returns the path written last.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    pub(crate) fn push(&mut self, path: &str) {
        let shared = if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len() as u64);
            0
        } else {
            let same = common_prefix(self.last.as_bytes(), path.as_bytes());
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

/// Reads paths one after the other.
pub(crate) struct PathReader<'i> {
    blocks: &'i [u64],
    bytes: &'i [u8],
    /// What comes behind the last path, in its block.
    rest: &'i [u8],
    count: usize,
    path: Vec<u8>,
}

impl<'i> PathReader<'i> {
    pub(crate) fn new(blocks: &'i [u64], bytes: &'i [u8]) -> Self {
        Self { blocks, bytes, rest: &[], count: 0, path: Vec::new() }
    }

    /// Goes to the next path; false where there is none, or the blocks are damaged.
    pub(crate) fn advance(&mut self) -> bool {
        if self.count.is_multiple_of(BLOCK) {
            let block = self.blocks.get(self.count / BLOCK).and_then(|&start| usize::try_from(start).ok());
            let Some(rest) = block.and_then(|start| self.bytes.get(start..)) else { return false };
            self.rest = rest;
            self.path.clear();
        }
        self.count += 1;
        read_next(&mut self.rest, &mut self.path)
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }
}

/// Writes the bytes of a path into `out`; false where the blocks are damaged.
pub(crate) fn read_path(blocks: &[u64], bytes: &[u8], number: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(&start) = blocks.get(number / BLOCK) else { return false };
    let Some(mut rest) = usize::try_from(start).ok().and_then(|start| bytes.get(start..)) else {
        return false;
    };
    (0..=number % BLOCK).all(|_| read_next(&mut rest, out))
}

/// Returns how many of `count` sorted paths come before this one.
pub(crate) fn count_before(blocks: &[u64], bytes: &[u8], count: usize, path: &str) -> usize {
    let mut read = Vec::new();
    let (mut before, mut end) = (0, count);
    while before < end {
        let middle = before + (end - before) / 2;
        match read_path(blocks, bytes, middle, &mut read) && &*read < path.as_bytes() {
            true => before = middle + 1,
            false => end = middle,
        }
    }
    before
}

/// Returns whether the path with this number is `path`, without putting it together.
pub(crate) fn is_path(blocks: &[u64], bytes: &[u8], number: usize, path: &[u8]) -> bool {
    let start = blocks.get(number / BLOCK).and_then(|&start| usize::try_from(start).ok());
    let Some(mut rest) = start.and_then(|start| bytes.get(start..)) else { return false };
    // How many bytes the path before has, and how many of them are those of `path`.
    let (mut length, mut same) = (0, 0);
    for _ in 0..=number % BLOCK {
        let (Some(shared), Some(own)) = (read_number(&mut rest), read_number(&mut rest)) else {
            return false;
        };
        let Some((own, after)) = rest.split_at_checked(own) else { return false };
        if shared > length {
            return false;
        }
        if shared <= same {
            same = shared + common_prefix(own, path.get(shared..).unwrap_or_default());
        }
        length = shared + own.len();
        rest = after;
    }
    same == length && length == path.len()
}

/// Returns how many bytes two runs have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD)).take_while(|(a, b)| a == b).count() * WORD;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// Turns the path before into the next one.
fn read_next(rest: &mut &[u8], path: &mut Vec<u8>) -> bool {
    let (Some(shared), Some(length)) = (read_number(rest), read_number(rest)) else { return false };
    let Some((own, after)) = rest.split_at_checked(length) else { return false };
    if shared > path.len() {
        return false;
    }
    path.truncate(shared);
    path.extend_from_slice(own);
    *rest = after;
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
        let mut reader = PathReader::new(&writer.blocks, &writer.bytes);
        for path in &paths {
            assert!(reader.advance());
            assert_eq!(reader.path(), path.as_bytes());
        }
        for (number, path) in paths.iter().enumerate() {
            assert!(read_path(&writer.blocks, &writer.bytes, number, &mut out));
            assert_eq!(out, path.as_bytes());
            let before = |path: &str| count_before(&writer.blocks, &writer.bytes, paths.len(), path);
            assert_eq!((before(path), before(&format!("{path}/"))), (number, number + 1));
            for (other, same) in paths.iter().enumerate().map(|(at, other)| (other, at == number)) {
                assert_eq!(is_path(&writer.blocks, &writer.bytes, number, other.as_bytes()), same);
            }
            assert!(!is_path(&writer.blocks, &writer.bytes, number, &path.as_bytes()[1..]));
            assert!(!is_path(&writer.blocks, &writer.bytes, number, format!("{path}x").as_bytes()));
        }
        assert!(read_path(&writer.blocks, &writer.bytes, 50, &mut out) && out.len() == 500);
        assert!(!read_path(&writer.blocks, &writer.bytes, 51, &mut out));
        assert!(!read_path(&writer.blocks, &writer.bytes, 999, &mut out));
        assert!(writer.bytes.len() < 50 * 12 + 510, "{}", writer.bytes.len());
        // Miri is a thousand times slower.
        for at in (0..writer.bytes.len()).step_by(if cfg!(miri) { 397 } else { 1 }) {
            let mut damaged = writer.bytes.clone();
            damaged[at] ^= 0xFF;
            for number in 0..51 {
                let _ = read_path(&writer.blocks, &damaged, number, &mut out);
                let _ = is_path(&writer.blocks, &damaged, number, paths[0].as_bytes());
            }
        }
    }
}
