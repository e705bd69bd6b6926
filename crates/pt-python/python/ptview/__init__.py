"""PyTorch files opened without PyTorch: lazy, memory-mapped, indexed.

:func:`open` gives the tensors of a checkpoint by name, none of them read before it is asked for.
"""

from ptview._errors import (
    Error,
    FormatError,
    MissingError,
    RangeError,
    StaleIndexError,
    TensorError,
)
from ptview._ptview import File, Tensor, __version__, open

__all__ = [
    "Error",
    "File",
    "FormatError",
    "MissingError",
    "RangeError",
    "StaleIndexError",
    "Tensor",
    "TensorError",
    "__version__",
    "open",
]

for _class in (
    Error,
    FormatError,
    MissingError,
    RangeError,
    StaleIndexError,
    TensorError,
):
    _class.__module__ = "ptview"
del _class
