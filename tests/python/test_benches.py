"""Benchmarks run and the page is made, on the tiniest sizes: so that they do not rot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"


def run(script: Path, *arguments: object, data: Path) -> None:
    command = [sys.executable, "-W", "ignore", script, *map(str, arguments)]
    environment = {**os.environ, "PTVIEW_BENCH_DATA": str(data)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_rivals_and_the_page_of_them(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="pip install -r benches/python/requirements.txt")
    stores = "ptview; torch.load; flat file, numpy.memmap"
    options = ["--tiny", "--only", "small", "--rounds", 1, "--limit", 0.05, "--no-cold", "--stores", stores]
    options += ["--out", tmp_path / "bench"]
    run(BENCHES / "python" / "rivals.py", *options, data=tmp_path / "data")
    measured = json.loads((tmp_path / "bench" / "rivals-small.json").read_text())
    # Answers were compared with torch.load's first.
    assert {("ptview", "Loader"), ("torch.load", "one by one")} <= {(f["store"], f["way"]) for f in measured["figures"]}
    assert not {name for name in measured["failed"] if name.startswith(("ptview", "torch.load"))}
    run(BENCHES / "python" / "report.py", "--figures", tmp_path / "bench", "--out", tmp_path / "docs", data=tmp_path)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "| torch.load |" in page and "Not measured here: `cargo bench --bench curves open`" in page
    assert (tmp_path / "docs" / "benchmarks" / "small.svg").stat().st_size > 1000


def test_a_quick_page_says_what_it_leaves_out(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="pip install -r benches/python/requirements.txt")
    options = ["--tiny", "--quick", "--only", "small", "--rounds", 1, "--limit", 0.05, "--out", tmp_path / "bench"]
    run(
        BENCHES / "python" / "rivals.py",
        *options,
        "--stores",
        "ptview; flat file, numpy.memmap",
        data=tmp_path / "data",
    )
    measured = json.loads((tmp_path / "bench" / "rivals-small.json").read_text())
    ways = {(figure["store"], figure["way"]) for figure in measured["figures"]}
    assert ("ptview", "DataLoader, 2 workers") in ways and (
        "flat file, numpy.memmap",
        "DataLoader, 2 workers",
    ) not in ways
    assert (measured["pss"], measured["cold"]) == ({}, {})
    run(BENCHES / "python" / "report.py", "--figures", tmp_path / "bench", "--out", tmp_path / "docs", data=tmp_path)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "Made by `make bench-quick`" in page
    for what in ("memory", "files that are not in memory", "workers, but of ptview and torch.load"):
        assert f"- not measured in this run: {what}\n" in page


def test_every_rival_that_is_installed_answers_as_torch_load_does(tmp_path: Path):
    """rivals.py compares answers before it measures; a rival that fails is named."""
    pytest.importorskip("litdata", reason="pip install -r benches/python/requirements.txt")
    options = ["--tiny", "--only", "small", "--rounds", 1, "--limit", 0.01, "--no-cold", "--out", tmp_path]
    run(BENCHES / "python" / "rivals.py", *options, data=tmp_path / "data")
    measured = json.loads((tmp_path / "rivals-small.json").read_text())
    assert set(measured["failed"].values()) <= {"not installed"}
    ways = {(figure["store"], figure["way"]) for figure in measured["figures"]}
    assert {("litdata", "DataLoader, 2 workers"), ("ptview", "Loader")} <= ways
