"""MaxPool, AveragePool, LpPool and global forms over one to three spatial axes.

``ceil_mode`` adds a last, partly outside window only if it starts inside the data or the padding in front of it
(onnxruntime and torch agree on this). An average divides by the elements of the window that lie in the data, with
``count_include_pad`` in the data or its declared padding. Where torch's pooling cannot say a case (uneven, wide or
dilated windows) the data are padded first and the average is corrected by its count.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Kernel, integers, require
from edgepress.ops.kernels.windows import Windows, pad_spatial, windows


def max_pool(call: Call, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """The largest element of each window of ``[N, C, *s]``, and where it is; padding never wins."""
    if x.dtype in (torch.int8, torch.uint8):  # torch pools floats, which hold all their values
        made = max_pool(call, x.to(torch.float32))
        return made.to(x.dtype) if isinstance(made, torch.Tensor) else (made[0].to(x.dtype), made[1])
    w, ceil = _pool_windows(call, x)
    if call.outputs > 1:
        return _with_indices(call, x, w, ceil=ceil)
    if not _torch_pads(w):
        w = _cover(w, tuple(x.shape[2:]), ceil=ceil)
        x, ceil = pad_spatial(x, w.before, w.after, -math.inf), False
        w = replace(w, before=(0,) * len(w.kernel))
    if len(w.kernel) == 2:
        return F.max_pool2d(x, w.kernel, w.stride, w.before, w.dilation, ceil)
    if len(w.kernel) == 1:
        return F.max_pool1d(x, w.kernel, w.stride, w.before, w.dilation, ceil)
    return F.max_pool3d(x, w.kernel, w.stride, w.before, w.dilation, ceil)


def _with_indices(call: Call, x: torch.Tensor, w: Windows, *, ceil: bool) -> tuple[torch.Tensor, ...]:
    """Indices count in the whole tensor, torch's in one channel; ``storage_order`` 1 counts space in columns."""
    require(_torch_pads(w), "MaxPool with the Indices output and uneven or wide padding")
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(w.kernel)]
    y, place = pool(x, w.kernel, w.stride, w.before, w.dilation, ceil, return_indices=True)
    size = math.prod(x.shape[2:])
    if call.get("storage_order", 0):
        columns = torch.arange(size, device=x.device).reshape(tuple(reversed(x.shape[2:])))
        place = columns.permute(*reversed(range(columns.ndim))).reshape(-1)[place]
    images = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *(1,) * len(w.kernel))
    return y, place + images * size


def lp_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``(sum |x|^p)^(1/p)`` over each window of ``[N, C, *s]``."""
    w, ceil = _pool_windows(call, x)
    order = int(call.get("p", 2))
    require(order >= 1, f"LpPool with p = {order}")
    cover = _cover(w, tuple(x.shape[2:]), ceil=ceil)
    powers = pad_spatial(x.abs() ** order, cover.before, cover.after)
    total = _mean(powers, cover, (0,) * len(w.kernel), ceil=False, include=True) * math.prod(w.kernel)
    empty = total == 0  # where the root has no gradient
    return torch.where(empty, total, torch.where(empty, torch.ones_like(total), total) ** (1 / order))


def average_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The mean of each window of ``[N, C, *s]``."""
    w, ceil = _pool_windows(call, x)
    include = bool(call.get("count_include_pad", 0))
    size = tuple(x.shape[2:])
    if set(w.dilation) == {1} and _torch_pads(w):
        return _mean(x, w, w.before, ceil=ceil, include=include)
    cover = _cover(w, size, ceil=ceil)
    mean = _mean(pad_spatial(x, cover.before, cover.after), cover, (0,) * len(size), ceil=False, include=True)
    share = torch.ones((), dtype=x.dtype, device=x.device)
    for axis in range(len(size)):
        inside = _counts(w, axis, size[axis], mean.shape[2 + axis], include=include)
        ratios = torch.tensor([w.kernel[axis] / count for count in inside], dtype=x.dtype, device=x.device)
        share = share.unsqueeze(-1) * ratios
    return mean if bool((share == 1).all()) else mean * share


def global_average_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The mean over all spatial axes, kept as axes of size 1."""
    require(x.ndim >= 3, f"GlobalAveragePool of rank {x.ndim}")
    return torch.mean(x, tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The maximum over all spatial axes, kept as axes of size 1."""
    require(x.ndim >= 3, f"GlobalMaxPool of rank {x.ndim}")
    return torch.amax(x, tuple(range(2, x.ndim)), keepdim=True)


def _pool_windows(call: Call, x: torch.Tensor) -> tuple[Windows, bool]:
    require(x.is_floating_point(), f"pooling of {x.dtype}")
    w = windows(call, x, tuple(integers(call.attributes["kernel_shape"])))
    mode, ceil = call.get("auto_pad", "NOTSET"), bool(call.get("ceil_mode", 0))
    # where stride skips the end of the data, onnxruntime also skips its begin, the specification does not say
    fits = all((-(-n // s) - 1) * s + k >= n for n, s, k in zip(x.shape[2:], w.stride, w.reach, strict=True))
    require(fits or not mode.startswith("SAME"), f"auto_pad {mode} with windows that skip data at the end")
    require(mode == "NOTSET" or not ceil, f"auto_pad {mode} together with ceil_mode")
    pads = zip(w.before + w.after, w.kernel * 2, strict=True)
    require(all(pad < kernel for pad, kernel in pads), "pooling windows that lie in the padding alone")
    return w, ceil


def _torch_pads(w: Windows) -> bool:
    """Torch can do the padding itself: the same on both sides and at most half a window."""
    return w.symmetric and all(2 * pad <= kernel for pad, kernel in zip(w.before, w.kernel, strict=True))


def _cover(w: Windows, size: tuple[int, ...], *, ceil: bool) -> Windows:
    """Padding behind the data so that plain (floor) counting of windows gives those of ``ceil_mode``."""
    if not ceil:
        return w
    after = []
    for axis, n in enumerate(size):
        last = -(-(n + w.before[axis] + w.after[axis] - w.reach[axis]) // w.stride[axis])
        last -= last * w.stride[axis] >= n + w.before[axis]
        after.append(max(0, last * w.stride[axis] + w.reach[axis] - n - w.before[axis]))
    return replace(w, after=tuple(after))


def _counts(w: Windows, axis: int, size: int, positions: int, *, include: bool) -> list[int]:
    """Per output position of one axis: how many taps of its window count."""
    low, high = (-w.before[axis], size + w.after[axis]) if include else (0, size)
    starts = [position * w.stride[axis] - w.before[axis] for position in range(positions)]
    taps = [range(start, start + w.reach[axis], w.dilation[axis]) for start in starts]
    counts = [sum(low <= tap < high for tap in window) for window in taps]
    require(0 not in counts, "an average over a window outside the data")
    return counts


def _mean(x: torch.Tensor, w: Windows, padding: tuple[int, ...], *, ceil: bool, include: bool) -> torch.Tensor:
    if set(w.dilation) != {1}:
        return _dilated_mean(x, w)
    if len(w.kernel) == 2:
        return F.avg_pool2d(x, w.kernel, w.stride, padding, ceil, include)
    if len(w.kernel) == 1:
        return F.avg_pool1d(x, w.kernel, w.stride, padding, ceil, include)
    return F.avg_pool3d(x, w.kernel, w.stride, padding, ceil, include)


def _dilated_mean(x: torch.Tensor, w: Windows) -> torch.Tensor:
    """A convolution with equal weights; every channel is an image of its own."""
    images = x.reshape(-1, 1, *x.shape[2:])
    weight = torch.full((1, 1, *w.kernel), 1.0 / math.prod(w.kernel), dtype=x.dtype, device=x.device)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(w.kernel)]
    mean: torch.Tensor = convolve(images, weight, None, w.stride, 0, w.dilation)
    return mean.reshape(*x.shape[:2], *mean.shape[2:])


KERNELS: dict[str, Kernel] = {
    "max_pool": max_pool,
    "average_pool": average_pool,
    "lp_pool": lp_pool,
    "global_average_pool": global_average_pool,
    "global_max_pool": global_max_pool,
}
