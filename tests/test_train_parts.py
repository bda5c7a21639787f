"""What training is made of: batches, Adam, losses, rates, grids, factors, units that go, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numeric_tools import feed_of, run
from pipeline_models import Small
from train_tools import CONVNET, MLP, setting

from edgepress import codec
from edgepress.calibrate import open_feed
from edgepress.codec import decoder
from edgepress.codec.classes import classes_of
from edgepress.codec.encoder import encoded
from edgepress.errors import DataError, InputError
from edgepress.executor import Executor
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.quantize.weights.lattice import on_grid, settled_vector
from edgepress.train import adam as adams
from edgepress.train.adam import Adam
from edgepress.train.batches import Batches, shifted
from edgepress.train.entropy.layers import layers_of, weights_of
from edgepress.train.entropy.rates import Rates
from edgepress.train.entropy.relaxed import Relaxed
from edgepress.train.entropy.straight import STEP, Straight
from edgepress.train.losses import divergence, logits
from edgepress.train.method import Moment, Plain
from edgepress.train.methods import scratched
from edgepress.train.pruning.anneal import thinned
from edgepress.train.pruning.curvature import hessian_radius, leading, mixed, observed, radius
from edgepress.train.pruning.flat import Flat
from edgepress.train.pruning.masks import Masked
from edgepress.train.pruning.units import chosen, redistributed
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- batches ------------------------------------------------------------------------------


def batches(ranks: Ranks, **settings: Any) -> Batches:
    model = Model.of(MLP.proto())
    return Batches(feed_of(model, MLP.arrays(50)), Settings(**{"batch": 8, "labels": True, **settings}), ranks)


def test_an_epoch_sees_every_sample_once_but_for_what_fills_no_batch() -> None:
    found = batches(Ranks())
    rows = np.concatenate([found.at(step).inputs["x"].numpy() for step in range(found.per_epoch)])
    assert found.per_epoch == 6 and len(np.unique(rows, axis=0)) == 48
    other = np.concatenate([found.at(6 + step).inputs["x"].numpy() for step in range(6)])
    assert not np.array_equal(rows, other)
    np.testing.assert_array_equal(found.at(2).inputs["x"], batches(Ranks()).at(2).inputs["x"])


def test_processes_share_the_batch_that_one_would_see() -> None:
    whole = batches(Ranks()).at(9).inputs["x"].numpy()
    parts = [batches(Ranks(rank, 2)).at(9).inputs["x"].numpy() for rank in range(2)]
    np.testing.assert_array_equal(np.stack(parts, axis=1).reshape(whole.shape), whole)
    with pytest.raises(DataError, match="cannot be shared by 3"):
        batches(Ranks(0, 3))


def test_a_model_of_fixed_batch_is_refused(tmp_path: Path) -> None:
    fixed = Small(MLP.text.replace("[N,", "[2,"), MLP.constants, MLP.samples)
    feed = open_feed(str(MLP.save_samples(tmp_path / "x.npz", 50)), Model.of(fixed.proto()))
    with pytest.raises(DataError, match="fixed batch"):
        Batches(feed, Settings(batch=8, labels=True), Ranks())


def test_pictures_move_and_their_border_is_repeated() -> None:
    pictures = torch.arange(16.0).reshape(1, 1, 4, 4)
    moved = shifted(pictures, np.array([[1, -1]]), np.array([False]))[0, 0]
    np.testing.assert_array_equal(moved[1:, :3], pictures[0, 0, :3, 1:])
    np.testing.assert_array_equal(moved[0], moved[1])
    np.testing.assert_array_equal(moved[:, 3], moved[:, 2])
    mirrored = shifted(pictures, np.array([[0, 0]]), np.array([True]))[0, 0]
    np.testing.assert_array_equal(mirrored, pictures[0, 0].flip(1))


# --- Adam and losses ------------------------------------------------------------------------------


def test_adam_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adams, "LARGEST", 1e9)
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    mine, theirs = Adam({"w": start}, {"w": 2.0}), start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.02)
    for _ in range(20):
        mine.step((mine.values["w"] ** 4).sum(), 0.01, Ranks())
        optimizer.zero_grad()
        (theirs**4).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(mine.values["w"], theirs)


def test_adam_keeps_what_it_remembers_of_what_stays() -> None:
    adam = Adam({"w": torch.randn(4, 3)})
    adam.step((adam.values["w"] ** 2).sum(), 0.1, Ranks())
    first = adam.first["w"].clone()
    adam.cut({"w": (np.array([0, 3]), None)})
    assert adam.values["w"].shape == (2, 3) and adam.values["w"].requires_grad
    torch.testing.assert_close(adam.first["w"], first[[0, 3]])


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    adam = Adam({"w": torch.ones(3)})
    assert not adam.step((adam.values["w"] * float("nan")).sum(), 0.1, Ranks())
    assert adam.steps == 0 and bool((adam.values["w"] == 1).all())


def test_one_bad_batch_cannot_throw_the_weights_about() -> None:
    adam = Adam({"w": torch.zeros(4)})
    adam.step((adam.values["w"] * 1e6).sum(), 0.0, Ranks())
    assert float(adam.first["w"].norm()) == pytest.approx(0.1 * adams.LARGEST, rel=1e-4)


def test_divergence_is_that_of_probabilities_at_temperature_two() -> None:
    student, teacher = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    p, q = torch.softmax(teacher / 2, 1), torch.softmax(student / 2, 1)
    torch.testing.assert_close(divergence(student, teacher), 4 * (p * (p / q).log()).sum(1).mean())
    squashed = torch.softmax(teacher, 1)
    torch.testing.assert_close(torch.softmax(logits(squashed), 1), squashed)
    assert float(divergence(teacher, squashed)) == pytest.approx(0, abs=1e-6)


def test_labels_and_teacher_are_weighed() -> None:
    own = setting(MLP, kd=0.25)
    batch = own.batches.first(32)
    found = own.loss.teacher.executor.run(batch.inputs)  # type: ignore[union-attr]
    moved = {"y": found["y"] + 0.5 * torch.randn(found["y"].shape, generator=torch.Generator().manual_seed(0))}
    loss = own.loss.__class__(("y",), True, True, own.loss.teacher, 0.25)
    assert batch.labels is not None
    wanted = 0.75 * F.cross_entropy(moved["y"], batch.labels) + 0.25 * divergence(moved["y"], found["y"])
    torch.testing.assert_close(loss(moved, batch), wanted)


# --- whole numbers and their bits ------------------------------------------------------------------------------


def test_weights_on_their_grid_are_found_by_the_coder_without_a_loss() -> None:
    model = Model.of(CONVNET.proto())
    random = np.random.default_rng(0)
    changed = {}
    for layer in layers_of(model, Executor(model)):
        whole = random.integers(-3, 4, (layer.rows, int(np.prod(layer.shape)) // layer.rows))
        changed[layer.name] = weights_of(layer, whole, on_grid(random.random(layer.rows) + 0.1))
    changed |= {name: settled_vector(model.constants[name]) for name in ("b1", "b2", "b3")}
    made = model.with_constants(changed)
    file = encoded(made.data)
    assert codec.decode(file.data) == made.data
    weights = sum(array.size for array in changed.values())
    assert len(file.data) < file.graph + weights * 3.2 / 8 + 60  # seven levels: 2.8 bits, and the steps of 20 rows


def test_layers_know_their_rows() -> None:
    text = """g (float[N,12] x) => (float[N,4] y) { a = MatMul(x,w1)  h = Relu(a)  y = Gemm<transB=1>(h,w2) }"""
    model = Model.of(Small(text, {"w1": (12, 16), "w2": (4, 16)}, {"x": (12,)}).proto())
    first, second = layers_of(model, Executor(model))
    assert (first.rows, second.rows) == (16, 4)
    array = model.constants["w1"]
    np.testing.assert_array_equal(first.tensor(first.matrix(array)), array)
    np.testing.assert_array_equal(first.matrix(array), array.T)


def test_rates_at_whole_numbers_are_those_of_the_table_and_between_them_on_the_line() -> None:
    random = np.random.default_rng(3)
    whole = np.rint(random.laplace(0, 0.7, (40, 60))).astype(np.int64)
    rates = Rates("cpu")
    rates.count(whole, anew=True)
    exact = float(rates.bits(torch.from_numpy(whole).double()))
    table = rates.table.numpy().reshape(-1, 2 * decoder.MOST + 1)
    assert exact == pytest.approx(float(table[classes_of(whole), whole + decoder.MOST].sum()), rel=1e-5)
    assert exact == pytest.approx(codec.matrix_bits(whole), rel=0.05)
    half = torch.from_numpy(whole).double() + 0.5
    upper = float(rates.bits(torch.from_numpy(whole + 1).double()))
    assert float(rates.bits(half)) == pytest.approx((exact + upper) / 2, rel=1e-6)


def test_a_row_of_small_numbers_is_cheap() -> None:
    random = np.random.default_rng(3)
    whole = np.rint(random.laplace(0, 1.5, (32, 64))).astype(np.int64)
    whole[5] = 0
    rates = Rates("cpu")
    rates.count(whole, anew=True)
    table = rates.table.numpy().reshape(-1, 2 * decoder.MOST + 1)
    classes = classes_of(whole)
    cost = table[classes, decoder.MOST].mean(1)
    assert cost[5] < cost[6] / 2


@pytest.mark.parametrize("kind", [Straight, Relaxed])
def test_what_is_judged_is_what_was_trained(kind: type[Straight]) -> None:
    """The model on its grids answers as the network in training does without noise, up to the grid of the steps."""
    own = setting(MLP, method="entropy", keep=None)
    method = kind(own)
    for step in range(3):
        method.adam.step(method.terms(own.batches.at(step), Moment(step, 30)).total, 1e-3, Ranks())
    model, left, size = method.found()
    assert size is not None and 0 < left <= method.weights
    for layer in method.layers:
        rows = layer.matrix(model.constants[layer.name])
        whole = method._whole(layer)
        steps = on_grid(np.full(layer.rows, float(method.adam.values[layer.name + STEP].detach().exp())))
        shares = np.abs(rows).max(1) / np.maximum(np.abs(whole).max(1), 1)
        used = np.abs(whole).max(1) > 0
        np.testing.assert_allclose(shares[used] / steps[used], 1.0, atol=0.05)
        np.testing.assert_array_equal(rows != 0, whole != 0)
    if kind is Straight:
        x = own.batches.first(64).inputs
        trained = method.executor.run(x, parameters={n: v.detach() for n, v in method.parameters().items()})["y"]
        np.testing.assert_allclose(
            run(model, {"x": x["x"].numpy()})[0], trained, atol=0.05 * float(trained.abs().max())
        )


def test_bits_fall_when_they_cost() -> None:
    found = []
    for beta in (0.0, 300.0):
        own = setting(MLP, method="entropy", keep=None, beta=beta)
        method = Straight(own)
        for step in range(60):
            method.adam.step(method.terms(own.batches.at(step), Moment(step, 60)).total, 1e-3, Ranks())
        found.append(method.found()[2])
    assert found[0] is not None and found[1] is not None and found[1] < 0.8 * found[0]


def test_the_paper_s_noise_has_the_variance_of_the_assignments() -> None:
    own = setting(MLP, method="entropy", keep=None, form="relaxed")
    method = Relaxed(own)
    batch = own.batches.first(16)
    assigned = {layer: method._assigned(layer) for layer in method.layers}
    answers = torch.stack([method._noisy(batch, Moment(step, 900), assigned)["y"].detach() for step in range(600)])
    layer = method.layers[-1]
    hidden = method.executor.run(
        batch.inputs, capture=["k"], parameters={n: v.detach() for n, v in method.parameters().items()}
    )["k"]
    variance = (assigned[layer].variance * method._scale(layer) ** 2).detach()
    least = (hidden.square() @ variance.T).sqrt()  # of the last layer alone
    assert bool((answers.std(0) > 0.9 * least).all())


def moved_latents(method: Relaxed, name: str) -> torch.Tensor:
    """Latents in units of their step, put between grid points."""
    random = torch.Generator().manual_seed(3)
    steps = 4 * torch.randn(method.adam.values[name].shape, generator=random)
    method.adam.put(name, steps * method.adam.values[name + STEP].detach().exp())
    return steps


def test_assignments_are_a_softmax_over_distances_to_the_grid() -> None:
    method = Relaxed(setting(MLP, method="entropy", keep=None, form="relaxed"))
    layer = method.layers[0]
    steps = moved_latents(method, layer.name)
    grid = torch.arange(-25.0, 26.0)
    shares = torch.softmax(-((steps[..., None] - grid) ** 2) / (2 * method.width**2), -1)
    mean, squares = shares @ grid, shares @ grid**2
    found = method._assigned(layer)
    torch.testing.assert_close(found.mean.detach(), mean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.variance.detach(), squares - mean**2, atol=1e-3, rtol=1e-2)
    whole = shares.reshape(-1, len(grid)).mean(0)
    entropy = -(whole * torch.log2(whole.clamp_min(1e-12))).sum() * steps.numel()
    torch.testing.assert_close(found.bits().detach(), entropy, rtol=1e-3, atol=1e-2)


def test_slopes_of_bits_are_those_of_the_entropy_and_reach_the_step() -> None:
    method = Relaxed(setting(MLP, method="entropy", keep=None, form="relaxed"))
    layer = method.layers[0]
    moved_latents(method, layer.name)
    step = method.adam.values[layer.name + STEP]
    (slope,) = torch.autograd.grad(method._assigned(layer).bits(), [step])
    found = []
    for change in (-1e-3, 1e-3):
        method.adam.put(layer.name + STEP, step.detach() + change)
        found.append(float(method._assigned(layer).bits().detach()))
        method.adam.put(layer.name + STEP, step.detach() - change)
    assert float(slope) < 0  # a larger step costs fewer bits
    assert float(slope) == pytest.approx((found[1] - found[0]) / 2e-3, rel=0.05)


# --- curvature and units ------------------------------------------------------------------------------


def factors_of(model: Model, x: np.ndarray, seed: int = 0) -> Any:
    from edgepress.train.batches import Batch

    batch = Batch({"x": torch.from_numpy(x)}, None)
    return observed(Executor(model), batch, True, torch.Generator().manual_seed(seed), 0)


def test_factors_are_second_moments_of_inputs_and_slopes() -> None:
    model, x = Model.of(MLP.proto()), MLP.arrays(300)["x"]
    found = factors_of(model, x)
    ones = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    first = found["n_a"]
    np.testing.assert_allclose(first.inputs, ones.T @ ones / len(x), rtol=1e-6)
    assert first.positions == 1.0
    head = found["n_y"].slopes  # p(1-p) and -pq, labels drawn: the covariance of the answer
    answer = torch.softmax(torch.from_numpy(run(model, {"x": x})[0]), 1).double().numpy()
    wanted = np.einsum("ni,ij->ij", answer, np.diag(np.ones(4))) / len(x) * np.eye(4) - answer.T @ answer / len(x)
    np.fill_diagonal(wanted, answer.mean(0) - (answer**2).mean(0))
    np.testing.assert_allclose(head, wanted, atol=0.05)


def test_moving_averages_follow() -> None:
    model = Model.of(MLP.proto())
    one, two = factors_of(model, MLP.arrays(64)["x"]), factors_of(model, 2 * MLP.arrays(64, seed=5)["x"])
    both = mixed(one, two)["n_a"].inputs
    np.testing.assert_allclose(both, 0.9 * one["n_a"].inputs + 0.1 * two["n_a"].inputs)
    assert mixed({}, one)["n_a"] is one["n_a"]
    assert radius(one) == pytest.approx(max(f.radius for f in one.values()))


def test_the_hessian_s_radius_is_that_of_the_explicit_hessian() -> None:
    own = setting(MLP)
    batch = own.batches.first(24)
    executor = Executor(own.model)
    names = ("w3", "b3")
    values = {name: executor.parameters[name] for name in names}
    found = hessian_radius(executor, values, own.loss, batch)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = {"w3": flat[:64].reshape(4, 16), "b3": flat[64:]}
        return own.loss(executor.forward(batch.inputs, parameters=parts), batch)

    flat = torch.cat([values["w3"].reshape(-1), values["b3"]])
    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))  # type: ignore[no-untyped-call]
    assert found == pytest.approx(float(exact.abs().max()), rel=0.02)


def test_leading_is_the_first_eigenpair() -> None:
    matrix = np.random.default_rng(0).standard_normal((20, 9))
    matrix = matrix.T @ matrix
    value, vector = leading(matrix)
    values, vectors = np.linalg.eigh(matrix)
    assert value == pytest.approx(values[-1], rel=1e-3)
    np.testing.assert_allclose(np.abs(vector), np.abs(vectors[:, -1]), atol=0.05)


def test_what_stays_takes_over_by_least_squares() -> None:
    model, x = Model.of(MLP.proto()), MLP.arrays(400)["x"]
    factors, grouping = factors_of(model, x), find_groups(model)
    group = next(group for group in grouping.prunable if group.size == 24)
    made = redistributed(model, grouping, factors, {group.name: [3, 7]})
    hidden = run(model, {"x": x}, ["h"])[0].astype(np.float64)
    rows = np.column_stack([hidden, np.ones(len(x))])
    target = hidden @ model.constants["w2"].T.astype(np.float64) + model.constants["b2"]
    stays = [j for j in range(25) if j not in (3, 7)]
    wanted = np.linalg.lstsq(rows[:, stays], target, rcond=None)[0]
    got = np.column_stack([made.constants["w2"], made.constants["b2"]])[:, stays].T
    error = [float(np.square(rows[:, stays] @ each - target).mean()) for each in (got, wanted)]
    plain = float(
        np.square(
            rows[:, stays] @ np.column_stack([model.constants["w2"], model.constants["b2"]])[:, stays].T - target
        ).mean()
    )
    assert error[1] <= error[0] < 1.1 * error[1] + 1e-4 < plain


def test_units_go_until_few_enough_weights_are_left_and_the_cheapest_first() -> None:
    model, x = Model.of(MLP.proto()), MLP.arrays(400)["x"]
    silent = model.constants["w1"].copy()
    silent[[2, 9]] = 0.0  # constant units: the bias stands in for them
    model = model.with_constants({"w1": silent})
    grouping = find_groups(model)
    removed = chosen(model, grouping, factors_of(model, x), model.parameters - 100, flatness=0.0)
    group = next(group for group in grouping.prunable if group.size == 24)
    assert set(removed[group.name]) == {2, 9}
    most = chosen(model, grouping, factors_of(model, x), -(10**9), flatness=0.1)
    assert {g.name: g.size - len(most[g.name]) for g in grouping.prunable} == {g.name: 2 for g in grouping.prunable}


@pytest.mark.parametrize("when", ["along", "cut", "end"])
def test_flat_ends_with_the_share_that_is_asked_for(when: str) -> None:
    own = setting(MLP, when=when, keep=0.4)
    method = Flat(own)
    steps = 60
    for step in range(steps):
        method.adam.step(method.terms(own.batches.at(step), Moment(step, steps)).total, 1e-3, Ranks())
        method.stepped(Moment(step + 1, steps))
    model, parameters, _ = method.found()
    assert parameters == model.parameters <= 0.4 * own.model.parameters
    assert parameters > 0.3 * own.model.parameters
    figures = method.figures(model)
    assert figures["spectral radius of the Kronecker factors after"] > 0
    assert np.isfinite(figures["largest eigenvalue of the Hessian before"])
    x = own.batches.first(64).inputs
    trained = method.executor.run(x, parameters={n: v.detach() for n, v in method.parameters().items()})["y"]
    np.testing.assert_allclose(run(model, {"x": x["x"].numpy()})[0], trained, atol=1e-4)


def test_removing_units_that_depend_on_others_is_lossless() -> None:
    """Copies of other units, scaled: the first removal of the annealing takes them, and no answer changes."""
    model = Model.of(MLP.proto())
    weights, bias = model.constants["w1"].copy(), model.constants["b1"].copy()
    for copy, source, factor in ((20, 0, 2.0), (21, 1, 0.5), (22, 2, 3.0)):
        weights[copy], bias[copy] = factor * weights[source], factor * bias[source]
    model = model.with_constants({"w1": weights, "b1": bias})
    own = setting(MLP)
    smaller = thinned(model, own.batches.chosen_feed(256), own.batches.first(256), 0.07, 0, 0)
    assert smaller is not None and smaller[0].parameters < model.parameters
    x = MLP.arrays(100, seed=8)["x"]
    before, after = run(model, {"x": x})[0], run(smaller[0], {"x": x})[0]
    np.testing.assert_allclose(after, before, atol=2e-3 * np.abs(before).max())


def test_masked_weights_stay_zero_and_all_others_are_trained() -> None:
    own = setting(MLP, method="mint", keep=0.3, flatness=0.1)
    method = Masked(own)
    for step in range(5):
        method.adam.step(method.terms(own.batches.at(step), Moment(step, 5)).total, 1e-2, Ranks())
    model, parameters, _ = method.found()
    zero = model.constants["w2"] == 0
    assert zero.mean() >= 0.7 and not np.array_equal(model.constants["w2"][~zero], own.model.constants["w2"][~zero])
    assert (model.constants["w3"] != 0).all()  # the head has no masks
    assert parameters == sum(int(np.count_nonzero(a)) for a in model.constants.values())
    assert "as wide as before" in method.notes[0]


def test_random_weights_are_seeded_and_of_a_sensible_size() -> None:
    model = Model.of(MLP.proto())
    one, two = scratched(model, 1), scratched(model, 2)
    assert one.data == scratched(model, 1).data != two.data
    assert float(one.constants["w1"].std()) == pytest.approx((2 / 12) ** 0.5, rel=0.2)
    assert not one.constants["b1"].any()


def test_plain_training_leaves_the_shapes() -> None:
    method = Plain(setting(MLP))
    model, parameters, coded = method.found()
    assert model.data == method.setting.model.data and parameters == model.parameters and coded is None


@pytest.mark.parametrize(
    "wrong", [{"kd": 2.0}, {"augment": "zoom"}, {"every": 0.0}, {"max_drop": -1.0}, {"patience": 0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)
