"""Entropy: the bits that go with a channel, counted one by one, and the order of the least error per bit."""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import log2
from typing import Any

import numpy as np
import pytest
from group_models import TOYS
from numeric_tools import feed_of
from planted import KINDS as PLANTS
from planted import SIZE, cnn, mlp
from quantize_tools import parse
from redistribution_models import KINDS, Kind, group_of
from toys import Toy

from edgepress import codec
from edgepress.calibrate.run import collect
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.scores import Redundancy
from edgepress.scores.entropy import Entropy, code_lengths

MODELS: dict[str, Toy | Kind] = {
    **{f"toy {name}": toy for name, toy in TOYS.items()},
    **{f"kind {name}": kind for name, kind in KINDS.items()},
}


@cache
def built(name: str) -> Model:
    return MODELS[name].build()


def rounded(model: Model, tensor: str) -> np.ndarray:
    array = model.constants[tensor].astype(np.float64)
    return codec.rate_rounded(array, codec.uniform_step(array), codec.SLOPE)


def lengths(model: Model, group: Group, tensor: str) -> dict[tuple[int, ...], float]:
    """Bits of every number of an initializer, one by one."""
    array = model.constants[tensor]
    roles = {site.role for site in group.sites if site.tensor == tensor}
    if roles == {"along"} and sum(length > 1 for length in array.shape) <= 1:
        return dict.fromkeys(np.ndindex(array.shape), 8 * array.itemsize)
    values = dict(np.ndenumerate(rounded(model, tensor)))
    counts = Counter(values.values())
    return {place: -log2(counts[value] / array.size) for place, value in values.items()}


def counted(model: Model, group: Group) -> list[float]:
    """Bits of every channel: a set of its weights, so that none counts twice."""
    known = {site.tensor: lengths(model, group, site.tensor) for site in group.sites}
    found = []
    for channel in range(group.size):
        places = {
            (site.tensor, place)
            for site in group.sites
            for place in known[site.tensor]
            if place[site.axis] in site.index[channel]
        }
        found.append(sum(known[tensor][place] for tensor, place in places))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_bits_of_a_channel_are_those_of_all_its_weights_each_once(name: str) -> None:
    for group in find_groups(built(name)).prunable:
        found = Entropy(positions=1).bits(built(name), group)
        assert found.shape == (group.size,) and found.dtype == np.float64
        assert found.tolist() == pytest.approx(counted(built(name), group))


def test_weights_that_a_channel_names_twice_are_among_them() -> None:
    """The matrix above has groups that meet a tensor on two axes, and groups that name a place twice."""
    twice, crossed = 0, 0
    for name in MODELS:
        for group in find_groups(built(name)).prunable:
            places = [(site.tensor, site.axis) for site in group.sites]
            twice += len(places) != len(set(places))
            crossed += len(set(places)) != len({tensor for tensor, _ in places})
    assert twice >= 2 and crossed >= 3


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("kind")])
def test_a_layer_without_a_channel_is_shorter_by_at_least_its_bits(name: str) -> None:
    model = built(name)
    _, group = group_of(model, KINDS[name.removeprefix("kind ")])
    for site in group.sites:
        if site.role != "along":
            whole = rounded(model, site.tensor)
            bits = codec.empirical_bits(whole)
            for channel in range(group.size):
                left = np.delete(whole, site.index[channel], site.axis)
                saved = bits.take(site.index[channel], site.axis).sum()
                assert codec.coded_bits(left) <= codec.coded_bits(whole) - saved + 1e-9


def test_biases_count_as_stored_and_whole_numbers_are_coded_as_they_are() -> None:
    model = built("kind gemm")
    _, group = group_of(model, KINDS["gemm"])
    unbiased = model.with_constants({"b1": np.zeros_like(model.constants["b1"])})
    bits = Entropy(positions=1).bits(unbiased, group)
    matrices = [codec.empirical_bits(rounded(model, tensor)) for tensor in ("w1", "w2")]
    assert bits == pytest.approx(sum((each.sum(1) for each in matrices), np.full(16, 32.0)))
    whole = np.array([[5, 5, -128], [5, 127, 0]], np.int8)
    assert np.array_equal(code_lengths(whole), codec.empirical_bits(whole))
    assert (code_lengths(whole.astype(np.float16), vector=True) == 16).all()


# --- the order -------------------------------------------------------------------------------------------


def statistics(model: Model, x: np.ndarray) -> tuple[Group, dict[str, Any]]:
    (group,) = find_groups(model).prunable
    probes = Entropy(positions=1000).needs(model, group)
    assert [probe.name for probe in probes] == [probe.name for probe in Redundancy(1000).needs(model, group)]
    return group, collect(model, feed_of(model, {"x": x}), probes, workers=1)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_every_step_takes_the_least_error_per_bit(build: Any) -> None:
    planted = build("nearly")
    score, model = Entropy(positions=1000), planted.model
    group, seen = statistics(model, planted.samples(120))
    bits, ranking = score.bits(model, group), score.rank(model, group, seen)
    order = ranking.order.tolist()
    assert sorted(order) == list(range(group.size)) and ranking.free == 0
    for step in range(group.size):
        ratios = []
        for channel in order[step:]:
            rest = [other for other in order[step:] if other != channel]
            other = np.array([*order[:step], channel, *rest])
            cost = Redundancy(1000).along(model, group, seen, other).cost
            ratios.append((cost[step + 1] - cost[step]) / bits[channel])
        assert ratios[0] <= min(ratios) * (1 + 1e-6)
        assert score.score(model, group, seen)[order[step]] == pytest.approx(ratios[0])


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("kind", PLANTS)
def test_what_is_free_goes_first_and_scores_nothing(kind: str, build: Any) -> None:
    planted = build(kind)
    group, seen = statistics(planted.model, planted.samples(400 if build is mlp else 60))
    ranking = Entropy(positions=1000).rank(planted.model, group, seen)
    assert ranking.free == planted.free
    scores = Entropy(positions=1000).score(planted.model, group, seen)
    free = ranking.order[: ranking.free]
    assert not scores[free].any() and (np.delete(scores, free) > 0).all()


def test_of_equal_errors_the_longer_channel_goes_first() -> None:
    """Channel 0 reads one input, channel 1 all of them; the first does a little less."""
    random = np.random.default_rng(2)
    w1 = random.standard_normal((8, 64)) / 8
    w1[0] = 0
    w1[0, 0] = 1
    w1[1] /= np.linalg.norm(w1[1])
    w2 = 2 * random.standard_normal((5, 8))
    w2[:, 0], w2[:, 1] = 0.10 * w2[:, 0] / np.linalg.norm(w2[:, 0]), 0.11 * w2[:, 1] / np.linalg.norm(w2[:, 1])
    model = parse(
        "a = Gemm<transB=1>(x, w1)  y = Gemm<transB=1>(a, w2)", x="N,64", outputs="float[N,5] y", w1=w1, w2=w2
    )
    group, seen = statistics(model, random.standard_normal((2000, 64)).astype(np.float32))
    bits = Entropy(positions=1000).bits(model, group)
    assert bits[1] > 1.4 * bits[0]
    assert Redundancy(1000).rank(model, group, seen).order[:2].tolist() == [0, 1]
    assert Entropy(1000).rank(model, group, seen).order[:2].tolist() == [1, 0]


def test_a_channel_that_takes_no_bits_is_not_infinitely_dear() -> None:
    """Equal weights everywhere: one level, no bits, and the order is that of redundancy."""
    x = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    model = parse("a = Gemm<transB=1>(x, w1)  r = Relu(a)  y = Gemm<transB=1>(r, w2)", x="N,8", outputs="float[N,3] y",
                  w1=np.ones((SIZE, 8)), w2=np.ones((3, SIZE)))  # fmt: skip
    group, seen = statistics(model, x)
    assert not Entropy(positions=1000).bits(model, group).any()
    assert np.isfinite(Entropy(positions=1000).score(model, group, seen)).all()
    ranking, plain = (each.rank(model, group, seen) for each in (Entropy(1000), Redundancy(1000)))
    assert np.array_equal(ranking.order, plain.order) and np.array_equal(ranking.cost, plain.cost)
