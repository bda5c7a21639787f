"""Importing the package and asking for help stay quick: nothing heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgepress

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "onnxruntime", "onnx")
IMPORT = "import edgepress"
HELP = """
import runpy
sys.argv = ["edgepress", "--help"]
try:
    runpy.run_module("edgepress", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_by(code: str) -> list[str]:
    """Which HEAVY modules a fresh interpreter holds after running `code`."""
    probe = f"import json, sys\n{code}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_by(code) == []


@pytest.mark.parametrize("code", [IMPORT + "\nimport onnx", IMPORT + "\nedgepress.Model"], ids=["direct", "lazy"])
def test_the_probe_sees_a_heavy_import(code: str) -> None:
    assert loaded_by(code) == ["onnx"]


def test_help_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "edgepress", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compress" in done.stdout


@pytest.mark.parametrize("name", edgepress.__all__)
def test_public_names_resolve(name: str) -> None:
    assert callable(getattr(edgepress, name))
    assert name in dir(edgepress)


def test_public_names_survive_imports_of_subpackages() -> None:
    check = f"assert all(callable(getattr(edgepress, name)) for name in {edgepress.__all__})"
    code = f"import edgepress, edgepress.bench, edgepress.cli\n{check}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_all_is_sorted_and_complete() -> None:
    assert edgepress.__all__ == sorted(edgepress.__all__)
    assert set(edgepress.__all__) == set(edgepress._HOMES)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        _ = edgepress.compres
