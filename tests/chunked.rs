//! Tensors of distributed checkpoints that lie in chunks: put together, in part, and refused where chunks do not fit.

mod common;

use std::fs;
use std::path::Path;

use pt_format::write::{self, Tensor};
use pt_view::{Error, FileCache, Obstacle};

use crate::common::Pickle;

/// A chunk: its position in the whole, its sizes, and the tensor itself.
type Chunk = (Vec<u64>, Vec<u64>, Tensor<'static>);

fn chunk(offsets: &[u64], shape: &[u64], values: &[u8]) -> Chunk {
    (offsets.to_vec(), shape.to_vec(), Tensor::new::<u8>(shape, values.to_vec().leak()).unwrap())
}

fn sizes(pickle: Pickle, sizes: &[u64]) -> Pickle {
    sizes.iter().fold(pickle.raw(b"("), |pickle, &size| pickle.int(size as i32)).raw(b"t")
}

/// Opens an object of no known class, to be closed by `ub`.
fn object(pickle: Pickle) -> Pickle {
    pickle.raw(b"ca\nb\n)\x81}(")
}

/// Writes a checkpoint of one tensor of bytes, each chunk in a file of its own.
fn save(folder: &Path, shape: &[u64], chunks: Vec<Chunk>) {
    let write = |(number, (offsets, sizes, tensor)): (usize, Chunk)| {
        let (file, bytes) = (format!("__{number}_0.distcp"), write::to_vec(&tensor.into()).unwrap());
        fs::write(folder.join(&file), &bytes).unwrap();
        (offsets, sizes, file, bytes.len())
    };
    let placed: Vec<_> = chunks.into_iter().enumerate().map(write).collect();
    save_plan(folder, shape, &placed);
}

/// Writes the plan alone: position and sizes of each chunk, its file, and how long that is.
fn save_plan(folder: &Path, shape: &[u64], chunks: &[(Vec<u64>, Vec<u64>, String, usize)]) {
    let mut plan = object(Pickle::new()).str("state_dict_metadata").raw(b"}(").str("w");
    plan = sizes(object(plan).str("size"), shape).str("properties");
    plan = plan.raw(b"ca\nb\n)\x81(").global("torch", "uint8").raw(b"N\x89tb").str("chunks").raw(b"](");
    for (offsets, shape, ..) in chunks {
        plan = sizes(object(plan).str("offsets"), offsets);
        plan = sizes(plan.str("sizes"), shape).raw(b"ub");
    }
    plan = plan.raw(b"eubu").str("storage_data").raw(b"}(");
    for (offsets, _, file, bytes) in chunks {
        plan = sizes(object(plan).str("fqn").str("w").str("offset"), offsets).raw(b"ub");
        plan = object(plan).str("relative_path").str(file).str("offset").int(0).str("length");
        plan = plan.int(*bytes as i32).raw(b"ub");
    }
    fs::write(folder.join(".metadata"), plan.raw(b"uub").stop()).unwrap();
}

fn open(shape: &[u64], chunks: Vec<Chunk>) -> (tempfile::TempDir, FileCache) {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), shape, chunks);
    let index = pt_index::build_distributed(folder.path(), &Default::default()).unwrap();
    let files = FileCache::new(folder.path(), index);
    (folder, files)
}

fn refusal(shape: &[u64], chunks: Vec<Chunk>) -> Obstacle {
    let (_folder, files) = open(shape, chunks);
    let whole = files.chunked("w").unwrap();
    let error = whole.buffer_bytes().unwrap_err();
    let again = whole.read_into(&mut []).unwrap_err();
    assert!(error.to_string() == again.to_string() || matches!(again, Error::Refused { .. }));
    match error {
        Error::Refused { obstacle, .. } => obstacle,
        other => panic!("{other}"),
    }
}

/// Three rows of four, in chunks of every kind of place: `0 1 2 3 | 4 5 6 7 | 8 9 10 11`.
fn grid() -> Vec<Chunk> {
    vec![
        chunk(&[1, 2], &[2, 2], &[6, 7, 10, 11]),
        chunk(&[0, 0], &[1, 4], &[0, 1, 2, 3]),
        chunk(&[1, 0], &[2, 2], &[4, 5, 8, 9]),
        chunk(&[3, 4], &[0, 0], &[]),
    ]
}

#[test]
fn chunks_are_put_together() {
    let (_folder, files) = open(&[3, 4], grid());
    let whole = files.chunked("w").unwrap();
    assert_eq!((whole.shape(), whole.nbytes()), (&[3, 4][..], Some(12)));
    assert_eq!(whole.to_bytes().unwrap(), (0..12).collect::<Vec<u8>>());

    let (_folder, files) = open(&[], vec![chunk(&[], &[], &[7])]);
    assert_eq!(
        files.index().find_tensor("w").unwrap().layout(),
        pt_format::Layout::Strided,
        "one chunk is all"
    );
    let (_folder, files) = open(&[0, 3], Vec::new());
    assert_eq!(files.chunked("w").unwrap().to_bytes().unwrap(), [0u8; 0]);
}

#[test]
fn every_part_of_chunks_is_that_part_of_the_whole() {
    let (_folder, files) = open(&[3, 4], grid());
    let whole = files.chunked("w").unwrap();
    let expected = |rows: std::ops::Range<u64>, columns: std::ops::Range<u64>| -> Vec<u8> {
        rows.flat_map(|row| columns.clone().map(move |column| (4 * row + column) as u8)).collect()
    };
    for row in 0..3 {
        for rows in 0..=3 - row {
            for column in 0..4 {
                for columns in 0..=4 - column {
                    let part = whole.narrow(1, column, columns).unwrap().narrow(0, row, rows).unwrap();
                    assert_eq!(part.shape(), [rows, columns]);
                    assert_eq!(part.to_bytes().unwrap(), expected(row..row + rows, column..column + columns));
                }
            }
            let part = whole.narrow(0, row, rows).unwrap().select(1, 3).unwrap();
            assert_eq!(
                (part.shape(), part.to_bytes().unwrap()),
                (&[rows][..], expected(row..row + rows, 3..4))
            );
        }
    }
    assert_eq!(whole.select(0, 2).unwrap().select(0, 1).unwrap().to_bytes().unwrap(), [9]);
    let refused = |result: pt_view::Result<_>| {
        matches!(result, Err(Error::Refused { obstacle, .. })
        if matches!(obstacle, Obstacle::OutOfBounds { .. } | Obstacle::NoSuchDim { .. }))
    };
    assert!(
        refused(whole.narrow(0, 3, 1))
            && refused(whole.narrow(1, u64::MAX, 2))
            && refused(whole.select(2, 0))
    );
}

#[test]
fn chunks_that_do_not_fit_are_refused() {
    let mut chunks = grid();
    chunks.remove(0);
    assert_eq!(refusal(&[3, 4], chunks), Obstacle::ChunksMissing { has: 8, needs: 12 });
    assert_eq!(refusal(&[3, 4], Vec::new()), Obstacle::ChunksMissing { has: 0, needs: 12 });

    // As many elements as there should be, one of them twice.
    let mut chunks = grid();
    chunks[0].0 = vec![1, 1];
    let overlap = Obstacle::ChunksOverlap { first: vec![1, 0], second: vec![1, 1] };
    assert_eq!(refusal(&[3, 4], chunks), overlap);

    for (offsets, shape) in [(vec![2, 2], [3, 4]), (vec![i32::MAX as u64, 0], [3, 4])] {
        let mut chunks = grid();
        chunks[0].0 = offsets.clone();
        match refusal(&shape, chunks) {
            Obstacle::ChunkMisfit { offsets: found, sizes, .. } => {
                assert_eq!((found, sizes), (offsets, vec![2, 2]))
            }
            other => panic!("{other}"),
        }
    }
    let chunks = vec![chunk(&[0], &[12], &[0; 12])];
    assert!(matches!(refusal(&[3, 4], chunks), Obstacle::ChunkMisfit { .. }), "another rank");
    let mut chunks = grid();
    chunks[0].2 = Tensor::new::<i8>(&[2, 2], &[6, 7, 10, 11]).unwrap();
    assert!(matches!(refusal(&[3, 4], chunks), Obstacle::ChunkMisfit { .. }), "another dtype");
}

#[test]
fn a_plan_that_would_take_hours_to_check_is_refused() {
    // All of them lie in one file, and none can be told from the others along one dimension.
    const COUNT: u64 = 20_000;
    const SIDE: u64 = 150;
    let folder = tempfile::tempdir().unwrap();
    let bytes = write::to_vec(&chunk(&[], &[COUNT, 1, 1], &[7; COUNT as usize]).2.into()).unwrap();
    fs::write(folder.path().join("a.distcp"), &bytes).unwrap();
    let place = |at: u64| vec![at, at / SIDE, at % SIDE];
    let place = |at: u64| (place(at), vec![COUNT, 1, 1], "a.distcp".to_owned(), bytes.len());
    save_plan(folder.path(), &[2 * COUNT, SIDE, SIDE], &(0..COUNT).map(place).collect::<Vec<_>>());
    let index = pt_index::build_distributed(folder.path(), &Default::default()).unwrap();
    let files = FileCache::new(folder.path(), index);
    match files.chunked("w").unwrap().check() {
        Err(Error::Refused { obstacle, .. }) => {
            assert_eq!(obstacle, Obstacle::ChunksEntangled { chunks: COUNT as usize });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_taken_only_for_chunks_that_are_there() {
    let (folder, files) = open(&[3, 4], grid());
    let whole = files.chunked("w").unwrap();
    let first = whole.narrow(0, 0, 1).unwrap();
    fs::remove_file(folder.path().join("__0_0.distcp")).unwrap();
    assert_eq!(first.to_bytes().unwrap(), [0, 1, 2, 3], "other chunks are not asked for");
    assert!(matches!(whole.buffer_bytes(), Err(Error::Index(_))));

    let huge = vec![i32::MAX as u64; 2];
    assert!(matches!(refusal(&huge, grid()), Obstacle::ChunksMissing { has: 12, .. }));
}

#[test]
fn other_ways_to_a_tensor_in_chunks_say_which_one_there_is() {
    let (_folder, files) = open(&[3, 4], grid());
    let file = files.file(0).unwrap();
    let obstacles = [file.tensor("w").unwrap().to_bytes().err(), file.tensor("w").unwrap().row(0).err()];
    for error in obstacles {
        assert!(matches!(error, Some(Error::Refused { obstacle: Obstacle::InChunks, .. })));
    }
    let (_folder, files) = open(&[1], vec![chunk(&[0], &[1], &[7])]);
    assert!(matches!(files.chunked("w"), Err(Error::Refused { obstacle: Obstacle::NotInChunks, .. })));
    assert!(matches!(files.chunked("v"), Err(Error::NoSuchTensor { .. })));
}
