//! One file: opened and listed, one tensor of it read, all of it read.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use pt_format::Limits;
use pt_index::{FileSource, Index, Policy};
use pt_loader::Permutation;
use pt_view::{CheckedRecords, FileBytes, TensorView};

use crate::cli::bench::rounds::{Contender, Group, timed};
use crate::cli::bench::torch::How;
use crate::cli::bench::{Setting, kept_index, open_index};
use crate::cli::table::{bytes, plural};
use crate::cli::{Error, Result};

/// Larger files are not read as a whole: torch would hold them in memory.
const WHOLE_BYTES_MAX: u64 = 4 << 30;
/// What is read at once where a file is read from start to end.
const CHUNK_BYTES: usize = 1 << 20;
const SEED: u64 = 42;

pub(crate) fn measure(setting: &mut Setting<'_>) -> Result<Vec<Group>> {
    let path = setting.path;
    let index = pt_index::build_file(path, &Limits::default())?;
    let kept = kept_index(&index)?;
    let mut groups = vec![open_and_list(setting, &kept, &index), one_tensor(setting, &kept, &index)];
    if index.data_bytes() <= WHOLE_BYTES_MAX {
        groups.push(all_tensors(setting, &kept, &index));
    }
    Ok(groups)
}

fn open_and_list(setting: &mut Setting<'_>, kept: &Path, index: &Index) -> Group {
    let Setting { path, rounds, torch, .. } = setting;
    let contender = |name: &str, run| Contender { name: name.into(), units: 1, bytes: 0, run };
    let mut contenders = vec![
        contender("ptview, through its index", Box::new(|| timed(|| Ok(list(&open_index(kept)?))))),
        contender(
            "ptview, without",
            Box::new(|| timed(|| Ok(list(&pt_index::build_file(path, &Limits::default())?)))),
        ),
    ];
    if let Some(torch) = torch {
        let paths = [path.display().to_string()];
        let load = move || torch.load(&paths, How::Mapped);
        contenders.push(contender("torch.load(mmap=True)", Box::new(load)));
    }
    let title = format!("open and list {}", plural(index.tensor_count(), "tensor"));
    rounds.run(title, "files", contenders)
}

/// Looks at all that a listing shows.
fn list(index: &Index) -> usize {
    let tensors = index.files().flat_map(|file| file.tensors());
    tensors.map(|tensor| black_box((tensor.name(), tensor.dtype(), tensor.shape())).0.len()).sum()
}

fn one_tensor(setting: &mut Setting<'_>, kept: &Path, index: &Index) -> Group {
    let Setting { path, rounds, torch, .. } = setting;
    let path: &Path = path;
    // Those that lie in the file as they are, so that the floor is known.
    let checked = CheckedRecords::new(index.storage_count());
    let places: Vec<(usize, u64, usize)> = match FileSource::open(path) {
        Err(_) => Vec::new(),
        Ok(source) => (0..index.tensor_count())
            .filter_map(|number| {
                let view = TensorView::new(index.tensor(number)?, FileBytes::read(&source, &checked));
                let place = view.locate().filter(|_| view.caps().typed)?;
                Some((number, place.offset, usize::try_from(place.length).ok()?))
            })
            .collect(),
    };
    let order = Permutation::new(places.len(), SEED, 0);
    let place = |turn: &mut usize| {
        *turn += 1;
        places[order.at(*turn % places.len())]
    };
    let mean = places.iter().map(|&(.., length)| length as u64).sum::<u64>() / places.len().max(1) as u64;
    let contender = |name: &str, run| Contender { name: name.into(), units: 1, bytes: mean, run };
    let mut contenders = Vec::new();
    if !places.is_empty() {
        let (mut turn, mut buffer) = (0, Vec::new());
        let through_index = move || {
            let (number, _, length) = place(&mut turn);
            buffer.resize(length, 0);
            timed(|| read_tensor(path, kept, number, &mut buffer))
        };
        let (mut turn, mut other) = (0, Vec::new());
        let place_known = move || {
            let (_, offset, length) = place(&mut turn);
            other.resize(length, 0);
            timed(|| FileSource::open(path)?.read_exact_at(&mut other, offset).map_err(at(path)))
        };
        contenders.push(contender("ptview, through its index", Box::new(through_index)));
        contenders.push(contender("floor: open, read at a known place, close", Box::new(place_known)));
        if let Some(torch) = torch {
            let paths = [path.display().to_string()];
            let load = move || torch.load(&paths, How::Mapped);
            contenders.push(Contender { bytes: 0, ..contender("torch.load(mmap=True)", Box::new(load)) });
        }
    }
    rounds.run(
        format!("open and read one tensor at random, {} on average", bytes(mean)),
        "tensors",
        contenders,
    )
}

fn read_tensor(path: &Path, kept: &Path, number: usize, out: &mut [u8]) -> Result {
    let index = open_index(kept)?;
    let source = FileSource::open(path)?;
    let missing = || Error::Bench("the index lacks a tensor that it had".into());
    let entry = index.tensor(number).ok_or_else(missing)?;
    entry.file().check(path, &source, Policy::Stat)?;
    let checked = CheckedRecords::new(index.storage_count());
    TensorView::new(entry, FileBytes::read(&source, &checked)).read_into(out)?;
    Ok(())
}

fn all_tensors(setting: &mut Setting<'_>, kept: &Path, index: &Index) -> Group {
    let Setting { path, rounds, torch, .. } = setting;
    let path: &Path = path;
    let mut buffer = Vec::new();
    let (ours, all) = (sizes(index), index.data_bytes());
    let contender = |name: &str, bytes, run| Contender { name: name.into(), units: 1, bytes, run };
    let read = move || timed(|| read_all(path, kept, &mut buffer));
    let mut chunk = vec![0; CHUNK_BYTES];
    let plain = move || timed(|| read_plainly(path, &mut chunk));
    let mut contenders = vec![
        contender("ptview, one after the other", ours, Box::new(read) as Box<dyn FnMut() -> _>),
        contender("floor: the file, from start to end", all, Box::new(plain)),
    ];
    if let Some(torch) = torch {
        let paths = [path.display().to_string()];
        contenders.push(contender("torch.load", ours, Box::new(move || torch.load(&paths, How::Whole))));
    }
    rounds.run(format!("read all tensors, {}", bytes(ours)), "files", contenders)
}

/// Bytes of the tensors that have any, each once.
fn sizes(index: &Index) -> u64 {
    index.files().flat_map(|file| file.tensors()).filter_map(|tensor| tensor.nbytes()).sum()
}

fn read_all(path: &Path, kept: &Path, buffer: &mut Vec<u8>) -> Result {
    let index = open_index(kept)?;
    let source = FileSource::open(path)?;
    let checked = CheckedRecords::new(index.storage_count());
    for entry in index.files().flat_map(|file| file.tensors()) {
        let view = TensorView::new(entry, FileBytes::read(&source, &checked));
        let caps = view.caps();
        // Parts of composite tensors are read; the composite itself has no bytes.
        if caps.strided || caps.needs_decode || caps.needs_swap {
            buffer.resize(usize::try_from(entry.nbytes().unwrap_or(0)).unwrap_or(usize::MAX), 0);
            view.read_into(buffer)?;
        }
    }
    Ok(())
}

fn read_plainly(path: &Path, chunk: &mut [u8]) -> Result {
    let mut file = File::open(path).map_err(at(path))?;
    while file.read(chunk).map_err(at(path))? > 0 {}
    Ok(())
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { path: path.to_owned(), source }
}
