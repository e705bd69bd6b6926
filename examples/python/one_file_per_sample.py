"""One sample a file: a folder of `.pt` files as a data set for a `DataLoader`.

    python examples/python/one_file_per_sample.py [FOLDER]

Writes the files first, into FOLDER or a temporary one, without torch: `ptview.save` takes numpy arrays as well.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ptview
import torch
from torch.utils.data import DataLoader, Dataset

SAMPLES = 2_000


def write(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(SAMPLES):
        image = generator.random((3, 32, 32), np.float32)
        ptview.save({"image": image, "label": number % 10}, folder / f"{number:05}.pt")


class Naive(Dataset):
    """What this takes the place of."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.pt"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return torch.load(self.files[index])


def epoch(loader: DataLoader) -> tuple[float, int]:
    start = time.perf_counter()
    labels = sum(int(batch["label"].sum()) for batch in loader)
    return time.perf_counter() - start, labels


def main(folder: Path) -> None:
    write(folder)

    # The two lines that matter. `collate_fn` is not necessary, but faster: a batch is read as one.
    data = ptview.Dataset(folder)
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=data.collate)

    batch = next(iter(loader))
    print(data)
    print("a batch:", {name: (tuple(value.shape), value.dtype) for name, value in batch.items()})

    naive = Naive(folder)
    sample, theirs = data[7], naive[7]
    assert torch.equal(sample["image"], theirs["image"]) and sample["label"] == theirs["label"]

    (ours, labels), (slow, expected) = (epoch(loader), epoch(DataLoader(naive, batch_size=64, shuffle=True)))
    assert labels == expected
    print(
        f"an epoch of {SAMPLES} samples: torch.load {slow:.2f} s, ptview {ours:.3f} s, {slow / ours:.0f} times faster"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
