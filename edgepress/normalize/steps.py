"""The steps in their order, and the loop that takes or skips each of them.

A step gets a private copy of the model and returns the rewritten model, or a Refusal. A rewritten model must load in
onnxruntime and answer as the ORIGINAL does (see :mod:`edgepress.normalize.parity`), else the step is skipped and the
reason recorded; the model before it goes on to the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import EncodeError

from edgepress.errors import ModelError, Refusal
from edgepress.model import Model
from edgepress.normalize import (
    affine,
    branches,
    constants,
    flatten,
    opset,
    padding,
    parity,
    passthrough,
    shapes,
    sharing,
    states,
    tidy,
)
from edgepress.normalize.feeds import Feed

Rewrite = Callable[[onnx.ModelProto, Sequence[Feed]], onnx.ModelProto | Refusal]

KNOWN_ERRORS = (
    ModelError,  # onnxruntime cannot evaluate or load
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
    EncodeError,  # something other than big weights is over 2 GiB
    RuntimeError,  # failed assertions inside the C++ converter and inliner
)


@dataclass(frozen=True)
class StepRecord:
    """What became of one step.

    Attributes:
        name: the step.
        changed: it changed the model.
        skipped: empty when it was done, else the reason in one sentence.
        worst: largest relative difference of an output from the original's (0 when nothing was compared).
    """

    name: str
    changed: bool
    skipped: str = ""
    worst: float = 0.0


@dataclass(frozen=True)
class Step:
    """One rewrite, of the main graph only: bodies of control flow stay as they are, and so does what they read."""

    name: str
    rewrite: Rewrite


def _plain(rewrite: Callable[[onnx.ModelProto], onnx.ModelProto | Refusal]) -> Rewrite:
    return lambda proto, _: rewrite(proto)


STEPS: tuple[Step, ...] = (
    Step("sort nodes", _plain(flatten.sort_nodes)),
    Step("inline functions", _plain(flatten.inline_functions)),
    Step("densify sparse weights", _plain(flatten.densify)),
    Step("separate weights from inputs", _plain(flatten.separate_weights)),
    Step("hoist constants", _plain(flatten.hoist_constants)),
    Step("name nodes", _plain(flatten.name_nodes)),
    Step("remove identities", _plain(passthrough.remove_passthrough)),
    Step("fold constants", _plain(constants.fold_constants)),
    Step("fold shape chains", shapes.fold_shapes),
    Step("take constant branches", branches.take_branches),
    Step("convert operator set", _plain(opset.convert)),
    Step("write padding", _plain(padding.write_padding)),
    Step("merge biases", _plain(affine.merge_biases)),
    Step("fold batch normalization", _plain(affine.fold_batch_normalization)),
    Step("write biases", _plain(affine.write_biases)),
    Step("separate fillers", _plain(sharing.separate_fillers)),
    Step("drop zero states", _plain(states.drop_zero_states)),
    Step("infer types", _plain(tidy.infer_types)),
    Step("remove unused", _plain(tidy.remove_unused)),
)


def take(model: Model, step: Step, against: parity.Reference) -> tuple[Model, StepRecord]:
    """Try one step: the new model if it agrees with the reference, else the old one; and the record."""
    proto = model.edit()
    try:
        rewritten = step.rewrite(proto, against.feeds)
        if isinstance(rewritten, Refusal):
            return model, StepRecord(step.name, False, f"Refused: {rewritten}.")
        candidate = Model.of(rewritten)
        if candidate.same(model):
            return model, StepRecord(step.name, False)
        worst = parity.difference(candidate, against)
    except KNOWN_ERRORS as error:
        return model, StepRecord(step.name, False, _sentence(error))
    if not worst <= against.limit:
        reason = f"An output would differ from the original's by {worst:.2g} (limit {against.limit:.0e})."
        if worst == float("inf"):
            reason = "An output would differ from the original's in shape, in type or by an infinite amount."
        return model, StepRecord(step.name, False, reason, worst)
    return candidate, StepRecord(step.name, True, "", worst)


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"It failed: {type(error).__name__}: {lines[0]}"
