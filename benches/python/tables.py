"""Stores that keep samples as rows of an Arrow table: Hugging Face datasets and Lance."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import contenders
import stores
from samples import Data
from stores import Store, samples, typed


def to_huggingface(data: Data, folder: Path) -> None:
    import datasets

    dtype, shape = typed(data)
    lengths = [None if data.is_ragged else next(samples(data))["x"].shape[0], *shape[1:]]
    array = datasets.Array2D(tuple(lengths), dtype.name)
    features = {"x": array} | ({"y": datasets.Value("int64")} if data.name == "small" else {})

    def rows() -> Any:
        for sample in samples(data):
            yield {name: value.numpy() if name == "x" else value for name, value in sample.items()}

    cache = folder / "cache"
    datasets.Dataset.from_generator(rows, features=datasets.Features(features), cache_dir=str(cache)).save_to_disk(folder / "table")


def from_huggingface(data: Data, folder: Path) -> Any:
    import datasets

    # It has `__getitems__` of its own, which gives a list of samples for torch to stack.
    return datasets.load_from_disk(folder / "table").with_format("torch")


def to_lance(data: Data, folder: Path) -> None:
    import lance
    import pyarrow

    dtype, _ = typed(data)
    number = pyarrow.from_numpy_dtype(dtype)
    width = -1 if data.is_ragged else next(samples(data))["x"].numel()
    schema = pyarrow.schema({"x": pyarrow.list_(number, width), "y": pyarrow.int64()})

    def batches() -> Any:
        for sample in samples(data):
            flat = pyarrow.array(sample["x"].numpy().reshape(-1))
            x = pyarrow.ListArray.from_arrays([0, len(flat)], flat) if width < 0 else pyarrow.FixedSizeListArray.from_arrays(flat, width)
            yield pyarrow.record_batch([x, pyarrow.array([sample.get("y", 0)])], schema=schema)

    lance.write_dataset(pyarrow.RecordBatchReader.from_batches(schema, batches()), folder / "table.lance")


class Lance(torch.utils.data.Dataset):
    """Takes rows by their numbers, a batch at once. A process opens the table itself: Lance has threads, which a fork would lose."""

    def __init__(self, path: Path, samples: int, shape: tuple[int, ...], fields: list[str]):
        self.path, self.samples, self.shape, self.fields = path, samples, shape, fields
        self.table: Any = None
        self.loader: Any = None
        self.collate = contenders.pad_collate if shape[0] < 0 else stores.as_is

    def __len__(self) -> int:
        return self.samples

    def take(self, indices: list[int]) -> Any:
        import lance

        self.table = self.table or lance.dataset(self.path)
        return self.table.take(indices, columns=self.fields)

    def __getitem__(self, index: int) -> dict:
        taken = self.take([index])
        x = torch.from_numpy(taken["x"].chunk(0).flatten().to_numpy().reshape(self.shape))
        return {"x": x} | {name: taken[name][0].as_py() for name in self.fields[1:]}

    def __getitems__(self, indices: list[int]) -> Any:
        taken = self.take(indices)
        if self.shape[0] < 0:
            return [{"x": torch.from_numpy(x.values.to_numpy().reshape(self.shape))} for x in taken["x"]]
        batch = {name: torch.from_numpy(taken[name].combine_chunks().to_numpy()) for name in self.fields[1:]}
        x = taken["x"].combine_chunks().flatten().to_numpy()
        return {"x": torch.from_numpy(x.reshape(len(indices), *self.shape))} | batch

    def batches(self, workers: int) -> Iterable:
        """As Lance's `get_safe_loader`: workers are spawned, and stay. The round that does not count starts them."""
        options = {"shuffle": True, "collate_fn": self.collate, "num_workers": workers}
        if workers == 0:
            return DataLoader(self, contenders.BATCH_SIZE, **options)
        if self.loader is None:
            self.loader = DataLoader(self, contenders.BATCH_SIZE, persistent_workers=True, multiprocessing_context="spawn", **options)
        return self.loader

    def __getstate__(self) -> dict:
        return self.__dict__ | {"table": None, "loader": None}


def from_lance(data: Data, folder: Path) -> Any:
    shape = typed(data)[1] if data.is_ragged else tuple(next(samples(data))["x"].shape)
    return Lance(folder / "table.lance", data.samples, shape, ["x", "y"] if data.name == "small" else ["x"])


STORES = [
    Store("Hugging Face datasets", "datasets", from_huggingface, to_huggingface),
    Store("Lance", "lance", from_lance, to_lance),
]
