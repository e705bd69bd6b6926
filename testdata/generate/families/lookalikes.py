"""Files that carry a checkpoint's name but are something else, or only part of one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile

import numpy as np

from .. import samples
from ..registry import Registry
from ..writers.rawpickle import dumps
from ..writers.rawzip import Member, raw_zip
from ..writers.torch_files import put, zip_bytes


def build(r: Registry) -> None:
    def error(name, note, data, category="not_torch", container="other"):
        r.error(f"other/{name}", container, note, put(data), category)

    r.either(
        "other/model.safetensors",
        "safetensors",
        "safetensors file: recognise",
        put(_safetensors),
        category="unsupported_container",
    )
    lfs_pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
    error("html.pt", "HTML error page", b"<!DOCTYPE html>\n<html><body>404</body></html>")
    error("lfs_pointer.pt", "git-lfs pointer", lfs_pointer)
    error("empty.pt", "0 bytes", b"", "truncated")
    error("three_bytes.pt", "3 bytes", b"PK\3", "truncated")
    error("zeros.pt", "1024 zero bytes (an 'empty tar' to tarfile)", b"\0" * 1024)
    error("random.bin", "pseudo-random bytes", hashlib.sha512(b"x").digest() * 16)
    error("text.pt", "plain text", b"hello world\n")
    error("gzip.pt", "gzip of a valid checkpoint", lambda: gzip.compress(_checkpoint(), mtime=0))
    error("raw_pickle.pkl", "plain pickle, no tensors, no torch header", lambda: pickle.dumps({"a": 1}, 2))
    error("npz.pt", "numpy .npz renamed", _npz, container="npz")
    error("npy.pt", "numpy .npy renamed", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}")
    error("hdf5.pt", "HDF5 magic", b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    error("gguf.pt", "GGUF magic", b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    error("plain_zip.pt", "an ordinary zip file", lambda: raw_zip([Member("docs/readme.txt", b"hi")]))
    error(
        "zip_no_root.pt",
        "members without a root directory",
        lambda: raw_zip([Member("data.pkl", dumps(1)), Member("version", b"3\n")]),
        "bad_layout",
    )
    error("empty_zip.pt", "empty zip archive", lambda: raw_zip([]))
    error(
        "truncated_zip.pt",
        "download cut off in the middle (no end record)",
        lambda: _checkpoint()[:900],
        "truncated",
        "zip",
    )
    error("truncated_tail.pt", "last 30 bytes missing", lambda: _checkpoint()[:-30], "truncated", "zip")
    error("plain_tar.pt", "ordinary tar without torch members", _plain_tar)


def _checkpoint() -> bytes:
    return zip_bytes(samples.three_tensors()).getvalue()


def _safetensors() -> bytes:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": tensor}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2)


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(3))
    return buffer.getvalue()


def _plain_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as tar:
        info = tarfile.TarInfo("readme")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    return buffer.getvalue()
