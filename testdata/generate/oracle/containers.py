"""Container formats: find the pickle and the storages in a file, walk them, return an expected.json entry.

Each ``read_*`` function takes a path and returns the part of the entry that describes the content.
"""

from __future__ import annotations

import io
import json
import mmap
import struct
import tarfile
import zipfile
import zlib
from typing import Any, BinaryIO

from .dtypes import DTYPE_SIZE, EXPORT_SCALAR_TYPE, STORAGE_CLASS_DTYPE
from .stub_unpickler import PersistentId, StubUnpickler, unpickle
from .tensors import StorageInfo, TensorInfo, storage_info
from .walk import Json, Lookup, Walk, shares_storage

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_STORAGE = 64 << 20  # larger records are not read


def _entry(walk: Walk, obj: Any, container: Json) -> Json:
    value = walk(obj)
    shares_storage(walk.tensors)
    return {"value": value, "tensors": walk.tensors, **container}


def _slices(raw: bytes, position: dict[Any, tuple[int, int]]) -> Lookup:
    """Lookup for formats that keep their storages uncompressed in one run: key -> (offset, bytes)."""

    def look(key, nbytes):
        offset, size = position[key]
        return offset, size, raw[offset : offset + size]

    return look


def _read_int64(file: BinaryIO, count: int = 1) -> tuple[int, ...]:
    return struct.unpack(f"<{count}q", file.read(8 * count))


# --------------------------------------------------------------------------- zip and what is built on it


class Zip:
    """A zip archive with a root folder, and where in the file each member's data begins."""

    def __init__(self, path: str | None = None, data: bytes | None = None, base: int = 0):
        self.base = base  # position of ``data`` in the file it is a part of
        if data is not None:
            self.raw, self.zip = data, zipfile.ZipFile(io.BytesIO(data))
        else:
            with open(path, "rb") as f:
                self.raw = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            self.zip = zipfile.ZipFile(path)
        self.root = self.zip.namelist()[0].split("/")[0]
        self.members = {}
        for info in self.zip.infolist():
            header = info.header_offset
            name_length, extra_length = struct.unpack("<HH", self.raw[header + 26 : header + 30])
            start = header + 30 + name_length + extra_length
            self.members[info.filename] = (start, info)

    def _member(self, name: str) -> tuple[int, zipfile.ZipInfo]:
        return self.members[f"{self.root}/{name}"]

    def has(self, name: str) -> bool:
        return f"{self.root}/{name}" in self.members

    def read(self, name: str) -> bytes:
        start, info = self._member(name)
        data = self.raw[start : start + info.compress_size]
        return data if info.compress_type == 0 else zlib.decompress(data, -15)

    def position(self, name: str) -> int | None:
        """Where in the file a member's bytes lie, None when they are compressed."""
        start, info = self._member(name)
        return self.base + start if info.compress_type == 0 else None

    def byteorder(self) -> str:
        return self.read("byteorder").decode() if self.has("byteorder") else "little"

    def lookup(self, prefix: str, suffix: str = "") -> Lookup:
        def look(key, nbytes):
            name = f"{prefix}{key}{suffix}"
            start, info = self._member(name)
            assert info.file_size == nbytes, (name, info.file_size, nbytes)
            data = self.read(name) if nbytes <= MAX_STORAGE else None
            return self.base + start if info.compress_type == 0 else None, nbytes, data

        return look


def read_zip(path: str | None, data: bytes | None = None, base: int = 0) -> Json:
    z = Zip(path, data, base)
    pickle, pickle_at = z.read("data.pkl"), z.position("data.pkl")
    walk = Walk(z.lookup("data/"), z.byteorder(), pickle, pickle_at)
    return _entry(walk, unpickle(pickle), {"zip": {"root": z.root, "byteorder": z.byteorder()}})


def read_torchscript(path: str) -> Json:
    entry = read_zip(path)
    z = Zip(path)
    if z.has("constants.pkl"):
        walk = Walk(z.lookup("constants/"), z.byteorder())
        walk(unpickle(z.read("constants.pkl")))
        entry["constants"] = walk.tensors
    return entry


def read_package(path: str, pickle_name: str = "model/model.pkl") -> Json:
    z = Zip(path)
    walk = Walk(z.lookup(".data/", ".storage"))
    return _entry(walk, unpickle(z.read(pickle_name)), {"zip": {"root": z.root}, "pickle": pickle_name})


def read_pt2(path: str) -> Json:
    """torch.export archive: tensors are described by JSON, not by a pickle."""
    z = Zip(path)
    entry: Json = {}
    for section, folder in (("tensors", "data/weights/"), ("constants", "data/constants/")):
        walk = Walk(z.lookup(folder))
        for member in z.members:
            if not (member.startswith(f"{z.root}/{folder}") and member.endswith("_config.json")):
                continue
            config = json.loads(z.read(member[len(z.root) + 1 :]))["config"]
            for name, weight in config.items():
                meta, record = weight["tensor_meta"], weight["path_name"]
                dtype = EXPORT_SCALAR_TYPE[meta["dtype"]]
                size = z.members[f"{z.root}/{folder}{record}"][1].file_size
                tensor = TensorInfo(
                    dtype,
                    shape=tuple(s["as_int"] for s in meta["sizes"]),
                    stride=tuple(s["as_int"] for s in meta["strides"]),
                    offset=meta["storage_offset"]["as_int"],
                    requires_grad=meta["requires_grad"],
                    storage=StorageInfo(record, "raw", size // DTYPE_SIZE[dtype], "cpu", dtype),
                    flags={"param"} if weight["is_param"] else set(),
                )
                walk.tensor(object(), tensor, (name,), frozenset())
        entry[section] = walk.tensors
    entry["zip"] = {"root": z.root}
    return entry


# --------------------------------------------------------------------------- before torch 1.6


def read_legacy(path: str) -> Json:
    """Five pickles (magic, protocol, system, object, storage keys), then the storages in the order of the keys."""
    with open(path, "rb") as f:
        raw = f.read()
    obj, start, storages, position, container = _legacy(raw)
    return _entry(Walk(_slices(raw, position), pickle=raw[start:], pickle_at=start), obj, {"legacy": container})


def _legacy(raw: bytes) -> tuple[Any, int, dict[Any, StorageInfo], dict[Any, tuple[int, int]], Json]:
    """The object, the position of its pickle, its storages and where they are, and facts about the file."""
    file = io.BytesIO(raw)
    magic, protocol, system = unpickle(file), unpickle(file), unpickle(file)
    assert magic == LEGACY_MAGIC and protocol == LEGACY_PROTOCOL, (magic, protocol)
    start = file.tell()
    storages: dict[Any, StorageInfo] = {}

    class Unpickler(StubUnpickler):
        def persistent_load(self, pid):
            result = super().persistent_load(pid)
            if isinstance(result, PersistentId):
                info = storage_info(result)
                storages.setdefault(info.key, info)
            return result

    obj = unpickle(file, Unpickler)
    keys = unpickle(file)
    position = {}
    for key in keys:
        (numel,) = _read_int64(file)
        assert numel == storages[key].numel
        position[key] = (file.tell(), storages[key].nbytes)
        file.seek(storages[key].nbytes, 1)
    container = {
        "little_endian": system["little_endian"],
        "storage_keys": [str(k) for k in keys],
        "trailing_bytes": len(raw) - file.tell(),
    }
    return obj, start, storages, position, container


def read_single_storage(raw: bytes) -> tuple[StorageInfo, int, bytes]:
    """A torch.save file that holds one storage: which, where in the file it lies, and its bytes."""
    if raw.startswith(b"PK"):
        z = Zip(data=raw)
        storage = storage_info(unpickle(z.read("data.pkl")))
        start, nbytes, data = z.lookup("data/")(storage.key, storage.nbytes)
        return storage, start, data
    obj, _, storages, position, _ = _legacy(raw)
    storage = storages[storage_info(obj).key]
    start, nbytes = position[storage.key]
    return storage, start, raw[start : start + nbytes]


def read_pickle(path: str) -> Json:
    """What pickle.dump wrote: everything lies in the one pickle."""
    with open(path, "rb") as f:
        raw = f.read()
    return _entry(Walk(None, pickle=raw), unpickle(raw), {})


def read_tar(path: str) -> Json:
    """Before torch 0.1.10: a tar of sys_info, storages, tensors and pickle, which refers to the others by number."""
    with open(path, "rb") as f:
        raw = f.read()
    with tarfile.open(path) as tar:
        members = {m.name: m for m in tar.getmembers()}

    def content(name: str) -> bytes:
        start = members[name].offset_data
        return raw[start : start + members[name].size]

    storages: dict[int, StorageInfo] = {}
    position = {}
    file = io.BytesIO(content("storages"))
    for _ in range(unpickle(file)):
        key, location, cls = unpickle(file)
        (numel,) = _read_int64(file)
        info = StorageInfo(key, cls._global[1], numel, location, STORAGE_CLASS_DTYPE[cls._global[1][: -len("Storage")]])
        storages[key] = info
        position[key] = (members["storages"].offset_data + file.tell(), info.nbytes)
        file.seek(info.nbytes, 1)
    for target, root, offset, numel in unpickle(file):
        r = storages[root]
        storages[target] = StorageInfo(root, r.cls, r.numel, r.location, r.dtype, (target, offset, numel))

    tensors: dict[int, TensorInfo] = {}
    file = io.BytesIO(content("tensors"))
    for _ in range(unpickle(file)):
        key, storage_key, _cls = unpickle(file)
        rank, _padding = struct.unpack("<ii", file.read(8))
        size, stride = _read_int64(file, rank), _read_int64(file, rank)
        (offset,) = _read_int64(file)
        storage = storages[storage_key]
        tensors[key] = TensorInfo(storage.dtype, size, stride, offset, storage=storage)

    class Unpickler(StubUnpickler):
        def persistent_load(self, pid):
            result = super().persistent_load(pid)
            if isinstance(result, PersistentId):
                return tensors.get(int(pid)) or storages[int(pid)]
            return result

    obj = unpickle(content("pickle"), Unpickler)
    return _entry(Walk(_slices(raw, position)), obj, {"tar": {"members": list(members)}})
