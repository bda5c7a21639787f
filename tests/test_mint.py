"""MINT: features are the means they say they are; each step loses the least information, by brute force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, Literal

import numpy as np
import pytest
from group_models import TOYS
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of, relative, run
from planted import SIZE, mlp
from quantize_tools import kernel, parse
from redistribution_models import KINDS, group_of
from toys import feed

from edgepress import runtime
from edgepress.calibrate.features import MOST, Features, activation_behind, feature_probe
from edgepress.calibrate.run import collect
from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.scores import Redundancy, mint, mutual
from edgepress.scores.base import Elimination, Ordered, consumers
from edgepress.scores.masks import Blocks, block_masks, block_scores, masked, pruned_share
from edgepress.scores.mint import CHILD_NOISE, PARENT_NOISE, Mint, contiguous

Estimator = Literal["gaussian", "patches", "graph"]
Feeds = Sequence[Mapping[str, np.ndarray]]
ALL = 10_000
"""More positions than any sample has."""

B = kernel(99, 1).ravel()


def observed(model: Model, probes: Sequence[Probe], feeds: Feeds) -> dict[str, Any]:
    """Statistics of some feeds, merged in order."""
    found = {}
    for probe in probes:
        inner = [name for name in probe.tensors if name not in model.inputs]
        opened = runtime.session(model.exposing(inner))
        chunks = [probe.observe({**given, **runtime.run(opened, given, inner)}, n) for n, given in enumerate(feeds)]
        found[probe.name] = reduce(lambda first, second: first.merge(second), chunks)
    return found


@dataclass(frozen=True)
class Case:
    """A model, a group and samples."""

    model: Model
    group: Group
    feeds: Feeds

    def statistics(self, score: Mint) -> dict[str, Any]:
        return observed(self.model, score.needs(self.model, self.group), self.feeds)

    def information(self, score: Mint) -> Any:
        return score.information(self.model, self.group, self.statistics(score))

    def features(self) -> list[tuple[mint.Reading, np.ndarray]]:
        """Features of all samples for every operator that reads the group."""
        score = Mint(ALL, estimator="graph", most=ALL)
        found = self.statistics(score)
        return [(reading, found[reading.key].rows) for reading in score.readings(self.model, self.group)]


@cache
def kind(name: str) -> Case:
    built = KINDS[name].build()
    return Case(built, group_of(built, KINDS[name])[1], KINDS[name].samples(4))


@cache
def toy(name: str, position: int) -> Case:
    model = TOYS[name].build()
    return Case(model, find_groups(model).prunable[position], [feed(model, 24, seed) for seed in range(3)])


CASES = [
    *(pytest.param(kind, (name,), id=name) for name in KINDS),
    *(
        pytest.param(toy, (name, position), id=f"{name} {position}")
        for name, position in [("residual", 0), ("residual", 1), ("squeeze_excite", 0), ("channel_shuffle", 0),
                               ("grouped", 0), ("grouped", 1), ("flatten_chain", 0), ("normalized", 1), ("mlp", 0),
                               ("gemm_of_a_transposed_input", 0), ("shared_weights", 0)]
    ),
]  # fmt: skip


@pytest.mark.parametrize("estimator", ["gaussian", "patches", "graph"])
@pytest.mark.parametrize(("build", "arguments"), CASES)
def test_every_kind_of_consumer(build: Any, arguments: tuple[Any, ...], estimator: Estimator) -> None:
    case = build(*arguments)
    score = Mint(ALL, estimator=estimator, children=3, most=90)
    probes = score.needs(case.model, case.group)
    assert probes and len({probe.name for probe in probes}) == len(probes)
    statistics = case.statistics(score)
    found = score.score(case.model, case.group, statistics)
    assert found.shape == (case.group.size,) and found.dtype == np.float64
    assert np.isfinite(found).all() and (found >= 0).all() and found.any()
    order = score.order(case.model, case.group, statistics)
    assert sorted(order.tolist()) == list(range(case.group.size))
    again = score.information(case.model, case.group, case.statistics(score))
    assert np.array_equal(again.order, order) and np.array_equal(again.added, found)
    assert again.energy == pytest.approx(found.sum()) and again.cost[0] == again.free == 0


def test_it_is_a_score_with_an_order_and_claims_no_error() -> None:
    assert isinstance(Mint(1), Ordered) and not isinstance(Mint(1), Elimination)


# --- features --------------------------------------------------------------------------------------------------


def channels_last(array: np.ndarray, axis: int) -> np.ndarray:
    """Means over everything but the samples (the first axis) and the channels."""
    moved = np.moveaxis(array.astype(np.float64), axis, -1)
    return np.asarray(moved.reshape(len(moved), -1, moved.shape[-1]).mean(1))


def behind(case: Case, tensor: str) -> np.ndarray:
    return np.concatenate([run(case.model, given, [tensor])[0] for given in case.feeds])


@pytest.mark.parametrize(
    ("name", "read", "axis"),
    [("gemm", "r", 1), ("matmul", "r", 1), ("matmul and add", "r", 2), ("left matmul", "r", 1), ("einsum", "r", 2),
     ("flattened", "r", 1), ("two consumers", "r", 1), ("gated ffn", "r", 2)],
)  # fmt: skip
def test_parents_are_means_of_channels(name: str, read: str, axis: int) -> None:
    case = kind(name)
    wanted = channels_last(behind(case, read), axis)
    for reading, rows in case.features():
        assert reading.means.parents == case.group.size
        assert relative(rows[:, : case.group.size], wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "axis"),
    [("conv", 1), ("depthwise conv", 1), ("gemm", 1), ("matmul and add", 2), ("left matmul", 1), ("einsum", 1),
     ("flattened", 1), ("concatenated", 1), ("heads", 2)],
)  # fmt: skip
def test_children_are_means_of_outputs(name: str, axis: int) -> None:
    case = kind(name)
    wanted = channels_last(behind(case, "y"), axis)
    rows = {reading.means.part.node.output: rows[:, reading.means.parents :] for reading, rows in case.features()}
    assert relative(next(reversed(rows.values())), wanted) < 1e-5


def test_parents_of_a_padded_convolution_are_means_of_patches() -> None:
    case = toy("residual", 0)  # Conv, Relu, Conv with pads of 1
    ((reading, rows),) = case.features()
    given = behind(case, "ir").astype(np.float64)
    padded = np.pad(given, [(0, 0), (0, 0), (1, 1), (1, 1)])
    total = sum(padded[:, :, i : i + 8, j : j + 8].mean((2, 3)) for i in range(3) for j in range(3))
    assert relative(rows[:, : reading.means.parents], np.asarray(total) / 9) < 1e-5


def test_other_parents_are_means_of_what_else_is_read() -> None:
    case = kind("concatenated")  # 6 channels of another group stand before the 12 of this one
    ((reading, rows),) = case.features()
    assert reading.means.parents == 18
    joined = behind(case, "j").astype(np.float64)
    total = sum(joined[:, :, i : i + 4, j : j + 4].mean((2, 3)) for i in range(3) for j in range(3)) / 9
    total = np.asarray(total)
    assert relative(rows[:, :12], total[:, 6:]) < 1e-5
    assert relative(rows[:, 12:18], total[:, :6]) < 1e-5


def test_units_of_a_recurrent_operator_are_means_over_steps() -> None:
    case = kind("rnn")  # h: [steps, 1, samples, units]; it reads itself, and a MatMul reads it
    (own, _), (_, rows) = case.features()
    states = [run(case.model, given, ["h"])[0] for given in case.feeds]
    past = [np.concatenate([np.zeros_like(h[:1]), h[:-1]]).mean((0, 1)) for h in states]
    assert own.means.parents == 12 + 6
    found = observed(case.model, [feature_probe("f", own.means.tensors, own.means.of, ALL)], case.feeds)["f"].rows
    assert relative(found[:, :12], np.concatenate(past)) < 1e-5
    assert len(found) == 4 * 16
    assert len(rows) == 4 * 7, "the MatMul reads [steps, samples, units]: the first axis counts as samples"


FRONT = "a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)"
ACTIVATIONS = {
    "y = Gemm<transB=1>(r, w2, b2)": None,
    "h = Gemm<transB=1>(r, w2, b2)  y = Relu(h)": "y",
    "h = MatMul(r, w3)  i = Add(h, b2)  y = Gelu(i)": "y",
    "h = MatMul(r, w3)  y = Sigmoid(h)": "y",
    "h = Gemm<transB=1>(r, w2, b2)  y = Clip(h, zero, six)": "y",
    "h = Gemm<transB=1>(r, w2, b2)  y = PRelu(h, b3)": "y",
    "h = Gemm<transB=1>(r, w2, b2)  y = Clip(h, zero, top)  t = Relu(six)  top = Identity(t)": None,
    "h = Gemm<transB=1>(r, w2, b2)  y = Add(h, b3)": None,
    "h = Gemm<transB=1>(r, w2, b2)  y = Mul(h, b3)": None,
    "h = Gemm<transB=1>(r, w2, b2)  s = Sigmoid(h)  y = Mul(h, s)": None,
    "h = Gemm<transB=1>(r, w2, b2)  y = Softmax(h)": None,
    "h = Gemm<transB=1>(r, w2, b2)  y = Pow(six, h)": None,
}


@pytest.mark.parametrize("tail", ACTIVATIONS)
def test_children_are_measured_behind_the_activation_that_directly_follows(tail: str) -> None:
    swapped = tail.replace("  t = Relu(six)  top = Identity(t)", "")
    body = f"{FRONT}  t = Relu(six)  top = Identity(t)  {swapped}" if swapped != tail else f"{FRONT}  {tail}"
    model = parse(body, x="N,8", outputs="float[N,3] y", w1=kernel(6, 8), b1=B[:6], w2=kernel(3, 6), w3=kernel(6, 3),
                  b2=B[:3], b3=B[3:6], zero=np.array(0.0), six=np.array(0.4))  # fmt: skip
    case = Case(model, find_groups(model).prunable[0], [{"x": kernel(50, 8)}])
    ((reading, rows),) = case.features()
    assert reading.means.activation == activation_behind(model, reading.means.part) == ACTIVATIONS[tail]
    first = "i" if "i = Add" in tail else "h" if "h = " in tail else "y"
    wanted = behind(case, ACTIVATIONS[tail] or first)
    assert relative(rows[:, 6:], wanted) < 1e-5


def test_an_output_that_is_read_from_outside_has_no_activation() -> None:
    model = parse(f"{FRONT}  h = Gemm<transB=1>(r, w2)  y = Relu(h)", x="N,8", outputs="float[N,3] h, float[N,3] y",
                  w1=kernel(6, 8), b1=B[:6], w2=kernel(3, 6))  # fmt: skip
    ((fit, _),) = consumers(model, find_groups(model).prunable[0])
    assert activation_behind(model, fit.parts[0]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 25), st.integers(0, 5))
def test_features_merge_in_any_grouping_and_stay_bounded(sizes: list[int], most: int, cut: int) -> None:
    rows = np.arange(2 * sum(sizes), dtype=np.float64).reshape(-1, 2)
    parts = [Features.of(part, most) for part in np.split(rows, np.cumsum(sizes)[:-1])]
    cut = min(cut, len(parts) - 1)
    joined = reduce(Features.merge, parts)
    groups = [reduce(Features.merge, group) for group in (parts[:cut], parts[cut:]) if group]
    for found in (joined, reduce(Features.merge, groups)):
        assert np.array_equal(found.rows, rows[:most]) and found.most == most


@pytest.mark.parametrize("name", ["gemm", "conv", "flattened", "grouped conv", "heads", "gated ffn", "two consumers"])
def test_chunks_in_order_are_one_chunk(name: str) -> None:
    case = kind(name)
    whole = [{"x": np.concatenate([given["x"] for given in case.feeds])}]
    graph, closed = Mint(ALL, estimator="graph", most=100), Mint(ALL)
    for score in (graph, closed):
        probes = score.needs(case.model, case.group)
        apart, once = observed(case.model, probes, case.feeds), observed(case.model, probes, whole)
        for probe in probes:
            if score is graph:
                assert len(apart[probe.name].rows) == 100
                assert relative(apart[probe.name].rows, once[probe.name].rows) < 1e-5
            else:
                assert apart[probe.name].rows == once[probe.name].rows == 4 * len(case.feeds[0]["x"])
                assert relative(apart[probe.name].inner, once[probe.name].inner) < 1e-6
    first = closed.score(case.model, case.group, observed(case.model, closed.needs(case.model, case.group), case.feeds))
    other = closed.score(case.model, case.group, observed(case.model, closed.needs(case.model, case.group), whole))
    assert relative(first, other) < 1e-3


@pytest.mark.parametrize("estimator", ["gaussian", "patches", "graph"])
def test_any_number_of_workers_gives_the_same_bits(estimator: Estimator) -> None:
    case = kind("conv")
    x = np.concatenate([given["x"] for given in case.feeds])
    score = Mint(4, estimator=estimator)
    found: list[np.ndarray] = []
    for workers in (1, 3):
        probes = score.needs(case.model, case.group)
        statistics = collect(case.model, feed_of(case.model, {"x": x}), probes, workers=workers, chunk=16)
        found.append(score.score(case.model, case.group, statistics))
    assert np.array_equal(found[0], found[1])


# --- elimination against brute force -----------------------------------------------------------------------------

Problem = tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[int]]
"""Joint covariance; the variables of every channel; those of every child group; those that always stay."""


def pooled(case: Case, children: int) -> list[Problem]:
    """From features themselves: numpy's covariance of all samples, noise on the diagonal."""
    problems = []
    for reading, rows in case.features():
        parents = reading.means.parents
        noise = np.where(np.arange(rows.shape[1]) < parents, PARENT_NOISE, CHILD_NOISE)
        joint = np.cov(rows.T, bias=True)
        joint += np.diag(noise * np.diag(joint))
        groups = [parents + group for group in contiguous(rows.shape[1] - parents, children)]
        channels = [np.array([channel]) for channel in range(case.group.size)]
        problems.append((joint, channels, groups, list(range(case.group.size, parents))))
    return problems


def patched(case: Case) -> list[Problem]:
    """From rows of patches: second moments, noise on the diagonal, a column of ones that stays."""
    problems = []
    for fit, blocks in consumers(case.model, case.group):
        (part,) = fit.parts
        inner = [name for name in part.geometry.tensors if name not in case.model.inputs]
        opened = runtime.session(case.model.exposing(inner))
        seen = [{**given, **runtime.run(opened, given, inner)} for given in case.feeds]
        x = np.concatenate([part.rows(values, None) for values in seen])[:, : fit.width]
        y = np.concatenate([part.targets(values, None) for values in seen])
        both = np.concatenate([x, y], axis=1)
        joint = both.T @ both / len(both)
        pull = np.full(fit.width, PARENT_NOISE * np.diag(joint)[: fit.columns].mean())
        pull[fit.columns :] = 1e-9
        joint += np.diag(np.concatenate([pull, CHILD_NOISE * y.var(0)]))
        groups = [np.array([fit.width + output]) for output in range(fit.outputs)]
        stays = np.setdiff1d(np.arange(fit.width), blocks).tolist()
        problems.append((joint, list(blocks), groups, stays))
    return problems


def told(problems: list[Problem], alive: list[int], channel: int) -> float:
    """Information about the channel that the others of those alive do not have."""
    total = 0.0
    for joint, channels, groups, stays in problems:
        rest = [variable for other in alive if other != channel for variable in channels[other]] + stays
        given = np.array(rest, np.int64)
        total += sum(mutual.covariance_cmi(joint, group, channels[channel], given) for group in groups)
    return total


def check(problems: list[Problem], found: Any, size: int) -> None:
    alive = list(range(size))
    for step, channel in enumerate(found.order.tolist()):
        wanted = {other: told(problems, alive, other) for other in alive}
        lost = found.cost[step + 1] - found.cost[step]
        assert lost == pytest.approx(wanted[channel], rel=1e-5, abs=1e-8)
        assert wanted[channel] <= min(wanted.values()) * (1 + 1e-5) + 1e-9
        alive.remove(channel)


@pytest.mark.parametrize("children", [1, 3, 100])
@pytest.mark.parametrize(
    "name",
    ["gemm", "conv", "grouped conv", "flattened", "two consumers", "concatenated", "heads", "shared weights", "rnn"],
)
def test_each_step_loses_the_least_information(name: str, children: int) -> None:
    case = kind(name)
    check(pooled(case, children), case.information(Mint(ALL, children=children)), case.group.size)


@pytest.mark.parametrize("pending", [1, 96])
@pytest.mark.parametrize("name", ["gemm", "matmul", "conv", "grouped conv", "flattened", "two consumers"])
def test_each_step_loses_the_least_information_of_patches(
    name: str, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mint.Informed, "PENDING", pending)
    case = kind(name)
    check(patched(case), case.information(Mint(ALL, estimator="patches")), case.group.size)


@pytest.mark.parametrize("children", [1, 3, 100])
@pytest.mark.parametrize("name", ["gemm", "concatenated", "two consumers"])
def test_the_losses_add_up_to_what_all_channels_tell(name: str, children: int) -> None:
    case = kind(name)
    total = 0.0
    for joint, channels, groups, stays in pooled(case, children):
        every, given = np.concatenate(channels), np.array(stays, np.int64)
        total += sum(mutual.covariance_cmi(joint, group, every, given) for group in groups)
    assert case.information(Mint(ALL, children=children)).energy == pytest.approx(total, rel=1e-6)


# --- what it is for ------------------------------------------------------------------------------------------------


def planted(name: str, count: int = 600) -> Case:
    net = mlp(name)
    feeds = [{"x": part} for part in np.array_split(net.samples(count), count // 50)]
    return Case(net.model, find_groups(net.model).prunable[0], feeds)


@pytest.mark.parametrize("estimator", ["gaussian", "patches"])
def test_of_two_equal_channels_one_goes_first_and_the_other_is_kept(estimator: Estimator) -> None:
    found = planted("nearly").information(Mint(1, estimator=estimator))
    steps, pair = np.diff(found.cost), (0, SIZE - 1)
    assert found.order[0] in pair
    other = sum(pair) - int(found.order[0])
    assert steps[0] < 0.2 * steps[found.order.tolist().index(other)]
    once = [told(pooled(planted("nearly"), 8), list(range(SIZE)), channel) for channel in range(SIZE)]
    assert set(np.argsort(once)[:2].tolist()) == set(pair), "one shot would remove both"


@pytest.mark.parametrize("kind_", ["dead", "constant", "unread"])
@pytest.mark.parametrize("estimator", ["gaussian", "patches"])
def test_what_tells_nothing_goes_first(kind_: str, estimator: Estimator) -> None:
    found = planted(kind_).information(Mint(1, estimator=estimator))
    assert found.order[0] == SIZE - 1
    assert found.cost[1] < 1e-3 * found.energy


def test_scales_of_hidden_channels_do_not_matter() -> None:
    """Relu lets a factor through: the same function in other units."""
    case = planted("nothing")
    factors = 10.0 ** np.linspace(-2, 2, SIZE)
    arrays = {name: case.model.constants[name].astype(np.float64) for name in ("w1", "b1", "w2")}
    model = case.model.with_constants({
        "w1": (arrays["w1"] * factors[:, None]).astype(np.float32), "b1": (arrays["b1"] * factors).astype(np.float32),
        "w2": (arrays["w2"] / factors).astype(np.float32),
    })  # fmt: skip
    found, wanted = Case(model, case.group, case.feeds).information(Mint(1)), case.information(Mint(1))
    assert np.array_equal(found.order, wanted.order)
    assert relative(found.cost, wanted.cost) < 1e-3


@pytest.mark.parametrize("rounds", [1, 3, SIZE])
def test_the_graph_finds_what_is_read(rounds: int) -> None:
    """The next layer reads two channels strongly and the others hardly at all."""
    case = planted("nothing", 750)
    w2 = case.model.constants["w2"].copy()
    w2[:, 2:] *= 1e-3
    read = Case(case.model.with_constants({"w2": w2}), case.group, case.feeds)
    score = Mint(1, estimator="graph", rounds=rounds, children=2)
    found = read.information(score)
    assert set(found.order[-2:].tolist()) == {0, 1}
    assert (np.diff(found.cost) >= 0).all() and sorted(found.order.tolist()) == list(range(SIZE))
    if rounds == 1:
        assert np.array_equal(found.order, np.argsort(found.added, kind="stable"))


def test_the_graph_keeps_the_first_samples_only() -> None:
    case = planted("nothing", 1000)
    (kept,) = case.statistics(Mint(1, estimator="graph")).values()
    assert kept.rows.shape == (MOST, SIZE + 4)


def test_patches_need_what_redundancy_needs() -> None:
    case = kind("conv")
    names = [probe.name for probe in Mint(5, estimator="patches").needs(case.model, case.group)]
    assert names == [probe.name for probe in Redundancy(5).needs(case.model, case.group)]


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["gaussian", "graph"])
@pytest.mark.parametrize("name", ["gemm", "conv", "flattened", "two consumers", "concatenated", "heads", "lstm"])
def test_scores_of_blocks(name: str, estimator: Estimator) -> None:
    case = kind(name)
    score = Mint(ALL, estimator=estimator, children=2)
    blocks = block_scores(score, case.model, case.group, case.statistics(score), parents=3)
    found = consumers(case.model, case.group)
    assert [each.fit.name for each in blocks] == [fit.name for fit, _ in found]
    for each, (fit, columns) in zip(blocks, found, strict=True):
        assert each.scores.shape == (min(2, fit.outputs), 3)
        assert np.isfinite(each.scores).all() and (each.scores >= 0).all()
        assert sorted(np.concatenate(each.parents).tolist()) == sorted(columns.ravel().tolist())
        assert np.array_equal(np.concatenate(each.children), np.arange(fit.outputs))
        assert each.sizes.sum() == fit.outputs * columns.size


def test_a_block_is_told_what_the_other_parents_do_not_tell() -> None:
    case = kind("concatenated")
    score = Mint(ALL, children=2)
    (each,) = block_scores(score, case.model, case.group, case.statistics(score), parents=3)
    ((joint, _, groups, stays),) = pooled(case, 2)
    for parent, channels in enumerate(contiguous(case.group.size, 3)):
        rest = np.array([*np.setdiff1d(np.arange(12), channels), *stays])
        for child, group in enumerate(groups):
            wanted = mutual.covariance_cmi(joint, group, channels, rest)
            assert each.scores[child, parent] == pytest.approx(wanted, rel=1e-6)


def test_patches_have_no_blocks() -> None:
    case = kind("gemm")
    with pytest.raises(ValueError, match="gaussian or graph"):
        block_scores(Mint(1, estimator="patches"), case.model, case.group, {})


def test_one_percentile_for_all_consumers_and_a_limit_for_each() -> None:
    weak, strong = np.arange(8.0).reshape(2, 4), 100 + np.arange(8.0).reshape(4, 2)
    masks = block_masks([weak, strong], 50)
    assert not masks[0].any() and masks[1].all()
    limited = block_masks([weak, strong], 50, cap=0.75)
    assert np.array_equal(limited[0], weak >= 6) and limited[1].all()
    assert [mask.sum() for mask in block_masks([np.zeros((2, 4)), strong], 10, cap=0.5)] == [4, 8], "ties too"
    assert not any(mask.any() for mask in block_masks([weak, strong], 100))
    assert all(mask.all() for mask in block_masks([weak, strong], 100, cap=0))
    for percentile, cap in ((-1, 1.0), (101, 1.0), (50, 1.5), (50, -0.1)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            block_masks([weak], percentile, cap)


@pytest.mark.parametrize("name", ["gemm", "conv", "flattened", "two consumers", "concatenated", "heads", "gru"])
def test_masked_blocks_are_zero_and_all_else_stays(name: str) -> None:
    case = kind(name)
    score = Mint(ALL, children=2)
    blocks = block_scores(score, case.model, case.group, case.statistics(score), parents=3)
    masks = block_masks([each.scores for each in blocks], 60, cap=0.7)
    found = masked(case.model, blocks, masks)
    zeros = 0
    for each, mask in zip(blocks, masks, strict=True):
        wanted = each.fit.matrix(case.model.constants)
        for child, parent in np.argwhere(~mask):
            wanted[np.ix_(each.children[child], each.parents[parent])] = 0
        assert np.allclose(each.fit.matrix(found.constants), wanted, rtol=1e-6, atol=0)
        zeros += int((wanted[:, np.concatenate(each.parents)] == 0).sum())
    assert pruned_share(blocks, masks) == zeros / sum(int(each.sizes.sum()) for each in blocks) > 0
    assert run(found, case.feeds[0])[0].shape == run(case.model, case.feeds[0])[0].shape
    every = [np.ones_like(mask) for mask in masks]
    whole = masked(case.model, blocks, every)
    assert pruned_share(blocks, every) == 0
    assert relative(run(whole, case.feeds[0])[0], run(case.model, case.feeds[0])[0]) < 1e-6


def test_two_groups_that_one_consumer_reads_are_masked_in_one_model() -> None:
    case = kind("concatenated")
    score = Mint(ALL, children=2)
    blocks: list[Blocks] = []
    for group in find_groups(case.model).prunable:
        statistics = observed(case.model, score.needs(case.model, group), case.feeds)
        blocks += block_scores(score, case.model, group, statistics, parents=2)
    assert len(blocks) == 2 and blocks[0].fit.name == blocks[1].fit.name
    nothing = [np.zeros(each.scores.shape, bool) for each in blocks]
    found = masked(case.model, blocks, nothing)
    assert not found.constants["w2"].any() and pruned_share(blocks, nothing) == 1
    assert np.array_equal(found.constants["b2"], case.model.constants["b2"])
