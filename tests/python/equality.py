"""Whether two loaded objects are the same: values, views, aliases, shared storages."""

import math
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch

from judge import logical_bytes

_ELEMENTS_MAX = 1 << 26


class Comparison:
    """Walks two objects side by side. What is one object, or one storage, on one side must be one on the other."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self._objects: dict[int, object] = {}
        self._kept: list[object] = []
        self._storages: dict[int, int] = {}

    def compare(self, ours: object, theirs: object, path: str = "$") -> None:
        todo = [(ours, theirs, path)]
        while todo:
            ours, theirs, path = todo.pop()
            if type(ours) is not type(theirs):
                self._differ(path, f"{type(ours)} instead of {type(theirs)}")
            elif isinstance(theirs, int | float | complex | str | bytes | type(None)):
                if not _same_scalar(ours, theirs):
                    self._differ(path, f"{ours!r} instead of {theirs!r}")
            elif id(theirs) in self._objects:
                if self._objects[id(theirs)] is not ours:
                    self._differ(path, "another object than before")
            else:
                self._objects[id(theirs)] = ours
                self._kept.append(theirs)
                todo.extend(self._content(ours, theirs, path))

    def _content(self, ours, theirs, path: str) -> Iterator[tuple[object, object, str]]:
        if isinstance(theirs, torch.Tensor):
            self._tensor(ours, theirs, path)
            yield ours.__dict__, theirs.__dict__, f"{path}.__dict__"
        elif isinstance(theirs, torch.UntypedStorage | torch.TypedStorage):
            if bytes(torch.tensor([], dtype=torch.uint8).set_(_untyped(ours)).tolist()) != bytes(
                torch.tensor([], dtype=torch.uint8).set_(_untyped(theirs)).tolist()
            ):
                self._differ(path, "other bytes")
        elif isinstance(theirs, np.ndarray | np.generic):
            same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
            if not same:
                self._differ(path, f"{ours!r} instead of {theirs!r}")
        elif isinstance(theirs, dict):
            if list(map(repr, ours)) != list(map(repr, theirs)):
                self._differ(path, f"keys {list(ours)} instead of {list(theirs)}")
                return
            for (key, our), their in zip(ours.items(), theirs.values(), strict=True):
                yield our, their, f"{path}[{key!r}]"
            if isinstance(theirs, OrderedDict):
                yield ours.__dict__, theirs.__dict__, f"{path}.__dict__"
        elif isinstance(theirs, list | tuple):
            if len(ours) != len(theirs):
                self._differ(path, f"{len(ours)} items instead of {len(theirs)}")
                return
            for position, (our, their) in enumerate(zip(ours, theirs, strict=True)):
                yield our, their, f"{path}[{position}]"
        elif ours != theirs:
            self._differ(path, f"{ours!r} instead of {theirs!r}")

    def _tensor(self, ours: torch.Tensor, theirs: torch.Tensor, path: str) -> None:
        for name in ("dtype", "shape", "layout", "requires_grad", "is_leaf", "is_quantized", "is_nested", "device"):
            our, their = getattr(ours, name), getattr(theirs, name)
            # Ragged sizes are symbols of their own.
            if our != their and not (name == "shape" and theirs.is_nested):
                self._differ(path, f"{name} {our} instead of {their}")
        if theirs.is_nested or theirs.layout is not torch.strided:
            if theirs.layout is torch.sparse_coo and ours.is_coalesced() != theirs.is_coalesced():
                self._differ(path, "not coalesced as the other")
            our_parts, their_parts = parts(ours), parts(theirs)
            for our, their in zip(our_parts, their_parts, strict=True):
                self._tensor(our, their, f"{path}:part")
            return
        for name in ("stride", "storage_offset", "is_conj", "is_neg"):
            if getattr(ours, name)() != getattr(theirs, name)():
                self._differ(path, f"{name} {getattr(ours, name)()} instead of {getattr(theirs, name)()}")
        if theirs.device.type == "meta":
            return
        # Expanded tensors can have more elements than memory; their storages hold all there is to compare.
        if theirs.numel() > _ELEMENTS_MAX:
            ours_seen, theirs_seen = ours.as_strided((1,), (1,)), theirs.as_strided((1,), (1,))
        else:
            ours_seen, theirs_seen = ours, theirs
        if logical_bytes(ours_seen) != logical_bytes(theirs_seen):
            self._differ(path, f"{ours_seen} instead of {theirs_seen}")
        self._storage(ours, theirs, path)
        if theirs.is_quantized:
            self._quantizer(ours, theirs, path)

    def _storage(self, ours: torch.Tensor, theirs: torch.Tensor, path: str) -> None:
        our, their = ours.untyped_storage(), theirs.untyped_storage()
        if our.nbytes() != their.nbytes():
            self._differ(path, f"a storage of {our.nbytes()} bytes instead of {their.nbytes()}")
        self._kept.extend((our, their))
        known = self._storages.setdefault(their._cdata, our._cdata)
        if known != our._cdata:
            self._differ(path, "another storage than before")

    def _quantizer(self, ours: torch.Tensor, theirs: torch.Tensor, path: str) -> None:
        if ours.qscheme() != theirs.qscheme():
            self._differ(path, f"{ours.qscheme()} instead of {theirs.qscheme()}")
        elif theirs.qscheme() is torch.per_tensor_affine:
            if (ours.q_scale(), ours.q_zero_point()) != (theirs.q_scale(), theirs.q_zero_point()):
                self._differ(path, "another quantizer")
        elif not (
            torch.equal(ours.q_per_channel_scales(), theirs.q_per_channel_scales())
            and torch.equal(ours.q_per_channel_zero_points(), theirs.q_per_channel_zero_points())
            and ours.q_per_channel_axis() == theirs.q_per_channel_axis()
        ):
            self._differ(path, "another quantizer")

    def _differ(self, path: str, what: str) -> None:
        self.differences.append(f"{path}: {what}")


def parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """What a tensor is made of."""
    if tensor.is_nested:
        jagged = [tensor.values(), tensor.offsets()] if tensor.layout is torch.jagged else list(tensor.unbind())
        return [part.detach() for part in jagged]
    tensor = tensor.detach()
    match tensor.layout:
        case torch.sparse_coo:
            return [tensor._indices(), tensor._values()]
        case torch.sparse_csr | torch.sparse_bsr:
            return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        case torch.sparse_csc | torch.sparse_bsc:
            return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
        case _:
            return [tensor]


def _untyped(storage) -> torch.UntypedStorage:
    return storage if isinstance(storage, torch.UntypedStorage) else storage._untyped_storage


def _same_scalar(ours, theirs) -> bool:
    if isinstance(theirs, float) and math.isnan(theirs):
        return math.isnan(ours)
    return ours == theirs and repr(ours) == repr(theirs)
