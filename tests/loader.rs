//! Data sets and their epochs, and files that change under them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pt_format::write::{self, Object, Tensor};
use pt_index::{Index, Key, Leaf, NodeKind};
use pt_loader::{
    Batch, BatchPlan, BatchTensor, DataSet, Error, Loader, Misfits, Mode, Options, Pad, Ragged, Shards, Side,
    To, Unit,
};
use pt_view::{Access, FileCache};

fn write_sample(folder: &Path, number: u32) {
    let values: Vec<f32> = (0..12).map(|at| (number * 100 + at) as f32).collect();
    let mask = [number.is_multiple_of(2), true, false];
    let object = Object::dict([
        ("x", Tensor::new::<f32>(&[3, 4], &values).unwrap().into()),
        ("mask", Tensor::new::<bool>(&[3], &mask).unwrap().into()),
        ("y", Object::from(i64::from(number))),
        ("meta", Object::dict([("id", Object::from(format!("id-{number}")))])),
    ]);
    fs::write(folder.join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
}

fn samples(count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (0..count).for_each(|number| write_sample(folder.path(), number));
    folder
}

#[test]
fn an_epoch_brings_every_sample_once_with_its_own_values() {
    let folder = samples(103);
    let data = DataSet::open(folder.path()).unwrap();
    for (epoch, shuffle) in [(0, false), (0, true), (1, true)] {
        let loader = Loader::new(&data, 10);
        let loader = if shuffle { loader.shuffle(9) } else { loader };
        let mut order = Vec::new();
        for batch in loader.epoch(epoch) {
            let batch = batch.unwrap();
            let x = batch.tensor("x").unwrap();
            assert_eq!(x.shape(), [batch.len() as u64, 3, 4]);
            assert_eq!(x.as_bytes().as_ptr() as usize % 64, 0);
            let mask = batch.tensor("mask").unwrap().as_slice::<bool>().unwrap();
            for (row, &sample) in batch.samples().iter().enumerate() {
                let first = x.as_slice::<f32>().unwrap()[row * 12];
                assert_eq!(first, (sample * 100) as f32);
                assert_eq!(mask[row * 3..][..3], [sample % 2 == 0, true, false]);
                assert_eq!(batch.column("y").unwrap().as_ints().unwrap()[row], sample as i64);
                let id = format!("id-{sample}");
                assert_eq!(batch.column("meta.id").unwrap().get(row), Some(Leaf::Str(&id)));
            }
            order.extend_from_slice(batch.samples());
        }
        assert_eq!(order.is_sorted(), !shuffle);
        order.sort_unstable();
        assert_eq!(order, (0..103).collect::<Vec<_>>());
    }
    let wrong = data.gather(&[0]).unwrap();
    assert!(matches!(wrong.tensor("x").unwrap().as_slice::<f64>(), Err(Error::WrongType { .. })));
    assert!(matches!(data.gather(&[103]), Err(Error::NoSuchSample { sample: 103, count: 103 })));
    assert!(data.gather(&[]).unwrap().is_empty());
}

#[test]
fn a_kept_index_is_used_and_what_came_later_is_added() {
    let folder = samples(5);
    let kept = pt_index::sidecar_path(folder.path());
    let built = pt_index::build_folder(folder.path(), None, &Default::default(), |_| {}).unwrap();
    pt_index::save(&built.index, &kept).unwrap();
    // A coarse clock would give the next file the time of the index.
    std::thread::sleep(Duration::from_millis(20));
    write_sample(folder.path(), 5);
    fs::remove_file(folder.path().join("002.pt")).unwrap();
    let files = |path: &Path| -> Vec<String> {
        DataSet::open(path).unwrap().index().files().map(|file| file.path().to_string()).collect()
    };
    assert_eq!(files(folder.path()), ["000.pt", "001.pt", "003.pt", "004.pt", "005.pt"]);
    // By its own name, the index is taken as it is.
    assert_eq!(files(&kept), ["000.pt", "001.pt", "002.pt", "003.pt", "004.pt"]);
}

#[test]
fn files_that_change_are_errors_that_name_them() {
    let folder = samples(5);
    let data = DataSet::open(folder.path()).unwrap();
    // These are open from now on.
    data.gather(&[0, 4]).unwrap();
    let opened = fs::read(folder.path().join("000.pt")).unwrap();

    // Cut off after it was indexed.
    let path = folder.path().join("001.pt");
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    // Gone.
    fs::remove_file(folder.path().join("002.pt")).unwrap();
    // Another sample in its place, of the same size.
    write_sample(folder.path(), 7);
    fs::rename(folder.path().join("007.pt"), folder.path().join("003.pt")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(100);
    fs::File::options().write(true).open(folder.path().join("003.pt")).unwrap().set_modified(later).unwrap();

    for (sample, expected) in [(1, "stale"), (2, "No such file"), (3, "stale")] {
        let error = data.gather(&[0, sample]).err().unwrap().to_string();
        println!("{error}");
        assert!(error.contains(&format!("{sample:03}.pt")) && error.contains(expected), "{error}");
    }
    // Of open files, one that is replaced stays what it was, and one that is cut off is noticed.
    fs::write(folder.path().join("other"), b"something else").unwrap();
    fs::rename(folder.path().join("other"), folder.path().join("000.pt")).unwrap();
    let batch = data.gather(&[0]).unwrap();
    let x = batch.tensor("x").unwrap().as_bytes();
    assert!(opened.windows(x.len()).any(|bytes| bytes == x));
    fs::File::options().write(true).open(folder.path().join("004.pt")).unwrap().set_len(100).unwrap();
    let error = data.gather(&[0, 4]).err().unwrap().to_string();
    assert!(error.contains("sample 4") && error.contains("004.pt") && error.contains("cut off"), "{error}");
}

#[test]
fn files_that_make_no_batch_are_errors_that_say_how_or_are_left_out() {
    let folder = samples(2);
    let object = Object::dict([("x", Tensor::new::<f32>(&[2], &[1.0, 2.0]).unwrap().into())]);
    fs::write(folder.path().join("002.pt"), write::to_vec(&object).unwrap()).unwrap();
    let error = DataSet::open(folder.path()).err().unwrap();
    assert!(matches!(&error, Error::Differs { tensor, .. } if tensor == "x"), "{error}");
    assert!(error.to_string().contains("002.pt"), "{error}");
    let options = Options { misfits: Misfits::LeaveOut, ..Options::default() };
    let data = DataSet::open_with(folder.path(), &options).unwrap();
    assert_eq!(data.len(), 2);
    let options = Options { include: vec!["000.pt".into(), "002.pt".into()], ..options };
    assert_eq!(DataSet::open_with(folder.path(), &options).unwrap().len(), 1);
    assert!(matches!(DataSet::open(tempfile::tempdir().unwrap().path()), Err(Error::Empty { .. })));
}

#[test]
fn samples_are_chosen_without_opening_files() {
    let folder = samples(20);
    let data = DataSet::open(folder.path()).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    let late = data.filter("y", |y| matches!(y, Leaf::Int(y) if y >= 10));
    assert_eq!(late.len(), 10);
    assert_eq!(late.locate(0).unwrap().0.path(), "010.pt");
    let (train, test) = late.split(0.8, 3);
    assert_eq!((train.len(), test.len()), (8, 2));
    let mut files: Vec<_> = [&train, &test]
        .iter()
        .flat_map(|part| (0..part.len()).map(|sample| part.locate(sample).unwrap().0.row()))
        .collect();
    files.sort_unstable();
    assert_eq!(files, (10..20).collect::<Vec<_>>());
    assert!(data.filter("nothing", |leaf| leaf != Leaf::None).is_empty());
}

#[test]
fn lists_of_files_and_chosen_keys() {
    let folder = samples(3);
    let files: Vec<_> = ["002.pt", "000.pt", "002.pt"].iter().map(|name| folder.path().join(name)).collect();
    let options = Options { keys: vec!["x".into(), "meta".into()], ..Options::default() };
    let data = DataSet::of_files(&files, &options).unwrap();
    assert_eq!((data.len(), data.fields().len()), (2, 1));
    let batch = data.gather(&[0, 1]).unwrap();
    assert_eq!(batch.columns().len(), 1);
    assert_eq!(batch.column("meta.id").unwrap().get(1), Some(Leaf::Str("id-2")));
    assert_eq!(batch.tensor("x").unwrap().as_slice::<f32>().unwrap()[12], 200.0);
}

#[test]
fn a_batch_lands_in_memory_of_the_caller() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let folder = samples(9);
    let data = DataSet::open(folder.path()).unwrap();
    let mut plan = BatchPlan::default();
    is_shared(&data);
    is_shared(&plan);
    // 0xAB where nothing may be written: between fields, behind them, and before, where memory is not aligned.
    for (samples, shift) in [(&[3, 1, 8, 1][..], 0), (&[5], 1), (&[], 0)] {
        data.plan_into(samples, Ragged::Refuse, &mut plan).unwrap();
        let mut memory = vec![0xAB; plan.bytes() + 100];
        let too_short = plan.read_into(&mut memory[..plan.bytes().saturating_sub(1)]);
        assert!(samples.is_empty() || matches!(too_short, Err(Error::TooShort { .. })));
        plan.read_into(&mut memory[shift..]).unwrap();
        let expected = data.gather(samples).unwrap();
        let mut inside = vec![false; memory.len()];
        for (field, tensor) in plan.fields().iter().zip(expected.tensors()) {
            assert_eq!((field.name(), field.shape()), (tensor.name(), tensor.shape()));
            assert_eq!(memory[shift..][field.range()], *tensor.as_bytes());
            assert_eq!(field.range().start % 64, 0);
            inside[shift..][field.range()].fill(true);
        }
        assert!(memory.iter().zip(inside).all(|(&byte, inside)| inside || byte == 0xAB));
        assert_eq!(plan.column("meta.id").unwrap().to_strs().unwrap().len(), samples.len());
    }
    data.plan_into(&[2], Ragged::Refuse, &mut plan).unwrap();
    let memory = vec![0u64; plan.bytes() / 8 + 2];
    let memory: &[u8] = bytemuck::cast_slice(&memory);
    let misaligned = plan.tensors(&memory[1..]).next().unwrap().as_slice::<f32>().map(<[_]>::len);
    assert!(matches!(misaligned, Err(Error::Misaligned { needs: 4, .. })), "{misaligned:?}");
    assert!(data.plan_into(&[9], Ragged::Refuse, &mut plan).is_err());
    assert_eq!(plan.bytes(), 0);
}

#[test]
fn a_batch_that_is_filled_again_holds_what_was_asked_for_last() {
    let folder = samples(6);
    let whole = DataSet::open(folder.path()).unwrap();
    // SAFETY: the files are this test's own.
    let files = unsafe { FileCache::new(folder.path(), whole.index().clone()).with_access(Access::Map) };
    let mapped = DataSet::with_files(files, whole.options()).unwrap();
    let only_x = Options { keys: vec!["x".into()], ..Options::default() };
    let only_x = DataSet::open_with(folder.path(), &only_x).unwrap();
    let mut again = Batch::default();
    // As many samples of the same data, others, more, fewer; of other data; after an error.
    for data in [&whole, &mapped, &only_x, &mapped, &whole] {
        for order in [&[0, 1][..], &[4, 2], &[5, 3, 1], &[2], &[0, 9], &[0, 1], &[], &[3]] {
            let refused = data.gather_into(order, Ragged::Refuse, &mut again).is_err();
            assert_eq!((refused, again.len()), (order.contains(&9), if refused { 0 } else { order.len() }));
            let Ok(new) = data.gather(order) else { continue };
            assert_eq!(again.samples(), order);
            let tensors = |batch: &Batch| {
                let tensor =
                    |x: BatchTensor<'_>| (x.name().to_owned(), x.shape().to_vec(), x.as_bytes().to_vec());
                Vec::from_iter(batch.tensors().map(tensor))
            };
            assert_eq!(tensors(&again), tensors(&new));
            assert_eq!(again.columns().len(), new.columns().len());
            for (row, &sample) in order.iter().enumerate() {
                let y = again.column("y").map(|y| y.get(row));
                assert_eq!(y, (data.columns().len() > 1).then_some(Some(Leaf::Int(sample as i64))));
            }
        }
    }
}

#[test]
fn another_process_can_make_the_same_data_set() {
    let folder = samples(20);
    let options = Options { keys: vec!["x".into(), "y".into()], ..Options::default() };
    let data = DataSet::open_with(folder.path(), &options).unwrap();
    assert_eq!(data.picked(), None);
    let picked = data.split(0.5, 1).0.select(&[9, 0, 0, 4]).unwrap();
    assert!(matches!(data.select(&[20]), Err(Error::NoSuchSample { sample: 20, count: 20 })));
    let index = Index::from_bytes(picked.index().as_bytes().to_vec()).unwrap();
    let again = DataSet::with_index(picked.root(), index, picked.options()).unwrap();
    let again = again.select(picked.picked().unwrap()).unwrap();
    let (one, other) = (picked.gather(&[0, 1, 2, 3]).unwrap(), again.gather(&[0, 1, 2, 3]).unwrap());
    assert_eq!(one.as_bytes(), other.as_bytes());
    let y = other.column("y").unwrap().as_ints().unwrap();
    assert!(y[1] == y[2] && y[0] > y[3] && y[3] > y[1], "{y:?}");
}

#[test]
fn batches_have_the_structure_of_samples() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = || Tensor::new::<u8>(&[2], &[1, 2]).unwrap();
    let pair = Object::tuple([tensor().into(), tensor().into(), 5.into()]);
    let object = Object::dict([
        ("pair", pair),
        ("plain", Object::dict([("id", Object::from("a")), ("deep", Object::list([tensor().into()]))])),
        ("x", tensor().into()),
    ]);
    fs::write(folder.path().join("a.pt"), write::to_vec(&object).unwrap()).unwrap();
    let shown = |keys: &[&str]| {
        let options = Options { keys: keys.iter().map(|key| (*key).into()).collect(), ..Options::default() };
        let data = DataSet::open_with(folder.path(), &options).unwrap();
        let parts = data.structure().map(|node| {
            let key = if let Some(Key::Str(key)) = node.key { key } else { "" };
            let kind = match node.kind {
                NodeKind::Tensor(field) => data.fields()[field].name.clone(),
                NodeKind::Leaf(column) => data.columns()[column].clone(),
                kind => format!("{kind:?}..{}", node.end),
            };
            format!("{key}={kind}")
        });
        parts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        shown(&[]),
        "=Dict..10 pair=Tuple..5 =pair.0 =pair.1 =pair.2 plain=Dict..9 id=plain.id deep=List..9 \
         =plain.deep.0 x=x"
    );
    assert_eq!(shown(&["x"]), "=Dict..2 x=x");
    assert_eq!(
        shown(&["plain.deep", "pair.2"]),
        "=Dict..6 pair=Tuple..3 =pair.2 plain=Dict..6 deep=List..6 =plain.deep.0"
    );
}

/// Files of so many rows each: `x[row] = [1000 * file + row; 3]`.
fn rows(counts: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, &count) in counts.iter().enumerate() {
        let x: Vec<f32> = (0..count * 3).map(|at| (number * 1000 + at / 3) as f32).collect();
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&[count as u64, 3], &x).unwrap().into()),
            ("file", Object::from(number as i64)),
        ]);
        fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    folder
}

#[test]
fn rows_of_files_of_any_length_are_samples() {
    let folder = rows(&[5, 0, 1, 300, 7]);
    let data = DataSet::open_with(folder.path(), &Options { unit: Unit::Row, ..Options::default() }).unwrap();
    assert_eq!(data.len(), 313);
    assert_eq!(data.fields()[0].shape, [3]);
    let all: Vec<f32> = [(0, 5), (2, 1), (3, 300), (4, 7)]
        .iter()
        .flat_map(|&(file, count)| (0..count).map(move |row| (file * 1000 + row) as f32))
        .collect();
    let orders: [Vec<usize>; 4] = [
        (0..313).collect(),
        (0..313).rev().collect(),
        vec![4, 5, 6, 4, 305, 306, 312],
        (0..313).map(|at| at * 100 % 313).collect(),
    ];
    let mut batch = Batch::default();
    for order in orders {
        data.gather_into(&order, Ragged::Refuse, &mut batch).unwrap();
        let x = batch.tensor("x").unwrap();
        assert_eq!(x.shape(), [order.len() as u64, 3]);
        for (got, &sample) in x.as_slice::<f32>().unwrap().chunks_exact(3).zip(&order) {
            assert_eq!(got, [all[sample]; 3]);
        }
        let files = batch.column("file").unwrap().as_ints().unwrap();
        assert!(order.iter().zip(files).all(|(&sample, &file)| all[sample] as i64 / 1000 == file));
    }
    assert_eq!(data.filter("file", |file| file == Leaf::Int(4)).len(), 7);
}

#[test]
fn tensors_are_samples() {
    let folder = rows(&[2, 4]);
    let data =
        DataSet::open_with(folder.path(), &Options { unit: Unit::Tensor, ..Options::default() }).unwrap();
    assert_eq!(data.len(), 2);
    let mut batch = Batch::default();
    data.gather_into(&[1, 0], Ragged::Joined, &mut batch).unwrap();
    let x = batch.tensor("tensor").unwrap();
    assert_eq!((x.shape(), x.offsets(), x.lengths()), (&[6, 3][..], &[0, 4, 6][..], &[4, 2][..]));
    let firsts: Vec<f32> = x.as_slice::<f32>().unwrap().iter().step_by(3).copied().collect();
    assert_eq!(firsts, [1000.0, 1001.0, 1002.0, 1003.0, 0.0, 1.0]);
}

#[test]
fn ragged_samples_are_padded_and_truncated() {
    let folder = rows(&[2, 4, 0]);
    let data = DataSet::open(folder.path()).unwrap();
    assert!(data.fields()[0].is_ragged);
    assert!(matches!(data.gather(&[0, 1]), Err(Error::Uneven { .. })));
    assert_eq!(data.gather(&[1, 1]).unwrap().tensor("x").unwrap().shape(), [2, 4, 3]);
    let check = |pad: Pad, expected: [&[f32]; 3]| {
        let mut batch = Batch::default();
        data.gather_into(&[0, 1, 2], Ragged::Pad(pad), &mut batch).unwrap();
        let x = batch.tensor("x").unwrap();
        assert_eq!(x.lengths(), [2, 4, 0]);
        assert_eq!(x.shape(), [3, expected[0].len() as u64, 3]);
        let firsts: Vec<f32> = x.as_slice::<f32>().unwrap().iter().step_by(3).copied().collect();
        assert_eq!(firsts, expected.concat(), "{pad:?}");
        let steps = expected[0].len();
        let is_step = |row: usize, step: usize| match pad.side {
            Side::Right => step < [2, 4, 0][row],
            Side::Left => step + [2, 4, 0][row] >= steps,
        };
        let mask: Vec<bool> = (0..3 * steps).map(|at| is_step(at / steps, at % steps)).collect();
        assert_eq!(x.mask(), pad.mask.then_some(&mask[..]));
    };
    let (left, to) = (Side::Left, To::Length(3));
    let minus = Mode::Constant(-1.0);
    let whole: &[f32] = &[1000.0, 1001.0, 1002.0, 1003.0];
    check(Pad::default(), [&[0.0, 1.0, 0.0, 0.0], whole, &[0.0; 4]]);
    check(Pad { mode: minus, mask: true, ..Pad::default() }, [&[0.0, 1.0, -1.0, -1.0], whole, &[-1.0; 4]]);
    check(
        Pad { mode: minus, side: left, mask: true, ..Pad::default() },
        [&[-1.0, -1.0, 0.0, 1.0], whole, &[-1.0; 4]],
    );
    check(Pad { mode: Mode::Replicate, ..Pad::default() }, [&[0.0, 1.0, 1.0, 1.0], whole, &[0.0; 4]]);
    check(Pad { mode: Mode::Reflect, ..Pad::default() }, [&[0.0, 1.0, 0.0, 1.0], whole, &[0.0; 4]]);
    check(
        Pad { mode: Mode::Reflect, side: left, ..Pad::default() },
        [&[0.0, 1.0, 0.0, 1.0], whole, &[0.0; 4]],
    );
    check(Pad { to, mode: minus, ..Pad::default() }, [&[0.0, 1.0, -1.0], &whole[..3], &[-1.0; 3]]);
    check(Pad { to, mode: minus, side: left, mask: true }, [&[-1.0, 0.0, 1.0], &whole[1..], &[-1.0; 3]]);
}

#[test]
fn elements_become_float32_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let halves = [1.5, -2.0].map(half::f16::from_f32);
    let brains = [3.0, 0.5].map(half::bf16::from_f32);
    let object = Object::dict([
        ("h", Tensor::new::<half::f16>(&[2], &halves).unwrap().into()),
        ("b", Tensor::new::<half::bf16>(&[2], &brains).unwrap().into()),
        ("u", Tensor::new::<u8>(&[2], &[0, 255]).unwrap().into()),
    ]);
    fs::write(folder.path().join("a.pt"), write::to_vec(&object).unwrap()).unwrap();
    for (unit, samples) in [(Unit::File, &[0][..]), (Unit::Row, &[0, 1])] {
        let data = DataSet::open_with(folder.path(), &Options { unit, ..Options::default() }).unwrap();
        assert!(matches!(data.clone().to_float32("q", 1.0), Err(Error::NoSuchField { .. })));
        let data = data.to_float32("h", 2.0).unwrap().to_float32("b", 1.0).unwrap();
        let data = data.to_float32("u", 1.0 / 255.0).unwrap();
        let batch = data.gather(samples).unwrap();
        for (name, expected) in [("h", [3.0, -4.0]), ("b", [3.0, 0.5]), ("u", [0.0, 1.0])] {
            assert_eq!(batch.tensor(name).unwrap().as_slice::<f32>().unwrap(), expected);
        }
    }
}

fn order_of(loader: &Loader, epoch: u64) -> Vec<Vec<usize>> {
    loader.epoch(epoch).map(|batch| batch.unwrap().samples().to_vec()).collect()
}

#[test]
fn an_epoch_goes_on_exactly_where_it_stood() {
    let folder = samples(53);
    let data = DataSet::open(folder.path()).unwrap();
    let loaders = [
        Loader::new(&data, 4),
        Loader::new(&data, 4).shuffle(5),
        Loader::new(&data, 4).shuffle(5).drop_last(),
        Loader::new(&data, 4).shuffle(5).window(10),
        Loader::new(&data, 4).shuffle(5).rank(1, 3, Shards::Padded),
        Loader::new(&data, 4).shuffle(5).rank(2, 3, Shards::Even),
    ];
    for loader in loaders {
        let whole = order_of(&loader, 6);
        for taken in 0..=whole.len() {
            let mut epoch = loader.epoch(6);
            epoch.by_ref().take(taken).for_each(drop);
            let state = epoch.state();
            let rest = loader.resume(&state).unwrap();
            assert_eq!(rest.len(), whole.len() - taken);
            let rest: Vec<_> = rest.map(|batch| batch.unwrap().samples().to_vec()).collect();
            assert_eq!(rest, whole[taken..], "{taken} batches of {loader:?}");
        }
    }
    let fewer = data.filter("y", |y| y != Leaf::Int(0));
    let state = Loader::new(&data, 4).epoch(0).state();
    assert!(matches!(Loader::new(&fewer, 4).resume(&state), Err(Error::OtherData { then: 53, now: 52 })));
}

#[test]
fn ranks_share_an_epoch_and_their_number_may_change_on_the_way() {
    let folder = samples(53);
    let data = DataSet::open(folder.path()).unwrap();
    let of_rank = |rank, world, shards| Loader::new(&data, 4).shuffle(1).rank(rank, world, shards);
    for (shards, count) in [(Shards::Padded, 54), (Shards::Even, 51)] {
        let mut seen: Vec<usize> =
            (0..3).flat_map(|rank| order_of(&of_rank(rank, 3, shards), 0).concat()).collect();
        assert_eq!(seen.len(), count);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count.min(53));
    }
    // Two batches each of three ranks; the rest by two.
    let mut seen = Vec::new();
    let mut states = Vec::new();
    for rank in 0..3 {
        let mut epoch = of_rank(rank, 3, Shards::Padded).epoch(0);
        seen.extend(epoch.by_ref().take(2).flat_map(|batch| batch.unwrap().samples().to_vec()));
        states.push(epoch.state());
    }
    assert!(states.iter().all(|state| *state == states[0]));
    for rank in 0..2 {
        let rest = of_rank(rank, 2, Shards::Padded).resume(&states[0]).unwrap();
        seen.extend(rest.flat_map(|batch| batch.unwrap().samples().to_vec()));
    }
    assert_eq!(seen.len(), 54);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..53).collect::<Vec<_>>());
}

#[test]
fn a_window_keeps_neighbours_together() {
    let folder = samples(53);
    let data = DataSet::open(folder.path()).unwrap();
    let loader = Loader::new(&data, 10).shuffle(3).window(10);
    let batches = order_of(&loader, 0);
    assert_ne!(batches, order_of(&loader, 1));
    for batch in &batches {
        let mut sorted = batch.clone();
        sorted.sort_unstable();
        assert_eq!((sorted[0] % 10, sorted.len()), (0, sorted[sorted.len() - 1] + 1 - sorted[0]));
        assert!(batch.len() < 10 || *batch != sorted);
    }
    let mut all = batches.concat();
    all.sort_unstable();
    assert_eq!(all, (0..53).collect::<Vec<_>>());
}

#[test]
#[cfg(target_os = "linux")]
fn rows_that_left_memory_are_fetched() {
    use rustix::fs::{Advice, fadvise};
    // On a disk if there is one: what is only in memory cannot leave it.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for number in 0..3 {
        let values: Vec<u32> = (0..1000 * 64).map(|at| at + number * 1_000_000).collect();
        let bytes = bytemuck::cast_slice::<u32, u8>(&values);
        let x = Tensor::from_bytes(pt_format::DType::UInt32, &[1000, 64], bytes).unwrap();
        let object = Object::dict([("x", x.into())]);
        fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let options = Options { unit: Unit::Row, ..Options::default() };
    let data = DataSet::open_with(folder.path(), &options).unwrap();
    // Neighbours, rows far apart, and of all files.
    let rows: Vec<usize> = (0..3000).step_by(7).chain(100..130).rev().collect();
    let expected: Vec<u32> = rows
        .iter()
        .flat_map(|&row| (0..64).map(move |at| (row / 1000 * 1_000_000 + row % 1000 * 64 + at) as u32))
        .collect();
    // SAFETY: nobody writes to the files.
    let mapped = data.reopened_as(|files| unsafe { files.with_access(pt_view::Access::Map) });
    // What is mapped into the process does not leave memory.
    let mapped = mapped.drop_behind();
    for (threads, data) in [1, 2, 8].into_iter().flat_map(|threads| [(threads, &data), (threads, &mapped)]) {
        let data = data.clone().with_threads(threads).unwrap();
        for _ in 0..3 {
            for file in fs::read_dir(folder.path()).unwrap() {
                let file = fs::File::open(file.unwrap().path()).unwrap();
                file.sync_all().unwrap();
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            }
            let before = faults_of_this_thread();
            let batch = data.gather(&rows).unwrap();
            let waited = faults_of_this_thread() - before;
            let got = batch.tensor("x").unwrap().as_slice::<u32>().unwrap();
            assert!(got == expected, "{threads} threads");
            assert!(waited < rows.len() as u64 / 8, "{waited} pages were waited for one by one");
        }
    }
}

/// Page faults of this thread so far that nobody had asked the disk for before.
#[cfg(target_os = "linux")]
fn faults_of_this_thread() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The twelfth value; the second is a name in parentheses.
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(9).unwrap().parse().unwrap()
}
