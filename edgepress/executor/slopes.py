"""Runners for probes that need gradients: the executor under a named loss (``calibrate.run.Runner``).

    answer    log-likelihood of a label drawn from the model's own answer: the true Fisher information, without labels
    labels    log-likelihood of the labels of the samples: the empirical Fisher information
    outputs   outputs times Gaussian noise: the Gauss-Newton matrix of the outputs, J^T J

For a model that is no classifier all three are ``outputs``. Draws depend on the seed and the number of the chunk alone,
so chunks may run in any order and on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from edgepress.errors import DataError
from edgepress.executor.fisher import TEMPERATURE, known_likelihood, likelihood, noise
from edgepress.executor.gradients import gradients
from edgepress.executor.run import Executor

LOSSES = ("answer", "labels", "outputs")


class _Chunk(Protocol):
    """What a runner sees of a chunk."""

    @property
    def inputs(self) -> Mapping[str, np.ndarray]: ...

    @property
    def labels(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class SlopeRunner:
    """Runs chunks and takes the gradients of one loss; parity is the caller's business.

    Attributes:
        executor: the model.
        loss: one of ``LOSSES``.
        classifies: the first output is logits or probabilities, ``[samples, classes]``.
        seed: of the draws.
        temperature: of the labels that are drawn.
        mark: what the key of a gradient has behind the name of its tensor.
    """

    executor: Executor
    loss: str
    classifies: bool
    seed: int
    mark: str
    temperature: float = TEMPERATURE

    def __call__(
        self, number: int, chunk: _Chunk, tensors: Sequence[str], slopes: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Activations and gradients by name (``calibrate.run.Runner``).

        Raises:
            DataError: the loss needs labels and the samples have none.
        """
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))

        def loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            if not self.classifies or self.loss == "outputs":
                return noise(outputs, generator)
            if self.loss == "labels":
                return known_likelihood(outputs, _labels(chunk))
            return likelihood(outputs, self.temperature, generator)

        capture = list(dict.fromkeys((*tensors, *slopes)))
        found = gradients(self.executor, chunk.inputs, loss, parameters=[], capture=capture)
        values = {name: found.tensors[name].numpy() for name in tensors}
        return {**values, **{name + self.mark: found.tensor_gradients[name].numpy() for name in slopes}}


def _labels(chunk: _Chunk) -> torch.Tensor:
    if chunk.labels is None:
        raise DataError("This score is asked for with labels, but the samples have none: leave the labels out.")
    return torch.from_numpy(np.asarray(chunk.labels, np.int64))
