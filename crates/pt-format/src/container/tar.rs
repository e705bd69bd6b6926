//! The tar archives of torch before 0.1.10.
//!
//! ```text
//! storages   pickle: N · N × { pickle: (key, location, class) · i64 count · bytes } · pickle: [(view, root, offset, count)]
//! tensors    pickle: M · M × { pickle: (key, storage key, class) · i32 rank · 4 bytes · sizes · strides · offset }
//! pickle     pickle: the object; persistent ids are keys of tensors and storages in decimal
//! ```
//!
//! Each persistent id is turned into what newer files hold in its place, a call of `_rebuild_tensor` or a storage tuple,
//! and from there on everything goes the usual way. Source: `torch/serialization.py`, `legacy_load`; POSIX.1-1988 for tar.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::container::legacy::{LegacyProblem, LegacyRecords};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Known, Machine, Node, PersistentIds, Raw, Root, Tree};
use crate::rebuild::storage_class;
use crate::source::{Source, read, read_growing};

const BLOCK_BYTES: u64 = 512;
const SIZE_FIELD: std::ops::Range<usize> = 124..136;
const NAME_FIELD: std::ops::Range<usize> = 0..100;
/// The small pickles between the data fit into this; longer ones are read again, longer.
const WINDOW_BYTES: u64 = 4 << 10;
/// Members of an archive that torch wrote.
const MEMBERS: [&str; 4] = ["sys_info", "pickle", "tensors", "storages"];
/// Blocks looked at for them.
const HEADERS_MAX: usize = 64;

/// A tar checkpoint: the object, and where its storages lie.
pub(crate) struct Tar<'s> {
    pub(crate) tree: Tree<'s>,
    pub(crate) records: LegacyRecords,
    /// What decides where tensors are, beside the pickle: the member `tensors` and the places of storages.
    pub(crate) description: Vec<u8>,
}

/// A member: where its bytes start and end.
#[derive(Clone, Copy)]
struct Member {
    start: u64,
    end: u64,
}

/// A storage as the member `storages` describes it.
struct TarStorage {
    class: String,
    location: String,
    count: u64,
}

/// A tensor as the member `tensors` describes it.
struct TarTensor {
    storage: Option<i64>,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

impl<'s> Tar<'s> {
    /// Reads the members and joins them.
    ///
    /// # Errors
    /// [`Error::Foreign`] for an ordinary tar archive, else as for legacy files.
    pub(crate) fn parse<S: Source + ?Sized>(source: &'s S, limits: &Limits) -> Result<Self> {
        let members = find_members(source)?;
        let [_, Some(pickle), Some(tensors), Some(storages)] = members else {
            return Err(Error::Foreign {
                found: "an ordinary tar archive",
                advice: "it has no members `pickle`, `tensors` and `storages`; unpack it first".into(),
            });
        };
        let mut reader = Reader { source, limits, member: storages, at: storages.start, name: "storages" };
        let (storages, views, records) = read_storages(&mut reader)?;
        let mut reader = Reader { source, limits, member: tensors, at: tensors.start, name: "tensors" };
        let bytes = (pickle.end - pickle.start).max(tensors.end - tensors.start);
        if bytes > limits.pickle_bytes {
            let limit = limits.pickle_bytes;
            return Err(Error::Limit {
                what: "bytes of a pickle",
                found: bytes,
                limit,
                field: "pickle_bytes",
            });
        }
        let mut description = read(source, tensors.start, tensors.end - tensors.start)?.into_owned();
        records.describe(&mut description);
        let tensors = read_tensors(&mut reader)?;
        let text = read(source, pickle.start, pickle.end - pickle.start)?;
        let range = 0..text.len();
        let (mut tree, value, _) =
            Machine::run(Tree::new(text), range, PersistentIds::Tar, limits, "pickle")?;
        tree.lies_at(0..tree.text.len(), Ok(pickle.start));
        tree.roots.push(Root::new(value, "pickle"));
        Modern {
            tree: &mut tree,
            storages: &storages,
            views: &views,
            tensors: &tensors,
            made: HashMap::new(),
        }
        .run();
        Ok(Self { tree, records, description })
    }
}

/// Finds torch's members among the headers of an archive.
fn find_members<S: Source + ?Sized>(source: &S) -> Result<[Option<Member>; 4]> {
    let mut members = [None; 4];
    let mut at = 0u64;
    for _ in 0..HEADERS_MAX {
        if at.checked_add(BLOCK_BYTES).is_none_or(|end| end > source.len()) {
            break;
        }
        let header = read(source, at, BLOCK_BYTES)?;
        if header[0] == 0 {
            break;
        }
        let fail = |what| Err(Error::Legacy { offset: at, problem: LegacyProblem::TarHeader(what) });
        let name = header[NAME_FIELD].split(|&byte| byte == 0).next().unwrap_or_default();
        let size = std::str::from_utf8(&header[SIZE_FIELD]).unwrap_or_default();
        let Ok(size) = u64::from_str_radix(size.trim_matches(['\0', ' ']), 8) else {
            return fail("its size is no octal number");
        };
        let start = at + BLOCK_BYTES;
        let Some(end) = start.checked_add(size).filter(|&end| end <= source.len()) else {
            return fail("the member runs past the end of the file, which may be cut off");
        };
        let name = name.strip_prefix(b"./").unwrap_or(name);
        if let Some(slot) = MEMBERS.iter().position(|member| member.as_bytes() == name) {
            members[slot] = Some(Member { start, end });
        }
        at = end.next_multiple_of(BLOCK_BYTES);
    }
    Ok(members)
}

/// Reads pickles and numbers one behind the other.
struct Reader<'a, S: ?Sized> {
    source: &'a S,
    limits: &'a Limits,
    member: Member,
    at: u64,
    name: &'static str,
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    /// Runs the pickle that stands next.
    fn pickle(&mut self) -> Result<(Tree<'a>, Raw)> {
        let run = |text: Cow<'a, [u8]>| {
            let range = 0..text.len();
            Machine::run(Tree::new(text), range, PersistentIds::None, self.limits, self.name)
        };
        let end = self.member.end;
        let (tree, value, end) = read_growing(self.source, self.at, end, WINDOW_BYTES, self.limits, run)?;
        self.at += end as u64;
        Ok((tree, value))
    }

    /// Reads so many bytes.
    fn bytes(&mut self, count: u64) -> Result<Cow<'a, [u8]>> {
        if count > self.member.end - self.at {
            return Err(self.damaged("it ends early"));
        }
        self.at += count;
        read(self.source, self.at - count, count)
    }

    fn i64s(&mut self, count: u64) -> Result<Vec<i64>> {
        let bytes = self.bytes(count.saturating_mul(8))?;
        Ok(bytes
            .chunks_exact(8)
            .filter_map(|bytes| Some(i64::from_le_bytes(*bytes.first_chunk()?)))
            .collect())
    }

    /// Reads the number of entries that follow.
    fn count(&mut self) -> Result<u64> {
        match self.pickle()?.1 {
            // Each takes several bytes.
            Raw::Int(count @ 0..) if (count as u64) < self.member.end - self.member.start => Ok(count as u64),
            _ => Err(self.damaged("it does not begin with the number of its entries")),
        }
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::Legacy { offset: self.at, problem: LegacyProblem::TarMember { member: self.name, what } }
    }
}

type Storages = HashMap<i64, TarStorage>;
/// By key of the view: key of the whole, first element, element count.
type Views = HashMap<i64, (i64, i64, i64)>;

fn read_storages<S: Source + ?Sized>(reader: &mut Reader<'_, S>) -> Result<(Storages, Views, LegacyRecords)> {
    let mut storages = Storages::new();
    let mut records = LegacyRecords::default();
    for _ in 0..reader.count()? {
        let (tree, value) = reader.pickle()?;
        let fields: Vec<Raw> = tree.elements(value).into_iter().flatten().take(3).collect();
        let &[Raw::Int(key), location, Raw::Node(class)] = &fields[..] else {
            return Err(reader.damaged("an entry is not (key, location, class)"));
        };
        let Ok((_, itemsize)) = storage_class(&tree, class) else {
            return Err(reader.damaged("an entry has an unknown class"));
        };
        let count = reader.i64s(1)?.first().copied().unwrap_or(-1);
        let bytes = u64::try_from(count).ok().and_then(|count| count.checked_mul(itemsize));
        let place = reader.at;
        let Some(bytes) = bytes.filter(|&bytes| bytes <= reader.member.end - reader.at) else {
            return Err(reader.damaged("a storage runs past its end"));
        };
        reader.at += bytes;
        if !records.add(key.to_string().into_bytes(), place, bytes) {
            return Err(reader.damaged("two storages have one key"));
        }
        let class = tree.global_name(class).unwrap_or_default();
        let location = String::from_utf8_lossy(tree.str_bytes(location).unwrap_or_default()).into_owned();
        storages.insert(key, TarStorage { class, location, count: count as u64 });
    }
    let mut views = Views::new();
    // The oldest files have no views.
    if reader.at < reader.member.end {
        let (tree, value) = reader.pickle()?;
        for view in tree.elements(value).into_iter().flatten() {
            let fields: Vec<Raw> = tree.elements(view).into_iter().flatten().take(4).collect();
            let &[Raw::Int(key), Raw::Int(root), Raw::Int(offset), Raw::Int(count)] = &fields[..] else {
                return Err(reader.damaged("a view is not (key, root key, offset, element count)"));
            };
            views.insert(key, (root, offset, count));
        }
    }
    Ok((storages, views, records))
}

fn read_tensors<S: Source + ?Sized>(reader: &mut Reader<'_, S>) -> Result<HashMap<i64, TarTensor>> {
    let mut tensors = HashMap::new();
    for _ in 0..reader.count()? {
        let (tree, value) = reader.pickle()?;
        let fields: Vec<Raw> = tree.elements(value).into_iter().flatten().take(3).collect();
        let storage = match fields[..] {
            [Raw::Int(_), Raw::Int(storage), _] => Some(storage),
            [Raw::Int(_), Raw::None, _] => None,
            _ => return Err(reader.damaged("an entry is not (key, storage key, class)")),
        };
        let Raw::Int(key) = fields[0] else { continue };
        let rank = reader.bytes(8)?;
        let rank = rank.first_chunk().map_or(-1, |rank| i32::from_le_bytes(*rank));
        let Some(rank) = u64::try_from(rank).ok().filter(|&rank| rank <= reader.limits.rank as u64) else {
            return Err(reader.damaged("a tensor has an impossible number of dimensions"));
        };
        let sizes = reader.i64s(rank)?;
        let strides = reader.i64s(rank)?;
        let offset = reader.i64s(1)?.first().copied().unwrap_or(-1);
        tensors.insert(key, TarTensor { storage, sizes, strides, offset });
    }
    Ok(tensors)
}

/// Puts today's form in the place of old persistent ids.
struct Modern<'m, 's> {
    tree: &'m mut Tree<'s>,
    storages: &'m Storages,
    views: &'m Views,
    tensors: &'m HashMap<i64, TarTensor>,
    /// Nodes of storages, by key.
    made: HashMap<i64, Raw>,
}

impl Modern<'_, '_> {
    fn run(&mut self) {
        for node in 0..self.tree.nodes.len() {
            let Node::Persistent(id) = self.tree.nodes[node] else { continue };
            let key = self.tree.key_bytes(self.tree.persistent_id(id));
            let key = key.and_then(|key| std::str::from_utf8(&key).ok()?.parse().ok());
            // An id that names nothing stays as it is, and is a fault wherever it is used.
            let Some(key) = key else { continue };
            let made = match self.tensors.get(&key) {
                Some(tensor) => self.tensor(tensor),
                None => self.storage(key).and_then(|storage| storage.node()).map(|node| self.tree.node(node)),
            };
            if let Some(made) = made {
                self.tree.nodes[node] = made;
            }
        }
    }

    /// `_rebuild_tensor(storage, offset, size, stride)`.
    fn tensor(&mut self, tensor: &TarTensor) -> Option<Node> {
        let storage = self.storage(tensor.storage?)?;
        let counts = |counts: &[i64]| counts.iter().map(|&count| Raw::Int(count)).collect::<Vec<_>>();
        let sizes = self.tree.add_tuple(&counts(&tensor.sizes));
        let strides = self.tree.add_tuple(&counts(&tensor.strides));
        let args = [storage, Raw::Int(tensor.offset), sizes, strides];
        let call = self.tree.add_call("torch._utils", "_rebuild_tensor", Known::RebuildTensor, &args);
        Some(self.tree.node(call.node()?))
    }

    /// `("storage", class, key, location, element count, view)` as a persistent id.
    fn storage(&mut self, key: i64) -> Option<Raw> {
        if let Some(&made) = self.made.get(&key) {
            return Some(made);
        }
        let (root, view) = match self.views.get(&key) {
            None => (key, Raw::None),
            Some(&(root, offset, count)) => {
                let name = self.tree.keep_str(&key.to_string());
                (root, self.tree.add_tuple(&[name, Raw::Int(offset), Raw::Int(count)]))
            }
        };
        let storage = self.storages.get(&root)?;
        let (module, name) = storage.class.rsplit_once('.').unwrap_or(("torch", &storage.class));
        let class = self.tree.add_global(module, name, Known::Storage);
        let fields = [
            self.tree.keep_str("storage"),
            class,
            self.tree.keep_str(&root.to_string()),
            self.tree.keep_str(&storage.location),
            Raw::Int(storage.count as i64),
            view,
        ];
        let id = self.tree.add_tuple(&fields);
        let made = self.tree.add_persistent(id);
        self.made.insert(key, made);
        Some(made)
    }
}
