"""The gates of LSTM, GRU and RNN as linear operators, direction by direction.

    W [D, gates H, I], R [D, gates H, H], B [D, 2 gates H]      rows [x_t, h_{t-1}, 1] (calibrate.views.steps)

Gates that read the same rows make one part: all four of an LSTM, the one of an RNN, update and reset gate of a GRU. The
last gate of a GRU reads ``r_t * h_{t-1}``; with ``linear_before_reset`` it is ``W x + b`` and, apart from it,
``R h + b``, so these are two parts. The two halves of B are added; a fit writes the first one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgepress.calibrate.views.part import Part
from edgepress.calibrate.views.source import Source
from edgepress.calibrate.views.steps import Reset, Steps
from edgepress.model import Model, Node


def recurrent(model: Model, node: Node) -> tuple[Part, ...] | str:
    """Gates that read the same rows make one part, in each direction."""
    given = [*node.inputs, *[""] * 8][:8]
    known = [model.constants.get(name) for name in given]
    weight, recurrence, bias = known[1:4]
    if weight is None or recurrence is None or (given[3] and bias is None):
        return "its weights are computed, not constant"
    if given[4] or node.attributes.get("layout", 0):
        return "its samples have lengths of their own, or come first"
    if not node.outputs[0]:
        return "it does not give its states at every step"
    before = bool(node.attributes.get("linear_before_reset", 0))
    if node.op == "GRU" and not before and not standard_reset(node):
        return "its reset gate is not a sigmoid"
    hidden = recurrence.shape[2]
    direction = str(node.attributes.get("direction", "forward"))
    parts = []
    for number in range(weight.shape[0]):
        backward = direction == "reverse" or number == 1
        geometry = Steps(node.inputs[0], node.outputs[0], given[5] or None, number, backward, model.constants)
        gates = Gates(model, node, number, hidden, geometry)
        parts += gates.gru(before) if node.op == "GRU" else [gates.part("gates", range(weight.shape[1]))]
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Gates:
    """Parts of one direction of a recurrent operator.

    Attributes:
        model: the model.
        node: the operator.
        number: number of the direction.
        hidden: hidden units.
        geometry: rows that read inputs and states.
    """

    model: Model
    node: Node
    number: int
    hidden: int
    geometry: Steps

    def matrix(self, slot: int, gates: range) -> Source:
        """Weights (slot 1) or recurrent weights (slot 2) of some rows."""
        name = self.node.inputs[slot]
        shape = self.model.constants[name].shape
        return Source(name, shape, (self._own(), gates, range(shape[2])), (0, 1, 2), 2)

    def bias(self, gates: range, halves: tuple[int, ...] = (0, 1)) -> tuple[Source, ...]:
        """Their biases: the one of the inputs (0) and the one of the states (1)."""
        name = self.node.inputs[3] if len(self.node.inputs) > 3 else ""
        if not name:
            return ()
        shape = self.model.constants[name].shape
        parts = (range(gates.start + half * shape[1] // 2, gates.stop + half * shape[1] // 2) for half in halves)
        return tuple(Source(name, shape, (self._own(), part), (0, 1), 2) for part in parts)

    def part(self, what: str, gates: range, geometry: Steps | None = None) -> Part:
        """One part that reads inputs and states."""
        sources = (self.matrix(1, gates), self.matrix(2, gates))
        return self._part(what, geometry or self.geometry, sources, self.bias(gates))

    def gru(self, before: bool) -> list[Part]:
        """Update and reset gate together; the last gate sees the states through the reset gate."""
        size = self.hidden
        reset, last = range(size, 2 * size), range(2 * size, 3 * size)
        both = self.part("update and reset gate", range(2 * size))
        if not before:
            gate = Reset(self.matrix(1, reset), self.matrix(2, reset), self.bias(reset))
            return [both, self.part("hidden gate", last, dataclasses.replace(self.geometry, reset=gate))]
        inputs, states = (self.matrix(1, last),), (self.matrix(2, last),)
        only_inputs = dataclasses.replace(self.geometry, remembers=False)
        only_states = dataclasses.replace(self.geometry, reads=False)
        return [
            both,
            self._part("hidden gate, inputs", only_inputs, inputs, self.bias(last, (0,))),
            self._part("hidden gate, states", only_states, states, self.bias(last, (1,))),
        ]

    def _part(self, what: str, geometry: Steps, sources: tuple[Source, ...], bias: tuple[Source, ...]) -> Part:
        name = f"{self.node.name} ({what}, direction {self.number})"
        return Part(name, self.node, geometry, sources, bias, (self.node.name,), self.model.constants)

    def _own(self) -> range:
        return range(self.number, self.number + 1)


def standard_reset(node: Node) -> bool:
    """Whether the gates use the default activation function, as it is."""
    attributes = node.attributes
    names = attributes.get("activations", ())
    bent = attributes.keys() & {"activation_alpha", "activation_beta", "clip"}
    return all(str(name).lower() == "sigmoid" for name in names[::2]) and not bent
