"""Stores that are read as a stream of shards, shuffled as they do it: litdata and webdataset."""

import contextlib
import io
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

import contenders
from samples import Data
from stores import Store, samples


class Stream:
    """Samples one after the other, and batches by the loader of the store itself."""

    def __init__(self, in_order: Callable[[], Iterator[dict]], batches: Callable[[int], Iterable]):
        self.in_order, self.batches = in_order, batches


class Shards(Stream):
    """A stream that gives any one sample too."""

    def __init__(self, dataset: Any, batches: Callable[[int], Iterable]):
        super().__init__(lambda: map(dataset.__getitem__, range(len(dataset))), batches)
        self.dataset = dataset

    def __getitem__(self, index: int) -> dict:
        return self.dataset[index]


def samples_of_file(mode: str, file: str) -> Iterator[dict]:
    sample = torch.load(file)
    if mode == "row":
        # Of its own: a row would be stored with the rest of its file.
        yield from ({"x": row.clone()} for row in sample["x"])
    else:
        yield sample


def to_litdata(data: Data, folder: Path) -> None:
    import litdata

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        litdata.optimize(
            fn=partial(samples_of_file, data.mode), inputs=data.files, output_dir=str(folder / "chunks"),
            chunk_bytes="64MB", num_workers=1, verbose=False,
        )  # fmt: skip
    # It has set another for the whole process.
    multiprocessing.set_start_method("fork", force=True)


def from_litdata(data: Data, folder: Path) -> Any:
    import litdata

    def batches(workers: int) -> Iterable:
        dataset = litdata.StreamingDataset(str(folder / "chunks"), shuffle=True)
        collate = contenders.pad_collate if data.is_ragged else None
        return litdata.StreamingDataLoader(dataset, batch_size=contenders.BATCH_SIZE, num_workers=workers, collate_fn=collate)

    return Shards(litdata.StreamingDataset(str(folder / "chunks")), batches)


def to_webdataset(data: Data, folder: Path) -> None:
    import webdataset

    # Workers share shards out among them, so there are some for each.
    with webdataset.ShardWriter(str(folder / "%04d.tar"), maxcount=-(-data.samples // 8), verbose=0) as write:
        for number, sample in enumerate(samples(data)):
            label = {"y.cls": sample["y"]} if "y" in sample else {}
            write.write({"__key__": f"{number:09}", "x.npy": sample["x"].numpy()} | label)


def from_webdataset(data: Data, folder: Path) -> Any:
    import webdataset

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    collate = contenders.pad_collate if data.is_ragged else default_collate

    def sample(stored: dict) -> dict:
        return {"x": torch.from_numpy(stored["x.npy"])} | ({"y": stored["y.cls"]} if "y.cls" in stored else {})

    def in_order() -> Iterator[dict]:
        return map(sample, webdataset.WebDataset(shards, shardshuffle=False).decode())

    def batches(workers: int) -> Iterable:
        shuffled = webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(1000).decode().map(sample)
        whole = shuffled.batched(contenders.BATCH_SIZE, collation_fn=collate)
        return webdataset.WebLoader(whole, batch_size=None, num_workers=workers)

    return Stream(in_order, batches)


STORES = [
    Store("litdata", "litdata", from_litdata, to_litdata),
    Store("webdataset", "webdataset", from_webdataset, to_webdataset),
]
