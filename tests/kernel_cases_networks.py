"""More one-node models: transposed convolution, normalization, recurrence, attention and their com.microsoft kin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from kernel_cases import F32, I64, Array, Case, data, ints

I32 = np.int32
MICROSOFT = "com.microsoft"


def transposed() -> Iterator[Case]:
    x, w, bias = data(2, 4, 5, 6), data(4, 3, 3, 3), data(3)
    variants: tuple[dict[str, Any], ...] = (
        {},
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
        {"strides": [2, 2], "pads": [0, 1, 2, 1], "output_padding": [1, 1]},
        {"strides": [3, 3], "output_padding": [2, 1]},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 3], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER", "output_padding": [1, 1]},
        {"strides": [2, 2], "auto_pad": "VALID"},
        {"strides": [2, 2], "output_shape": [10, 12]},
        {"strides": [2, 2], "output_shape": [9, 11]},
        {"strides": [2, 2], "output_shape": [12, 14]},
        {"strides": [2, 2], "output_shape": [10, 12], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [10, 12], "output_padding": [1, 1]},
    )
    yield from (Case("ConvTranspose", (x, w, bias), at, 11) for at in variants)
    yield Case("ConvTranspose", (x, w), {"strides": [2, 2]}, 22)
    yield Case("ConvTranspose", (x, data(4, 2, 3, 3), data(4)), {"group": 2, "kernel_shape": [3, 3]})
    yield Case("ConvTranspose", (x, data(4, 1, 2, 2), data(4)), {"group": 4, "strides": [2, 2]}, 9)
    yield Case("ConvTranspose", (data(2, 3, 7), data(3, 4, 4)), {"strides": [2], "pads": [1, 1]})
    yield Case("ConvTranspose", (data(1, 2, 3, 4, 3), data(2, 3, 2, 3, 2), bias), {"strides": [2, 1, 2]})


def normalization() -> Iterator[Case]:
    yield Case("InstanceNormalization", (data(2, 6, 1, 1), data(6), data(6)), {"epsilon": 1.0}, 6)
    for shape in ((2, 6, 5), (2, 6, 4, 3), (1, 6, 2, 3, 2)):
        x, scale, bias = data(*shape), data(6), data(6, seed=1)
        yield Case("InstanceNormalization", (x, scale, bias), {"epsilon": 1e-3}, 6)
        yield from (Case("GroupNormalization", (x, scale, bias), {"num_groups": g}) for g in (1, 2, 3, 6))
    yield Case("GroupNormalization", (data(2, 6, 5), data(3), data(3, seed=1)), {"num_groups": 3}, 18)
    x = data(2, 3, 4, 5)
    for axis in (-1, 1, 2, 3, -2):
        inner = x.shape[axis:]
        yield Case("LayerNormalization", (x, data(*inner)), {"axis": axis}, 17)
        yield Case("LayerNormalization", (x, data(*inner), data(*inner, seed=1)), {"axis": axis, "epsilon": 1e-2}, 17)
        yield Case("LayerNormalization", (x, data(*inner), data(*inner, seed=1)), {"axis": axis}, 17, outputs=3)
        yield Case("RMSNormalization", (x, data(*inner)), {"axis": axis}, 23)
        yield Case("SimplifiedLayerNormalization", (x, data(5)), {"epsilon": 1e-3})
    yield Case("LayerNormalization", (x, data(5), data(1)), {}, 17)
    for order, axis in itertools.product((1, 2), (0, 1, -1)):
        yield Case("LpNormalization", (x,), {"axis": axis, "p": order})
    yield Case("LpNormalization", (np.array([[0, 0], [-3, 4]], F32),))
    for size in (1, 3, 5):
        yield Case("LRN", (F32(5) * data(2, 6, 3, 4),), {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0})
    for outputs in (1, 4):
        yield Case(
            "SkipLayerNormalization", (x[0], x[1], data(5), data(5, seed=1)), {"epsilon": 1e-3}, 21, 1, MICROSOFT
        )
        yield Case("SkipLayerNormalization", (x[0], x[1], data(5), None, data(5)), {}, 21, outputs, MICROSOFT)
        yield Case("SkipSimplifiedLayerNormalization", (x[0], x[1], data(5)), {}, 21, 1, MICROSOFT)
        yield Case("SkipSimplifiedLayerNormalization", (x[0], x[1], data(5), data(5)), {}, 21, outputs, MICROSOFT)


def recurrent() -> Iterator[Case]:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction, full in itertools.product(("forward", "reverse", "bidirectional"), (False, True)):
            yield from _recurrent(op, gates, direction, full=full)


def _recurrent(op: str, gates: int, direction: str, *, full: bool) -> Iterator[Case]:
    d, t, n, i, h = 1 + (direction == "bidirectional"), 4, 3, 5, 6
    x, w, r = data(t, n, i), data(d, gates * h, i), data(d, gates * h, h)
    states = (data(d, n, h), data(d, n, h, seed=1))[: 1 + (op == "LSTM")] if full else ()
    bias = data(d, 2 * gates * h) if full else None
    base: dict[str, Any] = {"hidden_size": h, "direction": direction}
    outputs = 2 + (op == "LSTM")
    for lengths in (None, np.array([4, 4, 4], I32), np.array([2, 4, 1], I32)):
        yield Case(op, (x, w, r, bias, lengths, *states), base, 14, outputs)
    if op == "GRU":
        yield Case(op, (x, w, r, bias, None, *states), {**base, "linear_before_reset": 1}, 14, outputs)
        yield Case(op, (x, w, r, bias, np.array([2, 4, 1], I32)), {**base, "linear_before_reset": 1}, 14, outputs)
    if op == "LSTM":
        peepholes = data(d, 3 * h)
        yield Case(op, (x, w, r, bias, None, None, None, peepholes), base, 14, outputs)
        yield Case(op, (x, w, r, bias), {**base, "input_forget": 1}, 7, outputs)
    activations = {"LSTM": ["HardSigmoid", "Relu", "Softsign"], "GRU": ["HardSigmoid", "Softsign"], "RNN": ["Relu"]}[op]
    yield Case(op, (x, w, r, bias, None, *states), {**base, "activations": activations * d}, 14, outputs)
    yield Case(op, (x, w, r), base, 22, 1)


def attention() -> Iterator[Case]:
    q, k, v = data(2, 4, 3, 8), data(2, 4, 5, 8), data(2, 4, 5, 6)
    flags = data(3, 5) > -0.5
    flags[:, 0] = True
    past = (data(2, 4, 2, 8), data(2, 4, 2, 6))
    for opset in (23, 24):
        yield Case("Attention", (q, k, v), {}, opset)
        yield Case("Attention", (q, k, v), {"scale": 0.2, "softcap": 1.5}, opset)
        yield Case("Attention", (q, k, v, data(3, 5)), {}, opset)
        yield Case("Attention", (q, k, v, flags), {}, opset)
        yield Case("Attention", (q, k, v, data(2, 1, 3, 5)), {"is_causal": 1}, opset)
        yield Case("Attention", (q, data(2, 4, 3, 8), data(2, 4, 3, 6)), {"is_causal": 1}, opset)
        yield Case("Attention", (q, data(2, 2, 5, 8), data(2, 2, 5, 6)), {}, opset)
        yield Case("Attention", (q, k, v, None, *past), {}, opset, 3)
        yield Case("Attention", (q, k, v, data(3, 7), *past), {}, opset, 3)
        heads = {"q_num_heads": 4, "kv_num_heads": 2}
        yield Case("Attention", (data(2, 3, 32), data(2, 5, 16), data(2, 5, 12)), heads, opset)
        yield Case("Attention", (data(2, 3, 32), data(2, 5, 16), data(2, 5, 12), data(4, 3, 5)), heads, opset)
        yield Case("Attention", (q, k, v, data(3, 5)), {"qk_matmul_output_mode": 3}, opset, 4)
        yield Case("Attention", (q, k, v, data(3, 5)), {"qk_matmul_output_mode": 0}, opset, 4)
    cos, sin, at = data(9, 4), data(9, 4, seed=1), np.arange(6, dtype=I64).reshape(2, 3)
    for interleaved in (0, 1):
        rotary: dict[str, Any] = {"interleaved": interleaved}
        yield Case("RotaryEmbedding", (q, cos, sin, at), rotary, 23)
        yield Case("RotaryEmbedding", (q, cos[at], sin[at]), rotary, 23)
        yield Case("RotaryEmbedding", (data(2, 3, 16), cos, sin, at), {**rotary, "num_heads": 2}, 23)
        partial = {**rotary, "rotary_embedding_dim": 4, "num_heads": 4}
        yield Case("RotaryEmbedding", (q, cos[:, :2].copy(), sin[:, :2].copy(), at), partial, 23)


def microsoft() -> Iterator[Case]:
    x = data(2, 3, 8)
    yield from (Case(op, (x,), {}, 21, 1, MICROSOFT) for op in ("Gelu", "FastGelu", "QuickGelu"))
    yield from (Case(op, (x, data(8)), {}, 21, 1, MICROSOFT) for op in ("BiasGelu", "FastGelu"))
    yield Case("QuickGelu", (x,), {"alpha": 1.0}, 21, 1, MICROSOFT)
    for left, right in itertools.product((0, 1), (0, 1)):
        a, b = data(2, 4, 3) if left else data(2, 3, 4), data(2, 5, 4) if right else data(2, 4, 5)
        yield Case("FusedMatMul", (a, b), {"transA": left, "transB": right, "alpha": 0.5}, 21, 1, MICROSOFT)
    cos, sin, at = data(9, 4), data(9, 4, seed=1), np.arange(6, dtype=I64).reshape(2, 3)
    for interleaved, places in itertools.product((0, 1), (at, ints(2))):
        how = {"interleaved": interleaved}
        yield Case("RotaryEmbedding", (data(2, 3, 16), places, cos, sin), how, 21, 1, MICROSOFT)
        yield Case("RotaryEmbedding", (data(2, 2, 3, 8), places, cos, sin), how, 21, 1, MICROSOFT)
    q, k, v = data(2, 4, 8), data(2, 5, 8), data(2, 5, 12)
    for at_ in ({"num_heads": 2}, {"num_heads": 4, "scale": 0.3}):
        yield Case("MultiHeadAttention", (q, k, v), at_, 21, 1, MICROSOFT)
        yield Case("MultiHeadAttention", (q, k, v, data(28)), at_, 21, 1, MICROSOFT)
        yield Case("MultiHeadAttention", (q, k, v, None, None, data(2, 1, 4, 5)), at_, 21, 1, MICROSOFT)
        yield Case("MultiHeadAttention", (q, q, q), {**at_, "unidirectional": 1}, 21, 3, MICROSOFT)
    past = (data(2, 2, 3, 4), data(2, 2, 3, 4, seed=1))
    yield Case("MultiHeadAttention", (q, q, q, None, None, None, *past), {"num_heads": 2}, 21, 3, MICROSOFT)
    yield from _groups()


def _groups() -> Iterator[Case]:
    base: dict[str, Any] = {"num_heads": 4, "kv_num_heads": 2}
    cos, sin = data(9, 8), data(9, 8, seed=1)
    extras: tuple[dict[str, Any], ...] = (
        {},
        {"scale": 0.2},
        {"softcap": 2.0},
        {"local_window_size": 2},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1},
    )
    for extra in extras:
        tables: tuple[Array, ...] = (cos, sin) if "do_rotary" in extra else ()
        start = (None, None, np.array([4, 4], I32), np.array(5, I32), *tables)
        later = (data(2, 2, 5, 16), data(2, 2, 5, 16, seed=1), np.array([5, 5], I32), np.array([6], I32), *tables)
        parts = (data(2, 5, 64), data(2, 5, 32), data(2, 5, 32))
        one = (data(2, 1, 64), data(2, 1, 32), data(2, 1, 32))
        for given in ((*parts, *start), (data(2, 5, 128), None, None, *start), (*one, *later)):
            yield Case("GroupQueryAttention", given, {**base, **extra}, 21, 3, MICROSOFT)


CASES = [*transposed(), *normalization(), *recurrent(), *attention(), *microsoft()]
