"""The native runner for tests, with the library that the Python package holds; a phone that is a stand-in."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

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


HOME = "data/local/tmp"


@dataclass(frozen=True)
class Phone:
    """The stand-in: where its files lie, and the spec that names it."""

    root: Path
    native: Native

    @property
    def settings(self) -> str:
        return f"runner={quote(str(self.native.runner))}&library={quote(str(self.native.library))}"

    @property
    def spec(self) -> str:
        return f"adb://?{self.settings}"

    def log(self) -> list[list[str]]:
        """What adb was called with."""
        return [json.loads(line) for line in (self.root / "log").read_text().splitlines()]

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.root / HOME).rglob("*") if path.is_file())


def put_on_path(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``adb`` be the stand-in."""
    program = folder / "adb"
    words = shlex.join([sys.executable, "-IS", str(Path(__file__).with_name("adb_stand_in.py"))])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("STAND_IN_ROOT", str(root))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
