"""Folders of sample files, written by torch."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch


def write(folder: Path, count: int, sample: Callable[[int], object]) -> list[str]:
    """Writes so many samples; returns the files in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [str(folder / f"{number:05}.pt") for number in range(count)]
    for number, file in enumerate(files):
        torch.save(sample(number), file)
    return files


def simple(number: int) -> dict:
    return {"x": torch.full((4, 3), float(number)), "y": number % 7}


def nested(number: int) -> OrderedDict:
    """Everything that a sample may be made of and that can be batched."""
    generator = torch.Generator().manual_seed(number)
    return OrderedDict(
        image=torch.rand(3, 4, generator=generator),
        target={
            "boxes": [torch.full((2, 4), number, dtype=torch.int16), torch.tensor(number)],
            "label": number % 5,
            3: number / 2,
        },
        pair=(torch.arange(4, dtype=torch.uint8) + number, number % 2 == 0),
        half=torch.full((2,), number, dtype=torch.bfloat16),
        name=f"sample {number}",
    )


def ragged(number: int) -> dict:
    length = 1 + number * 5 % 9
    return {
        "tokens": torch.arange(length) + 10 * number,
        "embedding": torch.full((length, 2), number, dtype=torch.float16),
        "label": number,
    }


def images(number: int) -> dict:
    """Of any height and width."""
    height, width = 2 + number * 3 % 5, 1 + number * 5 % 7
    return {"image": torch.arange(height * width * 3.0).view(height, width, 3) + 1000 * number, "label": number}


def rows(number: int) -> dict:
    count = 2 + number % 3
    return {"x": torch.arange(count * 6.0).view(count, 3, 2) + 100 * number, "t": torch.arange(count) + 10 * number}


def tensors(number: int) -> dict:
    return {f"t{key}": torch.full((2, 3), float(10 * number + key)) for key in range(1 + number % 3)}
