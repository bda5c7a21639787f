"""README and docs say what the code does: commands parse, options, fields, constants and links are those there are."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import click
import numpy as np
import pytest

import edgepress
from edgepress import errors
from edgepress.bench import Conditions, Health, Latency, Machine, Ratio, Timing
from edgepress.bench.inspect import Memory, NodeTime, Profile
from edgepress.bundle.manifest import FORMAT as BUNDLE_FORMAT
from edgepress.bundle.manifest import Entry, Manifest, Port
from edgepress.calibrate.recipe import Recipe
from edgepress.cli import INTERRUPTED, main
from edgepress.errors import EdgepressError, Refusal
from edgepress.levels import NAMED
from edgepress.model import Model
from edgepress.ops.couple import RULES
from edgepress.ops.row import Role
from edgepress.pipeline.build import marked
from edgepress.pipeline.context import Context
from edgepress.plan import FORMAT as PLAN_FORMAT
from edgepress.plan import Coding, Cut, Plan, Quantization
from edgepress.quality import Comparison, Limit, judge
from edgepress.report import answers, found, operators, result
from edgepress.report.answers import AxisRow, NodeRow, OperatorAnswer, TensorAnswer
from edgepress.report.bundle import (
    BUNDLED_FORMAT,
    VERIFICATION_FORMAT,
    Bundled,
    Compared,
    Promise,
    Verification,
)
from edgepress.report.found import Benchmark, BenchModel, Explanation, GroupRow
from edgepress.report.operators import OperatorRow, Operators
from edgepress.report.result import LayerRow, Quality, Report, StageRow, Variant
from edgepress.report.rows import Row
from edgepress.request import Request
from edgepress.targets import TARGETS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCORES = ROOT / "docs/scores.md"
FINETUNE = ROOT / "docs/finetune.md"


def script(name: str) -> Any:
    """A script of tools/, which is no package."""
    spec = util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = script("readme")
PAGES = [
    README,
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "calibration/README.md",
    ROOT / ".github/CONTRIBUTING.md",
]
COMMANDS = {name: command for name, command in main.commands.items()}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """The page without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text(path), flags=re.MULTILINE | re.DOTALL)


def section(path: Path, heading: str) -> str:
    """What stands below a heading, down to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text(path), re.MULTILINE | re.DOTALL)
    assert found, f"{label(path)} has no heading {heading!r}"
    return found[1]


def cells(markdown: str) -> list[list[str]]:
    """The rows of the tables in a text, without headings."""
    lines = [line.replace(r"\|", "¦") for line in markdown.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("¦", "|") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row, after in zip(rows, [*rows[1:], [""]], strict=True) if not {row[0][:3], after[0][:3]} & {"---"}]


# --- commands -------------------------------------------------------------------------------------------------------


def typed() -> list[tuple[str, str]]:
    """Every line with a prompt in a console block, and its page."""
    return [
        (label(path), line[2:])
        for path in PAGES
        for block in blocks(path, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE))


def words_of(line: str) -> list[str]:
    """A command line in words, without the comment and without the folder of the program."""
    first, *rest = shlex.split(line, comments=True)
    return [first.rsplit("/", 1)[-1], *rest]


def test_there_are_commands_to_check() -> None:
    assert {words_of(line)[1] for _, line in typed() if line.startswith("edgepress")} == COMMANDS.keys()


@pytest.mark.parametrize(("page", "line"), typed())
def test_a_command_is_one_that_runs(page: str, line: str) -> None:
    program, *words = words_of(line)
    if program == "edgepress":
        COMMANDS[words[0]].make_context(words[0], words[1:])  # click raises for what it does not know
        assert not any(Path(word).is_absolute() for word in words)
    elif program == "make":
        assert {word for word in words if "=" not in word} <= make_targets()
    elif program == "python":
        assert words[0] == "-m" and (ROOT / (words[1].replace(".", "/") + ".py")).is_file()
    else:
        assert line.split("/")[-1].startswith(("python3 -m venv .venv", "pip install .")), f"{page}: what is {program}?"


def test_files_of_the_repository_in_commands_are_there() -> None:
    named = {word for _, line in typed() for word in words_of(line) if word.startswith(("calibration/", "constraints"))}
    assert named and all((ROOT / word).exists() for word in named)


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_make_targets_in_the_text_are_there(path: Path) -> None:
    named = re.findall(r"`make(?: PYTHON=\S+)? ([a-z]+)`", prose(path))
    assert set(named) <= make_targets()


def test_the_readme_names_demo_and_test() -> None:
    assert {words[1] for _, line in typed() if (words := words_of(line))[0] == "make"} >= {"demo", "test"}


def test_the_demo_is_the_one_shown() -> None:
    shown = next(line for page, line in typed() if page == "README.md" and "digits_cnn" in line)
    assert shown in text(ROOT / "Makefile")


def test_the_python_example_asks_for_a_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    class Stub(ModuleType):
        def compress(self, request: Request) -> SimpleNamespace:
            asked.append(request)
            return SimpleNamespace(verdict="fine")

    stub = Stub("edgepress.pipeline")
    monkeypatch.setitem(sys.modules, "edgepress.pipeline", stub)
    monkeypatch.setattr(edgepress, "pipeline", stub, raising=False)
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    assert [(request.data, str(request.output)) for request in asked] == [("calib.npz", "small.onnx")]


# --- options --------------------------------------------------------------------------------------------------------


def options_of(command: str) -> dict[str, click.Option]:
    """Every option of a command by its names as the documentation writes them."""
    return {", ".join(item.opts): item for item in COMMANDS[command].params if isinstance(item, click.Option)}


def documented(command: str) -> dict[str, list[str]]:
    """Option names as in click -> the row of the table."""
    if command in ("compress", "quantize"):  # one table of what to do, one of how to quantize, for both
        rows = [*cells(section(README, "compress")), *cells(section(README, "quantize"))]
        others = {f"(`{name}` only)" for name in ("compress", "quantize") if name != command}
        rows = [row for row in rows if not any(row[2].endswith(other) for other in others)]
    elif command == "finetune":
        rows = cells(section(FINETUNE, "Options"))
    else:
        page = [
            section(README, "bundle, verify"),
            section(README, "encode, decode"),
            section(README, "apply, bench, explain, ops"),
            section(SCORES, "Once for all, and in shards"),
        ]
        rows = [row[1:] for row in cells("".join(page)) if row[0] == f"`{command}`"]
    return {", ".join(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[0])): row for row in rows}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented_and_no_other(command: str) -> None:
    assert documented(command).keys() == options_of(command).keys()


@pytest.mark.parametrize("command", ["compress", "quantize"])
def test_defaults_are_those_of_click(command: str) -> None:
    for name, (_, shown, _) in documented(command).items():
        option = options_of(command)[name]
        if option.show_default:
            assert shown == str(option.default), name
        else:
            assert shown in {"", "2", "8", "target's", "`MODEL.edge.onnx`"}, name


@pytest.mark.parametrize("command", ["compress", "quantize"])
def test_choices_are_those_of_click(command: str) -> None:
    for name, (first, *_) in documented(command).items():
        kind = options_of(command)[name].type
        if isinstance(kind, click.Choice):
            assert first == f"`{name} {'|'.join(kind.choices)}`"


def test_widths_are_those_that_have_a_name() -> None:
    (row,) = (row for row in cells(section(README, "quantize")) if row[0].startswith("`--bits"))
    listed = re.findall(r"\d(?:\.\d)?", row[2].split(";")[0])
    assert [float(width) for width in listed] == sorted(NAMED, reverse=True)


def test_targets_are_those_there_are() -> None:
    rows = cells(section(README, "Targets"))
    assert [row[0].strip("`") for row in rows] == ["auto", *TARGETS]
    for name, _, evidence in rows[1:]:
        assert evidence.split()[0] == TARGETS[name.strip("`")].evidence


def test_options_in_the_text_exist() -> None:
    known = {name for command in COMMANDS for item in options_of(command).values() for name in item.opts} | {"--help"}
    for path in PAGES:
        for span in re.findall(r"`([^`\n]*)`", prose(path)):
            if not re.match(r"(pip|python|mypy|pytest)", span):
                assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) <= known, f"{label(path)}: {span}"


def test_exit_codes_are_those_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgepressError)]
    wanted: dict[int, set[str]] = {0: set(), INTERRUPTED: {"KeyboardInterrupt"}}
    for kind in kinds:
        wanted.setdefault(kind.exit_code, set()).add(kind.__name__)
    rows = cells(section(README, "Exit codes"))
    assert {int(code): set(re.findall(r"`(\w+)`", names)) for code, _, names in rows} == wanted
    assert click.UsageError.exit_code in wanted


# --- links and generated blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" not in target:
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_pages_speak_of_no_place_of_one_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|opt)/", text(path))


def test_generated_blocks_are_up_to_date() -> None:
    for path, wanted in readme.pages(ROOT).items():
        assert text(path) == wanted, f"{label(path)}: run python -m tools.readme"


def test_the_zoo_table_is_taken_as_it_is(tmp_path: Path) -> None:
    assert readme.zoo(tmp_path) == readme.NO_ZOO
    (tmp_path / readme.ZOO).parent.mkdir(parents=True)
    (tmp_path / readme.ZOO).write_text("| a |\n", encoding="utf-8")
    assert readme.zoo(tmp_path) == "| a |\n"


def test_a_block_is_replaced_and_nothing_else() -> None:
    page = "before\n<!-- ops -->\nold \\1\n<!-- /ops -->\nafter\n"
    made = readme.filled(page, "ops", r"new \1")
    assert made == "before\n<!-- ops -->\n\nnew \\1\n\n<!-- /ops -->\nafter\n"
    assert readme.filled(made, "ops", r"new \1") == made
    with pytest.raises(ValueError, match="there 0 times"):
        readme.filled(page, "zoo", "")


def test_every_word_of_the_operator_table_is_explained() -> None:
    legend = text(ROOT / "docs/operators.md").split("<!-- ops -->")[0]
    explained = set(re.findall(r"`(\w+)`", legend))
    assert explained >= {role.value for role in Role}
    assert explained >= RULES.keys()


# --- stages, fields, constants --------------------------------------------------------------------------------------


def stages() -> list[str]:
    """Names of the stages in their order, which the docstring gives."""
    source = text(ROOT / "edgepress/pipeline/__init__.py")
    found = re.search(r"^ +(\w+(?: > \w+)+)$", source, re.MULTILINE)
    assert found
    ordered = found[1].split(" > ")
    assert set(ordered) == set(re.findall(r'recorder\.stage\("(\w+)"\)', source))
    return ordered


def test_the_stages_are_shown_as_they_are() -> None:
    (page,) = [block for block in blocks(README, "console") if "✓" in block]
    assert re.findall(r"^✓ (\w+) +[\d.]+ s ", page, re.MULTILINE) == stages()
    assert re.findall(r'class="name"[^>]*>\d (\w+)<', text(ROOT / "docs/pipeline.svg")) == stages()
    assert " > ".join(stages()) in text(ROOT / "docs/how-it-works.md")


def test_the_example_fits_80_columns() -> None:
    (page,) = [block for block in blocks(README, "console") if "✓" in block]
    assert max(len(line) for line in page.splitlines() if not line.startswith("$ ")) <= 80


STORED = {
    "edgepress-plan/1": PLAN_FORMAT,
    "edgepress-report/2": result.REPORT_FORMAT,
    "edgepress-bench/2": found.BENCH_FORMAT,
    "edgepress-explain/2": found.EXPLAIN_FORMAT,
    "edgepress-explain-tensor/1": answers.TENSOR_FORMAT,
    "edgepress-explain-operator/1": answers.OPERATOR_FORMAT,
    "edgepress-ops/1": operators.OPERATORS_FORMAT,
    "edgepress-bundle/1": BUNDLE_FORMAT,
    "edgepress-bundled/1": BUNDLED_FORMAT,
    "edgepress-verification/1": VERIFICATION_FORMAT,
}
FORMATS = ROOT / "docs/formats.md"
KINDS = [
    (Plan, {"format"}),
    (Coding, set()),
    (Cut, set()),
    (Quantization, set()),
    (Report, {"format", "rows"}),
    (Variant, set()),
    (Quality, set()),
    (Latency, set()),
    (Ratio, set()),
    (LayerRow, set()),
    (Refusal, set()),
    (StageRow, set()),
    (Machine, set()),
    (Row, set()),
    (Benchmark, {"format"}),
    (BenchModel, set()),
    (Timing, set()),
    (Conditions, set()),
    (Health, set()),
    (Memory, set()),
    (Profile, set()),
    (NodeTime, set()),
    (Explanation, {"format"}),
    (GroupRow, set()),
    (TensorAnswer, {"format"}),
    (AxisRow, set()),
    (OperatorAnswer, {"format"}),
    (NodeRow, set()),
    (Operators, {"format"}),
    (OperatorRow, set()),
    (Recipe, {"format"}),
    (Manifest, {"format"}),
    (Port, set()),
    (Entry, set()),
    (Promise, set()),
    (Bundled, {"format"}),
    (Verification, {"format", "agrees", "verdict"}),
    (Compared, set()),
]


def fields_in(heading: str) -> set[str]:
    return {row[0].strip("`") for row in cells(section(FORMATS, heading))}


@pytest.mark.parametrize(("kind", "more"), KINDS, ids=lambda item: getattr(item, "__name__", ""))
def test_fields_of_the_files(kind: Any, more: set[str]) -> None:
    assert fields_in(kind.__name__) == {item.name for item in dataclasses.fields(kind)} | more


def test_no_type_is_documented_that_is_not_checked() -> None:
    headings = set(re.findall(r"^### (\w+)", text(FORMATS), re.MULTILINE))
    assert headings == {kind.__name__ for kind, _ in KINDS} | {"settings", "metadata"}


def test_settings_of_a_plan() -> None:
    stub = SimpleNamespace(fit=[], sweep_samples=0, target=SimpleNamespace(name="arm64"))
    assert fields_in("settings") == Context.settings(cast(Any, stub)).keys()


def test_metadata_of_the_file(digits_model: Path) -> None:
    before = Model.load(digits_model)
    after = marked(before, Plan(model_sha256="0"))
    assert fields_in("metadata") == after.metadata.keys() - before.metadata.keys()


def test_names_of_the_formats() -> None:
    assert all(name == value and f"`{name}`" in text(FORMATS) for name, value in STORED.items())


def test_the_fields_of_a_recipe_are_listed_beside_the_recipes() -> None:
    rows = cells(section(ROOT / "calibration/README.md", "Recipes"))
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == {item.name for item in dataclasses.fields(Recipe)} | {"format"}


def constants() -> list[tuple[str, str]]:
    rows = cells(section(ROOT / "docs/how-it-works.md", "Constants"))
    return [(row[0].strip("`"), row[1]) for row in rows]


@pytest.mark.parametrize(("name", "value"), constants())
def test_constants_are_those_of_the_code(name: str, value: str) -> None:
    module, attribute = f"edgepress.{name}".rsplit(".", 1)
    assert getattr(import_module(module), attribute) == float(value)


def nothing_lost(count: int) -> Comparison:
    """Every answer is right before and after, but outputs differ so much that only labels speak for the candidate."""
    ones = np.ones((count, 1))
    return Comparison(np.zeros(count, bool), np.ones(count), np.ones((count, 2), bool), ones, 0.01 * ones)


def test_the_table_of_hold_out_samples() -> None:
    page = section(ROOT / "docs/what-the-numbers-mean.md", "Quality")
    head = next(line for line in page.splitlines() if "no loss seen" in line).strip("|").split("|")
    wide, one_sided = cells(page)
    for place, count in enumerate(map(int, head[1:]), start=1):
        high = judge(nothing_lost(count), Limit("accuracy", 1.0, 20.0)).high
        assert wide[place] == f"{high:.2f}"
        assert one_sided[place] == f"{high * 0.841621 / 1.959964:.2f}"


@pytest.mark.parametrize(
    ("count", "holds"),
    [
        (84, lambda verdict: not verdict.acceptable),
        (85, lambda verdict: verdict.acceptable),
        (195, lambda verdict: verdict.state == "probably within"),
        (196, lambda verdict: verdict.state == "within"),
    ],
)
def test_how_many_labelled_samples_a_point_needs(count: int, holds: Callable[[Any], bool]) -> None:
    assert holds(judge(nothing_lost(count), Limit("accuracy", 1.0, 20.0)))


def test_the_states_of_the_limit() -> None:
    rows = cells(section(ROOT / "docs/what-the-numbers-mean.md", "States"))
    assert [row[0].strip("`") for row in rows] == ["within", "probably within", "over"]


def test_the_floors_are_those_that_are_checked() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    contract = tomllib.loads(text(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    shown = [
        line.strip() for line in section(ROOT / ".github/CONTRIBUTING.md", "Floors").splitlines() if line[:4] == " " * 4
    ]
    assert shown == contract["layers"]
