"""The commands of a row: run in a process of their own, on one thread, with the CPU seconds that they took."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepress.request import report_path
from paper_sections.place import Place

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """A command that was run.

    Attributes:
        report: what it reported.
        cpu: its CPU seconds.
        line: its command line, paths without their folders.
        output: the model that it wrote.
    """

    report: Row
    cpu: float
    line: str
    output: Path


def edgepress(command: str, *arguments: str | Path) -> Ran:
    """Run a command."""
    words = [command, *map(str, arguments)]
    output = Path(words[words.index("-o") + 1])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "edgepress", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    line = shlex.join(["edgepress", *(Path(word).name if "/" in word else word for word in words)])
    return Ran(json.loads(report_path(output).read_text()), spent, line, output)


def trained(place: Place, model: Path, data: str, output: str, *arguments: str | Path) -> Ran:
    """``finetune`` on the whole training set; it goes on where it was stopped, and sees no test image."""
    given = ("--data", place.samples(data, "train"), "--threads", "1", "-q", "--labels")
    return edgepress("finetune", model, *given, "-o", place.folder / output, "--resume", *arguments)


def held_out(ran: Ran) -> Row:
    """Figures of a training run that settings may be chosen by."""
    report = ran.report
    return {
        "hold_out_accuracy": report["result"]["value"], "hold_out_lost": report["result"]["lost"],
        "held_out": report["result"]["samples"],
        "parameters": report["after"]["parameters"], "nonzero": report["after"]["nonzero"],
        "file_bytes": report["after"]["file_bytes"], "coded_bytes": report["after"]["coded_bytes"],
        "improved": report["improved"], "steps": report["epochs"][-1]["steps"], "cpu": ran.cpu,
    }  # fmt: skip


def judged(place: Place, ran: Ran, data: str) -> Row:
    """The same, and accuracy on the whole test set, which is looked at here and nowhere else."""
    return {
        **held_out(ran), "accuracy": place.accuracy(ran.output.read_bytes(), data), "figures": ran.report["figures"],
        "notes": ran.report["notes"], "commands": [ran.line],
    }  # fmt: skip
