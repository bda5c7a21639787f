"""Losses: labels, the answers of a teacher, inner tensors.

    (1 - kd) cross entropy(labels) + kd T^2 KL(teacher || student) at temperature T = 2        a classifier
    sum over outputs of |y - y_teacher|^2 / variance(y_teacher)                                anything else
    + features * mean over inner tensors of |h - h_teacher|^2 / variance(h_teacher)

Without labels kd is 1, without a teacher 0. Source: Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural
network"; Romero et al. 2015, "FitNets" (inner tensors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from edgepress.errors import DataError
from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.train.batches import Batch

TEMPERATURE = 2.0
SMALLEST = 1e-30

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
"""Operators whose outputs are compared inside."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network whose answers are to be given again.

    Attributes:
        executor: the network.
        features: inner tensors that the student has in the same shape.
    """

    executor: Executor
    features: tuple[str, ...] = ()

    def __call__(self, batch: Batch) -> Tensors:
        """Its outputs and features."""
        with torch.no_grad():
            return self.executor.forward(batch.inputs, capture=self.features)


@dataclass(frozen=True, slots=True)
class Loss:
    """What is trained for.

    Attributes:
        outputs: names of the graph outputs.
        classifies: the first output is logits or probabilities, [samples, classes].
        labels: whether labels count.
        teacher: whose answers count; None for nobody's.
        kd: weight of these beside the labels.
        features: weight of inner tensors.
    """

    outputs: tuple[str, ...]
    classifies: bool
    labels: bool
    teacher: Teacher | None
    kd: float
    features: float = 0.0

    @property
    def captured(self) -> tuple[str, ...]:
        """Inner tensors that the student must show."""
        return self.teacher.features if self.teacher is not None and self.features else ()

    def __call__(self, found: Tensors, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a mean over samples.

        Args:
            found: outputs and captured tensors of the student.
            batch: what it was given.
        """
        wanted = None if self.teacher is None else self.teacher(batch)
        total = torch.zeros((), device=next(iter(found.values())).device)
        kd = 0.0 if wanted is None else self.kd if self.labels else 1.0
        if self.labels and kd < 1 and batch.labels is not None:
            total = total + (1 - kd) * F.cross_entropy(logits(found[self.outputs[0]]), batch.labels)
        if wanted is not None and kd > 0:
            total = total + kd * self._answers(found, wanted)
        if wanted is not None and self.captured:
            apart = [relative_error(found[name], wanted[name]) for name in self.captured]
            total = total + self.features * torch.stack(apart).mean()
        return total

    def _answers(self, found: Tensors, wanted: Tensors) -> torch.Tensor:
        if self.classifies:
            name = self.outputs[0]
            return divergence(found[name], wanted[name])
        floats = [name for name in self.outputs if found[name].is_floating_point()]
        return torch.stack([relative_error(found[name], wanted[name]) for name in floats]).sum()


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """T^2 KL(teacher || student) at temperature T, a mean over rows."""
    mine, theirs = (torch.log_softmax(logits(each) / TEMPERATURE, 1) for each in (student, teacher))
    return F.kl_div(mine, theirs, log_target=True, reduction="batchmean") * TEMPERATURE**2


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error in units of the variance of what is wanted."""
    return (found - wanted).square().mean() / wanted.var().clamp_min(1e-12)


def logits(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs of a classifier as logits, whether they are logits or probabilities."""
    flat = outputs.reshape(len(outputs), -1)
    with torch.no_grad():
        sums = flat.sum(1)
        squashed = bool(flat.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
    return torch.log(flat.clamp_min(SMALLEST)) if squashed else flat


def shared_features(student: Model, teacher: Model, batch: Batch) -> tuple[str, ...]:
    """Inner tensors behind linear operators that both networks have under one name and in one shape."""
    names = [
        node.output
        for node in student.nodes
        if node.op in LINEAR and node.output not in student.outputs and teacher.producer(node.output) is not None
    ]
    shapes = [_shapes(Executor(model), names, batch) for model in (student, teacher)]
    return tuple(name for name in names if shapes[0][name] == shapes[1][name])


def _shapes(executor: Executor, names: Sequence[str], batch: Batch) -> dict[str, torch.Size]:
    found = executor.run({name: value[:2].cpu() for name, value in batch.inputs.items()}, capture=names)
    return {name: found[name].shape for name in names}


def check_labels(labels: np.ndarray | None, classes: int) -> None:
    """Labels are there and name classes of the model.

    Raises:
        DataError: they are not, or do not.
    """
    if labels is None:
        raise DataError("--labels trains on labels, but the samples have none: add them, or leave the option out.")
    if labels.ndim != 1 or ((labels < 0) | (labels >= classes)).any():
        raise DataError(f"The labels must be one class of 0..{classes - 1} for each sample: mend them.")
