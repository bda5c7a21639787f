"""What a training method is, and the plain one: all weights, one loss, nothing removed or rounded.

The loop asks a method for its loss at every step, moves its tensors, tells it that a step or an epoch is over, and asks
for the model it would hand over now. Which of the models that were seen is the best is decided by the loop, by
``rank``: the lower the better, None for one that does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
import torch

from edgepress.executor import Executor, write_back
from edgepress.model import Model
from edgepress.quality import Verdict
from edgepress.train.adam import Adam, rate_at
from edgepress.train.batches import Batch, Batches
from edgepress.train.losses import Loss
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training stands.

    Attributes:
        step: number of the step, from 0.
        steps: how many there will be.
    """

    step: int
    steps: int

    @property
    def share(self) -> float:
        """Share of the steps that lie behind."""
        return self.step / max(1, self.steps)


@dataclass(frozen=True, slots=True)
class Terms:
    """A loss and what it is made of.

    Attributes:
        total: what is minimized.
        task: the part without bits.
        bits: what the weights cost; NaN where nobody counts.
    """

    total: torch.Tensor
    task: float
    bits: float = float("nan")


@dataclass(frozen=True, slots=True)
class Found:
    """A model that was judged.

    Attributes:
        model: what would be handed over.
        verdict: on the hold-out samples.
        parameters: weights that are not zero, or that a coder is told, as the method counts.
        coded_bytes: of the weights in the coded file; None where the method does not code.
    """

    model: Model
    verdict: Verdict
    parameters: int
    coded_bytes: int | None = None


@dataclass(frozen=True)
class Setting:
    """What every method works with.

    Attributes:
        model: the network that training starts from.
        loss: what it is trained for.
        batches: the samples.
        settings: the options.
        ranks: the processes.
        device: where tensors live.
    """

    model: Model
    loss: Loss
    batches: Batches
    settings: Settings
    ranks: Ranks
    device: str


class Method(Protocol):
    """A way to train."""

    setting: Setting
    adam: Adam
    notes: list[str]

    @property
    def weights(self) -> int:
        """Weights that are trained, or that bits are counted of."""
        ...

    def terms(self, batch: Batch, moment: Moment) -> Terms:
        """The loss of a batch."""
        ...

    def rate(self, moment: Moment) -> float:
        """Share of the learning rate that a step is made with."""
        ...

    def stepped(self, moment: Moment) -> None:
        """A step was made; ``moment`` is the one behind it."""
        ...

    def judged(self, found: Found, moment: Moment) -> None:
        """An epoch is over and its model was judged."""
        ...

    def found(self) -> tuple[Model, int, int | None]:
        """The model as it would be handed over, its weights that count, and their coded bytes."""
        ...

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """How good a model is: lower is better; None where it does not count."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything it needs to go on."""
        ...

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        ...


@dataclass
class Plain:
    """Train all weights as they are; also the base of methods that do more."""

    setting: Setting
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the network ready."""
        self.executor = Executor(self.setting.model, device=self.setting.device)
        self.adam = Adam({name: self.executor.parameters[name] for name in self.executor.trainable}, self.rates())

    @property
    def weights(self) -> int:
        """Weights that are trained."""
        return sum(value.numel() for value in self.adam.values.values())

    def rates(self) -> dict[str, float]:
        """Factors of the learning rate by initializer."""
        return {}

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """The initializers as the network reads them now."""
        return self.adam.values

    def terms(self, batch: Batch, moment: Moment) -> Terms:
        """The loss of a batch."""
        found = self.executor.forward(batch.inputs, capture=self.setting.loss.captured, parameters=self.parameters())
        loss = self.setting.loss(found, batch)
        return Terms(loss, float(loss.detach()))

    def rate(self, moment: Moment) -> float:
        """Up, then down along a cosine."""
        return rate_at(moment.step, moment.steps)

    def stepped(self, moment: Moment) -> None:
        """Nothing happens between steps."""

    def judged(self, found: Found, moment: Moment) -> None:
        """Nothing happens between epochs."""

    def current(self) -> Model:
        """The network with its weights as they are now."""
        return write_back(self.executor.model, {name: value.detach() for name, value in self.parameters().items()})

    def found(self) -> tuple[Model, int, int | None]:
        """The network as it is."""
        model = self.current()
        return model, model.parameters, None

    def rank(self, found: Found) -> tuple[float, ...] | None:
        """The better on the hold-out samples."""
        return badness(found.verdict)

    def state(self) -> dict[str, np.ndarray]:
        """What is trained; the graph where it is no longer that of the start."""
        own = self.adam.state()
        if self.executor.model is not self.setting.model:
            own["model"] = np.frombuffer(self.executor.model.data, np.uint8)
        return own

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from :meth:`state`."""
        if "model" in arrays:
            self.executor = Executor(read_model(arrays["model"].tobytes()), device=self.setting.device)
        self.adam.restore(arrays)


def read_model(data: bytes) -> Model:
    """A model that was serialized."""
    return Model.of(onnx.load_model_from_string(data))


def badness(verdict: Verdict) -> tuple[float, ...]:
    """How bad a model is on the hold-out samples: the measure itself, then the divergence."""
    if verdict.measure == "accuracy":
        return (-verdict.after, verdict.kl)
    return (verdict.kl,) if verdict.measure == "agreement" else (-verdict.sqnr,)


def within(verdict: Verdict) -> bool:
    """Whether a model loses no more than it may, on the hold-out samples themselves."""
    return verdict.state != "over"
