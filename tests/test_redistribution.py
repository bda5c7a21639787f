"""Redistribution for every kind of consumer: what is not needed goes without a trace, the rest is mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, reduce

import numpy as np
import pytest
from numeric_tools import relative
from onnx import numpy_helper
from quantize_tools import kernel, parse
from redistribution_models import KINDS, Kind, duplicated, group_of, recurrent

from edgepress import runtime
from edgepress.calibrate.ridge import FIXED
from edgepress.calibrate.statistics import SplitGram
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.planner import Costs, count_macs
from edgepress.scores import Ranking, Redundancy
from edgepress.scores.base import readers
from edgepress.surgery.cut import Cutting, cut
from edgepress.surgery.fold import fold
from edgepress.surgery.oracle import check_cut
from edgepress.targets import Target

POSITIONS = 20
Feeds = Sequence[Mapping[str, np.ndarray]]


def ranked(model: Model, group: Group, feeds: Feeds) -> Ranking:
    """The ranking from statistics of some feeds."""
    score = Redundancy(positions=POSITIONS)
    found = {}
    for probe in score.needs(model, group):
        inner = [name for name in probe.tensors if name not in model.inputs]
        opened = runtime.session(model.exposing(inner))
        chunks = [probe.observe({**feed, **runtime.run(opened, feed, inner)}, n) for n, feed in enumerate(feeds)]
        found[probe.name] = reduce(SplitGram.merge, chunks)
    return score.rank(model, group, found)


def outputs(model: Model, feeds: Feeds) -> np.ndarray:
    opened = runtime.session(model.data)
    return np.concatenate([next(iter(runtime.run(opened, feed).values())).ravel() for feed in feeds])


def error(model: Model, other: Model, feeds: Feeds) -> float:
    wanted = outputs(model, feeds)
    return float(((wanted - outputs(other, feeds)) ** 2).mean() / wanted.var())


def folded(model: Model, cutting: Cutting, feeds: Feeds, workers: int = 1) -> Model:
    return fold(model, cutting, feeds, positions=POSITIONS, seed=0, workers=workers)


@cache
def built(name: str) -> Model:
    return KINDS[name].build()


@pytest.mark.parametrize("name", KINDS)
def test_the_consumers_are_found_and_can_all_be_refitted(name: str) -> None:
    kind, model = KINDS[name], built(name)
    _, group = group_of(model, kind)
    assert group.refusal is None
    assert sorted(model.node(node).op for node in group.consumers) == sorted(kind.consumers)
    found = readers(model, group)
    assert not found.refusals
    for fit, blocks in found.fits:
        assert len(blocks) == group.size and blocks.shape[1] > 0
        assert len(np.unique(blocks)) == blocks.size and blocks.max() < fit.columns


@pytest.mark.parametrize("name", KINDS)
def test_a_duplicate_goes_without_a_trace(name: str) -> None:
    kind = KINDS[name]
    grouping, group = group_of(built(name), kind)
    last = group.size - 1
    model = duplicated(built(name), group, 1, last)
    feeds, fresh = kind.samples(12), kind.samples(4, seed=9)
    ranking = ranked(model, group, feeds)
    assert ranking.free == 1 and ranking.order[0] in (1, last)
    removed = {group.name: ranking.order[:1].tolist()}
    cutting = cut(model, grouping, removed)
    check_cut(model, grouping, removed, cutting, fresh[:1])
    wanted = outputs(model, fresh)
    assert np.abs(outputs(cutting.model, fresh) - wanted).max() > 1e-2  # somebody has to take over
    assert np.abs(outputs(folded(model, cutting, feeds), fresh) - wanted).max() < 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_a_quarter_goes_with_less_error_than_by_plain_removal(name: str) -> None:
    kind, model = KINDS[name], built(name)
    grouping, group = group_of(model, kind)
    feeds, fresh = kind.samples(12), kind.samples(6, seed=9)
    ranking = ranked(model, group, feeds)
    assert ranking.free == 0
    cutting = cut(model, grouping, {group.name: ranking.order[: group.size // 4].tolist()})
    plain, mended = (error(model, other, fresh) for other in (cutting.model, folded(model, cutting, feeds)))
    assert plain > 1e-3
    assert mended < 0.9 * plain


@pytest.mark.parametrize("name", ["grouped conv transpose", "shared weights", "lstm, both ways", "heads"])
def test_the_same_bits_for_any_number_of_workers(name: str) -> None:
    kind, model = KINDS[name], built(name)
    grouping, group = group_of(model, kind)
    cutting = cut(model, grouping, {group.name: [0]})
    feeds = kind.samples(5)
    assert folded(model, cutting, feeds, workers=3).data == folded(model, cutting, feeds).data


def test_depthwise_channels_are_mended_behind_and_their_kernels_stay() -> None:
    kind, model = KINDS["depthwise conv"], built("depthwise conv")
    grouping, group = group_of(model, kind)
    cutting = cut(model, grouping, {group.name: [0, 5]})
    found = folded(model, cutting, kind.samples(8)).constants
    assert np.array_equal(found["w2"], cutting.model.constants["w2"])
    assert not np.array_equal(found["w3"], cutting.model.constants["w3"])


# --- several fits in one node -------------------------------------------------------------------------------


def test_groups_of_a_convolution_are_fitted_each_on_its_own_channels() -> None:
    """As if they were two dense convolutions on two halves of the channels."""
    kind, model = KINDS["grouped conv"], built("grouped conv")
    grouping, group = group_of(model, kind)
    cutting = cut(model, grouping, {group.name: [0, 3]})
    feeds = kind.samples(6)
    found = folded(model, cutting, feeds).constants
    constants = model.constants
    halves = """a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)  p, q = Split<axis=1>(r, s)
        m = Conv<kernel_shape=[3,3]>(p, wp, bp)  n = Conv<kernel_shape=[3,3]>(q, wq, bq)  y = Concat<axis=1>(m, n)"""
    arrays = {"w1": constants["w1"], "b1": constants["b1"], "s": np.array([6, 6])}
    arrays |= {"wp": constants["w2"][:3], "wq": constants["w2"][3:], "bp": constants["b2"][:3]}
    apart = parse(halves, x="N,3,6,6", outputs="float y", arrays=arrays | {"bq": constants["b2"][3:]})
    keep = np.array([1, 2, 4, 5])
    kept = {name: (None, keep, None, None) for name in ("wp", "wq")}
    narrow = {name: apart.constants[name][:, keep] for name in ("wp", "wq")}
    rows = np.concatenate([keep, 6 + keep])
    narrow |= {"w1": constants["w1"][rows], "b1": constants["b1"][rows], "s": np.array([4, 4])}
    other = fold(apart, Cutting(apart.with_constants(narrow), {**kept, "w1": (rows, None, None, None)}), feeds,
                 positions=POSITIONS, seed=0, workers=1).constants  # fmt: skip
    assert relative(found["w2"], np.concatenate([other["wp"], other["wq"]])) < 1e-5
    assert relative(found["b2"], np.concatenate([other["bp"], other["bq"]])) < 1e-4


def test_gates_are_fitted_to_their_own_pre_activations() -> None:
    kind = recurrent("LSTM")
    model = kind.build()
    grouping, group = group_of(model, kind)
    cutting = cut(model, grouping, {group.name: [2, 7, 8]})
    (feed,) = kind.samples(1)
    found = folded(model, cutting, [feed]).constants  # one chunk: the ridge is fixed
    keep = np.setdiff1d(np.arange(12), [2, 7, 8])
    gates = (12 * np.arange(4)[:, None] + keep).ravel()
    opened = runtime.session(model.exposing(["h"]))
    h = runtime.run(opened, feed, ["h"])["h"][:, 0].astype(np.float64)
    past = np.concatenate([np.zeros((1, *h.shape[1:])), h[:-1]]).reshape(-1, 12)
    rows = np.column_stack([feed["x"].reshape(-1, 6), past, np.ones(len(past))])
    w, r, b = (model.constants[name][0].astype(np.float64) for name in "wrb")
    whole = np.column_stack([w, r, b[:48] + b[48:]])
    columns = [*range(6), *(6 + keep), 18]
    targets, given, rows = (rows @ whole.T)[:, gates], whole[gates][:, columns], rows[:, columns]
    pull = np.sqrt(len(rows) * np.append(np.full(15, FIXED * (rows[:, :15] ** 2).mean()), 1e-9))
    problem = np.concatenate([rows, np.diag(pull)]), np.concatenate([targets, (given * pull).T])
    wanted = np.linalg.lstsq(*problem, rcond=None)[0].T
    now = [found[name][0] for name in "wrb"]
    assert relative(np.column_stack([now[0], now[1], now[2][:36] + now[2][36:]]), wanted) < 1e-4
    assert np.array_equal(now[2][36:], b[48:][gates].astype(np.float32))  # only the first of the two biases moves


def test_states_are_read_by_the_next_recurrent_layer() -> None:
    body = """h = LSTM<hidden_size=12>(x, w, r, b)  t = Squeeze(h, one)  y, last = GRU<hidden_size=6>(t, w2, r2, b2)"""
    base = recurrent("LSTM")
    second = {"w2": 2 * kernel(1, 18, 12), "r2": 2 * kernel(1, 18, 6), "b2": kernel(1, 36)}
    arrays = {**base.arrays, "one": np.array([1]), **second}
    kind = Kind(body, base.x, arrays, base.group, ("GRU", "LSTM"), fixed=True)
    model = kind.build()
    grouping, group = group_of(model, kind)
    assert sorted(model.node(node).op for node in group.consumers) == ["GRU", "LSTM"]
    feeds, fresh = kind.samples(12), kind.samples(6, seed=9)
    cutting = cut(model, grouping, {group.name: ranked(model, group, feeds).order[:3].tolist()})
    assert error(model, folded(model, cutting, feeds), fresh) < 0.5 * error(model, cutting.model, fresh)


def test_all_columns_behind_a_concat_are_better_than_the_own_ones() -> None:
    """What `fold` does, against a fit of the columns of the cut branch with the others as they are."""
    kind, model = KINDS["concatenated"], built("concatenated")
    grouping, group = group_of(model, kind)
    feeds, fresh = kind.samples(12), kind.samples(6, seed=9)
    cutting = cut(model, grouping, {group.name: ranked(model, group, feeds).order[:4].tolist()})
    opened = runtime.session(cutting.model.exposing(["j"]))
    wanted = runtime.session(model.exposing(["y"]))
    views = np.lib.stride_tricks.sliding_window_view
    rows, targets = [], []
    for feed in feeds:
        windows = views(runtime.run(opened, feed, ["j"])["j"].astype(np.float64), (3, 3), axis=(2, 3))
        rows.append(windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 14 * 9))
        targets.append(np.moveaxis(runtime.run(wanted, feed, ["y"])["y"], 1, -1).reshape(-1, 5))
    x, y = np.concatenate(rows), np.concatenate(targets).astype(np.float64)
    weight = cutting.model.constants["w2"].reshape(5, -1).astype(np.float64)
    own = np.column_stack([x[:, 54:], np.ones(len(x))])
    fitted = np.linalg.lstsq(own, y - x[:, :54] @ weight[:, :54].T, rcond=None)[0].T
    restricted = np.concatenate([weight[:, :54], fitted[:, :-1]], axis=1).reshape(5, 14, 3, 3).astype(np.float32)
    other = cutting.model.with_constants({"w2": restricted, "b2": fitted[:, -1].astype(np.float32)})
    full = folded(model, cutting, feeds)
    assert np.array_equal(full.constants["w3"], model.constants["w3"])  # the other branch itself stays
    assert error(model, full, fresh) < error(model, other, fresh) < error(model, cutting.model, fresh)


def test_a_shared_weight_must_serve_both_readers_to_be_free() -> None:
    """Channel 5 copies channel 1, for the second reader twice as loud: each of them alone could do without."""
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  s = Mul(a, scale)  m = Gemm(r, w2, b2)  n = Gemm(s, w2, b3)
        y = Concat<axis=1>(m, n)"""
    kind, scale = KINDS["shared weights"], np.ones(16, np.float32)
    base = {**kind.arrays, "scale": scale}
    for factor, free in ((1.0, 1), (2.0, 0)):
        scale[5] = factor
        other = Kind(body, kind.x, {**base, "scale": scale.copy()}, kind.group, ("Gemm", "Gemm"))
        model = other.build()
        w1, b1 = model.constants["w1"].copy(), model.constants["b1"].copy()
        w1[5], b1[5] = w1[1], b1[1]
        model = model.with_constants({"w1": w1, "b1": b1})
        assert ranked(model, group_of(model, other)[1], kind.samples(12)).free == free


# --- what cannot be refitted says why -----------------------------------------------------------------------

UNREAD = {
    "states that are no output": (
        "none, h = LSTM<hidden_size=12>(x, w, r, b)  y = MatMul(h, w2)", "/net/LSTM.0", "at every step"),
    "lengths": ("h = LSTM<hidden_size=12>(x, w, r, b, lengths)  y = MatMul(h, w2)", "/net/LSTM.0", "lengths"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_consumers_without_a_view_are_named(name: str) -> None:
    body, group_name, reason = UNREAD[name]
    proto = parse(body, x="7,16,6", outputs="float y", arrays=recurrent("LSTM").arrays).edit()
    node = proto.graph.node[0]
    node.output[0] = "" if node.output[0] == "none" else node.output[0]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.initializer.append(numpy_helper.from_array(np.full(16, 7, np.int32), "lengths"))
    model = Model.of(proto)
    found = readers(model, find_groups(model).group(group_name))
    assert [refusal.what for refusal in found.refusals] == [group_name]
    assert reason in found.refusals[0].reason


# --- costs --------------------------------------------------------------------------------------------------

PLAIN = Target("plain", multiple=1, block=1, slope=1.0, weight_limit=127)
BY_HAND = {
    "grouped conv": 36 * 12 * 27 + 16 * 6 * 6 * 9,
    "conv transpose": 36 * 12 * 27 + 36 * 12 * 4 * 16,
    "left matmul": 5 * 10 * 16 + 5 * 16 * 5,
    "einsum": 5 * 10 * 16 + 5 * 16 * 5,
    "heads": 3 * 5 * 10 * 32 + 2 * 8 * 5 * 5 * 4 + 5 * 32 * 10,
    "lstm, both ways": 7 * 2 * 48 * (6 + 12) + 16 * 24 * 5,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_macs_by_hand(name: str) -> None:
    assert sum(count_macs(built(name)).values()) == BY_HAND[name]


@pytest.mark.parametrize("name", KINDS)
def test_costs_are_those_of_the_cut_model(name: str) -> None:
    kind, model = KINDS[name], built(name)
    grouping, group = group_of(model, kind)
    costs = Costs.of(model, grouping.groups, PLAIN, grouping)
    assert costs.macs({}) == sum(count_macs(model).values())
    small = cut(model, grouping, {group.name: [0, 2]}).model
    assert costs.macs({group.name: 2}) == pytest.approx(sum(count_macs(small).values()))
    assert costs.weights({group.name: 2}) < costs.weights({})


def test_a_layer_too_wide_for_a_gram_stays_as_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, model = KINDS["gemm"], built("gemm")
    grouping, group = group_of(model, kind)
    cutting = cut(model, grouping, {group.name: [0]})
    assert folded(model, cutting, kind.samples(4)).data != cutting.model.data
    monkeypatch.setattr("edgepress.calibrate.fits.LARGEST_GRAM", 1)
    assert folded(model, cutting, kind.samples(4)).data == cutting.model.data
