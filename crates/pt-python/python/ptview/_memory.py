"""Memory of batches, and the arrays and tensors that look at it.

numpy is always there; torch is imported when the first tensor is made, and only if tensors are what is wanted.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from ptview._errors import TensorError

_Framework: TypeAlias = Literal["torch"] | Literal["numpy"]
#: Makes an array or a tensor of memory, the byte it begins at, and its shape.
View = Callable[[Any, int, Sequence[int]], Any]

#: Types that numpy has under the same name.
_NUMPY = {
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "complex64", "complex128",
}  # fmt: skip


def default_framework() -> _Framework:
    """Returns whether samples are tensors or arrays: tensors, if torch is installed. Does not import it."""
    if "torch" in sys.modules:
        return "torch" if sys.modules["torch"] is not None else "numpy"
    return "torch" if importlib.util.find_spec("torch") is not None else "numpy"


def fixed_view(dtype: str, start: int, shape: Sequence[int], framework: _Framework) -> Callable[[Any], Any]:
    """Returns what makes an array or a tensor of memory of ours, where all samples have it in one place."""
    place = tuple(shape)
    view = view_of(dtype, framework)
    if framework == "numpy" or dtype not in _NUMPY:
        return lambda memory: view(memory, start, place)
    import torch

    ndarray, from_numpy, raw = np.ndarray, torch.from_numpy, np.dtype(dtype)
    return lambda memory: from_numpy(ndarray(place, raw, memory, start))


def view_of(dtype: str, framework: _Framework) -> View:
    """Returns what makes arrays or tensors of a dtype, without copying."""
    return _torch_view(dtype) if framework == "torch" else _numpy_view(dtype)


def _numpy_view(name: str) -> View:
    ndarray, dtype = np.ndarray, _numpy_dtype(name)
    return lambda memory, start, shape: ndarray(shape, dtype, memory, start)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name in _NUMPY:
        return np.dtype(name)
    try:
        import ml_dtypes  # type: ignore[import-not-found, unused-ignore]

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
    except (ImportError, AttributeError):
        raise TensorError(f"numpy has no {name}; install ml_dtypes, select other keys, or use torch") from None


def _torch_view(name: str) -> View:
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or name.startswith("q"):
        raise TensorError(f"{name} tensors make no batches in torch {torch.__version__}")
    ndarray, from_numpy, tensor_type = np.ndarray, torch.from_numpy, torch.Tensor
    is_numpys = name in _NUMPY
    raw = np.dtype(name) if is_numpys else np.dtype(f"V{dtype.itemsize}") if dtype.itemsize > 8 else None
    raw = raw or np.dtype(f"int{8 * dtype.itemsize}")

    def view(memory: Any, start: int, shape: Sequence[int]) -> Any:
        if isinstance(memory, tensor_type):
            # Memory of torch, as bytes: what is made of it belongs to the same storage.
            size = dtype.itemsize
            for length in shape:
                size *= length
            return memory[start : start + size].view(dtype).view(tuple(shape))
        # A storage no larger than the tensor. Through numpy this is twice as fast as through torch.frombuffer.
        tensor = from_numpy(ndarray(shape, raw, memory, start))
        return tensor if is_numpys else tensor.view(dtype)

    return view


def in_worker() -> bool:
    """Returns whether this is a worker process of a ``DataLoader``."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None


class Shared:
    """Memory that a worker passes to its parent without a copy: one storage a batch, as each is handed over in a
    conversation of its own."""

    def __init__(self, memory: Any, room: int):
        """Copies memory of ours; behind it stays so much room for :meth:`keep`."""
        self._end = _aligned(len(memory))
        self.bytes = _shared_copy(memory, self._end + room)

    def keep(self, tensor: Any) -> Any:
        """Copies a small tensor behind the rest, where there is room; else it stays what it is."""
        start, end = self._end, self._end + tensor.nbytes
        if end > len(self.bytes):
            return tensor
        self._end = _aligned(end)
        kept = self.bytes[start:end].view(tensor.dtype).view(tensor.shape)
        return kept.copy_(tensor)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def _shared_copy(memory: Any, nbytes: int) -> Any:
    """Copies bytes into shared memory of ``nbytes``, as a tensor."""
    import torch
    from torch.multiprocessing import get_sharing_strategy

    strategy = get_sharing_strategy()  # type: ignore[no-untyped-call]
    number = _memory_file() if strategy == "file_descriptor" else None
    if number is None:
        storage = torch.UntypedStorage._new_shared(nbytes)  # type: ignore[no-untyped-call]
        tensor = torch.empty(0, dtype=torch.uint8).set_(storage)
        tensor.numpy()[: len(memory)] = np.frombuffer(memory, np.uint8)
        return tensor
    # What is written to a file needs no page fault for each 4 KiB and is not zeroed first, as mapped memory would be: a
    # batch read there directly takes longer than one that is read elsewhere and copied.
    try:
        os.truncate(number, nbytes)
        rest = memoryview(memory)
        while rest:
            rest = rest[os.write(number, rest) :]
        storage = torch.UntypedStorage._new_shared_fd_cpu(number, nbytes)  # type: ignore[attr-defined]
    finally:
        os.close(number)
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _memory_file() -> int | None:
    """Opens a file in memory, where the system has such: Linux, unless it forbids that."""
    try:
        return os.memfd_create("ptview")
    except (AttributeError, OSError):
        return None


def pinned(nbytes: int) -> Any:
    """Makes memory that a GPU copies from on its own. torch owns it, and knows when such a copy has ended."""
    import torch

    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def array_of(
    values: list[Any] | np.ndarray[Any, Any], dtype: str, framework: _Framework, shared: Shared | None = None
) -> Any:
    """Makes an array or a tensor of scalars."""
    array = np.array(values, dtype)
    if framework == "numpy":
        return array
    import torch

    tensor = torch.from_numpy(array)
    return tensor if shared is None else shared.keep(tensor)
