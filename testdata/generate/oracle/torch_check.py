"""Second opinion: load a fixture with torch itself and compare every tensor with what the oracle said."""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .walk import ARGS, DICT, STATE, Json

Loader = Callable[[str], Any]


def load_full(path: str) -> Any:
    return torch.load(path, weights_only=False, map_location="cpu")


def load_pickle(path: str) -> Any:
    """Only for files that the generator wrote itself a moment ago."""
    with open(path, "rb") as f:
        return pickle.load(f)


def load_python2(path: str) -> Any:
    return torch.load(path, weights_only=False, encoding="latin1")


def load_torchscript(path: str) -> Any:
    return torch.jit.load(path, map_location="cpu")


def load_package(path: str) -> Any:
    from torch.package import PackageImporter

    return PackageImporter(path).load_pickle("model", "model.pkl")


def load_pt2(path: str) -> Any:
    return torch.export.load(path).state_dict


def load_compiled(path: str) -> Any:
    """What ``load_pt2(path, load_weights_from_disk=True)`` gives to the compiled code, which it would load too."""
    from torch.export.pt2_archive._package import PT2ArchiveReader

    models: dict[str, dict[str, torch.Tensor]] = {}
    with PT2ArchiveReader(path) as reader:
        for member in reader.get_file_names():
            if not member.endswith("/weights_config.json"):
                continue
            models[member.split("/")[2]] = weights = {}
            for name, (file, shape, stride, offset) in json.loads(reader.read_string(member)).items():
                whole = torch.load(io.BytesIO(reader.read_bytes(f"data/weights/{file}")))
                weights[name] = whole.as_strided(shape, stride, offset)
    return models if len(models) > 1 else next(iter(models.values()))


_PARTS: dict[str, Callable[[Any], torch.Tensor]] = {
    "#indices": lambda t: t._indices(),
    "#values": lambda t: t._values() if t.layout == torch.sparse_coo else t.values(),
    "#crow_indices": lambda t: t.crow_indices(),
    "#col_indices": lambda t: t.col_indices(),
    "#ccol_indices": lambda t: t.ccol_indices(),
    "#row_indices": lambda t: t.row_indices(),
    "#scales": lambda t: t.q_per_channel_scales(),
    "#zero_points": lambda t: t.q_per_channel_zero_points(),
    "#buffer": lambda t: t.values(),
    "#sizes": lambda t: t._nested_tensor_size(),
    "#strides": lambda t: t._nested_tensor_strides(),
    "#offsets": lambda t: t._nested_tensor_storage_offsets() if t.layout == torch.strided else t.offsets(),
}


def _step(obj: Any, comp: str) -> Any:
    """Follow one path component through real objects."""
    if comp in _PARTS:
        return _PARTS[comp](obj)
    if comp == DICT:
        return vars(obj)
    if isinstance(obj, dict):
        for key, value in obj.items():
            if str(key) == comp:
                return value
        raise KeyError(comp)
    if isinstance(obj, (list, tuple, collections.deque)) and comp.isdigit():
        return obj[int(comp)]
    return getattr(obj, comp)


def _unreachable(path: list[str]) -> bool:
    """Constructor arguments, raw states, dict keys and set elements cannot be reached by name in a loaded object."""
    return any(c in (ARGS, STATE) or c.startswith("<") for c in path)


def _tensor_bytes(t: torch.Tensor) -> bytes:
    t = t.detach()
    if t.is_quantized:
        t = t.int_repr()
    if t.is_conj():
        t = t.resolve_conj()
    if t.is_neg():
        t = t.resolve_neg()
    t = t.cpu().contiguous()
    if t.numel() == 0:
        return b""
    return t.reshape(-1).clone().view(torch.uint8).numpy().tobytes()


def check(path: str, tensors: list[Json], loader: Loader) -> int:
    """Compare the listed tensors with those torch loads; returns how many could be compared."""
    root = loader(path)
    count = 0
    for want in tensors:
        if _unreachable(want["path"]):
            continue
        got = root
        for comp in want["path"]:
            got = _step(got, comp)
        where = (path, want["path"])
        if "numpy" in want["flags"]:
            _check_array(got, want, where)
            count += 1
            continue
        assert isinstance(got, torch.Tensor), (*where, type(got))
        assert str(got.dtype) == "torch." + want["dtype"], (*where, got.dtype, want["dtype"])
        # torch derives the parts of a composite anew; their strides say nothing about the file
        derived = any(c.startswith("#") for c in want["path"])
        if want["shape"] is not None:
            assert list(got.shape) == want["shape"], (*where, got.shape, want["shape"])
        if want["stride"] is not None and not derived:
            assert list(got.stride()) == want["stride"], (*where, got.stride(), want["stride"])
        if want["layout"] == "strided" and not derived:
            assert got.storage_offset() == want["storage_offset"], where
            assert got.requires_grad == want["requires_grad"], (*where, got.requires_grad)
        if want["sha256"]:
            assert hashlib.sha256(_tensor_bytes(got)).hexdigest() == want["sha256"], (*where, "bytes differ")
        count += 1
    return count


def _check_array(got: Any, want: Json, where: Any) -> None:
    array = np.asarray(got)
    assert array.dtype.newbyteorder("=").name == want["dtype"], (*where, array.dtype, want["dtype"])
    assert list(array.shape) == want["shape"], (*where, array.shape, want["shape"])
    if array.size > 1:
        assert [s // array.itemsize for s in array.strides] == want["stride"], (*where, array.strides, want["stride"])
    little = array.astype(array.dtype.newbyteorder("<"))
    assert hashlib.sha256(little.tobytes()).hexdigest() == want["sha256"], (*where, "bytes differ")


def weights_only_loads(path: str) -> bool:
    try:
        torch.load(path, weights_only=True, map_location="cpu")
    except Exception:
        return False
    return True


def weights_only_outcome(path: str) -> str | None:
    """What torch.load(weights_only=True) does with a hostile file, tried in a child process with a time limit."""
    if not hasattr(os, "fork"):
        return None
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        import resource
        import signal

        try:
            os.close(read_end)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(20)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                torch.load(path, weights_only=True, map_location="cpu")
                outcome = "ok"
            except BaseException as x:
                outcome = type(x).__name__
            os.write(write_end, outcome.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, 200)
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    return answer.decode() or (f"killed by signal {status & 127}" if status & 127 else "no answer")
