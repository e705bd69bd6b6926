"""PyTorch files opened without PyTorch: lazy, memory-mapped, indexed.

:func:`load` is ``torch.load`` for those who want the whole object, :func:`open` gives the tensors of a checkpoint by name,
none of them read before it is asked for. torch is imported only where a torch tensor is asked for.
"""

from ptview._errors import Error, FormatError, MissingError, RangeError, StaleIndexError, TensorError
from ptview._file import File, load, open
from ptview._opaque import Opaque
from ptview._ptview import Tensor, __version__

__all__ = [
    "Error",
    "File",
    "FormatError",
    "MissingError",
    "Opaque",
    "RangeError",
    "StaleIndexError",
    "Tensor",
    "TensorError",
    "__version__",
    "load",
    "open",
]

for _class in (Error, File, FormatError, MissingError, Opaque, RangeError, StaleIndexError, TensorError):
    _class.__module__ = "ptview"
del _class
