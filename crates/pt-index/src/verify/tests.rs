use std::sync::LazyLock;

use bytemuck::{Pod, bytes_of, pod_read_unaligned};
use pt_format::write::{self, Object, Tensor};
use pt_format::{Checkpoint, Limits};
use xxhash_rust::xxh3::Xxh3;

use super::*;
use crate::builder::IndexBuilder;
use crate::freshness::Stamp;

/// An index that has something in every section, built once.
fn sound_index() -> Index {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| build_sound_index().as_bytes().to_vec());
    Index::from_bytes(BYTES.clone()).unwrap()
}

fn build_sound_index() -> Index {
    let mut builder = IndexBuilder::default();
    let mut add = |path: &str, bytes: &[u8]| {
        let stamp = Stamp { size: bytes.len() as u64, modified_ns: 1_700_000_000_000_000_000 };
        builder.add(path, stamp, &Checkpoint::parse(bytes, &Limits::default()).unwrap()).unwrap();
    };
    for number in 0..20i64 {
        let values = vec![number as f32; 1 + number as usize % 3];
        let optional = |object: Object<'static>| if number % 3 == 0 { Object::None } else { object };
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&[values.len() as u64], &values).unwrap().into()),
            ("y", Object::from(number)),
            ("class", optional(Object::from(if number % 2 == 0 { "é" } else { "dog" }))),
            ("good", Object::from(number % 2 == 0)),
            ("mixed", if number % 2 == 0 { Object::from(1.5) } else { Object::from("text") }),
            ("nothing", Object::None),
            ("more", Object::list([Object::from(1), Object::tuple([Object::from("a")])])),
        ]);
        add(&format!("a/{number:02}.pt"), &write::to_vec(&object).unwrap());
    }
    add("module.pt", include_bytes!("../../../../testdata/fixtures/zip/module.pt"));
    add("quantized.pt", include_bytes!("../../../../testdata/fixtures/zip/quantized.pt"));
    add("wrapper.pt", include_bytes!("../../../../testdata/fixtures/zip/wrapper_subclass.pt"));
    builder.skip("notes.txt", Stamp { size: 3, modified_ns: -1 }, "no tensor in here").unwrap();
    builder.finish().unwrap().with_root("../data").unwrap()
}

/// Makes all checksums right again.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let count = u32::from_le_bytes(*bytes[SECTION_COUNT_OFFSET..].first_chunk().unwrap()) as usize;
    for number in 0..count {
        let at = HEADER_BYTES + number * size_of::<SectionRow>();
        let mut row: SectionRow = pod_read_unaligned(&bytes[at..at + size_of::<SectionRow>()]);
        if let Some(content) = bytes.get(row.offset as usize..row.offset.saturating_add(row.length) as usize)
        {
            row.checksum = xxh3_64(content);
        }
        bytes[at..at + size_of::<SectionRow>()].copy_from_slice(bytes_of(&row));
    }
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[..CHECKSUM_OFFSET]);
    hasher.update(&bytes[HEADER_BYTES..HEADER_BYTES + count * size_of::<SectionRow>()]);
    bytes[CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&hasher.digest().to_le_bytes());
    bytes
}

/// Changes a row and says what `verify` finds.
fn damaged<T: Pod>(kind: Kind, row: usize, change: impl FnOnce(&mut T)) -> (u64, &'static str) {
    let index = sound_index();
    let mut bytes = index.as_bytes().to_vec();
    assert!(row < index.section::<T>(kind).len(), "{kind:?} has a row {row}");
    let at = index.section_offset(kind) + row * size_of::<T>();
    let mut value: T = pod_read_unaligned(&bytes[at..at + size_of::<T>()]);
    change(&mut value);
    bytes[at..at + size_of::<T>()].copy_from_slice(bytes_of(&value));
    match Index::from_bytes(sealed(bytes)).and_then(|index| index.verify()) {
        Err(Error::Damaged { offset, what }) => (offset, what),
        other => panic!("{kind:?} {row}: {other:?}"),
    }
}

/// Changes a row and checks that `verify` points at it.
#[track_caller]
fn check<T: Pod>(kind: Kind, row: usize, expected: &str, change: impl FnOnce(&mut T)) {
    let place = sound_index().section_offset(kind) + row * size_of::<T>();
    assert_eq!(damaged(kind, row, change), (place as u64, expected), "{kind:?} {row}");
}

/// The first row for which something holds.
fn first<T: Pod>(kind: Kind, holds: impl Fn(&T) -> bool) -> usize {
    sound_index().section(kind).iter().position(holds).unwrap()
}

#[test]
fn a_sound_index_passes() {
    let index = sound_index();
    index.verify().unwrap();
    assert_eq!(index.schemas().len(), 4);
    for kind in 0..Kind::COUNT {
        let row = index.section_table()[kind];
        assert!(row.length > 0, "section {kind} is tried");
    }
    IndexBuilder::default().finish().unwrap().verify().unwrap();
}

#[test]
fn damage_of_sections_is_found() {
    let index = sound_index();
    let table = |number: usize, change: &dyn Fn(&mut SectionRow)| {
        let mut bytes = index.as_bytes().to_vec();
        let at = HEADER_BYTES + number * size_of::<SectionRow>();
        let mut row: SectionRow = pod_read_unaligned(&bytes[at..at + size_of::<SectionRow>()]);
        change(&mut row);
        bytes[at..at + size_of::<SectionRow>()].copy_from_slice(bytes_of(&row));
        let error = Index::from_bytes(sealed(bytes)).and_then(|index| index.verify()).unwrap_err();
        let Error::Damaged { what, .. } = error else { panic!("{error}") };
        what
    };
    assert_eq!(table(3, &|row| row.zero = 1), "bytes of a section row that should be zero are not");
    assert_eq!(table(3, &|row| row.kind = 2), "a section stands twice");
    assert_eq!(table(3, &|row| row.length -= 1), "a section ends within a row");
    assert_eq!(table(3, &|row| row.length -= 8), "a section does not follow the one before");
    assert_eq!(table(3, &|row| row.offset += 8), "a section does not follow the one before");
    // Of a newer version, and so empty: what pointed there is found.
    assert_eq!(table(3, &|row| row.kind = 99), "the sizes and strides of a tensor are not there");

    let mut bytes = index.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let error = Index::from_bytes(sealed(bytes)).and_then(|index| index.verify()).unwrap_err();
    assert!(error.to_string().contains("bytes belong to no section"), "{error}");
    let mut bytes = index.as_bytes().to_vec();
    bytes[index.section_offset(Kind::StringBytes)] ^= 1;
    let error = Index::from_bytes(bytes).unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("checksum of a section differs"), "{error}");
}

#[test]
fn damage_of_strings_and_paths_is_found() {
    let letter =
        |kind, row| move |to: u8, expected: &str| check::<u8>(kind, row, expected, |byte| *byte = to);
    let (_, what) = damaged::<u8>(Kind::StringBytes, 0, |byte| *byte = 0xFF);
    assert_eq!(what, "a string is not UTF-8");
    check::<u64>(Kind::StringEnds, 1, "a string ends where none can", |end| *end = 0);
    check::<u64>(Kind::TextEnds, 0, "a string ends where none can", |end| *end = 1 << 40);
    let (_, what) = damaged::<[u64; 2]>(Kind::TextEnds, 0, |ends| *ends = [0, 0]);
    assert_eq!(what, "a string stands twice");
    let texts = sound_index().section::<u64>(Kind::TextEnds).len();
    let (_, what) = damaged::<u64>(Kind::TextEnds, texts - 1, |end| *end -= 1);
    assert_eq!(what, "bytes belong to no string");
    letter(Kind::Root, 0)(0xFF, "the root is not UTF-8");
    // The first path is `a/00.pt` behind two numbers, the next one is 3, 4, `1.pt`.
    letter(Kind::PathBytes, 0)(1, "a path shares more than there is");
    let (_, what) = damaged::<u8>(Kind::PathBytes, 2, |byte| *byte = 0xFF);
    assert_eq!(what, "a path is not UTF-8");
    letter(Kind::PathBytes, 9)(8, "a path shares more than there is");
    let (_, what) = damaged::<u8>(Kind::PathBytes, 11, |byte| *byte = b'0');
    assert_eq!(what, "a path does not come after the one before");
    let (_, what) = damaged::<u8>(Kind::PathBytes, 10, |byte| *byte = 0x7F);
    assert!(what.starts_with("a path "), "{what}");
    check::<u64>(Kind::PathBlocks, 1, "a block of paths begins elsewhere", |start| *start += 1);
    // Still in order, but another name than the one it is looked up by.
    let last = sound_index().section::<u8>(Kind::PathBytes).len() - 1;
    let (_, what) = damaged::<u8>(Kind::PathBytes, last, |byte| *byte = b'u');
    assert_eq!(what, "a slot is not where its row is looked up");
}

#[test]
fn damage_of_schemas_is_found() {
    let schema = |row: usize, expected: &str, change: fn(&mut SchemaRow)| {
        check(Kind::Schemas, row, expected, change);
    };
    let rows = "rows do not follow those before";
    schema(1, rows, |row| row.tensors_start += 1);
    schema(1, rows, |row| row.storages_start -= 1);
    schema(3, rows, |row| row.columns_count += 1);
    schema(3, rows, |row| row.nodes_count = NONE);
    schema(1, rows, |row| row.buckets_start = 0);
    schema(1, rows, |row| row.buckets_count = NONE);
    schema(0, "a schema has no files", |row| row.rows_count = 0);
    schema(0, "the schemas have more files than there are", |row| row.rows_count = NONE);
    schema(1, "files do not follow those before", |row| row.files_start = 0);
    schema(1, "there are not as many tensors before", |row| row.tensors_before += 1);
    schema(2, "there are not as many storages before", |row| row.storages_before = u64::MAX);
    schema(0, "file rows do not follow those before", |row| row.rows_start = 8);
    schema(0, "file rows lie outside their section", |row| row.row_bytes = NONE);
    schema(1, "file rows do not follow those before", |row| row.rows_start = u64::MAX - 7);
    schema(0, "a number varies that is not there", |row| row.varying_mask |= 8);
    schema(0, "varying rows do not follow those before", |row| row.varying = 1);
    let (_, what) = damaged::<SummaryRow>(Kind::Summary, 0, |row| row.files += 1);
    assert_eq!(what, "a path is cut off");
    check::<SummaryRow>(Kind::Summary, 0, "the schemas have another sum of files or rows", |row| {
        row.tensors -= 1;
    });
    check::<SummaryRow>(Kind::Summary, 0, "the sizes of the files have another sum", |row| row.bytes += 1);

    check::<u32>(Kind::FileSchemas, 20, "a file has no schema", |schema| *schema = 4);
    let (_, what) = damaged::<u32>(Kind::FileSchemas, 3, |schema| *schema = 1);
    assert_eq!(what, "a file is not the next one of its schema");
    check::<u32>(Kind::SchemaRows, 3, "a file is not the next one of its schema", |row| *row = 2);
    check::<u32>(Kind::SchemaFiles, 3, "a file is not where its schema has it", |file| *file = 2);
}

#[test]
fn damage_of_varying_numbers_is_found() {
    let varying = |row, change: fn(&mut VaryingRow)| damaged(Kind::Varying, row, change).1;
    let sizes = first::<VaryingRow>(Kind::Varying, |row| row.width == 0);
    let number = first::<VaryingRow>(Kind::Varying, |row| row.width > 0);
    assert_eq!(varying(sizes, |row| row.width = 8), "sizes that vary are not aligned");
    assert_eq!(varying(sizes, |row| row.offset += 4), "sizes that vary are not aligned");
    assert_eq!(varying(sizes, |row| row.offset = NONE - 7), "a number that varies lies outside its file row");
    assert_eq!(varying(number, |row| row.width = 0), "a number that varies has an impossible width");
    assert_eq!(varying(number, |row| row.width = 9), "a number that varies has an impossible width");
    assert_eq!(varying(number, |row| row.offset = NONE), "a number that varies lies outside its file row");
    let tensor = first::<TensorRow>(Kind::Tensors, |row| row.varying_mask != 0);
    assert_eq!(
        damaged::<TensorRow>(Kind::Tensors, tensor, |row| row.varying_mask = 0).1,
        "rows belong to no schema"
    );
}

#[test]
fn damage_of_tensors_and_storages_is_found() {
    let tensor = |expected: &str, change: fn(&mut TensorRow)| check(Kind::Tensors, 1, expected, change);
    tensor("the name of a tensor is no string", |row| row.name = NONE);
    tensor("the fault of a tensor is no string", |row| row.fault = 9999);
    tensor("the class of a tensor is no string", |row| row.class = 9999);
    tensor("the storage of a tensor is not there", |row| row.storage = 9999);
    tensor("a tensor is the alias of a later one", |row| row.alias_of = 0);
    tensor("the quantizer of a tensor is not there", |row| row.quantizer = 9999);
    tensor("the path of a tensor is not there", |row| (row.path, row.path_count) = (NONE, 1));
    tensor("a tensor neither has strides nor has none", |row| row.has_stride = 2);
    tensor("the sizes and strides of a tensor are not there", |row| row.dims = NONE);
    tensor("the sizes and strides of a tensor are not there", |row| (row.dims, row.rank) = (9999, 254));
    tensor("a number varies that is not there", |row| row.varying_mask = 4);
    let (_, what) = damaged::<TensorRow>(Kind::Tensors, 1, |row| row.name += 1);
    assert_eq!(what, "a slot is not where its row is looked up");

    let storage = |expected: &str, change: fn(&mut StorageRow)| check(Kind::Storages, 1, expected, change);
    storage("the fault of a storage is no string", |row| row.fault = 9999);
    storage("a storage has an impossible method", |row| row.method = 1 << 16);
    storage("a checksum of a storage is too large", |row| row.crc32 = 1 << 32);
    storage("a number varies that is not there", |row| row.varying_mask = 1 << 31);

    check::<QuantizerRow>(Kind::Quantizers, 0, "a quantizer has an impossible number", |row| {
        row.scheme = NONE
    });
    check::<u32>(Kind::PathParts, 0, "a component of a path is no string", |part| *part = NONE);
    check::<SkippedRow>(Kind::Skipped, 0, "a skipped file has no path or no reason", |row| row.reason = NONE);
}

#[test]
fn damage_of_nodes_is_found() {
    // dict: x, y, class, good, mixed, nothing, more: list: 1, tuple: "a"
    let node = |row, expected: &str, change: fn(&mut NodeRow)| check(Kind::Nodes, row, expected, change);
    node(0, "a node ends where it cannot", |row| row.end += 1);
    node(0, "nodes stand outside the saved object", |row| row.end -= 1);
    node(1, "a tensor node has no tensor", |row| row.target = 1);
    node(1, "a tensor node has no tensor", |row| row.end += 1);
    node(2, "a plain value is not the next column", |row| row.target = 1);
    node(2, "the key of a node is no string", |row| row.key = 1 << 40);
    node(2, "a node has a key where none is, or none", |row| row.key_kind = key::NONE);
    node(7, "a node ends where it cannot", |row| row.end = 7);
    node(8, "a node has a key where none is, or none", |row| row.key_kind = key::INT);
    node(8, "a node is the same as a later one", |row| (row.kind, row.target) = (node::SAME, 8));
    node(8, "an opaque node has no class", |row| (row.kind, row.target) = (node::OPAQUE, 9999));
    node(9, "a node ends where it cannot", |row| row.end += 1);
    node(1, "a plain value is not the next column", |row| (row.kind, row.target) = (node::LEAF, 1));
    let (_, what) = damaged::<NodeRow>(Kind::Nodes, 10, |row| (row.kind, row.target) = (node::OPAQUE, NONE));
    assert_eq!(what, "the saved object has other nodes or columns");
}

#[test]
fn damage_of_columns_is_found() {
    // y, class, good, mixed, nothing, …
    let column =
        |row, expected: &str, change: fn(&mut ColumnRow)| check(Kind::Columns, row, expected, change);
    column(0, "the name of a column is no string", |row| row.name = NONE);
    column(0, "the values of a column are not there", |row| row.values = 4);
    column(1, "the values of a column are not there", |row| row.values = 0);
    column(0, "the values of a column are not there", |row| row.values = NO_OFFSET - 7);
    column(1, "the marks of a column are not there", |row| row.marks = 0);
    column(2, "the values of a column are not there", |row| row.values -= 8);
    column(3, "a mixed column has no marks", |row| row.marks = NO_OFFSET);
    column(4, "a column without values has marks", |row| row.marks = row.values);
    let index = sound_index();
    let columns = index.section::<ColumnRow>(Kind::Columns);
    let data = |at: u64, to: u8| damaged::<u8>(Kind::ColumnData, at as usize, |byte| *byte = to).1;
    // Row 0 has no class, row 1 has.
    assert_eq!(data(columns[1].values + 4, 99), "a value of a column is no text");
    assert_eq!(data(columns[2].values, 2), "a bool is neither");
    assert_eq!(data(columns[3].values + 8, 99), "a value of a column is not of its kind");
}

#[test]
fn damage_of_lookup_tables_is_found() {
    let slot = "a slot is not where its row is looked up";
    check::<Slot>(Kind::NameSlots, 0, slot, |slot| slot.hash ^= 1);
    check::<Slot>(Kind::FileSlots, 0, slot, |slot| slot.hash ^= 1);
    check::<Slot>(Kind::FileSlots, 5, "a slot holds no row, or not the next one", |slot| slot.row = NONE);
    for kind in [Kind::NameBuckets, Kind::FileBuckets] {
        let (_, what) = damaged::<u32>(kind, 0, |start| *start = 1);
        assert_eq!(what, "a bucket does not follow the one before");
        let (_, what) = damaged::<u32>(kind, 1, |start| *start = NONE);
        assert_eq!(what, "a bucket does not follow the one before");
    }
    let index = sound_index();
    let [first, second] = [0, 1].map(|slot| index.section::<Slot>(Kind::FileSlots)[slot]);
    let (_, what) = damaged::<Slot>(Kind::FileSlots, 1, |slot| *slot = first);
    assert_ne!(first.row, second.row);
    assert!(what.starts_with("a slot "), "{what}");
}

/// Whatever is changed, nothing panics; what passes can be read; and where every number counts, every change is found.
#[test]
fn every_byte_may_be_anything() {
    let index = sound_index();
    let whole = index.as_bytes();
    let mut unnoticed = [0; Kind::COUNT];
    let step = if cfg!(miri) { 997 } else { 1 };
    for (kind, row) in index.section_table().iter().enumerate() {
        for at in (row.offset as usize..(row.offset + row.length) as usize).step_by(step) {
            for mask in [0x01, 0x80, 0xFF] {
                let mut bytes = whole.to_vec();
                bytes[at] ^= mask;
                let Ok(index) = Index::from_bytes(sealed(bytes)) else { continue };
                if index.verify().is_ok() {
                    unnoticed[kind] += 1;
                    assert_eq!(index.files().count(), 23);
                }
                let tensors: usize = index.files().map(|file| file.tensors().len()).sum();
                let leaves: usize = index.files().map(|file| file.leaves().len()).sum();
                assert!(tensors < 10_000 && leaves < 10_000);
            }
        }
    }
    println!("unnoticed: {unnoticed:?}");
    for kind in [
        Kind::Summary,
        Kind::FileSchemas,
        Kind::SchemaRows,
        Kind::SchemaFiles,
        Kind::PathBlocks,
        Kind::PathBytes,
        Kind::NameBuckets,
        Kind::NameSlots,
        Kind::FileBuckets,
        Kind::FileSlots,
    ] {
        assert_eq!(unnoticed[kind as usize], 0, "{kind:?}");
    }
}
