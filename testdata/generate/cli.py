"""Command line: write all fixtures and expected.json, or check the committed ones."""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import sys
import tempfile
import warnings

import torch

from . import check, families
from .oracle.walk import Json
from .registry import Registry
from .schema import SCHEMA

TESTDATA = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULT_OUT = os.path.join(TESTDATA, "fixtures")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="generate", description="Write PyTorch file fixtures and expected.json.")
    parser.add_argument("out_dir", nargs="?", metavar="OUT_DIR", help="folder for the fixtures (testdata/fixtures)")
    parser.add_argument("--only", metavar="SUBSTRING", help="only fixtures whose name contains this; others are kept")
    parser.add_argument("--big", action="store_true", help="also write one sparse file > 4 GiB; needs an OUT_DIR")
    parser.add_argument(
        "--check", action="store_true", help="regenerate elsewhere and compare; exit status 1 if changed"
    )
    parser.add_argument("--keep-going", action="store_true", help="report fixtures that fail, and go on")
    options = parser.parse_args(argv)
    if options.big and (options.check or options.out_dir is None):
        parser.error(
            "--big needs an OUT_DIR and does not go with --check: its file does not belong into the repository"
        )
    return options


def expected_path(out_dir: str) -> str:
    """testdata/expected.json lies beside testdata/fixtures; any other folder has it inside."""
    at_home = os.path.abspath(out_dir) == DEFAULT_OUT
    return os.path.join(TESTDATA if at_home else out_dir, "expected.json")


def generate(out_dir: str, options: argparse.Namespace) -> Registry:
    os.makedirs(out_dir, exist_ok=True)
    registry = Registry(os.path.abspath(out_dir), options.only, options.big, options.keep_going)
    families.build(registry)
    if options.only and not (registry.files or registry.skipped or registry.failed):
        raise SystemExit(f"no fixture has {options.only!r} in its name")
    for folder in (os.getcwd(), out_dir):
        if os.path.exists(os.path.join(folder, "PWNED.txt")):
            raise RuntimeError(f"an attack fixture was executed: {folder}/PWNED.txt exists")
    return registry


def document(registry: Registry, old: Json | None = None) -> Json:
    """The content of expected.json; with ``old``, its other entries are kept."""
    files = {**(old["files"] if old else {}), **registry.files}
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "schema": SCHEMA,
        "skipped": {**(old["skipped"] if old else {}), **registry.skipped},
        "files": {name: files[name] for name in sorted(files)},
    }


def summary(registry: Registry) -> str:
    entries = registry.files.values()
    tensors = sum(len(e.get("tensors", ())) for e in entries)
    checked = sum(e.get("checked_against_torch", 0) for e in entries)
    lines = [f"{len(entries)} fixtures, {tensors} tensors, {checked} checked against torch"]
    by_folder: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for name, entry in registry.files.items():
        by_folder[name.split("/")[0]][entry["result"]] += 1
    for folder, results in sorted(by_folder.items()):
        lines.append(f"  {folder}: " + ", ".join(f"{n} {result}" for result, n in sorted(results.items())))
    lines += [f"  skipped {name}: {reason}" for name, reason in registry.skipped.items()]
    lines += [f"  FAILED {name}\n{trace}" for name, trace in registry.failed.items()]
    return "\n".join(lines)


def run_check(out_dir: str, options: argparse.Namespace) -> int:
    with open(expected_path(out_dir), encoding="utf-8") as f:
        old = json.load(f)
    with tempfile.TemporaryDirectory() as temporary:
        registry = generate(temporary, options)
    new = json.loads(json.dumps(document(registry)))
    problems, remarks = check.compare(old, new, options.only)
    problems += check.damaged(old, out_dir, options.only)
    problems += [f"{name}: failed\n{trace}" for name, trace in registry.failed.items()]
    for line in remarks:
        print("note:", line)
    for line in problems:
        print("DIFFERS:", line)
    print(f"{len(registry.files)} fixtures regenerated, {len(problems)} differences, {len(remarks)} notes")
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    warnings.simplefilter("ignore")
    options = parse(argv)
    out_dir = options.out_dir or DEFAULT_OUT
    if options.check:
        return run_check(out_dir, options)
    registry = generate(out_dir, options)
    target, old = expected_path(out_dir), None
    if options.only and os.path.exists(target):
        with open(target, encoding="utf-8") as f:
            old = json.load(f)
    with open(target, "w", encoding="utf-8", newline="\n") as f:
        json.dump(document(registry, old), f, indent=1, allow_nan=False)
        f.write("\n")
    print(summary(registry), file=sys.stderr)
    return 1 if registry.failed else 0
