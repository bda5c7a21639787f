"""Quality: the measures by hand, the interval by simulation, the three verdicts at their borders."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.quality import KL_PER_POINT, Comparison, Limit, judge, log_probabilities, wilson

few = settings(deadline=None, max_examples=30, derandomize=True)
Z, Z80 = 1.959964, 0.841621


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def compared(a: np.ndarray, b: np.ndarray, labels: np.ndarray | None = None) -> Comparison:
    return Comparison.of([a], [b], labels)


def changes(count: int, lost: int, won: int = 0, divergence: float = 9.0) -> Comparison:
    """Labelled samples of which the candidate loses some and wins others; by default only labels speak for it."""
    right = np.ones((count, 2), bool)
    right[:lost, 1] = False
    right[lost : lost + won, 0] = False
    changed = right[:, 0] != right[:, 1]
    ones = np.ones((count, 1))
    return Comparison(changed, np.full(count, divergence), right, ones, 0.01 * ones)


def divergences(values: np.ndarray) -> Comparison:
    ones = np.ones((len(values), 1))
    return Comparison(np.zeros(len(values), bool), values, None, ones, 0.01 * ones)


def limit(measure: str, drop: float = 1.0, floor: float = 20.0) -> Limit:
    return Limit(measure, drop, floor)  # type: ignore[arg-type]  # one of the three words


# --- the facts -------------------------------------------------------------------------------------------


def test_facts_by_hand() -> None:
    a = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], np.float32)
    b = np.array([[2.0, 1.0], [4.0, 3.0], [1.5, 0.0]], np.float32)
    found = compared(a, b, np.array([0, 1, 1]))
    assert found.changed.tolist() == [False, True, False]
    assert found.right is not None
    assert found.right.tolist() == [[True, True], [True, False], [False, False]]
    assert found.signal.tolist() == [[5.0], [9.0], [1.0]]
    assert found.noise.tolist() == [[0.0], [16.0], [0.25]]
    p, q = softmax(a), softmax(b)
    assert np.allclose(found.divergence, (p * np.log(p / q)).sum(1))
    assert compared(a, b).right is None
    assert compared(a, b, np.array([[0], [1], [1]])).right is not None


@few
@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_logits_and_probabilities_give_the_same_divergence(seed: int, scale: float) -> None:
    a = draw(20, 5, seed=seed, scale=scale)
    b = a + draw(20, 5, seed=seed + 1, scale=0.3)
    logits, squashed = compared(a, b), compared(softmax(a), softmax(b))
    assert np.allclose(logits.divergence, squashed.divergence, rtol=1e-3, atol=1e-5)
    assert np.array_equal(logits.changed, squashed.changed)
    assert np.allclose(compared(a + 7, b - 3).divergence, logits.divergence, atol=1e-5)  # logits have no origin


def test_rounded_probabilities_are_still_probabilities() -> None:
    """In int8 they do not sum to one; read as logits they would all look alike."""
    a = softmax(draw(50, 10, scale=3))
    b = np.rint(a * 255) / 256
    assert not np.allclose(b.sum(1), 1.0, atol=1e-3)
    assert compared(a, b).divergence.max() < 0.05
    assert np.allclose(np.exp(log_probabilities(b, True)).sum(1), 1.0)


def test_certain_probabilities_and_huge_logits_stay_finite() -> None:
    sure = np.eye(4)[[0, 1, 2]]
    other = np.eye(4)[[0, 1, 3]]
    for a, b in ((sure, other), (1e4 * sure - 1, 1e4 * other - 1)):
        found = compared(a.astype(np.float32), b.astype(np.float32))
        assert np.isfinite(found.divergence).all()
        assert found.divergence[2] > 10 > 0.01 > found.divergence[0]


def test_chunks_join_to_the_whole() -> None:
    a, b = draw(30, 4), draw(30, 4, seed=1)
    labels = np.arange(30) % 4
    whole = compared(a, b, labels)
    parts = [compared(a[i : i + 7], b[i : i + 7], labels[i : i + 7]) for i in range(0, 30, 7)]
    joined = Comparison.join(iter(parts))
    assert len(joined) == len(whole) == 30
    for field in dataclasses.fields(Comparison):
        assert np.array_equal(getattr(joined, field.name), getattr(whole, field.name))
    assert Comparison.join([compared(a, b)]).right is None


def test_outputs_with_other_rows_are_left_out_and_a_scalar_is_one_row() -> None:
    found = Comparison.of([draw(6, 3), draw(2, 5), draw(6, 2, 2)], [draw(6, 3), draw(2, 5), draw(6, 2, 2)], None)
    assert found.signal.shape == (6, 2)
    scalar = Comparison.of([np.array(2.0, np.float32)], [np.array(1.0, np.float32)], None)
    assert (len(scalar), scalar.signal.item(), scalar.noise.item()) == (1, 4.0, 1.0)
    column = Comparison.of([draw(6)], [draw(6, seed=1)], None)
    assert column.signal.shape == (6, 1) and np.isfinite(column.divergence).all()


# --- accuracy --------------------------------------------------------------------------------------------


def test_accuracy_by_hand() -> None:
    found = judge(changes(1000, lost=12, won=4, divergence=0.001), limit("accuracy", 2.0))
    values = np.array([100.0] * 12 + [-100.0] * 4 + [0.0] * 984)
    half = Z * values.std() / math.sqrt(1000)
    assert found.samples == 1000
    assert [found.before, found.after, found.loss] == pytest.approx([99.6, 98.8, 0.8])
    assert [found.low, found.high] == pytest.approx([0.8 - half, 0.8 + half])
    assert found.agreement == pytest.approx(98.4)
    low, high = wilson(984, 1000)
    assert [found.agreement_low, found.agreement_high] == pytest.approx([100 * low, 100 * high])
    assert found.kl == pytest.approx(0.001)


@pytest.mark.parametrize("lost", [3, 20])
def test_the_paired_interval_covers_the_truth(lost: int) -> None:
    """Simulated: samples lost with one probability and won with another; the interval holds the truth in 95 %."""
    random = np.random.default_rng(0)
    count, losing, winning = 1000, lost / 1000, 0.5 * lost / 1000
    truth = 100 * (losing - winning)
    inside = 0
    for _ in range(400):
        drawn = random.random(count)
        found = judge(changes(count, int((drawn < losing).sum()), int((drawn > 1 - winning).sum())), limit("accuracy"))
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 1.0 if lost > 3 else inside / 400 >= 0.9


def test_no_change_seen_is_no_proof_of_none() -> None:
    found = judge(changes(200, lost=0), limit("accuracy", 0.5))
    assert found.loss == 0.0
    assert found.high == pytest.approx(100 * Z / 200)
    assert (found.state, found.acceptable) == ("probably within", True)
    assert not judge(changes(200, lost=0), limit("accuracy", 0.4)).acceptable
    assert judge(changes(400, lost=0), limit("accuracy", 0.5)).state == "within"


def test_labels_never_make_the_choice_more_timid_than_none() -> None:
    """Few samples, no answer changed: the divergence of the answers is evidence, unless the labels speak against it."""
    assert judge(changes(40, lost=0, divergence=0.001), limit("accuracy", 1.0)).acceptable
    assert judge(changes(40, lost=0, divergence=0.001), limit("accuracy", 1.0)).state == "probably within"
    assert not judge(changes(40, lost=0, divergence=0.5), limit("accuracy", 1.0)).acceptable
    assert not judge(changes(40, lost=1, divergence=0.001), limit("accuracy", 1.0)).acceptable


def test_equal_outputs_are_proof() -> None:
    a = draw(40, 5)
    for b in (a, a * np.float32(1 + 1e-6)):
        for labels in (None, a.argmax(1)):
            measure = "agreement" if labels is None else "accuracy"
            found = judge(compared(a, b, labels), limit(measure, 0.0))
            assert (found.state, found.acceptable, found.settle) == ("within", True, None)
            numbers = [found.loss, found.low, found.high, found.kl, found.agreement, found.sqnr, found.after]
            assert np.isfinite(numbers).all()


def test_answers_are_not_numbers() -> None:
    """Equal answers of differing outputs prove nothing for labels, and KL sees the difference."""
    a = draw(40, 5, scale=5)
    b = a * np.float32(1.01)
    assert not compared(a, b).changed.any()
    assert not judge(compared(a, b, a.argmax(1)), limit("accuracy", 0.0)).acceptable
    assert judge(compared(a, b), limit("agreement", 0.0)).state == "over"


# --- borders ---------------------------------------------------------------------------------------------


@few
@given(st.integers(50, 2000), st.integers(0, 40), st.integers(0, 20))
def test_states_follow_from_the_interval(count: int, lost: int, won: int) -> None:
    comparison = changes(count, lost, won)
    base = judge(comparison, limit("accuracy", 0.0))
    for allowed in (base.loss, base.high, (base.loss + base.high) / 2, base.loss + 1, abs(base.low), 0.0, 100.0):
        if allowed < 0:
            continue
        found = judge(comparison, limit("accuracy", allowed))
        if found.loss > allowed + 1e-9:
            assert (found.state, found.acceptable, found.settle) == ("over", False, None)
        elif found.high > allowed + 1e-9:
            assert found.state == "probably within"
        else:
            assert (found.state, found.acceptable, found.settle) == ("within", True, None)
        upper = found.loss + (found.high - found.loss) * Z80 / Z
        assert found.acceptable == (upper <= allowed + 1e-9)


@pytest.mark.parametrize(
    ("share", "state", "acceptable"),
    [(-1e-6, "over", False), (1e-6, "probably within", False), (Z80 - 1e-3, "probably within", False),
     (Z80 + 1e-3, "probably within", True), (Z - 1e-3, "probably within", True), (Z + 1e-3, "within", True)],
)  # fmt: skip
def test_agreement_at_its_borders(share: float, state: str, acceptable: bool) -> None:
    """The limit lies ``share`` standard errors over the mean divergence."""
    values = np.where(np.arange(100) < 50, 1.0, 3.0)
    allowed = 2.0 + share * 1.0 / 10  # deviation 1, 100 samples
    found = judge(divergences(values), limit("agreement", allowed / KL_PER_POINT))
    assert found.loss == pytest.approx(2.0)
    assert found.allowed == pytest.approx(allowed)
    assert (found.state, found.acceptable) == (state, acceptable)
    assert (found.before, found.after) == (100.0, 100.0)


@few
@given(st.integers(20, 500), st.floats(0.05, 5), st.integers(0, 1000))
def test_so_many_samples_would_settle_it(count: int, room: float, seed: int) -> None:
    values = np.random.default_rng(seed).exponential(0.02, count)
    base = judge(divergences(values), limit("agreement", 1e3))
    allowed = base.loss + room * (base.high - base.loss)
    found = judge(divergences(values), limit("agreement", allowed / KL_PER_POINT))
    if found.state == "probably within":
        assert found.settle is not None and found.settle >= count
        half = (base.high - base.loss) * math.sqrt(count / found.settle)
        assert base.loss + half <= allowed * (1 + 1e-9)
        fewer = (base.high - base.loss) * math.sqrt(count / (found.settle - 1))
        assert found.settle == count or base.loss + fewer >= allowed * (1 - 1e-9)
    else:
        assert found.settle is None


def test_nothing_settles_what_lies_on_the_limit() -> None:
    values = np.where(np.arange(100) < 50, 1.0, 3.0)
    found = judge(divergences(values), limit("agreement", 2.0 / KL_PER_POINT))
    assert (found.state, found.settle) == ("probably within", None)


@few
@given(st.integers(1, 500), st.data())
def test_wilson_is_the_interval_of_shares_that_the_score_test_does_not_reject(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    low, high = wilson(hits, count)
    share = hits / count
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for bound, end in ((low, 0.0), (high, 1.0)):
        if abs(bound - end) > 1e-12:
            score = abs(share - bound) / math.sqrt(bound * (1 - bound) / count)
            assert score == pytest.approx(Z, rel=1e-6)


# --- SQNR ------------------------------------------------------------------------------------------------


def regressed(noise: float, count: int = 200, seed: int = 0) -> Comparison:
    a = [draw(count, 4, seed=seed), 100 * draw(count, 2, 3, seed=seed + 1)]
    b = [a[0] + draw(count, 4, seed=seed + 2, scale=noise), a[1] + draw(count, 2, 3, seed=seed + 3)]
    return Comparison.of(a, b, None)


def test_the_worst_output_counts() -> None:
    found = judge(regressed(0.1), limit("sqnr", floor=15.0))
    assert found.sqnr == found.after == pytest.approx(20.0, abs=0.7)  # the other output has 40 dB
    assert found.loss == pytest.approx(15.0 - found.sqnr)
    assert found.before == math.inf
    assert (found.state, found.acceptable) == ("within", True)
    assert math.isnan(found.kl) and math.isnan(found.agreement)
    assert judge(regressed(0.001), limit("sqnr")).sqnr == pytest.approx(40.0, abs=0.7)
    swapped = regressed(0.1)
    other = dataclasses.replace(swapped, signal=swapped.signal[:, ::-1], noise=swapped.noise[:, ::-1])
    assert judge(other, limit("sqnr")).sqnr == pytest.approx(found.sqnr)


def test_sqnr_at_its_borders() -> None:
    base = judge(regressed(0.1), limit("sqnr", floor=0.0))
    low, high = -base.high, -base.low  # ends of the interval, in dB
    assert low < base.sqnr < high
    assert high - low < 2
    for floor, state in ((base.sqnr + 0.01, "over"), (base.sqnr - 0.01, "probably within"), (low - 0.01, "within")):
        found = judge(regressed(0.1), limit("sqnr", floor=floor))
        assert (found.state, found.settle) == (state, None)
    assert judge(regressed(0.1), limit("sqnr", floor=low)).acceptable
    assert not judge(regressed(0.1), limit("sqnr", floor=base.sqnr)).acceptable


def test_the_sqnr_interval_covers_the_truth() -> None:
    truth, inside = 20.0, 0
    for seed in range(0, 400, 4):
        found = judge(regressed(0.1, count=60, seed=seed), limit("sqnr", floor=0.0))
        inside += found.low <= -truth <= found.high
    assert 0.85 <= inside / 100 <= 1.0


@pytest.mark.parametrize("measure", ["accuracy", "agreement", "sqnr"])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_equal_outputs_give_numbers_everywhere(measure: str, count: int) -> None:
    a = draw(count, 3)
    found = judge(compared(a, a, np.zeros(count, np.int64)), limit(measure))
    assert found.sqnr == 200.0
    assert (found.state, found.acceptable) == ("within", True)
    unknown = {"kl", "agreement", "agreement_low", "agreement_high", "before"} if measure == "sqnr" else set()
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        assert field.name in unknown or not isinstance(value, float) or math.isfinite(value), field.name
    zero = np.zeros((count, 3), np.float32)
    assert judge(compared(zero, zero, np.zeros(count, np.int64)), limit(measure)).acceptable


@pytest.mark.parametrize("measure", ["accuracy", "agreement", "sqnr"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_never_taken(measure: str, bad: float) -> None:
    a = draw(5000, 3)
    b = a.copy()
    b[4] = bad
    with np.errstate(invalid="ignore"):
        found = judge(compared(a, b, None if measure == "agreement" else a.argmax(1)), limit(measure, 1.0))
    assert (found.state, found.acceptable, found.settle) == ("over", False, None)


def test_a_share_of_samples_decides_alike_in_any_order() -> None:
    random = np.random.default_rng(0)
    comparison = changes(300, 5, 2)
    order = random.permutation(300)
    shuffled = Comparison(
        comparison.changed[order],
        comparison.divergence[order],
        None if comparison.right is None else comparison.right[order],
        comparison.signal[order],
        comparison.noise[order],
    )
    for measure in ("accuracy", "agreement"):
        first, second = judge(comparison, limit(measure)), judge(shuffled, limit(measure))
        assert dataclasses.astuple(first) == pytest.approx(dataclasses.astuple(second))
