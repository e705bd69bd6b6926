//! Values as Python shows them, for path components and messages.

use crate::pickle::Known;
use crate::pickle::tree::{Node, Raw, Tree};

/// Longer representations end in an ellipsis.
const REPR_BYTES_MAX: usize = 1000;
/// Deeper tuples show as `...`.
const DEPTH_MAX: usize = 4;

/// Returns the value as Python's `repr()` shows it, cut where it grows long or deep.
pub(crate) fn repr(tree: &Tree<'_>, value: Raw) -> String {
    let mut out = String::new();
    write_repr(tree, value, DEPTH_MAX, &mut out);
    out
}

fn write_repr(tree: &Tree<'_>, value: Raw, depth: usize, out: &mut String) {
    if out.len() > REPR_BYTES_MAX || depth == 0 {
        out.push_str("...");
        return;
    }
    match value {
        Raw::None => out.push_str("None"),
        Raw::Bool(value) => out.push_str(if value { "True" } else { "False" }),
        Raw::Int(value) => *out += &format!("{value}"),
        Raw::Float(value) => write_float(value, out),
        Raw::Str { .. } => {
            let bytes = tree.str_bytes(value).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(REPR_BYTES_MAX)]);
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for character in text.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == quote => *out += &format!("\\{c}"),
                    c if c.is_control() && (c as u32) < 0x100 => *out += &format!("\\x{:02x}", c as u32),
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        Raw::Bytes { length, start } => write_bytes(tree.bytes(crate::pickle::Text { start, length }), out),
        Raw::Node(node) => match tree.node(node) {
            Node::Tuple(run) => {
                out.push('(');
                for (position, &item) in tree.run(run).iter().enumerate() {
                    if position > 0 {
                        out.push_str(", ");
                    }
                    write_repr(tree, item, depth - 1, out);
                    if out.len() > REPR_BYTES_MAX {
                        break;
                    }
                }
                out.push_str(if run.length == 1 { ",)" } else { ")" });
            }
            Node::Global(_) => {
                let name = tree.global_name(node).unwrap_or_default();
                // dtypes and layouts show as themselves, classes as classes.
                match name.starts_with("torch.") {
                    true => out.push_str(&name),
                    false => *out += &format!("<class '{name}'>"),
                }
            }
            Node::Object { callable, args, .. } if tree.known(callable) == Known::CodecsEncode => {
                let text = tree.args(args).first().and_then(|&text| tree.str_bytes(text)).unwrap_or_default();
                let text = String::from_utf8_lossy(&text[..text.len().min(REPR_BYTES_MAX)]);
                // One character for each byte, as protocols below 3 write bytes.
                write_bytes(&text.chars().map(|c| c as u32 as u8).collect::<Vec<_>>(), out);
            }
            Node::Object { callable, .. } => {
                *out += &format!("<{}>", tree.global_name(callable).unwrap_or_else(|| "object".into()));
            }
            Node::FrozenSet(_) => out.push_str("frozenset(...)"),
            Node::List(_) => out.push_str("[...]"),
            Node::Set(_) | Node::Dict(_) => out.push_str("{...}"),
            Node::BigInt { length, start } => {
                let bytes = tree.bytes(crate::pickle::Text { start, length });
                *out += &format!("<integer of {} bytes>", bytes.len());
            }
            Node::ByteArray { .. } => out.push_str("bytearray(...)"),
            Node::Persistent(_) => out.push_str("<storage>"),
        },
    }
}

fn write_bytes(bytes: &[u8], out: &mut String) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    out.push('b');
    out.push(quote);
    for &byte in &bytes[..bytes.len().min(REPR_BYTES_MAX)] {
        match char::from(byte) {
            // Python escapes only the quote it uses.
            other @ ('\'' | '"') if other != quote => out.push(other),
            _ => *out += &byte.escape_ascii().to_string(),
        }
    }
    out.push(quote);
}

/// Python's shortest round-trip form: `1.5`, `1e-07`, `1e+16`, `inf`, `nan`.
fn write_float(value: f64, out: &mut String) {
    if value.is_nan() {
        return out.push_str("nan");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    let shortest = format!("{value:?}");
    match shortest.split_once('e') {
        None => out.push_str(&shortest),
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            *out += &format!("{}e{sign}{digits:0>2}", mantissa.trim_end_matches(".0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_look_as_in_python() {
        for (bytes, text) in [
            (&b"\x80\x04}.\n"[..], r"b'\x80\x04}.\n'"),
            (b"it's", r#"b"it's""#),
            (b"\"'", r#"b'"\''"#),
            (b"\"", r#"b'"'"#),
        ] {
            let mut out = String::new();
            write_bytes(bytes, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn floats_look_as_in_python() {
        for (value, text) in [
            (1.5, "1.5"),
            (2.0, "2.0"),
            (1e-7, "1e-07"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let mut out = String::new();
            write_float(value, &mut out);
            assert_eq!(out, text);
        }
    }
}
