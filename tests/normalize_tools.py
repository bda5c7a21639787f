"""Small tools of the normalization tests: models from text, and the one question asked of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import parser

from edgepress.model import Model
from edgepress.normalize import Normalized, StepRecord, normalize
from edgepress.runtime import run, session

Feed = Mapping[str, np.ndarray]


def text(body: str, *, opset: int = 17, ir: int = 8, more: str = "") -> Model:
    """A model from ONNX text; ``more`` goes into the list of operator sets."""
    return Model.of(parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{more}]> {body}'))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Seeded normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ops(model: Model) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op for node in model.nodes)


def step(result: Normalized, name: str) -> StepRecord:
    """The record of that step."""
    return next(record for record in result.steps if record.name == name)


def clean(model: Model, samples: Sequence[Feed] = ()) -> Model:
    """Normalize; every step must have been done."""
    result = normalize(model, samples)
    assert [record for record in result.steps if record.skipped] == []
    return result.model


def assert_agree(before: Model, after: Model, *feeds: Feed, limit: float = 1e-5) -> None:
    """Both models answer alike in onnxruntime, and keep the names and types of inputs and outputs."""
    assert after.inputs == before.inputs
    assert after.outputs == before.outputs
    for feed in feeds:
        expected, found = (run(session(model.data), feed) for model in (before, after))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=limit, atol=limit * max(1.0, np.abs(value).max()))
