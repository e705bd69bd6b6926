"""Turns stub objects that stand for a call of one of torch's rebuild functions into tensor descriptions."""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .dtypes import DTYPE_SIZE, STORAGE_CLASS_DTYPE
from .stub_unpickler import PersistentId, Stub, global_of

LOAD_FROM_BYTES = ("torch.storage", "_load_from_bytes")


@dataclass
class StorageInfo:
    """One storage as named by a persistent id."""

    key: Any
    cls: str
    numel: int
    location: str
    dtype: str
    view: tuple | None = None  # legacy: (view key, first element, elements)
    data: bytes | None = None  # of storages that lie in the pickle itself
    byteorder: str | None = None  # where it is not that of the file
    inside: tuple[bytes, int] | None = None  # the nested file that holds it, and its position there
    is_written_as_numbers: bool = False

    @property
    def nbytes(self) -> int:
        return self.numel * DTYPE_SIZE[self.dtype] if self.data is None else len(self.data)


@dataclass
class TensorInfo:
    """A decoded tensor: a leaf with a storage, or a composite with parts."""

    dtype: str
    shape: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    offset: int | None = None
    requires_grad: bool = False
    storage: StorageInfo | None = None
    layout: str = "strided"
    subclass: str | None = None
    py_state: Any = None
    parts: list[tuple[str, Any]] = field(default_factory=list)  # (path component, object)
    flags: set[str] = field(default_factory=set)
    extra: dict[str, Any] = field(default_factory=dict)  # further fields of the expected.json entry


def ints(value: Any) -> tuple[int, ...]:
    """A size or stride, given as torch.Size, tuple or list."""
    if isinstance(value, Stub) and global_of(value) == ("torch", "Size"):
        value = value.args[0]
    return tuple(int(i) for i in value)


def dtype_name(obj: Any) -> str:
    name = global_of(obj)
    assert name and name[0] == "torch", name
    return {"float": "float32", "double": "float64", "half": "float16", "long": "int64"}.get(name[1], name[1])


def storage_info(obj: PersistentId | StorageInfo) -> StorageInfo:
    if isinstance(obj, StorageInfo):
        return obj
    if isinstance(obj, Stub) and global_of(obj) == LOAD_FROM_BYTES:
        if obj.nested is None:
            obj.nested = nested_storage(obj.args[0])  # the same each time
        return obj.nested
    if isinstance(obj, Stub):  # torch.FloatStorage([1.5, 2.0])
        return listed_storage(global_of(obj)[1][: -len("Storage")], obj.args[0])
    pid = obj.pid  # ("storage", class, key, location, numel[, view])
    cls = pid[1]._global[1]
    base = cls[: -len("Storage")].lstrip("_") if cls.endswith("Storage") else cls
    dtype = "uint8" if base == "Untyped" else STORAGE_CLASS_DTYPE[base]
    return StorageInfo(pid[2], cls, int(pid[4]), pid[3], dtype, pid[5] if len(pid) > 5 else None)


def nested_storage(content: bytes) -> StorageInfo:
    """A storage as pickle.dump writes it: a whole torch.save file."""
    from . import containers  # which needs this module

    storage, position, data = containers.read_single_storage(content)
    storage.inside, storage.data = (content, position), data
    return storage


def is_state_pair(state: Any) -> bool:
    """(dict or None, slots dict): the state copyreg makes for objects with __slots__."""
    return isinstance(state, tuple) and len(state) == 2 and all(x is None or isinstance(x, dict) for x in state)


def state_dict_of(stub: Stub) -> dict:
    """All attributes that BUILD gave an object, whatever form each state had."""
    attributes = collections.OrderedDict()
    for state in stub.states:
        for part in state if is_state_pair(state) else (state,):
            if isinstance(part, dict):
                attributes.update(part)
    return attributes


# --------------------------------------------------------------------------- numpy

NUMPY_DTYPE = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u8": "uint64",
    "u4": "uint32",
    "u2": "uint16",
    "u1": "uint8",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _array(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> TensorInfo | None:
    """None for arrays of what no tensor can hold; those stay objects."""
    code = dtype.args[0] if isinstance(dtype, Stub) and global_of(dtype) == ("numpy", "dtype") else None
    if isinstance(code, bytes):
        code = code.decode()
    state = dtype.states[-1] if isinstance(code, str) and dtype.states else (3, "|", None, None, None)
    if code not in NUMPY_DTYPE or any(state[2:5]) or not isinstance(data, (bytes, bytearray, str)):
        return None
    name, shape = NUMPY_DTYPE[code], tuple(shape)
    stride = _row_major(shape[::-1])[::-1] if order in (True, "F") else _row_major(shape)
    if order == "K":
        shape, stride = tuple(shape[a] for a in axes), tuple(stride[a] for a in axes)
    data = data.encode() if isinstance(data, str) else bytes(data)  # Python 2: text where it happens to be
    byteorder = "big" if state[1] in (">", b">") else "little"
    storage = StorageInfo("", "", len(data) // DTYPE_SIZE[name], "cpu", name, data=data, byteorder=byteorder)
    return TensorInfo(name, shape, stride, 0, storage=storage, flags={"numpy"})


def _reconstruct(stub: Stub) -> TensorInfo | None:
    if not stub.states:
        return None
    *_, shape, dtype, fortran, data = stub.states[-1]
    tensor = _array(data, dtype, shape, bool(fortran))
    if tensor is not None and global_of(stub.args[0]) != ("numpy", "ndarray"):
        tensor.subclass = ".".join(global_of(stub.args[0]))
        tensor.flags.add("subclass")
    return tensor


def _from_buffer(stub: Stub) -> TensorInfo | None:
    return _array(*stub.args)


def _scalar(stub: Stub) -> TensorInfo | None:
    dtype, data = stub.args
    return _array(data, dtype, (), "C")


def _device_tensor_from_numpy(stub: Stub) -> TensorInfo:
    tensor = as_tensor(stub.args[0])
    assert tensor.dtype == dtype_name(stub.args[1])
    tensor.flags.discard("numpy")
    tensor.requires_grad = bool(stub.args[3])
    return tensor


# --------------------------------------------------------------------------- one function per rebuild function


def _leaf(storage: Any, offset: Any, size: Any, stride: Any) -> TensorInfo:
    info = storage_info(storage)
    return TensorInfo(info.dtype, ints(size), ints(stride), int(offset), storage=info)


def _math_bits(tensor: TensorInfo, metadata: Any) -> TensorInfo:
    tensor.flags |= {bit for bit in ("conj", "neg") if metadata and metadata.get(bit)}
    return tensor


def _tensor_v1(stub: Stub) -> TensorInfo:
    return _leaf(*stub.args[:4])


def _tensor_v2(stub: Stub) -> TensorInfo:
    tensor, (requires_grad, _hooks, *metadata) = _leaf(*stub.args[:4]), stub.args[4:]
    tensor.requires_grad = bool(requires_grad)
    return _math_bits(tensor, metadata[0] if metadata else None)


def _tensor_v3(stub: Stub) -> TensorInfo:
    tensor, (requires_grad, _hooks, dtype, *metadata) = _leaf(*stub.args[:4]), stub.args[4:]
    tensor.requires_grad = bool(requires_grad)
    tensor.dtype = dtype_name(dtype)
    return _math_bits(tensor, metadata[0] if metadata else None)


def _qtensor(stub: Stub) -> TensorInfo:
    tensor, (quantizer, requires_grad, *_) = _leaf(*stub.args[:4]), stub.args[4:]
    scheme = global_of(quantizer[0])[1]
    tensor.requires_grad = bool(requires_grad)
    tensor.flags.add("quantized")
    if scheme == "per_tensor_affine":
        tensor.extra["quant"] = {"scheme": scheme, "scale": quantizer[1], "zero_point": int(quantizer[2])}
    else:
        tensor.extra["quant"] = {"scheme": scheme, "axis": int(quantizer[3])}
        tensor.parts = [("#scales", quantizer[1]), ("#zero_points", quantizer[2])]
    return tensor


def _parameter(stub: Stub) -> TensorInfo | None:
    tensor = as_tensor(stub.args[0])
    if tensor is None:
        return None
    tensor.requires_grad = bool(stub.args[1])
    tensor.flags.add("param")
    return tensor


def _parameter_with_state(stub: Stub) -> TensorInfo | None:
    tensor = _parameter(stub)
    if tensor is not None:
        tensor.py_state = stub.args[3]
    return tensor


def _parameter_newobj(stub: Stub) -> TensorInfo | None:
    """Before torch 0.4: Parameter(tensor) + BUILD((requires_grad, volatile, hooks))."""
    if not stub.args:
        return None
    tensor = as_tensor(stub.args[0])
    tensor.requires_grad = bool(stub.states[-1][0]) if stub.states else True
    tensor.flags.add("param")
    return tensor


def _from_type(stub: Stub) -> TensorInfo | None:
    func, cls, args, state = stub.args
    tensor = as_tensor(func(*args)) if isinstance(func, type) else None
    if tensor is None:
        return None
    if global_of(cls) != ("torch", "Tensor"):
        tensor.subclass = ".".join(global_of(cls))
        tensor.flags.add("subclass")
    tensor.py_state = state
    if isinstance(state, dict) and state.get("_is_param"):
        tensor.flags.add("param")
    if tensor.layout == "wrapper":
        for attributes in state if isinstance(state, tuple) else (state,):
            if isinstance(attributes, dict):
                tensor.parts += list(attributes.items())
    return tensor


def _sparse(stub: Stub) -> TensorInfo:
    layout = stub.args[0].args[0].split(".")[-1]
    data = stub.args[1]
    extra = {}
    if layout == "sparse_coo":
        size, parts = data[2], [("#indices", data[0]), ("#values", data[1])]
        extra["coalesced"] = bool(data[3]) if len(data) > 3 else None
    else:
        by_row = layout in ("sparse_csr", "sparse_bsr")
        compressed, plain = ("#crow_indices", "#col_indices") if by_row else ("#ccol_indices", "#row_indices")
        size, parts = data[3], [(compressed, data[0]), (plain, data[1]), ("#values", data[2])]
    values = as_tensor(parts[-1][1])
    return TensorInfo(values.dtype, ints(size), layout=layout, parts=parts, flags={"sparse", layout}, extra=extra)


def _nested_strided(stub: Stub) -> TensorInfo:
    buffer = as_tensor(stub.args[0])
    parts = list(zip(("#buffer", "#sizes", "#strides", "#offsets"), stub.args, strict=True))
    return TensorInfo(
        buffer.dtype, requires_grad=buffer.requires_grad, layout="nested_strided", parts=parts, flags={"nested"}
    )


def _nested_jagged(stub: Stub) -> TensorInfo:
    data = stub.args[0]
    parts = [("#values", data["values"]), ("#offsets", data["offsets"])]
    if data.get("lengths") is not None:
        parts.append(("#lengths", data["lengths"]))
    return TensorInfo(
        as_tensor(data["values"]).dtype,
        requires_grad=bool(data.get("requires_grad")),
        layout="nested_jagged",
        parts=parts,
        flags={"nested"},
        extra={"ragged_idx": data.get("_ragged_idx")},
    )


def _meta(stub: Stub) -> TensorInfo:
    dtype, size, stride, requires_grad = stub.args[:4]
    return TensorInfo(dtype_name(dtype), ints(size), ints(stride), 0, bool(requires_grad), flags={"meta"})


def _wrapper(stub: Stub) -> TensorInfo:
    _cls, dtype, size, stride, offset, _layout, _device, requires_grad = stub.args[:8]
    return TensorInfo(
        dtype_name(dtype),
        ints(size),
        ints(stride),
        int(offset),
        bool(requires_grad),
        layout="wrapper",
        flags={"wrapper"},
    )


def _device_tensor(stub: Stub) -> TensorInfo:
    tensor = as_tensor(stub.args[0])
    tensor.requires_grad = bool(stub.args[3])
    return tensor


_REBUILD: dict[tuple[str, str], Callable[[Stub], TensorInfo | None]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor_v1,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_qtensor"): _qtensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_with_state,
    ("torch.nn.parameter", "Parameter"): _parameter_newobj,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.tensor", "_rebuild_from_type"): _from_type,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _nested_strided,
    ("torch.nested._internal.nested_tensor", "_rebuild_njt"): _nested_jagged,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._utils", "_rebuild_wrapper_subclass"): _wrapper,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _device_tensor,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _device_tensor_from_numpy,
    ("torch._utils", "_rebuild_xla_tensor"): _device_tensor_from_numpy,
}
for _module in ("numpy.core", "numpy._core"):
    _REBUILD[(f"{_module}.multiarray", "_reconstruct")] = _reconstruct
    _REBUILD[(f"{_module}.multiarray", "scalar")] = _scalar
    _REBUILD[(f"{_module}.numeric", "_frombuffer")] = _from_buffer


def _listed(scalar: str, numbers: list) -> TensorInfo:
    """Before torch 0.2: torch.FloatTensor([[1.5, 2.0], ...])."""
    shape, inner = [], numbers
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    storage = listed_storage(scalar, numbers)
    return TensorInfo(storage.dtype, tuple(shape), _row_major(tuple(shape)), 0, storage=storage)


def listed_storage(scalar: str, numbers: list) -> StorageInfo:
    """A storage that stands in the pickle as numbers."""

    def flat(x: Any) -> list:
        return [n for item in x for n in flat(item)] if isinstance(x, list) else [x]

    dtype = STORAGE_CLASS_DTYPE[scalar]
    values = flat(numbers)
    form = {"float32": "f", "float64": "d", "int64": "q", "int32": "i", "uint8": "B"}[dtype]
    data = struct.pack(f"<{len(values)}{form}", *values)
    return StorageInfo("", "", len(values), "cpu", dtype, data=data, is_written_as_numbers=True)


def as_tensor(obj: Any) -> TensorInfo | None:
    """The tensor that obj stands for, or None."""
    if isinstance(obj, TensorInfo):  # the tar format stores tensors outside the pickle
        return obj
    if not isinstance(obj, Stub):
        return None
    module, name = global_of(obj)
    if (module, name) in _REBUILD:
        return _REBUILD[(module, name)](obj)
    if module == "torch" and name.endswith("Tensor") and obj.args and isinstance(obj.args[0], list):
        return _listed(name[: -len("Tensor")], obj.args[0])
    if module == "torch" and name.endswith("Tensor") and obj.states:
        state = obj.states[-1]  # before torch 0.1.11: torch.FloatTensor() + BUILD((storage, offset, size, stride))
        if isinstance(state, tuple) and len(state) == 4:
            return _leaf(*state)
    return None
