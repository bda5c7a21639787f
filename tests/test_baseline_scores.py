"""Magnitude, Wanda and random against their definitions, on every kind of group."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cache, reduce
from typing import Any

import numpy as np
import pytest
from group_models import TOYS
from numeric_tools import feed_of, relative, run
from planted import SIZE, cnn, mlp
from quantize_tools import kernel, parse
from redistribution_models import KINDS, group_of

from edgepress.calibrate.fits import Fit
from edgepress.calibrate.run import collect
from edgepress.groups import Group, find_groups
from edgepress.model import Model
from edgepress.scores import Redundancy
from edgepress.scores.base import consumers
from edgepress.scores.magnitude import Magnitude
from edgepress.scores.random import Random
from edgepress.scores.wanda import Wanda

FITTED = [name for name in KINDS if name != "merged with the batch"]
CHAINS = {
    "dense": ("a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  y = Gemm<transB=1>(r, w2, b2)", "N,8", "float[N,3] y"),
    "no bias": ("a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  y = Gemm<transB=1>(r, w2)", "N,8", "float[N,3] y"),
}


def chain(name: str, size: int = 6) -> Model:
    """Two dense layers."""
    body, x, outputs = CHAINS[name]
    arrays = {"w1": kernel(size, 8), "b1": kernel(size, 1).ravel(), "w2": kernel(3, size), "b2": kernel(3, 1).ravel()}
    return parse(body, x=x, outputs=outputs, arrays={key: arrays[key] for key in arrays if key in body})


# --- magnitude -------------------------------------------------------------------------------------------


def filter_norms(model: Model, group: Group) -> np.ndarray:
    """The definition, weight by weight."""
    places = {(site.tensor, site.axis): site.index for site in group.sites if site.role == "out"}
    total = np.zeros(group.size)
    for (tensor, axis), index in places.items():
        norms = np.zeros(group.size)
        for place, value in np.ndenumerate(model.constants[tensor]):
            for channel in range(group.size):
                if place[axis] in index[channel]:
                    norms[channel] += abs(float(value))
        total += norms / norms.mean()
    return total / len(places)


@cache
def toy(name: str) -> Model:
    return TOYS[name].build()


@pytest.mark.parametrize("name", TOYS)
def test_magnitude_is_the_l1_norm_of_filters_relative_to_the_mean_one(name: str) -> None:
    for group in find_groups(toy(name)).prunable:
        assert Magnitude().needs(toy(name), group) == ()
        found = Magnitude().score(toy(name), group, {})
        assert found.shape == (group.size,) and found.dtype == np.float64
        assert found == pytest.approx(filter_norms(toy(name), group))
        assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_magnitude_of_a_filter_of_zeros_is_nothing(build: Any) -> None:
    planted = build("constant")
    (group,) = find_groups(planted.model).prunable
    found = Magnitude().score(planted.model, group, {})
    assert found[SIZE - 1] == 0 and (found[: SIZE - 1] > 0).all()


def test_magnitude_knows_no_scale_and_takes_layers_of_zeros() -> None:
    model = KINDS["gated ffn"].build()
    _, group = group_of(model, KINDS["gated ffn"])
    given = Magnitude().score(model, group, {})
    louder = model.with_constants({"w1": 1000 * model.constants["w1"]})
    assert Magnitude().score(louder, group, {}) == pytest.approx(given, rel=1e-5)
    silent = model.with_constants({"w1": 0 * model.constants["w1"]})
    alone = np.abs(model.constants["w2"].astype(np.float64)).sum(0)
    assert Magnitude().score(silent, group, {}) == pytest.approx(alone / alone.mean() / 2)


# --- wanda -----------------------------------------------------------------------------------------------


def observed(model: Model, group: Group, chunks: list[dict[str, np.ndarray]], score: Wanda) -> dict[str, Any]:
    """Statistics of a score's probes, chunk by chunk."""
    probes = score.needs(model, group)
    tensors = [name for name in dict.fromkeys(t for probe in probes for t in probe.tensors) if name not in model.inputs]
    found: dict[str, list[Any]] = {probe.name: [] for probe in probes}
    for number, inputs in enumerate(chunks):
        values = {**inputs, **dict(zip(tensors, run(model, inputs, tensors), strict=True))}
        for probe in probes:
            found[probe.name].append(probe.observe(values, number))
    return {name: reduce(lambda a, b: a.merge(b), items) for name, items in found.items()}


def explicit(model: Model, fit: Fit, chunks: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, float]:
    """All rows of a fit side by side, and the squared distance of its outputs from their means."""
    rows, spread = [], 0.0
    for part in fit.parts:
        asked = dict.fromkeys([*part.geometry.tensors, *([part.geometry.answer] if part.geometry.answer else [])])
        tensors = [name for name in asked if name not in model.inputs]
        given = [{**inputs, **dict(zip(tensors, run(model, inputs, tensors), strict=True))} for inputs in chunks]
        own = np.concatenate([part.rows(values, None) for values in given])
        place = fit.place(part)
        wide = np.zeros((len(own), fit.width))
        wide[:, place] = own[:, : len(place)]
        rows.append(wide)
        targets = np.concatenate([part.targets(values, None) for values in given])
        spread += float(((targets - targets.mean(0)) ** 2).sum())
    return np.concatenate(rows), spread


def silenced(model: Model, group: Group, channel: int) -> Mapping[str, np.ndarray]:
    """The weights with nothing reading one channel."""
    found = {name: array.copy() for name, array in model.constants.items()}
    for site in group.sites:
        if site.role == "in":
            np.moveaxis(found[site.tensor], site.axis, 0)[site.index[channel]] = 0
    return found


def energies(model: Model, group: Group, chunks: list[dict[str, np.ndarray]], centred: bool) -> np.ndarray:
    """The definition, from explicit activations and from weights that change when a channel is silenced."""
    fits = [fit for fit, _ in consumers(model, group)]
    seen = [explicit(model, fit, chunks) for fit in fits]
    total = np.zeros(group.size)
    for fit, (rows, _) in zip(fits, seen, strict=True):
        spread = sum(own for other, (_, own) in zip(fits, seen, strict=True) if other.node.name == fit.node.name)
        columns, ones = rows[:, : fit.columns], rows[:, fit.columns :]
        if centred and fit.biases:
            columns = columns - ones @ np.linalg.lstsq(ones, columns, rcond=None)[0]
        for channel in range(group.size):
            lost = fit.matrix(model.constants) - fit.matrix(silenced(model, group, channel))
            total[channel] += ((columns**2).sum(0) * (lost[:, : fit.columns] ** 2).sum(0)).sum() / spread
    return total


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", FITTED)
def test_wanda_is_the_energy_of_activations_times_weights(name: str, centred: bool) -> None:
    model, chunks = KINDS[name].build(), KINDS[name].samples(3)
    _, group = group_of(model, KINDS[name])
    score = Wanda(positions=10000, centred=centred)
    found = score.score(model, group, observed(model, group, chunks, score))
    assert found.shape == (group.size,) and (found > 0).all()
    assert relative(found, energies(model, group, chunks, centred)) < 1e-4


def wanda(model: Model, x: np.ndarray, *, centred: bool = False) -> np.ndarray:
    (group,) = find_groups(model).prunable
    score = Wanda(positions=1000, centred=centred)
    probes = score.needs(model, group)
    assert [probe.name for probe in probes] == [probe.name for probe in Redundancy(1000).needs(model, group)]
    return score.score(model, group, collect(model, feed_of(model, {"x": x}), probes, workers=1))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("kind", ["dead", "unread"])
def test_wanda_of_a_channel_that_does_nothing_is_nothing(kind: str, build: Any, centred: bool) -> None:
    planted = build(kind)
    found = wanda(planted.model, planted.samples(80), centred=centred)
    assert found[SIZE - 1] == 0 and (found[: SIZE - 1] > 0).all()


@pytest.mark.parametrize("build", [mlp, cnn])
def test_only_centred_wanda_lets_a_bias_take_over_a_constant_channel(build: Any) -> None:
    planted = build("constant")
    plain, centred = (wanda(planted.model, planted.samples(80), centred=each) for each in (False, True))
    assert plain[SIZE - 1] > 0.01 * plain.mean()
    assert centred[SIZE - 1] < 1e-10 * centred.mean() and (centred < plain).all()


def test_without_a_bias_nothing_takes_over_a_mean() -> None:
    x = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    for name, same in (("no bias", True), ("dense", False)):
        plain, centred = (wanda(chain(name), x, centred=each) for each in (False, True))
        assert np.array_equal(plain, centred) is same


# --- random ----------------------------------------------------------------------------------------------


def test_random_depends_on_seed_and_group_alone() -> None:
    model = toy("flatten_chain")
    first, second = find_groups(model).prunable
    found = Random().score(model, first, {})
    assert Random().needs(model, first) == ()
    assert found.shape == (first.size,) and ((found >= 0) & (found < 1)).all() and len(set(found)) == first.size
    assert np.array_equal(found, Random().score(model, first, {}))
    assert not np.array_equal(found, Random(seed=1).score(model, first, {}))
    assert not np.isin(found, Random().score(model, second, {})).any()


def test_random_is_the_same_in_every_process() -> None:
    """Python's own hash of a string is not."""
    script = """
from group_models import TOYS
from edgepress.groups import find_groups
from edgepress.scores.random import Random
model = TOYS["mlp"].build()
print(Random(3).score(model, find_groups(model).prunable[0], {}).tolist())
"""
    model = toy("mlp")
    here = Random(3).score(model, find_groups(model).prunable[0], {}).tolist()
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="tests",
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": "..:."},
    )  # fmt: skip
    assert there.stdout.strip() == str(here)
