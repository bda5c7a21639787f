"""A graph made ready to run: one step per node, and when each value is read for the last time.

A :class:`Program` is the main graph, the body of an If, Loop or Scan, or the function body of an operator. A
:class:`Scope` says what names mean while it runs; bodies see the names around them. A step runs one node; here are the
steps of plain operators, those with bodies are in :mod:`edgepress.executor.control` and
:mod:`edgepress.executor.functions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgepress.errors import ModelError, UnsupportedError
from edgepress.executor.values import Place, Tensors, Value, array_of
from edgepress.model import Node, TensorType
from edgepress.ops.kernels import Call, Kernel
from edgepress.ops.row import Op


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean: activations first, then the parameters given for this run, then those of the executor."""

    values: Mapping[str, Value]
    overrides: Tensors | None
    parameters: Tensors

    def find(self, name: str) -> Value:
        """The value of a tensor that is visible here."""
        found = self.values.get(name)
        if found is None and self.overrides is not None:
            found = self.overrides.get(name)
        return self.parameters[name] if found is None else found

    def around(self, program: Program) -> dict[str, Value]:
        """The activations here that a body reads, by name (parameters it finds by itself)."""
        return {name: self.values[name] for name in program.free if name in self.values}


class Step(Protocol):
    """One node, ready to run."""

    @property
    def node(self) -> Node:
        """The node."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names it reads, those its bodies take from around them included."""

    @property
    def hosts(self) -> tuple[bool, ...]:
        """Which outputs are host values."""

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """The outputs in order."""


@dataclass(frozen=True, slots=True)
class KernelStep:
    """A node run by the kernel of its row.

    Attributes:
        node: the node.
        row: its row of the operator table.
        kernel: the function.
        call: what the function is told beside its inputs.
        place: where its tensors live; the host for shape arithmetic.
        plain: outputs are left as the kernel makes them.
        host: the outputs are host values.
        arrays: input slots the kernel reads as numpy arrays, with the element type of the file where it is known.
        tensors: input slots that may hold host values and must become tensors.
    """

    node: Node
    row: Op
    kernel: Kernel
    call: Call
    place: Place
    plain: bool
    host: bool
    arrays: tuple[tuple[int, np.dtype | None], ...]
    tensors: tuple[int, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs."""
        return self.node.inputs

    @property
    def hosts(self) -> tuple[bool, ...]:
        """All outputs or none."""
        return (self.host,) * len(self.node.outputs)

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """Call the kernel.

        Raises:
            UnsupportedError: an attribute or element type the kernel does not run.
            ModelError: torch cannot run the node on these shapes.
        """
        inputs = [scope.find(name) if name else None for name in self.node.inputs]
        try:
            if self.arrays or self.tensors:
                self._prepare(inputs)
            result = self.kernel(self.call, *inputs)
            made = result if isinstance(result, tuple) else (result,)
            if self.host:
                return tuple(array_of(value) for value in made)
        except (UnsupportedError, NotImplementedError, UserWarning) as error:
            # warnings come as errors where the caller asked for it: a rule of torch.func that is missing
            raise UnsupportedError(f"{label(self.node)} cannot run in torch: {str(error).rstrip('.')}.") from error
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{label(self.node)} does not fit its inputs, check their shapes: {reason}") from error
        return made if self.plain else tuple(self.place.tensor(value) for value in made)

    def _prepare(self, inputs: list[Value | None]) -> None:
        for slot, dtype in self.arrays:
            value = inputs[slot]
            if value is not None:
                inputs[slot] = array_of(value, dtype)
        for slot in self.tensors:
            value = inputs[slot]
            if value is not None:
                inputs[slot] = self.place.tensor(value)


@dataclass(frozen=True, slots=True)
class MeasureStep:
    """Shape or Size: Python integers from the start."""

    node: Node

    @property
    def reads(self) -> tuple[str, ...]:
        """The input."""
        return self.node.inputs

    @property
    def hosts(self) -> tuple[bool, ...]:
        """One host value."""
        return (True,)

    def run(self, scope: Scope) -> tuple[Value, ...]:
        """The sizes from ``start`` to ``end``, or the number of elements."""
        sizes = tuple(scope.find(self.node.inputs[0]).shape)
        if self.node.op == "Size":
            return (np.array(int(np.prod(sizes, dtype=np.int64)), np.int64),)
        first, last = self.node.attributes.get("start", 0), self.node.attributes.get("end")
        return (np.array(sizes[first:last], np.int64),)


@dataclass(frozen=True, slots=True)
class Program:
    """A graph ready to run.

    Attributes:
        steps: the nodes in order.
        releases: per step the values nobody reads after it.
        inputs: names of the formal inputs.
        outputs: names of the results, in order.
        free: names read from around the graph.
        constants: initializers of the graph itself; empty for the main graph, whose initializers are parameters.
        hosts: which outputs are host values.
        kinds: the types the file states for the outputs.
    """

    steps: tuple[Step, ...]
    releases: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[str, ...]
    constants: Mapping[str, Value]
    hosts: tuple[bool, ...]
    kinds: tuple[TensorType, ...]

    def call(self, scope: Scope, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Run as the body of a node.

        Args:
            scope: what names mean around the body.
            inputs: values of :attr:`inputs`.
        """
        values: dict[str, Value] = {
            **scope.around(self),
            **self.constants,
            **dict(zip(self.inputs, inputs, strict=True)),
        }
        inner = Scope(values, scope.overrides, scope.parameters)
        for _ in self.walk(values, inner, frozenset()):
            pass
        return tuple(inner.find(name) for name in self.outputs)

    def walk(self, values: dict[str, Value], scope: Scope, kept: frozenset[str]) -> Iterator[tuple[str, Value]]:
        """Run step after step on ``values`` (changed, the same that ``scope`` looks at), telling every value made."""
        for step, dead in zip(self.steps, self.releases, strict=True):
            made = {name: value for name, value in zip(step.node.outputs, step.run(scope), strict=True) if name}
            values.update(made)
            yield from made.items()
            del made
            for name in dead:
                if name not in kept:
                    values.pop(name, None)


def label(node: Node) -> str:
    """A node in messages."""
    kind = f"{node.domain}:{node.op}" if node.domain else node.op
    return f"{kind} {node.name!r}"


def check_order(steps: Iterable[Step], visible: Iterable[str]) -> None:
    """Every name must be made before it is read.

    Raises:
        ModelError: a node reads a tensor that nothing before it makes.
    """
    known = {"", *visible}
    for step in steps:
        missing = next((name for name in step.reads if name not in known), None)
        if missing is not None:
            node = step.node
            raise ModelError(f"{node.op} {node.name!r} reads {missing!r} before it is made: sort the graph first.")
        known.update(step.node.outputs)


def last_uses(steps: Sequence[Step], lasting: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Per step the values nobody reads after it; names in ``lasting`` are never among them."""
    last: dict[str, int] = {}
    for position, step in enumerate(steps):
        last.update(dict.fromkeys((*step.reads, *step.node.outputs), position))
    kept = {"", *lasting}
    dead: list[list[str]] = [[] for _ in steps]
    for name, position in last.items():
        if name not in kept:
            dead[position].append(name)
    return tuple(tuple(names) for names in dead)
