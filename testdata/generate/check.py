"""Compares two expected.json documents, and committed files with the hashes in the committed document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .oracle.walk import Json
from .registry import file_digest

# The same objects can come out as other bytes, e.g. with another zlib: never compared
BYTES = {"size", "file_sha256", "files"}
# With another torch version a pickle may be longer, a storage may move, and torch may judge a file differently
LAYOUT = {"data_offset", "file_offset", "zero_copy", "entry_offset", "length", "trailing_bytes"}
TORCH = {"torch_weights_only", "weights_only_loads", "checked_against_torch"}

MAX_SHOWN = 5  # differences per fixture


def differences(old: Any, new: Any, ignore: set[str], where: str = "") -> Iterator[str]:
    """One line for each place at which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            if key in ignore:
                continue
            if key not in old or key not in new:
                yield f"{where}.{key}: only in the {'committed' if key in old else 'regenerated'} expectations"
            else:
                yield from differences(old[key], new[key], ignore, f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where}: {len(old)} items committed, {len(new)} regenerated"
        for i, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, ignore, f"{where}[{i}]")
    elif old != new or type(old) is not type(new):
        yield f"{where}: committed {_short(old)}, regenerated {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def compare(old: Json, new: Json, only: str | None = None) -> tuple[list[str], list[str]]:
    """(differences that matter, remarks) between a committed and a regenerated document."""
    problems, remarks, rewritten = [], [], []
    same_torch = old["torch"] == new["torch"]
    ignore = BYTES if same_torch else BYTES | LAYOUT | TORCH
    if not same_torch:
        remarks.append(f"torch {old['torch']} wrote the committed files, this is {new['torch']}: offsets not compared")
    if old["python"] != new["python"]:
        remarks.append(f"Python {old['python']} wrote the committed files, this is {new['python']}")
    for name in sorted({*old["files"], *new["files"]}):
        if only and only not in name:
            continue
        if name in new["skipped"]:
            remarks.append(f"{name}: skipped here, {new['skipped'][name]}")
        elif name not in old["files"]:
            problems.append(f"{name}: not in the committed expectations")
        elif name not in new["files"]:
            problems.append(f"{name}: in the committed expectations, but not generated any more")
        else:
            a, b = old["files"][name], new["files"][name]
            found = [name + line for line in differences(a, b, ignore)]
            problems += found[:MAX_SHOWN]
            if len(found) > MAX_SHOWN:
                problems.append(f"{name}: {len(found) - MAX_SHOWN} more differences")
            if not found and any(a.get(key) != b.get(key) for key in BYTES):
                rewritten.append(name)
    if rewritten:
        shown = ", ".join(rewritten[:MAX_SHOWN]) + (" ..." if len(rewritten) > MAX_SHOWN else "")
        remarks.append(f"{len(rewritten)} fixtures have other bytes, but the same expectations: {shown}")
    if not only:
        problems += differences(old["schema"], new["schema"], set(), "schema")
    return problems, remarks


def damaged(document: Json, out_dir: str, only: str | None = None) -> list[str]:
    """Committed files that are missing, unknown, or not the ones the committed document was made from."""
    known = {}
    for name, entry in document["files"].items():
        if "files" in entry:
            known.update({member: row["sha256"] for member, row in entry["files"].items()})
        else:
            known[name] = entry.get("file_sha256")
    present = set()
    for folder, _, files in os.walk(out_dir):
        for file in files:
            present.add(os.path.relpath(os.path.join(folder, file), out_dir).replace(os.sep, "/"))
    present.discard("expected.json")
    problems = []
    for name in sorted({*known, *present}):
        if only and only not in name:
            continue
        if name not in present:
            problems.append(f"{name}: file is missing")
        elif name not in known:
            problems.append(f"{name}: file is not in the expectations")
        elif known[name] and file_digest(os.path.join(out_dir, *name.split("/"))) != known[name]:
            problems.append(f"{name}: the file's sha256 is not the recorded one")
    return problems
