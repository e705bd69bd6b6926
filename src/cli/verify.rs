//! `ptview verify`: are the files still those that were indexed, and are their bytes whole?

use std::io::Write;
use std::path::{Path, PathBuf};

use pt_index::{CheckStep, Findings};
use serde_json::json;

use crate::cli::ls::{complain, reported};
use crate::cli::progress::Bar;
use crate::cli::table::{bytes, escaped, plural};
use crate::cli::{Error, Report, Result};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Indexes, folders that have one, and data files, with or without a sidecar.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Read everything: compare every record with its CRC, every section of an index with its checksum, and fingerprints also
    /// where size and time are right.
    #[arg(long)]
    deep: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    format: Report,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    let mut failures = 0;
    for path in &arguments.paths {
        let findings = look_at(path, arguments.deep)?;
        failures += findings.problems.len();
        print(&findings, path, arguments, out).map_err(Error::Output)?;
    }
    reported(failures)
}

fn look_at(path: &Path, deep: bool) -> Result<Findings> {
    let (comparing, reading) = (Bar::new("comparing"), Bar::new("reading"));
    let findings = pt_index::check(path, deep, None, |step, progress| match step {
        CheckStep::Comparing => comparing.show(progress),
        CheckStep::Reading => {
            comparing.finish();
            reading.show(progress);
        }
    });
    comparing.finish();
    reading.finish();
    Ok(findings?)
}

fn print(
    findings: &Findings,
    path: &Path,
    arguments: &Arguments,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if arguments.format == Report::Json {
        let problems: Vec<_> =
            findings.problems.iter().map(|(place, what)| json!({"where": place, "what": what})).collect();
        let report = json!({
            "path": path.to_string_lossy(),
            "files": findings.files,
            "fresh": findings.fresh,
            "touched": findings.touched,
            "records_checked": findings.records,
            "records_without_crc": findings.without_crc,
            "bytes_checked": findings.bytes,
            "problems": problems,
        });
        return writeln!(out, "{report}");
    }
    for (place, what) in &findings.problems {
        complain(&format!("{}: {}", escaped(place), escaped(what)));
    }
    let mut said = vec![plural(findings.files, "file")];
    for (count, what) in [(findings.fresh, "fresh"), (findings.touched, "touched: same content, other time")]
    {
        if count > 0 {
            said.push(format!("{count} {what}"));
        }
    }
    if arguments.deep {
        said.push(format!("{} of {} compared", plural(findings.records, "record"), bytes(findings.bytes)));
        if findings.without_crc > 0 {
            said.push(format!("{} without a CRC", findings.without_crc));
        }
    }
    said.push(match findings.problems.len() {
        0 => "nothing wrong".into(),
        count => plural(count, "problem"),
    });
    writeln!(out, "{}: {}", escaped(&path.to_string_lossy()), said.join(", "))
}
