//! The walk through the value tree: every tensor under the name of its path.
//!
//! Depth-first with a stack of its own, in file order. A container met again is walked again, so that shared tensors
//! are listed under all their names, but on a budget: a graph of thirty lists can hold 10^30 paths.

use std::fmt::Write;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::checkpoint::ByteOrder;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::pickle::{Items, JIT_WRAPPERS_MAX, Known, Node, NodeId, Pairs, Raw, Root, Text, Tree, repr};
use crate::rebuild::nested::Nested;
use crate::rebuild::storage::{Records, StorageTable};
use crate::rebuild::tensor::{Parsed, Rebuilder};
use crate::tensor::{Details, Flags, Layout, StorageRow, TensorRow};

/// Tensors nested deeper than this are refused: their names alone could fill the memory.
const NAMED_DEPTH_MAX: usize = 1024;
/// All names and paths of a file together. 100,000 tensors of a large model have 6 MB.
const NAME_BYTES_MAX: usize = 256 << 20;
/// Names of large models are mostly shorter.
const NAME_BYTES_EXPECTED: usize = 40;
/// What a component of a path costs beside its text, in an index.
const STEP_BYTES: usize = size_of::<u32>();
/// Sizes and strides of all tensors together: thousands of tensors may share one shape of many dimensions.
const DIMS_MAX: usize = 32 << 20;
/// Below this, comparing keys with each other is cheaper than hashing them.
const SMALL_DICT: usize = 8;

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
    /// The key of a dict's entry with this number: a tuple or an object may hold tensors.
    KeyAt(u32),
    /// Some element of a set.
    Item,
    /// A constant of TorchScript code.
    Constant(u32),
}

/// A storage that is a value itself, not merely what a tensor looks into.
#[derive(Debug)]
pub(crate) struct BareStorage {
    pub(crate) step: u32,
    pub(crate) storage: Result<u32, Fault>,
}

/// Everything the walk found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) tensors: Vec<TensorRow>,
    pub(crate) storages: Vec<StorageRow>,
    pub(crate) dims: Vec<u64>,
    pub(crate) names: String,
    pub(crate) steps: Vec<PathStep>,
    /// By node: the number of the tensor or bare storage it is, plus [`ROW`]; below that, what the walk knows of it.
    pub(crate) states: Vec<u32>,
    /// Storages saved as such: where, and which, or why it is none.
    pub(crate) bare_storages: Vec<BareStorage>,
    /// Some paths to shared containers were left out.
    pub(crate) aliases_cut: bool,
}

const UNSEEN: u32 = 0;
const OPEN: u32 = 1;
const DONE: u32 = 2;
/// Added to the number in [`Found::states`].
pub(crate) const ROW: u32 = 3;

/// What a tree is walked with.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) records: &'a dyn Records,
    pub(crate) nested: &'a Nested,
    pub(crate) byte_order: ByteOrder,
    pub(crate) limits: &'a Limits,
}

/// Finds the tensors of a tree.
pub(crate) fn walk(tree: &Tree<'_>, setting: Setting<'_>) -> Result<Found> {
    let Setting { records, nested, byte_order, limits } = setting;
    // Most files have one record for each tensor.
    let expected = records.count().min(tree.nodes.len());
    let storages = StorageTable::new(records, nested);
    let rebuilder = Rebuilder::new(tree, storages, limits, byte_order);
    let mut steps = Vec::with_capacity(1 + expected);
    steps.push(PathStep { parent: 0, component: Component::Root, elided: true });
    let mut walk = Walk {
        tree,
        rebuilder,
        alias_budget: limits.alias_paths,
        tensor_path_bytes: 0,
        stack: Vec::new(),
        found: Found {
            tensors: Vec::with_capacity(expected),
            storages: Vec::new(),
            dims: Vec::new(),
            names: String::with_capacity(NAME_BYTES_EXPECTED * expected),
            steps,
            states: vec![UNSEEN; tree.nodes.len()],
            bare_storages: Vec::new(),
            aliases_cut: false,
        },
    };
    for (number, root) in tree.roots.iter().enumerate() {
        walk.rebuilder.storages.root = number;
        walk.rebuilder.storages.byte_order = root.byte_order;
        walk.rebuilder.storages.is_hollow = root.is_hollow;
        walk.root(root)?;
    }
    let Walk { rebuilder, mut found, .. } = walk;
    found.storages = rebuilder.storages.into_rows();
    found.dims = rebuilder.dims;
    Ok(found)
}

/// What is inherited from container to content.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Inside a container that was walked before.
    again: bool,
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
    Unordered(Items<'t>),
    Pairs(Entries<'t>),
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
            Self::Unordered(items) => Some((Component::Item, items.next()?)),
            Self::Pairs(entries) => entries.next(),
            Self::Parts(parts) => parts.next(),
        }
    }
}

/// Keys that are containers, and values, of a dict.
struct Entries<'t> {
    pairs: Pairs<'t>,
    /// Positions of pairs whose key is set again: sorted, and empty in all but the oddest files.
    shadowed: Vec<u32>,
    position: u32,
    /// Entries handed out.
    count: u32,
    /// The value that belongs to the key handed out last.
    value: Option<(Component, Raw)>,
}

impl<'t> Entries<'t> {
    fn of(tree: &Tree<'_>, pairs: Pairs<'t>) -> Self {
        let shadowed = shadowed_keys(tree, pairs.clone());
        Self { pairs, shadowed, position: 0, count: 0, value: None }
    }

    fn next(&mut self) -> Option<(Component, Raw)> {
        if let Some(value) = self.value.take() {
            return Some(value);
        }
        loop {
            let (key, value) = self.pairs.next()?;
            self.position += 1;
            if !self.shadowed.is_empty() && self.shadowed.binary_search(&(self.position - 1)).is_ok() {
                continue;
            }
            self.count += 1;
            let value = (Component::Key(key), value);
            if let Raw::Node(_) = key {
                self.value = Some(value);
                return Some((Component::KeyAt(self.count - 1), key));
            }
            return Some(value);
        }
    }
}

struct Walk<'t, 's, 'r> {
    tree: &'t Tree<'s>,
    rebuilder: Rebuilder<'t, 's, 'r>,
    alias_budget: usize,
    tensor_path_bytes: usize,
    stack: Vec<Frame<'t>>,
    found: Found,
}

impl<'t> Walk<'t, '_, '_> {
    /// Walks what one pickle left.
    fn root(&mut self, root: &Root) -> Result<()> {
        let mut step = 0;
        for &component in &root.path {
            step = self.step(step, Component::Key(component));
        }
        match self.tree.elements(root.value).filter(|_| root.is_constants) {
            None => self.visit(root.value, step, Place::default())?,
            Some(constants) => {
                let step = self.step(step, Component::Fixed("CONSTANTS"));
                let constants =
                    (0..).zip(constants).map(|(number, value)| (Component::Constant(number), value));
                self.open_parts(None, step, Place::default(), constants.collect());
            }
        }
        self.run()
    }

    /// Visits until every open container is done.
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.stack.last_mut() {
            match frame.children.next() {
                None => {
                    let frame = self.stack.pop();
                    if let Some(node) = frame.and_then(|frame| frame.opened) {
                        // A tensor keeps its number; a container is done.
                        let state = &mut self.found.states[node as usize];
                        *state = (*state).max(DONE);
                    }
                }
                Some((component, value)) => {
                    let (step, place, elides) = (frame.step, frame.place, frame.elides_module_slots);
                    if place.again {
                        match self.alias_budget.checked_sub(1) {
                            Some(left) => self.alias_budget = left,
                            None => {
                                self.found.aliases_cut = true;
                                self.cut_frame();
                                continue;
                            }
                        }
                    }
                    self.child(component, value, step, place, elides)?;
                }
            }
        }
        Ok(())
    }

    /// Drops the innermost frame without finishing it.
    fn cut_frame(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.children = Children::Parts(Vec::new().into_iter());
        }
    }

    fn child(
        &mut self,
        component: Component,
        value: Raw,
        parent: u32,
        place: Place,
        elides: bool,
    ) -> Result<()> {
        let Raw::Node(_) = value else { return Ok(()) };
        let elided = elides
            && matches!(component, Component::Key(key)
                if matches!(self.tree.str_bytes(key), Some(b"_modules" | b"_parameters" | b"_buffers")));
        let step = self.found.steps.len() as u32;
        self.found.steps.push(PathStep { parent, component, elided });
        self.visit(value, step, place)
    }

    fn visit(&mut self, value: Raw, step: u32, place: Place) -> Result<()> {
        let value = unwrapped(self.tree, value);
        let Raw::Node(node) = value else { return Ok(()) };
        if let Node::Persistent(id) = self.tree.node(node) {
            self.bare_storage(node, self.tree.persistent_id(id), step);
            return Ok(());
        }
        if let Some(tensor) = self.found.states[node as usize].checked_sub(ROW) {
            return self.alias(tensor, step, place);
        }
        let Some(place) = self.enter(node, place) else { return Ok(()) };
        match self.tree.node(node) {
            Node::Tuple(run) => {
                let items = self.tree.run_items(run);
                self.open(Some(node), step, place, Children::Items { items, position: 0 });
            }
            Node::List(sequence) => {
                let items = self.tree.sequence(sequence);
                self.open(Some(node), step, place, Children::Items { items, position: 0 });
            }
            Node::FrozenSet(run) => self.open_set(node, self.tree.run_items(run), step, place),
            Node::Set(sequence) => self.open_set(node, self.tree.sequence(sequence), step, place),
            Node::Dict(_) => self.open_pairs(node, value, step, place, false),
            Node::Object { .. } => return self.object(node, step, place),
            Node::Persistent(_) | Node::Global(_) | Node::BigInt { .. } | Node::ByteArray { .. } => {}
        }
        Ok(())
    }

    fn bare_storage(&mut self, node: NodeId, pid: Raw, step: u32) {
        let state = &mut self.found.states[node as usize];
        if *state != UNSEEN {
            return;
        }
        let storage = self.rebuilder.storages.storage(self.tree, pid).map(|storage| storage.index);
        *state = storage.as_ref().map_or(DONE, |index| ROW + index);
        self.found.bare_storages.push(BareStorage { step, storage });
    }

    /// Returns the place for the content of a container, or `None` when it is not to be walked: it is around us, or was
    /// walked before and the budget for that is spent. Whatever is met again costs, also where nothing comes of it.
    fn enter(&mut self, node: NodeId, place: Place) -> Option<Place> {
        let state = self.found.states[node as usize];
        if state == UNSEEN {
            return Some(place);
        }
        match self.alias_budget.checked_sub(1) {
            Some(left) => self.alias_budget = left,
            None => {
                self.found.aliases_cut = true;
                return None;
            }
        }
        (state != OPEN).then_some(Place { again: true, ..place })
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

    fn open_set(&mut self, node: NodeId, items: Items<'t>, step: u32, place: Place) {
        self.open(Some(node), step, place, Children::Unordered(items));
    }

    fn open_pairs(&mut self, opened: NodeId, dict: Raw, step: u32, place: Place, elides: bool) {
        let Some(pairs) = self.tree.pairs(dict) else { return };
        self.open(Some(opened), step, place, Children::Pairs(Entries::of(self.tree, pairs)));
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
        let is_dict = known.is_dict();

        // The last frame pushed is walked first: arguments, items, state. The first one closes the object.
        let extra = tree.extra(extra);
        self.open_parts(Some(node), step, place, Vec::new());
        for state in tree.sequence(extra.states).collect::<Vec<_>>().into_iter().rev() {
            self.open_state(state, step, place, is_dict);
        }
        if extra.pairs.length > 0 {
            let pairs = Pairs::of(tree.sequence(extra.pairs));
            self.open(None, step, place, Children::Pairs(Entries::of(tree, pairs)));
        }
        if extra.appended.length > 0 {
            let items = tree.sequence(extra.appended);
            self.open(None, step, place, Children::Items { items, position: 0 });
        }
        match known {
            Known::OrderedDict => self.open_pair_list(args, step, place),
            Known::DefaultDict | Known::Size | Known::Device | Known::GetLayout | Known::CodecsEncode => {}
            Known::Set | Known::FrozenSet => {
                let list = tree.args(args).first().and_then(|list| list.node());
                let elements = list.and_then(|list| Some((list, tree.elements(Raw::Node(list))?)));
                if let Some((list, items)) = elements
                    && let Some(place) = self.enter(list, place)
                {
                    self.open_set(list, items, step, place);
                }
            }
            _ => self.open_args(args, step, place),
        }
        Ok(())
    }

    /// Python 2 writes OrderedDict([[key, value], …]).
    fn open_pair_list(&mut self, args: NodeId, step: u32, place: Place) {
        let tree = self.tree;
        let Some(list) = tree.args(args).first().and_then(|list| list.node()) else { return };
        let Some(place) = self.enter(list, place) else { return };
        let pairs = tree.elements(Raw::Node(list)).into_iter().flatten().filter_map(|pair| {
            let mut pair = tree.elements(pair)?;
            Some((Component::Key(pair.next()?), pair.next()?))
        });
        self.open_parts(Some(list), step, place, pairs.collect());
    }

    fn open_args(&mut self, args: NodeId, step: u32, place: Place) {
        let items = match self.tree.nodes.get(args as usize) {
            Some(&Node::Tuple(run)) if run.length > 0 => self.tree.run_items(run),
            _ => return,
        };
        let Some(place) = self.enter(args, place) else { return };
        let step = self.fixed_step(step, "__args__");
        self.open(Some(args), step, place, Children::Items { items, position: 0 });
    }

    /// Opens the state that BUILD gave an object: its attributes, or anything under `__state__`.
    fn open_state(&mut self, state: Raw, step: u32, place: Place, of_dict: bool) {
        let tree = self.tree;
        let Raw::Node(node) = state else { return };
        let step = if of_dict { self.fixed_step(step, "__dict__") } else { step };
        if let Some(dicts) = slot_dicts(tree, state) {
            for dict in dicts.into_iter().flatten().rev() {
                if let Some(place) = self.enter(dict, place) {
                    self.open_pairs(dict, Raw::Node(dict), step, place, false);
                }
            }
            return;
        }
        if tree.pairs(state).is_none() {
            return self.open_parts(None, step, place, vec![(Component::Fixed("__state__"), state)]);
        }
        if let Some(place) = self.enter(node, place) {
            let is_module = [&b"_modules"[..], b"_parameters", b"_buffers"].iter().all(|key| {
                tree.pairs(state).into_iter().flatten().any(|(k, _)| tree.str_bytes(k) == Some(*key))
            });
            self.open_pairs(node, state, step, place, is_module);
        }
    }

    fn open_parts(&mut self, opened: Option<NodeId>, step: u32, place: Place, parts: Vec<(Component, Raw)>) {
        self.open(opened, step, place, Children::Parts(parts.into_iter()));
    }

    fn fixed_step(&mut self, parent: u32, name: &'static str) -> u32 {
        self.step(parent, Component::Fixed(name))
    }

    fn step(&mut self, parent: u32, component: Component) -> u32 {
        let step = self.found.steps.len() as u32;
        self.found.steps.push(PathStep { parent, component, elided: false });
        step
    }

    fn tensor(&mut self, node: NodeId, mut parsed: Parsed, step: u32, place: Place) -> Result<()> {
        let index = self.found.tensors.len() as u32;
        self.found.states[node as usize] = ROW + index;
        let (name_start, name_bytes) = self.name(step)?;
        let mut flags = parsed.flags;
        flags.set(Flags::PART, place.part);
        if self.rebuilder.dims.len() > DIMS_MAX {
            let (found, limit) = (self.rebuilder.dims.len() as u64, DIMS_MAX as u64);
            return Err(Error::Limit { what: "sizes and strides of all tensors", found, limit, field: "" });
        }
        let details = parsed.take_details().map(Arc::from);
        let (parts, state) = details
            .as_ref()
            .map_or((&[][..], None), |details: &Arc<Details>| (&details.parts[..], details.state));
        self.push_row(TensorRow {
            name_start,
            name_bytes,
            step,
            dims_start: parsed.dims_start as u32,
            rank: parsed.rank,
            dtype: parsed.dtype,
            layout: parsed.layout,
            flags,
            storage: parsed.storage,
            storage_offset: parsed.storage_offset,
            alias_of: None,
            class: parsed.class,
            details: details.clone(),
        })?;
        // The last frame pushed is walked first: state, parts.
        if !parts.is_empty() {
            self.open_parts(None, step, Place { part: true, ..place }, parts.to_vec());
        }
        if let Some(state) = state {
            // The tensors of a wrapper subclass are its attributes.
            let part = place.part || parsed.layout == Layout::Wrapper;
            self.open_state(state, step, Place { part, ..place }, false);
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
        let (mut depth, mut steps) = (0, 0);
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
            steps += 1;
            if steps > NAMED_DEPTH_MAX {
                return Err(Error::Limit {
                    what: "nesting of containers around a tensor",
                    found: steps as u64,
                    limit: NAMED_DEPTH_MAX as u64,
                    field: "",
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
            self.bound_names()?;
        }
        self.tensor_path_bytes += steps * STEP_BYTES;
        Ok((start as u32, (self.found.names.len() - start) as u32))
    }

    /// Fails when names and paths together have grown too long.
    fn bound_names(&self) -> Result<()> {
        let found = self.found.names.len() + self.tensor_path_bytes;
        if found <= NAME_BYTES_MAX {
            return Ok(());
        }
        Err(Error::Limit {
            what: "bytes of tensor names",
            found: found as u64,
            limit: NAME_BYTES_MAX as u64,
            field: "",
        })
    }
}

/// Looks through the calls that TorchScript puts around lists and dicts, as far as `Value` does.
pub(crate) fn unwrapped(tree: &Tree<'_>, mut value: Raw) -> Raw {
    for _ in 0..JIT_WRAPPERS_MAX {
        let Some(Node::Object { callable, args, .. }) = value.node().map(|node| tree.node(node)) else {
            break;
        };
        if tree.known(callable) != Known::JitContainer {
            break;
        }
        let Some(&inner) = tree.args(args).first() else { break };
        value = inner;
    }
    value
}

/// Returns the dicts of a state of the form `(instance dict or None, slots dict or None)`, as `copyreg` writes it.
pub(crate) fn slot_dicts(tree: &Tree<'_>, state: Raw) -> Option<[Option<NodeId>; 2]> {
    let Node::Tuple(run) = tree.node(state.node()?) else { return None };
    let &[instance, slots] = tree.run(run) else { return None };
    let dict = |part: Raw| match part {
        Raw::None => Some(None),
        _ => tree.pairs(part).map(|_| part.node()),
    };
    Some([dict(instance)?, dict(slots)?])
}

/// Writes a path component as Python's `str()` shows the key.
pub(crate) fn write_component(tree: &Tree<'_>, component: Component, out: &mut String) {
    match component {
        Component::Root => {}
        Component::Fixed(name) => out.push_str(name),
        Component::Item => out.push_str("<item>"),
        Component::KeyAt(number) => {
            let _ = write!(out, "<key {number}>");
        }
        Component::Position(position) => {
            let _ = write!(out, "{position}");
        }
        Component::Constant(number) => {
            let _ = write!(out, "c{number}");
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
    let mut shadowed = Vec::new();
    if pairs.clone().nth(SMALL_DICT).is_none() {
        for (position, (key, _)) in pairs.clone().enumerate() {
            let key = Key::of(tree, key);
            if pairs.clone().skip(position + 1).any(|(later, _)| Key::of(tree, later) == key) {
                shadowed.push(position as u32);
            }
        }
        return shadowed;
    }
    // Keys hardly ever repeat. A bit for each hash singles out those that may; only they are compared.
    let hasher = DefaultHashBuilder::default();
    let hashes: Vec<u32> = pairs.clone().map(|(key, _)| hasher.hash_one(Key::of(tree, key)) as u32).collect();
    let (mut once, mut twice) = (HashBits::for_count(hashes.len()), HashBits::for_count(hashes.len()));
    for &hash in &hashes {
        if !once.insert(hash) {
            twice.insert(hash);
        }
    }
    let suspects = (0u32..).zip(pairs).zip(hashes).filter(|(_, hash)| twice.contains(*hash));
    let mut latest = HashMap::new();
    for ((position, (key, _)), _) in suspects {
        shadowed.extend(latest.insert(Key::of(tree, key), position));
    }
    shadowed.sort_unstable();
    shadowed
}

/// A set of hashes that takes some for others: one bit for each, in a field of 16 for each that is expected.
struct HashBits(Vec<u64>);

impl HashBits {
    fn for_count(count: usize) -> Self {
        Self(vec![0; (count / 4).next_power_of_two()])
    }

    fn place(&self, hash: u32) -> (usize, u64) {
        ((hash as usize / 64) & (self.0.len() - 1), 1 << (hash % 64))
    }

    /// Puts a hash in; false when it, or one taken for it, is there.
    fn insert(&mut self, hash: u32) -> bool {
        let (word, bit) = self.place(hash);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn contains(&self, hash: u32) -> bool {
        let (word, bit) = self.place(hash);
        self.0[word] & bit != 0
    }
}

/// A dict key by what makes it equal to others in Python: `1`, `True` and `1.0` are one key.
#[derive(PartialEq, Eq, Hash)]
enum Key<'t> {
    None,
    Str(&'t [u8]),
    Bytes(&'t [u8]),
    Whole(i64),
    /// Bits of a float that is no whole number.
    Float(u64),
    /// Tuples and objects count as themselves only.
    Node(NodeId),
}

impl<'t> Key<'t> {
    fn of(tree: &'t Tree<'_>, key: Raw) -> Self {
        match key {
            Raw::None => Self::None,
            Raw::Str { length, start } => Self::Str(tree.bytes(Text { length, start })),
            Raw::Bytes { length, start } => Self::Bytes(tree.bytes(Text { length, start })),
            Raw::Bool(value) => Self::Whole(value.into()),
            Raw::Int(value) => Self::Whole(value),
            Raw::Float(value) if value == value.trunc() && value.abs() < 9e18 => Self::Whole(value as i64),
            Raw::Float(value) => Self::Float(value.to_bits()),
            Raw::Node(node) => Self::Node(node),
        }
    }
}
