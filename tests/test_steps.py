"""Steps of layers for a coded file: how their errors and bytes compare, and how a budget of them is looked for."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of
from pipeline_models import CLASSES, CONV, CONVNET, MAP, MLP, TIME_FIRST, UNKNOWN_OPERATOR, Small

from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.pipeline.context import Context
from edgepress.pipeline.prepare import context_of
from edgepress.pipeline.searching import first_accepted
from edgepress.pipeline.steps import LADDER, Table, root_mean_square, step_at, step_table, steps_of
from edgepress.planner.levels import allocate, predicted, total
from edgepress.quantize import has_float32_weight
from edgepress.quantize.weights.lattice import on_grid
from edgepress.request import Request

few = settings(deadline=None, max_examples=300, derandomize=True)
OCTAVE = 4
"""Places of the ladder that double a step."""

GROUPED = Small(
    f"""g (float[N,4,8,8] x) => (float[N,5] y) {{
    a = {CONV}(x,w1,b1)  r = Relu(a)  c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=4>(r,w2,b2)  s = Relu(c)
    e = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=16>(s,w4,b4)  q = Relu(e)
    p = GlobalAveragePool(q)  f = Flatten(p)  y = Gemm<transB=1>(f,w3,b3) }}""",
    {"w1": (16, 4, 3, 3), "b1": (16,), "w2": (16, 4, 3, 3), "b2": (16,), "w4": (16, 1, 3, 3), "b4": (16,)} | CLASSES,
    {"x": (4, 8, 8)},
)

WEIGHTLESS = Small(
    "g (float[N,3,8,8] x) => (float[N,3] y) { r = Relu(x)  p = GlobalAveragePool(r)  y = Flatten(p) }", {}
)

NETS = {
    "conv": CONVNET,
    "map": MAP,
    "mlp": MLP,
    "grouped": GROUPED,
    "recurrent": TIME_FIRST,
    "unknown operator": UNKNOWN_OPERATOR,
    "weightless": WEIGHTLESS,
}


@cache
def opened(name: str) -> tuple[Context, Model]:
    """A small network, cleaned, with samples."""
    request = Request(Path("net.onnx"), None, None, dry_run=True, workers=1, coded=True)
    cleaned = normalize(Model.of(NETS[name].proto()), []).model
    return context_of(request, cleaned, feed_of(cleaned, NETS[name].arrays(120)))[0], cleaned


@cache
def table_of(name: str) -> Table:
    """Steps of all nodes, as ``compress`` asks for them."""
    context, model = opened(name)
    classifies = name not in ("map", "recurrent")
    return step_table(context, model, [node.name for node in model.nodes], classifies=classifies)


def numbers_of(name: str, node: str) -> int:
    model = opened(name)[1]
    return int(model.constants[model.node(node).inputs[1]].size)


# --- the table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("conv", ["n_a", "n_c", "n_y"]),
        ("map", ["n_a", "n_c", "n_y"]),
        ("mlp", ["n_a", "n_c", "n_y"]),
        ("grouped", ["n_a", "n_c", "n_y"]),  # a depthwise convolution has no least-squares form
        ("recurrent", ["n_y"]),
        ("unknown operator", []),
        ("weightless", []),
    ],
)
def test_layers_that_can_be_rounded_are_in_the_table(name: str, nodes: list[str]) -> None:
    table = table_of(name)
    assert list(table) == nodes
    assert all(list(widths) == list(range(len(LADDER))) for widths in table.values())


def test_only_nodes_that_are_named_and_have_weights() -> None:
    context, model = opened("mlp")
    named = [node.name for node in model.nodes if node.op != "Gemm" or node.name == "n_c"]
    assert list(step_table(context, model, named, classifies=True)) == ["n_c"]
    assert step_table(context, model, [], classifies=True) == {}


@pytest.mark.parametrize("name", ["conv", "map", "mlp", "grouped", "recurrent"])
def test_coarser_steps_lose_more_in_fewer_bytes(name: str) -> None:
    for node, widths in table_of(name).items():
        errors, sizes = [width.error for width in widths.values()], [width.size for width in widths.values()]
        assert min(errors) > 0 and errors[-1] > 30 * errors[0]
        assert all(coarse > fine for fine, coarse in zip(errors[:-OCTAVE], errors[OCTAVE:-OCTAVE], strict=False))
        assert all(coarse < fine for fine, coarse in zip(sizes[:-OCTAVE], sizes[OCTAVE:], strict=True))
        if numbers_of(name, node) > 400:
            assert all(coarse < fine for fine, coarse in pairwise(sizes))


@pytest.mark.parametrize("name", ["conv", "mlp"])
def test_fine_steps_lose_by_the_square_and_take_a_bit_for_each_half(name: str) -> None:
    """The law of uniform steps: error D^2 / 12, entropy h - log2 D; with errors that follow it only on average."""
    for node, widths in table_of(name).items():
        if (count := numbers_of(name, node)) > 400:
            assert widths[0].size - widths[OCTAVE].size == pytest.approx(count / 8, rel=0.2)
            slope = np.polyfit(np.arange(9), np.log2([widths[place].error for place in range(9)]), 1)[0]
            assert OCTAVE * slope == pytest.approx(2, abs=0.6)


def test_more_bytes_are_foreseen_to_lose_less() -> None:
    table = table_of("mlp")
    finest = total(table, dict.fromkeys(table, 0))
    budgets = [round(finest / 1.3**place) for place in range(12, -1, -1)]
    found = [allocate(table, budget) for budget in budgets]
    assert all(total(table, places) <= budget for places, budget in zip(found, budgets, strict=True))
    errors = [predicted(table, places) for places in found]
    assert all(more < less for less, more in pairwise(errors)) and errors[-1] < 0.05 * errors[0]


def test_the_same_table_twice() -> None:
    context, model = opened("conv")
    assert step_table(context, model, [node.name for node in model.nodes], classifies=True) == table_of("conv")


def test_groups_of_a_convolution_count_together() -> None:
    """Bytes of a quarter of the weights four times: as many as those of a plain convolution with as many weights."""
    widths = table_of("grouped")["n_c"]
    assert numbers_of("grouped", "n_c") == numbers_of("grouped", "n_a") == 576
    assert widths[0].size == pytest.approx(table_of("grouped")["n_a"][0].size, rel=0.1)


# --- steps -----------------------------------------------------------------------------------------------------


def test_steps_are_shares_of_the_root_mean_square_on_the_grid_of_the_coder() -> None:
    model = opened("conv")[1]
    found = steps_of(model, {"n_a": 0, "n_c": len(LADDER) - 1})
    for name, share in (("n_a", LADDER[0]), ("n_c", LADDER[-1])):
        weight = model.constants[model.node(name).inputs[1]].astype(np.float64)
        wanted = share * np.sqrt(np.square(weight).mean())
        assert found[name] == pytest.approx(wanted, rel=2 ** (1 / 128) - 1 + 1e-6)
        assert on_grid(np.array([found[name]]))[0] == np.float32(found[name])


def test_the_ladder_rises() -> None:
    assert all(second == pytest.approx(first * 2 ** (1 / OCTAVE)) for first, second in pairwise(LADDER))


def test_a_layer_of_zeros_has_a_step() -> None:
    model = opened("mlp")[1]
    tensor = model.node("n_c").inputs[1]
    empty = model.with_constants({tensor: np.zeros_like(model.constants[tensor])})
    assert root_mean_square(empty, "n_c") == 1.0
    assert step_at(empty, "n_c", 0.5) == 0.5
    assert has_float32_weight(empty, empty.node("n_c"))
    table = step_table(opened("mlp")[0], empty, ["n_c"], classifies=True)
    assert all(width.size == 0 and width.error == pytest.approx(0, abs=1e-12) for width in table["n_c"].values())


# --- looking for the first that is accepted ----------------------------------------------------------------------


def looked_for(threshold: int, count: int, guess: int, rounds: int, **more: int) -> tuple[int | None, list[int]]:
    """What is found where all places from a threshold on are accepted, and what was tried."""
    tried: list[int] = []

    def accepted(place: int) -> bool:
        tried.append(place)
        return place >= threshold

    return first_accepted(accepted, count, guess, rounds, **more), tried


def test_it_finds_what_a_linear_scan_finds() -> None:
    """Every threshold and every guess of up to 24 places, in as many trials as doubling and halving need."""
    for count in range(1, 25):
        most = 2 * int(np.ceil(np.log2(count + 1))) + 2
        for threshold in range(count + 1):
            wanted = next((place for place in range(count) if place >= threshold), None)
            for guess in range(count):
                for step in (1, 2, 4):
                    found, tried = looked_for(threshold, count, guess, 100, step=step)
                    assert found == wanted
                    assert len(set(tried)) == len(tried) <= most
                    assert all(0 <= place < count for place in tried)


@few
@given(st.data())
def test_few_rounds_find_a_place_that_is_accepted_or_none(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 500))
    refused = data.draw(st.integers(-1, count - 1))
    threshold = data.draw(st.integers(refused + 1, count))
    guess, rounds = data.draw(st.integers(-3, count + 3)), data.draw(st.integers(0, 12))
    step = data.draw(st.integers(1, 20))
    found, tried = looked_for(threshold, count, guess, rounds, step=step, refused=refused)
    assert len(tried) <= rounds and len(set(tried)) == len(tried)
    assert all(refused < place < count for place in tried)
    assert found is None or (found >= threshold and found in tried)
    assert found == min((place for place in tried if place >= threshold), default=None)
    if refused < guess < count and rounds >= 25:
        assert found == (threshold if threshold < count else None)


@pytest.mark.parametrize("distance", [0, 1, 3, 10, 60])
def test_a_good_guess_takes_few_trials(distance: int) -> None:
    found, tried = looked_for(500 + distance, 1000, 500, 100)
    assert found == 500 + distance
    assert len(tried) <= 3 + 2 * np.log2(distance + 2)
