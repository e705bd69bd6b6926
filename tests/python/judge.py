"""What real torch says of an object: the same rows that ``ptview ls --format jsonl --hash`` prints."""

import hashlib
from collections.abc import Iterator

import torch


def logical_bytes(tensor: torch.Tensor) -> bytes:
    """Row-major, little-endian bytes of a strided tensor, conjugate and negative bits applied."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    if tensor.numel() == 0:
        return b""
    return tensor.reshape(-1).clone().view(torch.uint8).numpy().tobytes()


def tensors(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Walks dicts, lists and tuples in order."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from tensors(item, (*path, str(position)))


def rows(value: object) -> list[dict]:
    return [
        {
            "name": ".".join(path),
            "path": list(path),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
            "storage_offset": tensor.storage_offset(),
            "requires_grad": tensor.requires_grad,
            "sha256": hashlib.sha256(logical_bytes(tensor)).hexdigest(),
        }
        for path, tensor in tensors(value)
    ]


def assert_same(ours: list[dict], truth: list[dict]) -> None:
    assert [row["name"] for row in ours] == [row["name"] for row in truth]
    for our, true in zip(ours, truth, strict=True):
        assert {key: our[key] for key in true} == true
