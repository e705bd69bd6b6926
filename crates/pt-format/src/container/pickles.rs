//! Which pickles a zip archive holds, and in which folder each one's storages are.
//!
//! | archive | pickles | storages |
//! |---|---|---|
//! | `torch.save` | `data.pkl` | `data/<key>` |
//! | TorchScript | `data.pkl`, and `constants.pkl` for tensors in the code | `data/<key>`, `constants/<key>` |
//! | … traced | `traced_inputs.pkl`, under `TRACED_INPUTS` | `traced_inputs/<key>` |
//! | `torch.package` | whatever was saved, and TorchScript modules in `.data/ts_code/` | `.data/<key>.storage` |
//!
//! Source: `torch/serialization.py`, `torch/package/package_importer.py`, `torch/csrc/jit/serialization/import.cpp`.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::checkpoint::ByteOrder;
use crate::container::inner::InnerRecords;
use crate::container::{Archive, ArchiveProblem, Container, Record};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::pickle::{Machine, PersistentIds, Root, Tree};
use crate::rebuild::Records;
use crate::source::Source;

/// Put in front of the names of what a module was traced with, so that it is no attribute of the module.
const TRACED_INPUTS: &str = "TRACED_INPUTS";

/// The record of the object itself.
pub(crate) const PICKLE_RECORD: &str = "data.pkl";
/// Records of a few bytes that say how others are to be read.
const ALIGNMENT_RECORD: &str = ".storage_alignment";
const BYTE_ORDER_RECORD: &str = "byteorder";
pub(crate) const SMALL_RECORDS: [&str; 2] = [ALIGNMENT_RECORD, BYTE_ORDER_RECORD];

/// The pickles of an archive, read but not run.
pub(crate) struct Pickles<'s> {
    pub(crate) container: Container,
    pub(crate) byte_order: ByteOrder,
    /// The bytes of all of them; of a single one perhaps with what stands around it.
    text: Cow<'s, [u8]>,
    /// Nearly always one.
    parts: SmallVec<[Part; 1]>,
}

struct Part {
    plan: Plan,
    range: Range<usize>,
    /// Position of the bytes in the file; of inflated ones, the name of the record.
    file: Result<u64, String>,
}

/// A pickle as those see it who run it themselves.
pub(crate) struct PartText<'p> {
    pub(crate) record: &'p str,
    pub(super) folder: &'p Folder,
    pub(crate) text: &'p [u8],
    pub(crate) file: Result<u64, String>,
}

/// A pickle that is to be read.
struct Plan {
    index: usize,
    record: String,
    folder: Folder,
    /// Put in front of its tensors' names.
    path: Vec<String>,
    is_constants: bool,
    /// Its storages may be empty records.
    is_hollow: bool,
}

type Plans = SmallVec<[Plan; 1]>;

/// Where the storages of a pickle are: `<prefix><key><suffix>`.
#[derive(Clone)]
pub(crate) struct Folder {
    prefix: Vec<u8>,
    suffix: &'static [u8],
}

impl Folder {
    pub(crate) fn new(prefix: Vec<u8>, suffix: &'static [u8]) -> Self {
        Self { prefix, suffix }
    }

    /// The same folder, of an archive that is a record itself.
    pub(super) fn inside(&self, record: &str) -> Self {
        Self { prefix: [record.as_bytes(), b"/", &self.prefix].concat(), suffix: self.suffix }
    }

    /// Returns whether a record is in it.
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        name.starts_with(&self.prefix) && name.ends_with(self.suffix)
    }
}

impl<'s> Pickles<'s> {
    /// Tells what the archive is and reads its pickles.
    ///
    /// # Errors
    /// [`Error::Foreign`] or [`Error::UnsupportedContainer`] when it is something else, [`Error::Record`] when a record
    /// cannot be read.
    pub(crate) fn read<S: Source + ?Sized>(archive: &mut Archive<'s, S>, limits: &Limits) -> Result<Self> {
        let (container, plans) = plan(archive, limits)?;
        if let Some(first) = plans.first() {
            archive.prefetch(first.index, limits)?;
        }
        let alignment = small_record(archive, ALIGNMENT_RECORD)?.and_then(|text| parse_number(&text));
        // A number torch could not have used says nothing about where data starts.
        if let Some(alignment) = alignment.filter(|alignment| (1..=1 << 16).contains(alignment)) {
            archive.set_alignment(alignment);
        }
        let byte_order = read_byte_order(archive)?;
        let (text, parts) = match plans.into_inner() {
            Ok([plan]) => {
                let (text, start, end) = archive.take_record(plan.index, limits.pickle_bytes)?;
                let file = archive.stored_at(plan.index);
                (text, smallvec![Part { plan, range: start..end, file }])
            }
            Err(plans) => {
                let mut text = Vec::new();
                let mut parts = SmallVec::with_capacity(plans.len());
                for plan in plans {
                    let start = text.len();
                    let left = limits.pickle_bytes.saturating_sub(start as u64);
                    text.extend_from_slice(&archive.read_record(plan.index, left)?);
                    let file = archive.stored_at(plan.index);
                    parts.push(Part { plan, range: start..text.len(), file });
                }
                (Cow::Owned(text), parts)
            }
        };
        Ok(Self { container, byte_order, text, parts })
    }

    /// Returns the bytes of all pickles.
    pub(crate) fn bytes(&self) -> &[u8] {
        let end = self.parts.last().map_or(0, |part| part.range.end);
        let start = self.parts.first().map_or(0, |part| part.range.start);
        &self.text[start..end]
    }

    /// Returns the pickles one by one.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = PartText<'_>> {
        self.parts.iter().map(|part| PartText {
            record: &part.plan.record,
            folder: &part.plan.folder,
            text: &self.text[part.range.clone()],
            file: part.file.clone(),
        })
    }

    /// Runs them all into one tree. Returns it with the folder of each one's storages.
    pub(crate) fn run(self, limits: &Limits) -> Result<(Tree<'s>, Vec<Folder>)> {
        let ids = match self.container {
            Container::Package => PersistentIds::Package,
            _ => PersistentIds::Storage,
        };
        let mut tree = Tree::new(self.text);
        let mut folders = Vec::with_capacity(self.parts.len());
        for Part { plan, range, file } in self.parts {
            tree.lies_at(range.clone(), file);
            let value;
            (tree, value, _) = Machine::run(tree, range, ids, limits, &plan.record)?;
            let path = plan.path.iter().map(|component| tree.keep_str(component)).collect();
            tree.roots.push(Root {
                path,
                is_constants: plan.is_constants,
                is_hollow: plan.is_hollow,
                ..Root::new(value, plan.record)
            });
            folders.push(plan.folder);
        }
        Ok((tree, folders))
    }
}

/// The records of an archive as the storages of its pickles.
pub(crate) struct ArchiveRecords<'a, 's, S: ?Sized> {
    archive: &'a Archive<'s, S>,
    folders: Vec<Folder>,
    /// Those of archives in it.
    inner: InnerRecords,
}

impl<'a, 's, S: Source + ?Sized> ArchiveRecords<'a, 's, S> {
    pub(crate) fn new(archive: &'a Archive<'s, S>, folders: Vec<Folder>) -> Self {
        Self { archive, folders, inner: InnerRecords::default() }
    }

    pub(crate) fn with_inner(self, inner: InnerRecords) -> Self {
        Self { inner, ..self }
    }
}

impl<S: Source + ?Sized> Records for ArchiveRecords<'_, '_, S> {
    fn count(&self) -> usize {
        self.archive.entries().len() + self.inner.len()
    }

    fn record_name(&self, root: usize, key: &[u8], name: &mut Vec<u8>) {
        if let Some(folder) = self.folders.get(root) {
            name.reserve(folder.prefix.len() + key.len() + folder.suffix.len());
            for part in [&folder.prefix[..], key, folder.suffix] {
                name.extend_from_slice(part);
            }
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let outer = self.archive.entries().len();
        self.archive.find(name).or_else(|| self.inner.find(name).map(|index| outer + index))
    }

    fn is_record_of(&self, record: usize, root: usize, key: &[u8]) -> bool {
        let (Some(entry), Some(folder)) = (self.archive.entries().get(record), self.folders.get(root)) else {
            return false;
        };
        let name = self.archive.name(entry).strip_prefix(&folder.prefix[..]);
        entry.has_name_alone() && name.and_then(|name| name.strip_suffix(folder.suffix)) == Some(key)
    }

    fn place(&self, index: usize, bytes: u64) -> Result<Record, Fault> {
        if let Some(index) = index.checked_sub(self.archive.entries().len()) {
            return self.inner.place(index, bytes);
        }
        let entry = self.archive.entries()[index];
        if let Some(fault) = entry.fault() {
            return Err(fault);
        }
        if entry.size != bytes {
            return Err(Fault::RecordLength { record: entry.size, expected: bytes });
        }
        self.archive.record(index).map_err(|error| match error {
            Error::Record { fault, .. } => fault,
            _ => Fault::LocalHeader { offset: entry.header_offset },
        })
    }
}

/// Tells which kind of archive this is, in the order torch does, and which pickles to read.
fn plan<S: Source + ?Sized>(archive: &Archive<'_, S>, limits: &Limits) -> Result<(Container, Plans)> {
    let has = |name: &str| archive.find_in_root(name).is_some();
    if has(".data/extern_modules") || has(".data/python_version") {
        return plan_package(archive, limits).map(|plans| (Container::Package, plans));
    }
    let main = archive.find_in_root(PICKLE_RECORD).map(|index| Plan {
        index,
        record: archive.shown_name(index),
        folder: Folder { prefix: archive.in_root("data/"), suffix: b"" },
        path: Vec::new(),
        is_constants: false,
        is_hollow: false,
    });
    if let Some(constants) = archive.find_in_root("constants.pkl") {
        let constants = Plan {
            index: constants,
            record: archive.shown_name(constants),
            folder: Folder { prefix: archive.in_root("constants/"), suffix: b"" },
            path: Vec::new(),
            is_constants: true,
            is_hollow: false,
        };
        let traced = archive.find_in_root("traced_inputs.pkl").map(|index| Plan {
            index,
            record: archive.shown_name(index),
            folder: Folder { prefix: archive.in_root("traced_inputs/"), suffix: b"" },
            path: vec![TRACED_INPUTS.into()],
            is_constants: false,
            is_hollow: true,
        });
        return Ok((Container::TorchScript, main.into_iter().chain([constants]).chain(traced).collect()));
    }
    if let Some(main) = main {
        return Ok((Container::Zip, smallvec![main]));
    }
    if has("version") || has(BYTE_ORDER_RECORD) {
        let record = String::from_utf8_lossy(&archive.in_root(PICKLE_RECORD)).into_owned();
        return Err(Error::MissingRecord { record, records: archive.entries().len() });
    }
    Err(not_torch(archive))
}

/// Which members of a package are pickles is written nowhere; they show by their first and last bytes. Where there are
/// several, the name of the record goes in front of the names of its tensors.
fn plan_package<S: Source + ?Sized>(archive: &Archive<'_, S>, limits: &Limits) -> Result<Plans> {
    const PROTOCOL_MAX: u8 = 5;
    let inside = archive.in_root("");
    let mut plans = Plans::new();
    // For all of them together: a package of many records that inflate to much must not take hours.
    let mut bytes_left = limits.pickle_bytes;
    for (index, entry) in archive.entries().iter().enumerate() {
        let Some(name) = archive.name(entry).strip_prefix(&inside[..]) else { continue };
        let in_script = name.starts_with(b".data/ts_code/");
        let is_data = name.starts_with(b".data/") && !in_script;
        let is_code = [&b".py"[..], b".debug_pkl", b".storage"].iter().any(|ending| name.ends_with(ending));
        if is_data || is_code || (in_script && !name.ends_with(b".pkl")) {
            continue;
        }
        let ends = match entry.is_stored() {
            true => archive.read_ends(index)?,
            false => {
                let content = archive.read_record(index, bytes_left)?;
                bytes_left -= content.len() as u64;
                content.first_chunk().zip(content.last()).map(|(&first, &last)| (first, last))
            }
        };
        if !matches!(ends, Some(([0x80, protocol], b'.')) if protocol <= PROTOCOL_MAX) {
            continue;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let folder = match in_script {
            // Keys of scripts end in `.storage` themselves.
            true => Folder { prefix: archive.in_root(".data/"), suffix: b"" },
            false => Folder { prefix: archive.in_root(".data/"), suffix: b".storage" },
        };
        let path = name.trim_end_matches(".pkl").trim_start_matches('.').split('/').map(str::to_owned);
        let is_constants = in_script && name.ends_with("/constants.pkl");
        plans.push(Plan {
            index,
            record: archive.shown_name(index),
            folder,
            path: path.collect(),
            is_constants,
            is_hollow: in_script && name.ends_with("/traced_inputs.pkl"),
        });
    }
    if let [only] = &mut plans[..] {
        only.path.clear();
    }
    Ok(plans)
}

/// Returns the order of bytes inside the storages.
pub(super) fn read_byte_order<S: Source + ?Sized>(archive: &Archive<'_, S>) -> Result<ByteOrder> {
    match small_record(archive, BYTE_ORDER_RECORD)?.as_deref() {
        None | Some(b"little") => Ok(ByteOrder::Little),
        Some(b"big") => Ok(ByteOrder::Big),
        Some(other) => {
            let record = String::from_utf8_lossy(&archive.in_root(BYTE_ORDER_RECORD)).into_owned();
            let found = format!("`{}`", other[..other.len().min(40)].escape_ascii());
            Err(Error::Record { record, fault: Fault::Content { found, expected: "`little` or `big`" } })
        }
    }
}

/// Says what an archive without any of PyTorch's records looks like.
fn not_torch<S: Source + ?Sized>(archive: &Archive<'_, S>) -> Error {
    let mut names = archive.entries().iter().map(|entry| archive.name(entry));
    let found = |found, advice: &str| Error::Foreign { found, advice: advice.into() };
    if archive.find(b"data.pkl").is_some() {
        let name = "data.pkl".into();
        return Error::archive(0, ArchiveProblem::NoRoot { name });
    }
    if archive.entries().is_empty() {
        return found("an empty zip archive", "save the object with torch.save to get a checkpoint");
    }
    if names.any(|name| name.ends_with(b".npy")) {
        return found("a numpy .npz file", "open it with numpy");
    }
    found(
        "an ordinary zip archive",
        "it has no record `data.pkl`; if a checkpoint is inside, unpack it first",
    )
}

/// Reads a record of a few bytes that may be missing.
fn small_record<'a, S: Source + ?Sized>(
    archive: &'a Archive<'_, S>,
    name: &str,
) -> Result<Option<Cow<'a, [u8]>>> {
    const SMALL_RECORD_BYTES_MAX: u64 = 4 << 10;
    let Some(index) = archive.find_in_root(name) else { return Ok(None) };
    let size = archive.entries()[index].size;
    if size > SMALL_RECORD_BYTES_MAX {
        let record = String::from_utf8_lossy(&archive.in_root(name)).into_owned();
        let fault = Fault::Content { found: format!("{size} bytes"), expected: "one short word" };
        return Err(Error::Record { record, fault });
    }
    archive.read_record(index, SMALL_RECORD_BYTES_MAX).map(Some)
}

fn parse_number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}
