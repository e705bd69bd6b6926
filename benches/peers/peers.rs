//! ptview beside other readers of PyTorch files, each doing the same work on the same files.
//!
//! `cargo bench --manifest-path benches/peers/Cargo.toml` (or `make bench-peers`). Every measurement is a process of its own, so that its peak
//! of resident memory is that of one reader; readers take turns. What they list and read is compared before anything is
//! timed. Prints a table, and writes `target/bench/peers.json`.
//!
//! `safetensors` reads the same tensors converted to its own format: the floor of a format made for this.

#[path = "../common/mod.rs"]
mod common;
mod readers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::readers::{READERS, Reader};

const ROUNDS: usize = 5;
/// Who takes longer for one measurement is out.
const TIME_MAX: Duration = Duration::from_secs(60);
const SMALL_FILES: usize = 10_000;

/// Work that all readers do.
struct Case {
    name: &'static str,
    /// The dict in the file that holds the tensors.
    key: Option<&'static str>,
    work: Work,
    files: fn(&Path) -> Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Work {
    List,
    /// Read the tensor with this name.
    One(&'static str),
    All,
}

const CASES: [Case; 5] = [
    Case {
        name: "open and list 1,000 tensors of 2 GiB",
        key: Some("model"),
        work: Work::List,
        files: |folder| vec![common::checkpoint_of_zeros(folder, 1_000, 2 << 30)],
    },
    Case {
        name: "open and list 100,000 tensors",
        key: None,
        work: Work::List,
        files: |folder| vec![common::many_small_tensors(folder, 100_000)],
    },
    Case {
        name: "open and read one tensor of 1,000 in 2 GiB",
        key: Some("model"),
        work: Work::One("layers.700.weight"),
        files: |folder| vec![common::checkpoint_of_zeros(folder, 1_000, 2 << 30)],
    },
    Case {
        name: "open and read all of 512 MiB, 1,000 tensors",
        key: Some("model"),
        work: Work::All,
        files: |folder| vec![common::checkpoint_of_zeros(folder, 1_000, 512 << 20)],
    },
    Case {
        name: "open 10,000 small files and read the tensor of each",
        key: None,
        work: Work::One("x"),
        files: |_| {
            let folder = common::folder_of_samples(SMALL_FILES);
            (0..SMALL_FILES).map(|number| folder.join(format!("sample_{number:06}.pt"))).collect()
        },
    },
];

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [flag, reader, case] if flag == "--one" => one(reader.parse().unwrap(), case.parse().unwrap()),
        _ if arguments.iter().any(|argument| argument == "--bench") => all(),
        // `cargo test` runs benchmarks for a moment, to see that they do.
        _ => {}
    }
}

/// Measures one reader at one case, in this process, and prints what it found.
fn one(reader: usize, case: usize) {
    let (reader, case) = (&READERS[reader], &CASES[case]);
    let files = (case.files)(folder());
    let begun = Instant::now();
    let found = files.iter().try_fold(0u64, |sum, file| Ok(sum.wrapping_add(run(reader, case, file)?)));
    let took = begun.elapsed().as_nanos() as u64;
    let answer = match found {
        Ok(found) => json!({"found": found, "ns": took, "peak_rss": peak_rss()}),
        Err(error) => json!({"error": readers::Problem::to_string(&error)}),
    };
    println!("{answer}");
}

fn run(reader: &Reader, case: &Case, file: &Path) -> readers::Result<u64> {
    match case.work {
        Work::List => (reader.list)(file, case.key),
        Work::One(name) => (reader.one)(file, case.key, name),
        Work::All => (reader.all)(file, case.key),
    }
}

fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn all() {
    let mut rows = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        println!("\n{}", case.name);
        for file in (case.files)(folder()) {
            readers::prepare(&file, case.key);
        }
        let mut times: Vec<Vec<u64>> = READERS.iter().map(|_| Vec::new()).collect();
        let mut peaks = vec![0u64; READERS.len()];
        let mut problems: Vec<Option<String>> = READERS.iter().map(|_| None).collect();
        let mut truth = None;
        for round in 0..=ROUNDS {
            for reader in 0..READERS.len() {
                if problems[reader].is_some() {
                    continue;
                }
                let answer = ask(reader, number);
                let (Some(found), Some(ns)) = (answer["found"].as_u64(), answer["ns"].as_u64()) else {
                    problems[reader] = Some(answer["error"].as_str().unwrap_or("no answer").to_owned());
                    continue;
                };
                if *truth.get_or_insert(found) != found {
                    problems[reader] = Some(format!("read something else: {found}"));
                    continue;
                }
                // The first round warms up.
                if round > 0 {
                    times[reader].push(ns);
                    peaks[reader] = peaks[reader].max(answer["peak_rss"].as_u64().unwrap_or(0));
                }
            }
        }
        for (reader, times) in times.iter_mut().enumerate() {
            times.sort_unstable();
            let name = READERS[reader].name;
            if let Some(problem) = &problems[reader] {
                println!("  {name:<28} {}", problem.lines().next().unwrap_or_default());
                rows.push(json!({"name": name, "case": case.name, "error": problem}));
                continue;
            }
            let (median, spread) = (times[times.len() / 2], (times[0], times[times.len() - 1]));
            println!(
                "  {name:<28} {:>10.2?}   {:>6} MiB at most",
                Duration::from_nanos(median),
                peaks[reader] >> 20
            );
            rows.push(json!({
                "name": name, "case": case.name, "median_ns": median, "spread": spread, "rounds": times.len(), "peak_rss": peaks[reader],
            }));
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("peers.json"), serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
}

/// Lets another process measure.
fn ask(reader: usize, case: usize) -> Value {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .args(["--one", &reader.to_string(), &case.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > TIME_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            return json!({"error": format!("not done after {TIME_MAX:?}")});
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({"error": "it crashed"}))
}
