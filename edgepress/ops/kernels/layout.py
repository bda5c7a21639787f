"""Data movement: elements change place, never value.

Views where torch has them (Transpose, Slice with positive steps, Split, Expand), gathers where it has none
(negative steps, reflected and repeated edges).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Host, Kernel, alike, axis_of, integers, number, require


def concat(call: Call, *parts: torch.Tensor) -> torch.Tensor:
    """Join along one axis."""
    alike(*parts)
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis_of(int(call.attributes["axis"]), parts[0].ndim))


def reshape(call: Call, x: torch.Tensor, shape: Host | None = None) -> torch.Tensor:
    """New shape with the same elements; 0 copies the size of that axis unless ``allowzero`` is set."""
    sizes = integers(call.attributes["shape"] if shape is None else shape)
    if not call.get("allowzero", 0):
        copies = [axis for axis, size in enumerate(sizes) if size == 0]
        require(not copies or copies[-1] < x.ndim, f"Reshape to {sizes} of a tensor of rank {x.ndim}")
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Two axes: all before ``axis`` and all from it on."""
    axis = int(call.get("axis", 1))
    require(-x.ndim <= axis <= x.ndim, f"axis {axis} is outside a tensor of rank {x.ndim}")
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Axes in the order of ``perm``, reversed by default."""
    return x.permute(call.get("perm", tuple(reversed(range(x.ndim)))))


def squeeze(call: Call, x: torch.Tensor, axes: Host | None = None) -> torch.Tensor:
    """Drop axes of size 1: the named ones (an attribute before opset 13), or all."""
    given = call.get("axes", None) if axes is None else axes
    if given is None:
        return x.squeeze()
    chosen = tuple(axis_of(axis, x.ndim) for axis in integers(given))
    require(bool(chosen), "Squeeze with an empty list of axes")
    require(all(x.shape[axis] == 1 for axis in chosen), f"Squeeze of axes {chosen} of shape {tuple(x.shape)}")
    return x.squeeze(chosen)


def unsqueeze(call: Call, x: torch.Tensor, axes: Host | None = None) -> torch.Tensor:
    """Insert axes of size 1; positions count in the result."""
    given = integers(call.attributes["axes"] if axes is None else axes)
    chosen = sorted(axis_of(axis, x.ndim + len(given)) for axis in given)
    require(len(set(chosen)) == len(chosen), "Unsqueeze with an axis given twice")
    for axis in chosen:
        x = x.unsqueeze(axis)
    return x


def slice_(
    call: Call,
    x: torch.Tensor,
    starts: Host | None = None,
    ends: Host | None = None,
    axes: Host | None = None,
    steps: Host | None = None,
) -> torch.Tensor:
    """Python slices along some axes (attributes before opset 10); bounds are clamped, steps may be negative."""
    first = integers(call.attributes["starts"] if starts is None else starts)
    last = integers(call.attributes["ends"] if ends is None else ends)
    along = call.get("axes", None) if axes is None else axes
    chosen = list(range(len(first))) if along is None else integers(along)
    strides = [1] * len(first) if steps is None else integers(steps)
    require(0 not in strides, "Slice with step 0")
    for start, end, axis, step in zip(first, last, chosen, strides, strict=True):
        at = axis_of(axis, x.ndim)
        kept = range(*slice(start, end, step).indices(x.shape[at]))
        if step > 0:
            x = x[(slice(None),) * at + (slice(kept.start, max(kept.start, kept.stop), step),)]
        else:
            x = x.index_select(at, torch.tensor(list(kept), dtype=torch.int64, device=x.device))
    return x


def split(call: Call, x: torch.Tensor, sizes: Host | None = None) -> tuple[torch.Tensor, ...]:
    """Cut along one axis into given sizes, or evenly; since opset 18 the last of ``num_outputs`` may be smaller."""
    axis = axis_of(int(call.get("axis", 0)), x.ndim)
    given = call.get("split", None) if sizes is None else sizes
    parts = _even(call, x.shape[axis]) if given is None else integers(given)
    require(len(parts) == call.outputs, f"Split into {len(parts)} parts with {call.outputs} outputs")
    require(sum(parts) == x.shape[axis] and min(parts) >= 0, f"Split of {x.shape[axis]} into {parts}")
    return torch.split(x, parts, axis)


def _even(call: Call, size: int) -> list[int]:
    count = int(call.get("num_outputs", call.outputs))
    part = -(-size // count)
    parts = [part] * (count - 1) + [size - part * (count - 1)]
    uneven = call.opset >= 18 and "num_outputs" in call.attributes
    require(uneven or len(set(parts)) == 1, f"Split of {size} into {count} even parts")
    return parts


def pad(
    call: Call,
    x: torch.Tensor,
    pads: Host | None = None,
    value: torch.Tensor | None = None,
    axes: Host | None = None,
) -> torch.Tensor:
    """Add elements around the data: a constant, its mirror image without the edge, its edge, or its other end."""
    mode = call.get("mode", "constant")
    require(mode in ("constant", "reflect", "edge", "wrap"), f"Pad with mode {mode!r}")
    amounts = integers(call.attributes["pads"] if pads is None else pads)
    chosen = [axis_of(axis, x.ndim) for axis in integers(axes)] if axes is not None else list(range(x.ndim))
    require(len(amounts) == 2 * len(chosen), f"Pad with {len(amounts)} pads for {len(chosen)} axes")
    pairs = dict(zip(chosen, zip(amounts, amounts[len(chosen) :], strict=False), strict=True))
    if mode == "constant":
        flat = [amount for axis in reversed(range(x.ndim)) for amount in pairs.get(axis, (0, 0))]
        return F.pad(x, flat, value=call.get("value", 0) if value is None else number(value))
    for axis, (before, after) in pairs.items():
        if before or after:
            x = x.index_select(axis, _around(x.shape[axis], before, after, mode).to(x.device))
    return x


def _around(size: int, before: int, after: int, mode: str) -> torch.Tensor:
    """Source positions of an axis that is reflected, repeated or has its edge repeated."""
    require(min(before, after) >= 0, "Pad with negative pads and a mode other than constant")
    reach = max(before, after)
    require(size > (reach if mode == "reflect" else 0), f"Pad of {size} elements by {reach} mirrored")
    positions = torch.arange(-before, size + after)
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "wrap":
        return positions % size
    positions = positions.abs()
    return torch.where(positions >= size, 2 * (size - 1) - positions, positions)


def expand(call: Call, x: torch.Tensor, shape: Host) -> torch.Tensor:
    """Broadcast to a shape; axes of size 1 in the shape keep the data's size."""
    return x.expand(np.broadcast_shapes(x.shape, tuple(integers(shape))))


def tile(call: Call, x: torch.Tensor, repeats: Host) -> torch.Tensor:
    """Repeat the whole tensor along each axis."""
    counts = integers(repeats)
    require(len(counts) == x.ndim, f"Tile with {len(counts)} repeats of a tensor of rank {x.ndim}")
    return x.repeat(counts)


def depth_to_space(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Channels to ``b x b`` blocks of space: ``[N, C, H, W] -> [N, C / b^2, H b, W b]`` (DCR or CRD order)."""
    b, mode = int(call.attributes["blocksize"]), call.get("mode", "DCR")
    require(mode in ("DCR", "CRD"), f"DepthToSpace with mode {mode!r}")
    require(x.ndim == 4 and x.shape[1] % (b * b) == 0, f"DepthToSpace of shape {tuple(x.shape)} by {b}")
    n, c, h, w = x.shape
    c //= b * b
    if mode == "DCR":
        blocks = x.reshape(n, b, b, c, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, c, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c, h * b, w * b)


def space_to_depth(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``b x b`` blocks of space to channels: ``[N, C, H, W] -> [N, C b^2, H / b, W / b]``, DCR block position first."""
    b, mode = int(call.attributes["blocksize"]), call.get("mode", "DCR")
    require(mode == "DCR" or (mode == "CRD" and call.opset >= 28), f"SpaceToDepth with mode {mode!r}")
    require(x.ndim == 4 and x.shape[2] % b == 0 and x.shape[3] % b == 0, f"SpaceToDepth of {tuple(x.shape)} by {b}")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b * b, h // b, w // b)


def trilu(call: Call, x: torch.Tensor, k: Host | None = None) -> torch.Tensor:
    """The part of each matrix on and above (``upper`` 0: below) its ``k``-th diagonal, 0 elsewhere."""
    diagonal = 0 if k is None else int(number(k))
    require(x.ndim >= 2, f"Trilu of rank {x.ndim}")
    return torch.triu(x, diagonal) if call.get("upper", 1) else torch.tril(x, diagonal)


KERNELS: dict[str, Kernel] = {
    "concat": concat,
    "reshape": reshape,
    "flatten": flatten,
    "transpose": transpose,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "slice": slice_,
    "split": split,
    "trilu": trilu,
    "pad": pad,
    "expand": expand,
    "tile": tile,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
}
