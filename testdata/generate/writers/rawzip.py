"""Zip archives with every field under control, right or wrong, and re-zipping of good ones."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

UTF8_NAME = 0x0800
DOS_DATE = 0x21  # 1980-01-01


@dataclass
class Member:
    """One archive member.  Fields left at None get the right value."""

    name: str | bytes
    data: bytes
    method: int = 0  # 0: stored, otherwise deflated
    crc: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    local_name: bytes | None = None
    offset: int | None = None  # local header position in the central directory; no local header is written then
    flags: int = UTF8_NAME
    raw: bytes | None = None  # body to write instead of the (compressed) data


def raw_zip(
    members: Iterable[Member],
    comment: bytes = b"",
    count: int | None = None,
    directory_offset: int | None = None,
    zip64: bool = False,
) -> bytes:
    """Build an archive; zip64 puts 0xFFFFFFFF sentinels and zip64 extra fields into the central directory."""
    members = list(members)
    out, directory = bytearray(), bytearray()
    for m in members:
        name = m.name.encode() if isinstance(m.name, str) else m.name
        local_name = name if m.local_name is None else m.local_name
        body = m.raw
        if body is None:
            body = m.data if m.method == 0 else zlib.compress(m.data, 9)[2:-4]
        crc = zlib.crc32(m.data) if m.crc is None else m.crc
        size = len(m.data) if m.size is None else m.size
        compressed = len(body) if m.compressed_size is None else m.compressed_size
        offset = len(out) if m.offset is None else m.offset
        common = struct.pack("<HHHH", m.flags, m.method, 0, DOS_DATE)
        if m.offset is None or m.raw is not None:
            out += struct.pack("<4sH", b"PK\3\4", 20) + common
            out += struct.pack("<IIIHH", crc, compressed & 0xFFFFFFFF, size & 0xFFFFFFFF, len(local_name), 0)
            out += local_name + body
        extra = b""
        fields = [compressed & 0xFFFFFFFF, size & 0xFFFFFFFF, offset & 0xFFFFFFFF]
        if zip64:
            extra = struct.pack("<HHQQQ", 1, 24, size, compressed, offset)
            fields = [0xFFFFFFFF] * 3
        directory += struct.pack("<4sHH", b"PK\1\2", 20, 45 if zip64 else 20) + common
        directory += struct.pack("<III", crc, fields[0], fields[1])
        directory += struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, fields[2]) + name + extra
    start = len(out)
    entries = len(members) if count is None else count
    out += directory
    if zip64:
        end64 = len(out)
        out += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(directory), start)
        out += struct.pack("<4sIQI", b"PK\6\7", 0, end64, 1)
        entries, size, position = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    else:
        size, position = len(directory), start if directory_offset is None else directory_offset
    out += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, entries, entries, size, position, len(comment)) + comment
    return bytes(out)


def rezip(
    source: BinaryIO,
    path: str,
    compression: int = zipfile.ZIP_STORED,
    order: Callable[[list[str]], list[str]] | None = None,
    drop: tuple[str, ...] = (),
    folders: bool = False,
    comment: bytes = b"",
    force_zip64: bool = False,
    rename: Callable[[str], str] | None = None,
) -> None:
    """Copy an archive with Python's zip writer, the way a user's tool might."""
    archive = zipfile.ZipFile(source)
    names = archive.namelist()
    if order:
        names = order(names)
    root = names[0].split("/")[0]
    with zipfile.ZipFile(path, "w", compression) as out:
        if folders:
            for folder in ("/", "/data/", "/.data/"):
                out.writestr(zipfile.ZipInfo(root + folder), b"")
        for name in names:
            if name[len(root) + 1 :] in drop:
                continue
            info = zipfile.ZipInfo(rename(name) if rename else name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = compression
            with out.open(info, "w", force_zip64=force_zip64) as f:
                f.write(archive.read(name))
        out.comment = comment
