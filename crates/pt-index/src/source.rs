//! A file as a [`Source`] of positioned reads.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::path::{Path, PathBuf};

use pt_format::Source;

use crate::error::{Error, Result};
use crate::freshness::Stamp;

/// An open file that is read in place, without moving a cursor: threads can share it.
///
/// A read past the end is an error, also when the file has shrunk since it was opened.
///
/// ```
/// use pt_format::Source;
/// use pt_index::FileSource;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("x");
/// std::fs::write(&path, b"0123456789")?;
/// let source = FileSource::open(&path)?;
/// assert_eq!(source.read_at(4, 2)?.as_ref(), b"45");
/// assert!(source.read_at(9, 2).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileSource {
    open: OpenFile,
    metadata: Metadata,
}

impl FileSource {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        Self::of(file, || path.to_owned())
    }

    /// Takes an open file; `path` is for messages.
    fn of(file: File, path: impl Fn() -> PathBuf) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::io(&path(), "stat")(error))?;
        if metadata.is_dir() {
            return Err(is_directory(&path()));
        }
        Ok(Self { open: OpenFile { file, length: metadata.len() }, metadata })
    }

    pub(crate) fn open_file(&self) -> &OpenFile {
        &self.open
    }

    /// Returns size, times and so on, as they were when the file was opened.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the file itself.
    pub fn file(&self) -> &File {
        &self.open.file
    }

    /// Reads exactly as many bytes as `buffer` holds.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends earlier.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.open.read_exact_at(buffer, offset)
    }

    /// Reads a run of the file into several buffers, one after the other, as many bytes as they hold: in one call of the
    /// system where it has such a call. The buffers are used up.
    ///
    /// ```
    /// use std::io::IoSliceMut;
    /// use pt_index::FileSource;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("x");
    /// std::fs::write(&path, b"0123456789")?;
    /// let (mut one, mut other) = ([0; 2], [0; 3]);
    /// let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    /// FileSource::open(&path)?.read_exact_vectored_at(&mut buffers, 4)?;
    /// assert_eq!((&one, &other), (b"45", b"678"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends earlier.
    pub fn read_exact_vectored_at(
        &self,
        mut buffers: &mut [IoSliceMut<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            // Empty buffers in front would make reading nothing look like the end of the file.
            IoSliceMut::advance_slices(&mut buffers, 0);
            while !buffers.is_empty() {
                match rustix::io::preadv(self.file(), buffers, offset) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        IoSliceMut::advance_slices(&mut buffers, count);
                        offset += count as u64;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        for buffer in std::mem::take(&mut buffers) {
            self.read_exact_at(buffer, offset)?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    /// Reads like [`read_exact_vectored_at`](Self::read_exact_vectored_at) if that does not have to wait for a disk. If it
    /// would, the system is told to fetch the run, and `false` comes at once: whoever asks for many runs before reading the
    /// first one again has them all fetched at the same time. The buffers then hold nothing of use.
    ///
    /// Where the system or the file system cannot tell, it reads.
    ///
    /// ```
    /// use std::io::IoSliceMut;
    /// use pt_index::FileSource;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("x");
    /// std::fs::write(&path, b"0123456789")?;
    /// let mut bytes = [0; 3];
    /// let source = FileSource::open(&path)?;
    /// if !source.read_or_fetch_vectored_at(&mut [IoSliceMut::new(&mut bytes)], 4)? {
    ///     source.read_exact_at(&mut bytes, 4)?; // later
    /// }
    /// assert_eq!(&bytes, b"456");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends earlier, if that is seen without waiting.
    pub fn read_or_fetch_vectored_at(&self, buffers: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::{Errno, ReadWriteFlags, preadv2};
            let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            match preadv2(self.file(), buffers, offset, ReadWriteFlags::NOWAIT) {
                Ok(count) if count == bytes => return Ok(true),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::AGAIN) => {
                    let length = std::num::NonZeroU64::new(bytes as u64);
                    // Advice: without it, the next read only takes longer.
                    let _ = rustix::fs::fadvise(self.file(), offset, length, rustix::fs::Advice::WillNeed);
                    return Ok(false);
                }
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.read_exact_vectored_at(buffers, offset).map(|()| true)
    }
}

/// An open file of which no more is known than its length.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    length: u64,
}

impl OpenFile {
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(&self.file, buffer, offset)
    }

    /// Reads exactly as many bytes as `buffer` holds if they are in memory; false where they are not, or nobody can tell.
    pub(crate) fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> bool {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::{ReadWriteFlags, preadv2};
            let length = buffer.len();
            let buffers = &mut [IoSliceMut::new(buffer)];
            preadv2(&self.file, buffers, offset, ReadWriteFlags::NOWAIT) == Ok(length)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (buffer, offset);
            false
        }
    }
}

impl Source for OpenFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        // Lengths come from the file's own fields; those beyond its end allocate nothing.
        if offset.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = vec![0; length];
        self.read_exact_at(&mut buffer, offset)?;
        Ok(Cow::Owned(buffer))
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.open.len()
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        self.open.read_at(offset, length)
    }
}

/// A file of which both ends have been read already.
pub(crate) struct Ends<'a> {
    pub(crate) file: &'a OpenFile,
    pub(crate) first: &'a [u8],
    pub(crate) last: &'a [u8],
}

impl Source for Ends<'_> {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Cow<'_, [u8]>> {
        let last_start = self.len() - self.last.len() as u64;
        let read = match offset.checked_sub(last_start) {
            Some(offset) => self.last.read_at(offset, length),
            None => self.first.read_at(offset, length),
        };
        read.or_else(|_| self.file.read_at(offset, length))
    }
}

/// A folder whose files are opened many at a time: their paths are then not walked from the root each time.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("x"), b"0123456789")?;
/// let folder = pt_index::Folder::open(folder.path())?;
/// assert_eq!(folder.source("x")?.metadata().len(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    #[cfg(unix)]
    folder: rustix::fd::OwnedFd,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        #[cfg(unix)]
        let folder = {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(|error| Error::io(path, "open")(error.into()))?
        };
        Ok(Self {
            path: path.to_owned(),
            #[cfg(unix)]
            folder,
        })
    }

    /// Returns the whole path of a file.
    pub(crate) fn join(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// Returns size and time of a file.
    pub(crate) fn stamp(&self, relative: &str) -> io::Result<Stamp> {
        #[cfg(unix)]
        {
            Ok(stamp_of(&rustix::fs::statat(&self.folder, relative, rustix::fs::AtFlags::empty())?))
        }
        #[cfg(not(unix))]
        std::fs::metadata(self.join(relative)).map(|metadata| Stamp::of(&metadata))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn source(&self, relative: &str) -> Result<FileSource> {
        #[cfg(unix)]
        {
            FileSource::of(self.open_at(relative)?.into(), || self.join(relative))
        }
        #[cfg(not(unix))]
        FileSource::open(&self.join(relative))
    }

    /// Opens a file for reading, and asks for its size and time alone.
    pub(crate) fn open_file(&self, relative: &str) -> Result<(OpenFile, Stamp)> {
        #[cfg(unix)]
        {
            use rustix::fs::{FileType, fstat};
            let file = self.open_at(relative)?;
            let stat = fstat(&file).map_err(|error| Error::io(&self.join(relative), "stat")(error.into()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(is_directory(&self.join(relative)));
            }
            let stamp = stamp_of(&stat);
            Ok((OpenFile { file: file.into(), length: stamp.size }, stamp))
        }
        #[cfg(not(unix))]
        {
            let FileSource { open, metadata } = FileSource::open(&self.join(relative))?;
            Ok((open, Stamp::of(&metadata)))
        }
    }

    #[cfg(unix)]
    fn open_at(&self, relative: &str) -> Result<rustix::fd::OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::openat(&self.folder, relative, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io(&self.join(relative), "open")(error.into()))
    }
}

fn is_directory(path: &Path) -> Error {
    Error::io(path, "read")(io::ErrorKind::IsADirectory.into())
}

// Not every system has the same types here.
#[cfg(unix)]
#[allow(clippy::unnecessary_cast)]
fn stamp_of(stat: &rustix::fs::Stat) -> Stamp {
    let seconds = (stat.st_mtime as i64).saturating_mul(1_000_000_000);
    let modified_ns = seconds.saturating_add(stat.st_mtime_nsec as i64);
    Stamp { size: stat.st_size as u64, modified_ns }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
