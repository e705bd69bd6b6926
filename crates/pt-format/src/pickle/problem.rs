//! What can be wrong inside a pickle.

/// What is wrong at some byte of a pickle.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[non_exhaustive]
pub enum PickleProblem {
    /// The pickle ends before its STOP opcode or inside an argument.
    #[error("cut off: {needs} more {} of {what} should follow", if *needs == 1 { "byte" } else { "bytes" })]
    CutOff {
        /// What should follow.
        what: &'static str,
        /// How many bytes of it are missing at least.
        needs: u64,
    },
    /// The byte is no opcode of protocols 0 to 5.
    #[error("{0:#04x} is no opcode")]
    UnknownOpcode(u8),
    /// The opcode is known, but has no meaning in a file.
    #[error("opcode {opcode} cannot be used in a file: {why}")]
    Refused {
        /// Name of the opcode.
        opcode: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The opcode needs more values than there are.
    #[error("{opcode} finds too few values on the stack")]
    StackUnderflow {
        /// Name of the opcode.
        opcode: &'static str,
    },
    /// The opcode needs a MARK and there is none.
    #[error("{opcode} finds no mark on the stack")]
    NoMark {
        /// Name of the opcode.
        opcode: &'static str,
    },
    /// A memo entry is read that was never written.
    #[error("memo entry {0} was never written")]
    MemoMiss(u64),
    /// The value under the opcode has the wrong kind.
    #[error("{opcode} expects {expected}")]
    WrongKind {
        /// Name of the opcode.
        opcode: &'static str,
        /// What it expects.
        expected: &'static str,
    },
    /// A length field is negative.
    #[error("negative length {0}")]
    NegativeLength(i64),
    /// A text argument does not parse.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// SETITEMS with a key and no value.
    #[error("SETITEMS with a key that has no value")]
    OddItems,
    /// A persistent id is not one that PyTorch writes.
    #[error("persistent id is not of the form ('storage', class, key, location, element count)")]
    PersistentId,
}
