"""Adam (Kingma & Ba 2015) whose state is plain arrays: it can be saved, and sliced when units are removed.

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
    w <- w - lr * rate_w * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

``rate_w`` is a factor of each tensor: latents are moved in units of their step, for instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgepress.train.ranks import Ranks

FIRST, SECOND, SMALL = 0.9, 0.999, 1e-8

LARGEST = 5.0
"""Norm that the gradients of all tensors together are cut to: one bad batch must not throw the weights about."""


class Adam:
    """The tensors that are trained, and what Adam remembers of them.

    Attributes:
        values: the tensors by name; leaves with ``requires_grad``.
        rates: factor of the learning rate by name, 1 where there is none.
        steps: how many were made.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], rates: Mapping[str, float] | None = None) -> None:
        """Begin with nothing remembered."""
        self.values = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
        self.rates = dict(rates or {})
        self.first = {name: torch.zeros_like(value) for name, value in self.values.items()}
        self.second = {name: torch.zeros_like(value) for name, value in self.values.items()}
        self.steps = 0

    def step(self, loss: torch.Tensor, lr: float, ranks: Ranks) -> bool:
        """One step down; False, and nothing changes, where a gradient is not finite."""
        names, leaves = list(self.values), list(self.values.values())
        found: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, leaves, allow_unused=True)
        slopes = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        ranks.average(slopes)
        norm = float(torch.sqrt(sum((g.square().sum() for g in slopes), torch.zeros((), device=leaves[0].device))))
        if not math.isfinite(norm):
            return False
        self.steps += 1
        with torch.no_grad():
            for name, slope in zip(names, slopes, strict=True):
                self._move(name, slope.mul_(min(1.0, LARGEST / max(norm, 1e-30))), lr * self.rates.get(name, 1.0))
        return True

    def _move(self, name: str, slope: torch.Tensor, lr: float) -> None:
        first, second, value = self.first[name], self.second[name], self.values[name]
        first.lerp_(slope, 1 - FIRST)
        second.mul_(SECOND).addcmul_(slope, slope, value=1 - SECOND)
        size = (second / (1 - SECOND**self.steps)).sqrt_().add_(SMALL)
        value.addcdiv_(first, size, value=-lr / (1 - FIRST**self.steps))

    def put(self, name: str, value: torch.Tensor) -> None:
        """Give a tensor other values of the same shape; what is remembered stays."""
        with torch.no_grad():
            self.values[name].copy_(value)

    def cut(self, kept: Mapping[str, Sequence[np.ndarray | None]]) -> None:
        """Keep some positions of the axes of some tensors; those of others stay whole."""
        for name, axes in kept.items():
            if name in self.values:
                self.values[name] = _sliced(self.values[name].detach(), axes).requires_grad_()
                self.first[name], self.second[name] = (_sliced(m[name], axes) for m in (self.first, self.second))

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays."""
        found = {"adam/steps": np.array(self.steps)}
        for kind, tensors in (("value", self.values), ("first", self.first), ("second", self.second)):
            found |= {f"adam/{kind}/{name}": t.detach().cpu().numpy().copy() for name, t in tensors.items()}
        return found

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`; shapes may have become others since the start."""
        self.steps = int(arrays["adam/steps"])
        for name, value in list(self.values.items()):
            given = {
                kind: torch.from_numpy(arrays[f"adam/{kind}/{name}"].copy()) for kind in ("value", "first", "second")
            }
            placed = {kind: tensor.to(value.device) for kind, tensor in given.items()}
            self.values[name] = placed["value"].requires_grad_()
            self.first[name], self.second[name] = placed["first"], placed["second"]


def rate_at(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first twentieth, then down to zero along a cosine."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))


def _sliced(tensor: torch.Tensor, axes: Sequence[np.ndarray | None]) -> torch.Tensor:
    for axis, positions in enumerate(axes):
        if positions is not None:
            tensor = tensor.index_select(axis, torch.from_numpy(np.asarray(positions)).to(tensor.device))
    return tensor.clone()
