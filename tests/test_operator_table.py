"""The operator table: versions are those of onnx, other packages can add rows, `edgepress ops` prints all of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import defs, numpy_helper, parser

from edgepress import cli
from edgepress.errors import PluginError
from edgepress.executor import Executor
from edgepress.executor.control import CONTROL
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.ops.couple import RULES, words
from edgepress.ops.kernels import KERNELS, Call
from edgepress.ops.row import NEWEST_DEFINITION, Input, Op
from edgepress.ops.rows import ROWS
from edgepress.ops.table import ENTRY_POINT, NEWEST_OPSET, definitions, index, lookup, table
from edgepress.pipeline import operators
from edgepress.report.operators import Operators
from edgepress.surgery.cut import cut
from edgepress.surgery.oracle import check_cut

ONLY_ONNXRUNTIME = {"SimplifiedLayerNormalization"}
"""What onnxruntime writes into the default domain although onnx does not define it there."""

STANDARD = [row for row in ROWS if not row.domain and row.name not in ONLY_ONNXRUNTIME]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


# --- rows and versions ------------------------------------------------------------------------------------------------


def test_rows_name_operators_that_onnx_knows() -> None:
    real = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
    assert {row.name for row in ROWS if not row.domain} - real == ONLY_ONNXRUNTIME


@pytest.mark.parametrize("row", STANDARD, ids=lambda row: f"{row.name}-{row.since}")
def test_bounds_of_a_row_are_real(row: Op) -> None:
    held = definitions(row)
    assert held, "it holds for no definition"
    every = {s.since_version for s in defs.get_all_schemas_with_history() if s.name == row.name and s.domain == ""}
    assert row.since == 1 or row.since in every
    assert row.until == NEWEST_DEFINITION or row.until in every


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.since}")
def test_words_of_a_row_are_known(row: Op) -> None:
    assert {Input(kind) for kind in row.inputs.split()}
    assert row.couple is None or row.couple in words.SENTENCES
    assert isinstance(row.kernel, str) or row.name in CONTROL


def test_every_rule_has_its_sentence_and_every_kernel_its_row() -> None:
    assert RULES.keys() <= words.SENTENCES.keys()
    assert set(KERNELS) <= {row.kernel for row in ROWS}


@pytest.mark.parametrize(
    ("op", "opset", "known"),
    [
        ("Conv", 1, True),
        ("Conv", 21, True),
        ("Add", 6, False),  # the row holds from definition 7 on
        ("Add", 7, True),
        ("Add", 21, True),
        ("Gelu", 19, False),  # not defined yet
        ("Gelu", 20, True),
        ("Attention", 22, False),
        ("Attention", 23, True),
        ("Upsample", 9, True),
        ("Upsample", 10, False),  # deprecated
        ("NonMaxSuppression", 21, False),
        ("NoSuchOperator", 21, False),
        ("SimplifiedLayerNormalization", 21, True),
    ],
)
def test_lookup_resolves_versions(op: str, opset: int, known: bool) -> None:
    row = lookup(op, "", opset)
    assert (row is not None) == known
    assert lookup(op, "ai.onnx", opset) == row


def test_a_definition_later_than_a_row_is_unknown() -> None:
    """HardSwish was defined in 14 and again in 22."""
    row = Op("HardSwish", "elementwise", "hard_swish", since=14, until=14)
    assert definitions(row) == (14,)
    known = index([row])["", "HardSwish"]
    assert [row.since <= version <= row.until for version in (14, 22)] == [True, False] and known == (row,)


def test_two_rows_for_one_version_are_an_error() -> None:
    early, late = Op("Elu", "elementwise", None, until=6), Op("Elu", "elementwise", None, since=6)
    with pytest.raises(PluginError, match="Elu has two rows for version 6"):
        index([early, late])
    assert index([Op("Elu", "elementwise", None, since=7), early])["", "Elu"][0] == early


# --- edgepress ops ----------------------------------------------------------------------------------------------------


def test_the_table_is_printed_whole() -> None:
    cells = [line.split("\t") for line in run("ops").stdout.splitlines()]
    assert len(cells) == len(ROWS) and {len(row) for row in cells} == {7}
    found = {row[0]: row for row in cells}
    assert found["Conv"] == ["Conv", "-", "1", "newest", "conv", "yes", "weighted"]
    assert found["GroupQueryAttention"][1] == "com.microsoft"
    assert [row[0].lower() for row in cells] == sorted(row[0].lower() for row in cells)


def test_json_of_the_table() -> None:
    text = run("ops", "--json").stdout
    assert json.loads(text)["format"] == "edgepress-ops/1"
    assert Operators.from_json(text) == operators()


BRANCHES = """<ir_version: 10, opset_import: ["" : 21, "custom" : 1]>
g (float[4] x, bool c) => (float[4] y) {
    a = Relu(x)  b = custom.Twist(a)
    d = If<then_branch = t () => (float[4] e) { e = Tanh(b) }, else_branch = f () => (float[4] e) { e = Relu(b) }>(c)
    y = NonZero(d) }"""


def save(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(text), path)
    return path


def test_operators_of_a_model_are_counted_in_bodies_too(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", BRANCHES)
    found = {row.name: row for row in operators([path]).rows}
    counts = {name: row.counts[str(path)] for name, row in found.items()}
    assert counts == {"Relu": 2, "custom.Twist": 1, "If": 1, "Tanh": 1, "NonZero": 1}
    assert not found["custom.Twist"].known and "no row" in found["custom.Twist"].meaning
    assert found["If"].known and found["If"].channels == "wall"
    lines = [line.split("\t") for line in run("ops", str(path)).stdout.splitlines()]
    assert [line[-1] for line in lines if line[0] == "Relu"] == ["2"]


def test_only_unknown_operators(tmp_path: Path) -> None:
    first = save(tmp_path / "m.onnx", BRANCHES)
    second = save(tmp_path / "n.onnx", BRANCHES.replace("custom.Twist(a)", "Det(a)"))
    lines = [line.split("\t") for line in run("ops", str(first), str(second), "--unknown").stdout.splitlines()]
    assert [(row[1], row[0], row[4]) for row in lines] == [("-", "Det", "unknown"), ("custom", "Twist", "unknown")]
    only = save(tmp_path / "k.onnx", BRANCHES.replace("custom.Twist(a)", "Relu(a)"))
    assert run("ops", str(only), "--unknown").stdout == ""


def test_old_operator_sets_count_as_what_they_are_converted_to(tmp_path: Path) -> None:
    text = '<ir_version: 3, opset_import: ["" : 6]> g (float[1,4] x) => (float[1,4] y) { y = Add(x, x) }'
    (row,) = operators([save(tmp_path / "old.onnx", text)]).rows
    assert row.known and row.channels == "elementwise"


def test_local_functions_count_as_what_they_call(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    g (float[N,4] x) => (float[N,4] y) { y = local.twice(x) }
    <domain: "local", opset_import: ["" : 21]> twice (a) => (b) { c = Relu(a)  b = Tanh(c) }"""
    assert {row.name for row in operators([save(tmp_path / "m.onnx", text)]).rows} == {"Relu", "Tanh"}


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = run("ops", str(tmp_path / "none.onnx"))
    assert done.exit_code == 2 and "not a file" in done.stderr


# --- rows of other packages -------------------------------------------------------------------------------------------

GOOD = """
from edgepress.ops.row import Op

def echo(call, x):
    return x.clone()

ROWS = [Op("SampleOp", "elementwise", echo, domain="com.microsoft")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Puts a package with an entry point on the path; the table is read anew before and after."""

    def put(code: str, value: str = "acme_rows:ROWS") -> None:
        site = tmp_path / "site"
        info = site / "acme-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgepress.operators]\nacme = {value}\n")
        (site / "acme_rows.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "acme_rows", raising=False)
        table.cache_clear()

    yield put
    monkeypatch.undo()
    sys.modules.pop("acme_rows", None)
    table.cache_clear()


def echoing() -> Model:
    """A model with an operator that onnxruntime runs (it hands its input on) and edgepress does not know."""
    text = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    g (float[N,3] x) => (float[N,2] y) { a = MatMul(x, w1)  b = com.microsoft.SampleOp(a)  y = MatMul(b, w2) }"""
    made = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("w1", (3, 5)), ("w2", (5, 2))):
        made.graph.initializer.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), name))
    for number, node in enumerate(made.graph.node):
        node.name = f"n{number}"
    return Model.of(made)


def test_without_the_package_its_operator_is_unknown() -> None:
    assert lookup("SampleOp", "com.microsoft", 1) is None
    assert not find_groups(echoing()).prunable


def test_a_row_of_another_package_is_listed(install: object, tmp_path: Path) -> None:
    install(GOOD)  # type: ignore[operator]
    assert "SampleOp\tcom.microsoft\t1\tnewest\telementwise\tyes\tfloat\n" in run("ops").stdout
    onnx.save(echoing().edit(), tmp_path / "m.onnx")
    assert run("ops", str(tmp_path / "m.onnx"), "--unknown").stdout == ""


def test_a_row_of_another_package_runs(install: object) -> None:
    install(GOOD)  # type: ignore[operator]
    model = echoing()
    x = np.ones((2, 3), np.float32)
    wanted = x @ model.constants["w1"] @ model.constants["w2"]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], wanted, rtol=1e-5)


def test_a_row_of_another_package_couples(install: object) -> None:
    install(GOOD)  # type: ignore[operator]
    model = echoing()
    grouping = find_groups(model)
    (group,) = grouping.prunable
    assert (group.producers, group.consumers, group.size) == (("n0",), ("n2",), 5)
    removed = {group.name: [1, 3]}
    feeds = [{"x": np.ones((2, 3), np.float32)}]
    assert check_cut(model, grouping, removed, cut(model, grouping, removed), feeds) < 1e-5


def test_the_example_of_the_documentation_works(install: object) -> None:
    page = (Path(__file__).parents[1] / "docs" / "operators.md").read_text(encoding="utf-8")
    example = page.split("```py\n")[1].split("```")[0]
    group, line = page.split("```toml\n")[1].split("```")[0].splitlines()
    assert group == f'[project.entry-points."{ENTRY_POINT}"]' and line == 'acme = "acme_edgepress:ROWS"'
    install(example)  # type: ignore[operator]
    row = lookup("Wiggle", "acme", 1)
    assert row is not None and row.couple == "elementwise" and callable(row.kernel)
    found = row.kernel(Call({"a": 2.0}, 21, 1), torch.ones(3))
    np.testing.assert_allclose(found.numpy(), 1 + 2 * np.sin(np.ones(3)), rtol=1e-6)


HEAD = "from edgepress.ops.row import Op\n"


@pytest.mark.parametrize(
    ("code", "value", "says"),
    [
        (
            HEAD + "ROWS = [Op('Relu', 'elementwise', None)]",
            "acme_rows:ROWS",
            "row for Relu that is in the table already",
        ),
        ("import no_such_module_of_acme", "acme_rows:ROWS", "cannot be loaded (ModuleNotFoundError"),
        ("ROWS = [", "acme_rows:ROWS", "cannot be loaded (SyntaxError"),
        ("1 / 0", "acme_rows:ROWS", "cannot be loaded (ZeroDivisionError"),
        (GOOD, "acme_rows:NONE", "cannot be loaded (AttributeError"),
        ("ROWS = 7", "acme_rows:ROWS", "cannot be loaded (TypeError"),
        ("ROWS = ['SampleOp']", "acme_rows:ROWS", "must be a list of edgepress.ops.row.Op"),
        (HEAD + "ROWS = [Op('W', 'elementwize', None, domain='acme')]", "acme_rows:ROWS", "couple='elementwize'"),
        (HEAD + "ROWS = [Op('W', None, None, domain='acme', inputs='dta')]", "acme_rows:ROWS", "inputs='dta'"),
        (HEAD + "ROWS = [Op('W', None, None, domain='acme', since=9, until=8)]", "acme_rows:ROWS", "holds for none"),
    ],
    ids=[
        "duplicate",
        "import",
        "syntax",
        "raises",
        "no attribute",
        "no list",
        "other objects",
        "rule",
        "input",
        "range",
    ],
)
def test_rows_that_cannot_be_used_are_one_sentence(install: object, code: str, value: str, says: str) -> None:
    install(code, value)  # type: ignore[operator]
    done = run("ops")
    assert done.exit_code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert says in line and "acme_rows" in line and line.endswith("mend or uninstall it.")


def test_rows_of_one_package_may_not_repeat_each_other(install: object) -> None:
    install(HEAD + "ROWS = [Op('W', None, None, domain='acme')] * 2")  # type: ignore[operator]
    with pytest.raises(PluginError, match="W has two rows"):
        table()


def test_newest_operator_set_is_one_of_onnx() -> None:
    assert defs.onnx_opset_version() >= NEWEST_OPSET
