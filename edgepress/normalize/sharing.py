"""Step: a constant filled with one number is no shared weight; every node that reads it gets its own.

Exporters keep one tensor of ones and one of zeros as scale and bias of all normalizations of a width. As one constant
they would tie the channels of layers that have nothing to do with each other.

Guarantees: the first reader keeps the name; constants that hold different numbers stay shared; the initializers grow by
no more than :data:`LIMIT` elements per reader.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.normalize.graph import fresh, initializers, names_in_use, output_names, set_constant

LIMIT = 2**16


def separate_fillers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every reader of a uniform float constant a copy of its own."""
    graph = proto.graph
    taken = names_in_use(graph)
    kept = output_names(graph)
    found = {name: _filler(item) for name, item in initializers(graph).items() if name not in kept}
    uniform = {name: array for name, array in found.items() if array is not None}
    seen: set[str] = set()
    for node in graph.node:
        for name in sorted(set(node.input) & uniform.keys()):
            if name in seen:
                copy = fresh(name, taken)
                taken.add(copy)
                set_constant(graph, copy, uniform[name])
                node.input[:] = [copy if given == name else given for given in node.input]
            seen.add(name)
    return proto


def _filler(item: onnx.TensorProto) -> np.ndarray | None:
    """The array of a float constant that holds one number many times; else None."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    if item.data_type not in floats or not 1 < math.prod(item.dims) <= LIMIT:
        return None
    array = numpy_helper.to_array(item)
    return array if bool((array == array.ravel()[0]).all()) else None
