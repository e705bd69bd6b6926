"""Fills fuzz/corpus/<target> from testdata/fixtures: what each fuzz target would be given of an honest file.

    python3 fuzz/seed.py [path of the ptview binary, for the target `index`]
"""

import io
import pickletools
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "testdata" / "fixtures"
# Larger seeds slow the fuzzer down and show it nothing more.
SEED_BYTES_MAX = 20_000


def add(target: str, name: str, data: bytes) -> None:
    if len(data) <= SEED_BYTES_MAX:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def behind_pickles(data: bytes, count: int) -> bytes:
    stream = io.BytesIO(data)
    for _ in range(count):
        for _ in pickletools.genops(stream):
            pass
    return stream.read()


for path in sorted(path for path in FIXTURES.rglob("*") if path.is_file()):
    name, data = "-".join(path.relative_to(FIXTURES).parts), path.read_bytes()
    add("whole_file", name, data)
    try:
        with zipfile.ZipFile(path) as archive:
            add("container", name, data)
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    add("pickle", name, archive.read(member))
                    # One byte of it, or of the header before it, is another.
                    add("template", name, bytes([1, 80, 0, 7]) + archive.read(member))
    except Exception:  # made to be unreadable
        pass
    if path.suffix == ".pkl" or path.name == ".metadata":
        add("plain", name, data)
    if tarfile.is_tarfile(path) and data[257:262] == b"ustar":
        with tarfile.open(path) as tar:
            # In torch's order, as the target takes them apart again.
            order = ["sys_info", "storages", "tensors", "pickle"]
            if set(order) <= set(tar.getnames()):
                add("tar", name, b"\n....\n".join(tar.extractfile(member).read() for member in order))
    if path.suffix == ".pth":
        try:
            add("legacy", name, behind_pickles(data, 3))
        except Exception:
            pass

# Bytes that make calls of `_rebuild_tensor_v2` and of numpy's functions in the target `rebuild`; see its table.
add("rebuild", "tensor", bytes([0, 0, 12, 28, 0, 0, 8, 8, 0, 12, 8, 2, 13, 12, 8, 1, 13, 21, 2, 0, 40, 17, 18, 13, 18]))
add("rebuild", "array", bytes([0, 33, 0, 35, 5, 5, 21, 1, 21, 0, 16, 18, 27, 4, 9, 15, 18]))
add("rebuild", "storage", bytes([28, 1, 2, 8]))

if len(sys.argv) > 1:
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((FIXTURES / "zip").iterdir()):
            shutil.copy(path, folder)
            copy = Path(folder) / path.name
            if subprocess.run([sys.argv[1], "index", copy], capture_output=True, check=False).returncode == 0:
                add("index", path.name, copy.with_name(path.name + ".ptidx").read_bytes())
