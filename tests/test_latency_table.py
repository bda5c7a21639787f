"""Measured latency: nodes alone compute what they do in their model, tables are exact on their grids."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import pytest
from group_models import TOYS, feed
from invented import MACHINE
from onnx import shape_inference
from quantize_tools import kernel, parse

from edgepress import runtime
from edgepress.bench import Machine, Timing
from edgepress.bench.here import Here
from edgepress.bench.meter import Meter, Small
from edgepress.devices import Level
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.planner import Clock, LatencyTable, measure_latency, timing
from edgepress.planner.cache import CostCache, cache_folder
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


def test_a_profile_says_what_lies_between() -> None:
    lengths, times = np.array([8, 16, 24, 48, 64]), np.array([1.0, 1.0, 3.0, 3.0, 4.0])
    alone = LayerTimes("layer", (A,), (np.array([8, 24, 64]),), np.array([1.0, 3.0, 4.0]), ((lengths, times),))
    assert [alone({"a": 64 - length}) for length in (8, 16, 24, 48, 64)] == pytest.approx(times.tolist())
    both = LayerTimes("layer", (A, B), GRID, TIMES, ((lengths, times), (GRID[1], TIMES[-1])))
    assert both(removed(24, 16)) == 2.0 and both(removed(64, 160)) == 9.0
    assert both(removed(16, 160)) == pytest.approx(6.0 * 1.0 / 2.0)  # half-way is linear, the step is not


def test_whole_models_bring_layers_together() -> None:
    half = removed(24, 16)
    table = LatencyTable.of([LAYER], [({}, 12.0), (half, 5.0)])
    assert table({}) == pytest.approx(12.0) and table(half) == pytest.approx(5.0) and table.ratio({}) == 1
    between = removed(24, 160)
    assert LAYER(between) == 8.0 and table(between) == pytest.approx(5 + 7 * (8 - 2) / (9 - 2))
    assert table(removed(8, 16)) == pytest.approx(5.0)


@pytest.mark.parametrize(("level", "kept"), [("measured", [5.0, 5.0]), ("counted", [6.0, 5.0])])
def test_only_times_can_have_been_disturbed(level: Any, kept: list[float]) -> None:
    table = LatencyTable.of([LAYER], [({}, 5.0), (removed(24, 16), 6.0)], level)
    assert list(table.wholes) == kept and table.level == level


def test_without_layers_nothing_shrinks() -> None:
    assert LatencyTable.of([], [({}, 2.0)]).ratio({"a": 3}) == 1


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


class Scales:
    """A device on which a run costs what a function of the sizes of weights says, and a start."""

    level: Level = "counted"
    spec = "scales"

    def __init__(self, cost: Callable[[Model], float] = lambda model: 0.001 * model.parameters) -> None:
        """``cost`` of a model, beside 1 for starting it."""
        self.cost = cost
        self.asked: list[Model] = []

    def machine(self) -> Machine:
        return MACHINE

    def compare(self, *arguments: Any, **settings: Any) -> Timing:
        raise NotImplementedError

    def best(self, groups: Sequence[Sequence[Small]], **settings: Any) -> list[np.ndarray]:
        models = [[Model.of(onnx.load_from_string(data)) for data, _ in group] for group in groups]
        self.asked += itertools.chain(*models)
        return [np.array([1.0 + self.cost(model) for model in group]) for group in models]


class Clocked(Scales):
    """The same, as times."""

    level: Level = "measured"


def table_of(
    model: Model, meter: Meter, multiple: int = 8, cache: CostCache | None = None, **clock: Any
) -> LatencyTable:
    grouping = find_groups(model)
    inputs = feed(model, 1, 0)
    return measure_latency(model, grouping, grouping.prunable, multiple, inputs, meter, Clock(**clock), cache)


@pytest.mark.parametrize("meter", [Scales(), Clocked()])
def test_what_was_measured_stands_in_the_table(meter: Scales) -> None:
    model = pointwise(3, 64, 40, 5)
    first, second = (group.name for group in find_groups(model).prunable)
    table = table_of(model, meter)
    assert [layer.node for layer in table.layers] == [work.node for work in work_of(model)]
    assert table.level == meter.level
    for kept, other in itertools.product(table.layers[1].grid[0], table.layers[1].grid[1]):
        a, b = (kept, other) if table.layers[1].axes[0].groups[0][0] == first else (other, kept)
        weights = 3 * a + a * b + 5 * b
        assert a in table.layers[0].grid[0] and b in table.layers[2].grid[0]
        assert table({first: 64 - a, second: 40 - b}) == pytest.approx(1 + 0.001 * weights)


def test_a_staircase_is_followed_between_the_points() -> None:
    """Kernels in blocks of 32 channels: 40 cost what 64 do, which a coarse grid alone does not see."""
    model = pointwise(3, 256, 5)
    (group,) = find_groups(model).prunable

    def blocks(made: Model) -> float:
        rounded = ([32 * -(-size // 32) for size in array.shape[:2]] for array in made.constants.values())
        return 1e-3 * sum(float(np.prod(sizes)) for sizes in rounded)

    table = table_of(model, Scales(blocks))
    assert len(table.layers[0].grid[0]) < 6 < len(table.layers[0].profiles[0][0])
    for width in table.layers[0].profiles[0][0]:
        steps = 2 * 32 * 32 * -(-width // 32)
        assert table({group.name: 256 - width}) == pytest.approx(1 + 1e-3 * steps)


def test_layers_of_the_same_shape_are_timed_once() -> None:
    meter = Scales()
    table = table_of(pointwise(3, 32, 32, 32, 32, 5), meter)
    assert len(table.layers) == 5
    points = timing.GRIDS[0][0]
    axis = len({8 * -(-int(32 * share) // 8) for share in np.linspace(1, KEEP, points)})
    most = 1 + timing.WHOLES + axis + axis**2 + axis  # nothing and wholes, the stem, one for all inner ones, the head
    assert len(meter.asked) <= most and table.taken >= len(meter.asked)


@pytest.mark.parametrize("meter", [Scales(), Clocked()])
def test_slow_models_get_coarse_grids(meter: Scales) -> None:
    model = pointwise(3, 64, 64, 5)
    fine, coarse = (table_of(model, meter, seconds=seconds) for seconds in (60.0, 0.0))
    assert fine.layers[0].times.size == timing.GRIDS[0][0]
    assert coarse.layers[0].times.size == timing.GRIDS[-1][0]
    assert fine.layers[0].profiles and not coarse.layers[0].profiles


def test_an_emulator_is_asked_for_less_the_longer_a_model_takes() -> None:
    model = pointwise(3, 64, 64, 5)
    quick, slow = Scales(lambda made: 1e-3 * made.parameters), Scales(lambda made: 10.0 * made.parameters)
    for meter in (quick, slow):
        table_of(model, meter)
    assert len(slow.asked) < len(quick.asked)


def test_times_of_this_machine() -> None:
    model = pointwise(16, 256, 256, 8, pixels=16)
    begin = perf_counter()
    table = table_of(model, Here(), seconds=1.0)
    assert perf_counter() - begin < 10
    half = {group.name: 128 for group in find_groups(model).prunable}
    assert 0 < table.wholes[0] < table({})
    assert table(half) < table({})
    assert table.ratio({name: 224 for name in half}) < 0.6


# --- what is known from before ------------------------------------------------------------------------------------

DEVICE = {"cpu": "invented", "part": "0xd08", "cores": 4, "machine": "aarch64", "flags": "abc"}


def opened(folder: Path, section: str = "counted, onnxruntime 1.31.1, 1 threads", **changes: Any) -> CostCache:
    return CostCache.open(folder, {**DEVICE, **changes}, section)


def test_nothing_is_asked_twice_and_the_costs_are_the_same(tmp_path: Path) -> None:
    model, meter = pointwise(3, 64, 40, 5), Scales()
    before = table_of(model, meter, cache=opened(tmp_path))
    asked = len(meter.asked)
    after = table_of(model, meter, cache=opened(tmp_path))
    assert len(meter.asked) == asked > 0 and before.known == 0
    assert after.known == after.taken == before.taken
    half = {group.name: group.size // 2 for group in find_groups(model).prunable}
    assert after(half) == before(half) and after.wholes == before.wholes


def test_the_same_layer_of_another_model_is_known(tmp_path: Path) -> None:
    meter = Scales()
    table_of(pointwise(3, 64, 40, 5), meter, cache=opened(tmp_path))
    other = table_of(pointwise(3, 64, 40, 7), meter, cache=opened(tmp_path))
    assert 0 < other.known < other.taken


@pytest.mark.parametrize(
    "changes",
    [
        {"section": "counted, onnxruntime 1.32.0, 1 threads"},
        {"section": "measured, onnxruntime 1.31.1, 1 threads"},
        {"part": "0xd0b"},
        {"flags": "abd"},
        {"cores": 2},
    ],
)
def test_another_device_release_or_level_is_asked_anew(changes: dict[str, Any], tmp_path: Path) -> None:
    meter = Scales()
    table_of(pointwise(3, 16, 5), meter, cache=opened(tmp_path))
    assert table_of(pointwise(3, 16, 5), meter, cache=opened(tmp_path, **changes)).known == 0
    assert table_of(pointwise(3, 16, 5), meter, cache=opened(tmp_path)).known > 0


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b'{"format": "edgepress-costs/1"}',
        b'{"format": "edgepress-costs/0", "costs": {}}',
        b'{"format": "edgepress-costs/1", "costs": {"a": {"b": "1"}}}',
        b'{"format": "edgepress-costs/1", "costs": {"a": {"b": -1}}}',
        b'{"format": "edgepress-costs/1", "costs": {"a": {"b": NaN}}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_anew_and_said(content: bytes, tmp_path: Path) -> None:
    meter = Scales()
    table_of(pointwise(3, 16, 5), meter, cache=opened(tmp_path))
    (file,) = tmp_path.glob("costs-*.json")
    whole = file.read_bytes()
    file.write_bytes(content)
    table = table_of(pointwise(3, 16, 5), meter, cache=opened(tmp_path))
    assert table.known == 0 and "taken anew" in table.note and file.name in table.note
    assert file.read_bytes() == whole
    assert opened(tmp_path).note == "" and len(opened(tmp_path).known) > 0


def test_what_another_process_wrote_stays(tmp_path: Path) -> None:
    mine, theirs = opened(tmp_path), opened(tmp_path)
    theirs.add({"a": 1.0, "b": 2.0})
    mine.add({"b": 3.0, "c": 4.0})
    assert opened(tmp_path).known == {"a": 1.0, "b": 2.0, "c": 4.0}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".lock"}


def test_many_processes_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgepress.planner.cache import CostCache\n"
        "for n in range(8): CostCache.open(Path(sys.argv[1]), {'a': 1}, 's').add({f'{sys.argv[2]}/{n}': 1.0})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(CostCache.open(tmp_path, {"a": 1}, "s").known) == 24


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = table_of(pointwise(3, 16, 5), Scales(), cache=opened(tmp_path / "file"))
    assert "could not be kept" in table.note and "EDGEPRESS_CACHE" in table.note


def test_where_costs_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("EDGEPRESS_CACHE", "off")
    assert cache_folder() is None
    assert CostCache.open(None, DEVICE, "s").known == {}
    monkeypatch.delenv("EDGEPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgepress"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "edgepress"
