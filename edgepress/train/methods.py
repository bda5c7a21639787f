"""Methods by name, and the random start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.train.entropy.relaxed import Relaxed
from edgepress.train.entropy.straight import Straight
from edgepress.train.method import Method, Plain, Setting
from edgepress.train.pruning.anneal import Anneal
from edgepress.train.pruning.flat import Flat
from edgepress.train.pruning.masks import Masked

METHODS: Mapping[str, Callable[[Setting], Method]] = {
    "distil": Plain,
    "flat": Flat,
    "anneal": Anneal,
    "mint": Masked,
    "entropy": lambda setting: (Straight if setting.settings.form == "straight" else Relaxed)(setting),
}


def method_of(setting: Setting) -> Method:
    """The method that the settings name, ready to train."""
    return METHODS[setting.settings.method](setting)


def figures_of(method: Method, model: Model) -> dict[str, float]:
    """What a method has found out about the model that is handed over."""
    tell = getattr(method, "figures", None)
    return {} if tell is None else dict(tell(model))


def scratched(model: Model, seed: int) -> Model:
    """The model with random weights (He et al. 2015: variance 2 / inputs), biases of zero.

    Vectors that are no bias of a weighted operator (scales of normalizations) stay as they are.
    """
    generator = np.random.default_rng([seed, 0x5CA7C4])
    changed: dict[str, np.ndarray] = {}
    for node in model.nodes:
        if node.op not in WEIGHTED or node.inputs[1] not in Executor(model).trainable:
            continue
        weight = model.constants[node.inputs[1]]
        outputs = weight.shape[output_axis(node.op, node.attributes)]
        drawn = generator.standard_normal(weight.shape) * math.sqrt(2 * outputs / weight.size)
        changed[node.inputs[1]] = drawn.astype(weight.dtype)
        if len(node.inputs) > 2 and node.inputs[2] in model.constants:
            changed[node.inputs[2]] = np.zeros_like(model.constants[node.inputs[2]])
    return model.with_constants(changed)
