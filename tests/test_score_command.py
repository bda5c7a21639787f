"""edgepress score: the files and the page hold what the score says, and what cannot be used is said in one sentence."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numeric_tools import feed_of
from pipeline_models import MLP, NOT_A_NUMBER
from rich.console import Console
from score_tools import calibrate, done, files, refused, run, save

from edgepress.calibrate import store
from edgepress.calibrate.run import collect
from edgepress.errors import Refusal
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.pipeline import scoring
from edgepress.pipeline.observing import observe
from edgepress.report.scores import GroupScores, Scores, pairs, render
from edgepress.request import SCORE
from edgepress.scores import Options, Redundancy
from edgepress.scores.kfac import Kfac
from edgepress.scores.registry import BUILT_IN, find

ROOT = Path(__file__).parents[1]
SAMPLES = 60


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a multi-layer perceptron, which nothing has to be cleaned of, and samples."""
    monkeypatch.chdir(tmp_path)
    save(MLP, SAMPLES)
    return tmp_path


def scores(*more: str) -> Scores:
    done("score", "net.onnx", "--data", "x.npz", "-o", "s.json", "-q", *more)
    return Scores.from_json(Path("s.json").read_text())


def test_the_spectral_radius_is_reported(here: Path) -> None:
    """Of every layer that reads a group; other scores have nothing to add."""
    found = scores("--score", "kfac", "--seed", "4")
    model = Model.load("net.onnx")
    score = find("kfac", Options(found.positions, 4))
    assert isinstance(score, Kfac) and found.groups
    order = np.random.default_rng(4).permutation(SAMPLES)
    feed = feed_of(model, {"x": MLP.arrays(SAMPLES)["x"][order]})
    for group, written in zip(find_groups(model).prunable, found.groups, strict=True):
        statistics = observe(model, feed, score.needs(model, group), classifies=True, workers=1, seed=4)
        radius = score.radius(model, group, statistics)
        assert {what: value for what, value in written.details.items() if what.startswith("spectral")} == {
            f"spectral radius of {name}": value for name, value in radius.items()
        }
        assert 0 < written.details["largest fall by one unit"] <= 1
    assert not any(group.details for group in scores("--score", "magnitude").groups)


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_score(here: Path) -> None:
    """Those of the score itself, on samples that were shuffled by hand."""
    found = scores("--seed", "4")
    model = Model.load("net.onnx")
    order = np.random.default_rng(4).permutation(SAMPLES)
    feed = feed_of(model, {"x": MLP.arrays(SAMPLES)["x"][order]})
    score = Redundancy(positions=found.positions, seed=4)
    for group in find_groups(model).prunable:
        statistics = collect(model, feed, score.needs(model, group), workers=1)
        ranking = score.rank(model, group, statistics)
        (row,) = [row for row in found.groups if row.name == group.name]
        assert row.scores == tuple(ranking.added.tolist()) and row.order == tuple(ranking.order.tolist())
        assert (row.size, row.producers, row.consumers) == (group.size, group.producers, group.consumers)
    assert found.positions == 16_000 // SAMPLES
    assert (found.model, found.score, found.samples, found.seed, found.labels) == ("net.onnx", SCORE, 60, 4, False)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_score_is_written(name: str, here: Path) -> None:
    found = scores("--score", name)
    with np.load("s.npz") as arrays:
        assert arrays.files == [row.name for row in found.groups] == ["n_a", "n_c"]
        for row in found.groups:
            assert arrays[row.name].dtype == np.float64 and arrays[row.name].tolist() == list(row.scores)
            assert sorted(row.order) == list(range(row.size)) and np.isfinite(row.scores).all()
    assert [(refusal.what, refusal.reason) for refusal in found.refusals] == [
        ("n_y", "its channels reach the graph output 'y'")
    ]


def test_the_place_when_none_is_given(here: Path) -> None:
    done("score", "net.onnx", "--data", "x.npz", "--score", "random")
    assert {"net.scores.json", "net.scores.npz"} <= files().keys()


def test_json_is_what_is_written(here: Path) -> None:
    printed = done("score", "net.onnx", "--data", "x.npz", "--score", "wanda", "-o", "s.json", "--json")
    assert printed == Path("s.json").read_text()
    assert json.loads(printed)["format"] == "edgepress-scores/1"


def test_mixes_and_lists(here: Path) -> None:
    mixed = scores("--score", "random=1,wanda=3").groups[0]
    ranks = []
    for name in ("random", "wanda"):
        row = scores("--score", name).groups[0]
        rank = np.empty(row.size)
        rank[list(row.order)] = np.arange(row.size) / (row.size - 1)
        ranks.append(rank)
    assert np.allclose(mixed.scores, (ranks[0] + 3 * ranks[1]) / 4)


def test_workers_change_nothing(here: Path) -> None:
    assert scores("--workers", "1", "--score", "kfac") == scores("--workers", "3", "--score", "kfac")


# --- the page ---------------------------------------------------------------------------------------------------------


def row(name: str, *values: float, order: tuple[int, ...] = ()) -> GroupScores:
    return GroupScores(name, len(values), ("a",), ("b",), values, order or tuple(np.argsort(values).tolist()))


def page(*groups: GroupScores, refusals: tuple[Refusal, ...] = ()) -> Scores:
    return Scores("m.onnx", "wanda", False, 9, 0, 5, "m", "d", groups, refusals)


def test_the_weakest_are_those_that_go_first_in_their_groups() -> None:
    found = page(row("big", 30.0, 10.0, 20.0), row("small", 3.0, 2.0, 1.0, order=(1, 2, 0))).weakest
    assert [(weak.group, weak.channel, weak.place, weak.score) for weak in found] == [
        ("small", 1, 0, 2.0),
        ("big", 1, 0, 10.0),
        ("small", 2, 1, 1.0),
        ("big", 2, 1, 20.0),
        ("small", 0, 2, 3.0),
        ("big", 0, 2, 30.0),
    ]


def test_ten_are_shown() -> None:
    many = page(*(row(f"g{number}", *(number + np.arange(4.0))) for number in range(12)))
    assert [weak.group for weak in many.weakest] == [f"g{number}" for number in range(10)]


def test_in_a_pipe() -> None:
    found = page(row("g", 1.5, -2.0, 4e-9, 7.0), refusals=(Refusal("h", "a wall", "none"),))
    lines = pairs(found, ["s.json"])
    assert lines[:3] == [("score", "wanda"), ("samples", "9"), ("group.g", "4", "-2", "0.75", "7")]
    assert ("weakest", "g", "1", "-2") in lines and ("weakest", "g", "2", "4e-09") in lines
    assert lines[-2:] == [("refusal.h", "a wall"), ("written", "s.json")]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_on_a_terminal(width: int) -> None:
    stream = io.StringIO()
    found = page(row("g", 1.5, -2.0, 4e-9), refusals=(Refusal("h", "a wall", "take it away"),))
    render(found, Console(file=stream, width=width), ["s.json"])
    text = stream.getvalue()
    assert "3 channels in 1 of 2 groups by" in " ".join(text.split())
    assert "−2" in text and "4e−09" in text and "h: a wall; take it away" in text and "s.json" in text
    assert max(map(len, text.splitlines())) <= max(width, 79)


def test_nothing_to_score() -> None:
    stream = io.StringIO()
    found = page(refusals=(Refusal("h", "a wall"),))
    render(found, Console(file=stream, width=80))
    assert "0 channels in 0 of 1 groups" in stream.getvalue()
    assert pairs(found)[-1] == ("refusal.h", "a wall")


def test_scores_come_back_from_json() -> None:
    found = page(row("g", 1 / 3, float("inf"), -0.0), refusals=(Refusal("h", "a wall"),))
    assert Scores.from_json(found.to_json()) == found


# --- what cannot be used ----------------------------------------------------------------------------------------------


SCORING = ("score", "net.onnx", "--data", "x.npz")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--score", "redundncy"], "There is no score 'redundncy': did you mean redundancy?"),
        (["--score", "fisher=0"], "give a weight above zero"),
        (["--labels"], "the samples have none"),
        (["-o", "s.npz"], "give a name with .json by -o"),
        (["-o", "x.json"], "x.npz is the same file as the input x.npz"),
        (["-o", "net.onnx"], "is the same file as the input net.onnx"),
        (["-o", "no/s.json"], "The folder no does not exist"),
        (["--statistics", "missing.npz"], "There is no file missing.npz"),
        (["--statistics", "x.npz"], "x.npz does not hold statistics"),
        (["--statistics", "net.onnx"], "net.onnx is not an .npz file"),
        (["--seed", "-3"], "--seed is -3"),
    ],
)
def test_bad_options(more: list[str], message: str, here: Path) -> None:
    assert message in refused(*SCORING, *more)


def test_neither_samples_nor_statistics(here: Path) -> None:
    assert refused("score", "net.onnx").startswith("Scores are made from samples: give --data, or --statistics")


@pytest.fixture
def saved(here: Path) -> Path:
    """Statistics for one score."""
    calibrate("fisher", "f.npz", "--seed", "2")
    return here


def test_statistics_are_not_overwritten(saved: Path) -> None:
    told = refused("score", "net.onnx", "--statistics", "f.npz", "--score", "fisher", "-o", "f.json")
    assert told.startswith("f.npz is the same file as the input f.npz")


def test_statistics_and_their_samples(saved: Path) -> None:
    done(*SCORING, "--statistics", "f.npz", "--score", "fisher", "-o", "s.json", "--seed", "2")
    MLP.save_samples(Path("x.npz"), SAMPLES, seed=9)
    told = refused(*SCORING, "--statistics", "f.npz", "--score", "fisher")
    assert told == "f.npz was made with other samples than those of --data: give the same, or leave --data out."


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--score", "kfac"], "was made with --score fisher, which is not enough for --score kfac: make it again"),
        (["--score", "fisher", "--labels"], "which is not enough for --score fisher --labels"),
        (["--score", "fisher@outputs"], "which is not enough for --score fisher@outputs"),
        (["--score", "fisher", "--seed", "0"], "was made with --seed 2"),
        (["--score", "fisher", "--recipe", "r.json"], "--recipe is of no use without samples"),
    ],
)
def test_statistics_of_something_else(more: list[str], message: str, saved: Path) -> None:
    assert message in refused("score", "net.onnx", "--statistics", "f.npz", *more)


def test_what_was_observed_for_one_score_may_do_for_another(saved: Path) -> None:
    for name in ("taylor", "fisher-adam", "magnitude", "random"):
        done("score", "net.onnx", "--statistics", "f.npz", "--score", name, "-o", "a.json")
        done(*SCORING, "--seed", "2", "--score", name, "-o", "b.json")
        assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_statistics_of_another_model(saved: Path) -> None:
    MLP.save(Path("net.onnx"), seed=1)
    told = refused("score", "net.onnx", "--statistics", "f.npz", "--score", "fisher")
    assert told.startswith("f.npz is of another model: ")


def test_a_truncated_file(saved: Path) -> None:
    Path("f.npz").write_bytes(Path("f.npz").read_bytes()[:-100])
    told = refused("score", "net.onnx", "--statistics", "f.npz", "--score", "fisher")
    assert told == "f.npz is not an .npz file, or it is truncated or damaged: copy or save it again."


def test_statistics_whose_shapes_fit_each_other_but_not_the_model(saved: Path) -> None:
    stored = store.load(Path("f.npz"))
    (one, *_) = stored.whole.values()
    for name in stored.whole:
        mixed = {**stored.whole, name: type(one)(*(np.ones(3) for _ in range(3)), 4, {})}
        store.save(Path("g.npz"), store.Statistics.of(stored.header, stored.held, {0: mixed}))
        told = refused("score", "net.onnx", "--statistics", "g.npz", "--score", "fisher")
        assert "do not fit" in told or "does not give one number" in told


def test_answers_that_are_no_numbers(here: Path) -> None:
    save(NOT_A_NUMBER, SAMPLES)
    done(*SCORING, "-o", "s.json")  # what the score looks at is finite


def test_numbers_that_overflow_are_told(here: Path) -> None:
    random = np.random.default_rng(0)
    np.savez("x.npz", x=random.uniform(-3e38, 3e38, (SAMPLES, 24)).astype(np.float32))
    with np.errstate(all="ignore"):
        assert "NaN or infinite values at 'n_c'" in refused(*SCORING, "--workers", "1")


# --- lists that must be kept ------------------------------------------------------------------------------------------


def test_every_score_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    table = text.split("## Which there are")[1].split("**Gradients**")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|(?:[^|]*)\| (yes)? ?\|", table, re.MULTILINE)
    assert [name for name, _ in listed] == list(BUILT_IN)


def test_the_gradients_that_the_table_promises(here: Path) -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w-]+)` \|(?:[^|]*)\| (yes)? ?\|", text, re.MULTILINE))
    for name in BUILT_IN:
        calibrate(name, "s.npz", "--shard", "16/16")
        assert bool(store.load(Path("s.npz")).header.losses) == (listed[name] == "yes"), name


@pytest.mark.parametrize("field", ["Scores", "Groups"])
def test_fields_are_documented(field: str) -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8").split("## Files")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    if field == "Scores":
        assert rows.keys() == {*Scores.__dataclass_fields__, "format"}
    else:
        assert set(re.findall(r"`(\w+)`", rows["groups"])) == set(GroupScores.__dataclass_fields__)


def test_a_wrong_plug_in_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        name = "short"

        def needs(self, *_: object) -> tuple[()]:
            return ()

        def score(self, *_: object) -> np.ndarray:
            return np.zeros(3)

    monkeypatch.setattr(scoring, "find", lambda *_: Short())
    monkeypatch.setattr("edgepress.pipeline.calibrating.find", lambda *_: Short())
    assert "The score short does not give one number for each of the 48 channels of n_a" in refused(*SCORING)


def test_help_needs_no_model() -> None:
    for command in ("calibrate", "merge", "score"):
        assert run(command, "--help").exit_code == 0
