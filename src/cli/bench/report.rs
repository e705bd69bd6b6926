//! What was measured, for people and for programs.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::bench::rounds::{Group, Timed};
use crate::cli::table::{escaped, write_rows};

/// Width of the longest bar, in characters.
const BAR_CHARS: usize = 30;

/// What was measured of one path.
pub(crate) struct Measured<'a> {
    pub(crate) path: &'a Path,
    pub(crate) groups: Vec<Group>,
    /// Version of the torch that took part.
    pub(crate) torch: Option<&'a str>,
    /// Why none did, if it was asked for.
    pub(crate) without_torch: Option<&'a str>,
}

impl Measured<'_> {
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", escaped(&self.path.display().to_string()))?;
        match (self.torch, self.without_torch) {
            (Some(version), _) => writeln!(out, "beside torch {}", escaped(version))?,
            (None, Some(reason)) => writeln!(out, "without torch: {}", escaped(reason))?,
            (None, None) => {}
        }
        self.groups.iter().try_for_each(|group| write_group(group, out))?;
        writeln!(out)
    }

    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| json!({"work": group.title, "unit": group.unit, "contenders": group.timed.iter().map(contender).collect::<Vec<_>>()}))
            .collect();
        let value = json!({
            "path": self.path.display().to_string(),
            "torch": self.torch,
            "without_torch": self.without_torch,
            "groups": groups,
        });
        writeln!(out, "{value}")
    }
}

fn contender(timed: &Timed) -> Value {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let base = json!({"name": timed.name, "units": timed.units, "bytes": timed.bytes});
    let own = match &timed.times {
        Err(error) => json!({"error": error}),
        Ok(times) => json!({
            "rounds": times.len(),
            "median_ns": timed.median().map(nanoseconds),
            "min_ns": times.first().copied().map(nanoseconds),
            "max_ns": times.last().copied().map(nanoseconds),
        }),
    };
    match (base, own) {
        (Value::Object(mut base), Value::Object(own)) => {
            base.extend(own);
            Value::Object(base)
        }
        (base, _) => base,
    }
}

/// A line and a bar for each contender; the times stand in relation to the first one's.
fn write_group(group: &Group, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", escaped(&group.title))?;
    let each = |timed: &Timed| Some(timed.median()?.as_secs_f64() / timed.units.max(1) as f64);
    let first = group.timed.first().and_then(each);
    let longest = group.timed.iter().filter_map(each).fold(0.0, f64::max);
    let line = |timed: &Timed| {
        let name = format!("  {}", timed.name);
        let Some(seconds) = each(timed) else {
            let reason = timed.times.as_ref().err().and_then(|error| error.lines().next());
            return vec![name, escaped(reason.unwrap_or("not measured"))];
        };
        let bytes = timed.bytes as f64 / timed.units.max(1) as f64;
        vec![
            name,
            time(seconds),
            if timed.units > 1 { format!("{:.0} {}/s", 1.0 / seconds, group.unit) } else { String::new() },
            if timed.bytes > 0 { format!("{:.0} MB/s", bytes / seconds / 1e6) } else { String::new() },
            first.map_or_else(String::new, |first| format!("{:.2}x", seconds / first)),
            bar(seconds / longest),
        ]
    };
    let rows: Vec<Vec<String>> = group.timed.iter().map(line).collect();
    write_rows(out, &[1, 2, 3, 4], rows.iter().map(Vec::as_slice))
}

/// A bar of so large a part of the longest one, to an eighth of a character.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share * (BAR_CHARS * 8) as f64).round().max(1.0) as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A time in the unit that gives it two or three digits.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-4 => format!("{:.1} µs", s * 1e6),
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0), "█".repeat(BAR_CHARS));
        assert_eq!(bar(0.5), "█".repeat(BAR_CHARS / 2));
        assert_eq!(bar(0.0), "▏");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let times = [3e-8, 1.5e-6, 2.5e-4, 0.0123, 0.25, 12.0].map(time);
        assert_eq!(times, ["30 ns", "1.5 µs", "250 µs", "12.3 ms", "250 ms", "12.00 s"]);
    }
}
