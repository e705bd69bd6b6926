//! Every way to gather gives the same bytes: those that the views of each file have.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use pt_format::write::{self, Object, Storage, Tensor};
use pt_format::{DType, Element};
use pt_loader::{Batch, DataSet, Loader, Options, Pad, Ragged, Side, To, Unit};
use pt_view::{Access, FileCache, Mapping, OpenOptions};

const FILES: usize = 9;
const ROWS: u64 = 5;

/// A file of tensors that lie in all kinds of ways; every third file is compressed.
fn write_file(folder: &Path, number: usize, rows: u64) {
    let value = |at: u64| (number as u64 * 1000 + at) as f32;
    let plain: Vec<f32> = (0..rows * 700).map(value).collect();
    let small: Vec<i16> = (0..rows * 3).map(|at| value(at) as i16).collect();
    let square: Vec<f32> = (0..rows * 4).map(value).collect();
    let shared = Storage::new(bytes_of(&(0..rows * 8 + 16).map(value).collect::<Vec<_>>()));
    let strided = Storage::new(bytes_of(&square));
    let halves: Vec<half::f16> = (0..rows * 2).map(|at| half::f16::from_f32(value(at))).collect();
    let tensor = |shape: &[u64], stride: &[u64], offset, storage| {
        Object::from(Tensor::strided(DType::Float32, shape, stride, offset, storage).unwrap())
    };
    let object = Object::dict([
        ("plain", Tensor::new::<f32>(&[rows, 700], &plain).unwrap().into()),
        ("small", Tensor::new::<i16>(&[rows, 3], &small).unwrap().into()),
        // Column by column, so that it must be put together.
        ("columns", tensor(&[rows, 4], &[1, rows], 0, &strided)),
        ("again", tensor(&[rows, 4], &[1, rows], 0, &strided)),
        // Both begin in one place, one ends earlier.
        ("all", tensor(&[rows, 8], &[8, 1], 0, &shared)),
        ("part", tensor(&[rows, 1], &[1, 1], 0, &shared)),
        ("rest", tensor(&[rows, 3], &[3, 1], 8, &shared)),
        ("half", Tensor::new::<half::f16>(&[rows, 2], &halves).unwrap().into()),
        ("empty", Tensor::new::<f32>(&[rows, 0], &[]).unwrap().into()),
    ]);
    let bytes = write::to_vec(&object).unwrap();
    let bytes = if number % 3 == 2 { compressed(&bytes) } else { bytes };
    fs::write(folder.join(format!("{number}.pt")), bytes).unwrap();
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// The same archive, its tensors deflated.
fn compressed(archive: &[u8]) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..from.len() {
        let mut record = from.by_index(number).unwrap();
        let name = record.name().unwrap().into_owned();
        let is_data = name.contains("/data/");
        let method = if is_data { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        let mut bytes = Vec::new();
        record.read_to_end(&mut bytes).unwrap();
        to.start_file(name, options).unwrap();
        to.write_all(&bytes).unwrap();
    }
    to.finish().unwrap().into_inner()
}

/// The same data set, its files opened in every way: all kept, some kept, none kept, mapped, by many threads.
fn ways(data: &DataSet) -> Vec<(&'static str, DataSet)> {
    let files = || FileCache::new(data.root(), data.index().clone());
    // SAFETY: nobody writes to the files of these tests; here and below.
    let mapped = |files: FileCache| unsafe { files.with_access(Access::Map) };
    // SAFETY: as above.
    let auto = |files: FileCache| unsafe { files.with_access(Access::Auto) };
    let with = |files| DataSet::with_files(files, data.options()).unwrap();
    vec![
        ("all kept", data.clone()),
        ("few kept, or none", with(files().with_capacity(2))),
        ("all mapped", with(mapped(files()))),
        ("few mapped", with(mapped(files().with_capacity(2)))),
        ("mapped anew", with(mapped(files())).reopened()),
        ("mapped where that is faster", data.reopened_as(auto)),
        ("all mapped, dropped behind", with(mapped(files())).drop_behind()),
        ("few mapped, dropped behind", with(mapped(files().with_capacity(2))).drop_behind()),
        ("many threads", data.clone().with_threads(7).unwrap()),
    ]
}

/// Samples there and back, some twice, in small batches and large.
fn orders(samples: usize) -> Vec<Vec<usize>> {
    let scattered = (0..samples * 2).map(|at| at * 7 % samples).collect();
    vec![vec![samples - 1], vec![0, 0], (0..samples).collect(), (0..samples).rev().collect(), scattered]
}

#[test]
fn all_ways_give_the_bytes_of_the_views() {
    let folder = tempfile::tempdir().unwrap();
    (0..FILES).for_each(|number| write_file(folder.path(), number, ROWS));
    let files: Vec<Mapping> = (0..FILES).map(|number| open(folder.path(), number)).collect();
    for unit in [Unit::File, Unit::Row] {
        let options = Options { unit, ..Options::default() };
        let data = DataSet::open_with(folder.path(), &options).unwrap();
        assert_eq!(data.fields().len(), 9);
        for (way, data) in ways(&data) {
            let mut batch = Batch::default();
            for order in orders(data.len()) {
                data.gather_into(&order, Ragged::Refuse, &mut batch).unwrap();
                for (at, &sample) in order.iter().enumerate() {
                    let (file, row) = (sample / per_file(unit), sample % per_file(unit));
                    for tensor in batch.tensors() {
                        let expected = files[file].tensor(tensor.name()).unwrap().to_bytes().unwrap();
                        let bytes = expected.len() / per_file(unit);
                        let expected = &expected[row * bytes..][..bytes];
                        let got = &tensor.as_bytes()[at * bytes..][..bytes];
                        assert_eq!(got, expected, "{way}, {unit:?}, sample {sample}, {}", tensor.name());
                    }
                }
            }
            check_lent(&data, &files, unit, way.contains("all mapped"));
        }
    }
}

fn per_file(unit: Unit) -> usize {
    if unit == Unit::Row { ROWS as usize } else { 1 }
}

/// What can be lent is what is there, and all that can be is lent.
fn check_lent(data: &DataSet, files: &[Mapping], unit: Unit, all_mapped: bool) {
    for sample in 0..data.len() {
        let (file, row) = (sample / per_file(unit), sample % per_file(unit));
        for (number, field) in data.fields().iter().enumerate() {
            let expected = files[file].tensor(&field.name).unwrap().to_bytes().unwrap();
            let bytes = expected.len() / per_file(unit);
            let lent = data.lend(sample, number).unwrap();
            let can =
                all_mapped && file % 3 != 2 && !["columns", "again", "empty"].contains(&&field.name[..]);
            assert!(lent.is_some() || !can, "{} of sample {sample} is not lent", field.name);
            if let Some(lent) = lent {
                assert_eq!(lent, &expected[row * bytes..][..bytes]);
            }
        }
    }
    assert!(data.lend(data.len(), 0).is_err());
    assert_eq!(data.lend(0, 99).unwrap(), None);
}

#[test]
fn ragged_samples_and_casts_are_the_same_in_all_ways() {
    let folder = tempfile::tempdir().unwrap();
    (0..FILES).for_each(|number| write_file(folder.path(), number, [3, 1, 0, 6][number % 4]));
    let data = DataSet::open(folder.path()).unwrap().to_float32("half", 0.5).unwrap();
    let pad = |to, side| Ragged::Pad(Pad { to, side, mask: true, ..Pad::default() });
    let how = [
        Ragged::Joined,
        pad(To::Longest, Side::Left),
        pad(To::Length(2), Side::Right),
        pad(To::Length(2), Side::Left),
    ];
    for ragged in how {
        for order in orders(FILES) {
            let mut expected = Batch::default();
            data.gather_into(&order, ragged, &mut expected).unwrap();
            for (way, data) in ways(&data) {
                let data = data.to_float32("half", 0.5).unwrap();
                let mut batch = Batch::default();
                data.gather_into(&order, ragged, &mut batch).unwrap();
                for (tensor, expected) in batch.tensors().zip(expected.tensors()) {
                    assert_eq!(tensor.as_bytes(), expected.as_bytes(), "{way}, {ragged:?}, {tensor:?}");
                    assert_eq!((tensor.lengths(), tensor.mask()), (expected.lengths(), expected.mask()));
                }
            }
        }
    }
    // And what they are: the joined ones are the files' own, one behind the other.
    let mut batch = Batch::default();
    let order: Vec<usize> = (0..FILES).collect();
    data.gather_into(&order, Ragged::Joined, &mut batch).unwrap();
    for name in ["plain", "columns", "rest"] {
        assert_eq!(batch.tensor(name).unwrap().as_bytes(), joined(folder.path(), name, DType::Float32));
    }
    let halves = joined(folder.path(), "half", half::f16::DTYPE);
    let halves: Vec<f32> = halves
        .as_chunks::<2>()
        .0
        .iter()
        .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32() * 0.5)
        .collect();
    assert_eq!(batch.tensor("half").unwrap().as_slice::<f32>().unwrap(), halves);
}

fn joined(folder: &Path, name: &str, dtype: DType) -> Vec<u8> {
    let bytes = |number| {
        let file = open(folder, number);
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Some(dtype));
        tensor.to_bytes().unwrap()
    };
    (0..FILES).flat_map(bytes).collect()
}

fn open(folder: &Path, number: usize) -> Mapping {
    Mapping::open_read(folder.join(format!("{number}.pt")), &OpenOptions::default()).unwrap()
}

#[test]
fn records_whose_header_is_another_are_refused_in_all_ways() {
    let folder = tempfile::tempdir().unwrap();
    (0..FILES).for_each(|number| write_file(folder.path(), number, ROWS));
    let data =
        DataSet::open_with(folder.path(), &Options { policy: pt_index::Policy::Trust, ..Options::default() });
    let data = data.unwrap();
    // The name in the local header of the first record of data; nothing else knows.
    let path = folder.path().join("4.pt");
    let mut bytes = fs::read(&path).unwrap();
    let name = b"archive/data/0";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    for (way, data) in ways(&data) {
        data.gather(&[0, 3]).unwrap();
        let error = data.gather(&[3, 4, 5]).err().unwrap().to_string();
        assert!(error.contains("sample 4") && error.contains("4.pt"), "{way}: {error}");
    }
}

/// Section contents are not checked when an index is opened; whatever they say, samples are right, or refused.
#[test]
fn a_damaged_index_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    (0..3).for_each(|number| write_file(folder.path(), number, 2));
    let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap().index;
    let mut refused = 0;
    let flipped = |at: usize, flip: u8| {
        let mut bytes = index.as_bytes().to_vec();
        bytes[at] ^= flip;
        bytes
    };
    // The largest numbers, less a little: sums with them leave 64 bits.
    let largest = |at: usize, less: u64| {
        let mut bytes = index.as_bytes().to_vec();
        let end = bytes.len().min(at + 8);
        bytes[at..end].copy_from_slice(&(u64::MAX - less).to_le_bytes()[..end - at]);
        bytes
    };
    for at in 0..index.as_bytes().len() {
        for bytes in [flipped(at, 0x01), flipped(at, 0x80), largest(at, 0), largest(at, 100)] {
            let Ok(damaged) = pt_index::Index::from_bytes(bytes) else { continue };
            for unit in [Unit::File, Unit::Row] {
                let options = Options { unit, ..Options::default() };
                let Ok(data) = DataSet::with_index(folder.path(), damaged.clone(), &options) else {
                    continue;
                };
                // As many as there may be; damage can promise terabytes.
                let samples: Vec<usize> = (0..data.len().min(6)).collect();
                let mut batch = Batch::default();
                refused += usize::from(data.gather_into(&samples, Ragged::Refuse, &mut batch).is_err());
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Bytes of files below a folder that are mapped into this process and resident.
#[cfg(target_os = "linux")]
fn resident_bytes(folder: &Path) -> u64 {
    let folder = folder.to_str().unwrap();
    let mut is_ours = false;
    let mut bytes = 0;
    for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        match line.strip_prefix("Rss:") {
            Some(rss) if is_ours => {
                bytes += rss.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
            }
            Some(_) => {}
            // `address-address rwxp offset device inode path`; other lines are `Field: value`.
            None if line.split_whitespace().next().is_some_and(|word| !word.ends_with(':')) => {
                is_ours = line.contains(folder);
            }
            None => {}
        }
    }
    bytes
}

#[test]
#[cfg(target_os = "linux")]
fn a_mapped_epoch_leaves_nothing_resident_that_is_dropped_behind() {
    const FILES: u64 = 4;
    const ROWS: u64 = 128;
    const ROW_BYTES: u64 = 64 << 10;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for file in 0..FILES {
        let values: Vec<u8> =
            (0..ROWS).flat_map(|row| vec![(file * ROWS + row) as u8; ROW_BYTES as usize]).collect();
        let x = Tensor::new::<u8>(&[ROWS, ROW_BYTES], &values).unwrap();
        let bytes = write::to_vec(&Object::dict([("x", x.into())])).unwrap();
        std::fs::write(folder.path().join(format!("{file}.pt")), bytes).unwrap();
    }
    let index = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap().index;
    let options = Options { unit: Unit::Row, ..Options::default() };
    let most = |drops_behind: bool, batch_size: usize| {
        // SAFETY: the files are this test's own.
        let files = unsafe { FileCache::new(folder.path(), index.clone()).with_access(Access::Map) };
        let data = DataSet::with_files(files, &options).unwrap();
        let data = if drops_behind { data.drop_behind() } else { data };
        let mut epoch = Loader::new(&data, batch_size).shuffle(1).epoch(0);
        let mut batch = Batch::default();
        let mut most = 0;
        while epoch.next_into(&mut batch).unwrap() {
            for (row, &sample) in
                batch.tensor("x").unwrap().as_bytes().chunks(ROW_BYTES as usize).zip(batch.samples())
            {
                assert!(row.iter().all(|&byte| byte == sample as u8));
            }
            most = most.max(resident_bytes(folder.path()));
        }
        most
    };
    // Small batches are copied in one way, large ones in another.
    for batch_size in [1, 32] {
        let (kept, dropped) = (most(false, batch_size), most(true, batch_size));
        assert!(
            kept > FILES * ROWS * ROW_BYTES * 9 / 10,
            "{kept} bytes resident, of batches of {batch_size}"
        );
        assert!(dropped < 1 << 20, "{dropped} bytes resident, of batches of {batch_size}");
    }
}
