"""Opening and loading files, beside torch.load. Prints medians and ratios of one run.

python benches/python/files.py [--tensors 100000]
"""

import argparse
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ptview
import torch


def median(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call; what it returns is dropped outside of the measured time."""
    work()
    gc.collect()
    gc.disable()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begun)
        del result
    gc.enable()
    return statistics.median(times)


def show(title: str, rows: dict[str, tuple[Callable[[], object], int]]) -> None:
    """Measures and prints each row, with how often the first fits into it."""
    print(f"\n{title}")
    first = None
    for name, (work, repeats) in rows.items():
        seconds = median(work, repeats)
        first = first or seconds
        print(f"  {name:<42} {seconds * 1e6:>14,.1f} µs  {seconds / first:>8.1f}x")


def copies(path: Path, count: int) -> list[Path]:
    """Other names of a file, each with an index of its own."""
    others = [path.with_name(f"{path.stem}{n}.pt") for n in range(count)]
    for other in others:
        other.hardlink_to(path)
        ptview.index(other)
    return others


def shapes(tensors: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tensor.shape) for name, tensor in tensors.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of what takes seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        many, small, large, thousand, bare = (Path(folder) / f"{name}.pt" for name in ("many", "small", "large", "thousand", "bare"))
        layers = {f"layers.{n // 10}.block.w{n % 10}": np.full(8, n, np.float32) for n in range(arguments.tensors)}
        ptview.save(layers, many)
        torch.save({"x": torch.zeros(64, 64), "y": 7}, small)
        torch.save({f"layer.{n}": torch.zeros(1 << 16) for n in range(100)}, large)
        torch.save({f"layer.{n}.weight": torch.zeros(64, 64) for n in range(1000)}, thousand)
        bare.hardlink_to(thousand)
        ptview.index([many, large, thousand])
        # Indexes that were opened last stay open: of files in turn, each is opened anew.
        turn = itertools.cycle(copies(large, 16))
        few = arguments.rounds
        middle = f"layers.{arguments.tensors // 20}.block.w0"

        show(
            f"one tensor of {arguments.tensors:,}",
            {
                "ptview.open(indexed)[name].torch()": (lambda: ptview.open(many)[middle].torch(), 500),
                "ptview.open(indexed)[name].numpy()": (lambda: ptview.open(many)[middle].numpy(), 500),
                "torch.load(mmap=True)[name]": (lambda: torch.load(many, mmap=True, weights_only=True)[middle], few),
            },
        )
        show(
            "one tensor of 100, 25 MiB",
            {
                "ptview.open(indexed)[name].torch()": (lambda: ptview.open(large)["layer.50"].torch(), 500),
                "the same, of 16 files in turn": (lambda: ptview.open(next(turn))["layer.50"].torch(), 500),
                "torch.load(mmap=True)[name]": (
                    lambda: torch.load(large, mmap=True, weights_only=True)["layer.50"],
                    20,
                ),
                "torch.load()[name]": (lambda: torch.load(large, weights_only=True)["layer.50"], 20),
            },
        )
        show(
            "open and list 1,000 tensors",
            {
                "ptview.open(indexed): names": (lambda: list(ptview.open(thousand)), 500),
                "ptview.open(indexed): names and shapes": (lambda: shapes(ptview.open(thousand)), 200),
                "ptview.open: names": (lambda: list(ptview.open(bare)), 200),
                "ptview.open: names and shapes": (lambda: shapes(ptview.open(bare)), 200),
                "torch.load(mmap=True): names and shapes": (
                    lambda: shapes(torch.load(thousand, mmap=True, weights_only=True)),
                    20,
                ),
            },
        )
        show(
            f"load {arguments.tensors:,} tensors",
            {
                "ptview.load": (lambda: ptview.load(many), max(few, 5)),
                "torch.load(mmap=True)": (lambda: torch.load(many, mmap=True, weights_only=True), few),
                "torch.load()": (lambda: torch.load(many, weights_only=True), few),
            },
        )
        show(
            "load a file of 16 KiB: {x: float32[64, 64], y: int}",
            {
                "ptview.load": (lambda: ptview.load(small), 500),
                "ptview.load(mmap=False)": (lambda: ptview.load(small, mmap=False), 500),
                "torch.load(mmap=True)": (lambda: torch.load(small, mmap=True, weights_only=True), 200),
                "torch.load()": (lambda: torch.load(small, weights_only=True), 200),
            },
        )


if __name__ == "__main__":
    main()
