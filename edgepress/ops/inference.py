"""Strict shape inference that also knows the two operators ONNX has no inference for.

GroupNormalization (and MeanVarianceNormalization) are functions whose bodies onnx 1.23 does not infer through; strict
inference stops at whatever reads them. Their output is like their first input, so they are inferred as Identity.
"""

from __future__ import annotations

import onnx
from onnx import shape_inference

LIKE_INPUT = frozenset({"GroupNormalization", "MeanVarianceNormalization"})


def infer_shapes(proto: onnx.ModelProto, *, check_type: bool = False) -> onnx.ModelProto:
    """Infer types and shapes strictly, with values propagated; the argument stays as it is.

    Raises:
        onnx.shape_inference.InferenceError: the model is not consistent.
    """
    places = [place for place, node in enumerate(proto.graph.node) if node.op_type in LIKE_INPUT and not node.domain]
    if not places:
        return shape_inference.infer_shapes(proto, check_type=check_type, strict_mode=True, data_prop=True)
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for place in places:
        node = proto.graph.node[place]
        changed.graph.node[place].CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
    inferred = shape_inference.infer_shapes(changed, check_type=check_type, strict_mode=True, data_prop=True)
    for place in places:
        inferred.graph.node[place].CopyFrom(proto.graph.node[place])
    return inferred
