"""`ptview.save` writes what `torch.load` reads."""

import numpy as np
import ptview
import pytest
import torch


def round_trip(tmp_path, value: object) -> object:
    path = tmp_path / "saved.pt"
    ptview.save(value, path)
    loaded = torch.load(path, weights_only=True)
    assert torch.load(str(path), weights_only=True, mmap=True) is not None or loaded is None
    return loaded


def test_plain_values(tmp_path) -> None:
    value = {
        "none": None,
        "bools": [True, False],
        "ints": (0, -1, 1 << 40, -(1 << 63)),
        "floats": [0.5, float("inf")],
        "text": "grüß",
        3: {"nested": [[], (), {}]},
    }
    assert round_trip(tmp_path, value) == value


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", "complex64", "uint16"]
)
def test_arrays_become_tensors(tmp_path, dtype: str) -> None:
    if not hasattr(torch, dtype):
        pytest.skip(f"this torch has no {dtype}")
    array = np.arange(6).reshape(2, 3).astype(dtype)
    loaded = round_trip(
        tmp_path,
        {"c": array, "f": np.asfortranarray(array), "t": array.T, "b": array.astype(array.dtype.newbyteorder(">"))},
    )
    for name in ("c", "f", "b"):
        assert np.array_equal(loaded[name].numpy(), array)
    assert np.array_equal(loaded["t"].numpy(), array.T)


def test_tensors_parameters_and_views(tmp_path) -> None:
    base = torch.arange(12.0)
    value = {
        "base": base,
        "view": base[3:7],
        "again": base,
        "strided": torch.arange(12).reshape(3, 4).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "conj": torch.tensor([1 + 2j]).conj(),
    }
    loaded = round_trip(tmp_path, value)
    for name, tensor in value.items():
        assert torch.equal(
            loaded[name].float() if name == "float8" else loaded[name], tensor.float() if name == "float8" else tensor
        )
        assert type(loaded[name]) is type(tensor)
        assert loaded[name].requires_grad == tensor.requires_grad
    assert loaded["base"].untyped_storage()._cdata == loaded["view"].untyped_storage()._cdata


def test_a_view_alone_is_written_alone(tmp_path) -> None:
    loaded = round_trip(tmp_path, torch.zeros(1 << 20)[5:8])
    assert loaded.untyped_storage().nbytes() == 12


def test_handles_are_saved_without_torch(tmp_path) -> None:
    torch.save({"x": torch.arange(5)}, tmp_path / "a.pt")
    assert round_trip(tmp_path, dict(ptview.open(tmp_path / "a.pt")))["x"].tolist() == [0, 1, 2, 3, 4]


def test_many_arrays_keep_apart(tmp_path) -> None:
    loaded = round_trip(tmp_path, [np.full(3, number) for number in range(500)])
    assert [tensor[0].item() for tensor in loaded] == list(range(500))


def endless() -> list:
    value: list = []
    value.append(value)
    return value


def deep() -> list:
    value: list = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), TypeError),
        ({"x": b"bytes"}, TypeError),
        (1 << 70, ptview.Error),
        (np.array([object()]), TypeError),
        (torch.zeros(2, 2).to_sparse(), ptview.Error),
        (endless(), ptview.Error),
        (deep(), ptview.Error),
    ],
)
def test_what_cannot_be_saved_leaves_the_file(tmp_path, value, kind) -> None:
    path = tmp_path / "a.pt"
    ptview.save(7, path)
    before = path.read_bytes()
    with pytest.raises(kind):
        ptview.save(value, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        ptview.save(7, tmp_path / "none" / "a.pt")
