"""Score gradients: those of the likelihood of a drawn label, alike for logits and probabilities; their mean square."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from quantize_tools import CONV, kernel, parse

from edgepress.executor import Executor, gradients
from edgepress.executor import fisher as module
from edgepress.executor.fisher import score_gradients
from edgepress.model import Model

B = kernel(99, 1).ravel()
TENSORS = ["x", "a", "f", "z"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(end: str, size: float = 1.0) -> Model:
    """A small classifier of five classes; logits are called z."""
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)
        z = Gemm<transB=1>(f, w1, b1)  {end}"""
    arrays = {"w0": 2 * kernel(6, 2, 3, 3), "b0": B[:6], "w1": size * kernel(5, 6), "b1": 2 * B[:5]}
    return parse(body, x="N,2,5,5", outputs="float[N,5] y", arrays=arrays)


LOGITS = classifier("y = Identity(z)")
PROBABILITIES = classifier("y = Softmax<axis=1>(z)")
LOG_PROBABILITIES = classifier("y = LogSoftmax<axis=1>(z)")


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 2, 5, 5)).astype(np.float32)


def gradients_of(model: Model, x: np.ndarray, *, classifies: bool = True, size: int = 8, tensors: list[str] = TENSORS,
                 **settings: Any) -> dict[str, np.ndarray]:  # fmt: skip
    """Score gradients of all samples, float64."""
    executor = Executor(model, dtype=torch.float64)
    parts = [{"x": x[start : start + size].astype(np.float64)} for start in range(0, len(x), size)]
    seed = int(settings.pop("seed", 0))
    found = [
        slopes for _, slopes in score_gradients(executor, parts, tensors, classifies=classifies, seed=seed, **settings)
    ]
    return {name: np.concatenate([slopes[name] for slopes in found]) for name in tensors}


def likelihood(z: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """T log softmax(z / T) of a label, sample by sample."""
    scaled = z / temperature
    whole = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
    return np.asarray(temperature * whole[np.arange(len(z)), labels])


def labels_from(slopes: np.ndarray) -> np.ndarray:
    """The label that was drawn: the only logit that ought to rise."""
    assert ((slopes > 0).sum(1) == 1).all()
    return np.asarray(slopes.argmax(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("model", [LOGITS, PROBABILITIES, LOG_PROBABILITIES], ids=["logits", "softmax", "logsoftmax"])
def test_gradients_are_finite_differences_of_the_likelihood_of_the_label(model: Model, temperature: float) -> None:
    x = draw(6)
    found = gradients_of(model, x, temperature=temperature)
    labels = labels_from(found["z"])
    executor = Executor(LOGITS, dtype=torch.float64)

    def value(inputs: np.ndarray) -> np.ndarray:
        return likelihood(executor.run({"x": inputs})["y"].numpy(), labels, temperature)

    random = np.random.default_rng(1)
    for _ in range(5):
        way = random.standard_normal(x.shape)
        step = 1e-6
        measured = (value(x + step * way) - value(x - step * way)) / (2 * step)
        assert (found["x"] * way).reshape(6, -1).sum(1) == pytest.approx(measured, rel=1e-5, abs=1e-7)


def test_inner_tensors_get_the_gradient_of_what_follows_them() -> None:
    x = draw(6)
    found = gradients_of(LOGITS, x, temperature=1.0)
    labels = labels_from(found["z"])
    weight = LOGITS.constants["w1"].astype(np.float64)
    assert found["f"] == pytest.approx(found["z"] @ weight, rel=1e-9, abs=1e-12)
    logits = Executor(LOGITS, dtype=torch.float64).run({"x": x.astype(np.float64)})["y"].numpy()
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["z"] == pytest.approx(np.eye(5)[labels] - share, abs=1e-9)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_probabilities_and_logits_have_the_same_fisher_information(size: float) -> None:
    """Even where a confident network gives the other labels next to nothing."""
    x = draw(64)
    ends = ("y = Identity(z)", "y = Softmax<axis=1>(z)", "y = LogSoftmax<axis=1>(z)")
    first, *others = (gradients_of(classifier(end, size), x) for end in ends)
    for other in others:
        for name in TENSORS:
            assert np.abs(other[name] - first[name]).max() < 1e-6 * np.abs(first[name]).max()


def test_their_mean_square_is_the_true_fisher_information() -> None:
    """Over many draws for one sample: diag(p) - p p^T of the spread answer."""
    x = np.repeat(draw(1), 4000, axis=0)
    found = gradients_of(LOGITS, x, size=500, tensors=["z"])["z"]
    logits = Executor(LOGITS, dtype=torch.float64).run({"x": x[:1].astype(np.float64)})["y"].numpy()[0]
    share = np.exp(logits / module.TEMPERATURE) / np.exp(logits / module.TEMPERATURE).sum()
    assert share.min() > 0.01  # every label comes up
    assert found.T @ found / len(found) == pytest.approx(np.diag(share) - np.outer(share, share), abs=0.02)
    assert np.abs(found.mean(0)).max() < 0.03


def test_a_high_temperature_draws_labels_that_the_network_does_not_believe_in() -> None:
    x = np.repeat(draw(1), 400, axis=0)
    cold, hot = (gradients_of(LOGITS, x, tensors=["z"], temperature=t)["z"] for t in (0.02, 50.0))
    assert np.abs(cold).max() < 0.5  # the likeliest one, as good as certain
    assert set(labels_from(hot)) == set(range(5))


def regressor(scale: float = 1.0) -> Model:
    body = f"""a = {CONV}(x, w0, b0)  r = Tanh(a)  f = Flatten(r)  z = Gemm<transB=1>(f, w1, b1)  n = Mul(z, s)
        y = Identity(n)"""
    arrays = {"w0": kernel(4, 2, 3, 3), "b0": B[:4], "w1": kernel(3, 100), "b1": B[:3], "s": scale * np.ones(1)}
    return parse(body, x="N,2,5,5", outputs="float[N,3] y", arrays=arrays)


def test_without_classes_their_mean_square_is_that_of_the_jacobian_in_units_of_the_output() -> None:
    sample = draw(1)
    x = np.repeat(sample, 3000, axis=0)
    model = regressor()
    found = gradients_of(model, x, classifies=False, size=500, tensors=["f"])["f"]
    answer = Executor(model, dtype=torch.float64).run({"x": sample.astype(np.float64)})["y"].numpy()
    weight = model.constants["w1"].astype(np.float64)
    wanted = weight.T @ weight / np.square(answer).sum()
    assert np.abs(found.T @ found / len(found) - wanted).max() < 0.1 * np.abs(wanted).max()


def test_without_classes_neither_the_unit_nor_the_size_of_a_chunk_counts() -> None:
    x = draw(480)
    squares = []
    for model, size in ((regressor(), 8), (regressor(1000.0), 8), (regressor(), 40), (regressor(), 1)):
        found = gradients_of(model, x, classifies=False, size=size, tensors=["f"])["f"]
        squares.append(float(np.square(found).mean()))
    assert squares[1] == pytest.approx(squares[0], rel=1e-6)
    assert squares[2] == pytest.approx(squares[0], rel=0.35)
    assert squares[3] > squares[2]  # a sample whose answer is small counts as much as a large one there


def test_all_outputs_that_are_float_take_part() -> None:
    body = "a = Gemm(x, w0, b0)  r = Tanh(a)  y = Gemm(r, w1)  q = MatMul(r, w2)  i = ArgMax<axis=1>(y)"
    arrays = {"w0": kernel(4, 6), "b0": B[:6], "w1": kernel(6, 3), "w2": kernel(6, 2)}
    model = parse(body, x="N,4", outputs="int64[N,1] i, float[N,3] y, float[N,2] q", arrays=arrays)
    executor = Executor(model)
    x = {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
    ((_, slopes),) = score_gradients(executor, [x], ["y", "q", "r"], classifies=False)
    assert all(np.abs(slopes[name]).min() > 0 for name in ("y", "q", "r"))
    assert slopes["r"] == pytest.approx(slopes["y"] @ arrays["w1"].T + slopes["q"] @ arrays["w2"].T, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("model", [LOGITS, PROBABILITIES], ids=["logits", "softmax"])
def test_a_seed_gives_the_same_gradients_and_another_one_others(model: Model) -> None:
    x = draw(32)
    first, again, other = (gradients_of(model, x, seed=seed) for seed in (3, 3, 4))
    assert all(first[name].tobytes() == again[name].tobytes() for name in TENSORS)
    assert not np.array_equal(labels_from(first["z"]), labels_from(other["z"]))


def test_activations_come_with_them_and_samples_stay_apart() -> None:
    x = draw(5)
    executor = Executor(LOGITS)
    ((values, slopes),) = score_gradients(executor, [{"x": x}], ["x", "a"], classifies=True)
    assert np.array_equal(values["x"], x) and values["a"].shape == slopes["a"].shape == (5, 6, 5, 5)
    labels = labels_from(gradients_of(LOGITS, x, tensors=["z"])["z"])

    def alone(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        scaled = torch.log_softmax(outputs["y"] / module.TEMPERATURE, 1)
        return module.TEMPERATURE * scaled[0, labels[2]]

    single = gradients(executor, {"x": x[2:3]}, alone, parameters=[], capture=["a"])
    assert slopes["a"][2:3] == pytest.approx(single.tensor_gradients["a"].numpy(), rel=1e-3, abs=1e-6)
