"""What a compression came to, as plain data; and how all pages become JSON and back.

Everything the terminal prints comes from here, through ``numbers``; the JSON file holds the same values
in full, and the derived rows of the table beside them. The schema is versioned by ``format``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from edgepress.bench import Latency, Machine, Ratio
from edgepress.devices import Level
from edgepress.errors import InputError, Refusal
from edgepress.report import schema

REPORT_FORMAT = "edgepress-report/2"

ORIGINAL = "original"
PLAIN_INT8 = "plain-int8"
CLEANED = "cleaned"
"""Names of the variants every compression has; candidates may be called anything else."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Quality:
    """How much a variant differs from the original, held against the limit.

    Attributes:
        measure: what was measured.
        samples: how many samples it rests on.
        before: the original: accuracy in percent, 100 for agreement, infinite for SQNR.
        after: the variant: accuracy or agreement in percent, SQNR in dB.
        drop: points lost (accuracy) or percent of answers changed (agreement); None for SQNR.
        low: lower end of the 95 % interval of ``drop`` (of ``after``, in dB, for SQNR).
        high: upper end of that interval.
        agreement: percent of answers that stayed the same; None if the model does not classify.
        kl: mean KL divergence from the original in nats; None if the model does not classify.
        kl_low: lower end of its 95 % interval; None unless it decides (no labels).
        kl_high: upper end of that interval.
        sqnr_db: signal-to-noise ratio of the worst output in dB.
        state: ``within`` (the whole interval is), ``probably within`` (the interval reaches out) or ``over`` the limit.
        settle_samples: about how many samples would settle ``probably within``.
        limit: the most ``drop`` may be, the most ``kl`` may be (agreement), or the least SQNR in dB.
        source: which samples: held out of the data, or handed over for this purpose.
    """

    measure: Literal["accuracy", "agreement", "sqnr"]
    samples: int
    before: float
    after: float
    drop: float | None
    low: float | None
    high: float | None
    agreement: float | None
    kl: float | None
    sqnr_db: float | None
    state: Literal["within", "probably within", "over"]
    settle_samples: int | None
    limit: float
    source: Literal["hold-out", "eval-data"]
    kl_low: float | None = None
    kl_high: float | None = None


@dataclass(frozen=True, slots=True)
class Pruning:
    """What was predicted of a model that lost channels; what was measured of it stands in its variant, or beside it.

    Attributes:
        error: mean squared change of the outputs relative to their variance: the sum of the errors of all groups.
        measured_error: the same on hold-out samples; None for integer forms.
        file_bytes: of the float file; None for integer forms.
        latency: cost over that of the cleaned model; None where nothing foresees it.
        latency_by: what foresees it: the costs of single layers that were measured or counted, or their multiply-adds
            along the target's staircase (``analytic``).
    """

    error: float
    measured_error: float | None
    file_bytes: int | None
    latency: float | None
    latency_by: Level


@dataclass(frozen=True, slots=True)
class Variant:
    """One model that was weighed: the original, plain int8, or a candidate.

    Attributes:
        name: short and unique.
        label: for people.
        file_bytes: size as one ONNX file; of candidates for a coded file, as that.
        macs: multiply-adds per sample; None if unknown.
        parameters: number of weights.
        quality: None if it was not measured.
        latency: cost by number of threads, in the unit of the report's ``level``.
        ratio: cost over that of ``Ratio.reference``, by number of threads; empty for the reference.
        operators: what onnxruntime really runs, after its own fusions.
        verdict: ``written``, or why not.
        predicted: error that the allocation of bits predicted for the answers (nats, or noise over signal), of rounding
            weights alone and with nothing made up for; None where all layers have one width.
        pruning: what was predicted of its lost channels; None where it lost none.
        analytic: millions of instructions that its multiply-adds take at the least on the target; None where costs
            were taken on a machine of its kind, or nothing is known of its instructions.
    """

    name: str
    label: str
    file_bytes: int
    macs: int | None
    parameters: int
    quality: Quality | None
    latency: Mapping[int, Latency]
    ratio: Mapping[int, Ratio]
    operators: Mapping[str, int]
    verdict: str
    predicted: float | None = None
    pruning: Pruning | None = None
    analytic: float | None = None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One weighted node, before and after.

    Attributes:
        node: its name.
        op: operator.
        width_before: output channels.
        width_after: output channels that are left.
        runs_as: what it computes in.
        reason: why it stayed float, if others did not.
        bits: of a weight, log2 of its levels, or its length in a coded file; None: the weights are float.
        levels: values that a weight may take; None: the weights are float.
        weights: how many weights it has.
        file_bytes: what they take in the file, scales included.
        share: of the file, in percent.
        scale_low: least scale, or step, of an output channel; None: the weights are float.
        scale_high: greatest scale.
        sqnr_db: signal-to-noise ratio of its output on a few hold-out samples, against the cleaned model; None where it
            cannot be compared.
    """

    node: str
    op: str
    width_before: int
    width_after: int
    runs_as: Literal["int8", "int16", "float32"]
    reason: str
    bits: float | None = None
    levels: int | None = None
    weights: int = 0
    file_bytes: int = 0
    share: float = 0.0
    scale_low: float | None = None
    scale_high: float | None = None
    sqnr_db: float | None = None


def average_bits(layers: Sequence[LayerRow]) -> float | None:
    """Bits of a weight, averaged over all that are integers; None if none is."""
    whole = [(layer.bits, layer.weights) for layer in layers if layer.bits is not None]
    count = sum(weights for _, weights in whole)
    return sum(bits * weights for bits, weights in whole) / count if count else None


@dataclass(frozen=True, slots=True)
class StageRow:
    """One finished stage of the work; ``peak_mb`` is the highest memory of the process so far."""

    name: str
    seconds: float
    peak_mb: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one compression found out.

    Attributes:
        model: path of the input.
        output: path of the result; None for a dry run.
        variants: what was weighed, the original first.
        chosen: name of the variant that was taken.
        verdict: one sentence (``verdict.sentence``).
        budgets: explicit budgets by name; None where the user set none.
        layers: weighted nodes.
        weight_bits: of a weight that is an integer, or coded as one, on average; None if none is.
        refusals: what was left alone, and why.
        notes: further facts the user should know.
        stages: what took how long.
        machine: where it was measured.
        data: source, fit and hold_out (samples), labelled.
        plan: path of the plan; None if none was written.
        command: the command that was run.
        next: a command worth running next.
        versions: of edgepress and what it stands on.
        seed: of the split and the order of timing.
        threads: thread counts that costs were taken with.
        level: what the costs are worth; ``analytic``, where none were taken.
        device: SPEC of the device they were taken on; None: in this process.
    """

    model: str
    output: str | None
    variants: tuple[Variant, ...]
    chosen: str
    verdict: str
    budgets: Mapping[str, float | None]
    layers: tuple[LayerRow, ...]
    weight_bits: float | None
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    stages: tuple[StageRow, ...]
    machine: Machine
    data: Mapping[str, Any]
    plan: str | None
    command: str
    next: str
    versions: Mapping[str, str]
    seed: int
    threads: tuple[int, ...]
    level: Level = "measured"
    device: str | None = None

    def variant(self, name: str) -> Variant | None:
        """The variant of that name."""
        return next((item for item in self.variants if item.name == name), None)

    @property
    def original(self) -> Variant:
        """The model as it came."""
        return self.variant(ORIGINAL) or self.variants[0]

    @property
    def taken(self) -> Variant:
        """The variant that was chosen (KeyError if ``chosen`` names none)."""
        return {item.name: item for item in self.variants}[self.chosen]

    def to_json(self) -> str:
        """The report as indented JSON, with the derived rows of the table under ``rows``."""
        from edgepress.report.rows import rows  # rows stands on the types above

        return dump(REPORT_FORMAT, self, rows=schema.encode(rows(self)))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report (InputError if it is none)."""
        return load(cls, REPORT_FORMAT, text)


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan was applied: where the result is, its size, and what is to be said about it."""

    output: str
    file_bytes: int
    note: str


def dump(form: str, value: object, **derived: Any) -> str:
    """A page as indented JSON that names its format; ``derived`` are further fields."""
    return json.dumps({"format": form, **schema.encode(value), **derived}, indent=1, allow_nan=False) + "\n"


def load(kind: type[T], form: str, text: str) -> T:
    """Read what :func:`dump` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"This is not JSON (line {error.lineno}): give an {form} file.") from error
    if not isinstance(raw, dict) or raw.get("format") != form:
        raise InputError(f"This is not an {form} file: make one with this version of edgepress.")
    try:
        return schema.decode(kind, raw)
    except ValueError as error:
        raise InputError(f"This {form} file is damaged ({error}): make it again.") from error
