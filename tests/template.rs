//! Files whose heads match a template are read as parsing reads them, whatever their bytes are.

mod common;

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use pt_format::write::{self, Object, Tensor};
use pt_format::{Checkpoint, Limits, Template};
use rayon::prelude::*;

use crate::common::{Description, Pickle, readable_fixtures, torch_like};

/// Bytes of a file that are changed one by one: its ends, where the head is.
const END_BYTES: usize = 4 << 10;
/// Pairs of bytes that are changed together, of each file.
const PAIRS: usize = 20_000;

/// A file, its template, and what it says.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    template: Template,
    description: Description,
}

impl Sample {
    fn of(name: &str, bytes: Vec<u8>) -> Option<Self> {
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        let template = Template::of(&bytes, &checkpoint, &Limits::default())?;
        let description = Description::of(&checkpoint);
        let sample = Self { name: name.to_owned(), bytes, template, description };
        assert!(sample.agrees(&sample.bytes), "{name} is not like itself");
        Some(sample)
    }

    /// Returns whether a file matches the template; it then must be what parsing it says.
    fn agrees(&self, bytes: &[u8]) -> bool {
        let Some(alike) = self.template.compare(bytes) else { return false };
        let parsed = Checkpoint::parse(bytes, &Limits::default()).unwrap_or_else(|error| {
            panic!("{}: matches, and cannot be parsed: {error}", self.name);
        });
        assert_eq!(self.description.told_by(&alike), Description::of(&parsed), "{}", self.name);
        true
    }

    /// Returns the bytes that are changed.
    fn places(&self) -> Vec<usize> {
        let length = self.bytes.len();
        (0..length.min(END_BYTES)).chain(length.saturating_sub(END_BYTES).max(END_BYTES)..length).collect()
    }
}

fn sample(object: &Object<'_>) -> Vec<u8> {
    write::to_vec(object).unwrap()
}

/// What loaders are given, beside the fixtures.
fn honest() -> Vec<Sample> {
    let values = [0.5f32; 6];
    let tensor = || Tensor::new::<f32>(&[2, 3], &values).unwrap().into();
    let numbers =
        || Object::list([Object::from(1), Object::from(300), Object::from(-70_000), Object::from(0.25)]);
    let files = [
        ("x and y", Object::dict([("x", tensor()), ("y", Object::from(3))])),
        ("several numbers", Object::dict([("x", tensor()), ("more", numbers()), ("w", Object::from(1.5))])),
        ("numbers alone", numbers()),
        ("a tensor", tensor()),
        ("text", Object::dict([("x", tensor()), ("id", Object::from("abc")), ("y", Object::from(true))])),
    ];
    files.iter().map(|(name, object)| Sample::of(name, sample(object)).expect(name)).collect()
}

fn samples() -> Vec<Sample> {
    let fixtures = readable_fixtures();
    let fixtures = fixtures.iter().filter(|fixture| fixture.text("container") == "zip");
    let fixtures: Vec<Sample> = fixtures.filter_map(|file| Sample::of(&file.name, file.bytes())).collect();
    println!("{} fixtures have a template", fixtures.len());
    assert!(fixtures.len() > 20, "only {} fixtures have a template", fixtures.len());
    fixtures.into_iter().chain(honest()).collect()
}

#[test]
fn any_byte_may_change() {
    let matched = AtomicUsize::new(0);
    samples().par_iter().for_each(|sample| {
        let mut bytes = sample.bytes.clone();
        for at in sample.places() {
            let before = bytes[at];
            let flips = (0..8).map(|bit| before ^ 1 << bit);
            let others = [0, 0xFF, b'/', b'P'];
            for value in flips.chain(others).filter(|&value| value != before) {
                bytes[at] = value;
                matched.fetch_add(sample.agrees(&bytes).into(), Ordering::Relaxed);
            }
            bytes[at] = before;
        }
    });
    let matched = matched.into_inner();
    println!("{matched} files of one changed byte match the template of the other");
    assert!(matched > 10_000);
}

#[test]
fn any_two_bytes_may_change() {
    let matched = AtomicUsize::new(0);
    samples().par_iter().for_each(|sample| {
        let (places, mut bytes) = (sample.places(), sample.bytes.clone());
        // Any full-period generator does; the same bytes every time.
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..PAIRS {
            let pair = [places[random() % places.len()], places[random() % places.len()]];
            let before = pair.map(|at| bytes[at]);
            pair.iter().for_each(|&at| bytes[at] = random() as u8);
            matched.fetch_add(sample.agrees(&bytes).into(), Ordering::Relaxed);
            (bytes[pair[1]], bytes[pair[0]]) = (before[1], before[0]);
        }
    });
    println!("{} files of two changed bytes match", matched.into_inner());
}

#[test]
fn the_archive_may_have_another_name() {
    let [first, second] = ["first", "other"].map(|root| {
        let pickle = Pickle::new().raw("}").str("y").int(7).raw("s").stop();
        torch_like(root, &[("data.pkl", &pickle), ("byteorder", b"little"), ("version", b"3\n")])
    });
    let sample = Sample::of("first", first).unwrap();
    assert!(sample.agrees(&second));
    // A slash makes other folders of it, and a name for each record makes other archives.
    let renamed = |bytes: &[u8], name: &[u8], places: Range<usize>| {
        let mut bytes = bytes.to_vec();
        let found: Vec<usize> =
            (0..bytes.len() - name.len()).filter(|&at| bytes[at..].starts_with(b"first")).collect();
        found[places].iter().for_each(|&at| bytes[at..at + name.len()].copy_from_slice(name));
        bytes
    };
    let all = 0..6;
    assert!(sample.agrees(&renamed(&sample.bytes, b"fir\xFFt", all.clone())));
    assert!(!sample.agrees(&renamed(&sample.bytes, b"fi/st", all)));
    assert!(!sample.agrees(&renamed(&sample.bytes, b"other", 5..6)));
}

/// Whether a number of a pickle may be another, is told by trying.
fn is_free(pickle: &[u8], other: &[u8]) -> bool {
    let archive = |pickle: &[u8]| torch_like("a", &[("data.pkl", pickle), ("data/0", &[1; 64])]);
    let sample = Sample::of("pickle", archive(pickle));
    sample.is_some_and(|sample| sample.agrees(&archive(other)))
}

#[test]
fn only_numbers_that_are_nothing_else_are_free() {
    let free = |make: &dyn Fn(Pickle, i32) -> Pickle| {
        let [one, other] = [3, 5].map(|value| make(Pickle::new(), value).stop());
        is_free(&one, &other)
    };
    // {"y": 3} and the like.
    assert!(free(&|pickle, value| pickle.raw("}").str("y").int(value).raw("s")));
    assert!(free(&|pickle, value| pickle.raw("](").int(value).int(4).raw("e")));
    assert!(free(&|pickle, value| pickle.raw("(").int(value).raw("}").str("k").int(value).raw("st")));
    // A key.
    assert!(!free(&|pickle, value| pickle.raw("}").int(value).str("y").raw("s")));
    // A number that the memo gives out twice, and a container.
    assert!(!free(&|pickle, value| pickle.raw("](").int(value).raw(b"q\0h\0e")));
    assert!(!free(&|pickle, value| pickle.raw("](](").int(value).raw(b"eq\0h\0e")));
    // A value that another takes the place of.
    assert!(!free(&|pickle, value| pickle.raw("}").str("y").int(value).raw("s").str("y").int(4).raw("s")));
    // Written in another way.
    assert!(!free(&|pickle, value| pickle.raw("]").raw(format!("I{value}\n")).raw("a")));
    // The object itself.
    assert!(!free(&|pickle, value| pickle.int(value)));
    // Text.
    let free_text = |make: &dyn Fn(Pickle, &str) -> Pickle| {
        let [one, other] = ["one", "two"].map(|value| make(Pickle::new(), value).stop());
        is_free(&one, &other)
    };
    assert!(free_text(&|pickle, text| pickle.raw("}").str("id").str(text).raw("s")));
    assert!(free_text(&|pickle, text| pickle.raw("]").str(text).raw(b"q\0a")));
    assert!(!free_text(&|pickle, text| pickle.raw("}").str(text).int(1).raw("s")));
    assert!(!free_text(&|pickle, text| pickle.raw("](").str(text).raw(b"q\0h\0e")));
    assert!(!free_text(&|pickle, text| pickle.raw("](").str(text).raw(b"q\0h\0h\0\x93e")), "a global's name");
    assert!(!free_text(&|pickle, text| pickle.raw("](").str("a").str(text).raw(b"q\0\x93h\0e")));
    assert!(!free_text(&|pickle, text| pickle.raw("]").raw(format!("V{text}\n")).raw("a")));
    let sample = |text: &[u8]| {
        let pickle = Pickle::new().raw("](X").raw(3u32.to_le_bytes()).raw(text).int(1).raw("e");
        torch_like("a", &[("data.pkl", &pickle.stop())])
    };
    let one = Sample::of("text", sample(b"one")).unwrap();
    assert!(one.agrees(&sample("é!".as_bytes())));
    assert!(!one.agrees(&sample(b"\xFFne")), "no plain scalar");
    // What a tensor is made of: its storage's length, its offset, its sizes, its strides.
    let tensor = |pickle: Pickle, [count, offset, size, stride]: [i32; 4]| {
        let args = pickle.raw("]").global("torch._utils", "_rebuild_tensor_v2").raw("(");
        let args =
            args.storage("0", count).int(offset).raw("(").int(size).raw("t(").int(stride).raw(b"t\x89");
        args.global("collections", "OrderedDict").raw(")RtRa")
    };
    for field in 0..4 {
        let of = |pickle: Pickle, value: i32| {
            let mut fields = [16, 0, 2, 1];
            fields[field] = value;
            tensor(pickle, fields)
        };
        assert!(!free(&of), "field {field}");
    }
    // Sizes that are an element of the list too.
    assert!(!free(&|pickle, value| {
        let args = pickle.raw("](").global("torch._utils", "_rebuild_tensor_v2").raw("(");
        let args = args.storage("0", 16).int(0).raw("(").int(value).raw("tq\0(").int(1).raw(b"t\x89");
        args.global("collections", "OrderedDict").raw(")RtRh\0e")
    }));
    // Arguments and state of an object.
    assert!(!free(&|pickle, value| pickle.raw("]").global("a", "B").raw("(").int(value).raw("tRa")));
    assert!(!free(&|pickle, value| pickle.raw("]").global("a", "B").raw(")R(").int(value).raw("tba")));
}

#[test]
fn what_takes_more_than_the_head_to_see_has_no_template() {
    let pickle = Pickle::new().raw("}").str("y").int(7).raw("s").stop();
    let archive = |root: &str| torch_like(root, &[("data.pkl", &pickle), ("byteorder", b"little")]);
    assert!(Sample::of("plain", archive("a")).is_some());
    // A comment behind the end record: an end record might stand in it.
    let mut commented = archive("a");
    let length = commented.len();
    commented[length - 2] = 4;
    commented.extend(b"1234");
    assert!(Sample::of("commented", commented).is_none());
    // Names that might look like a zip64 locator.
    let without_zip64 = |root: &str| {
        let mut bytes = archive(root);
        let end = bytes.len() - 22;
        bytes.drain(end - 76..end);
        bytes
    };
    assert!(Sample::of("a short name", without_zip64("a")).is_some());
    assert!(Sample::of("a long name", without_zip64("abcdefghijklmnopqrst")).is_none());
    // A record that is not where the writer's rule says, so that its header must be read.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("a/data.pkl", stored).unwrap();
    zip.write_all(&pickle).unwrap();
    assert!(Sample::of("unaligned", zip.finish().unwrap().into_inner()).is_none());
    for file in readable_fixtures() {
        let is_zip = file.text("container") == "zip";
        let sample = Sample::of(&file.name, file.bytes());
        assert!(is_zip || sample.is_none(), "{} has a template", file.name);
    }
}
