"""Where the tests find the binaries and the data."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import folders

ROOT = Path(__file__).resolve().parents[2]

# What a shell runs in the background ignores interrupts, and so does all that it starts; tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What torch 2.1, the oldest that is served, cannot do itself.
OLD_TORCH = {
    "test_parts_that_no_batch_holds": "weights_only=True refuses bytes",
    "test_dtypes": "saves no float8",
    "test_torch_save_reads_alike[v3]": "saves no float8",
    "test_every_fixture_that_torch_loads[zip/same_key_two_dtypes.pt]": "gives one dtype to both",
    "test_real_files": "makes modules of TorchScript with weights_only=True",
    "test_tensors_parameters_and_views": "weights_only=True refuses float8",
    "test_what_our_writer_writes": "weights_only=True refuses float8",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what an old torch lacks."""
    if hasattr(torch, "uint16"):
        return
    for item in items:
        if reason := OLD_TORCH.get(item.name):
            item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} {reason}"))


@pytest.fixture(scope="session")
def ptview() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line."""
    binary = os.environ.get("PTVIEW", str(ROOT / "target/release/ptview"))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def ls(ptview) -> Callable[[Path], list[dict]]:
    """Lists a file that must be readable: one row a tensor, hashes included."""

    def run(path: Path) -> list[dict]:
        done = ptview("ls", "--format", "jsonl", "--hash", path)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    """A folder of files made by our own writer."""
    folder = tmp_path_factory.mktemp("samples")
    binary = os.environ.get("WRITE_SAMPLES", str(ROOT / "target/release/examples/write_samples"))
    subprocess.run([binary, folder], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def nested(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder of samples of everything that can be batched, and its files."""
    folder = tmp_path_factory.mktemp("nested")
    return folder, folders.write(folder, 23, folders.nested)


@pytest.fixture(scope="module")
def simple(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder of samples of a tensor and a label, and its files."""
    folder = tmp_path_factory.mktemp("simple")
    return folder, folders.write(folder, 30, folders.simple)
