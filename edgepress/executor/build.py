"""From a graph to a :class:`Program`: which way each node is run.

By the kernel of its row in the operator table; If, Loop and Scan by the executor; what has no kernel by its function
body in the ONNX specification, if it has one. Anything else is refused here, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from edgepress.errors import UnsupportedError
from edgepress.executor.control import CONTROL, Compile
from edgepress.executor.functions import FunctionStep, body_of
from edgepress.executor.known import MEASURED, Known, hosted, of_attributes, of_constants, stays_on_host
from edgepress.executor.program import KernelStep, MeasureStep, Program, Step, check_order, label, last_uses
from edgepress.executor.values import HOST, Place
from edgepress.model import Model, Node, TensorType
from edgepress.ops.kernels import Call, Kernel, kernel_of
from edgepress.ops.row import Input, Op
from edgepress.ops.table import lookup

TYPED = ("to", "dtype", "stash_type", "softmax_precision")
"""Attributes that name an element type."""

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)

WORKING = {
    torch.float64: onnx.TensorProto.DOUBLE,
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.bfloat16: onnx.TensorProto.BFLOAT16,
}
"""Working types of an executor and their codes in ONNX."""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What is visible around a graph, and where it runs."""

    place: Place
    names: Set[str] = frozenset()
    known: Known = field(default_factory=dict)
    types: Mapping[str, TensorType] = field(default_factory=dict)


def compiled(model: Model, place: Place) -> Program:
    """The main graph, ready to run; its initializers are not part of it.

    Raises:
        UnsupportedError: the first operator that can be run in no way.
        ModelError: a node reads a tensor that nothing before it makes.
    """
    around = _Surroundings(place, frozenset(model.constants), of_constants(model.constants))
    program = _program(model, tuple(model.outputs), around, {})
    lasting = (*model.constants, *model.outputs)
    return replace(program, releases=last_uses(program.steps, lasting), constants=MappingProxyType({}))


def _program(model: Model, outputs: Sequence[str], around: _Surroundings, given: Known) -> Program:
    """A graph inside its surroundings; ``given`` says what is known of its inputs."""
    own = model.constants
    known = {name: kind for name, kind in around.known.items() if name not in model.inputs}
    known |= {**of_constants(own), **given}
    entering = around.names | {*model.inputs, *own}
    types = {**around.types, **model.types}
    steps, learned = _steps(model, replace(around, names=entering, known=known, types=types))
    check_order(steps, entering)
    made = {*model.inputs, *own, *(name for step in steps for name in step.node.outputs)}
    read = dict.fromkeys([*(name for step in steps for name in step.reads), *outputs])
    return Program(
        steps=steps,
        releases=last_uses(steps, outputs),
        inputs=tuple(model.inputs),
        outputs=tuple(outputs),
        free=tuple(name for name in read if name and name not in made),
        constants={name: around.place.constant(array) for name, array in own.items()},
        hosts=tuple(hosted(learned, name) for name in outputs),
        kinds=tuple(types.get(name, TensorType("unknown", None)) for name in outputs),
    )


def _steps(model: Model, around: _Surroundings) -> tuple[tuple[Step, ...], Known]:
    """The nodes one after another, and what is known after the last."""
    names, known = set(around.names), dict(around.known)
    steps: list[Step] = []
    for node in model.nodes:
        step = _step(node, model.opset, replace(around, names=names, known=known))
        steps.append(step)
        names.update(node.outputs)
        known.update(_learned(step))
    return tuple(steps), known


def _learned(step: Step) -> dict[str, np.dtype | None]:
    """What the outputs of a node are to the host."""
    node = step.node
    if node.op == "Constant" and not node.domain:
        return of_attributes(node.attributes, node.output)
    return {name: None for name, host in zip(node.outputs, step.hosts, strict=True) if host and name}


def _step(node: Node, opset: int, around: _Surroundings) -> Step:
    if node.op in MEASURED and not node.domain:
        return MeasureStep(node)
    row = lookup(node.op, node.domain, opset)
    kernel = None if row is None else kernel_of(row)
    if row is not None and kernel is not None:
        return _kernel_step(node, row, kernel, opset, around)
    if row is not None and not row.domain and row.name in CONTROL:
        return CONTROL[row.name](node, around.known, around.place, _bodies(node, opset, around))
    return _function_step(node, opset, around)


def _kernel_step(node: Node, row: Op, kernel: Kernel, opset: int, around: _Surroundings) -> KernelStep:
    host = stays_on_host(node, row, around.known)
    place = HOST if host else around.place
    given = [(slot, name, row.kind(slot) is Input.SHAPE) for slot, name in enumerate(node.inputs) if name]
    return KernelStep(
        node=node,
        row=row,
        kernel=kernel,
        call=Call(_attributes(node, place), opset, len(node.outputs)),
        place=place,
        plain=place.plain,
        host=host,
        arrays=tuple((slot, around.known.get(name)) for slot, name, shape in given if shape or host),
        tensors=tuple(slot for slot, name, shape in given if not shape and (host or hosted(around.known, name))),
    )


def _attributes(node: Node, place: Place) -> Mapping[str, Any]:
    """The attributes, with float types replaced by the working type (Cast to float means: to the type of the work)."""
    if place.dtype is None:
        return node.attributes
    code = WORKING[place.dtype]
    return {name: code if name in TYPED and value in FLOATS else value for name, value in node.attributes.items()}


def _bodies(node: Node, opset: int, around: _Surroundings) -> Compile:
    def compile_body(attribute: str, hosts: Mapping[int, bool]) -> Program:
        graph = node.attributes[attribute]
        model = Model.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
        given = {name: None for number, name in enumerate(model.inputs) if hosts.get(number, False)}
        return _program(model, [output.name for output in graph.output], around, given)

    return compile_body


def _function_step(node: Node, opset: int, around: _Surroundings) -> FunctionStep:
    body = body_of(node, opset, around.types)
    if body is None:
        raise UnsupportedError(f"{label(node)} (opset {opset}) has no kernel in torch: use the model as it is.")
    formals = dict(zip(body.model.inputs, body.inputs, strict=True))
    given = {formal: around.known[actual] for formal, actual in formals.items() if actual in around.known}
    try:
        program = _program(body.model, tuple(body.model.outputs), _Surroundings(around.place), given)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{label(node)} has no kernel in torch, and its function body cannot be used: {error}"
        ) from error
    return FunctionStep(node, program, body.inputs)
