//! The public face of a value: a handle that reads the tree.

use std::borrow::Cow;
use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::dtype::DType;
use crate::pickle::tree::{Items, Node, Pairs, Raw, Text};
use crate::pickle::{Known, NodeId, repr};
use crate::rebuild::{ROW, shadowed_keys, slot_dicts};
use crate::tensor::{Storage, Tensor};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `None`.
    None,
    /// `bool`.
    Bool,
    /// `int` of any size.
    Int,
    /// `float`.
    Float,
    /// `complex`.
    Complex,
    /// `str`.
    Str,
    /// `bytes`.
    Bytes,
    /// `bytearray`.
    ByteArray,
    /// `list`, also a subclass that TorchScript wraps around one.
    List,
    /// `tuple`.
    Tuple,
    /// `set`.
    Set,
    /// `frozenset`.
    FrozenSet,
    /// `dict`.
    Dict,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `slice`.
    Slice,
    /// `range`.
    Range,
    /// `torch.Size`.
    Size,
    /// `torch.dtype`.
    DType,
    /// `torch.device`.
    Device,
    /// A class or function, not called: two names.
    Global,
    /// A storage saved as such.
    Storage,
    /// A tensor.
    Tensor,
    /// An object of a class that was not loaded: class name, arguments, state.
    Opaque,
}

/// `restore_type_tag(restore_type_tag(…))` is followed only so far.
pub(crate) const JIT_WRAPPERS_MAX: usize = 8;

/// A value of a [`Checkpoint`], by reference.
///
/// ```
/// use pt_format::{Checkpoint, Kind, Limits, write};
/// let object = write::Object::dict([
///     ("hyper_parameters", write::Object::dict([("lr", 0.1.into()), ("name", "tiny".into())])),
/// ]);
/// let bytes = write::to_vec(&object)?;
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
///
/// #[derive(serde::Deserialize)]
/// struct HyperParameters { lr: f64, name: String }
/// let value = checkpoint.values().get("hyper_parameters").unwrap();
/// assert_eq!(value.kind(), Kind::Dict);
/// let parsed: HyperParameters = value.deserialize()?;
/// assert_eq!((parsed.lr, parsed.name.as_str()), (0.1, "tiny"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Value<'c> {
    pub(crate) checkpoint: &'c Checkpoint<'c>,
    pub(crate) raw: Raw,
}

impl<'c> Value<'c> {
    fn with(self, raw: Raw) -> Self {
        Self { raw, ..self }
    }

    /// Returns callable and arguments of an object node.
    fn call(self) -> Option<(Known, &'c [Raw], NodeId, u32)> {
        match self.node()? {
            Node::Object { callable, args, extra } => {
                let tree = &self.checkpoint.tree;
                Some((tree.known(callable), tree.args(args), callable, extra))
            }
            _ => None,
        }
    }

    fn node(self) -> Option<Node> {
        self.raw.node().map(|id| self.checkpoint.tree.node(id))
    }

    /// Returns what the value is.
    pub fn kind(self) -> Kind {
        match self.raw {
            Raw::None => return Kind::None,
            Raw::Bool(_) => return Kind::Bool,
            Raw::Int(_) => return Kind::Int,
            Raw::Float(_) => return Kind::Float,
            Raw::Str { .. } => return Kind::Str,
            Raw::Bytes { .. } => return Kind::Bytes,
            Raw::Node(_) => {}
        }
        if self.as_tensor().is_some() {
            return Kind::Tensor;
        }
        match self.node() {
            None => Kind::None,
            Some(Node::Tuple(_)) => Kind::Tuple,
            Some(Node::FrozenSet(_)) => Kind::FrozenSet,
            Some(Node::List(_)) => Kind::List,
            Some(Node::Set(_)) => Kind::Set,
            Some(Node::Dict(_)) => Kind::Dict,
            Some(Node::BigInt { .. }) => Kind::Int,
            Some(Node::ByteArray { .. }) => Kind::ByteArray,
            Some(Node::Persistent(_)) => Kind::Storage,
            Some(Node::Global(_)) => match self.as_dtype_name() {
                Some(_) => Kind::DType,
                None => Kind::Global,
            },
            Some(Node::Object { callable, extra, .. }) => match self.checkpoint.tree.known(callable) {
                Known::OrderedDict => Kind::OrderedDict,
                Known::Set => Kind::Set,
                Known::FrozenSet => Kind::FrozenSet,
                Known::Slice => Kind::Slice,
                Known::Range => Kind::Range,
                Known::Complex => Kind::Complex,
                Known::Bytes | Known::CodecsEncode => Kind::Bytes,
                Known::ByteArray => Kind::ByteArray,
                Known::Size if self.checkpoint.tree.extra(extra).states.length == 0 => Kind::Size,
                Known::Device => Kind::Device,
                Known::JitContainer => self.unwrapped().map_or(Kind::Opaque, Value::kind),
                _ => Kind::Opaque,
            },
        }
    }

    /// TorchScript wraps lists and dicts in a call that names their type.
    fn unwrapped(self) -> Option<Self> {
        let mut value = self;
        for _ in 0..JIT_WRAPPERS_MAX {
            match value.call() {
                Some((Known::JitContainer, args, ..)) => value = value.with(*args.first()?),
                _ => return Some(value),
            }
        }
        None
    }

    /// Returns whether this is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.raw, Raw::None)
    }

    /// Returns a `bool`.
    pub fn as_bool(self) -> Option<bool> {
        match self.raw {
            Raw::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Returns an `int` that fits into 64 bits.
    pub fn as_i64(self) -> Option<i64> {
        match self.raw {
            Raw::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Returns an `int` of any size as two's complement, little-endian bytes.
    pub fn as_int_bytes(self) -> Option<Cow<'c, [u8]>> {
        match (self.raw, self.node()) {
            (Raw::Int(value), _) => Some(Cow::Owned(value.to_le_bytes().to_vec())),
            (_, Some(Node::BigInt { length, start })) => {
                Some(Cow::Borrowed(self.checkpoint.tree.bytes(Text { start, length })))
            }
            _ => None,
        }
    }

    /// Returns a `float`.
    pub fn as_f64(self) -> Option<f64> {
        match self.raw {
            Raw::Float(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the real and imaginary part of a `complex`.
    pub fn as_complex(self) -> Option<(f64, f64)> {
        match self.call()? {
            (Known::Complex, &[Raw::Float(real), Raw::Float(imaginary)], ..) => Some((real, imaginary)),
            _ => None,
        }
    }

    /// Returns a `str` that is valid Unicode.
    pub fn as_str(self) -> Option<&'c str> {
        std::str::from_utf8(self.as_str_bytes()?).ok()
    }

    /// Returns the bytes of a `str`: UTF-8 in which lone surrogates may stand as three bytes, as Python's
    /// `surrogatepass` writes them.
    pub fn as_str_bytes(self) -> Option<&'c [u8]> {
        self.checkpoint.tree.str_bytes(self.raw)
    }

    /// Returns the content of `bytes` or a `bytearray`.
    pub fn as_bytes(self) -> Option<Cow<'c, [u8]>> {
        let tree = &self.checkpoint.tree;
        match (self.raw, self.node()) {
            (Raw::Bytes { length, start }, _) | (_, Some(Node::ByteArray { length, start })) => {
                return Some(Cow::Borrowed(tree.bytes(Text { start, length })));
            }
            _ => {}
        }
        match self.call()? {
            (Known::Bytes | Known::ByteArray, [], ..) => Some(Cow::Borrowed(&[])),
            (Known::ByteArray, &[content], ..) if matches!(content, Raw::Bytes { .. }) => {
                self.with(content).as_bytes()
            }
            (Known::ByteArray, &[content], ..) => match self.with(content).call()? {
                (Known::CodecsEncode, args, ..) => self.encoded(args),
                _ => None,
            },
            (Known::CodecsEncode | Known::ByteArray, args, ..) => self.encoded(args),
            _ => None,
        }
    }

    /// `_codecs.encode(text, "latin1")`: one character for each byte.
    fn encoded(self, args: &[Raw]) -> Option<Cow<'c, [u8]>> {
        let &[text, encoding] = args else { return None };
        match self.with(encoding).as_str()? {
            "latin1" | "latin-1" => {
                let text = self.with(text).as_str()?;
                text.chars().map(|c| u8::try_from(c as u32).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Returns the tensor this value is.
    pub fn as_tensor(self) -> Option<Tensor<'c>> {
        let Node::Object { .. } = self.node()? else { return None };
        Some(Tensor { checkpoint: self.checkpoint, index: self.row()? })
    }

    /// Returns the number of the tensor or bare storage that the walk found in this value.
    fn row(self) -> Option<u32> {
        self.checkpoint.node_states[self.raw.node()? as usize].checked_sub(ROW)
    }

    /// Returns a `torch.dtype` of which tensors can be saved.
    pub fn as_dtype(self) -> Option<DType> {
        DType::from_name(&self.as_dtype_name()?)
    }

    /// Returns the name of a `torch.dtype`, without `torch.`; there are some, such as `int4`, of which no tensor can be
    /// saved.
    pub fn as_dtype_name(self) -> Option<String> {
        let id = self.raw.node()?;
        if !matches!(self.node()?, Node::Global(_)) || self.checkpoint.tree.known(id) != Known::DType {
            return None;
        }
        Some(self.checkpoint.tree.global_name(id)?.trim_start_matches("torch.").to_owned())
    }

    /// Returns a `torch.device` as text, such as `cuda:1`.
    pub fn as_device(self) -> Option<String> {
        match self.call()? {
            (Known::Device, args, ..) => {
                Some(args.iter().map(|&arg| self.with(arg).component()).collect::<Vec<_>>().join(":"))
            }
            _ => None,
        }
    }

    /// Returns module and name of a class or function that was not called.
    pub fn as_global(self) -> Option<String> {
        match self.node()? {
            Node::Global(_) => self.checkpoint.tree.global_name(self.raw.node()?),
            _ => None,
        }
    }

    /// Returns what was called to make an object: module and name of its class or function, `None` when that is
    /// itself no plain global.
    pub fn class(self) -> Option<String> {
        let (_, _, callable, _) = self.call()?;
        self.checkpoint.tree.global_name(callable)
    }

    /// Returns the arguments an object was called with.
    pub fn args(self) -> impl Iterator<Item = Value<'c>> {
        let args = self.call().map_or(&[][..], |(_, args, ..)| args);
        args.iter().map(move |&raw| self.with(raw))
    }

    /// Returns the states an object was given after it was made, usually one dict of attributes; for a tensor the
    /// Python state saved with it.
    pub fn states(self) -> impl Iterator<Item = Value<'c>> {
        let tree = &self.checkpoint.tree;
        let tensor = self.as_tensor();
        let extra = self.call().filter(|_| tensor.is_none()).map_or(u32::MAX, |(.., extra)| extra);
        let states = tree.sequence(tree.extra(extra).states).map(move |raw| self.with(raw));
        states.chain(tensor.and_then(|tensor| tensor.state()))
    }

    /// Returns the storage that a bare storage is; `None` too when the file names none that could be.
    /// [`Checkpoint::check`] then says why.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Kind, Limits, write};
    /// let bytes = write::to_vec(&write::Object::from(7))?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// assert_eq!(checkpoint.values().kind(), Kind::Int);
    /// assert!(checkpoint.values().storage().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn storage(self) -> Option<Storage<'c>> {
        let Node::Persistent(_) = self.node()? else { return None };
        Some(Storage { checkpoint: self.checkpoint, index: self.row()? })
    }

    /// Returns the fields by which a bare storage is named: class, key, location and element count.
    pub fn as_storage(self) -> Option<[Value<'c>; 4]> {
        let Node::Persistent(id) = self.node()? else { return None };
        let tree = &self.checkpoint.tree;
        match tree.args(tree.persistent_id(id).node()?) {
            &[_, class, key, location, numel, ..] => {
                Some([class, key, location, numel].map(|raw| self.with(raw)))
            }
            _ => None,
        }
    }

    /// Returns the elements of a list, tuple, set or `torch.Size`, in order; for other values those appended to them
    /// (a deque, a subclass of list).
    pub fn items(self) -> impl Iterator<Item = Value<'c>> {
        let value = self.unwrapped().unwrap_or(self);
        let tree = &self.checkpoint.tree;
        let items: Items<'c> = match value.call() {
            Some((Known::Set | Known::FrozenSet, args, ..)) => {
                args.first().and_then(|&list| tree.elements(list)).unwrap_or_else(|| tree.no_items())
            }
            Some((Known::Slice | Known::Range, ..)) => tree.no_items(),
            Some((known, .., extra)) if known != Known::Size => tree.sequence(tree.extra(extra).appended),
            _ => tree.elements(value.raw).unwrap_or_else(|| tree.no_items()),
        };
        items.map(move |raw| self.with(raw))
    }

    /// Returns keys and values of a dict in file order (a key set twice appears once, with its last value); for an
    /// opaque object the items set on it.
    pub fn entries(self) -> impl Iterator<Item = (Value<'c>, Value<'c>)> {
        let value = self.unwrapped().unwrap_or(self);
        let tree = &self.checkpoint.tree;
        let pairs = match value.call() {
            // Python 2 writes OrderedDict([[key, value], …]).
            Some((Known::OrderedDict, &[list], ..)) => {
                let pairs = tree.elements(list).into_iter().flatten();
                let pairs =
                    pairs.filter_map(|pair| tree.elements(pair).and_then(|mut p| p.next().zip(p.next())));
                return self.resolve(pairs.collect());
            }
            Some((.., extra)) => Pairs::of(tree.sequence(tree.extra(extra).pairs)),
            None => tree.pairs(value.raw).unwrap_or_else(|| Pairs::of(tree.no_items())),
        };
        let shadowed = shadowed_keys(tree, pairs.clone());
        let pairs = pairs.zip(0u32..).filter(|(_, position)| shadowed.binary_search(position).is_err());
        self.resolve(pairs.map(|(pair, _)| pair).collect())
    }

    fn resolve(self, pairs: Vec<(Raw, Raw)>) -> impl Iterator<Item = (Value<'c>, Value<'c>)> {
        pairs.into_iter().map(move |(key, value)| (self.with(key), self.with(value)))
    }

    /// Returns the attributes of an object or of a tensor, or those of an `OrderedDict` (`_metadata` of state dicts).
    pub fn attributes(self) -> impl Iterator<Item = (Value<'c>, Value<'c>)> {
        self.states().flat_map(Self::state_pairs)
    }

    /// Returns the attributes in a state: a dict, or a pair of them for classes with slots.
    pub(crate) fn state_pairs(self) -> Vec<(Value<'c>, Value<'c>)> {
        let tree = &self.checkpoint.tree;
        match slot_dicts(tree, self.raw) {
            Some(dicts) => {
                let dicts = dicts.into_iter().flatten();
                dicts.flat_map(|dict| self.with(Raw::Node(dict)).entries()).collect()
            }
            None if tree.pairs(self.raw).is_some() => self.entries().collect(),
            None => Vec::new(),
        }
    }

    /// Finds a child by its component in a path: a part of a composite tensor, a dict entry, an attribute of an object,
    /// an element by decimal position. Where a string and another key look the same, the string is meant.
    pub fn get(self, key: &str) -> Option<Value<'c>> {
        if let Some((_, part)) =
            self.as_tensor().and_then(|tensor| tensor.parts().find(|(name, _)| name == key))
        {
            return Some(part);
        }
        let named = |(k, v): (Value<'c>, Value<'c>)| (k.as_str_bytes() == Some(key.as_bytes())).then_some(v);
        if let Some(found) = self.entries().filter_map(named).last() {
            return Some(found);
        }
        if let Some(found) = self.attributes().filter_map(named).last() {
            return Some(found);
        }
        // Integer keys as in optimizer states, and odder ones, as paths show them; then positions.
        let shown = |(k, v): (Value<'c>, Value<'c>)| {
            (k.as_str_bytes().is_none() && k.component() == key).then_some(v)
        };
        if let Some(found) = self.entries().filter_map(shown).last() {
            return Some(found);
        }
        self.items().nth(key.parse().ok()?)
    }

    /// Follows a path of keys, attributes and positions; keys that hold dots are one component.
    ///
    /// ```
    /// # use pt_format::{Checkpoint, Limits, write};
    /// # let object = write::Object::dict([("a.b", write::Object::list([1.into(), 2.into()]))]);
    /// # let bytes = write::to_vec(&object)?;
    /// # let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// assert_eq!(checkpoint.values().path(["a.b", "1"]).unwrap().as_i64(), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn path<'k>(self, path: impl IntoIterator<Item = &'k str>) -> Option<Value<'c>> {
        path.into_iter().try_fold(self, |value, key| value.get(key))
    }

    /// Returns the value as one component of a path: strings as they are, anything else as Python's `repr()` shows it.
    pub fn component(self) -> String {
        match self.as_str_bytes() {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => repr(&self.checkpoint.tree, self.raw),
        }
    }

    /// Returns a number that two values share only if they are the same object, `None` for plain scalars.
    pub fn identity(self) -> Option<u32> {
        self.raw.node()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind(), repr(&self.checkpoint.tree, self.raw))
    }
}
