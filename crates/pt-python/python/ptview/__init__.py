"""PyTorch files opened without PyTorch: lazy, memory-mapped, indexed.

:func:`load` is ``torch.load`` for those who want the whole object, :func:`open` gives the tensors of a checkpoint by
name, none of them read before it is asked for. torch is imported only where a torch tensor is asked for.
"""

from typing import TYPE_CHECKING, Any

from ptview._errors import (
    Error,
    FormatError,
    MissingError,
    RangeError,
    StaleIndexError,
    TensorError,
)
from ptview._file import File, load, open
from ptview._opaque import Opaque
from ptview._pad import Ragged, pad, ragged
from ptview._ptview import Tensor, __version__
from ptview._save import save
from ptview._tools import Contents, Global, IndexReport, globals, index, verify
from ptview.data import Dataset, Field
from ptview.loader import Loader

if TYPE_CHECKING:
    from ptview.iterable import IterableDataset

__all__ = [
    "Contents",
    "Dataset",
    "Error",
    "Field",
    "File",
    "FormatError",
    "Global",
    "IndexReport",
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
    "globals",
    "index",
    "load",
    "open",
    "pad",
    "ragged",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    # A subclass of torch's own: torch is imported when it is asked for.
    if name == "IterableDataset":
        from ptview.iterable import IterableDataset

        return IterableDataset
    raise AttributeError(f"module 'ptview' has no attribute {name!r}")


# Where they are documented, and where pickle and tracebacks shall find them.
for _class in (
    Contents,
    Error,
    File,
    FormatError,
    Global,
    IndexReport,
    MissingError,
    Opaque,
    RangeError,
    StaleIndexError,
):
    _class.__module__ = "ptview"
TensorError.__module__ = "ptview"
del _class
