"""Operators of the domain ``com.microsoft`` that optimized float models hold: fused activations, norms and attention.

The meaning is what onnxruntime computes on CPU; there is no other specification. What was not compared with it is
refused: packed, quantized or shared caches, padded batches, sinks and smooth softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from edgepress.ops.kernels import rotary
from edgepress.ops.kernels.attention import additive, joined, merged, parted, reach, scores, spread
from edgepress.ops.kernels.call import Call, Host, Kernel, alike, integers, number, require


def gelu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x * Phi(x)``."""
    return F.gelu(x)


def fast_gelu(call: Call, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The tanh approximation of Gelu, of ``x + bias``."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def bias_gelu(call: Call, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Gelu of ``x + bias``."""
    alike(x, bias)
    return F.gelu(x + bias)


def quick_gelu(call: Call, x: torch.Tensor) -> torch.Tensor:
    """``x * sigmoid(alpha * x)``."""
    return x * torch.sigmoid(float(call.get("alpha", 1.702)) * x)


def fused_matmul(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``alpha * a b`` with the last two axes of either swapped first."""
    alike(a, b)
    batch = call.get("transBatchA", 0) or call.get("transBatchB", 0)
    require(not batch, "FusedMatMul with transposed batches")
    a = a.transpose(-1, -2) if call.get("transA", 0) and a.ndim > 1 else a
    b = b.transpose(-1, -2) if call.get("transB", 0) and b.ndim > 1 else b
    return torch.matmul(a, b) * float(call.get("alpha", 1.0))


def simplified_layer_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``x / sqrt(mean(x^2) + epsilon) * scale`` along the last axis."""
    alike(x, scale)
    require(call.outputs == 1 and int(call.get("axis", -1)) in (-1, x.ndim - 1), "SimplifiedLayerNormalization so used")
    return _root_mean_square(x, scale, float(call.get("epsilon", 1e-5)))


def _root_mean_square(x: torch.Tensor, scale: torch.Tensor, epsilon: float) -> torch.Tensor:
    require(scale.shape == x.shape[-1:], f"a scale {tuple(scale.shape)} for data {tuple(x.shape)}")
    square = (x * x).mean(-1, keepdim=True)
    return x * torch.rsqrt(square + epsilon) * scale


def skip_layer_normalization(
    call: Call,
    x: torch.Tensor,
    skip: torch.Tensor,
    scale: torch.Tensor,
    beta: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Layer normalization of ``x + skip + bias`` along the last axis; the fourth output is that sum."""
    total = _sum(x, skip, bias)
    epsilon = float(call.get("epsilon", 1e-12))
    return _with_sum(call, F.layer_norm(total, total.shape[-1:], scale, beta, epsilon), total, centered=True)


def skip_simplified_layer_normalization(
    call: Call, x: torch.Tensor, skip: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Root-mean-square normalization of ``x + skip + bias``; the fourth output is that sum."""
    total = _sum(x, skip, bias)
    epsilon = float(call.get("epsilon", 1e-12))
    return _with_sum(call, _root_mean_square(total, scale, epsilon), total, centered=False)


def _sum(x: torch.Tensor, skip: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    require(x.shape == skip.shape, f"data {tuple(x.shape)} with a skip {tuple(skip.shape)}")
    return x + skip if bias is None else x + skip + bias


def _with_sum(
    call: Call, y: torch.Tensor, total: torch.Tensor, *, centered: bool
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """The output, the mean (0 where none is taken off) and inverse deviation of training, and the sum."""
    if call.outputs == 1:
        return y
    mean = total.mean(-1, keepdim=True) if centered else torch.zeros_like(total[..., :1])
    around = total - mean
    inverse = torch.rsqrt((around * around).mean(-1, keepdim=True) + float(call.get("epsilon", 1e-12)))
    return (y, mean, inverse, total)[: call.outputs]


def rotary_embedding(
    call: Call, x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """As RotaryEmbedding of ONNX; one position is that of the first step."""
    require(not call.get("is_packed_batching", 0) and call.get("scale", 1.0) == 1.0, "RotaryEmbedding packed or scaled")
    size = int(call.get("rotary_embedding_dim", 0))
    require(x.ndim in (3, 4), f"RotaryEmbedding of rank {x.ndim}")
    heads = x if x.ndim == 4 else parted(x, int(call.get("num_heads", 0)) or x.shape[-1] // (2 * cos.shape[-1]))
    if positions.numel() == 1:
        steps = torch.arange(heads.shape[2], device=x.device)
        positions = (positions.reshape(()) + steps).expand(heads.shape[0], -1)
    tables = rotary.at(cos, positions), rotary.at(sin, positions)
    interleaved = bool(call.get("interleaved", 0))
    y = rotary.turned(heads, *tables, size=size or heads.shape[-1], interleaved=interleaved)
    return y if x.ndim == 4 else merged(y)


def multi_head_attention(
    call: Call,
    q: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    padding: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    past_k: torch.Tensor | None = None,
    past_v: torch.Tensor | None = None,
    *rest: torch.Tensor | None,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Q, K, V ``[B, S, heads * size]`` with one bias for the three; up to three outputs."""
    require(k is not None and v is not None and k.ndim == 3, "MultiHeadAttention of packed inputs")
    require(padding is None and all(value is None for value in rest), "MultiHeadAttention with padding or sharing")
    require(call.outputs <= 3, "MultiHeadAttention with its scores as an output")
    one_way = bool(call.get("unidirectional", 0))
    given = [value for value in (q, k, v) if value is not None]
    widths = [value.shape[-1] for value in given]
    if bias is not None:
        given = [value + part for value, part in zip(given, torch.split(bias, widths), strict=True)]
    q, k, v = (parted(value, int(call.attributes["num_heads"])) for value in given)
    k, v = joined(past_k, k), joined(past_v, v)
    require(not one_way or q.shape[2] == k.shape[2], "one-way MultiHeadAttention with more keys than queries")
    start = torch.zeros((), dtype=torch.int64, device=q.device)
    where = reach(q.shape[2], k.shape[2], start, left=-1, right=0 if one_way else -1)
    if where is not None:
        limit = additive(where, q.dtype)
        added = limit if added is None else added + limit
    stages = scores(q, k, bias=added, scale=call.get("scale", 0.0) or None)
    return (merged(stages.shares @ v), k, v)[: call.outputs] if call.outputs > 1 else merged(stages.shares @ v)


def group_query_attention(
    call: Call,
    q: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    past_k: torch.Tensor | None,
    past_v: torch.Tensor | None,
    lengths: Host,
    total: Host,
    cos: torch.Tensor | None = None,
    sin: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    *rest: torch.Tensor | None,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Causal attention of ``[B, S, heads * size]`` behind a full past; packed where K and V are left out."""
    _plain_cache(call, q, past_k, (integers(lengths), int(number(total))))
    require(positions is None and added is None, "GroupQueryAttention with positions or a bias of its own")
    require(all(value is None for value in rest), "GroupQueryAttention with sinks, scales or norms")
    q, k, v = _groups(call, q, k, v)
    past = 0 if past_k is None else past_k.shape[2]
    if call.get("do_rotary", 0):
        require(cos is not None and sin is not None, "do_rotary without tables")
        q, k = (_rotated(call, x, (cos, sin), past) for x in (q, k))
    k, v = joined(past_k, k), joined(past_v, v)
    window = int(call.get("local_window_size", -1))
    start = torch.full((), past, device=q.device)
    where = reach(q.shape[2], k.shape[2], start, left=window - 1 if window > 0 else -1, right=0)
    limit = None if where is None else additive(where, q.dtype)
    scale, cap = float(call.get("scale", 0.0)), float(call.get("softcap", 0.0))
    stages = scores(q, k, bias=limit, scale=scale or None, cap=cap)
    y = merged(stages.shares @ spread(v, q.shape[1]))
    return y if call.outputs == 1 else (y, k, v)[: call.outputs]


def _plain_cache(call: Call, q: torch.Tensor, past: torch.Tensor | None, lengths: tuple[Sequence[int], int]) -> None:
    """Refuse every cache but a past that is full for all samples."""
    each, total = lengths
    before = 0 if past is None else past.shape[2]
    require(total == before + q.shape[1], f"GroupQueryAttention over {total} steps in a cache of another length")
    require(all(count + 1 == total for count in each), "GroupQueryAttention of padded samples")
    special = ("smooth_softmax", "sliding_window_cache", "qk_output", "kv_cache_bit_width")
    told = [name for name in special if call.get(name, 0) not in (0, -1)]
    quantized = [name for name in ("k_quant_type", "v_quant_type") if call.get(name, "NONE") != "NONE"]
    require(not told and not quantized, f"GroupQueryAttention with {', '.join(told + quantized)}")
    require(int(call.get("causal", 1)) == 1 and call.outputs <= 3, "GroupQueryAttention both ways, or with its scores")


def _groups(
    call: Call, q: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heads, groups = int(call.attributes["num_heads"]), int(call.attributes["kv_num_heads"])
    if k is None or v is None:
        require(k is None and v is None, "GroupQueryAttention with a key or value alone")
        size = q.shape[-1] // (heads + 2 * groups)
        q, k, v = torch.split(q, [heads * size, groups * size, groups * size], -1)
    return parted(q, heads), parted(k, groups), parted(v, groups)


def _rotated(call: Call, x: torch.Tensor, tables: tuple[torch.Tensor | None, ...], past: int) -> torch.Tensor:
    steps = torch.arange(past, past + x.shape[2], device=x.device).expand(x.shape[0], -1)
    cos, sin = (rotary.at(table, steps) for table in tables if table is not None)
    interleaved = bool(call.get("rotary_interleaved", 0))
    return rotary.turned(x, cos, sin, size=2 * cos.shape[-1], interleaved=interleaved)


KERNELS: dict[str, Kernel] = {
    "microsoft_gelu": gelu,
    "fast_gelu": fast_gelu,
    "bias_gelu": bias_gelu,
    "quick_gelu": quick_gelu,
    "fused_matmul": fused_matmul,
    "simplified_layer_normalization": simplified_layer_normalization,
    "skip_layer_normalization": skip_layer_normalization,
    "skip_simplified_layer_normalization": skip_simplified_layer_normalization,
    "microsoft_rotary_embedding": rotary_embedding,
    "multi_head_attention": multi_head_attention,
    "group_query_attention": group_query_attention,
}
