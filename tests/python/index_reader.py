"""A reader of indexes that knows nothing but docs/index-format.md.

It checks what the document says a reader must check: a damaged index raises ``Damaged``, and nothing else.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

NONE = 2**32 - 1
NO_OFFSET = 2**64 - 1
MAJOR = 1
BLOCK = 8

SECTIONS = [
    "summary", "schemas", "tensors", "dims", "storages", "nodes", "columns", "column data", "quantizers", "path parts",
    "varying", "file rows", "file schemas", "schema rows", "schema files", "string ends", "string bytes", "text ends",
    "text bytes", "path blocks", "path bytes", "name buckets", "name slots", "file buckets", "file slots", "skipped",
    "root",
]  # fmt: skip

DTYPES = [
    ("float64", 8), ("float32", 4), ("float16", 2), ("bfloat16", 2), ("int64", 8), ("int32", 4), ("int16", 2),
    ("int8", 1), ("uint8", 1), ("bool", 1), ("complex64", 8), ("complex128", 16), ("complex32", 4), ("bcomplex32", 4),
    ("uint16", 2), ("uint32", 4), ("uint64", 8), ("float8_e4m3fn", 1), ("float8_e5m2", 1), ("float8_e4m3fnuz", 1),
    ("float8_e5m2fnuz", 1), ("float8_e8m0fnu", 1), ("float4_e2m1fn_x2", 1), ("bits8", 1), ("bits16", 2),
    ("bits1x8", 1), ("bits2x4", 1), ("bits4x2", 1), ("qint8", 1), ("quint8", 1), ("qint32", 4), ("quint4x2", 1),
    ("quint2x4", 1),
]  # fmt: skip


def row(**fields: str) -> np.dtype:
    """A packed, little-endian row."""
    return np.dtype([(name, f"<{kind}") for name, kind in fields.items()])


SECTION = row(kind="u4", zero="u4", offset="u8", length="u8", checksum="u8")
ROWS = {
    "summary": row(files="u8", tensors="u8", storages="u8", bytes="u8"),
    "schemas": row(
        size="u8", modified="u8", fingerprint="u8", rows_start="u8", tensors_before="u8", storages_before="u8",
        rows="u4", row_bytes="u4", files_start="u4", flags="u4", tensors_start="u4", tensors="u4", storages_start="u4",
        storages="u4", columns_start="u4", columns="u4", nodes_start="u4", nodes="u4", buckets_start="u4", buckets="u4",
        varying="u4", mask="u4",
    ),
    "tensors": row(
        storage_offset="u8", name="u4", dims="u4", storage="u4", alias="u4", quantizer="u4", fault="u4", cls="u4",
        path="u4", path_count="u2", flags="u2", rank="u1", dtype="u1", layout="u1", has_stride="u1", varying="u4",
        mask="u4",
    ),
    "storages": row(
        data_offset="u8", header_offset="u8", packed="u8", bytes="u8", crc="u8", name_hash="u8", method="u4",
        fault="u4", varying="u4", mask="u4",
    ),
    "varying": row(offset="u4", width="u4"),
    "quantizers": row(scale="f8", zero_point="i8", scheme="u4", per_channel="u4"),
    "nodes": row(key="u8", end="u4", target="u4", kind="u4", key_kind="u4"),
    "columns": row(values="u8", marks="u8", name="u4", kind="u4"),
    "name slots": row(hash="u4", row="u4"),
    "file slots": row(hash="u4", row="u4"),
    "skipped": row(size="u8", modified="i8", path="u4", reason="u4"),
}  # fmt: skip
for u64 in ("dims", "string ends", "text ends", "path blocks"):
    ROWS[u64] = np.dtype("<u8")
for u32 in ("path parts", "file schemas", "schema rows", "schema files", "name buckets", "file buckets"):
    ROWS[u32] = np.dtype("<u4")

DICT, ORDERED_DICT, LIST, TUPLE, TENSOR, LEAF, SAME, OPAQUE = range(8)


class Damaged(Exception):
    """The bytes are no index, or one that points where nothing is."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise Damaged(what)


def hash_of(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


@dataclass(frozen=True)
class Storage:
    data_offset: int | None
    header_offset: int | None
    packed_bytes: int
    bytes: int
    crc: int
    name_hash: int
    method: int
    fault: str | None

    def check_header(self, data: bytes) -> None:
        """What a reader does before the first use: looks at the zip local header."""
        if self.header_offset is None:
            return
        header = data[self.header_offset : self.header_offset + 30]
        check(len(header) == 30 and header[:4] == b"PK\3\4", "there is no local header")
        name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
        name = data[self.header_offset + 30 :][:name_bytes]
        check(hash_of(name) % 2**32 == self.name_hash, "the local header is of another record")
        check(self.header_offset + 30 + name_bytes + extra_bytes == self.data_offset, "the data begins elsewhere")

    def read(self, data: bytes) -> bytes:
        """The decoded bytes, from the bytes of the data file."""
        check(self.fault is None and self.data_offset is not None, "the storage cannot be read")
        check(self.data_offset + self.packed_bytes <= len(data), "the storage leaves the file")
        self.check_header(data)
        held = data[self.data_offset : self.data_offset + self.packed_bytes]
        if self.method == 8:
            held = zlib.decompressobj(-15).decompress(held, self.bytes + 1)
        elif self.method == 0xF001:
            held = held.decode().encode("latin-1")
        else:
            check(self.method == 0, f"method {self.method:#x}")
        check(len(held) == self.bytes, "the storage has another length")
        check(self.crc in (0, zlib.crc32(held)), "the checksum differs")
        return held


@dataclass(frozen=True)
class Tensor:
    name: str
    path: tuple[str, ...]
    dtype: str | None
    itemsize: int
    shape: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    storage_offset: int
    storage: Storage | None
    alias: int | None
    flags: int
    layout: int
    big_endian: bool
    cls: str | None
    fault: str | None
    quantizer: tuple | None

    def read(self, data: bytes) -> bytes:
        """Row-major, little-endian bytes of the elements, from the bytes of the data file."""
        storage = self.storage
        check(self.fault is None and storage is not None, "the tensor cannot be read")
        check(self.shape is not None and self.stride is not None and self.dtype is not None, "no shape")
        held = storage.read(data)
        if 0 in self.shape:
            return b""
        last = self.storage_offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        check((last + 1) * self.itemsize <= len(held), "the tensor leaves its storage")
        elements = np.frombuffer(held, f"V{self.itemsize}", len(held) // self.itemsize)[self.storage_offset :]
        strides = [step * self.itemsize for step in self.stride]
        found = np.lib.stride_tricks.as_strided(elements, self.shape, strides, writeable=False).tobytes()
        if not self.big_endian:
            return found
        half = self.itemsize // (2 if "complex" in self.dtype else 1)
        return np.frombuffer(found, np.uint8).reshape(-1, half)[:, ::-1].tobytes()


class Index:
    def __init__(self, data: bytes) -> None:
        self.data = data
        check(len(data) >= 32 and data[:8] == b"PTVIEWIX", "no index")
        major, self.minor, count, length, checksum = struct.unpack_from("<HHIQQ", data, 8)
        check(major == MAJOR, f"version {major}, this reads {MAJOR}")
        check(length == len(data) and 32 + 32 * count <= length, "length")
        check(hash_of(data[:24] + data[32 : 32 + 32 * count]) == checksum, "checksum of header and section table")
        self.table = np.frombuffer(data, SECTION, count, 32)
        self.sections: dict[str, bytes] = dict.fromkeys(SECTIONS, b"")
        for section in self.table:
            start, end = int(section["offset"]), int(section["offset"]) + int(section["length"])
            check(start % 8 == 0 and end <= length, "a section lies outside")
            if section["kind"] < len(SECTIONS):
                self.sections[SECTIONS[section["kind"]]] = data[start:end]
        self.rows = {name: rows_of(self.sections[name], dtype) for name, dtype in ROWS.items()}
        check(len(self.rows["summary"]) == 1, "summary")
        self.file_count, self.tensor_count, self.storage_count, self.data_bytes = map(int, self.rows["summary"][0])
        check(self.file_count <= BLOCK * len(self.rows["path blocks"]), "more files than paths")
        check(self.tensor_count <= self.file_count * len(self.rows["tensors"]), "more tensors than there can be")
        check(self.storage_count <= self.file_count * len(self.rows["storages"]), "more storages than there can be")
        self.root = utf8(self.sections["root"])

    @classmethod
    def open(cls, path: Path) -> "Index":
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return cls(bytes(mapped))

    def check_sums(self) -> None:
        for section in self.table:
            start, length = int(section["offset"]), int(section["length"])
            check(hash_of(self.data[start : start + length]) == section["checksum"], f"checksum of {section['kind']}")

    def run(self, name: str, start: int, count: int) -> np.ndarray:
        """Some rows of a section, all of which must be there."""
        rows, start, count = self.rows[name], int(start), int(count)
        check(start + count <= len(rows), f"{name}: no rows {start} to {start + count}")
        return rows[start : start + count]

    def pooled(self, ends: str, data: str, number: int) -> str:
        end = int(self.run(ends, number, 1)[0])
        start = int(self.rows[ends][number - 1]) if number > 0 else 0
        check(start <= end <= len(self.sections[data]), f"{data}: {start} to {end}")
        return utf8(self.sections[data][start:end])

    def string(self, number: int) -> str:
        return self.pooled("string ends", "string bytes", int(number))

    def text(self, number: int) -> str:
        return self.pooled("text ends", "text bytes", int(number))

    def optional(self, number: int) -> str | None:
        return None if number == NONE else self.string(number)

    def path(self, number: int) -> str:
        data, at, path = self.sections["path bytes"], int(self.run("path blocks", number // BLOCK, 1)[0]), b""
        for _ in range(number % BLOCK + 1):
            shared, at = leb128(data, at)
            length, at = leb128(data, at)
            check(shared <= len(path) and at + length <= len(data), "path bytes")
            path, at = path[:shared] + data[at : at + length], at + length
        return utf8(path)

    @cached_property
    def schemas(self) -> list["Schema"]:
        return [Schema(self, number) for number in range(len(self.rows["schemas"]))]

    def file(self, number: int) -> "File":
        check(number < self.file_count, "no such file")
        schema, file_row = 0, number
        if len(self.rows["file schemas"]) > 0:
            schema = int(self.run("file schemas", number, 1)[0])
            file_row = int(self.run("schema rows", number, 1)[0])
        check(schema < len(self.schemas), "no such schema")
        return File(self, self.schemas[schema], file_row, number)

    def files(self) -> Iterator["File"]:
        return map(self.file, range(self.file_count))

    def find_file(self, path: str) -> "File | None":
        found = lookup(self.rows["file buckets"], self.rows["file slots"], path, self.path)
        return None if found is None else self.file(found)

    def column(self, name: str) -> list:
        """The values of a name in all files."""
        values = [schema.column(name) for schema in self.schemas]
        return [None if (of := values[file.schema.number]) is None else of[file.row] for file in self.files()]

    def skipped(self) -> list[tuple[str, str, int, int]]:
        rows = self.rows["skipped"]
        return [(self.text(r["path"]), self.text(r["reason"]), int(r["size"]), int(r["modified"])) for r in rows]


class Schema:
    def __init__(self, index: Index, number: int) -> None:
        self.index, self.number, self.head = index, number, index.rows["schemas"][number]
        head = self.head
        self.tensors = index.run("tensors", head["tensors_start"], head["tensors"])
        self.slots = index.run("name slots", head["tensors_start"], head["tensors"])
        self.storages = index.run("storages", head["storages_start"], head["storages"])
        self.nodes = index.run("nodes", head["nodes_start"], head["nodes"])
        self.columns = index.run("columns", head["columns_start"], head["columns"])
        self.buckets = index.run("name buckets", head["buckets_start"], int(head["buckets"]) + 1)
        self.rows = int(head["rows"])

    def files(self) -> list["File"]:
        """The files of the schema, by way of its own list."""
        numbers = range(self.rows)
        if len(self.index.rows["schema files"]) > 0:
            numbers = map(int, self.index.run("schema files", self.head["files_start"], self.rows))
        return [File(self.index, self, file_row, number) for file_row, number in enumerate(numbers)]

    def find(self, name: str) -> int | None:
        return lookup(self.buckets, self.slots, name, lambda number: self.index.string(self.tensor_row(number)["name"]))

    def tensor_row(self, number: int) -> np.void:
        check(number < len(self.tensors), "no such tensor")
        return self.tensors[number]

    def column(self, name: str) -> list | None:
        """The values of the first column of this name."""
        for number, column in enumerate(self.columns):
            if self.index.string(column["name"]) == name:
                return self.values(number)
        return None

    def values(self, number: int) -> list:
        """The values of a column."""
        check(number < len(self.columns), "no such column")
        column = self.columns[number]
        data = self.index.sections["column data"]
        kind, start, marks = int(column["kind"]), int(column["values"]), int(column["marks"])

        def some(code: str, start: int, count: int) -> list:
            dtype = np.dtype(code)
            check(start + count * dtype.itemsize <= len(data), "values lie outside")
            return np.frombuffer(data, dtype, count, start).tolist()

        decode = {1: bool, 2: int, 3: float, 4: self.index.text}
        if kind == 5:
            values = zip(some("u1", marks, self.rows), some("<u8", start, self.rows), strict=True)
            return [self.mixed(kind, bits) for kind, bits in values]
        if kind not in decode:
            return [None] * self.rows
        values = some({1: "u1", 2: "<i8", 3: "<f8", 4: "<u4"}[kind], start, self.rows)
        check(kind != 1 or max(values, default=0) <= 1, "a bool that is neither")
        present = [1] * self.rows
        if marks != NO_OFFSET:
            bits = some("u1", marks, -(-self.rows // 8))
            present = [bits[at // 8] >> at % 8 & 1 for at in range(self.rows)]
        return [decode[kind](value) if there else None for there, value in zip(present, values, strict=True)]

    def mixed(self, kind: int, bits: int) -> object:
        match kind:
            case 1:
                return bits != 0
            case 2:
                return signed(bits)
            case 3:
                return struct.unpack("<d", struct.pack("<Q", bits))[0]
            case 4:
                return self.index.text(bits)
        return None


class File:
    def __init__(self, index: Index, schema: Schema, file_row: int, number: int) -> None:
        check(file_row < schema.rows, "no such row")
        self.index, self.schema, self.row, self.number = index, schema, file_row, number
        row_bytes = int(schema.head["row_bytes"])
        start = int(schema.head["rows_start"]) + file_row * row_bytes
        self.bytes = index.sections["file rows"][start : start + row_bytes]
        check(len(self.bytes) == row_bytes, "a file row lies outside")
        self.size = self.value(schema.head, "size", 0)
        self.modified_ns = signed(self.value(schema.head, "modified", 1))
        self.fingerprint = self.value(schema.head, "fingerprint", 2)
        self.big_endian = bool(schema.head["flags"] & 1)
        self.covers_content = bool(schema.head["flags"] & 2)

    @property
    def path(self) -> str:
        return self.index.path(self.number)

    def varying(self, of: np.void, position: int) -> tuple[int, int] | None:
        """Where the number at a position of a row stands in the file row, if it varies."""
        mask = int(of["mask"])
        if not mask >> position & 1:
            return None
        before = (mask & ((1 << position) - 1)).bit_count()
        place = self.index.run("varying", int(of["varying"]) + before, 1)[0]
        return int(place["offset"]), int(place["width"])

    def value(self, of: np.void, field: str, position: int) -> int:
        place = self.varying(of, position)
        if place is None:
            return int(of[field])
        offset, width = place
        check(1 <= width <= 8 and offset + width <= len(self.bytes), "a number lies outside its file row")
        return (int(of[field]) + int.from_bytes(self.bytes[offset : offset + width], "little")) % 2**64

    def dims(self, of: np.void, count: int) -> list[int]:
        place = self.varying(of, 1)
        if place is None:
            return self.index.run("dims", of["dims"], count).tolist()
        offset, width = place
        check(width == 0 and offset % 8 == 0 and offset + 8 * count <= len(self.bytes), "dims lie outside")
        return list(struct.unpack_from(f"<{count}Q", self.bytes, offset))

    def storage(self, number: int) -> Storage | None:
        if number == NONE:
            return None
        check(number < len(self.schema.storages), "no such storage")
        of = self.schema.storages[number]
        fields = ["data_offset", "header_offset", "packed", "bytes", "crc", "name_hash"]
        numbers = [self.value(of, field, position) for position, field in enumerate(fields)]
        numbers[:2] = [None if number == NO_OFFSET else number for number in numbers[:2]]
        return Storage(*numbers, int(of["method"]), self.index.optional(of["fault"]))

    def tensor(self, number: int) -> Tensor:
        of, index = self.schema.tensor_row(number), self.index
        rank, has_stride = int(of["rank"]), bool(of["has_stride"])
        shape = stride = None
        if rank != 255:
            dims = self.dims(of, rank * (1 + has_stride))
            shape, stride = tuple(dims[:rank]), tuple(dims[rank:]) if has_stride else None
        name, count = index.string(of["name"]), int(of["path_count"])
        if count > 0:
            path = tuple(map(index.string, index.run("path parts", of["path"], count)))
        else:
            path = () if of["path"] == NONE else (name,)
        quantizer = None
        if of["quantizer"] != NONE:
            scale, zero_point, scheme, per_channel = index.run("quantizers", of["quantizer"], 1)[0]
            quantizer = (index.string(scheme), bool(per_channel), float(scale), int(zero_point))
        dtype, itemsize = DTYPES[of["dtype"]] if of["dtype"] < len(DTYPES) else (None, 0)
        check(of["alias"] == NONE or of["alias"] < number, "no such alias")
        return Tensor(
            name, path, dtype, itemsize, shape, stride, self.value(of, "storage_offset", 0),
            self.storage(int(of["storage"])), None if of["alias"] == NONE else int(of["alias"]), int(of["flags"]),
            int(of["layout"]), self.big_endian != bool(of["flags"] & 256), index.optional(of["cls"]),
            index.optional(of["fault"]), quantizer,
        )  # fmt: skip

    def tensors(self) -> list[Tensor]:
        return [self.tensor(number) for number in range(len(self.schema.tensors))]

    def find(self, name: str) -> Tensor | None:
        number = self.schema.find(name)
        return None if number is None else self.tensor(number)

    def leaves(self) -> list[tuple[str, object]]:
        """The plain values with their dotted names."""
        columns = self.schema.columns
        return [(self.index.string(c["name"]), self.schema.values(n)[self.row]) for n, c in enumerate(columns)]

    def rebuild(self, tensor_of: Callable[[Tensor], object]) -> object:
        """The saved object again. What is opaque is ``...``, as is a container inside itself."""
        nodes, index = self.schema.nodes, self.index
        check(len(nodes) > 0, "no nodes")
        made: dict[int, object] = {}
        whole = Container(-1, LIST, len(nodes), None)
        around = [whole]

        def close_up_to(number: int) -> None:
            while len(around) > 1 and around[-1].end <= number:
                container = around.pop()
                made[container.number] = container.build()
                around[-1].items.append((container.key, made[container.number]))

        for number, node in enumerate(nodes):
            close_up_to(number)
            kind, end, target = int(node["kind"]), int(node["end"]), int(node["target"])
            check(number < end <= around[-1].end, "a node ends outside its container")
            key = None
            if node["key_kind"] in (1, 3):
                key = index.string(node["key"])
            elif node["key_kind"] == 2:
                key = signed(int(node["key"]))
            if kind in (DICT, ORDERED_DICT, LIST, TUPLE):
                around.append(Container(number, kind, end, key))
                continue
            if kind == TENSOR:
                made[number] = tensor_of(self.tensor(target))
            elif kind == LEAF:
                made[number] = self.schema.values(target)[self.row]
            elif kind == SAME:
                check(target < number, "a node is the same as a later one")
                made[number] = made.get(target, ...)
            else:
                index.optional(target)
                made[number] = ...
            around[-1].items.append((key, made[number]))
        close_up_to(len(nodes))
        return whole.items[0][1]


@dataclass
class Container:
    number: int
    kind: int
    end: int
    key: object
    items: list[tuple[object, object]] = field(default_factory=list)

    def build(self) -> object:
        match self.kind:
            case 0 | 1:
                return dict(self.items)
            case 2:
                return [value for _, value in self.items]
        return tuple(value for _, value in self.items)


def rows_of(data: bytes, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(data, dtype, len(data) // dtype.itemsize)


def utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Damaged("a string is not UTF-8") from error


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number and where the next one begins."""
    number = 0
    for position, byte in enumerate(data[at : at + 5]):
        number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return number, at + position + 1
    raise Damaged("path bytes")


def lookup(buckets: np.ndarray, slots: np.ndarray, name: str, name_of: Callable[[int], str]) -> int | None:
    hashed = hash_of(name.encode())
    count = len(buckets) - 1
    check(count > 0 and count.bit_count() == 1, "buckets")
    bucket = (hashed >> 32) % count
    start, end = int(buckets[bucket]), int(buckets[bucket + 1])
    check(start <= end <= len(slots), "a bucket")
    for slot in slots[start:end]:
        if slot["hash"] == hashed % 2**32 and name_of(int(slot["row"])) == name:
            return int(slot["row"])
    return None
