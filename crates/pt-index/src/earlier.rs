//! The files of an earlier index, beside those that are in the folder now.

use std::iter::Peekable;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::vec;

use crate::index::{FileEntry, Index, SkippedEntry};
use crate::paths::PathReader;
use crate::scope::Scope;

/// The files of an earlier index: those that are looked at are marked when they are met in the folder, by any thread, in any
/// order; the others are as the index knows them.
pub(crate) struct Earlier<'i> {
    index: &'i Index,
    marks: Vec<AtomicU8>,
    /// What was skipped and is not looked at again.
    skipped: Vec<SkippedEntry<'i>>,
}

const MISSING: u8 = 0;
const UNCHANGED: u8 = 1;
/// Above the others: a file that changes while it is listed twice is not as the index knows it.
const CHANGED: u8 = 2;

impl<'i> Earlier<'i> {
    /// Takes the files of an index, of which those in the scope are looked at.
    pub(crate) fn new(index: &'i Index, scope: &Scope) -> Self {
        let mut marks: Vec<_> = (0..index.file_count()).map(|_| AtomicU8::new(UNCHANGED)).collect();
        for files in scope.roots().iter().flat_map(|root| files_within(index, root)) {
            // Of a damaged index, there may be no such files.
            marks.get_mut(files).unwrap_or_default().fill_with(|| AtomicU8::new(MISSING));
        }
        let skipped = index.skipped().filter(|skipped| !scope.covers(skipped.path)).collect();
        Self { index, marks, skipped }
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

    /// Returns how many files were skipped and are not looked at again.
    pub(crate) fn skipped_count(&self) -> usize {
        self.skipped.len()
    }

    /// Returns how many files of the index were not met.
    pub(crate) fn missing_count(&self) -> usize {
        self.count(MISSING)
    }

    /// Returns the index if a new one of its unchanged files, and of those skipped that are not looked at again, would say the
    /// same.
    pub(crate) fn whole(&self) -> Option<&'i Index> {
        let all = (self.marks.len(), self.index.skipped().len());
        ((self.unchanged_count(), self.skipped_count()) == all).then_some(self.index)
    }

    /// Returns what the index rightly says, in the order of the paths.
    pub(crate) fn known(&self) -> AllKnown<'_, 'i> {
        let skipped = self.skipped.clone().into_iter().peekable();
        AllKnown { files: self.marked(UNCHANGED), skipped }
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

/// Returns the file at a place of the tree, and the files below it.
fn files_within(index: &Index, root: &str) -> [Range<usize>; 2] {
    if root.is_empty() {
        return [0..index.file_count(), 0..0];
    }
    let file = index.find_file(root).map_or(0..0, |file| file.row()..file.row() + 1);
    // Between the two comes what begins with `root/`, as `0` is the character behind `/`.
    let [start, end] = ['/', '0'].map(|after| index.first_file_from(&format!("{root}{after}")));
    [file, start..end]
}

/// What an earlier index says of a file.
pub(crate) enum Known<'p, 'i> {
    /// It is as the index knows it.
    File(&'p str, FileEntry<'i>),
    /// It was skipped, and is not looked at again.
    Skipped(SkippedEntry<'i>),
}

/// What an earlier index rightly says, in the order of the paths.
pub(crate) struct AllKnown<'e, 'i> {
    files: Marked<'e, 'i>,
    skipped: Peekable<vec::IntoIter<SkippedEntry<'i>>>,
}

impl<'i> AllKnown<'_, 'i> {
    /// Returns the next one whose path does not come behind `last`; `None`: the next of all.
    pub(crate) fn next_until(&mut self, last: Option<&str>) -> Option<Known<'_, 'i>> {
        let skipped = self.skipped.peek().map(|skipped| skipped.path);
        let skipped = skipped.filter(|skipped| last.is_none_or(|last| *skipped <= last));
        // A path that is not valid Unicode may look like that of a file; it then comes behind.
        match self.files.next_until(skipped.or(last)) {
            Some((path, file)) => Some(Known::File(path, file)),
            None => skipped.and_then(|_| self.skipped.next()).map(Known::Skipped),
        }
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
