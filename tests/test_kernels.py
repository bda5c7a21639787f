"""Kernels: every row of the table against onnxruntime, in many attribute variants, and what must be refused."""

from __future__ import annotations

from typing import Any

import kernel_cases
import kernel_cases_networks
import kernel_cases_tensors
import numpy as np
import pytest
import torch
from kernel_cases import F32, I64, Case, data, ints, positive, whole
from onnx import TensorProto, numpy_helper

from edgepress import runtime
from edgepress.errors import UnsupportedError
from edgepress.executor import Executor
from edgepress.ops.kernels import KERNELS, Call, kernel_of
from edgepress.ops.rows import ROWS

CASES = [*kernel_cases.CASES, *kernel_cases_networks.CASES, *kernel_cases_tensors.CASES]

NEWER_THAN_ONNXRUNTIME = {("", "SwiGLU")}
"""Checked by the node cases of onnx alone."""

RUN_BY_THE_EXECUTOR = {"if", "loop", "scan"}
"""Kernel names of rows whose bodies are graphs."""


def test_the_matrix_covers_every_row() -> None:
    rows = {(row.domain, row.name) for row in ROWS if kernel_of(row) is not None}
    assert {(case.domain, case.op) for case in CASES} | NEWER_THAN_ONNXRUNTIME == rows


def test_kernels_are_those_the_table_names() -> None:
    assert set(KERNELS) == {row.kernel for row in ROWS if row.kernel is not None} - RUN_BY_THE_EXECUTOR


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
GROUPS: dict[str, Any] = {"num_heads": 2, "kv_num_heads": 2}
REFUSED = [
    Case("Relu", (X,), domain="com.microsoft"),
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
    Case("MaxPool", (X,), {**WINDOW, "pads": [3, 0, 0, 0]}),
    Case("MaxPool", (X,), {**WINDOW, "auto_pad": "SAME_UPPER", "dilations": [2, 2]}),
    Case("AveragePool", (X,), {**WINDOW, "auto_pad": "VALID", "ceil_mode": 1}),
    Case("AveragePool", (X,), {"kernel_shape": [3]}),
    Case("GlobalAveragePool", (data(2, 3),)),
    Case("GlobalMaxPool", (data(2, 3),)),
    Case("ReduceMean", (data(2, 0), ints(1))),
    Case("ReduceSum", (X, ints(4))),
    Case("Softmax", (X,), {"axis": 4}),
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
    Case("Pad", (X, ints(0, 0, 8, 1, 0, 0, 1, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 0, -1, 1, 0, 0, 1, 1)), {"mode": "edge"}),
    Case("Pad", (X, ints(1, 1))),
    Case("Tile", (X, ints(2))),
    Case("DepthToSpace", (X,), {"blocksize": 2}),
    Case("DepthToSpace", (data(1, 4, 2, 2),), {"blocksize": 2, "mode": "RCD"}),
    Case("SpaceToDepth", (data(1, 1, 3, 4),), {"blocksize": 2}),
    Case("SpaceToDepth", (data(1, 1, 4, 4),), {"blocksize": 2, "mode": "CRD"}),
    Case("Pad", (X, ints(0, 0, 1, 1, 0, 0, 1, 1)), {"mode": "mirror"}),
    Case("MaxPool", (X,), {**WINDOW, "pads": [1, 1, 0, 0]}, outputs=2),
    Case("MaxPool", (X,), {"kernel_shape": [1, 1], "strides": [3, 3], "auto_pad": "SAME_UPPER"}),
    Case("LpPool", (X,), {**WINDOW, "p": 0}),
    Case("ReduceMax", (data(2, 0), ints(1)), opset=18),
    Case("ReduceLogSumExp", (whole(2, 3).astype(np.int32), ints(1))),
    Case("BatchNormalization", (X, *VECTORS), {"spatial": 0}, 7),
    Case("BatchNormalization", (X, *VECTORS), {"is_test": 0}, 6),
    Case("Dropout", (X,), {"is_test": 0}, 6),
    Case("Where", (X > 0, X, whole(2, 3, 8, 8))),
    Case("Equal", (X, whole(2, 3, 8, 8))),
    Case("Mod", (X, data(1))),
    Case("Einsum", (X > 0, X > 0), {"equation": "abcd,abcd->a"}),
    Case("Shrink", (whole(3),)),
    Case("ConvTranspose", (X, data(3, 2, 3, 3)), {"strides": [2, 2], "output_shape": [20, 20]}),
    Case("ConvTranspose", (X, data(3, 2, 3, 3)), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 9),
    Case("ConvTranspose", (X, data(3, 2, 1, 1)), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("ConvTranspose", (X, data(3, 2, 3, 3)), {"kernel_shape": [2, 2]}),
    Case("InstanceNormalization", (data(2, 3), data(3), data(3))),
    Case("GroupNormalization", (X, data(3), data(3)), {"num_groups": 2}),
    Case("LayerNormalization", (X, data(8)), {"stash_type": TensorProto.INT32}),
    Case("LayerNormalization", (data(3, 1), data(4))),
    Case("RMSNormalization", (data(3, 1), data(4)), opset=23),
    Case("LpNormalization", (X,), {"p": 3}),
    Case("LRN", (data(2, 3),), {"size": 3}),
    Case("LSTM", (X[0], data(1, 8, 8), data(1, 8, 2)), {"hidden_size": 2, "clip": 0.5}, outputs=3),
    Case("LSTM", (X[0], data(1, 8, 8), data(1, 8, 2)), {"hidden_size": 3}, outputs=3),
    Case("LSTM", (X[0], data(1, 8, 8), data(1, 8, 2)), {"direction": "bidirectional"}, outputs=3),
    Case("GRU", (X[0], data(1, 6, 8), data(1, 6, 2), None, np.zeros(8, np.int32)), outputs=2),
    Case("RNN", (X[0], data(1, 2, 8), data(1, 2, 2)), {"activations": ["Affine"]}, outputs=2),
    Case("RNN", (X[0], data(1, 2, 8), data(1, 2, 2)), {"activations": ["Elu"], "activation_alpha": [0.5]}, outputs=2),
    Case("Attention", (X, X, X, data(8, 1)), opset=23),
    Case("Attention", (X, X, X, data(8, 9)), opset=23),
    Case("Attention", (X, X, X), {"q_num_heads": 2}, 23),
    Case("Attention", (X[0], X[0], X[0]), opset=23),
    Case("Attention", (X, data(2, 2, 8, 8), data(2, 2, 8, 8)), opset=23),
    Case("Attention", (X, X, X), {"softcap": -1.0}, 23),
    Case("RotaryEmbedding", (X, data(9, 3), data(9, 3), whole(2, 8) * 0), opset=23),
    Case("RotaryEmbedding", (X, data(9, 4), data(9, 4), whole(2, 8) * 0 + 9), opset=23),
    Case("Resize", (X, None, np.array([1, 1, 2, 0.5], F32)), {"mode": "linear", "antialias": 1}, 18),
    Case("Resize", (X, None, np.array([1, 1, 2, 0.3], F32)), {"coordinate_transformation_mode": "align_corners"}),
    Case("Resize", (X, None, np.array([1, 1, 2, 0.3], F32)), {"mode": "area"}),
    Case("Resize", (X, None, np.array([1, 2], F32))),
    Case("Resize", (whole(1, 1, 4, 4), None, np.array([1, 1, 2, 2], F32)), {"mode": "linear"}),
    Case("Upsample", (X, np.array([1, 1, 2, 2], F32)), {"mode": "cubic"}, 9),
    Case("GridSample", (data(1, 1, 3, 3, 3), data(1, 2, 2, 2, 3)), {"mode": "cubic"}, 20),
    Case("TopK", (X, ints(2)), {"sorted": 0}, outputs=2),
    Case("TopK", (X, ints(9)), outputs=2),
    Case("OneHot", (ints(0, -1), ints(3), data(2)), opset=9),
    Case("NonZero", (np.array(1, F32),)),
    Case("GatherND", (X, ints(0, 3))),
    Case("GatherElements", (X, whole(1, 1, 1, 1) * 0 + 8), {"axis": 2}),
    Case("ScatterElements", (X, whole(1, 1, 1, 1) * 0, whole(1, 1, 1, 1)), opset=18),
    Case("ScatterND", (X, ints(0, 0), data(8, 8)), {"reduction": "mean"}, 18),
    Case("EyeLike", (X,)),
    Case("Range", (np.array(0, I64), np.array(3, I64), np.array(0, I64))),
    Case("Range", (np.array(0, I64), np.array(3, I64), np.array(1, F32))),
    Case("ConstantOfShape", (ints(2),), {"value": numpy_helper.from_array(data(2))}),
    Case("Constant", (), {"value_string": "a"}),
    Case("Trilu", (data(3),)),
    Case("FusedMatMul", (X, X), {"transBatchA": 1}, domain="com.microsoft"),
    Case("MultiHeadAttention", (data(2, 3, 5, 4),), {"num_heads": 2}, domain="com.microsoft"),
    Case("MultiHeadAttention", (X[0], X[0], X[0], None, whole(3, 8)), {"num_heads": 2}, domain="com.microsoft"),
    Case("GroupQueryAttention", (X[0], X[0], X[0], None, None, ints(7, 5, 7), ints(8)), GROUPS, domain="com.microsoft"),
    Case("GroupQueryAttention", (X[0], X[0], X[0], None, None, ints(8, 8, 8), ints(9)), GROUPS, domain="com.microsoft"),
    Case(
        "GroupQueryAttention",
        (X[0], X[0], X[0], None, None, ints(7, 7, 7), ints(8)),
        {**GROUPS, "smooth_softmax": 1},
        domain="com.microsoft",
    ),
    Case("SkipLayerNormalization", (data(2, 3, 4), data(3, 4), data(4)), domain="com.microsoft"),
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


def test_shapes_may_be_numpy_arrays() -> None:
    x, call = torch.arange(24.0).reshape(2, 3, 4), Call({}, 21, 1)
    pairs = (
        ("reshape", (ints(6, 4),)),
        ("slice", (ints(1), ints(3), ints(2))),
        ("reduce_sum", (ints(1),)),
        ("expand", (ints(5, 2, 3, 4),)),
        ("pad", (ints(0, 0, 1, 0, 1, 0),)),
        ("cum_sum", (np.array(1),)),
    )
    for name, arrays in pairs:
        told, plain = KERNELS[name](call, x, *arrays), KERNELS[name](call, x, *map(torch.from_numpy, arrays))
        torch.testing.assert_close(told, plain)


def test_groups_of_opset_18_have_one_scale_each() -> None:
    x, scale, bias = (torch.from_numpy(data(*shape)) for shape in ((2, 4, 3), (2,), (2,)))
    kernel = KERNELS["group_normalization"]
    grouped = kernel(Call({"num_groups": 2}, 18, 1), x, scale, bias)
    spread = (scale.repeat_interleave(2), bias.repeat_interleave(2))
    torch.testing.assert_close(grouped, kernel(Call({"num_groups": 2}, 21, 1), x, *spread))
