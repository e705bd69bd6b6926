//! From the inert value tree to tensors: finds every tensor, names it, and works out what it looks into.

mod storage;
mod tensor;
mod walk;

pub(crate) use self::walk::{PathStep, TENSOR, shadowed_keys, walk, write_component};
pub(crate) use self::walk::Leaf as LeafRow;
