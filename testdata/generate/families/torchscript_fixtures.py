"""TorchScript archives, and files of torch's C++ pickler."""

from __future__ import annotations

import io

import torch
from torch import nn

from ..models import Const, TSModel
from ..oracle.containers import read_torchscript
from ..oracle.torch_check import load_torchscript
from ..registry import Registry
from ..writers.torch_files import drop_debug_records, portable_sources, put
from .old_torch import old_file


def build(r: Registry) -> None:
    def ok(name, note, write):
        r.ok(f"ts/{name}", "torchscript", note, write, oracle=read_torchscript, loader=load_torchscript)

    ok("script.pt", "scripted module: tied weights, buffers, tensor attributes, list/dict attributes", _script)
    ok("traced_constants.pt", "tensor constant lives in constants.pkl + constants/0", _traced)
    ok("frozen.pt", "frozen: all weights became constants", _frozen)
    ok("lite.ptl", "lite-interpreter archive (bytecode.pkl)", _lite)
    r.ok(
        "ts/cpp_pickle_save.pt",
        "zip",
        "C++ pickler: build_tensorlist, data records before data.pkl, LONG1 ints",
        put(lambda: torch._C._pickle_save([torch.arange(2.0), torch.ones(1, dtype=torch.int64)])),
    )
    r.ok(
        "ts/cpp_dict.pt",
        "zip",
        "C++ pickler: restore_type_tag around a dict",
        put(lambda: torch._C._pickle_save({"a": torch.arange(2.0), "b": torch.zeros(2)})),
    )
    weight = {
        "name": "w",
        "dtype": "float32",
        "shape": [2, 2],
        "stride": [2, 1],
        "storage_offset": 0,
        "requires_grad": True,
        "data_offset": 384,
    }
    r.either(
        "ts/v1_modeljson.pt",
        "torchscript_v1",
        "TorchScript of torch 1.0: model.json + tensors/N",
        put(old_file("ts10")),
        category="unsupported_container",
        tensors=[weight],
    )


def _script(path: str) -> None:
    with portable_sources():
        torch.jit.save(torch.jit.script(TSModel()), path, _extra_files={"meta.json": '{"k": 1}'})


def _traced(path: str) -> None:
    torch.jit.save(torch.jit.trace(Const(), torch.ones(3)), path)
    drop_debug_records(path)  # a trace records the whole Python call stack


def _linear() -> torch.jit.ScriptModule:
    """A scripted layer in a compilation unit of its own: what it is called must not depend on other fixtures."""
    buffer = io.BytesIO()
    with portable_sources():
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def _frozen(path: str) -> None:
    torch.jit.save(torch.jit.freeze(_linear().eval()), path)


def _lite(path: str) -> None:
    _linear()._save_for_lite_interpreter(path)
