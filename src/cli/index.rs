//! `ptview index`: builds indexes and keeps them.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use pt_format::Limits;
use pt_index::{BuildOptions, Built, Index, Selection};
use serde_json::{Value, json};

use crate::cli::ls::{complain, reported};
use crate::cli::progress::Bar;
use crate::cli::table::{bytes, escaped, plural, write_table};
use crate::cli::{Error, Report, Result};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files, folders (also distributed checkpoints) and indexes of shards (`….index.json`) to index. Of a folder that has an index, only new and changed
    /// files are parsed.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where to keep the index, of one PATH. Default: beside the file (`model.pt.ptidx`), or in the folder (`index.ptidx`).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only give files that were copied or moved their new time, if their fingerprint is the one that was indexed. Nothing is
    /// parsed, and files that are new or changed stay as they are.
    #[arg(long, conflicts_with = "full")]
    refresh: bool,
    /// Parse every file, also those that an earlier index knows.
    #[arg(long)]
    full: bool,
    /// Look only at this file or folder, which is new, changed or gone, inside the folder PATH; all else is as the index of PATH
    /// says. May be repeated.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["refresh", "full"])]
    changed: Vec<PathBuf>,
    /// The same for a list of them, one a line; `-`: standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["refresh", "full"])]
    changed_from: Option<PathBuf>,
    /// List the files that are not in the index, and why.
    #[arg(long)]
    report: bool,
    /// Threads; 0: one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    jobs: usize,
    /// What to do with files that cannot be parsed.
    #[arg(long, value_enum, default_value_t = OnError::Skip)]
    on_error: OnError,
    /// Follow symbolic links, to files and to folders.
    #[arg(long)]
    follow_links: bool,
    /// Look only at files that match, such as `*.pt` or `train/**`. May be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Pass over files and folders that match. May be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    format: Report,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OnError {
    /// End there, with the old index still in place.
    Fail,
    /// Leave them out, and list them in the index with the reason.
    Skip,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    if arguments.output.is_some() && arguments.paths.len() > 1 {
        return Err(Error::Usage("--output names one index, so it goes with one PATH".into()));
    }
    let changed = arguments.changed()?;
    if changed.is_some() && arguments.paths.len() > 1 {
        return Err(Error::Usage("what changed is inside one folder, so it goes with one PATH".into()));
    }
    let mut failures = 0;
    for path in &arguments.paths {
        let start = Instant::now();
        let target = arguments.output.clone().unwrap_or_else(|| pt_index::sidecar_path(path));
        let done = if arguments.refresh {
            refresh(&target)?
        } else {
            build(path, &target, changed.as_deref(), arguments)?
        };
        failures += done.complaints;
        let report = Done { seconds: start.elapsed().as_secs_f64(), ..done };
        report.print(&target, arguments, out)?;
    }
    reported(failures)
}

impl Arguments {
    /// Returns what is said to have changed, if anything is said.
    fn changed(&self) -> Result<Option<Vec<PathBuf>>> {
        let Some(list) = &self.changed_from else {
            return Ok(Some(self.changed.clone()).filter(|changed| !changed.is_empty()));
        };
        let failed = |source| pt_index::Error::Io { path: list.clone(), action: "read", source };
        let mut text = Vec::new();
        match list.as_os_str() == "-" {
            true => std::io::stdin().read_to_end(&mut text).map(drop),
            false => std::fs::read(list).map(|bytes| text = bytes),
        }
        .map_err(failed)?;
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        Ok(Some(self.changed.iter().cloned().chain(lines.map(path_of_line)).collect()))
    }
}

#[cfg(unix)]
fn path_of_line(line: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(line).into()
}

#[cfg(not(unix))]
fn path_of_line(line: &[u8]) -> PathBuf {
    String::from_utf8_lossy(line).trim_end_matches('\r').into()
}

/// What was done with one path.
struct Done {
    index: Index,
    /// Counted words, such as "3 parsed".
    counts: Vec<(&'static str, usize)>,
    seconds: f64,
    complaints: usize,
}

fn build(path: &Path, target: &Path, changed: Option<&[PathBuf]>, arguments: &Arguments) -> Result<Done> {
    let options = BuildOptions {
        limits: Limits::default(),
        selection: Selection {
            include: arguments.include.clone(),
            exclude: arguments.exclude.clone(),
            follow_links: arguments.follow_links,
        },
        changed: changed.map(|changed| pt_index::changed_paths(path, changed)).transpose()?,
        fail_on_error: arguments.on_error == OnError::Fail,
        jobs: arguments.jobs,
        stop: None,
    };
    let kept = (!arguments.full).then_some(target);
    let bar = Bar::new("indexing");
    let built = pt_index::build_any(path, kept, &options, |progress| bar.show(progress));
    bar.finish();
    let Built { index, parsed, unchanged, vanished } = built?;
    let skipped = index.skipped().len();
    let counts =
        vec![("parsed", parsed), ("unchanged", unchanged), ("vanished", vanished), ("skipped", skipped)];
    let index = pt_index::keep(index, path, target)?;
    Ok(Done { index, counts, seconds: 0.0, complaints: 0 })
}

fn refresh(target: &Path) -> Result<Done> {
    let index = pt_index::read(target)?;
    index.verify()?;
    let bar = Bar::new("comparing");
    let data = pt_index::data_path(target, &index);
    let refreshed = pt_index::refresh(&index, &data, |progress| bar.show(progress));
    bar.finish();
    let refreshed = refreshed?;
    for (file, found) in &refreshed.others {
        let found = match found {
            Ok(freshness) => freshness.to_string(),
            Err(error) => error.to_string(),
        };
        complain(&format!("{}: {}", escaped(file), escaped(&found)));
    }
    pt_index::save(&refreshed.index, target)?;
    let counts = vec![
        ("fresh", refreshed.fresh),
        ("stamped anew", refreshed.touched),
        ("not as indexed", refreshed.others.len()),
    ];
    Ok(Done { index: refreshed.index, counts, seconds: 0.0, complaints: refreshed.others.len() })
}

impl Done {
    fn print(&self, target: &Path, arguments: &Arguments, out: &mut dyn Write) -> Result {
        let Self { index, counts, seconds, .. } = self;
        let files = index.file_count();
        if arguments.format == Report::Json {
            let counts: serde_json::Map<String, Value> =
                counts.iter().map(|(word, count)| (word.replace(' ', "_"), json!(count))).collect();
            let mut report = json!({
                "index": target.to_string_lossy(),
                "files": files,
                "tensors": index.tensor_count(),
                "index_bytes": index.as_bytes().len(),
                "seconds": seconds,
                "counts": counts,
            });
            if arguments.report {
                let skipped =
                    index.skipped().map(|skipped| json!({"path": skipped.path, "reason": skipped.reason}));
                report["skipped"] = Value::Array(skipped.collect());
            }
            return writeln!(out, "{report}").map_err(Error::Output);
        }
        if arguments.report {
            let rows: Vec<_> =
                index.skipped().map(|skipped| vec![escaped(skipped.path), escaped(skipped.reason)]).collect();
            write_table(out, &["skipped", "because"], &[], &rows).map_err(Error::Output)?;
        }
        let counts: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        writeln!(
            out,
            "{}: {}, {} ({}), {} in {seconds:.2} s ({:.0} files/s)",
            target.display(),
            plural(files, "file"),
            plural(index.tensor_count(), "tensor"),
            counts.join(", "),
            bytes(index.as_bytes().len() as u64),
            files as f64 / seconds,
        )
        .map_err(Error::Output)
    }
}
