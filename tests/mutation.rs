//! Hundreds of thousands of damaged files, the same ones every time: none panics, hangs, or takes memory out of proportion.
//!
//! Every fixture is cut, flipped, renumbered and spliced, those that are refused unharmed too. What fails is printed as a
//! recipe; `PTVIEW_MUTATION='<fixture> <number>'` runs that one alone.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use pt_format::{Checkpoint, Limits, audit};
use pt_index::Index;
use pt_view::{FileBytes, TensorView};
use rayon::prelude::*;

use crate::common::fixtures;

/// Counts what the whole program holds, all threads together: an upper bound for each single input.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SEED: u64 = 0x5EED_7E57;
/// Mutations of each fixture beside its cuts.
const MUTATIONS: usize = 800;
/// Files up to this size are cut at every length, larger ones at so many.
const CUTS_MAX: usize = 1600;
/// Larger fixtures, and the bombs that list 100,000 aliases each time, get only so many of either.
const LARGE_BYTES: usize = 20_000;
const FEW_CUTS: usize = 4;
const FEW_MUTATIONS: usize = 56;
/// What is asked for is a second; the rest is for busy machines. The slowest is printed.
const PATIENCE: Duration = Duration::from_secs(10);
const MEMORY_MAX: usize = 64 << 20;
/// Tensors that would be copied into more than this are not: expanding a tensor of stride 0 is a right answer.
const TENSOR_BYTES_MAX: u64 = 1 << 20;
const TENSORS_READ: usize = 4;

/// The defaults, but for what an honest file may inflate to: a record of `pickle_bytes` would be a right answer.
fn limits() -> Limits {
    Limits { pickle_bytes: 4 << 20, inflated_bytes: 4 << 20, ..Limits::default() }
}

#[test]
fn mutated_files_are_refused_or_read_at_bounded_cost() {
    let files: Vec<(String, Vec<u8>)> = fixtures().iter().map(|f| (f.name.clone(), f.bytes())).collect();
    if let Ok(recipe) = std::env::var("PTVIEW_MUTATION") {
        let (name, number) = recipe.rsplit_once(' ').unwrap();
        let file = files.iter().position(|file| file.0 == name).unwrap();
        let (what, bytes) = mutation(&files, file, number.parse().unwrap());
        println!("{what}: {} bytes, {:?}", bytes.len(), exercise(&bytes));
        return;
    }

    let (read, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let slowest = Mutex::new((Duration::ZERO, String::new()));
    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    let (wrong, costs) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let baseline = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();

    files.par_iter().enumerate().for_each(|(file, (name, _))| {
        let (cuts, others) = plan(&files[file]);
        let (mut counted, started) = (BTreeMap::new(), Instant::now());
        for number in 0..cuts + others {
            let (what, mutated) = mutation(&files, file, number);
            let before = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&mutated)));
            let took = before.elapsed();
            let recipe = || format!("PTVIEW_MUTATION='{name} {number}' ({what}, seed {SEED:#x})");
            match outcome {
                Ok(was_read) => read.fetch_add(usize::from(was_read), Ordering::Relaxed),
                Err(_) => {
                    wrong.lock().unwrap().push(format!("{} panicked", recipe()));
                    0
                }
            };
            if took > slowest.lock().unwrap().0 {
                *slowest.lock().unwrap() = (took, recipe());
            }
            if took > PATIENCE {
                wrong.lock().unwrap().push(format!("{} took {took:?}", recipe()));
            }
            let peak = MEMORY.peak_usage().saturating_sub(baseline);
            if peak > MEMORY_MAX {
                // The other threads may have had their part in it.
                MEMORY.reset_peak_usage();
                wrong.lock().unwrap().push(format!("{peak} bytes of memory at {}", recipe()));
            }
            *counted.entry(what).or_default() += 1;
        }
        total.fetch_add(cuts + others, Ordering::Relaxed);
        costs.lock().unwrap().push((started.elapsed(), name));
        let mut counts = counts.lock().unwrap();
        counted.into_iter().for_each(|(what, count): (_, usize)| *counts.entry(what).or_default() += count);
    });

    let (total, read, took) = (total.into_inner(), read.into_inner(), start.elapsed());
    let peak = MEMORY.peak_usage().saturating_sub(baseline);
    let (slowest, slowest_recipe) = slowest.into_inner().unwrap();
    println!("{total} mutations of {} fixtures in {took:?}, {read} of them still read", files.len());
    println!("{:.0} a second; slowest {slowest:?}: {slowest_recipe}", total as f64 / took.as_secs_f64());
    println!("peak {} KiB, all threads together; {:?}", peak >> 10, counts.into_inner().unwrap());
    let mut costs = costs.into_inner().unwrap();
    costs.sort_unstable_by(|a, b| b.cmp(a));
    println!("most time took {:.1?}", &costs[..5]);
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} failures\n{}", wrong.len(), wrong.join("\n"));
    assert!(total >= 200_000, "only {total} mutations");
}

/// Does with a file what a user would; true if it was read.
fn exercise(bytes: &[u8]) -> bool {
    let limits = limits();
    let _ = audit(bytes, &limits);
    let Ok(checkpoint) = Checkpoint::parse(bytes, &limits) else { return false };
    let _ = checkpoint.check();
    let _ = checkpoint.globals();
    let Ok(index) = pt_index::index_of(&checkpoint) else { return false };
    drop(checkpoint);
    let index = Index::from_bytes(index.as_bytes().to_vec()).unwrap();
    let (count, step) = (index.tensor_count(), index.tensor_count().div_ceil(TENSORS_READ).max(1));
    for row in (0..count).step_by(step) {
        let entry = index.tensor(row).unwrap();
        let record_bytes =
            entry.storage().and_then(|storage| storage.record()).map_or(0, |record| record.bytes);
        if entry.nbytes().is_some_and(|bytes| bytes.max(record_bytes) <= TENSOR_BYTES_MAX) {
            let view = TensorView::new(entry, FileBytes::new(bytes));
            let copied = view.to_bytes();
            if let (Ok(lent), Ok(copied)) = (view.as_bytes(), &copied) {
                assert_eq!(lent, copied);
            }
        }
    }
    true
}

/// How many cuts and how many other mutations a fixture gets.
fn plan((name, bytes): &(String, Vec<u8>)) -> (usize, usize) {
    match bytes.len() > LARGE_BYTES || name.contains("laughs") {
        true => (FEW_CUTS, FEW_MUTATIONS),
        false => (bytes.len().min(CUTS_MAX), MUTATIONS),
    }
}

/// Makes the mutation with this number of a file; says which kind it is.
fn mutation(files: &[(String, Vec<u8>)], file: usize, number: usize) -> (&'static str, Vec<u8>) {
    let bytes = &files[file].1;
    let (cuts, _) = plan(&files[file]);
    if number < cuts {
        let length = (bytes.len() as u64 * number as u64 / cuts as u64) as usize;
        return ("cut", bytes[..length].to_vec());
    }
    let mut random = Random::new(&files[file].0, number);
    let mut bytes = bytes.clone();
    let kind = number % 8;
    let what = match kind {
        0 | 1 => {
            (0..=kind * 3).for_each(|_| flip(&mut bytes, &mut random));
            "flip"
        }
        2 => number_at_random(&mut bytes, &mut random),
        3 | 4 => number_in_zip(&mut bytes, &mut random),
        5 | 6 => splice(&mut bytes, &files[random.below(files.len())].1, &mut random),
        _ => entry_again(&mut bytes, &mut random),
    };
    // Now and then two at once.
    if random.below(4) == 0 {
        number_in_zip(&mut bytes, &mut random);
    }
    (what, bytes)
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] ^= match random.below(3) {
            0 => 0xFF,
            _ => 1 << random.below(8),
        };
    }
}

fn number_at_random(bytes: &mut [u8], random: &mut Random) -> &'static str {
    let at = random.below(bytes.len().max(1));
    let width = [1, 2, 4, 8][random.below(4)];
    renumber(bytes, at, width, random);
    "number"
}

/// Overwrites a little-endian number with one that length checks get wrong.
fn renumber(bytes: &mut [u8], at: usize, width: usize, random: &mut Random) {
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(field);
    let (old, max) = (u64::from_le_bytes(wide), u64::MAX >> (64 - 8 * width));
    let new = match random.below(10) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max - 1,
        4 => max >> 1,
        5 => (max >> 1) + 1,
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        8 => old.wrapping_mul(2),
        _ => random.next() & max,
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}

/// A signature, and the fields behind it: offset and width.
type Fields = (&'static [u8; 4], &'static [(usize, usize)]);

/// Fields of zip structures, after APPNOTE 4.3.
const ZIP_FIELDS: [Fields; 5] = [
    (b"PK\x03\x04", &[(6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]),
    (
        b"PK\x01\x02",
        &[(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4)],
    ),
    (b"PK\x05\x06", &[(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]),
    (b"PK\x06\x06", &[(4, 8), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8)]),
    (b"PK\x06\x07", &[(4, 4), (8, 8), (16, 4)]),
];

fn number_in_zip(bytes: &mut [u8], random: &mut Random) -> &'static str {
    let (signature, fields) = ZIP_FIELDS[random.below(ZIP_FIELDS.len())];
    let places = find_all(bytes, signature);
    if places.is_empty() {
        return number_at_random(bytes, random);
    }
    let (offset, width) = fields[random.below(fields.len())];
    renumber(bytes, places[random.below(places.len())] + offset, width, random);
    "zip field"
}

/// Puts a piece of another file over a piece of this one, or in between.
fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> &'static str {
    let from = random.below(other.len().max(1)).min(other.len());
    let length = random.below(300).min(other.len() - from);
    let at = random.below(bytes.len() + 1);
    let replaced = [0, length, random.below(300)][random.below(3)].min(bytes.len() - at);
    bytes.splice(at..at + replaced, other[from..from + length].iter().copied());
    "splice"
}

/// Repeats a directory entry, or points it to another's header; the end records say so.
fn entry_again(bytes: &mut Vec<u8>, random: &mut Random) -> &'static str {
    let places = find_all(bytes, b"PK\x01\x02");
    if places.is_empty() {
        return splice(bytes, &bytes.clone(), random);
    }
    let at = places[random.below(places.len())];
    let other = places[random.below(places.len())];
    if random.below(2) == 0 {
        // Another record's header, perhaps a few bytes beside it.
        let offset = |at: usize| bytes.get(at + 42..at + 46).and_then(|field| field.first_chunk()).copied();
        let (Some(own), Some(theirs)) = (offset(at), offset(other)) else { return "overlap" };
        let near = u32::from_le_bytes(theirs).wrapping_add(random.below(3) as u32);
        let new = if own == theirs { u32::from_le_bytes(own).wrapping_sub(1) } else { near };
        bytes[at + 42..at + 46].copy_from_slice(&new.to_le_bytes());
        return "overlap";
    }
    let length = |field: usize| bytes.get(at + field).map_or(0, |&byte| usize::from(byte));
    let length = (46 + length(28) + length(30) + length(32)).min(bytes.len() - at);
    let copy = bytes[at..at + length].to_vec();
    bytes.splice(other..other, copy);
    for (signature, counts, size, place) in [
        (b"PK\x05\x06", [8, 10], 12, None),
        (b"PK\x06\x06", [24, 32], 40, None),
        (b"PK\x06\x07", [0, 0], 0, Some(8)),
    ] {
        for end in find_all(bytes, signature) {
            let grown = |at: usize, by: usize, bytes: &mut Vec<u8>| {
                if let Some(field) = bytes.get_mut(at..at + 4) {
                    let old = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
                    field.copy_from_slice(&old.wrapping_add(by as u32).to_le_bytes());
                }
            };
            match place {
                Some(place) => grown(end + place, length, bytes),
                None => {
                    // The 16-bit counts of the end record do not carry over in files of so few records.
                    counts.iter().for_each(|&field| grown(end + field, 1, bytes));
                    grown(end + size, length, bytes);
                }
            }
        }
    }
    "entry again"
}

fn find_all(bytes: &[u8], signature: &[u8; 4]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(signature)).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn new(name: &str, number: usize) -> Self {
        let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        Self(name.bytes().fold(SEED, fold) ^ (number as u64) << 32)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
