"""What becomes of samples that differ in size."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from ptview._ptview import Layout

_Mode: TypeAlias = Literal["constant"] | Literal["zero"] | Literal["reflect"] | Literal["replicate"]
_Side: TypeAlias = Literal["right"] | Literal["left"]
#: Along the first dimension, or along each in which samples differ: ``None`` is the longest of the batch there.
_To: TypeAlias = int | Literal["longest"] | tuple[int | None, ...]


@dataclass(frozen=True)
class Pad:
    """How samples are made equally long; made by :func:`pad`."""

    to: _To = "longest"
    mode: _Mode = "constant"
    value: float = 0
    side: _Side = "right"
    truncate: bool = True
    lengths: bool | str = False
    mask: bool | str = False

    def __post_init__(self) -> None:
        numbers = [number for number in self.to if number is not None] if isinstance(self.to, tuple) else [self.to]
        for number in numbers if self.to != "longest" else []:
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f'to is "longest", a number of steps from 1 on, or a tuple of such, not {self.to!r}')
        self._layout()

    def _layout(self) -> Layout:
        to = None if self.to == "longest" else self.to
        return Layout.padded(to, self.mode, self.value, self.side, self.truncate, bool(self.mask))


@dataclass(frozen=True)
class RaggedLayout:
    """Samples one behind the other; made by :func:`ragged`."""

    layout: Literal["offsets", "nested"] = "offsets"

    def __post_init__(self) -> None:
        if self.layout not in ("offsets", "nested"):
            raise ValueError(f'layout is "offsets" or "nested", not {self.layout!r}')

    def _layout(self) -> Layout:
        return Layout.joined()


class Ragged(NamedTuple):
    """A batch of samples of any length: ``values[offsets[i]:offsets[i + 1]]`` is sample ``i``."""

    #: The steps of all samples.
    values: Any
    #: Where each sample begins, and where the last one ends: ``int64[samples + 1]``.
    offsets: Any


def pad(
    to: _To = "longest",
    *,
    mode: _Mode = "constant",
    value: float = 0,
    side: _Side = "right",
    truncate: bool = True,
    lengths: bool | str = False,
    mask: bool | str = False,
) -> Pad:
    """Makes samples of a batch equally long along their first dimension: pads short ones, cuts long ones.

    Only tensors whose sizes differ from file to file are touched. Where samples differ in other sizes than the first,
    as images do, each such size becomes the largest of the batch, or what ``to`` says, with the same mode and on the
    same side.

    Args:
        to: ``"longest"`` of the batch, or a number of steps along the first dimension. A tuple has a number for each
            dimension in which samples differ (:attr:`ptview.Dataset.fields` tells), ``None`` for the longest of the
            batch: ``(128, 64)`` makes images of any height and width ``[128, 64, 3]``, ``(None, 64)`` as high as the
            highest. Another number of them is an :class:`ptview.Error`.
        mode: What is put where a sample has nothing: a ``"constant"``, ``"zero"``, its steps mirrored at the end
            without the last one (``"reflect"``), or its last step again and again (``"replicate"``).
        value: The constant.
        side: Where samples are padded and cut: ``"right"``, behind their last step, or ``"left"``, before their first.
        truncate: Whether samples longer than ``to`` are cut; with ``False`` they are an :class:`ptview.Error`.
        lengths: Adds how many steps of each sample are its own, ``int64[samples]``: as ``"<key>_lengths"`` beside a
            tensor that stands in a dict, under the name that is given, or, of a tensor that stands in no dict, in a
            tuple with it. Where samples differ in other sizes too, all their sizes: ``int64[samples, dims]``.
        mask: Adds which steps are a sample's own, ``bool[samples, steps]``, in the same way. Where samples differ in
            other sizes too, the mask has all dimensions up to the last that differs: of images ``[height, width, 3]``
            it is ``bool[samples, height, width]``.

    >>> pad(512, value=-100, mask="attention_mask")
    Pad(to=512, mode='constant', value=-100, side='right', truncate=True, lengths=False, mask='attention_mask')
    >>> pad((128, None)).to
    (128, None)
    """
    return Pad(to, mode, value, side, truncate, lengths, mask)


def ragged(layout: Literal["offsets", "nested"] = "offsets") -> RaggedLayout:
    """Puts samples of any length one behind the other; they differ in their first size alone.

    Args:
        layout: ``"offsets"`` gives a :class:`ptview.Ragged` of values and offsets, ``"nested"`` a jagged
            ``torch.nested`` tensor.

    >>> ragged()
    RaggedLayout(layout='offsets')
    """
    return RaggedLayout(layout)
