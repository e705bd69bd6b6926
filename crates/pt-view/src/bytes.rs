//! The bytes of a file: in memory, mapped, or read by position.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use pt_index::FileSource;

use crate::error::{Obstacle, Result};
use crate::map::Map;

/// Where the bytes of a data file come from, and which of its records were checked already.
#[derive(Clone, Copy)]
pub struct FileBytes<'a> {
    /// The whole file, where it is in memory or mapped.
    pub(crate) bytes: Option<&'a [u8]>,
    /// The map whose bytes they are.
    pub(crate) map: Option<&'a Map>,
    /// The open file: for positioned reads, and for local headers, because touching those through a map would read it
    /// ahead.
    pub(crate) source: Option<&'a FileSource>,
    pub(crate) checked: Option<&'a CheckedRecords>,
}

impl<'a> FileBytes<'a> {
    /// Takes the bytes of a whole file that are in memory.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// use pt_view::{FileBytes, TensorView};
    /// let object = write::Object::from(write::Tensor::new::<i64>(&[2], &[7, 8])?);
    /// let file = write::to_vec(&object)?;
    /// let index = pt_index::index_of(&Checkpoint::parse(&file, &Limits::default())?)?;
    /// let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::new(&file));
    /// assert_eq!(view.to_vec::<i64>()?, [7, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Some(bytes), map: None, source: None, checked: None }
    }

    /// Takes an open file that is read by position, not mapped: a file that shrinks is then an error and not a signal,
    /// and small reads here and there are cheaper than page faults. Nothing can be borrowed; copies work as always.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::from(Tensor::new::<i64>(&[2], &[7, 8])?))?)?;
    /// use pt_view::{CheckedRecords, FileBytes, TensorView};
    /// let source = pt_index::FileSource::open(&path)?;
    /// let index = pt_index::build_source(&path, &source, &Default::default())?;
    /// let checked = CheckedRecords::new(index.storage_count());
    /// let view = TensorView::new(index.tensor(0).unwrap(), FileBytes::read(&source, &checked));
    /// assert_eq!(view.to_vec::<i64>()?, [7, 8]);
    /// assert!(view.as_slice::<i64>().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn read(source: &'a FileSource, checked: &'a CheckedRecords) -> Self {
        Self { bytes: None, map: None, source: Some(source), checked: Some(checked) }
    }

    #[inline]
    pub(crate) fn mapped(map: &'a Map, source: &'a FileSource, checked: &'a CheckedRecords) -> Self {
        Self { bytes: Some(map), map: Some(map), source: Some(source), checked: Some(checked) }
    }

    pub(crate) fn length(&self) -> u64 {
        match self.bytes {
            Some(bytes) => bytes.len() as u64,
            None => self.source.map_or(0, |source| source.metadata().len()),
        }
    }

    /// The bytes of a range of the file: lent if it is in memory, else read.
    pub(crate) fn range(&self, start: u64, end: u64) -> Result<Cow<'a, [u8]>, Obstacle> {
        if let Some(bytes) = self.bytes {
            return self.borrow(bytes, start, end).map(Cow::Borrowed);
        }
        // The index may claim anything; memory is only taken for bytes that are there.
        let length = self.length();
        if end > length {
            return Err(Obstacle::OutsideFile { start, end, length });
        }
        let mut bytes = vec![0; (end - start.min(end)) as usize];
        self.read_exact(&mut bytes, start)?;
        Ok(Cow::Owned(bytes))
    }

    pub(crate) fn borrow(&self, bytes: &'a [u8], start: u64, end: u64) -> Result<&'a [u8], Obstacle> {
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let length = bytes.len() as u64;
        range.and_then(|(start, end)| bytes.get(start..end)).ok_or(Obstacle::OutsideFile {
            start,
            end,
            length,
        })
    }

    pub(crate) fn read_exact(&self, out: &mut [u8], start: u64) -> Result<(), Obstacle> {
        let source = self.source.ok_or(Obstacle::NotMapped)?;
        source.read_exact_at(out, start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let length = source.file().metadata().map_or(0, |metadata| metadata.len());
                Obstacle::OutsideFile { start, end: start.saturating_add(out.len() as u64), length }
            }
            _ => Obstacle::Read(error.to_string()),
        })
    }
}

/// Which storages of an index had their record's local header checked; shared by all views of the data.
#[derive(Debug)]
pub struct CheckedRecords {
    checked: Box<[AtomicU64]>,
}

impl CheckedRecords {
    /// Notes of so many storages that none was checked yet.
    pub fn new(storages: usize) -> Self {
        Self { checked: (0..storages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    pub(crate) fn is_checked(&self, storage: usize) -> bool {
        let word = self.checked.get(storage / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (storage % 64) != 0)
    }

    pub(crate) fn set_checked(&self, storage: usize) {
        if let Some(word) = self.checked.get(storage / 64) {
            word.fetch_or(1 << (storage % 64), Ordering::Relaxed);
        }
    }
}
