//! Files for benchmarks and tests, and figures kept for the report.

// Each user takes what it needs.
#![allow(dead_code)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pt_format::DType;
use pt_format::write::{self, Object, Options, Storage, Tensor};
use pt_format::{Checkpoint, Limits};
use pt_index::{Index, IndexBuilder, Stamp};

/// A checkpoint `{"model": {"layers.<n>.weight": float16[…]}}` of so many tensors and bytes altogether. The tensors are
/// zeros that take no room on disk.
pub(crate) fn checkpoint_of_zeros(folder: &Path, tensors: u64, bytes: u64) -> PathBuf {
    let path = folder.join(format!("zeros-{tensors}-{bytes}.pt"));
    if path.exists() {
        return path;
    }
    let numel = bytes / tensors / 2;
    let shape = [numel / 64, 64];
    let weights = (0..tensors).map(|number| {
        let storage = Storage::zeros(numel * 2);
        let tensor = Tensor::strided(DType::Float16, &shape, &[64, 1], 0, &storage).unwrap();
        (format!("layers.{number}.weight"), tensor.into())
    });
    let object = Object::dict([("model", Object::dict(weights.collect::<Vec<(String, Object<'_>)>>()))]);
    save(&path, &object);
    path
}

/// A flat state dict of so many tensors of 16 floats, values and all.
pub(crate) fn many_small_tensors(folder: &Path, tensors: usize) -> PathBuf {
    let path = folder.join(format!("small-{tensors}.pt"));
    if path.exists() {
        return path;
    }
    let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
    let weights = (0..tensors).map(|number| {
        let tensor = Tensor::new::<f32>(&[4, 4], &values).unwrap();
        (format!("encoder.block.{}.layer.{}.weight", number / 10, number % 10), tensor.into())
    });
    save(&path, &Object::dict(weights.collect::<Vec<(String, Object<'_>)>>()));
    path
}

/// Drops a file's pages from the page cache, as anybody may, after writing to the disk what is not there yet.
pub(crate) fn evict(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_data().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Drops the pages of all files of a folder.
pub(crate) fn evict_all(folder: &Path) {
    std::fs::read_dir(folder).unwrap().for_each(|file| evict(&file.unwrap().path()));
}

/// A file of `{x: float32[64, 64], y: int}`.
pub(crate) fn sample(number: usize) -> Vec<u8> {
    let values = vec![number as f32; 64 * 64];
    let x = Tensor::new::<f32>(&[64, 64], &values).unwrap();
    write::to_vec(&Object::dict([("x", x.into()), ("y", Object::from(number as i64 % 1000))])).unwrap()
}

/// So many files of `{x: float32[64, 64], y: int}`, made once.
pub(crate) fn folder_of_samples(count: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("samples-{count}"));
    let done = folder.with_extension("done");
    if !done.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            std::fs::write(folder.join(format!("sample_{number:06}.pt")), sample(number)).unwrap();
        }
        File::create(done).unwrap();
    }
    folder
}

/// An index of so many like files, made of a few that were parsed.
pub(crate) fn synthesised(files: usize) -> Index {
    let limits = Limits::default();
    let bytes: Vec<Vec<u8>> = (0..16).map(sample).collect();
    let checkpoints: Vec<_> = bytes.iter().map(|bytes| Checkpoint::parse(bytes, &limits).unwrap()).collect();
    let mut builder = IndexBuilder::default();
    for number in 0..files {
        let stamp =
            Stamp { size: 17_000, modified_ns: 1_700_000_000_000_000_000 + number as i64 * 12_345_678 };
        let path = format!("train/{:03}/sample_{number:07}.pt", number / 1000);
        builder.add(&path, stamp, &checkpoints[number % 16]).unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) fn save(path: &Path, object: &Object<'_>) {
    // Whole or not at all: another run may look for it.
    let temporary = path.with_extension("tmp");
    let file = Sparse::new(File::create(&temporary).unwrap());
    let file = write::write(file, object, &Options::default()).unwrap();
    file.finish().unwrap();
    std::fs::rename(&temporary, path).unwrap();
}

/// A file in which long runs of zeros are holes.
struct Sparse {
    file: File,
    at: u64,
    end: u64,
}

impl Sparse {
    fn new(file: File) -> Self {
        Self { file, at: 0, end: 0 }
    }

    fn finish(self) -> io::Result<()> {
        self.file.set_len(self.end)
    }
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let hole = bytes.len() >= 4096 && bytes.iter().all(|&byte| byte == 0);
        if !hole {
            self.file.seek(SeekFrom::Start(self.at))?;
            self.file.write_all(bytes)?;
        }
        self.at += bytes.len() as u64;
        self.end = self.end.max(self.at);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.at = match position {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.end.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
        };
        Ok(self.at)
    }
}
