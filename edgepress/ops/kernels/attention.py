"""Scaled dot-product attention: the operator of ONNX (definitions 23 to 25) and the parts its relatives share.

    P = softmax(softcap(Q K^T * scale) + bias),  Y = P V

per head; the bias is 0 where a query may look and -inf where it may not (mask, causality, window, padding), plus what
a float mask adds. A query that may look nowhere has a row of zeros. Query ``i`` stands at position ``i + offset``, the
offset being the length of the past. Fewer heads of keys and values than of queries serve as many queries each.
Plain products and a softmax throughout: they have rules for every transform of ``torch.func``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Host, Kernel, alike, integers, require
from edgepress.ops.kernels.types import COMPUTED

NOWHERE = -math.inf


@dataclass(frozen=True)
class Scores:
    """What the stages of attention made: ``[B, heads, queries, keys]`` each."""

    raw: torch.Tensor
    capped: torch.Tensor
    biased: torch.Tensor
    shares: torch.Tensor


def attention(
    call: Call,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    past_k: torch.Tensor | None = None,
    past_v: torch.Tensor | None = None,
    lengths: Host | None = None,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Q, K, V as ``[B, S, heads * size]`` or ``[B, heads, S, size]``; up to four outputs."""
    alike(q, k, v)
    flat = q.ndim == 3
    q, k, v = _heads(call, q, k, v)
    require((past_k is None) == (past_v is None), "past_key and past_value of which one is missing")
    require(past_k is None or lengths is None, "nonpad_kv_seqlen together with a past")
    # the one case where onnxruntime looks past the diagonal
    odd = past_k is not None and bool(call.get("is_causal", 0)) and q.shape[2] == 1 != k.shape[2]
    require(not odd, "causal Attention of one query with several new keys behind a past")
    k, v = joined(past_k, k), joined(past_v, v)
    offset = torch.tensor(0 if past_k is None else past_k.shape[2], device=q.device)
    valid = None if lengths is None else torch.tensor(integers(lengths), device=q.device).reshape(-1, 1, 1, 1)
    offset = offset if valid is None else valid - q.shape[2]
    where = _reach(call, q.shape[2], k.shape[2], offset)
    if valid is not None:
        seen = torch.arange(k.shape[2], device=q.device) < valid
        where = seen if where is None else where & seen
    stages = scores(
        q, k, bias=_bias(mask, where, q, k.shape[2]), scale=call.get("scale", None), cap=_cap(call), kind=_kind(call)
    )
    y = stages.shares.to(q.dtype) @ spread(v, q.shape[1])
    y = merged(y) if flat else y
    return y if call.outputs == 1 else (y, k, v, _shown(call, stages, q))[: call.outputs]


def _heads(call: Call, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Q, K and V with an axis of heads."""
    require({tensor.ndim for tensor in given} in ({3}, {4}), f"Attention of ranks {[t.ndim for t in given]}")
    counts = [call.get(name, None) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    if given[0].ndim == 4:
        stated = zip(counts, given, strict=True)
        require(all(count in (None, t.shape[1]) for count, t in stated), "num_heads unlike the inputs")
        q, k, v = given
        return q, k, v
    require(None not in counts, "Attention without num_heads")
    q, k, v = (parted(tensor, int(count or 0)) for tensor, count in zip(given, counts, strict=True))
    return q, k, v


def _reach(call: Call, queries: int, keys: int, offset: torch.Tensor) -> torch.Tensor | None:
    """Where a query may look by its position alone: causality and the sliding window of opset 25."""
    left, right = int(call.get("left_window_size", -1)), int(call.get("right_window_size", -1))
    require(min(left, right) >= -1, f"windows of {left} and {right}")
    right = min(right, 0) if right >= 0 and call.get("is_causal", 0) else right
    return reach(queries, keys, offset, left=left, right=0 if call.get("is_causal", 0) else right)


def _bias(mask: torch.Tensor | None, where: torch.Tensor | None, q: torch.Tensor, keys: int) -> torch.Tensor | None:
    """The mask, lengthened to all keys, and the positions together as one additive tensor."""
    added = None if where is None else additive(where, q.dtype)
    if mask is None:
        return added
    require(mask.dtype in (torch.bool, q.dtype), f"a mask of {mask.dtype}")
    require(mask.ndim >= 1 and mask.shape[-1] in range(min(2, keys), keys + 1), f"a mask {tuple(mask.shape)}")
    mask = additive(mask, q.dtype) if mask.dtype == torch.bool else mask
    mask = F.pad(mask, (0, keys - mask.shape[-1]), value=NOWHERE)
    return mask if added is None else mask + added


def _cap(call: Call) -> float:
    cap = float(call.get("softcap", 0.0))
    require(cap >= 0, f"softcap {cap}")
    return cap


def _kind(call: Call) -> torch.dtype | None:
    code = call.get("softmax_precision", None)
    require(code is None or int(code) in COMPUTED, f"softmax_precision {code}")
    return None if code is None else COMPUTED[int(code)]


def _shown(call: Call, stages: Scores, q: torch.Tensor) -> torch.Tensor:
    """The fourth output."""
    mode = int(call.get("qk_matmul_output_mode", 0))
    require(mode in range(4), f"qk_matmul_output_mode {mode}")
    return (stages.raw, stages.capped, stages.biased, stages.shares)[mode].to(q.dtype)


# --- the parts -----------------------------------------------------------------------------------


def parted(x: torch.Tensor, heads: int) -> torch.Tensor:
    """``[B, S, heads * size]`` as ``[B, heads, S, size]``."""
    require(heads > 0 and x.shape[-1] % heads == 0, f"{x.shape[-1]} features in {heads} heads")
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def merged(x: torch.Tensor) -> torch.Tensor:
    """``[B, heads, S, size]`` as ``[B, S, heads * size]``."""
    return x.transpose(1, 2).flatten(2)


def joined(past: torch.Tensor | None, now: torch.Tensor) -> torch.Tensor:
    """The past of a cache and what comes now, along the sequence."""
    return now if past is None else torch.cat([past, now], 2)


def spread(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Each head of keys or values repeated for the queries it serves."""
    count = x.shape[1]
    require(heads % count == 0, f"{heads} heads of queries with {count} of keys")
    if heads == count:
        return x
    return x.unsqueeze(2).expand(-1, -1, heads // count, -1, -1).reshape(x.shape[0], heads, *x.shape[2:])


def reach(queries: int, keys: int, offset: torch.Tensor, *, left: int, right: int) -> torch.Tensor | None:
    """Which keys lie at most ``left`` before and ``right`` behind a query; -1 is no bound, None everything."""
    if left < 0 and right < 0:
        return None
    first = torch.arange(queries, device=offset.device).unsqueeze(1) + offset
    ahead = torch.arange(keys, device=offset.device) - first
    near = torch.ones_like(ahead, dtype=torch.bool)
    near = near if left < 0 else near & (ahead >= -left)
    return near if right < 0 else near & (ahead <= right)


def additive(allowed: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """0 where a query may look, -inf elsewhere."""
    return torch.zeros_like(allowed, dtype=kind).masked_fill(~allowed, NOWHERE)


def scores(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    scale: float | None = None,
    cap: float = 0.0,
    kind: torch.dtype | None = None,
) -> Scores:
    """All stages up to the softmax, which runs in the type ``kind``."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    require(scale >= 0, f"scale {scale}")
    root = math.sqrt(scale)
    raw = (q * root) @ (spread(k, q.shape[1]) * root).transpose(-1, -2)
    capped = torch.tanh(raw / cap) * cap if cap else raw
    if bias is None:
        return Scores(raw, capped, capped, torch.softmax(capped.to(kind or q.dtype), -1))
    blind = (bias == NOWHERE).all(-1, keepdim=True)
    # not a number in a row without keys would spoil the gradients of all
    live = (capped + bias.masked_fill(blind, 0.0)).to(kind or q.dtype)
    return Scores(raw, capped, capped + bias, torch.softmax(live, -1).masked_fill(blind, 0.0))


KERNELS: dict[str, Kernel] = {"attention": attention}
