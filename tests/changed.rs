//! Indexes brought up to date by a list of what changed: as if all had been looked at, which it was not.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_index::{BuildOptions, Built, Error, Index, Selection, build_any, build_folder, read, sidecar_path};

/// Files with different labels have different times too, however coarse those of the file system are.
fn write_file(folder: &Path, path: &str, label: u64) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = match label % 5 {
        0 => b"no tensors".to_vec(),
        1 => write::to_vec(&Object::dict([("y", label.to_string().into())])).unwrap(),
        rest => {
            let storage = Storage::new(vec![7; 16]);
            let start = label / 5 % (5 - rest);
            let of =
                |length, start| Tensor::strided(DType::Float32, &[length], &[1], start, &storage).unwrap();
            let [x, all] = [of(rest, start), of(4, 0)].map(Object::from);
            write::to_vec(&Object::dict([("x", x), ("all", all), ("y", (label as i64).into())])).unwrap()
        }
    };
    fs::write(&path, bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + label);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn build(folder: &Path, earlier: Option<&Index>, selection: &Selection, changed: Option<&[&str]>) -> Built {
    try_build(folder, earlier, selection, changed).unwrap()
}

fn try_build(
    folder: &Path,
    earlier: Option<&Index>,
    selection: &Selection,
    changed: Option<&[&str]>,
) -> pt_index::Result<Built> {
    let changed = changed.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
    let options = BuildOptions { selection: selection.clone(), changed, ..BuildOptions::default() };
    let mut last = pt_index::Progress::default();
    let built = build_folder(folder, earlier, &options, |progress| last = progress)?;
    assert_eq!(last.files, last.files_total);
    Ok(built)
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    /// Few of them, so that files become folders and folders files; in another order as text than in the tree.
    fn path(&mut self) -> String {
        let names = ["a", "a-", "a.pt", "b", "é", ".hidden", "out", "x.ptidx"];
        let depth = 1 + self.below(3);
        (0..depth).map(|_| self.one_of(&names)).collect::<Vec<_>>().join("/")
    }
}

/// Removes whatever is at a path, or in its way.
fn clear(folder: &Path, path: &str, changed: &mut BTreeSet<String>) {
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let part = folder.join(&path[..end]);
        if end == path.len() && part.is_dir() {
            fs::remove_dir_all(&part).unwrap();
            changed.insert(path.to_owned());
        } else if part.is_file() {
            fs::remove_file(part).unwrap();
            changed.insert(path[..end].to_owned());
        }
    }
}

#[test]
fn the_index_is_that_of_a_full_build_whatever_came_changed_went_or_moved() {
    let selections = [
        Selection::default(),
        Selection { exclude: vec!["out".into()], ..Selection::default() },
        Selection { include: vec!["a*".into(), "b/**".into()], follow_links: true, ..Selection::default() },
    ];
    for (round, selection) in (0..45).flat_map(|round| selections.iter().map(move |some| (round, some))) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut random = Random(round);
        let mut label = 0;
        for _ in 0..random.below(40) {
            label += 1;
            let path = random.path();
            clear(folder, &path, &mut BTreeSet::new());
            write_file(folder, &path, label);
        }
        let mut index = build(folder, None, selection, None).index;
        for step in 0..6 {
            let mut changed = BTreeSet::new();
            for _ in 0..random.below(6) {
                let path = random.path();
                match random.below(4) {
                    0 => clear(folder, &path, &mut changed),
                    1 if folder.join(&path).exists() => {
                        let to = random.path();
                        if to.starts_with(&path) || path.starts_with(&to) {
                            continue;
                        }
                        clear(folder, &to, &mut changed);
                        fs::create_dir_all(folder.join(&to).parent().unwrap()).unwrap();
                        fs::rename(folder.join(&path), folder.join(&to)).unwrap();
                        changed.extend([path, to]);
                    }
                    _ => {
                        label += 1;
                        clear(folder, &path, &mut changed);
                        write_file(folder, &path, label);
                        changed.insert(path);
                    }
                }
            }
            let changed: Vec<&str> = changed.iter().rev().map(String::as_str).collect();
            let walked = build(folder, Some(&index), selection, None);
            let told = build(folder, Some(&index), selection, Some(&changed));
            let what = format!("round {round}, step {step}, {selection:?}: {changed:?}");
            assert_eq!(told.index.as_bytes(), walked.index.as_bytes(), "{what}");
            let counts = |built: &Built| (built.parsed, built.unchanged, built.vanished);
            assert_eq!(counts(&told), counts(&walked), "{what}");
            let full = build(folder, None, selection, None).index;
            assert_eq!(told.index.as_bytes(), full.as_bytes(), "{what}");
            index = full;
        }
    }
}

#[test]
fn what_is_not_listed_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let all = Selection::default();
    for (label, path) in ["a/1", "a/2", "b/1", "b/2", "c", "a/bad", "b/bad"].into_iter().enumerate() {
        write_file(folder, path, 5 * u64::from(!path.ends_with("bad")) * label as u64 + 2);
    }
    for path in ["a/bad", "b/bad"] {
        write_file(folder, path, 5);
    }
    let first = build(folder, None, &all, None).index;
    assert_eq!((first.file_count(), first.skipped().len()), (5, 2));

    // Everything is another one now, in both folders.
    for path in ["a/1", "a/2", "b/1", "b/2", "c", "a/bad", "b/bad", "a/new", "b/new"] {
        write_file(folder, path, 93);
    }
    fs::remove_file(folder.join("b/2")).unwrap();
    let built = build(folder, Some(&first), &all, Some(&["a"]));
    assert_eq!((built.parsed, built.unchanged, built.vanished), (4, 3, 0));
    let skipped: Vec<_> = built.index.skipped().collect();
    let before: Vec<_> = first.skipped().filter(|skipped| skipped.path == "b/bad").collect();
    assert_eq!(skipped, before);
    let stamp = |index: &Index, path: &str| index.find_file(path).map(|file| file.stamp());
    for path in ["b/1", "b/2", "c"] {
        assert_eq!(stamp(&built.index, path), stamp(&first, path), "{path}");
    }
    assert!(built.index.find_file("b/new").is_none());
    built.index.verify().unwrap();

    let built = build(folder, Some(&first), &all, Some(&["b/2", "b/2", "nothing/there", "c/d"]));
    assert_eq!((built.parsed, built.unchanged, built.vanished), (0, 4, 1));
    let built = build(folder, Some(&first), &all, Some(&[]));
    assert_eq!(built.index.as_bytes(), first.as_bytes());
    let built = build(folder, Some(&first), &all, Some(&["c", ""]));
    assert_eq!(built.index.as_bytes(), build(folder, None, &all, None).index.as_bytes());
}

#[test]
fn a_folder_that_is_gone_is_not_missed_unless_it_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_file(folder, "a/b/1", 2);
    write_file(folder, "c", 3);
    let first = build(folder, None, &Selection::default(), None).index;
    fs::remove_dir_all(folder.join("a")).unwrap();
    write_file(folder, "c", 4);
    let built = build(folder, Some(&first), &Selection::default(), Some(&["c"]));
    assert_eq!((built.parsed, built.unchanged, built.vanished), (1, 1, 0));
    let built = build(folder, Some(&first), &Selection::default(), Some(&["a/b", "c"]));
    assert_eq!((built.parsed, built.unchanged, built.vanished), (1, 0, 1));
}

#[test]
fn lists_that_say_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_file(folder.path(), "a/1", 2);
    let all = Selection::default();
    let first = build(folder.path(), None, &all, None).index;
    for path in ["..", "a/../b", "/a", "a//1", "a/", "./a"] {
        let built = try_build(folder.path(), Some(&first), &all, Some(&[path]));
        assert!(matches!(built, Err(Error::Changed { .. })), "{path}");
    }
    let error = try_build(folder.path(), None, &all, Some(&["a"])).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }) && error.to_string().contains("index all of"), "{error}");

    let options = BuildOptions { changed: Some(vec!["a".into()]), ..BuildOptions::default() };
    let distributed = Path::new("testdata/fixtures/pkg/dcp");
    let shards = Path::new("testdata/fixtures/pkg/hf/pytorch_model.bin.index.json");
    for path in [distributed, shards, &folder.path().join("a/1")] {
        let built = build_any(path, None, &options, |_| {});
        assert!(matches!(built, Err(Error::Changed { .. })), "{}", path.display());
    }
    assert!(matches!(build_any(Path::new("missing"), None, &options, |_| {}), Err(Error::Io { .. })));

    // The index of another folder says nothing of this one.
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("a")).unwrap();
    let kept = sidecar_path(folder.path());
    pt_index::save(&first, &kept).unwrap();
    assert!(build_any(folder.path(), Some(&kept), &options, |_| {}).is_ok());
    let built = build_any(other.path(), Some(&kept), &options, |_| {});
    assert!(matches!(built, Err(Error::Changed { .. })));
}

#[cfg(unix)]
#[test]
fn links_are_followed_as_they_would_be_on_the_way() {
    use std::os::unix::fs::symlink;
    let [inside, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (folder, elsewhere) = (inside.path(), elsewhere.path());
    write_file(folder, "a/b/1", 2);
    write_file(folder, "c/1", 3);
    write_file(elsewhere, "d/1", 4);
    let empty = |follow_links| Selection { follow_links, ..Selection::default() };
    let first = build(folder, None, &empty(false), None).index;

    symlink(elsewhere, folder.join("link")).unwrap();
    symlink(elsewhere.join("d/1"), folder.join("a/file")).unwrap();
    symlink("nowhere", folder.join("a/dangling")).unwrap();
    symlink("../..", folder.join("a/b/back")).unwrap();
    symlink("..", folder.join("a/up")).unwrap();
    symlink(".", folder.join("a/b/here")).unwrap();
    let some = ["link", "link/d", "link/d/1", "a/file", "a/dangling", "a/b/back", "a/up", "a/b/here"];
    for paths in [&some[..], &["a", "link"], &["a/b", "a/up", "a/file", "a/dangling", "link/d"], &[""]] {
        for follow_links in [false, true] {
            let selection = empty(follow_links);
            let built = build(folder, Some(&first), &selection, Some(paths)).index;
            let full = build(folder, None, &selection, None).index;
            let skipped = |index: &Index| index.skipped().map(|some| format!("{some:?}")).collect::<Vec<_>>();
            assert_eq!(skipped(&built), skipped(&full), "{paths:?}");
            assert_eq!(built.as_bytes(), full.as_bytes(), "{paths:?}");
        }
    }
    // A walk ends at a link that leads back.
    let full = build(folder, None, &empty(true), None).index;
    for path in ["a/b/back/c/1", "a/up/c", "a/up/a/b"] {
        let built = build(folder, Some(&full), &empty(true), Some(&[path]));
        assert_eq!(built.index.as_bytes(), full.as_bytes(), "{path}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_valid_unicode_is_looked_for_in_its_folder() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_file(folder, "a/1", 2);
    write_file(folder, "b/1", 2);
    let first = build(folder, None, &Selection::default(), None).index;
    let odd = folder.join("a").join(std::ffi::OsStr::from_bytes(b"\xff.pt"));
    fs::copy(folder.join("a/1"), &odd).unwrap();
    let changed = pt_index::changed_paths(folder, &[odd]).unwrap();
    assert_eq!(changed, ["a"]);
    let built = build(folder, Some(&first), &Selection::default(), Some(&["a"])).index;
    assert_eq!(built.skipped().len(), 1);
    assert_eq!(built.as_bytes(), build(folder, None, &Selection::default(), None).index.as_bytes());
}

fn ptview(current: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ptview"))
        .current_dir(current)
        .arg("index")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_takes_paths_as_they_are_given_to_others() {
    let around = tempfile::tempdir().unwrap();
    let around = around.path();
    let data = around.join("data");
    for (label, path) in ["a/1.pt", "a/2.pt", "b/1.pt", "c.pt"].into_iter().enumerate() {
        write_file(&data, path, 5 * label as u64 + 2);
    }
    let none = ptview(around, &["data", "--changed", "data/a"], "");
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("index all of the folder first"));
    assert!(ptview(around, &["data"], "").status.success());

    let whole = data.to_str().unwrap();
    let absolute = data.join("a/1.pt");
    let absolute = absolute.to_str().unwrap();
    let runs: [(&Path, &[&str], &str); 9] = [
        (around, &["data", "--changed", "data/a/1.pt", "--changed", "data/a/2.pt"], ""),
        (around, &["data/", "--changed", "./data/a/", "--changed", absolute], ""),
        (around, &["./data", "--changed-from", "-"], "data/a/1.pt\n\ndata/a/2.pt"),
        (around, &[whole, "--changed-from", "-", "--changed", "data/a/2.pt"], "data/../data/a/1.pt\n"),
        (&data, &[".", "--changed-from", "-"], "a/1.pt\n./a/2.pt\n"),
        (&data, &["./", "--changed", absolute, "--changed", "./a/2.pt"], ""),
        (&data.join("a"), &["..", "--changed", "1.pt", "--changed", "2.pt"], ""),
        (&data.join("a"), &["../../data", "--changed", "."], ""),
        (around, &["data", "--changed", "data"], ""),
    ];
    for (label, (current, arguments, input)) in runs.into_iter().enumerate() {
        write_file(&data, "a/1.pt", 5 * label as u64 + 33);
        match label % 2 {
            0 => fs::remove_file(data.join("a/2.pt")).unwrap(),
            _ => write_file(&data, "a/2.pt", 3),
        }
        let output = ptview(current, arguments, input);
        let said = String::from_utf8_lossy(&output.stdout);
        let counts = ["(1 parsed, 2 unchanged, 1 vanished)", "(2 parsed, 2 unchanged)"][label % 2];
        assert!(said.contains(counts), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let kept = read(&sidecar_path(&data)).unwrap();
        assert_eq!(kept.as_bytes(), build(&data, None, &Selection::default(), None).index.as_bytes());
    }
    // Nothing is the news, and a list in a file.
    let output = ptview(around, &["data", "--changed-from", "-"], "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("(3 unchanged)"), "{output:?}");
    fs::write(around.join("list"), "data/b/1.pt\n").unwrap();
    fs::remove_dir_all(data.join("b")).unwrap();
    let output = ptview(around, &["data", "--changed-from", "list"], "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 unchanged, 1 vanished"), "{output:?}");

    for (arguments, code) in [
        (&["data", "--changed", "elsewhere/x"][..], 1),
        (&["data", "--changed", "data/../x"], 1),
        (&["data", "--changed-from", "missing"], 1),
        (&["data/c.pt", "--changed", "data/c.pt"], 1),
        (&["data", "data/a", "--changed", "data/a"], 2),
        (&["data", "--full", "--changed", "data/a"], 2),
        (&["data", "--refresh", "--changed-from", "-"], 2),
    ] {
        assert_eq!(ptview(around, arguments, "").status.code(), Some(code), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn the_command_takes_what_find_prints_and_finds_its_way_through_links() {
    let around = tempfile::tempdir().unwrap();
    let around = around.path();
    let data = around.join("data");
    write_file(&data, "a/1.pt", 2);
    write_file(&data, "b/1.pt", 3);
    std::os::unix::fs::symlink("data", around.join("link")).unwrap();
    assert!(ptview(around, &["data"], "").status.success());
    // Through a link to the folder, of a file that is gone together with its folder.
    fs::remove_dir_all(data.join("b")).unwrap();
    let output = ptview(around, &["link", "--changed", "data/b/1.pt"], "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 unchanged, 1 vanished"), "{output:?}");

    let set_modified = |path: &str, time| {
        fs::File::options().write(true).open(data.join(path)).unwrap().set_modified(time).unwrap();
    };
    let now = SystemTime::now();
    write_file(&data, "a/2.pt", 7);
    let output = ptview(around, &["data", "--changed", "link/a/2.pt", "--changed", "link/gone/too"], "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 parsed, 1 unchanged"), "{output:?}");
    fs::remove_file(data.join("a/2.pt")).unwrap();
    let output = ptview(around, &["data", "--changed", "link/a/../a/2.pt"], "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 unchanged, 1 vanished"), "{output:?}");
    write_file(&data, "new/1.pt", 4);
    set_modified("new/1.pt", now);
    for name in [&["-type", "f"][..], &[]] {
        set_modified("index.ptidx", now - Duration::from_secs(60));
        let mut find = Command::new("find");
        find.current_dir(around).args(["data", "-newer", "data/index.ptidx"]).args(name);
        let listed = String::from_utf8(find.output().unwrap().stdout).unwrap();
        assert!(listed.contains("data/new/1.pt"), "{listed}");
        let output = ptview(around, &["data", "--changed-from", "-"], &listed);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(read(&sidecar_path(&data)).unwrap().file_count(), 2);
    }
}
