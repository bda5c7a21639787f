"""The same graph for an older onnxruntime: what every version of an operator changed, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import kernel_cases
import kernel_cases_networks
import kernel_cases_tensors
import numpy as np
import onnx
import pytest
from kernel_cases import Case, data, ints
from onnx import TensorProto, defs, helper
from pipeline_models import CONVNET

from edgepress import runtime
from edgepress.errors import InputError, Refusal
from edgepress.model import Model
from edgepress.ops.table import NEWEST_OPSET
from edgepress.pipeline import apply, compress
from edgepress.plan import Plan
from edgepress.quantize.graph.lowered import CONTRIBUTED, KERNELS, lowered
from edgepress.quantize.graph.versions import CHANGED, OLDEST, RENAMED
from edgepress.request import Request
from edgepress.targets.releases import RELEASES, release

NEWEST = RELEASES[-1]
CASES = [*kernel_cases.CASES, *kernel_cases_networks.CASES, *kernel_cases_tensors.CASES]
NEW = {"Attention", "CastLike", "CumProd", "Gelu", "GridSample", "GroupNormalization", "LayerNormalization"}
NEW |= {"RMSNormalization", "RotaryEmbedding", "Swish", "Trilu"}
"""Operators whose cases need the set they are written in."""
OTHER_SUMS = ("AveragePool",)
"""From 19 on onnxruntime adds in another order: the last bit may differ."""


def text(body: str, sets: str = '"" : 21') -> Model:
    """A model from ONNX text, of the set and IR version that normalizing writes."""
    return Model.of(onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{sets}]> {body}"))


def made(model: Model, version: str = "1.31") -> Model:
    found = lowered(model, release(version))
    assert isinstance(found, Model), found
    return found


def refused(model: Model, version: str) -> str:
    found = lowered(model, release(version))
    assert isinstance(found, Refusal)
    return str(found)


# --- the table of changes ---------------------------------------------------------------------------------------------

WORDING = {
    ("Add", 14), ("Sub", 14), ("Mul", 14), ("Div", 14),  # a note on integer types
    ("BatchNormalization", 15),  # Markdown; float16 is averaged in float32, as onnxruntime always did
    ("Cast", 19), ("QuantizeLinear", 19), ("DequantizeLinear", 19),  # float8, which the types tell apart
    ("DequantizeLinear", 21), ("DequantizeLinear", 23), ("QuantizeLinear", 21),  # block_size, output_dtype: attributes
    ("QuantizeLinear", 25),  # two bits, by type
    ("GRU", 14), ("LSTM", 14), ("RNN", 14),  # layout, an attribute
    ("Cast", 24),  # round_mode, an attribute
    ("Loop", 16),  # Markdown
    ("LpPool", 18),  # ceil_mode and dilations, attributes
    ("OptionalGetElement", 18), ("OptionalHasElement", 18),  # tensors, by type
    ("Pad", 18), ("Resize", 18), ("Split", 18),  # axes, an input; sizes and more, attributes
    ("ReduceMax", 20), ("ReduceMin", 20),  # booleans, by type
    ("Reshape", 14), ("Shape", 15),  # allowzero; start and end, attributes
    ("ScatterElements", 16), ("ScatterND", 16),  # reduction, an attribute
}  # fmt: skip
"""Steps with another documentation that nodes pass whose parts and types the older definition has."""


def test_every_step_that_changed_its_documentation_was_read() -> None:
    history: dict[str, list[defs.OpSchema]] = {}
    for schema in sorted(defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version):
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    changed = {
        (name, after.since_version)
        for name, schemas in history.items()
        for before, after in itertools.pairwise(schemas)
        if OLDEST < after.since_version <= NEWEST_OPSET and says(before) != says(after)
    }
    assert changed - WORDING - CHANGED.keys() == set()
    assert {step for step in CHANGED if step not in changed} == {("RoiAlign", 16), ("GroupNormalization", 21)} - changed
    assert RENAMED.keys() <= CHANGED.keys()


def says(schema: defs.OpSchema) -> list[str]:
    return (schema.doc or "").split()


@pytest.mark.parametrize("op", sorted({case.op for case in CASES if case.opset > OLDEST}))
def test_every_operator_computes_the_same_in_its_oldest_definition(op: str) -> None:
    older = []
    for case in CASES:
        if case.op != op or case.opset <= OLDEST:
            continue
        model = Model.of(onnx.shape_inference.infer_shapes(case.model().edit()))
        found = lowered(model, NEWEST)
        assert isinstance(found, Model), (str(case), str(found))
        if stated(found):
            onnx.checker.check_model(found.edit())
        assert found.opset <= model.opset and found.ir_version <= NEWEST.ir
        assert made(found).same(found)
        older.append(found.opset < model.opset)
        before, after = (runtime.run(runtime.session(each.data), case.feed()) for each in (model, found))
        for name, value in before.items():
            if op in OTHER_SUMS:
                np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=1e-6)
            else:
                assert np.asarray(after[name]).tobytes() == np.asarray(value).tobytes(), str(case)
    assert any(older) or op in NEW


def stated(model: Model) -> bool:
    return all(value.type.WhichOneof("value") for value in model.edit().graph.output)


# --- single steps -----------------------------------------------------------------------------------------------------

X4 = data(1, 2, 6, 6)
GRID = data(1, 3, 3, 2)
STEPS = [
    (Case("Relu", (X4,)), 13),
    (Case("HardSwish", (X4,)), 14),
    (Case("Gelu", (X4,)), 20),
    (Case("Reshape", (X4, ints(1, 72)), {"allowzero": 1}), 14),
    (Case("Reshape", (X4, ints(1, 72)), {"allowzero": 0}), 13),
    (Case("Cast", (X4,), {"to": 10, "saturate": 1}), 13),
    (Case("Split", (X4, ints(3, 3)), {"axis": 2}, outputs=2), 13),
    (Case("Split", (X4,), {"axis": 2, "num_outputs": 2}, outputs=2), 18),
    (Case("ReduceMean", (X4, ints(1))), 18),
    (Case("ReduceMean", (X4,), {"noop_with_empty_axes": 0}), 13),
    (Case("ReduceSum", (X4, ints(1))), 13),
    (Case("Pad", (X4, ints(0, 0, 1, 1, 0, 0, 1, 1))), 13),
    (Case("Pad", (X4, ints(1, 1, 1, 1), None, ints(2, 3))), 18),
    (Case("AveragePool", (X4,), {"kernel_shape": [2, 2], "dilations": [2, 2]}), 19),
    (Case("AveragePool", (X4,), {"kernel_shape": [2, 2], "dilations": [1, 1]}), 13),
    (Case("AveragePool", (X4,), {"kernel_shape": [2, 2], "ceil_mode": 1}), 19),
    (Case("MaxPool", (X4,), {"kernel_shape": [2, 2], "ceil_mode": 1}, 22), 22),
    (Case("MaxPool", (X4,), {"kernel_shape": [2, 2], "ceil_mode": 1}), 13),
    (Case("GroupNormalization", (X4, data(2), data(2)), {"num_groups": 1}), 21),
    (Case("GridSample", (X4, GRID), {"mode": "cubic"}), 16),
    (Case("GridSample", (data(1, 2, 3, 3, 3), data(1, 2, 2, 2, 3))), 20),
    (Case("BatchNormalization", (X4, data(2), data(2), data(2), np.ones(2, np.float32)), {"training_mode": 0}), 13),
    (Case("Equal", (X4, X4)), 13),
]


@pytest.mark.parametrize(("case", "version"), STEPS, ids=str)
def test_the_oldest_set_of_a_node(case: Case, version: int) -> None:
    model = Model.of(onnx.shape_inference.infer_shapes(case.model().edit()))
    assert made(model).opset == version
    for known in RELEASES:
        found = lowered(model, known)
        newest = KERNELS.get(known.version, known.opset)
        assert isinstance(found, Model) == (version <= newest), str(found)
        assert isinstance(found, Model) or f"{case.op} as it is used needs operator set {version}" in str(found)


def test_names_of_modes_are_those_of_the_set() -> None:
    model = Case("GridSample", (X4, GRID), {"mode": "linear"}).model()
    assert made(model).node("n").attributes["mode"] == "bilinear"
    assert made(made(model)).node("n").attributes["mode"] == "bilinear"


def test_the_release_that_is_needed_is_named() -> None:
    wanted = "n: Gelu as it is used needs operator set 20, which onnxruntime has from 1.17 on"
    assert refused(Case("Gelu", (X4,)).model(), "1.16") == wanted
    assert "from 1.16 on" in refused(Case("Pad", (X4, ints(*[1] * 8)), {"mode": "wrap"}).model(), "1.15")


def test_a_release_without_the_kernels_of_its_newest_set() -> None:
    pool = Case("AveragePool", (X4,), {"kernel_shape": [2, 2], "dilations": [2, 2]}).model()
    assert "from 1.16 on" in refused(pool, "1.15")
    assert made(pool, "1.16").opset == 19


def test_models_of_older_sets_are_not_raised() -> None:
    model = Case("Softmax", (data(2, 3, 4),), {"axis": 1}, opset=11).model()
    found = made(model, "1.15")
    assert (found.opset, found.ir_version) == (11, 9)
    before, after = (runtime.run(runtime.session(each.data), {"i0": data(2, 3, 4)}) for each in (model, found))
    assert before["y0"].tobytes() == after["y0"].tobytes()


def test_types_hold_a_node_back() -> None:
    proto = text("g (int8[N,4] x) => (float[N,4] y) { v = Cast<to=3>(w) s = Add(x, v) y = Cast<to=1>(s) }").edit()
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [4], [1, 2, 3, -4]))
    assert made(Model.of(proto)).opset == 21
    assert "from 1.18 on" in refused(Model.of(proto), "1.17")
    wide = text("g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint16 z = {9}> { "
                "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }")  # fmt: skip
    assert made(wide).opset == 21
    narrow = text("g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint8 z = {9}> { "
                  "q = QuantizeLinear<block_size=0>(x, s, z) y = DequantizeLinear(q, s, z) }")  # fmt: skip
    assert made(narrow).opset == 13 and not made(narrow).nodes[0].attributes


def test_bodies_count() -> None:
    body = """g (float[N,3] x, bool b) => (float[N,3] y) {
        y = If (b) <then_branch = th () => (float[N,3] p) { p = Gelu(x) },
                    else_branch = el () => (float[N,3] p) { p = Relu(x) }> }"""
    assert "Gelu as it is used" in refused(text(body), "1.15")
    assert made(text(body.replace("Gelu", "Relu")), "1.15").opset == 13


@pytest.mark.parametrize("op", CONTRIBUTED)
def test_operators_of_onnxruntime(op: str) -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { [n] y = Relu(x) }", '"" : 21, "com.microsoft" : 1').edit()
    proto.graph.node[0].CopyFrom(helper.make_node(op, ["x"], ["y"], "n", domain="com.microsoft"))
    first = CONTRIBUTED[op]
    for known in RELEASES:
        assert isinstance(lowered(Model.of(proto), known), Model) == (known.version >= first)
    assert f"from {first[0]}.{first[1]} on" in refused(Model.of(proto), "1.14")
    proto.graph.node[0].op_type = "Unheard"
    assert "not known which onnxruntime has a Unheard" in refused(Model.of(proto), "1.31")


def test_local_functions_are_refused() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }").edit()
    proto.functions.add(name="f", domain="local")
    assert "local functions" in refused(Model.of(proto), "1.15")


def test_names_metadata_and_other_sets_stay() -> None:
    proto = text("g (float[N,3] x) => (float[N,3] y) { [n] y = Relu(x) }", '"" : 21, "com.microsoft" : 1').edit()
    helper.set_model_props(proto, {"who": "me"})
    found = made(Model.of(proto), "1.15")
    assert found.opsets == {"": 13, "com.microsoft": 1} and found.metadata == {"who": "me"}
    assert [node.name for node in found.nodes] == ["n"] and proto.ir_version == 10 and found.ir_version == 9
    same = made(Model.of(proto), "1.31")
    assert same.ir_version == 10


# --- the pipeline -----------------------------------------------------------------------------------------------------


def asked(folder: Path, **more: object) -> Request:
    model, samples = CONVNET.save(folder / "net.onnx"), CONVNET.save_samples(folder / "x.npz", 40)
    base = Request(
        model,
        folder / "out.onnx",
        str(samples),
        prune=False,
        threads=1,
        bench_seconds=0.01,
        max_drop=20,
        min_ort="1.15",
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [{"bits": "8"}, {"bits": "4"}, {"min_sqnr": 90.0, "task": "regress"}, {"data": None}, {"prune": True}],
    ids=str,
)
def test_what_is_written_is_kept_and_replayed(more: dict[str, object], tmp_path: Path) -> None:
    request = asked(tmp_path, **more)
    report = compress(request)
    assert request.output is not None
    written = Model.load(request.output)
    assert (written.opset, written.ir_version) == (13, 9)
    onnx.checker.check_model(written.edit(), full_check=True)
    sizes = {item.name: item.file_bytes for item in report.variants}
    assert sizes[report.chosen] == request.output.stat().st_size
    plan = tmp_path / "out.plan.json"
    assert Plan.load(plan).min_ort == "1.15"
    apply(request.model, plan, request.data, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == request.output.read_bytes()


def test_what_cannot_be_kept_is_said_before_any_work(tmp_path: Path) -> None:
    proto = CONVNET.proto()
    proto.graph.node[1].op_type = "Gelu"
    onnx.save(proto, asked(tmp_path).model)
    request = dataclasses.replace(asked(tmp_path))
    onnx.save(proto, request.model)
    with pytest.raises(
        InputError, match=r"^--min-ort 1\.15 cannot be kept at n_r1: Gelu .* from 1\.17 on: name a newer"
    ):
        compress(request)
    assert not request.output or not request.output.exists()


@pytest.mark.parametrize("bits", ["8", "4"])
def test_without_a_name_nothing_changes(bits: str, tmp_path: Path) -> None:
    request = asked(tmp_path, min_ort="", bits=bits)
    compress(request)
    assert request.output is not None
    written = Model.load(request.output)
    assert (written.opset, written.ir_version) == (21, 10)
    older = made(written, "1.15")
    onnx.checker.check_model(older.edit(), full_check=True)
    assert (older.opset, older.ir_version) == (13, 9)
    before, after = (runtime.run(runtime.session(each.data), CONVNET.arrays(9)) for each in (written, older))
    assert before["y"].tobytes() == after["y"].tobytes()
