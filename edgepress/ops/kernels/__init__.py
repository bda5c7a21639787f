"""How each operator of the table runs in torch: one plain function per row, found by the row's ``kernel`` name.

``KERNELS[name](call, *inputs)`` computes what the ONNX specification says for ``call.opset``, checked against
onnxruntime and the node cases of the onnx package, or raises ``UnsupportedError``. Kernels make views where they
can, change no argument, and are differentiable wherever the mathematics is.
"""

from __future__ import annotations

from edgepress.ops.kernels import elementwise, joins, layout, pooling, reductions, weighted
from edgepress.ops.kernels.call import Call, Kernel

KERNELS: dict[str, Kernel] = {
    **weighted.KERNELS,
    **elementwise.KERNELS,
    **joins.KERNELS,
    **pooling.KERNELS,
    **reductions.KERNELS,
    **layout.KERNELS,
}
"""Kernel name of a table row -> function."""

__all__ = ["KERNELS", "Call", "Kernel"]
