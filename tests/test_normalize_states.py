"""Recurrences that start from zeros start from nothing; every other start is kept."""

from __future__ import annotations

import numpy as np
import pytest
from normalize_tools import assert_agree, clean, normal, text
from onnx import numpy_helper

from edgepress.groups import find_groups
from edgepress.model import Model

SIZE = "n = Shape<start = 1, end = 2>(x)  s = Concat<axis = 0>(two, n, four)"
ZEROS = {
    "expanded": f"{SIZE}  z = Expand(nought, s)",
    "filled": f"{SIZE}  z = ConstantOfShape(s)",
    "filled with a value": f"{SIZE}  z = ConstantOfShape<value = float[1] {{0}}>(s)",
    "joined": f"{SIZE}  h = Expand(nought, s)  f, g = Split<axis = 0, num_outputs = 2>(h)  z = Concat<axis = 0>(g, f)",
    "turned": f"{SIZE}  h = Expand(nought, s)  i = Transpose<perm = [1, 0, 2]>(h)  z = Transpose<perm = [1, 0, 2]>(i)",
}
OTHERS = {
    "ones": f"{SIZE}  z = Expand(unit, s)",
    "filled with ones": f"{SIZE}  z = ConstantOfShape<value = float[1] {{1}}>(s)",
    "joined with ones": f"{SIZE}  h = Expand(nought, s)  i = Expand(unit, s)"
    "  f, g = Split<axis = 0, num_outputs = 2>(h)"
    "  t, k = Split<axis = 0, num_outputs = 2>(i)  z = Concat<axis = 0>(f, k)",
    "computed": "m = ReduceMean<keepdims = 1>(x, ends)  z = Expand(m, size)",
}
LAYERS = """a = Slice(z, nil, one, nil)  b = Slice(z, one, two, nil)
    u = LSTM<hidden_size = 4>(x, w1, r1, b1, , a, a, p)  v = Squeeze(u, one)
    o = GRU<hidden_size = 4>(v, w2, r2, , , b)  y = Squeeze(o, one)"""


def build(start: str) -> Model:
    """Two layers whose states are slices of the tensor z."""
    proto = text(f"g (float[5,N,3] x) => (float[5,N,4] y) {{ {start} {LAYERS} }}", opset=21, ir=10).edit()
    arrays = {"w1": normal(1, 16, 3), "r1": normal(1, 16, 4), "b1": normal(1, 32), "p": normal(1, 12)}
    arrays |= {
        "w2": normal(1, 12, 4),
        "r2": normal(1, 12, 4),
        "nought": np.zeros((), np.float32),
        "unit": np.ones((), np.float32),
    }
    whole = {"nil": 0, "one": 1, "two": 2, "four": 4, "last": 2}
    fixed = {name: np.array([value]) for name, value in whole.items()} | {
        "ends": np.array([0, 2]),
        "size": np.array([2, 1, 4]),
    }
    constants = {**arrays, **fixed}
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(constants[n], n) for n in constants if n in read)
    return Model.of(proto)


def states(model: Model) -> list[tuple[str, ...]]:
    return [node.inputs[5:] for node in model.nodes if node.op in ("LSTM", "GRU")]


@pytest.mark.parametrize("name", ZEROS)
def test_zeros_are_left_out(name: str) -> None:
    before = build(ZEROS[name])
    after = clean(before)
    assert states(after) == [("", "", "p"), ()]
    assert {node.op for node in after.nodes} == {"LSTM", "GRU", "Squeeze"}
    assert_agree(before, after, {"x": normal(5, 2, 3)}, {"x": normal(5, 1, 3)})


def test_layers_are_no_longer_tied_by_them() -> None:
    before = build(ZEROS["expanded"])
    assert [len(group.producers) for group in find_groups(before).groups] == [2]
    assert [len(group.producers) for group in find_groups(clean(before)).groups] == [1, 1]


@pytest.mark.parametrize("name", OTHERS)
def test_other_states_are_kept(name: str) -> None:
    before = build(OTHERS[name])
    feed = {"x": normal(5, 1, 3)}
    after = clean(before, [feed])
    assert [sum(map(bool, found)) for found in states(after)][1] == 1
    assert_agree(before, after, feed)
