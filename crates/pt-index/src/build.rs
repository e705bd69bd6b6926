//! Files and folders to an index.

use std::path::{Path, PathBuf};

use pt_format::{Checkpoint, Limits, Source};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::builder::IndexBuilder;
use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::index::Index;
use crate::save::SIDECAR_EXTENSION;
use crate::source::FileSource;

/// Files up to this size are read in one go; of larger ones only directory and pickle are.
const WHOLE_FILE_BYTES: u64 = 128 << 10;
/// Files parsed before their rows are joined: bounds what is in memory at once.
const BATCH: usize = 1024;

/// How to build an index of a folder.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Limits for each file.
    pub limits: Limits,
    /// Refuse the folder at the first file that cannot be parsed, instead of listing it as skipped.
    pub fail_on_error: bool,
}

/// What has been done so far, for a progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Files parsed or skipped.
    pub files: usize,
    /// Files there are.
    pub files_total: usize,
}

/// A file that is not in the index.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: Error,
}

/// An index, and what did not get into it.
#[derive(Debug)]
pub struct Built {
    /// The index.
    pub index: Index,
    /// Files that could not be parsed.
    pub skipped: Vec<Skipped>,
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
    let checkpoint = parse(path, source, limits)?;
    let mut builder = IndexBuilder::default();
    builder.add("", Stamp::of(source.metadata()), &checkpoint)?;
    builder.finish()
}

/// Builds the index of all files below a folder, in parallel. Index files and hidden files are passed over.
///
/// `progress` is called now and then, from this thread.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be walked; [`Error::File`] too when `options` say so.
pub fn build_folder(
    folder: &Path,
    options: &BuildOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Built> {
    let paths = data_files(folder)?;
    let mut builder = IndexBuilder::default();
    let mut skipped = Vec::new();
    for (batch, paths_of_batch) in paths.chunks(BATCH).enumerate() {
        progress(Progress { files: batch * BATCH, files_total: paths.len() });
        let parsed: Vec<_> =
            paths_of_batch.par_iter().map(|path| parse_path(&folder.join(path), &options.limits)).collect();
        for (path, parsed) in paths_of_batch.iter().zip(parsed) {
            match parsed {
                Ok((stamp, checkpoint)) => builder.add(path, stamp, &checkpoint)?,
                Err(reason) if options.fail_on_error => return Err(reason),
                Err(reason) => skipped.push(Skipped { path: folder.join(path), reason }),
            }
        }
    }
    progress(Progress { files: paths.len(), files_total: paths.len() });
    Ok(Built { index: builder.finish()?, skipped })
}

/// Returns the paths of all data files below a folder, relative to it, with `/` between parts, sorted.
fn data_files(folder: &Path) -> Result<Vec<String>> {
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let walk = WalkDir::new(folder)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    let mut paths = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_owned();
            Error::Io { path, action: "walk", source: error.into() }
        })?;
        if !entry.file_type().is_file() || entry.path().extension().is_some_and(|e| e == SIDECAR_EXTENSION) {
            continue;
        }
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let parts: Option<Vec<_>> = relative.iter().map(|part| part.to_str()).collect();
        let parts = parts.ok_or_else(|| Error::Io {
            path: entry.path().to_owned(),
            action: "index",
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "its name is not valid Unicode"),
        })?;
        paths.push(parts.join("/"));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Reads a small file whole; of a large one the directory and the pickle.
fn parse(path: &Path, source: &FileSource, limits: &Limits) -> Result<Checkpoint<'static>> {
    let size = source.len();
    let checkpoint = if size <= WHOLE_FILE_BYTES {
        let bytes = source.read_at(0, size as usize).map_err(Error::io(path, "read"))?;
        Checkpoint::parse(&*bytes, limits).map(Checkpoint::into_owned)
    } else {
        Checkpoint::parse(source, limits).map(Checkpoint::into_owned)
    };
    checkpoint.map_err(|source| Error::File { path: path.to_owned(), source })
}

pub(crate) fn parse_path(path: &Path, limits: &Limits) -> Result<(Stamp, Checkpoint<'static>)> {
    let source = FileSource::open(path)?;
    Ok((Stamp::of(source.metadata()), parse(path, &source, limits)?))
}
