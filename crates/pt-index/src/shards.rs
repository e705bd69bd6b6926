//! Checkpoints split over several files, as Hugging Face writes them: an `….index.json` that names the shards.
//!
//! ```json
//! {"metadata": {"total_size": 36}, "weight_map": {"a.weight": "model-00001-of-00002.bin", …}}
//! ```
//!
//! Source: `transformers/modeling_utils.py`, `save_pretrained`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use pt_format::{Checkpoint, Limits};
use serde::Deserialize;

use crate::builder::IndexBuilder;
use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::index::Index;
use crate::reading::with_checkpoint;
use crate::source::FileSource;

/// What the names of such files end in.
const INDEX_ENDING: &str = ".index.json";
/// Such files have a line for each tensor; no honest one is larger.
const INDEX_BYTES_MAX: u64 = 256 << 20;

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Returns whether a path is named like an index of shards.
///
/// ```
/// # use std::path::Path;
/// assert!(pt_index::is_shard_index(Path::new("pytorch_model.bin.index.json")));
/// assert!(!pt_index::is_shard_index(Path::new("model.pt")));
/// ```
pub fn is_shard_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(INDEX_ENDING))
}

/// Returns the files that an index of shards names, in order of their names.
///
/// # Errors
/// [`Error::Shards`] when the index is malformed or names a file outside its folder.
pub fn shard_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<String> = read_weight_map(path)?.into_values().collect();
    files.sort_unstable();
    files.dedup();
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(files.into_iter().map(|file| folder.join(file)).collect())
}

/// Builds one index over all shards. Paths of files are relative to the folder of the shard index.
///
/// # Errors
/// As [`shard_files`], and [`Error::Shards`] too when a tensor is not in the file it should be in; [`Error::Io`] or
/// [`Error::File`] when a shard cannot be read.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// use pt_format::write::{self, Object, Tensor};
/// for (name, file) in [("a", "1.bin"), ("b", "2.bin")] {
///     let object = Object::dict([(name, Tensor::new::<u8>(&[1], &[7])?.into())]);
///     std::fs::write(folder.path().join(file), write::to_vec(&object)?)?;
/// }
/// let path = folder.path().join("model.bin.index.json");
/// std::fs::write(&path, r#"{"weight_map": {"a": "1.bin", "b": "2.bin"}}"#)?;
/// let index = pt_index::build_shards(&path, &Default::default())?;
/// assert_eq!(index.find_tensor("b").unwrap().file().path(), "2.bin");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build_shards(path: &Path, limits: &Limits) -> Result<Index> {
    let weight_map = read_weight_map(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut builder = IndexBuilder::default();
    let mut files: Vec<&String> = weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let path = folder.join(file);
        let source = FileSource::open(&path)?;
        let stamp = Stamp::of(source.metadata());
        let add = |checkpoint: &Checkpoint<'_>| builder.add(file, stamp, checkpoint);
        with_checkpoint(|| path.clone(), source.open_file(), limits, add)??;
    }
    let index = builder.finish()?;
    for (name, file) in &weight_map {
        if index.find_file(file).and_then(|file| file.tensor(name)).is_none() {
            return Err(shards(path, format!("tensor `{name}` is not in `{file}`, where it should be")));
        }
    }
    Ok(index)
}

fn read_weight_map(path: &Path) -> Result<BTreeMap<String, String>> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "stat"))?.len();
    if size > INDEX_BYTES_MAX {
        return Err(shards(path, format!("it has {size} bytes, more than any honest one")));
    }
    let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let index: ShardIndex = serde_json::from_slice(&text).map_err(|error| shards(path, error.to_string()))?;
    for file in index.weight_map.values() {
        // A plain name: whoever wrote the index must not choose what else is opened.
        let mut parts = Path::new(file).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain || file.contains(['/', '\\', '\0']) {
            return Err(shards(path, format!("`{}` is no plain file name", file.escape_debug())));
        }
    }
    Ok(index.weight_map)
}

fn shards(path: &Path, problem: String) -> Error {
    Error::Shards { path: path.to_owned(), problem }
}
