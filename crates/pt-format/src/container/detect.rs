//! Tells a container by its first bytes, and names what is not one.
//!
//! File extensions say nothing (`.pth.tar` is almost never a tar), so only content counts. The signatures
//! are those of the formats themselves; the legacy magic number is `torch.serialization.MAGIC_NUMBER`.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::source::{Source, read};

/// `torch.serialization.MAGIC_NUMBER` as protocol 2 writes it: PROTO 2, LONG1 of 10 bytes, STOP.
const LEGACY_NUMBER: &[u8] = &[0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E];
/// The same number as protocols 0 and 1 write it.
const LEGACY_NUMBER_TEXT: &[u8] = b"L119547037146038801333356L";
/// Enough to see a tar header's `ustar`.
const HEAD_BYTES: u64 = 512;

/// Returns the container of a file, judged by its first bytes. Every zip archive is [`Container::Zip`] here;
/// which kind of archive it is shows in its records. [`Container::Pickle`] may be a pickle of anything: whether it holds
/// tensors shows only when it is parsed.
///
/// # Errors
/// [`Error::Foreign`] names what the file looks like instead; [`Error::Read`] when it cannot be read.
///
/// ```
/// use pt_format::{Container, detect};
/// assert_eq!(detect(&b"PK\x03\x04...."[..]).unwrap(), Container::Zip);
/// let error = detect(&b"version https://git-lfs.github.com/spec/v1\nsize 9\n"[..]).unwrap_err();
/// assert!(error.to_string().contains("git-lfs pointer"));
/// ```
pub fn detect<S: Source + ?Sized>(source: &S) -> Result<Container> {
    let length = source.len().min(HEAD_BYTES);
    let head = read(source, 0, length)?;
    match detect_head(&head, source.len()) {
        // Pickles of protocols 0 and 1 have no signature. They begin with a container or an object and end with STOP.
        Err(Error::Foreign { .. }) if matches!(head.first(), Some(b'(' | b'c' | b']' | b'}')) => {
            match read(source, source.len() - 1, 1)?[..] {
                [b'.'] => Ok(Container::Pickle),
                _ => detect_head(&head, source.len()),
            }
        }
        detected => detected,
    }
}

/// Says what a pickle without tensors is.
pub(super) fn no_tensors() -> Error {
    foreign("a plain pickle without the torch.save header", RESAVE.into())
}

/// Says what looks like a pickle and is none.
pub(super) fn no_pickle<S: Source + ?Sized>(source: &S) -> Result<Error> {
    let head = read(source, 0, source.len().min(HEAD_BYTES))?;
    Ok(detect_head(&head, source.len()).err().unwrap_or_else(no_tensors))
}

const RESAVE: &str = "save the object with torch.save to get a checkpoint";

fn foreign(found: &'static str, advice: String) -> Error {
    Error::Foreign { found, advice }
}

fn detect_head(head: &[u8], file_bytes: u64) -> Result<Container> {
    let resave = || RESAVE.to_owned();
    let foreign = |found, advice| Err(foreign(found, advice));
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    let starts = |magic: &[u8]| head.starts_with(magic);
    let text_starts =
        |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));

    if head.len() < 4 {
        return foreign(
            "an empty or cut-off file",
            format!("it has only {file_bytes} bytes; fetch it again"),
        );
    }
    if starts(b"PK\x03\x04") {
        return Ok(Container::Zip);
    }
    if is_legacy(head) {
        return Ok(Container::Legacy);
    }
    if head.get(257..262) == Some(b"ustar") {
        // Ordinary tar archives have no `storages` member; the tar reader looks for it.
        return Ok(Container::Tar);
    }
    if is_safetensors(head, file_bytes) {
        return Ok(Container::Safetensors);
    }
    if starts(b"PK\x05\x06") {
        return foreign("an empty zip archive", resave());
    }
    if starts(b"PYTORCH1") {
        return foreign("a preview archive that no torch release reads", resave());
    }
    if text_starts("<!doctype") || text_starts("<html") || text_starts("<?xml") || text_starts("{\"error") {
        return foreign("a saved web page", "a download probably failed; fetch the file again".into());
    }
    if starts(b"version https://git-lfs.github.com/spec/v1") {
        let size = size_line(head);
        return foreign("a git-lfs pointer", format!("run `git lfs pull` to fetch the file itself{size}"));
    }
    for (magic, found) in [
        (&b"\x1F\x8B"[..], "gzip data"),
        (b"BZh", "bzip2 data"),
        (b"\xFD7zXZ\0", "xz data"),
        (b"\x28\xB5\x2F\xFD", "zstandard data"),
    ] {
        if starts(magic) {
            return foreign(found, "decompress it first".into());
        }
    }
    for (magic, found) in [
        (&b"\x89HDF\r\n\x1A\n"[..], "an HDF5 file"),
        (b"\x93NUMPY", "a numpy .npy file"),
        (b"GGUF", "a GGUF file"),
    ] {
        if starts(magic) {
            return foreign(found, "open it with the library for that format".into());
        }
    }
    if matches!(head.get(4..8), Some(b"PTMF" | b"ET12")) {
        return foreign("a mobile (flatbuffer) program", "export the weights with torch.save".into());
    }
    if head.iter().all(|&byte| byte == 0) {
        return foreign("a run of zero bytes", "a download was probably cut off; fetch it again".into());
    }
    if head[0] == 0x80 && head[1] <= 5 {
        return Ok(Container::Pickle);
    }
    if text_starts("{") || text_starts("[") {
        return foreign("a JSON document", "point to the tensor files it speaks of".into());
    }
    let found = match head.iter().all(|&byte| byte >= b' ' && byte != 0x7F || byte.is_ascii_whitespace()) {
        true => "plain text",
        false => "data of no known format",
    };
    foreign(found, "check that the path names a torch.save file".into())
}

fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(LEGACY_NUMBER_TEXT)
        || (head[0] == 0x80 && head.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_NUMBER)))
        // Protocol 4 and later put a FRAME (opcode and u64 length) in between.
        || (head[0] == 0x80 && head[2] == 0x95 && head.get(11..).is_some_and(|rest| rest.starts_with(LEGACY_NUMBER)))
}

/// A u64 header length, then JSON. Source: the safetensors format description.
fn is_safetensors(head: &[u8], file_bytes: u64) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{') && (2..=100 << 20).contains(&length) && length + 8 <= file_bytes
}

fn size_line(head: &[u8]) -> String {
    String::from_utf8_lossy(head)
        .lines()
        .find_map(|line| line.strip_prefix("size "))
        .map_or_else(String::new, |size| format!(" ({} bytes)", size.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_look_alikes_are_told_apart() {
        let long = |start: &[u8]| [start, &[7; 600]].concat();
        assert_eq!(detect(&long(b"PK\x03\x04")).unwrap(), Container::Zip);
        assert_eq!(detect(&[b"\x80\x02", LEGACY_NUMBER].concat()).unwrap(), Container::Legacy);
        assert_eq!(
            detect(&[b"\x80\x04\x95\x0D\0\0\0\0\0\0\0", LEGACY_NUMBER].concat()).unwrap(),
            Container::Legacy
        );
        assert_eq!(detect(&b"\x80\x02}."[..]).unwrap(), Container::Pickle);
        assert_eq!(detect(&b"(dp0\n."[..]).unwrap(), Container::Pickle);
        assert_eq!(detect(&long(b"\x10\0\0\0\0\0\0\0{")).unwrap(), Container::Safetensors);
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b" \n<HTML>", "web page"),
            (b"BZh9....", "bzip2"),
            (b"\0\0\0\0\0\0\0\0", "zero bytes"),
            (b"{\"weight_map\": 1}", "JSON"),
            (b"hello world", "plain text"),
            (b"\x01\x02\x03\x04\x05", "no known format"),
        ] {
            let message = detect(bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message} should speak of {word}");
        }
    }
}
