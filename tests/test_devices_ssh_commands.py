"""Commands on a device by ssh, against a real OpenSSH server on the loopback: bench, verify, compress."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sshd_tools import Loopback, loopback, there

from edgepress.cli import main
from edgepress.model import Model

__all__ = ["loopback", "there"]


@pytest.fixture
def spec(loopback: Loopback, there: Path) -> str:
    """The device, which must be as it was in the end."""
    return loopback.spec(folder=str(there), python=sys.executable)


def printed(*words: object) -> dict[str, object]:
    """What a command prints as JSON."""
    done = CliRunner().invoke(main, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_bench_takes_times_there(spec: str, digits_model: Path) -> None:
    words = ["bench", digits_model, digits_model, "--device", spec, "--rounds", 6, "--seconds", 0.1, "--profile"]
    found = printed(*words)
    timing, models = found["timing"], found["models"]
    assert isinstance(timing, dict) and isinstance(models, list)
    assert timing["level"] == "measured" and found["device"] == spec
    assert len(timing["latencies"]) == 2 and all(row["p50"] > 0 for row in timing["latencies"])
    assert all(model["operators"] and model["memory"]["peak_kb"] > 0 for model in models)


def test_verify_runs_the_vectors_there(spec: str, digits_model: Path, digits_part: Path, tmp_path: Path) -> None:
    printed("bundle", digits_model, "-o", tmp_path / "bundle", "--data", digits_part, "--samples", 4)
    found = printed("verify", tmp_path / "bundle", "--device", spec)
    compared = found["compared"]
    assert isinstance(compared, list)
    assert found["device"] == spec and [item["agrees"] for item in compared] == [True]


@pytest.mark.usefixtures("quick")
def test_compress_follows_the_costs_there_and_knows_them_afterwards(
    spec: str, digits_model: Path, digits_part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    words = ["compress", digits_model, "--data", digits_part, "-o", tmp_path / "small.onnx", "--device", spec]
    words += ["--no-quantize", "--threads", 1, "--max-drop", 3, "--quiet"]
    found = printed(*words)
    assert found["device"] == spec and found["level"] == "measured"
    variants = found["variants"]
    assert isinstance(variants, list)
    pruned = [item["pruning"] for item in variants if item["pruning"] is not None]
    assert pruned and all(item["latency_by"] == "measured" for item in pruned)
    assert Model.load(tmp_path / "small.onnx").size == (tmp_path / "small.onnx").stat().st_size
    assert list((tmp_path / "cache").glob("costs-*.json"))
