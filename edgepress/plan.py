"""Plan: every decision of one compression, as a JSON file that can be read, edited and replayed.

A plan holds decisions only (which channels go, what stays float, which ranges); weights are computed
again from the model and the data by ``edgepress apply``, which is deterministic: the same model, data
and plan give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgepress.errors import PlanError

FORMAT = "edgepress-plan/1"


@dataclass(frozen=True, slots=True)
class Cut:
    """Channels ``removed`` (indices, rising) from a channel group of ``size`` channels."""

    group: str
    size: int
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a float model becomes int8 QDQ.

    Attributes:
        ranges: activation ranges by ``minmax`` or ``percentile``.
        percentile: the percentile, in percent, used on both tails when ``ranges`` is ``percentile``.
        float_nodes: names of weighted nodes that stay float.
        weight_limit: largest ``|int8 weight|``.
        repair: match mean and standard deviation of every weighted output after rounding.
        compute: ``int8``, or ``float``: weights are stored as int8 and multiplied out once, when the file is loaded.
    """

    ranges: Literal["minmax", "percentile"] = "minmax"
    percentile: float = 99.99
    float_nodes: tuple[str, ...] = ()
    weight_limit: int = 127
    repair: bool = True
    compute: Literal["int8", "float"] = "int8"


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
    """

    model_sha256: str
    data_sha256: str = ""
    cuts: tuple[Cut, ...] = ()
    quantization: Quantization | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
        except json.JSONDecodeError as error:
            raise PlanError(f"{source} is not JSON (line {error.lineno}): mend it or make a new plan.") from error
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
    cuts = tuple(Cut(str(c["group"]), int(c["size"]), tuple(int(i) for i in c["removed"])) for c in fields["cuts"])
    quantization = fields["quantization"]
    if quantization is not None:
        quantization = Quantization(**{**quantization, "float_nodes": tuple(quantization["float_nodes"])})
    return Plan(**{**fields, "cuts": cuts, "quantization": quantization})
