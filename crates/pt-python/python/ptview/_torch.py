"""What is built by torch's own functions: the rare kinds of tensors. Imported when torch is."""

from collections.abc import Callable
from typing import Any

import torch
import torch._utils
import torch.utils.dlpack

from ptview._errors import TensorError
from ptview._opaque import Opaque

# Classes that `torch.load(weights_only=True)` makes, too.
_PLAIN = frozenset(
    {
        "torch.Tensor",
        "torch._tensor.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.nn.Parameter",
    }
)

# Takes a capsule. The public function does no more with one, once it has found out that it is one.
from_dlpack = getattr(torch._C, "_from_dlpack", torch.utils.dlpack.from_dlpack)


def window(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
) -> torch.Tensor:
    """Looks into a storage that was checked to be large enough."""
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage, offset, size, stride)


def moved(tensor: torch.Tensor, restore: Callable[..., Any] | None, mmap: bool) -> torch.Tensor:
    """Brings a tensor that was saved from the CPU where it belongs; without ``mmap``, into memory of its own."""
    storage = tensor.untyped_storage()
    storage = storage if mmap else storage.clone()
    storage = storage if restore is None else restore(storage, "cpu")
    made = window(storage, tensor.dtype, int(tensor.storage_offset()), tuple(tensor.size()), tensor.stride())
    return made.requires_grad_(tensor.requires_grad)


def meta(dtype: torch.dtype, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """Makes a tensor without bytes."""
    return torch.empty_strided(size, stride, dtype=dtype, device="meta")


def typed_storage(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.TypedStorage:
    """Makes a storage that was saved as such."""
    return torch.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def constant(name: str) -> Any:
    """Returns a dtype, layout, quantization scheme or memory format of torch; None for anything else."""
    found = getattr(torch, name, None) if name.isidentifier() else None
    kinds = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)
    return found if isinstance(found, kinds) else None


def quantized(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    quantizer: dict[str, Any],
) -> torch.Tensor:
    """Makes integers with their scale and zero point."""
    scheme = getattr(torch, quantizer["scheme"])
    if "axis" in quantizer:
        parameters: tuple[Any, ...] = (
            scheme,
            quantizer["scales"],
            quantizer["zero_points"],
            quantizer["axis"],
        )
    else:
        parameters = (scheme, quantizer["scale"], quantizer["zero_point"])
    typed = typed_storage(storage, dtype)
    return torch._utils._rebuild_qtensor(typed, offset, size, stride, parameters, False, {})


def composite(layout: str, *description: Any) -> Any:
    """Makes a tensor of several parts, or says that this torch has no such tensors."""
    try:
        return _composite(layout, *description)
    except AttributeError as error:
        raise TensorError(f"this torch cannot make a tensor of layout {layout}: {error}") from error


def _composite(
    layout: str,
    cls: str | None,
    size: tuple[int, ...] | None,
    parts: dict[str, Any],
    coalesced: bool | None,
) -> Any:
    """Indices are checked, as torch reads through them without looking."""
    match layout:
        case "sparse_coo":
            tensor = torch.sparse_coo_tensor(parts["#indices"], parts["#values"], size, check_invariants=True)
            return tensor._coalesced_(coalesced) if coalesced is not None else tensor
        case "sparse_csr" | "sparse_bsr" | "sparse_csc" | "sparse_bsc":
            by_row = layout in ("sparse_csr", "sparse_bsr")
            compressed, plain = ("#crow_indices", "#col_indices") if by_row else ("#ccol_indices", "#row_indices")
            return torch.sparse_compressed_tensor(
                parts[compressed],
                parts[plain],
                parts["#values"],
                size,
                layout=getattr(torch, layout),
                check_invariants=True,
            )
        case "nested_strided":
            return _nested(parts["#buffer"], parts["#sizes"], parts["#strides"], parts["#offsets"])
        case "nested_jagged":
            return _jagged(parts)
        case _:
            return _opaque(cls or layout, (), parts)


def _nested(
    buffer: torch.Tensor,
    sizes: torch.Tensor,
    strides: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    ends = [
        offset + sum((size - 1) * step for size, step in zip(row, steps, strict=True)) + 1
        for row, steps, offset in zip(sizes.tolist(), strides.tolist(), offsets.tolist(), strict=True)
        if 0 not in row
    ]
    numbers = (
        *sizes.flatten().tolist(),
        *strides.flatten().tolist(),
        *offsets.flatten().tolist(),
    )
    if min(numbers, default=0) < 0 or max(ends, default=0) > buffer.numel():
        raise TensorError("a nested tensor leaves its buffer")
    return torch._nested_view_from_buffer(buffer, sizes, strides, offsets)


def _jagged(parts: dict[str, Any]) -> torch.Tensor:
    values, offsets, lengths = (
        parts["#values"],
        parts["#offsets"],
        parts.get("#lengths"),
    )
    dim = parts.get("_ragged_idx", 1)
    starts = offsets.tolist()
    ends = starts[1:] if lengths is None else [s + n for s, n in zip(starts, lengths.tolist(), strict=False)]
    steps = zip(starts, ends, strict=False)
    room = values.shape[dim - 1] if 1 <= dim <= values.dim() else -1
    if any(start < 0 or end < start for start, end in steps) or max(ends, default=0) > room:
        raise TensorError("a jagged tensor leaves its values")
    return torch.nested.nested_tensor_from_jagged(values, offsets, lengths, jagged_dim=dim)


def dressed(
    tensor: Any,
    cls: str | None,
    is_parameter: bool,
    requires_grad: bool,
    conj: bool,
    neg: bool,
) -> Any:
    """Gives a tensor what Python knows of it. One of a class that is not loaded comes inside an :class:`Opaque`."""
    if isinstance(tensor, Opaque):
        return tensor
    if conj:
        tensor = tensor.conj()
    if neg:
        tensor = torch._neg_view(tensor)
    if is_parameter and (cls is None or cls in _PLAIN):
        tensor = torch.nn.Parameter(tensor, requires_grad)
    elif requires_grad:
        tensor.requires_grad_()
    if cls is not None and cls not in _PLAIN:
        return _opaque(cls, (tensor,), None)
    return tensor


def _opaque(cls: str, args: tuple[Any, ...], state: Any) -> Opaque:
    opaque = Opaque(cls)
    opaque._fill(args, [] if state is None else [state], [], [])
    return opaque
