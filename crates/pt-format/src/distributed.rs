//! Distributed checkpoints: the plan in `.metadata`, which says what lies where in the `.distcp` files beside it.
//!
//! ```text
//! folder/.metadata        a plain pickle: names, shapes, chunks, and for each stored item a file, an offset, a length
//! folder/__0_0.distcp     items one behind the other, each a whole `torch.save` archive, without alignment
//! folder/__1_0.distcp     …
//! ```
//!
//! This module reads the plan and opens no files. An item is parsed as a file of its own, through a [`Window`]; positions
//! in it count from the item's start.
//!
//! ```
//! use pt_format::{Checkpoint, Limits, Window, distributed::Metadata};
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg/dcp");
//! let metadata = Metadata::parse(&std::fs::read(format!("{folder}/.metadata"))?, &Limits::default())?;
//! let item = metadata.items.iter().find(|item| &*item.fqn == "w").unwrap();
//! let file = std::fs::read(format!("{folder}/{}", item.file))?;
//! let window = Window::new(&file, item.offset, item.length).ok_or("the file is cut off")?;
//! let checkpoint = Checkpoint::parse(&window, &Limits::default())?;
//! let tensor = checkpoint.tensors().next().unwrap();
//! assert_eq!(tensor.shape(), Some(&[2, 3][..]));
//! let place = item.offset + tensor.storage().unwrap().data_offset().unwrap();
//! assert_eq!(file[place as usize + 4..][..4], 1.0f32.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: `torch/distributed/checkpoint/metadata.py`, `filesystem.py`, `default_planner.py`.
//!
//! [`Window`]: crate::Window

use std::collections::HashMap;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Machine, Node, Pairs, PersistentIds, Raw, Text, Tree, repr};
use crate::rebuild::{shadowed_keys, slot_dicts};
use crate::source::{Source, read_growing};

/// Name of the file, for messages.
const METADATA: &str = ".metadata";
/// First read; longer ones are read again, longer.
const HEAD_BYTES: u64 = 1 << 20;
/// Names of files are short on every system.
const FILE_NAME_BYTES_MAX: usize = 255;
/// What is made of one value of the pickle. Honest ones are used once or twice: the name of a tensor of many chunks is
/// shared and costs nothing.
const USES_MAX: usize = 8;

/// The plan of a distributed checkpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// What the checkpoint holds, in its order.
    pub entries: Vec<Entry>,
    /// Where it lies, in the order of the plan.
    pub items: Vec<Item>,
}

/// A value of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Fully qualified name, by which items speak of it: keys and positions joined with dots.
    pub fqn: Arc<str>,
    /// The path itself; the name alone where the planner did not keep it.
    pub path: Vec<Arc<str>>,
    /// Of each part of the path, whether it is a position in a list; else it is a key of a dict.
    pub positions: Vec<bool>,
    /// What the value is.
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A tensor, in chunks.
    Tensor {
        /// `None` when the file's is unknown.
        dtype: Option<DType>,
        /// Sizes of the whole.
        size: Vec<u64>,
        /// Whether it was set.
        requires_grad: bool,
        /// The parts that were stored.
        chunks: Vec<Chunk>,
    },
    /// Any other object, as `torch.save` writes it.
    Bytes,
}

/// A part of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position of its first element in the whole.
    pub offsets: Vec<u64>,
    /// Its sizes.
    pub sizes: Vec<u64>,
}

/// Where one chunk, or one object, is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// Name of the value it is a part of.
    pub fqn: Arc<str>,
    /// Position of the chunk in the whole; `None` for objects.
    pub offsets: Option<Vec<u64>>,
    /// Name of a file in the same folder: never a path.
    pub file: Arc<str>,
    /// First byte in that file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What was done to the bytes, such as `ZStandard`. Where this is not empty, they are no archive before it is undone.
    pub transforms: Vec<Arc<str>>,
}

impl Metadata {
    /// Reads the bytes of a `.metadata` file. Nothing in it is executed.
    ///
    /// # Errors
    /// [`Error::Pickle`] when it is no pickle, [`Error::Value`] when it is one of something else, [`Error::Limit`] when it
    /// is too large.
    pub fn parse<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Self> {
        let run = |text: std::borrow::Cow<'_, [u8]>| {
            let text = text.into_owned();
            let range = 0..text.len();
            Machine::run(Tree::new(text.into()), range, PersistentIds::None, limits, METADATA)
        };
        let (tree, root, _) = read_growing(source, 0, source.len(), HEAD_BYTES, limits, run)?;
        let left = (tree.nodes.len() + tree.items.len()).saturating_mul(USES_MAX);
        let mut reader = Reader { tree: &tree, limits, names: HashMap::new(), left };
        reader.metadata(root)
    }
}

/// Makes sense of the values.
struct Reader<'t, 's> {
    tree: &'t Tree<'s>,
    limits: &'t Limits,
    /// Names by where they stand.
    names: HashMap<u64, Arc<str>>,
    /// Values still to be made.
    left: usize,
}

impl<'t> Reader<'t, '_> {
    fn metadata(&mut self, root: Raw) -> Result<Metadata> {
        let described = self.attribute(root, "state_dict_metadata");
        let described =
            described.ok_or_else(|| self.unlike(&[METADATA], root, "the plan of a checkpoint"))?;
        let paths: HashMap<Arc<str>, Raw> = match self.attribute(root, "planner_data") {
            Some(paths) if self.tree.pairs(paths).is_some() => {
                let pairs = self.pairs(paths, "planner_data")?;
                pairs.into_iter().filter_map(|(key, path)| Some((self.name(key)?, path))).collect()
            }
            // Other planners keep other things here.
            _ => HashMap::new(),
        };
        let mut entries = Vec::new();
        for (key, value) in self.pairs(described, "state_dict_metadata")? {
            let fqn = self.named(key, "state_dict_metadata")?;
            let path = paths.get(&fqn).map(|&path| self.path(path, &fqn)).transpose()?;
            let content = self.content(value, &fqn)?;
            let (path, positions) = path.unwrap_or_else(|| (vec![fqn.clone()], vec![false]));
            entries.push(Entry { path, positions, fqn, content });
        }
        let stored = self.attribute(root, "storage_data").unwrap_or(Raw::None);
        let mut items = Vec::new();
        for (key, value) in self.pairs(stored, "storage_data")? {
            items.push(self.item(key, value)?);
        }
        Ok(Metadata { entries, items })
    }

    fn content(&mut self, value: Raw, fqn: &str) -> Result<Content> {
        let Some(size) = self.attribute(value, "size") else { return Ok(Content::Bytes) };
        let size = self.counts(size, &[fqn, "size"])?;
        let properties = self.attribute(value, "properties").unwrap_or(Raw::None);
        // (dtype, layout, requires_grad, memory format, pinned[, strides])
        let state: Vec<Raw> = match properties.node().map(|node| self.tree.node(node)) {
            Some(Node::Object { extra, .. }) => {
                let state = self.tree.sequence(self.tree.extra(extra).states).last();
                state.and_then(|state| self.tree.elements(state)).into_iter().flatten().take(3).collect()
            }
            _ => Vec::new(),
        };
        let dtype = state.first().and_then(|dtype| self.tree.global_name(dtype.node()?));
        let dtype = dtype.and_then(|dtype| DType::from_name(dtype.strip_prefix("torch.")?));
        let requires_grad = matches!(state.get(2), Some(Raw::Bool(true)));
        let chunks = self.attribute(value, "chunks");
        let list = chunks.and_then(|chunks| self.tree.elements(chunks));
        let list =
            list.ok_or_else(|| self.unlike(&[fqn, "chunks"], chunks.unwrap_or(Raw::None), "a list"))?;
        let mut chunks = Vec::new();
        for chunk in list {
            let field = |name| self.attribute(chunk, name).unwrap_or(Raw::None);
            let (offsets, sizes) = (field("offsets"), field("sizes"));
            let offsets = self.counts(offsets, &[fqn, "chunks", "offsets"])?;
            let sizes = self.counts(sizes, &[fqn, "chunks", "sizes"])?;
            chunks.push(Chunk { offsets, sizes });
        }
        Ok(Content::Tensor { dtype, size, requires_grad, chunks })
    }

    fn item(&mut self, key: Raw, value: Raw) -> Result<Item> {
        let fqn = self.attribute(key, "fqn").unwrap_or(Raw::None);
        let fqn = self.named(fqn, "storage_data")?;
        let offsets = match self.attribute(key, "offset") {
            None | Some(Raw::None) => None,
            Some(offsets) => Some(self.counts(offsets, &[&fqn, "offset"])?),
        };
        let field = |name| self.attribute(value, name).unwrap_or(Raw::None);
        let (file, offset, length) = (field("relative_path"), field("offset"), field("length"));
        let transforms = field("transform_descriptors");
        let name = self.name(file).filter(|name| is_file_name(name));
        let file = name.ok_or_else(|| self.unlike(&[&fqn, "relative_path"], file, "the name of a file"))?;
        let offset = self.count(offset, &[&fqn, "offset"])?;
        let length = self.count(length, &[&fqn, "length"])?;
        let mut descriptors = Vec::new();
        for descriptor in self.tree.elements(transforms).into_iter().flatten() {
            descriptors.push(self.named(descriptor, "transform_descriptors")?);
        }
        Ok(Item { fqn, offsets, file, offset, length, transforms: descriptors })
    }

    /// Returns an attribute of an object.
    fn attribute(&self, object: Raw, name: &str) -> Option<Raw> {
        let Node::Object { extra, .. } = self.tree.node(object.node()?) else { return None };
        let state = self.tree.sequence(self.tree.extra(extra).states).last()?;
        let find = |dict: Raw| {
            let named = |&(key, _): &(Raw, Raw)| self.tree.str_bytes(key) == Some(name.as_bytes());
            self.tree.pairs(dict)?.take(ATTRIBUTES_MAX).filter(named).last().map(|(_, value)| value)
        };
        match slot_dicts(self.tree, state) {
            Some(dicts) => dicts.into_iter().flatten().find_map(|dict| find(Raw::Node(dict))),
            None => find(state),
        }
    }

    /// Returns keys and values of a dict; a key set twice counts once, with its last value.
    fn pairs(&mut self, dict: Raw, what: &str) -> Result<Vec<(Raw, Raw)>> {
        let pairs = self.tree.pairs(dict).ok_or_else(|| self.unlike(&[what], dict, "a dict"))?;
        let shadowed = shadowed_keys(self.tree, Pairs::clone(&pairs));
        let pairs = (0..).zip(pairs).filter(|(position, _)| shadowed.binary_search(position).is_err());
        let pairs: Vec<_> = pairs.map(|(_, pair)| pair).collect();
        self.spend(pairs.len())?;
        Ok(pairs)
    }

    /// The path of a value: a tuple of keys and positions; which of them are positions.
    fn path(&mut self, path: Raw, fqn: &str) -> Result<(Vec<Arc<str>>, Vec<bool>)> {
        let components = self.tree.elements(path);
        let components = components.ok_or_else(|| self.unlike(&["planner_data", fqn], path, "a path"))?;
        let (mut out, mut positions) = (Vec::new(), Vec::new());
        for component in components {
            self.spend(1)?;
            out.push(self.name(component).unwrap_or_else(|| repr(self.tree, component).into()));
            positions.push(matches!(component, Raw::Int(0..)));
        }
        Ok((out, positions))
    }

    fn counts(&mut self, value: Raw, path: &[&str]) -> Result<Vec<u64>> {
        let rank = self.tree.element_count(value);
        if rank > self.limits.rank {
            let (found, limit) = (rank as u64, self.limits.rank as u64);
            return Err(Error::Limit { what: "dimensions of a tensor", found, limit, field: "rank" });
        }
        self.spend(rank + 1)?;
        let elements = self.tree.elements(value).ok_or_else(|| self.unlike(path, value, "sizes"))?;
        elements.map(|count| self.count(count, path)).collect()
    }

    fn count(&self, value: Raw, path: &[&str]) -> Result<u64> {
        match value {
            Raw::Int(count @ 0..) => Ok(count as u64),
            other => Err(self.unlike(path, other, "a number that is not negative")),
        }
    }

    fn named(&mut self, name: Raw, what: &str) -> Result<Arc<str>> {
        self.spend(1)?;
        self.name(name).ok_or_else(|| self.unlike(&[what], name, "a name"))
    }

    /// Returns a string, kept once however often it is spoken of.
    fn name(&mut self, name: Raw) -> Option<Arc<str>> {
        let Raw::Str { length, start } = name else { return None };
        if let Some(name) = self.names.get(&start) {
            return Some(name.clone());
        }
        let text = std::str::from_utf8(self.tree.bytes(Text { start, length })).ok()?;
        let name: Arc<str> = text.into();
        // Empty strings may stand where others begin.
        if length > 0 {
            self.names.insert(start, name.clone());
        }
        Some(name)
    }

    fn spend(&mut self, values: usize) -> Result<()> {
        self.left = self.left.checked_sub(values).ok_or(Error::Limit {
            what: "values that the plan repeats",
            found: values as u64,
            limit: self.left as u64,
            field: "",
        })?;
        Ok(())
    }

    fn unlike(&self, path: &[&str], found: Raw, expected: &str) -> Error {
        Error::Value { path: path.join("."), found: repr(self.tree, found), expected: expected.to_owned() }
    }
}

/// Attributes of an object that are looked at. The objects of a plan have five.
const ATTRIBUTES_MAX: usize = 64;

/// Returns whether a name can be one of a file in the same folder, on every system.
fn is_file_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    !matches!(name, "" | "." | "..") && name.len() <= FILE_NAME_BYTES_MAX && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg/dcp/.metadata");

    fn parse(bytes: &[u8]) -> Result<Metadata> {
        Metadata::parse(bytes, &Limits::default())
    }

    #[test]
    fn a_plan_says_what_lies_where() {
        let metadata = parse(&std::fs::read(FIXTURE).unwrap()).unwrap();
        let entry = |fqn: &str| metadata.entries.iter().find(|entry| &*entry.fqn == fqn).unwrap();
        assert_eq!(
            entry("w").content,
            Content::Tensor {
                dtype: Some(DType::Float32),
                size: vec![2, 3],
                requires_grad: false,
                chunks: vec![Chunk { offsets: vec![0, 0], sizes: vec![2, 3] }],
            }
        );
        assert_eq!(entry("n").content, Content::Bytes);
        assert_eq!(entry("nested.x").path, ["nested".into(), "x".into()]);
        assert_eq!(entry("l.0").path, ["l".into(), "0".into()]);
        let places: Vec<_> =
            metadata.items.iter().map(|item| (&*item.fqn, item.offset, item.length)).collect();
        assert_eq!(
            places,
            [("n", 0, 1261), ("w", 1261, 1577), ("nested.x", 2838, 1577), ("l.0", 4415, 1577)]
        );
        assert!(
            metadata.items.iter().all(|item| &*item.file == "__0_0.distcp" && item.transforms.is_empty())
        );
        assert_eq!(metadata.items[0].offsets, None);
        assert_eq!(metadata.items[1].offsets.as_deref(), Some(&[0, 0][..]));
    }

    #[test]
    fn names_of_files_are_never_paths() {
        for (name, good) in [
            ("__0_0.distcp", true),
            ("a b", true),
            ("", false),
            ("..", false),
            ("../x", false),
            ("/etc/passwd", false),
            ("a\\b", false),
            ("c:x", false),
            ("a\0", false),
        ] {
            assert_eq!(is_file_name(name), good, "{name}");
        }
        let bytes = std::fs::read(FIXTURE).unwrap();
        let at = bytes.windows(12).position(|name| name == b"__0_0.distcp").unwrap();
        let mut changed = bytes;
        changed[at..at + 3].copy_from_slice(b"../");
        let message = parse(&changed).unwrap_err().to_string();
        assert!(message.contains("relative_path") && message.contains("the name of a file"), "{message}");
    }

    #[test]
    fn what_is_no_plan_says_so() {
        for (bytes, word) in [
            (&b"\x80\x02}."[..], "the plan of a checkpoint"),
            (b"\x80\x02N.", "the plan of a checkpoint"),
            (b"\x80\x02ca\nb\n)\x81}X\x13\0\0\0state_dict_metadataNsb.", "a dict"),
            (b"", "cut off"),
            (b"garbage", "pickle `.metadata`"),
        ] {
            let message = parse(bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message} should speak of {word}");
        }
    }

    /// Truncated anywhere or with any byte changed, a plan is refused or read, and nothing else.
    #[test]
    fn damage_is_an_error_or_a_plan() {
        let bytes = std::fs::read(FIXTURE).unwrap();
        // Miri is a thousand times slower.
        let step = if cfg!(miri) { 101 } else { 1 };
        for length in (0..bytes.len()).step_by(step) {
            assert!(parse(&bytes[..length]).is_err());
        }
        for at in (0..bytes.len()).step_by(step) {
            for change in [1, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let _ = parse(&changed);
            }
        }
    }

    /// One list of many chunks under many names: what is shared in the pickle is not copied without end.
    #[test]
    fn repeated_values_cost_no_more_than_the_file_is_worth() {
        let count = if cfg!(miri) { 50 } else { 5000 };
        let chunk = b"ca\nb\n)\x81}(X\x07\0\0\0offsets)X\x05\0\0\0sizes)ub";
        let mut pickle = b"\x80\x02ca\nb\n)\x81}X\x13\0\0\0state_dict_metadata}(".to_vec();
        pickle.extend(b"X\x01\0\0\0_ca\nb\n)\x81}(X\x04\0\0\0size)X\x06\0\0\0chunks](");
        pickle.extend(chunk.repeat(count));
        pickle.extend(b"eq\0ubq\x01");
        for number in 0..count {
            pickle.extend(format!("X\x04\0\0\0{number:04}h\x01").bytes());
        }
        pickle.extend(b"usb.");
        assert!(matches!(parse(&pickle), Err(Error::Limit { .. })));
    }
}
