"""How samples and batches are built of their tensors and plain scalars.

Rust tells the structure of the files as nested tuples (see ``src/structure.rs``). Here they become functions that
take a flat list of values and put them where they belong. The list holds, of a data set with F fields and C columns:
F tensors, C scalars, F lengths, F masks, and then whatever else is read from the pickle of the file.
"""

import ast
from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

Part = tuple[Any, ...]
Build = Callable[[Sequence[Any]], Any]
#: The way to a part of a saved object: keys of dicts and positions in lists.
Steps = list[Any]


class Recipe:
    """Builds samples of one structure, and batches of such samples."""

    def __init__(self, part: Part | None, fields: int, columns: int):
        self._fields = fields
        self._columns = columns
        #: What is read from the file itself; their values come last.
        self.others: list[Steps] = []
        part = part if part is not None else ("u", [])
        self.sample: Build = _function(self._compile(part, batch=False))
        self.others.clear()
        self.batch: Build = _function(self._compile(part, batch=True))

    def _compile(self, part: Part, *, batch: bool) -> int | Build:
        """Returns the number of the value that is the part, or what builds it."""
        match part:
            case "t", field, 0:
                return int(field)
            case "t", field, kind:
                return int(field) if batch else _with_grad(field, kind)
            case "c", column:
                return int(self._fields + column)
            case "lengths", field:
                return int(self._fields + self._columns + field)
            case "mask", field:
                return int(2 * self._fields + self._columns + field)
            case "o", steps:
                self.others.append(steps)
                return 3 * self._fields + self._columns + len(self.others) - 1
            case "d", items, ordered:
                keys = [_key(key) for key, _ in items]
                values = [self._compile(value, batch=batch) for _, value in items]
                return _mapping(keys, values, OrderedDict if ordered else dict)
            case kind, items:
                values = [self._compile(item, batch=batch) for item in items]
                # A batch of tuples is a list, as torch's default_collate has it.
                return _sequence(values, tuple if kind == "u" and not batch else list)
        raise AssertionError(part)


def decorate(part: Part | None, ragged: list[str | None], lengths: bool | str, mask: bool | str) -> Part | None:
    """Adds lengths and masks of ragged fields: beside a tensor that stands in a dict, else in a tuple with it.

    ``ragged`` tells the name of each field, ``None`` of those that are not ragged.
    """
    if part is None or not (lengths or mask):
        return part

    def beside(field: int, key: Any) -> list[tuple[Any, Part]]:
        kinds = (("lengths", lengths), ("mask", mask))
        return [(name if isinstance(name, str) else f"{key}_{kind}", (kind, field)) for kind, name in kinds if name]

    def walk(part: Part) -> Part:
        match part:
            case "t", field, _ if ragged[field] is not None:
                return ("u", [part, *(added for _, added in beside(field, ""))])
            case "d", items, ordered:
                new: list[tuple[Any, Part]] = []
                more: list[tuple[Any, Part]] = []
                for key, value in items:
                    if value[0] == "t" and ragged[value[1]] is not None:
                        new.append((key, value))
                        more += beside(value[1], key)
                    else:
                        new.append((key, walk(value)))
                taken = {key for key, _ in new} & {key for key, _ in more}
                if taken:
                    raise ValueError(f"the samples have {sorted(taken)} already; give lengths= and mask= other names")
                return ("d", new + more, ordered)
            case ("l" | "u") as kind, items:
                return (kind, [walk(item) for item in items])
        return part

    return walk(part)


def find(value: Any, steps: Steps) -> Any:
    """Goes the way to a part of a saved object."""
    for step in steps:
        key = next(key for key in value if repr(key) == step[0]) if isinstance(step, tuple) else step
        value = value[key]
    return value


def _function(compiled: int | Build) -> Build:
    return itemgetter(compiled) if isinstance(compiled, int) else compiled


def _mapping(keys: list[Any], values: list[int | Build], kind: type[dict[Any, Any]]) -> Build:
    if len(values) > 1 and all(isinstance(value, int) for value in values):
        get = itemgetter(*values)
        # As many values as keys; to have it checked costs a tenth of what it takes to build a sample.
        return lambda all_values: kind(zip(keys, get(all_values)))  # noqa: B905
    pairs = list(zip(keys, map(_function, values), strict=True))
    return lambda all_values: kind([(key, build(all_values)) for key, build in pairs])


def _sequence(values: list[int | Build], kind: type[list[Any]] | type[tuple[Any, ...]]) -> Build:
    builds = list(map(_function, values))
    return lambda all_values: kind([build(all_values) for build in builds])


def _with_grad(field: int, kind: int) -> Build:
    def build(all_values: Sequence[Any]) -> Any:
        tensor = all_values[field]
        if not hasattr(tensor, "requires_grad_"):
            return tensor
        if kind == 1:
            return tensor.requires_grad_()
        from torch.nn import Parameter

        return Parameter(tensor, requires_grad=kind == 3)

    return build


def _key(key: Any) -> Any:
    """Keys that are neither ``str`` nor ``int`` come as their ``repr()``."""
    if not isinstance(key, tuple):
        return key
    try:
        return ast.literal_eval(key[0])
    except (ValueError, SyntaxError):
        return key[0]
