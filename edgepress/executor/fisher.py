"""Score gradients: how much the answer feels each activation, sample by sample.

    g = d l / d y          per sample, for every activation y that is asked for

For a classifier ``l`` is the log-likelihood of a label drawn from the model's own answer at temperature T, so that
E[g g^T] is the true Fisher information (Tu 2016, section 2; Kunstner 2019 on why the label must be sampled) and no
labels are needed; for other models ``l`` is the product of the outputs with Gaussian noise, which makes E[g g^T] the
Gauss-Newton matrix of the squared error. A temperature above one spreads the labels of a confident network over its
classes. Where labels are known the log-likelihood of these gives the empirical Fisher information instead. Samples are
independent, so one backward pass over a chunk gives the gradients of all its samples.

Guarantee: deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from edgepress.errors import DataError
from edgepress.executor.gradients import gradients
from edgepress.executor.run import Executor

TEMPERATURE = 4.0
SMALLEST = 1e-37
"""Probabilities below this have no gradient: at temperature 4 one of 1e-20 is that of a label in a hundred thousand."""

NOTHING = 1e-7
"""Outputs of this size count as zero."""

Arrays = Mapping[str, np.ndarray]


def score_gradients(
    executor: Executor,
    chunks: Iterable[Arrays],
    tensors: Sequence[str],
    *,
    classifies: bool,
    temperature: float = TEMPERATURE,
    draws: int = 1,
    seed: int = 0,
) -> Iterator[tuple[Arrays, Arrays]]:
    """Activations and their score gradients, chunk by chunk.

    Args:
        executor: the model; parity is the caller's business.
        chunks: inputs.
        tensors: activations (graph inputs are allowed).
        classifies: the first output is logits or probabilities, ``[samples, classes]``.
        temperature: of the labels that are drawn.
        draws: how many labels are drawn for every sample; each gives the chunk once more.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return likelihood(outputs, temperature, generator) if classifies else noise(outputs, generator)

    for chunk in (chunk for chunk in chunks for _ in range(draws)):
        found = gradients(executor, chunk, loss, parameters=[], capture=list(tensors))
        yield (
            {name: tensor.numpy() for name, tensor in found.tensors.items()},
            {name: tensor.numpy() for name, tensor in found.tensor_gradients.items()},
        )


def likelihood(outputs: Mapping[str, torch.Tensor], temperature: float, generator: torch.Generator) -> torch.Tensor:
    """(one-hot of a drawn label - probabilities) . logits: its gradient is that of the log-likelihood."""
    logits = _logits(outputs)
    answer = torch.softmax(logits.detach() / temperature, dim=1)
    if not bool(torch.isfinite(answer).all()):
        raise DataError("The answers of this model hold NaN on these samples: mend the samples or the model.")
    return _toward(logits, answer, torch.multinomial(answer, 1, generator=generator))


def known_likelihood(outputs: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The same for labels that are known, int64 [samples], at temperature 1.

    Raises:
        DataError: a label that is no class of the model, or not one for every row of its output.
    """
    logits = _logits(outputs)
    classes = logits.shape[1]
    if len(labels) != len(logits):
        raise DataError(f"The model answers {len(logits)} rows to {len(labels)} labels: give one label per sample.")
    if not bool(((labels >= 0) & (labels < classes)).all()):
        wrong = int(labels[(labels < 0) | (labels >= classes)][0])
        raise DataError(f"A sample has the label {wrong}, but the model has the classes 0 to {classes - 1}: mend it.")
    return _toward(logits, torch.softmax(logits.detach(), dim=1), labels.reshape(-1, 1))


def _toward(logits: torch.Tensor, answer: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    direction = torch.zeros_like(answer).scatter_(1, labels, 1.0) - answer
    return (direction * logits).sum()


def _logits(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The first output as logits."""
    first = next(iter(outputs.values()))
    return torch.log(first.clamp_min(SMALLEST)) if _squashed(first) else first


def _squashed(outputs: torch.Tensor) -> bool:
    """Whether rows are probabilities already."""
    sums = outputs.detach().sum(1)
    return bool(outputs.detach().min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))


def noise(outputs: Mapping[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Outputs times Gaussian noise, each output weighing the same: in units of its size in one sample."""
    total = torch.zeros(())
    for value in outputs.values():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            samples = max(1, len(value)) if value.ndim else 1
            size = (value.detach().square().sum() / samples).sqrt().clamp_min(NOTHING)
            total = total + (noise * value).sum() / size
    return total
