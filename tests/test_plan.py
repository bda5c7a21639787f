"""Plan: what is written is read again, and whatever else is in the file is said in one sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.errors import PlanError
from edgepress.plan import FORMAT, Coding, Cut, Plan, Quantization

few = settings(deadline=None, max_examples=40, derandomize=True)
NAMES = st.text(min_size=1, max_size=12)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Cut, ...]:
    found = []
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        size = draw(st.integers(1, 99))
        removed = draw(st.lists(st.integers(0, size - 1), max_size=size - 1, unique=True))
        found.append(Cut(name, size, tuple(sorted(removed))))
    return tuple(found)


QUANTIZATIONS = st.builds(
    Quantization,
    ranges=st.sampled_from(["minmax", "percentile"]),
    percentile=st.floats(51, 100),
    float_nodes=st.lists(NAMES, max_size=3).map(tuple),
    weight_limit=st.sampled_from([64, 127]),
    repair=st.booleans(),
    compute=st.sampled_from(["int8", "float"]),
    levels=st.dictionaries(NAMES, st.integers(3, 255), max_size=3),
    given_ranges=st.dictionaries(
        NAMES, st.tuples(st.floats(-9, 9), st.floats(-9, 9)).map(lambda pair: (min(pair), max(pair))), max_size=3
    ),
    given_scales=st.dictionaries(NAMES, st.lists(st.floats(1e-9, 9), min_size=1, max_size=4).map(tuple), max_size=3),
)
STEPS = st.dictionaries(NAMES, st.floats(1e-30, 1e30), max_size=3)
CODINGS = st.builds(Coding, steps=STEPS, tables=STEPS, rate=st.floats(0, 9))
NOTES = st.dictionaries(NAMES, st.one_of(st.integers(), st.text(), st.booleans(), st.floats(-9, 9)), max_size=3)
PLANS = st.builds(
    Plan, st.text("0123456789abcdef", min_size=64, max_size=64), NAMES, cuts(), st.none() | QUANTIZATIONS,
    st.integers(0, 2**40), NOTES, NOTES,
)  # fmt: skip

FULL = Plan(
    "a" * 64, "b" * 64, (Cut("conv1", 8, (0, 3)),), Quantization("percentile", 99.9, ("fc",), 64, False, "float"), 3,
    {"rows": 16_000}, {"version": "0.1"},
)  # fmt: skip


CODED = Plan("a" * 64, "b" * 64, FULL.cuts, coding=Coding({"conv1": 0.25, "fc": 0.5}, {"table": 0.125}, 0.12))


@few
@given(PLANS, st.none() | CODINGS)
def test_round_trip(plan: Plan, coding: Coding | None) -> None:
    if coding is not None:  # one or the other
        plan = dataclasses.replace(plan, quantization=None, coding=coding)
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == text
    assert json.loads(text)["format"] == FORMAT


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    path.write_text(FULL.to_json(), encoding="utf-8")
    assert Plan.load(path) == FULL
    assert Plan.from_json(Plan("a").to_json()) == Plan("a")
    assert Plan.from_json(CODED.to_json()) == CODED


def test_the_file_can_be_read_by_people() -> None:
    lines = FULL.to_json().splitlines()
    assert len(lines) > 20
    assert '"format": "edgepress-plan/1"' in lines[1]
    assert FULL.to_json().endswith("}\n")


def edited(plan: Plan = FULL, /, **changes: Any) -> str:
    """A plan with fields replaced; ``...`` takes one out; ``a__b`` is b in a (in the first entry of a list)."""
    raw = json.loads(plan.to_json())
    for key, value in changes.items():
        place, *inner = key.split("__")
        target = raw if not inner else raw[place]
        target = target[0] if isinstance(target, list) else target
        name = inner[0] if inner else place
        if value is ...:
            del target[name]
        else:
            target[name] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    "name", ["model_sha256", "data_sha256", "cuts", "quantization", "seed", "settings", "provenance"]
)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(PlanError, match=f"wrong or missing field.*{name}"):
        Plan.from_json(edited(**{name: ...}))


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "green"},
        {"quantization__given_ranges": {"x": [1, 0]}},
        {"quantization__given_ranges": {"x": [0, 1, 2]}},
        {"quantization__given_ranges": {"x": 3}},
        {"quantization__given_ranges": {"x": [0, float("inf")]}},
        {"quantization__given_ranges": ["x"]},
        {"quantization__given_scales": {"x": []}},
        {"quantization__given_scales": {"x": [0.0]}},
        {"quantization__given_scales": {"x": ["1"]}},
        {"model_sha256": 5},
        {"data_sha256": None},
        {"seed": "three"},
        {"seed": True},
        {"seed": -1},
        {"seed": 1.5},
        {"settings": []},
        {"provenance": "mine"},
        {"cuts": None},
        {"cuts": 3},
        {"cuts": ["conv1"]},
        {"cuts__group": ...},
        {"cuts__size": ...},
        {"cuts__removed": ...},
        {"cuts__group": 7},
        {"cuts__size": "8"},
        {"cuts__removed": "03"},
        {"cuts__removed": [0, 0]},
        {"cuts__removed": [-1]},
        {"cuts__removed": [1.0]},
        {"cuts__removed": [8]},
        {"cuts__removed": [0, 1, 2, 3, 4, 5, 6, 7]},
        {"quantization": []},
        {"quantization": "int8"},
        {"quantization__bits": 4},
        {"quantization__float_nodes": ...},
        {"quantization__float_nodes": "fc"},
        {"quantization__float_nodes": [1]},
        {"quantization__ranges": "guess"},
        {"quantization__percentile": "high"},
        {"quantization__percentile": 12},
        {"quantization__weight_limit": 0},
        {"quantization__weight_limit": 128},
        {"quantization__weight_limit": 12.5},
        {"quantization__repair": "yes"},
        {"quantization__compute": "int4"},
    ],
    ids=str,
)
def test_wrong_fields_are_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_json(edited(**changes), source="mine.json")
    assert str(caught.value).startswith("mine.json has a wrong or missing field")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"coding": []},
        {"coding": "fine"},
        {"coding": 0.5},
        {"coding__bits": 4},
        {"coding__steps": None},
        {"coding__steps": ["conv1"]},
        {"coding__steps": {"conv1": 0}},
        {"coding__steps": {"conv1": -0.25}},
        {"coding__steps": {"conv1": "0.25"}},
        {"coding__steps": {"conv1": [0.25]}},
        {"coding__steps": {"conv1": True}},
        {"coding__steps": {"conv1": None}},
        {"coding__steps": {"conv1": float("inf")}},
        {"coding__steps": {"conv1": float("nan")}},
        {"coding__tables": {"table": 0.0}},
        {"coding__tables": {"table": float("nan")}},
        {"coding__tables": 3},
        {"coding__rate": -0.1},
        {"coding__rate": "0.1"},
        {"coding__rate": True},
        {"coding__rate": None},
        {"coding__rate": float("inf")},
        {"coding__rate": float("nan")},
    ],
    ids=str,
)
def test_wrong_fields_of_a_coding_are_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_json(edited(CODED, **changes), source="mine.json")
    assert str(caught.value).startswith("mine.json has a wrong or missing field")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_coding_and_a_quantization_exclude_each_other() -> None:
    quantization = json.loads(FULL.to_json())["quantization"]
    with pytest.raises(PlanError, match="exclude each other"):
        Plan.from_json(edited(CODED, quantization=quantization))


@pytest.mark.parametrize("name", ["steps", "tables", "rate"])
def test_what_a_coding_leaves_out_is_as_by_default(name: str) -> None:
    found = Plan.from_json(edited(CODED, **{f"coding__{name}": ...})).coding
    assert found is not None and getattr(found, name) == getattr(Coding(), name)


def test_plans_from_before_codings_are_read() -> None:
    assert Plan.from_json(edited(coding=...)) == FULL


def test_a_group_twice_is_wrong() -> None:
    raw = json.loads(FULL.to_json())
    raw["cuts"] *= 2
    with pytest.raises(PlanError, match="twice"):
        Plan.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON .line 1."),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not an edgepress-plan/1 file"),
        ("3", "is not an edgepress-plan/1 file"),
        ("{}", "is not an edgepress-plan/1 file"),
        (json.dumps({"format": "edgepress-plan/2"}), "is not an edgepress-plan/1 file"),
        (json.dumps({"format": FORMAT}), "wrong or missing field"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_plan(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("nothing.json", "binary.json", "."):
        with pytest.raises(PlanError, match="cannot be read as a plan"):
            Plan.load(tmp_path / name)


def test_a_plan_belongs_to_one_model() -> None:
    FULL.check_model("a" * 64)
    with pytest.raises(PlanError, match=r"another model \(sha256 aaaaaaaaaaaa, this one is cccccccccccc\)"):
        FULL.check_model("c" * 64)
