//! The command line as a person or a script meets it.

use std::path::Path;
use std::process::{Command, Output};

fn ptview(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_ptview")).args(arguments).current_dir(root).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn ls_prints_a_table() {
    let output = ptview(&["ls", "testdata/fixtures/zip/state_dict.pt"]);
    assert!(output.status.success());
    let expected = "\
name                    dtype    shape   bytes  offset  where
layer.weight            float32  [2, 3]   24 B     960  zero-copy
layer.bias              float32  [2]       8 B    1088  zero-copy
bn.num_batches_tracked  int64    []        8 B    1216  zero-copy
3 tensors, 40 B
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn ls_prints_json_that_parses() {
    let file = "testdata/fixtures/zip/deflate.pt";
    let lines: Vec<serde_json::Value> = stdout(&ptview(&["ls", "--format", "jsonl", "--hash", file]))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let array: Vec<serde_json::Value> =
        serde_json::from_str(&stdout(&ptview(&["ls", "--format", "json", "--hash", file]))).unwrap();
    assert_eq!(lines, array);
    assert_eq!(lines.len(), 3);
    let keys: Vec<&str> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "file",
        "name",
        "path",
        "dtype",
        "shape",
        "stride",
        "storage_offset",
        "requires_grad",
        "nbytes",
        "offset",
        "zero_copy",
        "sha256",
    ];
    assert_eq!(keys, expected);
    assert_eq!(lines[0]["zero_copy"], false);
}

#[test]
fn what_cannot_be_read_goes_to_stderr_and_the_rest_is_listed() {
    let output = ptview(&[
        "ls",
        "testdata/fixtures/other/html.pt",
        "testdata/fixtures/zip/single_tensor.pt",
        "missing.pt",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(out.contains("(root)  float32  [3]"), "{out}");
    assert!(err.contains("html.pt") && err.contains("web page") && err.contains("missing.pt"), "{err}");

    let output = ptview(&["ls", "testdata/fixtures/attack/oob_size.pt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("unreadable"));
    assert!(stderr(&output).contains("needs 20 bytes but its storage has 16"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(ptview(&["ls"]).status.code(), Some(2));
    assert_eq!(ptview(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(ptview(&["demo", "--files", "0"]).status.code(), Some(2));
}

#[test]
fn index_builds_and_says_what_it_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["state_dict.pt", "many_tensors.pt"] {
        std::fs::copy(format!("testdata/fixtures/zip/{name}"), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("readme.md"), "# hello").unwrap();
    let path = folder.path().to_str().unwrap();
    let output = ptview(&["index", "--report", path]);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = stdout(&output);
    assert!(
        out.contains("2 files, 303 tensors") && out.contains("1 skipped") && out.contains("readme.md"),
        "{out}"
    );
    let index = pt_index::read(&folder.path().join("index.ptidx")).unwrap();
    assert_eq!(index.find_file("state_dict.pt").unwrap().tensors().len(), 3);

    let file = folder.path().join("state_dict.pt");
    assert!(ptview(&["index", file.to_str().unwrap()]).status.success());
    assert!(folder.path().join("state_dict.pt.ptidx").exists());
    assert_eq!(ptview(&["index", "missing"]).status.code(), Some(1));
}

#[test]
fn an_index_of_shards_stands_for_its_shards() {
    let output = ptview(&["ls", "testdata/fixtures/pkg/hf/pytorch_model.bin.index.json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = stdout(&output);
    for words in
        ["pytorch_model-00001-of-00002.bin:", "a.weight", "pytorch_model-00002-of-00002.bin:", "c.weight"]
    {
        assert!(out.contains(words), "{out}");
    }
}

#[test]
fn the_demo_runs_and_checks_itself() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert!(ptview(&["demo", "--files", "40", "--dir", dir]).status.success());
    let output = ptview(&["demo", "--files", "30", "--dir", dir]);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = stdout(&output);
    for words in ["wrote    30 files", "indexed", "every sample once", "samples/s", "resident memory"] {
        assert!(out.contains(words) || (words == "resident memory" && !cfg!(target_os = "linux")), "{out}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("ptview-demo-30")).unwrap().count(), 31);
}

#[test]
fn globals_are_listed_with_a_verdict() {
    let output = ptview(&["ls", "--globals", "testdata/fixtures/zip/state_dict.pt"]);
    assert!(output.status.success());
    assert!(stdout(&output).starts_with("verdict  named  called  global\nknown "), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");

    let file = "testdata/fixtures/attack/builtins_eval.pt";
    let output = ptview(&["ls", "--globals", "--format", "jsonl", file]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!((&line["verdict"], &line["name"]), (&"dangerous".into(), &"eval".into()));
    assert!(stderr(&output).contains(&format!("{file}: dangerous: builtins.eval")), "{}", stderr(&output));
}

#[test]
fn bench_measures_files_and_folders() {
    let output = ptview(&[
        "bench",
        "--no-torch",
        "--seconds",
        "0.01",
        "--format",
        "json",
        "testdata/fixtures/zip/state_dict.pt",
        "testdata/fixtures/zip",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let paths: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(paths.len(), 2);
    let groups: Vec<&serde_json::Value> =
        paths.iter().flat_map(|path| path["groups"].as_array().unwrap()).collect();
    assert!(groups.len() >= 5, "{groups:?}");
    let measured = |contender: &serde_json::Value| contender["median_ns"].as_u64().is_some_and(|ns| ns > 0);
    let of = |group: &serde_json::Value| group["contenders"].as_array().unwrap().clone();
    // The fixtures make no batch with each other; all else has a time.
    assert!(
        groups.iter().filter(|group| group["work"] != "batches").all(|group| of(group).iter().all(measured))
    );
}

#[test]
fn bench_draws_bars_and_says_why_torch_is_missing() {
    let file = "testdata/fixtures/zip/state_dict.pt";
    let output = ptview(&["bench", "--python", "no-such-python", "--seconds", "0.01", file]);
    let text = stdout(&output);
    assert!(output.status.success() && text.contains("without torch: no-such-python: "), "{text}");
    assert!(text.contains("open and list 3 tensors") && text.contains("█"), "{text}");
    assert_eq!(ptview(&["bench", "--seconds", "0", file]).status.code(), Some(2));
    assert_eq!(ptview(&["bench", "--no-torch", "no-such-file.pt"]).status.code(), Some(1));
}
