"""Files: opened for their tensors, or loaded whole."""

import gc
import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import TracebackType
from typing import Any, Self, TypeAlias

from ptview import _ptview
from ptview._errors import Error, FormatError
from ptview._ptview import Tensor

__all__ = ["File", "load", "open"]

Path: TypeAlias = str | os.PathLike[str]

_PLAN = ".metadata"
_SHARDS = ".index.json"


class File(Mapping[str, Tensor]):
    """The tensors of an open checkpoint by name, none of them read; made by :func:`open`.

    A read-only mapping and a context manager. Tensors, arrays and torch tensors that were taken from it outlive it.

    >>> import ptview
    >>> with ptview.open("model.pt") as file:
    ...     print(list(file))
    ...     print(file["layer.weight"].shape)
    ['layer.weight', 'layer.bias']
    (2, 3)
    """

    __slots__ = ("_opened", "_path")

    def __init__(self, path: Path) -> None:
        self._opened: _ptview.OpenFile | None = _ptview.open_file(path)
        self._path = os.fspath(path)

    def _file(self) -> _ptview.OpenFile:
        if self._opened is None:
            raise Error(f"{self.path} was closed")
        return self._opened

    def __getitem__(self, name: str, /) -> Tensor:
        return self._file().get(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._file().find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._file().names())

    def __len__(self) -> int:
        return len(self._file())

    # Two files are the same if they are one: comparing names and handles would say nothing of the content.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def path(self) -> str:
        """The path it was opened by."""
        return self._path

    @property
    def files(self) -> list[str]:
        """The paths of the data files: one, or as many as the checkpoint has."""
        return self._file().files

    @property
    def tree(self) -> Any:
        """The saved object as plain Python, with a :class:`Tensor` in the place of each tensor.

        Made anew each time. What only torch has becomes what is nearest: a dtype or device its name, a ``torch.Size``
        a tuple. A checkpoint of several files has no object; its tree is the dict of its tensors.

        >>> import ptview
        >>> ptview.open("checkpoint.pt").tree["epoch"]
        7
        """
        return self._file().tree() if len(self.files) == 1 else dict(self)

    def close(self) -> None:
        """Forgets the file. What was taken from it stays."""
        self._opened = None

    def __enter__(self) -> Self:
        self._file()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._opened is None:
            return f"<ptview.File {self.path!r}, closed>"
        from ptview._show import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from ptview._show import as_html

        return as_html(self)


def open(path: Path) -> File:
    """Opens a checkpoint for its tensors. Nothing of them is read.

    ``path`` is a file, the folder of a distributed checkpoint, an index of shards (``….index.json``) or a folder with
    one. With a fresh index beside it (``model.pt.ptidx``, made by :func:`ptview.index`) a file is opened in the same
    few microseconds however many tensors it has. The eight indexes that were opened last stay open, so that the next
    tensor of the same file costs less still; one that was replaced is noticed.

    Files are mapped copy-on-write: what is done to an array or tensor never reaches the file. As with
    ``torch.load(mmap=True)``, nobody may truncate a file while its tensors are in use; replacing it by renaming is
    fine.

    >>> import ptview
    >>> ptview.open("model.pt")["layer.bias"].numpy()
    array([0.5, 1.5], dtype=float32)
    """
    return File(path)


def load(path: Path, map_location: Any = None, *, mmap: bool = True) -> Any:
    """Loads the object in a file: what ``torch.load(path, map_location, mmap=True, weights_only=True)`` gives, faster.

    Tensors look into the file, mapped copy-on-write: nothing is read before it is touched, and the file never
    changes. Shared storages stay shared, and each tensor's storage is no more than its storage in the file. Objects
    of classes that ``weights_only`` would refuse arrive as :class:`ptview.Opaque`: nothing in the file is ever
    imported or called. Files that ``mmap=True`` refuses are read too: of old formats, compressed, TorchScript (as the
    tree of its modules).

    ``path`` may also be the folder of a distributed checkpoint: what its processes saved, as
    ``torch.distributed.checkpoint.format_utils.dcp_to_torch_save`` would put it together, tensors in chunks in memory
    of their own; or an index of shards (``….index.json``) or a folder with one: the dicts of all shards in one.

    ``map_location`` is as torch understands it. ``mmap=False`` copies each storage into memory.

    >>> import ptview
    >>> ptview.load("model.pt")["layer.bias"]
    tensor([0.5000, 1.5000])
    """
    everywhere = map_location is not None and str(map_location) != "cpu"
    restore = None
    if everywhere or map_location is None:
        from torch.serialization import _get_restore_location

        restore = _get_restore_location(map_location)  # type: ignore[no-untyped-call]
    if os.path.isdir(path) or os.fspath(path).endswith(_SHARDS):
        return _load_folder(os.fspath(path), map_location, restore, mmap)
    # Nothing becomes garbage here: going through all objects again and again would take a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _ptview.load(path, restore, everywhere, mmap)
    finally:
        if collects:
            gc.enable()


def _load_folder(path: str, map_location: Any, restore: Any, mmap: bool) -> Any:
    """Loads a checkpoint of several files."""
    loaded: dict[Any, Any] = {}
    if not os.path.isfile(os.path.join(path, _PLAN)):
        for file in _ptview.open_file(path).files:
            loaded.update(load(file, map_location, mmap=mmap))
        return loaded
    values = _ptview.load_distributed(path, restore)
    # Of lists without gaps, no path makes more places than it has steps.
    places = sum(len(steps) for steps, _, _ in values)
    for steps, value, is_tensor in values:
        if is_tensor and (restore is not None or not mmap):
            from ptview._torch import moved

            value = moved(value, restore, mmap)
        places -= _put(loaded, steps, value)
        if places < 0:
            raise FormatError(f"{path}: the lists of the checkpoint have gaps, at {steps}")
    return loaded


def _put(root: dict[Any, Any], steps: list[Any], value: Any) -> int:
    """Puts a value where its path leads. What a part of the path stands in is a list where that part is a position.

    Returns how many places lists got for it.
    """
    around: Any = root
    places = 0
    for step, below in pairwise([*steps, None]):
        if isinstance(around, list):
            missing = max(step + 1 - len(around), 0)
            places += missing
            around.extend([None] * missing)
            inner = around[step]
        else:
            inner = around.get(step)
        if below is None:
            inner = value
        elif inner is None:
            inner = [] if isinstance(below, int) else {}
        elif not isinstance(inner, list if isinstance(below, int) else dict):
            raise FormatError(f"the paths of the checkpoint contradict each other at {steps}")
        around[step] = inner
        around = inner
    return places
