"""A job in the native runner's words, and its report in those of the agent.

The runner reads ``key value`` lines and numbers the models; the constants of a measurement are sent along, so that
:mod:`edgepress.devices.agent` is the one place that has them. Files that the runner leaves (outputs, optimized graphs,
profiles) are read here, by the agent's own functions where it has some.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgepress.devices import agent
from edgepress.devices.runner import tensors
from edgepress.errors import DeviceError

FORMAT = "edgerun/1"
OPTIMIZED, PROFILE, RAW = "optimized-", "profile-", ".raw"

Job = Mapping[str, Any]
Fetch = Callable[[str], bytes]

_CONSTANTS = {
    "visit_ms": agent.VISIT_MS,
    "min_runs": agent.MIN_RUNS,
    "max_runs": agent.MAX_RUNS,
    "slow_ms": agent.SLOW_MS,
    "overtime": agent.OVERTIME,
    "fewest_rounds": agent.FEWEST_ROUNDS,
    "fewest_openings": agent.FEWEST_OPENINGS,
    "alike": agent.ALIKE,
    "jitter": agent.JITTER,
    "canary_visits": agent.CANARY_VISITS,
    "most_runs": agent.MOST_RUNS,
    "fewest_group_rounds": agent.FEWEST_GROUP_ROUNDS,
    "cooling_s": agent.COOLING_S,
    "cooling_limit_s": agent.COOLING_LIMIT_S,
    "mark": agent.MARK,
    "warmup": 2,
    "runs": 1,
}
_SETTINGS = (
    "threads",
    "seed",
    "seconds",
    "min_rounds",
    "overtime",
    "max_temp_c",
    "visit_ms",
    "rounds",
    "warmup",
    "runs",
)


def said(job: Job, library: str) -> bytes:
    """A job of the agent as the runner reads it.

    Raises:
        DeviceError: the runner does not know the task.
    """
    task = job.get("task")
    if task not in agent.TASKS:
        raise DeviceError(f"There is no task {task!r} for a device.")
    settings = {**_CONSTANTS, **{key: job[key] for key in _SETTINGS if job.get(key) is not None}}
    lines = [f"library ./{library}", f"task {task}", *(f"{key} {value}" for key, value in settings.items())]
    if job.get("cpus"):
        lines.append(f"cpus {','.join(map(str, job['cpus']))}")
    if "reference" in job:
        lines.append(f"reference {list(job['models']).index(job['reference'])}")
    made = {"outputs": f"{job.get('to')}{RAW}", "operators": OPTIMIZED, "profile": PROFILE}
    if task in made:
        lines.append(f"to {made[task]}")
    return "\n".join([*lines, *_models(job), ""]).encode()


def _models(job: Job) -> Iterator[str]:
    if "groups" in job:
        for group in job["groups"]:
            for item in group:
                yield f"feeds {item['feeds']}"
                yield f"model {item['model']}"
            yield "group"
        return
    models = job.get("models") or ({"": job["model"]} if "model" in job else {})
    for name, path in models.items():
        feeds = job.get("feeds")
        if feeds is not None:
            yield f"feeds {feeds[name] if isinstance(feeds, Mapping) else feeds}"
        yield f"model {path}"


def understood(job: Job, stdout: bytes, fetch: Fetch) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The runner's report as the agent would have written it, and the files it would have left.

    Args:
        job: what was asked for.
        stdout: what the runner wrote.
        fetch: a file of the device's folder.

    Raises:
        DeviceError: it is no report.
    """
    try:
        report = json.loads(stdout.decode(errors="replace"))
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise DeviceError("edgerun sent no report: build the one of this version of edgepress.")
    machine = {**report["machine"], "flags": sorted(report["machine"]["flags"]), "python": "", "numpy": ""}
    report |= {"format": agent.FORMAT, "machine": machine}
    made: dict[str, bytes] = {}
    names = list(job.get("models") or ())
    if job["task"] == "race":
        report["models"] = dict(zip(names, report["models"], strict=True))
    elif job["task"] == "count":
        report["names"] = names
    elif job["task"] == "operators":
        graphs = [fetch(f"{OPTIMIZED}{number}") for number in range(len(names))]
        report["operators"] = dict(zip(names, map(agent.operators_of, graphs), strict=True))
    elif job["task"] == "profile":
        found = [_profiled(fetch(f"{PROFILE}{number}"), runs) for number, runs in enumerate(report.pop("runs"))]
        report["profiles"] = dict(zip(names, found, strict=True))
    elif job["task"] == "outputs":
        made[job["to"]] = _npz(fetch(f"{job['to']}{RAW}"))
    return report, made


def _profiled(content: bytes, runs: int) -> Any:
    try:
        return agent.profiled(json.loads(content), runs)
    except ValueError:
        raise DeviceError("The profile that the device sent is not whole: is its disk full?") from None


def _npz(content: bytes) -> bytes:
    """A file of tensors as the agent writes outputs."""
    arrays: dict[str, Any] = {
        f"{number}/{key}": value
        for number, sample in enumerate(tensors.unpack(content))
        for key, value in sample.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
