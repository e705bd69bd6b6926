"""Where the time of an epoch of small files goes: from the bare system calls up to the whole epoch, each adding a part.

    python benches/python/parts.py [--files 20000]

Figures go to `target/bench/parts.json`; `benches/python/report.py` makes a table of them. `strace -f -c` shows the same calls: a file costs
ptview openat, statx (is it the file that was indexed?), preadv and close, and nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ptview
import torch
from torch.utils.data import DataLoader

import contenders
import samples

BATCH = contenders.BATCH_SIZE
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    parser.add_argument("--gather-only", action="store_true", help="print the seconds of a gather, and no more")
    arguments = parser.parse_args()
    data = samples.small(arguments.files)
    dataset, mapped = contenders.ours(data), contenders.ours(data, mmap=True)
    order = torch.randperm(data.samples, generator=torch.Generator().manual_seed(1)).tolist()
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def gather(dataset: ptview.Dataset) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                dataset.__getitems__(batch)

        return run

    if arguments.gather_only:
        print(json.dumps(timed({"": gather(dataset)}, arguments.rounds)[""]))
        return
    parts = calls([data.files[index] for index in order])
    parts["copy of as many bytes in memory, numpy gather (1 thread)"] = copy(data, batches)
    for what, of in (("gather of batches", dataset), ("gather of batches, mmap=True", mapped)):
        parts[f"{what}, all threads"] = gather(of)
        loader = DataLoader(of, BATCH, shuffle=True, collate_fn=of.collate)
        parts[f"{what}, through DataLoader, 0 workers"] = lambda loader=loader: contenders.seen(loader)
        parts[f"{what}, through ptview.Loader"] = lambda of=of: contenders.seen(ptview.Loader(of, BATCH, shuffle=True))
    seconds = timed(parts, arguments.rounds)
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--gather-only"]
    one = subprocess.run(command, env={**os.environ, "RAYON_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE, text=True)
    seconds["gather of batches, 1 thread"] = json.loads(one.stdout)
    places = sorted(seconds, key=list({**dict.fromkeys(list(parts)[:4]), "gather of batches, 1 thread": None, **parts}).index)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "parts.json"
    path.write_text(json.dumps({"files": data.samples, "rounds": arguments.rounds, "seconds": {name: seconds[name] for name in places}}))
    print(path)


def calls(files: list[str]) -> dict[str, Callable[[], None]]:
    """The system calls alone, on one thread, into memory that is there already."""
    room = [memoryview(bytearray(64 * 64 * 4))]

    def opened() -> None:
        for file in files:
            os.close(os.open(file, os.O_RDONLY))

    def asked() -> None:
        for file in files:
            number = os.open(file, os.O_RDONLY)
            os.fstat(number)
            os.close(number)

    def read() -> None:
        for file in files:
            number = os.open(file, os.O_RDONLY)
            os.fstat(number)
            os.preadv(number, room, 512)
            os.close(number)

    return {"open, close (1 thread)": opened, "open, fstat, close (1 thread)": asked, "open, fstat, preadv, close (1 thread)": read}


def copy(data: samples.Data, batches: list[list[int]]) -> Callable[[], None]:
    table = np.zeros((data.samples, 64, 64), np.float32)
    table[:] = 1.0

    def run() -> None:
        for batch in batches:
            torch.from_numpy(table[batch])

    return run


def timed(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Median, lowest and highest of rounds in turns, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, work in parts.items():
            start = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: [statistics.median(took), min(took), max(took)] for name, took in times.items()}


if __name__ == "__main__":
    main()
