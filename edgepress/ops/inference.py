"""Strict shape inference that also knows some operators onnx has no inference for.

GroupNormalization (and MeanVarianceNormalization) are functions whose bodies onnx 1.23 does not infer through; strict
inference stops at whatever reads them. GroupQueryAttention and SimplifiedLayerNormalization belong to onnxruntime, so
onnx knows nothing of them. The first output of each is like the first input (of attention: with keys of its own), so
they are inferred as Identity.
"""

from __future__ import annotations

import onnx
from onnx import shape_inference

ADDED = frozenset({("", "SimplifiedLayerNormalization")})
"""Operators that onnxruntime adds to the domain of onnx, which does not know them."""

LIKE_INPUT = frozenset({("", "GroupNormalization"), ("", "MeanVarianceNormalization")}) | ADDED

UNCHECKED = "edgepress.unchecked"
"""A domain that onnx does not know, so that its checker leaves the operators of it alone."""


def infer_shapes(proto: onnx.ModelProto, *, check_type: bool = False) -> onnx.ModelProto:
    """Infer types and shapes strictly, with values propagated; the argument stays as it is.

    Raises:
        onnx.shape_inference.InferenceError: the model is not consistent.
    """
    places = [place for place, node in enumerate(proto.graph.node) if _like_input(node)]
    if not places:
        return shape_inference.infer_shapes(proto, check_type=check_type, strict_mode=True, data_prop=True)
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for place in places:
        node = proto.graph.node[place]
        changed.graph.node[place].CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1]))
    inferred = shape_inference.infer_shapes(changed, check_type=check_type, strict_mode=True, data_prop=True)
    for place in places:
        inferred.graph.node[place].CopyFrom(proto.graph.node[place])
    return inferred


def check(proto: onnx.ModelProto) -> None:
    """Check a model by onnx's checker, all but the operators that onnxruntime adds to the domain of onnx.

    Raises:
        onnx.checker.ValidationError: the model is not legal.
    """
    places = [place for place, node in enumerate(proto.graph.node) if (node.domain, node.op_type) in ADDED]
    checked = proto
    if places:
        checked = onnx.ModelProto()
        checked.CopyFrom(proto)
        checked.opset_import.append(onnx.helper.make_opsetid(UNCHECKED, 1))
    for place in places:
        checked.graph.node[place].domain = UNCHECKED
    onnx.checker.check_model(checked)


def _like_input(node: onnx.NodeProto) -> bool:
    if (node.domain, node.op_type) == ("com.microsoft", "GroupQueryAttention"):
        return len(node.input) > 1 and node.input[1] != ""  # without keys the first input holds all three
    return (node.domain, node.op_type) in LIKE_INPUT
