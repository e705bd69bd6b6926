"""The examples in the documentation run."""

import doctest
import importlib
import pkgutil
from typing import Any

import numpy as np
import ptview
import pytest
import torch
from torch.utils.data import DataLoader


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch) -> None:
    """The files that the examples speak of."""
    monkeypatch.chdir(tmp_path)
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save({"layer.weight": weight, "layer.bias": torch.tensor([0.5, 1.5])}, "model.pt")
    torch.save({"state_dict": {"weight": weight}, "epoch": 7}, "checkpoint.pt")
    (tmp_path / "page.html").write_text("<!DOCTYPE html>")
    (tmp_path / "samples").mkdir()
    for number in range(2):
        ptview.save({"x": np.arange(4), "y": number}, f"samples/{number}.pt")


@pytest.fixture
def names(tmp_path) -> dict[str, Any]:
    """The names that the examples of data sets use."""
    (tmp_path / "labelled").mkdir()
    for number, (label, split) in enumerate([(7, "train"), (1, "train"), (7, "test"), (2, "test")]):
        sample = {"x": np.arange(4, dtype=np.float32), "label": label, "split": split, "meta": {"year": 2019 + number}}
        ptview.save(sample, tmp_path / "labelled" / f"{number}.pt")
    data = ptview.Dataset(tmp_path / "labelled")
    return {
        "ptview": ptview,
        "torch": torch,
        "np": np,
        "DataLoader": DataLoader,
        "data": data,
        "train": lambda batch: None,
    }


@pytest.mark.parametrize(
    "name", ["ptview", *(module.name for module in pkgutil.iter_modules(ptview.__path__, "ptview."))]
)
def test_examples(name: str, names: dict[str, Any]) -> None:
    assert doctest.testmod(importlib.import_module(name), extraglobs=names).failed == 0


def test_everything_public_is_documented() -> None:
    for name in ptview.__all__:
        public = getattr(ptview, name)
        assert isinstance(public, str) or public.__doc__, name
    for cls in (ptview.Tensor, ptview.File):
        for name, member in vars(cls).items():
            assert name.startswith("_") or member.__doc__, f"{cls.__name__}.{name}"


def test_the_functions_have_examples() -> None:
    for name in ("load", "open", "save", "index", "verify", "globals", "File", "Opaque"):
        assert ">>>" in getattr(ptview, name).__doc__, name
