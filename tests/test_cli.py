"""The command line: exit codes, errors in one line, what goes to stdout, and places that must not be written to."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from invented import report

import edgepress
from edgepress import cli, request
from edgepress.benchmark import How, bench_files
from edgepress.errors import BudgetMissed, DataError, InputError, InvariantError, ModelError, OutputError, PlanError
from edgepress.report import Applied, Benchmark, Explanation, GroupRow, Progress, Report
from edgepress.request import Request, check_input, check_output, default_output

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 4] x) => (float[N, 4] y) {{ {body} }}"""
ROOT = Path(__file__).parents[1]


def save(path: Path, body: str = "y = Relu(x)", text: str = MODEL) -> Path:
    onnx.save(onnx.parser.parse_model(text.format(body=body)), path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a model in it."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model.onnx")
    return tmp_path


class Pipeline(ModuleType):
    """Stands in for edgepress.pipeline: notes what it is asked for, and answers as told."""

    def __init__(self) -> None:
        super().__init__("edgepress.pipeline")
        self.request: Request | None = None
        self.asked: dict[str, Any] = {}
        self.answer: BaseException | None = None

    def _end(self) -> None:
        if self.answer is not None:
            raise self.answer

    def compress(self, request: Request, progress: Progress) -> Report:
        self.request = request
        with progress.stage("read") as stage:
            stage.note("1 Relu")
        self._end()
        return report()

    def apply(self, model: Path, plan: Path, data: str | None, output: Path, **more: Any) -> Applied:
        self.asked = {"model": model, "plan": plan, "data": data, "output": output, **more}
        self._end()
        return Applied(str(output), 1234, "the same bytes as before")

    def explain(self, model: Path, data: str | None) -> Explanation:
        self.asked = {"model": model, "data": data}
        self._end()
        return Explanation(str(model), (GroupRow("g", 8, ("a",), ("b",), None),), ())


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    stub = Pipeline()
    monkeypatch.setitem(sys.modules, "edgepress.pipeline", stub)
    monkeypatch.setattr(edgepress, "pipeline", stub, raising=False)
    return stub


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


COMPRESS = ("compress", "model.onnx", "--data", "c.npz")


# --- exit codes and errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, 0),
        (InvariantError("A guarantee broke."), 1),
        (DataError("The samples are empty: give some."), 2),
        (ModelError("No model."), 2),
        (BudgetMissed("Not within 0.1 of the MACs."), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(answer: BaseException | None, code: int, here: Path, pipeline: Pipeline) -> None:
    pipeline.answer = answer
    done = run(*COMPRESS)
    assert done.exit_code == code
    if code in (1, 2, 3):
        assert done.stderr.splitlines()[-1] == f"edgepress: error: {answer}"
    if code:
        assert done.stdout == ""
        assert "Traceback" not in done.output


def test_an_error_of_two_lines_is_printed_as_one(here: Path, pipeline: Pipeline) -> None:
    pipeline.answer = DataError("first\n  second")
    assert run(*COMPRESS).stderr.splitlines()[-1] == "edgepress: error: first second"


def test_debug_lets_the_error_through(here: Path, pipeline: Pipeline) -> None:
    pipeline.answer = DataError("empty")
    with pytest.raises(DataError):
        run(*COMPRESS, "--debug")


def test_a_missed_budget_still_prints_the_best_found(here: Path, pipeline: Pipeline) -> None:
    missed = BudgetMissed("Not within 0.1 of the MACs.")
    missed.report = report()
    pipeline.answer = missed
    done = run(*COMPRESS, "--mac-ratio", "0.1")
    assert done.exit_code == 3
    assert done.stdout.startswith("verdict\t2.4× faster")
    assert "edgepress: error: Not within" in done.stderr


def test_an_interrupt_says_so(here: Path, pipeline: Pipeline) -> None:
    pipeline.answer = KeyboardInterrupt()
    assert "interrupted before it was done" in run(*COMPRESS).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compres", "model.onnx"), "compress"),
        (("compress", "model.onnx", "--dta", "x"), "--data"),
        (("bench", "model.onnx", "--second", "1"), "--seconds"),
        (("compress", "model.onnx", "--target", "x64"), "x64-vnni"),
        (("compress",), "MODEL"),
        (("bench",), "MODEL"),
    ],
)
def test_usage_errors_help_on(arguments: tuple[str, ...], message: str, here: Path, pipeline: Pipeline) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert pipeline.request is None


# --- what is asked of the library ----------------------------------------------------------------------------


def test_defaults_of_the_command_are_those_of_the_request(here: Path, pipeline: Pipeline) -> None:
    assert run(*COMPRESS).exit_code == 0
    assert pipeline.request == Request(Path("model.onnx"), Path("model.edge.onnx"), "c.npz")


def test_every_option_reaches_the_request(here: Path, pipeline: Pipeline) -> None:
    done = run(
        *COMPRESS, "-o", "out.onnx", "--recipe", "r.json", "--eval-data", "e.npz", "--max-drop", "0.5",
        "--min-sqnr", "30", "--task", "classify", "--mac-ratio", "0.5", "--size-ratio", "0.4", "--speedup", "2",
        "--no-prune", "--no-quantize", "--target", "arm64", "--threads", "2", "--workers", "3",
        "--width-multiple", "16", "--seed", "9", "--device", "local",
    )  # fmt: skip
    assert done.exit_code == 0
    assert pipeline.request == Request(
        Path("model.onnx"), Path("out.onnx"), "c.npz", "r.json", "e.npz", 0.5, 30.0, "classify", 0.5, 0.4, 2.0,
        False, False, "arm64", 2, 3, 16, 9, device="local",
    )  # fmt: skip


def test_a_dry_run_has_no_output(here: Path, pipeline: Pipeline) -> None:
    assert run(*COMPRESS, "--dry-run").exit_code == 0
    assert pipeline.request is not None and pipeline.request.output is None


def test_the_default_output_lies_in_the_current_folder(here: Path, pipeline: Pipeline) -> None:
    (here / "sub").mkdir()
    save(here / "sub" / "net.v2.onnx")
    assert run("compress", "sub/net.v2.onnx", "--data", "c.npz").exit_code == 0
    assert pipeline.request is not None and pipeline.request.output == Path("net.v2.edge.onnx")


def test_apply_passes_everything_on(here: Path, pipeline: Pipeline) -> None:
    done = run("apply", "model.onnx", "plan.json", "--data", "c.npz", "-o", "o.onnx", "--workers", "2")
    assert done.exit_code == 0
    wanted = {"model": Path("model.onnx"), "plan": Path("plan.json"), "data": "c.npz", "output": Path("o.onnx")}
    assert pipeline.asked == {**wanted, "recipe": None, "workers": 2}
    assert done.stdout == "written\to.onnx\nbytes\t1234\nnote\tthe same bytes as before\n"


def test_apply_does_not_overwrite_the_plan(here: Path, pipeline: Pipeline) -> None:
    (here / "plan.json").write_text("{}")
    done = run("apply", "model.onnx", "plan.json", "-o", "plan.json")
    assert (done.exit_code, pipeline.asked) == (2, {})


# --- what is printed -------------------------------------------------------------------------------------------


def test_a_pipe_gets_keys_and_values(here: Path, pipeline: Pipeline) -> None:
    done = run(*COMPRESS)
    assert all(re.fullmatch(r"[^\t]+\t[^\t]+", line) for line in done.stdout.splitlines())
    assert re.fullmatch(r"read\t\d+\.\d s\t1 Relu\n", done.stderr)


def test_quiet_has_no_progress(here: Path, pipeline: Pipeline) -> None:
    done = run(*COMPRESS, "-q")
    assert done.stderr == "" and done.stdout


@pytest.mark.parametrize(
    ("arguments", "kind"), [((*COMPRESS, "--json"), Report), (("explain", "model.onnx", "--json"), Explanation)]
)
def test_json_is_all_that_is_on_stdout(arguments: tuple[str, ...], kind: Any, here: Path, pipeline: Pipeline) -> None:
    done = run(*arguments)
    json.loads(done.stdout)
    assert isinstance(kind.from_json(done.stdout), kind)


def test_a_terminal_gets_the_page(here: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "79")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    text = run(*COMPRESS, "-q").stdout
    assert "time, 1 thread" in text and "\t" not in text


def test_explain_lists_groups(here: Path, pipeline: Pipeline) -> None:
    assert run("explain", "model.onnx").stdout == "group.g\t8 a -> b\nchannels\t8\nchannels.free\t8\n"


def test_explain_takes_samples(here: Path, pipeline: Pipeline) -> None:
    assert run("explain", "model.onnx", "--data", "c.npz").exit_code == 0
    assert pipeline.asked["data"] == "c.npz"


def test_explain_answers_one_question_at_a_time(here: Path, pipeline: Pipeline) -> None:
    done = run("explain", "model.onnx", "--tensor", "x", "--op", "Relu")
    assert done.exit_code == 2 and "two questions" in done.stderr


def test_unknown_operators_are_those_of_a_model(here: Path) -> None:
    done = run("ops", "--unknown")
    assert done.exit_code == 2 and "needs a MODEL" in done.stderr


@pytest.mark.parametrize("command", [None, *sorted(cli.main.commands)])
def test_help_texts(command: str | None) -> None:
    done = run(*([command] if command else []), "--help")
    assert done.exit_code == 0 and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    if command is None:
        assert all(name in done.stdout for name in cli.main.commands)
        assert "\n    edgepress compress model.onnx --data samples.npz " in done.stdout
        return
    for parameter in cli.main.commands[command].params:
        if isinstance(parameter, click.Option):
            assert all(name in done.stdout for name in parameter.opts)
            assert parameter.help or isinstance(parameter.type, click.Choice)


def test_version() -> None:
    assert run("--version").stdout == f"edgepress, version {edgepress.__version__}\n"


# --- a stdout that fails (real processes) ------------------------------------------------------------------------


def shell(script: str, model: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m edgepress bench {model} --seconds 0"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", script.format(command)], capture_output=True, text=True, cwd=model.parent, env=environment
    )


@pytest.mark.parametrize("script", ["set -o pipefail; {} | true", "{} >&-"], ids=["reader gone", "closed"])
def test_nobody_reading_is_no_error(script: str, here: Path) -> None:
    done = shell(script, here / "model.onnx")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(here: Path) -> None:
    done = shell("{} > /dev/full", here / "model.onnx")
    assert done.returncode == 2
    assert (
        done.stderr
        == f"edgepress: error: Cannot print the result ({os.strerror(errno.ENOSPC)}): send stdout elsewhere.\n"
    )


def test_a_narrow_encoding_is_no_error(here: Path) -> None:
    done = shell("PYTHONIOENCODING=ascii {} café.onnx", save(here / "model.onnx"))
    assert done.returncode == 2 and "Traceback" not in done.stderr


# --- places -------------------------------------------------------------------------------------------------------


def folder(path: Path) -> None:
    path.mkdir()


def hard_link(path: Path) -> None:
    path.hardlink_to(path.with_name("model.onnx"))


def soft_link(path: Path) -> None:
    path.symlink_to("model.onnx")


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def data_link(path: Path) -> None:
    path.with_name("c.npz").write_bytes(b"")
    path.symlink_to("c.npz")


def nothing(path: Path) -> None: ...


BAD_PLACES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model.onnx", nothing, "same file as the input"),
    ("./model.onnx", nothing, "same file as the input"),
    ("hard.onnx", hard_link, "same file as the input"),
    ("soft.onnx", soft_link, "same file as the input"),
    ("data.onnx", data_link, "same file as the input c.npz"),
    ("sub", folder, "is a folder"),
    ("null", device, "not a regular file"),
    ("no/such/o.onnx", nothing, "does not exist: create it"),
    ("model.onnx/o.onnx", nothing, "does not exist"),
]


@pytest.mark.parametrize(("output", "make", "message"), BAD_PLACES, ids=[place for place, _, _ in BAD_PLACES])
def test_bad_places_are_refused_before_any_work(
    output: str, make: Callable[[Path], None], message: str, here: Path, pipeline: Pipeline
) -> None:
    make(here / output)
    before = (here / "model.onnx").read_bytes()
    done = run(*COMPRESS, "-o", output)
    assert done.exit_code == 2
    assert message in done.stderr
    assert pipeline.request is None
    assert (here / "model.onnx").read_bytes() == before


def test_a_folder_that_cannot_be_written_to(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match="cannot be written to"):
        check_output(here / "model.onnx", here / "o.onnx")


def test_a_file_of_an_earlier_run_may_be_overwritten(here: Path) -> None:
    (here / "o.onnx").write_bytes(b"old")
    check_output(here / "model.onnx", here / "o.onnx", others=[here / "missing.npz"])


@pytest.mark.parametrize(
    ("given", "message"), [("modle.onnx", "did you mean model.onnx?"), ("zzz", "give the path"), (".", "a folder")]
)
def test_a_model_that_is_not_there(given: str, message: str, here: Path, pipeline: Pipeline) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        check_input(Path(given))
    assert run("compress", given, "--data", "c.npz").exit_code == 2
    assert pipeline.request is None


def test_paths_beside_the_output() -> None:
    output = default_output(Path("a/b/net.onnx"))
    paths = (output, request.report_path(output), request.plan_path(output))
    assert [str(path) for path in paths] == ["net.edge.onnx", "net.edge.report.json", "net.edge.plan.json"]


# --- ranges ---------------------------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("mac_ratio", (0, -1, 1.01, NAN), (1, 0.5, 1e-3)),
        ("size_ratio", (0, -1, 1.01, NAN), (1, 0.5)),
        ("speedup", (0.99, 0, NAN, float("inf")), (1, 10)),
        ("max_drop", (-0.1, 100.5, NAN), (0, 1, 100)),
        ("min_sqnr", (NAN, float("inf")), (-3, 20)),
        ("task", ("", "detect"), ("auto", "classify", "regress")),
        ("target", ("", "gpu"), ("auto", "arm64")),
        ("threads", (0, -2), (1, 64)),
        ("workers", (0,), (1,)),
        ("width_multiple", (0,), (1, 16)),
        ("seed", (-1,), (0, 2**40)),
        ("bench_seconds", (0, NAN), (0.5,)),
    ],
)
def test_ranges(field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    base = Request(Path("m.onnx"), Path("o.onnx"), "c.npz")
    for value in good:
        assert getattr(dataclasses.replace(base, **{field: value}), field) == value
    for value in bad:
        with pytest.raises(InputError):
            dataclasses.replace(base, **{field: value})


def test_without_an_output_only_a_dry_run_is_possible() -> None:
    with pytest.raises(InputError, match="-o, or use --dry-run"):
        Request(Path("m.onnx"), None, "c.npz")
    assert Request(Path("m.onnx"), None, "c.npz", dry_run=True).output is None


def test_cleaning_needs_no_samples(here: Path, pipeline: Pipeline) -> None:
    assert run("compress", "model.onnx").exit_code == 0
    assert pipeline.request is not None and pipeline.request.data is None


def test_a_bad_range_is_one_line_and_exit_2(here: Path, pipeline: Pipeline) -> None:
    done = run(*COMPRESS, "--mac-ratio", "2")
    assert done.exit_code == 2
    assert done.stderr == (
        "edgepress: error: --mac-ratio is 2.0: give a number above 0 and at most 1 (0.5 means half).\n"
    )


# --- bench, end to end ------------------------------------------------------------------------------------------------

INT8 = """<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 4] x) => (float[N, 4] y)
<float s = {{0.5}}, int8 z = {{0}}> {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
 e = Exp(d) r = QuantizeLinear(e, s, z) y = DequantizeLinear(r, s, z) }}"""


def test_bench_two_files(here: Path) -> None:
    save(here / "other.onnx", "t = Exp(x) y = Relu(t)")
    done = run("bench", "model.onnx", "other.onnx", "--seconds", "0.1")
    assert done.exit_code == 0, done.stderr
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert float(found["model.onnx.p50_ms"]) > 0
    assert float(found["other.onnx.ratio_low"]) <= float(found["other.onnx.ratio"])
    assert "made-up input (x 1x4)" in found["note"]


def test_bench_as_json(here: Path) -> None:
    done = run("bench", "model.onnx", "model.onnx", "--seconds", "0", "--threads", "2", "--json")
    found = Benchmark.from_json(done.stdout)
    assert [model.name for model in found.models] == ["model.onnx #1", "model.onnx #2"]
    assert found.models[0].operators == {"Relu": 1}
    assert found.timing.threads == 2


def test_bench_warns_of_int8_that_runs_in_float(here: Path) -> None:
    save(here / "int8.onnx", text=INT8)
    done = run("bench", "model.onnx", "int8.onnx", "--seconds", "0")
    assert "int8.onnx.warning\t1 DequantizeLinear left over" in done.stdout
    assert "model.onnx.warning" not in done.stdout


def test_bench_on_samples(here: Path) -> None:
    np.savez(here / "c.npz", x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    done = run("bench", "model.onnx", "--seconds", "0", "--data", "c.npz")
    assert done.exit_code == 0, done.stderr
    assert "note\tRun on 16 of 40 samples of c.npz, in turn." in done.stdout


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("float[N, 5] x", "takes x as float32 [N, 5], the files before it as float32 [N, 4]"),
        ("float[4] x", "takes x as float32 [4]"),
        ("float[N, 4] z", "takes other inputs (z)"),
    ],
)
def test_bench_wants_the_same_inputs(inputs: str, message: str, here: Path) -> None:
    name = inputs[-1]
    text = f'<ir_version: 10, opset_import: ["" : 21]>\nagraph ({inputs}) => (float y) {{ y = ReduceSum({name}) }}'
    save(here / "other.onnx", text=text.replace("{", "{{").replace("}", "}}"))
    done = run("bench", "model.onnx", "other.onnx", "--seconds", "0")
    assert done.exit_code == 2
    assert message in done.stderr


def test_bench_takes_the_size_that_one_model_fixes(here: Path) -> None:
    save(here / "fixed.onnx", text=MODEL.replace("N, 4", "3, 4"))
    found = bench_files([here / "model.onnx", here / "fixed.onnx"], how=How(seconds=0))
    assert "x 3x4" in found.notes[0]


def test_bench_finds_a_size_the_model_runs_with(here: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N, 1, H, W] x) => (float[N, 1, A, B] y) <float[1, 1, 5, 5] w> {{ y = Conv(x, w) }}"""
    proto = onnx.parser.parse_model(text.format())
    del proto.graph.initializer[:]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 5, 5), np.float32), "w"))
    onnx.save(proto, here / "conv.onnx")
    assert "x 1x1x8x8" in bench_files([here / "conv.onnx"], how=How(seconds=0)).notes[0]


@pytest.mark.parametrize(
    ("name", "content"), [("empty.onnx", b""), ("text.onnx", b"hello, this is no model"), ("gone.onnx", None)]
)
def test_bench_of_files_that_are_no_models(name: str, content: bytes | None, here: Path) -> None:
    if content is not None:
        (here / name).write_bytes(content)
    done = run("bench", "model.onnx", name, "--seconds", "0")
    assert done.exit_code == 2
    assert done.stderr.startswith("edgepress: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", "-1"), "--seed is -1: give a whole number of 0 or more."),
        (("--max-temp", "nan"), "--max-temp is nan: give degrees Celsius."),
        (("--recipe", "r.json"), "--recipe is of no use without samples: add --data."),
        (("--device", ""), "'' names no device: "),
        (("--threads", "0"), "Timing needs at least 1 thread"),
    ],
)
def test_bench_with_settings_out_of_range(options: tuple[str, str], message: str, here: Path) -> None:
    done = run("bench", "model.onnx", "--seconds", "0", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"edgepress: error: {message}") and done.stderr.count("\n") == 1


def test_a_folder_is_not_offered_in_place_of_itself(here: Path) -> None:
    (here / "zoo").mkdir()
    assert run("bench", "zoo").stderr == "edgepress: error: zoo is a folder: give the path of an ONNX model.\n"


def test_bench_of_nothing() -> None:
    with pytest.raises(InputError, match="nothing to time"):
        bench_files([])


def test_files_of_one_name_are_told_apart(here: Path) -> None:
    (here / "sub").mkdir()
    save(here / "sub" / "model.onnx")
    found = bench_files([Path("model.onnx"), Path("sub/model.onnx"), Path("model.onnx")], how=How(seconds=0))
    assert [model.name for model in found.models] == ["model.onnx #1", "sub/model.onnx", "model.onnx #2"]


def test_plan_errors_are_user_errors(here: Path, pipeline: Pipeline) -> None:
    pipeline.answer = PlanError("The plan belongs to another model.")
    assert run("apply", "model.onnx", "plan.json", "--data", "c.npz").exit_code == 2
