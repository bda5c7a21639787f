"""What an Add behind a MatMul makes of the two: onnxruntime joins them to a Gemm before it looks for int8.

    Gemm(x, W, b)  <-  Add(MatMul(x, W), b)

It does so (matmul_add_fusion.cc) where all axes of x are known, or x has two, and only the Add reads the product. A
Gemm is int8 only if its bias is dequantized as well: one that is not takes 3 to 27 times the float time, for its
weights are dequantized in every call. So a bias of a Gemm is int32, and where onnxruntime may or may not join the two,
as axes may be fixed before the model runs, a Q between them keeps them apart (float = 1, 256 x 256, 1 and 64 rows:
int32 bias .91 and .37, Q between .98 and .45).
"""

from __future__ import annotations

from typing import Literal

from edgepress.model import Model, Node

Ending = Literal["alone", "bias", "apart"]


def ending(model: Model, node: Node) -> tuple[Ending, str]:
    """How an int8 MatMul ends.

    Args:
        model: a typed model.
        node: a MatMul whose weight is a constant matrix.

    Returns:
        ``alone`` where nothing is joined, ``bias`` with the constant ``[N]`` that becomes the bias of a Gemm, ``apart``
        where a Q has to follow the MatMul.
    """
    readers = model.consumers(node.output)
    if len(readers) != 1 or readers[0].op != "Add" or node.output in model.outputs:
        return "alone", ""
    other = next((name for name in readers[0].inputs if name != node.output), node.output)
    values, width = model.constants.get(other), model.constants[node.inputs[1]].shape[1]
    shape = model.types[node.inputs[0]].shape
    two = shape is not None and len(shape) == 2
    if values is None:  # a matrix of its shape would be joined as well
        return ("apart", "") if two or shape is None else ("alone", "")
    if values.size == 1:
        return "alone", ""
    known = shape is not None and (two or all(isinstance(size, int) for size in shape))
    return ("bias", other) if known and values.shape == (width,) else ("apart", "")
