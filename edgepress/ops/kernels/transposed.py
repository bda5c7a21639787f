"""ConvTranspose over one to three spatial axes: the transpose of a convolution.

Per axis the full result spans ``(size - 1) * stride + (kernel - 1) * dilation + 1`` elements; ``pads`` cut it at both
ends and ``output_padding`` lengthens it behind. ``output_shape``, or ``auto_pad`` SAME with ``size * stride``, states
the result and the padding follows: the odd element goes behind for SAME_UPPER, in front otherwise (opset 11 on).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Kernel, require
from edgepress.ops.kernels.windows import pad_spatial

Axes = tuple[int, ...]


def conv_transpose(call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Data ``[N, C, *s]``, weight ``[C, M/group, *k]``, bias ``[M]``."""
    kernel = tuple(weight.shape[2:])
    rank = len(kernel)
    require(1 <= rank <= 3 and x.ndim == rank + 2, f"data of rank {x.ndim} with a window over {rank} axes")
    stated = call.sizes("kernel_shape", rank, 0)
    require(not any(stated) or stated == kernel, f"kernel_shape {stated} with a weight {tuple(weight.shape)}")
    stride, dilation = call.sizes("strides", rank, 1), call.sizes("dilations", rank, 1)
    extra = call.sizes("output_padding", rank, 0)
    geometry = zip(x.shape[2:], stride, kernel, dilation, strict=True)
    full = tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in geometry)
    before, after = _padding(call, x, stride, tuple(map(sum, zip(full, extra, strict=True))))
    group = int(call.get("group", 1))
    legal = all(more < max(s, d) for more, s, d in zip(extra, stride, dilation, strict=True))
    if before == after and legal:
        return _transposed(x, weight, bias, (stride, before, extra, group, dilation))
    # the part behind that output_padding adds is cut less, or holds the bias alone
    whole = _transposed(x, weight, None, (stride, (0,) * rank, (0,) * rank, group, dilation))
    behind = tuple(more - cut for more, cut in zip(extra, after, strict=True))
    whole = pad_spatial(whole, tuple(-cut for cut in before), behind)
    return whole if bias is None else whole + bias.reshape(-1, *(1,) * rank)


def _transposed(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rest: tuple[Axes, Axes, Axes, int, Axes]
) -> torch.Tensor:
    if weight.ndim == 4:
        return F.conv_transpose2d(x, weight, bias, *rest)
    if weight.ndim == 3:
        return F.conv_transpose1d(x, weight, bias, *rest)
    return F.conv_transpose3d(x, weight, bias, *rest)


def _padding(call: Call, x: torch.Tensor, stride: Axes, full: Axes) -> tuple[Axes, Axes]:
    """Elements cut before and after along each axis; ``full`` counts ``output_padding`` too."""
    rank = len(full)
    mode = call.get("auto_pad", "NOTSET")
    require(mode in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad {mode!r}")
    wanted = _wanted(call, x, stride, mode)
    if wanted is None:
        pads = call.sizes("pads", 2 * rank, 0)
        require(min(pads) >= 0, f"negative pads {list(pads)}")
        require(mode == "NOTSET" or not any(pads), f"auto_pad {mode} together with pads {list(pads)}")
        return pads[:rank], pads[rank:]
    totals = tuple(size - out for size, out in zip(full, wanted, strict=True))
    # of a stated size one element more goes behind; about all else onnxruntime and the specification disagree
    least = -1 if mode == "NOTSET" else 0
    require(min(totals) >= least, f"ConvTranspose to {wanted}, larger than the {full} its data reach")
    odd = any(total % 2 for total in totals)
    require(call.opset >= 11 or not odd, "ConvTranspose with uneven padding before opset 11, which splits it otherwise")
    less = tuple(total // 2 for total in totals)
    more = tuple(total - half for total, half in zip(totals, less, strict=True))
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _wanted(call: Call, x: torch.Tensor, stride: Axes, mode: str) -> Axes | None:
    """The output size that decides the padding; None where pads are stated."""
    stated = call.get("output_shape", None)
    if stated:
        require(len(stated) == len(stride), f"output_shape has {len(stated)} entries, the data needs {len(stride)}")
        return tuple(int(size) for size in stated)
    if mode.startswith("SAME"):
        return tuple(n * s for n, s in zip(x.shape[2:], stride, strict=True))
    return None


KERNELS: dict[str, Kernel] = {"conv_transpose": conv_transpose}
