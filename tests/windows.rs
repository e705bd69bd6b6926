//! Shuffling in windows of whole files: for disks and networks that like to read on.

use std::collections::BTreeSet;
use std::fs;

use pt_format::write::{self, Object, Tensor};
use pt_loader::{DataSet, Loader, Options, Shards, Unit};

/// Files of 0 to 80 rows, 2,000 in all.
const LENGTHS: [usize; 51] = {
    let mut lengths = [0; 51];
    let mut file = 0;
    while file < 50 {
        lengths[file] = file * 37 % 81;
        file += 1;
    }
    lengths[50] = 80;
    lengths
};
const WINDOW: usize = 200;

fn rows() -> (tempfile::TempDir, DataSet) {
    let folder = tempfile::tempdir().unwrap();
    for (file, &length) in LENGTHS.iter().enumerate() {
        let x: Vec<i64> = (0..length).map(|row| (file * 1000 + row) as i64).collect();
        let x = Tensor::new::<i64>(&[length as u64], &x).unwrap();
        let object = Object::dict([("x", x.into()), ("odd", Object::from(file as i64 % 2))]);
        fs::write(folder.path().join(format!("{file:02}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let options = Options { unit: Unit::Row, ..Options::default() };
    let data = DataSet::open_with(folder.path(), &options).unwrap();
    (folder, data)
}

fn batches(loader: &Loader, epoch: u64) -> Vec<Vec<usize>> {
    loader.epoch(epoch).map(|batch| batch.unwrap().samples().to_vec()).collect()
}

fn files(data: &DataSet, samples: &[usize]) -> BTreeSet<usize> {
    samples.iter().map(|&sample| data.locate(sample).unwrap().0.row()).collect()
}

/// Checks that an epoch has every sample once, and that files are taken whole, few at a time; returns its order.
fn check(data: &DataSet, loader: &Loader, epoch: u64) -> Vec<usize> {
    let order = batches(loader, epoch).concat();
    assert!(order.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(0..data.len()));
    assert_eq!(order.len(), data.len());
    let file_of: Vec<usize> = order.iter().map(|&sample| data.locate(sample).unwrap().0.row()).collect();
    let mut lengths = [0; LENGTHS.len()];
    let mut ends = [0; LENGTHS.len()];
    for (position, &file) in file_of.iter().enumerate() {
        lengths[file] += 1;
        ends[file] = position;
    }
    let mut open = BTreeSet::new();
    for (position, &file) in file_of.iter().enumerate() {
        open.insert(file);
        // Only files of one window, which is longer than asked by less than a file.
        let rows: usize = open.iter().map(|&file| lengths[file]).sum();
        assert!(rows < WINDOW + 80, "{rows} rows are open at {position}");
        open.retain(|&file| ends[file] > position);
    }
    order
}

#[test]
fn files_are_taken_whole_and_every_row_once() {
    let (_folder, data) = rows();
    let loader = Loader::new(&data, 32).shuffle(3).window(WINDOW);
    let first = check(&data, &loader, 0);
    assert_ne!(first, check(&data, &loader, 1));
    assert_eq!(first, batches(&loader, 0).concat());
    assert_ne!(first, check(&data, &Loader::new(&data, 32).shuffle(4).window(WINDOW), 0));

    // As many rows as a window has touch few files; a full shuffle touches nearly all.
    let touched = |order: &[usize]| -> Vec<usize> {
        order.chunks_exact(WINDOW).map(|part| files(&data, part).len()).collect()
    };
    let (windowed, full) =
        (touched(&first), touched(&batches(&Loader::new(&data, 32).shuffle(3), 0).concat()));
    println!("files that {WINDOW} rows touch: {windowed:?}, fully shuffled {full:?}");
    assert!(windowed.iter().max() < full.iter().min());
    assert!(windowed.iter().sum::<usize>() * 3 < full.iter().sum::<usize>());

    // Rows of several files are shuffled with each other, and files do not come in their order.
    let changes = |order: &[usize]| {
        order.windows(2).filter(|pair| files(&data, &pair[..1]) != files(&data, &pair[1..])).count()
    };
    assert!(changes(&first) * 2 > first.len(), "{} of {}", changes(&first), first.len());
    let mut values = Vec::new();
    for batch in loader.epoch(0) {
        values.extend_from_slice(batch.unwrap().tensor("x").unwrap().as_slice::<i64>().unwrap());
    }
    let expected = first.iter().map(|&sample| {
        let (file, row) = data.locate(sample).unwrap();
        (file.row() * 1000 + row) as i64
    });
    assert!(values.into_iter().eq(expected));
}

#[test]
fn filtered_rows_stay_with_their_file() {
    let (_folder, data) = rows();
    let odd = data.filter("odd", |odd| odd == pt_index::Leaf::Int(1));
    let (most, few) = data.split(0.8, 5);
    for data in [odd, most, few] {
        check(&data, &Loader::new(&data, 16).shuffle(1).window(WINDOW), 0);
    }
}

#[test]
fn tensors_of_a_file_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..20u8 {
        let values = [file; 2];
        let x = Tensor::new::<u8>(&[2], &values).unwrap();
        let names = &["t0", "t1", "t2"][..=usize::from(file % 3)];
        let object = Object::dict(names.iter().map(|&name| (name, x.clone().into())));
        fs::write(folder.path().join(format!("{file:02}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let options = Options { unit: Unit::Tensor, ..Options::default() };
    let data = DataSet::open_with(folder.path(), &options).unwrap();
    let order = batches(&Loader::new(&data, 8).shuffle(1).window(1), 0).concat();
    assert!(order.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(0..data.len()));
    let mut by_file: Vec<_> = order.iter().map(|&sample| files(&data, &[sample])).collect();
    by_file.dedup();
    assert_eq!(by_file.len(), 20);
    assert!(!by_file.is_sorted());
}

#[test]
fn an_epoch_of_windows_goes_on_where_it_stood_and_is_split_among_ranks() {
    let (_folder, data) = rows();
    let loader = Loader::new(&data, 64).shuffle(9).window(WINDOW);
    let whole = batches(&loader, 2);
    for taken in 0..=whole.len() {
        let mut epoch = loader.epoch(2);
        epoch.by_ref().take(taken).for_each(drop);
        let rest = loader.resume(&epoch.state()).unwrap();
        let rest: Vec<_> = rest.map(|batch| batch.unwrap().samples().to_vec()).collect();
        assert_eq!(rest, whole[taken..]);
    }

    assert_eq!(data.len() % 2, 0);
    let of_rank = |rank| loader.clone().rank(rank, 2, Shards::Even);
    let shares: Vec<Vec<usize>> = (0..2).map(|rank| batches(&of_rank(rank), 2).concat()).collect();
    assert_eq!(shares[0].len(), shares[1].len());
    let all: BTreeSet<usize> = shares.concat().into_iter().collect();
    assert_eq!((all.len(), shares.concat().len()), (data.len(), data.len()));
}
