//! What the heads of like files have in common, so that the next one is compared instead of parsed.
//!
//! The samples of a data set are written by one program: their heads have the same length and differ in the name of the
//! archive, in checksums, and in a scalar or two among their values. A [`Template`] is the head of such a file and the places
//! where another may differ without being different: anything that matches it has the same tensors in the same places.
//!
//! What makes that sure:
//!
//! * All that parsing looked at is compared: signature, pickle, directory, end records and the records that say how others are
//!   to be read. Where it had to look at more (local headers, compressed records, several pickles), there is no template.
//! * A number or a text is free only if all it does is to be a value in a container. Which ones are is found by running the
//!   pickle once more with a different number in each place: a free one turns up exactly once, in a list, tuple or dict
//!   (not as a key) that nothing else refers to, and neither does anything else refer to the containers around it.
//! * The name of the archive may be any other of its length without a slash, if it is the same in all records. All names are
//!   compared below it, so none can become another's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::checkpoint::{ByteOrder, Checkpoint, Fingerprint};
use crate::container::{
    Archive, Container, File, NoRecords, PICKLE_RECORD, Pickles, Record, SMALL_RECORDS, digest, ends_alike,
    name_hash,
};
use crate::limits::Limits;
use crate::pickle::{
    Machine, Node, NodeId, PersistentId, PersistentIds, Raw, Root, SHAPES_FROM_NODES, Tree, opcode as op,
};
use crate::source::Source;
use crate::structure::PartKind;

/// Numbers and texts in a pickle that are told apart: as many as fit into the shortest numbers.
const SCALARS_MAX: usize = 256;
/// Longer pickles and directories are not those of small files, which this is for.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// A signature is all that parsing looks at in the beginning of an archive, but for the pickle.
const SIGNATURE_BYTES: usize = 4;

/// The head of a file, as a template for others like it.
///
/// ```
/// use pt_format::{Checkpoint, Limits, Scalar, Template, write};
/// let sample = |y: i64| {
///     let x = write::Tensor::new::<f32>(&[2], &[1.0, 2.0])?;
///     write::to_vec(&write::Object::dict([("x", x.into()), ("y", y.into())]))
/// };
/// let (first, second) = (sample(3)?, sample(4)?);
/// let checkpoint = Checkpoint::parse(&first, &Limits::default())?;
/// let template = Template::of(&first, &checkpoint, &Limits::default()).unwrap();
///
/// let alike = template.compare(&second).unwrap();
/// assert_eq!(alike.fingerprint(), Checkpoint::parse(&second, &Limits::default())?.fingerprint());
/// // The bytes of `x` lie where they lie in the first file.
/// let places = checkpoint.storages().map(|storage| storage.record().unwrap().data_offset);
/// assert!(alike.records().map(|record| record.data_offset).eq(places));
/// // The first scalar of the file is an integer.
/// assert_eq!(alike.scalars().collect::<Vec<_>>(), [(0, Scalar::Int(4))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Template {
    file_bytes: u64,
    pickle: Stretch,
    /// Directory and end records.
    end: Stretch,
    directory_bytes: usize,
    /// Signature and small records.
    fixed: Vec<Stretch>,
    /// Where in `end` the name of the archive stands.
    roots: Vec<Range<usize>>,
    /// Where in `end` the checksum of each record stands that has bytes.
    crcs: Vec<Range<usize>>,
    storages: Vec<Storage>,
    scalars: Vec<FreeScalar>,
    byte_order: ByteOrder,
    covers_content: bool,
}

/// A run of the file.
#[derive(Debug)]
struct Stretch {
    offset: u64,
    bytes: Vec<u8>,
    /// What may differ: sorted, apart from each other.
    free: Vec<Range<usize>>,
}

/// A storage of the file: what holds it, and where in [`Template::end`] its name and checksum stand.
#[derive(Debug)]
struct Storage {
    record: Record,
    name: Range<usize>,
    crc32: Range<usize>,
}

/// A number or text that may be another.
#[derive(Debug)]
struct FreeScalar {
    /// Which plain scalar of the file it is, counted over [`Checkpoint::structure`].
    leaf: usize,
    opcode: u8,
    /// Where in the pickle it stands.
    place: Range<usize>,
}

/// A scalar among the values of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'p> {
    /// `int`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(&'p str),
}

/// The head of a file that matches a [`Template`].
#[derive(Debug)]
pub struct Alike<'s, 't> {
    template: &'t Template,
    pickle: Cow<'s, [u8]>,
    end: Cow<'s, [u8]>,
}

impl Template {
    /// Makes a template of a file that was parsed, `None` where it cannot be one: it has faults, tensors by the dozen, or a
    /// structure that takes more than its head to see. It holds for files that are parsed with the same limits.
    pub fn of<S: Source + ?Sized>(source: &S, checkpoint: &Checkpoint<'_>, limits: &Limits) -> Option<Self> {
        // Larger trees share tuples of equal integers.
        let is_small = checkpoint.tree.nodes.len() < SHAPES_FROM_NODES;
        let is_sound = checkpoint.check().is_ok() && !checkpoint.aliases_cut();
        if checkpoint.container() != Container::Zip || !is_small || !is_sound {
            return None;
        }
        let File::Pickles(archive, pickles) = File::read(source, limits).ok()? else { return None };
        let directory = archive.directory_offset();
        let end_bytes = usize::try_from(source.len() - directory).ok()?;
        // Before another alignment is known, the header of the record that tells it is read.
        if end_bytes.max(pickles.bytes().len()) > HEAD_BYTES_MAX || !archive.has_usual_alignment() {
            return None;
        }
        let scalars = free_scalars(&pickles, checkpoint, limits)?;
        let pickle = Stretch {
            offset: seen(&archive, archive.find_in_root(PICKLE_RECORD)?)?.data_offset,
            bytes: pickles.bytes().to_vec(),
            free: scalars.iter().map(|scalar| scalar.place.clone()).collect(),
        };
        let mut fixed = vec![Stretch::read(source, 0, SIGNATURE_BYTES)?];
        for name in SMALL_RECORDS {
            if let Some(index) = archive.find_in_root(name) {
                let record = seen(&archive, index)?;
                fixed.push(Stretch::read(source, record.data_offset, record.bytes.try_into().ok()?)?);
            }
        }
        let mut template = Self {
            file_bytes: source.len(),
            pickle,
            end: Stretch::read(source, directory, end_bytes)?,
            directory_bytes: archive.directory().len(),
            fixed,
            roots: Vec::new(),
            crcs: Vec::new(),
            storages: Vec::new(),
            scalars,
            byte_order: checkpoint.byte_order(),
            covers_content: checkpoint.fingerprint().covers_content,
        };
        template.take_records(&archive, checkpoint)?;
        Some(template)
    }

    /// Takes down where in the directory names and checksums stand, and which of them are those of storages.
    fn take_records<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        checkpoint: &Checkpoint<'_>,
    ) -> Option<()> {
        let root = archive.root();
        for entry in archive.entries() {
            let place = entry.name_place();
            let below = archive.name(entry).strip_prefix(root)?;
            if root.is_empty() || !below.starts_with(b"/") {
                return None;
            }
            self.roots.push(place.start..place.start + root.len());
            if entry.size > 0 {
                self.crcs.push(entry.crc32_place());
            }
            self.end.free.extend([entry.crc32_place(), self.roots.last()?.clone()]);
        }
        for storage in checkpoint.storages() {
            let record = storage.record().filter(|_| storage.fault().is_none())?;
            let holds = |index: &usize| Some(archive.entries()[*index].header_offset) == record.header_offset;
            let index = (0..archive.entries().len()).find(holds)?;
            if seen(archive, index)? != record {
                return None;
            }
            let entry = &archive.entries()[index];
            self.storages.push(Storage { record, name: entry.name_place(), crc32: entry.crc32_place() });
        }
        let is_sorted = self.end.free.windows(2).all(|pair| pair[0].end <= pair[1].start);
        (is_sorted && ends_alike(&self.end.bytes, &self.end.free)).then_some(())
    }

    /// Compares another file with the template, `None` if it must be parsed: it may be anything then.
    pub fn compare<'s, S: Source + ?Sized>(&self, source: &'s S) -> Option<Alike<'s, '_>> {
        if source.len() != self.file_bytes {
            return None;
        }
        let end = self.end.compare(source)?;
        let root = &end[self.roots.first()?.clone()];
        if root.contains(&b'/') || self.roots.iter().any(|other| end[other.clone()] != *root) {
            return None;
        }
        let is_covered = |place: &Range<usize>| end[place.clone()] != [0; size_of::<u32>()];
        if self.crcs.iter().all(is_covered) != self.covers_content {
            return None;
        }
        let pickle = self.pickle.compare(source)?;
        let is_fixed = self.fixed.iter().all(|stretch| stretch.compare(source).is_some());
        // What is not Unicode is no plain scalar.
        let is_read = |scalar: &FreeScalar| scalar.read(&pickle).is_some();
        (is_fixed && self.scalars.iter().all(is_read)).then_some(Alike { template: self, pickle, end })
    }
}

impl Alike<'_, '_> {
    /// Returns the fingerprint of the file: the one that parsing it gives.
    pub fn fingerprint(&self) -> Fingerprint {
        let Template { directory_bytes, byte_order, covers_content, .. } = *self.template;
        let directory = &self.end[..directory_bytes];
        Fingerprint { digest: digest(directory, &self.pickle, byte_order), covers_content }
    }

    /// Returns the record of each storage, in the order of [`Checkpoint::storages`].
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record> {
        self.template.storages.iter().map(|Storage { record, name, crc32 }| {
            let crc32 = self.end[crc32.clone()].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            Record { crc32, name_hash: name_hash(&self.end[name.clone()]), ..*record }
        })
    }

    /// Returns the plain scalars of the file that may be others than the template's, each with its number: counted over the
    /// parts of [`Checkpoint::structure`] that are [`PartKind::Leaf`].
    pub fn scalars(&self) -> impl Iterator<Item = (usize, Scalar<'_>)> {
        self.template.scalars.iter().filter_map(|scalar| Some((scalar.leaf, scalar.read(&self.pickle)?)))
    }
}

impl FreeScalar {
    /// Reads it in a pickle; `None` for a text that is not Unicode.
    fn read<'p>(&self, pickle: &'p [u8]) -> Option<Scalar<'p>> {
        let argument = &pickle[self.place.clone()];
        match self.opcode {
            op::BININT1 => argument.first().map(|&byte| Scalar::Int(byte.into())),
            op::BININT2 => argument.first_chunk().map(|bytes| Scalar::Int(u16::from_le_bytes(*bytes).into())),
            op::BININT => argument.first_chunk().map(|bytes| Scalar::Int(i32::from_le_bytes(*bytes).into())),
            op::BINFLOAT => argument.first_chunk().map(|bytes| Scalar::Float(f64::from_be_bytes(*bytes))),
            _ => std::str::from_utf8(argument).ok().map(Scalar::Str),
        }
    }
}

impl Stretch {
    fn read<S: Source + ?Sized>(source: &S, offset: u64, length: usize) -> Option<Self> {
        let bytes = source.read_at(offset, length).ok()?.into_owned();
        Some(Self { offset, bytes, free: Vec::new() })
    }

    /// Returns what stands there in another file, if it is the same but for what may differ.
    fn compare<'s, S: Source + ?Sized>(&self, source: &'s S) -> Option<Cow<'s, [u8]>> {
        let bytes = source.read_at(self.offset, self.bytes.len()).ok()?;
        let mut start = 0;
        for free in &self.free {
            if bytes[start..free.start] != self.bytes[start..free.start] {
                return None;
            }
            start = free.end;
        }
        (bytes[start..] == self.bytes[start..]).then_some(bytes)
    }
}

/// Returns a record whose place shows in the directory alone, and which is usable as it stands.
fn seen<S: Source + ?Sized>(archive: &Archive<'_, S>, index: usize) -> Option<Record> {
    let entry = &archive.entries()[index];
    let record = archive.record(index).ok()?;
    let is_seen = archive.computed_data_start(index) == Some(record.data_offset);
    (is_seen && entry.is_stored() && entry.fault().is_none()).then_some(record)
}

/// The numbers and texts of a pickle, each with a mark: its place in the list. A number is that number once it is
/// [written](Self::write); a text is known by where it starts.
#[derive(Default)]
struct Marks {
    scalars: Vec<(u8, Range<usize>)>,
    texts: HashMap<u64, usize>,
}

impl Marks {
    /// Marks what the opcode at this place of a pickle makes; `None` where it might be taken for something marked, and where
    /// there are too many.
    fn add(&mut self, text: &[u8], at: usize) -> Option<()> {
        let opcode = text[at];
        let length = |bytes: usize| {
            let length = text.get(at + 1..at + 1 + bytes)?.iter().rev();
            Some(length.fold(0, |length, &byte| length << 8 | usize::from(byte)))
        };
        let (before, bytes) = match opcode {
            op::BININT1 => (0, 1),
            op::BININT2 => (0, 2),
            op::BININT => (0, 4),
            op::BINFLOAT => (0, 8),
            op::SHORT_BINUNICODE => (1, length(1)?),
            op::BINUNICODE => (4, length(4)?),
            op::LONG1 | op::LONG4 | op::INT | op::LONG | op::FLOAT => return None,
            _ => return Some(()),
        };
        let start = at + 1 + before;
        if before > 0 && bytes > 0 {
            self.texts.insert(start as u64, self.scalars.len());
        }
        self.scalars.push((opcode, start..start + bytes));
        (self.scalars.len() <= SCALARS_MAX).then_some(())
    }

    /// Writes its mark into every number.
    fn write(&self, text: &mut [u8]) {
        for (mark, (opcode, place)) in self.scalars.iter().enumerate() {
            let argument = &mut text[place.clone()];
            match *opcode {
                op::BINFLOAT => argument.copy_from_slice(&(mark as f64).to_be_bytes()),
                // Little-endian integers.
                op::BININT1 | op::BININT2 | op::BININT => {
                    argument.fill(0);
                    argument[0] = mark as u8;
                }
                _ => {}
            }
        }
    }

    /// Returns the mark of a value.
    fn of(&self, value: Raw) -> Option<usize> {
        match value {
            Raw::Int(mark) => usize::try_from(mark).ok(),
            Raw::Float(mark) => Some(mark as usize),
            Raw::Str { start, .. } => self.texts.get(&start).copied(),
            _ => None,
        }
    }
}

/// Finds the scalars that may be others: see the top of this file.
fn free_scalars(
    pickles: &Pickles<'_>,
    checkpoint: &Checkpoint<'_>,
    limits: &Limits,
) -> Option<Vec<FreeScalar>> {
    let mut parts = pickles.parts();
    let (1, Some(pickle)) = (parts.len(), parts.next()) else { return None };
    let mut text = pickle.text.to_vec();
    let run = |text: &[u8], watch: &mut dyn FnMut(usize)| {
        let tree = Tree::new(Cow::Owned(text.to_vec()));
        let ids = PersistentIds::Storage;
        Machine::run_watched(tree, 0..text.len(), ids, limits, pickle.record, Some(watch)).ok()
    };
    let (mut marks, mut is_marked) = (Marks::default(), true);
    run(&text, &mut |at| is_marked = is_marked && marks.add(&text, at).is_some())?;
    if !is_marked {
        return None;
    }
    marks.write(&mut text);
    let (mut tree, root, _) = run(&text, &mut |_| ())?;
    if tree.nodes.len() != checkpoint.tree.nodes.len() {
        return None;
    }
    let is_free = free_marks(&tree, root, &marks);
    tree.roots.push(Root::new(root, pickle.record));
    let (container, byte_order) = (checkpoint.container(), checkpoint.byte_order());
    let fingerprint = checkpoint.fingerprint();
    let marked = Checkpoint::assemble(tree, &NoRecords, limits, container, byte_order, fingerprint).ok()?;
    let parts = marked.structure().map(|part| part.kind);
    if marked.node_states != checkpoint.node_states || !parts.eq(checkpoint.structure().map(|part| part.kind))
    {
        return None;
    }
    let leaves = marked.structure().filter(|part| part.kind == PartKind::Leaf);
    let free = leaves.enumerate().filter_map(|(leaf, part)| {
        let mark = marks.of(part.value.raw).filter(|&mark| is_free[mark])?;
        let (opcode, place) = marks.scalars[mark].clone();
        Some(FreeScalar { leaf, opcode, place })
    });
    let mut free: Vec<_> = free.collect();
    free.sort_by_key(|scalar| scalar.place.start);
    Some(free)
}

/// Tells of each marked scalar whether all it does is to be a value in a container that nothing else refers to.
fn free_marks(tree: &Tree<'_>, root: Raw, marks: &Marks) -> Vec<bool> {
    let mut references = vec![0u32; tree.nodes.len()];
    refer_all(tree, |node| {
        if let Some(count) = references.get_mut(node as usize) {
            *count += 1;
        }
    });
    let mut seen = vec![0u32; marks.scalars.len()];
    let names = tree.globals.iter().flat_map(|global| [global.module, global.name]).map(Raw::string);
    for mark in tree.items.iter().copied().chain(names).filter_map(|value| marks.of(value)) {
        if let Some(seen) = seen.get_mut(mark) {
            *seen += 1;
        }
    }
    let mut is_free = vec![false; marks.scalars.len()];
    let mut open: Vec<NodeId> =
        root.node().into_iter().filter(|&root| references[root as usize] == 0).collect();
    while let Some(node) = open.pop() {
        let values: Vec<Raw> = match tree.node(node) {
            Node::Dict(pairs) => tree.sequence(pairs).skip(1).step_by(2).collect(),
            Node::List(items) => tree.sequence(items).collect(),
            Node::Tuple(run) => tree.run(run).to_vec(),
            _ => continue,
        };
        for value in values {
            match (value, marks.of(value)) {
                (Raw::Node(child), _) if references[child as usize] == 1 => open.push(child),
                (_, Some(mark)) if seen.get(mark) == Some(&1) => is_free[mark] = true,
                _ => {}
            }
        }
    }
    is_free
}

/// Names every node as often as something refers to it.
fn refer_all(tree: &Tree<'_>, mut refer: impl FnMut(NodeId)) {
    for node in tree.items.iter().filter_map(|item| item.node()) {
        refer(node);
    }
    for &node in &tree.nodes {
        match node {
            Node::Object { callable, args, .. } => {
                refer(callable);
                refer(args);
            }
            Node::Persistent(PersistentId::Node(id)) => refer(id),
            _ => {}
        }
    }
    for extra in &tree.extras {
        refer(extra.kwargs);
    }
}
