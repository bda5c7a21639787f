"""Scores by name: every one of them on every kind of network, what order it means, and mixes of ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_models import MODELS as ATTENTION
from group_models import TOYS
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import feed_of
from redistribution_models import KINDS
from sequence_models import exported
from test_slopes import Net, net
from toys import feed as inputs_of
from zoo import LEGACY

from edgepress.calibrate import open_feed
from edgepress.calibrate.feed import Feed
from edgepress.calibrate.statistics import Probe
from edgepress.errors import InputError
from edgepress.executor.slopes import LOSSES
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.pipeline.observing import observe
from edgepress.scores import Elimination, Options, Ordered, Ranking, Score, order_of
from edgepress.scores.base import readers
from edgepress.scores.mix import Mix
from edgepress.scores.registry import BUILT_IN, find

COUNT = 20
GROUP = Group("g", 4, (), (), (), None)
MODEL = TOYS["mlp"].build()

# --- orders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """Numbers as they are given."""

    numbers: tuple[float, ...]
    name: str = "plain"
    probes: tuple[Probe, ...] = ()

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        return self.probes

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        return np.array(self.numbers)


@dataclass(frozen=True)
class InOrder(Plain):
    """An order of its own."""

    turns: tuple[int, ...] = ()

    def order(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        return np.array(self.turns)


@dataclass(frozen=True)
class Eliminating(InOrder):
    """An order that comes with costs."""

    ranked: tuple[int, ...] = field(default=())

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        return Ranking(np.array(self.ranked), np.arange(5.0), 0, 1.0)


NUMBERS = (3.0, 1.0, 2.0, 1.0)


def test_numbers_go_by_size_and_equal_ones_by_place() -> None:
    score = Plain(NUMBERS)
    assert not isinstance(score, Ordered) and not isinstance(score, Elimination)
    assert order_of(score, MODEL, GROUP, {}).tolist() == [1, 3, 2, 0]


def test_an_order_of_its_own_counts_more_than_numbers_and_an_elimination_more_than_that() -> None:
    ordered = InOrder(NUMBERS, turns=(2, 0, 3, 1))
    assert isinstance(ordered, Ordered)
    assert not isinstance(ordered, Elimination)
    assert order_of(ordered, MODEL, GROUP, {}).tolist() == [2, 0, 3, 1]
    eliminating = Eliminating(NUMBERS, turns=(2, 0, 3, 1), ranked=(3, 2, 1, 0))
    assert isinstance(eliminating, Elimination)
    assert order_of(eliminating, MODEL, GROUP, {}).tolist() == [3, 2, 1, 0]


def test_a_ranking_says_what_each_channel_added_at_its_turn() -> None:
    ranking = Ranking(np.array([2, 0, 3, 1]), np.array([0.0, 0.1, 0.4, 0.4, 1.0]), 0, 1.0)
    assert ranking.added == pytest.approx([0.3, 0.6, 0.1, 0.0])


# --- mixes -----------------------------------------------------------------------------------------------


def test_a_mix_is_the_weighted_mean_of_ranks() -> None:
    """Ranks 3 0 2 1 (of numbers), 1 3 0 2 (of turns), 3 2 1 0 (of an elimination), over 3."""
    parts = (
        (Plain(NUMBERS), 1.0),
        (InOrder(NUMBERS, turns=(2, 0, 3, 1)), 2.0),
        (Eliminating(NUMBERS, turns=(2, 0, 3, 1), ranked=(3, 2, 1, 0)), 5.0),
    )
    ranks = np.array([[3, 0, 2, 1], [1, 3, 0, 2], [3, 2, 1, 0]]) / 3
    wanted = np.array([1, 2, 5]) @ ranks / 8
    mix = Mix(parts, "as the user says it")
    found = mix.score(MODEL, GROUP, {})
    assert found == pytest.approx(wanted) and found.dtype == np.float64
    assert order_of(mix, MODEL, GROUP, {}).tolist() == np.argsort(wanted, kind="stable").tolist()
    assert mix.name == "as the user says it" and not isinstance(mix, Ordered)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    numbers=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    scale=st.floats(1e-3, 1e3),
)
def test_only_ranks_and_the_ratio_of_weights_count(
    numbers: list[list[float]], weights: list[float], scale: float
) -> None:
    scores = [Plain(tuple(own)) for own in numbers]
    mix = Mix(tuple(zip(scores, weights, strict=False)), "m").score(MODEL, GROUP, {})
    places = np.array([np.argsort(np.argsort(own, kind="stable"), kind="stable") for own in numbers]) / 3
    assert mix == pytest.approx(np.average(places, axis=0, weights=weights[: len(numbers)]))
    assert ((mix >= 0) & (mix <= 1 + 1e-12)).all()
    louder = tuple((score, scale * weight) for score, weight in zip(scores, weights, strict=False))
    assert Mix(louder, "m").score(MODEL, GROUP, {}) == pytest.approx(mix)


def test_one_score_alone_keeps_its_order_and_a_single_channel_has_rank_zero() -> None:
    assert order_of(Mix(((Plain(NUMBERS), 0.3),), "m"), MODEL, GROUP, {}).tolist() == [1, 3, 2, 0]
    single = Group("s", 1, (), (), (), None)
    assert Mix(((Plain((7.0,)), 2.0),), "m").score(MODEL, single, {}).tolist() == [0]


def test_a_mix_observes_everything_once() -> None:
    first, second, third = (Probe(name, (), lambda *_: None) for name in "aba")
    mix = Mix(((Plain(NUMBERS, probes=(first, second)), 1.0), (Plain(NUMBERS, probes=(third,)), 1.0)), "m")
    assert [probe.name for probe in mix.needs(MODEL, GROUP)] == ["a", "b"]


def test_a_mix_by_name_is_the_mix_of_its_scores() -> None:
    this = net("conv")
    (group,) = this.groups
    options = Options(9)
    mix = find("redundancy=2, taylor@outputs=0.5,kfac", options)
    assert isinstance(mix, Mix) and mix.name == "redundancy=2, taylor@outputs=0.5,kfac"
    found = observe(this.model, this.feed(COUNT), mix.needs(this.model, group), classifies=False, workers=1, seed=0)
    wanted = np.zeros(group.size)
    for name, weight in (("redundancy", 2), ("taylor@outputs", 0.5), ("kfac", 1)):
        order = order_of(find(name, options), this.model, group, found)
        wanted[order] += weight / 3.5 * np.arange(group.size) / (group.size - 1)
    assert mix.score(this.model, group, found) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tailor", "did you mean taylor"),
        ("taylor@noise", "one of answer, labels, outputs behind the @"),
        ("fisher=0", "weight above zero"),
        ("fisher=-1,taylor", "weight above zero"),
        ("fisher=much", "weight above zero"),
        ("fisher=inf", "weight above zero"),
        ("", "There is no score ''"),
        ("fisher,", "There is no score ''"),
    ],
)
def test_wrong_names_are_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(text, Options(4))


# --- every score on every kind of network ----------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model with samples and labels, and its groups that can be scored."""

    model: Model
    feed: Feed
    classifies: bool

    @property
    def groups(self) -> list[Group]:
        found = find_groups(self.model).prunable
        return [group for group in found if not readers(self.model, group).refusals]


def toy(name: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        model = {**TOYS, **ATTENTION}[name].build()
        arrays = inputs_of(model, COUNT, 0)
        fixed = [type_.shape[0] for type_ in model.inputs.values() if type_.shape and isinstance(type_.shape[0], int)]
        if fixed:  # a sample is a complete input
            more = [inputs_of(model, 3, seed) for seed in range(COUNT)]
            arrays = {key: np.stack([one[key] for one in more]) for key in arrays}
        return opened(folder, model, arrays)

    return build


def kind(name: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        chunks = [chunk["x"] for chunk in KINDS[name].samples(COUNT if KINDS[name].fixed else 1)]
        x = np.stack(chunks) if KINDS[name].fixed else chunks[0][:COUNT]
        return opened(folder, KINDS[name].build(), {"x": x})

    return build


def network(name: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        given_, samples = exported(name, LEGACY)
        model = normalize(given_, [samples]).model
        return opened(folder, model, {key: np.concatenate([array] * 3)[:COUNT] for key, array in samples.items()})

    return build


def own(name: str) -> Callable[[Path], Case]:
    def build(_: Path) -> Case:
        this: Net = net(name)
        return Case(this.model, this.feed(COUNT), False)

    return build


def opened(folder: Path, model: Model, arrays: Mapping[str, np.ndarray]) -> Case:
    """With labels where the model classifies."""
    shape = next(iter(model.outputs.values())).shape
    free = all(type_.shape and not isinstance(type_.shape[0], int) for type_ in model.inputs.values())
    classifies = shape is not None and len(shape) == 2 and len(model.outputs) == 1 and free
    count = len(next(iter(arrays.values())))
    np.savez(folder / "data.npz", **{**arrays, "label": np.arange(count) % 3})  # type: ignore[arg-type]
    return Case(model, open_feed(str(folder / "data.npz"), model), classifies)


TOY_NAMES = ("residual", "concat_depthwise_split", "channel_shuffle", "flatten_chain", "normalized", "left_matmul",
             "image_from_vector", "expand_tile", "joined_with_constants", "transposed_blocks", "shufflenet",
             "group_normalized", "lstm", "lstm_started", "gru", "encoder_decoder")  # fmt: skip
KIND_NAMES = ("grouped conv", "depthwise conv", "conv transpose without a bias", "gemm", "matmul and add", "einsum",
              "two consumers", "shared weights", "concatenated", "gated ffn", "heads", "gru, reset behind",
              "lstm, both ways")  # fmt: skip
CASES: Mapping[str, Callable[[Path], Case]] = {
    **{f"toy {name}": toy(name) for name in TOY_NAMES},
    **{f"kind {name}": kind(name) for name in KIND_NAMES},
    **{f"exported {name}": network(name) for name in ("lstm_tagger", "vit")},
    **{f"own {name}": own(name) for name in ("tokens in one axis", "read by a product too")},
}


@cache
def scores(loss: str) -> Mapping[str, Score]:
    return {name: find(f"{name}@{loss}", Options(16, 1)) for name in BUILT_IN}


def felt(method: str) -> bool:
    """Whether a score follows gradients."""
    return method.startswith(("fisher", "kfac", "taylor"))


def observed(case: Case, losses: tuple[str, ...], workers: int) -> Mapping[str, Any]:
    probes = [
        probe
        for group, loss, name in product(case.groups, losses, BUILT_IN)
        for probe in scores(loss)[name].needs(case.model, group)
    ]
    return observe(case.model, case.feed, probes, classifies=case.classifies, workers=workers, seed=1)


@pytest.mark.parametrize("name", CASES)
def test_every_score_on_every_kind_of_network(name: str, tmp_path: Path) -> None:
    """Float64, one finite number per channel, an order of all channels; the same bits when it is done again."""
    case = CASES[name](tmp_path)
    assert case.groups
    losses = LOSSES if case.classifies else ("answer",)
    first, again = observed(case, losses, 1), observed(case, losses[:1], 2)
    for group, loss, method in product(case.groups, losses, BUILT_IN):
        if loss == losses[0] or felt(method):
            score = scores(loss)[method]
            found = score.score(case.model, group, first)
            assert found.dtype == np.float64 and found.shape == (group.size,), method
            assert np.isfinite(found).all(), method
            if loss == losses[0]:
                order = order_of(score, case.model, group, first).tolist()
                assert sorted(order) == list(range(group.size)), method
                assert score.score(case.model, group, again).tobytes() == found.tobytes(), method


def test_there_are_classifiers_among_them(tmp_path: Path) -> None:
    found = [name for name in CASES if name.startswith(("toy", "kind")) and CASES[name](tmp_path).classifies]
    assert len(found) >= 6


@pytest.mark.parametrize("method", [name for name in BUILT_IN if felt(name)])
def test_what_gradients_are_of_changes_scores_that_follow_them(method: str, tmp_path: Path) -> None:
    case = CASES["kind two consumers"](tmp_path)
    assert case.classifies
    (group,) = case.groups
    found = observed(case, LOSSES, 1)
    numbers = [scores(loss)[method].score(case.model, group, found) for loss in LOSSES]
    assert not any(np.allclose(numbers[a], numbers[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_labels_change_no_other_score(tmp_path: Path) -> None:
    case = CASES["kind gemm"](tmp_path)
    (group,) = case.groups
    found = observed(case, LOSSES, 1)
    for method in BUILT_IN:
        if not felt(method):
            numbers = [scores(loss)[method].score(case.model, group, found) for loss in LOSSES]
            assert all(np.array_equal(numbers[0], other) for other in numbers[1:]), method


def test_data_of_one_sample_are_enough_for_gradients() -> None:
    this = net("gemm")
    feed = feed_of(this.model, {"x": np.ones((1, 10), np.float32)})
    (group,) = this.groups
    for method in ("fisher", "fisher-weights", "fisher-adam", "taylor", "kfac-obd", "kfac-rows", "kfac"):
        score = find(method, Options(4))
        found = observe(this.model, feed, score.needs(this.model, group), classifies=False, workers=1, seed=0)
        assert np.isfinite(score.score(this.model, group, found)).all(), method
