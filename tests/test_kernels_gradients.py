"""Gradients of the kernels: against finite differences, and per sample by torch.func against single samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from kernel_cases import data

from edgepress.ops.kernels import KERNELS, Call


def _double(*shape: int) -> torch.Tensor:
    return torch.from_numpy(data(*shape).astype(np.float64)).requires_grad_()


GRADED: list[tuple[str, tuple[torch.Tensor | None, ...], dict[str, Any]]] = [
    (
        "conv",
        (_double(1, 2, 5, 4), _double(4, 1, 3, 2), _double(4)),
        {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1]},
    ),
    ("gemm", (_double(2, 3), _double(4, 3), _double(4)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    (
        "batch_normalization",
        (_double(2, 3, 2), _double(3), _double(3), _double(3), _double(3).detach().exp().requires_grad_()),
        {},
    ),
    ("prelu", (_double(2, 3, 2), _double(3, 1)), {}),
    ("prelu", (_double(2, 3, 2), _double(2)), {}),
    ("hard_swish", (_double(2, 5),), {}),
    ("gelu", (_double(2, 5),), {"approximate": "tanh"}),
    ("softplus", (_double(2, 5),), {}),
    ("mul", (_double(2, 3), _double(3)), {}),
    ("max", (_double(2, 3), _double(3), _double(1)), {}),
    ("max_pool", (_double(1, 2, 5, 5),), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("average_pool", (_double(1, 2, 5, 5),), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("average_pool", (_double(1, 2, 5, 5),), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    ("global_max_pool", (_double(1, 2, 3, 3),), {}),
    ("reduce_mean", (_double(2, 3),), {"axes": [1]}),
    ("log_softmax", (_double(2, 3),), {}),
    ("depth_to_space", (_double(1, 4, 2, 2),), {"blocksize": 2}),
    (
        "conv_transpose",
        (_double(1, 2, 3, 4), _double(2, 2, 3, 2), _double(2)),
        {"strides": [2, 1], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    ("instance_normalization", (_double(2, 3, 4), _double(3), _double(3)), {}),
    ("layer_normalization", (_double(2, 3, 4), _double(4), _double(4)), {}),
    ("rms_normalization", (_double(2, 4), _double(4)), {}),
    ("lp_normalization", (_double(2, 4),), {"axis": 1}),
    ("lrn", (_double(1, 4, 2, 2),), {"size": 3}),
    ("lstm", (_double(3, 2, 3), _double(2, 8, 3), _double(2, 8, 2), _double(2, 16)), {"direction": "bidirectional"}),
    ("lstm", (_double(3, 2, 3), _double(1, 8, 3), _double(1, 8, 2), _double(1, 16)), {"input_forget": 1}),
    ("gru", (_double(3, 2, 3), _double(1, 6, 3), _double(1, 6, 2), _double(1, 12)), {"direction": "reverse"}),
    ("gru", (_double(3, 2, 3), _double(1, 6, 3), _double(1, 6, 2), _double(1, 12)), {"linear_before_reset": 1}),
    ("rnn", (_double(3, 2, 3), _double(1, 2, 3), _double(1, 2, 2), _double(1, 4)), {}),
    ("attention", (_double(1, 4, 3, 2), _double(1, 2, 3, 2), _double(1, 2, 3, 2), _double(3, 3)), {"is_causal": 1}),
    ("rotary_embedding", (_double(1, 2, 3, 4), _double(1, 3, 2), _double(1, 3, 2)), {}),
    ("resize", (_double(1, 1, 3, 4), None, torch.tensor([1, 1, 2.0, 0.5])), {"mode": "cubic"}),
    ("grid_sample", (_double(1, 1, 3, 4), torch.tanh(_double(1, 2, 2, 2)).detach()), {}),
    ("einsum", (_double(2, 3), _double(3, 2)), {"equation": "ij,jk->ki"}),
    ("reduce_l2", (_double(2, 3),), {"axes": [1]}),
    ("reduce_log_sum_exp", (_double(2, 3),), {"axes": [1]}),
    ("lp_pool", (_double(1, 1, 4, 4),), {"kernel_shape": [2, 2]}),
    ("scatter_nd", (_double(3, 4), torch.tensor([[0], [2]]), _double(2, 4)), {"reduction": "add"}),
    ("gather_nd", (_double(3, 4), torch.tensor([[0, 1], [2, -1]])), {}),
    ("selu", (_double(2, 5),), {}),
    ("swiglu", (_double(2, 5), _double(2, 5)), {}),
]


@pytest.mark.parametrize(("name", "inputs", "attributes"), GRADED, ids=[item[0] for item in GRADED])
def test_gradients_match_finite_differences(
    name: str, inputs: tuple[torch.Tensor | None, ...], attributes: dict[str, Any]
) -> None:
    call = Call(attributes, 17, 1)
    run: Callable[..., Any] = KERNELS[name]
    assert torch.autograd.gradcheck(lambda *tensors: run(call, *tensors), cast("tuple[torch.Tensor, ...]", inputs))


@pytest.mark.parametrize(("name", "inputs", "attributes"), GRADED, ids=[item[0] for item in GRADED])
def test_gradients_per_sample_are_those_of_single_samples(
    name: str, inputs: tuple[torch.Tensor | None, ...], attributes: dict[str, Any]
) -> None:
    """What torch.func makes of a kernel, against plain autograd: fused kernels step aside where they have no rule."""
    call, run = Call(attributes, 17, 1), KERNELS[name]
    first, rest = inputs[0], inputs[1:]
    assert first is not None

    def loss(x: torch.Tensor) -> torch.Tensor:
        made = run(call, x, *rest)
        y = made[0] if isinstance(made, tuple) else made
        return (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()

    samples = torch.stack([first.detach(), first.detach() + 0.25])
    together = torch.func.vmap(torch.func.grad(loss))(samples)
    for sample, found in zip(samples, together, strict=True):
        leaf = sample.clone().requires_grad_()
        torch.testing.assert_close(found, torch.autograd.grad(loss(leaf), [leaf])[0], rtol=1e-9, atol=1e-12)


def test_recurrent_kernels_and_their_loops_agree() -> None:
    """The fused kernel against the loop, which runs where samples end early: here they do so at the full length."""
    x, w, r, b = (torch.from_numpy(data(*shape)) for shape in ((4, 2, 3), (2, 8, 3), (2, 8, 2), (2, 16)))
    call = Call({"direction": "bidirectional"}, 14, 3)
    fused = KERNELS["lstm"](call, x, w, r, b)
    looped = torch.func.vmap(lambda sample: KERNELS["lstm"](call, sample, w, r, b))(x.unsqueeze(0))
    for one, other in zip(fused, looped, strict=True):
        torch.testing.assert_close(one, other[0])
