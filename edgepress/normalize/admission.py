"""What edgepress does not take in: models that are quantized already, broken weights, inputs that are not tensors.

NaN is refused in every floating-point initializer. Infinity is refused where it is a weight: in an initializer that a
learned operator reads. Elsewhere it is legitimate (attention masks, open bounds of Clip).
"""

from __future__ import annotations

import numpy as np

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.normalize.graph import every_node

QUANTIZED_OPERATORS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MatMulBnb4",
        "MatMulFpQ4",
        "GatherBlockQuantized",
        "QGemm",
        "QAttention",
        "QEmbedLayerNormalization",
        "QMoE",
    }
)
NARROW_TYPES = ("int4", "uint4", "int2", "uint2", "float4_", "float6_", "float8_")
FLOAT_TYPES = ("float16", "float32", "float64", "bfloat16")
TENSORLESS = {
    "sequence_type": "a sequence",
    "optional_type": "an optional",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "an opaque value",
    "unknown": "of no stated type",
}
LEARNED_OPERATORS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "PRelu",
        "LSTM",
        "GRU",
        "RNN",
    }
)


def admit(model: Model) -> None:
    """Return if edgepress can work on the model.

    Raises:
        ModelError: it is quantized already, a weight is NaN or infinite, or it has no inputs or inputs that are not
            tensors.
    """
    _check_inputs(model)
    _check_not_quantized(model)
    _check_finite(model)


def _check_inputs(model: Model) -> None:
    if not model.inputs:
        raise ModelError("The model has no inputs, so it computes a constant: give a model that takes data.")
    for name, kind in model.inputs.items():
        if kind.dtype in TENSORLESS:
            raise ModelError(f"Input {name!r} is {TENSORLESS[kind.dtype]}: export the model with tensor inputs only.")


def _check_not_quantized(model: Model) -> None:
    for node in every_node(model.edit()):
        if node.op_type in QUANTIZED_OPERATORS or node.op_type.startswith("QLinear"):
            raise ModelError(
                f"The model is quantized already (node {node.name or node.output[0]!r} is a {node.op_type}): "
                "give the float model it was made from."
            )
    for name, array in model.constants.items():
        if str(array.dtype).startswith(NARROW_TYPES):
            raise ModelError(
                f"The model is quantized already (initializer {name!r} is {array.dtype}): "
                "give the float model it was made from."
            )


def _check_finite(model: Model) -> None:
    learned = {name for node in model.nodes if node.op in LEARNED_OPERATORS for name in node.inputs}
    for name, array in model.constants.items():
        if str(array.dtype) not in FLOAT_TYPES:
            continue
        if np.isnan(array).any():
            raise ModelError(f"Initializer {name!r} holds NaN: the model is broken, train or export it again.")
        if name in learned and np.isinf(array).any():
            raise ModelError(f"Weight {name!r} holds infinity: the model is broken, train or export it again.")
