//! `ptview bench`: how fast a file or a folder of one's own is read, beside what could be at best and beside torch.

mod file;
mod folder;
mod report;
mod rounds;
mod torch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::bench::report::Measured;
use crate::cli::bench::rounds::Rounds;
use crate::cli::bench::torch::Torch;
use crate::cli::{Error, Report, Result};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files and folders to read. Nothing is written to them, and none of their pickles is executed: torch is asked with
    /// weights_only=True.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How long to measure each group of contenders, in seconds; every one of them runs at least three times.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Samples in a batch.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// The Python that is asked for torch.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Measure ptview alone.
    #[arg(long)]
    no_torch: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    format: Report,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match seconds > 0.0 && seconds <= 3600.0 {
        true => Ok(seconds),
        false => Err("not between 0 and 3600".into()),
    }
}

/// What is measured, and how.
pub(crate) struct Setting<'a> {
    path: &'a Path,
    batch: usize,
    rounds: Rounds,
    torch: Option<Torch>,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    let rounds = Rounds::new(Duration::from_secs_f64(arguments.seconds));
    let (torch, without_torch) = match arguments.no_torch {
        true => (None, None),
        false => match Torch::start(&arguments.python) {
            Ok(torch) => (Some(torch), None),
            Err(reason) => (None, Some(reason)),
        },
    };
    let version = torch.as_ref().map(|torch| torch.version().to_owned());
    let mut setting = Setting { path: Path::new(""), batch: arguments.batch as usize, rounds, torch };
    for path in &arguments.paths {
        setting.path = path;
        let metadata = std::fs::metadata(path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let groups = match metadata.is_dir() {
            true => folder::measure(&mut setting)?,
            false => file::measure(&mut setting)?,
        };
        let measured =
            Measured { path, groups, torch: version.as_deref(), without_torch: without_torch.as_deref() };
        match arguments.format {
            Report::Text => measured.write_text(out),
            Report::Json => measured.write_json(out),
        }
        .map_err(Error::Output)?;
    }
    Ok(())
}

/// Keeps an index in a file that goes away with what is returned.
fn kept_index(index: &pt_index::Index) -> Result<tempfile::TempPath> {
    let at = |source| Error::Io { path: std::env::temp_dir(), source };
    let file = tempfile::Builder::new().suffix(".ptidx").tempfile().map_err(at)?;
    let path = file.into_temp_path();
    pt_index::save(index, &path)?;
    Ok(path)
}

/// Opens it as a reader does.
#[allow(unsafe_code)]
fn open_index(path: &Path) -> Result<pt_index::Index> {
    // SAFETY: the file is our own, made by `kept_index` with a name that nobody else knows; nobody writes to it.
    Ok(unsafe { pt_view::open_index(path)? })
}
