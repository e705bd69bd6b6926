"""torch.package archives and torch.export (.pt2) archives."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from ..models import ExportModel, MyTensor
from ..oracle.containers import read_old_pt2, read_package, read_pt2
from ..oracle.torch_check import load_compiled, load_package, load_pt2
from ..registry import Registry
from ..writers.rawzip import Member, raw_zip
from ..writers.torch_files import Skip, put, zip_bytes


def build(r: Registry) -> None:
    r.ok(
        "pkg/package.pt",
        "package",
        "torch.package: <pkg>/<res>.pkl with .data/N.storage records, int keys, protocol 3",
        _package,
        oracle=read_package,
        loader=load_package,
    )
    r.ok(
        "pkg/export.pt2",
        "pt2",
        "ExportedProgram archive: weights config JSON + raw blobs",
        _export,
        oracle=read_pt2,
        loader=load_pt2,
    )
    note = "torch 2.1 to 2.7: whole checkpoints at the top of the archive, which has no root folder"
    r.ok("pkg/export_old.pt2", "pt2", note, put(_old), oracle=read_old_pt2, loader=None)
    note = "the same, deflated: its tensors have no place in the file"
    r.error("pkg/export_old_deflated.pt2", "pt2", note, put(lambda: _old(zipfile.ZIP_DEFLATED)), "compressed")
    note = "first files of torch 2.8: whole checkpoints in data/weights and data/constants"
    r.ok("pkg/export_early.pt2", "pt2", note, put(_early), oracle=read_pt2, loader=None)
    note = "two models; a tensor subclass is pickled as an archive of its own"
    r.ok("pkg/export_two_models.pt2", "pt2", note, put(_two_models), oracle=read_pt2, loader=None)
    note = "AOTInductor: weights beside compiled code, views into pickled tensors that two models share"
    r.ok("pkg/compiled.pt2", "pt2", note, _compiled, oracle=read_pt2, loader=load_compiled)
    note = "AOTInductor: compiled code alone"
    code = {"data/aotinductor/model/x.wrapper.so": b"\x7fELF"}
    r.error("pkg/compiled_code.pt2", "pt2", note, put(lambda: _archive(code)), "no tensors")
    note = "AOTInductor: files of weights that are missing, damaged, empty and of no tensor; one beside the model"
    r.either("pkg/compiled_broken.pt2", "pt2", note, put(_compiled_broken))


def _package(path: str) -> None:
    from torch.package import PackageExporter

    with PackageExporter(path) as exporter:
        exporter.extern("**")
        weights = {"w": torch.arange(4.0), "h": torch.ones(2, dtype=torch.bfloat16)}
        exporter.save_pickle("model", "model.pkl", weights)
        exporter.save_text("model", "notes.txt", "hi")


def _saved(obj: Any) -> bytes:
    return zip_bytes(obj).getvalue()


def _weights() -> OrderedDict:
    weight = nn.Parameter(torch.arange(6.0).view(2, 3))
    return OrderedDict([("lin.weight", weight), ("lin.bias", nn.Parameter(torch.ones(2))), ("tied", weight)])


def _old(compression: int = zipfile.ZIP_STORED) -> bytes:
    """As torch.export.save of torch 2.4 lays it out."""
    buffer = io.BytesIO()
    members = {
        "serialized_exported_program.json": b'{"schema_version": {"major": 7, "minor": 3}}',
        "serialized_state_dict.pt": _saved(_weights()),
        "serialized_constants.pt": _saved({"c": torch.tensor([7, 8])}),
        "serialized_example_inputs.pt": _saved(((torch.full((1, 3), 2.0),), {"k": torch.zeros(1)})),
        "version": b"7.3",
        "extra_files/note.txt": b"x",
    }
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (2024, 7, 1, 0, 0, 0))
            info.compress_type = compression
            archive.writestr(info, data)
    return buffer.getvalue()


def _archive(members: dict[str, bytes]) -> bytes:
    facts = {"archive_format": b"pt2", "archive_version": b"0", ".data/version": b"6\n", "byteorder": b"little"}
    return raw_zip(Member(f"package/{name}", data) for name, data in {**members, **facts}.items())


def _early() -> bytes:
    return _archive(
        {
            "models/model.json": b"{}",
            "data/weights/model.pt": _saved(_weights()),
            "data/constants/model.pt": b"",
            "data/sample_inputs/model.pt": _saved(((torch.full((1, 3), 2.0),), {})),
        }
    )


def _two_models() -> bytes:
    def config(**weights: Any) -> bytes:
        return json.dumps({"config": weights}).encode()

    def weight(path_name: str, sizes: list[int], strides: list[int], is_pickled: bool = False) -> dict:
        def as_int(value: int) -> dict:
            return {"as_int": value}

        meta = {
            "dtype": 7,
            "sizes": [as_int(n) for n in sizes],
            "requires_grad": False,
            "device": {"type": "cpu", "index": None},
            "strides": [as_int(n) for n in strides],
            "storage_offset": as_int(0),
            "layout": 7,
        }
        return {"path_name": path_name, "is_param": False, "use_pickle": is_pickled, "tensor_meta": meta}

    raw = torch.arange(4.0).numpy().tobytes()
    return _archive(
        {
            "models/model_a.json": b"{}",
            "models/model_b.json": b"{}",
            "data/weights/weight_0": _saved(torch.arange(2.0).as_subclass(MyTensor)),
            "data/weights/weight_1": raw,
            "data/weights/model_a_weights_config.json": config(
                s=weight("weight_0", [2], [1], True), w=weight("weight_1", [2, 2], [2, 1])
            ),
            "data/weights/model_b_weights_config.json": config(w=weight("weight_1", [2, 2], [1, 2])),
            "data/constants/tensor_0": _saved(torch.full((1,), 5.0).as_subclass(MyTensor)),
            "data/constants/opaque_obj_0": b"\x80\x02}.",
            "data/constants/model_a_constants_config.json": config(
                c=weight("tensor_0", [1], [1], True),
                o={"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None},
            ),
            "data/constants/model_b_constants_config.json": config(),
            "data/sample_inputs/model_a.pt": _saved(((torch.full((2,), 3.0),), {})),
            "data/sample_inputs/model_b.pt": _saved(((), {})),
        }
    )


def _compiled(path: str) -> None:
    """As torch packs what AOTInductor compiled, without the compiler."""
    try:
        from torch.export.pt2_archive._package import package_pt2
        from torch.export.pt2_archive._package_weights import TensorProperties, Weights
    except ImportError:
        raise Skip("needs torch.export.pt2_archive") from None

    def weights(**tensors: torch.Tensor) -> Weights:
        return Weights({name: (tensor, TensorProperties(tensor)) for name, tensor in tensors.items()})

    whole, half = torch.arange(12.0).view(3, 4), torch.arange(3.0).bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        code = os.path.join(folder, "x.wrapper.so")
        with open(code, "wb") as f:
            f.write(b"\x7fELF")
        model_a = weights(weight=whole, row=whole[0], tied=whole, half=half)
        model_b = weights(last=whole[1:], param=nn.Parameter(torch.ones(2)))
        package_pt2(path, aoti_files={"model_a": [code, model_a], "model_b": [code, model_b]})


def _compiled_broken() -> bytes:
    def config(**files: str) -> bytes:
        return json.dumps({name: [file, [2], [1], 0] for name, file in files.items()}).encode()

    names = ("missing", "cut", "empty", "value")
    return _archive(
        {
            "models/model.json": b"{}",
            "data/aotinductor/model/weights_config.json": config(
                fine="weight_0", **{name: name for name in names}, cut_too="cut", beside="weight_1"
            ),
            "data/weights/weight_0": _saved(torch.arange(2.0)),
            "data/weights/cut": _saved(torch.arange(2.0))[:-30],
            "data/weights/empty": b"",
            "data/weights/value": _saved({"a": 1}),
            "data/aotinductor/model/weight_1": _saved(torch.arange(3.0)),
        }
    )


def _export(path: str) -> None:
    try:
        import torch.export.pt2_archive
    except ImportError:
        raise Skip("needs torch.export.pt2_archive") from None
    program = torch.export.export(ExportModel(), (torch.ones(1, 2),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names source files by absolute path
    torch.export.save(program, path, extra_files={"note.txt": "x"})
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("_weights_config.json") for name in archive.namelist()):
            raise Skip("older .pt2 layout")
