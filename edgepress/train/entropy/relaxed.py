"""Entropy-constrained training by soft assignment, the relaxation of the paper.

    P_ik = softmax_k(theta_ik)          weight i lies at grid point c_k = k D a       k = -K .. K
    mu_i = sum_k P_ik c_k               var_i = sum_k P_ik c_k^2 - mu_i^2
    y ~ N(mu x, var x^2)                local reparametrization: the noise of all weights of an output at once
    bits = n H(mean_i P_ik)             of a layer: the empirical probabilities, made differentiable

At every epoch each weight goes to its likeliest grid point; that model is judged and coded. It takes K numbers for
each weight and knows no contexts: :mod:`edgepress.train.entropy.straight` measured better. D, a and biases are trained.

Source: Wiedemann, Marban, Mueller & Samek 2018 (arXiv 1812.07520), section on the continuous relaxation; Kingma,
Salimans & Welling 2015 (local reparametrization).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from edgepress.model import Node
from edgepress.train.batches import DRAWS, Batch, torch_generator
from edgepress.train.entropy.layers import Layer
from edgepress.train.entropy.start import Start
from edgepress.train.entropy.straight import RAMP, ROW, STEP, UNIT_BITS, Straight
from edgepress.train.method import Moment, Terms

WIDEST = 7
"""Largest K: a layer has at most 15 grid points."""

SPREAD = 0.45
"""Standard deviation, in steps, of the assignments at the start."""

RATE = 50.0
"""Factor of the learning rate for theta."""

THETA = " theta"


class Relaxed(Straight):
    """Soft assignment."""

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """Mean weights, and everything else as it is."""
        found = dict(self.adam.values)
        for layer in self.layers:
            mean, _ = self._moments(layer)
            found[layer.name] = mean
            for mark in (STEP, ROW, THETA):
                found.pop(layer.name + mark, None)
        return found

    def terms(self, batch: Batch, moment: Moment) -> Terms:
        """The loss under the noise of the assignments, with the bits."""
        found = self._noisy(batch, moment)
        loss = self.setting.loss(found, batch)
        bits = torch.stack([self._bits(layer) for layer in self.layers]).sum()
        beta = (self.beta or 0.0) * min(1.0, moment.share / RAMP)
        return Terms(loss + beta * bits / UNIT_BITS, float(loss.detach()), float(bits.detach()))

    def _tensors(self, start: Start) -> dict[str, torch.Tensor]:
        values = super()._tensors(start)
        for layer in self.layers:
            whole = torch.from_numpy(start.whole[layer.name]).float().reshape(-1)
            reach = int(min(WIDEST, max(1.0, float(whole.abs().max()))))
            points = torch.arange(-reach, reach + 1)
            theta = -(whole[:, None] - points).square() / (2 * SPREAD**2)
            values[layer.name + THETA] = theta.clamp_min(-12.0).to(self.setting.device)
            del values[layer.name]
        return values

    def _rates(self, start: Start) -> dict[str, float]:
        own = {layer.name + THETA: RATE for layer in self.layers}
        return {**own, **{layer.name + STEP: 0.5 for layer in self.layers}}

    def _whole(self, layer: Layer) -> np.ndarray:
        theta = self.adam.values[layer.name + THETA].detach()
        chosen = theta.argmax(1) - theta.shape[1] // 2
        return chosen.reshape(layer.rows, -1).cpu().numpy().astype(np.int64)

    def _bits(self, layer: Layer) -> torch.Tensor:
        shares = torch.softmax(self.adam.values[layer.name + THETA], 1).mean(0)
        return -(shares * torch.log2(shares.clamp_min(1e-12))).sum() * math.prod(layer.shape)

    def _count(self, *, anew: bool) -> None:
        """Nothing is counted: the probabilities are those of the assignments."""

    def _moments(self, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of every weight, in the shape of the tensor."""
        theta = self.adam.values[layer.name + THETA]
        reach = theta.shape[1] // 2
        points = torch.arange(-reach, reach + 1, device=theta.device, dtype=theta.dtype)
        shares = torch.softmax(theta, 1)
        mean = shares @ points
        variance = (shares @ points.square() - mean.square()).clamp_min(0.0)
        scale = self.adam.values[layer.name + STEP].exp()
        if self.setting.settings.row_steps:
            scale = scale * self.adam.values[layer.name + ROW].exp().view(layer.broadcast())
        return self._shaped(layer, mean) * scale, self._shaped(layer, variance) * scale.square()

    def _shaped(self, layer: Layer, flat: torch.Tensor) -> torch.Tensor:
        moved = [layer.rows, *(size for axis, size in enumerate(layer.shape) if axis != layer.axis)]
        return flat.reshape(moved).movedim(0, layer.axis)

    def _noisy(self, batch: Batch, moment: Moment) -> dict[str, torch.Tensor]:
        """Outputs of the network with noise behind every layer."""
        parameters = dict(self.parameters())
        variances = {layer.node: (layer, self._moments(layer)[1]) for layer in self.layers if layer.node}
        generator = torch_generator(self.setting.settings.seed, DRAWS, moment.step)
        values: dict[str, torch.Tensor | np.ndarray] = dict(batch.inputs)
        for node in self.executor.nodes:
            made = self.executor.apply(node, values, parameters)
            if node.name in variances and _plain(node):
                layer, variance = variances[node.name]
                spread = self._spread(node, layer, variance, values, parameters)
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
