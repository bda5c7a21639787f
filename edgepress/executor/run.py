"""Run a float model in torch: each node by the kernel of its row in the operator table.

The executor is the differentiable twin of the ONNX file: every initializer is one named tensor (a tensor that ties
several nodes together stays one), and :func:`write_back` carries changed values home under the same names. What has
no kernel is refused when the executor is made, not when it runs; :meth:`Executor.parity` compares every float tensor
with onnxruntime. Activations are dropped after their last use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from edgepress.errors import DataError, ModelError, UnsupportedError
from edgepress.executor.parity import first_difference
from edgepress.model import Model, Node
from edgepress.ops.kernels import KERNELS, Call, Kernel
from edgepress.ops.table import lookup

Tensors = Mapping[str, torch.Tensor]

_TYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Executor:
    """A model ready to run in torch.

    Attributes:
        model: the model as given.
        nodes: its nodes, in the order they run.
        parameters: every initializer by name, in its own element type, without ``requires_grad``.
        releases: per node the activations nobody reads after it (graph outputs are never among them).
    """

    def __init__(self, model: Model) -> None:
        """Find a kernel for every node.

        Raises:
            UnsupportedError: the first operator without a kernel, or an initializer of a type torch cannot hold.
            ModelError: a node reads a tensor that nothing before it makes.
        """
        self.model = model
        self.nodes = model.nodes
        self._bound = {node.outputs: _bind(node, model.opset) for node in model.nodes}
        self.parameters = {name: _parameter(name, array) for name, array in model.constants.items()}
        self.releases = _releases(model)

    def apply(self, node: Node, values: Tensors, parameters: Tensors | None = None) -> tuple[torch.Tensor, ...]:
        """Run one node.

        Args:
            node: a node of this model.
            values: activations by name; looked up before parameters.
            parameters: values to use instead of :attr:`parameters`; names left out fall back to those.

        Returns:
            The node's outputs in order.

        Raises:
            UnsupportedError: an attribute or element type the kernel does not run.
            ModelError: torch cannot run the node on these shapes.
        """
        kernel, call = self._bound[node.outputs]
        inputs = [self._find(name, values, parameters) if name else None for name in node.inputs]
        try:
            result = kernel(call, *inputs)
        except (UnsupportedError, NotImplementedError) as error:
            raise UnsupportedError(f"{node.op} {node.name!r} cannot run in torch: {error}.") from error
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{node.op} {node.name!r} does not fit its inputs, check their shapes: {reason}"
            ) from error
        return result if isinstance(result, tuple) else (result,)

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
        values = self._inputs(inputs)
        involved = (*values.values(), *self.parameters.values(), *(parameters or {}).values())
        graded = any(tensor.requires_grad for tensor in involved)
        with nullcontext() if graded else torch.inference_mode():
            for _ in self._walk(values, parameters, frozenset(capture)):
                pass
            return {name: self._find(name, values, parameters) for name in (*self.model.outputs, *capture)}

    def parity(self, inputs: Mapping[str, np.ndarray], *, tolerance: float = 1e-3) -> str | None:
        """Compare every float tensor with onnxruntime on the same inputs.

        Args:
            inputs: every graph input by name.
            tolerance: allowed ``max|a - b| / max(1e-6, max|b|)`` per tensor, ``b`` being onnxruntime's.

        Returns:
            The first tensor in graph order that differs by more, or None.
        """

        def walk() -> Iterator[tuple[str, torch.Tensor]]:
            return self._walk(self._inputs(inputs), None, frozenset())

        return first_difference(self.model, inputs, walk, tolerance)

    def _walk(
        self, values: dict[str, torch.Tensor], parameters: Tensors | None, kept: frozenset[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Run node after node on ``values`` (changed), telling every tensor made."""
        for node, dead in zip(self.nodes, self.releases, strict=True):
            made = dict(zip(node.outputs, self.apply(node, values, parameters), strict=True))
            values.update(made)
            yield from made.items()
            del made
            for name in dead:
                if name not in kept:
                    del values[name]

    def _find(self, name: str, values: Tensors, parameters: Tensors | None) -> torch.Tensor:
        found = values.get(name)
        if found is None and parameters is not None:
            found = parameters.get(name)
        return self.parameters[name] if found is None else found

    def _inputs(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, torch.Tensor]:
        wrong = inputs.keys() ^ self.model.inputs.keys()
        if wrong:
            raise DataError(f"The model takes the inputs {sorted(self.model.inputs)}: mend {sorted(wrong)}.")
        return {name: _tensor(value) for name, value in inputs.items()}


def write_back(model: Model, parameters: Tensors) -> Model:
    """The model with the values of some initializers replaced, each in its own element type.

    Initializers whose values did not change keep their bytes. KeyError if a name is no initializer.
    """
    arrays = {
        name: tensor.detach().numpy().astype(model.constants[name].dtype, copy=False)
        for name, tensor in parameters.items()
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


def _bind(node: Node, opset: int) -> tuple[Kernel, Call]:
    row = lookup(node.op, node.domain, opset)
    if row is None or row.kernel is None:
        name = f"{node.domain}:{node.op}" if node.domain else node.op
        raise UnsupportedError(f"{name} {node.name!r} (opset {opset}) has no kernel in torch: use the model as it is.")
    return KERNELS[row.kernel], Call(node.attributes, opset, len(node.outputs))


def _releases(model: Model) -> tuple[tuple[str, ...], ...]:
    known = {*model.inputs, *model.constants}
    last: dict[str, int] = {}
    for position, node in enumerate(model.nodes):
        missing = [name for name in node.inputs if name and name not in known]
        if missing:
            raise ModelError(f"{node.op} {node.name!r} reads {missing[0]!r} before it is made: sort the graph first.")
        known.update(node.outputs)
        last.update(dict.fromkeys((*node.inputs, *node.outputs), position))
    lasting = {"", *model.constants, *model.outputs}
    dead: list[list[str]] = [[] for _ in model.nodes]
    for name, position in last.items():
        if name not in lasting:
            dead[position].append(name)
    return tuple(tuple(names) for names in dead)


def _parameter(name: str, array: np.ndarray) -> torch.Tensor:
    if array.dtype.name not in _TYPES:
        raise UnsupportedError(f"The initializer {name!r} holds {array.dtype.name}, which the executor does not run.")
    return torch.from_numpy(array.copy())


def _tensor(value: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    # torch shares memory, and wants it writable and without negative strides
    return torch.from_numpy(np.require(value, requirements=["C", "W"]))


def _identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
