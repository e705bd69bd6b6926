"""Objects written as files."""

import os
import sys
from itertools import count
from typing import Any

import numpy as np

from ptview import _ptview
from ptview._errors import Error

__all__ = ["save"]

_numbers = count()


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Writes an object to a file that ``torch.load(path, weights_only=True)`` reads.

    Dicts, lists, tuples, None, bool, int (of 64 bits), float and str, numpy arrays and scalars, torch tensors and
    parameters, and :class:`ptview.Tensor`. Arrays become tensors. Tensors that share a storage share it in the file;
    one that has a storage to itself is written contiguous, and no more than its own elements. Subclasses of dict,
    list and tuple become plain ones. torch is not imported. The file is written whole or not at all: under another
    name, synced, renamed.

    >>> import numpy, ptview
    >>> ptview.save({"x": numpy.arange(3), "label": 7}, "sample.pt")
    >>> ptview.load("sample.pt")
    {'x': tensor([0, 1, 2]), 'label': 7}
    """
    _ptview.save(obj, path)


def describe(obj: Any) -> dict[str, Any]:
    """Says of a tensor or array where its bytes are; called for everything that is no plain value."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(obj, torch.Tensor):
        return _describe_torch(torch, obj)
    if isinstance(obj, _ptview.Tensor):
        return {**_describe_numpy(obj.numpy()), "requires_grad": obj.requires_grad}
    if isinstance(obj, np.ndarray | np.generic):
        return _describe_numpy(np.asarray(obj))
    kind = type(obj)
    raise TypeError(
        f"{kind.__module__}.{kind.__qualname__} cannot be saved; make it a dict of plain values and tensors"
    )


def _describe_numpy(array: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    if array.dtype.hasobject or array.dtype.names or array.dtype.subdtype:
        raise TypeError(f"arrays of {array.dtype} cannot be saved")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    step, strides = 1, []
    for size in reversed(array.shape):
        strides.append(step)
        step *= max(size, 1)
    return {
        # Its own: addresses, which keys of torch's storages are, are even.
        "key": 2 * next(_numbers) + 1,
        "buffer": native.reshape(-1).view(np.uint8),
        "dtype": array.dtype.name,
        "shape": array.shape,
        "stride": strides[::-1],
        "offset": 0,
        "requires_grad": False,
        "parameter": False,
    }


def _describe_torch(torch: Any, tensor: Any) -> dict[str, Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise Error("only strided tensors with values can be saved; torch.save writes others")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    storage = plain.untyped_storage()
    return {
        "key": storage._cdata,
        "buffer": torch.empty(0, dtype=torch.uint8).set_(storage).numpy(),
        "dtype": str(plain.dtype).removeprefix("torch."),
        "shape": tuple(plain.shape),
        "stride": plain.stride(),
        "offset": plain.storage_offset(),
        "requires_grad": tensor.requires_grad,
        "parameter": isinstance(tensor, torch.nn.Parameter),
    }
