//! The arena in which the values of one pickle live.
//!
//! A value is 16 bytes and `Copy`; containers and objects are nodes referred to by number, so aliases and
//! cycles cost nothing, and dropping the tree frees a handful of vectors however deep it is. Strings stay where
//! they are in the pickle; the few that need unescaping go to a side buffer that continues the same addresses.

use std::borrow::Cow;
use std::ops::Range;

use crate::checkpoint::ByteOrder;
use crate::fault::{Fault, shortened};
use crate::pickle::Known;

/// Number of a node in its tree.
pub(crate) type NodeId = u32;

/// No node, no chunk, no extra.
pub(crate) const NONE: u32 = u32::MAX;

/// Thousands of tensors have a few sizes and strides between them.
const SHAPES_KEPT: usize = 64;
/// What that saves a tree of fewer nodes, some ten tensors, is not worth the memory.
pub(crate) const SHAPES_FROM_NODES: usize = 64;
/// Longer shapes are rare.
const SHAPE_RANK_MAX: usize = 4;

/// A run of bytes in the pickle or its side buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Text {
    pub(crate) start: u64,
    pub(crate) length: u32,
}

/// A value as the machine handles it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// UTF-8 in all honest files; surrogates are allowed by pickle and checked when read.
    Str {
        length: u32,
        start: u64,
    },
    Bytes {
        length: u32,
        start: u64,
    },
    Node(NodeId),
}

impl Raw {
    pub(crate) fn string(text: Text) -> Self {
        Self::Str { length: text.length, start: text.start }
    }

    pub(crate) fn bytes(text: Text) -> Self {
        Self::Bytes { length: text.length, start: text.start }
    }

    pub(crate) fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(id) => Some(id),
            _ => None,
        }
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Tuple(Run),
    FrozenSet(Run),
    List(Sequence),
    Set(Sequence),
    /// Keys and values in turn.
    Dict(Sequence),
    Global(u32),
    /// The result of calling `callable` with the tuple `args`, whatever that would be.
    Object {
        callable: NodeId,
        args: NodeId,
        extra: u32,
    },
    /// Two's complement, little-endian.
    BigInt {
        length: u32,
        start: u64,
    },
    ByteArray {
        length: u32,
        start: u64,
    },
    /// What a persistent id stands for.
    Persistent(PersistentId),
}

/// A persistent id: the tuples of today, or a value among the items.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PersistentId {
    Node(NodeId),
    Item(u32),
}

/// A fixed run of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

/// A run of items that can grow: a chain of chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    head: u32,
    tail: u32,
    pub(crate) length: u32,
}

impl Default for Sequence {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, length: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    run: Run,
    next: u32,
}

/// What few objects have: state from BUILD, items set on a subclass of list or dict, keyword arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra {
    pub(crate) appended: Sequence,
    pub(crate) pairs: Sequence,
    pub(crate) states: Sequence,
    pub(crate) kwargs: NodeId,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            appended: Sequence::default(),
            pairs: Sequence::default(),
            states: Sequence::default(),
            kwargs: NONE,
        }
    }
}

/// A global: the two names, and what we know it to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Global {
    pub(crate) module: Text,
    pub(crate) name: Text,
    pub(crate) known: Known,
}

/// All values of one pickle.
#[derive(Debug)]
pub(crate) struct Tree<'s> {
    pub(crate) text: Cow<'s, [u8]>,
    pub(crate) side: Vec<u8>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) items: Vec<Raw>,
    /// Where short tuples of integers stand that were added lately, by a hash of them; empty before the first.
    shapes: Vec<Run>,
    /// The empty tuple, if there is one yet.
    empty_tuple: NodeId,
    chunks: Vec<Chunk>,
    pub(crate) extras: Vec<Extra>,
    pub(crate) globals: Vec<Global>,
    /// What each pickle left.
    pub(crate) roots: Vec<Root>,
    /// Where in the file the text lies.
    pub(crate) places: Vec<TextPlace>,
    /// What stands in the side buffer without its escapes, in order.
    pub(crate) escaped: Vec<Escaped>,
    /// Where lists begin, by node, in pickles that hold tensors as lists of numbers.
    pub(crate) lists: Vec<(NodeId, u64)>,
    /// Objects that stand in the place of storages, and why there are none.
    pub(crate) broken: Vec<(NodeId, Fault)>,
}

/// A run of the text, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct TextPlace {
    pub(crate) text: Range<u64>,
    /// Position in the file; where the text was inflated, the name of its record.
    pub(crate) file: Result<u64, String>,
}

/// A line of text that the pickle holds with escapes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped {
    /// Address of the text without them.
    pub(crate) start: u64,
    /// The line itself, quotes left out.
    pub(crate) source: Text,
    /// Escapes of `unicode`, else of a Python 2 `str`.
    pub(crate) is_unicode: bool,
}

/// The result of one pickle.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) value: Raw,
    /// Name of the pickle.
    pub(crate) record: String,
    /// Put in front of the paths of its tensors.
    pub(crate) path: Vec<Raw>,
    /// The constants of TorchScript code: a tuple, called `CONSTANTS.c0` and so on there.
    pub(crate) is_constants: bool,
    /// Its storages may have been left out: torch writes what a module was traced with without its data.
    pub(crate) is_hollow: bool,
    /// Of its storages, where that may be another than the file's.
    pub(crate) byte_order: Option<ByteOrder>,
}

impl Root {
    /// The one pickle of a file, or the first.
    pub(crate) fn new(value: Raw, record: impl Into<String>) -> Self {
        Self {
            value,
            record: record.into(),
            path: Vec::new(),
            is_constants: false,
            is_hollow: false,
            byte_order: None,
        }
    }
}

impl<'s> Tree<'s> {
    pub(crate) fn new(text: Cow<'s, [u8]>) -> Self {
        Self {
            text,
            side: Vec::new(),
            nodes: Vec::new(),
            items: Vec::new(),
            shapes: Vec::new(),
            empty_tuple: NONE,
            chunks: Vec::new(),
            extras: Vec::new(),
            globals: Vec::new(),
            roots: Vec::new(),
            places: Vec::new(),
            escaped: Vec::new(),
            lists: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Takes note that the text from `start` to `end` lies at this position of the file, or was inflated from a record.
    pub(crate) fn lies_at(&mut self, text: Range<usize>, file: Result<u64, String>) {
        let file = file.map_err(|record| shortened(&record));
        self.places.push(TextPlace { text: text.start as u64..text.end as u64, file });
    }

    /// Adds a tuple; there is one empty tuple, as in Python.
    #[inline]
    pub(crate) fn add_tuple(&mut self, items: &[Raw]) -> Raw {
        if items.is_empty() {
            let empty = self.empty_tuple;
            return if empty == NONE { self.add_empty_tuple() } else { Raw::Node(empty) };
        }
        let run = self.add_tuple_run(items);
        self.add(Node::Tuple(run))
    }

    fn add_empty_tuple(&mut self) -> Raw {
        self.empty_tuple = self.nodes.len() as NodeId;
        self.add(Node::Tuple(Run::default()))
    }

    /// Adds a global.
    pub(crate) fn add_global(&mut self, module: &str, name: &str, known: Known) -> Raw {
        let [module, name] = [module, name].map(|text| match self.keep_str(text) {
            Raw::Str { length, start } => Text { start, length },
            _ => Text::default(),
        });
        let index = self.globals.len() as u32;
        self.globals.push(Global { module, name, known });
        self.add(Node::Global(index))
    }

    /// Adds a dict of keys and values in turn.
    pub(crate) fn add_dict(&mut self, pairs: &[Raw]) -> Raw {
        let mut sequence = Sequence::default();
        self.extend(&mut sequence, pairs);
        self.add(Node::Dict(sequence))
    }

    /// Adds a persistent id.
    pub(crate) fn add_persistent(&mut self, id: Raw) -> Raw {
        let id = match id {
            Raw::Node(node) => PersistentId::Node(node),
            _ => PersistentId::Item(self.add_run(&[id]).start),
        };
        self.add(Node::Persistent(id))
    }

    /// Adds the call of a global.
    pub(crate) fn add_call(&mut self, module: &str, name: &str, known: Known, args: &[Raw]) -> Raw {
        let callable = self.add_global(module, name, known).node().unwrap_or(NONE);
        let args = self.add_tuple(args).node().unwrap_or(NONE);
        self.add_object(callable, args)
    }

    /// Adds the call of a global that is there already, with a tuple of arguments.
    pub(crate) fn add_object(&mut self, callable: NodeId, args: NodeId) -> Raw {
        self.add(Node::Object { callable, args, extra: NONE })
    }

    /// Keeps a string beside those of the pickle.
    pub(crate) fn keep_str(&mut self, text: &str) -> Raw {
        let start = (self.text.len() + self.side.len()) as u64;
        self.side.extend_from_slice(text.as_bytes());
        Raw::string(Text { start, length: text.len() as u32 })
    }

    /// Lets go of the text, to be given it again by [`Self::with_text`].
    pub(crate) fn without_text(self) -> Tree<'static> {
        Tree { text: Cow::Borrowed(&[]), ..self }
    }

    /// Takes the text its values refer to.
    pub(crate) fn with_text(self, text: Cow<'_, [u8]>) -> Tree<'_> {
        Tree { text, ..self }
    }

    /// Returns the bytes of a storage key: text, or an integer in decimal.
    pub(crate) fn key_bytes(&self, key: Raw) -> Option<Cow<'_, [u8]>> {
        match key {
            Raw::Str { length, start } | Raw::Bytes { length, start } => {
                Some(Cow::Borrowed(self.bytes(Text { start, length })))
            }
            Raw::Int(number) => Some(Cow::Owned(number.to_string().into_bytes())),
            _ => None,
        }
    }

    pub(crate) fn into_owned(self) -> Tree<'static> {
        Tree { text: Cow::Owned(self.text.into_owned()), ..self }
    }

    pub(crate) fn add(&mut self, node: Node) -> Raw {
        self.nodes.push(node);
        Raw::Node(self.nodes.len() as u32 - 1)
    }

    /// Returns how much of the limit on values is used: nodes cost more than items.
    pub(crate) fn values_held(&self) -> usize {
        self.nodes.len().max(self.items.len() / 8)
    }

    pub(crate) fn node(&self, id: NodeId) -> Node {
        self.nodes[id as usize]
    }

    /// Puts values behind the items and returns where they are.
    pub(crate) fn add_run(&mut self, values: &[Raw]) -> Run {
        let start = self.items.len() as u32;
        self.items.extend_from_slice(values);
        Run { start, length: values.len() as u32 }
    }

    /// Returns where the items of a tuple are: behind the others, or where the same integers were put lately. Most of
    /// what it costs to parse a file of many tensors is memory touched for the first time.
    fn add_tuple_run(&mut self, values: &[Raw]) -> Run {
        if self.nodes.len() < SHAPES_FROM_NODES {
            return self.add_run(values);
        }
        let Some(slot) = shape_slot(values) else { return self.add_run(values) };
        if self.shapes.is_empty() {
            self.shapes.resize(SHAPES_KEPT, Run::default());
        }
        let same = |pair: (&Raw, &Raw)| matches!(pair, (Raw::Int(a), Raw::Int(b)) if a == b);
        let kept = self.run(self.shapes[slot]);
        if kept.len() != values.len() || !kept.iter().zip(values).all(same) {
            self.shapes[slot] = self.add_run(values);
        }
        self.shapes[slot]
    }

    pub(crate) fn run(&self, run: Run) -> &[Raw] {
        &self.items[run.start as usize..(run.start + run.length) as usize]
    }

    /// Appends values to a sequence; in place when it is the last thing that grew.
    pub(crate) fn extend(&mut self, sequence: &mut Sequence, values: &[Raw]) {
        if values.is_empty() {
            return;
        }
        let run = self.add_run(values);
        sequence.length += run.length;
        let next = self.chunks.len() as u32;
        if let Some(chunk) = self.chunks.get_mut(sequence.tail as usize) {
            if chunk.run.start + chunk.run.length == run.start {
                chunk.run.length += run.length;
                return;
            }
            chunk.next = next;
        } else {
            sequence.head = next;
        }
        sequence.tail = next;
        self.chunks.push(Chunk { run, next: NONE });
    }

    /// Returns the items of a sequence in order.
    pub(crate) fn sequence(&self, sequence: Sequence) -> Items<'_> {
        Items { tree_items: &self.items, chunks: &self.chunks, next: sequence.head, here: [].iter() }
    }

    /// Returns a persistent id.
    pub(crate) fn persistent_id(&self, id: PersistentId) -> Raw {
        match id {
            PersistentId::Node(node) => Raw::Node(node),
            PersistentId::Item(item) => self.items[item as usize],
        }
    }

    /// Returns the bytes of a text.
    pub(crate) fn bytes(&self, text: Text) -> &[u8] {
        let (start, length) = (text.start as usize, text.length as usize);
        match start.checked_sub(self.text.len()) {
            None => &self.text[start..start + length],
            Some(start) => &self.side[start..start + length],
        }
    }

    /// Returns where the items of a list begin that was empty at first.
    pub(crate) fn list_start(&self, list: NodeId) -> Option<u64> {
        let at = self.lists.binary_search_by_key(&list, |&(list, _)| list).ok()?;
        Some(self.lists[at].1)
    }

    /// Returns where in the file a text lies.
    ///
    /// # Errors
    /// [`Fault::InsideRecord`] when it was inflated, or is not of the file at all.
    pub(crate) fn file_offset(&self, text: Text) -> Result<u64, Fault> {
        let place = self.places.iter().find(|place| place.text.contains(&text.start));
        match place.map(|place| (&place.file, text.start - place.text.start)) {
            Some((Ok(file), offset)) => Ok(file + offset),
            Some((Err(record), _)) => Err(Fault::InsideRecord { record: record.clone() }),
            None => Err(Fault::InsideRecord { record: String::new() }),
        }
    }

    /// Returns the bytes of a string value.
    pub(crate) fn str_bytes(&self, value: Raw) -> Option<&[u8]> {
        match value {
            Raw::Str { length, start } => Some(self.bytes(Text { start, length })),
            _ => None,
        }
    }

    /// Returns the items of a tuple or list (or the argument of a `torch.Size`).
    pub(crate) fn elements(&self, value: Raw) -> Option<Items<'_>> {
        match self.node(value.node()?) {
            Node::Tuple(run) | Node::FrozenSet(run) => Some(self.run_items(run)),
            Node::List(sequence) | Node::Set(sequence) => Some(self.sequence(sequence)),
            Node::Object { callable, args, .. } if self.known(callable) == Known::Size => {
                let inner = *self.args(args).first()?;
                match self.node(inner.node()?) {
                    Node::Tuple(run) => Some(self.run_items(run)),
                    Node::List(sequence) => Some(self.sequence(sequence)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns how many items [`Self::elements`] has, without walking them.
    pub(crate) fn element_count(&self, value: Raw) -> usize {
        let Some(node) = value.node() else { return 0 };
        match self.node(node) {
            Node::Tuple(run) | Node::FrozenSet(run) => run.length as usize,
            Node::List(sequence) | Node::Set(sequence) => sequence.length as usize,
            // The argument of a `torch.Size`; one in another would be none.
            Node::Object { args, .. } => {
                match self.args(args).first().and_then(|arg| arg.node()).map(|n| self.node(n)) {
                    Some(Node::Tuple(run)) => run.length as usize,
                    Some(Node::List(sequence)) => sequence.length as usize,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    pub(crate) fn no_items(&self) -> Items<'_> {
        self.run_items(Run::default())
    }

    pub(crate) fn run_items(&self, run: Run) -> Items<'_> {
        Items { tree_items: &self.items, chunks: &self.chunks, next: NONE, here: self.run(run).iter() }
    }

    /// Returns the arguments of an object: the items of the tuple with this number.
    pub(crate) fn args(&self, args: NodeId) -> &[Raw] {
        match self.nodes.get(args as usize) {
            Some(&Node::Tuple(run)) => self.run(run),
            _ => &[],
        }
    }

    /// Returns what a callable is known to be.
    pub(crate) fn known(&self, callable: NodeId) -> Known {
        self.global(callable).map_or(Known::Other, |global| global.known)
    }

    pub(crate) fn global(&self, node: NodeId) -> Option<Global> {
        match self.nodes.get(node as usize) {
            Some(&Node::Global(index)) => self.globals.get(index as usize).copied(),
            _ => None,
        }
    }

    /// Returns module and name of a global, for people.
    pub(crate) fn global_name(&self, node: NodeId) -> Option<String> {
        let global = self.global(node)?;
        let text = |text| String::from_utf8_lossy(self.bytes(text)).into_owned();
        Some(format!("{}.{}", text(global.module), text(global.name)))
    }

    pub(crate) fn extra(&self, index: u32) -> Extra {
        self.extras.get(index as usize).copied().unwrap_or_default()
    }

    /// Returns the key-value pairs of a dict, or of an object that stands for one (`OrderedDict`, `defaultdict`).
    pub(crate) fn pairs(&self, value: Raw) -> Option<Pairs<'_>> {
        match self.node(value.node()?) {
            Node::Dict(sequence) => Some(Pairs::of(self.sequence(sequence))),
            Node::Object { callable, extra, .. } if self.known(callable).is_dict() => {
                Some(Pairs::of(self.sequence(self.extra(extra).pairs)))
            }
            _ => None,
        }
    }
}

/// Returns the place in [`Tree::shapes`] for a tuple, if it looks like sizes or strides.
fn shape_slot(values: &[Raw]) -> Option<usize> {
    if values.is_empty() || values.len() > SHAPE_RANK_MAX {
        return None;
    }
    // Any odd number with bits all over mixes well enough: the golden ratio.
    let hash = values.iter().try_fold(0u64, |hash, value| match value {
        Raw::Int(value) => Some((hash ^ *value as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        _ => None,
    });
    Some((hash? >> 32) as usize % SHAPES_KEPT)
}

/// Iterator over the items of a sequence.
#[derive(Clone)]
pub(crate) struct Items<'t> {
    tree_items: &'t [Raw],
    chunks: &'t [Chunk],
    next: u32,
    here: std::slice::Iter<'t, Raw>,
}

impl Iterator for Items<'_> {
    type Item = Raw;

    #[inline]
    fn next(&mut self) -> Option<Raw> {
        loop {
            if let Some(item) = self.here.next() {
                return Some(*item);
            }
            let chunk = self.chunks.get(self.next as usize)?;
            let run = chunk.run;
            self.here = self.tree_items[run.start as usize..(run.start + run.length) as usize].iter();
            self.next = chunk.next;
        }
    }
}

/// Iterator over the pairs of a dict, in the order they were set.
#[derive(Clone)]
pub(crate) struct Pairs<'t> {
    items: Items<'t>,
}

impl<'t> Pairs<'t> {
    /// Takes items two by two.
    pub(crate) fn of(items: Items<'t>) -> Self {
        Self { items }
    }
}

impl Iterator for Pairs<'_> {
    type Item = (Raw, Raw);

    #[inline]
    fn next(&mut self) -> Option<(Raw, Raw)> {
        Some((self.items.next()?, self.items.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_nodes_stay_small() {
        assert_eq!(size_of::<Raw>(), 16);
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn tuples_of_the_same_integers_share_them() {
        let mut tree = Tree::new(Cow::Borrowed(b""));
        let shape = [Raw::Int(4), Raw::Int(1)];
        assert_ne!(tree.add_tuple_run(&shape), tree.add_tuple_run(&shape), "a small tree");
        tree.nodes.resize(SHAPES_FROM_NODES, Node::Global(0));
        let mut run = |values: &[Raw]| tree.add_tuple_run(values).start;
        let first = run(&[Raw::Int(4), Raw::Int(1)]);
        assert_ne!(run(&[Raw::Int(1), Raw::Int(4)]), first);
        assert_ne!(run(&[Raw::Int(4)]), first);
        assert_eq!(run(&[Raw::Int(4), Raw::Int(1)]), first);
        assert_ne!(run(&[Raw::Bool(true)]), run(&[Raw::Bool(true)]));
    }

    #[test]
    fn sequences_that_grow_in_turn_keep_their_order() {
        let mut tree = Tree::new(Cow::Borrowed(b""));
        let (mut a, mut b) = (Sequence::default(), Sequence::default());
        for round in 0..5 {
            tree.extend(&mut a, &[Raw::Int(round), Raw::Int(round + 100)]);
            tree.extend(&mut b, &[Raw::Int(-round)]);
        }
        let ints = |sequence| -> Vec<i64> {
            tree.sequence(sequence).map(|v| if let Raw::Int(i) = v { i } else { panic!() }).collect()
        };
        assert_eq!(ints(a), [0, 100, 1, 101, 2, 102, 3, 103, 4, 104]);
        assert_eq!(ints(b), [0, -1, -2, -3, -4]);
        assert_eq!((a.length, b.length), (10, 5));
    }
}
