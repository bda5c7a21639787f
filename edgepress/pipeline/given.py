"""What the user says about single nodes and tensors, checked against the cleaned model before any work.

``--keep-float`` names nodes that stay float. ``--overrides`` gives ranges of activations, levels and scales of weights
(``quantize.activations.overrides``). Both speak of the cleaned model: nodes and tensors that cleaning folded away (a
BatchNormalization into its Conv) are no more.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgepress.errors import InputError
from edgepress.levels import INT8
from edgepress.model import Model
from edgepress.plan import Quantization
from edgepress.quantize.activations.overrides import activation_ranges, read_overrides, weight_levels, weight_scales
from edgepress.quantize.activations.ranges import activations_to_observe
from edgepress.quantize.graph.regions import has_float32_weight
from edgepress.request import Request
from edgepress.targets import Target

NEAR = 3
"""Names to suggest, at most."""


@dataclass(frozen=True)
class Given:
    """What overrides say, in the terms of a plan.

    Attributes:
        ranges: of activations, by tensor.
        levels: of weights, by node.
        scales: of weights, by node, one for every output channel.
        idle: activations whose range changes nothing, as no integer form has them as integers.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    def into(self, settings: Quantization, source: Model, cleaned: Model) -> Quantization:
        """Settings with what is given; a layer that pruning made narrower gets scales of its own."""
        whole = {
            name: scales
            for name, scales in self.scales.items()
            if _weight_shape(source, name) == _weight_shape(cleaned, name)
        }
        few = {name: count for name, count in self.levels.items() if count < INT8 and name not in settings.float_nodes}
        return dataclasses.replace(
            settings, given_ranges=self.ranges, given_scales=whole, levels={**settings.levels, **few}
        )

    @property
    def decided(self) -> frozenset[str]:
        """Nodes whose width is settled."""
        return frozenset({*self.levels, *self.scales})


def given_by(request: Request, model: Model, target: Target) -> Given:
    """What the overrides of a request say about the cleaned model.

    Raises:
        InputError: they cannot be read, or speak of what is not there.
    """
    if request.overrides is None:
        return Given()
    found = read_overrides(Path(request.overrides), model)
    ranges = {name: (item.low, item.high) for name, item in activation_ranges(found).items()}
    scales = {name: tuple(map(float, scale)) for name, scale in weight_scales(model, found).items()}
    if scales and request.fixed_point:
        raise InputError(
            f"{request.overrides} gives weight scales, which --fixed-point would not keep: leave one of them out."
        )
    known = set(activations_to_observe(model, (), target))
    idle = tuple(name for name in ranges if name not in known)
    return Given(ranges, weight_levels(model, found), scales, idle)


def check_kept_float(names: Sequence[str], original: Model, cleaned: Model) -> None:
    """Return if every name is that of a node with weights that could become integers.

    Raises:
        InputError: it is not; says why, and names the nearest.
    """
    weighted = [node.name for node in cleaned.nodes if has_float32_weight(cleaned, node)]
    nodes = {node.name: node for node in cleaned.nodes}
    for name in names:
        if name in weighted:
            continue
        near = difflib.get_close_matches(name, weighted, n=NEAR, cutoff=0.5)
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "edgepress compress -v lists the layers."
        if name in nodes:
            problem = f"is a {nodes[name].op} without weights that could become integers, it is float as it is"
        elif any(node.name == name for node in original.nodes):
            problem = "is no more after cleaning, which folded it into another node"
        else:
            problem = "is the name of no node"
        raise InputError(f"--keep-float {name!r} {problem}: {advice}")


def _weight_shape(model: Model, name: str) -> tuple[int, ...]:
    return model.constants[model.node(name).inputs[1]].shape
