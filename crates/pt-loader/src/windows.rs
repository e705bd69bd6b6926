//! Whole files in random order, and their samples shuffled among the files of a window.
//!
//! ```text
//! files, shuffled    │ c  c  c │ a  a  a  a │ e │ b  b │ d  d  d │
//! windows, of 5      └──────── 0 ───────────┴─────── 1 ──────────┘
//! order of epoch     a c a c c a a │ d b e d b d
//! ```
//!
//! Takes memory for files, never for samples: three numbers a file.

use crate::permutation::Permutation;

/// Order of an epoch in which files are taken whole.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// Of each file, in shuffled order, its first sample.
    first: Vec<usize>,
    /// How many samples stand before each file, and how many there are.
    before: Vec<usize>,
    /// With which file each window begins, and the number of files.
    begins: Vec<usize>,
    seed: u64,
    epoch: u64,
}

impl Windows {
    /// Shuffles files, given by where their samples begin and where those of the last end, and takes as many into each
    /// window as have `window` samples together.
    pub(crate) fn new(starts: &[usize], window: usize, seed: u64, epoch: u64) -> Self {
        let files = starts.len().saturating_sub(1);
        let order = Permutation::new(files, seed, epoch);
        let (mut first, mut before, mut begins) =
            (Vec::with_capacity(files), Vec::with_capacity(files + 1), vec![0]);
        let (mut count, mut in_window) = (0, 0);
        before.push(0);
        for position in 0..files {
            if in_window >= window {
                begins.push(position);
                in_window = 0;
            }
            let file = order.at(position);
            let samples = starts[file + 1] - starts[file];
            first.push(starts[file]);
            count += samples;
            in_window += samples;
            before.push(count);
        }
        begins.push(files);
        Self { first, before, begins, seed, epoch }
    }

    /// Returns which sample stands at a position, which must be one.
    pub(crate) fn at(&self, position: usize) -> usize {
        let window = last_at_most(&self.begins, last_at_most(&self.before, position));
        let (start, end) = (self.before[self.begins[window]], self.before[self.begins[window + 1]]);
        // Each window has a key of its own.
        let inner = Permutation::new(end - start, self.seed.wrapping_add(1 + window as u64), self.epoch);
        let place = start + inner.at(position - start);
        let file = last_at_most(&self.before, place);
        self.first[file] + (place - self.before[file])
    }
}

/// Where the last number stands that is at most so large. They ascend, and the first is 0.
fn last_at_most(numbers: &[usize], most: usize) -> usize {
    numbers.partition_point(|&number| number <= most) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_stands_once_and_files_stay_in_their_window() {
        for (lengths, window) in
            [(&[3, 1, 4, 1, 5, 9, 2, 6][..], 5), (&[1; 50], 7), (&[100, 1, 100], 10), (&[8], 3), (&[], 4)]
        {
            let mut starts = vec![0];
            lengths.iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
            for epoch in 0..20 {
                let windows = Windows::new(&starts, window, 5, epoch);
                let samples = starts[lengths.len()];
                let order: Vec<usize> = (0..samples).map(|position| windows.at(position)).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..samples).collect::<Vec<_>>());
                // A window is as long as it must be, and no file is in two.
                let mut seen = Vec::new();
                for files in windows.begins.windows(2).filter(|_| samples > 0) {
                    let part = windows.before[files[0]]..windows.before[files[1]];
                    let last = windows.before[files[1]] - windows.before[files[1] - 1];
                    assert!(part.len() - last < window && (part.len() >= window || part.end == samples));
                    let mut files: Vec<usize> =
                        order[part].iter().map(|&sample| last_at_most(&starts, sample)).collect();
                    files.sort_unstable();
                    files.dedup();
                    assert!(files.iter().all(|file| !seen.contains(file)));
                    seen.extend(files);
                }
                assert_eq!(seen.len(), lengths.len());
            }
        }
    }
}
