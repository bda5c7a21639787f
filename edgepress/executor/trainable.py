"""Which initializers training may change, chosen by what reads them.

The operator table says what each input of an operator is. A float initializer is trainable if some use of it is a
weight, bias, scale or table, or data with more than one element (a bias Add, the scale of an exported
LayerNormalization, a positional embedding). Not trainable are statistics, bounds, states, shapes and positions, single
numbers in arithmetic, what takes part in shape arithmetic, and what is only compared, counted or rounded.

Identity, Transpose, Cast, Reshape and their kin count as what reads their result. An initializer with one of the
frozen uses is not trained at all, whatever its other uses are: exporters merge equal constants, and a bias of zeros
that is the running mean of a BatchNormalization too must not move it. A tied weight is one name.

Initializers inside the bodies of If, Loop and Scan are constants; those of the main graph count by their uses in there
too. The first values of what a loop carries are states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

import numpy as np
import torch

from edgepress.executor.build import FLOATS, compiled
from edgepress.executor.control import IfStep, LoopStep, ScanStep
from edgepress.executor.functions import FunctionStep
from edgepress.executor.known import is_float
from edgepress.executor.program import KernelStep, Program, Step
from edgepress.executor.values import Place
from edgepress.model import Model
from edgepress.ops.row import TRAINED, Input


class Use(Enum):
    """What one use says about a constant."""

    TRAINED = "trained"
    OPERAND = "operand"  # trained if it holds more than one element
    FROZEN = "frozen"


ALIASES = frozenset({"Identity", "Transpose", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
"""Operators whose first output holds the elements of their first input, each once."""

_COMPARED = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf", "And", "Or", "Xor", "Not")
_COUNTED = ("ArgMax", "ArgMin", "NonZero", "Sign", "Ceil", "Floor", "Round", "CastLike", "EyeLike", "OneHot")

BLIND = frozenset((*_COMPARED, *_COUNTED))
"""Operators whose result does not change, or only in jumps, when a constant moves a little."""


def trainable(model: Model) -> tuple[str, ...]:
    """Float initializers of a model that training may change, in the order of the graph.

    Raises:
        UnsupportedError: an operator that the executor does not run.
        ModelError: a node reads a tensor that nothing before it makes.
    """
    return trained_names(compiled(model, Place(torch.device("cpu"))), model.constants)


def trained_names(program: Program, constants: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """As :func:`trainable`, for a graph that was compiled already."""
    floats = {name: array.size for name, array in constants.items() if is_float(array.dtype)}
    uses: dict[str, set[Use]] = {name: set() for name in floats}
    for name, use in _uses(program, {name: name for name in floats}):
        uses[name].add(use)
    return tuple(name for name, size in floats.items() if _moves(uses[name], size))


def _moves(uses: set[Use], size: int) -> bool:
    return Use.FROZEN not in uses and (Use.TRAINED in uses or (Use.OPERAND in uses and size > 1))


def _uses(program: Program, origin: Mapping[str, str]) -> Iterator[tuple[str, Use]]:
    """Every use of the initializers that the names in ``origin`` stand for."""
    known = dict(origin)
    for step in program.steps:
        if isinstance(step, KernelStep) and _is_alias(step) and step.node.inputs[0] in known:
            known[step.node.output] = known[step.node.inputs[0]]
        else:
            yield from _uses_of(step, known)


def _uses_of(step: Step, known: Mapping[str, str]) -> Iterator[tuple[str, Use]]:
    if isinstance(step, KernelStep):
        if not step.host and step.node.op not in BLIND:
            kinds = ((step.row.kind(slot), name) for slot, name in enumerate(step.node.inputs))
            yield from ((known[name], _use(kind)) for kind, name in kinds if name in known)
    elif isinstance(step, FunctionStep):
        formals = zip(step.body.inputs, step.inputs, strict=True)
        yield from _uses(step.body, {formal: known[actual] for formal, actual in formals if actual in known})
    elif isinstance(step, (IfStep, LoopStep, ScanStep)):
        yield from ((known[name], Use.FROZEN) for name in step.node.inputs if name in known)
        for body in step.bodies:
            yield from _uses(body, {name: known[name] for name in body.free if name in known})


def _use(kind: Input) -> Use:
    if kind in TRAINED:
        return Use.TRAINED
    return Use.OPERAND if kind is Input.DATA else Use.FROZEN


def _is_alias(step: KernelStep) -> bool:
    if step.node.op == "Cast":
        return step.node.attributes.get("to") in FLOATS
    return step.node.op in ALIASES
