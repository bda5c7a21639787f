"""Rotary position embedding (Su et al., arXiv 2104.09864): pairs of features turned by an angle of their position.

``(a, b) -> (a cos - b sin, a sin + b cos)``, the pairs being the two halves of a head's first ``rotary_embedding_dim``
features or, interleaved, neighbors.
"""

from __future__ import annotations

import torch

from edgepress.ops.kernels.attention import merged, parted
from edgepress.ops.kernels.call import Call, Kernel, alike, inside, require


def rotary_embedding(
    call: Call, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Data ``[B, S, heads * size]`` or ``[B, heads, S, size]``; tables ``[max, pairs]`` read by position, or given."""
    alike(x, cos, sin)
    require(x.ndim in (3, 4), f"RotaryEmbedding of rank {x.ndim}")
    if positions is not None:
        cos, sin = at(cos, positions), at(sin, positions)
    heads = x if x.ndim == 4 else parted(x, int(call.get("num_heads", 0)))
    size = int(call.get("rotary_embedding_dim", 0)) or heads.shape[-1]
    y = turned(heads, cos, sin, size=size, interleaved=bool(call.get("interleaved", 0)))
    return y if x.ndim == 4 else merged(y)


def at(table: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of a table by position: ``[max, pairs]`` and ``[B, S]`` make ``[B, S, pairs]``."""
    require(table.ndim == 2, f"a table of rank {table.ndim} read by position")
    rows = inside(positions, table.shape[0])
    return table.index_select(0, rows.reshape(-1)).reshape(*rows.shape, -1)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, size: int, interleaved: bool) -> torch.Tensor:
    """Turn the first ``size`` features of ``[B, heads, S, features]`` by tables ``[B, S, size / 2]``."""
    require(size % 2 == 0 and size <= x.shape[-1], f"{size} of {x.shape[-1]} features turned in pairs")
    require(cos.shape == sin.shape and cos.ndim == 3 and cos.shape[-1] == size // 2, f"a table {tuple(cos.shape)}")
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    live, rest = x[..., :size], x[..., size:]
    a, b = (live[..., 0::2], live[..., 1::2]) if interleaved else live.chunk(2, -1)
    pair = (a * cos - b * sin, a * sin + b * cos)
    both = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([both, rest], -1) if rest.shape[-1] else both


KERNELS: dict[str, Kernel] = {"rotary_embedding": rotary_embedding}
