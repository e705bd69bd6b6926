"""What we write, torch reads: with ``weights_only=True``, and mapped."""

import math

import pytest
import torch

from judge import assert_same, rows

FILES = [
    "dtypes.pt", "values.pt", "views.pt", "parameters.pt", "root_tensor.pt", "alignment_1.pt", "alignment_8.pt",
    "alignment_4096.pt", "checkpoint_epoch_0100.pt", "many.pt",
]  # fmt: skip


def loaded(path, **options) -> object:
    if not hasattr(torch, "uint16") and b"_rebuild_tensor_v3" in path.read_bytes():
        pytest.skip("this torch has dtypes of its own that weights_only=True refuses")
    return torch.load(str(path), weights_only=True, **options)


def test_every_sample_is_tested(samples):
    assert sorted(path.name for path in samples.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_torch_loads_what_we_write(name, samples, ls):
    assert_same(ls(samples / name), rows(loaded(samples / name)))


# torch maps records where they are; what it does with misaligned ones is its own affair.
@pytest.mark.parametrize("name", [name for name in FILES if name not in ("alignment_1.pt", "alignment_8.pt")])
def test_torch_maps_what_we_write(name, samples, ls):
    assert_same(ls(samples / name), rows(loaded(samples / name, mmap=True)))


@pytest.mark.parametrize("name", FILES)
def test_a_round_trip_through_torch_changes_nothing(name, samples, ls, tmp_path):
    again = tmp_path / name
    torch.save(loaded(samples / name), again)
    drop = ("file", "offset", "zero_copy")
    ours, theirs = ([{k: v for k, v in row.items() if k not in drop} for row in ls(p)] for p in (samples / name, again))
    assert ours == theirs


def test_values_arrive(samples):
    value = torch.load(samples / "values.pt", weights_only=True)
    assert value["ints"] == [
        0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31), 2**63 - 1, -(2**63),
    ]  # fmt: skip
    assert value["floats"] == (0.5, -0.0, 1e300, math.inf)
    assert math.copysign(1, value["floats"][1]) == -1
    assert value["text"] == "é 日本 \n \0"
    assert value["none"] is None
    assert (value["yes"], value["no"]) == (True, False)
    assert value["empty"] == ([], (), {})
    assert value["long"] == list(range(2500))
    assert value["keys"] == {1: "one", 2: "two"}
    deep, depth = value["deep"], 0
    while deep is not None:
        (deep,), depth = deep, depth + 1
    assert depth == 100


def test_storages_are_shared_or_no_larger_than_their_tensor(samples):
    views = torch.load(samples / "views.pt", weights_only=True)
    shared = {views[name].untyped_storage().data_ptr() for name in ("whole", "matrix", "transposed", "block")}
    assert len(shared) == 1
    assert views["column"].untyped_storage().nbytes() == 4 * 4
    assert views["column"].tolist() == [1, 7, 13, 19]
    assert torch.equal(views["reserved"], torch.zeros(1000))


def test_parameters_are_parameters(samples):
    value = torch.load(samples / "parameters.pt", weights_only=True)
    assert isinstance(value["weight"], torch.nn.Parameter) and value["weight"].requires_grad
    assert isinstance(value["frozen"], torch.nn.Parameter) and not value["frozen"].requires_grad
    assert type(value["leaf"]) is torch.Tensor and value["leaf"].requires_grad
    assert value["complex"].tolist() == [1 - 1j]
    assert value["frozen"].tolist() == [1.5, -2.5]


def test_records_lie_where_their_alignment_says(samples, ls):
    for alignment in (8, 4096):
        assert all(row["offset"] % alignment == 0 for row in ls(samples / f"alignment_{alignment}.pt"))
