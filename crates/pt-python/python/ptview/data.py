"""Folders of files as data sets."""

import errno
import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ptview import _memory
from ptview._errors import Error, StaleIndexError
from ptview._memory import View, _Framework
from ptview._pad import Pad, Ragged, RaggedLayout
from ptview._ptview import Layout, Memory, Plan, Samples
from ptview._structure import Recipe, decorate, find

if TYPE_CHECKING:
    from ptview._ptview import _Field

_Mode: TypeAlias = Literal["file"] | Literal["row"] | Literal["tensor"]
Path = str | os.PathLike[str]
#: A column and what its values must be: a value, several of them, or a function that says so.
Where = Mapping[str, Any]

#: What indexes end with, and the name of the one that a folder has.
_INDEX_EXTENSION = ".ptidx"
_FOLDER_INDEX = "index.ptidx"


class Field(NamedTuple):
    """A tensor that every sample has."""

    #: Where it stands in a sample: keys and positions, joined by dots.
    name: str
    #: Its type, as torch names it.
    dtype: str
    #: The shape it has in a sample; of a ragged field, the largest sizes.
    shape: tuple[int, ...]
    #: Whether samples differ in a size.
    is_ragged: bool
    #: In which dimensions.
    ragged_dims: tuple[int, ...]


class Dataset:
    """PyTorch files as a data set for ``torch.utils.data.DataLoader``, or for :class:`ptview.Loader`.

    ``data[i]`` gives what ``torch.load(data.files[i])`` would: the same dicts, lists and tuples around the same
    tensors and scalars. Nothing is converted, and nothing is read before it is asked for; where tensors lie in the
    files is known from an index (the one that ``ptview index`` has left there, or one that is made in memory). A
    ``DataLoader`` fetches a whole batch at once, in one buffer, without the GIL:

    >>> data = ptview.Dataset("samples/")
    >>> loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=2, collate_fn=data.collate)

    Samples are torch tensors if torch is installed, else numpy arrays. torch is imported when the first sample is
    asked for.

    Args:
        paths: A folder, an index (``.ptidx``), a file, a glob (``"train/**/*.pt"``), or a list of files. Samples are
            in the order of the list, or sorted by path.
        mode: What a sample is: a ``"file"``, a ``"row"`` (the same position along the first dimension of all tensors
            of a file), or a ``"tensor"``.
        keys: Names of the tensors and scalars wanted, or of the dicts and lists they stand in (``["image",
            "target.label"]``); all, if ``None``.
        pad: What becomes of samples that differ in length: :func:`ptview.pad`, or :func:`ptview.ragged`. Without it
            they make no batch, unless they happen to be equally long.
        dtype: ``"float32"`` (or ``torch.float32``) turns ``float16`` and ``bfloat16`` into it while reading; a dict
            does so for the fields it names, also for ``uint8``, and may multiply: ``{"image": ("float32", 1 /
            255)}``.
        transform: Called with each sample. Batches are then made by torch's ``default_collate``.
        where: Which samples are taken; see :meth:`filter`.
        framework: ``"torch"`` or ``"numpy"``, to have the one or the other.
        mmap: Copies samples out of maps of the files instead of reading them: several times faster, from the second
            epoch on, where the files are in the page cache. Each file is mapped once and stays so, which takes no
            descriptor (on Linux up to 32,765 files; of more, small ones are read, and of network file systems all).
            Nobody may write to the files, or truncate them, while the data set lives: batches would hold anything, and
            touching what is gone kills the process. Replacing a file by renaming another over it is safe, and not
            noticed.
        pin_memory: Reads batches into pinned memory (in worker processes, leave that to the ``DataLoader``).

    Raises:
        FileNotFoundError: There is no such file or folder.
        ptview.Error: There is no sample, or files make no batches with each other.

    A data set can be pickled, and used after a fork: it opens its files anew there, but for those that are mapped. All
    data sets of a process together keep at most 1,024 files open, and at most a quarter of the descriptors that the
    process may have; those of a data set are closed when it goes.
    """

    def __init__(
        self,
        paths: Path | Iterable[Path],
        mode: _Mode = "file",
        keys: Iterable[str] | None = None,
        pad: Pad | RaggedLayout | None = None,
        dtype: Any = None,
        transform: Callable[[Any], Any] | None = None,
        where: Where | None = None,
        *,
        framework: _Framework | None = None,
        mmap: bool = False,
        pin_memory: bool = False,
    ):
        if framework not in (None, "torch", "numpy"):
            raise ValueError(f'framework is "torch" or "numpy", not {framework!r}')
        if isinstance(keys, str):
            keys = [keys]
        self._mode = mode
        self._keys = list(keys or [])
        samples, self._index_path = _open(paths, mode, self._keys)
        self._casts = list(_casts(samples, dtype))
        self._mmap = mmap
        self._framework: _Framework = framework or _memory.default_framework()
        self._pad = pad
        self.transform = transform
        self.pin_memory = pin_memory
        self._set(self._prepared(samples))
        if where is not None:
            self._set(self.filter(where)._samples)

    def _prepared(self, samples: Samples) -> Samples:
        for field, scale in self._casts:
            samples = samples.to_float32(field, scale)
        return samples.mapped() if self._mmap else samples

    def _set(self, samples: Samples) -> None:
        self._samples = samples
        self.__dict__.pop("files", None)
        self.__dict__.pop("_plan_of_one", None)
        self._kinds: dict[str, str] = {}
        self._fields = [Field(*field) for field in samples.fields]
        self._columns = samples.columns
        self._layout = self._make_layout()
        self._recipes: list[Recipe] | None = None

    def _make_layout(self) -> Layout:
        if self._pad is None:
            return Layout.joined()
        if not isinstance(self._pad, Pad | RaggedLayout):
            raise TypeError(f"pad is made by ptview.pad or ptview.ragged; it is {self._pad!r}")
        if isinstance(self._pad, Pad):
            ragged = [field.name for field in self._fields if field.is_ragged]
            named = [name for name in ("lengths", "mask") if isinstance(getattr(self._pad, name), str)]
            if len(ragged) > 1 and named:
                raise ValueError(f"{ragged} are ragged and need names of their own: {named[0]}=True gives each one")
        layout = self._pad._layout()
        # Lengths that are not those of the fields are refused now, and not with the first batch.
        self._samples.plan([], layout)
        return layout

    # Samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Returns a sample, or the data set of some samples.

        Every tensor has a storage of its own, no larger than itself. A sample is what a batch of one would hold: with
        ``pad`` to a number of steps, it is padded.
        """
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        recipes = self._recipes or self._make_recipes()
        memory, fields, columns, schema = self._samples.sample(index, self._layout)
        if fields is None:
            values = [view(memory) for view in self._fixed]
            values += columns
        else:
            values = self._ragged_sample(memory, fields, columns)
        recipe = recipes[schema]
        if recipe.others:
            values += [None] * (3 * len(self._fields) + len(columns) - len(values))
            values += _read_others(self._samples.locate(index)[0], recipe)
        sample = recipe.sample(values)
        return sample if self.transform is None else self.transform(sample)

    def _ragged_sample(self, memory: Any, fields: list[Any], columns: list[Any]) -> list[Any]:
        is_padded = isinstance(self._pad, Pad)
        tensors, lengths, masks = [], [], []
        for view, field, (start, shape, has, _, mask, sizes) in zip(self._views, self._fields, fields, strict=True):
            if is_padded or not field.is_ragged:
                shape = shape[1:]
            elif sizes is not None:
                shape = tuple(sizes[0])
            tensors.append(view(memory, start, shape))
            if has and is_padded:
                own = [min(size, room) for size, room in zip(sizes[0] if sizes else has, shape, strict=False)]
                lengths.append(_memory.array_of(own, "int64", self._framework) if sizes else own[0])
            else:
                lengths.append(None)
            masks.append(None if mask is None else self._mask_view(memory, mask[0], mask[1][1:]))
        return [*tensors, *columns, *lengths, *masks]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitems__(self, indices: Iterable[int]) -> Sequence[Any]:
        """Returns several samples that are read together; what ``DataLoader`` asks for.

        They are parts of one buffer, which :meth:`collate` takes as it is; in a worker process, it puts all of it
        into one shared memory.
        """
        recipes = self._recipes or self._make_recipes()
        plan = self._samples.plan(indices, self._layout)
        alone = _memory.in_worker()
        memory: Any
        if plan.nbytes and self._framework == "torch" and self.pin_memory and not alone:
            memory = _memory.pinned(plan.nbytes)
            plan.read_into(memory.numpy(), alone=alone)
        else:
            memory = plan.read(alone=alone)
        batch = Batch(self, recipes, plan, memory)
        return batch if self.transform is None else [self.transform(sample) for sample in batch]

    def collate(self, samples: Sequence[Any]) -> Any:
        """Makes a batch of samples: the ``collate_fn`` for a ``DataLoader``.

        The batch is built as a sample is, with tensors that have one dimension more; ``int``, ``float`` and ``bool``
        scalars become ``int64``, ``float64`` and ``bool`` tensors, strings a list: what torch's ``default_collate``
        makes of the samples, without copying them. Scalars that some files lack or have of another kind, and parts of
        the files that are neither tensor nor scalar, are lists.
        """
        if isinstance(samples, Batch):
            return samples.collate()
        return _default_collate(samples, self._framework)

    # What there is

    @cached_property
    def files(self) -> list[str]:
        """The files of the samples, in their order; of rows and tensors, each file where its first sample is."""
        return [os.fspath(path) for path in self._samples.files()]

    @property
    def fields(self) -> list[Field]:
        """The tensors that every sample has."""
        return self._fields

    @property
    def columns(self) -> list[str]:
        """The names of the scalars of the samples."""
        return self._columns

    @property
    def mode(self) -> _Mode:
        """What a sample is."""
        return self._mode

    def column(self, name: str) -> npt.NDArray[Any]:
        """Returns a scalar of all samples, from the index alone: no file is opened.

        ``int64``, ``float64``, ``bool`` or ``str``; ``object`` where values are of several kinds or missing. For
        samplers:

        >>> weights = 1 / np.bincount(data.column("label"))[data.column("label")]
        >>> sampler = torch.utils.data.WeightedRandomSampler(weights, len(data))

        Raises:
            KeyError: There is no such column.
        """
        kind, values = self._samples.column(name)
        self._kinds[name] = kind
        match kind:
            case "int":
                return np.frombuffer(values, np.int64).copy()
            case "float":
                return np.frombuffer(values, np.float64).copy()
            case "bool":
                return np.frombuffer(values, np.bool_).copy()
            case "str":
                return np.array(values, np.str_)
        array = np.empty(len(values), object)
        array[:] = values
        return array

    def locate(self, index: int) -> tuple[str, int]:
        """Returns the file that a sample is in, and its number among the samples of that file."""
        path, within = self._samples.locate(index)
        return os.fspath(path), within

    # Parts

    def select(self, indices: Iterable[int] | npt.NDArray[Any]) -> "Dataset":
        """Returns the data set of these samples, in this order. Nothing is read; the index is shared."""
        indices = indices.tolist() if isinstance(indices, np.ndarray) else indices
        return self._with(self._samples.select(indices))

    def filter(self, where: Where | npt.NDArray[np.bool_] | None = None, /, **columns: Any) -> "Dataset":
        """Returns the data set of the samples whose scalars are as they should be. No file is opened.

        >>> data.filter(label=7)
        ptview.Dataset(2 samples; x: float32 [4], label, split, meta.year)
        >>> data.filter(label=[1, 2], split="train")
        ptview.Dataset(1 samples; x: float32 [4], label, split, meta.year)
        >>> len(data.filter({"meta.year": lambda year: year > 2020}))
        2
        >>> len(data.filter(data.column("label") % 2 == 0))
        1

        Args:
            where: Columns and what is wanted of them: a value, a list, set or array of values, or a function of a
                value. Or an array of one ``bool`` a sample.
            columns: The same, for columns whose names are identifiers.
        """
        if isinstance(where, np.ndarray):
            if where.shape != (len(self),) or where.dtype != np.bool_:
                raise ValueError(f"an array of {len(self)} bools is wanted, not {where.dtype}{list(where.shape)}")
            chosen = where
        else:
            chosen = np.ones(len(self), bool)
            columns = {**(where or {}), **columns}
        for name, wanted in columns.items():
            chosen = chosen & _matches(self.column(name), wanted)
        return self.select(np.flatnonzero(chosen))

    def split(self, fraction: float, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """Splits the samples at random in two data sets: so large a part, and the rest. Both keep the order.

        >>> train, test = data.split(0.9, seed=42)
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"the fraction is between 0 and 1, not {fraction}")
        one, other = self._samples.split(fraction, seed)
        return self._with(one), self._with(other)

    def _with(self, samples: Samples) -> "Dataset":
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._set(samples)
        return other

    # How samples are built

    def _make_recipes(self) -> list[Recipe]:
        framework, fields = self._framework, self._fields
        self._views = [_memory.view_of(field.dtype, framework) for field in fields]
        self._mask_view = _memory.view_of("bool", framework)
        if not any(field.is_ragged for field in fields):
            one = self._samples.plan([0], self._layout).fields() if len(self) else []
            self._fixed = [
                _memory.fixed_view(field.dtype, start, shape[1:], framework)
                for field, (start, shape, *_) in zip(fields, one, strict=False)
            ]
        parts: list[Any]
        parts = [("t", 0, 0)] if self._mode == "tensor" else self._samples.structures()
        if isinstance(self._pad, Pad):
            ragged = [field.name if field.is_ragged else None for field in fields]
            parts = [decorate(part, ragged, self._pad.lengths, self._pad.mask) for part in parts]
        recipes = [Recipe(part, len(fields), len(self._columns)) for part in parts]
        # Where a sample is a tensor, that is so in files of any structure.
        self._recipes = recipes * len(self._samples.structures()) if self._mode == "tensor" else recipes
        return self._recipes

    def _column_kind(self, name: str) -> str:
        """What the values of a column are: of the whole data set, so that all batches are alike."""
        if name not in self._kinds:
            self._kinds[name] = self._samples.column(name)[0]
        return self._kinds[name]

    # Elsewhere

    def __getstate__(self) -> dict[str, Any]:
        keep = ("_mode", "_keys", "_index_path", "_casts", "_framework", "_pad", "_mmap", "transform", "pin_memory")
        state = {name: self.__dict__[name] for name in keep}
        state["picked"] = self._samples.picked()
        # The index as it is on disk, or all of it: about 64 bytes a file.
        state["checksum"] = self._samples.index_checksum()
        if self._index_path is None:
            state["root"], state["index"] = self._samples.index()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        picked, checksum = state.pop("picked"), state.pop("checksum")
        root, index = state.pop("root", None), state.pop("index", None)
        self.__dict__.update(state)
        if index is not None:
            samples = Samples.of_index(root, index, self._mode, self._keys)
        else:
            assert self._index_path is not None
            samples = Samples.open(self._index_path, self._mode, self._keys)
            if samples.index_checksum() != checksum:
                raise StaleIndexError(f"{self._index_path}: the index is not the one the data set was pickled with")
        samples = self._prepared(samples)
        self._set(samples if picked is None else samples.pick(picked))

    def __repr__(self) -> str:
        def shown(field: Field) -> str:
            sizes = [str(length) for length in field.shape]
            for dim in field.ragged_dims:
                sizes[dim] = f"≤{sizes[dim]}"
            return f"{field.name or 'tensor'}: {field.dtype} [{', '.join(sizes)}]"

        what = {"file": "samples", "row": "rows", "tensor": "tensors"}[self._mode]
        parts = [shown(field) for field in self._fields[:8]] + self._columns[:8]
        more = len(self._fields) + len(self._columns) - len(parts)
        parts += [f"{more} more"] if more > 0 else []
        return f"ptview.Dataset({len(self)} {what}; {', '.join(parts)})"


class Batch(Sequence[Any]):
    """Samples that were read together: parts of one buffer. What :meth:`Dataset.__getitems__` returns."""

    def __init__(self, data: Dataset, recipes: list[Recipe], plan: Plan, memory: Any):
        self._data = data
        self._recipes = recipes
        self._plan = plan
        self._memory = memory
        self._samples: list[Any] | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: Any) -> Any:
        return self._list()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._list())

    def __reduce__(self) -> Any:
        return list, (self._list(),)

    def __repr__(self) -> str:
        return repr(self._list())

    def _places(self) -> Iterable[tuple[View, Field, "_Field"]]:
        return zip(self._data._views, self._data._fields, self._plan.fields(), strict=True)

    def collate(self) -> Any:
        """Builds the batch; see :meth:`Dataset.collate`."""
        data, plan = self._data, self._plan
        framework, pad = data._framework, data._pad
        shared = self._shared()
        memory = self._memory if shared is None else shared.bytes
        tensors, lengths, masks = [], [], []
        for view, field, (start, shape, has, offsets, mask, sizes) in self._places():
            tensor, length = view(memory, start, shape), None
            if has is not None and offsets is not None:
                if isinstance(pad, Pad):
                    length = _memory.array_of(_own_sizes(shape, has, sizes), "int64", framework, shared)
                elif pad is None:
                    tensor = _even(field, tensor, has) if sizes is None else _even_grid(field, tensor, sizes)
                elif sizes is None:
                    tensor = _joined(tensor, _memory.array_of(offsets, "int64", framework, shared), pad)
                else:
                    raise Error(
                        f"samples of `{field.name}` differ in dimensions {[*field.ragged_dims]}; values and offsets "
                        "are for those that differ in the first alone: give the data set pad=ptview.pad()"
                    )
            tensors.append(tensor)
            lengths.append(length)
            masks.append(None if mask is None else data._mask_view(memory, *mask))
        columns = [
            _memory.array_of(values, kind + "64" if kind != "bool" else kind, framework, shared)
            if (kind := data._column_kind(name)) in ("int", "float", "bool")
            else values
            for name, values in zip(data._columns, plan.columns(), strict=True)
        ]
        recipe = self._recipes[0]
        values = [*tensors, *columns, *lengths, *masks]
        if recipe.others:
            values += map(list, zip(*(self._others(number, recipe) for number in range(len(plan))), strict=True))
        return recipe.batch(values)

    def _shared(self) -> _memory.Shared | None:
        """In a worker, memory that its parent sees too, with room for lengths, offsets and columns."""
        data = self._data
        if data._framework != "torch" or not _memory.in_worker() or not isinstance(self._memory, Memory):
            return None
        arrays = len(data._columns) + sum(len(field.shape) for field in data._fields if field.is_ragged)
        room = arrays * (8 * (len(self) + 1) + 64)
        return _memory.Shared(self._memory, room) if len(self._memory) + room else None

    def _others(self, number: int, recipe: Recipe) -> list[Any]:
        path, _ = self._data._samples.locate(self._plan.samples[number])
        return _read_others(path, recipe)

    def _list(self) -> list[Any]:
        """Builds the samples, once."""
        if self._samples is not None:
            return self._samples
        data, plan = self._data, self._plan
        is_padded = isinstance(data._pad, Pad)
        count = len(plan)
        none = [None] * count
        tensors: list[Any] = []
        lengths: list[Any] = []
        masks: list[Any] = []
        for view, _, (start, shape, has, offsets, mask, sizes) in self._places():
            tensor = view(self._memory, start, shape)
            if offsets is not None and not is_padded:
                parts = [tensor[start:end] for start, end in pairwise(offsets)]
                if sizes is not None:
                    parts = [part.reshape(tuple(size)) for part, size in zip(parts, sizes, strict=True)]
                tensors.append(parts)
            else:
                tensors.append(_rows(tensor))
            if has is None or not is_padded:
                lengths.append(none)
            elif sizes is None:
                lengths.append([min(length, shape[1]) for length in has])
            else:
                lengths.append(_rows(_memory.array_of(_own_sizes(shape, has, sizes), "int64", data._framework)))
            masks.append(none if mask is None else _rows(data._mask_view(self._memory, *mask)))
        schemas = plan.schemas() if len(self._recipes) > 1 else [0] * count
        all_values = zip(*tensors, *plan.columns(), *lengths, *masks, strict=True)
        self._samples = []
        for number, values in enumerate(all_values if tensors or plan.columns() else [()] * count):
            recipe = self._recipes[schemas[number]]
            if recipe.others:
                values = (*values, *self._others(number, recipe))
            self._samples.append(recipe.sample(values))
        return self._samples


def _rows(tensor: Any) -> Sequence[Any]:
    return list(tensor) if isinstance(tensor, np.ndarray) else tensor.unbind(0)


def _own_sizes(shape: tuple[int, ...], has: list[int], sizes: list[list[int]] | None) -> Any:
    """How many steps of each padded sample are its own; where they differ in other sizes than the first, along each."""
    if sizes is None:
        return np.minimum(np.array(has, np.int64), shape[1])
    return np.minimum(np.array(sizes, np.int64).reshape(len(sizes), len(shape) - 1), shape[1:])


def _even_grid(field: Field, values: Any, sizes: list[list[int]]) -> Any:
    """Samples one behind the other as a batch, if they have the same sizes."""
    other = next((size for size in sizes if size != sizes[0]), None)
    if other is not None:
        raise Error(
            f"samples of `{field.name}` have sizes {sizes[0]} and {other} and make no batch; "
            "give the data set pad=ptview.pad(), or a transform that makes them equal"
        )
    return values.reshape((len(sizes), *(sizes[0] if sizes else field.shape)))


def _even(field: Field, values: Any, lengths: list[int]) -> Any:
    """Samples one behind the other as a batch, if they are equally long."""
    if len(set(lengths)) > 1:
        raise Error(
            f"samples of `{field.name}` have between {min(lengths)} and {max(lengths)} steps and make no batch; "
            "give the data set pad=ptview.pad() or pad=ptview.ragged()"
        )
    length = lengths[0] if lengths else 0
    return values.reshape((len(lengths), length, *values.shape[1:]))


def _joined(values: Any, offsets: Any, pad: RaggedLayout) -> Any:
    if pad.layout == "offsets":
        return Ragged(values, offsets)
    import torch

    return torch.nested.nested_tensor_from_jagged(values, offsets)


def _read_others(path: Path, recipe: Recipe) -> list[Any]:
    """Reads what the index does not hold from the file itself."""
    import ptview

    loaded = ptview.load(path, mmap=False)
    return [find(loaded, steps) for steps in recipe.others]


def _default_collate(samples: Any, framework: _Framework) -> Any:
    if framework == "torch":
        from torch.utils.data import default_collate

        return default_collate(samples)
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: _default_collate([sample[key] for sample in samples], framework) for key in first}
    if isinstance(first, tuple | list):
        return [_default_collate(parts, framework) for parts in zip(*samples, strict=True)]
    return samples if isinstance(first, str | None) else np.stack([np.asarray(sample) for sample in samples])


def _open(paths: Path | Iterable[Path], mode: _Mode, keys: list[str]) -> tuple[Samples, str | None]:
    """Opens what is named; returns the path of its index if that is on disk."""
    if not isinstance(paths, str | os.PathLike):
        files = [os.path.abspath(path) for path in paths]
        if not files:
            raise Error("an empty list of files has no samples")
        return Samples.of_files(files, mode, keys), None
    path = os.path.abspath(paths)
    if not os.path.exists(path):
        if not glob.has_magic(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(paths))
        files = [file for file in sorted(glob.glob(path, recursive=True)) if os.path.isfile(file)]
        if not files:
            raise Error(f"no file matches {os.fspath(paths)}")
        return Samples.of_files(files, mode, keys), None
    if path.endswith(_INDEX_EXTENSION):
        return Samples.open(path, mode, keys), path
    if not os.path.isdir(path):
        return Samples.of_files([path], mode, keys), None
    samples = Samples.open(path, mode, keys)
    left_out = [(file, reason) for file, reason in samples.skipped() if file.endswith((".pt", ".pth"))]
    if left_out:
        file, reason = left_out[0]
        more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        warnings.warn(f"{os.path.join(path, file)} was left out: {reason}{more}", stacklevel=3)
    index = os.path.join(path, _FOLDER_INDEX)
    if not os.path.exists(index):
        return samples, None
    if samples.is_kept(index):
        return samples, index
    warnings.warn(
        f"{index} is of other files than are there now, which were looked for; ptview.index brings it up to date",
        stacklevel=3,
    )
    return samples, None


def _casts(samples: Samples, dtype: Any) -> Iterator[tuple[str, float]]:
    """Which fields are read as ``float32``, and what they are multiplied with."""
    if dtype is None:
        return
    if isinstance(dtype, Mapping):
        for name, wanted in dtype.items():
            kind, scale = wanted if isinstance(wanted, tuple) else (wanted, 1.0)
            _check_float32(kind)
            yield name, scale
        return
    _check_float32(dtype)
    for name, kind, *_ in samples.fields:
        if kind in ("float16", "bfloat16"):
            yield name, 1.0


def _check_float32(dtype: Any) -> None:
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else dtype.__name__
    if name != "float32":
        raise ValueError(f"fields can be read as float32, not as {name}")


def _matches(values: npt.NDArray[Any], wanted: Any) -> npt.NDArray[np.bool_]:
    if callable(wanted):
        return np.fromiter((bool(wanted(value)) for value in values.tolist()), bool, len(values))
    if isinstance(wanted, list | tuple | set | frozenset | range | np.ndarray):
        several = set(wanted.tolist() if isinstance(wanted, np.ndarray) else wanted)
        return np.fromiter((value in several for value in values.tolist()), bool, len(values))
    return np.fromiter((value == wanted for value in values.tolist()), bool, len(values))
