//! Long work on files: indexing, verifying, judging globals. It runs in another thread, so that this one can show how far it
//! is and be interrupted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use pt_format::{Limits, Verdict};
use pt_index::{BuildOptions, FileSource, Progress, Selection};
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

/// Builds an index and keeps it at `output`, or its usual place. Returns what `ptview.index` says of it.
#[pyfunction]
#[pyo3(signature = (path, output, changed, include, exclude, follow_links, full, fail_on_error, jobs, show))]
#[allow(clippy::too_many_arguments)] // `ptview.index` names them
pub(crate) fn index<'py>(
    py: Python<'py>,
    path: PathBuf,
    output: Option<PathBuf>,
    changed: Option<Vec<PathBuf>>,
    include: Vec<String>,
    exclude: Vec<String>,
    follow_links: bool,
    full: bool,
    fail_on_error: bool,
    jobs: usize,
    show: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyDict>> {
    let target = output.unwrap_or_else(|| pt_index::sidecar_path(&path));
    let selection = Selection { include, exclude, follow_links };
    let built = interruptible(py, show.as_ref(), |work| {
        let options = BuildOptions {
            limits: Limits::default(),
            selection,
            changed: changed.map(|changed| pt_index::changed_paths(&path, &changed)).transpose()?,
            fail_on_error,
            jobs,
            stop: Some(work.stop.clone()),
        };
        let kept = (!full).then_some(&*target);
        let built = pt_index::build_any(&path, kept, &options, |progress| work.report(progress))?;
        match work.is_stopped() {
            true => Err(pt_index::Error::Stopped),
            false => {
                let index = pt_index::keep(built.index, &path, &target)?;
                Ok(pt_index::Built { index, ..built })
            }
        }
    })?;
    let report = PyDict::new(py);
    report.set_item("path", target)?;
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

/// Compares files with their index and, if `deep`, their bytes with their checksums. Returns what is wrong: where, and what.
#[pyfunction]
pub(crate) fn verify<'py>(
    py: Python<'py>,
    path: PathBuf,
    deep: bool,
    show: Option<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyDict>> {
    let findings = interruptible(py, show.as_ref(), |work| {
        pt_index::check(&path, deep, Some(&work.stop), |_, progress| work.report(progress))
    })?;
    let report = PyDict::new(py);
    report.set_item("files", findings.files)?;
    report.set_item("checked", findings.records)?;
    report.set_item("without_crc", findings.without_crc)?;
    report.set_item("nbytes", findings.bytes)?;
    report.set_item("problems", findings.problems)?;
    Ok(report)
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
