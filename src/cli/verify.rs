//! `ptview verify`: are the files still those that were indexed, and are their bytes whole?

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pt_format::{Contents, Fault, Limits};
use pt_index::{FileEntry, FileSource, Freshness, Index, Policy, Progress, SIDECAR_EXTENSION};
use rayon::prelude::*;
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

/// What was found out about one path.
#[derive(Default)]
struct Findings {
    files: usize,
    fresh: usize,
    touched: usize,
    records: usize,
    without_crc: usize,
    bytes: u64,
    /// Where, and what.
    problems: Vec<(String, String)>,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    let mut failures = 0;
    for path in &arguments.paths {
        let findings = look_at(path, arguments.deep)?;
        failures += findings.problems.len();
        findings.print(path, arguments, out).map_err(Error::Output)?;
    }
    reported(failures)
}

fn look_at(path: &Path, deep: bool) -> Result<Findings> {
    let is_index = path.extension().is_some_and(|extension| extension == SIDECAR_EXTENSION);
    let sidecar = if is_index { path.to_owned() } else { pt_index::sidecar_path(path) };
    let mut findings = Findings::default();
    if is_index || path.is_dir() || sidecar.exists() {
        let index = pt_index::read(&sidecar)?;
        if deep && let Err(error) = index.verify() {
            // What it says cannot be trusted.
            findings.problems.push((sidecar.to_string_lossy().into_owned(), error.to_string()));
            return Ok(findings);
        }
        let there = findings.compare(&index, &pt_index::data_path(&sidecar, &index), deep);
        if deep {
            findings.read(&there, |(path, file)| match file.is_part() {
                true => read_part(path, *file),
                false => read_file(path, deep),
            });
        }
    } else {
        findings.files = 1;
        findings.read(&[path.to_owned()], |path| read_file(path, deep));
    }
    Ok(findings)
}

impl Findings {
    /// Compares files with an index, and returns those that are there.
    fn compare<'i>(&mut self, index: &'i Index, root: &Path, deep: bool) -> Vec<(PathBuf, FileEntry<'i>)> {
        let policy = if deep { Policy::Fingerprint } else { Policy::Stat };
        let bar = Bar::new("comparing");
        let compared = pt_index::compare(index, root, policy, |progress| bar.show(progress));
        bar.finish();
        let mut there = Vec::new();
        for (file, compared) in index.files().zip(compared) {
            let path = match file.path() {
                path if path.is_empty() => root.to_owned(),
                path => root.join(path),
            };
            self.files += 1;
            let problem = match compared {
                Ok(Freshness::Fresh) => {
                    self.fresh += 1;
                    None
                }
                Ok(Freshness::Touched) => {
                    self.touched += 1;
                    None
                }
                Ok(freshness) => Some(freshness.to_string()),
                Err(error) => Some(error.to_string()),
            };
            match problem {
                None => there.push((path, file)),
                Some(problem) => self.problems.push((path.to_string_lossy().into_owned(), problem)),
            }
        }
        there
    }

    /// Reads files, in parallel.
    fn read<F: Named + Sync>(&mut self, files: &[F], read: impl Fn(&F) -> Result<Contents> + Sync) {
        let bar = Bar::new("reading");
        let done = AtomicUsize::new(0);
        let all_bytes = Mutex::new(0u64);
        let read: Vec<_> = files
            .par_iter()
            .map(|file| {
                let contents = read(file);
                let mut bytes = all_bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *bytes += contents.as_ref().map_or(0, |contents| contents.bytes);
                let files_done = done.fetch_add(1, Ordering::Relaxed) + 1;
                bar.show(Progress { files: files_done, files_total: files.len(), bytes: *bytes });
                contents
            })
            .collect();
        bar.finish();
        for (file, contents) in files.iter().zip(read) {
            let path = file.name().to_string_lossy();
            match contents {
                Ok(contents) => {
                    self.records += contents.checked;
                    self.without_crc += contents.without_crc;
                    self.bytes += contents.bytes;
                    let problems = contents.problems.into_iter();
                    let named =
                        problems.map(|(name, fault)| (format!("{path}: `{name}`"), fault.to_string()));
                    self.problems.extend(named);
                }
                Err(error) => self.problems.push((path.into_owned(), error.to_string())),
            }
        }
    }

    fn print(&self, path: &Path, arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<()> {
        if arguments.format == Report::Json {
            let problems: Vec<_> =
                self.problems.iter().map(|(place, what)| json!({"where": place, "what": what})).collect();
            let report = json!({
                "path": path.to_string_lossy(),
                "files": self.files,
                "fresh": self.fresh,
                "touched": self.touched,
                "records_checked": self.records,
                "records_without_crc": self.without_crc,
                "bytes_checked": self.bytes,
                "problems": problems,
            });
            return writeln!(out, "{report}");
        }
        for (place, what) in &self.problems {
            complain(&format!("{}: {}", escaped(place), escaped(what)));
        }
        let mut said = vec![plural(self.files, "file")];
        for (count, what) in [(self.fresh, "fresh"), (self.touched, "touched: same content, other time")] {
            if count > 0 {
                said.push(format!("{count} {what}"));
            }
        }
        if arguments.deep {
            said.push(format!("{} of {} compared", plural(self.records, "record"), bytes(self.bytes)));
            if self.without_crc > 0 {
                said.push(format!("{} without a CRC", self.without_crc));
            }
        }
        said.push(match self.problems.len() {
            0 => "nothing wrong".into(),
            count => plural(count, "problem"),
        });
        writeln!(out, "{}: {}", escaped(&path.to_string_lossy()), said.join(", "))
    }
}

/// Something that is read from a path.
trait Named {
    fn name(&self) -> &Path;
}

impl Named for PathBuf {
    fn name(&self) -> &Path {
        self
    }
}

impl Named for (PathBuf, FileEntry<'_>) {
    fn name(&self) -> &Path {
        &self.0
    }
}

/// Reads what an index says lies in a part of a distributed checkpoint.
fn read_part(path: &Path, file: FileEntry<'_>) -> Result<Contents> {
    let source = FileSource::open(path)?;
    let mut contents = Contents::default();
    for tensor in file.tensors() {
        if let Some(fault) = tensor.fault() {
            contents
                .problems
                .push((tensor.name().to_owned(), Fault::Unreadable { problem: fault.to_owned() }));
        }
    }
    for (number, storage) in file.storages().enumerate() {
        let Some(record) = storage.record() else { continue };
        if record.crc32 == 0 {
            contents.without_crc += usize::from(record.bytes > 0);
            continue;
        }
        contents.checked += 1;
        contents.bytes += record.bytes;
        if let Err(fault) = record.verify(&source).and_then(|()| record.check_crc(&source)) {
            let name =
                file.tensors().find(|tensor| tensor.storage().is_some_and(|s| s.row() == storage.row()));
            let name = name.map_or_else(|| format!("storage {number}"), |tensor| tensor.name().to_owned());
            contents.problems.push((name, fault));
        }
    }
    Ok(contents)
}

/// Reads a file to its end, or as far as it takes to list its tensors.
fn read_file(path: &Path, deep: bool) -> Result<Contents> {
    let source = FileSource::open(path)?;
    let limits = Limits::default();
    let failed = |source| pt_index::Error::File { path: path.to_owned(), source };
    if deep {
        return Ok(pt_format::verify(&source, &limits).map_err(failed)?);
    }
    let checkpoint = pt_format::Checkpoint::parse(&source, &limits).map_err(failed)?;
    checkpoint.check().map_err(failed)?;
    Ok(Contents::default())
}
