"""PyTorch files opened without PyTorch: lazy, memory-mapped, indexed.

:func:`load` is ``torch.load`` for those who want the whole object, :func:`open` gives the tensors of a checkpoint by
name, none of them read before it is asked for. torch is imported only where a torch tensor is asked for.
"""

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
from ptview._ptview import Tensor, __version__
from ptview._save import save
from ptview._tools import Contents, Global, IndexReport, globals, index, verify

__all__ = [
    "Contents",
    "Error",
    "File",
    "FormatError",
    "Global",
    "IndexReport",
    "MissingError",
    "Opaque",
    "RangeError",
    "StaleIndexError",
    "Tensor",
    "TensorError",
    "__version__",
    "globals",
    "index",
    "load",
    "open",
    "save",
    "verify",
]

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
