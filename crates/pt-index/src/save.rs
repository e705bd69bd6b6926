//! Keeping an index beside its data, whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, Result};
use crate::index::Index;
use crate::shards::is_shard_index;

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
    match data.is_dir() {
        true => data.join(FOLDER_INDEX),
        false => file_sidecar_path(data),
    }
}

/// Returns where the index of a file is kept, of what is known to be no folder: the file system is not asked.
///
/// ```
/// # use std::path::Path;
/// assert_eq!(pt_index::file_sidecar_path(Path::new("a/model.pt")), Path::new("a/model.pt.ptidx"));
/// ```
pub fn file_sidecar_path(file: &Path) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(".");
    path.push(SIDECAR_EXTENSION);
    path.into()
}

/// Returns where the data of an index is that is kept at `path`: the folder its files are relative to, or, of the sidecar
/// of one file, that file.
///
/// ```
/// # use std::path::Path;
/// let index = pt_index::IndexBuilder::default().finish()?.with_root("../data")?;
/// assert_eq!(pt_index::data_path(Path::new("indexes/a.ptidx"), &index), Path::new("indexes/../data"));
/// # Ok::<(), pt_index::Error>(())
/// ```
pub fn data_path(path: &Path, index: &Index) -> PathBuf {
    let is_sidecar = || index.file_count() == 1 && index.file(0).is_some_and(|file| file.path().is_empty());
    match index.root() {
        "" if is_sidecar() => path.with_extension(""),
        root => path.parent().unwrap_or(Path::new("")).join(root),
    }
}

/// Keeps the index of what `data` names (a file, a folder, an index of shards) at `target`: with the way from there to the data, if
/// that is not its usual place. Returns it as it was written.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("a.pt");
/// # use pt_format::write::{self, Object};
/// # std::fs::write(&path, write::to_vec(&Object::from(7))?)?;
/// # std::fs::create_dir(folder.path().join("indexes"))?;
/// let index = pt_index::build_file(&path, &Default::default())?;
/// let kept = pt_index::keep(index, &path, &folder.path().join("indexes/a.ptidx"))?;
/// assert_eq!(kept.root(), "../a.pt");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`save`].
pub fn keep(index: Index, data: &Path, target: &Path) -> Result<Index> {
    let index = match way(data, target) {
        way if way.is_empty() => index,
        way => index.with_root(&way)?,
    };
    save(&index, target)?;
    Ok(index)
}

/// Returns where the data is, seen from the folder of the index: empty where the index stands at its usual place.
fn way(data: &Path, target: &Path) -> String {
    if target == sidecar_path(data) {
        return String::new();
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let data = if is_shard_index(data) { data.parent().unwrap_or(data) } else { data };
    let (data, target) = (absolute(data), absolute(target));
    let relative = pathdiff::diff_paths(&data, target.parent().unwrap_or(&target)).unwrap_or(data);
    let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// Writes an index to a file. One that holds the same bytes already gets the time of now, and is not written again.
///
/// # Errors
/// [`Error::Io`]; whatever stood at `path` before is then still there.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("index.ptidx");
/// let index = pt_index::IndexBuilder::default().finish()?;
/// pt_index::save(&index, &path)?;
/// pt_index::save(&index, &path)?;
/// assert_eq!(std::fs::read(&path)?, index.as_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save(index: &Index, path: &Path) -> Result<()> {
    // Which files are newer than the index is judged by its time.
    let stamp_anew = || File::options().write(true).open(path)?.set_modified(SystemTime::now());
    if holds(path, index.as_bytes()).unwrap_or(false) && stamp_anew().is_ok() {
        return Ok(());
    }
    write_atomic(path, |file| file.write_all(index.as_bytes()))
}

/// Returns whether a regular file holds these bytes and no others.
fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    const PIECE_BYTES: usize = 1 << 20;
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES.min(bytes.len())];
    for bytes in bytes.chunks(PIECE_BYTES) {
        let piece = &mut piece[..bytes.len()];
        file.read_exact(piece)?;
        if piece != bytes {
            return Ok(false);
        }
    }
    Ok(true)
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
    let mut temporary = temporary(folder, path)?;
    write(temporary.as_file_mut()).map_err(Error::io(path, "write"))?;
    temporary.as_file().sync_all().map_err(Error::io(path, "sync"))?;
    temporary.persist(path).map_err(|error| Error::io(path, "rename a temporary file to")(error.error))?;
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder, "sync"))?;
    Ok(())
}

/// Makes a temporary beside `path`, hidden so that it is no data: `.<name>.<number>.tmp`, with the least number that is free
/// or was left behind by a process that was killed.
fn temporary(folder: &Path, path: &Path) -> Result<NamedTempFile> {
    /// As many may be written at once.
    const NUMBERS: u32 = 100;
    /// What was not touched for so long is nobody's.
    const LEFT_BEHIND: Duration = Duration::from_secs(3600);
    let is_left_behind = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
    };
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..NUMBERS {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{number}.tmp"));
        let temporary = folder.join(name);
        if is_left_behind(&temporary) {
            // Of two who find it, the second removes nothing.
            let _ = fs::remove_file(&temporary);
        }
        match File::create_new(&temporary) {
            Ok(file) => {
                let path = TempPath::try_from_path(temporary).map_err(Error::io(path, "write beside"))?;
                return Ok(NamedTempFile::from_parts(file, path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(Error::io(path, "create a temporary file beside")(error)),
        }
    }
    Err(Error::io(path, "create a temporary file beside")(taken))
}
