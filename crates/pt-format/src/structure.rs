//! The structure of the saved object: which containers hold its tensors and labels, in which order, under which keys.
//!
//! An index keeps it, so that samples can be put together again without reading their pickle. Depth-first with a stack
//! of its own; a container met again is named, not walked again, so the work is linear in the value tree.

use std::iter::Peekable;
use std::vec::IntoIter;

use crate::checkpoint::Checkpoint;
use crate::pickle::{Items, Known, Node, NodeId, Pairs, Raw, Sequence, Value};
use crate::rebuild::{ROW, shadowed_keys, unwrapped};

/// Containers nested deeper than this are opaque: no honest sample is.
const DEPTH_MAX: usize = 64;
/// Sequences longer than this hold data, not labels: scalars in them, at any depth, are opaque, and they themselves where
/// they hold nothing else.
const LABELS_MAX: u32 = 64;
/// The same for dicts: a vocabulary is no set of labels.
const LABELS_OF_DICT_MAX: u32 = 1024;
const UNSEEN: u32 = u32::MAX;

/// What a [`Part`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// `dict`: its parts follow. Also `collections.defaultdict` and `collections.Counter`, whose own class and default are
    /// those of [`Part::value`].
    Dict,
    /// `collections.OrderedDict`: its parts follow.
    OrderedDict,
    /// `list`: its parts follow.
    List,
    /// `tuple` or `torch.Size`: its parts follow.
    Tuple,
    /// The tensor with this number.
    Tensor(usize),
    /// A plain scalar: `None`, `bool`, `int` of 64 bits, `float` or `str`.
    Leaf,
    /// The container that is the part with this number, met again.
    Same(usize),
    /// Anything else: objects of classes, bytes, sets, long lists of scalars, what is nested too deep.
    Opaque,
}

/// One part of the saved object.
#[derive(Clone, Copy, Debug)]
pub struct Part<'c> {
    /// What it is.
    pub kind: PartKind,
    /// The value itself.
    pub value: Value<'c>,
    /// Its key, if it stands in a dict.
    pub key: Option<Value<'c>>,
    /// Its position in the container around it.
    pub position: u32,
    /// How many containers are around it.
    pub depth: usize,
}

/// Iterator over the parts of the saved object, each container before its content.
pub struct Structure<'c> {
    checkpoint: &'c Checkpoint<'c>,
    root: Option<Raw>,
    stack: Vec<Frame<'c>>,
    /// By node: the number of its part.
    numbers: Vec<u32>,
    count: u32,
}

struct Frame<'c> {
    children: Children<'c>,
    position: u32,
    /// Scalars in here are leaves.
    labels: bool,
}

/// A container that is opened: what it is, its content, and whether scalars in there can be labels.
type Opened<'c> = (PartKind, Children<'c>, bool);

enum Children<'c> {
    Items(Items<'c>),
    /// With the positions of pairs whose key is set again.
    Pairs(Pairs<'c>, Peekable<IntoIter<u32>>),
    /// `OrderedDict([[key, value], …])`, as Python 2 writes it.
    PairList(Items<'c>),
}

impl<'c> Structure<'c> {
    pub(crate) fn new(checkpoint: &'c Checkpoint<'c>) -> Self {
        Self {
            checkpoint,
            root: Some(checkpoint.values().raw),
            stack: Vec::new(),
            numbers: vec![UNSEEN; checkpoint.tree.nodes.len()],
            count: 0,
        }
    }

    fn part(&mut self, key: Option<Raw>, value: Raw, position: u32) -> Part<'c> {
        let depth = self.stack.len();
        let kind = self.enter(value);
        let checkpoint = self.checkpoint;
        self.count += 1;
        Part {
            kind,
            value: Value { checkpoint, raw: value },
            key: key.map(|raw| Value { checkpoint, raw }),
            position,
            depth,
        }
    }

    /// Tells what a value is; a container's content comes next.
    fn enter(&mut self, value: Raw) -> PartKind {
        let tree = &self.checkpoint.tree;
        let labels = self.stack.last().is_none_or(|frame| frame.labels);
        let node = match unwrapped(tree, value) {
            Raw::Node(node) => node,
            Raw::Bytes { .. } => return PartKind::Opaque,
            text @ Raw::Str { .. } => {
                let is_text = tree.str_bytes(text).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
                return if is_text && labels { PartKind::Leaf } else { PartKind::Opaque };
            }
            Raw::None | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) if labels => return PartKind::Leaf,
            Raw::None | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) => return PartKind::Opaque,
        };
        let (kind, children, few) = match tree.node(node) {
            Node::Persistent(_) => return PartKind::Opaque,
            _ if self.checkpoint.node_states[node as usize] >= ROW => {
                return PartKind::Tensor((self.checkpoint.node_states[node as usize] - ROW) as usize);
            }
            _ if self.numbers[node as usize] != UNSEEN => {
                return PartKind::Same(self.numbers[node as usize] as usize);
            }
            _ if self.stack.len() >= DEPTH_MAX => return PartKind::Opaque,
            Node::Dict(sequence) => self.dict(PartKind::Dict, sequence),
            Node::Object { callable, args, extra } => match self.made(tree.known(callable), args, extra) {
                Some(made) => made,
                None => return PartKind::Opaque,
            },
            Node::List(sequence) if holds_parts(sequence.length, tree.sequence(sequence)) => {
                let children = Children::Items(tree.sequence(sequence));
                (PartKind::List, children, sequence.length <= LABELS_MAX)
            }
            Node::Tuple(run) if holds_parts(run.length, tree.run_items(run)) => {
                (PartKind::Tuple, Children::Items(tree.run_items(run)), run.length <= LABELS_MAX)
            }
            _ => return PartKind::Opaque,
        };
        self.numbers[node as usize] = self.count;
        self.stack.push(Frame { children, position: 0, labels: labels && few });
        kind
    }

    /// Tells what a call makes, if that is a container. What it is made of may be shared with other calls, and is walked once.
    fn made(&mut self, known: Known, args: NodeId, extra: u32) -> Option<Opened<'c>> {
        let tree = &self.checkpoint.tree;
        let set_later = tree.extra(extra).pairs;
        let given = tree.args(args).first().and_then(|argument| argument.node());
        let length = |node| tree.element_count(Raw::Node(node)) as u32;
        Some(match (known, given) {
            (Known::OrderedDict, Some(list)) => {
                let pairs = tree.elements(Raw::Node(list)).unwrap_or_else(|| tree.no_items());
                self.take(list)?;
                (PartKind::OrderedDict, Children::PairList(pairs), length(list) <= LABELS_OF_DICT_MAX)
            }
            (Known::OrderedDict, None) => self.dict(PartKind::OrderedDict, set_later),
            (Known::Counter, Some(dict)) => {
                let Node::Dict(counts) = tree.node(dict) else { return None };
                self.take(dict)?;
                self.dict(PartKind::Dict, counts)
            }
            (Known::Size, Some(sizes)) => {
                let items = tree.elements(Raw::Node(sizes))?;
                let length = length(sizes);
                if !holds_parts(length, items.clone()) {
                    return None;
                }
                self.take(sizes)?;
                (PartKind::Tuple, Children::Items(items), length <= LABELS_MAX)
            }
            _ if known.is_dict() => self.dict(PartKind::Dict, set_later),
            _ => return None,
        })
    }

    /// A dict of keys and values in turn.
    fn dict(&self, kind: PartKind, pairs: Sequence) -> Opened<'c> {
        let tree = &self.checkpoint.tree;
        let children = self.pairs(Pairs::of(tree.sequence(pairs)));
        (kind, children, pairs.length / 2 <= LABELS_OF_DICT_MAX)
    }

    /// Makes an argument a part of the value that is told now; `None` when it is one of another.
    fn take(&mut self, argument: NodeId) -> Option<()> {
        let number = &mut self.numbers[argument as usize];
        (*number == UNSEEN).then(|| *number = self.count)
    }

    fn pairs(&self, pairs: Pairs<'c>) -> Children<'c> {
        let shadowed = shadowed_keys(&self.checkpoint.tree, pairs.clone());
        Children::Pairs(pairs, shadowed.into_iter().peekable())
    }
}

fn holds_parts(length: u32, mut items: Items<'_>) -> bool {
    length <= LABELS_MAX || items.all(|item| matches!(item, Raw::Node(_)))
}

impl<'c> Iterator for Structure<'c> {
    type Item = Part<'c>;

    fn next(&mut self) -> Option<Part<'c>> {
        if let Some(root) = self.root.take() {
            return Some(self.part(None, root, 0));
        }
        let tree = &self.checkpoint.tree;
        loop {
            let frame = self.stack.last_mut()?;
            let child = match &mut frame.children {
                Children::Items(items) => items.next().map(|value| (None, value)),
                Children::Pairs(pairs, shadowed) => loop {
                    match pairs.next() {
                        Some(_) if shadowed.next_if_eq(&frame.position).is_some() => frame.position += 1,
                        pair => break pair.map(|(key, value)| (Some(key), value)),
                    }
                },
                Children::PairList(list) => list.find_map(|pair| {
                    let mut pair = tree.elements(pair)?;
                    Some((Some(pair.next()?), pair.next()?))
                }),
            };
            let Some((key, value)) = child else {
                self.stack.pop();
                continue;
            };
            let position = frame.position;
            frame.position += 1;
            return Some(self.part(key, value, position));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::Limits;
    use crate::write::{self, Object, Tensor};

    #[test]
    fn parts_come_in_order_with_what_is_around_them() {
        let long = Object::list((0..100).map(Object::from));
        let object = Object::dict([
            ("x", Tensor::new::<u8>(&[1], &[7]).unwrap().into()),
            ("meta", Object::list([Object::from(3), Object::from("id")])),
            ("long", long),
            (
                "words",
                Object::dict(
                    (0..2000).map(|word| (word.to_string(), Object::from(word))).collect::<Vec<_>>(),
                ),
            ),
            ("y", Object::from(1.5)),
        ]);
        let bytes = write::to_vec(&object).unwrap();
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        let parts = checkpoint.structure().filter(|part| part.depth < 2 || part.kind != PartKind::Opaque);
        let parts: Vec<_> = parts.map(|part| (part.kind, part.position, part.depth)).collect();
        assert_eq!(
            parts,
            [
                (PartKind::Dict, 0, 0),
                (PartKind::Tensor(0), 0, 1),
                (PartKind::List, 1, 1),
                (PartKind::Leaf, 0, 2),
                (PartKind::Leaf, 1, 2),
                (PartKind::Opaque, 2, 1),
                (PartKind::Dict, 3, 1),
                (PartKind::Leaf, 4, 1),
            ]
        );
    }

    /// The parts of a pickle of text: kind, and key or position.
    fn parts_of(pickle: &[u8]) -> Vec<(PartKind, String)> {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        // Miri has something to say about how zlib-rs compresses.
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file("a/data.pkl", options).unwrap();
        archive.write_all(pickle).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        let name = |part: Part<'_>| part.key.map_or(part.position.to_string(), |key| key.component());
        checkpoint.structure().map(|part| (part.kind, name(part))).collect()
    }

    #[test]
    fn what_stands_for_a_dict_or_tuple_has_parts() {
        use PartKind::{Dict, Leaf, Tuple};
        let named = |parts: &[(PartKind, &str)]| -> Vec<(PartKind, String)> {
            parts.iter().map(|&(kind, name)| (kind, name.to_owned())).collect()
        };
        // defaultdict(int, {"y": 1})
        let parts = parts_of(b"ccollections\ndefaultdict\n(c__builtin__\nint\ntRVy\nI1\ns.");
        assert_eq!(parts, named(&[(Dict, "0"), (Leaf, "y")]));
        // Counter({"a": 2, "b": 1})
        let parts = parts_of(b"ccollections\nCounter\n((dVa\nI2\nsVb\nI1\nstR.");
        assert_eq!(parts, named(&[(Dict, "0"), (Leaf, "a"), (Leaf, "b")]));
        // torch.Size([3, 4])
        let parts = parts_of(b"ctorch\nSize\n((I3\nI4\nttR.");
        assert_eq!(parts, named(&[(Tuple, "0"), (Leaf, "0"), (Leaf, "1")]));
    }

    #[test]
    fn what_no_such_call_takes_is_opaque() {
        for pickle in [
            &b"ctorch\nSize\n(I3\ntR."[..],
            b"ctorch\nSize\n(tR.",
            b"ccollections\nCounter\n(I3\ntR.",
            b"ccollections\nCounter\n(tR.",
            b"cshop\nCart\n((dVa\nI2\nstR.",
        ] {
            assert_eq!(parts_of(pickle), [(PartKind::Opaque, "0".into())]);
        }
    }

    #[test]
    fn an_argument_of_several_calls_is_walked_once() {
        // d = {"a": 2}; [Counter(d), Counter(d), d]
        let pickle = b"((dp0\nVa\nI2\ns0ccollections\nCounter\n(g0\ntRccollections\nCounter\n(g0\ntRg0\nl.";
        let kinds: Vec<_> = parts_of(pickle).into_iter().map(|(kind, _)| kind).collect();
        use PartKind::{Dict, Leaf, List, Opaque, Same};
        assert_eq!(kinds, [List, Dict, Leaf, Opaque, Same(1)]);
    }

    #[test]
    fn what_contains_itself_is_named_and_not_walked_again() {
        // l = []; l.append(l); {"a": l, "b": l}
        let pickle = b"\x80\x02}(X\x01\x00\x00\x00a]q\x01h\x01aX\x01\x00\x00\x00bh\x01u.";
        let kinds: Vec<_> = parts_of(pickle).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [PartKind::Dict, PartKind::List, PartKind::Same(1), PartKind::Same(1)]);
    }
}
