//! `ptview index`: builds indexes and keeps them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pt_format::Limits;
use pt_index::BuildOptions;

use crate::cli::table::bytes;
use crate::cli::{Error, Result};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files, folders and indexes of shards (`….index.json`) to index.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    arguments.paths.iter().try_for_each(|path| index(path, out))
}

fn index(path: &Path, out: &mut dyn Write) -> Result {
    let start = Instant::now();
    let (index, skipped) = if path.is_dir() {
        let bar = progress_bar("indexing");
        let built = pt_index::build_folder(path, &BuildOptions::default(), |progress| {
            bar.set_length(progress.files_total as u64);
            bar.set_position(progress.files as u64);
        })?;
        bar.finish_and_clear();
        (built.index, built.skipped)
    } else if pt_index::is_shard_index(path) {
        (pt_index::build_shards(path, &Limits::default())?, Vec::new())
    } else {
        (pt_index::build_file(path, &Limits::default())?, Vec::new())
    };
    let target = pt_index::sidecar_path(path);
    pt_index::save(&index, &target)?;
    for file in &skipped {
        writeln!(out, "skipped {}", file.reason).map_err(Error::Output)?;
    }
    let files = index.file_count();
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        out,
        "{}: {files} file{}, {} tensors, {} in {seconds:.2} s ({:.0} files/s){}",
        target.display(),
        if files == 1 { "" } else { "s" },
        index.tensor_count(),
        bytes(index.as_bytes().len() as u64),
        files as f64 / seconds,
        if skipped.is_empty() { String::new() } else { format!(", {} skipped", skipped.len()) },
    )
    .map_err(Error::Output)
}

/// A progress bar on a terminal; nothing elsewhere.
pub(crate) fn progress_bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} files, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}
