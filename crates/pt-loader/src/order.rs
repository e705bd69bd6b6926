//! Which sample stands where in an epoch.

use crate::dataset::{DataSet, Unit};
use crate::permutation::Permutation;
use crate::windows::Windows;

/// How samples are shared out when their number is no multiple of the number of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// All get as many; the few left over at the end of the epoch are left out.
    Even,
    /// All get as many and no sample is left out; a few come twice.
    #[default]
    Padded,
}

/// The order of an epoch, a function of position.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    len: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    AsTheyAre,
    Shuffled(Permutation),
    /// Of files that are samples: blocks of `window` neighbours in shuffled order; the short one, if there is one, stays
    /// last.
    Blocks {
        window: usize,
        blocks: Permutation,
        seed: u64,
        epoch: u64,
    },
    /// Of files that have samples.
    Files(Windows),
}

impl Order {
    pub(crate) fn new(data: &DataSet, seed: Option<u64>, window: Option<usize>, epoch: u64) -> Self {
        let len = data.len();
        let kind = match (seed, window) {
            (None, _) => Kind::AsTheyAre,
            (Some(seed), Some(window)) if window < len => match data.set.unit {
                Unit::File => {
                    Kind::Blocks { window, blocks: Permutation::new(len / window, seed, epoch), seed, epoch }
                }
                Unit::Row | Unit::Tensor => Kind::Files(Windows::new(&data.runs(), window, seed, epoch)),
            },
            (Some(seed), _) => Kind::Shuffled(Permutation::new(len, seed, epoch)),
        };
        Self { len, kind }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn at(&self, position: usize) -> usize {
        match &self.kind {
            Kind::AsTheyAre => position,
            Kind::Shuffled(permutation) => permutation.at(position),
            Kind::Files(windows) => windows.at(position),
            &Kind::Blocks { window, blocks, seed, epoch } => {
                let (number, within) = (position / window, position % window);
                let whole = number < self.len / window;
                let block = if whole { blocks.at(number) } else { number };
                let size = if whole { window } else { self.len % window };
                // Each block has a key of its own.
                let inner = Permutation::new(size, seed.wrapping_add(1 + block as u64), epoch);
                block * window + inner.at(within)
            }
        }
    }
}
