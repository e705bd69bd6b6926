"""Hostile and malformed files.  None of them may crash a reader, exhaust it, or make it execute anything."""

from __future__ import annotations

import pickle
import struct

import torch

from ..registry import Registry
from ..writers.rawpickle import (
    FOUR_FLOATS,
    LEGACY_MAGIC,
    Call,
    Pid,
    body,
    dumps,
    four_floats,
    mini_zip,
    storage,
    tensor,
)
from ..writers.rawzip import UTF8_NAME, Member, raw_zip
from ..writers.torch_files import put

DATA_PKL, RECORD, VERSION = "archive/data.pkl", "archive/data/0", "archive/version"
SHORT_SIZE = struct.pack("<I", 100000)


def build(r: Registry) -> None:
    _views(r)
    _storages(r)
    _globals(r)
    _malformed_pickles(r)
    _exhausting_pickles(r)
    _zip_directory(r)
    _zip_content(r)
    _zip_layout(r)
    _legacy(r)


def _views(r: Registry) -> None:
    """Sizes, strides and offsets that do not fit a storage of four elements."""
    rank = 100_000
    for name, offset, size, stride, category in (
        ("oob_size", 0, (5,), (1,), "oob_view"),
        ("oob_offset", 2, (3,), (1,), "oob_view"),
        ("oob_stride", 0, (2, 2), (3, 1), "oob_view"),
        ("neg_offset", -1, (1,), (1,), "negative"),
        ("neg_size", 0, (-1,), (1,), "negative"),
        ("neg_stride", 3, (4,), (-1,), "negative"),
        ("numel_overflow", 0, (1 << 62, 4), (0, 0), "overflow"),
        ("extent_overflow", 0, (1 << 32, 1 << 32), (1 << 33, 1), "overflow"),
        ("offset_overflow", (1 << 63) - 1, (2,), (1,), "overflow"),
        ("rank_mismatch", 0, (2, 2), (1,), "bad_args"),
        ("huge_int_size", 0, (1 << 70,), (0,), "overflow"),
        ("rank_100000", 0, (1,) * rank, (1,) * rank, "limit"),
        ("size_not_int", 0, ("x",), (1,), "bad_args"),
    ):
        add = r.either if name == "rank_100000" else r.error  # valid, but hardly meant seriously
        data = mini_zip(tensor(storage(4), offset, size, stride))
        add(f"attack/{name}.pt", "zip", name.replace("_", " "), put(data), category=category)
    r.error(
        "attack/too_few_args.pt",
        "zip",
        "too few args",
        put(lambda: mini_zip(Call(torch._utils._rebuild_tensor_v2, storage(4), 0))),
        "bad_args",
    )
    r.either(
        "attack/empty_view_far_offset.pt",
        "zip",
        "0 elements at offset 100 of a 4-element storage (torch accepts: no bytes are read)",
        put(lambda: mini_zip(tensor(storage(4), 100, (0,), (1,)))),
        category="oob_view",
    )


def _storages(r: Registry) -> None:
    """Persistent ids that name no storage, or one that does not fit its record."""

    def error(name, note, obj, category):
        r.error(f"attack/{name}.pt", "zip", note, put(lambda: mini_zip(obj)), category)

    for name, numel, category in (
        ("negative", -4, "negative"),
        ("huge", 1 << 61, "overflow"),
        ("larger", 5, "size_mismatch"),
        ("smaller", 2, "size_mismatch"),
        ("bigint", 1 << 80, "overflow"),
    ):
        obj = tensor(storage(numel), 0, (1,), (1,))
        error(f"storage_numel_{name}", "persistent id element count does not fit the record", obj, category)

    weird = b"\x80\x02((X\x07\0\0\0storagectorch\nWeirdStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQt."
    stray = tensor(storage(4, "../version"), 0, (4,), (1,))
    error("missing_record", "storage key without a record", tensor(storage(4, "7"), 0, (4,), (1,)), "missing_record")
    error("key_traversal", "storage key ../version", stray, "missing_record")
    error("pid_not_storage", "persistent id with an unknown tag", Pid("evil", 1), "bad_pickle")
    error("pid_string", "persistent id is a string in a zip file", Pid("x"), "bad_pickle")
    error("unknown_storage_class", "torch.WeirdStorage", weird, "bad_dtype")


def _globals(r: Registry) -> None:
    """Names in a pickle that a real unpickler would import and call."""
    r.either(
        "attack/os_system.pt",
        "zip",
        "REDUCE of posix.system: must not run; opaque object or refusal",
        put(mini_zip(b"\x80\x02cposix\nsystem\nX\x16\0\0\0echo pwned > PWNED.txt\x85R.", {})),
    )
    r.either(
        "attack/builtins_eval.pt",
        "zip",
        "eval on the path of a state dict value",
        put(mini_zip(b"\x80\x02}X\x01\0\0\0ac__builtin__\neval\nX\x03\0\0\x001+1\x85Rs.", {})),
    )
    r.error(
        "attack/reduce_noncallable.pt", "zip", "REDUCE of an int", put(mini_zip(b"\x80\x02K\x01)R.", {})), "bad_pickle"
    )
    r.either(
        "attack/global_nonascii.pt",
        "zip",
        "GLOBAL with control characters",
        put(mini_zip(b"\x80\x02c\x1b[31m\nx\x00y\n)R.", {})),
    )


MALFORMED = {
    "empty": b"",
    "no_stop": b"\x80\x02}",
    "stop_empty_stack": b"\x80\x02.",
    "pop_empty": b"\x80\x020.",
    "mark_only": b"\x80\x02(.",
    "setitems_no_mark": b"\x80\x02}K\x01K\x02u.",
    "setitems_odd": b"\x80\x02}(K\x01u.",
    "memo_missing": b"\x80\x02h\x05.",
    "unknown_opcode": b"\x80\x02\xff.",
    "proto_255": b"\x80\xffN.",
    "ext1": b"\x80\x02\x82\x01.",
    "next_buffer": b"\x80\x05\x97.",
    "tuple3_short": b"\x80\x02K\x01\x87.",
    "append_to_int": b"\x80\x02K\x01K\x02a.",
    "build_on_int": b"\x80\x02K\x01}b.",
    "binunicode_overrun": b"\x80\x02X\xff\xff\xff\xffabc.",
    "binunicode8_huge": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
    "long4_negative": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "long4_huge": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\1.",
    "frame_huge": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "frame_overlap": b"\x80\x04\x95" + struct.pack("<Q", 3) + b"]NaN.",
    "binbytes8_huge": b"\x80\x04\x8e" + struct.pack("<Q", (1 << 63) + 5) + b"a.",
    "int_text_bad": b"I12x\n.",
    "int_text_unterminated": b"I12",
    "float_text_bad": b"Fnope\n.",
    "string_unquoted": b"Sabc\n.",
    "persid_text": b"Pfoo\n.",
    "global_unterminated": b"\x80\x02ctorch\nFloat",
    "invalid_utf8": b"\x80\x02X\x02\0\0\0\xff\xfe.",
    "two_left_on_stack": b"\x80\x02NN.",
    "stack_global_nonstr": b"\x80\x04K\x01K\x02\x93.",
    "unhashable_key": b"\x80\x02}]K\x01s.",
}
# Wrong, but nothing a lenient reader needs to stumble over
TOLERABLE = {"two_left_on_stack", "frame_overlap", "unhashable_key", "invalid_utf8", "proto_255", "frame_huge"}


def _malformed_pickles(r: Registry) -> None:
    for name, data in MALFORMED.items():
        add = r.either if name in TOLERABLE else r.error
        note = "malformed pickle: " + name
        add(f"attack/pkl_{name}.pt", "zip", note, put(mini_zip(data, {})), category="bad_pickle")


def _exhausting_pickles(r: Registry) -> None:
    """Small pickles that stand for something deep, wide or enormous."""

    def either(name, note, data, category=None, records=None):
        records = {} if records is None else records
        r.either(f"attack/pkl_{name}.pt", "zip", note, put(lambda: mini_zip(data, records)), category=category)

    def ten_references(levels: int, first: int) -> bytes:
        """Lists that each hold ten references to memo entry ``first + i`` and become the next entry."""
        return b"".join(
            b"](" + (b"h" + bytes([first + i])) * 10 + b"eq" + bytes([first + i + 1]) for i in range(levels)
        )

    deep_reduce = b"\x80\x02cx\ny\nq\x00N\x850h\x00)R\x85q\x010h\x00h\x01R" + b"\x85q\x010h\x00h\x01R" * 49_999 + b"."
    amplify = b"\x80\x02](X" + SHORT_SIZE + b"A" * 100_000 + b"q\x00" + b"h\x00" * 100_000 + b"e."
    shared_tensor = b"\x80\x02" + body(four_floats()) + b"q\xc8" + ten_references(12, 200) + b"."
    either(
        "memo_index_4g",
        "LONG_BINPUT 0xFFFFFFFF: must not allocate 4G memo slots (valid pickle)",
        b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff.",
    )
    either(
        "deep_lists",
        "100000 nested lists: must not overflow the stack",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "depth",
    )
    either(
        "deep_tuples",
        "100000 nested 1-tuples (also when dropped)",
        b"\x80\x02)" + b"\x85" * 100_000 + b".",
        "depth",
    )
    either("deep_reduce", "50000 nested REDUCE calls", deep_reduce, "depth")
    either(
        "billion_laughs",
        "30 levels of 10 shared references: 10^30 paths, tiny graph",
        b"\x80\x02]q\x00" + ten_references(30, 0) + b".",
        "limit",
    )
    either("string_amplify", "one 100 kB string referenced 100000 times: 10 GB if copied", amplify, "limit")
    either(
        "shared_tensor_laughs",
        "a tensor reachable by 10^12 paths",
        shared_tensor,
        "limit",
        {"0": FOUR_FLOATS},
    )


def _good() -> list[Member]:
    """Members of a good archive, to be spoiled."""
    return [Member(DATA_PKL, dumps(four_floats())), Member(RECORD, FOUR_FLOATS), Member(VERSION, b"3\n")]


def _with_record(**fields) -> bytes:
    """A good archive except for some zip fields of its storage record."""
    pkl, _, version = _good()
    return raw_zip([pkl, Member(RECORD, FOUR_FLOATS, **fields), version])


def _zip_directory(r: Registry) -> None:
    """Zip headers that contradict each other or the file."""

    def error(name, note, data, category):
        r.error(f"attack/zip_{name}.pt", "zip", note, put(data), category)

    def size_past_eof() -> bytes:
        claimed = 4 << 20
        obj = tensor(storage(claimed // 4), 0, (1,), (1,))
        record = Member(RECORD, FOUR_FLOATS, size=claimed, compressed_size=claimed)
        return raw_zip([Member(DATA_PKL, dumps(obj)), record, Member(VERSION, b"3\n")])

    def overlap() -> bytes:
        two = Member(DATA_PKL, dumps([tensor(storage(4, key), 0, (4,), (1,)) for key in ("0", "1")]))
        _, record, version = _good()
        end_of_first = 30 + len(DATA_PKL) + len(two.data)
        return raw_zip([two, record, Member("archive/data/1", FOUR_FLOATS, offset=end_of_first), version])

    def extra_past_eof() -> bytes:
        data = raw_zip(_good())
        return data[:28] + b"\xff\xff" + data[30:]

    pkl, record, version = _good()
    error(
        "dup_names",
        "data/0 twice with different content",
        raw_zip([pkl, record, Member(RECORD, b"\0" * 16), version]),
        "duplicate_name",
    )
    r.either(
        "attack/zip_dup_case.pt",
        "zip",
        "data/0 and DATA/0: torch looks names up case-insensitively and takes the wrong one",
        put(raw_zip([pkl, record, Member("archive/DATA/0", b"\0" * 16), version])),
    )
    error(
        "name_mismatch",
        "local header name differs from the central directory",
        _with_record(local_name=b"archive/data/9"),
        "header_mismatch",
    )
    error("size_past_eof", "entry size runs past the end of the file", size_past_eof(), "oob_storage")
    error(
        "offset_past_eof",
        "local header offset past the end of the file",
        _with_record(offset=1 << 30),
        "oob_storage",
    )
    error(
        "offset_not_header",
        "local header offset points into another entry's data",
        _with_record(offset=10),
        "header_mismatch",
    )
    error("overlap", "two central entries share one local header", overlap(), "overlap")
    error("extra_len_past_eof", "local extra length reaches past the end", extra_past_eof(), "oob_storage")
    error("count_wrong", "end record claims 60000 entries", raw_zip(_good(), count=60000), "bad_zip")
    error("cd_offset_wrong", "central directory offset is wrong", raw_zip(_good(), directory_offset=7), "bad_zip")


def _zip_content(r: Registry) -> None:
    """Members whose content cannot be had, is not what it should be, or is far larger than the file."""

    def error(name, note, data, category):
        r.error(f"attack/zip_{name}.pt", "zip", note, put(data), category)

    def bomb() -> bytes:
        obj = tensor(storage(10 << 20), 0, (4,), (1,))
        record = Member(RECORD, b"\0" * (40 << 20), method=8)
        return raw_zip([Member(DATA_PKL, dumps(obj)), record, Member(VERSION, b"3\n")])

    def pickle_bomb() -> bytes:
        data = b"\x80\x02" + b"N0" * (20 << 20) + b"N."
        return raw_zip([Member(DATA_PKL, data, method=8), Member(VERSION, b"3\n")])

    r.either("attack/zip_bomb.pt", "zip", "40 MB of zeros deflated to 40 kB", put(bomb), category="limit")
    r.either("attack/zip_pkl_bomb.pt", "zip", "data.pkl inflates to 40 MB", put(pickle_bomb), category="limit")
    error("deflate_corrupt", "invalid deflate stream", _with_record(method=8, raw=b"\xff" * 9), "bad_zip")
    error("unknown_method", "compression method 99", _with_record(method=99, raw=FOUR_FLOATS), "bad_zip")
    error("encrypted", "encryption flag set", _with_record(flags=UTF8_NAME | 1), "bad_zip")
    r.either(
        "attack/zip_crc_wrong.pt",
        "zip",
        "wrong CRC on a storage (torch ignores it)",
        put(_with_record(crc=0x12345678)),
        category="crc",
    )


def _zip_layout(r: Registry) -> None:
    """Archives with missing, additional or contradictory members, or something around them."""

    def error(name, note, data, category):
        r.error(f"attack/zip_{name}.pt", "zip", note, put(data), category)

    def either(name, note, data, category=None):
        r.either(f"attack/zip_{name}.pt", "zip", note, put(data), category=category)

    pkl, record, version = _good()
    evil = Member("evil/data.pkl", b"\x80\x02N.")
    outside = [Member("archive/../../evil", b"x"), Member("/abs", b"x"), Member(b"archive/\0nul", b"x")]
    either("two_roots", "two root directories", raw_zip([*_good(), evil]), "bad_layout")
    error("no_data_pkl", "data.pkl missing", raw_zip([record, version]), "missing_record")
    either("no_version", "version record missing (torch refuses)", raw_zip([pkl, record]))
    either(
        "version_99",
        "version 99 (torch refuses above 10)",
        raw_zip([pkl, record, Member(VERSION, b"99\n")]),
    )
    error(
        "bad_byteorder",
        "byteorder record says 'middle'",
        raw_zip([pkl, record, Member("archive/byteorder", b"middle"), version]),
        "bad_byteorder",
    )
    either("traversal_names", "entry names with .. and absolute paths", raw_zip([*_good(), *outside]))
    either(
        "prefix_junk",
        "junk before the archive (self-extractor style)",
        b"PK\3\4junkjunk" + raw_zip(_good()),
        "bad_zip",
    )
    either(
        "concat",
        "two archives back to back: the end record belongs to the second",
        mini_zip(four_floats()) + mini_zip(tensor(storage(4), 0, (2,), (1,))),
        "bad_zip",
    )
    either(
        "comment_eocd",
        "a fake end record inside the comment",
        raw_zip(_good(), comment=raw_zip([evil])[-22:]),
    )


def _legacy(r: Registry) -> None:
    def error(name, note, data, category):
        r.error(f"attack/legacy_{name}.pth", "legacy", note, put(data), category)

    def pickles(*objects) -> bytes:
        return b"".join(pickle.dumps(x, 2) for x in objects)

    unlisted = tensor(Pid("storage", torch.FloatStorage, "1", "cpu", 1, None), 0, (1,), (1,))
    error(
        "keys_missing",
        "storage key list does not name the used key",
        pickles(LEGACY_MAGIC, 1001, {"little_endian": True}) + dumps([unlisted]) + pickles([]),
        "missing_record",
    )
    error("magic_only", "magic number then end of file", pickles(LEGACY_MAGIC), "truncated")
    error("bad_protocol", "protocol number 1002", pickles(LEGACY_MAGIC, 1002), "bad_version")
