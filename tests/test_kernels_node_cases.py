"""The node cases of the onnx package a float model can hold: nearly all right, the rest refused, none wrong.

The selection, 896 of 1884: cases of one operator of the default domain that float inference uses (``NOT_FLOAT`` lists
those it does not), not in the form expanded to simpler operators, on floats, signed integers, uint8 and bool, without
the training mode of Dropout. Two of them hand on a sequence and an optional; they count as wrong unless their tensors
come back as they are.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgepress.errors import UnsupportedError
from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.ops.rows import ROWS

SELECTED = 896
"""Cases in onnx 1.23; a later onnx may add some."""

NOT_FLOAT = """
    Adagrad Adam AffineGrid ArrayFeatureExtractor Bernoulli Binarizer BitCast BitShift BitwiseAnd BitwiseNot
    BitwiseOr BitwiseXor BlackmanWindow Cast CastLike CausalConvWithState CenterCropPad Col2Im Compress
    ConcatFromSequence ConvInteger DFT DeformConv DequantizeLinear Det DynamicQuantizeLinear FlexAttention Gradient
    HammingWindow HannWindow If ImageDecoder LabelEncoder LinearAttention Loop MatMulInteger MaxRoiPool MaxUnpool
    MeanVarianceNormalization MelWeightMatrix Momentum Multinomial NegativeLogLikelihoodLoss NonMaxSuppression
    Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul QuantizeLinear RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike RegexFullMatch ReverseSequence RoiAlign STFT Scan SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss
    SplitToSequence StringConcat StringNormalizer StringSplit TensorScatter TfIdfVectorizer TreeEnsemble
    TreeEnsembleClassifier Unique
"""
LEFT_OUT = frozenset(NOT_FLOAT.split())
TYPES = frozenset(
    getattr(TensorProto, name)
    for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT64", "INT32", "INT16", "INT8", "UINT8", "BOOL")
)
TOLERANCE = {"float16": 5e-3, "bfloat16": 5e-2}
OPERATORS = sorted({row.name for row in ROWS if not row.domain} - LEFT_OUT)


@functools.cache
def cases() -> Mapping[str, tuple[Any, ...]]:
    """The selected cases by operator."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose while they are made
        found: list[Any] = collect_testcases(None)
    grouped: dict[str, list[Any]] = {}
    for case in (case for case in found if case.model is not None and _ours(case)):
        grouped.setdefault(case.model.graph.node[0].op_type, []).append(case)
    return {op: tuple(group) for op, group in grouped.items()}


def _ours(case: Any) -> bool:
    """The rule above."""
    graph = case.model.graph
    if any(node.op_type in LEFT_OUT or node.domain for node in graph.node):
        return False
    types = [value.type for value in (*graph.input, *graph.output)]
    known = all(kind.tensor_type.elem_type in TYPES for kind in types if kind.HasField("tensor_type"))
    return known and "_expanded" not in case.name and "training_dropout" not in case.name


def _array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _same(mine: torch.Tensor, wanted: np.ndarray) -> bool:
    if str(mine.dtype).removeprefix("torch.") != wanted.dtype.name or tuple(mine.shape) != wanted.shape:
        return False
    close = TOLERANCE.get(wanted.dtype.name, 1e-4)
    return np.allclose(mine.double().numpy(), wanted.astype(np.float64), rtol=close, atol=close, equal_nan=True)


def verdict(case: Any) -> str:
    """``right``, ``refused`` or ``wrong``."""
    try:
        model = Model.of(case.model)
        executor = Executor(model)
        for inputs, outputs in case.data_sets:
            got = executor.run(dict(zip(model.inputs, map(_array, inputs), strict=True)))
            if not all(_same(*pair) for pair in zip(got.values(), map(_array, outputs), strict=True)):
                return "wrong"
    except UnsupportedError:
        return "refused"
    return "right"


REFUSED = frozenset(
    {
        # the reference counts 1.2 output elements, onnxruntime 1
        "test_resize_downsample_scales_linear_align_corners",
        "test_resize_downsample_scales_cubic_align_corners",
        # the reference's filter and onnxruntime's are not the same
        "test_resize_downsample_scales_linear_antialias",
        "test_resize_downsample_sizes_linear_antialias",
        "test_resize_downsample_scales_cubic_antialias",
        "test_resize_downsample_sizes_cubic_antialias",
        # statistics of the batch are those of training
        "test_batchnorm_example_training_mode",
        "test_batchnorm_epsilon_training_mode",
    }
)
"""The cases that are refused; all others are right."""


def test_the_selection_holds_what_it_is_said_to_hold() -> None:
    assert sum(map(len, cases().values())) >= SELECTED
    assert cases().keys() <= set(OPERATORS)
    assert len(REFUSED) <= 0.03 * SELECTED


@pytest.mark.parametrize("op", OPERATORS)
def test_node_cases_of_onnx_are_right_or_refused(op: str) -> None:
    found: dict[str, list[str]] = {"right": [], "refused": [], "wrong": []}
    for case in cases().get(op, ()):
        found[verdict(case)].append(case.name)
    print(f"{op}:", ", ".join(f"{len(names)} {said}" for said, names in found.items()))
    assert found["wrong"] == []
    assert set(found["refused"]) <= REFUSED
