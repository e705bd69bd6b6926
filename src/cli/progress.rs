//! Long work: a bar on a terminal, and elsewhere a plain line now and then, so that logs stay readable.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pt_index::Progress;

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far work on files is, said on stderr.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: &'static str,
    units: &'static str,
    begun: Instant,
    /// When a plain line was written last.
    said: Mutex<Instant>,
}

impl Bar {
    /// Begins; `what` says what is done with the files.
    pub(crate) fn new(what: &'static str) -> Self {
        Self::counting(what, "files")
    }

    /// Begins something that is counted in other units than files.
    pub(crate) fn counting(what: &'static str, units: &'static str) -> Self {
        let style = ProgressStyle::with_template(&format!(
            "{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {units}{{prefix}}, {{per_sec}}, {{eta}} left",
        ));
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what);
        let now = Instant::now();
        Self { bar, what, units, begun: now, said: Mutex::new(now) }
    }

    /// Says how far the work is.
    pub(crate) fn show(&self, progress: Progress) {
        if self.bar.is_hidden() {
            return self.show_line(progress);
        }
        self.bar.set_length(progress.files_total as u64);
        self.bar.set_position(progress.files as u64);
        if progress.bytes > 0 {
            self.bar.set_prefix(format!(", {}", BinaryBytes(progress.bytes)));
        }
    }

    fn show_line(&self, progress: Progress) {
        let Ok(mut said) = self.said.lock() else { return };
        if said.elapsed() < LINE_EVERY {
            return;
        }
        *said = Instant::now();
        let Progress { files, files_total, bytes } = progress;
        let rate = files as f64 / self.begun.elapsed().as_secs_f64();
        // Whoever closed stderr does not want to know.
        let _ = writeln!(
            io::stderr(),
            "{}: {files} of {files_total} {units}, {}, {rate:.0} {units}/s",
            self.what,
            BinaryBytes(bytes),
            units = self.units,
        );
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
