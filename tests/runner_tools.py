"""The native runner for tests: built for this machine, with the onnxruntime library that the Python package holds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort
import pytest

from edgepress.devices.base import Native
from edgepress.devices.runner import FOLDER

OPTIONS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wshadow", "-pedantic", "-Werror")


def native(folder: Path) -> Native:
    """Build it; the test is skipped without a C compiler or the library."""
    compiler, found = shutil.which("cc"), sorted((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("this onnxruntime comes without libonnxruntime.so: its Linux wheels since 1.22 have it")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the native runner with")
    return Native(compiled(compiler, FOLDER / "edgerun.c", folder / "edgerun", "-ldl"), found[0])


def compiled(compiler: str, source: Path, target: Path, *more: str) -> Path:
    """A program or library of one C file, without any warning."""
    words = [compiler, *OPTIONS, str(source), "-o", str(target), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target
