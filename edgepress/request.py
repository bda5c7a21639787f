"""Request: what the user asks one compression to do, checked before any work starts.

Everything wrong with a request is an :class:`InputError` with one sentence that says what to do. The
checks of places (:func:`check_input`, :func:`check_output`) are separate functions, because they look at the disk.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepress import targets
from edgepress.errors import InputError, ModelError, OutputError
from edgepress.levels import NAMED
from edgepress.targets import releases

AUTO = "auto"
TASKS = ("auto", "classify", "regress")
SCORE = "redundancy"
"""Which channels go first where nothing else is said."""

ALLOCATIONS = ("uniform", "curve", "hybrid", "dynamic", "anneal")
SUFFIX = ".edge.onnx"
CODED_SUFFIX = ".epz"
"""How names of coded files end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One compression, as asked for.

    Attributes:
        model: the ONNX file.
        output: where the result goes; None only for a dry run.
        data: source of the samples (see ``calibrate``); without them a model can only be cleaned.
        recipe: JSON file that says how to read the samples.
        eval_data: source of other samples to judge quality by; None holds out a part of ``data``.
        max_drop: how much accuracy or agreement may be lost, in percentage points.
        min_sqnr: for models that do not classify: least signal-to-noise ratio of the outputs, in dB.
        task: ``auto``, ``classify`` or ``regress``.
        mac_ratio: multiply-adds after / before that must be reached, in (0, 1].
        size_ratio: file bytes after / before that must be reached, in (0, 1].
        speedup: time before / after that must be reached, at least 1; of instructions, where a device counts them.
        prune: may remove channels.
        quantize: may go to int8.
        target: name of the target, or ``auto`` for the device, or this machine.
        threads: intra-op threads while timing; None leaves the choice to the pipeline.
        workers: threads for calibration; None leaves the choice to the pipeline.
        width_multiple: kept widths are multiples of this; None asks the target.
        seed: seed of the split and of the order of timing.
        bits: width of the weights: ``auto``, or one of ``edgepress.levels.NAMED`` (8 is int8); None is 8, and auto
            where ``size_ratio`` is given.
        fixed_point: weight scales are powers of two.
        codebooks: levels of few-bit weights lie where the weights are.
        activations: ``8``, ``float`` (integers are stored only), or ``16`` on targets that run it.
        equalize: also try evening out neighbouring layers.
        keep_float: names of nodes that stay float.
        min_ort: the oldest onnxruntime that must load the result; empty for what int8 needs.
        overrides: JSON file with onnxruntime's TensorQuantOverrides; None for none.
        save_overrides: where the ranges and scales of the result go, in the same form; None writes none.
        dry_run: decide and report, write nothing.
        bench_seconds: how long each round of timing lasts.
        score: which channels go first: a name, ``NAME@LOSS``, or several with weights (``scores.registry``).
        allocation: how removals are spread over groups of channels, one of ``ALLOCATIONS``.
        device: SPEC of the device whose costs decide (:mod:`edgepress.devices`); None for this process.
        coded: a dry run for a coded file; where there is an output its name says so.

    Raises:
        InputError: a value out of its range.
    """

    model: Path
    output: Path | None
    data: str | None
    recipe: str | None = None
    eval_data: str | None = None
    max_drop: float = 1.0
    min_sqnr: float = 20.0
    task: str = "auto"
    mac_ratio: float | None = None
    size_ratio: float | None = None
    speedup: float | None = None
    prune: bool = True
    quantize: bool = True
    target: str = "auto"
    threads: int | None = None
    workers: int | None = None
    width_multiple: int | None = None
    seed: int = 0
    bits: str | None = None
    activations: str = "8"
    fixed_point: bool = False
    codebooks: bool = False
    equalize: bool = False
    keep_float: tuple[str, ...] = ()
    min_ort: str = ""
    overrides: str | None = None
    save_overrides: Path | None = None
    dry_run: bool = False
    bench_seconds: float = 8.0
    score: str = SCORE
    allocation: str = "hybrid"
    device: str | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        """Check every range."""
        for name, value in (("--mac-ratio", self.mac_ratio), ("--size-ratio", self.size_ratio)):
            _require(value is None or 0 < value <= 1, name, value, "a number above 0 and at most 1 (0.5 means half)")
        _require(
            self.speedup is None or 1 <= self.speedup < math.inf, "--speedup", self.speedup, "a number of 1 or more"
        )
        _require(0 <= self.max_drop <= 100, "--max-drop", self.max_drop, "percentage points from 0 to 100")
        _require(math.isfinite(self.min_sqnr), "--min-sqnr", self.min_sqnr, "a number of decibels")
        _require(self.task in TASKS, "--task", self.task, f"one of {', '.join(TASKS)}")
        _require(self.allocation in ALLOCATIONS, "--allocation", self.allocation, f"one of {', '.join(ALLOCATIONS)}")
        counts = (("--threads", self.threads), ("--workers", self.workers), ("--width-multiple", self.width_multiple))
        for name, count in counts:
            _require(count is None or count >= 1, name, count, "a whole number of 1 or more")
        _require(self.seed >= 0, "--seed", self.seed, "a whole number of 0 or more")
        _require(0 < self.bench_seconds < math.inf, "bench_seconds", self.bench_seconds, "a number above 0")
        targets.find(self.target)
        if self.device is not None:
            from edgepress.devices import parse  # not before it is needed: loads numpy

            parse(self.device)
        releases.release(self.min_ort)
        if self.bits is not None and self.bits != AUTO:
            levels_of(self.bits)
        widths = ("float", *map(str, targets.find(self.target).activation_bits))
        _require(self.activations in widths, "--activations", self.activations, f"one of {', '.join(widths)}")
        self._check_together()
        files = (("--eval-data", self.eval_data), ("--recipe", self.recipe), ("--overrides", self.overrides))
        for name, source in (("--data", self.data), *files):
            if source == "":  # an unset variable of a shell; as a path it would be the current folder
                raise InputError(f"{name} is empty: give a path, or leave the option out.")
        if self.output is None and not self.dry_run:
            raise InputError("There is no place to write the result to: give a path with -o, or use --dry-run.")

    def _check_together(self) -> None:
        """Options that say the opposite of each other."""
        asked = {
            "--bits": self.bits is not None,
            "--activations": self.activations != "8",
            "--fixed-point": self.fixed_point,
            "--codebooks": self.codebooks,
            "--equalize": self.equalize,
            "--keep-float": bool(self.keep_float),
            "--overrides": self.overrides is not None,
        }
        if not self.quantize and any(asked.values()):
            option = next(option for option, given in asked.items() if given)
            raise InputError(f"{option} says how to quantize, and --no-quantize not to: leave one of them out.")
        if self.equalize and (self.overrides is not None or self.save_overrides is not None):
            option = "--overrides" if self.overrides is not None else "--save-overrides"
            raise InputError(
                f"--equalize changes the weights and ranges that {option} speaks of: leave one of them out."
            )
        if self.save_overrides is not None and self.prune and self.quantize:
            raise InputError("--save-overrides speaks of the weights as they came, which pruning cuts: do not prune.")
        if self.save_overrides is not None and self.rounds_steps:
            raise InputError(
                "--save-overrides speaks of an int8 model, but a coded file rounds weights to steps of its own: name a "
                "width by --bits, or leave it out."
            )
        if self.score != SCORE and not self.prune:
            raise InputError("--score says which channels go first, and --no-prune not to: leave one of them out.")
        if self.device is not None and targets.find(self.target).artifact:
            raise InputError(f"--device cannot run what is made for {self.target}: leave one of them out.")
        if self.speedup is not None and targets.find(self.target).artifact:
            raise InputError(
                f"--speedup cannot be checked for {self.target}, which this machine is not: leave it out, and time the "
                "result there."
            )

    @property
    def for_coding(self) -> bool:
        """Whether what is handed over is a coded file: sizes are those of coded files then."""
        return self.coded or (self.output is not None and self.output.suffix == CODED_SUFFIX)

    @property
    def rounds_steps(self) -> bool:
        """Whether weights may be rounded to steps of their own for a coded file: no width is named."""
        return self.for_coding and self.quantize and self.bits is None

    @property
    def wants_integers(self) -> bool:
        """Whether integer forms are made: not for a coded file alone, which steps of its own make shorter."""
        named = self.bits is not None or self.activations != "8" or self.overrides is not None
        named = named or self.fixed_point or self.codebooks or self.equalize
        return self.quantize and (not self.for_coding or named or self.speedup is not None)

    @property
    def mixed_widths(self) -> bool:
        """Whether every layer gets a width of its own."""
        if self.rounds_steps:
            return False
        return self.quantize and (self.bits == AUTO or (self.bits is None and self.size_ratio is not None))

    @property
    def levels(self) -> int | None:
        """How many values a weight may take, the same for all layers; None where that is not asked for."""
        return None if self.bits is None or self.bits == AUTO else levels_of(self.bits)


def levels_of(bits: str) -> int:
    """The levels of a named width.

    Raises:
        InputError: no such width.
    """
    try:
        return NAMED[float(bits)]
    except (KeyError, ValueError):
        known = ", ".join(f"{width:g}" for width in NAMED)
        raise InputError(f"--bits is {bits}: give auto or one of {known}.") from None


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value}: give {wanted}.")


def default_output(model: Path) -> Path:
    """Where the result goes when the user does not say: ``<stem>.edge.onnx`` in the current folder."""
    return Path(model.stem + SUFFIX)


def report_path(output: Path) -> Path:
    """Where the report of ``output`` is written."""
    return output.with_suffix(".report.json")


def plan_path(output: Path) -> Path:
    """Where the plan of ``output`` is written."""
    return output.with_suffix(".plan.json")


def check_input(model: Path) -> None:
    """Raise ModelError unless ``model`` is a file; names the nearest file if there is one."""
    if model.is_file():
        return
    folder = model.parent
    around = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    near = difflib.get_close_matches(model.name, around, n=1)
    advice = f"did you mean {folder / near[0]}?" if near else "give the path of an ONNX model."
    kind = "a folder" if model.is_dir() else "not a file"
    raise ModelError(f"{model} is {kind}: {advice}")


def check_output(model: Path, output: Path, *, others: Sequence[Path] = (), option: str = "-o") -> None:
    """Check, before any work, that ``output`` can be written and overwrites nothing that is read.

    Args:
        model: the input model.
        output: the place asked for; links are followed.
        others: further files that are read (samples, recipe, plan); those that do not exist are passed over.
        option: the option that names the place.

    Raises:
        OutputError: says what is wrong with the place.
    """
    if output.is_dir():
        raise OutputError(f"{output} is a folder: give a file name inside it with {option}.")
    if output.exists() and not output.is_file():
        raise OutputError(f"{output} is not a regular file: give another path with {option}.")
    for source in (model, *others):
        if output.exists() and source.exists() and output.samefile(source):
            raise OutputError(f"{output} is the same file as the input {source}: give another path with {option}.")
    folder = output.parent
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist: create it or give another path with {option}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {folder} cannot be written to: give another path with {option}.")
