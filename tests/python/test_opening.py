"""`ptview.open`: tensors by name, none of them read before it is asked for."""

import gc
import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import ptview
import pytest
import torch

from conftest import ROOT
from judge import logical_bytes

FIXTURES = ROOT / "testdata/fixtures"
LARGE = 1 << 18


@pytest.fixture(params=["small", "large", "indexed"])
def path(request, tmp_path):
    """A file that is read, one that is mapped, and one with its index."""
    rows = 4 if request.param == "small" else LARGE
    path = tmp_path / "model.pt"
    embed = torch.arange(rows * 4, dtype=torch.float32).reshape(rows, 4)
    torch.save({"embed": embed, "half": torch.ones(3, dtype=torch.bfloat16), "columns": embed.t()}, path)
    if request.param == "indexed":
        ptview.index(path)
        assert (tmp_path / "model.pt.ptidx").exists()
    return path


def test_a_file_is_a_mapping(path) -> None:
    with ptview.open(path) as file:
        assert isinstance(file, Mapping)
        assert list(file) == ["embed", "half", "columns"]
        assert len(file) == 3
        assert "half" in file
        assert "none" not in file
        assert file.get("none") is None
        with pytest.raises(KeyError, match=r"no tensor `embe`; there are 3, such as `embed`") as caught:
            file["embe"]
        assert isinstance(caught.value, ptview.Error)
        tensor = file["embed"]
    with pytest.raises(ptview.Error, match="closed"):
        file["embed"]
    # What was taken stays.
    assert tensor.numpy()[1, 1] == 5


def test_what_a_tensor_says(path) -> None:
    tensor = ptview.open(path)["columns"]
    rows = tensor.shape[1]
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.stride) == ("columns", "float32", (4, rows), (1, 4))
    assert tensor.nbytes == 16 * rows
    assert not tensor.requires_grad
    assert tensor.access == "in place"
    assert "columns" in repr(tensor)


def test_arrays_and_tensors_are_lent_in_place(path) -> None:
    truth = torch.load(path, weights_only=True)
    file = ptview.open(path)
    for name in ("embed", "columns"):
        tensor = file[name]
        array = tensor.numpy()
        assert np.array_equal(array, truth[name].numpy())
        assert array.strides == truth[name].numpy().strides
        assert array.flags.writeable
        assert torch.equal(tensor.torch(), truth[name])
        assert tensor.torch().data_ptr() == array.__array_interface__["data"][0]
        # numpy 1 makes it read-only.
        assert np.from_dlpack(tensor).__array_interface__["data"][0] == array.__array_interface__["data"][0]
        assert torch.equal(torch.from_dlpack(tensor), truth[name])
        assert np.asarray(tensor) is not None
        assert np.asarray(memoryview(tensor)).tobytes() == array.tobytes()
        assert np.asarray(tensor, dtype=np.float64).dtype == np.float64
        copied = np.array(tensor)
        assert not np.shares_memory(copied, array)


def test_writing_never_reaches_the_file(path) -> None:
    before = path.read_bytes()
    file = ptview.open(path)
    file["embed"].numpy()[...] = 0
    file["embed"].torch().fill_(7)
    assert path.read_bytes() == before


def test_a_tensor_outlives_its_file(path) -> None:
    tensor = ptview.open(path)["embed"].torch()
    array = ptview.open(path)["embed"].numpy()
    view = memoryview(ptview.open(path)["embed"])
    os.unlink(path)
    gc.collect()
    assert tensor[1, 1] == array[1, 1] == np.asarray(view)[1, 1] == 5


def test_parts_are_no_more_than_they_are(path) -> None:
    file = ptview.open(path)
    row = file["embed"][2]
    assert row.shape == (4,)
    assert row.torch().untyped_storage().nbytes() == 16
    assert row.torch().tolist() == [8, 9, 10, 11]
    truth = torch.load(path, weights_only=True)["embed"]
    for key in (
        slice(1, 3),
        -1,
        (1, 2),
        (slice(1, 3), slice(0, 2)),
        (slice(None), 3),
        ...,
        slice(3, 1),
        slice(-2, None),
    ):
        assert torch.equal(file["embed"][key].torch(), truth[key])
        assert np.array_equal(file["embed"][key].numpy(), truth[key].numpy())
    assert len(file["embed"]) == truth.shape[0]
    assert file["columns"][1].torch().tolist() == truth[:, 1].tolist()


@pytest.mark.parametrize(
    ("key", "kind"),
    [(10**9, IndexError), (slice(0, 4, 2), ptview.TensorError), ("x", TypeError), ((0, 0, 0), IndexError)],
)
def test_wrong_parts(path, key, kind) -> None:
    with pytest.raises(kind):
        ptview.open(path)["embed"][key]


def test_bfloat16_is_that_of_ml_dtypes(path, monkeypatch) -> None:
    array = ptview.open(path)["half"].numpy()
    assert array.dtype == ml_dtypes.bfloat16
    assert array.tolist() == [1, 1, 1]
    assert ptview.open(path)["half"].torch().dtype is torch.bfloat16


def test_prefetch_and_residence(path) -> None:
    tensor = ptview.open(path)["embed"]
    tensor.prefetch()
    tensor.numpy().sum()
    assert tensor.resident in (None, tensor.nbytes)


def test_a_row_reads_its_pages_alone(tmp_path) -> None:
    path = tmp_path / "big.pt"
    torch.save({"x": torch.zeros(16 << 20, dtype=torch.uint8).reshape(-1, 4096)}, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    tensor = ptview.open(path)["x"]
    if tensor.resident != 0:
        pytest.skip("the file does not leave the page cache here")
    assert tensor[7].numpy().sum() == 0
    assert tensor.resident < tensor.nbytes // 8


def test_the_tree_has_handles_in_the_place_of_tensors() -> None:
    file = ptview.open(FIXTURES / "zip/lightning.ckpt")
    tree = file.tree
    assert isinstance(tree["state_dict"], dict)
    name, tensor = next(iter(tree["state_dict"].items()))
    assert isinstance(tensor, ptview.Tensor)
    assert tensor.name == f"state_dict.{name}"


def test_every_tensor_of_every_fixture_equals_that_of_load() -> None:
    compared = 0
    for path in sorted((FIXTURES / "zip").glob("*.pt")):
        file = ptview.open(path)
        try:
            whole = ptview.load(path, map_location="cpu")
        except ptview.Error:
            continue
        if not isinstance(whole, dict):
            continue
        for name, loaded in whole.items():
            if not isinstance(loaded, torch.Tensor) or name not in file or loaded.is_nested or loaded.is_meta:
                continue
            ours = file[name].torch()
            assert (ours.dtype, ours.shape, ours.layout) == (loaded.dtype, loaded.shape, loaded.layout)
            assert ours.requires_grad == loaded.requires_grad
            if loaded.layout is torch.strided and loaded.numel() < LARGE:
                assert ours.stride() == loaded.stride()
                assert logical_bytes(ours) == logical_bytes(loaded)
                assert ours.untyped_storage().nbytes() <= loaded.untyped_storage().nbytes()
                compared += 1
    assert compared > 50


def test_checkpoints_of_several_files() -> None:
    for path in (FIXTURES / "pkg/hf", FIXTURES / "pkg/hf/pytorch_model.bin.index.json"):
        file = ptview.open(path)
        assert len(file.files) == 2
        truth = {}
        for shard in sorted((FIXTURES / "pkg/hf").glob("*.bin")):
            truth.update(torch.load(shard, weights_only=True))
        assert set(file) == set(truth)
        for name, tensor in truth.items():
            assert torch.equal(file[name].torch(), tensor)
        assert set(file.tree) == set(truth)


def test_distributed_checkpoints() -> None:
    file = ptview.open(FIXTURES / "pkg/dcp")
    plain = [tensor for tensor in file.values() if tensor.layout == "strided"]
    assert plain
    for tensor in plain:
        assert tensor.torch().shape == torch.Size(tensor.shape)


def test_a_folder_of_anything_is_none(tmp_path) -> None:
    with pytest.raises(ptview.FormatError, match="Dataset"):
        ptview.open(tmp_path)


def test_a_stale_index_is_not_used(tmp_path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3)}, path)
    ptview.index(path)
    torch.save({"y": torch.ones(5)}, path)
    assert list(ptview.open(path)) == ["y"]


def test_an_index_that_is_kept_open_is_not_used_when_it_is_no_longer_there(tmp_path, monkeypatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, "ab"), (other, "xy")):
        folder.mkdir()
        torch.save({name: torch.zeros(2) for name in names}, folder / "model.pt")
        ptview.index(folder / "model.pt")
    # The same relative path is another file.
    monkeypatch.chdir(one)
    assert list(ptview.open("model.pt")) == ["a", "b"]
    monkeypatch.chdir(other)
    assert list(ptview.open("model.pt")) == ["x", "y"]
    # Replaced, with its file; and gone.
    monkeypatch.chdir(one)
    for name in ("model.pt", "model.pt.ptidx"):
        os.replace(other / name, one / name)
    opened = ptview.open("model.pt")
    assert list(opened) == ["x", "y"]
    (one / "model.pt.ptidx").unlink()
    torch.save([torch.ones(1)], one / "model.pt")
    assert list(ptview.open("model.pt")) == ["0"]
    assert list(opened) == ["x", "y"]


def test_opening_an_indexed_file_again_opens_one_file(tmp_path) -> None:
    torch.save({f"t{n}": torch.zeros(1) for n in range(2000)}, tmp_path / "model.pt")
    ptview.index(tmp_path / "model.pt")
    held = [ptview.open(tmp_path / "model.pt") for _ in range(50)]
    maps = Path("/proc/self/maps").read_text()
    assert maps.count("model.pt.ptidx") == 1
    assert all(file["t1999"].torch().item() == 0 for file in held)


def test_tables(path) -> None:
    file = ptview.open(path)
    assert "embed" in repr(file)
    assert "float32" in repr(file)
    assert file._repr_html_().count("<tr>") == 4
    file.close()
    assert "closed" in repr(file)


def test_compressed_and_foreign_tensors_are_copied() -> None:
    file = ptview.open(FIXTURES / "zip/big_endian.pt")
    whole = torch.load(FIXTURES / "zip/big_endian.pt", weights_only=True)
    for name, tensor in whole.items():
        assert np.array_equal(file[name].numpy(), tensor.numpy())
        assert torch.equal(file[name].torch(), tensor)
    with pytest.raises((ptview.Error, BufferError)):
        next(iter(file.values())).__dlpack__(copy=False)
