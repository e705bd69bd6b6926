"""Who is measured: ways to run through an epoch, and to take one sample.

Each function takes a data set and returns named contenders. One contender is a function without arguments that runs and
returns how many samples it has seen. Add a rival here; nothing else needs to know it.
"""

import bisect
import random
from collections.abc import Callable

import ptview
import torch
from torch.utils.data import DataLoader, Dataset

from samples import Data

Contenders = dict[str, Callable[[], int]]
BATCH_SIZE = 256
SEED = 42


class NaiveFiles(Dataset):
    """One `torch.load` a sample: the listing that everybody starts with."""

    def __init__(self, files: list[str]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return torch.load(self.files[index])


class NaiveRows(Dataset):
    """One `torch.load` a row, mapped so that the other rows are not read."""

    def __init__(self, files: list[str]):
        self.files = files
        counts = [len(torch.load(file, mmap=True)["x"]) for file in files]
        self.ends = [sum(counts[: number + 1]) for number in range(len(counts))]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int):
        file = bisect.bisect_right(self.ends, index)
        start = self.ends[file - 1] if file else 0
        return {"x": torch.load(self.files[file], mmap=True)["x"][index - start].clone()}


def pad_collate(samples: list[dict]) -> dict:
    return {"x": torch.nn.utils.rnn.pad_sequence([sample["x"] for sample in samples], batch_first=True)}


def seen(batches) -> int:
    """Runs through batches, touching each."""
    samples = 0
    for batch in batches:
        x = batch["x"]
        x.view(-1)[0].item()
        samples += len(x)
    return samples


def naive(data: Data) -> Dataset:
    return NaiveRows(data.files) if data.mode == "row" else NaiveFiles(data.files)


def ours(data: Data, *, mmap: bool = False) -> ptview.Dataset:
    return ptview.Dataset(data.folder, mode=data.mode, pad=ptview.pad() if data.is_ragged else None, mmap=mmap)


def one_by_one(data: Data, count: int = 2000) -> Contenders:
    """Single samples, in random order."""
    order = random.Random(1)
    picked = [order.randrange(data.samples) for _ in range(min(count, data.samples))]

    def contender(dataset) -> Callable[[], int]:
        def run() -> int:
            for index in picked:
                dataset[index]
            return len(picked)

        return run

    return {"torch.load": contender(naive(data)), "ptview ds[i]": contender(ours(data))}


def epoch(data: Data, *, naive_workers: bool = True) -> Contenders:
    """A shuffled epoch in batches of 256."""
    slow, fast = naive(data), ours(data)
    naive_collate = pad_collate if data.is_ragged else None

    def torch_loader(dataset, workers: int, collate) -> Callable[[], int]:
        def run() -> int:
            return seen(DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=workers, collate_fn=collate))

        return run

    contenders = {"torch.load, 0 workers": torch_loader(slow, 0, naive_collate)}
    if naive_workers:
        contenders["torch.load, 2 workers"] = torch_loader(slow, 2, naive_collate)
    return contenders | {
        "ptview, DataLoader, 0 workers": torch_loader(fast, 0, fast.collate),
        "ptview, DataLoader, 2 workers": torch_loader(fast, 2, fast.collate),
        "ptview.Loader": lambda: seen(ptview.Loader(fast, BATCH_SIZE, shuffle=True, seed=SEED)),
    }
