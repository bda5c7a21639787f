"""The edited graph put back into the frame of the original model.

onnx-graphsurgeon sees an outline only (:meth:`edgepress.model.Model.outline`): nodes, small constants, large weights
as graph inputs. Nodes with bodies (If, Loop, Scan) go in as opaque ones that also list what their bodies read, because
graphsurgeon would move those tensors into the bodies; they come out as they were. What it drops on the way (metadata,
doc strings, stated types) is put back by name.

Guarantees: weights are copied once, into the result; everything but nodes, weights and ``value_info`` is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from edgepress import storage
from edgepress.groups.bodies import bodies, captured
from edgepress.model import Model
from edgepress.ops.inference import check, infer_shapes

Arrays = Mapping[str, np.ndarray]


def opened(model: Model) -> gs.Graph:
    """The outline of a model as a graphsurgeon graph whose nodes mirror ``model.nodes``."""
    proto = model.outline()
    for node in proto.graph.node:
        if bodies(node):
            read = captured([node])
            del node.attribute[:], node.input[:]
            node.input.extend(read)
    return gs.import_onnx(proto)


def closed(graph: gs.Graph, model: Model, weights: Arrays) -> onnx.ModelProto:
    """The model with the nodes of an edited graph.

    Args:
        graph: from :func:`opened`, edited.
        model: the original.
        weights: new values of initializers.
    """
    exported = gs.export_onnx(graph, do_type_check=False)
    result = model.frame()
    before = {tuple(node.output): node for node in model.frame().graph.node}
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(_restored(node, before.get(tuple(node.output))) for node in exported.graph.node)
    read = {*captured(result.graph.node), *(value.name for value in result.graph.output)}
    real = [value for value in result.graph.input if value.name not in model.constants]
    del result.graph.input[:]
    result.graph.input.extend(real)
    made = {item.name: item for item in exported.graph.initializer if item.name in read}
    changed = {**{name: numpy_helper.to_array(item) for name, item in made.items()}, **weights}
    model.fill(result, {name for name in model.constants if name in read}, changed)
    result.graph.initializer.extend(item for name, item in made.items() if name not in model.constants)
    result.graph.value_info.extend(_types(result))
    return result


def _restored(node: onnx.NodeProto, old: onnx.NodeProto | None) -> onnx.NodeProto:
    if old is None:
        return node
    if bodies(old):
        return old
    node.name = old.name
    if old.doc_string:
        node.doc_string = old.doc_string
    node.metadata_props.extend(old.metadata_props)
    return node


def _types(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Types of all tensors; the outline passes onnx's checks, types and shapes included (its full check).

    Raises:
        onnx.shape_inference.InferenceError, onnx.checker.ValidationError: the graph is not legal.
    """
    inferred = infer_shapes(storage.outline(proto), check_type=True)
    check(inferred)
    return list(inferred.graph.value_info)
