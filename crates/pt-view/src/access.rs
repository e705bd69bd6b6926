//! Ways to the bytes of a file, and one file opened in one of them.

use std::path::Path;

use pt_format::Limits;
use pt_index::FileSource;

use crate::bytes::{CheckedRecords, FileBytes};
use crate::error::Result;
use crate::map::Map;
use crate::mapping::IndexPolicy;

/// Smaller files are read: one positioned read takes a fifth of the time of the page faults.
pub(crate) const MAP_BYTES_MIN: u64 = 1 << 20;

/// How the bytes of a file are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Mapped: what can be borrowed is never copied.
    ///
    /// A map is only as good as the promise behind it. When the file is truncated while it is mapped, the next touch of a
    /// page that is gone kills the process with SIGBUS; when it is written to, bytes change under whoever borrowed them,
    /// which is undefined behaviour. Nobody can check that, so mapping is `unsafe`. A file replaced by renaming another
    /// over it is no danger.
    #[default]
    Map,
    /// Read by position into the caller's buffer. Nothing can be borrowed; a file that shrinks is a typed error, one that
    /// is written to gives old or new bytes, and no promise is needed.
    Read,
    /// [`Self::Map`] for files of 1 MiB and more on a disk of this machine, else [`Self::Read`]: for small files reading is
    /// faster, and files of network file systems are changed by other machines. For callers who take either
    /// ([`TensorView::to_cow`](crate::TensorView::to_cow), [`read_into`](crate::TensorView::read_into)).
    Auto,
}

impl Access {
    /// Returns whether to map a file; smaller ones than so many bytes only if they have to be.
    pub(crate) fn maps(self, source: &FileSource, bytes_min: u64) -> bool {
        self.maps_size(source.metadata().len(), bytes_min) && !(self == Self::Auto && is_remote(source))
    }

    /// Returns whether to map a file of so many bytes, if it is on a disk of this machine.
    pub(crate) fn maps_size(self, bytes: u64, bytes_min: u64) -> bool {
        match self {
            Self::Map => true,
            Self::Read => false,
            Self::Auto => bytes >= bytes_min,
        }
    }
}

/// Returns whether other machines can change the file.
#[cfg(target_os = "linux")]
fn is_remote(source: &FileSource) -> bool {
    // From statfs(2) and linux/magic.h: NFS, CIFS, SMB2, SMB, FUSE, 9P, Ceph; Lustre from its own lustre_user.h.
    const REMOTE: [u64; 8] =
        [0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x517B, 0x6573_5546, 0x0102_1997, 0x00C3_6400, 0x0BD0_0BD0];
    // The type of the field differs between platforms, its low 32 bits do not.
    rustix::fs::fstatfs(source.file()).is_ok_and(|fs| REMOTE.contains(&u64::from(fs.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_: &FileSource) -> bool {
    false
}

/// How [`Mapping`](crate::Mapping) opens a file.
///
/// ```
/// use pt_view::{Access, IndexPolicy, OpenOptions};
/// let options = OpenOptions { access: Access::Auto, ..OpenOptions::default() };
/// assert_eq!(options.index, IndexPolicy::Auto);
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// How its bytes are come by.
    pub access: Access,
    /// Where its index comes from.
    pub index: IndexPolicy,
    /// What parsing it may take.
    pub limits: Limits,
}

/// An open data file, and its map if it has one.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) source: FileSource,
    pub(crate) map: Option<Map>,
}

impl Handle {
    /// Opens a file to be read by position.
    pub(crate) fn open_read(path: &Path) -> Result<Self> {
        Ok(Self { source: FileSource::open(path)?, map: None })
    }

    #[inline]
    pub(crate) fn file_bytes<'a>(&'a self, checked: &'a CheckedRecords) -> FileBytes<'a> {
        match &self.map {
            Some(map) => FileBytes::mapped(map, &self.source, checked),
            None => FileBytes::read(&self.source, checked),
        }
    }
}
