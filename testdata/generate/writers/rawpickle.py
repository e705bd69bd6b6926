"""Hand-made pickles that refer to storages, and the smallest archives torch takes for a checkpoint."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .rawzip import Member, raw_zip

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
FOUR_FLOATS = struct.pack("<4f", 1, 2, 3, 4)


class Pid:
    """Pickled as a persistent id: a tuple, or the value itself if there is only one."""

    def __init__(self, *parts: Any):
        self.pid = parts[0] if len(parts) == 1 else parts


class Call:
    """Pickled as REDUCE of a global with arguments, and BUILD with a state if one is given."""

    def __init__(self, function: Callable, *args: Any, state: Any = None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        if self.state is None:
            return self.function, self.args
        return self.function, self.args, self.state


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Pid) else None


def dumps(obj: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(obj)
    return buffer.getvalue()


def body(obj: Any) -> bytes:
    """The opcodes of a pickle without PROTO and STOP, to be spliced into another one."""
    return dumps(obj)[2:-1]


def storage(numel: int, key: Any = "0", cls: type = torch.FloatStorage, location: str = "cpu") -> Pid:
    return Pid("storage", cls, key, location, numel)


def tensor(pid: Pid, offset: Any, size: Any, stride: Any, requires_grad: bool = False) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, pid, offset, size, stride, requires_grad, OrderedDict())


def tensor_v3(numel: int, size: Any, stride: Any, dtype: torch.dtype) -> Call:
    pid = storage(numel, cls=torch.UntypedStorage)
    return Call(torch._utils._rebuild_tensor_v3, pid, 0, size, stride, False, OrderedDict(), dtype)


def four_floats() -> Call:
    """A good tensor over FOUR_FLOATS."""
    return tensor(storage(4), 0, (4,), (1,))


def mini_zip(
    obj: Any, data: dict[str, bytes] | None = None, root: str = "archive", extra: Iterable[tuple[str, bytes]] = ()
) -> bytes:
    """The smallest archive torch accepts, around an object or the bytes of a data.pkl."""
    data = {"0": FOUR_FLOATS} if data is None else data
    content = obj if isinstance(obj, (bytes, bytearray)) else dumps(obj)
    members = [Member(f"{root}/data.pkl", content)]
    members += [Member(f"{root}/data/{key}", record) for key, record in data.items()]
    members += [Member(f"{root}/{name}", record) for name, record in extra]
    return raw_zip([*members, Member(f"{root}/version", b"3\n")])


def legacy_file(obj: Any, keys: list[str], payload: bytes, little_endian: bool = True) -> bytes:
    """A file as torch wrote it before 1.6."""
    system = {
        "protocol_version": 1001,
        "little_endian": little_endian,
        "type_sizes": {"short": 2, "int": 4, "long": 8},
    }
    return b"".join(dumps(x) for x in (LEGACY_MAGIC, 1001, system, obj, keys)) + payload
