"""Samples that differ in length: padded, truncated, masked, or one behind the other.

python examples/python/variable_size.py [FOLDER]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ptview
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

SAMPLES, LENGTH = 1_000, 128


def write(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(SAMPLES):
        length = int(generator.integers(8, 256))
        frames = generator.random((length, 64), np.float32).astype(np.float16)
        ptview.save({"frames": frames, "speaker": f"speaker {number % 5}"}, folder / f"{number:05}.pt")


class Naive(Dataset):
    """What this takes the place of."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.pt"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return torch.load(self.files[index])


def naive_collate(samples: list[dict]) -> dict:
    kept = [sample["frames"][:LENGTH] for sample in samples]
    frames = pad_sequence([*kept, kept[0].new_zeros(LENGTH, 64)], batch_first=True)[:-1]
    lengths = torch.tensor([len(frames) for frames in kept])
    mask = torch.arange(LENGTH) < lengths[:, None]
    speaker = [sample["speaker"] for sample in samples]
    return {"frames": frames, "speaker": speaker, "frames_lengths": lengths, "frames_mask": mask}


def epoch(loader: DataLoader) -> tuple[float, int]:
    start = time.perf_counter()
    steps = sum(int(batch["frames_lengths"].sum()) for batch in loader)
    return time.perf_counter() - start, steps


def main(folder: Path) -> None:
    write(folder)

    # To a fixed length: shorter samples are padded, longer ones cut, as they are read; each byte is written once.
    data = ptview.Dataset(folder, pad=ptview.pad(LENGTH, lengths=True, mask=True))
    loader = DataLoader(data, batch_size=64, collate_fn=data.collate)
    naive = DataLoader(Naive(folder), batch_size=64, collate_fn=naive_collate)
    print(data)
    ours, theirs = next(iter(loader)), next(iter(naive))
    assert ours["speaker"] == theirs["speaker"]
    for name in ("frames", "frames_lengths", "frames_mask"):
        assert torch.equal(ours[name], theirs[name])
        print(f"  {name}: {ours[name].dtype} {tuple(ours[name].shape)}")

    # To the longest of each batch, on the left, as float32.
    data = ptview.Dataset(folder, dtype="float32", pad=ptview.pad("longest", side="left", mode="replicate"))
    print("to the longest:", [tuple(batch["frames"].shape) for batch in ptview.Loader(data, 400)])

    # One behind the other: no padding is read, written or computed on.
    data = ptview.Dataset(folder, pad=ptview.ragged())
    batch = next(iter(ptview.Loader(data, 64, shuffle=True)))
    values, offsets = batch["frames"]
    print(f"one behind the other: {tuple(values.shape)}, the first three begin at {offsets[:3].tolist()}")

    (fast, steps), (slow, expected) = epoch(loader), epoch(naive)
    assert steps == expected
    print(
        f"an epoch of {SAMPLES} samples: torch.load {slow:.2f} s, ptview {fast:.3f} s, {slow / fast:.0f} times faster"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
