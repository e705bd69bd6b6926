//! Gathering batches, beside what nobody can undercut: a `memcpy`, and open, read, close of every file.
//!
//! `cargo bench --bench loader`. Files are made once, in the target folder; the page cache is warm. Every figure is the median
//! of rounds in which the candidates take turns.

mod common;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pt_format::write::{self, Object, Tensor};
use pt_loader::{Batch, DataSet, Options, Permutation, Ragged, Unit};

use crate::common::folder_of_samples;

const ROUNDS: usize = 15;
const BATCH: usize = 256;

/// Times the candidates in turns and shows their medians, each beside the first.
fn show(what: &str, per_round: usize, candidates: &mut [(&str, &mut dyn FnMut(usize))]) {
    println!("\n{what}");
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); candidates.len()];
    for round in 0..=ROUNDS {
        for ((_, run), times) in candidates.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run(round);
            // The first round warms up.
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|mut times| {
            times.sort();
            times[times.len() / 2].as_secs_f64()
        })
        .collect();
    for ((name, _), median) in candidates.iter().zip(&medians) {
        let micros = median * 1e6;
        let each = micros / per_round as f64;
        println!("  {name:<44} {micros:>10.1} µs  {each:>8.2} µs a sample  {:.2}x", median / medians[0]);
    }
}

fn rows_of_16_kib(folder: &Path) -> PathBuf {
    let folder = folder.join("loader-big");
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        let values: Vec<f32> = (0..4096 * 4096).map(|at| at as f32).collect();
        let x = Tensor::new::<f32>(&[4096, 4096], &values).unwrap();
        common::save(&folder.join("big.pt"), &Object::dict([("x", x.into())]));
    }
    folder
}

fn rows_of_1_kib(folder: &Path) -> PathBuf {
    let folder = folder.join("loader-rows");
    let done = folder.with_extension("done");
    if !done.exists() {
        fs::create_dir_all(&folder).unwrap();
        for number in 0..200 {
            let values = vec![number as f32; 1000 * 256];
            let x = Tensor::new::<f32>(&[1000, 256], &values).unwrap();
            let bytes = write::to_vec(&Object::dict([("x", x.into())])).unwrap();
            fs::write(folder.join(format!("{number:03}.pt")), bytes).unwrap();
        }
        File::create(done).unwrap();
    }
    folder
}

fn gather<'d>(data: &'d DataSet, batch: &'d mut Batch, size: usize) -> impl FnMut(usize) + use<'d> {
    move |round| {
        let order = Permutation::new(data.len(), 7, round as u64);
        let samples: Vec<usize> = (0..size).map(|at| order.at(at)).collect();
        data.gather_into(&samples, Ragged::Refuse, batch).unwrap();
        black_box(&batch);
    }
}

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let rows = Options { unit: Unit::Row, ..Options::default() };

    let data = DataSet::open_with(rows_of_16_kib(folder), &rows).unwrap();
    let first = data.gather(&[4095]).unwrap();
    assert_eq!(first.tensor("x").unwrap().as_slice::<f32>().unwrap()[1], (4095 * 4096 + 1) as f32);
    let (from, mut to) = (vec![1u8; BATCH * 16384], vec![0u8; BATCH * 16384]);
    let mut batch = Batch::default();
    show(
        "256 x 16 KiB, random rows of one file of 64 MiB",
        BATCH,
        &mut [
            ("floor: one memcpy of as many bytes", &mut |_| {
                black_box(&mut to).copy_from_slice(black_box(&from))
            }),
            ("gather_into, all threads", &mut gather(&data, &mut batch, BATCH)),
        ],
    );

    let samples = folder_of_samples(20_000);
    let data = DataSet::open(&samples).unwrap();
    let mut batch = Batch::default();
    let mut buffer = vec![0; 16384];
    show(
        "256 of 20,000 files of one 16 KiB tensor",
        BATCH,
        &mut [
            ("floor: open, pread, close of each, 1 thread", &mut |round| {
                let order = Permutation::new(data.len(), 7, round as u64);
                for at in 0..BATCH {
                    let path = samples.join(format!("sample_{:06}.pt", order.at(at)));
                    File::open(path).unwrap().read_exact_at(&mut buffer, 1024).unwrap();
                    black_box(&buffer);
                }
            }),
            ("gather_into, all threads", &mut gather(&data, &mut batch, BATCH)),
        ],
    );

    let folder = rows_of_1_kib(folder);
    let data = DataSet::open_with(&folder, &rows).unwrap();
    let maps: Vec<memmap2::Mmap> = (0..200)
        .map(|number| {
            let file = File::open(folder.join(format!("{number:03}.pt"))).unwrap();
            // SAFETY: nobody else writes into the target folder's files while this runs.
            unsafe { memmap2::Mmap::map(&file) }.unwrap()
        })
        .collect();
    let mut batch = Batch::default();
    let mut to = vec![0; BATCH * 1024];
    show(
        "random rows of 200 files x 1,000 rows x 1 KiB",
        BATCH,
        &mut [
            ("floor: raw maps, offsets known", &mut |round| {
                let order = Permutation::new(200_000, 7, round as u64);
                for (at, to) in to.chunks_exact_mut(1024).enumerate() {
                    let row = order.at(at);
                    let start = 1024 + row % 1000 * 1024;
                    to.copy_from_slice(&maps[row / 1000][start..start + 1024]);
                }
                black_box(&to);
            }),
            ("gather_into, batches of 256", &mut gather(&data, &mut batch, BATCH)),
        ],
    );
}
