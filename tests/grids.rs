//! Samples that differ in more sizes than the first.

use std::fs;
use std::path::Path;

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_loader::{Batch, DataSet, Error, Lengths, Loader, Mode, Options, Pad, Ragged, Side, To, Unit};
use pt_view::{Access, FileCache};

const SIZES: [[usize; 2]; 6] = [[2, 3], [1, 5], [4, 1], [0, 2], [3, 0], [3, 3]];
/// The last size is the same for all.
const INNER: usize = 2;

fn value(sample: usize, row: usize, column: usize, at: usize) -> f32 {
    (sample * 300 + row * 100 + column * 10 + at + 1) as f32
}

/// Elements of a sample, row-major or with the columns first.
fn values(sample: usize, columns_first: bool) -> Vec<f32> {
    let [rows, columns] = SIZES[sample];
    let place = |at: usize| match columns_first {
        true => (at % rows, at / rows),
        false => (at / columns, at % columns),
    };
    let elements = |at| (0..INNER).map(move |inner| value(sample, place(at).0, place(at).1, inner));
    (0..rows * columns).flat_map(elements).collect()
}

/// Samples `[rows, columns, 2]`: `x` as they are, `columns` in another order of elements, `half` as `float16`.
fn write_samples(folder: &Path) {
    for (number, [rows, columns]) in SIZES.into_iter().enumerate() {
        let shape = [rows as u64, columns as u64, INNER as u64];
        let (x, transposed) = (values(number, false), values(number, true));
        let half: Vec<half::f16> = x.iter().copied().map(half::f16::from_f32).collect();
        let storage = Storage::new(bytemuck::cast_slice::<f32, u8>(&transposed));
        let stride = [INNER as u64, shape[0] * INNER as u64, 1];
        let transposed = Tensor::strided(DType::Float32, &shape, &stride, 0, &storage).unwrap();
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&shape, &x).unwrap().into()),
            ("columns", transposed.into()),
            ("half", Tensor::new::<half::f16>(&shape, &half).unwrap().into()),
        ]);
        fs::write(folder.join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
}

fn samples() -> (tempfile::TempDir, DataSet) {
    let folder = tempfile::tempdir().unwrap();
    write_samples(folder.path());
    let data = DataSet::open(folder.path()).unwrap().to_float32("half", 1.0).unwrap();
    (folder, data)
}

/// Along one dimension: which step of the sample stands at each place, and whether it is one of its own there.
fn along(has: usize, room: usize, pad: Pad) -> Vec<(Option<usize>, bool)> {
    let kept = has.min(room);
    let (first, place) = if pad.side == Side::Left { (has - kept, room - kept) } else { (0, 0) };
    let source = |at: usize| {
        let (is_own, away) = match pad.side {
            Side::Left => (at >= place, place.wrapping_sub(at)),
            Side::Right => (at < kept, (at + 1).wrapping_sub(kept)),
        };
        let edge =
            |steps: usize| if pad.side == Side::Left { first + steps } else { first + kept - 1 - steps };
        let step = match pad.mode {
            _ if is_own => Some(first + at - place),
            _ if kept == 0 => None,
            Mode::Replicate => Some(edge(0)),
            Mode::Reflect if kept == 1 => Some(edge(0)),
            Mode::Reflect => {
                // Up and down again, from the edge.
                let bounce: Vec<usize> = (0..kept).chain((1..kept - 1).rev()).collect();
                Some(edge(bounce[away % bounce.len()]))
            }
            _ => None,
        };
        (step, is_own)
    };
    (0..room).map(source).collect()
}

/// What a batch of the samples looks like, and its mask.
fn expected(batch: &[usize], pad: Pad) -> ([usize; 2], Vec<f32>, Vec<bool>) {
    let largest = |dim: usize| batch.iter().map(|&sample| SIZES[sample][dim]).max().unwrap();
    let wanted = match pad.to {
        To::Longest => [None, None],
        To::Length(length) => [Some(length), None],
        To::Each(lengths) => [lengths.as_slice()[0], lengths.as_slice()[1]],
    };
    let room = [0, 1].map(|dim| wanted[dim].map_or_else(|| largest(dim), |length| length as usize));
    let nothing = if let Mode::Constant(value) = pad.mode { value as f32 } else { 0.0 };
    let (mut x, mut mask) = (Vec::new(), Vec::new());
    for &sample in batch {
        let [has_rows, has_columns] = SIZES[sample];
        for &(row, in_rows) in &along(has_rows, room[0], pad) {
            for &(column, in_columns) in &along(has_columns, room[1], pad) {
                mask.push(in_rows && in_columns);
                let element = |at| match (row, column) {
                    (Some(row), Some(column)) => value(sample, row, column, at),
                    _ => nothing,
                };
                x.extend((0..INNER).map(element));
            }
        }
    }
    (room, x, mask)
}

/// The ways to get at files.
fn ways(folder: &Path, data: &DataSet) -> Vec<(&'static str, DataSet)> {
    let files = FileCache::new(folder, data.index().clone());
    // SAFETY: nobody else writes there.
    let mapped = unsafe { files.with_access(Access::Map) };
    let mapped = DataSet::with_files(mapped, data.options()).unwrap().to_float32("half", 1.0).unwrap();
    let few = FileCache::new(folder, data.index().clone()).with_capacity(2);
    let few = DataSet::with_files(few, data.options()).unwrap().to_float32("half", 1.0).unwrap();
    vec![("read", data.clone()), ("mapped", mapped), ("two files open", few)]
}

#[test]
fn every_ragged_size_is_padded() {
    let (folder, data) = samples();
    for field in data.fields() {
        assert_eq!(
            (&field.shape[..], &field.ragged_dims[..]),
            (&[4, 5, 2][..], &[0, 1][..]),
            "{}",
            field.name
        );
        assert!(field.is_ragged);
    }
    let mut batch = Batch::default();
    for (way, data) in ways(folder.path(), &data) {
        for mode in [Mode::Zero, Mode::Constant(-1.0), Mode::Reflect, Mode::Replicate] {
            for (side, to) in [
                (Side::Right, To::Longest),
                (Side::Left, To::Longest),
                (Side::Right, To::Length(2)),
                (Side::Left, To::Length(2)),
                (Side::Left, To::Length(7)),
                (Side::Right, each([Some(2), Some(4)])),
                (Side::Left, each([Some(2), Some(4)])),
                (Side::Left, each([None, Some(1)])),
                (Side::Right, each([Some(6), None])),
                (Side::Right, each([None, None])),
            ] {
                let pad = Pad { to, mode, side, mask: true };
                for samples in [&[0, 1, 2, 3, 4, 5][..], &[5, 0], &[4], &[3, 3], &[1, 2, 1]] {
                    // The second time, where tensors lie is known.
                    for _ in 0..2 {
                        data.gather_into(samples, Ragged::Pad(pad), &mut batch).unwrap();
                        let (room, x, mask) = expected(samples, pad);
                        assert_eq!(batch.tensors().len(), 3);
                        for tensor in batch.tensors() {
                            let what = format!("{way}: {} of {samples:?}, {pad:?}", tensor.name());
                            let shape = [samples.len(), room[0], room[1], INNER].map(|size| size as u64);
                            assert_eq!(tensor.shape(), shape, "{what}");
                            assert_eq!(tensor.as_slice::<f32>().unwrap(), x, "{what}");
                            assert_eq!(tensor.mask().unwrap(), mask, "{what}");
                            let size = |row: usize| SIZES[samples[row]].map(|size| size as u64);
                            for row in 0..samples.len() {
                                let [rows, columns] = size(row);
                                assert_eq!(tensor.sizes(row), [rows, columns, INNER as u64]);
                                assert_eq!(tensor.lengths()[row], rows);
                            }
                            assert!(tensor.sizes(samples.len()).is_empty());
                        }
                    }
                }
            }
        }
    }
}

fn each(lengths: [Option<u64>; 2]) -> To {
    To::Each(Lengths::from(lengths))
}

#[test]
fn as_many_lengths_as_sizes_that_differ() {
    let (_folder, data) = samples();
    let field = &data.fields()[0];
    let to = each([Some(2), None]);
    assert_eq!([0, 1, 2, 3].map(|dim| to.along(field, dim)), [Some(2), None, None, None]);
    assert_eq!([0, 1].map(|dim| To::Length(5).along(field, dim)), [Some(5), None]);
    assert_eq!(To::Longest.along(field, 0), None);

    let mut batch = Batch::default();
    for lengths in [&[][..], &[Some(2)], &[Some(2), None, Some(2)], &[None; 4]] {
        let pad = Pad { to: To::Each(Lengths::new(lengths).unwrap()), ..Pad::default() };
        // Also where there is nothing to pad: whether lengths fit does not depend on the batch.
        for samples in [&[0, 1][..], &[3], &[]] {
            let error = data.gather_into(samples, Ragged::Pad(pad), &mut batch).unwrap_err();
            let Error::OtherDims { tensor, lengths: has, ragged_dims } = &error else { panic!("{error}") };
            assert_eq!((&tensor[..], *has, &ragged_dims[..]), ("x", lengths.len(), &[0, 1][..]));
            let shown =
                format!("differ in 2 of their dimensions, [0, 1]; padding gives {} lengths", lengths.len());
            assert!(error.to_string().ends_with(&shown), "{error}");
        }
    }
    assert_eq!(Lengths::new(&[None; Lengths::COUNT_MAX + 1]), None);
    assert_eq!(Lengths::new(&[Some(2), None]), Some(Lengths::from([Some(2), None])));
    assert_eq!(format!("{:?}", Lengths::from([Some(2), None])), "[Some(2), None]");
}

#[test]
fn joined_samples_keep_their_sizes() {
    let (folder, data) = samples();
    for (_, data) in ways(folder.path(), &data) {
        let mut batch = Batch::default();
        data.gather_into(&[2, 4, 0], Ragged::Joined, &mut batch).unwrap();
        for tensor in batch.tensors() {
            assert_eq!((tensor.shape(), tensor.offsets()), (&[20][..], &[0, 8, 8, 20][..]));
            assert_eq!(tensor.as_slice::<f32>().unwrap(), [values(2, false), values(0, false)].concat());
            assert_eq!([0, 1, 2].map(|row| tensor.sizes(row)), [[4, 1, 2], [3, 0, 2], [2, 3, 2]]);
        }
    }
}

#[test]
fn samples_of_different_sizes_are_refused_by_name_unless_they_are_padded() {
    let (_folder, data) = samples();
    let error = data.gather(&[5, 5, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "samples of tensor `x` differ in size: sample 0 is [2, 3, 2], sample 5 is [3, 3, 2]; pad them or join them"
    );
    assert!(matches!(error, Error::Uneven { .. }));
    let batch = data.gather(&[5, 5]).unwrap();
    assert_eq!(batch.tensor("x").unwrap().shape(), [2, 3, 3, 2]);
    let failed = Loader::new(&data, 2).epoch(0).next().unwrap();
    assert!(matches!(failed, Err(Error::Uneven { sample: 1, other: 0, .. })));
    // Each alone can be read.
    assert_eq!(data.readable(&[0, 1, 2, 3, 4, 5], |_, error| panic!("{error}")).unwrap().len(), 6);
}

#[test]
fn tensors_and_mapped_samples_have_any_size() {
    let (folder, data) = samples();
    let options =
        Options { unit: Unit::Tensor, keys: vec!["x".into(), "columns".into()], ..Options::default() };
    let tensors = DataSet::open_with(folder.path(), &options).unwrap();
    assert_eq!(tensors.fields()[0].ragged_dims, [0, 1]);
    let mut batch = Batch::default();
    let pad = Pad::default();
    tensors.gather_into(&[0, 1, 2, 3], Ragged::Pad(pad), &mut batch).unwrap();
    let (_, x, _) = expected(&[0, 0, 1, 1], pad);
    assert_eq!(batch.tensor("tensor").unwrap().as_slice::<f32>().unwrap(), x);

    let (_, mapped) = ways(folder.path(), &data).swap_remove(1);
    let lent = mapped.lend(0, 0).unwrap().unwrap();
    assert_eq!(lent, bytemuck::cast_slice::<f32, u8>(&values(0, false)));
}

#[test]
fn only_a_later_size_may_differ() {
    let folder = tempfile::tempdir().unwrap();
    for (number, columns) in [2u64, 4, 3].into_iter().enumerate() {
        let x: Vec<u8> = (0..2 * columns as u8).collect();
        let object = Object::from(Tensor::new::<u8>(&[2, columns], &x).unwrap());
        fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let data = DataSet::open(folder.path()).unwrap();
    assert_eq!((&data.fields()[0].shape[..], &data.fields()[0].ragged_dims[..]), (&[2, 4][..], &[1][..]));
    let mut batch = Batch::default();
    let pad = Pad { mode: Mode::Constant(9.0), side: Side::Left, ..Pad::default() };
    data.gather_into(&[0, 2], Ragged::Pad(pad), &mut batch).unwrap();
    let x = batch.tensors().next().unwrap();
    assert_eq!(x.as_slice::<u8>().unwrap(), [9, 0, 1, 9, 2, 3, 0, 1, 2, 3, 4, 5]);
    // The one length is of the one size that differs.
    let pad = Pad { to: To::Each(Lengths::from([Some(2)])), ..pad };
    data.gather_into(&[0, 2], Ragged::Pad(pad), &mut batch).unwrap();
    let x = batch.tensors().next().unwrap();
    assert_eq!((x.shape(), x.as_slice::<u8>().unwrap()), (&[2, 2, 2][..], &[0, 1, 2, 3, 1, 2, 4, 5][..]));
    // Rows differ in size: they make no data set, and the error says which file has them.
    let error =
        DataSet::open_with(folder.path(), &Options { unit: Unit::Row, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("1.pt: tensor `` is uint8 [4]"), "{error}");
}

#[test]
fn sizes_of_nothing_take_no_time_and_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (number, shape) in [[1u64 << 40, 1 << 40, 0], [1 << 40, 5, 0], [0, 7, 1 << 40]].iter().enumerate() {
        let object = Object::from(Tensor::new::<u8>(shape, &[]).unwrap());
        fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let data = DataSet::open(folder.path()).unwrap();
    let mut batch = Batch::default();
    let mut gather = |samples: &[usize], mask| {
        let result = data.gather_into(samples, Ragged::Pad(Pad { mask, ..Pad::default() }), &mut batch);
        result.map(|()| batch.as_bytes().len())
    };
    assert_eq!(gather(&[0, 1], false).unwrap(), 0);
    assert_eq!(gather(&[0, 1], true).unwrap(), 0);
    assert!(matches!(gather(&[1, 2], false), Err(Error::TooLarge { .. })));
    data.gather_into(&[0, 1, 2], Ragged::Joined, &mut batch).unwrap();
    assert_eq!(batch.tensors().next().unwrap().shape(), [0]);
}
