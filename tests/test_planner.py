"""Planner: costs as counted by hand, widths that a target rewards, sensitivities that only measure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from group_models import TOYS
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of
from onnx import helper
from planted import SIZE, mlp
from quantize_tools import CONV, kernel, parse

from edgepress import runtime
from edgepress.calibrate.run import collect
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.plan import Cut
from edgepress.planner import (
    Costs,
    FileSize,
    Ladder,
    Sensitivity,
    Widths,
    count_macs,
    measure,
    output_error,
    removed_channels,
)
from edgepress.planner.allocations.hybrid import HYBRID
from edgepress.planner.widths import KEEP
from edgepress.scores import Ranking, Redundancy
from edgepress.surgery.cut import cut
from edgepress.targets import TARGETS, Target

PLAIN = Target("plain", multiple=1, block=1, slope=1.0, weight_limit=127)
AVX2, VNNI = TARGETS["x64-avx2"], TARGETS["x64-vnni"]
B = kernel(99, 1).ravel()


def network() -> Model:
    """Conv 3>16 on 8x8, depthwise, Conv 16>32 with stride 2, Flatten, Gemm 32*16>10."""
    body = f"""a = {CONV}(x, w1, b1)  r = Relu(a)  d = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=16>(r, w2, b2)
        c = Conv<kernel_shape=[1,1],strides=[2,2]>(d, w3, b3)  s = Relu(c)  f = Flatten(s)
        y = Gemm<transB=1>(f, w4, b4)"""
    model = parse(body, x="N,3,8,8", outputs="float[N,10] y", w1=kernel(16, 3, 3, 3), b1=B[:16],
                  w2=kernel(16, 1, 3, 3), b2=B[:16], w3=kernel(32, 16, 1, 1), b3=B[:32], w4=kernel(10, 512),
                  b4=B[:10])  # fmt: skip
    return inferred(model)


def inferred(model: Model) -> Model:
    """With all shapes stated, as normalizing leaves them."""
    from onnx import shape_inference

    return Model.of(shape_inference.infer_shapes(model.edit()))


# --- costs -----------------------------------------------------------------------------------------------


def test_macs_of_every_layer_by_hand() -> None:
    model = network()
    wanted = [64 * 16 * 3 * 9, 64 * 16 * 9, 16 * 32 * 16, 10 * 512]
    assert list(count_macs(model).values()) == wanted
    costs = Costs.of(model, find_groups(model).prunable, PLAIN)
    assert costs.macs({}) == sum(wanted)
    assert costs.weights({}) == 16 * 27 + 16 * 9 + 32 * 16 + 10 * 512


def test_costs_after_removal_by_hand() -> None:
    model = network()
    first, second = find_groups(model).prunable
    assert (first.size, second.size) == (16, 32)
    costs = Costs.of(model, (first, second), PLAIN)
    removed = {first.name: 4, second.name: 12}
    assert costs.macs(removed) == pytest.approx(64 * 12 * 27 + 64 * 12 * 9 + 16 * 20 * 12 + 10 * 20 * 16)
    assert costs.weights(removed) == pytest.approx(12 * 27 + 12 * 9 + 20 * 12 + 10 * 20 * 16)


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "flatten_chain", "grouped"])
def test_costs_are_those_of_the_cut_model(name: str) -> None:
    model = inferred(TOYS[name].build())
    grouping = find_groups(model)
    removed = {group.name: list(range(group.size // 2)) for group in grouping.prunable}
    small = inferred(cut(model, grouping, removed).model)
    costs = Costs.of(model, grouping.groups, PLAIN)
    counts = {group: len(channels) for group, channels in removed.items()}
    assert costs.macs(counts) == pytest.approx(sum(count_macs(small).values()))
    weights = sum(small.constants[small.node(node).inputs[1]].size for node in count_macs(small))
    assert costs.weights(counts) == pytest.approx(weights)


def test_a_concatenation_pays_for_each_branch() -> None:
    body = """a = Conv<kernel_shape=[1,1]>(x, w1)  r = Relu(a)  b = Conv<kernel_shape=[1,1]>(x, w2)  s = Relu(b)
        j = Concat<axis=1>(r, s)  y = Conv<kernel_shape=[1,1]>(j, w3)"""
    arrays = {"w1": kernel(8, 3, 1, 1), "w2": kernel(4, 3, 1, 1), "w3": kernel(5, 12, 1, 1)}
    model = inferred(parse(body, x="N,3,2,2", arrays=arrays))
    left, right = find_groups(model).prunable
    costs = Costs.of(model, (left, right), PLAIN)
    assert costs.macs({left.name: 3, right.name: 2}) == pytest.approx(4 * (5 * 3 + 2 * 3 + 5 * (12 - 5)))


def test_matmul_counts_its_rows() -> None:
    model = inferred(parse("y = MatMul(x, w)", x="N,7,5", outputs="float[N,7,6] y", w=kernel(5, 6)))
    assert list(count_macs(model).values()) == [7 * 5 * 6]


@pytest.mark.parametrize(
    ("made", "macs"),
    [
        ('Einsum<equation="...i,ij->...j">(x, w)', 5 * 6 * 7),
        ('Einsum<equation="...i,ij">(x, w)', 5 * 6 * 7),
        ('Einsum<equation="bsi,bti->bst">(x, x)', 5 * 5 * 6),
        ("com.microsoft.FusedMatMul<alpha=0.5>(x, w)", 5 * 6 * 7),
        ("com.microsoft.FusedMatMul<transB=1>(x, x)", 5 * 5 * 6),
        ("com.microsoft.FusedMatMul<transA=1>(x, x)", 6 * 6 * 5),
    ],
)
def test_macs_of_other_products_by_hand(made: str, macs: int) -> None:
    proto = parse(f"y = {made}", x="N,5,6", outputs="float[N,A,B] y", w=kernel(6, 7)).edit()
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    shape = {210: (5, 7), 150: (5, 5), 180: (6, 6)}[macs]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["N", *shape]))
    assert list(count_macs(Model.of(proto)).values()) == [macs]


def test_work_that_is_not_counted_costs_the_same_at_any_width() -> None:
    costs = Costs.of(parse("y = Relu(x)", x="N,5", outputs="float[N,5] y"), (), PLAIN)
    assert costs.macs({}) == 0 and costs.blend({}) == 1


def test_staircase_follows_the_target_and_blend_is_one_for_the_whole_model() -> None:
    model = network()
    first, second = find_groups(model).prunable
    for target in (PLAIN, AVX2, VNNI):
        costs = Costs.of(model, (first, second), target)
        assert costs.staircase({}) == pytest.approx(costs.macs({}))
        assert costs.blend({}) == pytest.approx(1.0)
        removed = {second.name: 12}  # 20 of 32 stay
        share = target.effective_width(20) / target.effective_width(32)
        wanted = 64 * 16 * 27 + 64 * 16 * 9 + share * (16 * 32 * 16 + 10 * 512 * 1)
        gemm = 10 * 512 * target.effective_width(20 * 16) / target.effective_width(512)
        wanted += gemm - share * 10 * 512
        assert costs.staircase(removed) == pytest.approx(wanted)
        mean = (costs.staircase(removed) / costs.staircase({}) + costs.weights(removed) / costs.weights({})) / 2
        assert costs.blend(removed) == pytest.approx(mean)
    inside = Costs.of(model, (first, second), AVX2)
    assert inside.staircase({second.name: 1}) == pytest.approx(
        inside.staircase({}) - 10 * 512 + 10 * 496
    )  # 31 channels cost like 32, their pixels behind Flatten do not


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "flatten_chain", "grouped", "lstm", "normalized"])
def test_bytes_of_the_file_are_those_of_the_cut_model(name: str) -> None:
    model = inferred(TOYS[name].build())
    grouping = find_groups(model)
    removed = {group.name: list(range(group.size // 2)) for group in grouping.prunable}
    small = inferred(cut(model, grouping, removed).model)
    size = FileSize.of(model, grouping.prunable, model.size)
    assert size({}) == model.size
    counts = {group: len(channels) for group, channels in removed.items()}
    assert size(counts) == pytest.approx(small.size, abs=64)  # shapes and attributes are numbers, too
    assert model.size - small.size > 64


def test_bytes_of_weights_in_another_form_by_hand() -> None:
    model = network()
    first, second = find_groups(model).prunable
    stored = {"w1": 1.0, "w3": 0.5}  # 16x3x3x3 and 32x16x1x1
    size = FileSize.of(model, (first, second), 10_000, stored)
    lost = 4 * 27 * 1.0 + 4 * 4 + 4 * 4 + (4 * 9 + 4) * 4  # w1 with scales, b1, w2 and b2
    assert 10_000 - size({first.name: 4}) == pytest.approx(lost + 4 * 32 * 0.5)  # w3 reads them
    lost = 12 * 16 * 0.5 + 12 * 4 + 12 * 4 + 12 * 16 * 10 * 4  # w3 with scales, b3, w4 behind Flatten
    assert 10_000 - size({second.name: 12}) == pytest.approx(lost)


# --- the ladder ------------------------------------------------------------------------------------------


def group(name: str, size: int) -> Group:
    return Group(name, size, (), (name,), (f"after {name}",), None)


def ranking(size: int, costs: Sequence[float] | None = None, free: int = 0, seed: int = 0) -> Ranking:
    random = np.random.default_rng([seed, size])
    steps = np.sort(random.random(size)) ** 3 if costs is None else np.asarray(costs)
    steps = np.where(np.arange(size) < free, 0.0, steps)
    return Ranking(random.permutation(size), np.concatenate([[0.0], np.cumsum(steps)]), free, 1.0)


def ladder(
    sizes: Mapping[str, int], multiple: int, free: int = 0, seed: int = 0, sensitive: bool = True
) -> tuple[Ladder, Callable[[Mapping[str, int]], float]]:
    """A ladder over groups of these sizes, with a cost in which each channel of a group is worth the same."""
    groups = tuple(group(name, size) for name, size in sizes.items())
    random = np.random.default_rng(seed)
    worth = {name: float(random.integers(1, 9)) for name in sizes}
    rankings = {name: ranking(size, free=min(free, size - 1), seed=seed) for name, size in sizes.items()}
    halves = {name: rankings[name].free + (size - rankings[name].free) // 2 for name, size in sizes.items()}
    measured = {name: Sensitivity(name, half, float(random.random())) for name, half in halves.items()}

    def cost(removed: Mapping[str, int]) -> float:
        return sum(worth[name] * (size - removed.get(name, 0)) for name, size in sizes.items())

    costs = Costs((), PLAIN)
    return Ladder(groups, rankings, measured if sensitive else {}, costs, multiple), cost


def error(of: Ladder, removed: Mapping[str, int]) -> float:
    """The predicted error by its definition."""
    total = 0.0
    for name, count in removed.items():
        curve, sensitivity = of.rankings[name].cost, of.sensitivities[name]
        total += curve[count] * sensitivity.error / max(curve[sensitivity.half], 1e-300)
    return total


few = settings(deadline=None, max_examples=25, derandomize=True)
SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(2, 70), min_size=1, max_size=3)


@few
@given(SIZES, st.sampled_from([1, 4, 8, 16]), st.integers(0, 5), st.integers(0, 99))
def test_every_step_of_the_path_is_legal_cheaper_and_worse(
    sizes: dict[str, int], multiple: int, free: int, seed: int
) -> None:
    found, cost = ladder(sizes, multiple, free, seed)
    before = found.lossless()
    for state in HYBRID.path(found, cost):
        for name, count in state.removed.items():
            width = sizes[name] - count
            assert width % multiple == 0
            assert width >= max(multiple, KEEP * sizes[name])
            assert count >= before.removed.get(name, 0)
        assert sum(a != before.removed.get(name, 0) for name, a in state.removed.items()) == 1
        assert cost(state.removed) < cost(before.removed)
        assert state.predicted >= before.predicted - 1e-12
        assert state.predicted == pytest.approx(error(found, state.removed), abs=1e-12)
        before = state
    for name, size in sizes.items():  # the path ends where no group can lose another multiple
        left = size - before.removed.get(name, 0)
        smaller = multiple * ((left - 1) // multiple)
        assert smaller < max(multiple, KEEP * size)


def test_a_group_of_one_multiple_or_less_is_left_alone() -> None:
    found, cost = ladder({"a": 8, "b": 7, "c": 3}, 8)
    assert HYBRID.path(found, cost) == []


def test_lossless_goes_down_to_a_rewarded_width_only() -> None:
    for multiple, wanted in ((1, {"a": 5, "b": 5}), (4, {"a": 4, "b": 3}), (8, {"a": 4}), (32, {})):
        found, _ = ladder({"a": 20, "b": 7}, multiple, free=5)
        assert found.lossless() == Widths(wanted, 0.0)
    found, _ = ladder({"a": 19}, 8, free=5)  # 14 needed, 16 rewarded
    assert found.lossless().removed == {"a": 3}
    assert ladder({"a": 20}, 1, free=0)[0].lossless().removed == {}


def test_lossless_channels_are_the_start_of_the_path() -> None:
    found, cost = ladder({"a": 20, "b": 30}, 1, free=5)
    for state in HYBRID.path(found, cost):
        assert state.removed["a"] >= 5 and state.removed["b"] >= 5


def test_without_a_sensitivity_the_curve_speaks_for_itself() -> None:
    found, cost = ladder({"a": 16}, 4, sensitive=False)
    for state in HYBRID.path(found, cost):
        assert state.predicted == pytest.approx(found.rankings["a"].cost[state.removed["a"]])


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_near_the_best_of_all_allocations(seed: int) -> None:
    sizes = {"a": 12, "b": 16, "c": 8}
    found, cost = ladder(sizes, 2, seed=seed)
    every = [
        dict(zip(sizes, counts, strict=True))
        for counts in itertools.product(*(range(0, size - 1, 2) for size in sizes.values()))
    ]
    for state in HYBRID.path(found, cost):
        rivals = [error(found, other) for other in every if cost(other) <= cost(state.removed) + 1e-9]
        if cost(state.removed) >= 0.3 * cost({}):
            assert state.predicted <= 1.5 * min(rivals) + 1e-3


def test_greedy_spares_the_sensitive_group() -> None:
    curves = {name: ranking(32, [1.0] * 32) for name in "ab"}
    measured = {"a": Sensitivity("a", 16, 1.0), "b": Sensitivity("b", 16, 0.01)}
    found = Ladder((group("a", 32), group("b", 32)), curves, measured, Costs((), PLAIN), 8)
    first = HYBRID.path(found, lambda removed: 64.0 - sum(removed.values()))[:3]
    assert all(set(state.removed) == {"b"} for state in first[:1])
    assert first[-1].removed.get("b", 0) > first[-1].removed.get("a", 0)


def test_cuts_are_the_first_channels_of_the_ranking_in_rising_order() -> None:
    groups = (group("a", 6), group("b", 4), group("c", 3))
    rankings = {item.name: ranking(item.size, seed=4) for item in groups}
    found = removed_channels(groups, rankings, Widths({"a": 3, "b": 0}, 0.0))
    assert found == (Cut("a", 6, tuple(sorted(rankings["a"].order[:3].tolist()))),)
    assert all(type(channel) is int for channel in found[0].removed)


# --- sensitivity -----------------------------------------------------------------------------------------


def measured(model: Model, x: np.ndarray, workers: int = 1) -> dict[str, Sensitivity]:
    groups = find_groups(model).prunable
    score = Redundancy(positions=100)
    seen = collect(model, feed_of(model, {"x": x}), [p for g in groups for p in score.needs(model, g)], workers=1)
    rankings = {item.name: score.rank(model, item, seen) for item in groups}
    return measure(model, groups, rankings, seen, [{"x": x[:20]}, {"x": x[20:40]}], workers=workers)


def deep(outer: float = 1.0) -> Model:
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  c = Gemm<transB=1>(r, w2, b2)  s = Relu(c)
        y = Gemm<transB=1>(s, w3, b3)"""
    return parse(body, x="N,6", outputs="float[N,4] y", w1=kernel(16, 6), b1=B[:16], w2=kernel(12, 16), b2=B[:12],
                 w3=outer * kernel(4, 12), b3=outer * B[:4])  # fmt: skip


def samples(count: int = 200, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)


def test_sensitivity_leaves_the_model_alone_and_is_the_same_for_any_workers() -> None:
    model = deep()
    before = model.sha256
    found = measured(model, samples())
    assert model.sha256 == before == deep().sha256
    assert {name: item.half for name, item in found.items()} == {
        item.name: item.size // 2 for item in find_groups(model).prunable
    }
    assert all(item.error > 0 for item in found.values())
    assert measured(model, samples(), workers=3) == found


def test_sensitivity_is_relative_to_the_outputs() -> None:
    small, large = measured(deep(), samples()), measured(deep(1000.0), samples())
    for name, item in small.items():
        assert large[name].error == pytest.approx(item.error, rel=1e-3)


def test_sensitivity_is_the_change_of_the_outputs_when_half_is_cut_and_refitted() -> None:
    """With one hidden layer it can be done by hand: the outputs are the consumer's."""
    planted = mlp("nothing")
    x = planted.samples(300)
    (found,) = measured(planted.model, x).values()
    assert found.half == SIZE // 2
    (item,) = find_groups(planted.model).prunable
    score = Redundancy(positions=1)
    seen = collect(planted.model, feed_of(planted.model, {"x": x}), score.needs(planted.model, item), workers=1)
    ranking_ = score.rank(planted.model, item, seen)
    predicted = ranking_.cost[found.half]
    assert found.error == pytest.approx(predicted, rel=0.5)


def test_what_is_free_is_not_what_is_measured() -> None:
    planted = mlp("nothing")
    w1, b1 = planted.model.constants["w1"].copy(), planted.model.constants["b1"].copy()
    w1[SIZE // 2 :], b1[SIZE // 2 :] = w1[: SIZE // 2], b1[: SIZE // 2]
    twice = planted.model.with_constants({"w1": w1, "b1": b1})
    (found,) = measured(twice, planted.samples(300)).values()
    assert found.half == SIZE // 2 + SIZE // 4  # the copies, and half of the others
    (other,) = measured(planted.model, planted.samples(300)).values()
    assert found.error > 0.01 * other.error


def test_probabilities_are_read_as_log_odds() -> None:
    """Behind Softmax a confident network looks deaf; the measure must not."""
    logits, squashed = deep(4.0), deep(4.0)
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  c = Gemm<transB=1>(r, w2, b2)  s = Relu(c)
        l = Gemm<transB=1>(s, w3, b3)  y = Softmax(l)"""
    squashed = parse(body, x="N,6", outputs="float[N,4] y", arrays=squashed.constants)
    plain, soft = measured(logits, samples()), measured(squashed, samples())
    for name, item in plain.items():
        assert 0.2 < soft[name].error / item.error < 5


def test_the_error_of_outputs_is_relative_to_their_variance() -> None:
    model, feeds = deep(), [{"x": samples(40)}]
    scaled = model.with_constants({"w3": 1.1 * model.constants["w3"], "b3": 1.1 * model.constants["b3"]})
    before, after = (runtime.run(runtime.session(item.data), feeds[0])["y"] for item in (model, scaled))
    wanted = ((after - before) ** 2).mean() / before.var()
    assert output_error(model, scaled, feeds) == pytest.approx(wanted, rel=1e-4)
    assert output_error(model, model, feeds) == 0


def test_sizes_of_the_samples_count_where_the_model_leaves_them_open() -> None:
    model = parse("y = MatMul(x, w)", x="N,T,6", outputs="float[N,T,4] y", w=np.ones((6, 4)))
    grouping = find_groups(model, {"T": 9})
    assert sum(count_macs(model).values()) == 6 * 4
    assert sum(count_macs(model, grouping.sizes).values()) == 9 * 6 * 4
    assert Costs.of(model, grouping.prunable, PLAIN, grouping).macs({}) == 9 * 6 * 4
