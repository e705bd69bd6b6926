"""Indexing, verifying and judging files from Python."""

import os
import signal
import subprocess
import sys
import time

import ptview
import pytest
import torch

from conftest import ROOT

FIXTURES = ROOT / "testdata/fixtures"


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        torch.save({"x": torch.full((4,), float(number)), "y": number}, tmp_path / f"{number}.pt")
    return tmp_path


def test_a_folder_is_indexed_and_brought_up_to_date(folder) -> None:
    (first,) = ptview.index(folder)
    assert (first.files, first.tensors, first.parsed, first.skipped) == (5, 5, 5, {})
    assert os.path.exists(first.path)
    (folder / "bad.pt").write_text("<html>")
    (second,) = ptview.index([folder], progress=False)
    assert (second.parsed, second.unchanged, list(second.skipped)) == (0, 5, ["bad.pt"])
    (third,) = ptview.index(folder, full=True, exclude=["bad*"], jobs=1)
    assert (third.parsed, third.skipped) == (5, {})
    with pytest.raises(ptview.FormatError):
        ptview.index(folder, on_error="fail")


def test_an_index_is_kept_where_it_is_wanted(folder, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("indexes")
    (report,) = ptview.index(folder, output=elsewhere / "five.ptidx")
    assert report.path == elsewhere / "five.ptidx"
    assert not (folder / "index.ptidx").exists()
    data = ptview.Dataset(report.path)
    assert data.files == [str(elsewhere / os.path.relpath(folder, elsewhere) / f"{n}.pt") for n in range(5)]
    assert torch.equal(data[3]["x"], torch.full((4,), 3.0))
    assert ptview.verify(report.path, deep=True)
    # The next run takes it as the earlier one.
    assert ptview.index(folder, output=str(report.path))[0].unchanged == 5
    assert ptview.index(folder)[0].path == folder / "index.ptidx"
    with pytest.raises(ValueError, match="one path, not 2"):
        ptview.index([folder, folder / "1.pt"], output=report.path)


def test_only_what_changed_is_looked_at(folder, monkeypatch) -> None:
    changed = [folder / "1.pt"]
    with pytest.raises(ptview.Error, match="index all of the folder first"):
        ptview.index(folder, changed=changed)
    ptview.index(folder)
    (folder / "more").mkdir()
    for name in ["1.pt", "3.pt", "5.pt", "more/6.pt"]:
        torch.save({"x": torch.zeros(2), "y": "changed"}, folder / name)
    (folder / "2.pt").unlink()
    (report,) = ptview.index(folder, changed=iter([*changed, str(folder / "2.pt"), folder / "more"]))
    assert (report.files, report.parsed, report.unchanged, report.vanished) == (5, 2, 3, 1)
    # Relative to the current directory, as all paths are; one is enough, and none is a list too.
    monkeypatch.chdir(folder.parent)
    (report,) = ptview.index(folder.name, changed=f"{folder.name}/3.pt")
    assert (report.files, report.parsed, report.unchanged) == (5, 1, 4)
    assert ptview.index(folder.name, changed=[])[0].unchanged == 5
    monkeypatch.chdir(folder)
    assert ptview.index(".", changed=["."])[0].files == 6
    told = (folder / "index.ptidx").read_bytes()
    ptview.index(folder, full=True)
    assert (folder / "index.ptidx").read_bytes() == told
    with pytest.raises(ptview.Error, match="not a path inside"):
        ptview.index(folder, changed=[folder.parent / "1.pt"])
    for paths, full in [([folder, folder], False), (folder, True)]:
        with pytest.raises(ValueError, match="one folder"):
            ptview.index(paths, changed=changed, full=full)


def test_damage_is_found(folder) -> None:
    ptview.index(folder)
    assert ptview.verify(folder)
    assert ptview.verify(folder, deep=True).checked >= 5
    path = folder / "3.pt"
    stamp = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(torch.full((4,), 3.0).numpy().tobytes())] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert ptview.verify(folder)
    found = ptview.verify(folder, deep=True)
    assert not found
    assert "3.pt" in found.problems[0][0]
    (folder / "4.pt").unlink()
    assert len(ptview.verify(folder).problems) == 1


def test_a_file_without_an_index_is_looked_at_too(tmp_path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.zeros(4)}, path)
    assert ptview.verify(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert not ptview.verify(path)
    assert not ptview.verify(path, deep=True)
    with pytest.raises(FileNotFoundError):
        ptview.verify(tmp_path / "none.pt")


def test_globals_are_judged_without_being_imported() -> None:
    verdicts = {use.name: use.verdict for use in ptview.globals(FIXTURES / "attack/os_system.pt")}
    assert "dangerous" in verdicts.values()
    assert {use.verdict for use in ptview.globals(FIXTURES / "zip/state_dict.pt")} == {"known"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_stops_the_work_and_leaves_the_index(tmp_path) -> None:
    torch.save({"x": torch.zeros(4)}, tmp_path / "0.pt")
    content = (tmp_path / "0.pt").read_bytes()
    for number in range(1, 20_000):
        (tmp_path / f"{number}.pt").write_bytes(content)
    code = (
        "import ptview, sys\n"
        "print('ready', flush=True)\n"
        "try:\n"
        f"    while True: ptview.index({str(tmp_path)!r}, full=True, jobs=1, progress=False)\n"
        "except KeyboardInterrupt: sys.exit(42)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        time.sleep(0.15)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert process.wait(timeout=30) == 42
        assert time.monotonic() - begun < 5
    finally:
        process.kill()
    assert not list(tmp_path.glob(".*.tmp"))
