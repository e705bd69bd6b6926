"""The package as such: how it is built, and what it says where it cannot be used."""

import subprocess
import sys
import tomllib

import ptview
import pytest

from conftest import ROOT


def test_the_package_has_the_version_of_the_crates() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert ptview.__version__ == manifest["workspace"]["package"]["version"]


def test_the_root_builds_the_same_package() -> None:
    def project(folder: str) -> dict:
        return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())

    root, crate = project("."), project("crates/pt-python")
    assert root["project"] == crate["project"]
    assert root["build-system"] == crate["build-system"]
    assert root["tool"]["maturin"]["python-source"].endswith(crate["tool"]["maturin"]["python-source"])


def test_errors_of_the_system_stay_themselves(tmp_path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ptview.open(tmp_path / "none.pt")
    assert caught.value.filename == str(tmp_path / "none.pt")


def test_what_is_no_checkpoint_is_a_value_error(tmp_path) -> None:
    path = tmp_path / "page.pt"
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(ptview.FormatError, match=r"page\.pt.*web page"):
        ptview.open(path)
    assert issubclass(ptview.FormatError, ptview.Error)
    assert issubclass(ptview.Error, ValueError)


@pytest.mark.skipif(sys.version_info[:2] > (3, 12), reason="the module has another name there")
def test_a_second_interpreter_is_told_no() -> None:
    inner = "try:\n    import ptview\nexcept ImportError as error:\n    print(error)\n"
    code = f"import _xxsubinterpreters as s\nimport ptview\ns.run_string(s.create(), {inner!r})\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    # That of ours, or of numpy 1.
    assert "more than once per process" in done.stdout or "one interpreter per process" in done.stdout
