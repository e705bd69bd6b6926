//! Gathering batches, beside what nobody can undercut: a `memcpy`; open, read, close of every file; a bare map.
//!
//! `cargo bench --bench loader -- [PART…]`. Files are made once, in the target folder. Warm parts find them in the page cache, the
//! cold part drops them from it. Every figure is the median of rounds in which the candidates take turns; floors run on
//! as many threads as what is beside them.

mod common;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_loader::{Batch, DataSet, Loader, Options, Pad, Permutation, Ragged, Unit};
use pt_view::{Access, FileCache};
use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::common::folder_of_samples;

const ROUNDS: usize = 31;
const BATCH: usize = 256;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let parts: [Part; 8] = [
        ("one-file", one_file),
        ("many-files", many_files),
        ("rows", rows),
        ("single", single),
        ("ragged", ragged),
        ("cold", cold),
        ("cold-files", cold_files),
        ("memory", memory),
    ];
    println!("{:<66} {:>10}  {:>12}  {:>6}", "", "median µs", "µs a sample", "ratio");
    for (name, run) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run(folder);
        }
    }
}

type Part = (&'static str, fn(&Path));
type Candidate<'c> = (&'c str, &'c mut dyn FnMut(usize));

/// As [`show_rounds`], in as many rounds as it takes for what is in memory.
fn show(what: &str, per_round: usize, candidates: &mut [Candidate<'_>]) {
    show_rounds(what, per_round, ROUNDS, candidates, &|| {});
}

/// Times the candidates in turns and shows their medians, each beside the first. Each gets the number of the round, shifted by
/// its own place: so that none finds in the processor's cache what the one before it has read.
fn show_rounds(
    what: &str,
    per_round: usize,
    rounds: usize,
    candidates: &mut [Candidate<'_>],
    before: &dyn Fn(),
) {
    println!("{what}");
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        // In another order each time: who follows one that woke up many threads finds a processor that is cold.
        let turns = Permutation::new(candidates.len(), 3, round as u64);
        for turn in 0..candidates.len() {
            let place = turns.at(turn);
            before();
            let start = Instant::now();
            candidates[place].1((round + 8 * place) % (ROUNDS + 1));
            // The first round warms up.
            if round > 0 {
                times[place].push(start.elapsed());
            }
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for ((name, _), median) in candidates.iter().zip(&medians) {
        let micros = median * 1e6;
        let each = micros / per_round as f64;
        println!("  {name:<64} {micros:>10.1}  {each:>12.3}  {:>5.2}x", median / medians[0]);
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// Samples of each round.
fn orders(samples: usize, count: usize) -> Vec<Vec<usize>> {
    let order = |round| Permutation::new(samples, 7, round as u64);
    (0..=ROUNDS).map(|round| (0..count).map(|at| order(round).at(at)).collect()).collect()
}

/// Memory that was written to, and begins at a multiple of 64 as that of batches does: what is not aligned is copied more slowly. It
/// lives as long as the benchmark runs.
fn aligned(bytes: usize) -> &'static mut [u8] {
    let memory = vec![1; bytes + 63].leak();
    let start = memory.as_ptr().align_offset(64);
    &mut memory[start..][..bytes]
}

/// Touches every page that a data set maps: what the first epoch does.
fn touch(data: &DataSet) {
    let samples: Vec<usize> = (0..data.len()).collect();
    let mut batch = Batch::default();
    for samples in samples.chunks(4096) {
        data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap();
    }
}

fn mapped(data: &DataSet) -> DataSet {
    let files = FileCache::new(data.root(), data.index().clone());
    // SAFETY: nobody else writes into the target folder's files while this runs.
    let files = unsafe { files.with_access(Access::Map) };
    DataSet::with_files(files, data.options()).unwrap()
}

fn gather<'d>(
    data: &'d DataSet,
    orders: &'d [Vec<usize>],
    ragged: Ragged,
    batch: &'d mut Batch,
) -> impl FnMut(usize) + use<'d> {
    move |round| {
        data.gather_into(&orders[round], ragged, batch).unwrap();
        black_box(&batch);
    }
}

/// 256 rows of 16 KiB of one file of 64 MiB.
fn one_file(folder: &Path) {
    let folder = folder.join("loader-big");
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        let values: Vec<f32> = (0..4096 * 4096).map(|at| at as f32).collect();
        let x = Tensor::new::<f32>(&[4096, 4096], &values).unwrap();
        common::save(&folder.join("big.pt"), &Object::dict([("x", x.into())]));
    }
    let read = DataSet::open_with(folder, &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    let first = read.gather(&[4095]).unwrap();
    assert_eq!(first.tensor("x").unwrap().as_slice::<f32>().unwrap()[1], (4095 * 4096 + 1) as f32);
    let map = mapped(&read);
    touch(&map);
    let heap = aligned(64 << 20);
    heap.iter_mut().step_by(64).for_each(|byte| *byte = 2);
    let to = aligned(BATCH * 16384);
    let orders = orders(4096, BATCH);
    let halves = to.len() / rayon::current_num_threads();
    let mut copy = |round: usize| {
        let from = &heap[round % 15 * to.len()..][..to.len()];
        to.par_chunks_mut(halves)
            .zip(from.par_chunks(halves))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&to);
    };
    let to_rows = aligned(BATCH * 16384);
    let mut copy_rows = |round: usize| {
        let pieces = to_rows.par_chunks_mut(16384).zip(&orders[round]).with_min_len(BATCH / 8);
        pieces.for_each(|(to, row)| to.copy_from_slice(&heap[row * 16384..][..16384]));
        black_box(&to_rows);
    };
    show(
        "256 x 16 KiB, random rows of one file of 64 MiB, all threads",
        BATCH,
        &mut [
            ("floor: one memcpy of as many bytes of 64 MiB of memory", &mut copy),
            ("floor: memcpy of those rows of 64 MiB of memory", &mut copy_rows),
            ("gather_into, mapped", &mut gather(&map, &orders, Ragged::Refuse, &mut Batch::default())),
            ("gather_into, read", &mut gather(&read, &orders, Ragged::Refuse, &mut Batch::default())),
        ],
    );
}

/// 256 of 20,000 small files.
fn many_files(_: &Path) {
    let folder = folder_of_samples(20_000);
    let data = DataSet::open(&folder).unwrap();
    let orders = orders(data.len(), BATCH);
    let map = mapped(&data);
    touch(&map);
    let path = |sample: usize| folder.join(format!("sample_{sample:06}.pt"));
    let paths: Vec<Vec<PathBuf>> =
        orders.iter().map(|order| order.iter().map(|&sample| path(sample)).collect()).collect();
    let to = aligned(BATCH * 16384);
    let mut read = |round: usize| {
        let pieces = to.par_chunks_mut(16384).zip(&paths[round]).with_min_len(BATCH / 8);
        pieces.for_each(|(to, path)| File::open(path).unwrap().read_exact_at(to, 1024).unwrap());
        black_box(&to);
    };
    show(
        "256 of 20,000 files of one 16 KiB tensor, all threads",
        BATCH,
        &mut [
            ("floor: open, pread, close of each", &mut read),
            ("gather_into", &mut gather(&data, &orders, Ragged::Refuse, &mut Batch::default())),
            ("gather_into, mapped", &mut gather(&map, &orders, Ragged::Refuse, &mut Batch::default())),
        ],
    );
}

fn rows_of_1_kib(folder: &Path) -> (DataSet, DataSet) {
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
    let read = DataSet::open_with(&folder, &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    let map = mapped(&read);
    touch(&map);
    (read, map)
}

/// Where the rows of each round lie in the maps: found before anything is timed.
fn places<'d>(map: &'d DataSet, orders: &[Vec<usize>]) -> Vec<Vec<&'d [u8]>> {
    let place = |&row: &usize| map.lend(row, 0).unwrap().unwrap();
    orders.iter().map(|order| order.iter().map(place).collect()).collect()
}

fn rows(folder: &Path) {
    let (read, map) = rows_of_1_kib(folder);
    let orders = orders(200_000, BATCH);
    let places = places(&map, &orders);
    let to = aligned(BATCH * 1024);
    let mut copy = |round: usize| {
        for (to, from) in to.chunks_exact_mut(1024).zip(&places[round]) {
            to.copy_from_slice(from);
        }
        black_box(&to);
    };
    show(
        "256 random rows of 200 files x 1,000 rows x 1 KiB",
        BATCH,
        &mut [
            ("floor: the same maps, places known, 1 thread", &mut copy),
            ("gather_into, mapped", &mut gather(&map, &orders, Ragged::Refuse, &mut Batch::default())),
            ("gather_into, read", &mut gather(&read, &orders, Ragged::Refuse, &mut Batch::default())),
        ],
    );
}

/// One sample a call.
fn single(folder: &Path) {
    const CALLS: usize = 5000;
    let (read, map) = rows_of_1_kib(folder);
    let orders = orders(200_000, CALLS);
    let places = places(&map, &orders);
    let to = aligned(1024);
    let mut copy = |round: usize| {
        for from in &places[round] {
            to.copy_from_slice(from);
            black_box(&to);
        }
    };
    let one = |data: &DataSet, batch: &mut Batch, round: usize| {
        for row in &orders[round] {
            data.gather_into(std::slice::from_ref(row), Ragged::Refuse, batch).unwrap();
            black_box(&batch);
        }
    };
    let lent = aligned(1024);
    let mut lend = |round: usize| {
        for &row in &orders[round] {
            lent.copy_from_slice(map.lend(row, 0).unwrap().unwrap());
            black_box(&lent);
        }
    };
    let (mut batch, mut other) = (Batch::default(), Batch::default());
    show(
        "random rows of 200 files x 1,000 rows x 1 KiB, one a call, 1 thread",
        CALLS,
        &mut [
            ("floor: the same maps, places known", &mut copy),
            ("lend, mapped, and copy", &mut lend),
            ("gather_into, mapped", &mut |round| one(&map, &mut batch, round)),
            ("gather_into, read", &mut |round| one(&read, &mut other, round)),
        ],
    );
}

/// Samples of 16 to 512 steps, padded to the longest of the batch.
fn ragged(folder: &Path) {
    const BATCH: usize = 64;
    let folder = folder.join("loader-ragged");
    let done = folder.with_extension("done");
    if !done.exists() {
        fs::create_dir_all(&folder).unwrap();
        for number in 0..1000u64 {
            let length = 16 + number * 7919 % 497;
            let values = vec![half::f16::from_f32(number as f32); length as usize * 256];
            let x = Tensor::new::<half::f16>(&[length, 256], &values).unwrap();
            let bytes = write::to_vec(&Object::dict([("x", x.into())])).unwrap();
            fs::write(folder.join(format!("{number:04}.pt")), bytes).unwrap();
        }
        File::create(done).unwrap();
    }
    let read = DataSet::open(&folder).unwrap();
    let map = mapped(&read);
    let orders = orders(1000, BATCH);
    let ragged = Ragged::Pad(Pad::default());
    let mut batch = Batch::default();
    read.gather_into(&orders[0], ragged, &mut batch).unwrap();
    let bytes = BATCH * 512 * 512;
    let (from, to) = (aligned(bytes), aligned(bytes));
    let halves = bytes / rayon::current_num_threads();
    let mut copy = |_: usize| {
        to.par_chunks_mut(halves)
            .zip(from.par_chunks(halves))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&to);
    };
    show(
        "64 ragged samples of f16[16..512, 256], padded to the longest, all threads",
        BATCH,
        &mut [
            ("floor: one memcpy of as many bytes, padding included", &mut copy),
            ("gather_into, mapped", &mut gather(&map, &orders, ragged, &mut Batch::default())),
            ("gather_into, read", &mut gather(&read, &orders, ragged, &mut batch)),
        ],
    );
}

/// Rows of 16 KiB of a file of 512 MiB that is not in memory.
fn cold(folder: &Path) {
    const ROWS: usize = 32_768;
    const COUNT: usize = 512;
    let folder = folder.join("loader-cold");
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        let values: Vec<u32> = (0..ROWS as u32 * 4096).map(|at| at.wrapping_mul(2_654_435_761)).collect();
        let x =
            Tensor::from_bytes(DType::Float32, &[ROWS as u64, 4096], bytemuck::cast_slice::<_, u8>(&values));
        common::save(&folder.join("cold.pt"), &Object::dict([("x", x.unwrap().into())]));
        File::open(folder.join("cold.pt")).unwrap().sync_all().unwrap();
    }
    let path = folder.join("cold.pt");
    let file = File::open(&path).unwrap();
    let direct = File::options().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path).unwrap();
    let read = DataSet::open_with(&folder, &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    let start = read.index().file(0).unwrap().tensors().next().unwrap().storage().unwrap().record().unwrap();
    let start = start.data_offset;
    let orders = orders(ROWS, COUNT);
    let drop_pages = || {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    // Direct reads begin and end at blocks of the disk: one page more than the row.
    let direct_reads = |threads: usize| {
        let (pool, direct, orders) = (pool(threads), &direct, &orders);
        move |round: usize| {
            let read = |row: &usize| {
                let mut buffer = vec![0u8; 16384 + 4096 + 4096];
                let skip = buffer.as_ptr().align_offset(4096);
                let from = (start + *row as u64 * 16384) / 4096 * 4096;
                direct.read_at(&mut buffer[skip..][..16384 + 4096], from).unwrap();
                black_box(&buffer);
            };
            pool.install(|| orders[round].par_iter().with_max_len(1).for_each(read));
        }
    };
    // SAFETY: nobody else writes into the target folder's files while this runs.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let faults = |threads: usize| {
        let (pool, map, orders) = (pool(threads), &map, &orders);
        move |round: usize| {
            // Pages that are mapped do not leave the page cache.
            // SAFETY: the map is shared and never written to.
            unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }.unwrap();
            drop_pages();
            let copy = |row: &usize| black_box(map[start as usize + row * 16384..][..16384].to_vec());
            pool.install(|| orders[round].par_iter().with_max_len(1).for_each(|row| _ = copy(row)));
            // SAFETY: as above.
            unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }.unwrap();
        }
    };
    let with = |threads| read.clone().with_threads(threads).unwrap();
    let sets = [read.clone(), with(8), with(32), with(64)];
    let [mut b0, mut b1, mut b2, mut b3] = [(); 4].map(|()| Batch::default());
    show_rounds(
        "512 x 16 KiB, random rows of a file of 512 MiB, not in memory",
        COUNT,
        7,
        &mut [
            ("floor: direct reads, 64 at a time", &mut direct_reads(64)),
            ("floor: direct reads, 32 at a time", &mut direct_reads(32)),
            ("floor: direct reads, 8 at a time", &mut direct_reads(8)),
            ("floor: direct reads, one after the other", &mut direct_reads(1)),
            ("gather_into, read, with_threads(64)", &mut gather(&sets[3], &orders, Ragged::Refuse, &mut b3)),
            ("gather_into, read, with_threads(32)", &mut gather(&sets[2], &orders, Ragged::Refuse, &mut b2)),
            ("gather_into, read, with_threads(8)", &mut gather(&sets[1], &orders, Ragged::Refuse, &mut b1)),
            ("gather_into, read, rayon's threads", &mut gather(&sets[0], &orders, Ragged::Refuse, &mut b0)),
            ("page faults of a plain map, 32 at a time", &mut faults(32)),
            ("page faults of a plain map, one after the other", &mut faults(1)),
        ],
        &drop_pages,
    );
}

/// Small files that are not in memory, more of them than stay open.
fn cold_files(_: &Path) {
    let folder = folder_of_samples(20_000);
    let data = DataSet::open(&folder).unwrap();
    let paths: Vec<PathBuf> = data.index().files().map(|file| folder.join(file.path())).collect();
    let orders = orders(paths.len(), BATCH);
    let drop_pages = || paths.par_iter().for_each(|path| common::evict(path));
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let reads = |threads: usize, flags: OFlags| {
        let (pool, paths, orders) = (pool(threads), &paths, &orders);
        move |round: usize| {
            let read = |&file: &usize| {
                let mut buffer = vec![0u8; (32 << 10) + 4096];
                let skip = buffer.as_ptr().align_offset(4096);
                let file = File::options().read(true).custom_flags(flags.bits() as i32).open(&paths[file]);
                assert!(file.unwrap().read_at(&mut buffer[skip..][..32 << 10], 0).unwrap() > 16 << 10);
                black_box(&buffer);
            };
            pool.install(|| orders[round].par_iter().with_max_len(1).for_each(read));
        }
    };
    let sets = [data.clone(), data.clone().with_threads(32).unwrap()];
    let [mut b0, mut b1] = [(); 2].map(|()| Batch::default());
    show_rounds(
        "256 random files of 16 KiB, of 20,000, not in memory",
        BATCH,
        7,
        &mut [
            ("floor: open, direct read, close, 32 at a time", &mut reads(32, OFlags::DIRECT)),
            ("floor: open, direct read, close, 8 at a time", &mut reads(8, OFlags::DIRECT)),
            ("open, read, close, one after the other", &mut reads(1, OFlags::empty())),
            ("gather_into, with_threads(32)", &mut gather(&sets[1], &orders, Ragged::Refuse, &mut b1)),
            ("gather_into, rayon's threads", &mut gather(&sets[0], &orders, Ragged::Refuse, &mut b0)),
        ],
        &drop_pages,
    );
}

/// What an epoch adds to the memory of the process: 2 GiB of rows, in random order.
fn memory(folder: &Path) {
    const FILES: usize = 4;
    const ROWS: u64 = 32_768 / FILES as u64;
    const ROW_BYTES: u64 = 64 << 10;
    let folder = folder.join("loader-memory");
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        // Zeros that take no room on disk; read or mapped, they take as much memory as others.
        let storage = Storage::zeros(ROWS * ROW_BYTES);
        let x = || Tensor::strided(DType::UInt8, &[ROWS, ROW_BYTES], &[ROW_BYTES, 1], 0, &storage).unwrap();
        for file in 0..FILES {
            common::save(&folder.join(format!("{file}.pt")), &Object::dict([("x", x().into())]));
        }
    }
    let data = DataSet::open_with(&folder, &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    println!("an epoch of 2 GiB in batches of {BATCH} x 64 KiB (16 MiB), most that the process grew by");
    for (name, data) in [
        ("read", data.clone()),
        ("mapped, dropped behind", mapped(&data).drop_behind()),
        ("mapped", mapped(&data)),
    ] {
        let before = resident_bytes();
        let (mut batch, mut most, start) = (Batch::default(), 0, Instant::now());
        let mut epoch = Loader::new(&data, BATCH).shuffle(7).epoch(0);
        while epoch.next_into(&mut batch).unwrap() {
            most = most.max(resident_bytes());
        }
        let rate = data.len() as f64 * ROW_BYTES as f64 / start.elapsed().as_secs_f64();
        println!("  {name:<64} {:>6} MiB  {:>5.1} GB/s", most.saturating_sub(before) >> 20, rate / 1e9);
    }
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}
