"""Instance, group, layer and root-mean-square normalization, Lp normalization and LRN.

``(x - mean) / sqrt(var + epsilon) * scale + bias`` with mean and variance over space (instance), over space and the
channels of a group, or over the trailing axes (layer). The first stage runs in the type ``stash_type`` names (float
by default) and is cast back before scale and bias; double data stay double, which is finer than asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx import TensorProto

from edgepress.ops.kernels.call import Call, Kernel, alike, axis_of, require
from edgepress.ops.kernels.types import COMPUTED


def instance_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Data ``[N, C, *s]``, scale and bias ``[C]``."""
    alike(x, scale, bias)
    require(x.ndim >= 3, f"InstanceNormalization of rank {x.ndim}")
    return torch.group_norm(x, x.shape[1], scale, bias, float(call.get("epsilon", 1e-5)))


def group_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Data ``[N, C, *s]``; scale and bias per channel ``[C]``, before opset 21 per group ``[num_groups]``."""
    alike(x, scale, bias)
    groups, epsilon = int(call.attributes["num_groups"]), float(call.get("epsilon", 1e-5))
    channels = x.shape[1]
    require(channels % groups == 0, f"GroupNormalization of {channels} channels in {groups} groups")
    if call.opset < 21:
        scale, bias = (values.repeat_interleave(channels // groups) for values in (scale, bias))
    require(scale.shape == bias.shape == (channels,), f"GroupNormalization with a scale {tuple(scale.shape)}")
    kept = _stage(call, x) if call.opset >= 21 else x.dtype
    if kept == x.dtype:
        return torch.group_norm(x, groups, scale, bias, epsilon)
    along = (-1, *(1,) * (x.ndim - 2))
    normal = torch.group_norm(x.to(kept), groups, None, None, epsilon).to(x.dtype)
    return normal * scale.reshape(along) + bias.reshape(along)


def layer_normalization(
    call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Over the axes from ``axis`` on; also Mean and InvStdDev if the node asks for them."""
    alike(x, scale, *([] if bias is None else [bias]))
    axis, epsilon = axis_of(int(call.get("axis", -1)), x.ndim), float(call.get("epsilon", 1e-5))
    kept, over = _stage(call, x), list(range(axis, x.ndim))
    plain = scale.shape == x.shape[axis:] and (bias is None or bias.shape == scale.shape)
    if plain and call.outputs == 1 and kept == x.dtype:
        return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)
    data = x.to(kept)
    mean = data.mean(over, keepdim=True)
    centered = data - mean
    inverse = torch.rsqrt((centered * centered).mean(over, keepdim=True) + epsilon)
    y = (centered * inverse).to(x.dtype) * scale
    require(y.shape == x.shape, f"LayerNormalization with a scale {tuple(scale.shape)} larger than its data")
    y = y if bias is None else y + bias
    said = COMPUTED[int(call.get("stash_type", TensorProto.FLOAT))]
    return (y, mean.to(said), inverse.to(said))[: call.outputs] if call.outputs > 1 else y


def rms_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``x / sqrt(mean(x^2) + epsilon) * scale`` with the mean over the axes from ``axis`` on."""
    axis, epsilon = axis_of(int(call.get("axis", -1)), x.ndim), float(call.get("epsilon", 1e-5))
    alike(x, scale)
    data = x.to(_stage(call, x))
    square = (data * data).mean(list(range(axis, x.ndim)), keepdim=True)
    y = (data * torch.rsqrt(square + epsilon)).to(x.dtype) * scale
    require(y.shape == x.shape, f"RMSNormalization with a scale {tuple(scale.shape)} larger than its data")
    return y


def _stage(call: Call, x: torch.Tensor) -> torch.dtype:
    """The type of the first stage."""
    code = int(call.get("stash_type", TensorProto.FLOAT))
    require(code in COMPUTED and COMPUTED[code].is_floating_point, f"stash_type {code}")
    return torch.float64 if x.dtype == torch.float64 else COMPUTED[code]


def lp_normalization(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x`` divided by its L1 or L2 norm along one axis; 0 where the norm is 0."""
    axis, order = axis_of(int(call.get("axis", -1)), x.ndim), int(call.get("p", 2))
    require(order in (1, 2), f"LpNormalization with p = {order}")
    norm = torch.linalg.vector_norm(x, order, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


def lrn(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x / (bias + alpha / size * sum(x^2))^beta``, the sum over ``size`` neighboring channels."""
    size, channels = int(call.attributes["size"]), x.shape[1]
    require(size >= 1 and x.ndim >= 3, f"LRN of size {size} over data of rank {x.ndim}")
    below = (size - 1) // 2
    rest = (0, 0) * (x.ndim - 2)
    squares = F.pad(x * x, (*rest, below, size - 1 - below))
    total = squares.narrow(1, 0, channels)
    for step in range(1, size):
        total = total + squares.narrow(1, step, channels)
    base = float(call.get("bias", 1.0)) + float(call.get("alpha", 1e-4)) / size * total
    return x / base ** float(call.get("beta", 0.75))


KERNELS: dict[str, Kernel] = {
    "instance_normalization": instance_normalization,
    "group_normalization": group_normalization,
    "layer_normalization": layer_normalization,
    "rms_normalization": rms_normalization,
    "lp_normalization": lp_normalization,
    "lrn": lrn,
}
