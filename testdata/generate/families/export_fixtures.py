"""torch.package archives and torch.export (.pt2) archives."""

from __future__ import annotations

import zipfile

import torch

from ..models import ExportModel
from ..oracle.containers import read_package, read_pt2
from ..oracle.torch_check import load_package, load_pt2
from ..registry import Registry
from ..writers.torch_files import Skip


def build(r: Registry) -> None:
    r.ok(
        "pkg/package.pt",
        "package",
        "torch.package: <pkg>/<res>.pkl with .data/N.storage records, int keys, protocol 3",
        _package,
        oracle=read_package,
        loader=load_package,
    )
    r.ok(
        "pkg/export.pt2",
        "pt2",
        "ExportedProgram archive: weights config JSON + raw blobs",
        _export,
        oracle=read_pt2,
        loader=load_pt2,
    )


def _package(path: str) -> None:
    from torch.package import PackageExporter

    with PackageExporter(path) as exporter:
        exporter.extern("**")
        weights = {"w": torch.arange(4.0), "h": torch.ones(2, dtype=torch.bfloat16)}
        exporter.save_pickle("model", "model.pkl", weights)
        exporter.save_text("model", "notes.txt", "hi")


def _export(path: str) -> None:
    try:
        import torch.export.pt2_archive
    except ImportError:
        raise Skip("needs torch.export.pt2_archive") from None
    program = torch.export.export(ExportModel(), (torch.ones(1, 2),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names source files by absolute path
    torch.export.save(program, path, extra_files={"note.txt": "x"})
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("_weights_config.json") for name in archive.namelist()):
            raise Skip("older .pt2 layout")
