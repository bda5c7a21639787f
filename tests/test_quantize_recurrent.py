"""Recurrent layers: DynamicQuantizeLSTM against the float LSTM with rounded weights, and what stays float."""

from __future__ import annotations

import numpy as np
import pytest
from quantize_tools import LIMIT
from sequence_models import EXPORTERS, exported, fused, noise, normal, outputs, same_interface, text

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.quantize.forms.recurrent import recurrent, recurrent_candidates
from edgepress.quantize.storage.stored import storable, stored

TIME, BATCH, WIDTH, UNITS = 9, 3, 10, 8
STATE = {"h": "float[{d},3,8] h", "c": "float[{d},3,8] c"}
CASES = {
    "plain": ("LSTM<hidden_size=8>(x, w, r)", 1),
    "bias": ("LSTM<hidden_size=8>(x, w, r, b)", 1),
    "reverse": ('LSTM<hidden_size=8, direction="reverse">(x, w, r, b)', 1),
    "both ways": ('LSTM<hidden_size=8, direction="bidirectional">(x, w, r, b)', 2),
    "lengths": ('LSTM<hidden_size=8, direction="bidirectional">(x, w, r, b, n)', 2),
    "states": ("LSTM<hidden_size=8>(x, w, r, b, , s, t)", 1),
    "peepholes": ('LSTM<hidden_size=8, direction="bidirectional">(x, w, r, b, , , , p)', 2),
    "clip": ("LSTM<hidden_size=8, clip=0.5>(x, w, r, b)", 1),
    "coupled gates": ("LSTM<hidden_size=8, input_forget=1>(x, w, r, b)", 1),
    "activations": ('LSTM<hidden_size=8, activations=["HardSigmoid", "Tanh", "Tanh"]>(x, w, r, b)', 1),
}


def lstm(call: str, directions: int, opset: int = 17) -> Model:
    constants = {
        "w": normal(directions, 4 * UNITS, WIDTH, scale=0.5),
        "r": normal(directions, 4 * UNITS, UNITS, scale=0.5, seed=1),
        "b": normal(directions, 8 * UNITS, scale=0.3),
        "n": np.array([9, 4, 6], np.int32),
        "s": normal(directions, BATCH, UNITS, scale=0.5),
        "t": normal(directions, BATCH, UNITS, seed=1),
        "p": normal(directions, 3 * UNITS, scale=0.3),
    }
    inputs = call.rpartition("(")[2].strip(")").replace(" ", "").split(",")
    results = f"float[{TIME},{directions},{BATCH},{UNITS}] y, float[{directions},{BATCH},{UNITS}] yh, float[q,u,v] yc"
    graph = f"(float[{TIME},{BATCH},{WIDTH}] x) => ({results}) {{ y, yh, yc = {call} }}"
    return text(graph, opset=opset, arrays={name: v for name, v in constants.items() if name in inputs})


@pytest.mark.parametrize("opset", [11, 17, 22])
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_lstm_keeps_its_answers(case: str, opset: int) -> None:
    model, feed = lstm(*CASES[case], opset=opset), {"x": normal(TIME, BATCH, WIDTH, seed=3)}
    assert list(recurrent_candidates(model).values()) == ["8 hidden units are faster in float"]
    made = recurrent(model, ["LSTM.0"], LIMIT)
    assert same_interface(model, made)
    assert fused(made, "DynamicQuantizeLSTM") == fused(made) == 1
    assert noise(model, made, feed) > 30
    assert max(v.size for v in made.constants.values() if v.dtype == np.float32) <= 16 * UNITS


def test_only_activations_are_rounded_on_top_of_the_weights() -> None:
    model, feed = lstm(*CASES["both ways"]), {"x": normal(TIME, BATCH, WIDTH, seed=3)}
    made = recurrent(model, ["LSTM.0"], limit=20)
    weights = stored(model, ["w", "r"])
    coarse = {name: made.constants[f"LSTM.0/{name}"] for name in "wr"}
    scales = {name: made.constants[f"LSTM.0/{name}s"] for name in "wr"}
    assert all(np.abs(v).max() == 20 for v in coarse.values())
    wide = {name: (coarse[name] * scales[name][:, None]).transpose(0, 2, 1) for name in "wr"}
    rounded = model.with_constants(wide)
    assert noise(rounded, made, feed) > noise(model, made, feed) + 6
    assert noise(model, weights, feed) > 40


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("GRU<hidden_size=8>(x, w, r)", "onnxruntime has no int8 GRU"),
        ("RNN<hidden_size=8>(x, w, r)", "onnxruntime has no int8 RNN"),
        ("LSTM<hidden_size=8, layout=1>(x, w, r)", "its batch comes first (layout 1), which onnxruntime does not run"),
        ("LSTM<hidden_size=8>(x, v, r)", "its weights are computed, not constant"),
        ("LSTM<hidden_size=8>(x, d, r)", "its weights are not float32"),
        ("LSTM<hidden_size=8>(x, bad, r)", "its weights have values that are not finite"),
    ],
)
def test_what_has_no_int8_form_says_why(call: str, reason: str) -> None:
    w = normal(1, 32, 10)
    bad = w.copy()
    bad[0, 0, 0] = np.inf
    constants = {"w": w, "r": normal(1, 32, 8), "d": w.astype(np.float64), "bad": bad}
    model = text(f"(float[9,3,10] x) => (float[a,b,c,d] y) {{ v = Abs(w) y = {call} }}", arrays=constants)
    assert list(recurrent_candidates(model).values()) == [reason]
    with pytest.raises(ModelError, match="cannot be quantized: "):
        recurrent(model, [model.nodes[-1].name])


@pytest.mark.parametrize(("units", "reason"), [(127, "127 hidden units are faster in float"), (128, "")])
def test_candidates_have_many_units(units: int, reason: str) -> None:
    w, r = normal(1, 4 * units, 10), normal(1, 4 * units, units)
    model = text(f"(float[9,3,10] x) => (float[a,b,c,d] y) {{ y = LSTM<hidden_size={units}>(x, w, r) }}", w=w, r=r)
    assert list(recurrent_candidates(model).values()) == [reason]


def test_unknown_nodes_are_an_error() -> None:
    with pytest.raises(ModelError, match="'nobody' cannot be quantized: there is no such node"):
        recurrent(lstm(*CASES["plain"]), ["nobody"])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["lstm_tagger", "crnn", "lstm_stack"])
def test_networks_keep_their_answers(name: str, exporter: str) -> None:
    model, feed = exported(name, exporter)
    chosen = [node.name for node in model.nodes if node.op == "LSTM"]
    made = recurrent(model, chosen, LIMIT)
    assert same_interface(model, made)
    assert len(chosen) == fused(made, "DynamicQuantizeLSTM") == fused(model, "LSTM") >= 1
    assert noise(model, made, feed) > 38


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_weights_of_a_gru_can_be_stored(exporter: str) -> None:
    model, feed = exported("gru_denoiser", exporter)
    weights = [name for node in model.nodes if node.op == "GRU" for name in node.inputs[1:3]]
    assert set(weights) <= storable(model, 1).keys()
    made = stored(model, weights)
    assert same_interface(model, made)
    assert fused(made, "GRU") == 2 and fused(made, "Cast", "Mul") == fused(model, "Cast", "Mul")
    assert all(made.constants[f"{name}/q"].dtype == np.int8 for name in weights)
    assert noise(model, made, feed) > 50
    assert len(outputs(made, feed)) == 1
