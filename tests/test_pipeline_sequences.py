"""Transformers and recurrent networks through the whole flow: every form, what it runs, its plan, its tables."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from quantize_tools import HERE
from sequence_models import language, normal, text
from zoo import NETS, export

from edgepress import runtime
from edgepress.errors import PlanError
from edgepress.model import Model
from edgepress.pipeline import apply, compress
from edgepress.pipeline.build import marked
from edgepress.pipeline.candidates import Candidate, Judge, candidate
from edgepress.pipeline.context import Context
from edgepress.pipeline.form_checks import check_forms
from edgepress.pipeline.forms import written
from edgepress.pipeline.integers import integers
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.pipeline.sequences import is_sequence_form, only_stores, sequence_forms, with_constants
from edgepress.plan import Plan, Quantization
from edgepress.quantize import slim, unfused
from edgepress.report import Report
from edgepress.request import Request, plan_path
from edgepress.targets import TARGETS

QNN = TARGETS["qnn"]
SMALL = ("vit", "bert", "decoder", "lstm_tagger", "gru_denoiser", "crnn")


@dataclass(frozen=True)
class Case:
    """A network of the zoo on the disk, what became of it, and everything that was weighed."""

    request: Request
    report: Report
    context: Context
    forms: tuple[Candidate, ...]

    @property
    def output(self) -> Path:
        assert self.request.output is not None
        return self.request.output


def eager(patched: pytest.MonkeyPatch) -> None:
    """Rules of thumb that think every node worth a form, however small."""
    modules = {name: importlib.import_module(f"edgepress.quantize.forms.{name}") for name in ("dynamic", "blocked")}
    patched.setattr(modules["dynamic"], "FLOORS", ((1, 1),))
    patched.setattr(modules["blocked"], "LEAST_DEPTH", 1)
    patched.setattr(modules["blocked"], "MANY_ROWS", 10**9)
    patched.setattr(importlib.import_module("edgepress.quantize.forms.recurrent"), "LEAST_UNITS", 1)


@pytest.fixture(scope="module", params=SMALL)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    net, folder = NETS[request.param], tmp_path_factory.mktemp(request.param)
    export(net, net.quick, folder / "net.onnx")
    np.savez(folder / "x.npz", **net.samples(64))  # type: ignore[arg-type]  # numpy's stub takes no mapping
    wish = Request(
        folder / "net.onnx", folder / "out.onnx", str(folder / "x.npz"), threads=1, bench_seconds=0.02, prune=False,
        min_sqnr=12.0, max_drop=20.0, target=HERE.name,
    )  # fmt: skip
    report = compress(wish)
    with pytest.MonkeyPatch.context() as patched:
        eager(patched)
        context, forms = weighed(wish)
    return Case(wish, report, context, forms)


def weighed(wish: Request) -> tuple[Context, tuple[Candidate, ...]]:
    """Every integer form of the uncut network."""
    opened = read(wish)
    assert opened.feed is not None
    context, _ = context_of(wish, clean(opened).model, opened.feed)
    judged = Judge(context, limit_of(wish, context.model, opened.feed), opened.model.size)
    source = candidate("cleaned", "", context.model, (), judged(context.model), context.grouping.sizes)
    return context, tuple(integers(context, source, judged, wish))


def form(case: Case, name: str) -> Candidate | None:
    return next((item for item in case.forms if item.name == f"cleaned-{name}"), None)


def operators(item: Candidate) -> Mapping[str, int]:
    return runtime.fused_operators(item.model.data)


# --- the whole flow ------------------------------------------------------------------------------------------


def test_the_result_is_small_right_and_not_slower(case: Case) -> None:
    taken = case.report.taken
    assert taken.quality is not None and taken.quality.state != "over"
    assert taken.name != "cleaned" and case.output.stat().st_size < 0.5 * case.request.model.stat().st_size
    assert not taken.ratio or taken.ratio[1].noise != "slower"
    onnx.checker.check_model(onnx.load(case.output))
    inputs = case.context.hold_out.subset(np.arange(2)).chunks(2)
    feed = next(iter(inputs)).inputs
    wanted = runtime.run(runtime.session(case.request.model), feed)
    found = runtime.run(runtime.session(case.output), feed)
    assert {name: values.shape for name, values in found.items()} == {k: v.shape for k, v in wanted.items()}


def test_its_plan_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    apply(case.request.model, plan_path(case.output), case.request.data, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == case.output.read_bytes()


def test_the_report_names_every_layer_once(case: Case) -> None:
    names = [row.node for row in case.report.layers]
    assert names and len(names) == len(set(names))


# --- every form ----------------------------------------------------------------------------------------------


def test_every_form_keeps_the_answers(case: Case) -> None:
    assert len({item.name for item in case.forms}) == len(case.forms) >= 2
    assert all(item.verdict.acceptable for item in case.forms)


def test_every_form_is_replayed_to_the_same_bytes(case: Case, tmp_path: Path) -> None:
    for item in case.forms:
        plan = dataclasses.replace(Plan.load(plan_path(case.output)), quantization=item.quantization)
        (tmp_path / "form.plan.json").write_text(plan.to_json())
        apply(case.request.model, tmp_path / "form.plan.json", case.request.data, tmp_path / "form.onnx")
        assert (tmp_path / "form.onnx").read_bytes() == marked(item.model, plan).data


def test_dynamic_products_run_in_int8(case: Case) -> None:
    found = form(case, "dynamic") or form(case, "dynamic-lstm")
    assert found is not None and found.quantization is not None
    seen, wanted = operators(found), len(found.quantization.dynamic)
    assert wanted and seen.get("DynamicQuantizeMatMul", 0) + seen.get("MatMulIntegerToFloat", 0) == wanted
    assert seen.get("MatMulInteger", 0) == 0


def test_blocks_are_multiplied_in_blocks(case: Case) -> None:
    found = form(case, "blocked") or form(case, "blocked-lstm")
    if found is None:  # 4 bits cost the answers of this one too much
        assert case.request.model.parent.name.startswith("decoder")
        return
    assert found.quantization is not None
    assert operators(found).get("MatMulNBits", 0) == len(found.quantization.blocked) > 0


def test_recurrent_layers(case: Case) -> None:
    """LSTM in int8, others as they are with weights stored; the float operators are left in no other form."""
    kinds = [node.op for node in case.context.model.nodes]
    for item in case.forms:
        seen, settings = operators(item), item.quantization
        assert settings is not None
        assert seen.get("DynamicQuantizeLSTM", 0) == len(settings.recurrent)
        assert seen.get("LSTM", 0) == kinds.count("LSTM") - len(settings.recurrent)
        assert seen.get("GRU", 0) == kinds.count("GRU")
        assert len(settings.recurrent) == (kinds.count("LSTM") if is_sequence_form(settings) else 0)


def test_int8_convolutions_beside_other_forms(case: Case) -> None:
    pairs = {item.name for item in case.forms if item.name.startswith("cleaned-int8-")} - {"cleaned-int8-whole"}
    convolutions = [node for node in case.context.model.nodes if node.op == "Conv"]
    if len(convolutions) < 2:  # a first one stays float
        assert not pairs
        return
    assert pairs == {"cleaned-int8-dynamic-lstm"}
    seen = operators(next(item for item in case.forms if item.name in pairs))
    assert seen["QLinearConv"] == 1 and seen["DynamicQuantizeLSTM"] == 1


def test_what_is_stored_leaves_no_trace_in_what_runs(case: Case) -> None:
    """The stored form runs exactly the float operators, in whatever form its constants are."""
    found = next(item for item in case.forms if item.quantization and only_stores(item.quantization))
    assert operators(found) == runtime.fused_operators(slim(case.context.model).data)
    assert found.size < 0.4 * case.context.model.size


def test_no_large_float_constant_is_left(case: Case) -> None:
    for item in case.forms:
        left = [values for values in item.model.constants.values() if values.dtype == np.float32 and values.size >= 256]
        assert sum(values.nbytes for values in left) < 0.1 * item.size


# --- tables --------------------------------------------------------------------------------------------------


@cache
def tied() -> tuple[Model, Mapping[str, np.ndarray]]:
    """A language model whose output layer is its table, cleaned."""
    model, feed = language(8, 32)
    return model, feed


@pytest.mark.parametrize("form_", [{"compute": "float"}, {"compute": "float", "dynamic": True}], ids=["stored", "dyn"])
@pytest.mark.parametrize("large", [1 << 18, 1000], ids=["folded", "gathered"])
def test_a_tied_table_is_kept_once(form_: dict[str, object], large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.pipeline.sequences.LARGE", large)
    model, feed = tied()
    settings = with_constants(model, Quantization(compute="float", repair=False), HERE)
    name = next(name for name, values in model.constants.items() if values.shape == (500, 32))
    assert (name in settings.tables) == (large == 1000) and (name in settings.stored) == (large != 1000)
    products = [node.name for node in model.nodes if node.op == "MatMul" and node.inputs[1] in model.constants]
    if "dynamic" in form_:
        settings = dataclasses.replace(settings, dynamic=tuple(products))
    made = written(model, {}, {}, settings, HERE)
    tables = [values for values in made.constants.values() if values.size == 500 * 32]
    assert [values.dtype for values in tables] == [np.int8]
    wanted = runtime.run(runtime.session(model.data), feed)
    found = runtime.run(runtime.session(made.data), feed)
    for before, after in zip(wanted.values(), found.values(), strict=True):
        assert float(((before - after) ** 2).sum()) < 1e-2 * float((before**2).sum())


def shared_table() -> Model:
    """A table that is also the weight of a product, as one initializer."""
    body = """(int64[6] i) => (float[6,40] y) { x = Gather(t, i)  h = Gemm<transB=1>(x, v)
        r = Relu(h)  y = Gemm<transB=1>(r, t) }"""
    return text(body, t=normal(40, 32), v=normal(32, 32, scale=0.2))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="none"),
        pytest.param(("Gemm.3",), id="one"),
        pytest.param(("Gemm.1", "Gemm.3"), id="both", marks=pytest.mark.whole_range),
    ],
)
def test_a_table_that_a_product_reads_as_it_is(names: tuple[str, ...]) -> None:
    model = shared_table()
    settings = with_constants(model, Quantization(compute="float", repair=False, dynamic=names), HERE)
    assert settings.stored == ("t",)
    made = written(model, {}, {}, settings, HERE)
    assert [values.dtype for values in made.constants.values() if values.size == 40 * 32] == [np.int8]
    feed = {"i": np.arange(6) * 5}
    wanted, found = (runtime.run(runtime.session(each.data), feed)["y"] for each in (model, made))
    assert float(((wanted - found) ** 2).sum()) < 1e-3 * float((wanted**2).sum())
    assert unfused(made.data) == []


def test_constants_that_are_next_to_nothing_stay_float() -> None:
    body = "(int64[6] i) => (float[6,512] y) { x = Gather(t, i)  y = MatMul(x, w) }"
    few, many = (text(body, t=normal(count, 512), w=normal(512, 512)) for count in (1, 8))
    assert with_constants(few, Quantization(), HERE) == Quantization()
    assert with_constants(many, Quantization(), HERE).stored == ("t",)
    assert with_constants(many, Quantization(), QNN) == Quantization()
    assert with_constants(many, Quantization(scales="power-of-two"), HERE).stored == ()


# --- which forms ---------------------------------------------------------------------------------------------

WIDE = "(float[{rows},256] x) => (float[{rows},256] y) {{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }}"


def wide(rows: str) -> Model:
    return text(WIDE.format(rows=rows), w=normal(256, 256), v=normal(256, 256))


def found_forms(model: Model, base: Quantization | None = None, **sizes: int) -> list[Quantization]:
    return list(sequence_forms(model, base or Quantization(), sizes, HERE))


def test_one_row_is_no_sequence_and_several_are() -> None:
    assert found_forms(wide("1")) == []
    assert found_forms(wide("N"), N=1) == []
    both = ("MatMul.0", "MatMul.2")
    assert [item.dynamic for item in found_forms(wide("64"))] == [both]
    assert [item.dynamic for item in found_forms(wide("N"), N=64)] == [both]
    assert [(item.dynamic, item.blocked) for item in found_forms(wide("T"))] == [(both, ()), ((), both)]
    assert [(item.dynamic, item.blocked) for item in found_forms(wide("4"))] == [(both, ()), ((), both)]


def test_what_the_user_and_the_target_say_is_kept() -> None:
    model = wide("4")
    assert [item.dynamic for item in found_forms(model, Quantization(float_nodes=("MatMul.0",)))] == [("MatMul.2",), ()]
    assert all(not item.blocked for item in found_forms(model, Quantization(min_ort="1.18")))
    assert any(item.blocked for item in found_forms(model, Quantization(min_ort="1.19")))
    assert found_forms(model, Quantization(levels={"MatMul.0": 16})) == []
    assert found_forms(model, Quantization(scales="power-of-two")) == []
    assert list(sequence_forms(model, Quantization(), {}, QNN)) == []


def test_an_old_onnxruntime_can_be_named(case: Case, tmp_path: Path) -> None:
    wish = dataclasses.replace(case.request, output=tmp_path / "old.onnx", min_ort="1.15")
    with pytest.MonkeyPatch.context() as patched:
        eager(patched)
        for item in weighed(wish)[1]:
            used = {node.op for node in item.model.nodes}
            assert item.model.opset <= 19 and "MatMulNBits" not in used


# --- plans that people edit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dynamic": ("no",)}, "no MatMul or Gemm"),
        ({"blocked": ("Relu.1",)}, "no MatMul or Gemm"),
        ({"recurrent": ("MatMul.0",)}, "no LSTM"),
        ({"stored": ("x",)}, "constant 'x'"),
        ({"tables": ("no",)}, "mend tables"),
        ({"dynamic": ("MatMul.0",), "blocked": ("MatMul.0",)}, "two forms"),
        ({"dynamic": ("MatMul.0",), "float_nodes": ("MatMul.0",)}, "two forms"),
        ({"stored": ("w",), "tables": ("w",)}, "two forms"),
    ],
)
def test_impossible_forms_are_refused(changes: dict[str, tuple[str, ...]], message: str) -> None:
    model = wide("4")
    check_forms(model, Quantization(dynamic=("MatMul.0",), blocked=("MatMul.2",)))
    with pytest.raises(PlanError, match=message):
        check_forms(model, dataclasses.replace(Quantization(), **changes))  # type: ignore[arg-type]


def test_fields_of_the_plan_are_read_and_checked() -> None:
    settings = Quantization(recurrent=("lstm",), stored=("w", "r"), tables=("t",), dynamic=("fc",))
    plan = Plan("a" * 64, quantization=settings)
    assert Plan.from_json(plan.to_json()).quantization == settings
    for field in ("recurrent", "stored", "tables"):
        broken = plan.to_json().replace(f'"{field}": [', f'"{field}": [3, ')
        with pytest.raises(PlanError, match=f"{field} is no list of names"):
            Plan.from_json(broken)
