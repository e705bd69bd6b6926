"""A distributed checkpoint that two processes save, listed without torch and compared with it."""

import dataclasses
import hashlib
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import ptview
import pytest
import torch

from same import assert_same_object

pytest.importorskip("torch.distributed.device_mesh", reason="this torch shards no tensors yet")
from save_distributed import PLACEMENTS, PROCESSES, full_tensors

SCRIPT = Path(__file__).with_name("save_distributed.py")
CHUNKED = [name for name, placement in PLACEMENTS.items() if placement.is_shard()]


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
    wholes = {name: row for name, row in wholes.items() if name.startswith("model.")}
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


@pytest.mark.parametrize("name", PLACEMENTS)
def test_chunks_are_put_together(folder, name) -> None:
    full = full_tensors()[name]
    tensor = ptview.open(folder)[f"model.{name}"]
    assert (tensor.shape, tensor.nbytes, len(tensor)) == (tuple(full.shape), full.nbytes, len(full))
    made = tensor.torch()
    assert made.dtype == full.dtype
    torch.testing.assert_close(made, full, rtol=0, atol=0)
    torch.testing.assert_close(torch.from_dlpack(tensor), full, rtol=0, atol=0)
    array = tensor.numpy()
    assert array.tobytes() == full.contiguous().view(torch.uint8).numpy().tobytes()
    assert np.asarray(tensor).dtype == array.dtype
    if name in CHUNKED:
        # It is memory of its own, made anew each time.
        array[...] = 0
    torch.testing.assert_close(tensor.torch(), full, rtol=0, atol=0)


@pytest.mark.parametrize("name", CHUNKED)
def test_parts_of_chunks(folder, name) -> None:
    full = full_tensors()[name]
    tensor = ptview.open(folder)[f"model.{name}"]
    rows, columns = full.shape
    parts = [(slice(start, end), slice(1, columns)) for start in range(rows) for end in range(start, rows + 1)]
    parts += [(row, slice(None)) for row in range(rows)] + [(slice(None), column) for column in range(columns)]
    for part in [*parts, rows - 1, (0, 0), slice(1, None), ...]:
        made = tensor[part].torch()
        assert tensor[part].shape == made.shape == full[part].shape
        torch.testing.assert_close(made, full[part], rtol=0, atol=0)
    assert tensor[1:][0][1:].numpy().tolist() == full[1:][0][1:].float().tolist() or name == "odd"
    with pytest.raises(IndexError):
        tensor[rows]


def test_what_chunks_say_of_themselves(folder) -> None:
    tensor = ptview.open(folder)["model.columns"]
    assert (tensor.layout, tensor.access, tensor.stride, tensor.resident) == ("chunked", "copied", None, None)
    assert repr(tensor) == '<ptview.Tensor "model.columns" int64 [2, 6], chunked>'
    assert memoryview(tensor[1:]).tolist() == [list(range(6, 12))]
    with pytest.raises(ptview.TensorError, match="without a copy"):
        tensor.__dlpack__(copy=False)
    tensor.prefetch()


def test_a_part_reads_only_the_chunks_it_is_in(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = ptview.open(copy)
    (copy / "__1_0.distcp").unlink()
    full = full_tensors()["even"]
    assert file["model.even"][:2].numpy().tolist() == full[:2].tolist()
    with pytest.raises(FileNotFoundError):
        file["model.even"].numpy()


def test_chunks_that_are_missing_or_in_the_way(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    plan = pickle.loads((folder / ".metadata").read_bytes())

    def opened(change) -> ptview.Tensor:
        changed = pickle.loads(pickle.dumps(plan))
        change(changed)
        (copy / ".metadata").write_bytes(pickle.dumps(changed))
        return ptview.open(copy)["model.even"]

    def stored(plan, row):
        return next(key for key in plan.storage_data if key.fqn == "model.even" and key.offset[0] == row)

    def moved(plan, row):
        key = stored(plan, 2)
        plan.storage_data[dataclasses.replace(key, offset=torch.Size([row, 0]))] = plan.storage_data.pop(key)

    def larger(plan):
        whole = plan.state_dict_metadata["model.even"]
        whole.size = torch.Size([1 << 50, 3])

    for change, message in [
        (lambda plan: plan.storage_data.pop(stored(plan, 2)), "has 6 of its 12 elements"),
        (lambda plan: moved(plan, 1), "overlap"),
        (lambda plan: moved(plan, 3), "no part of"),
        (larger, "has 12 of its"),
    ]:
        tensor = opened(change)
        for read in (tensor.numpy, tensor.torch, tensor[:1].numpy):
            with pytest.raises(ptview.TensorError, match=message):
                read()
        assert message in tensor.access


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"map_location": "cpu"}, {"map_location": lambda s, _: s}])
def test_load_gives_what_torch_puts_together(folder, tmp_path, options) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(folder, tmp_path / "whole.pt")
    expected = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert_same_object(ptview.load(folder, **options), expected)


def test_load_to_another_device(folder) -> None:
    loaded = ptview.load(folder, map_location="meta")
    assert {tensor.device.type for tensor in loaded["model"].values()} == {"meta"}


def test_load_of_what_is_not_all_there(folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    plan = pickle.loads((folder / ".metadata").read_bytes())

    def changed(change) -> Path:
        other = pickle.loads(pickle.dumps(plan))
        change(other)
        (copy / ".metadata").write_bytes(pickle.dumps(other))
        return copy

    def drop(plan, fqn):
        for key in [key for key in plan.storage_data if key.fqn == fqn]:
            del plan.storage_data[key]

    def move(plan, *path):
        plan.planner_data["step"] = path

    def spread(plan):
        last = len(plan.planner_data) - 1
        plan.planner_data = {fqn: (fqn, last) for fqn in plan.planner_data}

    for change, error, message in [
        (spread, ptview.FormatError, "have gaps"),
        (lambda plan: drop(plan, "step"), ptview.FormatError, "`step` is nowhere stored"),
        (lambda plan: drop(plan, "model.whole"), ptview.FormatError, "`model.whole` is nowhere stored"),
        (lambda plan: drop(plan, "model.even"), ptview.TensorError, "has 0 of its 12 elements"),
        (lambda plan: move(plan, "steps", 1 << 40), ptview.FormatError, "position"),
        (lambda plan: move(plan, "model", 0), ptview.FormatError, "contradict"),
    ]:
        with pytest.raises(error, match=message):
            ptview.load(changed(change))
    assert ptview.load(changed(lambda plan: move(plan, *"abc" * 300)))["a"]["b"]["c"]


def test_load_of_shards(tmp_path) -> None:
    shards = {"1.bin": {"a": torch.arange(3), "b": torch.ones(2)}, "2.bin": {"c": torch.zeros(1)}}
    for name, tensors in shards.items():
        torch.save(tensors, tmp_path / name)
    index = tmp_path / "pytorch_model.bin.index.json"
    names = {name: file for file, tensors in shards.items() for name in tensors}
    index.write_text(json.dumps({"weight_map": names}))
    expected = {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}
    assert_same_object(ptview.load(tmp_path), expected)
    assert_same_object(ptview.load(index, mmap=False), expected)
    with pytest.raises(ptview.FormatError, match="no checkpoint"):
        ptview.load(tmp_path.parent)
