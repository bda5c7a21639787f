"""Conv, Gemm, MatMul and BatchNormalization: the operators with weights.

All are differentiable in data, weight and bias. BatchNormalization is the inference formula
``(x - mean) / sqrt(var + epsilon) * scale + bias``; its training mode is refused.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Kernel, require
from edgepress.ops.kernels.windows import pad_spatial, windows


def conv(call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Conv over one to three spatial axes: data ``[N, C, *s]``, weight ``[M, C/group, *k]``, bias ``[M]``."""
    kernel = tuple(weight.shape[2:])
    stated = call.sizes("kernel_shape", len(kernel), 0)
    require(not any(stated) or stated == kernel, f"kernel_shape {stated} with a weight {tuple(weight.shape)}")
    w = windows(call, x, kernel)
    group = int(call.get("group", 1))
    if w.symmetric:
        padding = w.before
    else:
        x, padding = pad_spatial(x, w.before, w.after), (0,) * len(kernel)
    # spelled out per rank: torch types the three functions apart, and their padding argument is free
    if len(kernel) == 2:
        return F.conv2d(x, weight, bias, w.stride, padding, w.dilation, group)
    if len(kernel) == 1:
        return F.conv1d(x, weight, bias, w.stride, padding, w.dilation, group)
    return F.conv3d(x, weight, bias, w.stride, padding, w.dilation, group)


def gemm(call: Call, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    """``alpha * a' b' + beta * c`` with optional transposes; ``c`` broadcasts to the result ``[M, N]``."""
    require(a.ndim == 2 and b.ndim == 2, f"Gemm of ranks {a.ndim} and {b.ndim}")
    require(a.is_floating_point(), f"Gemm of {a.dtype}")
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    a = a.t() if call.get("transA", 0) else a
    b = b.t() if call.get("transB", 0) else b
    if c is None:
        product = torch.mm(a, b)
        return product if alpha == 1.0 else product * alpha
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def matmul(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product with the leading axes broadcast, as numpy.matmul."""
    return torch.matmul(a, b)


def batch_normalization(
    call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, var: torch.Tensor
) -> torch.Tensor:
    """Inference BatchNormalization of ``[N, C, ...]`` with four vectors ``[C]``."""
    require(not call.get("training_mode", 0), "BatchNormalization with training_mode = 1")
    require(call.opset >= 7 or bool(call.get("is_test", 0)), "BatchNormalization in training mode (is_test = 0)")
    require(bool(call.get("spatial", 1)), "BatchNormalization with spatial = 0")
    # until opset 13 extra outputs are what asks for training mode
    require(call.outputs == 1, "BatchNormalization with the outputs of training")
    require(x.ndim >= 2, f"BatchNormalization of rank {x.ndim}")
    require(x.dtype == scale.dtype == mean.dtype, "BatchNormalization with mixed element types")
    epsilon = float(call.get("epsilon", 1e-5))
    if not (mean.requires_grad or var.requires_grad):
        return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)
    # F.batch_norm has no gradient for its statistics
    factor = scale * torch.rsqrt(var + epsilon)
    along = (1, -1) + (1,) * (x.ndim - 2)
    return x * factor.reshape(along) + (bias - mean * factor).reshape(along)


KERNELS: dict[str, Kernel] = {
    "conv": conv,
    "gemm": gemm,
    "matmul": matmul,
    "batch_normalization": batch_normalization,
}
