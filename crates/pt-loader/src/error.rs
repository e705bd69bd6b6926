//! Why a data set cannot be opened or a batch not gathered.

use std::path::PathBuf;

use pt_format::DType;

/// What went wrong while loading.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The index could not be built or opened, or a file is not the one that was indexed.
    #[error(transparent)]
    Index(#[from] pt_index::Error),
    /// The index could not be mapped.
    #[error(transparent)]
    Open(pt_view::Error),
    /// A tensor of a sample could not be read.
    #[error("{}: {source}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<pt_view::Error>,
    },
    /// There is no sample.
    #[error("{}: no samples here", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The samples do not have the same tensors, so they make no batch.
    #[error("{}: tensor `{tensor}` {problem}, unlike others of the data set", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it differs.
        problem: String,
    },
    /// A sample could not be gathered; the cause names the file.
    #[error("sample {sample}: {source}")]
    At {
        /// The sample.
        sample: usize,
        /// What is wrong.
        source: Box<Error>,
    },
    /// Samples of a ragged tensor differ in size.
    #[error(
        "samples of tensor `{tensor}` differ in size: sample {sample} is {sizes:?}, sample {other} is {other_sizes:?}; \
         pad them or join them"
    )]
    Uneven {
        /// The tensor.
        tensor: String,
        /// A sample of the batch.
        sample: usize,
        /// Its sizes.
        sizes: Vec<u64>,
        /// Another sample.
        other: usize,
        /// The sizes that one has.
        other_sizes: Vec<u64>,
    },
    /// Padding has another number of lengths than there are dimensions in which samples of a ragged tensor differ.
    #[error(
        "samples of tensor `{tensor}` differ in {} of their dimensions, {ragged_dims:?}; padding gives {lengths} lengths",
        ragged_dims.len()
    )]
    OtherDims {
        /// The tensor.
        tensor: String,
        /// Lengths there are.
        lengths: usize,
        /// The dimensions in which samples differ.
        ragged_dims: Vec<usize>,
    },
    /// No tensor of the data set has this name.
    #[error("the data set has no tensor `{name}`")]
    NoSuchField {
        /// The name.
        name: String,
    },
    /// Nothing in the files is selected by a key: it is misspelt.
    #[error("the data set has nothing named `{key}`")]
    NoSuchKey {
        /// The key.
        key: String,
    },
    /// The data set is not the one whose epoch is to go on.
    #[error("the epoch was of {then} samples; the data set has {now}")]
    OtherData {
        /// Samples there were.
        then: u64,
        /// Samples there are.
        now: u64,
    },
    /// Gathering in the background panicked, which is a bug.
    #[error("gathering a batch panicked; please report this")]
    Panicked,
    /// The system has no more threads.
    #[error("cannot start {threads} threads: {problem}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        problem: String,
    },
    /// A sample number past the end.
    #[error("sample {sample} does not exist; the data set has {count}")]
    NoSuchSample {
        /// The number asked for.
        sample: usize,
        /// Samples there are.
        count: usize,
    },
    /// The batch's tensor has another type.
    #[error("tensor `{tensor}` is {dtype}, not {asked}")]
    WrongType {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: DType,
        /// The dtype asked for.
        asked: DType,
    },
    /// The batch's tensor lies in memory that does not suit the type.
    #[error(
        "tensor `{tensor}` does not begin at a multiple of {needs} bytes; give memory that begins at a multiple of 64"
    )]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Bytes.
        needs: usize,
    },
    /// The memory given for a batch is too short.
    #[error("the batch takes {needs} bytes; the memory has {has}")]
    TooShort {
        /// Bytes of the batch.
        needs: usize,
        /// Bytes of the memory.
        has: usize,
    },
    /// A batch larger than memory.
    #[error("a batch of {samples} samples does not fit into memory")]
    TooLarge {
        /// Samples asked for.
        samples: usize,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<pt_view::Error> for Error {
    fn from(error: pt_view::Error) -> Self {
        match error {
            pt_view::Error::Index(error) => Self::Index(error),
            error => Self::Open(error),
        }
    }
}
