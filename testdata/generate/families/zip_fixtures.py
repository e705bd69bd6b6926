"""Good checkpoints in the zip format: what objects, tensors and values may look like."""

from __future__ import annotations

import itertools
import zipfile
from collections import OrderedDict
from typing import BinaryIO
from unittest import mock

import numpy as np
import torch
from torch import nn

from .. import samples
from ..models import TinyModel
from ..registry import Registry
from ..writers.rawpickle import Call, four_floats, mini_zip
from ..writers.rawzip import Member, raw_zip
from ..writers.torch_files import Skip, put, save, zip_bytes
from .old_torch import old_file


def build(r: Registry) -> None:
    _structure(r)
    _tensors(r)
    _composites(r)
    _values(r)
    for name, key in (("zip/real_1_6_state_dict.pth", "z16_sd"), ("zip/real_1_6_mix.pth", "z16_mix")):
        note = "written by torch 1.6.0: pointer-valued storage keys, root 'archive'"
        r.ok(name, "zip", note, put(old_file(key)))


def numbered(count: int) -> OrderedDict:
    return OrderedDict((f"t{i}", torch.full((2,), float(i))) for i in range(count))


def _structure(r: Registry) -> None:
    def nested_tuple():
        return {"a": [torch.arange(2.0), (torch.ones(1), {"b": torch.zeros(2)})]}, "x"

    def buffer_root(path: str) -> None:
        put(zip_bytes({"x": torch.arange(3.0)}).getvalue())(path)

    r.ok("zip/state_dict.pt", "zip", "OrderedDict state_dict with _metadata attribute", save(samples.state_dict))
    r.ok(
        "zip/single_tensor.pt",
        "zip",
        "root object is a tensor (name is the empty string)",
        save(lambda: torch.arange(3.0)),
    )
    r.ok("zip/list_root.pt", "zip", "root object is a list", save(lambda: [torch.arange(2.0), 5, torch.ones(1)]))
    r.ok("zip/tuple_nested.pt", "zip", "nested tuples, lists, dicts", save(nested_tuple))
    r.ok("zip/no_tensors.pt", "zip", "checkpoint without any tensor", save(lambda: {"epoch": 3, "name": "x"}))
    r.ok("zip/empty_dict.pt", "zip", "empty dict root", save(dict))
    r.ok("zip/name.with.dots.pt", "zip", "archive root is 'name.with.dots'", save(lambda: torch.ones(1)))
    r.ok("zip/buffer_root.pt", "zip", "written through a buffer: archive root is 'archive'", buffer_root)
    r.ok(
        "zip/odd_keys.pt",
        "zip",
        "non-string dict keys; a dotted key colliding with a nested path",
        save(samples.odd_keys),
    )
    r.ok(
        "zip/weird_names.pt",
        "zip",
        "keys with slash, .., NUL, newline, non-ascii, 300 chars",
        save(samples.weird_names),
    )
    r.ok("zip/alias.pt", "zip", "same tensor object three times, same list twice", save(samples.alias))
    r.ok("zip/recursive.pt", "zip", "self-referencing list, dict, tuple", save(samples.recursive), loader=None)
    r.ok(
        "zip/many_tensors.pt",
        "zip",
        "300 tensors: storage keys above one digit",
        save(lambda: numbered(300)),
    )


def _tensors(r: Registry) -> None:
    def expanded():
        return OrderedDict(e=torch.arange(2.0).view(2, 1).expand(2, 50), one=torch.ones(1).expand(1000, 20))

    def channels_last():
        return {"x": torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)}

    def locations(path: str) -> None:
        tags = itertools.cycle(["cuda:1", "mps", "xpu:0", "hpu", "cpu"])
        with mock.patch("torch.serialization.location_tag", lambda storage: next(tags)):
            torch.save(numbered(5), path)

    r.ok("zip/all_dtypes.pt", "zip", "one tensor per typed-storage dtype", save(samples.all_dtypes))
    r.ok(
        "zip/v3_dtypes.pt",
        "zip",
        "dtypes that use _rebuild_tensor_v3 + UntypedStorage (numel counts bytes)",
        save(samples.v3_dtypes),
    )
    r.ok(
        "zip/views.pt",
        "zip",
        "many views of one storage: offset, step, transpose, block, empty tail",
        save(samples.views),
    )
    r.ok("zip/expand.pt", "zip", "stride-0 tensors", save(expanded))
    r.ok(
        "zip/expand_huge.pt",
        "zip",
        "stride-0 tensor of 2^40 elements over a 4-byte storage (valid!)",
        save(lambda: {"x": torch.ones(1).expand(1 << 20, 1 << 20)}),
    )
    r.ok(
        "zip/scalars_empties.pt",
        "zip",
        "0-dim tensors, zero-element tensors, zero-byte storages",
        save(samples.scalars_and_empties),
    )
    r.ok(
        "zip/small_view_big_storage.pt",
        "zip",
        "5-element slice keeps its 10000-element storage",
        save(lambda: {"v": torch.arange(10000)[100:105]}),
    )
    r.ok("zip/channels_last.pt", "zip", "channels-last strides", save(channels_last))
    r.ok(
        "zip/size1_strides.pt",
        "zip",
        "arbitrary strides on size-1 dimensions are contiguous",
        save(lambda: {"x": torch.arange(4.0).as_strided((1, 4, 1), (999, 1, 77))}),
    )
    r.ok(
        "zip/grads_params.pt",
        "zip",
        "requires_grad, Parameter, Parameter with attributes, tensor attributes",
        save(samples.grads),
    )
    r.ok("zip/conj_neg.pt", "zip", "conj and neg bits in the metadata dict; complex views", save(samples.conj_neg))
    r.ok("zip/cuda_location.pt", "zip", "location tags cuda:1 / mps / meta-like strings on CPU data", locations)
    r.ok(
        "zip/storages.pt",
        "zip",
        "bare typed and untyped storages",
        save(lambda: [torch.arange(3.0).storage(), torch.arange(4, dtype=torch.uint8).untyped_storage()]),
        loader=None,
    )


def _composites(r: Registry) -> None:
    def nested_jagged():
        return {"j": torch.nested.nested_tensor([torch.ones(2, 2), torch.zeros(3, 2)], layout=torch.jagged)}

    def meta():
        return {"m": torch.empty(2, 3, device="meta"), "p": nn.Parameter(torch.empty(4, device="meta"))}

    def masked(path: str) -> None:
        try:
            t = torch.masked.masked_tensor(torch.arange(2.0), torch.tensor([True, False]))
            torch.save({"m": t}, path)
        except Exception as error:
            raise Skip(repr(error)) from error

    r.ok("zip/sparse_coo.pt", "zip", "COO: uncoalesced, coalesced, hybrid, nnz 0", save(samples.sparse_coo))
    r.ok("zip/sparse_compressed.pt", "zip", "CSR, CSC, BSR, BSC", save(samples.sparse_compressed))
    r.ok(
        "zip/quantized.pt",
        "zip",
        "per-tensor, per-channel, float qparams (saved as per_channel_affine), packed 4-bit",
        save(samples.quantized),
    )
    r.ok(
        "zip/nested_strided.pt",
        "zip",
        "strided nested tensor",
        save(lambda: torch.nested.nested_tensor([torch.arange(2.0), torch.arange(3.0)])),
    )
    r.ok("zip/nested_jagged.pt", "zip", "jagged nested tensor (subclass)", save(nested_jagged), loader=None)
    r.ok("zip/meta.pt", "zip", "meta tensors: no storage, no data", save(meta), loader=None)
    r.ok("zip/subclass.pt", "zip", "plain tensor subclass and Parameter of one", save(samples.subclasses))
    r.ok(
        "zip/wrapper_subclass.pt",
        "zip",
        "wrapper subclass (MaskedTensor): data only in inner tensors",
        masked,
        loader=None,
    )


def _arrays(r: Registry) -> None:
    def transposed(path: str) -> None:
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2)
        torch.save({"k": array}, path, pickle_protocol=5)

    def old_numpy(path: str) -> None:
        names = [(b"numpy._core.multiarray", b"numpy.core.multiarray")]
        renamed(zip_bytes({"arr": np.arange(3, dtype="<f8"), "s": np.float32(0.5)}), path, names)

    def from_device():
        floats, longs = np.arange(1, 4, dtype=np.float32), np.array([[7, 8]])
        return {
            "xla": Call(torch._utils._rebuild_xla_tensor, floats, torch.float32, "cpu", True),
            "ort": Call(torch._utils._rebuild_device_tensor_from_numpy, longs, torch.int64, "cpu", False),
        }

    r.ok(
        "zip/numpy_dtypes.pt",
        "zip",
        "arrays of every dtype; of text, dates, objects, records: objects",
        save(samples.array_dtypes),
    )
    r.ok("zip/numpy_axes.pt", "zip", "protocol 5 keeps the order of dimensions apart (numpy 2.3)", transposed)
    r.ok("zip/numpy_old.pt", "zip", "modules as numpy before 2.0 names them", old_numpy)
    r.ok(
        "zip/numpy_big_endian.pt",
        "zip",
        "a file of big-endian storages: arrays keep the order of their own dtype",
        put(
            lambda: mini_zip(
                {"t": four_floats(), "le": np.arange(1, 3, dtype="<i4"), "be": np.arange(3, 5, dtype=">i4")},
                extra=[("byteorder", b"big")],
            )
        ),
    )
    r.ok(
        "zip/device_from_numpy.pt",
        "zip",
        "XLA and other devices: tensors saved as numpy arrays",
        put(lambda: mini_zip(from_device(), {})),
    )


def renamed(archive: BinaryIO, path: str, names: list[tuple[bytes, bytes]]) -> None:
    """Copies an archive with other names in its pickle."""

    def edit(data: bytes) -> bytes:
        for old, new in names:
            data = data.replace(old, new)
        return data

    with zipfile.ZipFile(archive) as old:
        root = old.namelist()[0].split("/")[0]
        content = {name[len(root) + 1 :]: old.read(name) for name in old.namelist()}
    members = [Member(f"{root}/{name}", edit(data) if name == "data.pkl" else data) for name, data in content.items()]
    put(raw_zip(members))(path)


def _values(r: Registry) -> None:
    r.ok(
        "zip/plain_values.pt",
        "zip",
        "every plain value type incl. big ints (LONG4), surrogate string, b''",
        save(samples.plain_values),
    )
    r.ok(
        "zip/module.pt",
        "zip",
        "whole nn.Module pickled: tied parameter, None parameter, non-persistent buffer",
        save(TinyModel),
    )
    r.ok("zip/optimizer.pt", "zip", "AdamW state dict (int keys) next to a model state dict", save(samples.optimizer))
    r.ok("zip/lightning.ckpt", "zip", "Lightning checkpoint layout", save(samples.lightning))
    r.ok("zip/numpy.pt", "zip", "numpy arrays/scalars/dtypes inside", save(samples.numpy_objects))
    r.ok(
        "zip/numpy_p5.pt",
        "zip",
        "numpy through protocol 5 (_frombuffer + BYTEARRAY8)",
        save(samples.numpy_objects, pickle_protocol=5),
    )
    _arrays(r)
    r.ok(
        "zip/objects.pt",
        "zip",
        "arbitrary classes, functions, namedtuple, defaultdict ... tensors inside must be found",
        save(samples.objects),
        loader=None,
    )
    for protocol in (1, 3, 4, 5):
        r.ok(
            f"zip/proto{protocol}.pt",
            "zip",
            f"pickle protocol {protocol}",
            save(samples.protocol_mix, pickle_protocol=protocol),
        )
    r.ok(
        "zip/long_memo.pt",
        "zip",
        "more than 256 memo entries, >1000-item list and dict (batched), long strings",
        save(samples.long_memo),
    )
