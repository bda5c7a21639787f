"""Kronecker factors of a network that is being trained: moving averages, slices, spectral radii.

    A <- KEEP A + (1 - KEEP) mean of x x^T        inputs of a linear operator, with a one for the bias
    G <- KEEP G + (1 - KEEP) mean of g g^T        gradients of its outputs, labels drawn from the network's own answer
    radius = max over operators of lmax(A) lmax(G)

When units go, their rows and columns go from both factors; what is left stays a moving average. Beside the radius of
this block-diagonal approximation stands that of the loss's true Hessian, by power iteration on products with it.

Source: Ebrahimi & Klabjan 2021 (arXiv 2111.08577); Martens & Grosse 2015; Pearlmutter 1994 (products with the Hessian).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.calibrate.fits import Fit, fits_of
from edgepress.calibrate.statistics import Gram, SplitGram
from edgepress.errors import UnsupportedError
from edgepress.executor import Executor, gradients
from edgepress.executor.fisher import likelihood, noise
from edgepress.model import Model
from edgepress.train.batches import Batch
from edgepress.train.losses import Loss
from edgepress.train.ranks import Ranks

KEEP = 0.9
"""Weight of what was seen before."""

ROWS = 4096
"""Rows of an operator that a look at a batch takes."""

TURNS = 60
"""Steps of a power iteration."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Both factors of one linear operator.

    Attributes:
        inputs: A, float64 [columns + biases, the same].
        slopes: G, float64 [outputs, outputs].
        positions: rows of one sample.
    """

    inputs: np.ndarray
    slopes: np.ndarray
    positions: float

    def mixed(self, new: Factor) -> Factor:
        """The moving average after another look."""
        return Factor(
            KEEP * self.inputs + (1 - KEEP) * new.inputs, KEEP * self.slopes + (1 - KEEP) * new.slopes, new.positions
        )

    def cut(self, outputs: np.ndarray, columns: np.ndarray) -> Factor:
        """What is left when outputs and columns go; both are masks of what stays."""
        return Factor(self.inputs[np.ix_(columns, columns)], self.slopes[np.ix_(outputs, outputs)], self.positions)

    @property
    def radius(self) -> float:
        """Spectral radius of A (x) G."""
        return float(np.linalg.eigvalsh(self.inputs)[-1] * np.linalg.eigvalsh(self.slopes)[-1])


Factors = Mapping[str, Factor]
"""By the name of the fit."""


def observed(executor: Executor, batch: Batch, classifies: bool, generator: torch.Generator, seed: int) -> Factors:
    """One look at a batch: the factors of every linear operator whose outputs are a tensor.

    Args:
        executor: the network with its weights of now.
        batch: the samples.
        classifies: the first output is that of a classifier.
        generator: draws labels or noise.
        seed: of the positions that are looked at.
    """
    fits = linear(executor.model)
    parts = [part for fit in fits for part in fit.parts]
    answers = list(dict.fromkeys(str(part.geometry.answer) for part in parts))
    tensors = list(dict.fromkeys(name for part in parts for name in part.geometry.tensors))

    def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        moved = {name: value.cpu() for name, value in outputs.items()}
        return likelihood(moved, 1.0, generator) if classifies else noise(moved, generator)

    found = gradients(executor, batch.inputs, loss, parameters=[], capture=list(dict.fromkeys([*tensors, *answers])))
    values = {name: found.tensors[name].cpu().numpy() for name in tensors}
    slopes = {name: found.tensor_gradients[name].cpu().numpy() for name in answers}
    return {fit.name: _factor(fit, values, slopes, len(batch), seed) for fit in fits}


def linear(model: Model) -> list[Fit]:
    """The linear operators of a model whose outputs are a tensor."""
    fits, _ = fits_of(model, [node.name for node in model.nodes])
    return [fit for fit in fits if all(part.geometry.answer is not None for part in fit.parts)]


def shared(factors: Factors, ranks: Ranks) -> Factors:
    """The mean of the factors that the processes have seen."""
    if ranks.size == 1:
        return factors
    tensors = {
        name: [torch.from_numpy(each).to(ranks.device) for each in (own.inputs, own.slopes)]
        for name, own in factors.items()
    }
    ranks.average([each for pair in tensors.values() for each in pair])
    return {
        name: Factor(pair[0].cpu().numpy(), pair[1].cpu().numpy(), factors[name].positions)
        for name, pair in tensors.items()
    }


def mixed(before: Factors, new: Factors) -> Factors:
    """Moving averages after another look."""
    return {name: before[name].mixed(own) if name in before else own for name, own in new.items()}


def radius(factors: Factors) -> float:
    """The largest spectral radius of an operator."""
    return max((own.radius for own in factors.values()), default=0.0)


def hessian_radius(executor: Executor, values: Mapping[str, torch.Tensor], loss: Loss, batch: Batch) -> float:
    """The largest eigenvalue, in size, of the Hessian of the loss by the trained weights, by power iteration.

    Args:
        executor: the network.
        values: its trained weights.
        loss: what is trained for.
        batch: the samples.

    Returns:
        The eigenvalue; NaN where torch has no second derivative of an operator.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(leaf.shape, generator=generator).to(leaf.device) for leaf in leaves.values()]
    found = float("nan")
    try:
        with torch.enable_grad():
            outputs = executor.forward(batch.inputs, capture=loss.captured, parameters=leaves)
            slopes = torch.autograd.grad(loss(outputs, batch), list(leaves.values()), create_graph=True)
            for _ in range(TURNS // 3):
                direction = _scaled(direction)
                product = torch.stack([(a * b).sum() for a, b in zip(slopes, direction, strict=True)]).sum()
                turned = torch.autograd.grad(product, list(leaves.values()), retain_graph=True)
                found = float(sum((a * b).sum() for a, b in zip(turned, direction, strict=True)))
                direction = [each.detach() for each in turned]
    except (RuntimeError, UnsupportedError):  # an operator without a second derivative, or an unused weight
        return float("nan")
    return abs(found)


def leading(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Largest eigenvalue of a positive semidefinite matrix and its vector, by power iteration."""
    vector = np.ones(len(matrix)) / np.sqrt(len(matrix))
    value = 0.0
    for _ in range(TURNS):
        turned = matrix @ vector
        value = float(np.linalg.norm(turned))
        if value < 1e-300:
            return 0.0, vector
        vector = turned / value
    return value, vector


def _scaled(direction: list[torch.Tensor]) -> list[torch.Tensor]:
    norm = torch.stack([each.square().sum() for each in direction]).sum().sqrt().clamp_min(1e-30)
    return [each / norm for each in direction]


def _factor(
    fit: Fit, values: Mapping[str, np.ndarray], slopes: Mapping[str, np.ndarray], samples: int, seed: int
) -> Factor:
    splits, total, rows = [], np.zeros((fit.outputs, fit.outputs)), 0
    for part in fit.parts:
        chosen = part.choose(values, max(1, ROWS // max(1, samples)), np.random.default_rng(seed))
        inputs = part.rows(values, chosen)
        splits.append(SplitGram.of(Gram.of(inputs, np.zeros((len(inputs), fit.outputs))), 0))
        felt = part.geometry.outputs(slopes[str(part.geometry.answer)], None).astype(np.float64)
        total += felt.T @ felt
        rows += len(felt)
    gram = fit.joined(splits).whole
    return Factor(gram.inner / gram.rows, total / max(1, rows), rows / max(1, samples))
