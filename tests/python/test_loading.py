"""`ptview.load` gives what `torch.load` gives."""

import gc
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import ptview
import pytest
import torch

from conftest import ROOT
from equality import Comparison

FIXTURES = ROOT / "testdata/fixtures"
EXPECTED = json.loads((ROOT / "testdata/expected.json").read_text())["files"]
# Where the two differ, and why ours is right.
DIFFERENT = {
    "zip/big_endian_v3.pt": "torch does not swap the bytes of storages without a type",
    "zip/cuda_location.pt": "needs a GPU; see test_map_location",
}


def files() -> list[str]:
    return sorted(name for name, entry in EXPECTED.items() if entry["result"] == "ok" and (FIXTURES / name).is_file())


def compare(path: Path, **options) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.load(path, weights_only=True, **options)
        comparison = Comparison()
        comparison.compare(ptview.load(path, **options), theirs)
    return comparison.differences


@pytest.mark.parametrize("name", files())
def test_every_fixture_that_torch_loads(name: str) -> None:
    if name in DIFFERENT:
        pytest.skip(DIFFERENT[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(FIXTURES / name, weights_only=True)
    except Exception:
        # torch refuses classes, containers and dtypes; of what the truth lists, everything must be loadable or named.
        try:
            ptview.load(FIXTURES / name)
        except ptview.Error as error:
            assert str(error)
        return
    if isinstance(loaded, torch.jit.ScriptModule):
        pytest.skip("this torch makes a module of it, not its tree")
    assert compare(FIXTURES / name) == []


@pytest.mark.parametrize("name", sorted(name for name, entry in EXPECTED.items() if entry["result"] != "ok"))
def test_hostile_files_raise_what_is_documented(name: str) -> None:
    try:
        ptview.load(FIXTURES / name)
    except (ptview.Error, OSError):
        assert EXPECTED[name]["result"] in ("error", "either")
    assert not Path("PWNED.txt").exists()


def test_nothing_is_copied_and_copies_are_the_same() -> None:
    path = FIXTURES / "zip/views.pt"
    comparison = Comparison()
    comparison.compare(ptview.load(path, mmap=False), torch.load(path, weights_only=True))
    assert comparison.differences == []


def test_real_files() -> None:
    folder = Path(os.environ.get("PTVIEW_CORPUS", ROOT / "../shared/corpus"))
    if not (folder / "MANIFEST.json").exists():
        pytest.skip("no corpus beside the checkout, and PTVIEW_CORPUS does not name one")
    wrong, compared = [], 0
    for entry in json.loads((folder / "MANIFEST.json").read_text())["files"]:
        path = folder / entry["file"]
        try:
            differences = compare(path, map_location="cpu")
        except ptview.Error as error:
            wrong.append(f"{path.name} is refused: {error}")
        except Exception:
            # torch refuses it; we give what is there, or say why not.
            if entry["expect"] != "error":
                ptview.load(path, map_location="cpu")
        else:
            compared += 1
            wrong.extend(f"{path.name}: {difference}" for difference in differences)
    assert wrong == []
    assert compared > 30


def save(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize("numel", [8, 1 << 20], ids=["read", "mapped"])
def test_writing_never_reaches_the_file(tmp_path, numel: int) -> None:
    path = save(tmp_path / "a.pt", {"x": torch.arange(numel), "y": torch.zeros(3)})
    before = path.read_bytes()
    loaded = ptview.load(path)
    loaded["x"].add_(1)
    loaded["y"][0] = 7
    assert loaded["x"][0] == 1
    assert ptview.load(path)["x"][0] == 0
    del loaded
    gc.collect()
    assert path.read_bytes() == before


@pytest.mark.parametrize("numel", [8, 1 << 20], ids=["read", "mapped"])
def test_a_storage_is_no_larger_than_in_the_file(tmp_path, numel: int) -> None:
    path = save(tmp_path / "a.pt", {"x": torch.arange(numel), "y": torch.zeros(3)})
    loaded = ptview.load(path)
    assert loaded["x"].untyped_storage().nbytes() == 8 * numel
    assert loaded["y"].untyped_storage().nbytes() == 12


def test_map_location(tmp_path) -> None:
    path = FIXTURES / "zip/cuda_location.pt"
    locations = {tensor["storage"]["location"] for tensor in EXPECTED["zip/cuda_location.pt"]["tensors"]}
    assert compare(path, map_location="cpu") == []
    assert compare(path, map_location=torch.device("cpu")) == []
    assert compare(path, map_location=dict.fromkeys(locations, "cpu")) == []
    assert compare(path, map_location=lambda storage, location: storage) == []
    ours, theirs = ptview.load(path, map_location="meta"), torch.load(path, map_location="meta", weights_only=True)
    comparison = Comparison()
    comparison.compare(ours, theirs)
    assert comparison.differences == []
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="map_location"):
            ptview.load(path)


def test_modules_arrive_as_opaque_objects() -> None:
    module = ptview.load(FIXTURES / "zip/module.pt")
    assert isinstance(module, ptview.Opaque)
    assert module.cls in repr(module)
    assert isinstance(module.state, dict)
    with pytest.raises(AttributeError):
        _ = module.no_such_attribute


def test_deep_files_do_not_recurse(tmp_path) -> None:
    # A pickle of a hundred thousand lists in each other, put into an archive by our own writer's frame.
    import zipfile

    path = tmp_path / "deep.pt"
    depth = 100_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deep/data.pkl", b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
        archive.writestr("deep/version", "3\n")
    value, found = ptview.load(path), 0
    while value:
        value, found = value[0], found + 1
    assert found == depth - 1


def test_loading_imports_nothing_of_the_file_and_torch_only_where_needed(tmp_path) -> None:
    path = save(tmp_path / "a.pt", {"x": torch.arange(3)})
    code = (
        "import sys, ptview;"
        f"file = ptview.open({str(path)!r}); file['x'].numpy(); repr(file); file.tree;"
        f"ptview.save({{'x': file['x'].numpy()}}, {str(tmp_path / 'b.pt')!r});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.equal(torch.load(tmp_path / "b.pt", weights_only=True)["x"], torch.arange(3))


def test_arrays_arrive_as_arrays() -> None:
    loaded = ptview.load(FIXTURES / "zip/numpy_dtypes.pt")
    arrays = [value for value in loaded.values() if isinstance(value, np.ndarray)]
    assert arrays
