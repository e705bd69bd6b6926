//! What unpickling a file would import, and the verdict on it.

mod common;

use std::fs;
use std::path::PathBuf;

use pt_format::{Checkpoint, Error, GlobalUse, Limits, Verdict, audit};

use crate::common::{Pickle, readable_fixtures, root, torch_like};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(root().join("testdata/fixtures").join(name)).unwrap()
}

fn rows(globals: &[GlobalUse]) -> Vec<(String, Verdict, u64)> {
    globals.iter().map(|g| (format!("{}.{}", g.module, g.name), g.verdict, g.calls)).collect()
}

fn row(name: &str, verdict: Verdict, calls: u64) -> (String, Verdict, u64) {
    (name.to_owned(), verdict, calls)
}

#[test]
fn honest_state_dicts_name_known_globals_only() {
    let judged = audit(&fixture("zip/state_dict.pt"), &Limits::default()).unwrap();
    let expected = [
        row("collections.OrderedDict", Verdict::Known, 5),
        row("torch._utils._rebuild_tensor_v2", Verdict::Known, 3),
        row("torch.FloatStorage", Verdict::Known, 0),
        row("torch.LongStorage", Verdict::Known, 0),
    ];
    assert_eq!(rows(&judged.globals), expected);
    assert!(judged.problem.is_none());
}

#[test]
fn unknown_classes_are_opaque() {
    let judged = audit(&fixture("zip/objects.pt"), &Limits::default()).unwrap();
    let found = rows(&judged.globals);
    for name in ["argparse.Namespace", "functools.partial"] {
        assert!(found.iter().any(|row| row.0 == name && row.1 == Verdict::Opaque), "{name}");
    }
    // A bound method is pickled as `getattr`, which can take any attribute of anything.
    assert!(found.contains(&row("builtins.getattr", Verdict::Dangerous, 1)));
}

#[test]
fn attacks_are_dangerous() {
    let judged = audit(&fixture("attack/builtins_eval.pt"), &Limits::default()).unwrap();
    assert_eq!(rows(&judged.globals), [row("builtins.eval", Verdict::Dangerous, 1)]);
    assert!(judged.problem.is_none());

    let judged = audit(&fixture("attack/os_system.pt"), &Limits::default()).unwrap();
    assert_eq!(rows(&judged.globals), [row("posix.system", Verdict::Dangerous, 1)]);
    assert!(judged.problem.is_none());
}

#[test]
fn what_modelscan_tests_with_is_dangerous() {
    let folder =
        std::env::var_os("PTVIEW_CORPUS").map_or_else(|| root().join("../shared/corpus"), PathBuf::from);
    let file = folder.join("github-protectai-modelscan/unsafe_zip_pytorch.pt");
    let Ok(bytes) = fs::read(file) else { return println!("skipped: no corpus") };
    let judged = audit(&bytes, &Limits::default()).unwrap();
    assert!(rows(&judged.globals).contains(&row("posix.system", Verdict::Dangerous, 1)));
}

/// The parser refuses it, and Python would go on.
#[test]
fn refused_files_are_judged_as_far_as_there_are_opcodes() {
    let pickle = Pickle::new().raw("]}b").global("os", "system").str("id").raw(b"\x85R\xFF").stop();
    let bytes = torch_like("archive", &[("data.pkl", &pickle), ("version", b"3\n")]);
    assert!(Checkpoint::parse(&bytes, &Limits::default()).is_err());
    let judged = audit(&bytes, &Limits::default()).unwrap();
    assert_eq!(rows(&judged.globals), [row("os.system", Verdict::Dangerous, 1)]);
    assert!(matches!(judged.problem, Some(Error::Pickle { .. })));
}

/// `torch.load` runs the first pickle of whatever is no archive, and all five of a legacy file.
#[test]
fn pickles_outside_archives_are_judged_too() {
    let attack = Pickle::new().global("os", "system").str("id").raw(b"\x85R").stop();
    let plain = audit(&attack, &Limits::default()).unwrap();
    assert_eq!(rows(&plain.globals), [row("os.system", Verdict::Dangerous, 1)]);
    assert!(matches!(plain.problem, Some(Error::Foreign { .. })));
    let text = audit(&b"cos\nsystem\n(S'id'\ntR."[..], &Limits::default()).unwrap();
    assert_eq!(rows(&text.globals), [row("os.system", Verdict::Dangerous, 1)]);
    assert!(audit(&b"hello world"[..], &Limits::default()).is_err());

    let bytes = fixture("legacy/state_dict.pth");
    // Behind the magic number and the protocol stands the dict of system information.
    let at = bytes.windows(4).position(|window| window == [0x80, 2, b'}', b'q']).unwrap();
    let attacked = [&bytes[..at], &attack, &bytes[at..]].concat();
    let judged = audit(&attacked, &Limits::default()).unwrap();
    assert_eq!(rows(&judged.globals)[0], row("os.system", Verdict::Dangerous, 1));
}

/// Two readers, one lenient and by the opcodes, one strict and by the values, see the same.
#[test]
fn the_parsed_values_name_the_same_globals() {
    let mut compared = 0;
    for fixture in readable_fixtures().iter().filter(|fixture| fixture.text("container") == "zip") {
        let bytes = fixture.bytes();
        let Ok(checkpoint) = Checkpoint::parse(&bytes, &Limits::default()) else { continue };
        let judged = audit(&bytes, &Limits::default()).unwrap();
        assert!(judged.problem.is_none(), "{}: {:?}", fixture.name, judged.problem);
        assert_eq!(judged.globals, checkpoint.globals(), "{}", fixture.name);
        compared += judged.globals.len();
    }
    println!("{compared} globals");
    assert!(compared > 300);
}

#[test]
fn every_container_is_judged() {
    let judge = |name: &str| audit(&fixture(name), &Limits::default());
    for (name, globals) in [("ts/script.pt", true), ("ts/v1_modeljson.pt", false), ("pkg/package.pt", true)] {
        let judged = judge(name).unwrap();
        assert!(judged.problem.is_none(), "{name}: {:?}", judged.problem);
        assert_eq!(!judged.globals.is_empty(), globals, "{name}: {:?}", judged.globals);
    }
    let judged = judge("pkg/export.pt2").unwrap();
    assert!(judged.problem.is_none(), "{:?}", judged.problem);
    let judged = judge("legacy/tar_v0.pt").unwrap();
    assert!(!judged.globals.is_empty() && judged.problem.is_some());
    assert!(judge("other/plain_zip.pt").is_err());
}
