"""Constants filled with one number are separated, shared weights are not."""

from __future__ import annotations

import numpy as np
from normalize_tools import assert_agree, clean, normal, text
from onnx import numpy_helper

from edgepress.groups import find_groups
from edgepress.model import Model

BODY = """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
a = Conv(x, w1)  n = InstanceNormalization(a, ones, zeros)  b = Conv(n, w2)  m = InstanceNormalization(b, ones, zeros)
c = Conv(m, w3)  k = InstanceNormalization(c, scale, zeros)  d = Conv(k, w5)  o = InstanceNormalization(d, scale, zeros)
y = Conv(o, w4) }"""


def build() -> Model:
    proto = text(BODY).edit()
    constants = {"w1": normal(6, 3, 1, 1), "w2": normal(6, 6, 1, 1), "w3": normal(6, 6, 1, 1), "w4": normal(2, 6, 1, 1)}
    constants |= {
        "w5": normal(6, 6, 1, 1),
        "ones": np.ones(6, np.float32),
        "zeros": np.zeros(6, np.float32),
        "scale": normal(6),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return Model.of(proto)


def test_fillers_are_separated_and_weights_stay_shared() -> None:
    before = build()
    after = clean(before)
    read = [node.inputs[1:] for node in after.nodes if node.op == "InstanceNormalization"]
    assert read == [("ones", "zeros"), ("ones_2", "zeros_2"), ("scale", "zeros_3"), ("scale", "zeros_4")]
    assert_agree(before, after, {"x": normal(2, 3, 4, 4)})


def test_layers_are_no_longer_tied_by_them() -> None:
    assert [len(group.producers) for group in find_groups(build()).prunable] == [4]
    assert [len(group.producers) for group in find_groups(clean(build())).prunable] == [1, 1, 2]


def test_a_filler_that_is_an_output_stays() -> None:
    proto = build().edit()
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[1].name = "ones"
    del proto.graph.output[1].type.tensor_type.shape.dim[1:]
    proto.graph.output[1].type.tensor_type.shape.dim[0].dim_value = 6
    after = clean(Model.of(proto))
    assert [node.inputs[1] for node in after.nodes if node.op == "InstanceNormalization"][:2] == ["ones", "ones"]
