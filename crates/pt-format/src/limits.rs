//! How much work one file may cause.

/// Caps on what parsing one file may cost.
///
/// The defaults are far above anything an honest file needs; each says what it was set against.
///
/// ```
/// let limits = pt_format::Limits { tensors: 1_000, ..Default::default() };
/// assert!(limits.pickle_bytes > 1 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one pickle. A checkpoint of 100,000 tensors has a 10 MB pickle. Default 1 GiB.
    pub pickle_bytes: u64,
    /// Objects in the value tree. 100,000 tensors make about 600,000. Default 64 million (1 GiB of memory).
    pub values: usize,
    /// Tensors listed, aliases included. Default 16 million.
    pub tensors: usize,
    /// Places at which containers that were already walked are walked again, so that shared tensors are
    /// listed under every name. Beyond it each container is listed under its first name only. Default 100,000.
    pub alias_paths: usize,
    /// Dimensions of one tensor. PyTorch's own kernels stop at 25 or 64. Default 64.
    pub rank: usize,
    /// Nesting of a plain subtree converted to another type (`serde_pickle::Value` drops recursively). Default 256.
    pub nesting: usize,
    /// Values produced by one such conversion, shared ones counted each time. Default 4 million.
    pub expanded_values: usize,
    /// Bytes of one record after inflating. Default 16 GiB for storages; metadata obeys `pickle_bytes` as well.
    pub inflated_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pickle_bytes: 1 << 30,
            values: 64 << 20,
            tensors: 16 << 20,
            alias_paths: 100_000,
            rank: 64,
            nesting: 256,
            expanded_values: 4 << 20,
            inflated_bytes: 16 << 30,
        }
    }
}
