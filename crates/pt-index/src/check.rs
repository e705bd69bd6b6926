//! Whatever a path names, brought up to date or checked: what the command line and Python do with a path.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pt_format::{Checkpoint, Contents, Fault, Limits};
use rayon::prelude::*;

use crate::build::{BuildOptions, Built, Progress, build_file, build_folder, compare, path_of};
use crate::distributed::{build_distributed, is_distributed};
use crate::error::{Error, Result};
use crate::freshness::{Freshness, Policy};
use crate::index::{FileEntry, Index};
use crate::save::{SIDECAR_EXTENSION, data_path, read, sidecar_path};
use crate::shards::{build_shards, is_shard_index};
use crate::source::FileSource;

/// Builds the index of a file, a folder, a distributed checkpoint or the shards of an index of them, whichever the path names.
/// Of a folder, files that have not changed are taken over from the index at `kept`; if that is damaged, all are parsed.
/// [`BuildOptions::changed`] is for folders that have a whole index at `kept`.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object};
/// let path = folder.path().join("a.pt");
/// std::fs::write(&path, write::to_vec(&Object::from(7))?)?;
/// for path in [&path, folder.path()] {
///     let built = pt_index::build_any(path, None, &Default::default(), |_| {})?;
///     assert_eq!((built.parsed, built.index.file_count()), (1, 1));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`build_folder`], [`build_file`], [`build_shards`] and [`build_distributed`].
pub fn build_any(
    path: &Path,
    kept: Option<&Path>,
    options: &BuildOptions,
    progress: impl FnMut(Progress) + Send,
) -> Result<Built> {
    let is_folder = path.is_dir() && !is_distributed(path);
    if options.changed.is_some() && !is_folder && path.exists() {
        let problem = "only of a plain folder of files, what changed can be put into the index";
        return Err(Error::Changed { path: path.to_owned(), problem });
    }
    let index = match path {
        folder if is_folder => {
            let earlier = kept.and_then(|kept| Some((kept, read(kept).ok()?)));
            let is_whole = |index: &Index| index.verify().is_ok();
            // What is not looked at is believed to be that of this folder.
            let is_of_folder = |kept: &Path, index: &Index| {
                options.changed.is_none() || is_same_place(&data_path(kept, index), folder)
            };
            let earlier = earlier.filter(|(kept, index)| is_whole(index) && is_of_folder(kept, index));
            return build_folder(folder, earlier.map(|(_, index)| index).as_ref(), options, progress);
        }
        folder if folder.is_dir() => build_distributed(folder, &options.limits)?,
        shards if is_shard_index(shards) => build_shards(shards, &options.limits)?,
        file => build_file(file, &options.limits)?,
    };
    Ok(Built { parsed: index.file_count(), index, unchanged: 0, vanished: 0 })
}

fn is_same_place(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| Path::new(".").join(path).canonicalize();
    real(a).ok().zip(real(b).ok()).is_some_and(|(a, b)| a == b)
}

/// What [`check`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// Comparing files with their index.
    Comparing,
    /// Reading them.
    Reading,
}

/// What [`check`] found out about a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// Data files.
    pub files: usize,
    /// Those that are as they were indexed, by size and time.
    pub fresh: usize,
    /// Those that have another time and the same content.
    pub touched: usize,
    /// Records compared with their CRC.
    pub records: usize,
    /// Records that have none.
    pub without_crc: usize,
    /// Bytes of the records compared.
    pub bytes: u64,
    /// Where, and what is wrong there.
    pub problems: Vec<(String, String)>,
}

/// Tells whether files are those that were indexed, and if `deep`, whether all their bytes are whole: every record against its
/// CRC, every section of the index against its checksum. A file without an index is parsed.
///
/// `path` is an index, a folder that has one, or a data file. `stop`, set by another thread, ends the work soon; `progress` is called
/// now and then, from any thread.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// let path = folder.path().join("a.pt");
/// let mut bytes = write::to_vec(&Tensor::new::<u8>(&[4], b"abcd")?.into())?;
/// std::fs::write(&path, &bytes)?;
/// assert!(pt_index::check(&path, true, None, |_, _| {})?.problems.is_empty());
///
/// let at = bytes.windows(4).position(|bytes| bytes == b"abcd").unwrap();
/// bytes[at] = b'x';
/// std::fs::write(&path, &bytes)?;
/// assert_eq!(pt_index::check(&path, true, None, |_, _| {})?.problems.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When there is no such file, or the index cannot be opened; [`Error::Stopped`]. What is wrong with single files is a finding.
pub fn check(
    path: &Path,
    deep: bool,
    stop: Option<&AtomicBool>,
    progress: impl Fn(CheckStep, Progress) + Sync,
) -> Result<Findings> {
    let is_index = path.extension().is_some_and(|extension| extension == SIDECAR_EXTENSION);
    let sidecar = if is_index { path.to_owned() } else { sidecar_path(path) };
    let mut findings = Findings::default();
    let reading = |now| progress(CheckStep::Reading, now);
    if !is_index && !path.is_dir() && !sidecar.exists() {
        FileSource::open(path)?;
        findings.files = 1;
        findings.read(&[path.to_owned()], PathBuf::as_path, stop, reading, |path| read_file(path, deep))?;
        return Ok(findings);
    }
    let index = read(&sidecar)?;
    if deep && let Err(error) = index.verify() {
        // What it says cannot be trusted.
        findings.problem(&sidecar, error);
        return Ok(findings);
    }
    let root = data_path(&sidecar, &index);
    let there = findings.compare(&index, &root, deep, |now| progress(CheckStep::Comparing, now));
    if deep {
        findings.read(
            &there,
            |(path, _)| path,
            stop,
            reading,
            |(path, file)| match file.is_part() {
                true => read_part(path, *file),
                false => read_file(path, deep),
            },
        )?;
    }
    Ok(findings)
}

impl Findings {
    fn problem(&mut self, place: &Path, what: impl ToString) {
        self.problems.push((place.to_string_lossy().into_owned(), what.to_string()));
    }

    /// Compares files with an index, and returns those that are there.
    fn compare<'i>(
        &mut self,
        index: &'i Index,
        root: &Path,
        deep: bool,
        progress: impl Fn(Progress) + Sync,
    ) -> Vec<(PathBuf, FileEntry<'i>)> {
        let policy = if deep { Policy::Fingerprint } else { Policy::Stat };
        let mut there = Vec::new();
        for (file, compared) in index.files().zip(compare(index, root, policy, progress)) {
            let path = path_of(root, file);
            self.files += 1;
            match compared {
                Ok(Freshness::Fresh) => self.fresh += 1,
                Ok(Freshness::Touched) => self.touched += 1,
                Ok(freshness) => {
                    self.problem(&path, freshness);
                    continue;
                }
                Err(error) => {
                    self.problem(&path, error);
                    continue;
                }
            }
            there.push((path, file));
        }
        there
    }

    /// Reads files, in parallel.
    fn read<F: Sync>(
        &mut self,
        files: &[F],
        path_of: impl Fn(&F) -> &Path,
        stop: Option<&AtomicBool>,
        progress: impl Fn(Progress) + Sync,
        read: impl Fn(&F) -> Result<Contents> + Sync,
    ) -> Result<()> {
        let done = AtomicUsize::new(0);
        let all_bytes = Mutex::new(0u64);
        let read_one = |file: &F| {
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::Stopped);
            }
            let contents = read(file);
            let mut bytes = all_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            *bytes += contents.as_ref().map_or(0, |contents| contents.bytes);
            let files_done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(Progress { files: files_done, files_total: files.len(), bytes: *bytes });
            Ok(contents)
        };
        let all: Vec<Result<Contents>> = files.par_iter().map(read_one).collect::<Result<_>>()?;
        for (path, contents) in files.iter().map(path_of).zip(all) {
            match contents {
                Ok(contents) => {
                    self.records += contents.checked;
                    self.without_crc += contents.without_crc;
                    self.bytes += contents.bytes;
                    let path = path.to_string_lossy();
                    let problems = contents.problems.into_iter();
                    self.problems.extend(
                        problems.map(|(name, fault)| (format!("{path}: `{name}`"), fault.to_string())),
                    );
                }
                Err(error) => self.problem(path, error),
            }
        }
        Ok(())
    }
}

/// Reads what an index says lies in a part of a distributed checkpoint.
fn read_part(path: &Path, file: FileEntry<'_>) -> Result<Contents> {
    let source = FileSource::open(path)?;
    let mut contents = Contents::default();
    for tensor in file.tensors() {
        if let Some(fault) = tensor.fault() {
            let fault = Fault::Unreadable { problem: fault.to_owned() };
            contents.problems.push((tensor.name().to_owned(), fault));
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
            let is_there = |storage_of: crate::StorageEntry<'_>| storage_of.row() == storage.row();
            let name = file.tensors().find(|tensor| tensor.storage().is_some_and(is_there));
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
    let failed = |source| Error::File { path: path.to_owned(), source };
    if deep {
        return pt_format::verify(&source, &limits).map_err(failed);
    }
    let checkpoint = Checkpoint::parse(&source, &limits).map_err(failed)?;
    checkpoint.check().map_err(failed)?;
    Ok(Contents::default())
}
