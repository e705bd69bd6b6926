"""Plain pickles of objects that hold tensors: what pickle.dump writes, without the header of torch.save."""

from __future__ import annotations

import collections
import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from ..models import Opaque, TinyModel
from ..oracle.containers import read_legacy, read_pickle
from ..oracle.torch_check import load_pickle
from ..registry import Registry
from ..writers.rawpickle import Call, dumps, legacy_file
from ..writers.torch_files import put, stable_storage_keys


def build(r: Registry) -> None:
    def ok(name, note, data, loader=load_pickle, container="pickle", oracle=read_pickle):
        r.ok(f"pickle/{name}", container, note, put(data), oracle=oracle, loader=loader)

    for protocol in range(6):
        ok(
            f"mix_p{protocol}.pkl",
            f"tensors, a module and an array, protocol {protocol}",
            lambda p=protocol: _dump(_mix(), p),
        )
    ok("storages.pkl", "bare storages", lambda: _dump([torch.arange(3.0).storage()], 4), loader=None)
    ok("ancient.pkl", "before torch 0.2: tensors and storages are lists of numbers", lambda: _ancient(3), loader=None)
    ok("ancient_p0.pkl", "the same in protocol 0", lambda: _ancient(0), loader=None)
    ok("nested_zip.pkl", "a storage as a nested zip archive, which no torch writes but every torch reads", _nested_zip)
    ok("python2.pkl", "Python 2, protocol 0: an escaped byte string in quotes", lambda: PYTHON_2, loader=None)
    ok(
        "in_legacy.pth",
        "a nested file inside a legacy file",
        _in_legacy,
        loader=None,
        container="legacy",
        oracle=read_legacy,
    )
    r.error(
        "other/raw_pickle_p0.pkl",
        "other",
        "protocol 0 pickle without tensors",
        put(lambda: pickle.dumps({"a": 1}, 0)),
        "not_torch",
    )
    r.error("pickle/truncated.pkl", "pickle", "last byte missing", put(lambda: _dump(_mix(), 4)[:-1]), "truncated")
    r.error("pickle/broken_nested.pkl", "pickle", "the nested file is cut off", put(_broken_nested), "truncated")


def _dump(obj: Any, protocol: int) -> bytes:
    with stable_storage_keys():
        return pickle.dumps(obj, protocol)


def _mix() -> dict:
    # No zero bytes at the end and no two storages of one content: the oracle finds bytes by what they are.
    base = torch.arange(1.0, 7.0)
    shared = torch.tensor([3, 400])
    model = TinyModel()
    return {
        "w": torch.tensor([[0.5, -1.25], [3.0, 1e30]]),
        "view": base.view(2, 3).t(),
        "p": torch.nn.Parameter(torch.tensor([1.5, -2.5])),
        "h": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "alias": [shared, shared],
        "module": model.blocks[0],
        "arr": np.arange(7, 10, dtype=np.int16),
        "epoch": 3,
        "object": Opaque(t=torch.tensor([9.0])),
    }


def _ancient(protocol: int) -> bytes:
    weight = Call(torch.FloatTensor, [[0.5, 1.5, 2.5], [-1.0, 3.0, 1e-3]])
    storage = Call(torch.DoubleStorage, [1.0, 2.0, 3.0, 4.0])
    return dumps(
        OrderedDict(
            w=weight,
            p=Call(torch.nn.Parameter, Call(torch.FloatTensor, [0.25]), state=(True, False, OrderedDict())),
            i=Call(torch.LongTensor, [1, 300, -70000, 1 << 40]),
            b=Call(torch.ByteTensor, [[[255]]]),
            e=Call(torch.FloatTensor, []),
            v=Call(torch._utils._rebuild_tensor, storage, 1, (2,), (2,)),
        ),
        protocol,
    )


def _nested_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.arange(1.0, 4.0).storage(), buffer)
    storage = Call(torch.storage._load_from_bytes, buffer.getvalue())
    hooks: dict = collections.OrderedDict()
    return dumps({"x": Call(torch._utils._rebuild_tensor_v2, storage, 0, (3,), (1,), False, hooks)}, 4)


def _nested_tensor() -> Call:
    with stable_storage_keys():
        (_, (storage, *rest)) = torch.tensor([1.0, 2.0]).__reduce_ex__(2)
        function, args = storage.__reduce__()
    return Call(torch._utils._rebuild_tensor_v2, Call(function, *args), *rest)


def _in_legacy() -> bytes:
    return legacy_file({"x": _nested_tensor()}, [], b"")


def _broken_nested() -> bytes:
    storage = Call(torch.storage._load_from_bytes, _nested_tensor().args[0].args[0][:-1])
    return dumps({"x": Call(torch._utils._rebuild_tensor_v2, storage, 0, (2,), (1,), False, OrderedDict())}, 4)


# {"arr": numpy.array([1, 16767, 92, 10], dtype="<i2")} as Python 2.7 and numpy 1.16 write it
PYTHON_2 = rb"""(dp0
S'arr'
p1
cnumpy.core.multiarray
_reconstruct
p2
(cnumpy
ndarray
p3
(I0
tp4
S'b'
p5
tp6
Rp7
(I1
(I4
tp8
cnumpy
dtype
p9
(S'i2'
p10
I0
I1
tp11
Rp12
(I3
S'<'
p13
NNNI-1
I-1
I0
tp14
bI00
S'\x01\x00\x7fA\\\x00\n\x00'
p15
tp16
bs."""
