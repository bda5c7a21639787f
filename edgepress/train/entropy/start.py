"""Where entropy-constrained training starts: steps by sensitivity, numbers by joint rounding.

Steps follow from the squared gradients of labels drawn from the network's own answers. The whole numbers come from one
joint pass (``quantize.weights.joint``): second-order rounding of every layer under the inputs it really gets, then the
mean of its outputs is matched. (Measured: it saves the first minute of training against rounding to the nearest.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.executor import Executor
from edgepress.executor.fisher import TEMPERATURE, likelihood, noise
from edgepress.model import Model
from edgepress.quantize.weights.joint import Joint, Wanted
from edgepress.quantize.weights.lattice import on_grid
from edgepress.surgery.cut import Cutting
from edgepress.surgery.fold import fold
from edgepress.train.batches import DRAWS, Batch, Batches, torch_generator
from edgepress.train.entropy.layers import Layer, steps_from

SAMPLES = 512
"""Samples of the joint pass."""

DRAWN = 16
"""Batches that sensitivities are the mean of."""

SIZE = 64
ROWS = 16_000
"""Rows of a layer's moments."""


@dataclass(frozen=True)
class Start:
    """Rounded weights.

    Attributes:
        whole: numbers by layer, [rows, columns].
        steps: of every layer.
        others: biases after the pass, by name.
    """

    whole: Mapping[str, np.ndarray]
    steps: Mapping[str, float]
    others: Mapping[str, np.ndarray]


def start_of(
    model: Model, layers: tuple[Layer, ...], batches: Batches, *, classifies: bool, entropy: float, seed: int
) -> Start:
    """Round a model for training.

    Args:
        model: the float model.
        layers: what is rounded.
        batches: samples.
        classifies: the first output is that of a classifier.
        entropy: bits of a weight to start from.
        seed: of drawn labels.
    """
    felt = sensitivities(model, layers, batches, classifies=classifies, seed=seed)
    steps = {name: float(on_grid(np.array(step))) for name, step in steps_from(felt, layers, model, entropy).items()}
    wanted = {
        layer.node: Wanted(scale=np.full(layer.rows, steps[layer.name], np.float32)) for layer in layers if layer.node
    }
    joint = Joint(model, wanted)
    inputs = _chunks(batches.first(SAMPLES))
    made = fold(
        model, Cutting(model, {}), inputs, positions=max(1, ROWS // SAMPLES), seed=seed, workers=1, finish=joint
    )
    whole = {}
    for layer in layers:
        found = joint.rounded.get(layer.node)
        same = found is not None and bool((found.scale == np.float32(steps[layer.name])).all())
        nearest = np.rint(layer.matrix(model.constants[layer.name]) / steps[layer.name])
        whole[layer.name] = layer.matrix(found.values).astype(np.float64) if found is not None and same else nearest
    names = {layer.name for layer in layers}
    return Start(whole, steps, {name: array for name, array in made.constants.items() if name not in names})


def sensitivities(
    model: Model, layers: tuple[Layer, ...], batches: Batches, *, classifies: bool, seed: int
) -> dict[str, float]:
    """Mean square of the gradients of every layer's weights, for one sample: the trace of its Fisher information."""
    executor = Executor(model)
    leaves = {layer.name: executor.parameters[layer.name].clone().requires_grad_() for layer in layers}
    total = dict.fromkeys(leaves, 0.0)
    for number in range(DRAWN):
        batch = batches.first(SIZE, number + 1)
        inputs = {name: value.cpu() for name, value in batch.inputs.items()}
        generator = torch_generator(seed, DRAWS, number)
        with torch.enable_grad():
            found = executor.forward(inputs, parameters=leaves)
            outputs = {name: found[name] for name in model.outputs}
            value = likelihood(outputs, TEMPERATURE, generator) if classifies else noise(outputs, generator)
            slopes = torch.autograd.grad(value, list(leaves.values()))
        for name, slope in zip(leaves, slopes, strict=True):
            total[name] += float(slope.square().mean()) / (len(batch) * DRAWN)  # independent samples: squares add up
    return total


def _chunks(batch: Batch, size: int = 32) -> list[dict[str, np.ndarray]]:
    arrays = {name: value.cpu().numpy() for name, value in batch.inputs.items()}
    return [{name: array[at : at + size] for name, array in arrays.items()} for at in range(0, len(batch), size)]
