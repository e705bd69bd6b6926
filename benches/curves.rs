//! How cost grows: opening with tensors, indexing with files, gathering with threads and batch size, reading a cold disk with
//! reads in flight.
//!
//! `cargo bench --bench curves [CURVE…]`. Figures are printed, and kept in `target/bench/curves.json` for
//! `benches/python/report.py`, where a curve that is measured anew replaces the earlier one. `PTVIEW_QUICK=1` takes small sizes,
//! and keeps figures in `target/quick/bench`.

mod common;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pt_index::{BuildOptions, Index, build_folder};
use pt_loader::{Batch, DataSet, Permutation, Ragged};
use pt_view::{IndexPolicy, Mapping, OpenOptions};
use serde_json::{Value, json};

use crate::common::{folder_of_samples, many_small_tensors, synthesised};

type Curve = (&'static str, fn(&mut Points, &Sizes));

const CURVES: [Curve; 6] = [
    ("open", opening),
    ("build", building),
    ("open-index", opening_an_index),
    ("threads", gathering_with_threads),
    ("batch", gathering_batches),
    ("cold", reading_a_cold_disk),
];

fn main() {
    // `cargo test` runs benchmarks for a moment, to see that they do.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_quick = std::env::var_os("PTVIEW_QUICK").is_some();
    let sizes = Sizes::new(is_quick);
    let kept = folder().with_file_name(if is_quick { "quick/bench" } else { "bench" });
    for (name, run) in CURVES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("{name}");
            let mut points = Points::default();
            run(&mut points, &sizes);
            points.keep(&kept, name);
        }
    }
}

/// How large things get.
struct Sizes {
    tensors: Vec<usize>,
    built_files: Vec<usize>,
    synthesised_files: Vec<usize>,
    /// Files that batches are gathered from.
    files: usize,
    rounds: usize,
}

impl Sizes {
    fn new(is_quick: bool) -> Self {
        if is_quick {
            return Self {
                tensors: vec![10, 100, 1_000],
                built_files: vec![100, 1_000],
                synthesised_files: vec![1_000, 10_000],
                files: 1_000,
                rounds: 5,
            };
        }
        Self {
            tensors: vec![10, 100, 1_000, 10_000, 100_000],
            built_files: vec![100, 1_000, 5_000, 20_000],
            synthesised_files: vec![1_000, 10_000, 100_000, 1_000_000],
            files: 20_000,
            rounds: 11,
        }
    }
}

/// What was measured along one curve.
#[derive(Default)]
struct Points(Vec<Value>);

impl Points {
    /// Runs so often, the first time not counting; `prepare` is not timed. Returns seconds, sorted.
    fn time(rounds: usize, mut prepare: impl FnMut(), mut run: impl FnMut(usize)) -> Vec<f64> {
        let mut seconds = Vec::with_capacity(rounds);
        for round in 0..=rounds {
            prepare();
            let start = Instant::now();
            run(round);
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    fn add(&mut self, line: &str, x: usize, samples: usize, seconds: &[f64]) {
        let (median, low, high) = (seconds[seconds.len() / 2], seconds[0], seconds[seconds.len() - 1]);
        println!("  {line:<34} {x:>9}  {:>12.1} µs  ({:.1} to {:.1})", median * 1e6, low * 1e6, high * 1e6);
        self.0.push(json!({
            "line": line, "x": x, "samples": samples, "rounds": seconds.len(),
            "median_s": median, "low_s": low, "high_s": high,
        }));
    }

    fn keep(self, folder: &Path, name: &str) {
        let path = folder.join("curves.json");
        let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut curves: Value = kept.unwrap_or_else(|| json!({}));
        curves[name] = Value::Array(self.0);
        fs::create_dir_all(folder).unwrap();
        fs::write(&path, serde_json::to_vec_pretty(&curves).unwrap()).unwrap();
    }
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Opens a file and looks at the name and size of every tensor.
fn open_and_list(path: &Path, index: IndexPolicy) -> usize {
    // SAFETY: the files of this benchmark are its own; nobody changes them.
    let mapping = unsafe { Mapping::open_with(path, &OpenOptions { index, ..Default::default() }) }.unwrap();
    let bytes = mapping
        .tensors()
        .map(|tensor| tensor.entry().name().len() + tensor.entry().numel().unwrap() as usize);
    black_box(bytes.sum::<usize>());
    mapping.tensors().count()
}

fn opening(points: &mut Points, sizes: &Sizes) {
    for &tensors in &sizes.tensors {
        let path = many_small_tensors(folder(), tensors);
        let index = pt_index::build_file(&path, &Default::default()).unwrap();
        pt_index::save(&index, &pt_index::sidecar_path(&path)).unwrap();
        for (line, policy) in [("parsed", IndexPolicy::Parse), ("with an index", IndexPolicy::Sidecar)] {
            assert_eq!(open_and_list(&path, policy), tensors);
            let seconds = Points::time(sizes.rounds, || (), |_| _ = open_and_list(&path, policy));
            points.add(line, tensors, tensors, &seconds);
        }
    }
}

fn building(points: &mut Points, sizes: &Sizes) {
    let options = BuildOptions { fail_on_error: true, ..BuildOptions::default() };
    for &files in &sizes.built_files {
        let folder = folder_of_samples(files);
        let built = build_folder(&folder, None, &options, |_| {}).unwrap();
        assert_eq!(built.index.tensor_count(), files);
        let rounds = sizes.rounds.min(7);
        let build = |known: Option<&Index>| {
            Points::time(rounds, || (), |_| _ = build_folder(&folder, known, &options, |_| {}).unwrap())
        };
        points.add("build", files, files, &build(None));
        points.add("bring up to date, nothing changed", files, files, &build(Some(&built.index)));
    }
}

fn opening_an_index(points: &mut Points, sizes: &Sizes) {
    for &files in &sizes.synthesised_files {
        let path = folder().join(format!("synthesised-{files}.ptidx"));
        pt_index::save(&synthesised(files), &path).unwrap();
        // SAFETY: as above.
        let open = || unsafe { pt_view::open_index(&path) }.unwrap();
        assert_eq!(open().file_count(), files);
        points.add("open", files, files, &Points::time(sizes.rounds, || (), |_| _ = black_box(open())));
        let index = open();
        let places: Vec<usize> = (0..1000).map(|at: usize| at.wrapping_mul(2_654_435_761) % files).collect();
        let paths: Vec<String> = places.iter().map(|&at| index.file(at).unwrap().path()).collect();
        let find =
            |_| paths.iter().for_each(|path| _ = black_box(index.find_file(path).unwrap().tensor("x")));
        points.add("1,000 tensors by path and name", files, 1000, &Points::time(sizes.rounds, || (), find));
    }
}

/// Batches of a shuffled epoch, another one each round.
fn gather(data: &DataSet, size: usize, batch: &mut Batch, round: usize) {
    let order = Permutation::new(data.len(), 7, round as u64);
    let samples: Vec<usize> = (0..size).map(|at| order.at(at)).collect();
    data.gather_into(&samples, Ragged::Refuse, batch).unwrap();
    black_box(&batch);
}

/// A thread count and an opened folder whose first sample is what it should be.
fn opened(files: usize, threads: Option<usize>) -> (PathBuf, DataSet) {
    let folder = folder_of_samples(files);
    let mut data = DataSet::open(&folder).unwrap();
    if let Some(threads) = threads {
        data = data.with_threads(threads).unwrap();
    }
    let batch = data.gather(&[files - 1]).unwrap();
    assert_eq!(batch.tensor("x").unwrap().as_slice::<f32>().unwrap()[4095], (files - 1) as f32);
    (folder, data)
}

fn gathering_with_threads(points: &mut Points, sizes: &Sizes) {
    for threads in [1, 2, 4, 8] {
        let (_, data) = opened(sizes.files, Some(threads));
        let mut batch = Batch::default();
        let run = |round| gather(&data, 256, &mut batch, round);
        points.add("batches of 256", threads, 256, &Points::time(3 * sizes.rounds, || (), run));
    }
}

fn gathering_batches(points: &mut Points, sizes: &Sizes) {
    let (_, data) = opened(sizes.files, None);
    for size in [1, 4, 16, 64, 256, 1024] {
        let size = size.min(sizes.files);
        let mut batch = Batch::default();
        let run = |round| gather(&data, size, &mut batch, round);
        points.add("all threads", size, size, &Points::time(3 * sizes.rounds, || (), run));
    }
}

/// Threads are reads in flight: each waits for one.
fn reading_a_cold_disk(points: &mut Points, sizes: &Sizes) {
    let size = 2048.min(sizes.files);
    for threads in [1, 2, 4, 8, 16, 32, 64] {
        let (folder, data) = opened(sizes.files, Some(threads));
        let mut batch = Batch::default();
        let run = |round| gather(&data, size, &mut batch, round);
        let seconds = Points::time(sizes.rounds.min(5), || common::evict_all(&folder), run);
        points.add("cold, random files", threads, size, &seconds);
    }
}
