//! Parsing, from bytes in memory: no file is opened, read or mapped while the clock runs.
//!
//! `cargo bench --bench parse`. Beside the whole parse stand its first part alone (the directory), the `zip` crate
//! reading the same directory, and the floor: one copy of all bytes that parsing looks at.

mod common;

use std::fs;
use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pt_format::write::{self, Object, Tensor};
use pt_format::{Archive, Checkpoint, Limits};

/// What a folder of samples costs for each file, input aside.
fn bench_small(criterion: &mut Criterion, name: &str, object: &Object<'_>) {
    let bytes = write::to_vec(object).unwrap();
    let limits = Limits::default();
    assert_eq!(Checkpoint::parse(&bytes, &limits).unwrap().tensors().len(), 1);
    let mut group = criterion.benchmark_group(name);
    group.bench_function("directory", |b| b.iter(|| Archive::parse(&bytes).unwrap()));
    group.bench_function("parse", |b| b.iter(|| Checkpoint::parse(&bytes, &limits).unwrap()));
    group.bench_function("parse, index", |b| {
        b.iter(|| pt_index::index_of(&Checkpoint::parse(&bytes, &limits).unwrap()).unwrap());
    });
    group.finish();
}

fn bench_large(criterion: &mut Criterion, name: &str, bytes: &[u8], tensors: usize) {
    let limits = Limits::default();
    let checkpoint = Checkpoint::parse(bytes, &limits).unwrap();
    checkpoint.check().unwrap();
    assert_eq!(checkpoint.tensors().len(), tensors);
    let archive = Archive::parse(bytes).unwrap();
    let pickle = archive.read_record(archive.find_in_root("data.pkl").unwrap(), limits.pickle_bytes).unwrap();
    let looked_at = [archive.directory(), &pickle];
    let mut copy = looked_at.concat();

    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(tensors as u64));
    group.bench_function("floor: copy of directory and pickle", |b| {
        b.iter(|| {
            let (directory, pickle) = copy.split_at_mut(looked_at[0].len());
            directory.copy_from_slice(looked_at[0]);
            pickle.copy_from_slice(looked_at[1]);
            black_box(&mut copy);
        });
    });
    group.bench_function("zip crate: directory", |b| {
        b.iter(|| zip::ZipArchive::new(Cursor::new(bytes)).unwrap().len());
    });
    group.bench_function("directory", |b| b.iter(|| Archive::parse(bytes).unwrap()));
    group.bench_function("parse", |b| b.iter(|| Checkpoint::parse(bytes, &limits).unwrap()));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let (values, sample) = ([1f32; 3], [1f32; 64 * 64]);
    let tensor = Tensor::new::<f32>(&[3], &values).unwrap();
    bench_small(criterion, "1 tensor", &tensor.into());
    let tensor = Tensor::new::<f32>(&[64, 64], &sample).unwrap();
    bench_small(criterion, "sample of 16 KB", &Object::dict([("x", tensor.into()), ("y", 7.into())]));

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for tensors in [1_000, 100_000] {
        let bytes = fs::read(common::many_small_tensors(folder, tensors)).unwrap();
        bench_large(criterion, &format!("{tensors} tensors"), &bytes, tensors);
    }
}

criterion_group! {
    name = parse_benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = benches
}

criterion_main!(parse_benches);
