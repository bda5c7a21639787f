"""How far the output of every layer is from what the cleaned model makes of the same samples.

    10 log10( sum y^2 / sum (y - y')^2 )         over a few hold-out samples

Nodes keep their names through rounding, so a layer is found by the name of its node; what other nodes do to the result
of an integer product (its scales, a bias) is followed. Of a layer that lost channels those that are left are compared.
Samples go one by one and layers in slices, so memory stays flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgepress import runtime
from edgepress.model import Model
from edgepress.pipeline.context import Context, inputs_of
from edgepress.quantize.graph.regions import elements, typed

SAMPLES = 8
"""Hold-out samples that layers are compared on."""

SLICE = 8 << 20
"""Elements of the tensors that are looked at in one run."""


def layer_sqnr(
    context: Context, model: Model, nodes: Sequence[str], removed: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Signal-to-noise ratio in dB of the output of every node that both models have.

    Args:
        context: holds the cleaned model and the samples.
        model: the model that was made of it.
        nodes: names of nodes.
        removed: output channels that are gone, by node.
    """
    before = typed(context.model)
    known = {node.name for node in model.nodes}
    chunks = inputs_of(context.hold_out, SAMPLES, chunk=1)
    found: dict[str, float] = {}
    for part in _slices(before, [name for name in nodes if name in known and before.node(name).output]):
        signal, noise = np.zeros(len(part)), np.zeros(len(part))
        tensors = list(zip(*(_ends(before, model, name) for name in part), strict=True))
        opened = [runtime.session(each.exposing(names)) for each, names in zip((before, model), tensors, strict=True)]
        for chunk in chunks:
            ours, theirs = (runtime.run(each, chunk, names) for each, names in zip(opened, tensors, strict=True))
            for place, name in enumerate(part):
                y, other = ours[tensors[0][place]], theirs[tensors[1][place]]
                signal[place] += float(np.square(y, dtype=np.float64).sum())
                noise[place] += _noise(y, other, removed.get(name))
        found |= {name: _ratio(signal[place], noise[place]) for place, name in enumerate(part)}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _ends(before: Model, model: Model, name: str) -> tuple[str, str]:
    """The tensors of both models that hold the result of one layer."""
    old, new = before.node(name), model.node(name)
    biased = old.op == "Gemm" and any(old.inputs[2:])
    if new.op == "MatMulInteger":  # then Cast, Mul, and Add of a bias
        return old.output, _behind(model, new.output, 3 if biased else 2)
    if new.op != "MatMulNBits":
        return old.output, new.output
    inside = len(new.inputs) > 5  # the bias, of an Add if the node had none
    return _behind(before, old.output, int(inside and not biased)), _behind(
        model, new.output, int(biased and not inside)
    )


def _behind(model: Model, tensor: str, steps: int) -> str:
    """What some nodes, each the only reader of the one before, make of a tensor."""
    for _ in range(steps):
        tensor = model.consumers(tensor)[0].output
    return tensor


def _noise(y: np.ndarray, other: np.ndarray, removed: np.ndarray | None) -> float:
    """Squared difference; NaN where the two are not the same tensor."""
    if other.dtype.kind != "f":
        return math.nan
    if removed is not None:
        axis = 1 if y.ndim > 2 else y.ndim - 1
        y = np.delete(y, removed[removed < y.shape[axis]], axis=axis)
    return float(np.square(y.astype(np.float64) - other).sum()) if y.shape == other.shape else math.nan


def _ratio(signal: float, noise: float) -> float:
    if math.isnan(noise):
        return math.nan
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _slices(model: Model, names: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    used = 0
    for name in names:
        amount = elements(model, model.node(name).output)
        if part and used + amount > SLICE:
            yield part
            part, used = [], 0
        part.append(name)
        used += amount
    if part:
        yield part
