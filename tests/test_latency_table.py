"""Measured latency: nodes alone compute what they do in their model, tables are exact on their grids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from group_models import TOYS, feed
from onnx import shape_inference
from quantize_tools import kernel, parse

from edgepress import runtime
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.planner import Clock, LatencyTable, measure_latency, timing
from edgepress.planner.cost import Axis
from edgepress.planner.grid import shrinking
from edgepress.planner.latency import LayerTimes, never_less
from edgepress.planner.macs import work_of
from edgepress.planner.single import Single
from edgepress.planner.widths import KEEP
from edgepress.surgery.cut import cut


def inferred(model: Model) -> Model:
    """With all shapes stated, as normalizing leaves them."""
    return Model.of(shape_inference.infer_shapes(model.edit()))


def pointwise(*widths: int, pixels: int = 4) -> Model:
    """A chain of 1x1 convolutions with Relu between them."""
    body, name, arrays = "", "x", {}
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        made = "y" if number == len(widths) - 2 else f"a{number}"
        arrays[f"w{number}"] = kernel(after, before, 1, 1)
        body += f"{made} = Conv<kernel_shape=[1,1]>({name}, w{number})\n"
        if made != "y":
            body += f"r{number} = Relu({made})\n"
            name = f"r{number}"
    outputs = f"float[N,{widths[-1]},{pixels},{pixels}] y"
    return inferred(parse(body, x=f"N,{widths[0]},{pixels},{pixels}", outputs=outputs, arrays=arrays))


# --- the table ----------------------------------------------------------------------------------------------------

A, B = Axis(64, (("a", 1),)), Axis(160, (("b", 4), ("c", 2)))
GRID = (np.array([8, 24, 64]), np.array([16, 160]))
TIMES = np.array([[1.0, 4.0], [2.0, 8.0], [5.0, 9.0]])
LAYER = LayerTimes("layer", (A, B), GRID, TIMES)


def removed(a_left: int, b_left: int) -> dict[str, int]:
    """Channels that leave these lengths."""
    return {"a": 64 - a_left, "b": (160 - b_left) // 8, "c": (160 - b_left) // 4}


@pytest.mark.parametrize("column", range(2))
@pytest.mark.parametrize("row", range(3))
def test_a_table_is_exact_on_its_grid(row: int, column: int) -> None:
    assert LAYER(removed(GRID[0][row], GRID[1][column])) == TIMES[row, column]


def test_a_table_is_linear_along_every_axis_between() -> None:
    assert LAYER(removed(16, 160)) == pytest.approx(6.0)
    assert LAYER(removed(64, 88)) == pytest.approx(7.0)
    assert LAYER(removed(16, 88)) == pytest.approx((1 + 2 + 4 + 8) / 4)
    corner = LAYER(removed(40, 64))
    by_rows = [np.interp(40, GRID[0], TIMES[:, column]) for column in range(2)]
    assert corner == pytest.approx(np.interp(64, GRID[1], by_rows))


def test_a_table_is_constant_beyond_its_ends() -> None:
    assert LAYER(removed(1, 160)) == 4.0 and LAYER(removed(8, 0)) == 1.0
    alone = LayerTimes("constant", (), (), np.array(3.0))
    assert alone({}) == alone({"a": 5}) == 3.0


@pytest.mark.parametrize("seed", range(5))
def test_more_channels_never_take_less(seed: int) -> None:
    times = np.random.default_rng(seed).random((4, 3, 2))
    found = never_less(times)
    for place in np.ndindex(times.shape):
        assert found[place] == times[tuple(slice(start, None) for start in place)].min()
    assert (never_less(found) == found).all()


@pytest.mark.parametrize(("whole", "rest", "scale"), [(12.0, 3.0, 1.0), (9.0, 0.5, 8.5 / 9), (4.5, 0.5, 4 / 9)])
def test_the_rest_is_what_layers_leave_and_they_never_exceed_the_whole(whole: float, rest: float, scale: float) -> None:
    table = LatencyTable.of([LAYER], whole, start=0.5)
    assert table.rest == pytest.approx(rest) and table.scale == pytest.approx(scale)
    assert table({}) == pytest.approx(whole) and table.ratio({}) == 1
    assert table(removed(24, 16)) == pytest.approx(rest + scale * 2.0)


def test_without_layers_all_is_rest() -> None:
    assert LatencyTable.of([], 2.0, start=0.5).ratio({"a": 3}) == 1


# --- nodes alone --------------------------------------------------------------------------------------------------

SEVERAL = [
    "residual", "squeeze_excite", "channel_shuffle", "grouped", "flatten_chain", "mlp", "left_matmul",
    "shared_weights", "depthwise_multiplier", "one_dimensional", "transposed", "transposed_grouped", "resnext",
    "densenet", "inception", "lstm", "lstm_bidirectional", "gru",
]  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_node_alone_computes_what_it_does_in_the_cut_model(name: str, share: float) -> None:
    model = inferred(TOYS[name].build())
    grouping = find_groups(model, {"N": 1})  # recurrent layers have the batch behind the time
    gone = {group.name: range(int(share * group.size)) for group in grouping.prunable}
    whole = inferred(cut(model, grouping, gone).model)
    inputs = feed(model, 1, 0)
    tried = 0
    for node in model.nodes:
        single = Single.of(model, grouping, node) if any(item in model.constants for item in node.inputs) else None
        if single is None:
            continue
        alone, made = single.at(gone)
        inner = [tensor for tensor in made if tensor not in model.inputs]
        values = runtime.run(runtime.session(whole.exposing([*inner, node.output])), inputs)
        given = {tensor: values.get(tensor, inputs.get(tensor)) for tensor in made}
        assert {tensor: made[tensor].shape for tensor in made} == {t: v.shape for t, v in given.items()}  # type: ignore[union-attr]
        (found,) = runtime.run(runtime.session(alone.data), given, [node.output]).values()  # type: ignore[arg-type]
        np.testing.assert_allclose(found, values[node.output], rtol=1e-4, atol=1e-5)
        tried += 1
    assert tried


def test_a_node_that_reads_other_things_than_floats_does_not_run_alone() -> None:
    body = "i = ArgMax<axis=1,keepdims=0>(x)  y = Gather(w, i)"
    model = inferred(parse(body, x="N,5", outputs="float[N,4] y", w=kernel(5, 4)))
    assert Single.of(model, find_groups(model), model.nodes[1]) is None


# --- measuring ----------------------------------------------------------------------------------------------------


def test_the_grid_spans_all_widths_in_multiples() -> None:
    model = pointwise(3, 64, 40, 5)
    grouping = find_groups(model)
    groups = grouping.prunable
    first, second, third = shrinking(model, grouping, groups)
    assert [len(layer.spans) for layer in (first, second, third)] == [1, 2, 1]
    (lengths,) = first.at_points(groups, 8, 5).grid
    assert lengths[0] == 8 and lengths[-1] == 64 and len(lengths) == 5 and (lengths % 8 == 0).all()
    rows = second.at_points(groups, 8, 3).grid
    assert sorted((row[0], row[-1]) for row in rows) == [(8, 40), (8, 64)]
    assert first.at_points(groups, 8, 2).grid[0].tolist() == [8, 64]
    assert KEEP * 64 <= 8


def test_axes_that_share_a_group_are_one() -> None:
    body = """a = Conv<kernel_shape=[1,1]>(x, w0)  r = Relu(a)  b = Conv<kernel_shape=[1,1]>(r, w1)
        s = Add(r, b)  y = Conv<kernel_shape=[1,1]>(s, w2)"""
    arrays = {"w0": kernel(16, 3, 1, 1), "w1": kernel(16, 16, 1, 1), "w2": kernel(5, 16, 1, 1)}
    model = inferred(parse(body, x="N,3,4,4", outputs="float[N,5,4,4] y", arrays=arrays))
    grouping = find_groups(model)
    (group,) = (item for item in grouping.groups if not item.pinned)  # a stream: it may shrink, if not by default
    middle = shrinking(model, grouping, [group])[1]
    assert [span.names for span in middle.spans] == [{group.name}]
    layer = middle.at_points([group], 4, 3)
    for state, length in zip(layer.states(), layer.grid[0], strict=True):
        assert middle.single.at({name: range(count) for name, count in state.items()})[0].constants["w1"].shape[:2] == (
            length,
            length,
        )


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs take a microsecond for every weight, and opening a model is noted: by its number of weights."""
    opened: list[int] = []

    def note(model: Model, feed: Mapping[str, np.ndarray], clock: Clock) -> Callable[[], object]:
        opened.append(model.parameters)
        return lambda: model.parameters

    def weigh(runners: Sequence[Callable[[], Any]], clock: Clock, seconds: float) -> np.ndarray:
        return np.array([1.0 + 0.001 * run() for run in runners])

    monkeypatch.setattr(timing, "_opened", note)
    monkeypatch.setattr(timing, "_best", weigh)
    return opened


def table_of(model: Model, multiple: int = 8, **clock: Any) -> LatencyTable:
    grouping = find_groups(model)
    return measure_latency(model, grouping, grouping.prunable, multiple, feed(model, 1, 0), Clock(**clock))


def test_what_was_measured_stands_in_the_table(weighed: list[int]) -> None:
    model = pointwise(3, 64, 40, 5)
    first, second = (group.name for group in find_groups(model).prunable)
    table = table_of(model)
    assert [table.rest, table.scale] == pytest.approx([1.0, 1.0])  # a start, and nothing but layers
    assert [layer.node for layer in table.layers] == [work.node for work in work_of(model)]
    for kept, other in itertools.product(table.layers[1].grid[0], table.layers[1].grid[1]):
        a, b = (kept, other) if table.layers[1].axes[0].groups[0][0] == first else (other, kept)
        weights = 3 * a + a * b + 5 * b
        assert a in table.layers[0].grid[0] and b in table.layers[2].grid[0]
        assert table({first: 64 - a, second: 40 - b}) == pytest.approx(1 + 0.001 * weights)


def test_layers_of_the_same_shape_are_timed_once(weighed: list[int]) -> None:
    table = table_of(pointwise(3, 32, 32, 32, 32, 5))
    assert len(table.layers) == 5
    points = timing.GRIDS[0]
    axis = len({8 * -(-int(32 * share) // 8) for share in np.linspace(1, KEEP, points)})
    assert (
        len(weighed) <= 2 + axis + axis**2 + axis
    )  # nothing and the whole, the stem, one for all inner ones, the head


def test_slow_models_get_coarse_grids(weighed: list[int]) -> None:
    model = pointwise(3, 64, 64, 5)
    fine, coarse = (table_of(model, seconds=seconds) for seconds in (60.0, 0.0))
    assert fine.layers[0].times.size == timing.GRIDS[0]
    assert coarse.layers[0].times.size == timing.GRIDS[-1]


def test_times_of_this_machine() -> None:
    model = pointwise(16, 256, 256, 8, pixels=16)
    begin = perf_counter()
    table = table_of(model, seconds=1.0)
    assert perf_counter() - begin < 10
    half = {group.name: 128 for group in find_groups(model).prunable}
    assert 0 < table.rest < table({})
    assert table(half) < table({})
    assert table.ratio({name: 224 for name in half}) < 0.6
