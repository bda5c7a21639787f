"""explain(): what could be done to a model, without doing it, and why a channel may or may not go."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from edgepress.calibrate import open_feed
from edgepress.errors import InputError
from edgepress.groups import Group, find_groups
from edgepress.groups.binding import notes, sizes_of
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.normalize.admission import admit
from edgepress.pipeline.context import inputs_of
from edgepress.pipeline.tracing import about_operator, about_tensor, tensor_names
from edgepress.pipeline.ways import Traced, operator_name
from edgepress.report.answers import OperatorAnswer, TensorAnswer
from edgepress.report.found import Explanation, GroupRow
from edgepress.request import check_input

NEAR = 5
"""Names that are suggested for one that is not there."""

SAMPLES = 2


def explain(model: Path, data: str | None = None) -> Explanation:
    """Channel groups of a model and what must stay, and why.

    Args:
        model: the ONNX file.
        data: source of samples that give sizes to free axes; without them sizes are assumed.

    Raises:
        InputError: the model or the samples cannot be used.
    """
    _, traced = _traced(model, data)
    rows = tuple(_row(group) for group in traced.grouping.groups)
    return Explanation(str(model), rows, traced.grouping.refusals, traced.notes)


def explain_tensor(model: Path, tensor: str, data: str | None = None) -> TensorAnswer:
    """Whether channels of one activation or weight may go, and why.

    Raises:
        InputError: there is no such tensor (near names are given), or as :func:`explain`.
    """
    original, traced = _traced(model, data)
    names = tensor_names(traced.model)
    if tensor not in names:
        gone = tensor in tensor_names(original)
        problem = "is merged into others when the model is cleaned" if gone else "is no tensor of the model"
        raise InputError(f"{tensor!r} {problem}: {_near(tensor, names)}")
    return about_tensor(traced, tensor)


def explain_operator(model: Path, operator: str, data: str | None = None) -> OperatorAnswer:
    """What edgepress does with channels at every node of an operator of a model.

    Raises:
        InputError: the model has no such operator (those it has are listed), or as :func:`explain`.
    """
    original, traced = _traced(model, data)
    if not any(operator_name(node) == operator for node in (*traced.model.nodes, *original.nodes)):
        present = sorted({operator_name(node) for node in original.nodes})
        raise InputError(f"The model has no {operator}: it has {', '.join(present)}.")
    return about_operator(original, traced, operator)


def _traced(path: Path, data: str | None) -> tuple[Model, Traced]:
    """The model as it is in the file, and as it was analysed."""
    check_input(path)
    model = Model.load(path)
    admit(model)
    samples = [] if data is None else inputs_of(open_feed(data, model), SAMPLES)
    cleaned = normalize(model, samples).model
    # the one place that binds dimensions; the batch is left to the analysis, which needs one sample only
    grouping = find_groups(cleaned, sizes_of(cleaned.inputs, samples[0]) if samples else None)
    said = tuple(f"{note}." for note in notes(grouping.assumed))
    return model, Traced(str(path), cleaned, grouping, said)


def _near(name: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(name, known, n=NEAR, cutoff=0.5) or [one for one in known if name in one][:NEAR]
    return (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"its tensors are {', '.join(known[:NEAR])}, and so on."
    )


def _row(group: Group) -> GroupRow:
    reason = None if group.refusal is None else group.refusal.reason
    return GroupRow(group.name, group.size, group.producers, group.consumers, reason, group.stopper)
