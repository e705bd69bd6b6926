//! How a pickle writes bytes, where it does not hold them as they are.
//!
//! Protocols 3 to 5 have opcodes for bytes, and so had Python 2: there they lie in the file. Protocols 0 to 2 have none, so
//! Python 3 makes text of them, a character for each byte; protocol 0 escapes text; and the oldest tensors are lists of
//! numbers. Nothing of that is lost: a record says which of these ways it was and where the text lies, and reading it
//! undoes that, just as a deflated record is inflated.

use std::borrow::Cow;

use crate::container::Record;
use crate::dtype::DType;
use crate::fault::Fault;
use crate::pickle::numbers::read_numbers;
use crate::pickle::{Known, Node, Raw, Text, Tree};

/// A way to write bytes as something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// UTF-8 text with a character below 256 for each byte.
    Latin1,
    /// The same as raw-unicode-escape: Latin-1 in which some characters are `\uXXXX`.
    UnicodeEscape,
    /// A Python 2 `str` with its escapes.
    Escape,
    /// The opcodes of a list of numbers, perhaps of lists, that become elements of this dtype.
    Numbers(DType),
}

// Numbers of methods, in the place where zip has those of compression. They stand in indexes and may never change.
const METHOD_LATIN1: u16 = 0xF001;
const METHOD_UNICODE_ESCAPE: u16 = 0xF002;
const METHOD_ESCAPE: u16 = 0xF003;
/// The low byte is the dtype.
const METHOD_NUMBERS: u16 = 0xF100;

impl Encoding {
    /// Returns the number by which records know it.
    pub(crate) fn method(self) -> u16 {
        match self {
            Self::Latin1 => METHOD_LATIN1,
            Self::UnicodeEscape => METHOD_UNICODE_ESCAPE,
            Self::Escape => METHOD_ESCAPE,
            Self::Numbers(dtype) => METHOD_NUMBERS | dtype as u16,
        }
    }

    /// Returns the encoding with this number; `None` for all methods of zip.
    pub(crate) fn from_method(method: u16) -> Option<Self> {
        match method {
            METHOD_LATIN1 => Some(Self::Latin1),
            METHOD_UNICODE_ESCAPE => Some(Self::UnicodeEscape),
            METHOD_ESCAPE => Some(Self::Escape),
            _ if method & 0xFF00 == METHOD_NUMBERS => {
                DType::from_code((method & 0xFF) as u8).map(Self::Numbers)
            }
            _ => None,
        }
    }

    /// Returns the bytes that were written, `None` when they were not.
    pub(crate) fn decode(self, written: &[u8]) -> Option<Vec<u8>> {
        if let Self::Numbers(dtype) = self {
            let mut out = Vec::new();
            return read_numbers(written, dtype, &mut out).filter(|n| n.length == written.len()).map(|_| out);
        }
        let mut out = Vec::with_capacity(written.len());
        let mut at = 0;
        while at < written.len() {
            out.push(self.next(written, &mut at)?);
        }
        Some(out)
    }

    /// Returns how many bytes are written for one at most.
    fn bytes_max(self) -> u64 {
        match self {
            Self::Latin1 => 2,
            Self::Escape => 4,
            Self::UnicodeEscape => 10,
            // A decimal fraction, its memo entry, and the opcodes of its list.
            Self::Numbers(_) => 1 << 10,
        }
    }

    /// Takes one byte.
    fn next(self, written: &[u8], at: &mut usize) -> Option<u8> {
        match self {
            Self::Latin1 => latin1(written, at),
            Self::UnicodeEscape => latin1_unescaped(written, at),
            Self::Escape => unescaped(written, at),
            Self::Numbers(_) => None,
        }
    }
}

/// A character below 256 in UTF-8.
fn latin1(written: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *written.get(*at)?;
    *at += 1;
    match byte {
        0..0x80 => Some(byte),
        0xC2 | 0xC3 => {
            let next = *written.get(*at).filter(|next| **next & 0xC0 == 0x80)?;
            *at += 1;
            Some(byte << 6 | next & 0x3F)
        }
        _ => None,
    }
}

/// A character below 256, as itself or as `\uXXXX` or `\UXXXXXXXX`.
fn latin1_unescaped(written: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *written.get(*at)?;
    let digits = match (byte, written.get(*at + 1)) {
        (b'\\', Some(b'u')) => 4,
        (b'\\', Some(b'U')) => 8,
        _ => {
            *at += 1;
            return Some(byte);
        }
    };
    let hex = written.get(*at + 2..*at + 2 + digits)?;
    *at += 2 + digits;
    u8::try_from(u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?).ok()
}

/// A byte of a Python 2 `str` literal without its quotes.
pub(crate) fn unescaped(written: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *written.get(*at)?;
    *at += 1;
    if byte != b'\\' {
        return Some(byte);
    }
    let escape = *written.get(*at)?;
    *at += 1;
    Some(match escape {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'a' => 7,
        b'b' => 8,
        b'v' => 11,
        b'f' => 12,
        b'\\' | b'\'' | b'"' => escape,
        b'x' => {
            let hex = written.get(*at..*at + 2)?;
            *at += 2;
            u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?
        }
        b'0'..=b'7' => {
            let mut value = u32::from(escape - b'0');
            for _ in 0..2 {
                if let Some(digit @ b'0'..=b'7') = written.get(*at) {
                    value = value * 8 + u32::from(digit - b'0');
                    *at += 1;
                }
            }
            value as u8
        }
        // Python leaves unknown escapes as they are.
        _ => {
            *at -= 1;
            b'\\'
        }
    })
}

/// Bytes that a pickle holds in some way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Where they stand, as they are written.
    pub(crate) text: Text,
    /// `None` where they are written as they are.
    pub(crate) encoding: Option<Encoding>,
}

impl Written {
    /// Finds the bytes that a value stands for: `bytes`, a `bytearray`, a Python 2 `str`, or the call by which Python 3
    /// writes bytes in old protocols.
    pub(crate) fn of(tree: &Tree<'_>, value: Raw) -> Option<Self> {
        let plain = |text| Some(Self { text, encoding: None });
        match value {
            // Python 2 knows no difference, so the machine tells them apart by what they hold.
            Raw::Bytes { length, start } | Raw::Str { length, start } => {
                let text = Text { start, length };
                match escaped(tree, text) {
                    None => plain(text),
                    Some((source, false)) => Some(Self { text: source, encoding: Some(Encoding::Escape) }),
                    Some((_, true)) => None,
                }
            }
            Raw::Node(node) => match tree.node(node) {
                Node::ByteArray { length, start } => plain(Text { start, length }),
                Node::Object { callable, args, .. } => match (tree.known(callable), tree.args(args)) {
                    (Known::Bytes | Known::ByteArray, []) => plain(Text::default()),
                    (Known::ByteArray, &[content @ Raw::Bytes { .. }]) => Self::of(tree, content),
                    (Known::ByteArray, &[Raw::Node(content)]) => match tree.node(content) {
                        Node::Object { callable, args, .. }
                            if tree.known(callable) == Known::CodecsEncode =>
                        {
                            Self::of_latin1(tree, tree.args(args))
                        }
                        _ => None,
                    },
                    (Known::CodecsEncode | Known::ByteArray, args) => Self::of_latin1(tree, args),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// `_codecs.encode(text, "latin1")`.
    fn of_latin1(tree: &Tree<'_>, args: &[Raw]) -> Option<Self> {
        let &[Raw::Str { length, start }, encoding] = args else { return None };
        if !matches!(tree.str_bytes(encoding)?, b"latin1" | b"latin-1") {
            return None;
        }
        let text = Text { start, length };
        match escaped(tree, text) {
            None => Some(Self { text, encoding: Some(Encoding::Latin1) }),
            Some((source, true)) => Some(Self { text: source, encoding: Some(Encoding::UnicodeEscape) }),
            Some((_, false)) => None,
        }
    }

    /// Returns the bytes themselves.
    pub(crate) fn content<'t>(&self, tree: &'t Tree<'_>) -> Option<Cow<'t, [u8]>> {
        let written = tree.bytes(self.text);
        match self.encoding {
            None => Some(Cow::Borrowed(written)),
            Some(encoding) => encoding.decode(written).map(Cow::Owned),
        }
    }

    /// Returns the place of the bytes in the file. There should be `bytes` of them.
    pub(crate) fn record(&self, tree: &Tree<'_>, bytes: u64) -> Result<Record, Fault> {
        let written = tree.bytes(self.text);
        let length = written.len() as u64;
        let encoding = match self.encoding {
            // Text in which every character is one byte lies in the file as it is.
            Some(Encoding::Latin1) if length == bytes && written.is_ascii() => None,
            encoding => encoding,
        };
        let Some(encoding) = encoding else {
            return match length == bytes {
                true if bytes == 0 => Ok(Record::plain(0, 0)),
                true => Ok(Record::plain(tree.file_offset(self.text)?, bytes)),
                false => Err(Fault::RecordLength { record: length, expected: bytes }),
            };
        };
        // Whether there are as many shows when they are read; here only whether there can be.
        if bytes > length || length > bytes.saturating_mul(encoding.bytes_max()) {
            return Err(Fault::RecordLength { record: length, expected: bytes });
        }
        Ok(Record::written(tree.file_offset(self.text)?, length, bytes, encoding.method()))
    }

    /// Returns where the bytes from `start` to `end` stand, which must be among them.
    pub(crate) fn part(&self, tree: &Tree<'_>, start: u64, end: u64) -> Option<Self> {
        let written = tree.bytes(self.text);
        let Some(encoding) = self.encoding else {
            let length = u32::try_from(end.checked_sub(start)?).ok()?;
            let text = Text { start: self.text.start + start, length };
            return (end <= written.len() as u64).then_some(Self { text, encoding: None });
        };
        let mut at = 0;
        for _ in 0..start {
            encoding.next(written, &mut at)?;
        }
        let from = at;
        for _ in start..end {
            encoding.next(written, &mut at)?;
        }
        let text = Text { start: self.text.start + from as u64, length: (at - from) as u32 };
        Some(Self { text, encoding: Some(encoding) })
    }
}

/// Returns the line that a text was before its escapes were undone, and whether it was `unicode`.
fn escaped(tree: &Tree<'_>, text: Text) -> Option<(Text, bool)> {
    if tree.escaped.is_empty() {
        return None;
    }
    let at = tree.escaped.binary_search_by_key(&text.start, |line| line.start).ok()?;
    let line = tree.escaped[at];
    Some((line.source, line.is_unicode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back_however_they_were_written() {
        for (encoding, written, bytes) in [
            (Encoding::Latin1, &b"A\xC2\x80\xC3\xBF\0"[..], Some(&b"A\x80\xFF\0"[..])),
            (Encoding::Latin1, "€".as_bytes(), None),
            (Encoding::Latin1, b"\xC2A", None),
            (Encoding::UnicodeEscape, b"\xE9\\u005c\\u000a\\x", Some(b"\xE9\\\n\\x")),
            (Encoding::UnicodeEscape, b"\\u0100", None),
            (Encoding::UnicodeEscape, b"\\u00", None),
            (
                Encoding::Escape,
                br"a\n\x41\101\\\'\q\8",
                Some(br"a@A@A\'\q\8").map(|_| &b"a\nAA\\'\\q\\8"[..]),
            ),
            (Encoding::Escape, br"\x4", None),
            (Encoding::Escape, b"\\", None),
        ] {
            assert_eq!(encoding.decode(written).as_deref(), bytes, "{}", written.escape_ascii());
        }
    }

    #[test]
    fn methods_are_numbers_that_no_zip_has() {
        let encodings = [
            Encoding::Latin1,
            Encoding::UnicodeEscape,
            Encoding::Escape,
            Encoding::Numbers(DType::Float64),
            Encoding::Numbers(DType::QUInt2x4),
        ];
        assert_eq!(encodings.map(Encoding::method), [0xF001, 0xF002, 0xF003, 0xF100, 0xF120]);
        for encoding in encodings {
            assert_eq!(Encoding::from_method(encoding.method()), Some(encoding));
        }
        for method in [0, 8, 99, 0xF000, 0xF1FF] {
            assert_eq!(Encoding::from_method(method), None);
        }
    }
}
