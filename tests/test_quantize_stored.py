"""Stored weights: integers in the file, floats in the graph that runs, whoever reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from sequence_models import EXPORTERS, RECURRENT, TRANSFORMERS, exported, fused, noise, normal, outputs, text

from edgepress.errors import InputError, ModelError
from edgepress.model import Model
from edgepress.quantize.storage.stored import channel_axes, storable, stored

LAYERS = {
    "Conv": ("float[N,6,8,8] x", "Conv(x, w)", (4, 6, 3, 3), (0,)),
    "grouped Conv": ("float[N,6,8,8] x", "Conv<group=3>(x, w)", (9, 2, 3, 3), (0,)),
    "ConvTranspose": ("float[N,6,8,8] x", "ConvTranspose(x, w)", (6, 4, 3, 3), (1,)),
    "MatMul": ("float[N,6] x", "MatMul(x, w)", (6, 4), (1,)),
    "MatMul of stacks": ("float[2,N,6] x", "MatMul(x, w)", (2, 6, 4), (2,)),
    "Gemm": ("float[N,6] x", "Gemm(x, w)", (6, 4), (1,)),
    "Gemm, transposed": ("float[N,6] x", "Gemm<transB=1>(x, w)", (4, 6), (0,)),
    "GRU": ("float[5,N,6] x", "GRU<hidden_size=4>(x, w, r)", (1, 12, 6), (0, 1)),
    "LSTM": ('float[5,N,6] x', 'LSTM<hidden_size=4, direction="bidirectional">(x, w, r)', (2, 16, 6), (0, 1)),
    "RNN": ("float[5,N,6] x", "RNN<hidden_size=4>(x, w, r)", (1, 4, 6), (0, 1)),
    "Gather": ("int64[N] x", "Gather(w, x)", (9, 6), (0,)),
}  # fmt: skip


def layer(name: str, opset: int = 21) -> Model:
    given, call, shape, _ = LAYERS[name]
    rank = {"Conv": 4, "grouped Conv": 4, "ConvTranspose": 4, "GRU": 4, "LSTM": 4, "RNN": 4, "MatMul of stacks": 3}
    axes = ",".join("PQRS"[: rank.get(name, 2)])
    constants = {"w": normal(*shape), **({"r": normal(shape[0], shape[1], 4, seed=1)} if "r)" in call else {})}
    return text(f"({given}) => (float[{axes}] y) {{ y = {call} }}", opset=opset, arrays=constants)


def feed(model: Model) -> dict[str, np.ndarray]:
    kind = model.inputs["x"]
    shape = [size if isinstance(size, int) else 7 for size in kind.shape or ()]
    return {"x": np.arange(7) if kind.dtype == "int64" else normal(*shape, seed=2)}


def multiplied(made: Model, name: str) -> np.ndarray:
    """What the Cast and the Mul make of the stored constants, in numpy."""
    return np.asarray(made.constants[f"{name}/q"].astype(np.float32) * made.constants[f"{name}/s"])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_runs_as_before_with_weights_made_at_load(name: str, bits: int) -> None:
    model = layer(name)
    assert storable(model, 1)["w"] == ""
    assert channel_axes(model, "w") == LAYERS[name][3]
    made = stored(model, ["w"], bits)
    assert dict(made.outputs) == dict(model.outputs)
    assert fused(made) == fused(model)  # Cast and Mul are gone
    weight = model.constants["w"]
    step = made.constants["w/s"]
    assert step.shape == tuple(size if axis in LAYERS[name][3] else 1 for axis, size in enumerate(weight.shape))
    assert (np.abs(multiplied(made, "w") - weight) <= step / 2 * 1.001).all()
    exact = model.with_constants({"w": multiplied(made, "w")})
    assert np.array_equal(outputs(made, feed(model))[0], outputs(exact, feed(model))[0])


@pytest.mark.parametrize("bits", [8, 4])
def test_bytes(bits: int) -> None:
    model = text("(float[N,200] x) => (float[N,99] y) { y = MatMul(x, w) }", opset=21, w=normal(200, 99))
    assert stored(model, ["w"], bits).size < 200 * 99 * bits / 8 + 4 * 99 + 400


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    zeros=st.booleans(),
    bits=st.sampled_from([8, 4]),
    seed=st.integers(0, 99),
)
def test_half_a_step_at_any_scale(shape: tuple[int, int], scale: float, zeros: bool, bits: int, seed: int) -> None:
    weight = normal(*shape, seed=seed) * np.float32(scale)
    weight[:, 0] *= not zeros
    model = text(f"(float[N,{shape[0]}] x) => (float[N,M] y) {{ y = MatMul(x, w) }}", opset=21, w=weight)
    made = stored(model, ["w"], bits)
    lost = np.abs(multiplied(made, "w").astype(np.float64) - weight)
    assert (lost <= made.constants["w/s"].astype(np.float64) / 2 * 1.001).all()
    assert (multiplied(made, "w")[weight == 0] == 0).all()


def test_all_readers_read_the_product_bodies_and_outputs_included() -> None:
    model = text("(float[N,6] x, bool go) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(6, 4))
    proto = model.edit()
    kind = helper.make_tensor_value_info("z", 1, [6, 4])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "branch", [], [kind])
    proto.graph.node.append(helper.make_node("If", ["go"], ["z2"], then_branch=branch, else_branch=branch))
    proto.graph.output.append(helper.make_tensor_value_info("z2", 1, [6, 4]))
    proto.graph.output.append(helper.make_tensor_value_info("w", 1, [6, 4]))
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [6, 4]))  # as old files do
    model = Model.of(proto)
    made = stored(model, ["w"])
    assert list(made.inputs) == ["x", "go"] and "w" not in made.constants
    found = outputs(made, {"x": normal(3, 6), "go": np.array(True)})
    assert np.array_equal(found[1], multiplied(made, "w")) and np.array_equal(found[2], found[1])


def test_small_odd_and_foreign_constants_stay() -> None:
    bad = normal(40, 40)
    bad[0, 0] = np.nan
    body = "a = MatMul(x, w) b = MatMul(a, bad) c = Add(b, v) d = MatMul(c, s) y = Cast<to=1>(d)"
    model = text(
        f"(float[N,40] x) => (float[N,3] y) {{ {body} }}",
        w=normal(40, 40), bad=bad, v=normal(40), s=normal(40, 3), h=normal(40, 40).astype(np.float16),
    )  # fmt: skip
    assert storable(model) == {
        "w": "",
        "bad": "it has values that are not finite",
        "s": "its 120 values are too few",
    }
    with pytest.raises(ModelError, match="'bad' cannot be stored as integers: it is float32, or not finite"):
        stored(model, ["bad"])
    for name in ("v", "h", "nobody"):
        with pytest.raises(ModelError, match=f"'{name}' cannot be stored as integers: it is no weight of a layer"):
            stored(model, [name])
    with pytest.raises(InputError, match="in 3 bits: choose 8 or 4"):
        stored(model, ["w"], 3)
    with pytest.raises(ModelError, match="4-bit storage needs operator set 21, and the model has 17"):
        stored(model, ["w"], 4)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", TRANSFORMERS + RECURRENT)
def test_networks_keep_their_answers(name: str, exporter: str) -> None:
    model, given = exported(name, exporter)
    made = stored(model, storable(model, 1))
    assert dict(made.outputs) == dict(model.outputs)
    assert fused(made) == fused(model)
    assert noise(model, made, given) > 32
