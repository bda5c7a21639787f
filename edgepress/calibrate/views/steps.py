"""Rows of a recurrent operator: one for every step and sample, ``[x_t, h_{t-1}, 1]``.

The states ``h_{t-1}`` are read off the operator's output Y (teacher forcing): rows then depend on activations alone,
and gates become linear operators whose targets are their own pre-activations. In a GRU with ``linear_before_reset = 0``
the last gate reads ``r_t * h_{t-1}``, with the reset gate ``r_t = sigmoid(W_r x_t + R_r h_{t-1} + b_r)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgepress.calibrate.views.part import Arrays, draw
from edgepress.calibrate.views.source import Source


@dataclass(frozen=True, slots=True)
class Reset:
    """The reset gate of one direction of a GRU: its weights, recurrent weights and bias."""

    weights: Source
    recurrence: Source
    bias: tuple[Source, ...]

    def applied(self, constants: Arrays, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """``r * h`` for rows of inputs and states."""
        inner = x @ self.weights.read(constants[self.weights.tensor]).T
        inner += h @ self.recurrence.read(constants[self.recurrence.tensor]).T
        inner += sum(source.read(constants[source.tensor])[:, 0] for source in self.bias)
        return np.asarray(h / (1 + np.exp(-inner)))


@dataclass(frozen=True, slots=True)
class Steps:
    """Geometry of some gates of one direction.

    Attributes:
        source: the input X, [steps, samples, features].
        answer_of: the output Y, [steps, directions, samples, units].
        initial: the state it starts from, [directions, samples, units]; None: zeros.
        direction: number of the direction.
        backward: True when it runs from the last step to the first.
        reads: whether it reads X.
        remembers: whether it reads the states.
        constants: initializers of the model.
        reset: the reset gate, where it scales the states.
    """

    source: str
    answer_of: str
    initial: str | None
    direction: int
    backward: bool
    constants: Arrays = field(repr=False, compare=False)
    reads: bool = True
    remembers: bool = True
    reset: Reset | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Inputs, outputs and a computed initial state."""
        computed = [self.initial] if self.initial is not None and self.initial not in self.constants else []
        return (self.source, self.answer_of, *computed)

    @property
    def answer(self) -> None:
        """None: pre-activations of gates are no tensor."""

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """None: steps and samples are no channels."""
        return ()

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Steps."""
        return draw(len(values[self.source]), count, generator)

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Inputs of the steps: [steps * samples, features]."""
        x = values[self.source]
        picked = (x if chosen is None else x[chosen]).reshape(-1, x.shape[-1])
        return picked if self.reads else picked[:, :0]

    def states(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray | None:
        """States before the steps: [steps * samples, units]."""
        if not self.remembers:
            return None
        made = values[self.answer_of][:, self.direction]
        past = np.concatenate([made[1:], self._start(values)] if self.backward else [self._start(values), made[:-1]])
        picked = (past if chosen is None else past[chosen]).reshape(-1, past.shape[-1])
        if self.reset is None:
            return picked
        return self.reset.applied(self.constants, self.rows(values, chosen), picked)

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """Never asked for: there is no answer."""
        raise ValueError("the gates of a recurrent operator are no tensor")

    def _start(self, values: Arrays) -> np.ndarray:
        made = values[self.answer_of][:1, self.direction]
        if self.initial is None:
            return np.zeros_like(made)
        given = self.constants.get(self.initial)
        start = values[self.initial] if given is None else given
        return np.broadcast_to(start[self.direction][None], made.shape)
