"""PyTorch files opened without PyTorch: lazy, memory-mapped, indexed.

:func:`load` is ``torch.load`` for those who want the whole object, :func:`open` gives the tensors of a checkpoint by name,
none of them read before it is asked for. torch is imported only where a torch tensor is asked for.
"""

from typing import TYPE_CHECKING, Any

from ptview._errors import Error, FormatError, MissingError, RangeError, StaleIndexError, TensorError
from ptview._file import File, load, open
from ptview._opaque import Opaque
from ptview._pad import Ragged, pad, ragged
from ptview._ptview import Tensor, __version__
from ptview.data import Dataset, Field
from ptview.loader import Loader

if TYPE_CHECKING:
    from ptview.iterable import IterableDataset

__all__ = [
    "Dataset",
    "Error",
    "Field",
    "File",
    "FormatError",
    "IterableDataset",
    "Loader",
    "MissingError",
    "Opaque",
    "Ragged",
    "RangeError",
    "StaleIndexError",
    "Tensor",
    "TensorError",
    "__version__",
    "load",
    "open",
    "pad",
    "ragged",
]


def __getattr__(name: str) -> Any:
    # A subclass of torch's own: torch is imported when it is asked for.
    if name == "IterableDataset":
        from ptview.iterable import IterableDataset

        return IterableDataset
    raise AttributeError(f"module 'ptview' has no attribute {name!r}")


for _class in (Error, File, FormatError, MissingError, Opaque, RangeError, StaleIndexError, TensorError):
    _class.__module__ = "ptview"
del _class
