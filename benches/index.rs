//! Building, opening and asking an index, beside what nobody can undercut: the system calls alone that it takes.
//!
//! `cargo bench --bench index`. `PTVIEW_FILES` sets the size of the large index that is synthesised (default 1,000,000 files),
//! `PTVIEW_TORCH` names a Python with torch, whose `torch.load` of each file then runs beside. Files are made once, in the
//! target folder. Every figure is the median of rounds in which the candidates take turns.

mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pt_format::Limits;
use pt_index::{BuildOptions, Index, build_folder};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, openat, statat};
use rustix::path::Arg;

use crate::common::{evict_all, folder_of_samples, sample, synthesised};

const SMALL_FILES: usize = 20_000;
const ROUNDS: usize = 7;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let out = run();
    (start.elapsed(), out)
}

fn options(jobs: usize) -> BuildOptions {
    BuildOptions { fail_on_error: true, jobs, ..BuildOptions::default() }
}

/// The names in a folder, as the system lists them, and the folder itself: the cheapest way to its files.
fn names(folder: &Path) -> (OwnedFd, Vec<CString>) {
    let folder = open_at(CWD, folder, OFlags::DIRECTORY | OFlags::RDONLY);
    let names = Dir::read_from(&folder).unwrap().map(|entry| entry.unwrap().file_name().to_owned());
    let names = names.filter(|name| !name.as_bytes().starts_with(b".")).collect();
    (folder, names)
}

fn open_at(folder: impl AsFd, path: impl Arg, flags: OFlags) -> OwnedFd {
    openat(folder, path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Finding each file, and open, fstat, read of all of it, close.
fn read_each(folder: &Path) -> u64 {
    let mut buffer = vec![0; 128 << 10];
    let (folder, names) = names(folder);
    let read = |name: CString| {
        let file = open_at(&folder, name, OFlags::RDONLY);
        let size = fstat(&file).unwrap().st_size as usize;
        File::from(file).read_exact_at(&mut buffer[..size], 0).unwrap();
        black_box(&buffer[..size]).len() as u64
    };
    names.into_iter().map(read).sum()
}

/// The floor of building: the same, but of each file only what an index is made of: its first and last KiB.
fn read_ends_of_each(folder: &Path) -> u64 {
    const END_BYTES: usize = 1 << 10;
    let mut buffer = [0; 2 * END_BYTES];
    let (folder, names) = names(folder);
    let read = |name: CString| {
        let file = open_at(&folder, name, OFlags::RDONLY);
        let size = fstat(&file).unwrap().st_size as u64;
        let (first, last) = buffer.split_at_mut(END_BYTES);
        let file = File::from(file);
        file.read_exact_at(first, 0).unwrap();
        file.read_exact_at(last, size - END_BYTES as u64).unwrap();
        black_box(&buffer).len() as u64
    };
    names.into_iter().map(read).sum()
}

/// The floor of bringing an index up to date: finding each file and asking for its size and time.
fn stat_each(folder: &Path) -> u64 {
    let (folder, names) = names(folder);
    let size = |name| statat(&folder, name, AtFlags::empty()).unwrap().st_size as u64;
    names.iter().map(size).sum()
}

fn building(folder: &Path) {
    println!("\nbuild, {SMALL_FILES} files of {{x: float32[64, 64], y: int}}, warm");
    let (mut floor, mut one, mut all, mut again, mut some) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut whole, mut stats, mut again_one, mut told) = (vec![], vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        whole.push(timed(|| black_box(read_each(folder))).0);
        floor.push(timed(|| black_box(read_ends_of_each(folder))).0);
        stats.push(timed(|| black_box(stat_each(folder))).0);
        let (time, built) = timed(|| build_folder(folder, None, &options(1), |_| {}).unwrap());
        one.push(time);
        assert_eq!((built.parsed, built.index.tensor_count()), (SMALL_FILES, SMALL_FILES));
        bytes = built.index.as_bytes().len();
        all.push(timed(|| build_folder(folder, None, &options(0), |_| {}).unwrap()).0);
        let (time, again_built) =
            timed(|| build_folder(folder, Some(&built.index), &options(0), |_| {}).unwrap());
        assert_eq!((again_built.parsed, again_built.unchanged), (0, SMALL_FILES));
        again.push(time);
        again_one.push(timed(|| build_folder(folder, Some(&built.index), &options(1), |_| {}).unwrap()).0);
        // One in a thousand changed.
        let mut changed = vec![];
        for number in (0..SMALL_FILES).step_by(1000) {
            let name = format!("sample_{number:06}.pt");
            fs::write(folder.join(&name), sample(number)).unwrap();
            changed.push(name);
        }
        let (time, some_built) =
            timed(|| build_folder(folder, Some(&built.index), &options(0), |_| {}).unwrap());
        assert_eq!(some_built.parsed, SMALL_FILES / 1000);
        some.push(time);
        let options = BuildOptions { changed: Some(changed), ..options(0) };
        let (time, told_built) =
            timed(|| build_folder(folder, Some(&built.index), &options, |_| {}).unwrap());
        assert_eq!(told_built.index.as_bytes(), some_built.index.as_bytes());
        told.push(time);
    }
    let show = |what: &str, time: Duration, floor: Duration| {
        println!(
            "  {what:<46} {time:>9.1?}  {:>9.0} files/s  {:.2}x floor",
            SMALL_FILES as f64 / time.as_secs_f64(),
            time.as_secs_f64() / floor.as_secs_f64()
        );
    };
    let (floor, full) = (median(floor), median(all));
    show("floor: open, fstat, read ends, close, 1 thread", floor, floor);
    show("the same, reading all of each file", median(whole), floor);
    show("full build, 1 thread", median(one), floor);
    show("full build, all threads", full, floor);
    let (floor, some) = (median(stats), median(some));
    show("floor: find and stat each, 1 thread", floor, floor);
    show("nothing changed, 1 thread", median(again_one), floor);
    show("nothing changed, all threads", median(again), floor);
    show("1 in 1,000 changed, all threads", some, floor);
    println!("  changed / full: {:.3}", some.as_secs_f64() / full.as_secs_f64());
    let told = median(told);
    show("the same, told which", told, floor);
    println!("  told which / full: {:.3}", told.as_secs_f64() / full.as_secs_f64());
    println!("  {:.1} bytes of index a file", bytes as f64 / SMALL_FILES as f64);
}

/// The same with files that are on the disk alone; what the system knows of their names and times stays in memory.
fn cold(folder: &Path) {
    const ROUNDS: usize = 3;
    let (mut full, mut some) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        evict_all(folder);
        let (time, built) = timed(|| build_folder(folder, None, &options(0), |_| {}).unwrap());
        full.push(time);
        for number in (0..SMALL_FILES).step_by(1000) {
            fs::write(folder.join(format!("sample_{number:06}.pt")), sample(number)).unwrap();
        }
        evict_all(folder);
        let (time, some_built) =
            timed(|| build_folder(folder, Some(&built.index), &options(0), |_| {}).unwrap());
        assert_eq!(some_built.parsed, SMALL_FILES / 1000);
        some.push(time);
    }
    let (full, some) = (median(full), median(some));
    println!(
        "\nthe same, cold, all threads: full build {full:.1?}, 1 in 1,000 changed {some:.1?}; changed / full: {:.3}",
        some.as_secs_f64() / full.as_secs_f64()
    );
}

/// `torch.load` of each file, by the clock of a Python process that has imported torch, and our build by turns.
fn torch(folder: &Path) {
    const FILES: usize = 2000;
    const TORCH_ROUNDS: usize = 3;
    let Ok(python) = std::env::var("PTVIEW_TORCH") else {
        return println!("\ntorch: PTVIEW_TORCH is not set");
    };
    let program = format!(
        "import sys, time, torch, pathlib\n\
         torch.set_num_threads(1)\n\
         paths = sorted(pathlib.Path(sys.argv[1]).iterdir())[:{FILES}]\n\
         for p in paths[:100]: torch.load(p)\n\
         t = time.perf_counter()\n\
         for p in paths: torch.load(p)\n\
         print((time.perf_counter() - t) / len(paths))"
    );
    let (mut theirs, mut ours) = (vec![], vec![]);
    for _ in 0..TORCH_ROUNDS {
        let output = Command::new(&python).args(["-c", &program]).arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let each: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        theirs.push(Duration::from_secs_f64(each));
        let build = |_| timed(|| build_folder(folder, None, &options(1), |_| {}).unwrap()).0;
        ours.push(median((0..TORCH_ROUNDS).map(build).collect()) / SMALL_FILES as u32);
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!(
        "\ntorch.load of each: {theirs:.1?} a file; full build, 1 thread: {ours:.1?}; {:.1}x",
        theirs.as_secs_f64() / ours.as_secs_f64()
    );
}

/// Opens an index the way a reader does: a map and a header check.
fn open(path: &Path) -> Index {
    // SAFETY: the file is this benchmark's own; nobody changes it.
    unsafe { pt_view::open_index(path) }.unwrap()
}

fn resident_peak() -> u64 {
    let mut status = String::new();
    File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn opening_and_asking(largest: usize) {
    println!("\nopen and ask, synthesised indexes of like files, warm");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let sizes = [1_000, 10_000, 100_000, largest];
    for files in sizes {
        let path = folder.join(format!("synthesised-{files}.ptidx"));
        let (time, index) = timed(|| synthesised(files));
        pt_index::save(&index, &path).unwrap();
        let bytes = index.as_bytes().len();
        drop(index);
        let opened = median((0..101).map(|_| timed(|| open(&path)).0).collect());
        let index = open(&path);
        println!(
            "  {files:>9} files: open {opened:>8.1?}; made in {time:.1?}; {:.1} bytes a file, paths included",
            bytes as f64 / files as f64
        );
        if files >= 100_000 {
            ask(&index, files);
        }
    }
    println!("  peak resident memory of this process: {} MiB", resident_peak() >> 20);
}

/// Looks things up at random over all files, and one thing among a few, beside touching one byte of the index at random:
/// what an index that is larger than the processor's caches and page tables costs whatever is looked up.
fn ask(index: &Index, files: usize) {
    const LOOKUPS: usize = 200_000;
    const FEW: usize = 1_000;
    let numbers: Vec<usize> = (0..LOOKUPS).map(|at| at.wrapping_mul(2_654_435_761) % files).collect();
    let paths: Vec<String> = numbers.iter().map(|&number| index.file(number).unwrap().path()).collect();
    let each = |what: &str, run: &dyn Fn(usize) -> u64| {
        let mean = |_| {
            let (time, sum) = timed(|| (0..LOOKUPS).map(run).fold(0u64, u64::wrapping_add));
            black_box(sum);
            time / LOOKUPS as u32
        };
        println!("    {what:<34} {:>7.1?}", median((0..5).map(mean).collect()));
    };
    // Each place is worked out from the byte before, as whoever follows an index must: none is fetched ahead.
    let bytes = index.as_bytes();
    let place = |at: usize| numbers[at] * (bytes.len() / files);
    let follow = |before: usize, at: usize| black_box(usize::from(bytes[place(at) + before])) >> u8::BITS;
    let (time, end) = timed(|| (0..LOOKUPS).fold(0, follow));
    black_box(end);
    println!("    {:<34} {:>7.1?}", "floor: one byte at random", time / LOOKUPS as u32);
    each("file by number: its size", &|at| index.file(numbers[at]).unwrap().stamp().size);
    each("file by path", &|at| index.find_file(&paths[at]).unwrap().row() as u64);
    each("file by path, of 1,000 paths", &|at| index.find_file(&paths[at % FEW]).unwrap().row() as u64);
    each("tensor by name in a file", &|at| {
        let file = index.file(numbers[at]).unwrap();
        file.tensor("x").unwrap().row() as u64
    });
    each("tensor by (path, name)", &|at| {
        index.find_file(&paths[at]).unwrap().tensor("x").unwrap().row() as u64
    });
    each("tensor by (path, name), of 1,000", &|at| {
        index.find_file(&paths[at % FEW]).unwrap().tensor("x").unwrap().row() as u64
    });
    each("tensor by number: its place", &|at| {
        index.tensor(numbers[at]).unwrap().storage().unwrap().record().unwrap().data_offset
    });
    let column = index.column("y").unwrap().as_ints().unwrap();
    each("label by number, in its column", &|at| column[numbers[at]] as u64);
    each("path by number", &|at| index.file(numbers[at]).unwrap().path().len() as u64);
}

fn one_large_file() {
    println!("\nask an index of one file with 100,000 tensors, warm");
    let path = common::many_small_tensors(Path::new(env!("CARGO_TARGET_TMPDIR")), 100_000);
    let index = pt_index::build_file(&path, &Limits::default()).unwrap();
    let file = index.file(0).unwrap();
    let names: Vec<&str> = (0..100_000)
        .map(|at| at * 7919 % 100_000)
        .map(|number| file.tensor_at(number).unwrap().name())
        .collect();
    let mean = |_| {
        let (time, found) = timed(|| names.iter().filter(|name| file.tensor(name).is_some()).count());
        assert_eq!(found, 100_000);
        time / 100_000
    };
    println!("  tensor by name {:>7.1?}", median((0..5).map(mean).collect()));
}

fn main() {
    // `cargo test` runs benchmarks for a moment, to see that they do.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let files = std::env::var("PTVIEW_FILES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let folder = folder_of_samples(SMALL_FILES);
    building(&folder);
    torch(&folder);
    cold(&folder);
    one_large_file();
    opening_and_asking(files);
}
