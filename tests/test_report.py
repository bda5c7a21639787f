"""Reports: golden pages at 79 columns, the pipe, JSON there and back, and no printed number that JSON does not hold."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import MACHINE, nothing_won, quality, ratio, report, times, variants
from rich.console import Console

from edgepress.bench import Timing
from edgepress.devices import Level
from edgepress.errors import InputError, Refusal
from edgepress.report import (
    CLEANED,
    ORIGINAL,
    PLAIN_INT8,
    Benchmark,
    BenchModel,
    Explanation,
    GroupRow,
    Report,
    benchmark,
    explanation,
    numbers,
    progress,
    terminal,
)
from edgepress.report.result import Pruning, Variant
from edgepress.report.rows import change, rows, speed
from edgepress.report.verdict import NOTHING, limit_line, sentence

GOLDEN = """\
2.4× faster, 5.5× smaller, 0.3 points less accurate, on this CPU.
≈ probably within your limit: 0.30 of 0.50 points, 95 % interval −0.02 to 0.62;
  about 28 k hold-out samples would settle it.

                original  plain int8  edgepress         change  95 % interval
─────────────────────────────────────────────────────────────────────────────
time, 1 thread    412 µs      193 µs     172 µs   2.40× faster    2.38 – 2.41
accuracy         83.70 %     83.66 %    83.40 %   −0.30 points   −0.62 – 0.02
file             1116 kB      344 kB     202 kB  5.52× smaller          exact
MACs              40.8 M      40.8 M     27.9 M    1.46× fewer          exact
parameters         269 k       269 k      181 k    1.48× fewer          exact

weights    5.11 bits on average, 3.5 to 8; float weights in conv1
not done   9 × shares a residual sum with its neighbors (layer1, …) ·
           linear: its outputs are the answer of the model
kept float conv1: 3 input channels · linear: 1.08 times slower in int8
note       The clock was not fixed.
written    resnet20.edge.onnx
           resnet20.edge.plan.json
           resnet20.edge.report.json
next       edgepress bench resnet20.onnx resnet20.edge.onnx
"""

GOLDEN_NOTHING = """\
Nothing was faster within your limit: the cleaned fp32 model was written.

                original  plain int8  edgepress         change  95 % interval
─────────────────────────────────────────────────────────────────────────────
time, 1 thread    412 µs      193 µs     411 µs  no difference    0.99 – 1.02
file             1116 kB      344 kB    1090 kB  1.02× smaller          exact
MACs              40.8 M      40.8 M     40.8 M           same          exact
parameters         269 k       269 k      269 k           same          exact

not done   9 × shares a residual sum with its neighbors (layer1, …) ·
           linear: its outputs are the answer of the model
note       The clock was not fixed.
written    resnet20.edge.onnx
           resnet20.edge.plan.json
           resnet20.edge.report.json
next       edgepress bench resnet20.onnx resnet20.edge.onnx
"""


def screen(render: Callable[[Console], None], *, width: int = 79, color: bool = False) -> str:
    """What a terminal of that width shows."""
    stream = io.StringIO()
    system: Any = "standard" if color else None
    render(Console(file=stream, width=width, force_terminal=True, color_system=system, highlight=False))
    return stream.getvalue()


def page(of: Report, *, width: int = 79, verbose: bool = False) -> str:
    return screen(lambda console: terminal.render(of, console, verbose=verbose), width=width)


# --- the page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "expected"), [(report, GOLDEN), (nothing_won, GOLDEN_NOTHING)])
def test_golden_page(made: Callable[[], Report], expected: str) -> None:
    assert page(made()) == expected


@pytest.mark.parametrize("width", [79, 100, 60, 40])
@pytest.mark.parametrize("verbose", [False, True])
def test_the_page_fits_the_terminal(width: int, verbose: bool) -> None:
    lines = page(report(next="edgepress bench a b"), width=width, verbose=verbose).splitlines()
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_loses_columns_from_the_right() -> None:
    text = page(report(), width=60)
    assert "edgepress" in text and "95 % interval\n" not in text


def test_paths_and_commands_are_never_broken() -> None:
    long = "edgepress bench " + "x" * 120
    text = page(report(output="o" * 150, next=long), width=40)
    assert long in text and "o" * 150 in text


@pytest.mark.parametrize("no_color", [True, False])
def test_no_color_is_respected(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    text = screen(lambda console: terminal.render(report(), console), color=True)
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) is not no_color


def test_without_plain_int8_its_column_is_missing() -> None:
    original, _, best = variants()
    text = page(report(variants=(original, best)))
    assert "plain int8" not in text and "5.52× smaller" in text


def test_when_plain_int8_is_chosen_it_is_shown_once() -> None:
    text = page(report(chosen=PLAIN_INT8))
    assert "plain int8" not in text and "3.24× smaller" in text


def test_when_nothing_can_be_done_only_the_original_is_shown() -> None:
    original, _, _ = variants()
    text = page(report(variants=(original,), chosen=ORIGINAL, verdict=sentence(original, original)))
    assert NOTHING in text and "change" not in text


def test_a_row_for_every_thread_count() -> None:
    original, plain, best = variants()
    original = dataclasses.replace(original, latency={1: times("o", 4.0), 2: times("o", 3.0)})
    best = dataclasses.replace(
        best,
        latency={1: times("b", 2.0), 2: times("b", 2.9)},
        ratio={**best.ratio, 2: ratio("b", 0.97, 0.95, 1.01, "no difference")},
    )
    text = page(report(variants=(original, plain, best)))
    assert re.search(r"time, 1 thread +4.00 ms +193 µs +2.00 ms +2.40× faster", text)
    assert re.search(r"time, 2 threads +3.00 ms +— +2.90 ms +no difference +0.99 – 1.05", text)


def test_unknown_facts_are_dashes_or_missing_rows() -> None:
    original, plain, best = (dataclasses.replace(v, macs=None, quality=None, ratio={}) for v in variants())
    text = page(report(variants=(original, plain, best), verdict=sentence(original, best)))
    assert "speed not measured".capitalize() in text and "quality not measured" in text
    assert "MACs" not in text and "accuracy" not in text and "limit" not in text


def test_a_dry_run_wrote_nothing() -> None:
    text = page(report(output=None, plan=None))
    assert "written    nothing" in text


def test_times_against_another_reference_are_said_to_be() -> None:
    original, plain, best = variants()
    best = dataclasses.replace(best, ratio={1: dataclasses.replace(best.ratio[1], reference=PLAIN_INT8)})
    assert "times are compared with the plain int8" in page(report(variants=(original, plain, best)))


def test_names_from_a_file_cannot_command_the_terminal() -> None:
    nasty = Refusal("\x1b[31mred[bold]", "be\nware")
    text = page(report(refusals=(nasty,), notes=("a\x07b",)))
    assert "?[31mred[bold]: be?ware" in text and "a?b" in text


def test_verbose_shows_every_variant_layer_and_reason() -> None:
    refusals = tuple(Refusal(f"n{n}", f"reason {n}", "--flag" if n == 6 else "") for n in range(7))
    short, long = (page(report(refusals=refusals), verbose=verbose) for verbose in (False, True))
    assert "3 more reasons (-v)" in short and "reason 6" not in short
    assert "reason 6; --flag" in long and "more reasons" not in long
    assert "16 → 8" in long and "pruned-int8" in long


def test_costs_of_two_levels_are_never_predicted_in_one_column() -> None:
    def pruned(latency: float, level: Level) -> Variant:
        return dataclasses.replace(variants()[-1], name=level, pruning=Pruning(0.01, 0.02, 300_000, latency, level))

    def columns(*found: Variant) -> dict[str, str]:
        lines = page(report(variants=(*variants(), *found)), width=120, verbose=True).splitlines()
        (heading,) = (number for number, line in enumerate(lines) if line.startswith("pruned  "))
        return {
            line.split()[0]: " ".join(line.split()[-2:]) for line in [lines[heading], *lines[heading + 2 :]] if line
        }

    both = columns(pruned(0.71, "measured"), pruned(0.53, "analytic"))
    assert (both["pruned"], both["measured"], both["analytic"]) == ("predicted analytic", "0.71 —", "— 0.53")
    assert columns(pruned(0.53, "analytic"))["pruned"] == "time analytic"
    assert columns(pruned(0.71, "measured"))["pruned"] == "time predicted"


def test_kept_float_is_silent_for_a_float_result() -> None:
    layers = tuple(dataclasses.replace(layer, runs_as="float32") for layer in report().layers)
    assert "kept float" not in page(report(layers=layers))


# --- sentences -------------------------------------------------------------------------------------------


INTERVAL = "0.30 of 0.50 points, 95 % interval −0.02 to 0.62"
AGREEMENT = {
    "measure": "agreement",
    "kl": 0.0112,
    "limit": 0.02,
    "kl_low": 0.008,
    "kl_high": 0.0144,
    "source": "eval-data",
}
AGREED = "KL 0.0112 of 0.0200 nats, 95 % interval 0.0080 to 0.0144, on 10.8 k samples of --eval-data."
SQNR = {"measure": "sqnr", "after": 34.12, "drop": None, "low": 33.0, "high": 35.0, "limit": 20.0, "samples": 50}
CLEAR = "34.1 dB of at least 20.0 dB, 95 % interval 33.0 to 35.0 dB, on 50 hold-out samples."


@pytest.mark.parametrize(
    ("state", "changes", "expected"),
    [
        ("within", {}, f"{INTERVAL}, on 10.8 k hold-out samples."),
        ("probably within", {}, f"{INTERVAL}; about 28 k hold-out samples would settle it."),
        ("probably within", {"settle_samples": None}, f"{INTERVAL}, on 10.8 k hold-out samples."),
        ("over", {"drop": 1.5, "low": 1, "high": 2}, "1.50 of 0.50 points, 95 % interval 1.00 to 2.00."),
        ("over", {"low": None, "high": None}, "0.30 of 0.50 points."),
        ("within", AGREEMENT, AGREED),
        ("within", SQNR, CLEAR),
    ],
)
def test_the_limit_in_three_states(state: str, changes: dict[str, Any], expected: str) -> None:
    assert limit_line(quality(state=state, **changes)) == f"{state} your limit: {expected}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "2.4× faster, 5.5× smaller, 0.3 points less accurate"),
        ({"ratio": {1: ratio("b", 1.3, 1.2, 1.4, "slower")}}, "1.3× slower, 5.5× smaller, 0.3 points less accurate"),
        (
            {"ratio": {1: ratio("b", 0.9, 0.8, 1.1, "no difference")}},
            "Not measurably faster, 5.5× smaller, 0.3 points less accurate",
        ),
        ({"quality": quality(drop=-0.25)}, "2.4× faster, 5.5× smaller, 0.2 points more accurate"),
        ({"quality": quality(drop=0.04)}, "2.4× faster, 5.5× smaller, 0.04 points less accurate"),
        ({"quality": quality(drop=0.001)}, "2.4× faster, 5.5× smaller, equally accurate"),
        (
            {"quality": quality(measure="agreement", after=97.9)},
            "2.4× faster, 5.5× smaller, 97.90 % of the answers unchanged",
        ),
        ({"quality": quality(measure="sqnr", after=34.1)}, "2.4× faster, 5.5× smaller, signal to noise 34.1 dB"),
        ({"file_bytes": 1_116_000}, "2.4× faster, the same size, 0.3 points less accurate"),
        ({"file_bytes": 2_232_000}, "2.4× faster, 2.0× larger, 0.3 points less accurate"),
    ],
)
def test_the_verdict(changes: dict[str, Any], expected: str) -> None:
    original, _, best = variants()
    assert sentence(original, dataclasses.replace(best, **changes)) == f"{expected}, on this CPU."


def test_the_verdict_when_nothing_was_won() -> None:
    original, _, best = variants()
    assert sentence(original, dataclasses.replace(best, name=CLEANED)) == NOTHING


def test_the_verdict_of_a_dry_run_claims_no_file() -> None:
    original, _, best = variants()
    assert "would be written" in sentence(original, dataclasses.replace(best, name=CLEANED), outcome="dry run")


def test_the_verdict_of_a_missed_budget_says_so_first() -> None:
    original, _, best = variants()
    missed = "The budget was missed, nothing was written; the best found: "
    assert sentence(original, best, outcome="missed").startswith(f"{missed}2.4× faster, 5.5× smaller")
    cleaned = dataclasses.replace(best, name=CLEANED)
    assert sentence(original, cleaned, outcome="missed") == f"{missed}the cleaned fp32 model."


def test_the_verdict_says_why_only_the_cleaned_model_is_left() -> None:
    original, _, best = variants()
    text = sentence(original, dataclasses.replace(best, name=CLEANED), why="There were no samples")
    assert text == "There were no samples: the cleaned fp32 model was written."


@pytest.mark.parametrize(
    ("median", "noise", "word"),
    [
        (0.5, "faster", "faster"),
        (2.0, "slower", "slower"),
        (0.9, "no difference", "no difference"),
        (0.998, "faster", "no difference"),
    ],
)
def test_a_ratio_in_words(median: float, noise: str, word: str) -> None:
    found = speed(ratio("b", median, median * 0.99, median * 1.01, noise))
    assert found[0] == word
    assert found[2] <= found[1] <= found[3]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (10, 5, ("less", 2.0)),
        (5, 10, ("more", 2.0)),
        (5, 5, ("same", 1.0)),
        (0, 0, ("same", 1.0)),
        (5, 0, ("less", 1.0)),
    ],
)
def test_exact_changes(before: int, after: int, expected: tuple[str, float]) -> None:
    assert change(before, after, ("less", "more")) == expected


# --- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.time(0.0421), "42.1 µs"),
        (numbers.time(0.99996), "1000 µs"),
        (numbers.time(1.0), "1.00 ms"),
        (numbers.time(12345), "12.3 s"),
        (numbers.size(812), "812 B"),
        (numbers.size(1_116_000), "1116 kB"),
        (numbers.size(25_600_000), "25.6 MB"),
        (numbers.count(640), "640"),
        (numbers.count(269_034), "269 k"),
        (numbers.count(4.1e9), "4.10 G"),
        (numbers.factor(9.999), "10.0×"),
        (numbers.factor(119.7), "120×"),
        (numbers.fixed(-0.001), "0.00"),
        (numbers.fixed(-0.62), "−0.62"),
        (numbers.decibel(math.inf), "exact"),
        (numbers.significant(0.0), "0"),
        (numbers.significant(-math.inf), "−∞"),
        (numbers.significant(math.nan), "—"),
        (numbers.raw(None), ""),
        (numbers.raw(2**40), "1099511627776"),
        (numbers.raw(0.1717), "0.1717"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected


@settings(deadline=None, max_examples=200)
@given(st.floats(1e-6, 1e9), st.integers(2, 4))
def test_significant_digits_lose_no_more_than_they_say(value: float, digits: int) -> None:
    text = numbers.significant(value, digits)
    assert "e" not in text
    assert abs(float(text) - value) <= 0.5001 * value * 10.0 ** (1 - digits)
    assert len(text.replace(".", "").lstrip("0")) <= max(digits, len(text.split(".")[0]))


# --- JSON ------------------------------------------------------------------------------------------------


def bench_page() -> Benchmark:
    models = (
        BenchModel("a.onnx", "dir/a.onnx", 1_116_000, {"Conv": 19, "Relu": 3}, ()),
        BenchModel("b.onnx", "dir/b.onnx", 202_000, {"QLinearConv": 18}, ("3 DequantizeLinear left over.",)),
        BenchModel("c.onnx", "dir/c.onnx", 202_001, {"Conv": 1}, ()),
    )
    ratios = (ratio("b.onnx", 0.4, 0.39, 0.41), ratio("c.onnx", 1.01, 0.97, 1.05, "no difference"))
    latencies = (times("a.onnx", 0.412), times("b.onnx", 0.165), times("c.onnx", 0.42))
    return Benchmark(models, Timing("a.onnx", 2, 200, latencies, ratios, 0.013, MACHINE), ("Run on made-up input.",))


def explained() -> Explanation:
    groups = (
        GroupRow("conv1", 16, ("conv1",), ("conv2", "conv3"), None),
        GroupRow("fc", 10, ("fc",), (), "is the output"),
    )
    return Explanation("m.onnx", groups, (Refusal("Einsum_3", "unknown operator", "rewrite it"),))


@pytest.mark.parametrize("value", [report(), nothing_won(), report(output=None, plan=None), bench_page(), explained()])
def test_json_round_trip(value: Any) -> None:
    text = value.to_json()
    assert json.loads(text)["format"].startswith("edgepress-")
    assert type(value).from_json(text) == value


def test_infinity_survives_strict_json() -> None:
    original, plain, best = variants()
    best = dataclasses.replace(best, quality=quality(measure="sqnr", before=math.inf, sqnr_db=-math.inf, kl=None))
    text = report(variants=(original, plain, best)).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    found = Report.from_json(text).taken.quality
    assert found is not None and (found.before, found.sqnr_db, found.kl) == (math.inf, -math.inf, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an edgepress-report/2 file"),
        ('{"format": "edgepress-report/1"}', "not an edgepress-report/2 file"),
        ('{"format": "edgepress-report/2"}', "damaged .*no 'model'"),
        (report().to_json().replace('"seed": 7', '"seed": "7"'), "damaged .*Report.seed"),
        (report().to_json().replace('"measure": "accuracy"', '"measure": "taste"'), "damaged .*Quality.measure"),
        (report().to_json().replace('"p50": 0.412', '"p50": true'), "damaged .*Latency.p50"),
    ],
)
def test_files_that_are_no_report(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Report.from_json(text)


def json_numbers(value: Any) -> Iterator[float]:
    """Every number in parsed JSON, and the length of every list (counts are facts too)."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        yield float(len(value))
        for item in value:
            yield from json_numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)
    elif isinstance(value, str):  # sentences and names hold numbers of their own
        yield from map(float, re.findall(r"\d+(?:\.\d+)?", value))


def printable(value: float) -> Iterator[str]:
    """Every way the formatter may print a number."""
    size = abs(value)
    for text in (
        numbers.time(size), numbers.size(size), numbers.count(size), numbers.count(size, 2), numbers.factor(size),
        numbers.short(size), numbers.fixed(size), numbers.fixed(size, 1), numbers.raw(size), f"{size:g}", f"{size:.0f}",
    ):  # fmt: skip
        yield from re.findall(r"\d+(?:\.\d+)?", text)


@pytest.mark.parametrize("made", [report, nothing_won])
@pytest.mark.parametrize("verbose", [True, False])
def test_every_printed_number_is_in_the_json(made: Callable[[], Report], verbose: bool) -> None:
    known = {"95"}  # the level of the intervals
    for value in json_numbers(json.loads(made().to_json())):
        known |= set(printable(value))
    printed = set(re.findall(r"\d+(?:\.\d+)?", page(made(), verbose=verbose)))
    assert len(printed) > 15
    hidden = {"9"}  # how many refusals share a reason: counted, not stored
    assert printed - known - hidden == set()


def test_the_rows_in_the_json_are_those_of_the_table() -> None:
    stored = json.loads(report().to_json())["rows"]
    assert [(row["key"], row["change"]) for row in stored] == [(row.key, row.change) for row in rows(report())]


# --- the pipe ----------------------------------------------------------------------------------------------


def test_pairs_hold_plain_numbers() -> None:
    found = dict(terminal.pairs(report()))
    assert found["latency_1_ms.edgepress"] == "0.1717"
    assert found["file_bytes.plain_int8"] == "344000"
    assert found["accuracy.change"] == "-0.3 points"
    assert found["state"] == "probably within"
    assert found["written"] == "resnet20.edge.report.json"  # the last of three


@pytest.mark.parametrize(
    ("value", "render", "pairs"),
    [(bench_page(), benchmark.render, benchmark.pairs), (explained(), explanation.render, explanation.pairs)],
    ids=["bench", "explain"],
)
def test_other_pages_fit_79_columns_and_have_a_pipe_form(
    value: Any, render: Callable[[Any, Console], None], pairs: Callable[[Any], list[tuple[str, str]]]
) -> None:
    text = screen(lambda console: render(value, console))
    assert max(map(len, text.splitlines())) <= 79
    assert all(key and "\t" not in key for key, _ in pairs(value))


def test_the_benchmark_page() -> None:
    text = screen(lambda console: benchmark.render(bench_page(), console), width=120)
    assert text.startswith("b.onnx is 2.50× faster than original (95 % interval 2.44 to 2.56).\n")
    assert "c.onnx: no difference from original could be shown." in text
    assert re.search(r"a.onnx +412 µs +reference +— +— +453 µs +700 µs +", text)
    assert re.search(r"b.onnx +165 µs +2.50× faster +2.44 – 2.56 +— +", text)
    assert "runs       a.onnx: 19 Conv · 3 Relu" in text
    assert "warning    b.onnx: 3 DequantizeLinear left over." in text
    assert dict(benchmark.pairs(bench_page()))["b.onnx.ratio"] == "0.4"


def test_the_explanation_page() -> None:
    text = screen(lambda console: explanation.render(explained(), console))
    assert text.startswith("m.onnx: 1 of 2 channel groups can be cut, 16 of 26 channels.\n")
    assert re.search(r"conv1 +16 +conv2 \+1", text) and "must stay  fc: is the output" in text
    assert "wall       Einsum_3: unknown operator (rewrite it)" in text
    assert dict(explanation.pairs(explained()))["group.fc.refusal"] == "is the output"


# --- progress ----------------------------------------------------------------------------------------------


def work(listener: progress.Progress) -> None:
    with listener.stage("read") as stage:
        stage.note("first")
        stage.note("19 Conv\x1b[2J")


def test_lines_are_plain() -> None:
    stream = io.StringIO()
    work(progress.Lines(stream))
    assert re.fullmatch(r"read\t\d+\.\d s\t19 Conv\?\[2J\n", stream.getvalue())


def test_a_stage_that_fails_is_no_finished_line() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), progress.Lines(stream).stage("read"):
        raise KeyError
    assert stream.getvalue() == ""


def test_live_leaves_one_line_per_stage() -> None:
    text = screen(lambda console: work(progress.Live(console)))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert re.search(r"^✓ read +\d+\.\d s  19 Conv\?\[2J$", shown, re.MULTILINE)


def test_live_marks_a_stage_that_was_stopped() -> None:
    def stop(console: Console) -> None:
        with pytest.raises(KeyboardInterrupt), progress.Live(console).stage("read"):
            raise KeyboardInterrupt

    assert "✗ read" in screen(stop)


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    work(progress.Silent())
    assert capsys.readouterr() == ("", "")


def test_the_recorder_keeps_rows_and_passes_notes_on() -> None:
    stream = io.StringIO()
    recorder = progress.Recorder(progress.Lines(stream))
    work(recorder)
    (row,) = recorder.rows
    assert (row.name, row.note) == ("read", "19 Conv?[2J")
    assert row.seconds >= 0 and (row.peak_mb is None or row.peak_mb > 1)
    assert "19 Conv" in stream.getvalue()


@pytest.mark.parametrize(
    ("quiet", "tty", "kind"),
    [(True, True, progress.Silent), (False, True, progress.Live), (False, False, progress.Lines)],
)
def test_who_listens(quiet: bool, tty: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: tty, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    assert isinstance(progress.listener(quiet=quiet), kind)
