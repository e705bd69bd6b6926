//! The pickle machine: bytes to an inert tree of values.
//!
//! Nothing is imported, called or constructed. A global is a pair of names; calling one makes an object node
//! that remembers what was called and with which arguments. What such a node means is decided later, from a
//! table (`globals`), by whoever reads the tree.

mod globals;
mod machine;
mod numbers;
pub(crate) mod opcode;
mod plain;
mod problem;
mod repr;
mod scan;
mod tree;
mod value;
mod verdict;
mod written;

pub(crate) use self::globals::{Known, modern_name};
pub(crate) use self::machine::{Machine, PersistentIds};
pub(crate) use self::numbers::read_numbers;
pub use self::problem::PickleProblem;
pub(crate) use self::repr::repr;
pub use self::scan::GlobalUse;
pub(crate) use self::scan::{Globals, Loaded, Stopped};
pub(crate) use self::tree::{
    Items, Node, NodeId, Pairs, PersistentId, Raw, Root, Run, SHAPES_FROM_NODES, Sequence, Text, Tree,
};
pub(crate) use self::value::JIT_WRAPPERS_MAX;
pub use self::value::{Kind, Value};
pub use self::verdict::Verdict;
pub(crate) use self::written::{Encoding, Written};
