//! Bytes that nobody meant: files and indexes cut off and flipped everywhere, and pickles made to take forever. Each must
//! give an error or something inside its bounds; none may panic, hang, or fill the memory.

mod common;

use std::time::{Duration, Instant};

use pt_format::{Archive, Checkpoint, Limits};
use pt_index::Index;
use pt_view::{FileBytes, TensorView};
use xxhash_rust::xxh3::Xxh3;

use crate::common::{Fixture, Opened, Pickle, fixtures, torch_like};

/// Small, and each with something the others have not: pickled strings and attributes, a deflated record, parts and
/// packed elements.
const VICTIMS: [&str; 3] = ["zip/state_dict.pt", "zip/deflate.pt", "zip/quantized.pt"];
/// What a bomb of some hundred kilobytes may take: far more than it does, as other work may share the machine. One that
/// goes off takes minutes.
const PATIENCE: Duration = Duration::from_secs(20);

fn victims() -> impl Iterator<Item = Fixture> {
    fixtures().into_iter().filter(|fixture| VICTIMS.contains(&&fixture.name[..]))
}

/// Reads whatever can be read of a file; returns whether it was read as a checkpoint at all.
fn exhaust(bytes: &[u8]) -> bool {
    if let Ok(archive) = Archive::parse(bytes) {
        for index in 0..archive.entries().len() {
            let _ = archive.read_record(index, 1 << 24);
        }
    }
    let Ok(opened) = Opened::new(bytes) else { return false };
    let _ = opened.checkpoint.check();
    let _ = opened.checkpoint.values().to_plain();
    let _ = opened.checkpoint.structure().count();
    read_all(&opened.index, bytes);
    true
}

/// Calls every accessor of an index, and reads every tensor in every way.
fn read_all(index: &Index, file_bytes: &[u8]) {
    let _ = index.verify();
    let _ = format!("{index:?}");
    for file in index.files() {
        let _ = (format!("{file:?}"), file.path(), file.stamp(), file.fingerprint(), file.byte_order());
        let _ = (file.leaves().count(), file.leaf("epoch"), index.find_file(&file.path()).is_some());
        for tensor in file.tensors() {
            let _ = (file.tensor(tensor.name()).is_some(), tensor.file().row());
        }
    }
    for row in 0..index.tensor_count() {
        let Some(entry) = index.tensor(row) else { continue };
        let _ = (
            format!("{entry:?}"),
            entry.path(),
            entry.numel(),
            entry.nbytes(),
            entry.layout(),
            entry.flags(),
        );
        let _ = (entry.class(), entry.quantizer(), entry.fault(), entry.is_contiguous());
        let _ = (entry.alias_of().is_some(), entry.storage().map(|s| (s.nbytes(), s.record(), s.fault())));
        let view = TensorView::new(entry, FileBytes::new(file_bytes));
        let _ = (view.caps(), view.locate(), view.packed_bytes().is_ok(), view.as_bytes().is_ok());
        let _ = (view.as_slice::<f32>().is_ok(), view.to_cow::<i64>().is_ok(), view.to_vec::<bool>().is_ok());
        if let Ok(elements) = view.iter::<f32>() {
            let _ = elements.take(1000).count();
        }
        let _ = view.to_bytes();
        if let Some(location) = view.locate().filter(|_| view.as_bytes().is_ok()) {
            assert!(location.offset + location.length <= file_bytes.len() as u64);
        }
    }
}

#[test]
fn files_cut_off_anywhere_are_refused() {
    let (mut cuts, mut read) = (0, 0);
    for fixture in victims() {
        let bytes = fixture.bytes();
        for length in 0..bytes.len() {
            read += usize::from(exhaust(&bytes[..length]));
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    assert_eq!(read, 0, "the directory is at the end, so nothing can be read without it");
}

#[test]
fn files_with_any_byte_flipped_are_read_within_bounds() {
    let (mut flips, mut read) = (0, 0);
    for fixture in victims() {
        let mut bytes = fixture.bytes();
        for at in 0..bytes.len() {
            for mask in [0x01, 0xFF] {
                bytes[at] ^= mask;
                read += usize::from(exhaust(&bytes));
                bytes[at] ^= mask;
                flips += 1;
            }
        }
    }
    println!("{flips} flips, {read} of them still read");
}

#[test]
fn indexes_with_any_byte_flipped_are_read_within_bounds() {
    let (mut flips, mut opened) = (0, 0);
    for fixture in victims() {
        let file = fixture.bytes();
        let index = Opened::new(&file).unwrap().index;
        let mut bytes = index.as_bytes().to_vec();
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xFF] {
                bytes[at] ^= mask;
                // A flip is found out by `verify`, or at once in the header; zero bytes between sections are nobody's.
                if let Ok(index) = Index::from_bytes(bytes.clone()) {
                    read_all(&index, &file);
                    opened += 1;
                }
                bytes[at] ^= mask;
                flips += 1;
            }
        }
        for length in 0..bytes.len() {
            assert!(Index::from_bytes(bytes[..length].to_vec()).is_err());
        }
    }
    println!("{flips} flips, {opened} of them opened");
}

/// An index made to deceive has a right checksum, and in any word a number that overflows something.
#[test]
fn forged_indexes_are_read_within_bounds() {
    let (mut forgeries, mut opened) = (0, 0);
    for fixture in victims() {
        let file = fixture.bytes();
        let index = Opened::new(&file).unwrap().index;
        let bytes = index.as_bytes();
        for (width, at) in (0..bytes.len()).step_by(4).flat_map(|at| [(4, at), (8, at)]) {
            for value in [0, 1, 1 << 31, u64::MAX >> 1, u64::MAX - 63, u64::MAX - 1, u64::MAX] {
                let Some(end) = at.checked_add(width).filter(|&end| end <= bytes.len()) else { continue };
                let mut forged = bytes.to_vec();
                forged[at..end].copy_from_slice(&value.to_le_bytes()[8 - width..]);
                correct_checksum(&mut forged);
                forgeries += 1;
                if let Ok(index) = Index::from_bytes(forged) {
                    read_all(&index, &file);
                    opened += 1;
                }
            }
        }
    }
    println!("{forgeries} forgeries, {opened} of them opened");
}

/// The checksum of header and section table, after `docs/index-format.md`.
fn correct_checksum(bytes: &mut [u8]) {
    const CHECKSUM_OFFSET: usize = 24;
    const HEADER_BYTES: usize = 32;
    const SECTION_BYTES: usize = 32;
    let count = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let Some(table) = bytes[HEADER_BYTES..].get(..count.saturating_mul(SECTION_BYTES)) else { return };
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[..CHECKSUM_OFFSET]);
    hasher.update(table);
    let digest = hasher.digest();
    bytes[CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&digest.to_le_bytes());
}

/// Small pickles that name the same things over and over, or nest them, so that a careless walk takes forever.
#[test]
fn bombs_go_off_harmlessly() {
    for (what, pickle) in shared_values().into_iter().chain(shared_by_tensors()).chain(nested_values()) {
        let pickle = pickle.stop();
        let bytes = torch_like("archive", &[("data.pkl", &pickle), ("data/0", &[0; 4]), ("version", b"3\n")]);
        let start = Instant::now();
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default());
        let outcome = match &checkpoint {
            Ok(checkpoint) => {
                let index = pt_index::index_of(checkpoint).unwrap();
                let _ = checkpoint.check();
                format!("{} tensors, {} bytes of index", index.tensor_count(), index.as_bytes().len())
            }
            Err(error) => error.to_string(),
        };
        drop(checkpoint);
        let took = start.elapsed();
        println!("{what}: {} bytes, {took:?}, {outcome}", pickle.len());
        assert!(took < PATIENCE, "{what} took {took:?}");
    }
}

/// Enough to make anything quadratic obvious.
const MANY: usize = 100_000;

fn shared_values() -> Vec<(&'static str, Pickle)> {
    let class = || Pickle::new().global("a", "B").keep(1);
    let ordered_dict = || Pickle::new().global("collections", "OrderedDict").keep(1);
    let set = || Pickle::new().global("__builtin__", "set").keep(1);
    // Of arguments, each a list of this many elements.
    let list = |pickle: Pickle, element: &str| pickle.list_of(MANY, element).raw(b"\x85").keep(0);
    let one_object =
        Pickle::new().raw("}").keep(1).global("a", "B").raw(b")\x81").times(MANY, b"h\x01b").keep(0);
    vec![
        ("a dict many times", Pickle::new().dict_of(MANY).keep(0).list_of(MANY, b"h\0")),
        ("an object of many states many times", one_object.list_of(MANY, b"h\0")),
        ("objects that share a state", class().dict_of(MANY).keep(0).list_of(MANY, b"h\x01)\x81h\0b")),
        (
            "objects that share arguments",
            class().raw("(").times(MANY, "K\x05").raw("t").keep(0).list_of(MANY, b"h\x01h\0R"),
        ),
        ("ordered dicts that share pairs", list(ordered_dict(), "]K\x01aK\x02a").list_of(MANY, b"h\x01h\0R")),
        ("sets that share a list", list(set(), ")").list_of(MANY, b"h\x01h\0R")),
        (
            "keys that are a long tuple",
            Pickle::new()
                .raw("(")
                .times(MANY, "X\0\0\0\0")
                .raw("t")
                .keep(0)
                .raw("}(")
                .times(MANY, b"h\0h\0")
                .raw("u"),
        ),
    ]
}

fn shared_by_tensors() -> Vec<(&'static str, Pickle)> {
    let rebuild = || Pickle::new().global("torch._utils", "_rebuild_tensor_v2").keep(0);
    let no_hooks = |pickle: Pickle| pickle.global("collections", "OrderedDict").raw(")R");
    let plain_args = || no_hooks(rebuild().raw("(").storage("0", 1).raw(b"K\0(K\x01t(K\x01t\x89"));
    let of_shape = |rank: usize| {
        let sized = rebuild().raw("(").times(rank, "K\x01").raw("t").keep(2).raw("(").storage("0", 1);
        no_hooks(sized.raw(b"K\0h\x02h\x02\x89")).raw("t").keep(1)
    };
    let from_type = |pickle: Pickle| pickle.global("torch._tensor", "_rebuild_from_type_v2").keep(2);
    let subclass = from_type(plain_args().raw("t").keep(1)).raw(b"(h\0").global("a", "T").raw(b"h\x01");
    let wrapper_args = |pickle: Pickle| pickle.raw("(N").global("torch", "float32").raw(b"))K\0NN\x89t");
    let wrapper = from_type(Pickle::new()).raw("(").global("torch._utils", "_rebuild_wrapper_subclass");
    let wrapper = wrapper_args(wrapper.global("a", "T"));
    let array = |shape: &str| {
        let dtype = rebuild_array().global("numpy", "dtype").str("u1").raw(b"\x89\x88\x87R").keep(1);
        let text =
            dtype.global("_codecs", "encode").str(&"é".repeat(MANY)).str("latin1").raw(b"\x86R").keep(2);
        text.raw("(")
            .raw(b"h\x02h\x01(")
            .raw(shape)
            .raw("t")
            .str("C")
            .raw("t")
            .keep(3)
            .list_of(MANY, b"h\0h\x03R")
    };
    let loads = |content: &str| {
        let load = Pickle::new().global("torch.storage", "_load_from_bytes").keep(0);
        load.str(content).raw(b"\x85").keep(1).list_of(MANY, b"h\0h\x01R")
    };
    vec![
        ("arrays that share their bytes", array("J\u{0}\u{0}\u{0}\u{0}")),
        ("arrays that share a shape of too many dimensions", array(&"K\u{1}".repeat(MANY))),
        ("storages that share a file", loads(&"PK\u{3}\u{4}".repeat(MANY))),
        (
            "tensors that share metadata",
            plain_args().dict_of(MANY).raw("t").keep(1).list_of(MANY, b"h\0h\x01R"),
        ),
        ("tensors that share a shape of too many dimensions", of_shape(MANY).list_of(MANY, b"h\0h\x01R")),
        ("tensors that share a shape", of_shape(64).list_of(3 * MANY, b"h\0h\x01R")),
        ("tensors that share a state", subclass.dict_of(MANY).raw("t").keep(3).list_of(MANY, b"h\x02h\x03R")),
        ("wrappers that share a state", wrapper.dict_of(MANY).raw("t").keep(3).list_of(MANY, b"h\x02h\x03R")),
    ]
}

fn rebuild_array() -> Pickle {
    Pickle::new().global("numpy._core.numeric", "_frombuffer").keep(0)
}

/// In plain pickles tensors may be lists of numbers, which may be parts of each other.
#[test]
fn lists_of_numbers_go_off_harmlessly() {
    let class = || Pickle::new().global("torch", "FloatTensor").keep(0);
    let one = class().list_of(MANY, b"K\x01").raw(b"\x85").keep(1).list_of(MANY, b"h\0h\x01R");
    // Each list begins inside the one before it, and each is a tensor.
    let many = 20_000u32;
    let mut nested = class().raw("](");
    for index in 1..many {
        nested = nested.raw(b"]r").raw(index.to_le_bytes());
    }
    nested = nested.raw(b"K\x01").times(many as usize - 1, "a").raw("e0](");
    for index in 1..many {
        nested = nested.raw(b"h\0j").raw(index.to_le_bytes()).raw(b"\x85R");
    }
    let nested = nested.raw("e");
    let open = class().times(MANY, b"]").raw(b"K\x01").times(MANY, b"a").raw(b"\x85h\0N\x86");
    for (what, pickle) in [("one list", one), ("nested lists", nested), ("open lists", open)] {
        let pickle = pickle.stop();
        let start = Instant::now();
        let outcome =
            Opened::new(&pickle).map(|opened| opened.index.tensor_count()).map_err(|e| e.to_string());
        let took = start.elapsed();
        println!("{what}: {} bytes, {took:?}, {outcome:?}", pickle.len());
        assert!(took < PATIENCE, "{what} took {took:?}");
    }
}

fn nested_values() -> Vec<(&'static str, Pickle)> {
    let function = |module: &str, name: &str| Pickle::new().global(module, name).keep(0);
    let tables = Pickle::new().str("_modules").keep(1).str("_parameters").keep(2).str("_buffers").keep(3);
    let tables = tables.global("a", "Module").keep(0).global("torch._utils", "_rebuild_parameter").keep(4);
    let modules =
        tables.times(MANY, b"h\0)\x81}(h\x02Nh\x03Nh\x01").list_of(MANY, b"h\x04)R").times(MANY, "ub");
    vec![
        ("labels at every depth", Pickle::new().times(MANY, "](K\x01").times(MANY, "e")),
        (
            "labels below a long key",
            Pickle::new().raw("}").str(&"k".repeat(10 * MANY)).dict_of(MANY).raw("s"),
        ),
        (
            "TorchScript lists",
            function("torch.jit._pickle", "restore_type_tag").nested_calls(MANY, 0, "K\x01"),
        ),
        ("sets around sets", function("__builtin__", "set").nested_calls(MANY, 0, "]")),
        (
            "ordered dicts around ordered dicts",
            function("collections", "OrderedDict").nested_calls(MANY, 0, "]"),
        ),
        (
            "parameters around parameters",
            function("torch._utils", "_rebuild_parameter").nested_calls(MANY, 0, "]"),
        ),
        ("modules around modules", modules),
        ("long decimals", Pickle::new().list_of(2000, format!("L{}L\n", "9".repeat(4300)))),
    ]
}
