"""The examples in the documentation run."""

import doctest
import importlib
import pkgutil

import numpy as np
import ptview
import pytest
import torch


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


@pytest.mark.parametrize(
    "name", ["ptview", *(module.name for module in pkgutil.iter_modules(ptview.__path__, "ptview."))]
)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


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
