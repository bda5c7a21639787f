"""Benchmark: ONNX files against each other, the first of them being the reference, here or on a device.

Works on any files with the same inputs, also those edgepress never saw. Without data one input is made up
from the declared types: what a CPU takes for a dense model does not depend on the values (a model that
branches on them needs ``--data``). Each file's operators are counted after onnxruntime's own fusions, on the device: a
DequantizeLinear left over, beyond those that make a graph output, is int8 work done in float. Memory is that of a fresh
process for each model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edgepress import runtime
from edgepress.bench import Timing, inspect
from edgepress.bench.counted import Estimated
from edgepress.bench.here import Here
from edgepress.bench.meter import Meter, meter_on
from edgepress.bench.timing import Limits
from edgepress.devices import Agent, open_device
from edgepress.errors import InputError, ModelError
from edgepress.model import Dimension, Model, TensorType
from edgepress.normalize import feeds as made
from edgepress.report.found import Benchmark, BenchModel
from edgepress.request import check_input

MAX_FEEDS = 16
"""Samples used in turn; more would only cost memory."""

FEWEST = 20
"""Rounds of a timing that is given a time."""

PATIENCE_S = 86_400.0
"""Seconds that a number of rounds may take."""

NO_CLOCK = "An emulated core tells no times: counts are no latency, and there is no profile and no memory of it."

ESTIMATE = "Cycles are an estimate by {}: no real core was compared with it, and only ratios mean something."

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class How:
    """How to benchmark.

    Attributes:
        device: SPEC of the device; None times in this process.
        threads: intra-op threads.
        seconds: how long to take turns.
        rounds: how many rounds to take, in place of a time.
        seed: of the order of visits and of the bootstrap.
        max_temp_c: wait while the device is hotter; None does not look.
        profile: also say where the time goes.
        cycles: estimate cycles on an emulated core, in place of counting instructions.
    """

    device: str | None = None
    threads: int = 1
    seconds: float = 6.0
    rounds: int | None = None
    seed: int = 0
    max_temp_c: float | None = None
    profile: bool = False
    cycles: bool = False

    def __post_init__(self) -> None:
        """Refuse what the loop cannot keep.

        Raises:
            InputError: a seed or a temperature out of its range.
        """
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}: give a whole number of 0 or more.")
        if self.max_temp_c is not None and not math.isfinite(self.max_temp_c):
            raise InputError(f"--max-temp is {self.max_temp_c:g}: give degrees Celsius.")

    @property
    def limits(self) -> Limits:
        """Rounds that were asked for are taken, however long that needs."""
        return Limits(self.max_temp_c) if self.rounds is None else Limits(self.max_temp_c, PATIENCE_S)


def bench_files(
    paths: Sequence[Path], data: str | None = None, *, recipe: str | None = None, how: How | None = None
) -> Benchmark:
    """Time ONNX files against the first.

    Args:
        paths: the files; all must take the same inputs.
        data: source of samples; None makes one input up.
        recipe: JSON file that says how to read the samples.
        how: where, how long, and what else to find out.

    Raises:
        InputError: no file, inputs that differ, or settings out of range.
        ModelError: a file that cannot be read, loaded or run.
        DeviceError: the device cannot be used.
    """
    how = how or How()
    if not paths:
        raise InputError("There is nothing to time: give one or more ONNX files.")
    if recipe is not None and data is None:
        raise InputError("--recipe is of no use without samples: add --data.")
    for path in paths:
        check_input(path)
    names = _names(paths)
    models = dict(zip(names, (Model.load(path) for path in paths), strict=True))
    types = _common_inputs(models)
    feeds, note = _samples(models, types, data, recipe)
    with open_device("local" if how.device is None else how.device) as device:
        found = _Found.of(Agent(device), models, feeds, how)
    described = tuple(found.describe(name, path, models[name]) for name, path in zip(names, paths, strict=True))
    return Benchmark(described, found.timing, (note, *found.notes), how.device)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found out about all models; of a device that tells no times neither memory nor profiles."""

    timing: Timing
    operators: Mapping[str, Mapping[str, int]]
    memory: Mapping[str, inspect.Memory]
    profiles: Mapping[str, inspect.Profile]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, agent: Agent, models: Mapping[str, Model], feeds: Sequence[Feed], how: How) -> _Found:
        data, (first, *_) = {name: model.data for name, model in models.items()}, models
        meter: Meter = meter_on(agent, how.limits, cycles=how.cycles)
        if how.device is None:
            meter = Here(how.limits)
        timing = meter.compare(
            data,
            feeds,
            threads=how.threads,
            seconds=how.seconds if how.rounds is None else 0.0,
            min_rounds=how.rounds or FEWEST,
            seed=how.seed,
            reference=first,
        )
        operators = inspect.operators(agent, data, how.threads)
        if meter.level != "measured":
            estimate = [ESTIMATE.format(meter.simulator)] if isinstance(meter, Estimated) else []
            return cls(timing, operators, {}, {}, (NO_CLOCK, *estimate))
        memory = inspect.memory(agent, data, feeds[0], how.threads)
        profiles = inspect.profiles(agent, data, feeds[0], how.threads) if how.profile else {}
        return cls(timing, operators, memory, profiles, ())

    def describe(self, name: str, path: Path, model: Model) -> BenchModel:
        """One file."""
        operators = self.operators[name]
        warnings = _warnings(operators, len(model.outputs))
        size, memory, profile = path.stat().st_size, self.memory.get(name), self.profiles.get(name)
        return BenchModel(name, str(path), size, operators, warnings, memory, profile)


def _names(paths: Sequence[Path]) -> list[str]:
    """File names; whole paths where file names repeat; numbered where even those do (the same file twice)."""
    short = [path.name for path in paths]
    longer = [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]
    return [
        name if longer.count(name) == 1 else f"{name} #{1 + longer[:position].count(name)}"
        for position, name in enumerate(longer)
    ]


def _common_inputs(models: Mapping[str, Model]) -> dict[str, TensorType]:
    """Inputs all models accept; a size one model fixes and another leaves free is fixed."""
    (first, reference), *others = models.items()
    types = dict(reference.inputs)
    for name, model in others:
        if model.inputs.keys() != types.keys():
            raise InputError(
                f"{name} takes other inputs ({', '.join(model.inputs)}) than {first} ({', '.join(types)}): "
                "compare models with the same inputs."
            )
        for key, stated in model.inputs.items():
            types[key] = _common_type(key, types[key], stated, name)
    return types


def _common_type(key: str, ours: TensorType, theirs: TensorType, name: str) -> TensorType:
    fits = ours.dtype == theirs.dtype and (ours.shape is None or theirs.shape is None or _fit(ours.shape, theirs.shape))
    if not fits:
        raise InputError(
            f"{name} takes {key} as {_say(theirs)}, the files before it as {_say(ours)}: "
            "compare models with the same inputs."
        )
    if ours.shape is None or theirs.shape is None:
        return ours if theirs.shape is None else theirs
    pairs = zip(ours.shape, theirs.shape, strict=True)
    return TensorType(ours.dtype, tuple(b if isinstance(b, int) and not isinstance(a, int) else a for a, b in pairs))


def _fit(ours: Sequence[Dimension], theirs: Sequence[Dimension]) -> bool:
    free = (a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in zip(ours, theirs, strict=False))
    return len(ours) == len(theirs) and all(free)


def _say(stated: TensorType) -> str:
    shape = "of any shape" if stated.shape is None else str([size or "?" for size in stated.shape]).replace("'", "")
    return f"{stated.dtype} {shape}"


def _samples(
    models: Mapping[str, Model], types: Mapping[str, TensorType], data: str | None, recipe: str | None
) -> tuple[list[Feed], str]:
    """Feeds of one sample each, and a sentence on what they are."""
    if data is None:
        return _made_up(next(iter(models.values())), types)
    from edgepress.calibrate import open_feed

    strictest = max(models.values(), key=_fixed_sizes)
    feed = open_feed(data, strictest, recipe=recipe)
    found: list[Feed] = [chunk.inputs for chunk in islice(feed.chunks(1), MAX_FEEDS)]
    return found, f"Run on {len(found)} of {len(feed)} samples of {data}, in turn."


def _fixed_sizes(model: Model) -> int:
    return sum(isinstance(size, int) for stated in model.inputs.values() for size in stated.shape or ())


def _made_up(model: Model, types: Mapping[str, TensorType]) -> tuple[list[Feed], str]:
    """One made-up input; free sizes are 1, or the smallest of a few that the model runs with."""
    opened = runtime.session(model.data)
    problem: ModelError | None = None
    for free in made.FREE_SIZES:
        feed = made.made_up(types, batch=1, free=free)
        try:
            runtime.run(opened, feed)
        except ModelError as error:
            problem = problem or error
            continue
        sizes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in feed.items())
        return [feed], f"Run on made-up input ({sizes}): times do not depend on the values, sizes do."
    raise ModelError(f"The model does not run on made-up input, give samples with --data ({problem}).") from problem


def _warnings(operators: Mapping[str, int], outputs: int) -> tuple[str, ...]:
    left = operators.get("DequantizeLinear", 0) - outputs
    if left <= 0:
        return ()
    return (f"{left} DequantizeLinear left over: int8 that onnxruntime could not fuse runs in float.",)
