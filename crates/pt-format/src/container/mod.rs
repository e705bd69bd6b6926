//! Which container a file is, and the zip archive.

mod compiled;
mod described;
mod detect;
mod file;
mod inner;
mod legacy;
mod pickles;
mod plain;
mod record;
mod tar;
mod zip;

use std::fmt;

pub(crate) use self::described::{DescribedArchive, Safetensors};
pub use self::detect::detect;
pub(crate) use self::file::{File, digest};
pub(crate) use self::legacy::Legacy;
pub use self::legacy::LegacyProblem;
pub(crate) use self::pickles::{ArchiveRecords, PICKLE_RECORD, Pickles, SMALL_RECORDS};
pub(crate) use self::plain::{NoRecords, Plain};
pub use self::record::Record;
pub(crate) use self::record::name_hash;
pub(crate) use self::tar::Tar;
pub(crate) use self::zip::ends_alike;
pub use self::zip::{Archive, ArchiveProblem, Entry};

/// The container formats PyTorch has written over the years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// Zip archive of `torch.save` since 1.6: `data.pkl` and one record per storage.
    Zip,
    /// Stacked pickles followed by raw storages: 0.1.10 to 1.5, and still on request.
    Legacy,
    /// Tar archive of the releases before 0.1.10.
    Tar,
    /// TorchScript archive: `constants.pkl` and code beside `data.pkl`.
    TorchScript,
    /// `torch.package` archive.
    Package,
    /// `torch.export` archive (`.pt2`).
    Pt2,
    /// Safetensors file.
    Safetensors,
    /// What `pickle.dump` wrote, without the header of `torch.save`: storages lie in the pickle itself.
    Pickle,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zip => "torch.save (zip)",
            Self::Legacy => "legacy torch.save (before 1.6)",
            Self::Tar => "tar torch.save (before 0.1.10)",
            Self::TorchScript => "TorchScript",
            Self::Package => "torch.package",
            Self::Pt2 => "torch.export (.pt2)",
            Self::Safetensors => "safetensors",
            Self::Pickle => "plain pickle",
        })
    }
}
