"""Taylor: the mean of how much every sample feels a channel, against finite differences and a case done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numeric_tools import feed_of, relative
from quantize_tools import kernel, parse
from test_slopes import Net, drawn, felt, net, runner_of

from edgepress.pipeline.observing import observe
from edgepress.scores.fisher import Fisher
from edgepress.scores.taylor import Taylor

SEED = 5
NETS = (
    *("gemm", "conv", "strided", "grouped conv transpose", "left matmul", "shared weights", "two consumers"),
    *("concatenated", "flattened", "heads", "tokens in one axis", "lstm, both ways", "read by a product too"),
)


def scores(this: Net, count: int, loss: str, classifies: bool = False) -> list[np.ndarray]:
    score, feed = Taylor(loss), this.feed(count)
    probes = [probe for group in this.groups for probe in score.needs(this.model, group)]
    found = observe(this.model, feed, probes, classifies=classifies, workers=2, seed=SEED)
    return [score.score(this.model, group, found) for group in this.groups]


@pytest.mark.parametrize("name", NETS)
def test_taylor_is_the_mean_magnitude_of_finite_differences(name: str) -> None:
    this = net(name)
    seen = drawn(this.feed(19), runner_of(this.model, seed=SEED))
    for group, own in zip(this.groups, scores(this, 19, "outputs"), strict=True):
        assert own.dtype == np.float64 and own.shape == (group.size,)
        assert relative(own, np.abs(felt(this.model, group, seen)).mean(0)) < 1e-3


@pytest.mark.parametrize("loss", ["answer", "labels"])
@pytest.mark.parametrize("name", ["gemm", "strided", "flattened"])
def test_of_a_classifier(name: str, loss: str) -> None:
    this = net(name)
    seen = drawn(this.feed(19), runner_of(this.model, loss, classifies=True, seed=SEED))
    for group, own in zip(this.groups, scores(this, 19, loss, classifies=True), strict=True):
        assert relative(own, np.abs(felt(this.model, group, seen)).mean(0)) < 1e-3


def test_by_hand() -> None:
    """Two classes, channels h, labels given: u = h (w_label - sum of p w)."""
    w1, w2 = np.eye(3, dtype=np.float32), kernel(2, 3)
    model = parse("a = Gemm(x, w1)  r = Relu(a)  y = Gemm<transB=1>(r, w2)", x="N,3", outputs="float[N,2] y",
                  w1=w1, w2=w2)  # fmt: skip
    x = np.random.default_rng(0).random((10, 3)).astype(np.float32)
    labels = np.arange(10) % 2
    feed = feed_of(model, {"x": x, "label": labels})
    group = Net(model, (3,)).groups[0]
    found = observe(model, feed, Taylor("labels").needs(model, group), classifies=True, workers=1, seed=0)
    share = np.exp(x @ w2.T) / np.exp(x @ w2.T).sum(1, keepdims=True)
    wanted = np.abs(x * (w2[labels] - share @ w2)).mean(0)
    assert Taylor("labels").score(model, group, found) == pytest.approx(wanted, rel=1e-4)


def test_taylor_and_fisher_are_observed_at_once() -> None:
    this = net("conv")
    (first,), (second,) = (
        Taylor("outputs").needs(this.model, this.groups[0]),
        Fisher("outputs").needs(this.model, this.groups[0]),
    )
    assert (first.name, first.tensors, first.slopes, first.loss) == (second.name, second.tensors, second.slopes,
                                                                     second.loss)  # fmt: skip
    assert first.name != Taylor("labels").needs(this.model, this.groups[0])[0].name


def test_a_channel_that_is_off_is_felt_by_nothing() -> None:
    this = net("conv")
    bias = this.model.constants["b1"].copy()
    bias[4] = -1e3
    off = Net(this.model.with_constants({"b1": bias}), this.shape)
    (found,) = scores(off, 16, "outputs")
    assert found[4] == 0 and (np.delete(found, 4) > 0).all()
