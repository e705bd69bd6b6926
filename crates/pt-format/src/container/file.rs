//! A file of any container, read as far as its head: what it is, and what decides where its tensors are.

use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{ByteOrder, Fingerprint};
use crate::container::{
    Archive, Container, DescribedArchive, Legacy, Pickles, Plain, Safetensors, Tar, detect,
};
use crate::error::Result;
use crate::limits::Limits;
use crate::source::Source;

/// The head of a file. Pickles of archives are read but not run; those of older files end only where they stop.
pub(crate) enum File<'s, S: ?Sized> {
    Pickles(Archive<'s, S>, Pickles<'s>),
    Described(Archive<'s, S>, Box<DescribedArchive>),
    Legacy(Legacy<'s>),
    Tar(Tar<'s>),
    Safetensors(Safetensors),
    Plain(Plain<'s>),
}

impl<'s, S: Source + ?Sized> File<'s, S> {
    /// Tells what the file is and reads its head.
    ///
    /// # Errors
    /// Whatever the container's reader says.
    pub(crate) fn read(source: &'s S, limits: &Limits) -> Result<Self> {
        Ok(match detect(source)? {
            Container::Legacy => Self::Legacy(Legacy::parse(source, limits)?),
            Container::Tar => Self::Tar(Tar::parse(source, limits)?),
            Container::Safetensors => Self::Safetensors(Safetensors::parse(source, limits)?),
            Container::Pickle => Self::Plain(Plain::parse(source, limits)?),
            // Which kind of archive it is shows in its records.
            Container::Zip | Container::TorchScript | Container::Package | Container::Pt2 => {
                let mut archive = Archive::parse(source)?;
                match DescribedArchive::read(&archive, limits)? {
                    Some(described) => Self::Described(archive, Box::new(described)),
                    None => {
                        let pickles = Pickles::read(&mut archive, limits)?;
                        Self::Pickles(archive, pickles)
                    }
                }
            }
        })
    }

    pub(crate) fn container(&self) -> Container {
        match self {
            Self::Pickles(_, pickles) => pickles.container,
            Self::Described(_, described) => described.container,
            Self::Legacy(_) => Container::Legacy,
            Self::Tar(_) => Container::Tar,
            Self::Safetensors(_) => Container::Safetensors,
            Self::Plain(_) => Container::Pickle,
        }
    }

    /// Only archives say; everything else is little-endian whatever machine wrote it.
    pub(crate) fn byte_order(&self) -> ByteOrder {
        match self {
            Self::Pickles(_, pickles) => pickles.byte_order,
            Self::Described(_, described) => described.byte_order,
            Self::Legacy(_) | Self::Tar(_) | Self::Safetensors(_) | Self::Plain(_) => ByteOrder::Little,
        }
    }

    /// Digests the directory, the pickles or descriptions, and the byte order.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let (directory, head, covers_content) = match self {
            Self::Pickles(archive, pickles) => {
                (archive.directory(), pickles.bytes(), archive.covers_content())
            }
            Self::Described(archive, described) => {
                (archive.directory(), &described.text[..], archive.covers_content())
            }
            // Counts of storages are in the persistent ids, and no other container has CRCs.
            Self::Legacy(legacy) => (&[][..], legacy.head(), false),
            Self::Tar(tar) => (&tar.description[..], &tar.tree.text[..], false),
            Self::Safetensors(file) => (&[][..], &file.header[..], false),
            // All there is lies in the pickle.
            Self::Plain(plain) => (&[][..], plain.bytes(), true),
        };
        Fingerprint { digest: digest(directory, head, self.byte_order()), covers_content }
    }
}

/// Digests the directory of a file, its pickles or descriptions, and the byte order.
pub(crate) fn digest(directory: &[u8], head: &[u8], byte_order: ByteOrder) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(directory);
    hasher.update(head);
    hasher.update(&[u8::from(byte_order == ByteOrder::Big)]);
    hasher.digest()
}
