"""Qualcomm's accelerators (onnxruntime's QNN execution provider): a file of its own, not for CPUs.

The conventions are those of ``get_qnn_qdq_config`` in onnxruntime, the operators those that its QNN provider builds
(``op_builder_factory.cc``), the widths those of Qualcomm's guidelines: channels are stored in blocks of 32. No device
was at hand. Everything is quantized, graph inputs and outputs included, since what is not leaves the
accelerator; activations have 8 or 16 bits; int8 weights are symmetric; convolutions have one scale per channel, MatMul
and LayerNormalization never. 16-bit Sigmoid and Tanh have the one grid that QNN takes. On a CPU 8-bit files of these
rules run like others; with 16-bit activations they are far slower than fp32.
"""

from __future__ import annotations

from edgepress.targets.target import SOFTMAX, FixedGrid, Target

GRIDS = (
    SOFTMAX,
    FixedGrid("Sigmoid", 8, 1 / 256, 0),
    FixedGrid("Tanh", 8, 1 / 128, 128),
    FixedGrid("Sigmoid", 16, 1 / 65536, 0),
    FixedGrid("Tanh", 16, 1 / 32768, 32768),
)
"""Those of 16 bits are required. Those of 8 bits hold all that the operators can return."""

MAPPED = ("Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Log", "LogSoftmax", "Neg")
MAPPED_TOO = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Round", "Softmax", "Sqrt", "Tanh")
JOINED = ("Div", "MatMul", "Max", "Min", "Sub")
"""MatMul: of two activations, or of one by a constant that is no matrix."""

QNN = Target(
    "qnn",
    multiple=32,
    block=32,
    slope=1.0,
    weight_limit=127,
    stem_multiple=1,
    gemm_floor=0,
    group_floor=1,
    activation_bits=(8, 16),
    per_channel_matrices=False,
    whole=True,
    mapped=(*MAPPED, *MAPPED_TOO),
    joined=JOINED,
    fixed_grids=GRIDS,
    swish_pays=True,
    family="qnn",
    evidence="stated",
    artifact=True,
)
