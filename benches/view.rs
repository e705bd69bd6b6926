//! Slices of a mapped file, beside a bare map at known offsets.
//!
//! `cargo bench --bench view`. Files are made once, in the target folder. Answers are compared before anything is timed.

mod common;

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, criterion_group};
use pt_format::write::{Object, Tensor};
use pt_view::{Access, FileCache, Map, Mapping};

const TENSORS: usize = 1_000;
const ROWS: u64 = 200_000;
const ROW_ELEMENTS: u64 = 256;
/// Files of 1,000 rows of 1 KiB.
const FILES: usize = 200;
const FILE_ROWS: u64 = 1_000;

/// Numbers that look random, the same each time.
fn scattered() -> impl Iterator<Item = u64> {
    // Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), its mixing function.
    (1u64..).map(|step| {
        let mixed = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    })
}

/// A file with one tensor of rows whose every element is its own number, from `first` on.
fn rows_file(path: PathBuf, rows: u64, first: u64) -> PathBuf {
    if !path.exists() {
        let end = first + rows * ROW_ELEMENTS;
        let elements: Vec<u32> = (first..end).map(|element| element as u32).collect();
        let tensor = Tensor::new(&[rows, ROW_ELEMENTS], &elements).unwrap();
        common::save(&path, &Object::dict([("x", tensor.into())]));
    }
    path
}

fn map(path: &Path) -> Map {
    // SAFETY: the files of this benchmark are its own; nobody changes them.
    unsafe { Map::new(&File::open(path).unwrap()) }.unwrap()
}

fn open(path: &Path) -> Mapping {
    // SAFETY: as above.
    unsafe { Mapping::open(path) }.unwrap()
}

fn sum(row: &[u32]) -> u32 {
    row.iter().fold(0, |sum, &element| sum.wrapping_add(element))
}

/// The row at an offset that was known beforehand.
fn known_row(map: &[u8], offset: u64, row: u64) -> &[u32] {
    let start = (offset + row * ROW_ELEMENTS * 4) as usize;
    bytemuck::cast_slice(&map[start..start + ROW_ELEMENTS as usize * 4])
}

fn slices(criterion: &mut Criterion, folder: &Path) {
    let path = common::many_small_tensors(folder, TENSORS);
    let mapping = open(&path);
    let names: Vec<String> = mapping.tensors().map(|tensor| tensor.name().to_owned()).collect();
    let offsets: Vec<u64> = mapping.tensors().map(|tensor| tensor.locate().unwrap().offset).collect();
    let bare = map(&path);
    let known = |number: usize| -> &[f32] {
        let start = offsets[number] as usize;
        bytemuck::cast_slice(&bare[start..start + 64])
    };
    let by_name = |number: usize| mapping.tensor(&names[number]).unwrap().as_slice::<f32>().unwrap();
    let by_id = |number: usize| mapping.tensor_at(number).unwrap().as_slice::<f32>().unwrap();
    assert_eq!(names.len(), TENSORS);
    for number in 0..TENSORS {
        assert_eq!((by_name(number), by_id(number)), (known(number), known(number)));
    }
    let views: Vec<_> = mapping.tensors().collect();

    let mut group = criterion.benchmark_group("a slice of 1 of 1,000 tensors");
    let mut numbers = scattered().map(|number| (number % TENSORS as u64) as usize);
    let mut next = move || numbers.next().unwrap();
    group.bench_function("floor: bare map, known offset", |b| b.iter(|| known(next())));
    group.bench_function("by name", |b| b.iter(|| by_name(next())));
    group.bench_function("by id", |b| b.iter(|| by_id(next())));
    group.bench_function("of a view", |b| b.iter(|| views[next()].as_slice::<f32>().unwrap()));
    group.finish();
}

fn rows(criterion: &mut Criterion, folder: &Path) {
    let path = rows_file(folder.join("rows-200000.pt"), ROWS, 0);
    let mapping = open(&path);
    let view = mapping.tensor("x").unwrap();
    let offset = view.locate().unwrap().offset;
    let bare = map(&path);
    let row = |number: u64| view.row(number).unwrap().as_slice::<u32>().unwrap();
    assert!((0..ROWS).all(|number| row(number) == known_row(&bare, offset, number)));
    assert_eq!(view.rows::<u32>().unwrap().map(sum).fold(0, u32::wrapping_add), {
        let all = ROWS * ROW_ELEMENTS;
        (all * (all - 1) / 2) as u32
    });

    let mut group = criterion.benchmark_group("a random row of 1 KiB of 200,000");
    let mut numbers = scattered().map(|number| number % ROWS);
    let mut next = move || numbers.next().unwrap();
    group.bench_function("floor: bare map, known offset, summed", |b| {
        b.iter(|| sum(known_row(&bare, offset, next())));
    });
    group.bench_function("row(i), summed", |b| b.iter(|| sum(row(next()))));
    group.bench_function("row(i), not touched", |b| b.iter(|| row(next())));
    group.finish();
}

fn files(criterion: &mut Criterion, folder: &Path) {
    let folder = folder.join("rows-200-1000");
    std::fs::create_dir_all(&folder).unwrap();
    let paths: Vec<PathBuf> = (0..FILES as u64)
        .map(|number| {
            let first = number * FILE_ROWS * ROW_ELEMENTS;
            rows_file(folder.join(format!("{number:03}.pt")), FILE_ROWS, first)
        })
        .collect();
    let index = pt_index::build_folder(&folder, None, &Default::default(), |_| {}).unwrap().index;
    let offset = index.tensor(0).unwrap().storage().unwrap().record().unwrap().data_offset;
    let bare: Vec<Map> = paths.iter().map(|path| map(path)).collect();
    let read = FileCache::new(&folder, index.clone());
    // SAFETY: as above.
    let mapped = unsafe { FileCache::new(&folder, index).with_access(Access::Map) };
    let known =
        |sample: u64| sum(known_row(&bare[(sample / FILE_ROWS) as usize], offset, sample % FILE_ROWS));
    let of_map = |sample: u64| {
        let file = mapped.file((sample / FILE_ROWS) as usize).unwrap();
        let row = file.tensor_at(0).unwrap().row(sample % FILE_ROWS).unwrap();
        sum(row.as_slice().unwrap())
    };
    let of_read = |sample: u64, buffer: &mut [u32]| {
        let file = read.file((sample / FILE_ROWS) as usize).unwrap();
        let row = file.tensor_at(0).unwrap().row(sample % FILE_ROWS).unwrap();
        row.read_into(bytemuck::cast_slice_mut(buffer)).unwrap();
        sum(buffer)
    };
    let mut buffer = vec![0; ROW_ELEMENTS as usize];
    for sample in 0..FILES as u64 * FILE_ROWS {
        assert_eq!((of_map(sample), of_read(sample, &mut buffer)), (known(sample), known(sample)));
    }

    let mut group = criterion.benchmark_group("a random row of 1 KiB of 200 files of 1,000");
    let mut numbers = scattered().map(|number| number % (FILES as u64 * FILE_ROWS));
    let mut next = move || numbers.next().unwrap();
    group.bench_function("floor: bare maps, known offsets", |b| b.iter(|| known(next())));
    group.bench_function("FileCache, mapped", |b| b.iter(|| of_map(next())));
    group.bench_function("FileCache, read", |b| b.iter(|| of_read(next(), &mut buffer)));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    slices(criterion, black_box(folder));
    rows(criterion, folder);
    files(criterion, folder);
}

criterion_group! {
    name = view_benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
    targets = benches
}

fn main() {
    view_benches();
}
