"""Fisher information of activations: how much the answer feels an error at each output channel of a layer.

    G[c] = E over samples of  sum over positions of (d l / d y[c])^2

For a classifier ``l`` is the log-likelihood of a label drawn from the model's own answer at temperature T (the true Fisher,
Tu 2016, section 2; Kunstner 2019 on why the label must be sampled), so no labels are needed; for other models ``l`` is the
product of the outputs with Gaussian noise, whose squared gradients are the Gauss-Newton matrix of the squared error. A
temperature above one spreads the labels of a confident network over its classes. Samples are independent, so one backward
pass of a chunk gives the gradients of all its samples.

Guarantees: deterministic for a seed; non-negative; float64 sums in chunk order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgepress.executor.gradients import gradients
from edgepress.executor.run import Executor

TEMPERATURE = 4.0
DRAWS = 1
SMALLEST = 1e-7


def activation_fisher(
    executor: Executor,
    chunks: Sequence[Mapping[str, np.ndarray]],
    channels: Mapping[str, int],
    *,
    classifies: bool,
    temperature: float = TEMPERATURE,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The Fisher information of each channel of some activations.

    Args:
        executor: the model; parity is the caller's business.
        chunks: inputs.
        channels: activation -> the axis of its channels.
        classifies: the first output is logits or probabilities, ``[samples, classes]``.
        temperature: of the labels that are drawn.
        draws: labels drawn for every sample.
        seed: of the draws.

    Returns:
        float64 ``[channels]`` by activation.
    """
    generator = torch.Generator().manual_seed(seed)
    totals: dict[str, np.ndarray] = {}
    samples = 0
    for chunk in chunks:
        samples += len(next(iter(chunk.values())))
        for _ in range(draws):

            def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
                return _likelihood(outputs, temperature, generator) if classifies else _noise(outputs, generator)

            found = gradients(executor, chunk, loss, parameters=[], capture=list(channels))
            for name, slope in found.tensor_gradients.items():
                axes = [axis for axis in range(slope.ndim) if axis != channels[name] % slope.ndim]
                square = slope.double().square().sum(axes).numpy()
                totals[name] = totals[name] + square if name in totals else square
    return {name: total / max(1, samples * draws) for name, total in totals.items()}


def _likelihood(outputs: Mapping[str, torch.Tensor], temperature: float, generator: torch.Generator) -> torch.Tensor:
    """(one-hot of a drawn label - probabilities) . logits: its gradient is that of the log-likelihood."""
    first = next(iter(outputs.values()))
    logits = torch.log(first.clamp_min(SMALLEST)) if _squashed(first) else first
    answer = torch.softmax(logits.detach() / temperature, dim=1)
    drawn = torch.multinomial(answer, 1, generator=generator)
    direction = torch.zeros_like(answer).scatter_(1, drawn, 1.0) - answer
    return (direction * logits).sum()


def _squashed(outputs: torch.Tensor) -> bool:
    """Whether rows are probabilities already."""
    sums = outputs.detach().sum(1)
    return bool(outputs.detach().min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))


def _noise(outputs: Mapping[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Outputs times Gaussian noise, each output weighing the same."""
    total = torch.zeros(())
    for value in outputs.values():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            size = value.detach().square().sum().sqrt().clamp_min(SMALLEST)
            total = total + (noise * value).sum() / size
    return total
