//! The files of a folder that are looked at.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf, is_separator};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rayon::prelude::*;
use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};
use crate::save::SIDECAR_EXTENSION;

/// Files that a thread finds before another may go on finding.
const AT_A_TIME: usize = 256;

/// Which files of a folder are looked at. Hidden ones and indexes never are.
///
/// ```
/// use pt_index::Selection;
/// let selection = Selection { include: vec!["train/**/*.pt".into()], ..Default::default() };
/// assert!(!selection.follow_links);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Globs over paths relative to the folder; a file must match one of them. Empty: any. `*` stays within a folder, `**` does
    /// not, and a glob without `/` matches names in any folder.
    pub include: Vec<String>,
    /// Globs of files and folders that are passed over.
    pub exclude: Vec<String>,
    /// Follow symbolic links, to files and to folders.
    pub follow_links: bool,
}

/// A file that is looked at, or a place that could not be.
pub(crate) struct Found {
    /// Relative to the folder, `/` between parts.
    pub(crate) path: String,
    pub(crate) problem: Option<Problem>,
}

/// Why a place of a folder cannot be looked at.
pub(crate) struct Problem(io::Error);

impl Problem {
    pub(crate) fn to_error(&self, path: PathBuf) -> Error {
        let source = match self.0.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.0.kind(), self.0.to_string()),
        };
        Error::Io { path, action: "look at it", source }
    }
}

/// Returns the data files below a folder, sorted by path. `look_at` is called with many of them at a time, while others are
/// still being found, on any thread of the pool; those that it takes out are not returned.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read, [`Error::Pattern`] for a malformed glob; what `look_at` returns.
pub(crate) fn data_files(
    folder: &Path,
    selection: &Selection,
    look_at: impl Fn(&mut Vec<Found>) -> Result<()> + Sync,
) -> Result<Vec<Found>> {
    let mut walk = walk(folder, selection)?;
    let mut next = || walk.by_ref().take(AT_A_TIME).collect::<Result<Vec<_>>>();
    let some =
        std::iter::from_fn(|| Some(next()).filter(|some| !matches!(some, Ok(some) if some.is_empty())));
    let looked_at = some.par_bridge().map(|some| {
        let mut some = some?;
        look_at(&mut some)?;
        // Runs in order that are still in the processor's cache leave less to the sort of all.
        some.sort_unstable_by(in_order);
        Ok(some)
    });
    let mut files = looked_at.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect::<Vec<_>>();
    files.par_sort_by(in_order);
    Ok(files)
}

/// By path; what is not valid Unicode can look like the path of another.
fn in_order(a: &Found, b: &Found) -> Ordering {
    a.path.cmp(&b.path).then_with(|| a.problem.is_some().cmp(&b.problem.is_some()))
}

/// Finds the data files below a folder, in no order.
fn walk<'f>(
    folder: &'f Path,
    selection: &Selection,
) -> Result<impl Iterator<Item = Result<Found>> + Send + use<'f>> {
    let (include, exclude) = (globs(&selection.include)?, globs(&selection.exclude)?);
    let relative = move |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let folder_bytes = folder.as_os_str().len();
    let walk = WalkDir::new(folder)
        .follow_links(selection.follow_links)
        .follow_root_links(true)
        .into_iter()
        .filter_entry(move |entry| {
            let is_excluded = || !exclude.is_empty() && exclude.is_match(relative(entry.path()));
            entry.depth() == 0 || !name_of(entry).starts_with(b".") && !is_excluded()
        });
    Ok(walk.filter_map(move |entry| match entry {
        Ok(entry) => found(&entry, folder_bytes, &include).map(Ok),
        Err(error) if error.depth() == 0 => {
            Some(Err(Error::Io { path: folder.to_owned(), action: "walk", source: error.into() }))
        }
        Err(error) => {
            let path = error.path().map_or_else(String::new, |path| path_text(&relative(path)));
            Some(Ok(Found { path, problem: Some(Problem(error.into())) }))
        }
    }))
}

/// `folder_bytes` is how long the path of the folder is, as the walk was told it.
fn found(entry: &DirEntry, folder_bytes: usize, include: &GlobSet) -> Option<Found> {
    if !entry.file_type().is_file() || is_index(name_of(entry)) {
        return None;
    }
    let path = match entry.path().to_str() {
        // What nearly all paths are; a path is taken apart only where it must be.
        Some(path) if !cfg!(windows) => path[folder_bytes..].trim_start_matches('/').to_owned(),
        _ => path_text(&entry.path().iter().skip(depth_of(entry)).collect::<PathBuf>()),
    };
    if !include.is_empty() && !include.is_match(&path) {
        return None;
    }
    let unreadable = || Problem(io::Error::new(io::ErrorKind::InvalidInput, "its name is not valid Unicode"));
    let problem = entry.path().to_str().is_none().then(unreadable);
    Some(Found { path, problem })
}

/// Returns how many components of an entry's path belong to the folder that is walked.
fn depth_of(entry: &DirEntry) -> usize {
    entry.path().iter().count() - entry.depth()
}

/// Joins the parts of a path with `/`.
fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for part in path {
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(&part.to_string_lossy());
    }
    text
}

/// Returns the name of an entry: of each file, without the toil of taking its path apart.
fn name_of(entry: &DirEntry) -> &[u8] {
    let path = entry.path().as_os_str().as_encoded_bytes();
    let folder = path.iter().rposition(|&byte| byte.is_ascii() && is_separator(byte.into()));
    &path[folder.map_or(0, |separator| separator + 1)..]
}

/// Returns whether a file that is not hidden is an index.
fn is_index(name: &[u8]) -> bool {
    name.strip_suffix(SIDECAR_EXTENSION.as_bytes()).is_some_and(|stem| stem.ends_with(b"."))
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        set.add(GlobBuilder::new(&anywhere).literal_separator(true).build()?);
    }
    Ok(set.build()?)
}
