//! `ptview ls --globals`: what unpickling files would import.

use std::io::Write;
use std::path::{Path, PathBuf};

use pt_format::{Audit, GlobalUse, Limits, Verdict, audit};
use pt_index::FileSource;
use serde_json::{Value, json};

use crate::cli::ls::{Format, complain, reported};
use crate::cli::table::{escaped, write_table};
use crate::cli::{Error, Result};

pub(crate) fn run(files: &[PathBuf], format: Format, out: &mut dyn Write) -> Result {
    let mut failures = 0;
    let mut all = Vec::new();
    for path in files {
        let audit = match judge(path) {
            Ok(audit) => audit,
            Err(error) => {
                complain(&error.to_string());
                failures += 1;
                continue;
            }
        };
        let dangerous = audit.globals.iter().filter(|global| global.verdict == Verdict::Dangerous);
        for global in dangerous {
            complain(&format!("{}: dangerous: {}", path.display(), full_name(global)));
            failures += 1;
        }
        if let Some(problem) = &audit.problem {
            let problem = escaped(&problem.to_string());
            complain(&format!("{}: not judged to its end: {problem}", path.display()));
            failures += 1;
        }
        match format {
            Format::Table => {
                if files.len() > 1 {
                    writeln!(out, "{}:", escaped(&path.to_string_lossy())).map_err(Error::Output)?;
                }
                let cells: Vec<_> = audit.globals.iter().map(cells).collect();
                write_table(out, &["verdict", "named", "called", "global"], &[1, 2], &cells)
                    .map_err(Error::Output)?;
            }
            Format::Json => all.extend(audit.globals.iter().map(|global| json(path, global))),
            Format::Jsonl => {
                for global in &audit.globals {
                    writeln!(out, "{}", json(path, global)).map_err(Error::Output)?;
                }
            }
        }
    }
    if format == Format::Json {
        writeln!(out, "{:#}", Value::Array(all)).map_err(Error::Output)?;
    }
    reported(failures)
}

fn judge(path: &Path) -> Result<Audit> {
    let source = FileSource::open(path)?;
    let judged = audit(&source, &Limits::default());
    Ok(judged.map_err(|source| pt_index::Error::File { path: path.to_owned(), source })?)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Known => "known",
        Verdict::Opaque => "opaque",
        Verdict::Dangerous => "dangerous",
    }
}

fn full_name(global: &GlobalUse) -> String {
    escaped(&format!("{}.{}", global.module, global.name))
}

fn cells(global: &GlobalUse) -> Vec<String> {
    vec![
        word(global.verdict).into(),
        global.references.to_string(),
        global.calls.to_string(),
        full_name(global),
    ]
}

fn json(path: &Path, global: &GlobalUse) -> Value {
    json!({
        "file": path.to_string_lossy(),
        "module": global.module,
        "name": global.name,
        "verdict": word(global.verdict),
        "named": global.references,
        "called": global.calls,
    })
}
