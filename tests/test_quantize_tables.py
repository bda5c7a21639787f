"""Tables: rows of integers, exactly the values that the multiplied table has, tied ones kept once."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from sequence_models import (
    EXPORTERS,
    INT8_PRODUCTS,
    exported,
    fused,
    language,
    noise,
    normal,
    outputs,
    products,
    same_interface,
    text,
)

from edgepress.errors import ModelError
from edgepress.model import Model
from edgepress.quantize.forms.dynamic import dynamic
from edgepress.quantize.storage.stored import stored
from edgepress.quantize.storage.tables import share_transposed, table_candidates, tables

ROWS, WIDTH = 50, 24
TABLE = normal(ROWS, WIDTH) * np.linspace(0.1, 30, ROWS, dtype=np.float32)[:, None]
INDICES = {"x": np.array([[3, 49, 0, 3], [1, 2, -1, 7]])}
GATHERED = {
    "once": "y = Gather(t, x)",
    "twice": "a = Gather(t, x) b = Gather<axis=0>(t, x) y = Add(a, b)",
    "counted from behind": "y = Gather<axis=-2>(t, x)",
}
READ = {
    "as a weight": "e = Gather(t, x) h = Concat<axis=2>(e, pad) y = MatMul(h, t)",
    "by a product": "e = Gather(t, x) h = Transpose<perm=[1,0]>(t) y = MatMul(e, h)",
    "along the other axis": "e = Gather(t, x) s = Gather<axis=1>(t, one) f = ReduceSum<keepdims=0>(s) y = Add(e, f)",
}
MORE = {"pad": normal(2, 4, ROWS - WIDTH), "one": np.array([0])}


def model_of(body: str, **more: np.ndarray) -> Model:
    return text(f"(int64[B,T] x) => (float[P,Q,R] y) {{ {body} }}", opset=21, arrays={"t": TABLE, **more})


def rounded(bits: int) -> np.ndarray:
    limit = 2 ** (bits - 1) - 1
    scale = (np.abs(TABLE).max(1, keepdims=True) / limit).astype(np.float32)
    return np.asarray(np.rint(TABLE / scale.astype(np.float64)).astype(np.float32) * scale)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("body", GATHERED.values(), ids=GATHERED)
def test_only_gathered_tables_stay_integers_in_memory(body: str, bits: int) -> None:
    model = model_of(body)
    assert table_candidates(model, 1) == {"t": ""}
    made = tables(model, ["t"], bits)
    assert same_interface(model, made)
    assert np.array_equal(outputs(made, INDICES)[0], outputs(model.with_constants({"t": rounded(bits)}), INDICES)[0])
    assert fused(made, "Gather") == 2 * fused(model, "Gather")
    assert fused(made, "Cast") == fused(model, "Gather")  # none of them is of the whole table
    assert not any(v.size >= TABLE.size for v in made.constants.values() if v.dtype == np.float32)
    assert {node.name for node in made.nodes} >= {node.name for node in model.nodes}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("body", READ.values(), ids=READ)
def test_tables_read_by_others_are_multiplied_at_load(body: str, bits: int) -> None:
    more = {name: values for name, values in MORE.items() if name in body}
    model = model_of(body, **more)
    made = tables(model, ["t"], bits)
    assert same_interface(model, made)
    assert np.array_equal(outputs(made, INDICES)[0], outputs(model.with_constants({"t": rounded(bits)}), INDICES)[0])
    assert fused(made) == fused(model)


def test_a_table_that_a_body_reads_keeps_its_name() -> None:
    model = model_of("y = Gather(t, x)")
    proto = model.edit()
    kind = helper.make_tensor_value_info("z", 1, [ROWS, WIDTH])
    branch = helper.make_graph([helper.make_node("Identity", ["t"], ["z"])], "branch", [], [kind])
    proto.graph.input.append(helper.make_tensor_value_info("go", 9, []))
    proto.graph.node.append(helper.make_node("If", ["go"], ["z2"], then_branch=branch, else_branch=branch))
    proto.graph.output.append(helper.make_tensor_value_info("z2", 1, [ROWS, WIDTH]))
    made = tables(Model.of(proto), ["t"])
    found = outputs(made, {**INDICES, "go": np.array(True)})
    assert np.array_equal(found[1], rounded(8))


@pytest.mark.parametrize(
    ("body", "names"),
    [("y = Gather(t, x)", "u"), ("y = Gather<axis=1>(t, x)", "t"), ("e = Abs(t) y = Gather(e, x)", "t")],
)
def test_what_is_no_table_is_an_error(body: str, names: str) -> None:
    model = model_of(body)
    assert names not in table_candidates(model, 1)
    with pytest.raises(ModelError, match=f"'{names}' is no table"):
        tables(model, [names])


def test_candidates_say_why_not() -> None:
    bad = TABLE.copy()
    bad[0, 0] = np.inf
    assert table_candidates(model_of("y = Gather(t, x)")) == {"t": ""}
    assert table_candidates(model_of("y = Gather(t, x)"), 2000) == {"t": "its 1200 values are too few"}
    model = model_of("y = Gather(t, x)").with_constants({"t": bad})
    assert table_candidates(model) == {"t": "it has values that are not finite"}
    with pytest.raises(ModelError, match="or not finite"):
        tables(model, ["t"])


def test_one_of_two_transposed_matrices_is_kept() -> None:
    model = model_of("e = Gather(t, x) y = MatMul(e, u)", u=TABLE.T.copy())
    made = share_transposed(model)
    assert same_interface(model, made)
    assert made.size < 0.6 * model.size
    assert np.array_equal(outputs(made, INDICES)[0], outputs(model, INDICES)[0])
    assert fused(made) == fused(model)
    other = model_of("e = Gather(t, x) y = MatMul(e, u)", u=normal(WIDTH, ROWS))
    assert share_transposed(other).constants.keys() == other.constants.keys()


@pytest.mark.parametrize("way", ["stored", pytest.param("dynamic", marks=pytest.mark.whole_range)])
def test_a_tied_layer_has_the_integers_of_its_table(way: str) -> None:
    model = model_of("e = Gather(t, x) y = MatMul(e, u)", u=TABLE.T.copy())
    small = stored(model, ["u"]) if way == "stored" else dynamic(model, products(model))
    made = share_transposed(tables(small, ["t"]))
    assert sum(v.size for v in made.constants.values() if v.dtype == np.int8) == TABLE.size
    assert fused(made, "DynamicQuantizeMatMul") == (way == "dynamic")
    assert fused(made, "MatMul") == (way == "stored")
    assert fused(made, "Transpose") == 0
    assert noise(model, made, INDICES) > 38


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["bert", "decoder", "decoder_gqa", "gpt2", "t5", "lstm_tagger"])
def test_networks_keep_their_answers(name: str, exporter: str) -> None:
    model, feed = exported(name, exporter)
    chosen = table_candidates(model, 1)
    made = share_transposed(tables(model, chosen), 1)
    assert chosen and not any(chosen.values())
    assert same_interface(model, made)
    assert noise(model, made, feed) > 38


@pytest.mark.whole_range  # the table is kept once if its integers are those of the product
def test_a_wide_transformer_with_a_tied_table_is_a_quarter() -> None:
    model, feed = language(64)
    made = share_transposed(tables(dynamic(model, products(model)), table_candidates(model)))
    assert fused(made, *INT8_PRODUCTS) == 7
    assert made.size < 0.23 * model.size  # the file has the table twice
    assert noise(model, made, feed) > 34
