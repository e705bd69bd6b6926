"""The formats before torch 1.6: five pickles and raw storages, and before torch 0.1.10 a tar archive."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections import OrderedDict

import torch

from .. import samples
from ..models import TinyModel
from ..oracle.containers import read_legacy, read_tar
from ..oracle.torch_check import load_python2
from ..registry import Registry
from ..writers.rawpickle import Call, Pid, dumps, legacy_file, tensor
from ..writers.torch_files import put, save_legacy
from .old_torch import old_file

TEN_FLOATS = struct.pack("<q", 10) + struct.pack("<10f", *range(10))


def build(r: Registry) -> None:
    _written_by_torch(r)
    _hand_made(r)
    _damaged(r)
    r.ok("legacy/tar_v0.pt", "tar", "pre-0.1.10 tar layout (hand-made, accepted by torch)", _tar, oracle=read_tar)


def _written_by_torch(r: Registry) -> None:
    def ok(name, note, write, **options):
        r.ok(f"legacy/{name}.pth", "legacy", note, write, oracle=read_legacy, **options)

    def float8():
        return OrderedDict(f8=torch.arange(3).to(torch.float8_e5m2), f=torch.ones(2))

    ok("state_dict", "five pickles then raw storages", save_legacy(samples.state_dict))
    ok("all_dtypes", "unaligned payloads for wide dtypes", save_legacy(samples.all_dtypes))
    ok("views", "views share one storage", save_legacy(samples.views))
    ok("plain_values", "no storages at all", save_legacy(samples.plain_values))
    ok(
        "sparse_quant",
        "composite tensors",
        save_legacy(lambda: {"s": samples.sparse_coo(), "q": samples.quantized()}),
    )
    ok("module", "('module', cls, file, source) persistent ids", save_legacy(TinyModel))
    ok(
        "proto4",
        "protocol 4 everywhere (magic pickle differs)",
        save_legacy(samples.state_dict, pickle_protocol=4),
    )
    ok(
        "proto1",
        "protocol 1: file starts with the text 'L1195470...'",
        save_legacy(samples.state_dict, pickle_protocol=1),
    )
    ok(
        "float8",
        "torch writes this but cannot read it back (UntypedStorage in legacy)",
        save_legacy(float8),
        loader=None,
    )
    for name, key, note in (
        ("py2_mix", "py2_mix", "written by torch 1.0 on Python 2.7: byte strings, long numels, a non-UTF-8 string"),
        ("py2_state_dict", "py2_sd", "state dict written by torch 1.0 on Python 2.7"),
        ("py2_proto1", "py2_p1", "Python 2.7, protocol 1"),
    ):
        ok(name, note, put(old_file(key)), loader=load_python2)


def _storage(view: tuple | None = None) -> Pid:
    return Pid("storage", torch.FloatStorage, "100", "cpu", 10, view)


def _root() -> Call:
    return tensor(_storage(), 0, (10,), (1,))


def _root_only() -> OrderedDict:
    return OrderedDict(root=_root())


def _root_and_view() -> OrderedDict:
    return OrderedDict(root=_root(), view=tensor(_storage(("200", 4, 5)), 1, (3,), (1,)))


def _hand_made(r: Registry) -> None:
    def ok(name, note, data):
        r.ok(f"legacy/{name}.pth", "legacy", note, put(data), oracle=read_legacy)

    ok(
        "view_metadata",
        "storage view (view_key, offset, size): storage_offset is relative to the view, data_offset includes it",
        lambda: legacy_file(_root_and_view(), ["100"], TEN_FLOATS),
    )
    ok(
        "big_endian_sysinfo",
        "sys_info says big endian; payload is little endian all the same",
        lambda: legacy_file(_root_only(), ["100"], TEN_FLOATS, little_endian=False),
    )
    ok(
        "trailing",
        "trailing bytes after the last storage",
        lambda: legacy_file(_root_only(), ["100"], TEN_FLOATS + b"xx"),
    )


def _damaged(r: Registry) -> None:
    def error(name, note, category, data):
        r.error(f"legacy/{name}.pth", "legacy", note, put(data), category)

    def with_count(count: int, tail: bytes = b"") -> bytes:
        return legacy_file(_root_and_view(), ["100"], struct.pack("<q", count) + TEN_FLOATS[8:] + tail)

    def view_past_end() -> bytes:
        view = tensor(_storage(("200", 8, 5)), 0, (5,), (1,))
        return legacy_file(OrderedDict(v=view), ["100"], TEN_FLOATS)

    error(
        "truncated", "last byte missing", "truncated", lambda: legacy_file(_root_and_view(), ["100"], TEN_FLOATS)[:-1]
    )
    error(
        "bad_numel",
        "storage header says 11 elements, pickle says 10",
        "size_mismatch",
        lambda: with_count(11, b"\0" * 4),
    )
    error("negative_numel", "negative element count", "negative", lambda: with_count(-1))
    error("view_oob", "storage view past the end of its root", "oob_view", view_past_end)


def _tar(path: str) -> None:
    def tensor_record(key: int, storage_key: int, size: tuple, stride: tuple, offset: int) -> bytes:
        head = pickle.dumps((key, storage_key, torch.FloatTensor), 2)
        return head + struct.pack(f"<q{2 * len(size)}qq", len(size), *size, *stride, offset)

    sizes = {"short": 2, "int": 4, "long": 8}
    system = pickle.dumps({"protocol_version": 1000, "little_endian": True, "type_sizes": sizes}, 2)
    tensors = pickle.dumps(2, 2)
    tensors += tensor_record(11, 21, (2, 3), (3, 1), 0)
    tensors += tensor_record(12, 22, (2,), (1,), 1)
    storages = pickle.dumps(1, 2) + pickle.dumps((21, "cpu", torch.FloatStorage), 2)
    storages += struct.pack("<q6f", 6, *range(6))
    storages += pickle.dumps([(22, 21, 3, 3)], 2)  # storage 22: three elements of storage 21, from the fourth
    members = {
        "sys_info": system,
        "pickle": dumps(OrderedDict(w=Pid("11"), v=Pid("12"), st=Pid("21"))),
        "tensors": tensors,
        "storages": storages,
    }
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
