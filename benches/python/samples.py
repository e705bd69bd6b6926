"""The data sets that are measured, and how time is taken.

Three folders, each of ordinary files written by `torch.save`:

* `small`: one sample a file, `{"x": float32[64, 64], "y": int}`;
* `rows`: `float32[1000, 16, 16]` a file, a sample is a row;
* `ragged`: `float16[L, 256]` a file, L between 16 and 512.

A folder is written once and kept for later runs; its name says its size.
"""

import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

KEPT = Path(os.environ.get("PTVIEW_BENCH_DATA", Path(tempfile.gettempdir()) / "ptview-bench"))


@dataclass(frozen=True)
class Data:
    """A folder of files, and what a sample of it is."""

    name: str
    folder: Path
    files: list[str]
    samples: int
    mode: str

    @property
    def is_ragged(self) -> bool:
        return self.name == "ragged"


def small(count: int) -> Data:
    def write(number: int, path: Path) -> None:
        torch.save({"x": torch.full((64, 64), float(number)), "y": number % 10}, path)

    folder, files = _written("small", count, write)
    return Data("small", folder, files, count, "file")


def rows(count: int) -> Data:
    def write(number: int, path: Path) -> None:
        torch.save({"x": torch.full((1000, 16, 16), float(number))}, path)

    folder, files = _written("rows", count, write)
    return Data("rows", folder, files, 1000 * count, "row")


def ragged(count: int) -> Data:
    lengths = random.Random(0)

    def write(number: int, path: Path) -> None:
        torch.save({"x": torch.full((lengths.randint(16, 512), 256), number % 100, dtype=torch.float16)}, path)

    folder, files = _written("ragged", count, write)
    return Data("ragged", folder, files, count, "file")


def _written(name: str, count: int, write: Callable[[int, Path], None]) -> tuple[Path, list[str]]:
    folder = KEPT / f"{name}-{count}"
    done = folder / ".done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write(number, folder / f"{number:06}.pt")
        done.touch()
    return folder, [str(folder / f"{number:06}.pt") for number in range(count)]


@dataclass(frozen=True)
class Figure:
    """Samples per second: the median of all rounds, and the slowest and fastest."""

    median: float
    low: float
    high: float


def measure(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, Figure | str]:
    """Runs all contenders once a round, in another order each time, so that a slow minute of the machine hits all
    alike.

    A contender runs and returns how many samples it has seen. One round more comes first and does not count. Whoever
    raises is out, and its figure is the error.
    """
    order = random.Random(0)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        names = [name for name in contenders if name not in failed]
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            try:
                samples = contenders[name]()
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            if number > 0:
                rates[name].append(samples / (time.perf_counter() - start))
    return {name: failed.get(name) or Figure(statistics.median(rates[name]), min(rates[name]), max(rates[name])) for name in contenders}


def table(title: str, figures: dict[str, Figure | str], base: str) -> str:
    """Prints what was measured, each beside `base`."""
    lines = [title, f"  {'':<34}{'samples/s':>12}{'slowest':>12}{'fastest':>12}{'ratio':>9}"]
    reference = figures[base]
    for name, figure in figures.items():
        if isinstance(figure, str):
            lines.append(f"  {name:<34}{figure}")
            continue
        ratio = figure.median / reference.median if isinstance(reference, Figure) else math.nan
        lines.append(f"  {name:<34}{figure.median:>12,.0f}{figure.low:>12,.0f}{figure.high:>12,.0f}{ratio:>8.1f}x")
    return "\n".join(lines)
