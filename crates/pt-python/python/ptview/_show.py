"""Checkpoints as tables, for people."""

from collections.abc import Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptview._file import File

_ROWS_MAX = 20
_HEAD = ("name", "dtype", "shape", "bytes")


def as_text(file: "File") -> str:
    """The first tensors of a file as a table."""
    rows = [_HEAD, *_rows(file)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(
            (
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                row[3],
            )
        )
        for row in rows
    ]
    return "\n".join([f"<ptview.File {file.path!r}, {_count(file)}>", *lines, *_rest(file)])


def as_html(file: "File") -> str:
    """The same for notebooks."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in _rows(file))
    caption = escape(f"{file.path}, {_count(file)}")
    rest = "".join(f"<p>{line}</p>" for line in _rest(file))
    return f"<table><caption>{caption}</caption>{row(_HEAD, 'th')}{body}</table>{rest}"


def _rows(file: "File") -> list[tuple[str, str, str, str]]:
    tensors = (file[name] for name in islice(file, _ROWS_MAX))
    return [
        (
            tensor.name,
            tensor.dtype or "?",
            "nested" if tensor.shape is None else str(list(tensor.shape)),
            "?" if tensor.nbytes is None else f"{tensor.nbytes:,}",
        )
        for tensor in tensors
    ]


def _count(file: "File") -> str:
    return f"{len(file)} tensor{'' if len(file) == 1 else 's'}"


def _rest(file: "File") -> list[str]:
    left = len(file) - _ROWS_MAX
    return [f"… and {left} more"] if left > 0 else []
