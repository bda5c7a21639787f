"""Fisher scores: formulas by brute force, the loss that a removal really costs, what goes first by its magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numeric_tools import feed_of, relative
from quantize_tools import kernel, parse
from test_slopes import Net, drawn, felt, net, weight_gradients

from edgepress.calibrate.feed import Chunk, Feed
from edgepress.calibrate.run import collect
from edgepress.calibrate.slopes import BETA, SAMPLES, Gates
from edgepress.calibrate.statistics import slope
from edgepress.errors import DataError
from edgepress.executor import Executor
from edgepress.executor.fisher import known_likelihood, noise
from edgepress.executor.slopes import SlopeRunner
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.pipeline.observing import observe
from edgepress.scores.base import order_of
from edgepress.scores.fisher import SMALL, Fisher

B = kernel(99, 1).ravel()
SEED = 5


def statistics(this: Net, feed: Feed, score: Fisher, classifies: bool = False) -> dict[str, Any]:
    probes = [probe for group in this.groups for probe in score.needs(this.model, group)]
    return observe(this.model, feed, probes, classifies=classifies, workers=1, seed=SEED)


def runner(model: Model, loss: str, classifies: bool, **settings: Any) -> SlopeRunner:
    return SlopeRunner(Executor(model), loss, classifies, SEED, mark=slope(""), **settings)


# --- formulas --------------------------------------------------------------------------------------------


def columns_of(model: Model, group: Group) -> dict[str, list[np.ndarray]]:
    """Of every initializer that consumers read: which of its entries belong to which channel, by the sites."""
    found: dict[str, list[np.ndarray]] = {}
    for site in (site for site in group.sites if site.role == "in"):
        masks = found.setdefault(site.tensor, [np.zeros(model.constants[site.tensor].shape, bool) for _ in site.index])
        for channel, positions in enumerate(site.index):
            np.moveaxis(masks[channel], site.axis, 0)[positions] = True
    return found


def brute(this: Net, group: Group, feed: Feed, loss: str, classifies: bool, method: str) -> np.ndarray:
    """The formula, initializer by initializer, gradients from a loop over samples."""
    seen = drawn(feed, runner(this.model, loss, classifies))
    if method == "gates":
        return np.asarray(0.5 * np.square(felt(this.model, group, seen)).mean(0))
    masks = columns_of(this.model, group)
    loops = weight_gradients(this.model, seen, list(masks))
    score, energy = np.zeros(group.size), np.zeros(group.size)
    for name, own in masks.items():
        if method == "weights":
            information = np.square(np.concatenate([chunk[name] for chunk in loops])).mean(0)
        else:
            moment = np.zeros(this.model.constants[name].shape)
            for chunk in loops:
                moment = BETA * moment + (1 - BETA) * np.square(chunk[name].mean(0))
            information = moment / (1 - BETA ** len(loops))
        squares = np.square(this.model.constants[name].astype(np.float64))
        score += [0.5 * (information * squares)[mask].sum() for mask in own]
        energy += [squares[mask].sum() for mask in own]
    magnitude = np.sqrt(energy)
    small = magnitude < SMALL * np.median(magnitude)
    return np.where(small, magnitude / (SMALL * np.median(magnitude)) - 1, score)


NAMES = ("gemm", "conv", "strided", "grouped conv transpose", "left matmul", "shared weights", "two consumers",
         "concatenated", "flattened", "heads", "einsum", "tokens in one axis")  # fmt: skip
CLASSIFIERS = ("gemm", "strided", "two consumers", "flattened")


@pytest.mark.parametrize("method", ["gates", "weights", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_methods_are_their_formulas(name: str, method: Literal["gates", "weights", "adam"]) -> None:
    this = net(name)
    feed, score = this.feed(19), Fisher("outputs", method)
    found = statistics(this, feed, score)
    for group in this.groups:
        wanted = brute(this, group, feed, "outputs", False, method)
        own = score.score(this.model, group, found)
        assert own.dtype == np.float64 and own.shape == (group.size,)
        assert relative(own, wanted) < 2e-3


@pytest.mark.parametrize("loss", ["answer", "labels"])
@pytest.mark.parametrize("method", ["gates", "weights", "adam"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_methods_of_a_classifier(name: str, method: Literal["gates", "weights", "adam"], loss: str) -> None:
    this = net(name)
    feed, score = this.feed(19), Fisher(loss, method)
    found = statistics(this, feed, score, classifies=True)
    for group in this.groups:
        wanted = brute(this, group, feed, loss, True, method)
        assert relative(score.score(this.model, group, found), wanted) < 2e-3


@pytest.mark.parametrize("method", ["weights", "adam"])
def test_channels_that_only_gates_read_are_scored_as_gates(method: Literal["weights", "adam"]) -> None:
    this = net("lstm")
    feed, score = this.feed(11), Fisher("outputs", method)
    found = statistics(this, feed, score)
    read_by_gates, read_by_a_product = this.groups
    seen = drawn(feed, runner(this.model, "outputs", False))
    wanted = 0.5 * np.square(felt(this.model, read_by_gates, seen)).mean(0)
    assert relative(score.score(this.model, read_by_gates, found), wanted) < 1e-3
    weights = brute(this, read_by_a_product, feed, "outputs", False, "gates")
    assert relative(score.score(this.model, read_by_a_product, found), weights) > 0.01


# --- what a removal costs --------------------------------------------------------------------------------


def classifier(size: float = 1.0) -> Net:
    """Two hidden layers, five classes."""
    body = """a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  c = Gemm<transB=1>(r, w2, b2)  s = Tanh(c)
        y = Gemm<transB=1>(s, w3, b3)"""
    arrays = {"w1": 2 * kernel(8, 6), "b1": B[:8], "w2": 2 * kernel(7, 8), "b2": B[:7]}
    return Net(parse(body, x="N,6", outputs="float[N,5] y", arrays=arrays, w3=size * kernel(5, 7), b3=B[:5]), (6,))


def scaled(this: Net, group: Group, channel: int, factor: float) -> Net:
    """A channel scaled where it is read."""
    arrays = {}
    for name, masks in columns_of(this.model, group).items():
        arrays[name] = np.where(masks[channel], factor, 1).astype(np.float32) * this.model.constants[name]
    return replace(this, model=this.model.with_constants(arrays))


def probabilities(model: Model, x: np.ndarray) -> np.ndarray:
    logits = Executor(model, dtype=torch.float64).run({"x": x.astype(np.float64)})["y"]
    return np.asarray(torch.softmax(logits, 1).numpy())


def divergence(model: Model, other: Model, x: np.ndarray) -> np.ndarray:
    """KL(p || q) of every sample."""
    p, q = probabilities(model, x), probabilities(other, x)
    return np.asarray((p * np.log(p / q)).sum(1))


def expected_gates(this: Net, group: Group, x: np.ndarray) -> np.ndarray:
    """E[u^2] over the labels of every sample, each label weighing its probability: nothing is drawn."""
    (probe,) = Fisher("labels").needs(this.model, group)
    run = runner(this.model, "labels", True)
    share = probabilities(this.model, x)
    found = np.zeros((len(x), group.size))
    for sample in range(len(x)):
        for label in range(share.shape[1]):
            chunk = Chunk({"x": x[[sample]]}, np.array([sample]), np.array([label]))
            values = {**run(0, chunk, probe.tensors, probe.slopes), SAMPLES: np.array(1)}
            gates: Gates = probe.observe(values, 0)
            found[sample] += share[sample, label] * gates.square
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_half_the_mean_square_is_what_removing_a_small_channel_costs(number: int) -> None:
    """KL(p || p without the channel) to second order, at temperature 1."""
    this = classifier()
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    group = this.groups[number]
    for channel in range(group.size):
        small = scaled(this, group, channel, 3e-3)
        gone = scaled(this, group, channel, 0.0)
        wanted = divergence(small.model, gone.model, x)
        found = 0.5 * expected_gates(small, group, x)[:, channel]
        assert np.abs(found - wanted).max() <= 0.02 * wanted.max() + 1e-15
        assert wanted.max() > 1e-9 or not found.max() > 1e-9


def test_drawn_labels_give_the_expected_value() -> None:
    this = classifier()
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    feed = feed_of(this.model, {"x": np.repeat(x, 1500, axis=0)})
    group = this.groups[1]
    (probe,) = Fisher().needs(this.model, group)
    run = runner(this.model, "answer", True, temperature=1.0)
    found = collect(this.model, feed, [probe], workers=1, runners={"answer": run})
    score = Fisher().score(this.model, group, found)
    wanted = 0.5 * expected_gates(this, group, x).mean(0)
    assert score == pytest.approx(wanted, rel=0.1)


def test_the_order_is_nearly_that_of_what_removals_cost() -> None:
    """Of whole channels, where second order is no more than a guide."""
    this = classifier()
    group = this.groups[1]
    feed = this.feed(300)
    found = statistics(this, feed, Fisher("answer"), classifies=True)
    score = Fisher("answer").score(this.model, group, found)
    x = np.concatenate([chunk.inputs["x"] for chunk in feed.chunks(300)])
    costs = [divergence(this.model, scaled(this, group, c, 0.0).model, x).mean() for c in range(group.size)]
    ranks = [np.argsort(np.argsort(numbers)) for numbers in (score, np.array(costs))]
    assert float((ranks[0] * ranks[1]).sum()) > 0.9 * float((ranks[0] ** 2).sum())


# --- small channels --------------------------------------------------------------------------------------


@cache
def with_small() -> tuple[Net, Mapping[int, float]]:
    """Three channels of hardly any weight, and how much is left of each."""
    this = classifier()
    group = this.groups[0]
    left = {2: 1e-3, 5: 3e-2, 6: 1e-2}
    for channel, factor in left.items():
        this = scaled(this, group, channel, factor)
    return this, left


@pytest.mark.parametrize("method", ["weights", "adam"])
def test_channels_of_small_magnitude_go_first_by_their_magnitude(method: Literal["weights", "adam"]) -> None:
    this, left = with_small()
    group, score = this.groups[0], Fisher("answer", method)
    found = statistics(this, this.feed(24), score, classifies=True)
    own = score.score(this.model, group, found)
    assert np.flatnonzero(own < 0).tolist() == sorted(left)
    assert (own >= -1).all()
    order = order_of(score, this.model, group, found).tolist()
    norms = [np.linalg.norm(this.model.constants["w2"][:, channel]) for channel in order[:3]]
    assert set(order[:3]) == left.keys() and norms == sorted(norms)
    rest = order[3:]
    assert (np.diff(own[rest]) >= 0).all() and own[rest[0]] > 0


def test_a_loud_channel_makes_no_other_one_small() -> None:
    """Small is measured by the median."""
    this = classifier()
    loud = scaled(this, this.groups[0], 1, 1e3)
    score = Fisher("answer", "weights")
    found = statistics(loud, loud.feed(24), score, classifies=True)
    assert (score.score(loud.model, loud.groups[0], found) >= 0).all()


def test_gates_know_no_magnitude() -> None:
    this, _ = with_small()
    score = Fisher("answer")
    found = statistics(this, this.feed(24), score, classifies=True)
    assert (score.score(this.model, this.groups[0], found) >= 0).all()


@pytest.mark.parametrize("method", ["weights", "adam"])
def test_channels_that_nobody_weighs_all_score_zero(method: Literal["weights", "adam"]) -> None:
    this = classifier()
    idle = replace(this, model=this.model.with_constants({"w2": np.zeros_like(this.model.constants["w2"])}))
    score = Fisher("answer", method)
    found = statistics(idle, idle.feed(9), score, classifies=True)
    assert not score.score(idle.model, idle.groups[0], found).any()


# --- losses ----------------------------------------------------------------------------------------------


def test_a_model_that_is_no_classifier_follows_its_outputs_whatever_is_asked() -> None:
    this = net("conv")
    feed = this.feed(11)
    scores = []
    for loss in ("outputs", "answer", "labels"):
        score = Fisher(loss)
        scores.append(score.score(this.model, this.groups[0], statistics(this, feed, score)))
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])


def test_labels_must_be_there() -> None:
    this = classifier()
    feed = feed_of(this.model, {"x": np.zeros((4, 6), np.float32)})
    with pytest.raises(DataError, match="samples have none"):
        statistics(this, feed, Fisher("labels"), classifies=True)


@pytest.mark.parametrize("label", [-1, 5, 1000])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    this = classifier()
    feed = feed_of(this.model, {"x": np.zeros((4, 6), np.float32), "label": np.array([0, 4, label, 1])})
    with pytest.raises(DataError, match=f"label {label}, but the model has the classes 0 to 4"):
        statistics(this, feed, Fisher("labels"), classifies=True)


def test_every_row_needs_a_label() -> None:
    with pytest.raises(DataError, match="3 rows to 1 labels"):
        known_likelihood({"y": torch.zeros(3, 5)}, torch.tensor([1]))


def test_known_labels_pull_at_temperature_one() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, 0])
    (found,) = torch.autograd.grad(known_likelihood({"y": logits}, labels), logits)
    (wanted,) = torch.autograd.grad(-torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), logits)
    assert torch.allclose(found, wanted)


def test_outputs_without_axes_have_noise_too() -> None:
    value = torch.tensor(3.0, requires_grad=True)
    (found,) = torch.autograd.grad(noise({"y": value}, torch.Generator().manual_seed(0)), value)
    assert bool(found.isfinite()) and float(found) != 0
