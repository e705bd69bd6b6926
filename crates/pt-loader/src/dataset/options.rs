//! What the caller chooses when a data set is opened.

use pt_index::Policy;

/// What a sample is.
///
/// ```
/// assert_eq!(pt_loader::Unit::default(), pt_loader::Unit::File);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// A file, with all its tensors.
    #[default]
    File,
    /// A row: the same position along the first dimension of all tensors of a file. Files may have any number of rows.
    Row,
    /// A tensor. All have one dtype; the batch calls them `tensor`.
    Tensor,
}

/// What becomes of files that lack a tensor or have it with another dtype or rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misfits {
    /// Opening the data set fails and names one.
    #[default]
    Fail,
    /// They have no samples.
    LeaveOut,
}

/// How a data set is made of files.
///
/// ```
/// use pt_loader::{Options, Unit};
/// let options = Options { unit: Unit::Row, keys: vec!["x".into()], ..Options::default() };
/// assert!(options.include.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What a sample is.
    pub unit: Unit,
    /// Names of tensors and columns, or of the dicts and lists they stand in. Empty: all.
    pub keys: Vec<String>,
    /// Globs over the paths of the folder; see [`pt_index::Selection::include`]. With them, a kept index is not asked.
    pub include: Vec<String>,
    /// What becomes of files unlike the first.
    pub misfits: Misfits,
    /// How sure to be that files are those that were indexed; asked when a file is opened. Files that stay open stay those
    /// they were.
    pub policy: Policy,
}
