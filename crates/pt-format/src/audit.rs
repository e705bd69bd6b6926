//! What loading a file in Python would import, judged without loading it.
//!
//! [`Checkpoint::globals`] says it of a file that was parsed. [`audit`] also judges files that are refused: it looks at
//! every pickle that `torch.load` may run, and in each goes on for as long as there are opcodes.

use std::borrow::Cow;

use crate::checkpoint::Checkpoint;
use crate::container::{Archive, Container, detect};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{GlobalUse, Globals, Node, PickleProblem, Stopped};
use crate::source::Source;

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
/// In archives all records named `*.pkl` count. Files that begin like a plain pickle are judged too: `torch.load` runs their
/// first pickle before it finds that they are no checkpoints.
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
        Ok(Container::Zip) => audit_archive(&Archive::parse(source)?, limits),
        Ok(Container::Legacy) => audit_stacked(source, limits, &LEGACY_PICKLES),
        Ok(container @ (Container::Tar | Container::Safetensors)) => {
            Err(Error::UnsupportedContainer { container })
        }
        Ok(_) => audit_stacked(source, limits, &LEGACY_PICKLES[..1]),
        // Whatever is no archive goes to `pickle.load`.
        Err(foreign @ Error::Foreign { .. }) => match audit_stacked(source, limits, &LEGACY_PICKLES[..1]) {
            Ok(audit) if !audit.globals.is_empty() => Ok(Audit { problem: Some(foreign), ..audit }),
            _ => Err(foreign),
        },
        Err(error) => Err(error),
    }
}

fn audit_archive<S: Source + ?Sized>(archive: &Archive<'_, S>, limits: &Limits) -> Result<Audit> {
    let mut globals = Globals::default();
    let mut problem = None;
    let (mut pickles, mut bytes_left) = (0, limits.pickle_bytes);
    for (index, entry) in archive.entries().iter().enumerate() {
        let name = archive.name(entry);
        // torch finds `DATA.PKL` too.
        if !name.to_ascii_lowercase().ends_with(b".pkl") {
            continue;
        }
        pickles += 1;
        let record = || String::from_utf8_lossy(name).into_owned();
        let found = archive.read_record(index, bytes_left).and_then(|text| {
            bytes_left = bytes_left.saturating_sub(text.len() as u64);
            globals.scan(&text, 0, limits).map_err(|stopped| stopped_error(stopped, record()))
        });
        if let Err(error) = found {
            problem = problem.or(Some(error));
        }
    }
    match pickles {
        0 => {
            let record = String::from_utf8_lossy(&archive.in_root("data.pkl")).into_owned();
            Err(Error::MissingRecord { record, records: archive.entries().len() })
        }
        _ => Ok(Audit { globals: globals.found, problem }),
    }
}

/// Judges pickles that stand one behind the other at the start of the file.
fn audit_stacked<S: Source + ?Sized>(source: &S, limits: &Limits, names: &[&str]) -> Result<Audit> {
    let file_bytes = source.len();
    let mut head_bytes = HEAD_BYTES.min(file_bytes);
    loop {
        let head = source.read_at(0, head_bytes as usize);
        let head: Cow<'_, [u8]> =
            head.map_err(|source| Error::Read { offset: 0, length: head_bytes, source })?;
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
        let problem = stopped.map(|(stopped, name)| stopped_error(stopped, name));
        return Ok(Audit { globals: globals.found, problem });
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
