//! The files of a folder that are looked at.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf, is_separator};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rayon::prelude::*;
use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};
use crate::save::SIDECAR_EXTENSION;
use crate::scope::Scope;

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

/// Returns the data files of a folder that are in the scope, sorted by path. `look_at` is called with many of them at a time,
/// while others are still being found, on any thread of the pool; those that it takes out are not returned.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read, [`Error::Pattern`] for a malformed glob; what `look_at` returns.
pub(crate) fn data_files(
    folder: &Path,
    selection: &Selection,
    scope: &Scope,
    look_at: impl Fn(&mut Vec<Found>) -> Result<()> + Sync,
) -> Result<Vec<Found>> {
    let walk = Walk {
        folder,
        include: globs(&selection.include)?,
        exclude: globs(&selection.exclude)?,
        follow_links: selection.follow_links,
    };
    let mut found = scope.roots().iter().flat_map(|root| walk.files(root));
    let mut next = || found.by_ref().take(AT_A_TIME).collect::<Result<Vec<_>>>();
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

/// How the files of a folder are found.
struct Walk<'f> {
    folder: &'f Path,
    include: GlobSet,
    exclude: GlobSet,
    follow_links: bool,
}

impl Walk<'_> {
    /// Finds the data files at a place of the folder and below it, in no order: those that a walk of all of it would find there.
    fn files(&self, root: &str) -> impl Iterator<Item = Result<Found>> + Send {
        let around = self.way_to(root);
        let start = if root.is_empty() { self.folder.to_owned() } else { self.folder.join(root) };
        let mut entries = WalkDir::new(start)
            .follow_links(self.follow_links)
            .follow_root_links(root.is_empty())
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !self.is_passed_over(entry.path()));
        let is_gone = move || {
            let found = self.folder.join(root).symlink_metadata();
            found.is_err_and(|error| is_not_there(&error))
        };
        let found = std::iter::from_fn(move || {
            let around = around.as_ref()?;
            Some(match entries.next()? {
                Ok(entry) => match around.loop_of(&entry) {
                    None => self.found(&entry).map(Ok),
                    Some(problem) => {
                        entries.skip_current_dir();
                        Some(Ok(self.problem_at(entry.path(), problem)))
                    }
                },
                Err(error) if error.depth() == 0 && root.is_empty() => {
                    let source = error.into();
                    Some(Err(Error::Io { path: self.folder.to_owned(), action: "walk", source }))
                }
                // A link that leads nowhere is there.
                Err(error) if error.depth() == 0 && is_gone() => None,
                Err(error) => {
                    let path = error.path().unwrap_or(self.folder).to_owned();
                    Some(Ok(self.problem_at(&path, error.into())))
                }
            })
        });
        found.flatten()
    }

    /// Looks at the folders around a place; `None` where a walk would not come there.
    fn way_to(&self, root: &str) -> Option<Around> {
        let mut around = Around::default();
        if root.is_empty() {
            return Some(around);
        }
        let mut place = self.folder.to_owned();
        for name in root.split('/') {
            let found = match self.follow_links || place == self.folder {
                true => place.metadata(),
                false => place.symlink_metadata(),
            };
            // What cannot be told here is a problem of the place itself, which is not gone.
            let is_folder = found.map_or_else(|error| !is_not_there(&error), |found| found.is_dir());
            if !is_folder || self.follow_links && !around.add(&place) {
                return None;
            }
            place.push(name);
            if self.is_passed_over(&place) {
                return None;
            }
        }
        Some(around)
    }

    /// Returns whether a file or folder, and all below it, is left out whatever it is.
    fn is_passed_over(&self, path: &Path) -> bool {
        let is_excluded = || !self.exclude.is_empty() && self.exclude.is_match(self.relative(path));
        name_of(path).starts_with(b".") || is_excluded()
    }

    fn found(&self, entry: &DirEntry) -> Option<Found> {
        if !entry.file_type().is_file() || is_index(name_of(entry.path())) {
            return None;
        }
        let path = match entry.path().to_str() {
            // What nearly all paths are; a path is taken apart only where it must be.
            Some(path) if !cfg!(windows) => {
                path[self.folder.as_os_str().len()..].trim_start_matches('/').to_owned()
            }
            _ => path_text(self.relative(entry.path())),
        };
        if !self.include.is_empty() && !self.include.is_match(&path) {
            return None;
        }
        let unreadable =
            || Problem(io::Error::new(io::ErrorKind::InvalidInput, "its name is not valid Unicode"));
        let problem = entry.path().to_str().is_none().then(unreadable);
        Some(Found { path, problem })
    }

    fn problem_at(&self, path: &Path, problem: io::Error) -> Found {
        Found { path: path_text(self.relative(path)), problem: Some(Problem(problem)) }
    }

    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(self.folder).unwrap_or(path)
    }
}

/// The folders around the place where a walk begins: as they are called, and without links. A walk that began further up would
/// know that a link leads back to one of them. Without following of links, they are not asked for.
#[derive(Default)]
struct Around {
    folders: Vec<(PathBuf, PathBuf)>,
}

impl Around {
    /// Adds the next one; false if it is one of those before.
    fn add(&mut self, folder: &Path) -> bool {
        let Ok(real) = folder.canonicalize() else { return true };
        let is_new = self.folders.iter().all(|(_, before)| *before != real);
        self.folders.push((folder.to_owned(), real));
        is_new
    }

    /// Returns what a walk from further up would say of a link that leads back to one of them.
    fn loop_of(&self, entry: &DirEntry) -> Option<io::Error> {
        if self.folders.is_empty() || !entry.path_is_symlink() || !entry.file_type().is_dir() {
            return None;
        }
        let real = entry.path().canonicalize().ok()?;
        let (ancestor, _) = self.folders.iter().find(|(_, folder)| *folder == real)?;
        let (link, ancestor) = (entry.path().display(), ancestor.display());
        // As `walkdir` says it.
        Some(io::Error::other(format!("File system loop found: {link} points to an ancestor {ancestor}")))
    }
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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

/// Returns the last part of a path: of each file, without the toil of taking its path apart.
fn name_of(path: &Path) -> &[u8] {
    let path = path.as_os_str().as_encoded_bytes();
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
