"""A distributed checkpoint that two processes save, listed without torch and compared with it."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from save_distributed import PLACEMENTS, PROCESSES, full_tensors

SCRIPT = Path(__file__).with_name("save_distributed.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint that real torch saved from two processes."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    base = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, SCRIPT, base / "checkpoint"]
    savers = [subprocess.Popen([*command, str(rank), base / "store"]) for rank in range(PROCESSES)]
    try:
        assert [saver.wait(timeout=120) for saver in savers] == [0] * PROCESSES
    finally:
        for saver in savers:
            saver.kill()
    return base / "checkpoint"


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def test_whole_tensors_are_listed_with_the_plan(ls, folder) -> None:
    wholes = {row["name"]: row for row in ls(folder) if row.get("layout") == "chunked"}
    chunked = {name: full for name, full in full_tensors().items() if PLACEMENTS[name].is_shard()}
    assert wholes.keys() == {f"model.{name}" for name in chunked}
    for name, full in chunked.items():
        row = wholes[f"model.{name}"]
        assert (row["dtype"], row["shape"]) == (str(full.dtype).removeprefix("torch."), list(full.shape))
        assert row["file"] == str(folder / ".metadata")
        assert row["offset"] is None


def test_chunks_are_parts_with_the_bytes_torch_cuts(ls, folder) -> None:
    chunks = {}
    for row in ls(folder):
        if match := re.fullmatch(r"model\.(\w+)#\[(.*)\]", row["name"]):
            assert row["part"]
            chunks[match[1], tuple(map(int, match[2].split(", ")))] = row
    expected = {}
    for name, placement in PLACEMENTS.items():
        if placement.is_shard():
            at = 0
            for part in full_tensors()[name].chunk(PROCESSES, placement.dim):
                offsets = [0] * part.dim()
                offsets[placement.dim] = at
                at += part.shape[placement.dim]
                expected[name, tuple(offsets)] = part
    assert chunks.keys() == expected.keys()
    for key, part in expected.items():
        row = chunks[key]
        assert row["shape"] == list(part.shape)
        assert row["sha256"] == digest(part)
        # And at that place of that file they are.
        bytes_there = Path(row["file"]).read_bytes()[row["offset"] :][: row["nbytes"]]
        assert hashlib.sha256(bytes_there).hexdigest() == row["sha256"]


def test_what_every_process_has_is_listed_once(ls, folder) -> None:
    (row,) = [row for row in ls(folder) if row["name"] == "model.whole"]
    assert "part" not in row
    assert row["sha256"] == digest(full_tensors()["whole"])
