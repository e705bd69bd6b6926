//! Long work on a terminal: a bar. Elsewhere nothing, so that logs stay readable.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pt_index::Progress;

/// A bar over files, drawn on stderr where that is a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Begins; `what` says what is done with the files.
    pub(crate) fn new(what: &'static str) -> Self {
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {human_pos}/{human_len} files{prefix}, {per_sec}, {eta} left",
        );
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what))
    }

    /// Says how far the work is.
    pub(crate) fn show(&self, progress: Progress) {
        self.0.set_length(progress.files_total as u64);
        self.0.set_position(progress.files as u64);
        if progress.bytes > 0 {
            self.0.set_prefix(format!(", {}", indicatif::BinaryBytes(progress.bytes)));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
