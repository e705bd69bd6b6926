"""Many files, many samples in each, and a `DataLoader` with worker processes; then without them.

    python examples/python/many_files.py [FOLDER]

A sample is a row of the tensors of a file. `torch.load` would read a file of 500 rows for one of them, or map it anew
each time.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ptview
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

FILES, ROWS = 20, 500


def write(folder: Path) -> None:
    for number in range(FILES):
        features = np.full((ROWS, 16, 16), number, np.float32)
        target = np.arange(ROWS) + number * ROWS
        ptview.save({"features": features, "target": target, "hard": number % 4 == 0}, folder / f"part-{number:03}.pt")


class Naive(Dataset):
    """What this takes the place of."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.pt"))

    def __len__(self) -> int:
        return FILES * ROWS

    def __getitem__(self, index: int):
        file = torch.load(str(self.files[index // ROWS]), mmap=True)
        return {name: file[name][index % ROWS].clone() for name in ("features", "target")} | {"hard": file["hard"]}


def seconds(batches) -> tuple[float, int]:
    start = time.perf_counter()
    targets = sum(int(batch["target"].sum()) for batch in batches)
    return time.perf_counter() - start, targets


def main(folder: Path) -> None:
    write(folder)
    # Where tensors lie is found once and kept beside the files: workers start from it, and nothing is parsed again.
    ptview.index(folder)

    data = ptview.Dataset(folder, mode="row")
    print(data)
    loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=2, collate_fn=data.collate)
    with_workers, targets = seconds(loader)
    assert targets == sum(range(FILES * ROWS))

    # The same without worker processes: threads read ahead, and no batch is passed between processes.
    without_workers, targets = seconds(ptview.Loader(data, batch_size=256, shuffle=True, seed=1))
    assert targets == sum(range(FILES * ROWS))

    naive, targets = seconds(DataLoader(Naive(folder), batch_size=256, shuffle=True, num_workers=2))
    assert targets == sum(range(FILES * ROWS))
    print(f"an epoch of {len(data)} rows: torch.load and 2 workers {naive:.2f} s, ptview and 2 workers "
          f"{with_workers:.2f} s, ptview.Loader {without_workers:.3f} s")  # fmt: skip

    # Labels come from the index, so samplers open no file.
    hard = data.column("hard")
    sampler = WeightedRandomSampler(np.where(hard, 3.0, 1.0).tolist(), num_samples=2_048)
    batches = DataLoader(data, batch_size=256, sampler=sampler, collate_fn=data.collate)
    share = torch.cat([batch["hard"] for batch in batches]).float().mean()
    print(f"hard samples: {hard.mean():.0%} of the data, {share:.0%} of what the sampler draws")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
