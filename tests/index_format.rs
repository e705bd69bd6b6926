//! The example in `docs/index-format.md` is what the code writes, byte by byte; and every index that we build stands up to
//! `Index::verify`.

mod common;

use std::fmt::Write;
use std::fs;

use pt_format::write::{self, Object, Tensor};
use pt_format::{Checkpoint, Limits};
use pt_index::{Index, IndexBuilder, Stamp};

use crate::common::{fixtures, root};

const BEGIN: &str = "<!-- example: written by `PTVIEW_BLESS=1 cargo test --test index_format` -->\n```text\n";
const END: &str = "```\n<!-- end of example -->\n";

#[test]
fn the_example_in_the_document_is_what_is_written() {
    let path = root().join("docs/index-format.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the document has a place for the example");
    let (example, after) = rest.split_once(END).expect("the example has an end");
    let found = dump(example_index().as_bytes());
    if std::env::var_os("PTVIEW_BLESS").is_some() {
        return fs::write(&path, [before, BEGIN, &found, END, after].concat()).unwrap();
    }
    for (found, documented) in found.lines().zip(example.lines()) {
        assert_eq!(found, documented, "PTVIEW_BLESS=1 rewrites the example");
    }
    assert_eq!(found, example);
}

#[test]
fn indexes_of_all_fixtures_are_sound() {
    let mut builder = IndexBuilder::default();
    let mut names: Vec<_> = fixtures().into_iter().map(|fixture| (fixture.name.clone(), fixture)).collect();
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, fixture) in names {
        let bytes = fixture.bytes();
        let Ok(checkpoint) = Checkpoint::parse(&bytes, &Limits::default()) else { continue };
        let alone = pt_index::index_of(&checkpoint).unwrap();
        alone.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
        builder.add(&name, Stamp { size: bytes.len() as u64, modified_ns: 0 }, &checkpoint).unwrap();
    }
    let together = builder.finish().unwrap();
    together.verify().unwrap();
    println!("{together:?}, {} schemas", together.schemas().len());
    assert!(together.file_count() > 100);
    let distributed = root().join("testdata/fixtures/pkg/dcp");
    pt_index::build_distributed(&distributed, &Limits::default()).unwrap().verify().unwrap();
}

fn example_index() -> Index {
    let mut builder = IndexBuilder::default();
    for (number, values, label) in [(0, [1.0, 2.0], 7), (1, [3.0, 4.0], 8)] {
        let tensor = Tensor::new::<f32>(&[2], &values).unwrap();
        let bytes = write::to_vec(&Object::dict([("x", tensor.into()), ("y", label.into())])).unwrap();
        let modified_ns = 1_700_000_000_000_000_000 + number * 5_000_000_000;
        let stamp = Stamp { size: bytes.len() as u64, modified_ns };
        let checkpoint = Checkpoint::parse(&bytes, &Limits::default()).unwrap();
        builder.add(&format!("train/00{number}.pt"), stamp, &checkpoint).unwrap();
    }
    builder.finish().unwrap()
}

const SECTIONS: [&str; 27] = [
    "summary",
    "schemas",
    "tensors",
    "dims",
    "storages",
    "nodes",
    "columns",
    "column data",
    "quantizers",
    "path parts",
    "varying",
    "file rows",
    "file schemas",
    "schema rows",
    "schema files",
    "string ends",
    "string bytes",
    "text ends",
    "text bytes",
    "path blocks",
    "path bytes",
    "name buckets",
    "name slots",
    "file buckets",
    "file slots",
    "skipped",
    "root",
];

/// Renders the index: what each field is stands beside it, with its value where that helps.
fn dump(bytes: &[u8]) -> String {
    let mut dump = Dump { bytes, at: 0, out: String::new() };
    dump.title("header");
    dump.row([8, 2, 2, 4], "magic, version {1}.{2}, {3} sections");
    dump.row([8, 8], "length {0}, checksum");
    dump.title("section table: kind, zero, offset, length, checksum");
    let mut filled = Vec::new();
    for name in SECTIONS {
        let length = dump.number(16, 8);
        filled.extend((length > 0).then_some(name));
        dump.row([4, 4, 8, 8, 8], &format!("{{0}} {name}: {{3}} bytes at {{2}}"));
    }
    for name in filled {
        dump.title(name);
        match name {
            "summary" => {
                dump.row([8, 8], "{0} files, {1} tensors");
                dump.row([8, 8], "{0} storages, {1} bytes of data");
            }
            "schemas" => {
                dump.row([8, 8, 8], "size {0}, modified {1} + own, fingerprint own");
                dump.row([8, 8, 8], "rows begin at {0}; {1} tensors, {2} storages before");
                dump.row([4, 4, 4, 4], "{0} files, {1} bytes each; files start at {2}; flags {3}");
                dump.row([4, 4, 4, 4], "from tensor {0} on {1}, from storage {2} on {3}");
                dump.row([4, 4, 4, 4], "from column {0} on {1}, from node {2} on {3}");
                dump.row(
                    [4, 4, 4, 4],
                    "from bucket {0} on {1}; varying rows from {2}, mask {3}: time, fingerprint",
                );
            }
            "tensors" => {
                dump.row([8, 4, 4], "storage offset {0}, name {1} (`x`), dims from {2}");
                dump.row([4, 4, 4, 4], "storage {0}; no alias, quantizer, fault");
                dump.row([4, 4, 2, 2], "no class; the path is the name; flags {3}");
                dump.row([1, 1, 1, 1], "rank {0}, dtype {1}, layout {2}, has stride");
                dump.row([4, 4], "nothing varies");
            }
            "dims" => dump.row([8, 8], "size {0}, stride {1}"),
            "storages" => {
                dump.row([8, 8], "data at {0}, local header at {1}");
                dump.row([8, 8], "{0} bytes, {1} decoded");
                dump.row([8, 8], "crc {0} + own, hash of the name");
                dump.row([4, 4], "stored, no fault");
                dump.row([4, 4], "varying rows from {0}, mask {1}: the crc");
            }
            "nodes" => {
                dump.row([8, 4, 4, 4, 4], "no key; ends before {1}; dict");
                dump.row([8, 4, 4, 4, 4], "str key {0} (`x`); ends before {1}; tensor {2}");
                dump.row([8, 4, 4, 4, 4], "str key {0} (`y`); ends before {1}; column {2}");
            }
            "columns" => dump.row([8, 8, 4, 4], "values at {0}, no marks, name {2} (`y`), int"),
            "column data" => dump.row([8, 8], "{0}, {1}"),
            "varying" => {
                dump.row([4, 4], "modified: at {0}, {1} bytes");
                dump.row([4, 4], "fingerprint: at {0}, {1} bytes");
                dump.row([4, 4], "crc: at {0}, {1} bytes");
            }
            "file rows" => {
                let widths = [5, 8, 4];
                dump.row(widths, "modified + {0}, fingerprint +, crc + {2}");
                dump.row(widths, "modified + {0}, fingerprint +, crc + {2}");
            }
            "string ends" => dump.row([8, 8], "`x` ends at {0}, `y` at {1}"),
            "string bytes" => dump.row([1, 1], "`x`, `y`"),
            "path blocks" => dump.row([8], "the first block is at {0}"),
            "path bytes" => {
                dump.row([1, 1, 12], "shares {0}, own {1}: `train/000.pt`");
                dump.row([1, 1, 4], "shares {0}, own {1}: `1.pt`");
            }
            "name buckets" => dump.row([4, 4], "bucket 0: slots {0} to {1}"),
            "name slots" => dump.row([4, 4], "hash of `x`, tensor {1}"),
            "file buckets" => dump.row([4, 4], "bucket 0: slots {0} to {1}"),
            "file slots" => {
                dump.row([4, 4], "hash of `train/000.pt`, file {1}");
                dump.row([4, 4], "hash of `train/001.pt`, file {1}");
            }
            name => panic!("the example has {name}: say what they are"),
        }
        dump.pad();
    }
    assert_eq!(dump.at, bytes.len(), "everything is shown");
    dump.out
}

struct Dump<'b> {
    bytes: &'b [u8],
    at: usize,
    out: String,
}

impl Dump<'_> {
    fn title(&mut self, title: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        writeln!(self.out, "{title}").unwrap();
    }

    /// The number of so many bytes so far behind this place.
    fn number(&self, behind: usize, width: usize) -> u64 {
        let bytes = &self.bytes[self.at + behind..][..width.min(8)];
        bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// One line: the bytes of some fields, and what they are. `{n}` is the value of field n.
    fn row<const N: usize>(&mut self, widths: [usize; N], comment: &str) {
        let mut comment = comment.to_owned();
        let (mut shown, mut behind) = (String::new(), 0);
        for (field, &width) in widths.iter().enumerate() {
            comment = comment.replace(&format!("{{{field}}}"), &self.number(behind, width).to_string());
            let bytes = &self.bytes[self.at + behind..][..width];
            let gap = if field > 0 { " " } else { "" };
            write!(shown, "{gap}{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
                .unwrap();
            behind += width;
        }
        writeln!(self.out, "{:4}  {shown:<53}  {comment}", self.at).unwrap();
        self.at += behind;
    }

    /// Zero bytes up to the next section.
    fn pad(&mut self) {
        let end = self.at.next_multiple_of(8);
        if end > self.at {
            assert!(self.bytes[self.at..end].iter().all(|&byte| byte == 0));
            let zeros = "00".repeat(end - self.at);
            writeln!(self.out, "{:4}  {zeros:<53}  up to the next multiple of 8", self.at).unwrap();
            self.at = end;
        }
    }
}
