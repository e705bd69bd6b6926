//! What loading a file in Python would import, judged without loading it.
//!
//! [`Checkpoint::globals`] says it of a file that was parsed. [`audit`] also judges files that are refused: it looks at
//! every pickle that `torch.load` may run, and in each goes on for as long as there are opcodes.

use crate::checkpoint::Checkpoint;
use crate::container::{Archive, Container, LegacyProblem, detect};
use crate::error::{Error, Result};
use crate::fault::{Fault, shortened};
use crate::limits::Limits;
use crate::pickle::{GlobalUse, Globals, Loaded, Node, PickleProblem, Stopped};
use crate::source::{Source, read};

/// Pickles at the start of a legacy file: magic number, protocol, system info, object, keys. `torch.load` runs them all.
const LEGACY_PICKLES: [&str; 5] =
    ["magic number", "protocol number", "system info", "object", "storage keys"];
/// First read of files that are not archives; longer heads are read again, longer.
const HEAD_BYTES: u64 = 1 << 20;
const HEAD_GROWTH: u64 = 8;

/// The globals a file names, and why there may be more.
#[derive(Debug)]
#[non_exhaustive]
pub struct Audit {
    /// Each global once, in order of first appearance.
    pub globals: Vec<GlobalUse>,
    /// What kept the file from being judged to its end; `None` when all of it was.
    pub problem: Option<Error>,
}

/// Lists every global that loading a file with `pickle` would import, also where parsing the file fails.
///
/// In archives all records named `*.pkl` count, and those of archives in them (`*.pt`, and tensors of `.pt2` files). So do the
/// files that pickles hold as arguments of `torch.storage._load_from_bytes`, which loads them. Files in such files are not
/// looked into, and [`Audit::problem`] says that there are some. Files that begin like a plain pickle are judged too: `torch.load` runs their first pickle before it finds that they are no checkpoints. In tar files, where
/// small pickles stand between the data, only that of the object is judged, and [`Audit::problem`] says so.
///
/// ```
/// use pt_format::{Limits, Verdict, audit};
/// let pickle = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";
/// let audit = audit(&pickle[..], &Limits::default())?;
/// assert_eq!((audit.globals[0].module.as_str(), audit.globals[0].verdict), ("os", Verdict::Dangerous));
/// # Ok::<(), pt_format::Error>(())
/// ```
///
/// # Errors
/// When there is nothing to judge: the file cannot be read, its directory is damaged, or it is no file of pickles.
pub fn audit<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Audit> {
    match detect(source) {
        Ok(Container::Zip) => audit_archive(source, limits),
        Ok(Container::Legacy) => audit_stacked(source, limits, &LEGACY_PICKLES),
        Ok(Container::Tar) => {
            let globals = Checkpoint::parse(source, limits)?.globals();
            let what = "the small pickles in it were not judged";
            let problem = LegacyProblem::TarMember { member: "storages", what };
            Ok(Audit { globals, problem: Some(Error::Legacy { offset: 0, problem }) })
        }
        Ok(Container::Pickle) => match Checkpoint::parse(source, limits) {
            Err(foreign @ Error::Foreign { .. }) => audit_foreign(source, limits, foreign),
            _ => audit_stacked(source, limits, &["pickle"]),
        },
        Ok(_) => without_pickles(source, limits),
        Err(foreign @ Error::Foreign { .. }) => audit_foreign(source, limits, foreign),
        Err(error) => Err(error),
    }
}

/// Whatever is no archive goes to `pickle.load`.
fn audit_foreign<S: Source + ?Sized>(source: &S, limits: &Limits, foreign: Error) -> Result<Audit> {
    match audit_stacked(source, limits, &LEGACY_PICKLES[..1]) {
        Ok(audit) if !audit.globals.is_empty() => Ok(Audit { problem: Some(foreign), ..audit }),
        _ => Err(foreign),
    }
}

/// Some containers have no pickles; what is none of them is an error.
fn without_pickles<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Audit> {
    Checkpoint::parse(source, limits).map(|_| Audit { globals: Vec::new(), problem: None })
}

fn audit_archive<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Audit> {
    let mut pickles = Pickles::new(limits, Globals::default());
    pickles.judge(&Archive::parse(source)?, "", true);
    match pickles.count {
        0 => without_pickles(source, limits),
        _ => Ok(Audit { globals: pickles.globals.found, problem: pickles.problem }),
    }
}

/// The pickles of a file and of the files in it.
struct Pickles<'l> {
    limits: &'l Limits,
    globals: Globals,
    problem: Option<Error>,
    count: usize,
    /// Of all pickles together.
    bytes_left: u64,
}

impl<'l> Pickles<'l> {
    fn new(limits: &'l Limits, globals: Globals) -> Self {
        Self { limits, globals, problem: None, count: 0, bytes_left: limits.pickle_bytes }
    }

    /// Judges the pickles of an archive; `is_outer` if it is the file itself.
    fn judge<S: Source + ?Sized>(&mut self, archive: &Archive<'_, S>, path: &str, is_outer: bool) {
        for (index, entry) in archive.entries().iter().enumerate() {
            let name = archive.name(entry);
            // torch finds `DATA.PKL` too.
            let lower = name.to_ascii_lowercase();
            let is_pickle = lower.ends_with(b".pkl") || contains(&lower, b"/opaque_obj_");
            let is_archive =
                is_outer && (lower.ends_with(b".pt") || is_inner_archive(archive, index, &lower));
            if !is_pickle && !is_archive {
                continue;
            }
            self.count += 1;
            let record = format!("{path}{}", String::from_utf8_lossy(name));
            let read = archive.read_record(index, self.bytes_left);
            let judged = read.and_then(|bytes| {
                self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
                if is_pickle {
                    return self.scan(&bytes, 0, &record, is_outer).map(drop);
                }
                let inner = Archive::parse(&*bytes)?;
                self.judge(&inner, &format!("{record}/"), false);
                Ok(())
            });
            if let Err(error) = judged {
                self.problem.get_or_insert(error);
            }
        }
    }

    /// Judges one pickle, and the files it loads. Returns where it ends.
    fn scan(&mut self, text: &[u8], start: usize, record: &str, is_outer: bool) -> Result<usize> {
        let scanned = self.globals.scan(text, start, self.limits);
        self.judge_loaded(text, record, is_outer);
        scanned.map_err(|stopped| stopped_error(stopped, record.to_owned()))
    }

    /// Judges the files that the pickles of a text load.
    fn judge_loaded(&mut self, text: &[u8], record: &str, is_outer: bool) {
        let Loaded { files, some_are_computed } = std::mem::take(&mut self.globals.loaded);
        if some_are_computed {
            self.refuse(record, "its bytes are computed");
        }
        for file in files.into_values() {
            let judged = match file.content(text) {
                _ if !is_outer => return self.refuse(record, "it lies in another one"),
                None => Err("its text does not decode".to_owned()),
                Some(bytes) => self.judge_file(&bytes, record).map_err(|error| error.to_string()),
            };
            if let Err(problem) = judged {
                self.refuse(record, &problem);
            }
        }
    }

    /// Judges a file inside a pickle as `torch.load` would run it.
    fn judge_file(&mut self, bytes: &[u8], record: &str) -> Result<()> {
        let pickles = match detect(bytes) {
            Ok(Container::Zip) => {
                self.judge(&Archive::parse(bytes)?, &format!("{record}/"), false);
                return Ok(());
            }
            Ok(Container::Legacy) => &LEGACY_PICKLES[..],
            _ => &LEGACY_PICKLES[..1],
        };
        let mut at = 0;
        for name in pickles {
            at = self.scan(bytes, at, name, false)?;
        }
        Ok(())
    }

    fn refuse(&mut self, record: &str, problem: &str) {
        let fault = Fault::Nested { problem: shortened(problem) };
        self.problem.get_or_insert(Error::Record { record: record.to_owned(), fault });
    }
}

/// Returns whether a record of a `.pt2` file without a telling name is an archive.
fn is_inner_archive<S: Source + ?Sized>(archive: &Archive<'_, S>, index: usize, name: &[u8]) -> bool {
    let is_data = [&b"/data/weights/"[..], b"/data/constants/", b"/data/aotinductor/"]
        .iter()
        .any(|folder| contains(name, folder));
    let is_old = name.starts_with(b"serialized_") && name != b"serialized_exported_program.json";
    (is_data || is_old) && matches!(archive.read_ends(index), Ok(Some(([b'P', b'K'], _))))
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

/// Judges pickles that stand one behind the other at the start of the file.
fn audit_stacked<S: Source + ?Sized>(source: &S, limits: &Limits, names: &[&str]) -> Result<Audit> {
    let file_bytes = source.len();
    let mut head_bytes = HEAD_BYTES.min(file_bytes);
    loop {
        let head = read(source, 0, head_bytes)?;
        let mut globals = Globals::default();
        let mut at = 0;
        let stopped = names.iter().find_map(|name| match globals.scan(&head, at, limits) {
            Ok(end) => {
                at = end;
                None
            }
            Err(stopped) => Some((stopped, (*name).to_owned())),
        });
        let is_cut = matches!(stopped, Some((Stopped::At(_, PickleProblem::CutOff { .. }), _)));
        if is_cut && head_bytes < file_bytes && head_bytes < limits.pickle_bytes {
            head_bytes = (head_bytes * HEAD_GROWTH).min(file_bytes);
            continue;
        }
        let mut pickles = Pickles::new(limits, globals);
        pickles.problem = stopped.map(|(stopped, name)| stopped_error(stopped, name));
        pickles.judge_loaded(&head, names.last().copied().unwrap_or_default(), true);
        return Ok(Audit { globals: pickles.globals.found, problem: pickles.problem });
    }
}

fn stopped_error(stopped: Stopped, record: String) -> Error {
    match stopped {
        Stopped::At(offset, problem) => Error::Pickle { record, offset: offset as u64, problem },
        Stopped::TooMany { what, found, limit, field } => Error::Limit { what, found, limit, field },
    }
}

impl Checkpoint<'_> {
    /// Returns the globals that the parsed pickles name, each once, in order of first appearance. [`audit`] also looks at
    /// what the parsed values do not show.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, Verdict, write};
    /// let object = write::Object::from(write::Tensor::new::<u8>(&[1], &[7])?);
    /// let bytes = write::to_vec(&object)?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// assert!(checkpoint.globals().iter().all(|global| global.verdict == Verdict::Known));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn globals(&self) -> Vec<GlobalUse> {
        let mut globals = Globals::default();
        let tree = &self.tree;
        let each = tree.globals.iter();
        let numbers: Vec<u32> =
            each.map(|global| globals.name(tree.bytes(global.module), tree.bytes(global.name))).collect();
        for node in &tree.nodes {
            let Node::Object { callable, .. } = *node else { continue };
            if let Some(&Node::Global(global)) = tree.nodes.get(callable as usize) {
                globals.call(numbers[global as usize]);
            }
        }
        globals.found
    }
}
