"""The Rust half of ptview."""

import os
from typing import final

__all__ = ["File", "Tensor", "__version__", "open"]

__version__: str

def open(path: str | os.PathLike[str]) -> File: ...

@final
class File:
    def __len__(self) -> int: ...
    def __getitem__(self, name: str, /) -> Tensor: ...
    def __contains__(self, name: str, /) -> bool: ...
    def keys(self) -> list[str]: ...

@final
class Tensor:
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
