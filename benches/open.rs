//! Opening and listing a file, beside the `zip` crate reading the same directory and beside a bare map at known offsets.
//!
//! `cargo bench --bench open`. Files are made once, in the target folder; the large one is sparse. "Warm" is criterion's
//! business; the cold figures (file evicted first) are printed at the end.

mod common;

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use pt_view::{IndexPolicy, Map, Mapping, OpenOptions};

/// What listing means: name, shape and place of every tensor are looked at.
fn list(mapping: &Mapping) -> (usize, u64) {
    let mut sum = 0;
    let mut count = 0;
    for tensor in mapping.tensors() {
        let entry = tensor.entry();
        sum += entry.name().len() as u64
            + entry.numel().unwrap()
            + entry.storage().unwrap().record().unwrap().data_offset;
        count += 1;
    }
    (count, sum)
}

fn open(path: &Path, policy: IndexPolicy) -> Mapping {
    // SAFETY: the files of this benchmark are its own; nobody changes them.
    unsafe { Mapping::open_with(path, &OpenOptions { index: policy, ..Default::default() }) }.unwrap()
}

/// The floor: a map, and offsets that were known beforehand.
fn bare_map(path: &Path, offsets: &[u64]) -> u64 {
    let file = File::open(path).unwrap();
    // SAFETY: as above.
    let map = unsafe { Map::new(&file) }.unwrap();
    black_box(map.len());
    offsets.iter().sum()
}

fn bench_file(criterion: &mut Criterion, name: &str, path: &Path, tensors: usize) {
    pt_index::save(&pt_index::build_file(path, &Default::default()).unwrap(), &pt_index::sidecar_path(path))
        .unwrap();
    let parsed = open(path, IndexPolicy::Parse);
    let truth = list(&parsed);
    assert_eq!(truth.0, tensors);
    assert_eq!(list(&open(path, IndexPolicy::Sidecar)), truth);
    let offsets: Vec<u64> = parsed
        .tensors()
        .map(|tensor| tensor.entry().storage().unwrap().record().unwrap().data_offset)
        .collect();
    let entries = zip::ZipArchive::new(File::open(path).unwrap()).unwrap().len();
    assert!(entries > tensors);

    let mut group = criterion.benchmark_group(name);
    group.bench_function("floor: bare map, known offsets", |b| b.iter(|| bare_map(path, &offsets)));
    group.bench_function("index: open", |b| b.iter(|| open(path, IndexPolicy::Sidecar)));
    group.bench_function("index: open, list", |b| b.iter(|| list(&open(path, IndexPolicy::Sidecar))));
    group.bench_function("no index: open, list", |b| b.iter(|| list(&open(path, IndexPolicy::Parse))));
    group.bench_function("zip crate: directory alone", |b| {
        b.iter(|| zip::ZipArchive::new(File::open(path).unwrap()).unwrap().len());
    });
    group.finish();
}

fn cold(path: &Path, what: &str, policy: IndexPolicy) {
    let mut times = Vec::new();
    let mut read = 0;
    for _ in 0..7 {
        common::evict(path);
        common::evict(&pt_index::sidecar_path(path));
        let start = Instant::now();
        let mapping = open(path, policy);
        black_box(list(&mapping));
        times.push(start.elapsed());
        read = mapping.resident().map_or(0, |resident| resident.bytes());
    }
    times.sort();
    let median: Duration = times[times.len() / 2];
    println!(
        "{what}: median {median:.2?} (min {:.2?}, max {:.2?}), {} KiB of the file in memory",
        times[0],
        times[6],
        read >> 10
    );
}

fn benches(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let large = common::checkpoint_of_zeros(folder, 1_000, 2 << 30);
    let many = common::many_small_tensors(folder, 100_000);
    bench_file(criterion, "2 GiB, 1,000 tensors", &large, 1_000);
    bench_file(criterion, "34 MB, 100,000 tensors", &many, 100_000);

    println!("cold (evicted first), open and list:");
    cold(&large, "  2 GiB, 1,000 tensors, no index", IndexPolicy::Parse);
    cold(&large, "  2 GiB, 1,000 tensors, index", IndexPolicy::Sidecar);
}

criterion_group! {
    name = open_benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = benches
}

fn main() {
    open_benches();
}
