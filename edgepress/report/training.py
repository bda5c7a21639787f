"""What a training run did: data, on a terminal and in a pipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from edgepress.report import layout, numbers
from edgepress.report.result import StageRow, dump, load

TRAINING_FORMAT = "edgepress-training/1"


@dataclass(frozen=True, slots=True)
class Standing:
    """A model before or after training.

    Attributes:
        samples: that it was judged on.
        measure: ``accuracy``, ``agreement`` or ``sqnr``.
        value: accuracy or agreement in percent, or SQNR in dB.
        lost: against the reference: points, nats, or dB below the floor.
        low: lower end of the 95 % interval of ``lost``.
        high: upper end.
        kl: divergence from the reference in nats; NaN for no classifier.
        agreement: percent of answers that are those of the reference; NaN for no classifier.
    """

    samples: int
    measure: str
    value: float
    lost: float
    low: float
    high: float
    kl: float
    agreement: float


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch.

    Attributes:
        number: from 1.
        steps: made until its end.
        loss: mean of the loss that was trained, without bits.
        bits: of each weight, in the mean; NaN where nobody counts.
        value: quality on the hold-out samples at its end, as in ``Standing``.
        lost: what it had lost there.
        kl: divergence there.
        parameters: weights left.
        coded_bytes: of the weights in the coded file; None where nothing is coded.
        best: whether it was the best until then.
    """

    number: int
    steps: int
    loss: float
    bits: float
    value: float
    lost: float
    kl: float
    parameters: int
    coded_bytes: int | None
    best: bool


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is.

    Attributes:
        file_bytes: of the ONNX file.
        parameters: numbers in its float weights.
        nonzero: those that are not zero.
        coded_bytes: of the entropy-coded file; None where none was made.
    """

    file_bytes: int
    parameters: int
    nonzero: int
    coded_bytes: int | None


@dataclass(frozen=True, slots=True)
class Training:
    """One training run.

    Attributes:
        model: path of what was handed over.
        output: path of what was written.
        coded: path of the coded file; None where none was made.
        reference: what quality is measured against.
        settings: the options.
        verdict: the sentence at the top.
        improved: whether the result is another model than the start.
        start: the start on the hold-out samples.
        result: the result there.
        evaluated_start: the start on other samples; None without.
        evaluated_result: the result there.
        before: size of the start.
        after: size of the result.
        epochs: what happened.
        figures: what else the method found out, by its words.
        notes: what is to be said.
        processes: that trained together.
        resumed: step that a checkpoint was taken up at; 0 for none.
        seconds: since this process began.
        stages: what took how long.
        versions: of what was used.
    """

    model: str
    output: str
    coded: str | None
    reference: str
    settings: Mapping[str, Any]
    verdict: str
    improved: bool
    start: Standing
    result: Standing
    evaluated_start: Standing | None
    evaluated_result: Standing | None
    before: Size
    after: Size
    epochs: tuple[EpochRow, ...]
    figures: Mapping[str, float]
    notes: tuple[str, ...]
    processes: int
    resumed: int
    seconds: float
    stages: tuple[StageRow, ...]
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """As indented JSON."""
        return dump(TRAINING_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Training:
        """Read a report (InputError if it is none)."""
        return load(cls, TRAINING_FORMAT, text)


def quality(standing: Standing) -> str:
    """The quality of a model in words."""
    if standing.measure == "sqnr":
        return numbers.decibel(standing.value)
    more = f", KL {numbers.significant(standing.kl)}" if standing.measure == "agreement" else ""
    return f"{numbers.percent(standing.value)}{more}"


def render(found: Training, console: Console, written: Sequence[str]) -> None:
    """Print the verdict, both models beside each other, the last epochs and what is to be said."""
    layout.sentence(console, found.verdict, "bold")
    console.print()
    layout.show(console, layout.table(console, ("", "start", "result"), _compared(found)))
    rows = [_cells(row) for row in found.epochs[-8:]]
    if rows:
        layout.show(console, layout.table(console, ("epoch", "loss", "bits", "quality", "weights", "bytes", ""), rows))
    for what, value in found.figures.items():
        layout.line(console, "", f"{what}: {numbers.significant(value)}")
    for note in found.notes:
        layout.paragraph(console, "note", note)
    for path in written:
        layout.line(console, "written", path)


def pairs(found: Training, written: Sequence[str]) -> list[tuple[str, ...]]:
    """Keys and values for a pipe."""
    evaluated = [
        (f"evaluated.{name}", numbers.raw(standing.value))
        for name, standing in (("start", found.evaluated_start), ("result", found.evaluated_result))
        if standing is not None
    ]
    return [
        ("verdict", found.verdict),
        ("measure", found.result.measure),
        ("start", numbers.raw(found.start.value)),
        ("result", numbers.raw(found.result.value)),
        ("lost", numbers.raw(found.result.lost)),
        *evaluated,
        ("file.bytes", str(found.before.file_bytes), str(found.after.file_bytes)),
        ("parameters", str(found.before.parameters), str(found.after.parameters)),
        ("nonzero", str(found.before.nonzero), str(found.after.nonzero)),
        ("coded.bytes", numbers.raw(found.after.coded_bytes)),
        ("epochs", str(len(found.epochs))),
        *((f"figure.{what}", numbers.raw(value)) for what, value in found.figures.items()),
        *(("note", note) for note in found.notes),
        *(("written", path) for path in written),
    ]


def _compared(found: Training) -> list[list[str]]:
    both = (found.before, found.after)
    rows = [
        [f"{found.start.measure}, hold-out", quality(found.start), quality(found.result)],
        ["file", *(numbers.size(item.file_bytes) for item in both)],
        ["weights", *(numbers.count(item.parameters) for item in both)],
        ["not zero", *(numbers.count(item.nonzero) for item in both)],
    ]
    if found.evaluated_start is not None and found.evaluated_result is not None:
        given = (found.evaluated_start, found.evaluated_result)
        rows.insert(1, [f"{found.start.measure}, --eval-data", *map(quality, given)])
    if found.after.coded_bytes is not None:
        rows.append(["coded", numbers.DASH, numbers.size(found.after.coded_bytes)])
    return rows


def _cells(row: EpochRow) -> list[str]:
    bits = numbers.significant(row.bits) if math.isfinite(row.bits) else numbers.DASH
    coded = numbers.DASH if row.coded_bytes is None else numbers.size(row.coded_bytes)
    cells = [str(row.number), numbers.significant(row.loss), bits, numbers.fixed(row.value)]
    return [*cells, numbers.count(row.parameters), coded, "best" if row.best else ""]
