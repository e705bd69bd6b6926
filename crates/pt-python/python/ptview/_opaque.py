"""Objects of classes that were not loaded."""

from collections.abc import Mapping
from typing import Any, final

__all__ = ["Opaque"]


@final
class Opaque:
    """An object, a class or a function of a file: its name and what was given to it. Nothing was imported or called.

    ``cls`` is the name of the class or function, ``args`` what it was called with (empty too for a class that was
    saved as such), ``state`` what was set on the object afterwards: usually a dict of attributes, which are then
    attributes here too. ``items`` and ``entries`` are what was appended to it or set in it, for subclasses of list
    and dict.

    >>> from ptview import Opaque
    >>> Opaque("my.package.Config")
    <ptview.Opaque my.package.Config>
    """

    __slots__ = ("args", "cls", "entries", "items", "state")

    cls: str
    args: tuple[Any, ...]
    state: Any
    items: list[Any]
    entries: list[tuple[Any, Any]]

    def __init__(self, cls: str) -> None:
        self.cls = cls
        self._fill((), [], [], [])

    def _fill(
        self,
        args: tuple[Any, ...],
        states: list[Any],
        items: list[Any],
        entries: list[tuple[Any, Any]],
    ) -> None:
        self.args = args
        self.state = None if not states else states[0] if len(states) == 1 else states
        self.items = items
        self.entries = entries

    def __getattr__(self, name: str) -> Any:
        state = object.__getattribute__(self, "state")
        for attributes in state if isinstance(state, tuple) else (state,):
            if isinstance(attributes, Mapping) and name in attributes:
                return attributes[name]
        raise AttributeError(f"{self.cls} (not loaded) has no attribute {name!r} in this file")

    def __repr__(self) -> str:
        return f"<ptview.Opaque {self.cls}>"
