"""Strict shape inference that also knows some operators onnx has no inference for.

GroupNormalization (and MeanVarianceNormalization) are functions whose bodies onnx 1.23 does not infer through; strict
inference stops at whatever reads them. GroupQueryAttention belongs to onnxruntime, so onnx knows nothing of it. The
first output of each is like the first input (of attention: with keys of its own), so they are inferred as Identity.
"""

from __future__ import annotations

import onnx
from onnx import shape_inference

LIKE_INPUT = frozenset({("", "GroupNormalization"), ("", "MeanVarianceNormalization")})


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


def _like_input(node: onnx.NodeProto) -> bool:
    if (node.domain, node.op_type) == ("com.microsoft", "GroupQueryAttention"):
        return len(node.input) > 1 and node.input[1] != ""  # without keys the first input holds all three
    return (node.domain, node.op_type) in LIKE_INPUT
