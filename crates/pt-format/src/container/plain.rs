//! Pickles without the header of `torch.save`: what `pickle.dump` makes of objects that hold tensors.
//!
//! Their storages are calls of `torch.storage._load_from_bytes` with whole `torch.save` files (`rebuild/nested.rs`), and
//! before torch 0.4 lists of numbers; numpy arrays are bytes. All of it lies in the one pickle, so all of that is read.

use std::borrow::Cow;

use crate::container::Record;
use crate::container::detect::{no_pickle, no_tensors};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::pickle::{Machine, PersistentIds, Root, Tree};
use crate::rebuild::Records;
use crate::source::{Source, read_growing};

/// First read; longer pickles are read again, longer.
const HEAD_BYTES: u64 = 1 << 20;
/// Name of the pickle, for messages.
const PICKLE: &str = "pickle";
/// What a pickle that has to do with torch names early on.
const TORCH: &[u8] = b"torch";

/// A plain pickle: its values.
pub(crate) struct Plain<'s> {
    pub(crate) tree: Tree<'s>,
    pickle_bytes: usize,
}

impl<'s> Plain<'s> {
    /// Reads the pickle.
    ///
    /// # Errors
    /// [`Error::Pickle`] when it is damaged and names torch, [`Error::Foreign`] when it is damaged otherwise.
    pub(crate) fn parse<S: Source + ?Sized>(source: &'s S, limits: &Limits) -> Result<Self> {
        let mut names_torch = false;
        let run = |text: Cow<'s, [u8]>| {
            let length = text.len();
            let head = &text[..length.min(HEAD_BYTES as usize)];
            names_torch = head.windows(TORCH.len()).any(|word| word == TORCH);
            let (mut tree, value, end) =
                Machine::run(Tree::new(text), 0..length, PersistentIds::None, limits, PICKLE)?;
            tree.lies_at(0..end, Ok(0));
            tree.roots.push(Root::new(value, PICKLE));
            Ok((tree, end))
        };
        match read_growing(source, 0, source.len(), HEAD_BYTES, limits, run) {
            Ok((tree, pickle_bytes)) => Ok(Self { tree, pickle_bytes }),
            Err(Error::Pickle { .. }) if !names_torch => Err(no_pickle(source)?),
            Err(error) => Err(error),
        }
    }

    /// Says what it is if there is no tensor in it.
    pub(crate) fn without_tensors() -> Error {
        no_tensors()
    }

    /// Returns the bytes of the pickle.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.tree.text[..self.pickle_bytes]
    }
}

/// No records at all.
pub(crate) struct NoRecords;

impl Records for NoRecords {
    fn count(&self) -> usize {
        0
    }

    fn record_name(&self, _: usize, key: &[u8], name: &mut Vec<u8>) {
        name.extend_from_slice(key);
    }

    fn find(&self, _: &[u8]) -> Option<usize> {
        None
    }

    fn place(&self, _: usize, bytes: u64) -> Result<Record, Fault> {
        Err(Fault::RecordLength { record: 0, expected: bytes })
    }
}
