"""Entropy-constrained training by soft assignment, the relaxation of the paper.

    P_ik = softmax_k(-(w_i / D - k)^2 / (2 s^2))    weight i lies at grid point c_k = k D a
    mu_i = sum_k P_ik c_k                           var_i = sum_k P_ik c_k^2 - mu_i^2
    y ~ N(mu x, var x^2)                            local reparametrization: noise of all weights of an output at once
    bits = n H(mean_i P_ik)                         of a layer: the empirical probabilities, made differentiable

The paper's numbers theta_ik are the distances to the grid here, not free ones: with free ones bits do not depend on the
step D, the grid stays as fine as it was at the start, and training saves little (measured on LeNet-300-100: D of the
first two layers did not move, where straight-through training makes it 2 and 3 times as large). The assignments become
sharper while training goes on, s from ``WIDE`` to ``NARROW``; of the grid only the ``NEAR`` nearest points count.

At every epoch each weight goes to its likeliest grid point; that model is judged and coded. It knows no contexts of the
coder: :mod:`edgepress.train.entropy.straight` measured better. D, a and biases are trained along.

Source: Wiedemann, Marban, Mueller & Samek 2018 (arXiv 1812.07520), section on the continuous relaxation; Kingma,
Salimans & Welling 2015 (local reparametrization).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.model import Node
from edgepress.train.batches import DRAWS, Batch, torch_generator
from edgepress.train.entropy.layers import REACH, Layer
from edgepress.train.entropy.straight import RAMP, ROW, STEP, UNIT_BITS, Straight
from edgepress.train.method import Moment, Terms

WIDE, NARROW = 0.45, 0.25
"""Width of an assignment in steps, at the start and at the end."""

NEAR = 4
"""Grid points that a weight is assigned to."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The weights of a layer, softly assigned.

    Attributes:
        points: numbers of the nearest grid points, [NEAR, *shape].
        shares: P of them.
        mean: of every weight, in units of its step.
        variance: the same, in squared units.
    """

    points: torch.Tensor
    shares: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    def bits(self) -> torch.Tensor:
        """Bits of all weights by the mean of their assignments; slopes are those of n H."""
        places = (self.points.detach() + REACH + NEAR).long()
        held = self.shares.detach().double().flatten().cpu()  # a GPU adds in another order every time
        counts = torch.bincount(places.flatten().cpu(), weights=held, minlength=2 * (REACH + NEAR) + 1)
        costs = -torch.log2((counts / counts.sum()).clamp_min(1e-12)).to(self.shares)
        return (self.shares * costs[places]).sum()


class Relaxed(Straight):
    """Soft assignment."""

    width = WIDE

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """Mean weights, and everything else as it is."""
        return self._means({layer: self._assigned(layer) for layer in self.layers})

    def terms(self, batch: Batch, moment: Moment) -> Terms:
        """The loss under the noise of the assignments, with the bits."""
        self.width = WIDE + (NARROW - WIDE) * min(1.0, moment.share)
        assigned = {layer: self._assigned(layer) for layer in self.layers}
        found = self._noisy(batch, moment, assigned)
        loss = self.setting.loss(found, batch)
        bits = torch.stack([each.bits() for each in assigned.values()]).sum()
        beta = (self.beta or 0.0) * min(1.0, moment.share / RAMP)
        return Terms(loss + beta * bits / UNIT_BITS, float(loss.detach()), float(bits.detach()))

    def _bits(self, layer: Layer) -> torch.Tensor:
        return self._assigned(layer).bits()

    def _count(self, *, anew: bool) -> None:
        """Nothing is counted: the probabilities are those of the assignments."""

    def _assigned(self, layer: Layer) -> Assigned:
        """Assignments of now, in the shape of the tensor."""
        steps = (self.adam.values[layer.name] / self.adam.values[layer.name + STEP].exp()).clamp(-REACH, REACH)
        offsets = torch.arange(NEAR, device=steps.device, dtype=steps.dtype) - (NEAR // 2 - 1)
        points = steps.detach().floor() + offsets.view(-1, *[1] * steps.ndim)
        apart = points - steps
        shares = torch.softmax(-apart.square() / (2 * self.width**2), 0)
        moved = (shares * apart).sum(0)
        variance = (shares * apart.square()).sum(0) - moved.square()
        return Assigned(points, shares, steps + moved, variance.clamp_min(0.0))

    def _scale(self, layer: Layer) -> torch.Tensor:
        """Step of every weight, to be broadcast."""
        scale = self.adam.values[layer.name + STEP].exp()
        if self.setting.settings.row_steps:
            scale = scale * self.adam.values[layer.name + ROW].exp().view(layer.broadcast())
        return scale

    def _means(self, assigned: Mapping[Layer, Assigned]) -> dict[str, torch.Tensor]:
        found = dict(self.adam.values)
        for layer, each in assigned.items():
            for mark in (STEP, ROW):
                found.pop(layer.name + mark, None)
            found[layer.name] = each.mean * self._scale(layer)
        return found

    def _noisy(self, batch: Batch, moment: Moment, assigned: Mapping[Layer, Assigned]) -> dict[str, torch.Tensor]:
        """Outputs of the network with noise behind every layer."""
        parameters = self._means(assigned)
        variances = {layer.node: (layer, each.variance) for layer, each in assigned.items() if layer.node}
        generator = torch_generator(self.setting.settings.seed, DRAWS, moment.step)
        values: dict[str, torch.Tensor | np.ndarray] = dict(batch.inputs)
        for node in self.executor.nodes:
            made = self.executor.apply(node, values, parameters)
            if node.name in variances and _plain(node):
                layer, variance = variances[node.name]
                spread = self._spread(node, layer, variance * self._scale(layer).square(), values, parameters)
                drawn = torch.randn(spread.shape, generator=generator).to(spread.device)
                made = (made[0] + spread * drawn, *made[1:])
            values.update({name: value for name, value in zip(node.outputs, made, strict=True) if name})
        wanted = (*self.setting.loss.outputs, *self.setting.loss.captured)
        return {name: value for name in wanted if isinstance(value := values[name], torch.Tensor)}

    def _spread(
        self,
        node: Node,
        layer: Layer,
        variance: torch.Tensor,
        values: Mapping[str, torch.Tensor | np.ndarray],
        parameters: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Standard deviation of the outputs of a layer: the same operator on squares."""
        source = values[node.inputs[0]]
        if not isinstance(source, torch.Tensor):
            raise TypeError(f"{node.name} reads a shape")
        squares = {**values, node.inputs[0]: source.square()}
        biases = {name: torch.zeros_like(parameters[name]) for name in node.inputs[2:] if name in parameters}
        (found,) = self.executor.apply(node, squares, {**parameters, layer.name: variance, **biases})
        return torch.sqrt(found.clamp_min(0.0) + 1e-10)


def _plain(node: Node) -> bool:
    """Whether the operator on squares gives the variance: no factor in front of it."""
    return float(node.attributes.get("alpha", 1.0)) == 1.0
