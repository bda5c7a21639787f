"""Timing: models against each other, in interleaved rounds.

Every round visits every session once, in a freshly shuffled (seeded) order. A visit is one unrecorded warm
run, then k runs that together last about 5 ms; the best of the k stands for the visit (the least disturbed
run), and every single run is kept for the quantiles. Opening and the first run are timed apart. Feeds rotate
by round: inside a round every model gets the same one. One more session of the reference, the A/A twin, goes
through the same rounds and gives the noise floor (see ``statistics``).

Only ORT_ENABLE_ALL is timed (``runtime.session``). Given the same times, the result is the same; only the
clock is not reproducible.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter, perf_counter_ns

import numpy as np

from edgepress import runtime
from edgepress.bench import statistics
from edgepress.bench.machine import Machine, describe
from edgepress.bench.statistics import Latency, Ratio
from edgepress.errors import InputError

VISIT_MS = 5.0
MIN_RUNS, MAX_RUNS = 3, 500
SLOW_MS = 100.0
"""A run this long averages over disturbances by itself: one run per visit, or big models would take minutes."""

OVERTIME = 4
FEWEST_ROUNDS = 5
"""``min_rounds`` may stretch the time ``OVERTIME``-fold; after that only ``FEWEST_ROUNDS`` are insisted on."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of several models, taken together.

    Attributes:
        reference: name of the model the ratios refer to.
        threads: intra-op threads of every session.
        rounds: rounds taken.
        latencies: one per model, in the order given.
        ratios: one per model other than the reference, in the order given.
        noise_floor: |log ratio| that two sessions of the SAME model reached; nothing inside it is a difference.
        machine: where.
    """

    reference: str
    threads: int
    rounds: int
    latencies: tuple[Latency, ...]
    ratios: tuple[Ratio, ...]
    noise_floor: float
    machine: Machine

    def latency(self, name: str) -> Latency:
        """The latency of one model (KeyError if it was not timed)."""
        return {item.name: item for item in self.latencies}[name]

    def ratio(self, name: str) -> Ratio | None:
        """The ratio of one model; None for the reference."""
        return {item.name: item for item in self.ratios}.get(name)


@dataclass(frozen=True, slots=True)
class _Racer:
    """One opened session."""

    name: str
    run: Callable[[Feed], object]
    load_ms: float
    first_ms: float
    runs: int  # recorded runs per visit


def compare(
    models: Mapping[str, bytes],
    feeds: Sequence[Feed],
    *,
    threads: int = 1,
    seconds: float = 6.0,
    min_rounds: int = 20,
    seed: int = 0,
    reference: str,
) -> Timing:
    """Time models against the reference.

    Args:
        models: serialized models by name; all take the same inputs.
        feeds: model inputs by name; used in turn, one per round.
        threads: intra-op threads.
        seconds: how long the rounds go on, opening and the first runs not counted.
        min_rounds: rounds to take even if that needs longer; given up after four times ``seconds``.
        seed: seed of the order of visits and of the bootstrap.
        reference: the name in ``models`` that the ratios refer to.

    Raises:
        InputError: no feed, an unknown reference or settings out of range.
        ModelError: onnxruntime cannot load or run one of the models.
    """
    _check(models, feeds, reference, threads, seconds, min_rounds)
    machine = describe()
    twin = _open(reference, models[reference], feeds[0], threads)  # first: pays for starting onnxruntime
    racers = [_open(name, data, feeds[0], threads) for name, data in models.items()]
    racers.append(_same_effort(twin, racers))
    with _no_garbage_collection():
        runs = _rounds(racers, feeds, seconds, min_rounds, np.random.default_rng(seed))
    return _summarize(racers, runs, reference, threads, seed, machine)


def _check(
    models: Mapping[str, bytes], feeds: Sequence[Feed], reference: str, threads: int, seconds: float, min_rounds: int
) -> None:
    if not feeds:
        raise InputError("There is nothing to run the models on: give at least one sample.")
    if reference not in models:
        raise InputError(f"There is no model {reference!r} to compare with: choose one of {', '.join(models)}.")
    if threads < 1 or min_rounds < 1 or not 0 <= seconds < math.inf:
        raise InputError("Timing needs at least 1 thread, 1 round and a time of 0 seconds or more.")


def _open(name: str, data: bytes, feed: Feed, threads: int) -> _Racer:
    start = perf_counter_ns()
    opened = runtime.session(data, threads=threads)
    loaded = perf_counter_ns()
    runtime.run(opened, feed)
    first = perf_counter_ns()
    outputs = [output.name for output in opened.get_outputs()]

    def run(values: Feed) -> object:
        return opened.run(outputs, values)

    fastest = float(_visit(run, feed, MIN_RUNS).min())
    return _Racer(name, run, (loaded - start) / 1e6, (first - loaded) / 1e6, _runs_per_visit(fastest))


def _runs_per_visit(run_ms: float) -> int:
    if run_ms >= SLOW_MS:
        return 1
    return min(max(math.ceil(VISIT_MS / max(run_ms, 1e-6)), MIN_RUNS), MAX_RUNS)


def _same_effort(twin: _Racer, racers: Sequence[_Racer]) -> _Racer:
    """The twin visits exactly as long as the reference, or best-of-k would tell the two apart."""
    runs = next(racer.runs for racer in racers if racer.name == twin.name)
    return replace(twin, runs=runs)


def _visit(run: Callable[[Feed], object], feed: Feed, runs: int) -> np.ndarray:
    """One warm run, then ``runs`` timed ones: ms, float64 [runs]."""
    stamps = np.empty(runs + 1, np.int64)
    run(feed)
    for position in range(runs):
        stamps[position] = perf_counter_ns()
        run(feed)
    stamps[runs] = perf_counter_ns()
    return np.diff(stamps) / 1e6


def _rounds(
    racers: Sequence[_Racer], feeds: Sequence[Feed], seconds: float, min_rounds: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Visits per racer, one array of single runs (ms) per round."""
    visits: list[list[np.ndarray]] = [[] for _ in racers]
    begin, done = perf_counter(), 0
    while _goes_on(perf_counter() - begin, done, seconds, min_rounds):
        feed = feeds[done % len(feeds)]
        for position in rng.permutation(len(racers)):
            racer = racers[position]
            visits[position].append(_visit(racer.run, feed, racer.runs))
        done += 1
    return visits


def _goes_on(elapsed: float, done: int, seconds: float, min_rounds: int) -> bool:
    wanted = min_rounds if elapsed < OVERTIME * max(seconds, 1.0) else min(min_rounds, FEWEST_ROUNDS)
    return done < wanted or elapsed < seconds


def _summarize(
    racers: Sequence[_Racer],
    visits: Sequence[Sequence[np.ndarray]],
    reference: str,
    threads: int,
    seed: int,
    machine: Machine,
) -> Timing:
    rounds = len(visits[0])
    best = [np.array([visit.min() for visit in taken]) for taken in visits]
    base = next(times for racer, times in zip(racers, best, strict=True) if racer.name == reference)
    floor = statistics.noise_floor(best[-1], base, seed=seed)
    timed = list(zip(racers, visits, best, strict=True))[:-1]
    latencies = tuple(
        statistics.latency(
            racer.name, np.concatenate(taken), load_ms=racer.load_ms, first_ms=racer.first_ms, rounds=rounds
        )
        for racer, taken, _ in timed
    )
    ratios = tuple(
        statistics.paired_ratio(racer.name, times, reference, base, floor=floor, seed=seed)
        for racer, _, times in timed
        if racer.name != reference
    )
    return Timing(reference, threads, rounds, latencies, ratios, floor, machine)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection inside a visit would be charged to whichever model is running."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
