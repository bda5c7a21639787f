"""Shape chains: constant Reshape targets with the batch axis kept free, and what must not be folded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalize_tools import assert_agree, clean, normal, ops, step, text

from edgepress.normalize import normalize, shapes
from edgepress.normalize.shapes import reshape_target, shape_tensors

FLATTEN = """g (float[N,4,5] x) => (float[N,20] y) {
    s = Shape(x)
    i = Constant <value_int = 0> ()
    n = Gather <axis = 0> (s, i)
    a = Constant <value_ints = [0]> ()
    u = Unsqueeze(n, a)
    k = Constant <value_ints = [LAST]> ()
    c = Concat <axis = 0> (u, k)
    y = Reshape(x, c)
}"""


@pytest.mark.parametrize(("last", "target"), [("20", [-1, 20]), ("-1", [0, -1])])
def test_legacy_flatten_chain_becomes_a_constant_target(last: str, target: list[int]) -> None:
    before = text(FLATTEN.replace("LAST", last))
    after = clean(before)
    assert ops(after) == {"Reshape": 1}
    assert after.constants[after.nodes[0].inputs[1]].tolist() == target
    assert_agree(before, after, *({"x": normal(batch, 4, 5)} for batch in (1, 2, 5)))


def test_real_samples_serve_as_well_as_made_up_ones() -> None:
    before = text(FLATTEN.replace("LAST", "20"))
    after = clean(before, [{"x": normal(7, 4, 5)}, {"x": normal(3, 4, 5)}])
    assert ops(after) == {"Reshape": 1}
    assert_agree(before, after, {"x": normal(1, 4, 5)})


def test_fixed_models_fold_everything() -> None:
    before = text(FLATTEN.replace("LAST", "20").replace("N", "3"))
    after = clean(before)
    assert after.constants[after.nodes[0].inputs[1]].tolist() == [3, 20]
    assert_agree(before, after, {"x": normal(3, 4, 5)})


def test_product_of_batch_and_size_is_inferred() -> None:
    before = text(
        """g (float[N,4,5] x) => (float[M,5] y) {
        s = Shape <end = 2> (x) p = ReduceProd <keepdims = 1> (s) k = Constant <value_ints = [5]> ()
        c = Concat <axis = 0> (p, k) y = Reshape(x, c) }""",
        opset=18,
    )
    after = clean(before)
    assert after.constants[after.nodes[-1].inputs[1]].tolist() == [-1, 5]
    assert_agree(before, after, *({"x": normal(batch, 4, 5)} for batch in (1, 3)))


def test_expand_that_follows_the_batch_is_left_alone() -> None:
    before = text(
        """g (float[N,2] x) => (float[N,2] y) <float[1,2] t = {1,2}> {
        s = Shape(x) e = Expand(t, s) y = Add(x, e) }"""
    )
    after = clean(before)
    assert ops(after) == {"Shape": 1, "Expand": 1, "Add": 1}
    assert_agree(before, after, *({"x": normal(batch, 2)} for batch in (1, 4)))


TWO_FREE = """g (float[N,3,L] x) => (float[N,A,B] y) {
    s = Shape(x) i = Constant <value_int = 2> () l = Gather <axis = 0> (s, i)
    z = Constant <value_int = 0> () n = Gather <axis = 0> (s, z)
    a = Constant <value_ints = [0]> () ul = Unsqueeze(l, a) un = Unsqueeze(n, a)
    three = Constant <value_ints = [3]> ()
    c = Concat <axis = 0> (un, ORDER) y = Reshape(x, c)
}"""


def test_two_free_axes_stay_free() -> None:
    before = text(TWO_FREE.replace("ORDER", "ul, three"))
    after = clean(before, [{"x": normal(2, 3, 6)}])
    assert ops(after) == {"Reshape": 1}
    assert after.constants[after.nodes[0].inputs[1]].tolist() == [0, -1, 3]
    assert_agree(before, after, {"x": normal(1, 3, 6)}, {"x": normal(4, 3, 9)})


def test_a_free_length_is_not_frozen_at_the_sample() -> None:
    before = text(
        """g (float[N,L] x) => (float[N,L] y) {
        s = Shape <start = 1> (x) f = Cast <to = 1> (s) y = Div(x, f) }"""
    )
    after = clean(before, [{"x": normal(2, 6)}])
    assert ops(after)["Shape"] == 1
    assert_agree(before, after, {"x": normal(2, 9)})


def test_a_size_hidden_in_a_shape_chain_becomes_a_constant() -> None:
    before = text(
        """g (float[N,8] x) => (float[N,8] y) {
        s = Shape <start = 1> (x) f = Cast <to = 1> (s) r = Sqrt(f) y = Div(x, r) }"""
    )
    after = clean(before)
    assert ops(after) == {"Div": 1}
    assert_agree(before, after, {"x": normal(3, 8)})


def test_axes_that_only_run_at_one_size_refuse_the_step() -> None:
    before = text(
        """g (float[N,L] x) => (float[N,6] y) <float[1,6] w = {1,2,3,4,5,6}> {
        t = Add(x, w) s = Shape(t) y = Reshape(t, s) }"""
    )
    result = normalize(before, [{"x": normal(2, 6)}])
    assert "free axes" in step(result, "fold shape chains").skipped
    assert_agree(before, result.model, {"x": normal(3, 6)})


def test_shapes_made_of_data_are_not_constants() -> None:
    before = text(
        """g (float[4] x) => (int64[1,K] i, float[1] c) {
        i = NonZero(x) s = Shape <start = 1> (i) c = Cast <to = 1> (s) }"""
    )
    assert shape_tensors(before.edit().graph) == set()
    after = clean(before, [{"x": np.array([1, 0, 1, 0], np.float32)}])
    assert_agree(before, after, {"x": np.array([1, 1, 1, 0], np.float32)})


def test_a_target_made_of_data_is_not_a_constant() -> None:
    graph = text("g (float[N,4] x, int64[2] t) => (float[A,B] y) { r = Reshape(x, t) s = Shape(r) y = Reshape(x, s) }")
    assert shape_tensors(graph.edit().graph) == set()


def test_large_results_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "GROWTH_LIMIT", 8)
    before = text(
        """g (float[N,2,3] x) => (float[2,3] y) {
        s = Shape <start = 1> (x) e = ConstantOfShape(s)
        m = ReduceMax <axes = [0], keepdims = 0> (x) y = Add(m, e) }"""
    )
    after = clean(before)
    assert ops(after)["ConstantOfShape"] == 1
    assert_agree(before, after, {"x": normal(3, 2, 3)})


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_folded_target_reshapes_every_batch(data: st.DataObject) -> None:
    """Law: the constant target gives the shape the chain gave, at batch sizes that were not observed too."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    merged = data.draw(st.integers(0, len(sizes)))
    tail = [int(np.prod(sizes[merged:]))] if data.draw(st.booleans()) else sizes[merged:]
    factor = int(np.prod(sizes[:merged]))

    def wanted(batch: int) -> list[int]:
        return [batch * factor, *tail]

    values = [np.array(wanted(batch)) for batch in shapes.BATCHES]
    inputs = [np.array([batch, *sizes]) for batch in shapes.BATCHES]
    target = reshape_target(values, inputs, zero_is_zero=False)
    assert target is not None
    for batch in (3, 8):
        copied = [([batch, *sizes][axis] if size == 0 else int(size)) for axis, size in enumerate(target)]
        assert list(np.zeros([batch, *sizes]).reshape(copied).shape) == wanted(batch)


@pytest.mark.parametrize(
    ("values", "inputs", "zero_is_zero"),
    [
        ([[2, 3], [3, 2]], [[6], [6]], False),  # two entries vary and neither is copied
        ([[-1, 2], [-1, 4]], [[4], [8]], False),  # one is inferred already
        ([[1, 0], [2, 0]], [[1, 0], [2, 0]], True),  # a literal zero
        ([[1], [2, 3]], [[1], [6]], False),  # the rank varies
    ],
)
def test_targets_without_a_constant_form_are_left(
    values: list[list[int]], inputs: list[list[int]], zero_is_zero: bool
) -> None:
    given_values = [np.array(value) for value in values]
    given_inputs = [np.array(value) for value in inputs]
    assert reshape_target(given_values, given_inputs, zero_is_zero=zero_is_zero) is None
