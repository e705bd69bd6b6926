"""Python's own pickle machine with every global replaced by a stub class.

Nothing named in the pickle is ever imported or called, so the oracle can read hostile files, and it does not share a
line with torch's unpickler.  Stubs record what was done to them: constructor arguments, states, items, appends.
"""

from __future__ import annotations

import _compat_pickle
import builtins
import collections
import io
import pickle
from typing import Any, BinaryIO

Global = tuple[str, str]


class Stub:
    """Instance of a class the pickle named.  The class itself is a subclass carrying the name in ``_global``."""

    _global: Global = ("?", "?")

    def __new__(cls, *args, **kwargs):
        if not isinstance(cls, type):  # the "class" is itself a stub instance
            self = object.__new__(Stub)
            self.called = cls
        else:
            self = object.__new__(cls)
            self.called = None
        self.args, self.kwargs = args, kwargs
        self.states: list[Any] = []
        self.items: list[tuple[Any, Any]] = []
        self.appended: list[Any] = []
        self.nested: Any = None  # what a call of _load_from_bytes turned out to be
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.states.append(state)

    def __setitem__(self, key, value):
        self.items.append((key, value))

    def append(self, item):
        self.appended.append(item)

    def extend(self, items):
        self.appended.extend(items)

    def add(self, item):
        self.appended.append(item)

    def __call__(self, *args, **kwargs):
        result = Stub(*args, **kwargs)
        result.called = self
        return result

    def __reduce_ex__(self, protocol):  # a stub is never copied or pickled
        raise TypeError("stub")


class PersistentId:
    """What a BINPERSID/PERSID opcode left behind: a reference to a storage."""

    def __init__(self, pid: Any):
        self.pid = pid


_stub_classes: dict[Global, type[Stub]] = {}


def stub_class(module: str, name: str) -> type[Stub]:
    key = (module, name)
    if key not in _stub_classes:
        _stub_classes[key] = type(name.split(".")[-1] or "x", (Stub,), {"_global": key})
    return _stub_classes[key]


def global_of(obj: Any) -> Global | None:
    """(module, name) of a stub class or stub instance; None for anything else."""
    if isinstance(obj, Stub):
        return type(obj)._global if obj.called is None else ("?call", "?")
    if isinstance(obj, type) and issubclass(obj, Stub):
        return obj._global
    return None


def encode(text: str, encoding: str = "utf-8", *_) -> bytes:
    """Stand-in for _codecs.encode, by which protocols 0 to 2 write bytes objects."""
    return text.encode("latin1") if encoding == "latin1" else text.encode(encoding, "surrogatepass")


# Harmless builtins that are worth having as the real thing
_REAL_NAMES = ("set", "frozenset", "bytearray", "complex", "list", "dict", "tuple", "slice", "range", "bytes")
REAL: dict[Global, Any] = {("builtins", n): getattr(builtins, n) for n in _REAL_NAMES}
REAL[("collections", "OrderedDict")] = collections.OrderedDict
REAL[("_codecs", "encode")] = encode


class StubUnpickler(pickle._Unpickler):
    proto = 0  # the base class sets it only when it meets a PROTO opcode

    def find_class(self, module, name):
        if self.proto < 3:
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[(module, name)]
            elif module in _compat_pickle.IMPORT_MAPPING:
                module = _compat_pickle.IMPORT_MAPPING[module]
        return REAL.get((module, name)) or stub_class(module, name)

    def _decode_string(self, value):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def persistent_load(self, pid):
        if isinstance(pid, tuple) and pid:
            if pid[0] in ("module", b"module"):  # legacy: ("module", class, source file, source text)
                return pid[1]
            if isinstance(pid[0], type):  # tar: (class, source file, source text)
                return pid[0]
        return PersistentId(pid)


def unpickle(data: bytes | BinaryIO, cls: type[StubUnpickler] = StubUnpickler) -> Any:
    """Read one pickle from bytes, or from a file, which is left just behind the pickle."""
    file = io.BytesIO(data) if isinstance(data, (bytes, bytearray)) else data
    return cls(file, encoding="bytes").load()
