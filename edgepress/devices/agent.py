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
    race      models {name: path}, reference, feeds, seconds, min_rounds, overtime?, max_temp_c?
              -> rounds, openings [rounds], canary {before_ms, after_ms}, twin, and
              models {name: {load_ms, first_ms, visits [[ms]]}}; the twin is like a model
    best      groups [[{model, feeds}]], visit_ms, rounds, seconds (of each group)
              -> best_ms [[ms]]; the models of a group take turns
    memory    model, feeds -> load_ms, first_ms, start_kb, peak_kb (of a fresh process, or they mean nothing)
    outputs   model, feeds, to -> outputs [name]; ``to`` is an .npz with arrays ``"<number>/<position of the output>"``
    operators models {name: path} -> operators {name: {operator: how many}}, of the graph that onnxruntime really runs
    profile   models {name: path}, feeds, warmup, runs, seconds -> profiles {name: {run_us, nodes [[name, op, us]]}}
    count     models {name: path}, feeds (or {name: feeds}), warmup, runs
              -> names; each of the runs of each model lies between two marks for an emulator

An error is one line on stderr, with exit code 3 (the model), 4 (this Python lacks something) or 5 (the job).
"""

from __future__ import annotations

import bisect
import contextlib
import gc
import glob
import json
import math
import os
import platform
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

FORMAT = "edgepress-agent/1"

VISIT_MS = 5.0
MIN_RUNS, MAX_RUNS = 3, 500
SLOW_MS = 100.0
"""A run this long averages over disturbances by itself: one run per visit, or big models would take minutes."""

OVERTIME = 4
FEWEST_ROUNDS = 5
"""``min_rounds`` may stretch the time so many fold; after that only ``FEWEST_ROUNDS`` are insisted on."""

FEWEST_OPENINGS = 6
"""Fewer do not say how much a time depends on where the memory of a session lies."""

ALIKE = 0.8
"""Models whose times differ by less than this factor run equally often in a visit: the best of more runs is lower."""

JITTER = 1 << 18
"""Bytes that may lie between the memory of two sessions."""

CANARY_VISITS = 15
MOST_RUNS = 50
FEWEST_GROUP_ROUNDS = 2
COOLING_S, COOLING_LIMIT_S = 2.0, 300.0
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


def opened(source: Any, threads: int, **settings: Any) -> Any:
    """A CPU session at the level that is shipped for, of a path or of bytes; ``settings`` are further session options.

    Threads do not spin: one model's would wait for work, as spinning does, in the time of the next. With one thread it
    makes no difference.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in settings.items():
        setattr(options, name, value)
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
    """A model in a race: its session, which is opened again and again, and what was timed so far."""

    def __init__(self, source: Any, threads: int = 1) -> None:
        """Take a model, as a path or as bytes; nothing is opened yet."""
        self.source, self.threads = source, threads
        self.load_ms: List[float] = []
        self.first_ms: List[float] = []
        self.visits: List[List[float]] = []
        self.run_ms, self.runs = math.inf, 0

    def open(self, feed: Mapping[str, Any]) -> None:
        """Open a session, time that and its first run; of the first session also how long a run takes, about."""
        start = time.perf_counter_ns()
        session = opened(self.source, self.threads)
        loaded = time.perf_counter_ns()
        ran(session, feed)
        first = time.perf_counter_ns()
        names = [output.name for output in session.get_outputs()]
        self.run: Run = lambda values: session.run(names, values)
        self.load_ms.append((loaded - start) / 1e6)
        self.first_ms.append((first - loaded) / 1e6)
        if self.run_ms == math.inf:
            self.run_ms = min(visit(self.run, feed, MIN_RUNS))

    def close(self) -> None:
        """Let go of the session."""
        del self.run


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
    overtime: float = OVERTIME,
) -> List[int]:
    """Have racers run in turns; the first is the one that others are compared with.

    Every opening opens all sessions anew, in an order of its own and with memory of random size between them: how fast
    a session is depends on where its memory lies, and only other places tell how much. Rounds follow until they took as
    long as the opening, or the time is up; every round visits all racers, in an order of its own. Their visits are
    lists of single runs (ms), one per round.

    Returns:
        The number of rounds of every opening.
    """
    import numpy

    random = numpy.random.default_rng(seed)
    openings: List[int] = []
    begin, cooled = time.perf_counter(), 0.0

    def wanted(done: int) -> bool:
        """Whether there are still rounds to take, when so many were."""
        return _more_rounds(time.perf_counter() - begin - cooled, done, seconds, min_rounds, overtime)

    while wanted(sum(openings)) or len(openings) < _fewest(time.perf_counter() - begin - cooled, seconds, overtime):
        cooled += cool_down(max_temp_c)
        start = time.perf_counter()
        between = [_opened_at_random(racers[place], feeds[0], random) for place in random.permutation(len(racers))]
        if not openings:
            _same_effort(racers)
        ready, done = time.perf_counter(), 0
        while not done or (time.perf_counter() - ready < ready - start and wanted(sum(openings) + done)):
            feed = feeds[(sum(openings) + done) % len(feeds)]
            for place in random.permutation(len(racers)):
                racers[place].visits.append(visit(racers[place].run, feed, racers[place].runs))
            done += 1
        for racer in racers:
            racer.close()
        del between
        openings.append(done)
    return openings


def _opened_at_random(racer: Racer, feed: Mapping[str, Any], random: Any) -> Any:
    """Open a racer; the memory that lies before its own, to be kept as long."""
    import numpy

    before = numpy.ones(int(random.integers(1, JITTER)), numpy.uint8)
    racer.open(feed)
    return before


def _same_effort(racers: Sequence[Racer]) -> None:
    """Say how many runs a visit has: as many for all that are about as fast as the first."""
    first = racers[0].run_ms
    for racer in racers:
        alike = ALIKE <= racer.run_ms / first <= 1 / ALIKE
        racer.runs = runs_per_visit(first if alike else racer.run_ms)


def _more_rounds(elapsed: float, done: int, seconds: float, min_rounds: int, overtime: float) -> bool:
    late = elapsed >= overtime * max(seconds, 1.0)
    return elapsed < seconds or done < (min(min_rounds, FEWEST_ROUNDS) if late else min_rounds)


def _fewest(elapsed: float, seconds: float, overtime: float) -> int:
    """Openings that are insisted on."""
    return 1 if elapsed >= overtime * max(seconds, 1.0) else FEWEST_OPENINGS


def cool_down(max_temp_c: Optional[float]) -> float:
    """Wait while the device is hotter than this; how many seconds that took."""
    waited = 0.0
    while max_temp_c is not None:
        found = health()["temperature_c"]
        if found is None:
            raise Failure(BAD_JOB, "This machine does not say how hot it is: leave the highest temperature out.")
        if found <= max_temp_c:
            break
        if waited >= COOLING_LIMIT_S:
            raise Failure(BAD_JOB, f"It stays at {found:g} °C: cool it, or allow more than {max_temp_c:g} °C.")
        time.sleep(COOLING_S)
        waited += COOLING_S
    return waited


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
    try:
        # Opened here: numpy leaves a file open that turns out to be none of its own.
        with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                number, name = key.split("/", 1)
                found.setdefault(int(number), {})[name] = archive[key]
    except MemoryError:
        raise
    except Exception as error:  # numpy has no one kind for a file that is no .npz
        raise Failure(BAD_JOB, f"The samples in {path} cannot be read ({first_line(error)}): run it again.") from error
    if not found:
        raise Failure(BAD_JOB, f"There are no samples in {path}: give one or more.")
    return [found[number] for number in sorted(found)]


def race(job: Mapping[str, Any]) -> Report:
    """Time models against each other and against a twin of the reference."""
    feeds, threads, models = samples(job["feeds"]), job.get("threads", 1), job["models"]
    return compared(
        models, job["reference"], feeds, threads, job["seconds"], job["min_rounds"], job.get("seed", 0),
        job.get("max_temp_c"), job.get("overtime", OVERTIME),
    )  # fmt: skip


def compared(
    models: Mapping[str, Any],
    reference: str,
    feeds: Sequence[Mapping[str, Any]],
    threads: int,
    seconds: float,
    min_rounds: int,
    seed: int,
    max_temp_c: Optional[float] = None,
    overtime: float = OVERTIME,
) -> Report:
    """What ``race`` reports, of models that are paths or bytes."""
    before = canary()
    Racer(models[reference], threads).open(feeds[0])  # pays for starting onnxruntime
    racers = {name: Racer(source, threads) for name, source in models.items()}
    twin, others = Racer(models[reference], threads), [racers[name] for name in models if name != reference]
    order = [racers[reference], *others, twin]
    with no_garbage_collection():
        openings = take_turns(order, feeds, seconds, min_rounds, seed, max_temp_c, overtime)
    return {
        "rounds": sum(openings),
        "openings": openings,
        "canary": {"before_ms": before, "after_ms": canary()},
        "models": {name: _row(racer) for name, racer in racers.items()},
        "twin": _row(twin),
    }


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection inside a visit would be charged to whichever model is running."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _row(racer: Racer) -> Report:
    return {"load_ms": middle(racer.load_ms), "first_ms": middle(racer.first_ms), "visits": racer.visits}


def middle(values: Sequence[float]) -> float:
    """The median, the lower one of two."""
    return sorted(values)[(len(values) - 1) // 2]


def best(job: Mapping[str, Any]) -> Report:
    """The best time of many small models; those of a group take turns."""
    found = []
    for group in job["groups"]:
        runs = []
        for item in group:
            session, feed = opened(item["model"], job.get("threads", 1)), samples(item["feeds"])[0]
            ran(session, feed)  # what cannot run says so here
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
    racer = Racer(job["model"], job.get("threads", 1))
    racer.open(feed)
    return {"load_ms": racer.load_ms[0], "first_ms": racer.first_ms[0], "start_kb": start, "peak_kb": peak_kb()}


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


def operators(job: Mapping[str, Any]) -> Report:
    """Count the operators of every model after onnxruntime's own fusions on this machine."""
    found = {}
    for name, path in job["models"].items():
        with _scratch("optimized.onnx") as place:
            opened(path, job.get("threads", 1), optimized_model_filepath=place)
            with open(place, "rb") as file:
                found[name] = operators_of(file.read())
    return {"operators": found}


def operators_of(model: bytes) -> Dict[str, int]:
    """How many nodes a serialized ModelProto has of each operator; the package onnx may be missing here.

    By the numbers of onnx.proto: ``graph`` is field 7 of a model, ``node`` field 1 of a graph, ``op_type`` field 4 of a
    node.
    """
    found: Dict[str, int] = {}
    for graph in _parts(memoryview(model), 7):
        for node in _parts(graph, 1):
            for name in _parts(node, 4):
                text = bytes(name).decode()
                found[text] = found.get(text, 0) + 1
    return dict(sorted(found.items()))


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The length-delimited fields of that number (protobuf.dev, Encoding): the others are passed over."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            place = _varint(message, place)[1]
            continue
        size, place = _varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        if number == wanted and kind == 2:
            yield message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> Tuple[int, int]:
    """A number in base 128, least digit first, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def profile(job: Mapping[str, Any]) -> Report:
    """Where the time goes inside every model, by onnxruntime's own profiler."""
    feed = samples(job["feeds"])[0]
    limits = job["warmup"], job["runs"], job["seconds"]
    return {
        "profiles": {name: _profile(path, feed, job.get("threads", 1), *limits) for name, path in job["models"].items()}
    }


def _profile(source: Any, feed: Mapping[str, Any], threads: int, warmup: int, runs: int, seconds: float) -> Report:
    with _scratch("profile") as place:
        session = opened(source, threads, enable_profiling=True, profile_file_prefix=place)
        begin, done = time.perf_counter(), 0
        while done <= warmup or (done < warmup + runs and time.perf_counter() - begin < seconds):
            ran(session, feed)
            done += 1
        with open(session.end_profiling()) as file:
            return profiled(json.load(file), done - warmup)


def profiled(events: Sequence[Mapping[str, Any]], runs: int) -> Report:
    """A profile from the events of onnxruntime's profiler: of every node the median over the last ``runs`` runs, in µs.

    A node inside a loop counts as often as it ran. Nodes are in the order in which they first ran.
    """
    spans = [(event["ts"], event["dur"]) for event in events if event.get("name") == "model_run"]
    spans = sorted(spans)[-runs:]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes: Dict[Tuple[str, str], List[float]] = {}
    for event in sorted(kernels, key=lambda event: event["ts"]):
        run = bisect.bisect_right(spans, (event["ts"], math.inf)) - 1
        if run >= 0:
            key = event["name"][: -len("_kernel_time")], event["args"]["op_name"]
            nodes.setdefault(key, [0.0] * len(spans))[run] += event["dur"]
    return {
        "run_us": middle([took for _, took in spans]),
        "nodes": [[name, operator, middle(times)] for (name, operator), times in nodes.items()],
    }


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[str]:
    """A path for a file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        yield os.path.join(folder, name)


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
        for _ in range(job.get("runs", 1)):
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
    "operators": operators,
    "profile": profile,
    "count": count,
}


def perform(job: Mapping[str, Any]) -> Report:
    """Do a job; the report."""
    if job.get("task") not in TASKS:
        raise Failure(BAD_JOB, "There is no task {!r}: this agent is of another version.".format(job.get("task")))
    if job.get("cpus"):
        stay_on(job["cpus"])
    try:
        about, before = machine(), health()
    except ImportError as error:  # one without a name is of a library that a module needs
        raise Failure(
            LACKS, f"This Python ({sys.executable}) cannot import {error.name or first_line(error)}."
        ) from error
    done = TASKS[job["task"]](job)
    return dict(done, format=FORMAT, machine=about, before=before, after=health())


def stay_on(wanted: Sequence[int]) -> None:
    """Keep this process on these processors, all of them: the system is content if one of them is there."""
    if not hasattr(os, "sched_setaffinity"):
        raise Failure(BAD_JOB, "This system keeps no program on processors: leave cpus out.")
    there = cpus()
    with contextlib.suppress(OSError, ValueError, OverflowError):
        os.sched_setaffinity(0, wanted)
        if set(cpus()) == set(wanted):
            return
    asked, others = (", ".join(map(str, found)) for found in (wanted, there))
    raise Failure(BAD_JOB, f"This device keeps no program on the processors {asked}: choose among {others}.")


def read_job() -> Mapping[str, Any]:
    """The job on standard input."""
    try:
        job = json.load(sys.stdin)
    except ValueError:
        job = None
    if not isinstance(job, dict):
        raise Failure(BAD_JOB, "This is no job: hand over a JSON object on standard input.")
    return job


def main() -> int:
    """Read a job, print its report."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        report = perform(read_job())
    except Failure as error:
        print(error, file=sys.stderr)
        return error.code
    json.dump(report, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
