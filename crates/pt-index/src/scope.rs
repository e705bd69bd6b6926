//! What of a folder is looked at: all of it, or what is said to have changed.

use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf, absolute};

use crate::error::{Error, Result};

/// Places of a folder, none of them inside another, each before what lies behind it in the tree.
pub(crate) struct Scope {
    roots: Vec<String>,
}

impl Scope {
    /// The whole folder.
    pub(crate) fn everything() -> Self {
        Self { roots: vec![String::new()] }
    }

    /// No file.
    pub(crate) fn nothing() -> Self {
        Self { roots: Vec::new() }
    }

    /// The files and folders of a list.
    ///
    /// # Errors
    /// [`Error::Changed`] for a path that leaves the folder.
    pub(crate) fn of(paths: &[String]) -> Result<Self> {
        if let Some(path) = paths.iter().find(|path| !is_inside(path)) {
            return Err(outside(Path::new(path)));
        }
        let mut roots = paths.to_vec();
        roots.sort_unstable_by(|a, b| in_tree(a, b));
        roots.dedup_by(|next, root| is_within(next, root));
        Ok(Self { roots })
    }

    pub(crate) fn roots(&self) -> &[String] {
        &self.roots
    }

    /// Returns whether a path is one of the places, or lies below one.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let up_to = self.roots.partition_point(|root| in_tree(root, path).is_le());
        up_to.checked_sub(1).is_some_and(|last| is_within(path, &self.roots[last]))
    }
}

/// Orders paths so that what lies below a folder comes directly behind it.
fn in_tree(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

fn is_within(path: &str, root: &str) -> bool {
    root.is_empty() || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns whether a path is empty, or names between `/` and nothing else.
fn is_inside(path: &str) -> bool {
    let is_name = |part: &str| Path::new(part).components().eq([Component::Normal(part.as_ref())]);
    path.is_empty() || !path.contains('\0') && path.split('/').all(is_name)
}

/// Turns paths as a user gives them, absolute or relative to the current directory, into those that
/// [`BuildOptions::changed`](crate::BuildOptions::changed) takes. They may be those of files that are gone. A path that is not valid Unicode
/// stands for the folder around it.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let paths = [folder.join("a/1.pt"), folder.join("./b/"), folder.to_owned()];
/// assert_eq!(pt_index::changed_paths(folder, &paths)?, ["a/1.pt", "b", ""]);
/// assert!(pt_index::changed_paths(folder, &["/elsewhere"]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Changed`] for a path that is not inside the folder; [`Error::Io`].
pub fn changed_paths(folder: &Path, paths: &[impl AsRef<Path>]) -> Result<Vec<String>> {
    let spelled = absolute(folder).map_err(Error::io(folder, "find"))?;
    let mut real = None;
    let relative = |path: &Path| {
        let whole = absolute(path).map_err(Error::io(path, "find"))?;
        if let Some(text) = whole.strip_prefix(&spelled).ok().and_then(plain_text) {
            return Ok(text);
        }
        // One of them may lead through a link, or back up.
        let real = match &real {
            Some(real) => real,
            None => real.insert(spelled.canonicalize().map_err(Error::io(folder, "find"))?),
        };
        let whole = real_path(&whole);
        whole.strip_prefix(real).ok().and_then(plain_text).ok_or_else(|| outside(path))
    };
    paths.iter().map(AsRef::as_ref).map(relative).collect()
}

/// Follows the links on the way to a path, not the one that it may be itself; of what is gone, as far as it is there.
fn real_path(path: &Path) -> PathBuf {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return path.canonicalize().unwrap_or_else(|_| path.to_owned());
    };
    match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(_) => real_path(parent).join(name),
    }
}

/// Joins the names of a path with `/`, up to one that is not valid Unicode; `None` where not all are names.
fn plain_text(path: &Path) -> Option<String> {
    let names = path.components().map(|part| match part {
        Component::Normal(name) => Some(name.to_str()),
        _ => None,
    });
    let names: Vec<_> = names.collect::<Option<_>>()?;
    let names: Vec<_> = names.into_iter().map_while(|name| name).collect();
    Some(names.join("/"))
}

fn outside(path: &Path) -> Error {
    Error::Changed { path: path.to_owned(), problem: "not a path inside the folder that is indexed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Result<Scope> {
        Scope::of(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn places_inside_others_go_and_what_is_below_is_covered() {
        let scope = of(&["b/c", "a/x", "a-b", "a", "a", "b/c/d/e"]).unwrap();
        assert_eq!(scope.roots(), ["a", "a-b", "b/c"]);
        for path in ["a", "a/x", "a/y/z", "a-b", "a-b/1", "b/c", "b/c/d"] {
            assert!(scope.covers(path), "{path}");
        }
        for path in ["", "A", "a-", "a-c", "a.pt", "b", "b/ca", "b/b", "c"] {
            assert!(!scope.covers(path), "{path}");
        }
        assert_eq!(of(&["a", "", "b"]).unwrap().roots(), [""]);
        assert!(Scope::everything().covers("a/b") && !of(&[]).unwrap().covers("a"));
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in ["..", "a/..", "/a", "a/", "a//b", ".", "./a", "a/./b", "/", "a\0"] {
            assert!(matches!(of(&["b", path]), Err(Error::Changed { .. })), "{path}");
        }
        #[cfg(windows)]
        for path in ["c:", "c:/a", "a\\b", "\\a"] {
            assert!(of(&[path]).is_err(), "{path}");
        }
    }
}
