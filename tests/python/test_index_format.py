"""A reader written from docs/index-format.md alone finds in our indexes what torch finds in the files."""

import collections
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from conftest import ROOT
from index_reader import DTYPES, SECTIONS, Damaged, File, Index, Tensor
from judge import logical_bytes, tensors

DOCUMENT = (ROOT / "docs/index-format.md").read_text()
TYPED = [getattr(torch, name) for name, _ in DTYPES[:12] if name != "bool"]


def label(value: object, number: int) -> dict:
    return {"x": torch.full((3, 4), float(number)), "y": value, "id": f"sample-{number}"}


def folders() -> dict[str, list[object]]:
    """Objects that become the files of one folder."""
    torch.manual_seed(0)
    mixed = [1, 2.5, "three", None, True, -(2**63), 2**63 - 1, float("inf"), "three", False, None]
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    base = torch.arange(24.0).view(4, 6)
    return {
        "alike": [label(number % 10, number) for number in range(40)],
        "one": [label(3, 0)],
        "ragged": [
            {"x": torch.randn(1 + number * 37 % 11, 2 + number % 3), "n": torch.arange(number), "y": number}
            for number in range(50)
        ],
        "ragged strides": [torch.randn(4, 2 + number)[:, ::2].t() for number in range(20)],
        "missing labels": [label(None if number % 3 == 0 else number, number) for number in range(30)],
        "missing strings": [label(None if number % 5 == 0 else f"c{number % 4}", number) for number in range(30)],
        "bools": [label(number % 3 == 0 if number % 4 else None, number) for number in range(19)],
        "floats": [label(number / 7 if number != 5 else float("nan"), number) for number in range(17)],
        "mixed labels": [label(mixed[number % len(mixed)], number) for number in range(33)],
        "never there": [label(None, number) for number in range(9)],
        "no tensors": [{"a": number, "b": {"c": [number, (None, "é")]}} for number in range(5)],
        "several schemas": [
            [
                label(number, number),
                {"y": number, "x": torch.ones(2)},
                torch.arange(number),
                collections.OrderedDict(a=torch.zeros(1), y=str(number)),
                {1: torch.ones(1), "1": torch.ones(2), (1, "a"): torch.ones(3), None: [torch.ones(4), {}, ()]},
            ][number % 5]
            for number in range(53)
        ],
        "dtypes": [
            {str(dtype): torch.arange(12).to(dtype) for dtype in TYPED},
            {"bool": torch.tensor([[True, False]]), "bf": torch.ones(3, dtype=torch.bfloat16)},
        ],
        "views": [
            [base, base.t(), base[1:3, 2:5], base[:, 1], base[::2], base.expand(2, 4, 6), base[4:], base[3, 5]],
            [torch.nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True), torch.tensor([1 + 2j]).conj()],
        ],
        "state dict": [model.state_dict()],
        "many": [{f"tensor {number}": torch.full((2,), float(number)) for number in range(1001)}],
        "offsets": [{"pad": "p" * (number * 17), "x": torch.full((64,), float(number))} for number in range(12)],
        "shared": [(lambda shared: {"a": shared, "b": shared, "t": (shared, [shared])})([torch.ones(2), number])
                   for number in range(3)],
    }  # fmt: skip


FOLDERS = folders()


@pytest.fixture(scope="session")
def indexed(ptview, tmp_path_factory) -> Callable[[str], tuple[Path, Index, dict[str, object]]]:
    """Saves the files of a folder with torch, indexes them, and reads the index as a stranger."""

    def run(name: str) -> tuple[Path, Index, dict[str, object]]:
        folder = tmp_path_factory.mktemp("folder")
        objects = {}
        for number, value in enumerate(FOLDERS[name]):
            path = f"{'even/é' if number % 2 == 0 else 'odd'}/{number:03}.pt"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            torch.save(value, folder / path)
            objects[path] = torch.load(folder / path, weights_only=True)
        return folder, index_of(ptview, folder), dict(sorted(objects.items(), key=lambda item: item[0].encode()))

    return run


def index_of(ptview, path: Path) -> Index:
    done = ptview("index", path)
    assert done.returncode == 0, done.stderr
    return Index.open(path / "index.ptidx" if path.is_dir() else path.with_name(path.name + ".ptidx"))


def leaves(value: object) -> list[tuple[str, object]]:
    """What the document calls plain values, with their dotted names. Containers count where they are met first."""
    found, met = [], set()

    def walk(value: object, path: tuple[str, ...]) -> None:
        if value is None or isinstance(value, bool | int | float | str):
            found.append((".".join(path), value))
        elif isinstance(value, dict | list | tuple) and id(value) not in met:
            if len(value) > 0:
                met.add(id(value))
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in pairs:
                walk(item, (*path, key if isinstance(key, str) else repr(key)))

    walk(value, ())
    return found


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


def assert_same_tensor(ours: Tensor, path: tuple[str, ...], true: torch.Tensor, data: bytes) -> None:
    assert ours.name == ".".join(path)
    assert ours.path == path
    assert f"torch.{ours.dtype}" == str(true.dtype)
    assert ours.itemsize == true.dtype.itemsize
    assert ours.shape == tuple(true.shape)
    assert ours.stride == true.stride()
    assert ours.storage_offset == true.storage_offset()
    assert ours.storage.bytes == true.untyped_storage().nbytes()
    assert bool(ours.flags & 1) == true.requires_grad
    assert bool(ours.flags & 2) == isinstance(true, torch.nn.Parameter)
    assert bool(ours.flags & 4) == true.is_conj()
    assert ours.layout == 0
    assert ours.read(data) == logical_bytes(true.conj() if true.is_conj() else true)


def assert_same_file(file: File, path: Path, value: object) -> None:
    data, stat = path.read_bytes(), path.stat()
    assert (file.size, file.modified_ns) == (stat.st_size, stat.st_mtime_ns)
    truth = list(tensors(value))
    ours = file.tensors()
    assert len(ours) == len(truth)
    first_of: dict[int, int] = {}
    for number, (tensor, (keys, true)) in enumerate(zip(ours, truth, strict=True)):
        assert_same_tensor(tensor, keys, true, data)
        first = first_of.setdefault(id(true), number)
        assert tensor.alias == (None if first == number else first)
    names = [tensor.name for tensor in ours]
    for number, name in enumerate(names):
        assert file.schema.find(name) == names.index(name), number
    assert file.find("no such tensor") is None
    found, expected = file.leaves(), leaves(value)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(same(a, b) for (_, a), (_, b) in zip(found, expected, strict=True)), (found, expected)
    assert_fingerprint(file, path, data)


def assert_fingerprint(file: File, path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        top = infos[0].filename.split("/")[0]
        pickle, order = archive.read(f"{top}/data.pkl"), archive.read(f"{top}/byteorder")
        start = archive.start_dir
    _, _, _, _, _, length, _, _ = struct.unpack_from("<4sHHHHIIH", data, data.rfind(b"PK\5\6"))
    hashed = data[start : start + length] + pickle + bytes([order == b"big"])
    assert file.fingerprint == xxhash.xxh3_64_intdigest(hashed)
    assert file.covers_content == all(info.CRC != 0 or info.file_size == 0 for info in infos)
    crcs = {info.CRC for info in infos}
    for tensor in file.tensors():
        assert tensor.storage.crc in crcs


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stranger_reads_what_torch_wrote(name, indexed):
    folder, index, objects = indexed(name)
    index.check_sums()
    assert [file.path for file in index.files()] == list(objects)
    assert index.data_bytes == sum((folder / path).stat().st_size for path in objects)
    for file, (path, value) in zip(index.files(), objects.items(), strict=True):
        assert_same_file(file, folder / path, value)
        found = index.find_file(path)
        assert (found.number, found.row, found.schema) == (file.number, file.row, file.schema)
    assert index.find_file("no/such/file.pt") is None


@pytest.mark.parametrize("name", FOLDERS)
def test_schemas_and_files_know_each_other_and_add_up(name, indexed):
    _, index, _ = indexed(name)
    by_schema = [file for schema in index.schemas for file in schema.files()]
    assert sorted(file.number for file in by_schema) == list(range(index.file_count))
    before = [0, 0]
    for schema in index.schemas:
        assert [schema.head["tensors_before"], schema.head["storages_before"]] == before
        before[0] += schema.rows * len(schema.tensors)
        before[1] += schema.rows * len(schema.storages)
        numbers = [file.number for file in schema.files()]
        assert numbers == sorted(numbers)
        assert [(index.file(n).schema.number, index.file(n).row) for n in numbers] == [
            (schema.number, file_row) for file_row in range(schema.rows)
        ]
    assert before == [index.tensor_count, index.storage_count]


@pytest.mark.parametrize("name", FOLDERS)
def test_columns_are_the_labels_of_all_files(name, indexed):
    _, index, objects = indexed(name)
    values = [dict(reversed(leaves(value))) for value in objects.values()]
    for column in {name for value in values for name in value} | {"no such column"}:
        found = index.column(column)
        assert all(same(a, value.get(column)) for a, value in zip(found, values, strict=True)), (column, found)


@pytest.mark.parametrize(
    "name",
    ["alike", "ragged", "missing labels", "mixed labels", "no tensors", "several schemas", "shared", "state dict"],
)
def test_the_saved_object_can_be_put_together_again(name, indexed):
    folder, index, objects = indexed(name)

    def plain(value: object) -> object:
        match value:
            case torch.Tensor():
                return logical_bytes(value)
            case dict():
                return {key if isinstance(key, str | int) else repr(key): plain(item) for key, item in value.items()}
            case list():
                return [plain(item) for item in value]
            case tuple():
                return tuple(plain(item) for item in value)
        return value

    for file, (path, value) in zip(index.files(), objects.items(), strict=True):
        data = (folder / path).read_bytes()
        assert file.rebuild(lambda tensor, data=data: tensor.read(data)) == plain(value)


def test_alike_files_take_few_bytes(indexed):
    _, alike, _ = indexed("alike")
    assert len(alike.schemas) == 1
    assert alike.schemas[0].head["row_bytes"] <= 32
    _, ragged, _ = indexed("ragged")
    assert len(ragged.schemas) == 1
    _, several, _ = indexed("several schemas")
    assert len(several.schemas) == 5


def test_the_sidecar_of_one_file(ptview, tmp_path):
    path = tmp_path / "model.pt"
    value = {"w": torch.ones(2, 3), "epoch": 3}
    torch.save(value, path)
    index = index_of(ptview, path)
    assert [file.path for file in index.files()] == [""]
    assert_same_file(index.file(0), path, value)


def test_composites_are_listed_with_their_parts(ptview, tmp_path):
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    quantized = torch.quantize_per_channel(dense, torch.tensor([0.5, 0.25]), torch.tensor([1, 2]), 1, torch.qint8)
    value = {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc(), "q": quantized}
    path = tmp_path / "composites.pt"
    torch.save(value, path)
    data, file = path.read_bytes(), index_of(ptview, path).file(0)
    parts = {
        ("coo", "#indices"): value["coo"]._indices(),
        ("coo", "#values"): value["coo"]._values(),
        ("csr", "#crow_indices"): value["csr"].crow_indices(),
        ("csr", "#col_indices"): value["csr"].col_indices(),
        ("csr", "#values"): value["csr"].values(),
        ("csc", "#ccol_indices"): value["csc"].ccol_indices(),
        ("csc", "#row_indices"): value["csc"].row_indices(),
        ("csc", "#values"): value["csc"].values(),
        ("q", "#scales"): quantized.q_per_channel_scales(),
        ("q", "#zero_points"): quantized.q_per_channel_zero_points(),
    }
    found = {tensor.path: tensor for tensor in file.tensors()}
    for path, true in parts.items():
        assert found[path].flags & 64
        assert (found[path].shape, found[path].read(data)) == (tuple(true.shape), logical_bytes(true)), path
    wholes = {path[0]: tensor for path, tensor in found.items() if path not in parts}
    assert {name: tensor.layout for name, tensor in wholes.items()} == {"coo": 1, "csr": 2, "csc": 3, "q": 0}
    assert all(tensor.shape == (2, 2) for tensor in wholes.values())
    assert all(wholes[name].stride is None and wholes[name].storage is None for name in ("coo", "csr", "csc"))
    assert wholes["q"].read(data) == quantized.int_repr().numpy().tobytes()
    assert wholes["q"].quantizer == ("per_channel_affine", True, 0.0, 1)


def test_numpy_arrays(ptview, tmp_path):
    value = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.array([1.5, -2, 1e-9], ">f4"),
        "c": np.array([1 + 2j, 3 - 4j], ">c16"),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "s": np.float64(2.5),
    }
    torch.save(value | {"t": torch.ones(2)}, tmp_path / "saved.pt")
    for protocol in (2, 3, 4, 5):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(value, protocol))
    files = list(index_of(ptview, tmp_path).files())
    assert len(files) == 5
    for file in files:
        data = (tmp_path / file.path).read_bytes()
        for name, true in value.items():
            tensor = file.find(name)
            assert tensor.flags & 128
            assert (tensor.dtype, tensor.shape) == (true.dtype.name, true.shape)
            assert tensor.read(data) == true.astype(true.dtype.newbyteorder("<")).tobytes(), (file.path, name)


def test_records_that_are_deflated(ptview, tmp_path):
    value = {"x": torch.zeros(1000), "y": torch.arange(1000)}
    torch.save(value, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "model.pt", "w") as deflated:
        for info in stored.infolist():
            deflated.writestr(info.filename, stored.read(info), zipfile.ZIP_DEFLATED)
    path = tmp_path / "model.pt"
    file = index_of(ptview, path).file(0)
    for name, true in value.items():
        assert file.find(name).storage.method == 8
        assert file.find(name).read(path.read_bytes()) == logical_bytes(true)


def test_what_is_left_to_the_pickle(ptview, tmp_path):
    inside: list = [1]
    inside.append(inside)
    deep: object = 1
    for _ in range(70):
        deep = [deep]
    value = {
        "y": 1,
        "big": 2**80,
        "long": list(range(65)),
        "set": {1, 2},
        "bytes": b"b",
        "inside": inside,
        "deep": deep,
    }
    path = tmp_path / "odd.pt"
    torch.save(value, path)
    file = index_of(ptview, path).file(0)
    rebuilt = file.rebuild(lambda tensor: tensor)
    assert rebuilt == {"y": 1, "big": ..., "long": ..., "set": ..., "bytes": ..., "inside": [1, ...], "deep": ...}
    assert file.leaves() == [("y", 1), ("inside.0", 1)]


def test_the_root_leads_to_the_data(ptview, tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "a/b"
    data.mkdir()
    elsewhere.mkdir(parents=True)
    value = {"w": torch.ones(2, 3), "epoch": 3}
    torch.save(value, data / "model.pt")
    for what in (data, data / "model.pt"):
        done = ptview("index", what, "--output", elsewhere / "index.ptidx")
        assert done.returncode == 0, done.stderr
        index = Index.open(elsewhere / "index.ptidx")
        assert index.root
        (file,) = index.files()
        path = elsewhere / index.root / file.path if file.path else elsewhere / index.root
        assert path.resolve() == (data / "model.pt").resolve()
        assert_same_file(file, path, value)


def test_the_same_files_give_the_same_bytes(indexed, ptview):
    folder, index, objects = indexed("several schemas")
    assert index_of(ptview, folder).data == index.data
    changed = folder / next(iter(objects))
    torch.save({"something": "else"}, changed)
    updated = index_of(ptview, folder)
    assert updated.data != index.data
    (folder / "index.ptidx").unlink()
    assert index_of(ptview, folder).data == updated.data


def test_what_our_writer_writes(ptview, samples, tmp_path):
    # Others look at the samples too, and want no index among them.
    samples = shutil.copytree(samples, tmp_path / "samples")
    index = index_of(ptview, samples)
    assert index.file_count == 10
    for file in index.files():
        data = (samples / file.path).read_bytes()
        truth = torch.load(samples / file.path, weights_only=True)
        for ours, (path, true) in zip(file.tensors(), tensors(truth), strict=True):
            assert (ours.path, ours.shape, ours.stride) == (path, tuple(true.shape), true.stride())
            if not true.is_conj() and not true.is_neg():
                assert ours.read(data) == logical_bytes(true), (file.path, path)


def test_files_that_are_skipped_are_no_files(ptview, tmp_path):
    torch.save({"y": 1}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"no tensor in here")
    index = index_of(ptview, tmp_path)
    assert [file.path for file in index.files()] == ["a.pt"]
    ((path, reason, size, modified_ns),) = index.skipped()
    stat = (tmp_path / "b.pt").stat()
    assert (path, size, modified_ns) == ("b.pt", stat.st_size, stat.st_mtime_ns)
    assert reason


def example() -> bytes:
    lines = re.search(r"<!-- example.*?```text\n(.*?)```", DOCUMENT, re.S)[1].splitlines()
    rows = [match for line in lines if (match := re.match(r" *(\d+)  ((?:[0-9a-f]+ )*[0-9a-f]+)(?:  |$)", line))]
    data = b""
    for match in rows:
        assert int(match[1]) == len(data)
        data += bytes.fromhex(match[2])
    return data


def test_the_example_in_the_document_is_an_index():
    index = Index(example())
    index.check_sums()
    first, second = index.files()
    assert [first.path, second.path] == ["train/000.pt", "train/001.pt"]
    assert (first.modified_ns, second.modified_ns) == (1_700_000_000 * 10**9, 1_700_000_005 * 10**9)
    assert index.column("y") == [7, 8]
    for file, values in ((first, [1.0, 2.0]), (second, [3.0, 4.0])):
        (tensor,) = file.tensors()
        assert (tensor.name, tensor.dtype, tensor.shape, tensor.stride) == ("x", "float32", (2,), (1,))
        assert tensor.storage.crc == zlib.crc32(struct.pack("<2f", *values))
        assert index.find_file(file.path).number == file.number
        assert file.rebuild(lambda tensor: tensor.name)["x"] == "x"


def test_the_document_lists_every_section():
    for kind, name in enumerate(SECTIONS):
        assert f"| {kind} | {name} |" in DOCUMENT


def read_all(data: bytes) -> None:
    index = Index(data)
    for file in index.files():
        _ = (file.path, file.tensors(), file.leaves(), file.schema.files(), index.skipped())
        file.find("x")
        file.rebuild(lambda tensor: tensor.name)
        index.find_file(file.path)


def test_damage_is_noticed_or_harmless():
    whole = example()
    read_all(whole)
    refused = 0
    for at in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            data = bytearray(whole)
            data[at] ^= mask
            # With the header's checksum made right, so that what lies behind it is tried too.
            data[24:32] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(data[:24] + data[32 : 32 + 27 * 32])))
            try:
                read_all(bytes(data))
            except Damaged:
                refused += 1
    assert refused > len(whole)
    for length in range(len(whole)):
        with pytest.raises(Damaged):
            Index(whole[:length])


def test_newer_versions():
    data = bytearray(example())
    data[8] = 2
    with pytest.raises(Damaged, match="version 2"):
        Index(bytes(data))
