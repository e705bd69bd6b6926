//! The files of an earlier index, beside those that are in the folder now.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::index::{FileEntry, Index};
use crate::paths::PathReader;

/// The files of an earlier index, each of them marked when it is met in the folder: by any thread, in any order.
pub(crate) struct Earlier<'i> {
    index: &'i Index,
    marks: Vec<AtomicU8>,
}

const MISSING: u8 = 0;
const UNCHANGED: u8 = 1;
/// Above the others: a file that changes while it is listed twice is not as the index knows it.
const CHANGED: u8 = 2;

impl<'i> Earlier<'i> {
    pub(crate) fn new(index: &'i Index) -> Self {
        Self { index, marks: (0..index.file_count()).map(|_| AtomicU8::new(MISSING)).collect() }
    }

    /// Notes that there is such a file. Returns whether the index knows it and, as `is_unchanged` says, speaks of it as it is.
    pub(crate) fn meet(&self, path: &str, is_unchanged: impl FnOnce(FileEntry<'i>) -> bool) -> bool {
        let Some(file) = self.index.find_file(path) else { return false };
        let is_unchanged = is_unchanged(file);
        let mark = if is_unchanged { UNCHANGED } else { CHANGED };
        self.marks[file.row()].fetch_max(mark, Ordering::Relaxed);
        is_unchanged
    }

    /// Returns how many files are as the index knows them.
    pub(crate) fn unchanged_count(&self) -> usize {
        self.count(UNCHANGED)
    }

    /// Returns how many files of the index were not met.
    pub(crate) fn missing_count(&self) -> usize {
        self.count(MISSING)
    }

    /// Returns the index if a new one of its unchanged files alone would say the same.
    pub(crate) fn whole(&self) -> Option<&'i Index> {
        let is_whole = self.unchanged_count() == self.marks.len() && self.index.skipped().len() == 0;
        is_whole.then_some(self.index)
    }

    /// Returns the files that are as the index knows them.
    pub(crate) fn unchanged(&self) -> Marked<'_, 'i> {
        self.marked(UNCHANGED)
    }

    /// Returns the files of the index that were not met.
    pub(crate) fn missing(&self) -> Marked<'_, 'i> {
        self.marked(MISSING)
    }

    fn marked(&self, mark: u8) -> Marked<'_, 'i> {
        Marked { earlier: self, mark, paths: self.index.paths(), number: 0, is_ahead: false }
    }

    fn count(&self, mark: u8) -> usize {
        self.marks.iter().filter(|found| found.load(Ordering::Relaxed) == mark).count()
    }
}

/// Files of an earlier index, in the order of their paths.
pub(crate) struct Marked<'e, 'i> {
    earlier: &'e Earlier<'i>,
    mark: u8,
    paths: PathReader<'i>,
    /// Paths read.
    number: usize,
    /// The last one read was not handed out.
    is_ahead: bool,
}

impl<'i> Marked<'_, 'i> {
    /// Returns the next file whose path does not come behind `last`; `None`: the next of all.
    pub(crate) fn next_until(&mut self, last: Option<&str>) -> Option<(&str, FileEntry<'i>)> {
        while self.is_ahead || self.advance() {
            if last.is_some_and(|last| self.paths.path() > last.as_bytes()) {
                self.is_ahead = true;
                return None;
            }
            self.is_ahead = false;
            if let Some(file) = self.earlier.index.file(self.number - 1) {
                // A path that is not text, of a damaged index, is that of no file.
                return Some((std::str::from_utf8(self.paths.path()).unwrap_or_default(), file));
            }
        }
        None
    }

    /// Reads on to the next path of such a file.
    fn advance(&mut self) -> bool {
        while self.paths.advance() {
            let Some(mark) = self.earlier.marks.get(self.number) else { return false };
            self.number += 1;
            if mark.load(Ordering::Relaxed) == self.mark {
                return true;
            }
        }
        false
    }
}
