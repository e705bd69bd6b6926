"""Good zip checkpoints in unusual containers: alignment, compression, member order, byte order, old pickle forms."""

from __future__ import annotations

import os
import struct
import zipfile
from collections import OrderedDict

import torch

from .. import samples
from ..registry import Registry
from ..writers.rawpickle import (
    FOUR_FLOATS,
    Call,
    body,
    dumps,
    four_floats,
    mini_zip,
    storage,
    tensor,
    tensor_v3,
)
from ..writers.rawzip import Member, raw_zip, rezip
from ..writers.torch_files import Skip, Writer, put, save, save_configured, zip_bytes


def build(r: Registry) -> None:
    _written_by_torch(r)
    _rezipped(r)
    _raw_archives(r)
    _pickle_forms(r)
    if r.big:
        r.ok(
            "zip/big_zip64.pt",
            "zip",
            "4 GiB + 128 byte storage (sparse file): zip64 sizes, offsets, 24-byte data descriptors",
            _big,
            loader=None,
        )


def _written_by_torch(r: Registry) -> None:
    for alignment, note in ((1, ": wide dtypes land unaligned"), (100, ""), (4096, "")):
        r.ok(
            f"zip/align_{alignment}.pt",
            "zip",
            f"storage_alignment={alignment}{note}",
            save_configured(samples.mixed_widths, storage_alignment=alignment),
        )

    def without_crc(path: str) -> None:
        if not hasattr(torch.serialization, "set_crc32_options"):
            raise Skip("needs set_crc32_options")
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(samples.mixed_widths(), path)
        finally:
            torch.serialization.set_crc32_options(True)

    def without_data(path: str) -> None:
        with torch.serialization.skip_data():
            torch.save(OrderedDict(a=torch.arange(1.0, 5.0)), path)

    r.ok("zip/nocrc.pt", "zip", "CRC not computed: every CRC field is 0 although the data is fine", without_crc)
    r.ok("zip/skip_data.pt", "zip", "skip_data: records reserved but zero-filled, CRC 0", without_data, loader=None)
    signatures = b"PK\5\6" + b"\0" * 18 + b"PK\1\2" + b"PK\6\7" + b"\0" * 16 + b"PK\3\4"
    r.ok(
        "zip/pk_magic_inside.pt",
        "zip",
        "tensor data full of zip signatures",
        save(lambda: {"x": torch.frombuffer(bytearray(signatures * 20), dtype=torch.uint8)}),
    )


def _rezipped(r: Registry) -> None:
    def again(**options) -> Writer:
        return lambda path: rezip(zip_bytes(samples.three_tensors()), path, **options)

    def move_version(name: str) -> str:
        return name.replace("/version", "/.data/version") if name.endswith("archive/version") else name

    not_in_1_6 = ("byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
    r.ok(
        "zip/deflate.pt",
        "zip",
        "re-zipped with deflate: needs a copy, torch mmap reads garbage here",
        again(compression=zipfile.ZIP_DEFLATED),
    )
    r.ok("zip/stored_unaligned.pt", "zip", "re-zipped with store: no alignment padding", again())
    r.ok(
        "zip/reordered.pt",
        "zip",
        "entries in reverse order (data.pkl last)",
        again(order=lambda names: names[::-1]),
    )
    r.ok(
        "zip/dir_entries.pt",
        "zip",
        "with directory entries and an archive comment",
        again(folders=True, comment=b"hello there"),
    )
    r.ok("zip/forced_zip64.pt", "zip", "zip64 extra fields in every local header", again(force_zip64=True))
    r.ok(
        "zip/v1_6_style.pt",
        "zip",
        "as torch 1.6: no byteorder/.format_version/serialization_id",
        again(drop=not_in_1_6),
    )
    r.ok("zip/data_version.pt", "zip", ".data/version instead of version", again(rename=move_version))
    r.ok(
        "zip/trailing_bytes.pt",
        "zip",
        "10 bytes after the end-of-central-directory record",
        put(lambda: zip_bytes(samples.three_tensors()).getvalue() + b"\0" * 10),
    )


def _raw_archives(r: Registry) -> None:
    def sentinels() -> bytes:
        members = [
            Member("archive/data.pkl", dumps(four_floats())),
            Member("archive/data/0", FOUR_FLOATS),
            Member("archive/version", b"3\n"),
        ]
        return raw_zip(members, zip64=True)

    def big_endian() -> bytes:
        obj = OrderedDict(
            f=tensor(storage(2, "0"), 0, (2,), (1,)),
            c=tensor(storage(1, "1", torch.ComplexFloatStorage), 0, (1,), (1,)),
            i=tensor(storage(2, "2", torch.ShortStorage), 0, (2,), (1,)),
            b=tensor(storage(3, "3", torch.ByteStorage), 0, (3,), (1,)),
        )
        data = {
            "0": struct.pack(">2f", 1, 2),
            "1": struct.pack(">2f", 3, 4),
            "2": struct.pack(">2h", 5, 6),
            "3": b"\1\2\3",
        }
        return mini_zip(obj, data, extra=[("byteorder", b"big")])

    def big_endian_v3() -> bytes:
        obj = tensor_v3(4, (2,), (1,), torch.uint16)
        return mini_zip(obj, {"0": struct.pack(">2H", 1, 2)}, extra=[("byteorder", b"big")])

    unknown = [("extra/notes.txt", b"hi"), ("data/unused", b"abc"), (".hidden", b"")]
    r.ok(
        "zip/cen_zip64_sentinels.pt",
        "zip",
        "central directory uses 0xFFFFFFFF + zip64 extra for tiny values",
        put(sentinels),
    )
    r.ok(
        "zip/extra_members.pt",
        "zip",
        "unknown members next to the known ones",
        put(lambda: mini_zip(four_floats(), extra=unknown)),
    )
    r.ok("zip/big_endian.pt", "zip", "byteorder=big: must be byte-swapped (not zero-copy)", put(big_endian))
    r.ok(
        "zip/big_endian_v3.pt",
        "zip",
        "byteorder=big with v3 dtype: correct values are 1,2; torch itself gets 256,512",
        put(big_endian_v3),
        loader=None,
    )


def _pickle_forms(r: Registry) -> None:
    def size_as_list() -> bytes:
        lists = tensor(storage(4), 0, [4], [1])
        return mini_zip({"l": lists, "s": tensor(storage(4), 0, torch.Size([2, 2]), (2, 1))})

    def parameter_newobj() -> bytes:
        parameter = b"\x80\x02ctorch.nn.parameter\nParameter\n" + body(four_floats()) + b"\x85\x81"
        return mini_zip(parameter + body((True, False, OrderedDict())) + b"b.")

    def two_classes() -> bytes:
        floats = tensor(storage(4), 0, (4,), (1,))
        return mini_zip([floats, tensor(storage(2, cls=torch.DoubleStorage), 0, (2,), (1,))])

    r.ok(
        "zip/int_storage_key.pt",
        "zip",
        "storage key is an int in the persistent id",
        put(lambda: mini_zip(tensor(storage(4, 0), 0, (4,), (1,)))),
    )
    r.ok("zip/size_as_list.pt", "zip", "size/stride given as list / torch.Size", put(size_as_list))
    r.ok(
        "zip/rebuild_tensor_v1.pt",
        "zip",
        "4-argument _rebuild_tensor",
        put(lambda: mini_zip(Call(torch._utils._rebuild_tensor, storage(4), 1, (2,), (1,)))),
    )
    r.ok(
        "zip/tensor_build.pt",
        "zip",
        "ancient form: torch.FloatTensor() + BUILD(storage, offset, size, stride)",
        put(lambda: mini_zip(Call(torch.FloatTensor, state=(storage(4), 0, (4,), (1,))))),
    )
    r.ok(
        "zip/param_newobj.pt",
        "zip",
        "ancient form: Parameter NEWOBJ + BUILD(requires_grad, volatile, hooks)",
        put(parameter_newobj),
    )
    r.ok(
        "zip/same_key_two_dtypes.pt",
        "zip",
        "one record referenced with two storage classes of equal byte size",
        put(two_classes),
    )
    r.ok(
        "zip/duplicate_dict_key.pt",
        "zip",
        "same key set twice: the last value wins",
        put(lambda: mini_zip(b"\x80\x02}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u.", {})),
        loader=None,
    )
    r.ok(
        "zip/odd_v3_bytes.pt",
        "zip",
        "15-byte untyped storage viewed as 7 uint16 (trailing byte unused)",
        put(lambda: mini_zip(tensor_v3(15, (7,), (1,), torch.uint16), {"0": bytes(range(15))})),
    )


def _big(path: str) -> None:
    size = (4 << 30) + 128
    with open(path + ".tmp", "wb") as f:
        f.truncate(size)
    sparse = torch.UntypedStorage.from_file(path + ".tmp", False, size)
    obj = OrderedDict(
        small=torch.ones(3),
        big=torch.empty(0, dtype=torch.uint8).set_(sparse, 0, (size,), (1,)),
        after=torch.ones(4),
        zero=torch.zeros(0),
    )
    with torch.serialization.skip_data():
        torch.save(obj, path)
    os.remove(path + ".tmp")
