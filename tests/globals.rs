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

/// A pickle that loads what is inside of it, written as each protocol writes bytes.
fn loading(file: &[u8]) -> Vec<Vec<u8>> {
    let call = |bytes: &[u8]| Pickle::new().global("torch.storage", "_load_from_bytes").raw(bytes).stop();
    let length = (file.len() as u32).to_le_bytes();
    let latin1: String = file.iter().map(|&byte| char::from(byte)).collect();
    let utf8_length = (latin1.len() as u32).to_le_bytes();
    let escaped: String = file.iter().map(|byte| format!("\\u{byte:04x}")).collect();
    let hex: String = file.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    vec![
        call(&[b"B", &length[..], file, b"\x85R"].concat()),
        call(&[b"(B", &length[..], file, b"q\x01tR"].concat()),
        call(
            &[
                b"c_codecs\nencode\nX",
                &utf8_length[..],
                latin1.as_bytes(),
                b"X\x06\0\0\0latin1\x86Rq\x01\x85R",
            ]
            .concat(),
        ),
        call(format!("(c_codecs\nencode\n(V{escaped}\np1\nVlatin1\ntRtR").as_bytes()),
        call(format!("(S'{hex}'\ntR").as_bytes()),
        Pickle::new().raw([b"(B", &length[..], file, b"itorch.storage\n_load_from_bytes\n"].concat()).stop(),
        Pickle::new().raw([b"(ctorch.storage\n_load_from_bytes\nB", &length[..], file, b"o"].concat()).stop(),
    ]
}

#[test]
fn files_inside_a_pickle_are_judged() {
    let attack = Pickle::new().global("os", "system").str("id").raw(b"\x85R").stop();
    let archive = torch_like("archive", &[("data.pkl", &attack), ("version", b"3\n")]);
    let expected =
        ["torch.storage._load_from_bytes", "os.system"].map(|name| row(name, Verdict::Dangerous, 1));
    // torch runs the first pickle of whatever is no archive.
    for file in [&archive, &attack] {
        for pickle in loading(file) {
            let plain = audit(&pickle, &Limits::default()).unwrap();
            let found: Vec<_> =
                rows(&plain.globals).into_iter().filter(|row| row.0 != "_codecs.encode").collect();
            assert_eq!(found, expected, "{}", pickle.escape_ascii());
            let outer = torch_like("archive", &[("data.pkl", &pickle), ("version", b"3\n")]);
            let judged = audit(&outer, &Limits::default()).unwrap();
            assert_eq!(judged.globals, plain.globals);
            assert!(judged.problem.is_none(), "{:?}", judged.problem);
        }
    }
}

#[test]
fn files_inside_files_are_not_judged_and_that_is_said() {
    let attack = Pickle::new().global("os", "system").str("id").raw(b"\x85R").stop();
    let once = loading(&attack).swap_remove(0);
    let twice = torch_like("archive", &[("data.pkl", &loading(&once)[0]), ("version", b"3\n")]);
    let computed = Pickle::new().global("torch.storage", "_load_from_bytes").raw(b"N\x85R").stop();
    let computed = torch_like("archive", &[("data.pkl", &computed), ("version", b"3\n")]);
    for (file, expected) in [(&twice, "it lies in another one"), (&computed, "its bytes are computed")] {
        let problem = audit(file, &Limits::default()).unwrap().problem.unwrap().to_string();
        assert!(problem.ends_with(expected), "{problem}");
    }
}

#[test]
fn honest_pickles_are_judged_with_the_files_in_them() {
    for name in ["mix_p0", "mix_p1", "mix_p2", "mix_p3", "mix_p4", "mix_p5", "nested_zip", "storages"] {
        let judged = audit(&fixture(&format!("pickle/{name}.pkl")), &Limits::default()).unwrap();
        assert!(judged.problem.is_none(), "{name}: {:?}", judged.problem);
        let found = rows(&judged.globals);
        assert!(found.iter().any(|row| row.0.starts_with("torch.") && row.0.ends_with("Storage")), "{name}");
    }
}
