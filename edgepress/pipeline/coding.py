"""Round a model for a coded file, as a plan says: whole numbers times steps that the coder recognizes.

One joint pass (``quantize.weights.joint``) refits every layer toward the original, rounds it to multiples of its one
step and matches its outputs; gains and biases go to where the coder finds them (``quantize.weights.lattice``). The
result is a float model; :mod:`edgepress.codec` codes it without loss. ``compress`` tries decisions with :func:`coded`
and ``apply`` replays them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepress import codec
from edgepress.codec.files import encode_bytes
from edgepress.executor.trainable import trainable
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.pipeline.build import cutting_of, folded, marked
from edgepress.pipeline.context import Context
from edgepress.plan import STEPS, Coding, Cut, Plan
from edgepress.quantize import has_float32_weight
from edgepress.quantize.storage.slim import lean
from edgepress.quantize.weights.joint import Joint, Wanted, round_nearest
from edgepress.quantize.weights.lattice import on_grid, settled_vector
from edgepress.quantize.weights.nearest import Rounded
from edgepress.request import CODED_SUFFIX
from edgepress.storage import write_atomically

FEWEST = 64
"""Numbers of the smallest table that has a step of its own; smaller constants are settled as biases are."""

FINE = 1 / 8
"""Step of a table as a share of the root mean square of its numbers."""


@dataclass(frozen=True)
class Coded:
    """A float model as a coded file holds it.

    Attributes:
        model: the model, lean.
        whole: the whole numbers of its weights [rows, columns], by node; without those that were rounded alone.
    """

    model: Model
    whole: Mapping[str, np.ndarray]


def coded(context: Context, cuts: Sequence[Cut], coding: Coding) -> Coded:
    """Remove channels, round what is left, and make it lean."""
    cutting = cutting_of(context, cuts)
    wanted = {name: Wanted(step=step, rate=coding.rate) for name, step in coding.steps.items()}
    wanted |= {name: Wanted(lattice=True) for name in coding.channels}
    joint = Joint(cutting.model, wanted)
    made = folded(context, cutting, joint)
    changed = dict(_left(made, wanted, joint))
    changed |= {name: _table(made.constants[name], step) for name, step in coding.tables.items()}
    weights = {made.node(name).inputs[1] for name in wanted}
    biases = {name for node in made.nodes if node.name in coding.steps for name in node.inputs[2:]}
    kept = {name for node in made.nodes if node.op in WEIGHTED and node.name not in wanted for name in node.inputs}
    for name in trainable(made):
        if name not in changed.keys() | weights | kept and _is_vector(made.constants[name]):
            changed[name] = settled_vector(made.constants[name], many=name in biases)
    whole = {name: _rows(item) for name, item in joint.rounded.items()}
    return Coded(lean(made.with_constants(changed)), whole)


def _rows(item: Rounded) -> np.ndarray:
    """Whole numbers of a weight as the coder reads them, [rows, columns]."""
    front = np.moveaxis(item.values, item.axis, 0)
    return np.asarray(front.reshape(len(front), -1).astype(np.int64))


def tables_of(model: Model, kept: Sequence[str] = ()) -> dict[str, float]:
    """Steps of constants that no weighted node multiplies by, by tensor.

    Args:
        model: the float model.
        kept: names of nodes that stay as they are, with all they read.
    """
    weighted = {node.inputs[1] for node in model.nodes if has_float32_weight(model, node)}
    untouched = {name for node in model.nodes if node.name in kept for name in node.inputs}
    names = [name for name in trainable(model) if name not in weighted | untouched]
    arrays = {name: model.constants[name] for name in names}
    steps = {name: fine_step(array) for name, array in arrays.items() if _is_table(array)}
    return {name: step for name, step in steps.items() if STEPS[0] <= step <= STEPS[1]}


def fine_step(values: np.ndarray) -> float:
    """A step that loses little (29 dB), on the grid of the coder."""
    size = float(np.sqrt(np.square(values, dtype=np.float64).mean())) or 1.0
    return float(on_grid(np.array(FINE * size)))


def save(model: Model, plan: Plan, output: Path) -> int:
    """Write a finished model to an ONNX file, or to a coded one where the name says so; returns its bytes.

    A coded file holds nothing that edgepress says about a model: its plan and its report do.
    """
    if output.suffix != CODED_SUFFIX:
        finished = marked(model, plan)
        finished.save(output)
        return finished.size
    data = encode_bytes(lean(model).data, output).data
    write_atomically(output, data)
    return len(data)


def coded_size(model: Model) -> int:
    """Bytes of the coded file of a model."""
    return codec.coded_size(lean(model).data)


def _is_vector(values: np.ndarray) -> bool:
    """What is settled as a bias is; a mask with infinities is not."""
    few = values.ndim < 2 or values.size < FEWEST
    return values.dtype == np.float32 and values.size > 1 and few and bool(np.isfinite(values).all())


def _is_table(values: np.ndarray) -> bool:
    """What has a step of its own."""
    many = values.ndim > 1 and values.size >= FEWEST
    return values.dtype == np.float32 and many and bool(np.isfinite(values).all())


def _left(model: Model, wanted: Mapping[str, Wanted], joint: Joint) -> Mapping[str, np.ndarray]:
    """Weights that the joint pass did not come by, rounded to the nearest."""
    found: dict[str, np.ndarray] = {}
    done = {model.node(name).inputs[1] for name in joint.rounded}
    for name in wanted:
        node: Node = model.node(name)
        if node.inputs[1] in done:
            continue
        rounded = round_nearest(model.constants[node.inputs[1]], output_axis(node.op, node.attributes), wanted[name])
        found[node.inputs[1]] = rounded.weight
    return found


def _table(values: np.ndarray, step: float) -> np.ndarray:
    return np.asarray(np.rint(values / np.float32(step)).astype(np.float32) * np.float32(step) + np.float32(0))
