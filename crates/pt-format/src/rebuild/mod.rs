//! From the inert value tree to tensors: finds every tensor, names it, and works out what it looks into.

mod array;
mod nested;
mod storage;
mod tensor;
mod walk;

pub(crate) use self::nested::Nested;
pub(crate) use self::storage::{Records, storage_class};
pub(crate) use self::walk::{
    BareStorage, Component, PathStep, ROW, Setting, shadowed_keys, slot_dicts, unwrapped, walk,
    write_component,
};
