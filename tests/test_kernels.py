"""Kernels: every row of the table against onnxruntime, in many attribute variants, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import CASES, F32, I64, Case, data, ints, positive, whole
from onnx import TensorProto

from edgepress import runtime
from edgepress.errors import UnsupportedError
from edgepress.executor import Executor
from edgepress.ops.kernels import KERNELS, Call
from edgepress.ops.table import ROWS, TABLE


def test_the_matrix_covers_every_row() -> None:
    assert {case.op for case in CASES} == set(TABLE)


def test_kernels_are_those_the_table_names() -> None:
    assert set(KERNELS) == {row.kernel for row in ROWS if row.kernel is not None}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnxruntime(case: Case) -> None:
    model = case.model()
    expected = runtime.run(runtime.session(model.data, optimize=False), case.feed())
    got = Executor(model).run(case.feed())
    for name, value in expected.items():
        assert (got[name].numpy().dtype, got[name].shape) == (value.dtype, value.shape)
        np.testing.assert_allclose(got[name].numpy(), value, rtol=1e-5, atol=1e-5)


X = data(2, 3, 8, 8)
W = data(4, 3, 3, 3)
VECTORS = (data(3), data(3), data(3), positive(3))
WINDOW: dict[str, Any] = {"kernel_shape": [3, 3]}
REFUSED = [
    Case("NonZero", (X,)),
    Case("Relu", (X,), domain="com.microsoft"),
    Case("Clip", (X,), opset=6),
    Case("Relu", (X,), opset=27),
    Case("Conv", (X, W), {"auto_pad": "SAME"}),
    Case("Conv", (X, W), {"auto_pad": "SAME_UPPER", "pads": [1, 1, 1, 1]}),
    Case("Conv", (X, W), {"auto_pad": "SAME_UPPER", "dilations": [2, 2]}),
    Case("Conv", (X, W), {"kernel_shape": [1, 1]}),
    Case("Conv", (X, W), {"strides": [1]}),
    Case("Conv", (X, W), {"pads": [-1, 0, 0, 0]}),
    Case("Conv", (X, data(4, 3, 3))),
    Case("Conv", (data(1, 2, 3, 3, 3, 3), data(2, 2, 1, 1, 1, 1))),
    Case("Gemm", (whole(2, 3), whole(3, 4))),
    Case("Gemm", (data(2, 3, 4), data(4, 5))),
    Case("BatchNormalization", (X, *VECTORS), {"training_mode": 1}, 15, 3),
    Case("BatchNormalization", (X, *VECTORS), opset=9, outputs=5),
    Case("BatchNormalization", (X.astype(np.float16), *VECTORS), opset=15),
    Case("Clip", (X, data(3))),
    Case("PRelu", (data(3, 1), data(3, 4))),
    Case("Gelu", (X,), {"approximate": "sigmoid"}),
    Case("Cast", (X,), {"to": TensorProto.BFLOAT16}),
    Case("Cast", (X,), {"to": TensorProto.FLOAT8E4M3FN}),
    Case("Cast", (X,), {"to": TensorProto.STRING}),
    Case("Cast", (X,), {"to": TensorProto.UINT16}),
    Case("Dropout", (X, np.array(0.5, F32), np.array(True))),
    Case("Dropout", (X,), opset=10, outputs=2),
    Case("Add", (X, data(3).astype(np.float64))),
    Case("Max", (X, np.array(1, I64))),
    Case("Concat", (X, whole(2, 3, 8, 8)), {"axis": 1}),
    Case("Concat", (X, X), {"axis": 4}),
    Case("Pow", (np.arange(4), np.array([-1], I64))),
    Case("MaxPool", (X,), WINDOW, outputs=2),
    Case("MaxPool", (X.astype(np.int8),), WINDOW),
    Case("MaxPool", (X,), {**WINDOW, "pads": [3, 0, 0, 0]}),
    Case("MaxPool", (X,), {**WINDOW, "auto_pad": "SAME_UPPER", "dilations": [2, 2]}),
    Case("AveragePool", (X,), {**WINDOW, "auto_pad": "VALID", "ceil_mode": 1}),
    Case("AveragePool", (X,), {"kernel_shape": [3]}),
    Case("GlobalAveragePool", (data(2, 3),)),
    Case("GlobalMaxPool", (data(2, 3),)),
    Case("ReduceMax", (data(2, 0), ints(1))),
    Case("ReduceMean", (data(2, 0), ints(1))),
    Case("ReduceSum", (X, ints(4))),
    Case("Softmax", (X,), {"axis": 4}),
    Case("Softmax", (X,), {"axis": 1}, 11),
    Case("Reshape", (data(2, 3), ints(2, 3, 0))),
    Case("Flatten", (X,), {"axis": 5}),
    Case("Squeeze", (X, ints(1))),
    Case("Squeeze", (X, ints())),
    Case("Unsqueeze", (X, ints(0, 0))),
    Case("Slice", (X, ints(0), ints(2), ints(0), ints(0))),
    Case("Split", (X,), {"axis": 2}, outputs=3),
    Case("Split", (X,), {"axis": 2}, 13, 3),
    Case("Split", (X, ints(4, 5)), {"axis": 2}, outputs=2),
    Case("Split", (X, ints(4, 4)), {"axis": 2}, outputs=3),
    Case("Split", (data(5, 2),), {"num_outputs": 4}, outputs=4),
    Case("Gather", (X, ints(3)), {"axis": 1}),
    Case("Gather", (X, ints(-4)), {"axis": 1}),
    Case("Pad", (X, ints(0, 0, 1, 1, 0, 0, 1, 1)), {"mode": "wrap"}),
    Case("Pad", (X, ints(0, 0, 8, 1, 0, 0, 1, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 0, -1, 1, 0, 0, 1, 1)), {"mode": "edge"}),
    Case("Pad", (X, ints(1, 1))),
    Case("Tile", (X, ints(2))),
    Case("DepthToSpace", (X,), {"blocksize": 2}),
    Case("DepthToSpace", (data(1, 4, 2, 2),), {"blocksize": 2, "mode": "RCD"}),
    Case("SpaceToDepth", (data(1, 1, 3, 4),), {"blocksize": 2}),
    Case("SpaceToDepth", (data(1, 1, 4, 4),), {"blocksize": 2, "mode": "CRD"}),
]


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_refuses_what_it_does_not_run(case: Case) -> None:
    with pytest.raises(UnsupportedError, match=case.op):
        Executor(case.model()).run(case.feed())


def test_scalar_bounds_and_broadcast_clip_agree() -> None:
    x, low, high = torch.linspace(-2, 2, 9), torch.tensor(-0.5, requires_grad=True), torch.tensor(1.0)
    call = Call({}, 21, 1)
    graded = KERNELS["clip"](call, x, low, high)
    plain = KERNELS["clip"](call, x, low.detach(), high)
    assert isinstance(graded, torch.Tensor) and isinstance(plain, torch.Tensor)
    torch.testing.assert_close(graded.detach(), plain)
    (gradient,) = torch.autograd.grad(graded.sum(), [low])
    assert gradient.item() == 3  # the elements at -2, -1.5 and -1 sit on the lower bound


def _double(*shape: int) -> torch.Tensor:
    return torch.from_numpy(data(*shape).astype(np.float64)).requires_grad_()


GRADED: list[tuple[str, tuple[torch.Tensor, ...], dict[str, Any]]] = [
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
]


@pytest.mark.parametrize(("name", "inputs", "attributes"), GRADED, ids=[item[0] for item in GRADED])
def test_gradients_match_finite_differences(
    name: str, inputs: tuple[torch.Tensor, ...], attributes: dict[str, Any]
) -> None:
    call = Call(attributes, 17, 1)
    run: Callable[..., Any] = KERNELS[name]
    assert torch.autograd.gradcheck(lambda *tensors: run(call, *tensors), inputs)
