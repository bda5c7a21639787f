"""A bundle that was made, and one that was verified on a device: data, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from edgepress.report import layout, numbers
from edgepress.report.result import dump, load

BUNDLED_FORMAT = "edgepress-bundled/1"
VERIFICATION_FORMAT = "edgepress-verification/1"

Rule = Literal["exact", "equal", "close"]


@dataclass(frozen=True, slots=True)
class Promise:
    """How near a device must come to an expected output (:mod:`edgepress.bundle.check` says what the rules mean).

    Attributes:
        output: name of the output.
        rule: ``exact``, ``equal`` or ``close``.
        relative: allowed difference as a share of the span of the expected values; for ``close``.
        absolute: what is added to it.
        why: what the rule comes from.
    """

    output: str
    rule: Rule
    relative: float
    absolute: float
    why: str


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle that was written.

    Attributes:
        folder: where.
        onnxruntime: the oldest that loads the model.
        opset: version of the default operator set.
        ir_version: of the file.
        target: what the model was made for; None if nobody says.
        samples: test vectors.
        made_up: whether their inputs were made up.
        promises: one for each output.
        files: bytes by name.
        warnings: what the user should know.
    """

    folder: str
    onnxruntime: str
    opset: int
    ir_version: int
    target: str | None
    samples: int
    made_up: bool
    promises: tuple[Promise, ...]
    files: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The page as indented JSON."""
        return dump(BUNDLED_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Bundled:
        """Read the page (InputError if it is none)."""
        return load(cls, BUNDLED_FORMAT, text)


@dataclass(frozen=True, slots=True)
class Compared:
    """One output of all samples on the device against what is expected.

    Attributes:
        output: its name.
        rule: what was promised.
        values: how many there are.
        differ: how many are not the same.
        largest: difference; infinite where there is a NaN, an infinity or another shape on one side only.
        allowed: difference.
        agrees: whether the promise is kept.
        sample: the first sample that does not keep it.
        problem: an answer of another shape or type, in words.
    """

    output: str
    rule: Rule
    values: int
    differ: int
    largest: float
    allowed: float
    agrees: bool
    sample: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The vectors of a bundle, run on a device.

    Attributes:
        bundle: its folder.
        device: as the user named it.
        level: ``measured`` on a real machine, ``counted`` under an emulator.
        machine: what the device says of itself (cpu, os, onnxruntime, ...), as far as it does.
        model: the file that was run.
        threads: of the model.
        samples: how many were run.
        compared: by output.
    """

    bundle: str
    device: str
    level: str
    machine: Mapping[str, str]
    model: str
    threads: int
    samples: int
    compared: tuple[Compared, ...]

    @property
    def agrees(self) -> bool:
        """Whether every promise is kept."""
        return all(row.agrees for row in self.compared)

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        wrong = [row.output for row in self.compared if not row.agrees]
        on = f"on {self.device}"
        if not wrong:
            return f"All {self.samples} test vectors of {self.bundle} hold {on}."
        named = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        return f"The test vectors of {self.bundle} do not hold {on}: other answers at {named}."

    def to_json(self) -> str:
        """The page as indented JSON, with ``agrees`` and the ``verdict``."""
        return dump(VERIFICATION_FORMAT, self, agrees=self.agrees, verdict=self.verdict)

    @classmethod
    def from_json(cls, text: str) -> Verification:
        """Read the page (InputError if it is none)."""
        return load(cls, VERIFICATION_FORMAT, text)


# --- bundle ---------------------------------------------------------------------------------------------------------


def render_bundled(made: Bundled, console: Console) -> None:
    """Print what is in a bundle."""
    what = "made-up inputs" if made.made_up else "samples"
    layout.sentence(
        console,
        f"Bundle with {made.samples} test vector{'s' * (made.samples != 1)} of {what}, "
        f"for onnxruntime {made.onnxruntime} and newer.",
        "bold",
    )
    console.print()
    rows = [[item.output, item.rule, allowance(item)] for item in made.promises]
    layout.show(console, layout.table(console, ("output", "must be", "allowed difference"), rows))
    for item in made.promises:
        layout.paragraph(console, "promise", f"{item.output}: {item.why}.")
    for warning in made.warnings:
        layout.paragraph(console, "warning", warning, "yellow")
    layout.items(console, "files", [f"{name} {numbers.size(size)}" for name, size in made.files.items()])
    target = "" if made.target is None else f", made for {made.target}"
    layout.paragraph(console, "model", f"operator set {made.opset}, IR version {made.ir_version}{target}")
    layout.line(console, "written", made.folder)
    layout.line(console, "next", f"edgepress verify {made.folder} --device SPEC")


def allowance(item: Promise) -> str:
    """The allowed difference of an output, in words."""
    if item.rule != "close":
        return "none"
    share = f"{numbers.significant(100 * item.relative, 2)} % of the span"
    return f"{share} and {numbers.significant(item.absolute, 2)}" if item.absolute else share


def bundled_pairs(made: Bundled) -> list[tuple[str, str]]:
    """A bundle as keys and values for a pipe."""
    found = [("folder", made.folder), ("onnxruntime", made.onnxruntime), ("opset", str(made.opset))]
    found += [("ir_version", str(made.ir_version)), ("target", made.target or "")]
    found += [("samples", str(made.samples)), ("made_up", "yes" if made.made_up else "no")]
    for item in made.promises:
        found += [(f"{item.output}.rule", item.rule)]
        if item.rule == "close":
            found += [(f"{item.output}.relative", numbers.raw(item.relative))]
            found += [(f"{item.output}.absolute", numbers.raw(item.absolute))]
    found += [(f"{name}.bytes", str(size)) for name, size in made.files.items()]
    return [*found, *(("warning", warning) for warning in made.warnings)]


# --- verify ---------------------------------------------------------------------------------------------------------


def render_verification(found: Verification, console: Console) -> None:
    """Print whether the vectors hold, and how far every output is from what is expected."""
    layout.sentence(console, found.verdict, "bold green" if found.agrees else "bold red")
    console.print()
    headings = ("output", "found", "must be", "values", "differ", "by at most", "allowed")
    layout.show(console, layout.table(console, headings, [_cells(row) for row in found.compared]))
    for row in found.compared:
        if not row.agrees:
            problem = f": {row.problem}" if row.problem else ""
            layout.paragraph(console, "first", f"{row.output} in sample {row.sample}{problem}", "yellow")
    said = [found.machine[key] for key in ("cpu", "os") if found.machine.get(key)]
    runtime = f"onnxruntime {found.machine['onnxruntime']}" if found.machine.get("onnxruntime") else ""
    emulated = "an emulator" if found.level != "measured" else ""
    layout.items(console, "device", [text for text in (found.device, emulated, *said, runtime) if text])
    threads = f"{found.threads} thread{'s' * (found.threads != 1)}"
    layout.paragraph(console, "ran", f"{found.model}, {found.samples} samples, {threads}")


def _cells(row: Compared) -> list[str]:
    allowed = numbers.significant(row.allowed) if row.rule == "close" else "none"
    verdict = "agrees" if row.agrees else "differs"
    counts = [str(row.values), str(row.differ), numbers.significant(row.largest)]
    return [row.output, verdict, row.rule, *counts, allowed]


def verification_pairs(found: Verification) -> list[tuple[str, str]]:
    """A verification as keys and values for a pipe."""
    pairs = [("agrees", "yes" if found.agrees else "no"), ("device", found.device), ("level", found.level)]
    pairs += [(f"machine.{key}", value) for key, value in found.machine.items()]
    pairs += [("model", found.model), ("threads", str(found.threads)), ("samples", str(found.samples))]
    for row in found.compared:
        values = {"rule": row.rule, "values": str(row.values), "differ": str(row.differ)}
        values |= {"largest": numbers.raw(row.largest), "allowed": numbers.raw(row.allowed)}
        values |= {"agrees": "yes" if row.agrees else "no", "sample": numbers.raw(row.sample), "problem": row.problem}
        pairs += [(f"{row.output}.{key}", value) for key, value in values.items()]
    return pairs
