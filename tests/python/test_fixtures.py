"""The committed fixtures are still what torch makes and says of them."""

import json
import subprocess
import sys

import pytest
import torch

from conftest import ROOT

TESTDATA = ROOT / "testdata"


def test_the_generator_would_write_the_same_expectations():
    expected = json.loads((TESTDATA / "expected.json").read_text())
    written_by, python = expected["torch"], expected["python"]
    # Other versions pickle objects of the standard library in other ways.
    if sys.version_info[:2] != tuple(map(int, python.split(".")[:2])):
        pytest.skip(f"written by Python {python}, this is {sys.version.split()[0]}")
    if torch.__version__ != written_by:
        pytest.skip(f"written by torch {written_by}, this is {torch.__version__}")
    done = subprocess.run(
        [sys.executable, "-m", "generate", "--check"], cwd=TESTDATA, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
