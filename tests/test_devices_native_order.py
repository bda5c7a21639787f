"""What the native runner asks of onnxruntime, and in which order: a stand-in for the library writes it down."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runner_tools import compiled

from edgepress.devices import Agent, Native, agent
from edgepress.devices.local import Local

SAMPLES = 3
MODELS = {"first": "a.onnx", "reference": "b.onnx", "third": "c.onnx"}
OPENED = ["a.onnx", "b.onnx", "b.onnx", "c.onnx"]
"""With the twin of the reference."""


@pytest.fixture(scope="module")
def fake(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Native:
    source, target = Path(__file__).with_name("fake_onnxruntime.c"), tmp_path_factory.mktemp("fake") / "fake.so"
    return Native(native.runner, compiled(shutil.which("cc") or "cc", source, target, "-shared", "-fPIC"))


def asked(fake: Native, job: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
    """The report, and what the library was asked for: what, of which model, number of the sample."""
    with Local("here") as device:
        device.python, device.native = None, fake
        host = Agent(device)
        host.send_feeds("f.npz", [{"x": np.zeros(1, np.float32)}] * SAMPLES)
        report = dict(host.perform({"feeds": "f.npz", **job}).report)
        rows = [line.split(" ") for line in host.fetch("log").decode().splitlines()]
    return report, [(what, which, int(number)) for what, which, number in rows]


def race(fake: Native, seed: int = 0, rounds: int = 8) -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
    job = {"task": "race", "models": MODELS, "reference": "reference", "seconds": 0.0, "min_rounds": rounds}
    return asked(fake, {**job, "seed": seed, "threads": 3})


def openings(rows: Sequence[tuple[str, str, int]]) -> list[list[tuple[str, str, int]]]:
    """Rows from the first session of an opening to the last that is closed."""
    found: list[list[tuple[str, str, int]]] = []
    opened = 0
    for row in rows:
        if row[0] in ("open", "close"):
            if row[0] == "open" and not opened:
                found.append([])
            opened += 1 if row[0] == "open" else -1
        if found and row[0] in ("open", "run"):
            found[-1].append(row)
    return found


def visits(report: dict[str, Any], opening: Sequence[tuple[str, str, int]], rounds: int) -> list[tuple[str, int]]:
    """Model and sample of every visit of an opening, which ends with them."""
    runs = {path: 1 + len(report["models"][name]["visits"][0]) for name, path in MODELS.items()}
    rows = opening[-rounds * sum(runs[path] for path in OPENED) :]
    found = []
    while rows:
        (_, path, sample), length = rows[0], runs[rows[0][1]]
        assert {row[1:] for row in rows[:length]} == {(path, sample)}
        found.append((path, sample))
        rows = rows[length:]
    return found


def test_a_race_opens_all_anew_and_visits_all_in_every_round(fake: Native) -> None:
    report, rows = race(fake)
    start, *found = openings(rows)
    assert [row[1] for row in start if row[0] == "open"] == ["b.onnx"]  # pays for starting
    assert len(found) == len(report["openings"]) >= agent.FEWEST_OPENINGS
    done = 0
    for opening, rounds in zip(found, report["openings"], strict=True):
        assert sorted(path for what, path, _ in opening if what == "open") == OPENED
        taken = visits(report, opening, rounds)
        assert len(taken) == rounds * len(OPENED)
        for number in range(rounds):
            one = taken[number * len(OPENED) : (number + 1) * len(OPENED)]
            assert sorted(path for path, _ in one) == OPENED
            assert {sample for _, sample in one} == {(done + number) % SAMPLES}
        done += rounds


def orders(report: dict[str, Any], opening: Sequence[tuple[str, str, int]], rounds: int) -> list[list[str]]:
    """The models in the order they were opened in, and in that of the first round."""
    first = visits(report, opening, rounds)[: len(OPENED)]
    return [[path for what, path, _ in opening if what == "open"], [path for path, _ in first]]


def test_the_order_is_another_in_every_round_and_the_seeds(fake: Native) -> None:
    found = []
    for seed in (0, 0, 1):
        report, rows = race(fake, seed)
        parts = zip(openings(rows)[1:], report["openings"], strict=True)
        found.append([orders(report, opening, rounds) for opening, rounds in parts])
    assert found[0][0] == found[1][0] != found[2][0]
    for openings_of_seed in found:
        assert len({tuple(opened) for opened, _ in openings_of_seed}) > 1
        assert any(opened != visited for opened, visited in openings_of_seed)


def test_every_session_is_opened_at_the_level_that_is_shipped_for(fake: Native) -> None:
    _, rows = race(fake)
    settings = [row for row in rows if row[0] in ("threads", "level", "entry")]
    wanted = [("threads", "", 3), ("level", "", 99), ("entry", "session.intra_op.allow_spinning", 0)]
    assert settings == wanted * (len(settings) // 3)
    assert len([row for row in rows if row[0] == "open"]) == len(settings) // 3


def test_models_of_a_group_take_turns(fake: Native) -> None:
    groups = [[{"model": f"{name}.onnx", "feeds": "f.npz"} for name in names] for names in ("ab", "c", "def")]
    job = {"task": "best", "groups": groups, "visit_ms": 0.0, "rounds": 4, "seconds": 100.0}
    report, rows = asked(fake, job)
    assert [len(group) for group in report["best_ms"]] == [2, 1, 3]
    runs = [path for what, path, _ in rows if what == "run"]
    for group, names in zip((list(item) for _, item in groupby(runs, _group)), ("ab", "c", "def"), strict=True):
        paths = [f"{name}.onnx" for name in names]
        assert group[: 2 * len(paths)] == paths * 2  # the first run, and how long one takes
        assert all(sorted(group[at : at + len(paths)]) == paths for at in range(0, len(group), len(paths)))
        assert len(group) == len(paths) * (2 + 4)


def _group(path: str) -> str:
    return {"a": "ab", "b": "ab", "c": "c"}.get(path[0], "def")


def test_runs_between_marks(fake: Native) -> None:
    _, rows = asked(fake, {"task": "count", "models": MODELS, "warmup": 3, "runs": 2})
    runs = [path for what, path, _ in rows if what == "run"]
    assert runs == [path for path in MODELS.values() for _ in range(3 + 2)]
