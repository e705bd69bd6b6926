"""The Rust half of ptview."""

import os
import sys
from collections.abc import Callable
from types import EllipsisType
from typing import Any, Literal, final

import numpy as np

__all__ = [
    "OpenFile",
    "Region",
    "Tensor",
    "__version__",
    "globals",
    "index",
    "load",
    "open_file",
    "save",
    "verify",
]

__version__: str

def open_file(path: str | os.PathLike[str]) -> OpenFile: ...
def load(
    path: str | os.PathLike[str],
    restore: Callable[..., Any] | None,
    everywhere: bool,
    mmap: bool,
) -> Any: ...
def save(object: Any, path: str | os.PathLike[str]) -> None: ...
def index(
    path: str | os.PathLike[str],
    include: list[str],
    exclude: list[str],
    follow_links: bool,
    full: bool,
    fail_on_error: bool,
    jobs: int,
    show: Callable[[int, int], object] | None,
) -> dict[str, Any]: ...
def verify(
    path: str | os.PathLike[str],
    deep: bool,
    show: Callable[[int, int], object] | None,
) -> dict[str, Any]: ...
def globals(
    path: str | os.PathLike[str],
) -> tuple[list[tuple[str, str, Literal["known", "opaque", "dangerous"], int, int]], str | None]: ...

@final
class OpenFile:
    def __len__(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def files(self) -> list[str]: ...
    def names(self) -> list[str]: ...
    def find(self, name: str) -> Tensor | None: ...
    def get(self, name: str) -> Tensor: ...
    def tree(self) -> Any: ...

@final
class Region:
    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Tensor:
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str | None: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def stride(self) -> tuple[int, ...] | None: ...
    @property
    def nbytes(self) -> int | None: ...
    @property
    def requires_grad(self) -> bool: ...
    @property
    def layout(self) -> str: ...
    @property
    def access(self) -> str: ...
    @property
    def resident(self) -> int | None: ...
    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]: ...
    def torch(self) -> Any: ...
    def prefetch(self) -> None: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    def __getitem__(
        self,
        key: int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...],
        /,
    ) -> Tensor: ...
