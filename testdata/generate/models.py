"""Classes whose instances are pickled by fixtures.

They are known as ``__main__.NAME`` in the files, whatever module runs: that is what a training script produces, and it
keeps the files independent of this package's layout.
"""

from __future__ import annotations

import collections
import inspect
import sys

import torch
from torch import nn


class TinyBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))
        self.register_parameter("bias", None)
        self.register_buffer("running", torch.arange(3))
        self.register_buffer("scratch", torch.ones(1), persistent=False)
        self.scale = 0.5


class TinyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Parameter(torch.arange(8.0).view(4, 2))
        self.head = self.embed  # tied
        self.blocks = nn.Sequential(TinyBlock(), TinyBlock())
        self.plain = torch.full((2,), 7.0)  # plain attribute, not in state_dict
        self.cfg = {"dim": 2}


class MyTensor(torch.Tensor):
    pass


class Opaque:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class TensorHolder:
    __slots__ = ("t", "n")


Pair = collections.namedtuple("Pair", "a b")


class TSSub(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.arange(4.0).view(2, 2))
        self.register_buffer("b", torch.arange(2))

    def forward(self, x):
        return x @ self.w


class TSModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.sub = TSSub()
        self.tied = self.sub.w
        self.lst = nn.ModuleList([TSSub(), TSSub()])
        self.names = ["a", "b"]
        self.k = 3
        self.f = 2.5
        self.tl = [torch.ones(1), torch.zeros(2)]
        self.view = self.sub.w.detach()[1]
        self.f16 = torch.ones(2, dtype=torch.bfloat16)
        self.f8 = torch.ones(2).to(torch.float8_e4m3fn)

    def forward(self, x):
        for layer in self.lst:
            x = layer(x)
        return self.sub(x) + self.k + self.tl[0]


class Const(nn.Module):
    """Tracing turns the literal into a constant of the archive."""

    def forward(self, x):
        return x + torch.tensor([1.0, 2.0, 3.0])


class ExportModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.arange(6.0).view(3, 2))
        self.tied = self.w
        self.v = nn.Parameter(self.w.detach()[1:])
        self.register_buffer("buf", torch.arange(3))
        self.h = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))

    def forward(self, x):
        constant = torch.tensor([1.0, 2.0, 3.0])
        return x @ self.w.t() + self.buf + self.tied.sum() + self.v.sum() + self.h.sum() + constant


SOURCES: dict[type, str] = {}  # source text, as found before the classes move to __main__

for _cls in (TinyBlock, TinyModel, MyTensor, Opaque, TensorHolder, Pair, TSSub, TSModel, Const, ExportModel):
    if issubclass(_cls, nn.Module):
        SOURCES[_cls] = inspect.getsource(_cls)
    _cls.__module__ = "__main__"
    setattr(sys.modules["__main__"], _cls.__name__, _cls)
