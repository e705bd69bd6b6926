//! Our walk of the zip directory against the `zip` crate's.

mod common;

use std::io::{Cursor, Read};

use pt_format::Archive;
use zip::ZipArchive;

use crate::common::readable_fixtures;

#[test]
fn the_zip_crate_sees_the_same_records() {
    let (mut files, mut records, mut refused) = (0, 0, Vec::new());
    for fixture in readable_fixtures() {
        let bytes = fixture.bytes();
        // The zip crate also finds archives that end somewhere inside other files.
        if !bytes.starts_with(b"PK") {
            refused.push(fixture.name);
            continue;
        }
        let Ok(mut theirs) = ZipArchive::new(Cursor::new(&bytes)) else {
            refused.push(fixture.name);
            continue;
        };
        let ours = Archive::parse(&bytes).unwrap();
        assert_eq!(ours.entries().len(), theirs.len(), "{}", fixture.name);
        for (index, entry) in ours.entries().iter().enumerate() {
            let what = format!("{} record {index}", fixture.name);
            let data_start = ours.data_start(index).unwrap();
            if let Some(computed) = ours.computed_data_start(index) {
                assert_eq!(computed, data_start, "{what}");
            }
            let content = ours.read_record(index, 1 << 30).unwrap();

            let record = theirs.by_index_raw(index).unwrap();
            assert_eq!(ours.name(entry), record.name_raw(), "{what}");
            assert_eq!((entry.size, entry.packed_size), (record.size(), record.compressed_size()), "{what}");
            assert_eq!(entry.crc32, record.crc32(), "{what}");
            assert_eq!(entry.header_offset, record.header_start(), "{what}");
            assert_eq!(Some(data_start), record.data_start(), "{what}");
            drop(record);
            // A CRC of 0 means "not computed", which the zip crate does not know.
            if entry.crc32 != 0 {
                let mut decoded = Vec::new();
                theirs.by_index(index).unwrap().read_to_end(&mut decoded).unwrap();
                assert_eq!(content, decoded, "{what}");
            }
            records += 1;
        }
        files += 1;
    }
    println!("{records} records of {files} archives agree; the zip crate refuses {refused:?}");
    assert!(files > 60, "the zip crate is no second opinion if it opens next to nothing");
}
