"""The agent: runs models on a device. ``python3 agent.py < job.json > report.json``.

One file that needs Python 3.8, numpy and onnxruntime, and nothing of edgepress: it is copied to the device as it is. On
this machine the same functions are called in process. A job is one JSON object, so is the report; paths are relative to
the folder the agent runs in. Every job has ``task``, and may have::

    threads   intra-op threads of every session (1)
    cpus      CPUs to stay on; without it whatever the system gives
    feeds     .npz of samples: array ``"<number>/<input>"`` is one input of one sample
    seed      of the order of visits (0)

Tasks, and what the report holds beside ``format``, ``machine`` (:func:`machine`), ``before`` and ``after``
(:func:`health`)::

    identify  nothing else
    race      models {name: path}, reference, feeds, seconds, min_rounds, max_temp_c?
              -> rounds, canary {before_ms, after_ms}, models {name: {load_ms, first_ms, visits [[ms]]}}, twin: the same
    best      groups [[{model, feeds}]], visit_ms, rounds, seconds (of each group)
              -> best_ms [[ms]]; the models of a group take turns
    memory    model, feeds -> load_ms, first_ms, start_kb, peak_kb (of a fresh process, or they mean nothing)
    outputs   model, feeds, to -> outputs [name]; ``to`` is an .npz with arrays ``"<number>/<position of the output>"``
    count     models {name: path}, feeds (or {name: feeds}), warmup
              -> names; one run of each lies between two marks for an emulator

An error is one line on stderr, with exit code 3 (the model), 4 (this Python lacks something) or 5 (the job).
"""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import platform
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

FORMAT = "edgepress-agent/1"

VISIT_MS = 5.0
MIN_RUNS, MAX_RUNS = 3, 500
SLOW_MS = 100.0
"""A run this long averages over disturbances by itself: one run per visit, or big models would take minutes."""

OVERTIME = 4
FEWEST_ROUNDS = 5
"""``min_rounds`` may stretch the time ``OVERTIME``-fold; after that only ``FEWEST_ROUNDS`` are insisted on."""

CANARY_VISITS = 15
MOST_RUNS = 50
FEWEST_GROUP_ROUNDS = 2
COOLING_S = 2.0
MARK = 100_000
"""Closing this file number, or one a little above, tells an emulator that a run begins (MARK + 99) or has ended."""

MODEL_FAILED, LACKS, BAD_JOB = 3, 4, 5

Report = Dict[str, Any]
Run = Callable[[Mapping[str, Any]], Any]


class Failure(Exception):
    """What ends a job: an exit code and a sentence."""

    def __init__(self, code: int, text: str) -> None:
        """Say what is wrong."""
        super().__init__(text)
        self.code = code


# --- the machine --------------------------------------------------------------------------------------------------


def machine() -> Report:
    """What the device is."""
    import numpy
    import onnxruntime

    rows = _cpuinfo()
    node = (_read("/proc/device-tree/model") or "").strip("\0\n ")
    return {
        "cpu": rows.get("model name") or node or platform.processor() or platform.machine(),
        "part": rows.get("CPU part", ""),
        "flags": sorted((rows.get("flags") or rows.get("Features") or "").split()),
        "cores": len(cpus()),
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def health() -> Report:
    """What may disturb a measurement, now; None where the system does not say."""
    first = f"/sys/devices/system/cpu/cpu{cpus()[0]}/cpufreq/"
    temperatures = [int(text) / 1000 for text in map(_read, glob.glob("/sys/class/thermal/thermal_zone*/temp")) if text]
    clock = _read(first + "scaling_cur_freq")
    most = _read(first + "cpuinfo_max_freq")
    now = int(clock) / 1000 if clock else float(_cpuinfo().get("cpu MHz", 0)) or None
    throttled = _read("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return {
        "governor": _read(first + "scaling_governor"),
        "frequency_mhz": now,
        "max_mhz": int(most) / 1000 if most else None,
        "temperature_c": max(temperatures) if temperatures else None,
        "throttled": None if throttled is None else int(throttled, 16) & 0xF != 0,
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpus() -> List[int]:
    """CPUs this process may use: a container often allows fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpuinfo() -> Mapping[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    block = (_read("/proc/cpuinfo") or "").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _read(path: str) -> Optional[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip() or None
    except OSError:  # not Linux, or a container that hides it
        return None


def peak_kb() -> Optional[int]:
    """Highest resident memory of this process so far, as Linux counts it."""
    status = _read("/proc/self/status") or ""
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) if found else None


# --- sessions -----------------------------------------------------------------------------------------------------


def opened(source: Any, threads: int) -> Any:
    """A CPU session at the level that is shipped for; threads do not spin, so that models leave each other alone."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common base; the device has no other way to say it
        raise Failure(
            MODEL_FAILED, f"onnxruntime {ort.__version__} cannot load this model: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def ran(session: Any, feed: Mapping[str, Any]) -> Any:
    """All outputs of a run, in order."""
    try:
        return session.run(None, dict(feed))
    except Exception as error:
        raise Failure(
            MODEL_FAILED, f"onnxruntime cannot run this model on these inputs: {first_line(error)}"
        ) from error


class Racer:
    """One opened session: how long that and its first run took, and how many runs a visit has."""

    def __init__(self, source: Any, feed: Mapping[str, Any], threads: int) -> None:
        """Open a session and run it a few times."""
        start = time.perf_counter_ns()
        session = opened(source, threads)
        loaded = time.perf_counter_ns()
        ran(session, feed)
        first = time.perf_counter_ns()
        names = [output.name for output in session.get_outputs()]
        self.run: Run = lambda values: session.run(names, values)
        self.load_ms, self.first_ms = (loaded - start) / 1e6, (first - loaded) / 1e6
        self.runs = runs_per_visit(min(visit(self.run, feed, MIN_RUNS)))


def runs_per_visit(run_ms: float) -> int:
    """Recorded runs of a visit: together about ``VISIT_MS``."""
    if run_ms >= SLOW_MS:
        return 1
    return min(max(math.ceil(VISIT_MS / max(run_ms, 1e-6)), MIN_RUNS), MAX_RUNS)


def visit(run: Run, feed: Mapping[str, Any], runs: int) -> List[float]:
    """One warm run, then ``runs`` timed ones, in ms."""
    stamps = [0] * (runs + 1)
    run(feed)
    for position in range(runs):
        stamps[position] = time.perf_counter_ns()
        run(feed)
    stamps[runs] = time.perf_counter_ns()
    return [(after - before) / 1e6 for before, after in zip(stamps, stamps[1:])]


def take_turns(
    racers: Sequence[Racer],
    feeds: Sequence[Mapping[str, Any]],
    seconds: float,
    min_rounds: int,
    seed: int,
    max_temp_c: Optional[float] = None,
) -> List[List[List[float]]]:
    """Visits per racer, a list of single runs (ms) per round; every round visits all, in an order of its own."""
    import numpy

    random = numpy.random.default_rng(seed)
    visits: List[List[List[float]]] = [[] for _ in racers]
    begin, done = time.perf_counter(), 0
    while _goes_on(time.perf_counter() - begin, done, seconds, min_rounds):
        feed = feeds[done % len(feeds)]
        cool_down(max_temp_c)
        for position in random.permutation(len(racers)):
            visits[position].append(visit(racers[position].run, feed, racers[position].runs))
        done += 1
    return visits


def _goes_on(elapsed: float, done: int, seconds: float, min_rounds: int) -> bool:
    wanted = min_rounds if elapsed < OVERTIME * max(seconds, 1.0) else min(min_rounds, FEWEST_ROUNDS)
    return done < wanted or elapsed < seconds


def cool_down(max_temp_c: Optional[float]) -> None:
    """Wait while the device is hotter than this."""
    while max_temp_c is not None and (health()["temperature_c"] or 0.0) > max_temp_c:
        time.sleep(COOLING_S)


def canary() -> List[float]:
    """Times of a fixed piece of work in ms: if they rise, the machine has changed, not the models."""
    import numpy

    values = numpy.linspace(1.0, 2.0, 1 << 16, dtype=numpy.float32)
    found = []
    for _ in range(CANARY_VISITS):
        start = time.perf_counter_ns()
        for _ in range(8):
            numpy.sqrt(values * values + values).sum()
        found.append((time.perf_counter_ns() - start) / 1e6)
    return found


# --- tasks --------------------------------------------------------------------------------------------------------


def samples(path: str) -> List[Dict[str, Any]]:
    """The samples of an .npz, in order."""
    import numpy

    found: Dict[int, Dict[str, Any]] = {}
    with numpy.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, name = key.split("/", 1)
            found.setdefault(int(number), {})[name] = archive[key]
    return [found[number] for number in sorted(found)]


def race(job: Mapping[str, Any]) -> Report:
    """Time models against each other and against a twin of the reference."""
    feeds, threads, models = samples(job["feeds"]), job.get("threads", 1), job["models"]
    before = canary()
    twin = Racer(models[job["reference"]], feeds[0], threads)  # first: pays for starting onnxruntime
    racers = [Racer(path, feeds[0], threads) for path in models.values()]
    twin.runs = racers[list(models).index(job["reference"])].runs  # or best-of-k would tell the two apart
    visits = take_turns(
        [*racers, twin], feeds, job["seconds"], job["min_rounds"], job.get("seed", 0), job.get("max_temp_c")
    )
    rows = [_row(racer, taken) for racer, taken in zip([*racers, twin], visits)]
    return {
        "rounds": len(visits[0]),
        "canary": {"before_ms": before, "after_ms": canary()},
        "models": dict(zip(models, rows)),
        "twin": rows[-1],
    }


def _row(racer: Racer, visits: Any) -> Report:
    return {"load_ms": racer.load_ms, "first_ms": racer.first_ms, "visits": visits}


def best(job: Mapping[str, Any]) -> Report:
    """The best time of many small models; those of a group take turns."""
    found = []
    for group in job["groups"]:
        runs = []
        for item in group:
            session, feed = opened(item["model"], job.get("threads", 1)), samples(item["feeds"])[0]
            runs.append(lambda session=session, feed=feed: session.run(None, feed))
        found.append(best_of(runs, job["visit_ms"], job["rounds"], job["seconds"], job.get("seed", 0)))
    return {"best_ms": found}


def best_of(runs: Sequence[Callable[[], Any]], visit_ms: float, rounds: int, seconds: float, seed: int) -> List[float]:
    """Best time of each in ms, visited in shuffled rounds; after ``seconds`` only two rounds are insisted on."""
    import numpy

    begin, random = time.perf_counter(), numpy.random.default_rng(seed)
    for run in runs:
        run()  # the first run allocates
    least = [_best_run(run, 1) for run in runs]
    counts = [int(min(max(visit_ms / max(took, 1e-6), 1), MOST_RUNS)) for took in least]
    for done in range(rounds):
        if done >= FEWEST_GROUP_ROUNDS and time.perf_counter() - begin > seconds:
            break
        for place in random.permutation(len(runs)):
            least[place] = min(least[place], _best_run(runs[place], counts[place]))
    return least


def _best_run(run: Callable[[], Any], count: int) -> float:
    stamps = [time.perf_counter_ns()]
    for _ in range(count):
        run()
        stamps.append(time.perf_counter_ns())
    return min(after - before for before, after in zip(stamps, stamps[1:])) / 1e6


def memory(job: Mapping[str, Any]) -> Report:
    """Peak memory of this process with one model; to be asked of a process that did nothing else."""
    feed, start = samples(job["feeds"])[0], peak_kb()
    racer = Racer(job["model"], feed, job.get("threads", 1))
    return {"load_ms": racer.load_ms, "first_ms": racer.first_ms, "start_kb": start, "peak_kb": peak_kb()}


def outputs(job: Mapping[str, Any]) -> Report:
    """What a model answers to every sample."""
    import numpy

    session = opened(job["model"], job.get("threads", 1))
    arrays = {}
    for number, feed in enumerate(samples(job["feeds"])):
        for position, value in enumerate(ran(session, feed)):
            arrays[f"{number}/{position}"] = value
    numpy.savez(job["to"], **arrays)
    return {"outputs": [output.name for output in session.get_outputs()]}


def count(job: Mapping[str, Any]) -> Report:
    """Run every model once between two marks; what happens there is counted by the emulator."""
    feeds, names = job["feeds"], list(job["models"])
    if not isinstance(feeds, dict):
        feeds = dict.fromkeys(names, feeds)
    for number, name in enumerate(names):
        feed, session = samples(feeds[name])[0], opened(job["models"][name], 1)
        wanted = [output.name for output in session.get_outputs()]
        for _ in range(job.get("warmup", 2)):
            ran(session, feed)
        mark(99)
        session.run(wanted, feed)
        mark(number % 99)
    return {"names": names}


def mark(number: int) -> None:
    """Close a file that is not open: nothing happens, but an emulator sees it."""
    with contextlib.suppress(OSError):
        os.close(MARK + number)


TASKS = {
    "identify": lambda job: {},
    "race": race,
    "best": best,
    "memory": memory,
    "outputs": outputs,
    "count": count,
}


def perform(job: Mapping[str, Any]) -> Report:
    """Do a job; the report."""
    if job.get("task") not in TASKS:
        raise Failure(BAD_JOB, "There is no task {!r}: this agent is of another version.".format(job.get("task")))
    if job.get("cpus"):
        os.sched_setaffinity(0, set(job["cpus"]))
    try:
        about, before = machine(), health()
    except ImportError as error:
        raise Failure(LACKS, f"This Python ({sys.executable}) cannot import {error.name}.") from error
    done = TASKS[job["task"]](job)
    return dict(done, format=FORMAT, machine=about, before=before, after=health())


def main() -> int:
    """Read a job, print its report."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        report = perform(json.load(sys.stdin))
    except Failure as error:
        print(error, file=sys.stderr)
        return error.code
    json.dump(report, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
