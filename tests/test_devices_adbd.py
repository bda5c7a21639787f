"""Android devices by a real adb and the daemon that phones have, built for Linux; the device is this machine.

Skipped unless tools/adbd.py has set both up, and this user may make a network namespace: the daemon lets everybody in.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepress.devices import Native

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def seen(native: Native, digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``adbd_driver.py`` saw."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.append(str(ROOT / "tools"))
    tool = importlib.import_module("adbd")
    if not tool.ready(tool.DEFAULT):
        pytest.skip("no adbd: python tools/adbd.py sets it up")
    alone = [shutil.which("unshare") or "unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    scratch = tmp_path_factory.mktemp("adbd")
    words = [ROOT / "tests" / "adbd_driver.py", tool.DEFAULT, scratch, native.runner, native.library, digits_model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*alone, sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{(scratch / 'log').read_text(errors='replace')}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_words_and_files_reach_a_program(seen: dict[str, Any]) -> None:
    assert seen["words"] == [7, True, "line\nline\n"]
    assert seen["signal"] == -11


def test_a_job_is_done(seen: dict[str, Any]) -> None:
    assert seen["outputs"] == [["logits"], True]
    assert seen["left"] == []


def test_what_is_wrong_is_said(seen: dict[str, Any]) -> None:
    assert "no answer within 1 s" in seen["late"]
    assert "none cannot be fetched from it" in seen["missing"]
    assert "no Android device nobody is attached: choose " in seen["other"]
    assert "it has gone" in seen["gone"]
