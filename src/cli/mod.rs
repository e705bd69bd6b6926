//! The command line: arguments, and what each command prints.

mod bench;
mod demo;
mod globals;
mod index;
mod info;
mod ls;
mod progress;
mod table;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// PyTorch files opened without PyTorch: nothing is executed, nothing is converted, nothing is read before it is needed.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the tensors of files: name, dtype, shape, bytes, and where they lie.
    Ls(ls::Arguments),
    /// Build the index of files and folders, and keep it beside them.
    Index(index::Arguments),
    /// Tell whether files are still those that were indexed, and, with --deep, whether all their bytes are whole.
    Verify(verify::Arguments),
    /// Show what an index holds: files, tensors, schemas, columns.
    Info(info::Arguments),
    /// Measure how fast files and folders of your own are read, beside what could be at best and beside torch.
    Bench(bench::Arguments),
    /// Write a small folder of .pt files, index it, stream shuffled batches from it, check them, and say how fast.
    Demo(demo::Arguments),
}

/// How reports are printed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Report {
    /// For people.
    Text,
    /// One JSON object for each path.
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    View(#[from] pt_view::Error),
    #[error(transparent)]
    Index(#[from] pt_index::Error),
    #[error(transparent)]
    Loader(#[from] pt_loader::Error),
    #[error(transparent)]
    Write(#[from] pt_format::write::Error),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// What is wrong was said already, line by line.
    #[error("{0}")]
    Reported(String),
    /// What torch answered.
    #[error("torch: {0}")]
    Torch(String),
    #[error("{0}")]
    Bench(String),
    #[error("the demo read something else than it wrote: {0}")]
    Demo(String),
}

type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Runs the command line. Errors go to stderr with exit code 1; clap answers wrong usage with 2.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match arguments.command {
        Command::Ls(arguments) => ls::run(&arguments, &mut out),
        Command::Index(arguments) => index::run(&arguments, &mut out),
        Command::Verify(arguments) => verify::run(&arguments, &mut out),
        Command::Info(arguments) => info::run(&arguments, &mut out),
        Command::Bench(arguments) => bench::run(&arguments, &mut out),
        Command::Demo(arguments) => demo::run(&arguments, &mut out),
    };
    match result.and_then(|()| out.flush().map_err(Error::Output)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, as in `ptview ls … | head`.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // What was printed so far still counts; stderr is the last place to complain to.
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "ptview: {error}");
            match error {
                Error::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
