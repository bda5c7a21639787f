"""How each operator of the table runs in torch: one plain function per row, found by the row's ``kernel`` name.

``KERNELS[name](call, *inputs)`` computes what the ONNX specification says for ``call.opset``, checked against
onnxruntime and the node cases of the onnx package, or raises ``UnsupportedError``. Kernels make views where they
can, change no argument, and are differentiable wherever the mathematics is.
"""

from __future__ import annotations

from edgepress.ops.kernels import (
    algebra,
    attention,
    elementwise,
    indexing,
    joins,
    layout,
    microsoft,
    normalization,
    pooling,
    recurrent,
    reductions,
    resize,
    rotary,
    sampling,
    shapes,
    transposed,
    weighted,
)
from edgepress.ops.kernels.call import Call, Kernel
from edgepress.ops.row import Op

KERNELS: dict[str, Kernel] = {
    **weighted.KERNELS,
    **transposed.KERNELS,
    **algebra.KERNELS,
    **recurrent.KERNELS,
    **attention.KERNELS,
    **rotary.KERNELS,
    **microsoft.KERNELS,
    **normalization.KERNELS,
    **elementwise.KERNELS,
    **joins.KERNELS,
    **pooling.KERNELS,
    **resize.KERNELS,
    **sampling.KERNELS,
    **reductions.KERNELS,
    **layout.KERNELS,
    **indexing.KERNELS,
    **shapes.KERNELS,
}
"""Kernel name of a table row -> function."""


def kernel_of(row: Op) -> Kernel | None:
    """The torch function of a row; None when it has none."""
    return KERNELS.get(row.kernel) if isinstance(row.kernel, str) else row.kernel


__all__ = ["KERNELS", "Call", "Kernel", "kernel_of"]
