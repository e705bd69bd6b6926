"""What torch writes, we read alike."""

import collections
import io

import pytest
import torch

from judge import assert_same, rows

TYPED = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
# Old versions of torch lack some.
UNTYPED = [
    getattr(torch, name)
    for name in (
        "uint16", "uint32", "uint64", "complex32", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
        "float8_e8m0fnu",
    ) if hasattr(torch, name)
]  # fmt: skip


def some(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(1, 1 + 6 * dtype.itemsize, dtype=torch.uint8).view(dtype).reshape(2, 3)


def objects() -> dict[str, object]:
    torch.manual_seed(0)
    base = torch.arange(24.0).view(4, 6)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {
        "dtypes": {
            str(dtype): some(dtype) if dtype != torch.bool else torch.tensor([[True, False]]) for dtype in TYPED
        },
        "v3": {str(dtype): some(dtype) for dtype in UNTYPED},
        "views": [base, base.t(), base[1:3, 2:5], base[:, 1], base[::2], base.expand(2, 4, 6), base[4:], base[3, 5]],
        "lazy bits": [torch.tensor([1 + 2j, 3 - 4j]).conj(), torch._neg_view(torch.tensor([1.0, -2.0]))],
        "state dict": model.state_dict(),
        "training": {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3},
        "parameters": {"p": torch.nn.Parameter(base.clone()), "q": torch.nn.Parameter(base[0], requires_grad=False)},
        "root": torch.arange(3),
        "ordered": collections.OrderedDict([("b", torch.ones(1)), ("a", (torch.zeros(2), {"c": torch.ones(0, 3)}))]),
        "keys": {
            1: torch.ones(1),
            "x.y": torch.ones(2),
            (1, "a"): torch.ones(3),
            None: torch.ones(4),
            1.5: torch.ones(5),
        },
        "channels last": torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "no tensors": {"a": 1},
        "many": [torch.full((2,), float(number)) for number in range(1001)],
    }


@pytest.mark.parametrize("name", objects())
def test_torch_save_reads_alike(name, ls, tmp_path):
    value = objects()[name]
    path = tmp_path / f"{name}.pt"
    torch.save(value, path)
    assert_same(ls(path), rows(value))


@pytest.mark.parametrize("length", range(1, 65))
def test_archive_names_of_every_length(length, ls, tmp_path):
    # 21 characters break readers that guess where the directory starts.
    path = tmp_path / ("n" * length + ".pt")
    torch.save({"w": torch.arange(3)}, path)
    assert_same(ls(path), rows(torch.load(path, weights_only=True)))


def test_written_through_a_buffer(ls, tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(3)}, buffer)
    path = tmp_path / "buffer.bin"
    path.write_bytes(buffer.getvalue())
    assert_same(ls(path), rows({"w": torch.arange(3)}))


def test_offsets_are_where_torch_finds_the_records(ls, tmp_path):
    path = tmp_path / "offsets.pt"
    torch.save([torch.arange(5), torch.arange(7.0)[2:]], path)
    reader = torch._C.PyTorchFileReader(str(path))
    first, second = ls(path)
    assert first["offset"] == reader.get_record_offset("data/0")
    assert second["offset"] == reader.get_record_offset("data/1") + 2 * 4


def test_a_torch_file_that_is_not_there(ptview, tmp_path):
    done = ptview("ls", tmp_path / "missing.pt")
    assert done.returncode == 1
    assert "missing.pt" in done.stderr
    assert ptview("ls").returncode == 2
