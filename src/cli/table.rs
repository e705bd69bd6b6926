//! Text for people: aligned columns, sizes, names that cannot play tricks on a terminal.

use std::io::{self, Write};

/// Writes rows in aligned columns under a head; numbers in the columns named go to the right.
pub(crate) fn write_table(
    out: &mut dyn Write,
    head: &[&str],
    right: &[usize],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    write_rows(out, right, std::iter::once(&head).chain(rows).map(Vec::as_slice))
}

/// Writes rows in aligned columns.
pub(crate) fn write_rows<'r>(
    out: &mut dyn Write,
    right: &[usize],
    rows: impl Iterator<Item = &'r [String]> + Clone,
) -> io::Result<()> {
    let mut widths = Vec::new();
    for row in rows.clone() {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            let gap = if column == 0 || width == 0 { "" } else { "  " };
            match right.contains(&column) {
                true => line.extend([gap, padding.as_str(), cell]),
                false => line.extend([gap, cell, padding.as_str()]),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A number of bytes, short.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A number of things.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A name cut in its middle if it is long: the table is for people, JSON has it whole.
pub(crate) fn shortened(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    let count = name.chars().count();
    if count <= CHARS_MAX {
        return name.to_owned();
    }
    let half = CHARS_MAX / 2;
    let start: String = name.chars().take(half).collect();
    let end: String = name.chars().skip(count - half + 1).collect();
    format!("{start}…{end}")
}

/// Text from a file, with control characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "22".into()]];
        write_table(&mut out, &["name", "n"], &[1], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name   n\na      1\nlong  22\n");
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("layer.weight"), "layer.weight");
        let long = shortened(&format!("{}.weight", "x".repeat(300)));
        assert_eq!(long.chars().count(), 80);
        assert!(long.starts_with("xxx") && long.ends_with(".weight"));
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(escaped("\u{1b}[31mred\nline"), "\\u{1b}[31mred\\nline");
        assert_eq!(escaped("日本"), "日本");
    }
}
