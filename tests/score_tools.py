"""The commands that calibrate, merge and score, run on small models in the current folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from pipeline_models import Small

from edgepress import cli

STAGES = ("read", "groups", "observe", "score")


def run(*arguments: str) -> Result:
    """The command line in this process; surprises are raised."""
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


def done(*arguments: str) -> str:
    """What a command that has to work prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, code: int = 2) -> str:
    """The one sentence of a command that must not work; it writes nothing."""
    before = files()
    result = run(*arguments)
    told = [line for line in result.stderr.splitlines() if line.split("\t")[0] not in STAGES]
    assert (result.exit_code, result.stdout, len(told)) == (code, "", 1), result.output
    assert told[0].startswith("edgepress: error: ") and "Traceback" not in result.output
    assert files() == before
    return told[0].removeprefix("edgepress: error: ")


def files() -> dict[str, bytes]:
    """Everything in the current folder."""
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def save(small: Small, samples: int, *, classes: int = 0) -> None:
    """``net.onnx`` and ``x.npz``, with labels if it has classes."""
    small.save(Path("net.onnx"))
    if classes:
        small.save_samples(Path("x.npz"), samples, label=np.arange(samples) % classes)
    else:
        small.save_samples(Path("x.npz"), samples)


def calibrate(score: str, output: str, *more: str) -> str:
    """Save statistics."""
    return done("calibrate", "net.onnx", "--data", "x.npz", "--score", score, "-o", output, "-q", *more)


def shards(score: str, count: int, *more: str) -> list[str]:
    """Save statistics in shards; returns their files."""
    names = [f"{count}-{number}.npz" for number in range(1, count + 1)]
    for number, name in enumerate(names, start=1):
        calibrate(score, name, "--shard", f"{number}/{count}", *more)
    return names
