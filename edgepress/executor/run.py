"""Run a float model in torch: each node by the kernel of its row in the operator table.

The executor is the differentiable twin of the ONNX file: every initializer is one named tensor (a tensor that ties
several nodes together stays one), and :func:`write_back` carries changed values home under the same names. What cannot
run is refused when the executor is made, not when it runs; :meth:`Executor.parity` compares every float tensor
with onnxruntime. Activations are dropped after their last use.

Shapes travel as numpy arrays on the host (:mod:`edgepress.executor.known`), operators without a kernel by their
function bodies (:mod:`edgepress.executor.functions`), If, Loop and Scan by :mod:`edgepress.executor.control`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from edgepress.errors import DataError, UnsupportedError
from edgepress.executor.build import compiled
from edgepress.executor.parity import first_difference
from edgepress.executor.program import Scope
from edgepress.executor.trainable import trained_names
from edgepress.executor.values import Place, Tensors, Value
from edgepress.model import Model, Node

_V = TypeVar("_V", np.ndarray, "np.ndarray | torch.Tensor")


class Executor:
    """A model ready to run in torch.

    Attributes:
        model: the model as given.
        nodes: its nodes, in the order they run.
        parameters: every initializer by name, without ``requires_grad``; in its own element type, or in the working
            type if one was asked for.
        releases: per node the activations nobody reads after it (graph outputs are never among them).
        place: device and working type.
    """

    def __init__(self, model: Model, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> None:
        """Find a way to run every node.

        Args:
            model: the model.
            dtype: working type of all floats, e.g. ``torch.float64`` to check gradients: parameters, inputs,
                constants and Cast nodes to any float type follow it. By default everything has the type of the file.
            device: where float parameters and activations live; integer initializers and host values stay on the host.

        Raises:
            UnsupportedError: the first operator that cannot be run, or an initializer of a type torch cannot hold.
            ModelError: a node reads a tensor that nothing before it makes.
        """
        self.model = model
        self.nodes = model.nodes
        self.place = Place(torch.device(device), dtype)
        self._program = compiled(model, self.place)
        self._by_outputs = {step.node.outputs: step for step in self._program.steps}
        self.parameters = {
            name: _placed("initializer", name, array.copy(), self.place.constant)
            for name, array in model.constants.items()
        }
        self.releases = self._program.releases

    @cached_property
    def trainable(self) -> tuple[str, ...]:
        """Initializers that training may change, by what their uses are: :mod:`edgepress.executor.trainable`."""
        return trained_names(self._program, self.model.constants)

    def reads(self, node: Node) -> tuple[str, ...]:
        """Names a node reads: its inputs, and what the bodies of an If, Loop or Scan take from around them."""
        return tuple(dict.fromkeys(self._by_outputs[node.outputs].reads))

    def apply(self, node: Node, values: Mapping[str, Value], parameters: Tensors | None = None) -> tuple[Any, ...]:
        """Run one node.

        Args:
            node: a node of this model.
            values: activations by name; looked up before parameters.
            parameters: values to use instead of :attr:`parameters`; names left out fall back to those.

        Returns:
            The node's outputs in order: tensors, and numpy arrays where it makes host values (shape arithmetic).

        Raises:
            UnsupportedError: an attribute or element type the kernel does not run.
            ModelError: torch cannot run the node on these shapes.
        """
        return self._by_outputs[node.outputs].run(Scope(values, parameters, self.parameters))

    def run(
        self,
        inputs: Mapping[str, np.ndarray | torch.Tensor],
        *,
        capture: Sequence[str] = (),
        parameters: Tensors | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run the whole model; under ``torch.inference_mode`` when nothing requires a gradient.

        Args:
            inputs: every graph input by name, at any batch size the model takes.
            capture: further tensors to return.
            parameters: values to use instead of :attr:`parameters`, as in :meth:`apply`.

        Returns:
            Graph outputs and captured tensors by name.

        Raises:
            DataError: an input is missing or unknown.
            UnsupportedError: as in :meth:`apply`; so ModelError.
        """
        involved = (*inputs.values(), *self.parameters.values(), *(parameters or {}).values())
        graded = any(isinstance(value, torch.Tensor) and value.requires_grad for value in involved)
        with nullcontext() if graded else torch.inference_mode():
            return self.forward(inputs, capture=capture, parameters=parameters)

    def forward(
        self,
        inputs: Mapping[str, np.ndarray | torch.Tensor],
        *,
        capture: Sequence[str] = (),
        parameters: Tensors | None = None,
        open_captured: bool = False,
    ) -> dict[str, torch.Tensor]:
        """As :meth:`run`, in the gradient mode of the caller, so that ``torch.func`` can follow.

        Args:
            inputs: as in :meth:`run`.
            capture: as in :meth:`run`.
            parameters: as in :meth:`run`.
            open_captured: captured float activations become points where gradients can be taken.
        """
        kept = frozenset(capture)
        values: dict[str, Value] = dict(self._inputs(inputs))
        if open_captured:
            values.update({name: opened(values[name]) for name in kept & values.keys()})
        scope = Scope(values, parameters, self.parameters)
        for name, value in self._program.walk(values, scope, kept):
            if open_captured and name in kept:
                values[name] = opened(value)
        return {name: self._captured(name, scope) for name in (*self.model.outputs, *capture)}

    def parity(self, inputs: Mapping[str, np.ndarray], *, tolerance: float = 1e-3) -> str | None:
        """Compare every float tensor with onnxruntime on the same inputs.

        Args:
            inputs: every graph input by name.
            tolerance: allowed ``max|a - b| / max(1e-6, max|b|)`` per tensor, ``b`` being onnxruntime's.

        Returns:
            The first tensor in graph order that differs by more, or None.
        """

        def walk() -> Iterator[tuple[str, Value]]:
            values: dict[str, Value] = dict(self._inputs(inputs))
            return self._program.walk(values, Scope(values, None, self.parameters), frozenset())

        return first_difference(self.model, inputs, walk, tolerance)

    def _captured(self, name: str, scope: Scope) -> torch.Tensor:
        try:
            return self.place.tensor(scope.find(name))
        except KeyError:
            raise DataError(f"The model has no tensor {name!r} outside the bodies of its nodes.") from None

    def _inputs(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, torch.Tensor]:
        wrong = inputs.keys() ^ self.model.inputs.keys()
        if wrong:
            raise DataError(f"The model takes the inputs {sorted(self.model.inputs)}: mend {sorted(wrong)}.")
        return {name: _placed("input", name, value, self.place.tensor) for name, value in inputs.items()}


def _placed(kind: str, name: str, value: _V, put: Callable[[_V], torch.Tensor]) -> torch.Tensor:
    try:
        return put(value)
    except UnsupportedError as error:
        raise UnsupportedError(f"The {kind} {name!r} holds {value.dtype}, which the executor does not run.") from error


def opened(value: Value) -> Value:
    """A float tensor at which a gradient can be taken: a leaf where it has no history, else a view of its own.

    A kernel that has nothing to do returns its input; its gradient is not that of the input, which others may read.
    """
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


def write_back(model: Model, parameters: Tensors) -> Model:
    """The model with the values of some initializers replaced, each in its own element type.

    Initializers whose values did not change keep their bytes. KeyError if a name is no initializer.
    """
    arrays = {
        name: _array(tensor).astype(model.constants[name].dtype, copy=False) for name, tensor in parameters.items()
    }
    changed = {name: array for name, array in arrays.items() if not _identical(array, model.constants[name])}
    return model.with_constants(changed) if changed else model


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for torch and BLAS inside, the old numbers restored after.

    Sums then always run in the same order, so results are the same bits for any number of workers. Threads that
    are to work inside must be started inside: the setting belongs to the thread.
    """
    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _array(tensor: torch.Tensor) -> np.ndarray:
    whole = tensor.detach().cpu()
    return (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()


def _identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
