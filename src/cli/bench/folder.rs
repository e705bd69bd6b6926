//! A folder of samples: indexed, opened, gathered in batches.

use std::io::Read;
use std::path::{Path, PathBuf};

use pt_index::{BuildOptions, FileSource, Index};
use pt_loader::{Batch, DataSet, Misfits, Options, Permutation, Ragged};
use pt_view::{CheckedRecords, FileBytes, TensorView};

use crate::cli::bench::rounds::{Contender, Group, Timed, timed};
use crate::cli::bench::torch::How;
use crate::cli::bench::{Setting, kept_index, open_index};
use crate::cli::table::{bytes, plural};
use crate::cli::{Error, Result};

/// Samples that a round gathers at most.
const SAMPLES_MAX: usize = 4096;
/// Files that torch is asked for in a round at most: it takes a thousand times longer.
const TORCH_FILES_MAX: usize = 256;
/// What is read of a file at least to index it.
const HEAD_BYTES: u64 = 64 << 10;
const SEED: u64 = 42;

pub(crate) fn measure(setting: &mut Setting<'_>) -> Result<Vec<Group>> {
    let index = build(setting.path)?;
    let kept = kept_index(&index)?;
    let mut groups = vec![indexing(setting, &index), opening(setting, &kept, &index)];
    match data_set(setting.path, index) {
        Ok(data) => {
            groups.push(first_batch(setting, &data));
            groups.push(samples(setting, &data));
            groups.push(threads(setting, &data));
        }
        Err(error) => groups.push(Group {
            title: "batches".into(),
            unit: "samples",
            timed: vec![Timed { name: "none".into(), units: 0, bytes: 0, times: Err(error.to_string()) }],
        }),
    }
    Ok(groups)
}

fn build(folder: &Path) -> Result<Index> {
    Ok(pt_index::build_folder(folder, None, &BuildOptions::default(), |_| {})?.index)
}

fn data_set(folder: &Path, index: Index) -> Result<DataSet> {
    Ok(DataSet::with_index(folder, index, &Options { misfits: Misfits::LeaveOut, ..Options::default() })?)
}

fn indexing(setting: &mut Setting<'_>, index: &Index) -> Group {
    let Setting { path: folder, rounds, torch, .. } = setting;
    let folder: &Path = folder;
    let paths: Vec<PathBuf> = index.files().map(|file| folder.join(file.path())).collect();
    let some = some_for_torch(&paths);
    let contender = |name: &str, units, run| Contender { name: name.into(), units, bytes: 0, run };
    let floor = {
        let paths = paths.clone();
        let mut buffer = Vec::new();
        move || timed(|| paths.iter().try_for_each(|path| look_at(path, &mut buffer)))
    };
    let mut contenders = vec![
        contender(
            "ptview, all threads",
            paths.len(),
            Box::new(move || timed(|| build(folder))) as Box<dyn FnMut() -> _>,
        ),
        contender("floor: open, fstat, read 64 KiB, close", paths.len(), Box::new(floor)),
    ];
    if let Some(torch) = torch {
        let load = move || torch.load(&some, How::Whole);
        contenders.push(contender("torch.load of each", paths.len().min(TORCH_FILES_MAX), Box::new(load)));
    }
    let title = format!("index {}, {}", plural(paths.len(), "file"), bytes(index.data_bytes()));
    rounds.run(title, "files", contenders)
}

fn some_for_torch(paths: &[PathBuf]) -> Vec<String> {
    let order = Permutation::new(paths.len(), SEED, 1);
    let count = paths.len().min(TORCH_FILES_MAX);
    (0..count).map(|at| paths[order.at(at)].display().to_string()).collect()
}

fn look_at(path: &Path, buffer: &mut Vec<u8>) -> Result {
    let source = FileSource::open(path)?;
    buffer.clear();
    let read = source.file().take(HEAD_BYTES).read_to_end(buffer);
    read.map(|_| ()).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn opening(setting: &Setting<'_>, kept: &Path, index: &Index) -> Group {
    let open =
        Contender { name: "ptview".into(), units: 1, bytes: 0, run: Box::new(|| timed(|| open_index(kept))) };
    let title = format!("open that index, {}", bytes(index.as_bytes().len() as u64));
    setting.rounds.run(title, "indexes", vec![open])
}

/// The samples of the rounds, in random order.
fn picked(data: &DataSet, epoch: u64, count: usize) -> Vec<usize> {
    let order = Permutation::new(data.len(), SEED, epoch);
    (0..data.len().min(count)).map(|position| order.at(position)).collect()
}

fn first_batch(setting: &mut Setting<'_>, data: &DataSet) -> Group {
    let Setting { path: folder, batch, rounds, torch, .. } = setting;
    let folder: &Path = folder;
    let numbers = picked(data, 1, *batch);
    let files = files_of(folder, data, &numbers);
    let title = format!("from nothing to the first batch of {}", numbers.len());
    let ours = move || {
        timed(|| {
            let mut batch = Batch::default();
            Ok(data_set(folder, build(folder)?)?.gather_into(&numbers, Ragged::Joined, &mut batch)?)
        })
    };
    let contender = |name: &str, run| Contender { name: name.into(), units: 1, bytes: 0, run };
    let mut contenders =
        vec![contender("ptview, indexing all files first", Box::new(ours) as Box<dyn FnMut() -> _>)];
    if let Some(torch) = torch {
        let load = move || torch.load(&files, How::Whole);
        contenders.push(contender("torch.load of each of these", Box::new(load)));
    }
    rounds.run(title, "batches", contenders)
}

fn files_of(folder: &Path, data: &DataSet, samples: &[usize]) -> Vec<String> {
    let path = |&sample: &usize| Some(folder.join(data.locate(sample)?.0.path()).display().to_string());
    samples.iter().filter_map(path).collect()
}

fn samples(setting: &mut Setting<'_>, data: &DataSet) -> Group {
    let Setting { path: folder, batch: size, rounds, torch } = setting;
    let (folder, size): (&Path, usize) = (folder, *size);
    let numbers = picked(data, 2, SAMPLES_MAX);
    let count = numbers.len();
    let places = places(folder, data, &numbers);
    let all = places.iter().flat_map(|(_, places)| places).map(|&(_, length)| length as u64).sum();
    let few = files_of(folder, data, &numbers[..count.min(TORCH_FILES_MAX)]);
    let few_bytes =
        places.iter().take(few.len()).flat_map(|(_, places)| places).map(|&(_, length)| length as u64);
    let (few_count, few_bytes) = (few.len(), few_bytes.sum());
    let mut batch = Batch::default();
    let ours = move || timed(|| gather(data, &numbers, size, &mut batch));
    let mut buffer = Vec::new();
    let floor =
        move || timed(|| places.iter().try_for_each(|(path, places)| read(path, places, &mut buffer)));
    let contender = |name: &str, units, bytes, run| Contender { name: name.into(), units, bytes, run };
    let mut contenders = vec![
        contender("ptview, all threads", count, all, Box::new(ours) as Box<dyn FnMut() -> _>),
        contender("floor: open, read at known places, close", count, all, Box::new(floor)),
    ];
    if let Some(torch) = torch {
        let load = move || torch.load(&few, How::Whole);
        contenders.push(contender("torch.load of each", few_count, few_bytes, Box::new(load)));
    }
    rounds.run(format!("gather {count} samples in random order, in batches of {size}"), "samples", contenders)
}

fn gather(data: &DataSet, numbers: &[usize], size: usize, batch: &mut Batch) -> Result {
    numbers.chunks(size).try_for_each(|numbers| Ok(data.gather_into(numbers, Ragged::Joined, batch)?))
}

/// Where the tensors of samples lie: offsets and lengths by file.
fn places(folder: &Path, data: &DataSet, samples: &[usize]) -> Vec<(PathBuf, Vec<(u64, usize)>)> {
    let checked = CheckedRecords::new(data.index().storage_count());
    let of_sample = |&sample: &usize| {
        let (file, _) = data.locate(sample)?;
        let path = folder.join(file.path());
        let source = FileSource::open(&path).ok()?;
        let tensors = data.fields().iter().filter_map(|field| file.tensor(&field.name));
        let places = tensors.filter_map(|tensor| {
            let place = TensorView::new(tensor, FileBytes::read(&source, &checked)).locate()?;
            Some((place.offset, usize::try_from(place.length).ok()?))
        });
        Some((path, places.collect()))
    };
    samples.iter().filter_map(of_sample).collect()
}

fn read(path: &Path, places: &[(u64, usize)], buffer: &mut Vec<u8>) -> Result {
    let source = FileSource::open(path)?;
    places.iter().try_for_each(|&(offset, length)| {
        buffer.resize(length, 0);
        source.read_exact_at(buffer, offset).map_err(|source| Error::Io { path: path.to_owned(), source })
    })
}

fn threads(setting: &Setting<'_>, data: &DataSet) -> Group {
    let (cores, size) = (rayon::current_num_threads(), setting.batch);
    let numbers = picked(data, 3, SAMPLES_MAX);
    let powers = std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|&count| count < cores);
    let contenders = powers.chain([cores]).filter_map(|count| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().ok()?;
        let (numbers, mut batch) = (&numbers, Batch::default());
        Some(Contender {
            name: plural(count, "thread"),
            units: numbers.len(),
            bytes: 0,
            run: Box::new(move || timed(|| pool.install(|| gather(data, numbers, size, &mut batch)))),
        })
    });
    let contenders = contenders.collect();
    setting.rounds.run("the same by number of threads".into(), "samples", contenders)
}
