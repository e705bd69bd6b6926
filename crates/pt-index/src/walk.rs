//! The files of a folder that are looked at.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};
use crate::save::SIDECAR_EXTENSION;

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

/// Returns all data files below a folder, sorted by path.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read, [`Error::Pattern`] for a malformed glob.
pub(crate) fn data_files(folder: &Path, selection: &Selection) -> Result<Vec<Found>> {
    let (include, exclude) = (globs(&selection.include)?, globs(&selection.exclude)?);
    let relative = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let folder_bytes = folder.as_os_str().len();
    let walk = WalkDir::new(folder)
        .follow_links(selection.follow_links)
        .follow_root_links(true)
        .into_iter()
        .filter_entry(|entry| {
            let is_excluded = || !exclude.is_empty() && exclude.is_match(relative(entry.path()));
            entry.depth() == 0 || !is_hidden(entry.file_name()) && !is_excluded()
        });
    let mut files = Vec::new();
    for entry in walk {
        match entry {
            Ok(entry) => {
                if let Some(found) = found(&entry, folder_bytes, &include) {
                    files.push(found);
                }
            }
            Err(error) if error.depth() == 0 => {
                return Err(Error::Io { path: folder.to_owned(), action: "walk", source: error.into() });
            }
            Err(error) => {
                let path = error.path().map_or_else(String::new, |path| path_text(&relative(path)));
                files.push(Found { path, problem: Some(Problem(error.into())) });
            }
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// `folder_bytes` is how long the path of the folder is, as the walk was told it.
fn found(entry: &DirEntry, folder_bytes: usize, include: &GlobSet) -> Option<Found> {
    if !entry.file_type().is_file() || entry.path().extension().is_some_and(|e| e == SIDECAR_EXTENSION) {
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

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        set.add(GlobBuilder::new(&anywhere).literal_separator(true).build()?);
    }
    Ok(set.build()?)
}
