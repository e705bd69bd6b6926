"""Epochs and single samples through ptview and through what a user would pick instead.

    python benches/python/rivals.py [--quick] [--only small]

`--quick` takes small data sets, and leaves out what takes minutes: memory, files that are not in memory, and workers of all but two stores.
Figures go to `target/bench/rivals-<data set>.json`; `benches/python/report.py` makes a page of them. Answers are compared with those of
`torch.load` before anything is timed. Contenders take turns; a pass that lasts longer than `--limit` seconds is cut there.
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ptview
import torch
from torch.utils.data import DataLoader

import contenders
import samples
import stores
import streams
import tables

ROOT = Path(__file__).parents[2]
SIZES = {"small": 20_000, "rows": 200, "ragged": 5_000}
QUICK = {"small": 1_000, "rows": 5, "ragged": 200}
TINY = {"small": 40, "rows": 1, "ragged": 20}
BATCH = contenders.BATCH_SIZE
STORES = [*stores.STORES, *tables.STORES, *streams.STORES]
#: Starting workers takes longer than a quick pass through them.
QUICK_WORKERS_OF = ("ptview", "torch.load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    parser.add_argument("--no-cold", action="store_true")
    parser.add_argument("--stores", type=lambda names: names.split("; "), help="only these, separated by '; '; figures of others stay")
    parser.add_argument("--memory-of", help="print what an epoch through this store adds to a process, and no more")
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else QUICK if arguments.quick else SIZES
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, count in sizes.items():
        if arguments.memory_of is not None and arguments.only == name:
            print(memory(getattr(samples, name)(count), arguments.memory_of, arguments.limit))
        elif arguments.only in (None, name):
            arguments.kind = name
            path = arguments.out / f"rivals-{name}.json"
            measured = run(getattr(samples, name)(count), arguments)
            if arguments.stores and path.exists():
                measured = merged(json.loads(path.read_text()), measured, arguments.stores)
            path.write_text(json.dumps(measured, indent=1))
            print(path)


def run(data: samples.Data, arguments: argparse.Namespace) -> dict:
    stated = {"data": data.name, "samples": data.samples, "files": len(data.files), "rounds": arguments.rounds,
              "limit_s": arguments.limit, "batch": BATCH, "is_quick": arguments.quick, "machine": machine()}  # fmt: skip
    bytes_ = sum(os.path.getsize(file) for file in data.files)
    opened, prepared, failed = {}, {}, {}
    # Memory takes a process for each store, which imports all that this one does.
    left_out = [f"workers, but of {' and '.join(QUICK_WORKERS_OF)}", "memory"] if arguments.quick else []
    left_out += ["files that are not in memory"] if arguments.quick or arguments.no_cold else []
    for store in STORES:
        if arguments.stores and store.name not in arguments.stores:
            continue
        if not store.is_installed:
            failed[store.name] = "not installed"
            continue
        try:
            folder, prepared[store.name] = prepare(store, data)
            opened[store.name] = (store, folder, store.open(data, folder))
            check(data, opened[store.name][2])
            warm(folder)
        except Exception as error:
            opened.pop(store.name, None)
            failed[store.name] = f"{type(error).__name__}: {error}"
    passes = {}
    for name, (store, folder, dataset) in opened.items():
        if hasattr(dataset, "__getitem__"):
            passes[name, "one by one"] = lambda d=dataset: one_by_one(d, data, arguments.limit)
        for workers in (0,) if arguments.quick and name not in QUICK_WORKERS_OF else (0, 2):
            way = f"DataLoader, {workers} workers"
            passes[name, way] = lambda d=dataset, w=workers: epoch(loader(d, data, w), arguments.limit)
        passes[name, "first batch"] = lambda s=store, f=folder: epoch(loader(s.open(data, f), data, 0), 0.0)
        if store.module == "ptview":
            passes[name, "Loader"] = lambda d=dataset: epoch(ptview.Loader(d, BATCH, shuffle=True), arguments.limit)
    figures = in_turns(passes, arguments.rounds, failed)
    pss = {} if arguments.quick else {name: memory_in_own_process(name, arguments) for name in opened}
    cold = {}
    if not (arguments.quick or arguments.no_cold):
        ready = [(store, folder) for store, folder, dataset in opened.values() if hasattr(dataset, "__getitem__")]
        # Nothing may be mapped: pages in use are not dropped.
        passes.clear(), opened.clear()
        del dataset
        stores.close_lmdb()
        cold = {store.name: cold_one_by_one(store, folder, data, arguments) for store, folder in ready}
    return stated | {"bytes": bytes_, "figures": figures, "cold": cold, "pss": pss, "prepared": prepared, "failed": failed,
                     "left_out": left_out}  # fmt: skip


def merged(before: dict, after: dict, names: list[str]) -> dict:
    """Puts figures of some stores among those of others, measured before."""

    def keep(part: dict) -> dict:
        return {name: value for name, value in part.items() if name.split(" / ")[0] not in names}

    maps = {part: keep(before[part]) | after[part] for part in ("cold", "pss", "prepared", "failed")}
    kept = [figure for figure in before["figures"] if figure["store"] not in names]
    order = [store.name for store in STORES]
    figures = sorted(kept + after["figures"], key=lambda figure: order.index(figure["store"]))
    rounds = min(before["rounds"], after["rounds"])
    return after | maps | {"figures": figures, "rounds": rounds, "in_groups": True}


def machine() -> dict:
    info = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = next((line.split(": ")[1] for line in info.splitlines() if line.startswith("model name")), "")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "system": platform.platform(),
            "ptview": ptview.__version__, **versions}  # fmt: skip


def prepare(store: stores.Store, data: samples.Data) -> tuple[Path, dict]:
    if store.convert is None:
        return data.folder, {"seconds": 0.0, "bytes": 0}
    folder = samples.KEPT / "converted" / f"{data.folder.name}-{store.name.replace(' ', '-').replace(',', '')}"
    note = folder.with_suffix(".json")
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start = time.perf_counter()
        store.convert(data, folder)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
        note.write_text(json.dumps({"seconds": seconds, "bytes": size}))
    return folder, json.loads(note.read_text())


def check(data: samples.Data, dataset) -> None:
    """Every store gives what torch.load gives, first, last and between, alone and in a batch."""
    if hasattr(dataset, "in_order"):
        check_stream(data, dataset)
    if not hasattr(dataset, "__getitem__"):
        return
    truth = stores.load()(data, data.folder)
    places = [0, data.samples // 3, data.samples - 1]
    for place in places:
        same(truth[place], dataset[place])
    if hasattr(dataset, "in_order"):
        return
    batch = next(iter(DataLoader(dataset, 3, sampler=places, collate_fn=collate(dataset, data))))
    for at, place in enumerate(places):
        one = truth[place]["x"]
        assert torch.equal(one, batch["x"][at][: len(one)]), place


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() and torch.equal(one["x"], other["x"]), one
    assert one.get("y") == other.get("y"), one


def check_stream(data: samples.Data, stream) -> None:
    """The first samples in order; of shuffled batches, that labels stay with their tensors; where there are few, that each comes once."""
    truth = list(itertools.islice(stores.samples(data), 300))
    for one, other in zip(truth, stream.in_order(), strict=False):
        same(one, other)
    seen = []
    for batch in stream.batches(0):
        x = batch["x"]
        assert x.dtype == truth[0]["x"].dtype and x.shape[2:] == truth[0]["x"].shape[1:], x.shape
        marks = x.reshape(len(x), -1)[:, 0]
        # The number of a file is in all elements, and the last digit of it is the label.
        assert "y" not in truth[0] or torch.equal(batch["y"], marks.long() % 10)
        seen.append(marks)
        if data.samples > 1000:
            return
    wanted = torch.stack([sample["x"].flatten()[0] for sample in stores.samples(data)])
    assert torch.equal(torch.cat(seen).sort().values, wanted.sort().values)


def collate(dataset, data: samples.Data):
    if hasattr(dataset, "collate"):
        return dataset.collate
    return contenders.pad_collate if data.is_ragged else None


def loader(dataset, data: samples.Data, workers: int):
    if hasattr(dataset, "batches"):
        return dataset.batches(workers)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=collate(dataset, data))


def one_by_one(dataset, data: samples.Data, limit: float) -> int:
    order, end, seen = random.Random(1), time.perf_counter() + limit, 0
    while seen < 2000 and time.perf_counter() < end:
        dataset[order.randrange(data.samples)]
        seen += 1
    return seen


def epoch(batches, limit: float) -> int:
    end, seen = time.perf_counter() + limit, 0
    for batch in batches:
        seen += len(batch["x"])
        if time.perf_counter() > end:
            break
    return seen


def in_turns(passes: dict, rounds: int, failed: dict) -> list[dict]:
    seconds: dict = {key: [] for key in passes}
    rates: dict = {key: [] for key in passes}
    order = random.Random(0)
    for number in range(rounds + 1):
        keys = [key for key in passes if " / ".join(key) not in failed]
        order.shuffle(keys)
        for key in keys:
            start = time.perf_counter()
            try:
                seen = passes[key]()
            except Exception as error:
                failed[" / ".join(key)] = f"{type(error).__name__}: {error}"
                continue
            took = time.perf_counter() - start
            if number:
                seconds[key].append(took)
                rates[key].append(seen / took)
    return [
        {"store": store, "way": way, "rate": statistics.median(rate), "low": min(rate), "high": max(rate),
         "seconds": statistics.median(seconds[store, way])}
        for (store, way), rate in rates.items() if rate
    ]  # fmt: skip


def memory_in_own_process(name: str, arguments: argparse.Namespace) -> int:
    """What an epoch adds to a process that has opened no other store."""
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--memory-of", name]
    if arguments.only is None:
        command += ["--only", arguments.kind]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def memory(data: samples.Data, name: str, limit: float) -> int:
    """Proportional resident bytes of this process while it opens a store and runs through an epoch, above what it had before."""

    def pss() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024

    store = next(store for store in STORES if store.name == name)
    gc.collect()
    before = pss()
    batches = loader(store.open(data, prepare(store, data)[0]), data, 0)
    end, most = time.perf_counter() + limit, before
    for number, _ in enumerate(batches):
        if number % 16 == 0:
            most = max(most, pss())
        if time.perf_counter() > end:
            break
    return max(most, pss()) - before


def cold_one_by_one(store: stores.Store, folder: Path, data: samples.Data, arguments) -> dict | None:
    rates = []
    for _ in range(arguments.rounds):
        gc.collect()
        if not evict(folder):
            return None
        dataset = store.open(data, folder)
        # Opening may have read files: to index them, say.
        if not evict(folder):
            return None
        start = time.perf_counter()
        rates.append(one_by_one(dataset, data, arguments.limit) / (time.perf_counter() - start))
        del dataset
        stores.close_lmdb()
    return {"rate": statistics.median(rates), "low": min(rates), "high": max(rates)}


def warm(folder: Path) -> None:
    """Reads all files of a store: a round that is cut would leave the rest of them on disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.read_bytes()


def evict(folder: Path) -> bool:
    """Drops the files of a folder from the page cache; says whether they are gone."""
    os.sync()
    files = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
    here = 0
    for file in files:
        with open(file, "rb", buffering=0) as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with contextlib.suppress(OSError):
                here += os.preadv(opened.fileno(), [bytearray(1)], file.stat().st_size // 2, os.RWF_NOWAIT)
    return here <= len(files) // 20


if __name__ == "__main__":
    main()
