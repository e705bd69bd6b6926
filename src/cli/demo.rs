//! `ptview demo`: the whole way once, on files of our own, with figures.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pt_format::write::{self, Object, Tensor};
use pt_format::{Checkpoint, Limits};
use pt_index::{BuildOptions, Leaf, Progress, index_of};
use pt_loader::{DataSet, Loader, Permutation};
use pt_view::{FileBytes, TensorView};

use crate::cli::progress::Bar;
use crate::cli::table::bytes;
use crate::cli::{Error, Result};

const SHAPE: [u64; 2] = [64, 64];
const ELEMENTS: usize = (SHAPE[0] * SHAPE[1]) as usize;
const BATCH_SIZE: usize = 256;
const SEED: u64 = 42;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder in which to make a folder of files and keep it; a temporary one if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many files to write, each with a 64×64 float32 tensor and a label.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    files: u32,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    let temporary;
    let folder = match &arguments.dir {
        Some(folder) => {
            // A folder for each count: files of an earlier, larger run would be indexed as well.
            let folder = folder.join(format!("ptview-demo-{}", arguments.files));
            std::fs::create_dir_all(&folder).map_err(at(&folder))?;
            folder
        }
        None => {
            temporary = tempfile::tempdir().map_err(at(&std::env::temp_dir()))?;
            temporary.path().to_owned()
        }
    };
    let count = arguments.files as usize;
    let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::Output);

    let resident_at_start = resident_bytes();
    let time = Instant::now();
    write_files(&folder, count)?;
    say(format!(
        "wrote    {count} files {{x: float32[64, 64], y: int}} to {}, {}",
        folder.display(),
        rate(count, time.elapsed(), "files")
    ))?;

    let time = Instant::now();
    let built = pt_index::build_folder(
        &folder,
        None,
        &BuildOptions { fail_on_error: true, ..Default::default() },
        |_| {},
    )?;
    let sidecar = pt_index::sidecar_path(&folder);
    pt_index::save(&built.index, &sidecar)?;
    say(format!(
        "indexed  {} to {}, {}",
        rate(count, time.elapsed(), "files"),
        sidecar.display(),
        bytes(built.index.as_bytes().len() as u64)
    ))?;

    let time = Instant::now();
    let data = DataSet::open(&folder)?;
    let opened = time.elapsed();
    if data.len() != count {
        return Err(Error::Demo(format!("{} files indexed, {count} written", data.len())));
    }
    check_epoch(&data)?;
    say(format!(
        "checked  one shuffled epoch: every sample once, every value as written (opened in {opened:.1?})"
    ))?;

    let samples = count.min(20_000);
    let resident_before = resident_bytes();
    let lazily = time_lazily(&data, samples)?;
    let resident_after = resident_bytes();
    let parsing = time_parsing(&data, &folder, samples)?;
    let plain = time_plain(&data, &folder, samples)?;
    say(String::new())?;
    say(format!("{samples} samples in the same shuffled order, page cache warm:"))?;
    say(format!(
        "  lazily, in batches of {BATCH_SIZE} through the index   {}",
        rate(samples, lazily, "samples")
    ))?;
    say(format!(
        "  each file read whole and parsed           {}, {:.1} times slower",
        rate(samples, parsing, "samples"),
        ratio(parsing, lazily)
    ))?;
    say(format!(
        "  each file read whole and thrown away      {}, {:.2} of the lazy time",
        rate(samples, plain, "samples"),
        ratio(plain, lazily)
    ))?;
    if let (Some(start), Some(before), Some(after)) = (resident_at_start, resident_before, resident_after) {
        let data_bytes = (count * ELEMENTS * size_of::<f32>()) as u64;
        say(format!(
            "resident memory: {} at start, {} before the lazy epoch, {} after it ({} of tensors streamed)",
            bytes(start),
            bytes(before),
            bytes(after),
            bytes(data_bytes)
        ))?;
    }
    Ok(())
}

/// What element `position` of sample `number` must be.
fn expected(number: usize, position: usize) -> f32 {
    (number * 31 + position) as f32
}

fn file_name(number: usize) -> String {
    format!("sample_{number:07}.pt")
}

fn write_files(folder: &Path, count: usize) -> Result {
    let bar = Bar::new("writing");
    for number in 0..count {
        let elements: Vec<f32> = (0..ELEMENTS).map(|position| expected(number, position)).collect();
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&SHAPE, &elements)?.into()),
            ("y", Object::from(number as i64 % 10)),
        ]);
        let path = folder.join(file_name(number));
        std::fs::write(&path, write::to_vec(&object)?).map_err(at(&path))?;
        bar.show(Progress { files: number + 1, files_total: count, bytes: 0 });
    }
    bar.finish();
    Ok(())
}

/// Streams one epoch and compares every value with what was written.
fn check_epoch(data: &DataSet) -> Result {
    let mut seen = vec![false; data.len()];
    for batch in Loader::new(data, BATCH_SIZE).shuffle(SEED).epoch(0) {
        let batch = batch?;
        let missing = |what: &str| Error::Demo(format!("a batch without `{what}`"));
        let x = batch.tensor("x").ok_or_else(|| missing("x"))?.as_slice::<f32>()?;
        let y = batch.column("y").ok_or_else(|| missing("y"))?;
        for ((&sample, x), y) in batch.samples().iter().zip(x.chunks_exact(ELEMENTS)).zip(y.iter()) {
            // Files sort by name, so the sample's number is the file's.
            let right = x.iter().enumerate().all(|(position, &value)| value == expected(sample, position));
            if !right || y != Leaf::Int(sample as i64 % 10) {
                return Err(Error::Demo(format!("sample {sample} differs")));
            }
            if std::mem::replace(&mut seen[sample], true) {
                return Err(Error::Demo(format!("sample {sample} came twice")));
            }
        }
    }
    match seen.iter().position(|&seen| !seen) {
        Some(sample) => Err(Error::Demo(format!("sample {sample} never came"))),
        None => Ok(()),
    }
}

fn time_lazily(data: &DataSet, samples: usize) -> Result<Duration> {
    let order = Permutation::new(data.len(), SEED, 1);
    let numbers: Vec<usize> = (0..samples).map(|position| order.at(position)).collect();
    let time = Instant::now();
    for batch in numbers.chunks(BATCH_SIZE) {
        std::hint::black_box(data.gather(batch)?);
    }
    Ok(time.elapsed())
}

/// What a loop without an index does, though with our own parser: read, parse, copy the tensor out.
fn time_parsing(data: &DataSet, folder: &Path, samples: usize) -> Result<Duration> {
    let order = Permutation::new(data.len(), SEED, 1);
    let time = Instant::now();
    for position in 0..samples {
        let path = folder.join(file_name(order.at(position)));
        let file = std::fs::read(&path).map_err(at(&path))?;
        let checkpoint = Checkpoint::parse(&file, &Limits::default())
            .map_err(|source| pt_index::Error::File { path: path.clone(), source })?;
        let index = index_of(&checkpoint)?;
        let entry = index.file(0).and_then(|file| file.tensor("x"));
        let entry = entry.ok_or_else(|| Error::Demo(format!("{} without `x`", path.display())))?;
        std::hint::black_box(TensorView::new(entry, FileBytes::new(&file)).to_vec::<f32>()?);
    }
    Ok(time.elapsed())
}

fn time_plain(data: &DataSet, folder: &Path, samples: usize) -> Result<Duration> {
    let order = Permutation::new(data.len(), SEED, 1);
    let time = Instant::now();
    for position in 0..samples {
        let path = folder.join(file_name(order.at(position)));
        std::hint::black_box(std::fs::read(&path).map_err(at(&path))?);
    }
    Ok(time.elapsed())
}

fn rate(count: usize, time: Duration, what: &str) -> String {
    format!("{:.0} {what}/s ({:.2} s)", count as f64 / time.as_secs_f64(), time.as_secs_f64())
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}

/// Resident memory of this process, where the system tells (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
