"""Checkpoints that consist of several files: torch.distributed.checkpoint and Hugging Face shards."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections import OrderedDict
from unittest import mock

import torch

from ..oracle.containers import read_zip
from ..oracle.walk import Json
from ..registry import Registry
from ..writers.torch_files import Skip

SAVE_ID = "00000000-0000-4000-8000-000000000000"


def build(r: Registry) -> None:
    r.group(
        "pkg/dcp",
        "dcp",
        "torch.distributed.checkpoint: .metadata (protocol 4 pickle) + concatenated torch.save archives; "
        "data offsets are not aligned",
        lambda: _distributed(r.path("pkg/dcp")),
    )
    r.group(
        "pkg/hf/pytorch_model.bin.index.json",
        "hf_index",
        "Hugging Face sharded checkpoint",
        lambda: _hugging_face(r),
    )


@contextlib.contextmanager
def _working_folder(folder: str):
    old = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(old)


def _distributed(folder: str) -> tuple[list[str], Json]:
    shutil.rmtree(folder, ignore_errors=True)
    obj = {
        "w": torch.arange(6.0).view(2, 3),
        "n": 5,
        "nested": {"x": torch.ones(2, dtype=torch.bfloat16)},
        "l": [torch.ones(3)],
    }
    parent, name = os.path.split(folder)
    try:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import filesystem

        # The metadata holds the path as given, and a random id
        with _working_folder(parent), mock.patch.object(filesystem, "_generate_uuid", lambda: SAVE_ID):
            try:
                dcp.save(obj, checkpoint_id=name, no_dist=True)
            except TypeError:  # before torch 2.7
                dcp.save(obj, checkpoint_id=name)
    except Exception as error:
        raise Skip(repr(error)) from error

    with open(os.path.join(folder, ".metadata"), "rb") as f:
        metadata = pickle.load(f)  # just written by ourselves
    entries = []
    for index, stored in metadata.storage_data.items():
        with open(os.path.join(folder, stored.relative_path), "rb") as f:
            f.seek(stored.offset)
            archive = f.read(stored.length)
        content = read_zip(None, archive, stored.offset)
        entries.append(
            {
                "fqn": index.fqn,
                "offset": list(index.offset) if index.offset is not None else None,
                "file": stored.relative_path,
                "entry_offset": stored.offset,
                "length": stored.length,
                "tensors": content["tensors"],
                "value": content["value"],
            }
        )
    members = [f"pkg/dcp/{name}" for name in os.listdir(folder)]
    planner_data = {key: [str(x) for x in value] for key, value in metadata.planner_data.items()}
    return members, {"entries": entries, "planner_data": planner_data}


def _hugging_face(r: Registry) -> tuple[list[str], Json]:
    shards = {
        "pytorch_model-00001-of-00002.bin": OrderedDict([("a.weight", torch.arange(4.0)), ("b.weight", torch.ones(2))]),
        "pytorch_model-00002-of-00002.bin": OrderedDict([("c.weight", torch.zeros(3))]),
    }
    index = "pytorch_model.bin.index.json"
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    with open(r.path(f"pkg/hf/{index}"), "w", encoding="utf-8", newline="\n") as f:
        json.dump({"metadata": {"total_size": 36}, "weight_map": weight_map}, f, indent=2)
    tensors = {}
    for file, shard in shards.items():
        path = r.path(f"pkg/hf/{file}")
        torch.save(shard, path)
        tensors[file] = read_zip(path)["tensors"]
    members = [f"pkg/hf/{file}" for file in (*shards, index)]
    return members, {"shards": tensors, "weight_map": weight_map}
