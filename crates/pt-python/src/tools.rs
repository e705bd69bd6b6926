//! Long work on files: indexing, verifying, judging globals. It runs in another thread, so that this one can show how far it
//! is and be interrupted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use pt_format::{Limits, Verdict};
use pt_index::{
    BuildOptions, Built, FileSource, Freshness, Index, Policy, Progress, SIDECAR_EXTENSION, Selection,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Class, Error, Result};

/// How often to look for an interrupt.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the worker thread says and hears.
struct Work {
    progress: Sender<Progress>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn report(&self, progress: Progress) {
        // Nobody listens any more when the work is being stopped.
        let _ = self.progress.send(progress);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs work in another thread; calls `show(files, files_total)` now and then. On an interrupt the work is stopped, and the
/// exception raised when it has ended.
fn interruptible<T: Send>(
    py: Python<'_>,
    show: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Work) -> Result<T, pt_index::Error> + Send,
) -> Result<T> {
    let (progress, mut reports) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let work_side = Work { progress, stop: stop.clone() };
    let mut raised = None;
    let outcome = thread::scope(|scope| {
        // The sender is dropped with the closure, which ends the loop.
        let worker = scope.spawn(move || work(&work_side));
        loop {
            // Between threads only the newest report counts.
            let listener = &mut reports;
            let report = py.detach(move || {
                let first = listener.recv_timeout(LOOK_EVERY);
                first.map(|first| listener.try_iter().last().unwrap_or(first))
            });
            let shown = match (&report, show) {
                (Ok(progress), Some(show)) => show.call1((progress.files, progress.files_total)).map(|_| ()),
                _ => Ok(()),
            };
            if let Err(error) = shown.and_then(|()| py.check_signals()) {
                stop.store(true, Ordering::Relaxed);
                raised.get_or_insert(error);
            }
            if matches!(report, Err(RecvTimeoutError::Disconnected)) {
                break py.detach(|| worker.join());
            }
        }
    });
    match (raised, outcome) {
        (Some(error), _) => Err(error.into()),
        (None, Ok(outcome)) => Ok(outcome?),
        (None, Err(_)) => Err(Class::Error.error("the work panicked, which is a bug of ptview")),
    }
}

/// Builds an index and keeps it at its usual place. Returns what `ptview.index` says of it.
#[pyfunction]
#[pyo3(signature = (path, include, exclude, follow_links, full, fail_on_error, jobs, show))]
#[allow(clippy::too_many_arguments)] // `ptview.index` names them
pub(crate) fn index<'py>(
    py: Python<'py>,
    path: PathBuf,
    include: Vec<String>,
    exclude: Vec<String>,
    follow_links: bool,
    full: bool,
    fail_on_error: bool,
    jobs: usize,
    show: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyDict>> {
    let target = pt_index::sidecar_path(&path);
    let selection = Selection { include, exclude, follow_links };
    let built = interruptible(py, show.as_ref(), |work| {
        let options = BuildOptions {
            limits: Limits::default(),
            selection,
            fail_on_error,
            jobs,
            stop: Some(work.stop.clone()),
        };
        let built = build(&path, &target, full, &options, work)?;
        match work.is_stopped() {
            true => Err(pt_index::Error::Stopped),
            false => pt_index::save(&built.index, &target).map(|()| built),
        }
    })?;
    let report = PyDict::new(py);
    report.set_item("path", target.into_os_string())?;
    report.set_item("files", built.index.file_count())?;
    report.set_item("tensors", built.index.tensor_count())?;
    report.set_item("nbytes", built.index.as_bytes().len())?;
    report.set_item("parsed", built.parsed)?;
    report.set_item("unchanged", built.unchanged)?;
    report.set_item("vanished", built.vanished)?;
    let skipped = PyDict::new(py);
    for entry in built.index.skipped() {
        skipped.set_item(entry.path, entry.reason)?;
    }
    report.set_item("skipped", skipped)?;
    Ok(report)
}

fn build(
    path: &Path,
    target: &Path,
    full: bool,
    options: &BuildOptions,
    work: &Work,
) -> Result<Built, pt_index::Error> {
    let alone = |index: Index| Built { parsed: index.file_count(), index, unchanged: 0, vanished: 0 };
    if pt_index::is_distributed(path) {
        return pt_index::build_distributed(path, &options.limits).map(alone);
    }
    if path.is_dir() {
        // A damaged one is built anew.
        let earlier = pt_index::read(target).ok().filter(|index| !full && index.verify().is_ok());
        return pt_index::build_folder(path, earlier.as_ref(), options, |progress| work.report(progress));
    }
    match pt_index::is_shard_index(path) {
        true => pt_index::build_shards(path, &options.limits).map(alone),
        false => pt_index::build_file(path, &options.limits).map(alone),
    }
}

/// Compares files with their index and, if `deep`, their bytes with their checksums. Returns what is wrong: where, and what.
#[pyfunction]
pub(crate) fn verify<'py>(
    py: Python<'py>,
    path: PathBuf,
    deep: bool,
    show: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyDict>> {
    let findings = interruptible(py, show.as_ref(), |work| look_at(&path, deep, work))?;
    let report = PyDict::new(py);
    report.set_item("files", findings.files)?;
    report.set_item("checked", findings.checked)?;
    report.set_item("without_crc", findings.without_crc)?;
    report.set_item("nbytes", findings.bytes)?;
    report.set_item("problems", findings.problems)?;
    Ok(report)
}

#[derive(Default)]
struct Findings {
    files: usize,
    checked: usize,
    without_crc: usize,
    bytes: u64,
    problems: Vec<(String, String)>,
}

impl Findings {
    fn problem(&mut self, path: &Path, what: impl ToString) {
        self.problems.push((path.to_string_lossy().into_owned(), what.to_string()));
    }
}

fn look_at(path: &Path, deep: bool, work: &Work) -> Result<Findings, pt_index::Error> {
    let mut findings = Findings::default();
    let is_index = path.extension().is_some_and(|extension| extension == SIDECAR_EXTENSION);
    let sidecar = if is_index { path.to_owned() } else { pt_index::sidecar_path(path) };
    let mut to_read = Vec::new();
    if is_index || path.is_dir() || sidecar.exists() {
        let index = pt_index::read(&sidecar)?;
        if deep && let Err(error) = index.verify() {
            // What it says cannot be trusted.
            findings.problem(&sidecar, error);
            return Ok(findings);
        }
        let root = pt_index::data_path(&sidecar, &index);
        let policy = if deep { Policy::Fingerprint } else { Policy::Stat };
        let compared = pt_index::compare(&index, &root, policy, |progress| work.report(progress));
        for (file, compared) in index.files().zip(compared) {
            let path = if file.path().is_empty() { root.clone() } else { root.join(file.path()) };
            findings.files += 1;
            match compared {
                // A part of a distributed checkpoint is no file of records.
                Ok(Freshness::Fresh | Freshness::Touched) if file.is_part() => {}
                Ok(Freshness::Fresh | Freshness::Touched) => to_read.push(path),
                Ok(freshness) => findings.problem(&path, freshness),
                Err(error) => findings.problem(&path, error),
            }
        }
    } else {
        findings.files = 1;
        to_read.push(path.to_owned());
    }
    if deep {
        read(&to_read, work, &mut findings)?;
    }
    Ok(findings)
}

fn read(paths: &[PathBuf], work: &Work, findings: &mut Findings) -> Result<(), pt_index::Error> {
    for (done, path) in paths.iter().enumerate() {
        if work.is_stopped() {
            return Err(pt_index::Error::Stopped);
        }
        work.report(Progress { files: done, files_total: paths.len(), bytes: findings.bytes });
        match pt_format::verify(&FileSource::open(path)?, &Limits::default()) {
            Ok(contents) => {
                findings.checked += contents.checked;
                findings.without_crc += contents.without_crc;
                findings.bytes += contents.bytes;
                for (name, fault) in contents.problems {
                    findings.problem(path, format!("{name}: {fault}"));
                }
            }
            Err(error) => findings.problem(path, error),
        }
    }
    Ok(())
}

/// Lists what loading a file with pickle would import: `(module, name, verdict, references, calls)`, and what kept the file from
/// being judged to its end.
#[pyfunction]
#[allow(clippy::type_complexity)] // a row, and why there may be more
pub(crate) fn globals(
    py: Python<'_>,
    path: PathBuf,
) -> Result<(Vec<(String, String, &'static str, u64, u64)>, Option<String>)> {
    let audit = py.detach(|| {
        let source = FileSource::open(&path)?;
        let audit = pt_format::audit(&source, &Limits::default());
        audit.map_err(|source| Error::from(pt_index::Error::File { path: path.clone(), source }))
    })?;
    let rows = audit.globals.into_iter().map(|global| {
        let verdict = match global.verdict {
            Verdict::Known => "known",
            Verdict::Opaque => "opaque",
            Verdict::Dangerous => "dangerous",
        };
        (global.module, global.name, verdict, global.references, global.calls)
    });
    Ok((rows.collect(), audit.problem.map(|problem| problem.to_string())))
}
