"""Objects that fixtures contain.  Each function returns a fresh object with fixed values."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import io
import pathlib
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

from .models import MyTensor, Opaque, Pair, TensorHolder

# --------------------------------------------------------------------------- tensors


def full(value: float) -> torch.Tensor:
    """One element that tells this tensor from its neighbours."""
    return torch.full((1,), float(value))


def state_dict() -> OrderedDict:
    d = OrderedDict(
        [
            ("layer.weight", torch.arange(6.0).view(2, 3)),
            ("layer.bias", torch.tensor([0.5, -0.5])),
            ("bn.num_batches_tracked", torch.tensor(7)),
        ]
    )
    d._metadata = OrderedDict([("", {"version": 1}), ("layer", {"version": 1})])
    return d


def three_tensors() -> OrderedDict:
    return OrderedDict(a=torch.arange(1.0, 9.0), b=torch.arange(3), c=torch.arange(5, dtype=torch.uint8))


def mixed_widths() -> OrderedDict:
    return OrderedDict(
        f=torch.arange(3.0),
        u=torch.arange(5, dtype=torch.uint8),
        z=torch.zeros(0),
        d=torch.arange(2, dtype=torch.float64),
        h=torch.ones(3, dtype=torch.float16),
    )


def all_dtypes() -> OrderedDict:
    names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex128 complex64"
    return OrderedDict((n, torch.arange(5).to(getattr(torch, n))) for n in names.split())


def v3_dtypes() -> OrderedDict:
    names = (
        "uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
        "float4_e2m1fn_x2 bits8 bits16 bits1x8 bits2x4 bits4x2 complex32 bcomplex32"
    )
    result = OrderedDict()
    for name in names.split():
        dtype = getattr(torch, name, None)
        if dtype is None:
            continue
        t = torch.arange(1, 1 + 3 * dtype.itemsize, dtype=torch.uint8).view(dtype)
        try:
            torch.save(t, io.BytesIO())
        except KeyError:  # known to this torch, but not to its serialization
            continue
        result[name] = t
    return result


def views() -> OrderedDict:
    base = torch.arange(24.0)
    mat = base.view(4, 6)
    return OrderedDict(
        base=base,
        slice=base[3:9],
        step=base[1::5],
        mat=mat,
        mat_t=mat.t(),
        block=mat[1:3, 2:5],
        col=mat[:, 1],
        last=base[23:],
        none=base[24:],
    )


def alias() -> OrderedDict:
    t, shared = torch.arange(3.0), [torch.ones(1)]
    return OrderedDict(x=t, y=t, l1=shared, l2=shared, z=[t])


def scalars_and_empties() -> OrderedDict:
    return OrderedDict(
        s=torch.tensor(5.0),
        i=torch.tensor(3),
        e=torch.zeros(0),
        e2=torch.zeros(2, 0, 3),
        e3=torch.zeros(0, 3).t(),
        one=torch.ones(1, 1, 1),
    )


def grads() -> OrderedDict:
    with_state = nn.Parameter(torch.arange(2.0))
    with_state.tag = "hello"
    with_attribute = torch.arange(2.0)
    with_attribute.note = {"k": torch.ones(1)}
    return OrderedDict(
        leaf=torch.ones(2, requires_grad=True),
        param=nn.Parameter(torch.arange(3.0)),
        param_frozen=nn.Parameter(torch.arange(3.0), requires_grad=False),
        param_state=with_state,
        attr=with_attribute,
    )


def conj_neg() -> OrderedDict:
    c = torch.tensor([1 + 2j, 3 - 4j])
    return OrderedDict(
        base=c,
        conj=c.conj(),
        neg=torch._neg_view(torch.tensor([1.0, 2.0])),
        conj_imag=torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        real_view=torch.view_as_real(torch.tensor([5 + 6j])),
    )


def sparse_coo() -> dict:
    i, v = torch.tensor([[0, 1, 1], [1, 0, 0]]), torch.tensor([3.0, 4.0, 5.0])
    return {
        "uncoalesced": torch.sparse_coo_tensor(i, v, (2, 3)),
        "coalesced": torch.sparse_coo_tensor(i[:, :2], v[:2], (2, 3)).coalesce(),
        "hybrid": torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.arange(6.0).view(2, 3), (4, 3)),
        "nnz0": torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (2, 3)),
    }


def sparse_compressed() -> dict:
    d = torch.zeros(4, 4)
    d[0, 1], d[2, 3], d[3, 0] = 1.0, 2.0, 3.0
    return {
        "csr": d.to_sparse_csr(),
        "csc": d.to_sparse_csc(),
        "bsr": d.to_sparse_bsr((2, 2)),
        "bsc": d.to_sparse_bsc((2, 2)),
    }


def quantized() -> dict:
    x, wide = torch.linspace(-1, 1, 6).view(2, 3), torch.linspace(-1, 1, 8).view(2, 4)
    scales = torch.tensor([0.1, 0.2])
    return {
        "quint8": torch.quantize_per_tensor(x, 0.1, 3, torch.quint8),
        "qint8": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        "qint32": torch.quantize_per_tensor(x, 0.001, 0, torch.qint32),
        "per_channel": torch.quantize_per_channel(x, scales, torch.tensor([0, 1]), 0, torch.qint8),
        "float_qparams": torch.quantize_per_channel(wide, scales.clone(), torch.tensor([0.0, 1.0]), 0, torch.quint4x2),
    }


def subclasses() -> dict:
    return {
        "s": torch.arange(2.0).as_subclass(MyTensor),
        "p": nn.Parameter(torch.arange(2.0).as_subclass(MyTensor)),
    }


# --------------------------------------------------------------------------- everything else


def odd_keys() -> OrderedDict:
    return OrderedDict(
        [
            (0, full(0)),
            ((1, 2), full(1)),
            (None, 1),
            (True, full(2)),
            (1.5, 3),
            ("a.b", full(4)),
            ("a", {"b": full(5)}),
            ("", full(6)),
        ]
    )


def weird_names() -> OrderedDict:
    names = ["../../etc/passwd", "/abs", "nul\0x", "new\nline", "日本", "x" * 300, "C:\\x", "\x1b[31m"]
    return OrderedDict((name, full(i)) for i, name in enumerate(names))


def plain_values() -> OrderedDict:
    small = [0, 1, 255, 256, 65535, 65536]
    around_limits = [2**31 - 1, 2**31, -1, -(2**31), -(2**31) - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 2**100]
    return OrderedDict(
        ints=small + around_limits,
        long4=1 << 3000,
        floats=[0.0, -0.0, 1e-310, float("inf"), float("-inf"), float("nan"), 0.1],
        strs=["", "é", "日本", "a\nb", "nul\0x", "x" * 300],
        surrogate="\ud800x",
        bytes=[b"", b"\x00\xff", b"z" * 300],
        bytearray=bytearray(b"\xfe"),
        none=None,
        bools=(True, False),
        tuples=[(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        set={1, 2},
        frozenset=frozenset(["a"]),
        complex=1 - 2j,
        slice=slice(1, None, 2),
        range=range(0, 10, 3),
        dtype=torch.bfloat16,
        size=torch.Size([2, 3]),
        device=torch.device("cuda:1"),
        nested={"a": [{"b": ({"c": 1},)}]},
    )


def protocol_mix() -> OrderedDict:
    """Values whose opcodes differ between pickle protocols."""
    values = {
        "a": (1, 2, 3, 4),
        "f": False,
        "i": 70000,
        "big": 2**70,
        "s": {3},
        "fs": frozenset([1]),
        "b": b"xyz",
        "ba": bytearray(b"q"),
        "n": None,
        "fl": 1.5,
    }
    return OrderedDict(w=torch.arange(4.0), m=values)


def long_memo() -> OrderedDict:
    return OrderedDict(
        d={f"key_{i}": i for i in range(1500)},
        l=list(range(2500)),
        s="y" * 70000,
        t=torch.arange(3.0),
        again="key_1499",
    )


def objects() -> OrderedDict:
    slots = TensorHolder()
    slots.t, slots.n = torch.ones(2), 3
    return OrderedDict(
        ns=argparse.Namespace(lr=0.1, t=torch.arange(2.0)),
        path=pathlib.PurePosixPath("/a/b"),
        opaque=Opaque(w=torch.arange(3.0), k={"z": torch.zeros(1)}),
        slots=slots,
        pair=Pair(1, torch.ones(1)),
        date=datetime.datetime(2020, 1, 2),
        partial=functools.partial(int, base=2),
        func=torch.nn.functional.relu,
        cls=collections.Counter,
        counter=collections.Counter("aab"),
        dd=collections.defaultdict(list, {"k": [torch.ones(1)]}),
        deque=collections.deque([1, 2], 5),
        method=torch.relu,
        gen=None,
    )


def recursive() -> OrderedDict:
    loop: list[Any] = [1]
    loop.append(loop)
    d: dict[str, Any] = {"k": torch.ones(1)}
    d["self"] = d
    inner: list[Any] = [2]
    tup = (inner, 3)
    inner.append(tup)
    shared = {"x": 1}
    return OrderedDict(list=loop, dict=d, tuple=tup, shared1=shared, shared2=shared)


def optimizer() -> dict:
    model = nn.Linear(2, 2)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 2)).sum().backward()
    adamw.step()
    return {"model": model.state_dict(), "optimizer": adamw.state_dict(), "epoch": 3}


def lightning() -> dict:
    state = optimizer()
    checkpoint = {"best_model_score": torch.tensor(0.25), "best_model_path": ""}
    return {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state["model"],
        "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": checkpoint},
        "optimizer_states": [state["optimizer"]],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "name": "x"},
    }


def numpy_objects() -> OrderedDict:
    return OrderedDict(
        arr=np.arange(6, dtype="<f4").reshape(2, 3),
        fortran=np.asfortranarray(np.arange(4.0).reshape(2, 2)),
        be=np.arange(3, dtype=">i4"),
        scalar=np.float64(2.5),
        dtype=np.dtype("int16"),
        zero_d=np.array(3),
        t=torch.ones(2),
    )


def array_dtypes() -> OrderedDict:
    names = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128"
    arrays = OrderedDict((name, (np.arange(5) * (1 + i)).astype(name)) for i, name in enumerate(names.split()))
    arrays["big"] = np.array([1.5, 2.5], dtype=">c16")
    arrays["empty"] = np.zeros((2, 0, 3))
    arrays["cut"] = np.arange(12, dtype=np.int32).reshape(3, 4)[:, 1:3]
    arrays["flag"] = np.bool_(True)
    arrays["matrix"] = np.matrix([[1, 2], [3, 9]])
    arrays["text"] = np.array(["a", "bc"])
    arrays["bytes"] = np.array([b"a", b"bc"])
    arrays["date"] = np.array(["2020-01-01"], dtype="datetime64[D]")
    arrays["record"] = np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")])
    arrays["objects"] = np.array([torch.ones(1), "x"], dtype=object)
    arrays["long"] = np.frombuffer(bytes(16), dtype=np.longdouble)  # set, its padding would be anything
    return arrays
