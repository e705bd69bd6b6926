"""torch's own writers, made reproducible.

Left alone, torch puts addresses (legacy storage keys), random ids (distributed checkpoints) and the paths of source
files (pickled modules, TorchScript debug records) into its files.  The context managers here replace these by stable
values; everything else is what torch writes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from .. import models

Writer = Callable[[str], None]


class Skip(Exception):
    """Raised by a writer that needs a newer torch."""


def put(data: bytes | Callable[[], bytes]) -> Writer:
    """Write the given bytes."""

    def write(path: str) -> None:
        with open(path, "wb") as f:
            f.write(data() if callable(data) else data)

    return write


def save(make: Callable[[], Any], **options: Any) -> Writer:
    """torch.save the object that make() returns."""
    return lambda path: torch.save(make(), path, **options)


def save_legacy(make: Callable[[], Any], **options: Any) -> Writer:
    """torch.save in the format that was the default before torch 1.6."""

    def write(path: str) -> None:
        with stable_storage_keys(), portable_sources():
            torch.save(make(), path, _use_new_zipfile_serialization=False, **options)

    return write


def save_configured(make: Callable[[], Any], **settings: Any) -> Writer:
    """torch.save with torch.utils.serialization.config.save.* set."""

    def write(path: str) -> None:
        try:
            from torch.utils.serialization import config
        except ImportError:
            raise Skip("needs torch.utils.serialization.config") from None
        for name in settings:
            if not hasattr(config.save, name):
                raise Skip("needs config.save." + name)
        with contextlib.ExitStack() as stack:
            for name, value in settings.items():
                old = getattr(config.save, name)
                stack.callback(setattr, config.save, name, old)
                setattr(config.save, name, value)
            torch.save(make(), path)

    return write


def zip_bytes(obj: Any) -> io.BytesIO:
    """torch.save into memory."""
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    buffer.seek(0)
    return buffer


@contextlib.contextmanager
def stable_storage_keys() -> Iterator[None]:
    """Legacy files name a storage by its address, and order storages by that name.

    Addresses are replaced by numbers that look like addresses and depend only on the order in which storages are met;
    the order in the file still differs from that order, as it does in real files.
    """
    address = torch._C.StorageBase.__dict__["_cdata"].__get__
    seen: dict[int, int] = {}

    def key(self) -> int:
        nth = seen.setdefault(address(self), len(seen))
        return 0x5555_5555_0000 + 64 * (nth * 7919 % 10007)

    with mock.patch.object(torch.UntypedStorage, "_cdata", property(key), create=True):
        yield


def _portable(filename: str | None) -> str | None:
    """A source file's name relative to the folder its package was imported from."""
    roots = sorted({os.path.abspath(p) + os.sep for p in sys.path}, key=len, reverse=True)
    for root in roots:
        if filename and filename.startswith(root):
            return filename[len(root) :].replace(os.sep, "/")
    return filename


@contextlib.contextmanager
def portable_sources() -> Iterator[None]:
    """Pickled modules and TorchScript code carry the names of source files: make these relative.

    A pickled module also carries the source text of its class; torch's own classes get a placeholder instead, so that
    no code of torch ends up in a fixture.
    """
    original = torch._sources.get_source_lines_and_file

    def for_script(obj, error_msg=None):
        lines, first, filename = original(obj, error_msg)
        return lines, first, _portable(filename)

    def for_pickle(obj, error_msg=None):
        if obj in models.SOURCES:
            return models.SOURCES[obj].splitlines(keepends=True), 1, "generate/models.py"
        return [f"class {obj.__name__}:\n", "    ...\n"], 1, obj.__module__.replace(".", "/") + ".py"

    with (
        mock.patch("torch._sources.get_source_lines_and_file", for_script),
        mock.patch("torch.jit.frontend.get_source_lines_and_file", for_script),
        mock.patch("torch.serialization.get_source_lines_and_file", for_pickle),
    ):
        yield


def drop_debug_records(path: str) -> None:
    """Rewrite an archive with torch's writer, without the records that hold Python call stacks."""
    with open(path, "rb") as f:
        reader = torch._C.PyTorchFileReader(io.BytesIO(f.read()))
    records = [r for r in reader.get_all_records() if not r.endswith(".debug_pkl")]
    writer = torch._C.PyTorchFileWriter(path)
    writer.set_min_version(int(reader.get_record("version")))
    for name in records:
        if name not in ("version", ".data/serialization_id"):  # added by the writer itself
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
