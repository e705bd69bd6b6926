"""Where samples are kept: ptview, `torch.load`, and stores that the files are converted to first.

A store is `Store(name, module, convert, open)`. `convert(data, folder)` is run once; `open(data, folder)` returns a data set
whose samples are those of `torch.load`: with `__getitem__`, and `__getitems__` where the store has it; or a stream, with
`in_order()`. One that has `batches(workers)` brings a loader of its own. Stores of one kind stand together: here files and
flat ones, in `tables` those of Arrow tables, in `streams` those of shards; `rivals` measures all.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import contenders
from samples import Data


@dataclass(frozen=True)
class Store:
    name: str
    #: What must be installed.
    module: str
    open: Callable[[Data, Path], Any]
    convert: Callable[[Data, Path], None] | None = None

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


class Of(torch.utils.data.Dataset):
    """A data set of a function, and of another for whole batches where the store has one."""

    def __init__(self, length: int, get: Callable[[int], dict], batch: Callable[[list[int]], dict] | None = None):
        self.length, self.get = length, get
        if batch is not None:
            self.__getitems__, self.collate = batch, as_is

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.get(index)


def as_is(batch: Any) -> Any:
    return batch


def samples(data: Data) -> Iterator[dict]:
    for file in data.files:
        sample = torch.load(file)
        if data.mode == "row":
            yield from ({"x": row} for row in sample["x"])
        else:
            yield sample


def typed(data: Data) -> tuple[np.dtype, tuple[int, ...]]:
    """Type of an element, and shape of a sample behind a first size that may differ."""
    x = next(samples(data))["x"].numpy()
    return x.dtype, (-1, *x.shape[1:])


def load(**options: Any) -> Callable[[Data, Path], Any]:
    def open_(data: Data, _: Path) -> Any:
        if data.mode == "file":
            return Of(data.samples, lambda index: torch.load(data.files[index], **options))

        def row(index: int) -> dict:
            return {"x": torch.load(data.files[index // 1000], **options)["x"][index % 1000].clone()}

        return Of(data.samples, row)

    return open_


def ours(**options: Any) -> Callable[[Data, Path], Any]:
    return lambda data, _: contenders.ours(data, **options)


# One flat file of bytes, with the places of samples beside it.


def to_flat(data: Data, folder: Path) -> None:
    starts, labels = [0], []
    with open(folder / "x.bin", "wb") as file:
        for sample in samples(data):
            starts.append(starts[-1] + file.write(sample["x"].numpy().tobytes()))
            labels.append(sample.get("y", 0))
    np.savez(folder / "places.npz", starts=starts, labels=labels)


def flat(data: Data, folder: Path) -> Any:
    dtype, shape = typed(data)
    places = np.load(folder / "places.npz")
    starts, labels = places["starts"], places["labels"]
    has_label = data.name == "small"
    memory = np.memmap(folder / "x.bin", np.uint8, "r")

    def get(index: int) -> dict:
        x = memory[starts[index] : starts[index + 1]].view(dtype).reshape(shape).copy()
        return {"x": torch.from_numpy(x)} | ({"y": int(labels[index])} if has_label else {})

    if data.is_ragged:
        return Of(data.samples, get)
    table = memory.view(dtype).reshape(data.samples, *next(samples(data))["x"].shape)

    def batch(indices: list[int]) -> Any:
        return {"x": torch.from_numpy(table[indices])} | ({"y": torch.from_numpy(labels[indices])} if has_label else {})

    return Of(data.samples, get, batch)


def to_lmdb(data: Data, folder: Path) -> None:
    import lmdb

    with lmdb.open(str(folder), map_size=1 << 33) as store, store.begin(write=True) as write:
        for number, sample in enumerate(samples(data)):
            write.put(number.to_bytes(4), sample.get("y", 0).to_bytes(8) + sample["x"].numpy().tobytes())


_LMDB: dict[str, Any] = {}


def _lmdb(folder: str) -> Any:
    import lmdb

    if folder not in _LMDB:
        _LMDB[folder] = lmdb.open(folder, readonly=True, lock=False, readahead=False)
    return _LMDB[folder]


def close_lmdb() -> None:
    """LMDB does not survive a fork: whoever wants it again opens it again."""
    for store in _LMDB.values():
        store.close()
    _LMDB.clear()


os.register_at_fork(before=close_lmdb)


def from_lmdb(data: Data, folder: Path) -> Any:
    dtype, shape = typed(data)

    def get(index: int) -> dict:
        with _lmdb(str(folder)).begin(buffers=True) as read:
            value = read.get(index.to_bytes(4))
            x = torch.from_numpy(np.frombuffer(value, dtype, offset=8).reshape(shape).copy())
            label = int.from_bytes(value[:8])
        return {"x": x} | ({"y": label} if data.name == "small" else {})

    return Of(data.samples, get)


def to_safetensors(data: Data, folder: Path) -> None:
    from safetensors.torch import save_file

    for number, file in enumerate(data.files):
        sample = torch.load(file)
        save_file({name: torch.as_tensor(value) for name, value in sample.items()}, folder / f"{number}.safetensors")


def from_safetensors(data: Data, folder: Path) -> Any:
    from safetensors import safe_open

    def get(index: int) -> dict:
        number, row = divmod(index, 1000) if data.mode == "row" else (index, 0)
        with safe_open(folder / f"{number}.safetensors", "pt") as file:
            if data.mode == "row":
                return {"x": file.get_slice("x")[row]}
            names = file.keys()
            return {name: file.get_tensor(name) if name == "x" else file.get_tensor(name).item() for name in names}

    return Of(data.samples, get)


def to_npy(data: Data, folder: Path) -> None:
    labels = []
    for number, file in enumerate(data.files):
        sample = torch.load(file)
        np.save(folder / f"{number}.npy", sample["x"].numpy())
        labels.append(sample.get("y", 0))
    np.save(folder / "labels.npy", labels)


def from_npy(data: Data, folder: Path) -> Any:
    labels = np.load(folder / "labels.npy")

    def get(index: int) -> dict:
        number, row = divmod(index, 1000) if data.mode == "row" else (index, ...)
        x = torch.from_numpy(np.load(folder / f"{number}.npy", mmap_mode="r")[row].copy())
        return {"x": x} | ({"y": int(labels[index])} if data.name == "small" else {})

    return Of(data.samples, get)


def to_hdf5(data: Data, folder: Path) -> None:
    import h5py

    with h5py.File(folder / "all.h5", "w") as store:
        x = np.concatenate([sample["x"].numpy().reshape(1, -1) for sample in samples(data)], None)
        store["x"] = x
        store["starts"] = np.cumsum([0] + [sample["x"].numel() for sample in samples(data)])
        store["y"] = [sample.get("y", 0) for sample in samples(data)]


def from_hdf5(data: Data, folder: Path) -> Any:
    import h5py

    _, shape = typed(data)
    store: list[Any] = []

    def get(index: int) -> dict:
        if not store:
            file = h5py.File(folder / "all.h5")
            store.extend([file["x"], file["starts"][:], file["y"][:]])
        x, starts, labels = store
        value = torch.from_numpy(x[starts[index] : starts[index + 1]].reshape(shape))
        return {"x": value} | ({"y": int(labels[index])} if data.name == "small" else {})

    return Of(data.samples, get)


def to_tensordict(data: Data, folder: Path) -> None:
    from tensordict import TensorDict

    TensorDict.stack([TensorDict({k: torch.as_tensor(v) for k, v in s.items()}) for s in samples(data)]).memmap(folder)


def from_tensordict(data: Data, folder: Path) -> Any:
    from tensordict import TensorDict

    if data.is_ragged:
        raise NotImplementedError("samples that differ in length are a folder each")
    store = TensorDict.load_memmap(folder)
    x, y = store["x"], store.get("y", None)

    def get(index: int) -> dict:
        return {"x": x[index].clone()} | ({} if y is None else {"y": y[index].item()})

    return Of(data.samples, get, lambda indices: store[indices].clone().to_dict())


STORES = [
    Store("ptview", "ptview", ours()),
    Store("ptview, mmap=True", "ptview", ours(mmap=True)),
    Store("torch.load", "torch", load()),
    Store("torch.load, mmap=True", "torch", load(mmap=True)),
    Store("torch.load, weights_only=False", "torch", load(weights_only=False)),
    Store("flat file, numpy.memmap", "numpy", flat, to_flat),
    Store("LMDB", "lmdb", from_lmdb, to_lmdb),
    Store("tensordict memmap", "tensordict", from_tensordict, to_tensordict),
    Store("HDF5", "h5py", from_hdf5, to_hdf5),
    Store("safetensors, a file each", "safetensors", from_safetensors, to_safetensors),
    Store(".npy, a file each, mmap_mode", "numpy", from_npy, to_npy),
]
