"""Indexes built, files verified, globals listed."""

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ptview import _ptview

__all__ = ["Contents", "Global", "IndexReport", "globals", "index", "verify"]

Path: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """An index that was built, and what was done for it."""

    path: pathlib.Path
    """Where the index is kept."""
    files: int
    tensors: int
    nbytes: int
    """Bytes of the index."""
    parsed: int
    """Files that were parsed; the others are as they were in the earlier index."""
    unchanged: int
    vanished: int
    """Files of the earlier index that are no longer there."""
    skipped: dict[str, str]
    """Files that could not be indexed, with the reason."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What :func:`verify` found."""

    files: int
    checked: int
    """Records that were compared with their checksum."""
    without_crc: int
    nbytes: int
    """Bytes that were compared."""
    problems: list[tuple[str, str]]
    """Where, and what."""

    def __bool__(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that unpickling a file would import."""

    module: str
    name: str
    verdict: Literal["known", "opaque", "dangerous"]
    """Known to build values only; unknown; or known to run code, touch the system or unpickle."""
    references: int
    calls: int


def index(
    paths: Path | Iterable[Path],
    *,
    output: Path | None = None,
    changed: Iterable[Path] | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    follow_links: bool = False,
    full: bool = False,
    on_error: Literal["skip", "fail"] = "skip",
    jobs: int = 0,
    progress: bool = True,
) -> list[IndexReport]:
    """Builds the index of each file or folder, and keeps it beside the file or in the folder.

    ``output`` is another place for the index of one path (``"indexes/train.ptidx"``): it holds the way from there to
    the data, and is what :class:`ptview.Dataset` and :func:`verify` are then given. Where each index is kept is
    ``path`` of its report.

    Files of a folder whose size and time are those of its earlier index are not opened again, unless ``full``. Where it
    is known which files and folders inside it are new, changed or gone, ``changed`` lists them (as paths that could be
    opened, or could have been): only they are looked at, and all else is as the earlier index says.
    ``include`` and ``exclude`` are globs of relative paths. With ``on_error="skip"`` files that cannot be parsed are
    listed in the report. ``jobs`` threads parse; 0: as many as there are cores. Shows a bar if ``tqdm`` is installed;
    an interrupt stops the work and leaves the earlier index.

    >>> import ptview
    >>> ptview.index("samples")[0].files
    2
    """
    reports = []
    several = _several(paths)
    if output is not None and len(several) != 1:
        raise ValueError(f"output is the place of one index, and goes with one path, not {len(several)}")
    if changed is not None:
        if full or len(several) != 1:
            raise ValueError("changed is for one folder that has an index, and does not go with full")
        changed = _several(changed)
    for path in several:
        with _bar(f"indexing {os.fspath(path)}", progress) as show:
            fail = on_error == "fail"
            report = _ptview.index(
                path, output, changed, list(include), list(exclude), follow_links, full, fail, jobs, show
            )
        reports.append(IndexReport(**report))
    return reports


def verify(path: Path, *, deep: bool = False, progress: bool = True) -> Contents:
    """Compares files with their index and, if ``deep``, every record with its checksum: ``torch.load`` never does.

    ``path`` is an index, a folder that has one, or a data file. The result is true where nothing is wrong.

    >>> import ptview
    >>> bool(ptview.verify("model.pt", deep=True))
    True
    """
    with _bar(f"verifying {os.fspath(path)}", progress) as show:
        return Contents(**_ptview.verify(path, deep, show))


def globals(path: Path) -> list[Global]:
    """Lists what loading a file with ``pickle`` would import. Nothing is imported here.

    What cannot be judged to its end raises :class:`ptview.FormatError`, as there may be more.

    >>> import ptview
    >>> [use.verdict for use in ptview.globals("model.pt")]
    ['known', 'known', 'known']
    """
    rows, problem = _ptview.globals(path)
    if problem is not None:
        from ptview._errors import FormatError

        raise FormatError(f"{os.fspath(path)}: not judged to its end: {problem}; so far: {rows}")
    return [Global(*row) for row in rows]


def _several(paths: Path | Iterable[Path]) -> list[Path]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


@contextmanager
def _bar(what: str, wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Gives a function that shows how far the work is; None where there is nothing to show it with."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        wanted = False
    if not wanted:
        yield None
        return
    with tqdm(desc=what, unit=" files", leave=False, delay=1) as bar:

        def show(files: int, files_total: int) -> None:
            bar.total = files_total
            bar.update(files - bar.n)

        yield show
