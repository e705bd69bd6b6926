"""Walks an unpickled object: lists every tensor with its path and writes the rest down as typed JSON."""

from __future__ import annotations

import collections
import hashlib
import json
import pickletools
import struct
import types
from collections.abc import Callable
from typing import Any

import torch

from .dtypes import DTYPE_SIZE, PACKED, align_of
from .stub_unpickler import PersistentId, Stub, encode, global_of
from .tensors import (
    LOAD_FROM_BYTES,
    StorageInfo,
    TensorInfo,
    as_tensor,
    ints,
    is_state_pair,
    state_dict_of,
    storage_info,
)

# Path components that are not keys, positions or attribute names
ARGS, STATE, DICT = "__args__", "__state__", "__dict__"

Path = tuple[str, ...]
Json = dict[str, Any]
# (storage key, bytes expected) -> (file offset or None when compressed, bytes, data or None when too large)
Lookup = Callable[[Any, int], tuple[int | None, int, bytes | None]]

MAX_NODES = 200_000
MAX_HASHED_ELEMENTS = 1 << 22
MODULE_TABLES = ("_parameters", "_buffers", "_modules")


def component(key: Any) -> str:
    """A dict key or attribute name as a path component; lone surrogates become U+FFFD."""
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return str(key)


class Walk:
    """One walk over one object; afterwards ``tensors`` holds the entries in the order they were met.

    Paths come with a set ``skip`` of positions that ``name`` leaves out.
    """

    def __init__(
        self, lookup: Lookup | None, byteorder: str = "little", pickle: bytes = b"", pickle_at: int | None = 0
    ):
        """pickle: the pickle that obj came from, and its position in the file, None when it is compressed there."""
        self.lookup, self.byteorder = lookup, byteorder
        self.held = Held(pickle, pickle_at)
        self.is_hollow = False  # storages may be left out: their records are empty then
        self.tensors: list[Json] = []
        self._first: dict[int, Path] = {}  # id of a tensor object -> path at which it was met first
        self._alive: list[Any] = []  # keeps those ids valid
        self._stack: list[int] = []  # ids of the containers around the current object
        self._nodes = 0

    def __call__(self, obj: Any, path: Path = (), skip: frozenset[int] = frozenset()) -> Json:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise RuntimeError("walk too large")
        if not isinstance(obj, (list, dict, tuple, set, Stub)):
            return self._inner(obj, path, skip)
        if id(obj) in self._stack:
            return {"t": "cycle", "up": len(self._stack) - self._stack.index(id(obj))}
        self._stack.append(id(obj))
        try:
            return self._inner(obj, path, skip)
        finally:
            self._stack.pop()

    def _inner(self, obj: Any, path: Path, skip: frozenset[int]) -> Json:
        if isinstance(obj, Stub) and global_of(obj)[0] == "torch.jit._pickle":
            return self(obj.args[0], path, skip)  # TorchScript wraps lists and dicts; the wrappers are transparent
        tensor = as_tensor(obj)
        if tensor is not None:
            return self.tensor(obj, tensor, path, skip)
        is_nested = isinstance(obj, Stub) and global_of(obj) == LOAD_FROM_BYTES
        if is_nested or isinstance(obj, (PersistentId, StorageInfo)):
            return self._storage(storage_info(obj))
        if isinstance(obj, dict):
            return self._dict(obj, path, skip)
        if isinstance(obj, (list, tuple)):
            return {"t": type(obj).__name__, "v": [self(x, (*path, str(i)), skip) for i, x in enumerate(obj)]}
        if isinstance(obj, (set, frozenset)):
            items = [self(x, (*path, "<item>"), skip) for x in obj]
            return {"t": type(obj).__name__, "v": sorted(items, key=lambda j: json.dumps(j, sort_keys=True))}
        if isinstance(obj, slice):
            return {"t": "slice", "v": [self(x, path, skip) for x in (obj.start, obj.stop, obj.step)]}
        if isinstance(obj, Stub):
            return self._object(obj, path, skip)
        return plain_value(obj)

    def _storage(self, storage: StorageInfo) -> Json:
        if storage.data is None:
            offset, _, data = self.lookup(storage.key, storage.nbytes)
        else:
            offset, data = self._held(storage), storage.data
        return {
            "t": "storage",
            "key": self._key(storage),
            "class": storage.cls,
            "numel": storage.numel,
            "dtype": storage.dtype,
            "location": storage.location,
            "file_offset": offset,
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def _key(self, storage: StorageInfo) -> str:
        """A storage of a nested file has the file's position in front of its key."""
        if storage.inside is None:
            return str(storage.key)
        return f"{self.held.text_position(storage.inside[0])}/{storage.key}"

    def _held(self, storage: StorageInfo) -> int | None:
        """File offset of a storage that lies in the pickle."""
        if storage.is_written_as_numbers:
            return None if storage.data else 0
        content, start = storage.inside or (storage.data, 0)
        return self.held.offset(content, start, start + len(storage.data))

    def _dict(self, obj: dict, path: Path, skip: frozenset[int]) -> Json:
        result = {
            "t": "OrderedDict" if isinstance(obj, collections.OrderedDict) else "dict",
            "v": self._items(obj.items(), path, skip),
        }
        attributes = getattr(obj, "__dict__", None)
        if attributes:
            result["attrs"] = {k: self(v, (*path, DICT, k), skip) for k, v in attributes.items()}
        return result

    def _items(self, items: Any, path: Path, skip: frozenset[int]) -> list[list[Json]]:
        return [
            [self(k, (*path, f"<key {i}>"), skip), self(v, (*path, component(k)), skip)]
            for i, (k, v) in enumerate(items)
        ]

    def _object(self, obj: Stub, path: Path, skip: frozenset[int]) -> Json:
        name = global_of(obj)
        if name == ("torch", "Size"):
            return {"t": "Size", "v": list(ints(obj))}
        if name == ("torch", "device"):
            return {"t": "device", "v": ":".join(str(x) for x in obj.args)}
        result = {"t": "object", "class": ".".join(name)}
        if obj.args:
            result["args"] = [self(x, (*path, ARGS, str(i)), skip) for i, x in enumerate(obj.args)]
        if obj.appended:
            result["appended"] = [self(x, (*path, str(i)), skip) for i, x in enumerate(obj.appended)]
        if obj.items:
            result["items"] = self._items(obj.items, path, skip)
        if not obj.states:
            return result
        attributes = state_dict_of(obj)
        if not attributes:
            result["state"] = self(obj.states[-1], (*path, STATE), skip)
            return result
        is_module = set(MODULE_TABLES) <= set(attributes)
        state = {}
        for key, value in attributes.items():
            inner_skip = skip | {len(path)} if is_module and key in MODULE_TABLES else skip
            state[component(key)] = self(value, (*path, component(key)), inner_skip)
        if is_module:  # leave out the empty hook tables and the like
            result = {"t": "module", "class": ".".join(name)}
            state = {
                k: v
                for k, v in state.items()
                if k in (*MODULE_TABLES, "training") or v.get("t") not in ("OrderedDict", "none") or k[0] != "_"
            }
        result["state"] = state
        return result

    def tensor(self, obj: Any, tensor: TensorInfo, path: Path, skip: frozenset[int]) -> Json:
        if self.is_hollow and tensor.storage and self.lookup(tensor.storage.key, None)[1] == 0:
            tensor.storage, tensor.flags = None, {*tensor.flags, "meta"}
        entry = {
            "name": ".".join(c for i, c in enumerate(path) if i not in skip),
            "path": list(path),
            "dtype": tensor.dtype,
            "shape": list(tensor.shape) if tensor.shape is not None else None,
            "stride": list(tensor.stride) if tensor.stride is not None else None,
            "storage_offset": tensor.offset,
            "requires_grad": tensor.requires_grad,
            "layout": tensor.layout,
            "sha256": None,
            "sha256_raw": None,
            "data_offset": None,
            "zero_copy": False,
            "alias_of": None,
            "param": "param" in tensor.flags,
            "subclass": tensor.subclass,
            "storage": None,
        }
        entry.update(tensor.extra)
        if id(obj) in self._first:
            entry["alias_of"] = list(self._first[id(obj)])
        else:
            self._first[id(obj)] = path
        self._alive.append(obj)
        if tensor.storage is not None:
            self._fill(entry, tensor)
        entry["flags"] = sorted(tensor.flags)
        self.tensors.append(entry)

        result = {"t": "tensor", "path": list(path)}
        has_state = tensor.py_state is not None and tensor.py_state != {}
        if has_state and tensor.layout not in ("wrapper", "nested_jagged"):
            result["state"] = self._tensor_state(tensor.py_state, path, skip)
        if tensor.parts:
            result["parts"] = {c: self(p, (*path, component(c)), skip) for c, p in tensor.parts}
        return result

    def _tensor_state(self, state: Any, path: Path, skip: frozenset[int]) -> Json:
        """Attributes of a tensor: they sit directly under it, like the attributes of any other object."""
        if isinstance(state, dict):
            return self(state, path, skip)
        if is_state_pair(state):
            return {"t": "tuple", "v": [self(part, path, skip) for part in state]}
        return self(state, (*path, STATE), skip)

    def _fill(self, entry: Json, tensor: TensorInfo) -> None:
        """Everything about a leaf tensor that depends on the bytes of its storage."""
        storage, dtype = tensor.storage, tensor.dtype
        size = DTYPE_SIZE[dtype]
        byteorder = storage.byteorder or self.byteorder
        if storage.data is None:
            file_offset, nbytes, data = self.lookup(storage.key, storage.nbytes)
        else:
            file_offset, nbytes, data = self._held(storage), len(storage.data), storage.data
        first = tensor.offset + (int(storage.view[1]) if storage.view else 0)
        numel = 1
        for n in tensor.shape:
            numel *= n
        entry["storage"] = {
            "key": self._key(storage),
            "class": storage.cls,
            "numel": storage.numel,
            "nbytes": nbytes,
            "location": storage.location,
            "file_offset": file_offset,
        }
        if data is not None:
            entry["storage"]["sha256"] = hashlib.sha256(data).hexdigest()
        if storage.view:
            entry["storage"]["view"] = [str(storage.view[0]), int(storage.view[1]), int(storage.view[2])]
        entry["numel"] = numel
        if file_offset is not None:
            entry["data_offset"] = file_offset + first * size
            native = byteorder == "little" or size == 1
            entry["zero_copy"] = native and entry["data_offset"] % align_of(dtype) == 0

        contiguous = is_contiguous(tensor.shape, tensor.stride)
        if not contiguous:
            tensor.flags.add("noncontiguous")
        if any(step == 0 and n > 1 for n, step in zip(tensor.shape, tensor.stride, strict=True)):
            tensor.flags.add("expanded")
        if numel == 0:
            tensor.flags.add("empty")
        if dtype in PACKED:
            tensor.flags.add("packed")
            return
        if numel and (first or numel * size != nbytes or not contiguous):
            tensor.flags.add("view")
        if numel <= MAX_HASHED_ELEMENTS and data is not None:
            raw = gather(data, tensor.shape, tensor.stride, first, size)
            if byteorder == "big":
                raw = swap_bytes(raw, dtype)
            entry["sha256_raw"] = hashlib.sha256(raw).hexdigest()
            entry["sha256"] = hashlib.sha256(apply_math_bits(raw, dtype, tensor.flags)).hexdigest()


class Held:
    """Byte strings that a pickle holds, and where in the file they are written.

    Written twice, a string has no position: no fixture should do that.
    """

    def __init__(self, pickle: bytes, at: int | None):
        """at: position of the pickle in the file, None when it is compressed there."""
        self.at = at
        self._found: dict[bytes, tuple[int, str] | None] = {}
        for opcode, content, position in pickletools.genops(pickle) if pickle else ():
            if opcode.name in ("UNICODE", "STRING"):
                start = position + (1 if opcode.name == "UNICODE" else 2)  # a line, the second kind in quotes
            elif opcode.name.endswith(("UNICODE", "UNICODE8", "STRING", "BYTES", "BYTES8", "BYTEARRAY8")):
                start = position + 1 + (1 if "SHORT" in opcode.name else 8 if opcode.name.endswith("8") else 4)
            else:
                continue
            if isinstance(content, str):
                try:
                    content = content.encode("latin1")
                except UnicodeEncodeError:
                    continue
            content = bytes(content)
            how = "utf-8" if opcode.name.endswith(("BINUNICODE", "BINUNICODE8")) else "plain"
            if opcode.name in ("UNICODE", "STRING") and pickle[start : start + len(content)] != content:
                how = "escaped"
            if opcode.name == "UNICODE" and (not content.isascii() or b"\\" in content):
                how = "escaped"
            self._found[content] = None if content in self._found else (start, how)

    def text_position(self, content: bytes) -> int:
        """Where in the file the string is written, in whatever way."""
        return self.at + self._found[content][0]

    def offset(self, content: bytes, start: int, end: int) -> int | None:
        """Position in the file of content[start:end], None where it does not lie there as it is."""
        if start == end and start == 0:
            return 0
        if self.at is None or self._found.get(content) is None:
            return None
        position, how = self._found[content]
        if how == "utf-8":
            start_in_text = len(content[:start].decode("latin1").encode())
            return self.at + position + start_in_text if content[start:end].isascii() else None
        return self.at + position + start if how == "plain" else None


def plain_value(obj: Any) -> Json:
    """Typed JSON for a value that contains no other object.  Floats carry their bits, so NaN and -0.0 survive."""
    if obj is None:
        return {"t": "none"}
    if isinstance(obj, bool):
        return {"t": "bool", "v": obj}
    if isinstance(obj, int):
        return {"t": "int", "v": str(obj)}
    if isinstance(obj, float):
        return {"t": "float", "v": repr(obj), "bits": struct.pack(">d", obj).hex()}
    if isinstance(obj, complex):
        return {"t": "complex", "v": [repr(obj.real), repr(obj.imag)]}
    if isinstance(obj, str):
        try:
            obj.encode("utf-8")
            return {"t": "str", "v": obj}
        except UnicodeEncodeError:
            return {"t": "str_wtf8", "hex": obj.encode("utf-8", "surrogatepass").hex()}
    if isinstance(obj, (bytes, bytearray)):
        return {"t": type(obj).__name__, "hex": bytes(obj).hex() if len(obj) <= 4096 else None, "len": len(obj)}
    if isinstance(obj, range):
        return {"t": "range", "v": [obj.start, obj.stop, obj.step]}
    if isinstance(obj, type):
        name = global_of(obj)
        if name is None:
            return {"t": "global", "v": f"{obj.__module__}.{obj.__qualname__}"}
        if name[0] == "torch" and (name[1] in DTYPE_SIZE or name[1].lstrip("u").startswith("int")):
            return {"t": "dtype", "v": name[1]}
        return {"t": "global", "v": ".".join(name)}
    if isinstance(obj, types.FunctionType) and obj is encode:
        return {"t": "global", "v": "_codecs.encode"}
    raise TypeError(type(obj))


def is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Row-major without gaps; the stride of a dimension of size 1 does not matter."""
    if 0 in shape:
        return True
    step = 1
    for n, s in zip(reversed(shape), reversed(stride), strict=True):
        if n > 1 and s != step:
            return False
        step *= n
    return True


def gather(data: bytes, shape: tuple[int, ...], stride: tuple[int, ...], first: int, size: int) -> bytes:
    """The elements of a strided view in row-major order."""
    if 0 in shape:
        return b""
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    view = torch.as_strided(buffer, [*shape, size], [*(s * size for s in stride), 1], first * size)
    return view.contiguous().numpy().tobytes()


def swap_bytes(raw: bytes, dtype: str) -> bytes:
    width = align_of(dtype)
    return b"".join(raw[i : i + width][::-1] for i in range(0, len(raw), width))


def apply_math_bits(raw: bytes, dtype: str, flags: set[str]) -> bytes:
    """Carry out the pending conjugation and negation that a tensor's conj and neg bits stand for."""
    if not flags & {"conj", "neg"}:
        return raw
    form = {"complex64": "<f", "complex128": "<d", "float32": "<f", "float64": "<d"}[dtype]
    out = []
    for i, (x,) in enumerate(struct.iter_unpack(form, raw)):
        if "neg" in flags:
            x = -x
        if "conj" in flags and i % 2:
            x = -x
        out.append(struct.pack(form, x))
    return b"".join(out)


def shares_storage(tensors: list[Json]) -> None:
    """Flag the tensors that use the same storage record as another one."""
    users = collections.Counter(t["storage"]["key"] for t in tensors if t["storage"])
    del users[""]  # no two arrays share their bytes
    for t in tensors:
        if t["storage"] and users[t["storage"]["key"]] > 1:
            t["flags"] = sorted({*t["flags"], "shared_storage"})
