//! One pass over the opcodes.
//!
//! Every opcode makes at most one node and moves values that are on the stack already, so time and memory are
//! linear in the pickle's length whatever it holds. Memo entries are 16-byte values that refer to the same node,
//! which is how a list can grow after it was stored, and contain itself.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::opcode::{self as op, name as opcode_name};
use crate::pickle::tree::{Escaped, Extra, Global, NONE, Node, Raw, Sequence, Text, Tree};
use crate::pickle::written::unescaped;
use crate::pickle::{Known, NodeId, PickleProblem, modern_name};

/// CPython refuses longer decimal integers too (`sys.int_max_str_digits`); parsing is quadratic.
const DECIMAL_DIGITS_MAX: usize = 4300;
/// Nodes and items have 32-bit numbers, whatever the limits say.
const VALUES_MAX: usize = 1 << 28;
/// Protocols below this one name Python's globals as Python 2 did.
const PROTOCOL_OF_PYTHON_3: u8 = 3;
/// Writers number memo entries in sequence; a few may be skipped.
const MEMO_GAP_MAX: usize = 16;

/// What persistent ids a pickle may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PersistentIds {
    /// None at all.
    None,
    /// `("storage", class, key, location, element count)`, as in zip archives.
    Storage,
    /// The same with a sixth field, `None` or `(view key, offset, view element count)`; and
    /// `("module", class, source file, source text)`, which stands for the class.
    Legacy,
    /// Keys in decimal; and `(class, source file, source text)`, which stands for the class.
    Tar,
    /// `Storage` with integers for keys; and `("reduce_package", id, function, arguments)` for scripted modules, which
    /// stays what it is.
    Package,
}

/// The machine: a stack, marks and a memo over one pickle.
pub(crate) struct Machine<'s, 'a> {
    /// The text that values of the tree refer to.
    text: &'a [u8],
    /// What is left of the pickle: the text from `at()` to `end`.
    rest: &'a [u8],
    end: usize,
    tree: Tree<'s>,
    stack: Vec<Raw>,
    marks: Vec<usize>,
    memo: Vec<Slot>,
    /// Values that do not fit into a slot of the memo, by its number.
    memo_large: HashMap<usize, Raw>,
    sparse_memo: HashMap<u64, Raw>,
    persistent_ids: PersistentIds,
    record: &'a str,
    start: usize,
    protocol: u8,
    result: Raw,
}

/// A place of the memo, in 8 bytes: torch notes eight values for each tensor, all of them nodes or short strings.
#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(NodeId),
    Str {
        length: u16,
        start: u32,
    },
    /// Something else.
    Large,
}

impl Slot {
    fn of(value: Raw) -> Self {
        match value {
            Raw::Node(id) => Self::Node(id),
            Raw::Str { length, start } => match (length.try_into(), start.try_into()) {
                (Ok(length), Ok(start)) => Self::Str { length, start },
                _ => Self::Large,
            },
            _ => Self::Large,
        }
    }
}

/// Errors are boxed to keep results in registers: every opcode returns some.
type Step<T = ()> = Result<T, Box<PickleProblem>>;

impl<'s> Machine<'s, '_> {
    /// Runs the pickle that starts at the start of `range` of a tree's text and must end inside it, and adds its values
    /// to the tree. Returns the tree, the result, and the byte behind STOP.
    ///
    /// # Errors
    /// [`Error::Pickle`] with the byte offset inside the pickle, or [`Error::Limit`].
    pub(crate) fn run(
        tree: Tree<'s>,
        range: Range<usize>,
        persistent_ids: PersistentIds,
        limits: &Limits,
        record: &str,
    ) -> Result<(Tree<'s>, Raw, usize)> {
        Self::run_watched(tree, range, persistent_ids, limits, record, None)
    }

    /// The same. `watch` is told where in the text each opcode stands, but for those that put what was just made into the
    /// memo.
    pub(crate) fn run_watched(
        mut tree: Tree<'s>,
        range: Range<usize>,
        persistent_ids: PersistentIds,
        limits: &Limits,
        record: &str,
        mut watch: Option<&mut dyn FnMut(usize)>,
    ) -> Result<(Tree<'s>, Raw, usize)> {
        let length = range.len();
        let values_max = limits.values.min(VALUES_MAX);
        // No byte of a pickle makes more than two nodes or items, so most cannot reach the limit.
        let may_exceed = tree.values_held() + 2 * length > values_max;
        let text = std::mem::take(&mut tree.text);
        let mut machine = Machine {
            text: &text,
            rest: &text[range.clone()],
            end: range.end,
            start: range.start,
            tree,
            result: Raw::None,
            stack: Vec::with_capacity(64),
            marks: Vec::with_capacity(16),
            memo: Vec::with_capacity((length / 16).min(1 << 20)),
            memo_large: HashMap::new(),
            sparse_memo: HashMap::new(),
            persistent_ids,
            record,
            protocol: 0,
        };
        // State dicts have a node for 12 bytes and an item for 6; what is not used is never touched.
        machine.tree.nodes.reserve((length / 10).min(1 << 21));
        machine.tree.items.reserve((length / 6).min(1 << 21));
        loop {
            let opcode_at = machine.at();
            if let Some(watch) = &mut watch {
                watch(opcode_at);
            }
            match machine.step() {
                Ok(false) => {}
                Ok(true) => break,
                Err(problem) => return Err(machine.error(opcode_at, *problem)),
            }
            let held = || machine.tree.values_held().max(machine.stack.len());
            if may_exceed && held() > values_max {
                return Err(Error::Limit {
                    what: "values in the pickle",
                    found: held() as u64,
                    limit: values_max as u64,
                    field: "values",
                });
            }
        }
        let (result, end) = (machine.result, machine.at());
        let mut tree = machine.tree;
        tree.text = text;
        Ok((tree, result, end))
    }

    /// Returns where in the text the machine is.
    fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    fn error(&self, at: usize, problem: PickleProblem) -> Error {
        Error::Pickle { record: self.record.to_owned(), offset: (at - self.start) as u64, problem }
    }

    /// Executes one opcode; true after STOP.
    #[inline]
    fn step(&mut self) -> Step<bool> {
        let opcode = self.u8("opcodes up to STOP")?;
        match opcode {
            // The ones a state dict is made of, by frequency.
            op::BINPUT => {
                let index = self.u8("memo index")?;
                self.memo_put(index.into(), opcode)?;
            }
            op::BINGET => {
                let index = self.u8("memo index")?;
                self.memo_get(index.into())?;
            }
            op::LONG_BINPUT => {
                let index = self.u32("memo index")?;
                self.memo_put(index.into(), opcode)?;
            }
            op::LONG_BINGET => {
                let index = self.u32("memo index")?;
                self.memo_get(index.into())?;
            }
            op::BININT1 => {
                let value = self.u8("integer")?;
                self.push(Raw::Int(value.into()));
            }
            op::BINUNICODE => {
                let length = self.u32("string length")?;
                self.string(length.into())?;
                self.note()?;
            }
            op::MARK => self.marks.push(self.stack.len()),
            op::TUPLE => {
                let from = self.mark(opcode)?;
                self.tuple(from);
                self.note()?;
            }
            op::TUPLE1 => self.tuple_of(1, opcode)?,
            op::TUPLE2 => self.tuple_of(2, opcode)?,
            op::TUPLE3 => self.tuple_of(3, opcode)?,
            op::EMPTY_TUPLE => self.tuple(self.stack.len()),
            op::BINPERSID => self.persistent_id()?,
            op::REDUCE => {
                self.reduce(opcode)?;
                self.note()?;
            }
            op::NEWFALSE => self.push(Raw::Bool(false)),
            op::NEWTRUE => self.push(Raw::Bool(true)),
            op::BININT => {
                let value = self.u32("integer")? as i32;
                self.push(Raw::Int(value.into()));
            }
            op::BININT2 => {
                let value = u16::from_le_bytes(*self.take_array("integer")?);
                self.push(Raw::Int(value.into()));
            }
            op::NONE => self.push(Raw::None),
            op::BINFLOAT => {
                let value = f64::from_be_bytes(*self.take_array("float")?);
                self.push(Raw::Float(value));
            }
            op::EMPTY_DICT => self.add(Node::Dict(Sequence::default())),
            op::EMPTY_LIST => {
                self.note_list();
                self.add(Node::List(Sequence::default()));
            }
            op::EMPTY_SET => self.add(Node::Set(Sequence::default())),
            op::SETITEM => {
                self.need(3, opcode)?;
                self.set_items(self.stack.len() - 2, opcode)?;
            }
            op::SETITEMS => {
                let from = self.mark(opcode)?;
                self.set_items(from, opcode)?;
            }
            op::APPEND => {
                self.need(2, opcode)?;
                self.append(self.stack.len() - 1, opcode)?;
            }
            op::APPENDS | op::ADDITEMS => {
                let from = self.mark(opcode)?;
                self.append(from, opcode)?;
            }
            op::BUILD => self.build(opcode)?,
            op::GLOBAL => {
                let module = self.line("module name")?;
                let name = self.line("global name")?;
                self.global(module, name);
            }
            op::PROTO => {
                self.protocol = self.u8("protocol")?;
            }
            op::STOP => return self.stop().map(|()| true),

            op::SHORT_BINUNICODE => {
                let length = self.u8("string length")?;
                self.string(length.into())?;
            }
            op::BINUNICODE8 => {
                let length = self.u64("string length")?;
                self.string(length)?;
            }
            op::SHORT_BINBYTES => {
                let length = self.u8("bytes length")?;
                self.bytes(length.into())?;
            }
            op::BINBYTES => {
                let length = self.u32("bytes length")?;
                self.bytes(length.into())?;
            }
            op::BINBYTES8 => {
                let length = self.u64("bytes length")?;
                self.bytes(length)?;
            }
            op::BYTEARRAY8 => {
                let length = self.u64("bytearray length")?;
                let text = self.text(length, "bytearray")?;
                self.add(Node::ByteArray { length: text.length, start: text.start });
            }
            op::SHORT_BINSTRING => {
                let length = self.u8("string length")?;
                self.byte_string(length.into())?;
            }
            op::BINSTRING => {
                let length = self.u32("string length")? as i32;
                let length =
                    u64::try_from(length).map_err(|_| PickleProblem::NegativeLength(length.into()))?;
                self.byte_string(length)?;
            }
            op::LONG1 => {
                let length = self.u8("integer length")?;
                self.long(length.into())?;
            }
            op::LONG4 => {
                let length = self.u32("integer length")? as i32;
                let length =
                    u64::try_from(length).map_err(|_| PickleProblem::NegativeLength(length.into()))?;
                self.long(length)?;
            }
            op::MEMOIZE => self.memo_put((self.memo.len() + self.sparse_memo.len()) as u64, opcode)?,
            op::FRAME => {
                // Advisory: lengths inside are checked one by one anyway.
                self.u64("frame length")?;
            }
            op::STACK_GLOBAL => {
                self.need(2, opcode)?;
                let (name, module) = (self.pop(opcode)?, self.pop(opcode)?);
                match (module, name) {
                    (Raw::Str { length, start }, Raw::Str { length: name_length, start: name_start }) => {
                        self.global(Text { start, length }, Text { start: name_start, length: name_length })
                    }
                    _ => return Err(wrong_kind(opcode, "two strings")),
                }
            }
            op::NEWOBJ => self.reduce(opcode)?,
            op::NEWOBJ_EX => {
                let kwargs = self.pop(opcode)?;
                let kwargs =
                    kwargs.node().ok_or_else(|| wrong_kind(opcode, "a dict of keyword arguments"))?;
                self.reduce(opcode)?;
                let extra = self.extra_of_top(opcode)?;
                self.tree.extras[extra as usize].kwargs = kwargs;
            }
            op::POP => {
                // Takes the mark if it is on top, as CPython does.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop(opcode)?;
                }
            }
            op::POP_MARK => {
                let from = self.mark(opcode)?;
                self.stack.truncate(from);
            }
            op::DUP => {
                self.need(1, opcode)?;
                self.push(self.stack[self.stack.len() - 1]);
            }
            op::LIST => {
                let from = self.mark(opcode)?;
                if from == self.stack.len() {
                    self.note_list();
                }
                let mut sequence = Sequence::default();
                self.tree.extend(&mut sequence, &self.stack[from..]);
                self.stack.truncate(from);
                self.add(Node::List(sequence));
            }
            op::DICT => {
                let from = self.mark(opcode)?;
                if !(self.stack.len() - from).is_multiple_of(2) {
                    return Err(PickleProblem::OddItems.into());
                }
                let mut sequence = Sequence::default();
                self.tree.extend(&mut sequence, &self.stack[from..]);
                self.stack.truncate(from);
                self.add(Node::Dict(sequence));
            }
            op::FROZENSET => {
                let from = self.mark(opcode)?;
                let run = self.tree.add_run(&self.stack[from..]);
                self.stack.truncate(from);
                self.add(Node::FrozenSet(run));
            }
            op::OBJ => {
                let from = self.mark(opcode)?;
                let class = *self.stack.get(from).ok_or(PickleProblem::StackUnderflow { opcode: "OBJ" })?;
                let class = class.node().ok_or_else(|| wrong_kind(opcode, "a class"))?;
                self.tuple(from + 1);
                let args = self.pop(opcode)?;
                self.pop(opcode)?;
                self.object(class, args);
            }
            op::INST => {
                let module = self.line("module name")?;
                let name = self.line("class name")?;
                let from = self.mark(opcode)?;
                self.tuple(from);
                let args = self.pop(opcode)?;
                self.global(module, name);
                let class = self.pop(opcode)?;
                if let Raw::Node(class) = class {
                    self.object(class, args);
                }
            }
            op::INT => self.int_line()?,
            op::LONG => self.long_line()?,
            op::FLOAT => {
                let line = self.line("float")?;
                let value = self.ascii(line).and_then(|text| text.parse().ok());
                self.push(Raw::Float(value.ok_or(PickleProblem::Malformed("float"))?));
            }
            op::STRING => self.string_line()?,
            op::UNICODE => self.unicode_line()?,
            op::GET => {
                let index = self.decimal_line("memo index")?;
                self.memo_get(index)?;
            }
            op::PUT => {
                let index = self.decimal_line("memo index")?;
                self.memo_put(index, opcode)?;
            }
            op::PERSID => {
                return Err(refused(opcode, "text persistent ids name storages that no file holds"));
            }
            op::EXT1 | op::EXT2 | op::EXT4 => {
                return Err(refused(
                    opcode,
                    "extension codes mean something only to the process that wrote them",
                ));
            }
            op::NEXT_BUFFER | op::READONLY_BUFFER => {
                return Err(refused(opcode, "the buffer it stands for is not in the file"));
            }
            other => return Err(PickleProblem::UnknownOpcode(other).into()),
        }
        Ok(false)
    }

    /// Takes the top of the stack. Python does not look at what is left below, and programs that put a call into a pickle
    /// leave its result there.
    fn stop(&mut self) -> Step {
        self.result = self.pop(op::STOP)?;
        Ok(())
    }

    // Stack.

    fn push(&mut self, value: Raw) {
        self.stack.push(value);
    }

    fn add(&mut self, node: Node) {
        let value = self.tree.add(node);
        self.stack.push(value);
    }

    /// Values above the last mark are all an opcode may take.
    fn need(&self, count: usize, opcode: u8) -> Step {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() < floor + count {
            return Err(underflow(opcode));
        }
        Ok(())
    }

    fn pop(&mut self, opcode: u8) -> Step<Raw> {
        self.need(1, opcode)?;
        self.stack.pop().ok_or_else(|| underflow(opcode))
    }

    fn mark(&mut self, opcode: u8) -> Step<usize> {
        self.marks.pop().ok_or_else(|| no_mark(opcode))
    }

    fn tuple(&mut self, from: usize) {
        let tuple = self.tree.add_tuple(&self.stack[from..]);
        self.stack.truncate(from);
        self.push(tuple);
    }

    fn tuple_of(&mut self, count: usize, opcode: u8) -> Step {
        self.need(count, opcode)?;
        self.tuple(self.stack.len() - count);
        self.note()
    }

    /// Notes where an empty list stands, behind its opcode. Only pickles without storages hold tensors as lists.
    fn note_list(&mut self) {
        if self.persistent_ids == PersistentIds::None {
            self.tree.lists.push((self.tree.nodes.len() as NodeId, self.at() as u64));
        }
    }

    // Objects.

    fn global(&mut self, mut module: Text, mut name: Text) {
        if self.protocol < PROTOCOL_OF_PYTHON_3 {
            let modern = modern_name(self.text_bytes(module), self.text_bytes(name));
            if let Some((new_module, new_name)) =
                modern.map(|(module, name)| (module.to_vec(), name.to_vec()))
            {
                (module, name) = (self.keep(&new_module), self.keep(&new_name));
            }
        }
        let known = Known::of(self.text_bytes(module), self.text_bytes(name));
        let index = self.tree.globals.len() as u32;
        self.tree.globals.push(Global { module, name, known });
        self.add(Node::Global(index));
    }

    fn reduce(&mut self, opcode: u8) -> Step {
        self.need(2, opcode)?;
        let (args, callable) = (self.pop(opcode)?, self.pop(opcode)?);
        let callable = callable.node().ok_or_else(|| wrong_kind(opcode, "a global or object to call"))?;
        if matches!(
            self.tree.node(callable),
            Node::Tuple(_) | Node::List(_) | Node::Dict(_) | Node::Set(_) | Node::FrozenSet(_)
        ) {
            return Err(wrong_kind(opcode, "a global or object to call"));
        }
        match args {
            Raw::Node(id) if matches!(self.tree.node(id), Node::Tuple(_)) => {}
            _ => return Err(wrong_kind(opcode, "a tuple of arguments")),
        }
        self.object(callable, args);
        Ok(())
    }

    fn object(&mut self, callable: NodeId, args: Raw) {
        let args = args.node().unwrap_or(NONE);
        self.add(Node::Object { callable, args, extra: NONE });
    }

    /// Returns the extra of the object on top of the stack, made if it has none.
    fn extra_of_top(&mut self, opcode: u8) -> Step<u32> {
        let top = self.stack.last().and_then(|value| value.node());
        self.extra_of(top.ok_or_else(|| wrong_kind(opcode, "an object"))?, opcode)
    }

    fn extra_of(&mut self, id: NodeId, opcode: u8) -> Step<u32> {
        let next = self.tree.extras.len() as u32;
        match &mut self.tree.nodes[id as usize] {
            Node::Object { extra, .. } => {
                if *extra == NONE {
                    *extra = next;
                    self.tree.extras.push(Extra::default());
                }
                Ok(*extra)
            }
            _ => Err(wrong_kind(opcode, "an object that takes items or state")),
        }
    }

    /// Pops the values from `from` on and returns the node below them.
    fn target(&mut self, from: usize, opcode: u8) -> Step<NodeId> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if from <= floor {
            return Err(underflow(opcode));
        }
        self.stack[from - 1].node().ok_or_else(|| wrong_kind(opcode, "a container"))
    }

    fn set_items(&mut self, from: usize, opcode: u8) -> Step {
        if !(self.stack.len() - from).is_multiple_of(2) {
            return Err(PickleProblem::OddItems.into());
        }
        let id = self.target(from, opcode)?;
        if let Node::Dict(mut sequence) = self.tree.node(id) {
            self.tree.extend(&mut sequence, &self.stack[from..]);
            self.tree.nodes[id as usize] = Node::Dict(sequence);
        } else {
            let extra = self.extra_of(id, opcode)? as usize;
            let mut sequence = self.tree.extras[extra].pairs;
            self.tree.extend(&mut sequence, &self.stack[from..]);
            self.tree.extras[extra].pairs = sequence;
        }
        self.stack.truncate(from);
        Ok(())
    }

    fn append(&mut self, from: usize, opcode: u8) -> Step {
        let id = self.target(from, opcode)?;
        match self.tree.node(id) {
            Node::List(mut sequence) => {
                self.tree.extend(&mut sequence, &self.stack[from..]);
                self.tree.nodes[id as usize] = Node::List(sequence);
            }
            Node::Set(mut sequence) if opcode == op::ADDITEMS => {
                self.tree.extend(&mut sequence, &self.stack[from..]);
                self.tree.nodes[id as usize] = Node::Set(sequence);
            }
            _ => {
                let extra = self.extra_of(id, opcode)? as usize;
                let mut sequence = self.tree.extras[extra].appended;
                self.tree.extend(&mut sequence, &self.stack[from..]);
                self.tree.extras[extra].appended = sequence;
            }
        }
        self.stack.truncate(from);
        Ok(())
    }

    fn build(&mut self, opcode: u8) -> Step {
        self.need(2, opcode)?;
        let state = self.pop(opcode)?;
        let extra = self.extra_of_top(opcode)? as usize;
        let mut sequence = self.tree.extras[extra].states;
        self.tree.extend(&mut sequence, &[state]);
        self.tree.extras[extra].states = sequence;
        Ok(())
    }

    fn persistent_id(&mut self) -> Step {
        let id = self.pop(op::BINPERSID)?;
        let fields = id.node().map(|node| self.tree.args(node)).unwrap_or_default();
        let tag = fields.first().and_then(|&tag| self.raw_text(tag));
        // Key and count are judged where the storage is used; here only the form is.
        match (self.persistent_ids, tag, fields.len()) {
            (
                PersistentIds::Storage | PersistentIds::Legacy | PersistentIds::Package,
                Some(b"storage"),
                5..,
            ) => {}
            (PersistentIds::Tar, None, 0) if self.raw_text(id).is_some() => {}
            (PersistentIds::Tar, None, 3) => {
                self.push(fields[0]);
                return Ok(());
            }
            (PersistentIds::Package, Some(b"reduce_package"), 2..) => {
                self.push(id);
                return Ok(());
            }
            (PersistentIds::Legacy, Some(b"module"), 2..) => {
                self.push(fields[1]);
                return Ok(());
            }
            _ => return Err(PickleProblem::PersistentId.into()),
        }
        let storage = self.tree.add_persistent(id);
        self.push(storage);
        Ok(())
    }

    // Memo.

    /// Puts the value that was just made into the memo, if that is what comes next: it mostly is, and needs no opcode of
    /// its own then.
    #[inline]
    fn note(&mut self) -> Step {
        match *self.rest {
            [op::LONG_BINPUT, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                self.memo_put(u32::from_le_bytes([a, b, c, d]).into(), op::LONG_BINPUT)
            }
            [op::BINPUT, index, ref rest @ ..] => {
                self.rest = rest;
                self.memo_put(index.into(), op::BINPUT)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn memo_put(&mut self, index: u64, opcode: u8) -> Step {
        let Some(&value) = self.stack.last() else {
            return Err(underflow(opcode));
        };
        // Writers number in sequence.
        let slot = Slot::of(value);
        if index == self.memo.len() as u64 && !matches!(slot, Slot::Large) {
            self.memo.push(slot);
            return Ok(());
        }
        self.memo_put_anywhere(index, value, slot)
    }

    #[cold]
    fn memo_put_anywhere(&mut self, index: u64, value: Raw, slot: Slot) -> Step {
        let number = usize::try_from(index).unwrap_or(usize::MAX);
        if number > self.memo.len() + MEMO_GAP_MAX {
            self.sparse_memo.insert(index, value);
            return Ok(());
        }
        if let Slot::Large = slot {
            self.memo_large.insert(number, value);
        }
        match self.memo.get_mut(number) {
            Some(old) => *old = slot,
            None => {
                self.memo.resize(number, Slot::Empty);
                self.memo.push(slot);
            }
        }
        Ok(())
    }

    #[inline]
    fn memo_get(&mut self, index: u64) -> Step {
        let number = usize::try_from(index).unwrap_or(usize::MAX);
        let value = match self.memo.get(number) {
            Some(&Slot::Node(id)) => Raw::Node(id),
            Some(&Slot::Str { length, start }) => Raw::Str { length: length.into(), start: start.into() },
            Some(Slot::Large) | Some(Slot::Empty) | None => self.memo_get_elsewhere(index)?,
        };
        self.push(value);
        Ok(())
    }

    #[cold]
    fn memo_get_elsewhere(&self, index: u64) -> Step<Raw> {
        let number = usize::try_from(index).unwrap_or(usize::MAX);
        let value = match self.memo.get(number) {
            Some(Slot::Large) => self.memo_large.get(&number),
            _ => self.sparse_memo.get(&index),
        };
        Ok(*value.ok_or(PickleProblem::MemoMiss(index))?)
    }

    // Arguments.

    fn take_array<const N: usize>(&mut self, what: &'static str) -> Step<&[u8; N]> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(cut_off(what, (N - self.rest.len()) as u64));
        };
        self.rest = rest;
        Ok(array)
    }

    #[inline]
    fn u8(&mut self, what: &'static str) -> Step<u8> {
        let Some((&byte, rest)) = self.rest.split_first() else { return Err(cut_off(what, 1)) };
        self.rest = rest;
        Ok(byte)
    }

    fn u32(&mut self, what: &'static str) -> Step<u32> {
        self.take_array(what).map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self, what: &'static str) -> Step<u64> {
        self.take_array(what).map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Takes `length` bytes as they stand.
    fn text(&mut self, length: u64, what: &'static str) -> Step<Text> {
        let left = self.rest.len() as u64;
        let Some(length) = u32::try_from(length).ok().filter(|_| length <= left) else {
            return Err(cut_off(what, length.saturating_sub(left)));
        };
        let start = self.at() as u64;
        self.rest = &self.rest[length as usize..];
        Ok(Text { start, length })
    }

    fn string(&mut self, length: u64) -> Step {
        let text = self.text(length, "string")?;
        self.push(Raw::string(text));
        Ok(())
    }

    fn bytes(&mut self, length: u64) -> Step {
        let text = self.text(length, "bytes")?;
        self.push(Raw::bytes(text));
        Ok(())
    }

    /// A Python 2 `str`: text if it is UTF-8, bytes otherwise.
    fn byte_string(&mut self, length: u64) -> Step {
        let text = self.text(length, "string")?;
        let is_text = std::str::from_utf8(self.text_bytes(text)).is_ok();
        self.push(if is_text { Raw::string(text) } else { Raw::bytes(text) });
        Ok(())
    }

    /// Takes a line, without its newline.
    fn line(&mut self, what: &'static str) -> Step<Text> {
        let length = self.rest.iter().position(|&byte| byte == b'\n');
        let text = self.text(length.ok_or_else(|| cut_off(what, 1))? as u64, what)?;
        self.rest = &self.rest[1..];
        Ok(text)
    }

    fn text_bytes(&self, text: Text) -> &[u8] {
        let (start, length) = (text.start as usize, text.length as usize);
        match start.checked_sub(self.text.len()) {
            None => &self.text[start..start + length],
            Some(start) => &self.tree.side[start..start + length],
        }
    }

    fn raw_text(&self, value: Raw) -> Option<&[u8]> {
        match value {
            Raw::Str { length, start } | Raw::Bytes { length, start } => {
                Some(self.text_bytes(Text { start, length }))
            }
            _ => None,
        }
    }

    fn ascii(&self, text: Text) -> Option<&str> {
        std::str::from_utf8(self.text_bytes(text)).ok().map(str::trim)
    }

    /// Keeps decoded bytes behind the pickle's own.
    fn keep(&mut self, bytes: &[u8]) -> Text {
        let start = (self.text.len() + self.tree.side.len()) as u64;
        self.tree.side.extend_from_slice(bytes);
        Text { start, length: bytes.len() as u32 }
    }

    /// Two's complement, little-endian.
    fn long(&mut self, length: u64) -> Step {
        let text = self.text(length, "integer")?;
        self.push_long(text);
        Ok(())
    }

    fn push_long(&mut self, text: Text) {
        let bytes = self.text_bytes(text);
        let fill = if bytes.last().is_some_and(|&top| top & 0x80 != 0) { 0xFF } else { 0 };
        let fits =
            bytes.len() <= 8 || bytes[8..].iter().all(|&byte| byte == fill) && (bytes[7] ^ fill) & 0x80 == 0;
        if fits {
            let mut wide = [fill; 8];
            let kept = bytes.len().min(8);
            wide[..kept].copy_from_slice(&bytes[..kept]);
            self.push(Raw::Int(i64::from_le_bytes(wide)));
        } else {
            self.add(Node::BigInt { length: text.length, start: text.start });
        }
    }

    fn int_line(&mut self) -> Step {
        let line = self.line("integer")?;
        match self.text_bytes(line) {
            b"00" => self.push(Raw::Bool(false)),
            b"01" => self.push(Raw::Bool(true)),
            _ => self.decimal(line)?,
        }
        Ok(())
    }

    fn long_line(&mut self) -> Step {
        let mut line = self.line("integer")?;
        if self.text_bytes(line).last() == Some(&b'L') {
            line.length -= 1;
        }
        self.decimal(line)
    }

    fn decimal(&mut self, line: Text) -> Step {
        let malformed = || Box::new(PickleProblem::Malformed("integer"));
        let text = self.ascii(line).ok_or_else(malformed)?;
        if let Ok(value) = text.parse() {
            self.push(Raw::Int(value));
            return Ok(());
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        if digits.is_empty()
            || digits.len() > DECIMAL_DIGITS_MAX
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(malformed());
        }
        let bytes = twos_complement(digits, negative);
        let text = self.keep(&bytes);
        self.push_long(text);
        Ok(())
    }

    fn decimal_line(&mut self, what: &'static str) -> Step<u64> {
        let line = self.line(what)?;
        Ok(self.ascii(line).and_then(|text| text.parse().ok()).ok_or(PickleProblem::Malformed(what))?)
    }

    /// A quoted Python 2 `str` with its escapes.
    fn string_line(&mut self) -> Step {
        let malformed = || Box::new(PickleProblem::Malformed("quoted string"));
        let line = self.line("quoted string")?;
        let bytes = self.text_bytes(line).trim_ascii_end();
        let inner = match bytes {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return Err(malformed()),
        };
        let source = Text { start: line.start + 1, length: inner.len() as u32 };
        if !inner.contains(&b'\\') {
            let is_text = std::str::from_utf8(inner).is_ok();
            self.push(if is_text { Raw::string(source) } else { Raw::bytes(source) });
            return Ok(());
        }
        let decoded = unescape_bytes(inner).ok_or_else(malformed)?;
        let text = self.keep(&decoded);
        self.tree.escaped.push(Escaped { start: text.start, source, is_unicode: false });
        self.push(if std::str::from_utf8(&decoded).is_ok() { Raw::string(text) } else { Raw::bytes(text) });
        Ok(())
    }

    /// Raw-unicode-escape: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
    fn unicode_line(&mut self) -> Step {
        let line = self.line("unicode string")?;
        let bytes = self.text_bytes(line);
        if bytes.is_ascii() && !bytes.contains(&b'\\') {
            self.push(Raw::string(line));
            return Ok(());
        }
        let decoded = unescape_unicode(bytes).ok_or(PickleProblem::Malformed("unicode string"))?;
        let text = self.keep(&decoded);
        self.tree.escaped.push(Escaped { start: text.start, source: line, is_unicode: true });
        self.push(Raw::string(text));
        Ok(())
    }
}

#[cold]
fn underflow(opcode: u8) -> Box<PickleProblem> {
    Box::new(PickleProblem::StackUnderflow { opcode: opcode_name(opcode) })
}

#[cold]
fn no_mark(opcode: u8) -> Box<PickleProblem> {
    Box::new(PickleProblem::NoMark { opcode: opcode_name(opcode) })
}

#[cold]
fn cut_off(what: &'static str, needs: u64) -> Box<PickleProblem> {
    Box::new(PickleProblem::CutOff { what, needs })
}

#[cold]
fn wrong_kind(opcode: u8, expected: &'static str) -> Box<PickleProblem> {
    Box::new(PickleProblem::WrongKind { opcode: opcode_name(opcode), expected })
}

#[cold]
fn refused(opcode: u8, why: &'static str) -> Box<PickleProblem> {
    Box::new(PickleProblem::Refused { opcode: opcode_name(opcode), why })
}

/// Decimal digits to two's complement bytes, little-endian, with room for the sign.
fn twos_complement(digits: &str, negative: bool) -> Vec<u8> {
    // As many digits at a time as fit into a word: a byte at a time, a megabyte of them would take seconds.
    const DIGITS_AT_A_TIME: usize = 19;
    let mut words: Vec<u64> = Vec::with_capacity(digits.len() / DIGITS_AT_A_TIME + 2);
    for chunk in digits.as_bytes().chunks(DIGITS_AT_A_TIME) {
        let factor = 10u128.pow(chunk.len() as u32);
        let mut carry = chunk.iter().fold(0, |value, &digit| value * 10 + u128::from(digit - b'0'));
        for word in &mut words {
            carry += u128::from(*word) * factor;
            *word = carry as u64;
            carry >>= 64;
        }
        if carry > 0 {
            words.push(carry as u64);
        }
    }
    words.push(0);
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(carry.into());
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn unescape_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        out.push(unescaped(text, &mut at)?);
    }
    Some(out)
}

fn unescape_unicode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let digits = match (byte, rest.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                push_code_point(&mut out, byte.into());
                continue;
            }
        };
        let hex = rest.get(1..1 + digits)?;
        let code_point = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
        rest = &rest[1 + digits..];
        if code_point > 0x10_FFFF {
            return None;
        }
        push_code_point(&mut out, code_point);
    }
    Some(out)
}

/// UTF-8, surrogates included, as Python's `surrogatepass` has it.
fn push_code_point(out: &mut Vec<u8>, code_point: u32) {
    match char::from_u32(code_point) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend_from_slice(&[
            0xE0 | (code_point >> 12) as u8,
            0x80 | (code_point >> 6 & 0x3F) as u8,
            0x80 | (code_point & 0x3F) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn decimals_become_twos_complement() {
        assert_eq!(twos_complement("0", false), [0; 8]);
        assert_eq!(twos_complement("256", false)[..3], [0, 1, 0]);
        assert_eq!(twos_complement("1", true), [0xFF; 16]);
        assert_eq!(twos_complement("9223372036854775808", true)[..8], [0, 0, 0, 0, 0, 0, 0, 0x80]);
        // 2^64 + 1 and 2^128 - 1: carries from word to word.
        assert_eq!(twos_complement("18446744073709551617", false)[..16], ((1u128 << 64) + 1).to_le_bytes());
        assert_eq!(
            twos_complement("340282366920938463463374607431768211455", false)[..17],
            [[0xFF; 16].as_slice(), &[0]].concat()
        );
    }

    #[test]
    fn the_memo_returns_what_was_put_there_last() {
        let long = [&b"X\0\0\x01\0"[..], &[b'a'; 1 << 16]].concat();
        for (put, shown) in [
            (&b"X\x01\0\0\0a"[..], "Str { length: 1,"),
            (&long, "Str { length: 65536,"),
            (b"K\x07", "Int(7)"),
            (b"G?\xF8\0\0\0\0\0\0", "Float(1.5)"),
            (b"U\x01\xFF", "Bytes { length: 1,"),
            (b")", "Node(0)"),
        ] {
            for number in [0u32, 3, 4_000_000_000] {
                let number = number.to_le_bytes();
                let pickle = [b"Nr", &number[..], b"0", put, b"r", &number, b"0j", &number, b"."].concat();
                let tree = Tree::new(Cow::Borrowed(&pickle));
                let limits = Limits::default();
                let ran = Machine::run(tree, 0..pickle.len(), PersistentIds::None, &limits, "test").unwrap();
                assert!(format!("{:?}", ran.1).starts_with(shown), "{:?} is not {shown}", ran.1);
            }
        }
    }

    #[test]
    fn text_escapes_are_undone() {
        assert_eq!(unescape_bytes(br"a\n\x41\101\\\'\q").unwrap(), b"a\nAA\\'\\q");
        assert_eq!(unescape_bytes(br"\x4"), None);
        assert_eq!(unescape_unicode(b"\\u00e9\xE9\\U0001F600").unwrap(), "éé😀".as_bytes());
        assert_eq!(unescape_unicode(b"\\ud800").unwrap(), b"\xED\xA0\x80");
        assert_eq!(unescape_unicode(b"\\U00110000"), None);
    }
}
