"""Whether two nested objects are the same: types, keys, order, dtypes, shapes, values."""

import torch


def assert_same_object(ours: object, theirs: object, where: str = "") -> None:
    assert type(ours) is type(theirs), f"{where}: {type(ours)} is not {type(theirs)}"
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype, f"{where}: {ours.dtype} is not {theirs.dtype}"
        assert ours.shape == theirs.shape, f"{where}: {ours.shape} is not {theirs.shape}"
        assert ours.requires_grad == theirs.requires_grad, where
        assert torch.equal(ours, theirs), f"{where}: {ours} is not {theirs}"
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), f"{where}: {list(ours)} is not {list(theirs)}"
        for key, value in theirs.items():
            assert_same_object(ours[key], value, f"{where}[{key!r}]")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), f"{where}: {len(ours)} is not {len(theirs)}"
        for number, value in enumerate(theirs):
            assert_same_object(ours[number], value, f"{where}[{number}]")
    else:
        assert ours == theirs, f"{where}: {ours!r} is not {theirs!r}"
