"""The node cases of the onnx package whose operators are in the table: right or refused, never silently wrong."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.errors import UnsupportedError
from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.ops.table import TABLE

Array = np.ndarray
KNOWN = {np.dtype(name) for name in ("float32", "int64", "bool")}


def _node_cases() -> list[Any]:
    """The node cases of the onnx package made of table operators on float32, int64 and bool."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose while they are made
        found = collect_testcases(None)
    return [case for case in found if case.model is not None and _ours(case)]


def _ours(case: Any) -> bool:
    if any(node.op_type not in TABLE for node in case.model.graph.node):
        return False
    types = {array.dtype for pair in case.data_sets for side in pair for array in _arrays(side)}
    return types <= KNOWN


def _arrays(tensors: Any) -> list[Array]:
    return [numpy_helper.to_array(t) if isinstance(t, onnx.TensorProto) else np.asarray(t) for t in tensors]


def _right(case: Any) -> bool:
    model = Model.of(case.model)
    executor = Executor(model)
    for inputs, outputs in case.data_sets:
        got = executor.run(dict(zip(model.inputs, _arrays(inputs), strict=True)))
        for mine, wanted in zip(got.values(), _arrays(outputs), strict=True):
            array = mine.numpy()
            if (array.dtype, array.shape) != (wanted.dtype, wanted.shape):
                return False
            if not np.allclose(array, wanted, rtol=1e-4, atol=1e-4, equal_nan=True):
                return False
    return True


def _verdict(case: Any) -> str:
    try:
        return "right" if _right(case) else "wrong"
    except UnsupportedError:
        return "refused"


def test_node_cases_of_onnx_are_right_or_refused() -> None:
    cases = _node_cases()
    found: dict[str, list[str]] = {"right": [], "refused": [], "wrong": []}
    for case in cases:
        found[_verdict(case)].append(case.name)
    print("onnx node cases:", ", ".join(f"{len(names)} {verdict}" for verdict, names in found.items()))
    assert found["wrong"] == []
    assert len(found["right"]) > 0.9 * len(cases) > 200, found["refused"]
