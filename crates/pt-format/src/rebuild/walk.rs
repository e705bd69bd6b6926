//! The walk through the value tree: every tensor under the name of its path.
//!
//! Depth-first with a stack of its own, in file order. A container met again is walked again, so that shared tensors
//! are listed under all their names, but on a budget: a graph of thirty lists can hold 10^30 paths.

use std::fmt::Write;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Items, Known, Node, NodeId, Pairs, Raw, Tree, repr};
use crate::rebuild::storage::{Records, StorageTable};
use crate::rebuild::tensor::{Parsed, Rebuilder};
use crate::tensor::{Details, Flags, StorageRow, TensorRow};

/// Tensors nested deeper than this are refused: their names alone could fill the memory.
const NAMED_DEPTH_MAX: usize = 1024;
/// All names of a file together. 100,000 tensors of a large model have 6 MB.
const NAME_BYTES_MAX: usize = 256 << 20;
/// Sequences longer than this hold data, not labels: their scalars are no leaves.
const LEAF_SEQUENCE_MAX: u32 = 64;
/// Below this, comparing keys with each other is cheaper than hashing them.
const SMALL_DICT: u32 = 8;

/// One component of a path, linked to the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathStep {
    pub(crate) parent: u32,
    pub(crate) component: Component,
    /// Left out of the dotted name: `_modules`, `_parameters`, `_buffers` of an `nn.Module`.
    pub(crate) elided: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Component {
    Root,
    Key(Raw),
    Position(u32),
    Fixed(&'static str),
}

/// A plain scalar that stands in dicts and short sequences only: a label, an id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) step: u32,
    pub(crate) value: Raw,
}

/// Everything the walk found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) tensors: Vec<TensorRow>,
    pub(crate) storages: Vec<StorageRow>,
    pub(crate) dims: Vec<u64>,
    pub(crate) names: String,
    pub(crate) steps: Vec<PathStep>,
    pub(crate) leaves: Vec<Leaf>,
    /// Tensor number by node, plus [`TENSOR`]; below that, what the walk knows of the node.
    pub(crate) states: Vec<u32>,
    /// Some paths to shared containers were left out.
    pub(crate) aliases_cut: bool,
}

const UNSEEN: u32 = 0;
const OPEN: u32 = 1;
const DONE: u32 = 2;
/// Added to the tensor number in [`Found::states`].
pub(crate) const TENSOR: u32 = 3;

/// Finds the tensors of a tree.
pub(crate) fn walk(tree: &Tree<'_>, records: &dyn Records, limits: &Limits) -> Result<Found> {
    let rebuilder = Rebuilder { tree, storages: StorageTable::new(records), limits };
    let mut walk = Walk {
        tree,
        rebuilder,
        alias_budget: limits.alias_paths,
        stack: Vec::new(),
        found: Found {
            tensors: Vec::new(),
            storages: Vec::new(),
            dims: Vec::new(),
            names: String::new(),
            steps: vec![PathStep { parent: 0, component: Component::Root, elided: true }],
            leaves: Vec::new(),
            states: vec![UNSEEN; tree.nodes.len()],
            aliases_cut: false,
        },
    };
    walk.visit(tree.root, 0, Place { leaves: true, ..Place::default() })?;
    while let Some(frame) = walk.stack.last_mut() {
        match frame.children.next() {
            None => {
                let frame = walk.stack.pop();
                if let Some(node) = frame.and_then(|frame| frame.opened) {
                    // A tensor keeps its number; a container is done.
                    let state = &mut walk.found.states[node as usize];
                    *state = (*state).max(DONE);
                }
            }
            Some((component, value)) => {
                let (step, place, elides) = (frame.step, frame.place, frame.elides_module_slots);
                if place.again {
                    match walk.alias_budget.checked_sub(1) {
                        Some(left) => walk.alias_budget = left,
                        None => {
                            walk.found.aliases_cut = true;
                            walk.cut_frame();
                            continue;
                        }
                    }
                }
                walk.child(component, value, step, place, elides)?;
            }
        }
    }
    let Walk { rebuilder, mut found, .. } = walk;
    found.storages = rebuilder.storages.into_rows();
    Ok(found)
}

/// What is inherited from container to content.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Inside a container that was walked before.
    again: bool,
    /// Scalars here are leaves.
    leaves: bool,
    /// Inside a composite tensor.
    part: bool,
}

struct Frame<'t> {
    /// The node to mark as done afterwards.
    opened: Option<NodeId>,
    step: u32,
    place: Place,
    elides_module_slots: bool,
    children: Children<'t>,
}

/// What is still to visit in a container.
enum Children<'t> {
    Items { items: Items<'t>, position: u32 },
    Pairs { pairs: Pairs<'t>, shadowed: Vec<u32>, position: u32 },
    Parts(std::vec::IntoIter<(Component, Raw)>),
}

impl Children<'_> {
    fn next(&mut self) -> Option<(Component, Raw)> {
        match self {
            Self::Items { items, position } => {
                let value = items.next()?;
                *position += 1;
                Some((Component::Position(*position - 1), value))
            }
            Self::Pairs { pairs, shadowed, position } => loop {
                let (key, value) = pairs.next()?;
                *position += 1;
                // `shadowed` is sorted and empty in all but the oddest files.
                if shadowed.is_empty() || shadowed.binary_search(&(*position - 1)).is_err() {
                    return Some((Component::Key(key), value));
                }
            },
            Self::Parts(parts) => parts.next(),
        }
    }
}

struct Walk<'t, 's, 'r> {
    tree: &'t Tree<'s>,
    rebuilder: Rebuilder<'t, 's, 'r>,
    alias_budget: usize,
    stack: Vec<Frame<'t>>,
    found: Found,
}

impl<'t> Walk<'t, '_, '_> {
    /// Drops the innermost frame without finishing it.
    fn cut_frame(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.children = Children::Parts(Vec::new().into_iter());
        }
    }

    fn child(&mut self, component: Component, value: Raw, parent: u32, place: Place, elides: bool) -> Result<()> {
        match value {
            Raw::Node(_) => {}
            _ if !place.leaves || place.again => return Ok(()),
            _ => {}
        }
        let elided = elides
            && matches!(component, Component::Key(key)
                if matches!(self.tree.str_bytes(key), Some(b"_modules" | b"_parameters" | b"_buffers")));
        let step = self.found.steps.len() as u32;
        self.found.steps.push(PathStep { parent, component, elided });
        self.visit(value, step, place)
    }

    fn visit(&mut self, value: Raw, step: u32, mut place: Place) -> Result<()> {
        let Raw::Node(node) = value else {
            if place.leaves {
                self.found.leaves.push(Leaf { step, value });
            }
            return Ok(());
        };
        match self.found.states[node as usize] {
            UNSEEN => {}
            OPEN => return Ok(()),
            DONE => place.again = true,
            tensor => return self.alias(tensor - TENSOR, step, place),
        }
        match self.tree.node(node) {
            Node::Tuple(run) | Node::FrozenSet(run) => {
                place.leaves &= run.length <= LEAF_SEQUENCE_MAX;
                let items = self.tree.run_items(run);
                self.open(Some(node), step, place, Children::Items { items, position: 0 });
            }
            Node::List(sequence) | Node::Set(sequence) => {
                place.leaves &= sequence.length <= LEAF_SEQUENCE_MAX;
                let items = self.tree.sequence(sequence);
                self.open(Some(node), step, place, Children::Items { items, position: 0 });
            }
            Node::Dict(_) => self.open_pairs(Some(node), value, step, place, false),
            Node::Object { .. } => return self.object(node, step, place),
            Node::Persistent(pid) => {
                // A bare storage: noted, so that the value tree can speak of it.
                if let Ok(storage) = self.rebuilder.storages.storage(self.tree, self.tree.items[pid as usize]) {
                    let _ = storage.index;
                }
            }
            Node::Global(_) | Node::BigInt { .. } | Node::ByteArray { .. } => {}
        }
        Ok(())
    }

    fn open(&mut self, opened: Option<NodeId>, step: u32, place: Place, children: Children<'t>) {
        if let Some(node) = opened {
            let state = &mut self.found.states[node as usize];
            if *state <= DONE {
                *state = OPEN;
            }
        }
        self.stack.push(Frame { opened, step, place, elides_module_slots: false, children });
    }

    fn open_pairs(&mut self, opened: Option<NodeId>, dict: Raw, step: u32, place: Place, elides: bool) {
        let Some(pairs) = self.tree.pairs(dict) else { return };
        let shadowed = shadowed_keys(self.tree, pairs.clone());
        self.open(opened, step, place, Children::Pairs { pairs, shadowed, position: 0 });
        if let Some(frame) = self.stack.last_mut() {
            frame.elides_module_slots = elides;
        }
    }

    fn object(&mut self, node: NodeId, step: u32, place: Place) -> Result<()> {
        if let Some(parsed) = self.rebuilder.tensor(node) {
            return self.tensor(node, parsed, step, place);
        }
        let tree = self.tree;
        let Node::Object { callable, args, extra } = tree.node(node) else { return Ok(()) };
        let known = tree.known(callable);
        let args = tree.args(args);
        if known == Known::JitContainer {
            return args.first().map_or(Ok(()), |&inner| self.visit(inner, step, place));
        }
        // Only plain containers hold leaves; an object's insides are its own business.
        let inside = Place { leaves: false, ..place };
        let is_dict = known.is_dict();

        // The last frame pushed is walked first: arguments, items, state. The first one closes the object.
        let extra = tree.extra(extra);
        self.open_parts(Some(node), step, inside, Vec::new());
        for state in tree.sequence(extra.states).collect::<Vec<_>>().into_iter().rev() {
            self.open_state(state, step, inside, is_dict);
        }
        if extra.pairs.length > 0 {
            let pairs = Pairs::of(tree.sequence(extra.pairs));
            let shadowed = shadowed_keys(tree, pairs.clone());
            let place = if is_dict { place } else { inside };
            self.open(None, step, place, Children::Pairs { pairs, shadowed, position: 0 });
        }
        if extra.appended.length > 0 {
            let items = tree.sequence(extra.appended);
            self.open(None, step, inside, Children::Items { items, position: 0 });
        }
        match known {
            // Python 2 writes OrderedDict([[key, value], …]).
            Known::OrderedDict => {
                let pairs = args.first().and_then(|&list| tree.elements(list)).into_iter().flatten();
                let pairs: Vec<_> = pairs
                    .filter_map(|pair| {
                        let mut pair = tree.elements(pair)?;
                        Some((Component::Key(pair.next()?), pair.next()?))
                    })
                    .collect();
                if !pairs.is_empty() {
                    self.open_parts(None, step, place, pairs);
                }
            }
            Known::DefaultDict | Known::Size | Known::Device | Known::GetLayout | Known::CodecsEncode => {}
            Known::Set | Known::FrozenSet => {
                if let Some(&list) = args.first() {
                    self.visit(list, step, inside)?;
                }
            }
            _ if !args.is_empty() => {
                let args_step = self.fixed_step(step, "__args__");
                let args = args.iter().zip(0..).map(|(&value, position)| (Component::Position(position), value));
                self.open_parts(None, args_step, inside, args.collect());
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the state that BUILD gave an object: its attributes, or anything under `__state__`.
    fn open_state(&mut self, state: Raw, step: u32, place: Place, of_dict: bool) {
        let tree = self.tree;
        let step = if of_dict { self.fixed_step(step, "__dict__") } else { step };
        if tree.pairs(state).is_some() {
            let is_module = [&b"_modules"[..], b"_parameters", b"_buffers"]
                .iter()
                .all(|key| tree.dict_get(state, key).is_some());
            return self.open_pairs(None, state, step, place, is_module);
        }
        let elements: Vec<Raw> = match state.node().map(|node| tree.node(node)) {
            Some(Node::Tuple(run)) => tree.run(run).to_vec(),
            _ => vec![],
        };
        // (instance dict or None, slots dict or None), as `copyreg` writes it.
        let is_slots = elements.len() == 2
            && elements.iter().all(|&part| matches!(part, Raw::None) || tree.pairs(part).is_some());
        if is_slots {
            for &part in elements.iter().rev() {
                self.open_pairs(None, part, step, place, false);
            }
        } else {
            self.open_parts(None, step, place, vec![(Component::Fixed("__state__"), state)]);
        }
    }

    fn open_parts(&mut self, opened: Option<NodeId>, step: u32, place: Place, parts: Vec<(Component, Raw)>) {
        self.open(opened, step, place, Children::Parts(parts.into_iter()));
    }

    fn fixed_step(&mut self, parent: u32, name: &'static str) -> u32 {
        let step = self.found.steps.len() as u32;
        self.found.steps.push(PathStep { parent, component: Component::Fixed(name), elided: false });
        step
    }

    fn tensor(&mut self, node: NodeId, parsed: Parsed, step: u32, place: Place) -> Result<()> {
        let index = self.found.tensors.len() as u32;
        self.found.states[node as usize] = TENSOR + index;
        let (name_start, name_bytes) = self.name(step)?;
        let mut flags = parsed.flags;
        flags.set(Flags::PART, place.part);
        let dims_start = self.found.dims.len() as u32;
        let rank = parsed.shape.as_ref().map(|shape| shape.len() as u16);
        self.found.dims.extend(parsed.shape.iter().flatten());
        self.found.dims.extend(&parsed.stride);
        let details = Details { fault: parsed.fault, quantizer: parsed.quantizer, coalesced: parsed.coalesced };
        let has_details = details.fault.is_some() || details.quantizer.is_some() || details.coalesced.is_some();
        self.push_row(TensorRow {
            name_start,
            name_bytes,
            step,
            dims_start,
            rank,
            dtype: parsed.dtype,
            layout: parsed.layout,
            flags,
            storage: parsed.storage,
            storage_offset: parsed.storage_offset,
            alias_of: None,
            class: parsed.class,
            details: has_details.then(|| Box::new(details)),
        })?;
        let inside = Place { leaves: false, ..place };
        if let Some(state) = parsed.state {
            if !matches!(state, Raw::None) {
                self.open_state(state, step, inside, false);
            }
        }
        if !parsed.parts.is_empty() {
            let place = Place { part: true, ..inside };
            self.open_parts(None, step, place, parsed.parts);
        }
        Ok(())
    }

    /// Lists a tensor once more, under another name.
    fn alias(&mut self, first: u32, step: u32, place: Place) -> Result<()> {
        let Some(left) = self.alias_budget.checked_sub(1) else {
            self.found.aliases_cut = true;
            return Ok(());
        };
        self.alias_budget = left;
        let (name_start, name_bytes) = self.name(step)?;
        let mut row = self.found.tensors[first as usize].clone();
        row.flags.set(Flags::PART, place.part);
        self.push_row(TensorRow { name_start, name_bytes, step, alias_of: Some(first), ..row })
    }

    fn push_row(&mut self, row: TensorRow) -> Result<()> {
        let limit = self.rebuilder.limits.tensors;
        if self.found.tensors.len() >= limit {
            let found = limit as u64 + 1;
            return Err(Error::Limit { what: "tensors", found, limit: limit as u64, field: "tensors" });
        }
        self.found.tensors.push(row);
        Ok(())
    }

    /// Writes the dotted name of a path behind the other names.
    fn name(&mut self, step: u32) -> Result<(u32, u32)> {
        let start = self.found.names.len();
        let mut chain = [0u32; 16];
        let mut deep = Vec::new();
        let mut depth = 0;
        let mut at = step;
        while at != 0 {
            let here = self.found.steps[at as usize];
            if !here.elided {
                match chain.get_mut(depth) {
                    Some(slot) => *slot = at,
                    None => deep.push(at),
                }
                depth += 1;
            }
            if depth > NAMED_DEPTH_MAX {
                return Err(Error::Limit {
                    what: "nesting of containers around a tensor",
                    found: depth as u64,
                    limit: NAMED_DEPTH_MAX as u64,
                    field: "(none: fixed)",
                });
            }
            at = here.parent;
        }
        let outer = deep.iter().rev();
        let inner = chain[..depth.min(chain.len())].iter().rev();
        for (position, &step) in outer.chain(inner).enumerate() {
            if position > 0 {
                self.found.names.push('.');
            }
            write_component(self.tree, self.found.steps[step as usize].component, &mut self.found.names);
            if self.found.names.len() > NAME_BYTES_MAX {
                return Err(Error::Limit {
                    what: "bytes of tensor names",
                    found: self.found.names.len() as u64,
                    limit: NAME_BYTES_MAX as u64,
                    field: "(none: fixed)",
                });
            }
        }
        Ok((start as u32, (self.found.names.len() - start) as u32))
    }
}

/// Writes a path component as Python's `str()` shows the key.
pub(crate) fn write_component(tree: &Tree<'_>, component: Component, out: &mut String) {
    match component {
        Component::Root => {}
        Component::Fixed(name) => out.push_str(name),
        Component::Position(position) => {
            let _ = write!(out, "{position}");
        }
        Component::Key(key) => match tree.str_bytes(key) {
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => out.push_str(text),
                Err(_) => out.push_str(&String::from_utf8_lossy(bytes)),
            },
            None => out.push_str(&repr(tree, key)),
        },
    }
}

/// Returns the positions of pairs whose key is set again later: the last value counts.
pub(crate) fn shadowed_keys(tree: &Tree<'_>, pairs: Pairs<'_>) -> Vec<u32> {
    let count = pairs.clone().count() as u32;
    let mut shadowed = Vec::new();
    if count <= SMALL_DICT {
        for (position, (key, _)) in pairs.clone().enumerate() {
            if pairs.clone().skip(position + 1).any(|(later, _)| same_key(tree, key, later)) {
                shadowed.push(position as u32);
            }
        }
        return shadowed;
    }
    let hasher = DefaultHashBuilder::default();
    let mut table: HashTable<(Raw, u32)> = HashTable::with_capacity(count as usize);
    for (position, (key, _)) in pairs.enumerate() {
        let hash = hash_key(tree, &hasher, key);
        match table.find_mut(hash, |(other, _)| same_key(tree, key, *other)) {
            Some((_, earlier)) => shadowed.push(std::mem::replace(earlier, position as u32)),
            None => {
                table.insert_unique(hash, (key, position as u32), |(other, _)| hash_key(tree, &hasher, *other));
            }
        }
    }
    shadowed.sort_unstable();
    shadowed
}

/// Equality of dict keys as Python has it: `1`, `True` and `1.0` are one key.
fn same_key(tree: &Tree<'_>, a: Raw, b: Raw) -> bool {
    match (tree.str_bytes(a), tree.str_bytes(b)) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        _ => return false,
    }
    match (a, b) {
        (Raw::None, Raw::None) => true,
        (Raw::Node(a), Raw::Node(b)) => a == b,
        _ => number(a).is_some() && number(a) == number(b),
    }
}

fn hash_key(tree: &Tree<'_>, hasher: &DefaultHashBuilder, key: Raw) -> u64 {
    match (tree.str_bytes(key), number(key), key) {
        (Some(bytes), ..) => hasher.hash_one(bytes),
        (_, Some(number), _) => hasher.hash_one(number),
        (.., Raw::Node(node)) => hasher.hash_one(node),
        _ => 0,
    }
}

fn number(key: Raw) -> Option<i64> {
    match key {
        Raw::Bool(value) => Some(value.into()),
        Raw::Int(value) => Some(value),
        Raw::Float(value) if value == value.trunc() && value.abs() < 9e18 => Some(value as i64),
        Raw::Float(value) => Some(value.to_bits() as i64),
        _ => None,
    }
}
