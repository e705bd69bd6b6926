//! Files and folders to an index.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pt_format::{Checkpoint, Limits, Source};
use rayon::prelude::*;

use crate::builder::IndexBuilder;
use crate::error::{Error, Result};
use crate::freshness::{Freshness, Policy, Stamp};
use crate::index::{FileEntry, Index};
use crate::record::{Record, SharedRecord};
use crate::source::{FileSource, Folder};
use crate::structure::Structure;
use crate::walk::{Found, Selection, data_files};

/// Files up to this size are read in one go; of larger ones only directory and pickle are.
const WHOLE_FILE_BYTES: u64 = 128 << 10;
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
    /// Refuse the folder at the first file that cannot be parsed, instead of listing it as skipped.
    pub fail_on_error: bool,
    /// Threads that parse; 0: as many as the machine has cores.
    pub jobs: usize,
    /// Set by another thread, it ends the work soon, with [`Error::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl BuildOptions {
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

/// An index, and what was done to build it.
#[derive(Debug)]
pub struct Built {
    /// The index. [`Index::skipped`] lists what did not get into it.
    pub index: Index,
    /// Files that were parsed.
    pub parsed: usize,
    /// Files taken over from the earlier index as they were.
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
    with_checkpoint(|| path.to_owned(), source, limits, &mut Vec::new(), add)??;
    builder.finish()
}

/// Builds the index of all files below a folder, in parallel. Index files and hidden files are passed over.
///
/// With an earlier index of the folder, files whose size and time are those it knows are not opened again. The result is
/// the same, byte for byte, as without it.
///
/// `progress` is called now and then, from this thread.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be walked; [`Error::File`] and [`Error::Stopped`] too when `options` say so.
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
    let files = data_files(path, &options.selection, |files| {
        if earlier.is_some() {
            files.iter_mut().for_each(|file| file.stamp = folder.stamp(&file.path).ok());
        }
        if options.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
    })?;
    let mut builder = IndexBuilder::default();
    let mut known = earlier.map(Index::files_in_order);
    let mut done = Progress { files_total: files.len(), ..Progress::default() };
    let mut built = Built { index: IndexBuilder::default().finish()?, parsed: 0, unchanged: 0, vanished: 0 };
    let failed = AtomicBool::new(false);
    let mut rest = &files[..];
    let mut batch_files = BATCH_FILES_MIN;
    while !rest.is_empty() {
        progress(done);
        let (batch, after) = rest.split_at(batch_files.min(rest.len()));
        rest = after;
        // Both are in path order: one is walked along the other.
        let entries: Vec<_> =
            batch.iter().map(|file| known.as_mut().and_then(|known| known.find(&file.path))).collect();
        let outcomes: Vec<_> = (batch, entries)
            .into_par_iter()
            .map_init(Scratch::default, |scratch, (file, entry)| {
                // What comes behind a failure that ends everything is not worth the time.
                if failed.load(Ordering::Relaxed) || options.is_stopped() {
                    return Outcome::Passed;
                }
                let outcome = look_at(&folder, file, entry, &options.limits, scratch);
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
            let stamp = match outcome {
                Outcome::Unchanged(entry) => {
                    builder.adopt(&file.path, entry.stamp(), entry)?;
                    built.unchanged += 1;
                    entry.stamp()
                }
                Outcome::Parsed(record) => {
                    let stamp = record.stamp;
                    record_bytes += record.memory_bytes();
                    builder.add_record(&file.path, record)?;
                    built.parsed += 1;
                    stamp
                }
                Outcome::Failed(_, reason) if options.fail_on_error => return Err(reason),
                Outcome::Failed(stamp, reason) => {
                    builder.skip(&file.path, stamp, &reason.without_path())?;
                    stamp
                }
                Outcome::Passed => continue,
            };
            done.files += 1;
            done.bytes = done.bytes.saturating_add(stamp.size);
        }
        let each = (record_bytes / batch.len()).max(1);
        batch_files = (BATCH_BYTES / each).clamp(BATCH_FILES_MIN, BATCH_FILES_MAX);
    }
    progress(done);
    built.vanished = known.map_or(0, |known| known.passed_over());
    built.index = builder.finish()?;
    Ok(built)
}

/// What became of a file.
enum Outcome<'i> {
    /// The earlier index speaks of it.
    Unchanged(FileEntry<'i>),
    Parsed(SharedRecord),
    Failed(Stamp, Error),
    /// Not looked at.
    Passed,
}

/// What a thread keeps from file to file.
#[derive(Default)]
struct Scratch {
    buffer: Vec<u8>,
    /// Structure of the file before.
    before: Option<Arc<Structure>>,
}

fn look_at<'i>(
    folder: &Folder,
    file: &Found,
    entry: Option<FileEntry<'i>>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Outcome<'i> {
    if let Some(problem) = &file.problem {
        return Outcome::Failed(Stamp::default(), problem.to_error(folder.join(&file.path)));
    }
    if let Some(entry) = entry
        && file.stamp == Some(entry.stamp())
    {
        return Outcome::Unchanged(entry);
    }
    let mut stamp = Stamp::default();
    let record = folder.source(&file.path).and_then(|source| {
        stamp = Stamp::of(source.metadata());
        let record = |checkpoint: &Checkpoint<'_>| Record::new(stamp, checkpoint);
        with_checkpoint(|| folder.join(&file.path), &source, limits, &mut scratch.buffer, record)?
    });
    match record {
        Ok(record) => Outcome::Parsed(record.shared(&mut scratch.before)),
        Err(error) => Outcome::Failed(stamp, error),
    }
}

/// Parses a file: a small one is read whole, into `buffer`, of a large one the directory and the pickle. `path` is for
/// messages.
pub(crate) fn with_checkpoint<T>(
    path: impl Fn() -> PathBuf,
    source: &FileSource,
    limits: &Limits,
    buffer: &mut Vec<u8>,
    then: impl FnOnce(&Checkpoint<'_>) -> T,
) -> Result<T> {
    let failed = |source| Error::File { path: path(), source };
    if source.len() > WHOLE_FILE_BYTES {
        return Ok(then(&Checkpoint::parse(source, limits).map_err(failed)?));
    }
    // Kept from file to file: neither taken anew nor filled with zeros each time.
    let length = source.len() as usize;
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let bytes = &mut buffer[..length];
    source.read_exact_at(bytes, 0).map_err(|error| Error::io(&path(), "read")(error))?;
    Ok(then(&Checkpoint::parse(&*bytes, limits).map_err(failed)?))
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
    for (file, compared) in index.files().zip(compared) {
        let path = file.path();
        let mut stamp = file.stamp();
        match compared {
            Ok((Freshness::Fresh, _)) => fresh += 1,
            Ok((Freshness::Touched, found)) => {
                touched += 1;
                stamp = found;
            }
            other => others.push((path.clone(), other.map(|(freshness, _)| freshness))),
        }
        builder.adopt(&path, stamp, file)?;
    }
    for skipped in index.skipped() {
        builder.skip(skipped.path, skipped.stamp, skipped.reason)?;
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
