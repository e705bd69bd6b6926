"""Writes fixtures one by one and collects what expected.json says about them."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch

from .oracle import torch_check
from .oracle.containers import read_zip
from .oracle.torch_check import Loader, load_full
from .oracle.walk import Json
from .writers.torch_files import Skip, Writer

MAX_HASHED_FILE = 64 << 20


def file_digest(path: str) -> str:
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Registry:
    """Fixtures written so far.  ``only`` restricts the run to names that contain it."""

    def __init__(self, out_dir: str, only: str | None = None, big: bool = False, keep_going: bool = False):
        self.out_dir, self.only, self.big, self.keep_going = out_dir, only, big, keep_going
        self.files: dict[str, Json] = {}
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def wants(self, name: str) -> bool:
        return not self.only or self.only in name

    def path(self, name: str) -> str:
        path = os.path.join(self.out_dir, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def ok(
        self,
        name: str,
        container: str,
        note: str,
        write: Writer,
        *,
        oracle: Callable[[str], Json] = read_zip,
        loader: Loader | None = load_full,
    ) -> None:
        """A valid file.  loader None: torch cannot load it back, or not to tensors that can be compared."""

        def describe(path: str) -> Json:
            entry = oracle(path)
            if loader is not None:
                entry["checked_against_torch"] = torch_check.check(path, entry["tensors"], loader)
            if loader is load_full:
                entry["weights_only_loads"] = torch_check.weights_only_loads(path)
            return entry

        self._add(name, container, note, "ok", None, write, describe)

    def error(self, name: str, container: str, note: str, write: Writer, category: str) -> None:
        """A file that must be refused."""
        self._add(name, container, note, "error", category, write, _torch_outcome)

    def either(
        self, name: str, container: str, note: str, write: Writer, category: str | None = None, **fields: Any
    ) -> None:
        """A file that may be refused or read, but must do no harm.  ``fields`` go into the entry."""

        def describe(path: str) -> Json:
            outcome = {} if container == "safetensors" else _torch_outcome(path)
            return {**fields, **outcome}

        self._add(name, container, note, "either", category, write, describe)

    def group(self, name: str, container: str, note: str, write: Callable[[], tuple[list[str], Json]]) -> None:
        """A valid fixture of several files; write() returns their names and the description of the content."""
        if not self.wants(name):
            return
        torch.manual_seed(0)
        try:
            members, fields = write()
        except Skip as reason:
            self.skipped[name] = str(reason)
            return
        files = {}
        for member in sorted(members):
            path = self.path(member)
            files[member] = {"size": os.path.getsize(path), "sha256": file_digest(path)}
        self.files[name] = {"container": container, "note": note, "result": "ok", "files": files, **fields}

    def _add(
        self,
        name: str,
        container: str,
        note: str,
        result: str,
        category: str | None,
        write: Writer,
        describe: Callable[[str], Json],
    ) -> None:
        if not self.wants(name):
            return
        path = self.path(name)
        torch.manual_seed(0)
        try:
            write(path)
        except Skip as reason:
            self.skipped[name] = str(reason)
            return
        entry: Json = {"container": container, "note": note, "result": result}
        if category:
            entry["category"] = category
        entry["size"] = os.path.getsize(path)
        if entry["size"] < MAX_HASHED_FILE:
            entry["file_sha256"] = file_digest(path)
        try:
            entry.update(describe(path))
        except Exception as error:
            if not self.keep_going:
                raise RuntimeError("fixture " + name) from error
            self.failed[name] = traceback.format_exc()
            return
        self.files[name] = entry


def _torch_outcome(path: str) -> Json:
    return {"torch_weights_only": torch_check.weights_only_outcome(path)}
