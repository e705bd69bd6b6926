//! Indexes of folders: built in parallel, brought up to date, kept whole whatever happens.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use pt_format::write::{self, Object, Tensor};
use pt_index::{
    BuildOptions, Built, Freshness, Index, Leaf, NodeKind, Policy, Selection, build_folder, read,
    sidecar_path,
};

use crate::common::{Pickle, torch_like};

fn sample(values: &[f32], label: Object<'static>) -> Vec<u8> {
    let x = Tensor::new::<f32>(&[values.len() as u64], values).unwrap();
    write::to_vec(&Object::dict([("x", x.into()), ("y", label)])).unwrap()
}

fn write_sample(folder: &Path, name: &str, value: f32) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, sample(&[value, value + 1.0], Object::from(value as i64))).unwrap();
    path
}

fn folder_of(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (0..count).for_each(|number| {
        write_sample(folder.path(), &format!("{}/{number:04}.pt", number % 3), number as f32);
    });
    folder
}

fn build(folder: &Path, earlier: Option<&Index>) -> Built {
    build_folder(folder, earlier, &BuildOptions::default(), |_| {}).unwrap()
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn ptview(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_ptview")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_second_run_parses_what_changed_and_gives_the_same_bytes_as_a_first_one() {
    let folder = folder_of(300);
    fs::write(folder.path().join("notes.txt"), "no tensors").unwrap();
    let first = build(folder.path(), None);
    assert_eq!((first.parsed, first.unchanged, first.index.skipped().len()), (300, 0, 1));

    let again = build(folder.path(), Some(&first.index));
    assert_eq!((again.parsed, again.unchanged, again.vanished), (0, 300, 0));
    assert_eq!(again.index.as_bytes(), first.index.as_bytes());

    // Changed, new, gone.
    let changed = write_sample(folder.path(), "0/0003.pt", 900.0);
    set_modified(&changed, SystemTime::now() + Duration::from_secs(5));
    fs::write(folder.path().join("1/new.pt"), sample(&[1.0, 2.0, 3.0], Object::from("label"))).unwrap();
    fs::remove_file(folder.path().join("2/0005.pt")).unwrap();
    let third = build(folder.path(), Some(&again.index));
    assert_eq!((third.parsed, third.unchanged, third.vanished), (2, 298, 1));
    assert_eq!(third.index.as_bytes(), build(folder.path(), None).index.as_bytes());
    third.index.verify().unwrap();
    assert_eq!(third.index.find_file("0/0003.pt").unwrap().leaf("y"), Some(Leaf::Int(900)));
    assert!(third.index.find_file("2/0005.pt").is_none());
}

#[test]
fn of_a_folder_that_is_as_it_was_the_index_is_the_same_and_not_written_again() {
    let folder = folder_of(50);
    let target = sidecar_path(folder.path());
    let first = build(folder.path(), None);
    // One that was kept elsewhere knows the way to the data; of an index inside the folder there is none.
    let moved = first.index.with_root("../elsewhere").unwrap();
    for earlier in [&first.index, &moved] {
        let again = build(folder.path(), Some(earlier));
        assert_eq!((again.parsed, again.unchanged, again.vanished), (0, 50, 0));
        assert_eq!(again.index.as_bytes(), first.index.as_bytes());
    }

    pt_index::save(&first.index, &target).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    set_modified(&target, long_ago);
    #[cfg(unix)]
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&target).unwrap());
    #[cfg(unix)]
    let before = inode();
    assert!(ptview(&["index", text(folder.path())]).status.success());
    #[cfg(unix)]
    assert_eq!(inode(), before);
    // Files that came later than the index are told by its time.
    assert!(fs::metadata(&target).unwrap().modified().unwrap() > long_ago);

    // As long, with a byte that is another one.
    let mut damaged = fs::read(&target).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&target, &damaged).unwrap();
    assert!(ptview(&["index", text(folder.path())]).status.success());
    assert_eq!(fs::read(&target).unwrap(), first.index.as_bytes());
}

#[test]
fn files_that_stay_come_and_go_are_joined_in_the_order_of_their_paths() {
    let folder = folder_of(60);
    let first = build(folder.path(), None).index;
    // Before, between and behind all that stay, and some that cannot be indexed.
    for name in ["-.pt", "0/0000.pt.old", "1/0004", "1/new.pt", "2/zz.pt", "~.pt"] {
        write_sample(folder.path(), name, 7.0);
    }
    fs::write(folder.path().join("1/bad.pt"), "no tensors").unwrap();
    fs::remove_file(folder.path().join("0/0003.pt")).unwrap();
    fs::remove_dir_all(folder.path().join("2")).unwrap();
    write_sample(folder.path(), "2/0002.pt", 8.0);
    let again = build(folder.path(), Some(&first));
    assert_eq!((again.unchanged, again.vanished), (39, 20));
    assert_eq!(again.index.skipped().len(), 1);
    assert_eq!(again.index.as_bytes(), build(folder.path(), None).index.as_bytes());
    again.index.verify().unwrap();

    // Nothing is left of what there was, and nothing is there.
    let empty = tempfile::tempdir().unwrap();
    let none = build(empty.path(), Some(&first));
    assert_eq!((none.parsed, none.unchanged, none.vanished), (0, 0, 60));
    assert_eq!(none.index.as_bytes(), build(empty.path(), None).index.as_bytes());
}

#[test]
fn a_file_of_which_the_ends_are_read_is_indexed_as_one_that_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let values = vec![1.5; 2000];
    // Directory and pickle in what is read first, and longer than that.
    for (count, bytes) in
        [(0, 0), (1, 2000), (1, 2500), (3, 2000), (12, 700), (40, 300), (200, 10), (1, 40_000)]
    {
        let tensor = |number: usize| {
            let values = &values[..bytes.min(2000)];
            let tensor = Tensor::new::<f32>(&[values.len() as u64], values).unwrap();
            (format!("layer.{number}.weight"), tensor.into())
        };
        let mut parts: Vec<(String, Object<'_>)> = (0..count).map(tensor).collect();
        parts.push(("y".into(), Object::from("label".repeat(count + bytes / 100))));
        let path = folder.path().join(format!("{count}-{bytes}.pt"));
        fs::write(path, write::to_vec(&Object::dict(parts)).unwrap()).unwrap();
    }
    let mut whole = pt_index::IndexBuilder::default();
    let index = build(folder.path(), None).index;
    for file in index.files() {
        let bytes = fs::read(folder.path().join(file.path())).unwrap();
        let checkpoint = pt_format::Checkpoint::parse(&bytes, &Default::default()).unwrap();
        whole.add(&file.path(), file.stamp(), &checkpoint).unwrap();
    }
    assert_eq!(index.file_count(), 8);
    assert_eq!(index.as_bytes(), whole.finish().unwrap().as_bytes());
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = folder_of(500);
    let bytes = |jobs| {
        let options = BuildOptions { jobs, ..BuildOptions::default() };
        build_folder(folder.path(), None, &options, |_| {}).unwrap().index.as_bytes().to_vec()
    };
    let one = bytes(1);
    assert!([2, 3, 7].into_iter().all(|jobs| bytes(jobs) == one));
}

#[test]
fn a_file_is_the_same_in_an_index_whether_it_is_compared_with_others_or_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let mut one_by_one: Option<Index> = None;
    for number in 0..200i64 {
        let x = vec![number as u8; 16 + 16 * usize::from(number % 29 == 7)];
        let x = Tensor::new::<u8>(&[x.len() as u64 / 4, 4], &x).unwrap();
        // Integers of every length, positive and negative, also beyond 32 bits.
        let label = [number, 200 + number, -number, number << 20, number << 33][number as usize % 5];
        let id = format!("{:03}", number * 7 % 1000);
        let object = Object::dict([
            ("x", x.into()),
            ("y", Object::list([Object::from(label), Object::from(number as f64 / 3.0)])),
            ("id", Object::from(id)),
        ]);
        fs::write(folder.path().join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
        // A file that comes alone is parsed.
        one_by_one = Some(build(folder.path(), one_by_one.as_ref()).index);
    }
    let together = BuildOptions { jobs: 1, ..BuildOptions::default() };
    let together = build_folder(folder.path(), None, &together, |_| {}).unwrap().index;
    assert_eq!(together.as_bytes(), one_by_one.unwrap().as_bytes());
    let column = together.column("id").unwrap();
    assert_eq!((column.len(), column.get(10)), (200, Some(Leaf::Str("070"))));
}

#[test]
fn like_files_share_a_schema_also_where_sizes_and_labels_differ() {
    let folder = tempfile::tempdir().unwrap();
    let labels = [Object::from(1), Object::None, Object::from(2.5), Object::from("cat"), Object::from(true)];
    for (number, label) in labels.into_iter().enumerate() {
        let values: Vec<f32> = (0..=number).map(|at| (number * 10 + at) as f32).collect();
        fs::write(folder.path().join(format!("{number}.pt")), sample(&values, label)).unwrap();
    }
    let index = build(folder.path(), None).index;
    index.verify().unwrap();
    assert_eq!(index.schemas().len(), 1);
    let nodes: Vec<_> = index.schemas().next().unwrap().nodes().map(|node| node.kind).collect();
    assert_eq!(nodes, [NodeKind::Dict, NodeKind::Tensor(0), NodeKind::Leaf(0)]);
    for (number, file) in index.files().enumerate() {
        let x = file.tensor("x").unwrap();
        assert_eq!(x.shape(), Some(&[number as u64 + 1][..]));
        assert_eq!(x.stride(), Some(&[1][..]));
        let bytes = fs::read(folder.path().join(file.path())).unwrap();
        let start = x.storage().unwrap().record().unwrap().data_offset as usize;
        assert_eq!(bytes[start..start + 4], ((number * 10) as f32).to_le_bytes());
    }
    let column = index.column("y").unwrap();
    let values: Vec<_> = column.iter().collect();
    assert_eq!(values, [Leaf::Int(1), Leaf::None, Leaf::Float(2.5), Leaf::Str("cat"), Leaf::Bool(true)]);
    assert!(column.as_ints().is_none() && index.column("z").is_none());
}

#[test]
fn data_that_is_no_label_does_not_set_files_apart() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..5i64 {
        let boxes =
            (0..number * 100).map(|at| Object::dict([("left", Object::from(at)), ("top", Object::from(at))]));
        let words = (0..number * 2000).map(|word| (word.to_string(), Object::from(word)));
        let object = Object::dict([
            ("x", Tensor::new::<u8>(&[1], &[7]).unwrap().into()),
            ("boxes", Object::list(boxes.collect::<Vec<_>>())),
            ("words", Object::dict(words.collect::<Vec<(String, Object<'_>)>>())),
            ("points", Object::list((0..number * 100).map(Object::from).collect::<Vec<_>>())),
            ("y", Object::from(number)),
        ]);
        fs::write(folder.path().join(format!("{number}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    let index = build(folder.path(), None).index;
    index.verify().unwrap();
    assert_eq!((index.schemas().len(), index.column_names()), (1, vec!["y"]));
    let nodes: Vec<_> = index.schemas().next().unwrap().nodes().map(|node| (node.kind, node.end)).collect();
    let opaque = NodeKind::Opaque(None);
    let expected = [
        (NodeKind::Dict, 6),
        (NodeKind::Tensor(0), 2),
        (opaque, 3),
        (opaque, 4),
        (opaque, 5),
        (NodeKind::Leaf(0), 6),
    ];
    assert_eq!(nodes, expected);
    assert_eq!(index.as_bytes(), build(folder.path(), Some(&index)).index.as_bytes());
}

#[test]
fn labels_in_what_stands_for_a_dict_are_columns() {
    let folder = tempfile::tempdir().unwrap();
    for number in [3, 5] {
        // defaultdict(int, {"y": number, "seen": Counter({"cat": number}), "size": torch.Size([number, 2])})
        let pickle = Pickle::new()
            .global("collections", "defaultdict")
            .global("__builtin__", "int")
            .raw(b"\x85R(")
            .str("y")
            .int(number)
            .str("seen")
            .global("collections", "Counter")
            .raw(b"}")
            .str("cat")
            .int(number)
            .raw(b"s\x85R")
            .str("size")
            .global("torch", "Size")
            .int(number)
            .int(2)
            .raw(b"\x86\x85Ru")
            .stop();
        let bytes = torch_like("archive", &[("data.pkl", &pickle), ("version", b"3\n")]);
        fs::write(folder.path().join(format!("{number}.pt")), bytes).unwrap();
    }
    let index = build(folder.path(), None).index;
    index.verify().unwrap();
    let kinds: Vec<_> = index.schemas().next().unwrap().nodes().map(|node| node.kind).collect();
    use NodeKind::{Dict, Leaf as Value, Tuple};
    assert_eq!(kinds, [Dict, Value(0), Dict, Value(1), Tuple, Value(2), Value(3)]);
    for (name, values) in [("y", [3, 5]), ("seen.cat", [3, 5]), ("size.0", [3, 5]), ("size.1", [2, 2])] {
        let column: Vec<_> = index.column(name).unwrap().iter().collect();
        assert_eq!(column, values.map(Leaf::Int), "{name}");
    }
}

#[test]
fn columns_of_labels_are_lent_and_missing_ones_are_none() {
    let folder = folder_of(40);
    let index = build(folder.path(), None).index;
    let labels: Vec<i64> = index.files().map(|file| file.path()[2..6].parse().unwrap()).collect();
    assert_eq!(index.column("y").unwrap().as_ints(), Some(&labels[..]));

    // Another schema, which has no such label.
    let object = Object::from(Tensor::new::<u8>(&[1], &[7]).unwrap());
    fs::write(folder.path().join("1/bare.pt"), write::to_vec(&object).unwrap()).unwrap();
    let index = build(folder.path(), None).index;
    assert_eq!(index.schemas().len(), 2);
    let bare = index.find_file("1/bare.pt").unwrap();
    let column = index.column("y").unwrap();
    assert_eq!((column.len(), column.get(bare.row())), (41, Some(Leaf::None)));
    assert_eq!(column.iter().filter(|leaf| *leaf != Leaf::None).count(), 40);
    for file in index.files() {
        assert_eq!(index.find_file(&file.path()).unwrap().row(), file.row());
        for tensor in file.tensors() {
            assert_eq!(index.tensor(tensor.row()).unwrap().file().row(), file.row());
        }
    }
}

#[test]
fn globs_and_links_choose_the_files() {
    let folder = folder_of(9);
    write_sample(folder.path(), "deep/er/1.pth", 1.0);
    fs::write(folder.path().join("0/notes.md"), "text").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    write_sample(elsewhere.path(), "linked.pt", 5.0);
    #[cfg(unix)]
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).unwrap();
    let paths = |include: &[&str], exclude: &[&str], follow_links| {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let selection = Selection { include: owned(include), exclude: owned(exclude), follow_links };
        let options = BuildOptions { selection, ..BuildOptions::default() };
        let index = build_folder(folder.path(), None, &options, |_| {}).unwrap().index;
        index.files().map(|file| file.path()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&["*.pth"], &[], false), ["deep/er/1.pth"]);
    assert_eq!(paths(&["0/*"], &[], false).len(), 3);
    assert_eq!(paths(&[], &["0", "deep"], false).len(), 6);
    assert_eq!(paths(&["link/**"], &[], false).len(), 0);
    #[cfg(unix)]
    assert_eq!(paths(&["link/**"], &[], true), ["link/linked.pt"]);
    let selection = Selection { include: vec!["a[".into()], ..Selection::default() };
    let options = BuildOptions { selection, ..BuildOptions::default() };
    assert!(build_folder(folder.path(), None, &options, |_| {}).unwrap_err().to_string().contains("a["));
}

#[test]
fn one_bad_file_is_skipped_or_ends_it_as_asked() {
    let folder = folder_of(3);
    fs::write(folder.path().join("1/bad.pt"), "<html>not found</html>").unwrap();
    let built = build(folder.path(), None);
    let skipped: Vec<_> = built.index.skipped().collect();
    assert_eq!((skipped.len(), skipped[0].path), (1, "1/bad.pt"));
    assert!(skipped[0].reason.contains("web page"), "{}", skipped[0].reason);

    let options = BuildOptions { fail_on_error: true, ..BuildOptions::default() };
    let error = build_folder(folder.path(), None, &options, |_| {}).unwrap_err().to_string();
    assert!(error.contains("bad.pt") && error.contains("web page"), "{error}");

    let output = ptview(&["index", text(folder.path()), "--report"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1/bad.pt") && said.contains("web page") && said.contains("1 skipped"), "{said}");
    let output = ptview(&["index", text(folder.path()), "--on-error", "fail"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn whoever_builds_an_index_can_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pt"), write::to_vec(&Object::from(7)).unwrap()).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let options = BuildOptions { stop: Some(stop), ..BuildOptions::default() };
    let built = pt_index::build_folder(folder.path(), None, &options, |_| {});
    assert!(matches!(built, Err(pt_index::Error::Stopped)));
}

#[test]
fn a_copied_folder_is_fresh_by_its_fingerprints_and_can_be_stamped_anew() {
    let folder = folder_of(20);
    assert!(ptview(&["index", text(folder.path())]).status.success());
    let copy = tempfile::tempdir().unwrap();
    for part in 0..3 {
        fs::create_dir(copy.path().join(part.to_string())).unwrap();
    }
    let index = read(&sidecar_path(folder.path())).unwrap();
    for file in index.files() {
        let to = copy.path().join(file.path());
        fs::copy(folder.path().join(file.path()), &to).unwrap();
        set_modified(&to, SystemTime::now() + Duration::from_secs(60));
    }
    fs::copy(sidecar_path(folder.path()), sidecar_path(copy.path())).unwrap();

    let verified = String::from_utf8(ptview(&["verify", text(copy.path())]).stdout).unwrap();
    assert!(verified.contains("20 touched"), "{verified}");
    let refreshed = String::from_utf8(ptview(&["index", "--refresh", text(copy.path())]).stdout).unwrap();
    assert!(refreshed.contains("20 stamped anew"), "{refreshed}");
    let verified = String::from_utf8(ptview(&["verify", text(copy.path())]).stdout).unwrap();
    assert!(verified.contains("20 fresh"), "{verified}");
    let index = read(&sidecar_path(copy.path())).unwrap();
    assert_eq!(index.as_bytes(), build(copy.path(), None).index.as_bytes());
}

#[test]
fn an_index_stamped_anew_is_that_of_a_full_build_also_with_files_it_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for (name, label) in [("a.pt", "one"), ("c.pt", "two")] {
        fs::write(folder.path().join(name), sample(&[1.0], Object::from(label))).unwrap();
    }
    fs::write(folder.path().join("b.pt"), "no tensors").unwrap();
    let index = build(folder.path(), None).index;
    set_modified(&folder.path().join("a.pt"), SystemTime::now() + Duration::from_secs(60));
    let refreshed = pt_index::refresh(&index, folder.path(), |_| {}).unwrap();
    assert_eq!((refreshed.fresh, refreshed.touched, refreshed.others.len()), (1, 1, 0));
    assert_eq!(refreshed.index.as_bytes(), build(folder.path(), None).index.as_bytes());
}

#[test]
fn a_file_replaced_within_the_resolution_of_its_time_is_found_by_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_sample(folder.path(), "a.pt", 1.0);
    let index = build(folder.path(), None).index;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    // As long as before, with other values, and the same time.
    write_sample(folder.path(), "a.pt", 7.0);
    set_modified(&path, modified);
    let compare = |policy| pt_index::compare(&index, folder.path(), policy, |_| {}).pop().unwrap().unwrap();
    assert_eq!(compare(Policy::Stat), Freshness::Fresh);
    assert_eq!(compare(Policy::Fingerprint), Freshness::Stale);
    assert_eq!(compare(Policy::Trust), Freshness::Fresh);
    let output = ptview(&["verify", text(folder.path())]);
    assert_eq!(output.status.code(), Some(1), "no index is kept there");
    pt_index::save(&index, &sidecar_path(folder.path())).unwrap();
    assert!(ptview(&["verify", text(folder.path())]).status.success());
    let deep = ptview(&["verify", "--deep", text(folder.path())]);
    assert_eq!(deep.status.code(), Some(1));
    assert!(String::from_utf8(deep.stderr).unwrap().contains("a.pt: stale"));
}

#[test]
fn verify_finds_bytes_that_are_not_those_that_were_written() {
    let folder = folder_of(5);
    assert!(ptview(&["index", text(folder.path())]).status.success());
    let whole = ptview(&["verify", "--deep", text(folder.path())]);
    let said = String::from_utf8(whole.stdout).unwrap();
    assert!(whole.status.success() && said.contains("5 fresh") && said.contains("nothing wrong"), "{said}");

    // A byte of a tensor: neither size nor time nor directory show it.
    let path = folder.path().join("1/0004.pt");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let index = read(&sidecar_path(folder.path())).unwrap();
    let entry = index.find_file("1/0004.pt").unwrap().tensor("x").unwrap();
    let start = entry.storage().unwrap().record().unwrap().data_offset as usize;
    let mut bytes = fs::read(&path).unwrap();
    bytes[start] ^= 1;
    fs::write(&path, bytes).unwrap();
    set_modified(&path, modified);
    let shallow = ptview(&["verify", text(folder.path())]);
    assert!(shallow.status.success());
    let deep = ptview(&["verify", "--deep", text(folder.path())]);
    let said = String::from_utf8(deep.stderr).unwrap();
    assert!(said.contains("0004.pt: `archive/data/0`") && said.contains("CRC"), "{said}");
    assert_eq!(deep.status.code(), Some(1));

    // A byte of the index.
    let sidecar = sidecar_path(folder.path());
    let mut bytes = fs::read(&sidecar).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    fs::write(&sidecar, bytes).unwrap();
    let deep = ptview(&["verify", "--deep", text(folder.path())]);
    assert!(String::from_utf8(deep.stderr).unwrap().contains("damaged index"));
}

#[test]
fn an_index_kept_elsewhere_knows_where_its_data_is() {
    let folder = folder_of(4);
    let data = folder.path().join("0");
    let target = folder.path().join("indexes/of/zero.ptidx");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    assert!(ptview(&["index", text(&data), "-o", text(&target)]).status.success());
    let index = read(&target).unwrap();
    assert_eq!((index.root(), index.file_count()), ("../../0", 2));
    assert_eq!(
        fs::canonicalize(pt_index::data_path(&target, &index)).unwrap(),
        fs::canonicalize(&data).unwrap()
    );
    assert!(ptview(&["verify", text(&target)]).status.success());
    let usage = ptview(&["index", text(&data), text(&data), "-o", text(&target)]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn info_tells_what_an_index_holds() {
    let folder = folder_of(12);
    assert!(ptview(&["index", text(folder.path())]).status.success());
    let said = String::from_utf8(ptview(&["info", text(folder.path())]).stdout).unwrap();
    for words in ["12 files", "12 tensors", "x: float32[2]", "y       int         12        0  0 … 11"] {
        assert!(said.contains(words), "`{words}` is not in\n{said}");
    }
    let json = ptview(&["info", "--format", "json", text(&sidecar_path(folder.path()))]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schemas"][0]["files"], 12);
    assert_eq!(json["columns"][0]["max"], 11);
}

/// The old index or the new one, whole, at whatever moment the builder is killed.
#[test]
fn a_killed_builder_leaves_a_whole_index() {
    let folder = folder_of(400);
    let sidecar = sidecar_path(folder.path());
    assert!(ptview(&["index", text(folder.path())]).status.success());
    let old = fs::read(&sidecar).unwrap();
    write_sample(folder.path(), "9/new.pt", 9.0);
    let (mut killed, mut renewed) = (0, 0);
    for round in 0..60u64 {
        fs::write(&sidecar, &old).unwrap();
        let mut builder = Command::new(env!("CARGO_BIN_EXE_ptview"))
            .args(["index", "--full", text(folder.path())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(400 * round));
        builder.kill().unwrap();
        killed += usize::from(!builder.wait().unwrap().success());
        let index = read(&sidecar).unwrap();
        index.verify().unwrap();
        match index.file_count() {
            400 => assert_eq!(index.as_bytes(), old),
            count => {
                assert_eq!(count, 401);
                renewed += 1;
            }
        }
    }
    println!("{killed} of 60 builders were killed at work, {renewed} indexes were renewed");
    assert!(killed > 0);
    // What killed ones left lying about is no data, and is not there for ever.
    assert_eq!(build(folder.path(), None).index.file_count(), 401);
}

#[test]
fn two_builders_at_once_both_leave_a_whole_index() {
    let folder = folder_of(300);
    let sidecar = sidecar_path(folder.path());
    assert!(ptview(&["index", text(folder.path())]).status.success());
    for _ in 0..10 {
        let mut builders: Vec<_> = (0..2)
            .map(|_| {
                Command::new(env!("CARGO_BIN_EXE_ptview"))
                    .args(["index", "--full", text(folder.path())])
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        // Readers see one or the other.
        while builders.iter_mut().any(|builder| builder.try_wait().unwrap().is_none()) {
            read(&sidecar).unwrap().verify().unwrap();
        }
        assert!(builders.iter_mut().all(|builder| builder.wait().unwrap().success()));
        assert_eq!(read(&sidecar).unwrap().file_count(), 300);
    }
}

#[test]
fn what_killed_builders_left_behind_is_no_data_and_is_used_up_in_time() {
    let folder = folder_of(1);
    let [old, new] = [0, 1].map(|number| folder.path().join(format!(".index.ptidx.{number}.tmp")));
    fs::write(&old, "half an index").unwrap();
    fs::write(&new, "half an index").unwrap();
    set_modified(&old, SystemTime::now() - Duration::from_secs(7200));
    assert!(ptview(&["index", text(folder.path())]).status.success());
    assert!(!old.exists() && new.exists(), "another builder may be writing the new one");
    assert_eq!(read(&sidecar_path(folder.path())).unwrap().file_count(), 1);
}
