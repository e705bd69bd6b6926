//! The globals that a pickle names, found without judging its structure.
//!
//! The machine refuses what it cannot make sense of; Python may go on where it stops, and import something behind. So this
//! pass only follows the opcodes and as much of the stack as it takes to know which strings STACK_GLOBAL finds and what is
//! called. Where the stack does not have what an opcode needs, it goes on as if it had.
//!
//! One call runs further pickles, `torch.storage._load_from_bytes`: the scan takes note of the bytes it is given.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::limits::Limits;
use crate::pickle::opcode as op;
use crate::pickle::{Encoding, PickleProblem, Verdict, modern_name};

/// Different globals of one file that are told apart. Models of many layers name some 500.
const GLOBALS_MAX: usize = 1 << 14;
/// Names are not followed further. A module and a class have some 100 bytes.
const NAME_BYTES_MAX: usize = 256;
/// Below this protocol Python 3 translates the names of Python 2.
const PROTOCOL_OF_PYTHON_3: u8 = 3;

/// A global that a pickle names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GlobalUse {
    /// Module that Python would import.
    pub module: String,
    /// Name in it; dotted when it is an attribute of something in it.
    pub name: String,
    /// How often the pickles name it; writers name a global once and then take it from the memo.
    pub references: u64,
    /// How often it would be called; others are passed to something that may call them.
    pub calls: u64,
    /// What it is to whoever loads the file.
    pub verdict: Verdict,
}

/// The globals of the pickles scanned so far, in order of first appearance.
#[derive(Default)]
pub(crate) struct Globals {
    pub(crate) found: Vec<GlobalUse>,
    /// What was given to `torch.storage._load_from_bytes`.
    pub(crate) loaded: Loaded,
    by_names: HashMap<(String, String), u32>,
    load_from_bytes: Option<u32>,
    codecs_encode: Option<u32>,
    is_full: bool,
}

/// Files inside a pickle that loading it loads too.
#[derive(Default)]
pub(crate) struct Loaded {
    /// By position: many calls may share one.
    pub(crate) files: BTreeMap<usize, Literal>,
    /// Some bytes are not written in the pickle, but made by something it calls.
    pub(crate) some_are_computed: bool,
}

/// Bytes that a pickle holds.
#[derive(Clone, Copy)]
pub(crate) struct Literal {
    start: usize,
    length: u32,
    /// `None` where they are written as they are.
    encoding: Option<Encoding>,
}

impl Literal {
    /// Returns the bytes, `None` when they are not written as they should be.
    pub(crate) fn content<'t>(&self, text: &'t [u8]) -> Option<Cow<'t, [u8]>> {
        let written = text.get(self.start..self.start + self.length as usize)?;
        match self.encoding {
            None => Some(Cow::Borrowed(written)),
            Some(encoding) => encoding.decode(written).map(Cow::Owned),
        }
    }
}

/// Why a scan ended before STOP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The pickle is malformed at this byte.
    At(usize, PickleProblem),
    /// It has more globals, or values, than are followed.
    TooMany { what: &'static str, found: u64, limit: u64, field: &'static str },
}

impl Globals {
    /// Scans the pickle that starts at `start`; returns the byte behind its STOP.
    pub(crate) fn scan(&mut self, text: &[u8], start: usize, limits: &Limits) -> Result<usize, Stopped> {
        let mut scan = Scan {
            text,
            at: start,
            protocol: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            globals: self,
        };
        loop {
            let opcode_at = scan.at;
            match scan.step() {
                Ok(true) => return Ok(scan.at),
                Ok(false) => {}
                Err(problem) => return Err(Stopped::At(opcode_at - start, problem)),
            }
            let held = scan.stack.len().max(scan.memo.len()).max(scan.marks.len());
            let held = held.max(scan.globals.loaded.files.len());
            if held > limits.values {
                let (found, limit) = (held as u64, limits.values as u64);
                return Err(Stopped::TooMany { what: "values in the pickle", found, limit, field: "values" });
            }
            if scan.globals.is_full {
                let (found, limit) = (GLOBALS_MAX as u64 + 1, GLOBALS_MAX as u64);
                return Err(Stopped::TooMany { what: "different globals", found, limit, field: "" });
            }
        }
    }

    /// Takes note of a global by its names in Python 3; returns its number, which means nothing once there are too many.
    pub(crate) fn name(&mut self, module: &[u8], name: &[u8]) -> u32 {
        let ((module, module_is_cut), (name, name_is_cut)) = (shown(module), shown(name));
        let is_cut = module_is_cut || name_is_cut;
        self.refer(module, name, |module, name| match is_cut {
            true => Verdict::Dangerous,
            false => Verdict::of(module, name),
        })
    }

    /// Counts one call.
    pub(crate) fn call(&mut self, global: u32) {
        if let Some(global) = self.found.get_mut(global as usize) {
            global.calls += 1;
        }
    }

    /// A name is judged once, however often it comes.
    fn refer(&mut self, module: String, name: String, judge: impl FnOnce(&str, &str) -> Verdict) -> u32 {
        let names = (module, name);
        if let Some(&index) = self.by_names.get(&names) {
            self.found[index as usize].references += 1;
            return index;
        }
        if self.found.len() >= GLOBALS_MAX {
            self.is_full = true;
            return u32::MAX;
        }
        let index = self.found.len() as u32;
        let (module, name) = names.clone();
        match (&*module, &*name) {
            ("torch.storage", "_load_from_bytes") => self.load_from_bytes = Some(index),
            ("_codecs", "encode") => self.codecs_encode = Some(index),
            _ => {}
        }
        let verdict = judge(&module, &name);
        self.found.push(GlobalUse { module, name, references: 1, calls: 0, verdict });
        self.by_names.insert(names, index);
        index
    }
}

/// As much of a value as matters here.
#[derive(Clone, Copy)]
enum Slot {
    Other,
    Text {
        start: usize,
        length: u32,
    },
    /// A line of text with escapes: `unicode`, or a Python 2 `str`.
    Escaped {
        start: usize,
        length: u32,
        is_unicode: bool,
    },
    Bytes(Literal),
    Global(u32),
    /// A tuple of nothing but bytes.
    OneBytes(Literal),
    /// A tuple of text and `"latin1"`, of which `_codecs.encode` makes bytes.
    Latin1(Literal),
}

struct Scan<'t, 'g> {
    text: &'t [u8],
    at: usize,
    protocol: u8,
    stack: Vec<Slot>,
    marks: Vec<usize>,
    memo: HashMap<u64, Slot>,
    globals: &'g mut Globals,
}

type Step<T = ()> = Result<T, PickleProblem>;

impl<'t> Scan<'t, '_> {
    /// Follows one opcode; true after STOP.
    fn step(&mut self) -> Step<bool> {
        match self.number(1)? as u8 {
            op::STOP => return Ok(true),
            op::PROTO => self.protocol = self.number(1)? as u8,
            op::FRAME => {
                self.number(8)?;
            }
            op::MARK => self.marks.push(self.stack.len()),

            op::NONE | op::NEWTRUE | op::NEWFALSE => self.stack.push(Slot::Other),
            op::EMPTY_LIST | op::EMPTY_TUPLE | op::EMPTY_DICT | op::EMPTY_SET => self.stack.push(Slot::Other),
            op::NEXT_BUFFER => self.stack.push(Slot::Other),
            op::READONLY_BUFFER => {}
            op::BININT1 => self.skip(1)?,
            op::BININT2 => self.skip(2)?,
            op::BININT => self.skip(4)?,
            op::BINFLOAT => self.skip(8)?,
            op::LONG1 => self.skip_counted(1)?,
            op::LONG4 => self.skip_counted(4)?,
            op::SHORT_BINBYTES => self.bytes(1)?,
            op::BINBYTES => self.bytes(4)?,
            op::BINBYTES8 => self.bytes(8)?,
            // What is in it may change.
            op::BYTEARRAY8 => self.skip_counted(8)?,
            op::INT | op::LONG | op::FLOAT | op::PERSID => {
                self.line()?;
                self.stack.push(Slot::Other);
            }
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => self.text(1)?,
            op::BINUNICODE | op::BINSTRING => self.text(4)?,
            op::BINUNICODE8 => self.text(8)?,
            op::STRING => {
                let (start, line) = self.line()?;
                // Without its quotes.
                let line = line.get(1..line.len().saturating_sub(1)).unwrap_or_default();
                self.text_line(start + 1, line, false);
            }
            op::UNICODE => {
                let (start, line) = self.line()?;
                self.text_line(start, line, true);
            }

            op::APPEND | op::BUILD => self.pop_count(1),
            op::SETITEM => self.pop_count(2),
            op::APPENDS | op::SETITEMS | op::ADDITEMS | op::POP_MARK => self.pop_mark(),
            op::POP => match self.marks.last() == Some(&self.stack.len()) {
                true => self.pop_mark(),
                false => self.pop_count(1),
            },
            op::DUP => self.stack.push(self.stack.last().copied().unwrap_or(Slot::Other)),
            op::BINPERSID => self.replace(1),
            op::TUPLE1 => self.tuple(self.stack.len().saturating_sub(1)),
            op::TUPLE2 => self.tuple(self.stack.len().saturating_sub(2)),
            op::TUPLE3 => self.replace(3),
            op::TUPLE => {
                let mark = self.marks.pop().unwrap_or(0);
                self.tuple(mark);
            }
            op::LIST | op::DICT | op::FROZENSET => {
                self.pop_mark();
                self.stack.push(Slot::Other);
            }

            op::BINPUT => self.put_counted(1)?,
            op::LONG_BINPUT => self.put_counted(4)?,
            op::MEMOIZE => self.put(self.memo.len() as u64),
            op::PUT => {
                let index = self.decimal()?;
                self.put(index);
            }
            op::BINGET => self.get_counted(1)?,
            op::LONG_BINGET => self.get_counted(4)?,
            op::GET => {
                let index = self.decimal()?;
                self.get(index);
            }

            op::GLOBAL => {
                let (module, name) = (self.line()?.1, self.line()?.1);
                self.global(module, name);
            }
            op::INST => {
                let (module, name) = (self.line()?.1, self.line()?.1);
                let mark = self.marks.pop().unwrap_or(0);
                let arguments = self.tuple_of(mark);
                self.stack.truncate(mark);
                self.global(module, name);
                self.call(1, arguments);
            }
            op::STACK_GLOBAL => self.stack_global(),
            op::EXT1 => self.extension(1)?,
            op::EXT2 => self.extension(2)?,
            op::EXT4 => self.extension(4)?,
            op::REDUCE | op::NEWOBJ => self.call(2, self.under(0)),
            op::NEWOBJ_EX => self.call(3, self.under(1)),
            op::OBJ => {
                let mark = self.marks.last().map_or(self.stack.len(), |&mark| mark);
                self.call(self.stack.len().saturating_sub(mark), self.tuple_of(mark + 1));
                self.marks.pop();
            }
            other => return Err(PickleProblem::UnknownOpcode(other)),
        }
        Ok(false)
    }

    // Globals.

    fn global(&mut self, module: &[u8], name: &[u8]) {
        let modern = if self.protocol < PROTOCOL_OF_PYTHON_3 { modern_name(module, name) } else { None };
        let (module, name) = modern.unwrap_or((module, name));
        let index = self.globals.name(module, name);
        self.stack.push(Slot::Global(index));
    }

    fn stack_global(&mut self) {
        let (name, module) = (self.pop(), self.pop());
        if let (Slot::Text { .. }, Slot::Text { .. }) = (module, name) {
            self.global(self.slot_text(module), self.slot_text(name));
            return;
        }
        // A name that is the result of a call can be any name.
        let [module, name] = [module, name].map(|slot| match slot {
            Slot::Text { .. } => shown(self.slot_text(slot)).0,
            _ => "<computed>".to_owned(),
        });
        let index = self.globals.refer(module, name, |_, _| Verdict::Dangerous);
        self.stack.push(Slot::Global(index));
    }

    /// What the number stands for is known to the process that registered it.
    fn extension(&mut self, width: usize) -> Step {
        let code = self.number(width)?;
        let index =
            self.globals.refer("<extension registry>".into(), code.to_string(), |_, _| Verdict::Opaque);
        self.stack.push(Slot::Global(index));
        Ok(())
    }

    /// Calls what lies under so many values, itself included, and leaves the result.
    fn call(&mut self, depth: usize, arguments: Slot) {
        let callable = self.stack.len().checked_sub(depth.max(1)).and_then(|at| self.stack.get(at));
        let mut result = Slot::Other;
        if let Some(&Slot::Global(index)) = callable {
            self.globals.call(index);
            if self.globals.load_from_bytes == Some(index) {
                let loaded = &mut self.globals.loaded;
                match arguments {
                    Slot::OneBytes(file) => drop(loaded.files.insert(file.start, file)),
                    _ => loaded.some_are_computed = true,
                }
            }
            if let Slot::Latin1(bytes) = arguments
                && self.globals.codecs_encode == Some(index)
            {
                result = Slot::Bytes(bytes);
            }
        }
        self.pop_count(depth);
        self.stack.push(result);
    }

    /// Makes a tuple of all that lies above a height of the stack.
    fn tuple(&mut self, start: usize) {
        let tuple = self.tuple_of(start);
        self.stack.truncate(start);
        self.stack.push(tuple);
    }

    fn tuple_of(&self, start: usize) -> Slot {
        match *self.stack.get(start..).unwrap_or_default() {
            [Slot::Bytes(bytes)] => Slot::OneBytes(bytes),
            // Bytes of Python 2.
            [Slot::Text { start, length }] => Slot::OneBytes(Literal { start, length, encoding: None }),
            [Slot::Escaped { start, length, is_unicode: false }] => {
                Slot::OneBytes(Literal { start, length, encoding: Some(Encoding::Escape) })
            }
            [text, name @ Slot::Text { .. }] if matches!(self.slot_text(name), b"latin1" | b"latin-1") => {
                match text {
                    Slot::Text { start, length } => {
                        Slot::Latin1(Literal { start, length, encoding: Some(Encoding::Latin1) })
                    }
                    Slot::Escaped { start, length, is_unicode: true } => {
                        Slot::Latin1(Literal { start, length, encoding: Some(Encoding::UnicodeEscape) })
                    }
                    _ => Slot::Other,
                }
            }
            _ => Slot::Other,
        }
    }

    /// The value under so many others.
    fn under(&self, count: usize) -> Slot {
        let at = self.stack.len().checked_sub(count + 1);
        at.and_then(|at| self.stack.get(at)).copied().unwrap_or(Slot::Other)
    }

    // Stack and memo.

    fn pop(&mut self) -> Slot {
        self.stack.pop().unwrap_or(Slot::Other)
    }

    fn pop_count(&mut self, count: usize) {
        self.stack.truncate(self.stack.len().saturating_sub(count));
    }

    fn pop_mark(&mut self) {
        let mark = self.marks.pop().unwrap_or(0);
        self.stack.truncate(mark);
    }

    fn replace(&mut self, count: usize) {
        self.pop_count(count);
        self.stack.push(Slot::Other);
    }

    fn put(&mut self, index: u64) {
        if let Some(&top) = self.stack.last() {
            self.memo.insert(index, top);
        }
    }

    fn put_counted(&mut self, width: usize) -> Step {
        let index = self.number(width)?;
        self.put(index);
        Ok(())
    }

    fn get(&mut self, index: u64) {
        let slot = self.memo.get(&index).copied().unwrap_or(Slot::Other);
        self.stack.push(slot);
    }

    fn get_counted(&mut self, width: usize) -> Step {
        let index = self.number(width)?;
        self.get(index);
        Ok(())
    }

    // Arguments.

    fn take(&mut self, length: u64) -> Step<&'t [u8]> {
        let left = (self.text.len() - self.at) as u64;
        if length > left {
            return Err(PickleProblem::CutOff { what: "the opcode's argument", needs: length - left });
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.text[start..self.at])
    }

    /// An unsigned number of up to 8 bytes.
    fn number(&mut self, width: usize) -> Step<u64> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width as u64)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn skip(&mut self, width: u64) -> Step {
        self.take(width)?;
        self.stack.push(Slot::Other);
        Ok(())
    }

    fn skip_counted(&mut self, width: usize) -> Step {
        let length = self.number(width)?;
        self.skip(length)
    }

    fn bytes(&mut self, width: usize) -> Step {
        let length = self.number(width)?;
        let start = self.at;
        self.take(length)?;
        self.stack.push(match u32::try_from(length) {
            Ok(length) => Slot::Bytes(Literal { start, length, encoding: None }),
            Err(_) => Slot::Other,
        });
        Ok(())
    }

    fn text(&mut self, width: usize) -> Step {
        let length = self.number(width)?;
        let start = self.at;
        self.take(length)?;
        self.push_text(start, length as usize);
        Ok(())
    }

    /// Text with escapes is not undone: no honest writer names globals with them, so it counts as computed.
    fn text_line(&mut self, start: usize, text: &[u8], is_unicode: bool) {
        match (text.contains(&b'\\'), u32::try_from(text.len())) {
            (true, Ok(length)) => self.stack.push(Slot::Escaped { start, length, is_unicode }),
            _ => self.push_text(start, text.len()),
        }
    }

    fn push_text(&mut self, start: usize, length: usize) {
        self.stack.push(match u32::try_from(length) {
            Ok(length) => Slot::Text { start, length },
            Err(_) => Slot::Other,
        });
    }

    fn slot_text(&self, slot: Slot) -> &'t [u8] {
        match slot {
            Slot::Text { start, length } => self.text.get(start..start + length as usize).unwrap_or_default(),
            _ => &[],
        }
    }

    /// A line without its newline, and where it starts.
    fn line(&mut self) -> Step<(usize, &'t [u8])> {
        let start = self.at;
        let rest = &self.text[start..];
        let cut_off = PickleProblem::CutOff { what: "the opcode's line", needs: 1 };
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(cut_off)?;
        self.at += length + 1;
        Ok((start, &rest[..length]))
    }

    /// Python takes spaces, signs and underscores too; no writer makes them, so they are a problem here.
    fn decimal(&mut self) -> Step<u64> {
        let (_, line) = self.line()?;
        let number = std::str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok());
        number.ok_or(PickleProblem::Malformed("memo index"))
    }
}

/// A name for people, and whether it had to be cut.
fn shown(bytes: &[u8]) -> (String, bool) {
    match bytes.get(..NAME_BYTES_MAX) {
        Some(start) if bytes.len() > NAME_BYTES_MAX => {
            (String::from_utf8_lossy(start).into_owned() + "…", true)
        }
        _ => (String::from_utf8_lossy(bytes).into_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, verdict, references, calls.
    type Row = (String, Verdict, u64, u64);

    fn scan(pickle: &[u8]) -> (Vec<Row>, Result<usize, Stopped>) {
        let mut globals = Globals::default();
        let end = globals.scan(pickle, 0, &Limits::default());
        let found = globals.found.into_iter();
        (found.map(|g| (format!("{} {}", g.module, g.name), g.verdict, g.references, g.calls)).collect(), end)
    }

    #[test]
    fn every_way_to_name_a_global_is_seen() {
        let dangerous =
            |name: &str, references, calls| (name.to_owned(), Verdict::Dangerous, references, calls);
        for (pickle, expected) in [
            (&b"cos\nsystem\n(S'id'\ntR."[..], dangerous("os system", 1, 1)),
            (b"(S'id'\nios\nsystem\n.", dangerous("os system", 1, 1)),
            (b"(cos\nsystem\nS'id'\no.", dangerous("os system", 1, 1)),
            (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94)R.", dangerous("posix system", 1, 1)),
            (
                b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93)\x81.",
                dangerous("posix system", 1, 1),
            ),
            (b"Vos\nVsystem\n\x93.", dangerous("os system", 1, 0)),
            (b"V\\u006fs\nVsystem\n\x93.", dangerous("<computed> system", 1, 0)),
            (b"\x80\x02c__builtin__\neval\nq\x000h\x00)Rh\x00)R.", dangerous("builtins eval", 1, 2)),
            // The machine stops at BUILD on a list; Python does not, if the state is empty.
            (b"]}bcos\nsystem\n)R.", dangerous("os system", 1, 1)),
            // And at what a plain stack does not have.
            (b"RRR0000cos\nsystem\n)R.", dangerous("os system", 1, 1)),
        ] {
            assert_eq!(scan(pickle), (vec![expected], Ok(pickle.len())), "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn what_stands_before_the_damage_is_judged() {
        let (found, end) = scan(b"cos\nsystem\n)R\xFF.");
        assert_eq!(found.len(), 1);
        assert_eq!(end, Err(Stopped::At(13, PickleProblem::UnknownOpcode(0xFF))));
    }

    #[test]
    fn long_names_are_cut_and_never_harmless() {
        let pickle = [b"ca\n", "path.os.".repeat(1000).as_bytes(), b"system\n."].concat();
        let (found, _) = scan(&pickle);
        assert_eq!(found[0].1, Verdict::Dangerous);
        assert!(found[0].0.len() < 2 * NAME_BYTES_MAX);
        assert_eq!(Verdict::of("a", &"path.".repeat(100)), Verdict::Dangerous);
    }
}
