//! Real torch, in a process of its own, which says itself how long it took: starting it does not count.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Error, Result};

const SCRIPT: &str = include_str!("torch.py");

/// A Python that has torch, waiting for work.
pub(crate) struct Torch {
    process: Child,
    tasks: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

/// How a file is loaded.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// `torch.load(path, weights_only=True)`.
    Whole,
    /// The same with `mmap=True`.
    Mapped,
}

impl Torch {
    /// Starts it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start(python: &Path) -> Result<Self, String> {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(|error| format!("{}: {error}", python.display()))?;
        let (Some(tasks), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(format!("{}: no pipe to it", python.display()));
        };
        let mut torch = Self { process, tasks, answers: BufReader::new(answers), version: String::new() };
        let hello = torch.answer().map_err(|error| format!("{}: {error}", python.display()))?;
        torch.version = hello["torch"].as_str().unwrap_or_default().to_owned();
        Ok(torch)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Loads files one after the other and lets go of them.
    pub(crate) fn load(&mut self, paths: &[String], how: How) -> Result<Duration> {
        let task = json!({"paths": paths, "mmap": matches!(how, How::Mapped)});
        writeln!(self.tasks, "{task}").map_err(|error| Error::Torch(error.to_string()))?;
        let answer = self.answer().map_err(Error::Torch)?;
        match answer["ns"].as_u64() {
            Some(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
            None => Err(Error::Torch(answer["error"].as_str().unwrap_or("no answer").to_owned())),
        }
    }

    fn answer(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("it has no torch, or ended".into()),
            Ok(_) => serde_json::from_str(&line).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It waits for tasks, so nothing is lost.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
