//! Files and folders to an index.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pt_format::{Checkpoint, Limits};
use rayon::prelude::*;

use crate::builder::IndexBuilder;
use crate::earlier::{AllKnown, Earlier, Known};
use crate::error::{Error, Result};
use crate::freshness::{Freshness, Policy, Stamp};
use crate::index::{FileEntry, Index};
use crate::mould::Moulds;
use crate::reading::{Reading, with_checkpoint, with_source};
use crate::record::{self, Record, SharedRecord};
use crate::scope::Scope;
use crate::source::{FileSource, Folder};
use crate::walk::{Found, Selection, data_files};

/// What parsed files may hold in memory before their rows are joined, about.
const BATCH_BYTES: usize = 64 << 20;
const BATCH_FILES_MIN: usize = 64;
const BATCH_FILES_MAX: usize = 4096;

/// How to build the index of a folder.
///
/// ```
/// let options = pt_index::BuildOptions { fail_on_error: true, ..Default::default() };
/// assert!(options.selection.include.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Limits for each file.
    pub limits: Limits,
    /// Which files of the folder are looked at.
    pub selection: Selection,
    /// The files and folders that are looked at, those below them included, if the caller knows which have come, changed or
    /// gone since the earlier index: relative to the folder, spelled as it lists them, `/` between parts, `""` for all of
    /// it. Everything else is taken over unseen. [`changed_paths`](crate::changed_paths) makes them of paths as users give them.
    pub changed: Option<Vec<String>>,
    /// Refuse the folder at the first file that cannot be parsed, instead of listing it as skipped.
    pub fail_on_error: bool,
    /// Threads that parse; 0: as many as the machine has cores.
    pub jobs: usize,
    /// Set by another thread, it ends the work soon, with [`Error::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl BuildOptions {
    fn scope(&self) -> Result<Scope> {
        self.changed.as_ref().map_or(Ok(Scope::everything()), |paths| Scope::of(paths))
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// What has been done so far, for a progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Files parsed, taken over or skipped.
    pub files: usize,
    /// Files there are.
    pub files_total: usize,
    /// Bytes of the files that are done.
    pub bytes: u64,
}

impl Progress {
    fn add(&mut self, stamp: Stamp) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(stamp.size);
    }
}

/// An index, and what was done to build it.
#[derive(Debug)]
pub struct Built {
    /// The index. [`Index::skipped`] lists what did not get into it.
    pub index: Index,
    /// Files that were parsed.
    pub parsed: usize,
    /// Files taken over from the earlier index as they were, those that were not looked at among them.
    pub unchanged: usize,
    /// Files of the earlier index that are no longer there.
    pub vanished: usize,
}

/// Builds the index of a checkpoint that was parsed from memory.
///
/// # Errors
/// [`Error::TooMany`].
pub fn index_of(checkpoint: &Checkpoint<'_>) -> Result<Index> {
    let mut builder = IndexBuilder::default();
    builder.add("", Stamp::default(), checkpoint)?;
    builder.finish()
}

/// Builds the index of one file.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`].
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pt");
/// use pt_format::write::{self, Object, Tensor};
/// std::fs::write(&path, write::to_vec(&Object::from(Tensor::new::<u8>(&[3], &[1, 2, 3])?))?)?;
/// let index = pt_index::build_file(&path, &Default::default())?;
/// assert_eq!(index.tensor_count(), 1);
/// pt_index::save(&index, &pt_index::sidecar_path(&path))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build_file(path: &Path, limits: &Limits) -> Result<Index> {
    build_source(path, &FileSource::open(path)?, limits)
}

/// Builds the index of a file that is open already; `path` is for messages.
///
/// # Errors
/// As [`build_file`].
pub fn build_source(path: &Path, source: &FileSource, limits: &Limits) -> Result<Index> {
    let mut builder = IndexBuilder::default();
    let stamp = Stamp::of(source.metadata());
    let add = |checkpoint: &Checkpoint<'_>| builder.add("", stamp, checkpoint);
    with_checkpoint(|| path.to_owned(), source.open_file(), limits, add)??;
    builder.finish()
}

/// Builds the index of all files below a folder, in parallel. Index files and hidden files are passed over.
///
/// With an earlier index of the folder, files whose size and time are those it knows are not opened again. The result is
/// the same, byte for byte, as without it. If it is known which have changed ([`BuildOptions::changed`]), the others are not
/// even looked for: what is left takes as long as the changed files do, and little more. The result is still the same, if the
/// selection is that of the earlier index.
///
/// `progress` is called now and then, from this thread.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be walked; [`Error::File`] and [`Error::Stopped`] too when `options` say so;
/// [`Error::Changed`] for a list of what changed without an earlier index, or with a path that leaves the folder.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object};
/// # for name in ["a.pt", "b.pt"] {
/// #     std::fs::write(folder.path().join(name), write::to_vec(&Object::from(7))?)?;
/// # }
/// let options = Default::default();
/// let first = pt_index::build_folder(folder.path(), None, &options, |_| {})?;
/// let second = pt_index::build_folder(folder.path(), Some(&first.index), &options, |_| {})?;
/// assert_eq!((first.parsed, second.parsed, second.unchanged), (2, 0, 2));
/// assert_eq!(first.index.as_bytes(), second.index.as_bytes());
///
/// std::fs::remove_file(folder.path().join("b.pt"))?;
/// let options = pt_index::BuildOptions { changed: Some(vec!["b.pt".into()]), ..options };
/// let third = pt_index::build_folder(folder.path(), Some(&second.index), &options, |_| {})?;
/// assert_eq!((third.parsed, third.unchanged, third.vanished), (0, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build_folder(
    folder: &Path,
    earlier: Option<&Index>,
    options: &BuildOptions,
    progress: impl FnMut(Progress) + Send,
) -> Result<Built> {
    with_jobs(options.jobs, || build(folder, earlier, options, progress))
}

fn build(
    folder: &Path,
    earlier: Option<&Index>,
    options: &BuildOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Built> {
    let path = folder;
    let folder = Folder::open(path)?;
    let scope = options.scope()?;
    if options.changed.is_some() && earlier.is_none() {
        let problem =
            "there is no index yet that what changed could be put into; index all of the folder first";
        return Err(Error::Changed { path: path.to_owned(), problem });
    }
    let none = IndexBuilder::default().finish()?;
    let earlier = Earlier::new(earlier.unwrap_or(&none), &scope);
    let is_unchanged = |file: &Found| {
        let is_same = |known: FileEntry<'_>| folder.stamp(&file.path).ok() == Some(known.stamp());
        file.problem.is_none() && earlier.meet(&file.path, is_same)
    };
    // Most of them are often as they were: they end here.
    let files = data_files(path, &options.selection, &scope, |files| {
        files.retain(|file| !is_unchanged(file));
        if options.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
    })?;
    let (unchanged, vanished) = (earlier.unchanged_count(), earlier.missing_count());
    let files_total = files.len() + unchanged + earlier.skipped_count();
    let done = Progress { files_total, ..Progress::default() };
    progress(done);
    if files.is_empty()
        && let Some(index) = earlier.whole()
    {
        progress(Progress { files: files_total, bytes: index.data_bytes(), ..done });
        return Ok(Built { index: index.with_root("")?, parsed: 0, unchanged, vanished });
    }
    let mut joined = Joined { builder: IndexBuilder::default(), known: earlier.known(), parsed: 0, done };
    let failed = AtomicBool::new(false);
    let mut rest = &files[..];
    let mut batch_files = BATCH_FILES_MIN;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_files.min(rest.len()));
        rest = after;
        let outcomes: Vec<_> = batch
            .par_iter()
            .map_init(Scratch::default, |scratch, file| {
                // What comes behind a failure that ends everything is not worth the time.
                if failed.load(Ordering::Relaxed) || options.is_stopped() {
                    return Outcome::Passed;
                }
                let outcome = look_at(&folder, file, &options.limits, scratch);
                let is_failure = matches!(outcome, Outcome::Failed(..));
                failed.fetch_or(options.fail_on_error && is_failure, Ordering::Relaxed);
                outcome
            })
            .collect();
        if options.is_stopped() {
            return Err(Error::Stopped);
        }
        let mut record_bytes = 0;
        for (file, outcome) in batch.iter().zip(outcomes) {
            joined.adopt_until(Some(&file.path))?;
            record_bytes += joined.add(&file.path, outcome, options.fail_on_error)?;
        }
        progress(joined.done);
        let each = (record_bytes / batch.len()).max(1);
        batch_files = (BATCH_BYTES / each).clamp(BATCH_FILES_MIN, BATCH_FILES_MAX);
    }
    joined.adopt_until(None)?;
    progress(joined.done);
    Ok(Built { index: joined.builder.finish()?, parsed: joined.parsed, unchanged, vanished })
}

/// What the earlier index says and what was found, joined in the order of their paths.
struct Joined<'e, 'i> {
    builder: IndexBuilder,
    known: AllKnown<'e, 'i>,
    parsed: usize,
    done: Progress,
}

impl Joined<'_, '_> {
    /// Takes over what the earlier index says up to a path; `None`: all that is left.
    fn adopt_until(&mut self, last: Option<&str>) -> Result<()> {
        while let Some(known) = self.known.next_until(last) {
            let stamp = match known {
                Known::File(path, file) => {
                    let stamp = file.stamp();
                    self.builder.adopt(path, stamp, file)?;
                    stamp
                }
                Known::Skipped(skipped) => {
                    self.builder.skip(skipped.path, skipped.stamp, skipped.reason)?;
                    skipped.stamp
                }
            };
            self.done.add(stamp);
        }
        Ok(())
    }

    /// Puts a file in. Returns how much memory it took until now.
    fn add(&mut self, path: &str, outcome: Outcome, fail_on_error: bool) -> Result<usize> {
        let (stamp, bytes) = match outcome {
            Outcome::Parsed(record) => {
                let (stamp, bytes) = (record.stamp, record.memory_bytes());
                self.builder.add_record(path, record)?;
                self.parsed += 1;
                (stamp, bytes)
            }
            Outcome::Failed(_, reason) if fail_on_error => return Err(reason),
            Outcome::Failed(stamp, reason) => {
                self.builder.skip(path, stamp, &reason.without_path())?;
                (stamp, 0)
            }
            Outcome::Passed => return Ok(0),
        };
        self.done.add(stamp);
        Ok(bytes)
    }
}

/// What became of a file.
enum Outcome {
    Parsed(SharedRecord),
    Failed(Stamp, Error),
    /// Not looked at.
    Passed,
}

/// What a thread keeps from file to file.
#[derive(Default)]
struct Scratch {
    reading: Reading,
    record: record::Scratch,
    moulds: Moulds,
}

fn look_at(folder: &Folder, file: &Found, limits: &Limits, scratch: &mut Scratch) -> Outcome {
    if let Some(problem) = &file.problem {
        return Outcome::Failed(Stamp::default(), problem.to_error(folder.join(&file.path)));
    }
    let mut stamp = Stamp::default();
    let Scratch { reading, record, moulds } = scratch;
    reading.may_be_like = !moulds.is_empty();
    let taken_down = folder.open_file(&file.path).and_then(|(open, found)| {
        stamp = found;
        with_source(
            || folder.join(&file.path),
            &open,
            reading,
            |source| {
                if let Some(record) = moulds.fill(stamp, source) {
                    return Ok(Ok(record));
                }
                let checkpoint = Checkpoint::parse(source, limits)?;
                let new = Record::new(stamp, &checkpoint, record).map(|new| new.shared(record));
                if let Ok(new) = &new
                    && new.is_like_before
                {
                    moulds.add(source, &checkpoint, new, limits);
                }
                Ok(new)
            },
        )?
    });
    match taken_down {
        Ok(record) => Outcome::Parsed(record),
        Err(error) => Outcome::Failed(stamp, error),
    }
}

/// Compares every file of an index with what is there, in parallel.
///
/// `folder` is where the data is: of an index kept elsewhere, its own folder joined with [`Index::root`]. `progress` is
/// called now and then, from any thread.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object};
/// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::from(7))?)?;
/// use pt_index::{Freshness, Policy};
/// let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?.index;
/// std::fs::remove_file(folder.path().join("a.pt"))?;
/// let compared = pt_index::compare(&index, folder.path(), Policy::Stat, |_| {});
/// assert_eq!(*compared[0].as_ref().unwrap(), Freshness::Missing);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compare(
    index: &Index,
    folder: &Path,
    policy: Policy,
    progress: impl Fn(Progress) + Sync,
) -> Vec<Result<Freshness>> {
    let compared = for_each_file(index, progress, |file| file.compare(&path_of(folder, file), policy));
    compared.into_iter().map(|compared| compared.map(|(freshness, _)| freshness)).collect()
}

/// An index with new stamps, and what was found.
#[derive(Debug)]
pub struct Refreshed {
    /// The index.
    pub index: Index,
    /// Files whose size and time were those that were indexed.
    pub fresh: usize,
    /// Files that had another time and the same fingerprint: they have their new time now.
    pub touched: usize,
    /// The others, with their path, left as they were: what speaks against them.
    pub others: Vec<(String, Result<Freshness>)>,
}

/// Gives files that were copied or moved, and so have another time, their new stamp, without parsing them.
///
/// # Errors
/// [`Error::TooMany`], which the earlier index would have met already.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object};
/// let path = folder.path().join("a.pt");
/// std::fs::write(&path, write::to_vec(&Object::from(7))?)?;
/// let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {})?.index;
/// std::fs::File::options().write(true).open(&path)?.set_modified(std::time::UNIX_EPOCH)?;
/// let refreshed = pt_index::refresh(&index, folder.path(), |_| {})?;
/// assert_eq!((refreshed.fresh, refreshed.touched), (0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn refresh(index: &Index, folder: &Path, progress: impl Fn(Progress) + Sync) -> Result<Refreshed> {
    let compared = for_each_file(index, progress, |file| file.compare(&path_of(folder, file), Policy::Stat));
    let mut builder = IndexBuilder::default();
    let (mut fresh, mut touched, mut others) = (0, 0, Vec::new());
    let earlier = Earlier::new(index, &Scope::nothing());
    let mut known = earlier.known();
    let mut compared = compared.into_iter();
    while let Some(known) = known.next_until(None) {
        let (path, file) = match known {
            Known::File(path, file) => (path, file),
            Known::Skipped(skipped) => {
                builder.skip(skipped.path, skipped.stamp, skipped.reason)?;
                continue;
            }
        };
        let mut stamp = file.stamp();
        match compared.next() {
            Some(Ok((Freshness::Fresh, _))) => fresh += 1,
            Some(Ok((Freshness::Touched, found))) => {
                touched += 1;
                stamp = found;
            }
            other => {
                others.extend(other.map(|other| (path.to_owned(), other.map(|(freshness, _)| freshness))))
            }
        }
        builder.adopt(path, stamp, file)?;
    }
    let index = builder.finish()?.with_root(index.root())?;
    Ok(Refreshed { index, fresh, touched, others })
}

pub(crate) fn path_of(folder: &Path, file: FileEntry<'_>) -> PathBuf {
    match file.path() {
        path if path.is_empty() => folder.to_owned(),
        path => folder.join(path),
    }
}

/// Does something with each file, in parallel; what came of it is in file order.
pub(crate) fn for_each_file<'i, T: Send>(
    index: &'i Index,
    progress: impl Fn(Progress) + Sync,
    act: impl Fn(FileEntry<'i>) -> T + Sync,
) -> Vec<T> {
    const SAYS_AFTER: usize = 256;
    let (files, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let files_total = index.file_count();
    let say = |files| progress(Progress { files, files_total, bytes: bytes.load(Ordering::Relaxed) });
    say(0);
    let files_of_index: Vec<_> = index.files().collect();
    let outcomes = files_of_index
        .into_par_iter()
        .map(|file| {
            let outcome = act(file);
            bytes.fetch_add(file.stamp().size, Ordering::Relaxed);
            let done = files.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(SAYS_AFTER) {
                say(done);
            }
            outcome
        })
        .collect();
    say(files_total);
    outcomes
}

/// Runs something on a pool of so many threads; 0: on the one of all cores.
fn with_jobs<T: Send>(jobs: usize, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if jobs == 0 {
        return run();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build();
    let pool = pool.map_err(|error| Error::Io {
        path: PathBuf::new(),
        action: "start threads",
        source: std::io::Error::other(error),
    })?;
    pool.install(run)
}
