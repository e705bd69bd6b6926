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
from dataclasses import replace
from typing import Any, BinaryIO

from .dtypes import DTYPE_SIZE, EXPORT_SCALAR_TYPE, STORAGE_CLASS_DTYPE
from .stub_unpickler import PersistentId, StubUnpickler, unpickle
from .tensors import StorageInfo, TensorInfo, as_tensor, storage_info
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

    def __init__(self, path: str | None = None, data: bytes | None = None, base: int = 0, is_rooted: bool = True):
        self.base = base  # position of ``data`` in the file it is a part of
        if data is not None:
            self.raw, self.zip = data, zipfile.ZipFile(io.BytesIO(data))
        else:
            with open(path, "rb") as f:
                self.raw = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            self.zip = zipfile.ZipFile(path)
        self.root = self.zip.namelist()[0].split("/")[0] + "/" if is_rooted else ""
        self.members = {}
        for info in self.zip.infolist():
            header = info.header_offset
            name_length, extra_length = struct.unpack("<HH", self.raw[header + 26 : header + 30])
            start = header + 30 + name_length + extra_length
            self.members[info.filename] = (start, info)

    def _member(self, name: str) -> tuple[int, zipfile.ZipInfo]:
        return self.members[self.root + name]

    def has(self, name: str) -> bool:
        return self.root + name in self.members

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
            assert nbytes in (None, info.file_size), (name, info.file_size, nbytes)
            data = self.read(name) if info.file_size <= MAX_STORAGE else None
            return self.base + start if info.compress_type == 0 else None, info.file_size, data

        return look


def read_zip(path: str | None, data: bytes | None = None, base: int = 0) -> Json:
    z = Zip(path, data, base)
    pickle, pickle_at = z.read("data.pkl"), z.position("data.pkl")
    walk = Walk(z.lookup("data/"), z.byteorder(), pickle, pickle_at)
    return _entry(walk, unpickle(pickle), {"zip": {"root": z.root[:-1], "byteorder": z.byteorder()}})


def read_torchscript(path: str) -> Json:
    entry = read_zip(path)
    z = Zip(path)
    if z.has("constants.pkl"):
        walk = Walk(z.lookup("constants/"), z.byteorder())
        walk(unpickle(z.read("constants.pkl")))
        entry["constants"] = walk.tensors
    if z.has("traced_inputs.pkl"):
        pickle = z.read("traced_inputs.pkl")
        walk = Walk(z.lookup("traced_inputs/"), z.byteorder(), pickle, z.position("traced_inputs.pkl"))
        walk.is_hollow = True
        walk(unpickle(pickle), ("TRACED_INPUTS",))
        entry["inputs"] = walk.tensors
    return entry


def read_package(path: str, pickle_name: str = "model/model.pkl") -> Json:
    z = Zip(path)
    walk = Walk(z.lookup(".data/", ".storage"))
    return _entry(walk, unpickle(z.read(pickle_name)), {"zip": {"root": z.root[:-1]}, "pickle": pickle_name})


def read_pt2(path: str) -> Json:
    """torch.export archive: tensors are described by JSON, or whole archives inside the archive.

    Names: weights as they are, CONSTANTS and SAMPLE_INPUTS in front of the others, and before that the name of the
    model if there are several. Weights of compiled models as they are too, or AOTINDUCTOR in front.
    """
    z = Zip(path)
    models = [m for m in z.members if m.startswith(z.root + "models/")]
    entry: Json = {}
    for section, folder, ending, apart in (
        ("tensors", "data/weights/", "_weights_config.json", ()),
        ("constants", "data/constants/", "_constants_config.json", ("CONSTANTS",)),
        ("inputs", "data/sample_inputs/", None, ("SAMPLE_INPUTS",)),
    ):
        entry[section] = []
        for member in z.members:
            name = member.removeprefix(z.root + folder)
            if name == member or not name.endswith((".pt", ending or ".pt")):
                continue
            model = name.removesuffix(".pt").removesuffix(ending or ".pt")
            prefix = (model, *apart) if len(models) > 1 else apart
            if name.endswith(".pt"):
                entry[section] += _inner(z, folder + name, prefix)
            else:
                entry[section] += _configured(z, folder, folder + name, prefix)
    entry["tensors"] += _compiled(z, ("AOTINDUCTOR",) if models else ())
    return {**entry, "zip": {"root": z.root[:-1]}}


def _compiled(z: Zip, apart: tuple[str, ...]) -> list[Json]:
    """The weights beside compiled code: views into tensors that are archives of their own."""
    folder, tensors = z.root + "data/aotinductor/", []
    models = dict.fromkeys(m.removeprefix(folder).split("/")[0] for m in z.members if m.startswith(folder))
    for model in models:
        prefix = (model, *apart) if len(models) > 1 else apart
        walks: dict[str, tuple[Walk, Any]] = {}
        weights = json.loads(z.read(f"data/aotinductor/{model}/weights_config.json"))
        for name, (file, shape, stride, offset) in weights.items():
            if file not in walks:
                member = f"data/weights/{file}"
                inner = Zip(None, z.read(member), z.position(member))
                whole = unpickle(inner.read("data.pkl"))
                walks[file] = Walk(inner.lookup("data/"), inner.byteorder()), whole
            walk, whole = walks[file]
            tensor, place = as_tensor(whole), (tuple(shape), tuple(stride), offset)
            is_whole = (tensor.shape, tensor.stride, tensor.offset) == place
            if not is_whole:
                flags = tensor.flags - {"param"}
                tensor = replace(tensor, shape=place[0], stride=place[1], offset=offset, flags=flags)
            walk.tensor(whole if is_whole else object(), tensor, (*prefix, name), frozenset())
        for walk, _ in walks.values():
            tensors += walk.tensors
    return tensors


def _configured(z: Zip, folder: str, member: str, prefix: tuple[str, ...]) -> list[Json]:
    walk, tensors = Walk(z.lookup(folder)), []
    for name, weight in json.loads(z.read(member))["config"].items():
        meta, record = weight["tensor_meta"], weight["path_name"]
        if record.startswith("opaque_obj_"):
            continue  # any object, in a plain pickle
        if weight["use_pickle"]:
            tensors += _inner(z, folder + record, (*prefix, name))
            continue
        dtype = EXPORT_SCALAR_TYPE[meta["dtype"]]
        size = z.members[z.root + folder + record][1].file_size
        tensor = TensorInfo(
            dtype,
            shape=tuple(s["as_int"] for s in meta["sizes"]),
            stride=tuple(s["as_int"] for s in meta["strides"]),
            offset=meta["storage_offset"]["as_int"],
            requires_grad=meta["requires_grad"],
            storage=StorageInfo(record, "raw", size // DTYPE_SIZE[dtype], "cpu", dtype),
            flags={"param"} if weight["is_param"] else set(),
        )
        walk.tensor(object(), tensor, (*prefix, name), frozenset())
    return walk.tensors + tensors


def _inner(z: Zip, member: str, prefix: tuple[str, ...]) -> list[Json]:
    """The tensors of an archive that is a member itself."""
    data = z.read(member)
    tensors = read_zip(None, data, z.position(member))["tensors"] if data else []
    for tensor in tensors:
        tensor["path"] = [*prefix, *tensor["path"]]
        tensor["name"] = ".".join([*prefix, tensor["name"]]) if tensor["name"] else ".".join(prefix)
        tensor["alias_of"] = tensor["alias_of"] and [*prefix, *tensor["alias_of"]]
    return tensors


def read_old_pt2(path: str) -> Json:
    """torch.export archive of torch 2.1 to 2.7: whole checkpoints at the top, no root folder."""
    z = Zip(path, is_rooted=False)
    entry: Json = {}
    for section, what, prefix in (
        ("tensors", "state_dict", ()),
        ("constants", "constants", ("CONSTANTS",)),
        ("inputs", "example_inputs", ("SAMPLE_INPUTS",)),
    ):
        member = f"serialized_{what}.pt"
        entry[section] = _inner(z, member, prefix) if member in z.members else []
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
