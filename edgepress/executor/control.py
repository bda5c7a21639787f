"""If, Loop and Scan: bodies run by the executor itself, as often as the host says.

Conditions, trip counts and sequence lengths are read on the host; everything else stays in the torch graph, so
gradients flow through the branch that was taken and through every turn of a loop. Meaning as in the ONNX operator
reference (If-1, Loop-1, Scan-9):

    If     the outputs of ``then_branch`` or ``else_branch``
    Loop   ``(i, condition, *carried) -> (condition, *carried, *slices)`` while the condition holds and ``i < M``;
           slices are stacked along a new first axis
    Scan   ``(*states, *slices in) -> (*states, *slices out)`` along an axis of each scanned input

A value that is a host value before the loop and after each turn stays one (shape arithmetic in a loop).
A Loop without a turn has empty stacks whose other axes only a stated shape can tell; without one it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from edgepress.errors import UnsupportedError
from edgepress.executor.known import Known, hosted
from edgepress.executor.program import Program, Scope, label
from edgepress.executor.values import Place, Value, array_of, truth
from edgepress.model import Node, TensorType

_T = TypeVar("_T")

Compile = Callable[[str, Mapping[int, bool]], Program]
"""Makes a body ready: name of the attribute, and which of its inputs (by number) are host values."""


@dataclass(frozen=True, slots=True)
class IfStep:
    """One of two branches."""

    node: Node
    branches: tuple[Program, Program]
    place: Place

    @property
    def reads(self) -> tuple[str, ...]:
        """The condition and what the branches take from around them."""
        return (*self.node.inputs, *self.branches[0].free, *self.branches[1].free)

    @property
    def hosts(self) -> tuple[bool, ...]:
        """Where both branches give a host value."""
        return tuple(map(min, *(branch.hosts for branch in self.branches)))

    @property
    def bodies(self) -> tuple[Program, ...]:
        """Both branches."""
        return self.branches

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """Run the branch the condition asks for."""
        condition = _asked(self.node, truth, scope.find(self.node.inputs[0]))
        taken = self.branches[0 if condition else 1]
        return settled(self.place, self.hosts, taken.call(scope, ()))


@dataclass(frozen=True, slots=True)
class LoopStep:
    """A body run again and again.

    Attributes:
        node: the node; its inputs are trip count, condition and the first carried values.
        body: inputs ``(turn, condition, *carried)``, outputs ``(condition, *carried, *slices)``.
        place: where tensors live.
        empty: per stack its types as the body states them, for a loop without a turn.
    """

    node: Node
    body: Program
    place: Place
    empty: tuple[TensorType, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs and what the body takes from around it."""
        return (*self.node.inputs, *self.body.free)

    @property
    def hosts(self) -> tuple[bool, ...]:
        """What the body gives as host values."""
        return self.body.hosts[1:]

    @property
    def bodies(self) -> tuple[Program, ...]:
        """The body."""
        return (self.body,)

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """Run the turns."""
        count, condition, *carried = [scope.find(name) if name else None for name in self.node.inputs]
        turns = None if count is None else int(_asked(self.node, array_of, count).reshape(()))
        going = True if condition is None else _asked(self.node, truth, condition)
        hosts = self.hosts
        values = settled(self.place, hosts[: len(carried)], [value for value in carried if value is not None])
        stacks: list[list[Value]] = [[] for _ in self.empty]
        turn = 0
        while going and (turns is None or turn < turns):
            made = self.body.call(scope, (np.array(turn, np.int64), np.array(going), *values))
            going = _asked(self.node, truth, made[0])
            made = settled(self.place, hosts, made[1:])
            values = made[: len(values)]
            for stack, value in zip(stacks, made[len(values) :], strict=True):
                stack.append(value)
            turn += 1
        return (*values, *map(self._stacked, stacks, hosts[len(values) :], self.empty))

    def _stacked(self, stack: Sequence[Value], host: bool, kind: TensorType) -> Value:
        if stack:
            return stacked(self.node, stack, 0)
        sizes = [size for size in kind.shape or (None,) if isinstance(size, int)]
        if kind.shape is None or len(sizes) < len(kind.shape) or kind.dtype == "unknown":
            raise UnsupportedError(
                f"{label(self.node)} makes no turn, and its body states no shape for what it would stack: "
                "state the shapes of the body's outputs."
            )
        nothing = np.zeros((0, *sizes), kind.dtype)
        return nothing if host else self.place.tensor(nothing)


@dataclass(frozen=True, slots=True)
class ScanStep:
    """A body run along an axis of its inputs.

    Attributes:
        node: the node; its inputs are the first states, then the scanned tensors.
        body: inputs ``(*states, *slices)``, outputs ``(*states, *slices)``.
        place: where tensors live.
        states: number of states.
    """

    node: Node
    body: Program
    place: Place
    states: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs and what the body takes from around it."""
        return (*self.node.inputs, *self.body.free)

    @property
    def hosts(self) -> tuple[bool, ...]:
        """None: a scan works on tensors."""
        return (False,) * len(self.node.outputs)

    @property
    def bodies(self) -> tuple[Program, ...]:
        """The body."""
        return (self.body,)

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """Run along the scanned axes."""
        given = [self.place.tensor(scope.find(name)) for name in self.node.inputs]
        states: tuple[Value, ...] = tuple(given[: self.states])
        scanned = [self._slices(number, tensor) for number, tensor in enumerate(given[self.states :])]
        lengths = {len(slices) for slices in scanned}
        if len(lengths) != 1 or 0 in lengths:
            raise UnsupportedError(f"{label(self.node)} scans lengths {sorted(lengths)}: give inputs of one length.")
        turns = []
        for slices in zip(*scanned, strict=True):
            made = settled(self.place, (False,) * len(self.body.outputs), self.body.call(scope, (*states, *slices)))
            states = made[: self.states]
            turns.append(made[self.states :])
        return (*states, *(self._joined(number, stack) for number, stack in enumerate(zip(*turns, strict=True))))

    def _slices(self, number: int, tensor: torch.Tensor) -> list[torch.Tensor]:
        slices = list(tensor.unbind(self._setting("scan_input_axes", number)))
        return slices[::-1] if self._setting("scan_input_directions", number) else slices

    def _joined(self, number: int, stack: Sequence[Value]) -> Value:
        backwards = self._setting("scan_output_directions", number)
        return stacked(self.node, stack[::-1] if backwards else stack, self._setting("scan_output_axes", number))

    def _setting(self, name: str, number: int) -> int:
        given = self.node.attributes.get(name, ())
        return int(given[number]) if given else 0


def if_step(node: Node, known: Known, place: Place, compile_body: Compile) -> IfStep:
    """An If, ready to run."""
    then, otherwise = compile_body("then_branch", {}), compile_body("else_branch", {})
    return IfStep(node, (then, otherwise), place)


def loop_step(node: Node, known: Known, place: Place, compile_body: Compile) -> LoopStep:
    """A Loop, ready to run: carried values stay on the host where a turn leaves them there."""
    carried = [hosted(known, name) for name in node.inputs[2:]]
    while True:
        hosts = dict(enumerate((True, True, *carried)))
        body = compile_body("body", hosts)
        stay = [before and after for before, after in zip(carried, body.hosts[1:], strict=False)]
        if stay == carried:
            break
        carried = stay
    # a value that enters as a tensor leaves as one, whatever the turns make of it: there may be none
    flags = (body.hosts[0], *carried, *body.hosts[1 + len(carried) :])
    return LoopStep(node, replace(body, hosts=flags), place, body.kinds[1 + len(carried) :])


def scan_step(node: Node, known: Known, place: Place, compile_body: Compile) -> ScanStep:
    """A Scan, ready to run."""
    states = len(node.inputs) - int(node.attributes["num_scan_inputs"])
    return ScanStep(node, compile_body("body", {}), place, states)


CONTROL: Mapping[str, Callable[[Node, Known, Place, Compile], IfStep | LoopStep | ScanStep]] = {
    "If": if_step,
    "Loop": loop_step,
    "Scan": scan_step,
}
"""By operator; the rows of these name no kernel."""


def settled(place: Place, hosts: Iterable[bool], values: Sequence[Value]) -> tuple[Value, ...]:
    """Each value where it belongs: on the host or a tensor."""
    return tuple(array_of(value) if host else place.tensor(value) for host, value in zip(hosts, values, strict=True))


def stacked(node: Node, stack: Sequence[Value], axis: int) -> Value:
    """One value out of those of all turns."""
    arrays = [value for value in stack if isinstance(value, np.ndarray)]
    tensors = [value for value in stack if isinstance(value, torch.Tensor)]
    if len({tuple(value.shape) for value in stack}) != 1:
        raise UnsupportedError(f"{label(node)} stacks tensors of different shapes: the turns must agree.")
    return torch.stack(tensors, axis) if tensors else np.stack(arrays, axis)


def _asked(node: Node, reader: Callable[[Value], _T], value: Value) -> _T:
    """Read a number that steers the node; errors name the node."""
    try:
        return reader(value)
    except UnsupportedError as error:
        raise UnsupportedError(f"{label(node)} cannot run in torch: {error}.") from error
