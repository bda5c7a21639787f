"""Plan: every decision of one compression, as a JSON file that can be read, edited and replayed.

A plan holds decisions only (which channels go, what stays float, which ranges); weights are computed
again from the model and the data by ``edgepress apply``, which is deterministic: the same model, data
and plan give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgepress.errors import PlanError

FORMAT = "edgepress-plan/1"

STEPS = (1e-30, 1e30)
"""Steps that weights may have: their multiples must be float32."""

MOST_RATE = 1e3


@dataclass(frozen=True, slots=True)
class Cut:
    """Channels ``removed`` (indices, rising) from a channel group of ``size`` channels."""

    group: str
    size: int
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights and the arithmetic of a float model become integers.

    Attributes:
        ranges: how activation ranges are read off the samples: ``minmax``, ``percentile``, ``mse`` or ``entropy``.
        percentile: the percentile, in percent, used on both tails when ``ranges`` is ``percentile``.
        float_nodes: names of weighted nodes that stay float.
        weight_limit: largest ``|int8 weight|``.
        repair: match mean and standard deviation of every weighted output after rounding.
        compute: ``int8``, or ``float``: weights are stored as integers and multiplied out once, when the file is
            loaded.
        rounding: ``nearest``, or ``joint``: layer by layer, least squares toward the original and second-order
            rounding.
        scales: ``free``, or ``power-of-two``: every weight scale is one (fixed point, Qm.n).
        matrix_scales: one weight scale per output ``channel`` of Gemm and MatMul, or one for the whole ``tensor``.
        whole: layers that the rules of the target keep float run in int8 as well.
        levels: by node, how many values a weight may take (3 to 128); nodes that are missing have all of int8.
        codebooks: nodes whose levels lie where the weights are (k-means), not at equal distances.
        equalize: even out the ranges of neighbouring layers first (cross-layer equalization).
        dynamic: nodes whose activations are quantized as they come, not with fixed ranges.
        blocked: MatMul nodes with 4-bit weights in blocks of their input channels.
        recurrent: LSTM nodes whose products are int8, with ranges as they come.
        stored: constants that are not weights of products (tables, weights of recurrent layers), kept as int8 and
            multiplied out once, when the file is loaded.
        tables: constants that only Gather reads, kept as int8 in memory, too.
        activation_bits: of activations that are integers: 8, or 16 on targets that run it.
        given_ranges: least and greatest value of activations, by tensor, in place of what the samples show.
        given_scales: by node, the weight scale of every output channel, in place of what rounding would choose.
        min_ort: the oldest onnxruntime that must load the file, such as ``1.24``; empty for what int8 needs.
    """

    ranges: Literal["minmax", "percentile", "mse", "entropy"] = "minmax"
    percentile: float = 99.99
    float_nodes: tuple[str, ...] = ()
    weight_limit: int = 127
    repair: bool = True
    compute: Literal["int8", "float"] = "int8"
    rounding: Literal["nearest", "joint"] = "nearest"
    scales: Literal["free", "power-of-two"] = "free"
    matrix_scales: Literal["channel", "tensor"] = "channel"
    whole: bool = False
    levels: Mapping[str, int] = field(default_factory=dict)
    codebooks: tuple[str, ...] = ()
    equalize: bool = False
    dynamic: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    recurrent: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    activation_bits: int = 8
    given_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    given_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    min_ort: str = ""


@dataclass(frozen=True, slots=True)
class Coding:
    """How the weights of a float model become whole numbers times a step, for a coded file.

    Attributes:
        steps: the step of every weighted node whose weights are rounded, by its name.
        tables: the step of constants that are something else (tables, weights of recurrent layers), by tensor.
        rate: what a bit is worth when a weight is rounded (``quantize.weights.rated``).
        channels: nodes whose rounding cannot be foreseen (depthwise ones): 127 numbers for every output channel.
    """

    steps: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions, and what they were made from.

    Attributes:
        model_sha256: identity of the model the plan belongs to (``Model.sha256`` of the file as loaded).
        data_sha256: identity of the samples it was made with (empty without data).
        cuts: channels to remove; empty for none.
        quantization: None keeps the model float.
        seed: seed of the split into fit and hold-out samples.
        settings: other settings that change the result (sample caps and the like).
        provenance: free notes: version, date-less facts, budget, predicted error.
        min_ort: the oldest onnxruntime that must load the file, float or not; empty for none.
        coding: how weights are rounded for a coded file; None: they are not.
    """

    model_sha256: str
    data_sha256: str = ""
    cuts: tuple[Cut, ...] = ()
    quantization: Quantization | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    min_ort: str = ""
    coding: Coding | None = None

    def to_json(self) -> str:
        """The plan as indented JSON text."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "The plan") -> Plan:
        """Read a plan.

        Raises:
            PlanError: not JSON, another format, or fields missing or of the wrong kind.
        """
        try:
            raw = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise PlanError(f"{source} is not JSON{where}: mend it or make a new plan.") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise PlanError(f"{source} is not an {FORMAT} file: make one with `edgepress compress`.")
        try:
            return _plan(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"{source} has a wrong or missing field ({error}): make a new plan.") from error

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file (PlanError as in :meth:`from_json`)."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path} cannot be read as a plan: give the path of a plan JSON file.") from error
        return cls.from_json(text, source=str(path))

    def check_model(self, sha256: str) -> None:
        """Raise PlanError unless the plan belongs to the model with that hash."""
        if sha256 != self.model_sha256:
            raise PlanError(
                f"The plan belongs to another model (sha256 {self.model_sha256[:12]}, this one is {sha256[:12]}): "
                "apply it to the model it was made from."
            )


def _plan(raw: dict[str, Any]) -> Plan:
    fields = {key: value for key, value in raw.items() if key != "format"}
    unknown = fields.keys() - {item.name for item in dataclasses.fields(Plan)}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    for name in ("model_sha256", "data_sha256"):
        _demand(isinstance(fields[name], str), f"{name} is no text")
    for name in ("settings", "provenance"):
        _demand(isinstance(fields[name], dict), f"{name} is no object")
    _demand(_whole(fields["seed"]), "seed is no whole number")
    _demand(isinstance(fields.get("min_ort", ""), str), "min_ort is no text")
    cuts = tuple(_cut(entry) for entry in fields["cuts"])
    _demand(len({cut.group for cut in cuts}) == len(cuts), "a group is named twice in cuts")
    quantization = None if fields["quantization"] is None else _quantization(fields["quantization"])
    coding = None if fields.get("coding") is None else _coding(fields["coding"])
    _demand(coding is None or quantization is None, "quantization and coding exclude each other")
    return Plan(**{**fields, "cuts": cuts, "quantization": quantization, "coding": coding})


def _cut(raw: dict[str, Any]) -> Cut:
    removed = raw["removed"]
    _demand(isinstance(raw["group"], str), "group is no text")
    _demand(_whole(raw["size"]), "size is no whole number")
    _demand(isinstance(removed, list) and all(map(_whole, removed)), "removed is no list of whole numbers")
    _demand(len(set(removed)) == len(removed), f"a channel of {raw['group']!r} is removed twice")
    within = len(removed) < raw["size"] and max(removed, default=0) < raw["size"]
    _demand(within, f"of {raw['group']!r} more is removed than its {raw['size']} channels allow")
    return Cut(raw["group"], raw["size"], tuple(removed))


_CHOICES = {
    "ranges": ("minmax", "percentile", "mse", "entropy"),
    "compute": ("int8", "float"),
    "rounding": ("nearest", "joint"),
    "scales": ("free", "power-of-two"),
    "matrix_scales": ("channel", "tensor"),
}
_NAMES = ("float_nodes", "codebooks", "dynamic", "blocked", "recurrent", "stored", "tables")


def _quantization(raw: dict[str, Any]) -> Quantization:
    _demand(isinstance(raw, dict), "quantization is no object")
    for name in _NAMES:
        names = raw["float_nodes"] if name == "float_nodes" else raw.get(name, ())
        listed = isinstance(names, (list, tuple)) and all(isinstance(each, str) for each in names)
        _demand(listed, f"{name} is no list of names")
    levels = raw.get("levels", {})
    _demand(isinstance(levels, dict) and all(map(_levels, levels.values())), "levels is no object of counts, 3 to 255")
    given = {name: _numbers(name, raw.get(name, {})) for name in ("given_ranges", "given_scales")}
    _demand(all(len(item) == 2 and item[0] <= item[1] for item in given["given_ranges"].values()),
            "given_ranges has a range that is no pair [least, greatest]")  # fmt: skip
    _demand(all(item and min(item) > 0 for item in given["given_scales"].values()),
            "given_scales has a scale that is not above zero")  # fmt: skip
    made = Quantization(**{**raw, **{name: tuple(raw.get(name, ())) for name in _NAMES}, **given})
    for name, choices in _CHOICES.items():
        _demand(getattr(made, name) in choices, f"{name} is neither {' nor '.join(map(repr, choices))}")
    _demand(_number(made.percentile) and 50 < made.percentile <= 100, "percentile is not within 50..100")
    _demand(_whole(made.weight_limit) and 1 <= made.weight_limit <= 127, "weight_limit is not within 1..127")
    _demand(made.activation_bits in (8, 16), "activation_bits is neither 8 nor 16")
    for name in ("repair", "equalize", "whole"):
        _demand(isinstance(getattr(made, name), bool), f"{name} is neither true nor false")
    _demand(isinstance(made.min_ort, str), "min_ort is no text")
    return made


def _coding(raw: dict[str, Any]) -> Coding:
    _demand(isinstance(raw, dict), "coding is no object")
    for name in ("steps", "tables"):
        steps = raw.get(name, {})
        _demand(isinstance(steps, dict) and all(map(_step, steps.values())), f"{name} is no object of steps above zero")
    names = raw.get("channels", ())
    _demand(isinstance(names, (list, tuple)) and all(isinstance(each, str) for each in names),
            "channels is no list of names")  # fmt: skip
    rate = raw.get("rate", 0.0)
    _demand(_number(rate) and 0 <= rate <= MOST_RATE, f"rate is no number from 0 to {MOST_RATE:g}")
    return Coding(**{**raw, "channels": tuple(names)})


def _step(value: object) -> bool:
    return isinstance(value, (int, float)) and _number(value) and STEPS[0] <= value <= STEPS[1]


def _numbers(name: str, raw: object) -> dict[str, tuple[float, ...]]:
    """Lists of finite numbers by name."""
    listed = isinstance(raw, dict) and all(isinstance(item, list) for item in raw.values())
    _demand(listed, f"{name} is no object of lists")
    found = {key: tuple(item) for key, item in raw.items()} if isinstance(raw, dict) else {}
    for item in found.values():
        _demand(all(_number(value) and math.isfinite(value) for value in item), f"{name} has what is no finite number")
    return found


def _levels(value: object) -> bool:
    return _whole(value) and isinstance(value, int) and 3 <= value <= 255


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
