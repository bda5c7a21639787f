"""Lookups and scatters: elements read or written at positions a tensor states; negative ones count from the end.

Where two updates meet without a ``reduction`` the specification leaves the result open, and so does torch.
"""

from __future__ import annotations

import math

import torch

from edgepress.ops.kernels.call import Call, Host, Kernel, alike, axis_of, inside, number, require

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Whole slices along one axis by index."""
    axis = axis_of(int(call.get("axis", 0)), x.ndim)
    wanted = inside(indices, x.shape[axis])
    taken = x.index_select(axis, wanted.reshape(-1))
    return taken.reshape(x.shape[:axis] + wanted.shape + x.shape[axis + 1 :])


def gather_elements(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """One element per index, its other coordinates being those of the index."""
    axis = axis_of(int(call.get("axis", 0)), x.ndim)
    return torch.gather(x, axis, inside(indices, x.shape[axis]))


def gather_nd(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Slices by tuples of indices (the last axis of ``indices``), the first ``batch_dims`` axes side by side."""
    batch, depth = int(call.get("batch_dims", 0)), indices.shape[-1]
    require(batch < min(x.ndim, indices.ndim), f"GatherND with {batch} batch axes")
    require(batch + depth <= x.ndim, f"GatherND by {depth} indices into rank {x.ndim}")
    require(x.shape[:batch] == indices.shape[:batch], "GatherND with uneven batches")
    count = math.prod(x.shape[:batch])
    rows = _linear(indices, tuple(x.shape[batch : batch + depth])).reshape(count, -1)
    stride = math.prod(x.shape[batch : batch + depth])
    rows = rows + torch.arange(count, device=x.device).unsqueeze(1) * stride
    taken = x.reshape(count * stride, -1).index_select(0, rows.reshape(-1))
    return taken.reshape(*indices.shape[:-1], *x.shape[batch + depth :])


def _linear(indices: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Tuples of indices as positions in the flattened axes of these sizes."""
    position = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for at, size in enumerate(sizes):
        position = position * size + inside(indices[..., at], size)
    return position


def scatter_elements(call: Call, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """A copy with one element replaced, or combined, per index."""
    alike(x, updates)
    axis, how = axis_of(int(call.get("axis", 0)), x.ndim), _reduction(call)
    wanted = inside(indices, x.shape[axis])
    return x.scatter(axis, wanted, updates) if how is None else x.scatter_reduce(axis, wanted, updates, how)


def scatter_nd(call: Call, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """A copy with slices replaced, or combined, at tuples of indices."""
    alike(x, updates)
    depth, how = indices.shape[-1], _reduction(call)
    require(depth <= x.ndim, f"ScatterND by {depth} indices into rank {x.ndim}")
    rows = _linear(indices, tuple(x.shape[:depth])).reshape(-1)
    flat = x.reshape(math.prod(x.shape[:depth]), math.prod(x.shape[depth:]))
    news = updates.reshape(rows.numel(), flat.shape[1])
    if how is None:
        return flat.index_copy(0, rows, news).reshape(x.shape)
    return flat.scatter_reduce(0, rows.unsqueeze(1).expand(news.shape), news, how).reshape(x.shape)


def _reduction(call: Call) -> str | None:
    said = call.get("reduction", "none")
    require(said == "none" or said in REDUCTIONS, f"a scatter with reduction {said!r}")
    return REDUCTIONS.get(said)


def one_hot(call: Call, indices: torch.Tensor, depth: Host, values: torch.Tensor) -> torch.Tensor:
    """``values[1]`` at the index along a new axis of ``depth`` places, ``values[0]`` elsewhere or if it is outside."""
    places = int(number(depth))
    axis = axis_of(int(call.get("axis", -1)), indices.ndim + 1)
    wanted = indices.to(torch.int64)
    negative = wanted < 0
    require(call.opset >= 11 or not bool(negative.any()), "negative indices of OneHot before opset 11")
    wanted = torch.where(negative, wanted + places, wanted).unsqueeze(axis)
    there = torch.arange(places, device=wanted.device).reshape(-1, *(1,) * (indices.ndim - axis)) == wanted
    off, on = values.unbind()
    return torch.where(there, on, off)


def non_zero(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Coordinates of all elements but zeros, one column each, in row-major order."""
    require(x.ndim >= 1, "NonZero of a scalar")
    return torch.nonzero(x).t()


def top_k(call: Call, x: torch.Tensor, k: Host | None = None) -> tuple[torch.Tensor, ...]:
    """The ``k`` largest (or smallest) elements along an axis and where they are; of equal ones the first leads."""
    axis = axis_of(int(call.get("axis", -1)), x.ndim)
    count = int(call.attributes["k"]) if k is None else int(number(k))
    require(0 <= count <= x.shape[axis], f"TopK of {count} among {x.shape[axis]}")
    require(bool(call.get("sorted", 1)), "TopK in no order")
    order = torch.sort(x, dim=axis, descending=bool(call.get("largest", 1)), stable=True).indices
    best = order.narrow(axis, 0, count)
    return (x.gather(axis, best), best)[: call.outputs]


KERNELS: dict[str, Kernel] = {
    "gather": gather,
    "gather_elements": gather_elements,
    "gather_nd": gather_nd,
    "scatter_elements": scatter_elements,
    "scatter_nd": scatter_nd,
    "one_hot": one_hot,
    "non_zero": non_zero,
    "top_k": top_k,
}
