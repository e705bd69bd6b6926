//! Archives inside the records of an archive: what `torch.save` wrote, as a part of a `.pt2` file.
//!
//! Where the outer record is stored, the inner one lies in the file as it is, and so do its storages. Their places are
//! worked out from the inner directory, and everything goes the usual way: the pickles join the one tree, and their
//! storages are found by the names of both records.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::checkpoint::ByteOrder;
use crate::container::pickles::{Folder, Pickles};
use crate::container::{Archive, Container, Record};
use crate::error::{Error, Result};
use crate::fault::{Fault, shortened};
use crate::limits::Limits;
use crate::pickle::{Machine, PersistentIds, Root, Tree};
use crate::source::{Source, Window};

/// The inner archives of an archive, read but not run.
#[derive(Default)]
pub(crate) struct InnerArchives {
    /// Their pickles, one behind the other.
    pub(crate) text: Vec<u8>,
    parts: Vec<Part>,
    pub(crate) records: InnerRecords,
    /// Outer records read so far: one that many tensors claim would be read for each.
    used: HashSet<usize>,
    /// Bytes of those that had to be inflated, which are bounded all together.
    inflated: u64,
}

struct Part {
    /// Name of the outer record and of the pickle in it.
    record: String,
    range: Range<usize>,
    file: Result<u64, String>,
    folder: Folder,
    path: Vec<String>,
    byte_order: ByteOrder,
}

impl InnerArchives {
    /// Reads the archive that a record is. Empty records are none: torch writes them for dicts without entries.
    ///
    /// # Errors
    /// [`Error::Record`] with the name of the outer record.
    pub(crate) fn add<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        index: usize,
        path: Vec<String>,
        limits: &Limits,
    ) -> Result<()> {
        let entry = archive.entries()[index];
        let mut record = archive.shown_name(index);
        // The name is kept with each storage; long ones are told apart by number.
        let short = shortened(&record);
        if short != record {
            record = format!("{short}#{index}");
        }
        if entry.size == 0 {
            return Ok(());
        }
        let left = limits.pickle_bytes.saturating_sub(self.text.len() as u64);
        let limits = Limits { pickle_bytes: left, ..*limits };
        if !self.used.insert(index) {
            let fault = Fault::Nested { problem: "another tensor is it already".into() };
            return Err(Error::Record { record, fault });
        }
        if !entry.is_stored() {
            let bytes = archive.read_record(index, limits.pickle_bytes.saturating_sub(self.inflated))?;
            self.inflated += bytes.len() as u64;
            return self.read(&bytes[..], None, &record, path, &limits);
        }
        if let Some(fault) = entry.fault() {
            return Err(Error::Record { record, fault });
        }
        let start = archive.data_start(index)?;
        let window = Window::new(archive.source(), start, entry.size);
        let outside = Fault::OutsideFile { start, length: entry.size, limit: entry.limit };
        let window = window.ok_or_else(|| Error::Record { record: record.clone(), fault: outside })?;
        self.read(&window, Some(start), &record, path, &limits)
    }

    fn read<S: Source + ?Sized>(
        &mut self,
        source: &S,
        base: Option<u64>,
        record: &str,
        path: Vec<String>,
        limits: &Limits,
    ) -> Result<()> {
        let failed = |error: Error| match error {
            Error::Limit { .. } | Error::Read { .. } => error,
            error => {
                let fault = Fault::Nested { problem: error.to_string() };
                Error::Record { record: record.to_owned(), fault }
            }
        };
        let mut archive = Archive::parse(source).map_err(failed)?;
        let pickles = Pickles::read(&mut archive, limits).map_err(failed)?;
        if pickles.container != Container::Zip {
            let container = pickles.container;
            return Err(failed(Error::UnsupportedContainer { container }));
        }
        let byte_order = pickles.byte_order;
        for inner in pickles.parts() {
            let start = self.text.len();
            self.text.extend_from_slice(inner.text);
            let file = match (inner.file, base) {
                (Ok(place), Some(base)) => Ok(place + base),
                _ => Err(record.to_owned()),
            };
            let folder = inner.folder.inside(record);
            self.records.add(&archive, base, record, inner.folder);
            self.parts.push(Part {
                record: format!("{record}/{}", inner.record),
                range: start..self.text.len(),
                file,
                folder,
                path: path.clone(),
                byte_order,
            });
        }
        Ok(())
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Runs the pickles into the tree whose text they are, in their order, and adds the folders of their storages.
    pub(crate) fn run(
        &mut self,
        mut tree: Tree<'static>,
        folders: &mut Vec<Folder>,
        limits: &Limits,
    ) -> Result<Tree<'static>> {
        for part in std::mem::take(&mut self.parts) {
            tree.lies_at(part.range.clone(), part.file);
            let value;
            (tree, value, _) = Machine::run(tree, part.range, PersistentIds::Storage, limits, &part.record)?;
            let path = part.path.iter().map(|component| tree.keep_str(component)).collect();
            let byte_order = Some(part.byte_order);
            tree.roots.push(Root { path, byte_order, ..Root::new(value, part.record) });
            folders.push(part.folder);
        }
        Ok(tree)
    }
}

/// The storages of inner archives, by the names of both records.
#[derive(Default)]
pub(crate) struct InnerRecords {
    by_name: HashMap<Vec<u8>, usize>,
    places: Vec<Result<Record, Fault>>,
}

impl InnerRecords {
    /// Adds the storages of a pickle.
    fn add<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        base: Option<u64>,
        record: &str,
        folder: &Folder,
    ) {
        for (index, entry) in archive.entries().iter().enumerate() {
            let name = archive.name(entry);
            if !folder.holds(name) {
                continue;
            }
            let place = match (entry.fault(), base) {
                (Some(fault), _) => Err(fault),
                (None, None) => Err(Fault::InsideRecord { record: record.to_owned() }),
                (None, Some(base)) => match archive.record(index) {
                    Ok(place) => Ok(place.moved(base)),
                    Err(Error::Record { fault, .. }) => Err(fault),
                    Err(_) => Err(Fault::LocalHeader { offset: base + entry.header_offset }),
                },
            };
            self.note([record.as_bytes(), b"/", name].concat(), place);
        }
    }

    /// Notes where a record lies, or why it cannot be used.
    pub(crate) fn note(&mut self, name: Vec<u8>, place: Result<Record, Fault>) {
        self.by_name.entry(name).or_insert(self.places.len());
        self.places.push(place);
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn place(&self, index: usize, bytes: u64) -> Result<Record, Fault> {
        match &self.places[index] {
            Ok(record) if record.bytes != bytes => {
                Err(Fault::RecordLength { record: record.bytes, expected: bytes })
            }
            place => place.clone(),
        }
    }
}
