//! Keeping an index beside its data, whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::index::Index;

/// Extension of the index of one file: `model.pt` has `model.pt.ptidx`.
pub const SIDECAR_EXTENSION: &str = "ptidx";
/// Name of the index of a folder, inside it.
pub const FOLDER_INDEX: &str = "index.ptidx";

/// Returns where the index of a file or folder is kept.
///
/// ```
/// # use std::path::Path;
/// assert_eq!(pt_index::sidecar_path(Path::new("a/model.pt")), Path::new("a/model.pt.ptidx"));
/// ```
pub fn sidecar_path(data: &Path) -> PathBuf {
    if data.is_dir() {
        return data.join(FOLDER_INDEX);
    }
    let mut path = OsString::from(data);
    path.push(".");
    path.push(SIDECAR_EXTENSION);
    path.into()
}

/// Writes an index to a file.
///
/// # Errors
/// [`Error::Io`]; whatever stood at `path` before is then still there.
pub fn save(index: &Index, path: &Path) -> Result<()> {
    write_atomic(path, |file| file.write_all(index.as_bytes()))
}

/// Reads an index from a file into memory. `pt-view` maps it instead.
///
/// # Errors
/// [`Error::Io`], or as [`Index::from_bytes`].
pub fn read(path: &Path) -> Result<Index> {
    Index::from_bytes(fs::read(path).map_err(Error::io(path, "read"))?)
}

/// Writes a file so that at any moment either the old or the new one is there, whole: to a temporary beside it, synced,
/// renamed, and the folder synced.
///
/// # Errors
/// [`Error::Io`]; the temporary is removed.
///
/// ```
/// # use std::io::Write;
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("x");
/// pt_index::write_atomic(&path, |file| file.write_all(b"all of it"))?;
/// assert_eq!(std::fs::read(&path)?, b"all of it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".ptview-")
        .suffix(".tmp")
        .permissions_of_new_files()
        .tempfile_in(folder)
        .map_err(Error::io(path, "create a temporary file beside"))?;
    write(temporary.as_file_mut()).map_err(Error::io(path, "write"))?;
    temporary.as_file().sync_all().map_err(Error::io(path, "sync"))?;
    temporary.persist(path).map_err(|error| Error::io(path, "rename a temporary file to")(error.error))?;
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder, "sync"))?;
    Ok(())
}

/// Temporary files are made for their owner alone; these become ordinary files.
trait NewFilePermissions {
    fn permissions_of_new_files(&mut self) -> &mut Self;
}

impl NewFilePermissions for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_of_new_files(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        // The umask still applies.
        self.permissions(fs::Permissions::from_mode(0o666))
    }

    #[cfg(not(unix))]
    fn permissions_of_new_files(&mut self) -> &mut Self {
        self
    }
}
