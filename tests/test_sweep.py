"""Sweep and fold: what a visitor sees, and that refitting layer by layer repairs what a cut broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from group_models import TOYS
from numeric_tools import chunks, matrix_of, relative, run, view_of
from quantize_tools import CONV, kernel, parse

from edgepress.calibrate.ridge import FIXED, GRID
from edgepress.executor import sweep as module
from edgepress.executor.sweep import Scene, Visit, affordable, sweep
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED
from edgepress.surgery.cut import Cutting, cut
from edgepress.surgery.fold import fold

B = kernel(99, 1).ravel()
Seen = dict[str, list[tuple[np.ndarray, np.ndarray]]]


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def residual(batch: str = "N") -> Model:
    """Two residual blocks and a classifier; nodes Conv.0, .2, .4 (Add .5), .7, .9 (Add .10), Gemm.14."""
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)
        i = {CONV}(r, w1, b1)  ir = Relu(i)  j = {CONV}(ir, w2, b2)  s = Add(j, r)  t = Relu(s)
        k = {CONV}(t, w3, b3)  kr = Relu(k)  l = {CONV}(kr, w4, b4)  u = Add(t, l)  v = Relu(u)
        p = GlobalAveragePool(v)  f = Flatten(p)  y = Gemm<transB=1>(f, w5, b5)"""
    gain = np.float32(1.4)
    arrays = {"w0": gain * kernel(8, 3, 3, 3), "b0": B[:8], "w5": kernel(5, 8), "b5": B[:5]}
    for number, (out, into) in enumerate([(12, 8), (8, 12), (10, 8), (8, 10)], start=1):
        arrays |= {f"w{number}": gain * kernel(out, into, 3, 3, seed=number), f"b{number}": B[number : number + out]}
    return parse(body, x=f"{batch},3,8,8", outputs=f"float[{batch},5] y", arrays=arrays)


def removed(model: Model, seed: int, share: float = 0.5) -> dict[str, list[int]]:
    random = np.random.default_rng(seed)
    return {
        group.name: sorted(random.choice(group.size, int(share * group.size), replace=False).tolist())
        for group in find_groups(model).prunable
    }


def cut_model(model: Model, seed: int = 0) -> Cutting:
    return cut(model, find_groups(model), removed(model, seed))


def folded(model: Model, cutting: Cutting, parts: Sequence[Mapping[str, np.ndarray]], workers: int = 1) -> Model:
    return fold(model, cutting, parts, positions=20, seed=0, workers=workers)


def error(model: Model, other: Model, x: np.ndarray, tensors: Sequence[str] | None = None) -> float:
    (a,), (b,) = run(model, {"x": x}, tensors), run(other, {"x": x}, tensors)
    return float(((a - b) ** 2).mean() / a.var())


def listening(
    seen: Seen, returns: Mapping[str, Mapping[str, np.ndarray]] | None = None, everywhere: bool = False
) -> module.Visitor:
    """A visitor that notes what it sees of weighted nodes, and gives the parameters it was told to."""

    def visit(visited: Visit) -> Mapping[str, np.ndarray]:
        node = visited.node
        if node.op not in WEIGHTED or not (visited.stale or everywhere):
            return {}

        def look(scene: Scene) -> int:
            inputs, targets = scene.changed[node.inputs[0]], scene.original[node.output]
            if scene.other is not None:
                targets = targets + scene.original[scene.other] - scene.changed[scene.other]
            seen.setdefault(node.name, []).append((inputs.copy(), targets.copy()))
            assert node.output not in scene.changed
            return scene.number

        assert visited.each(look) == list(range(len(seen[node.name])))
        assert set(node.inputs[1:]) - {""} <= set(visited.parameters)
        return (returns or {}).get(node.name, {})

    return visit


# --- sweep -----------------------------------------------------------------------------------------------


def test_without_changes_nothing_is_visited_and_the_model_stays() -> None:
    model = residual()
    seen: Seen = {}
    found = sweep(model, model, chunks(draw(10, 3, 8, 8), 4), listening(seen), workers=2)
    assert not seen
    assert found.sha256 == model.sha256


def test_everywhere_visits_every_weighted_node_in_order_with_what_onnxruntime_computes() -> None:
    model = residual()
    x = draw(10, 3, 8, 8)
    seen: Seen = {}
    sweep(model, model, chunks(x, 4), listening(seen, everywhere=True), workers=1)
    weighted = [node for node in model.nodes if node.op in ("Conv", "Gemm")]
    assert list(seen) == [node.name for node in weighted]
    for node in weighted:
        inputs, targets = (np.concatenate(side) for side in zip(*seen[node.name], strict=True))
        names = [name for name in (node.inputs[0], node.output) if name != "x"]
        values = {"x": x} | dict(zip(names, run(model, {"x": x}, names), strict=True))
        assert relative(inputs, values[node.inputs[0]]) < 1e-5
        assert relative(targets, values[node.output]) < 1e-5  # branches agree, so there is nothing to correct


def test_visited_are_the_nodes_whose_inputs_differ_and_they_see_the_changed_network() -> None:
    """Another weight of Conv.7: all behind it differ, nothing before it; the target is the original's, corrected."""
    model = residual()
    changed = model.with_constants({"w3": 2 * model.constants["w3"]})
    x = draw(6, 3, 8, 8)
    seen: Seen = {}
    sweep(model, changed, chunks(x, 6), listening(seen), workers=1)
    behind = ["/net/Conv.9", "/net/Gemm.14"]
    assert list(seen) == behind
    kr, f = run(changed, {"x": x}, ["kr", "f"])
    l, y = run(model, {"x": x}, ["l", "y"])  # noqa: E741  (its name in the graph)
    assert relative(seen[behind[0]][0][0], kr) < 1e-5
    assert relative(seen[behind[0]][0][1], l) < 1e-5  # the other branch t is the same in both
    assert relative(seen[behind[1]][0][0], f) < 1e-5
    assert relative(seen[behind[1]][0][1], y) < 1e-5


def test_the_target_before_an_add_is_corrected_by_the_other_branch() -> None:
    model = residual()
    changed = model.with_constants({"w1": 2 * model.constants["w1"]})
    x = draw(6, 3, 8, 8)
    seen: Seen = {}
    sweep(model, changed, chunks(x, 6), listening(seen), workers=1)
    assert list(seen) == ["/net/Conv.4", "/net/Conv.7", "/net/Conv.9", "/net/Gemm.14"]
    l, t = run(model, {"x": x}, ["l", "t"])  # noqa: E741
    (now,) = run(changed, {"x": x}, ["t"])
    assert np.abs(t - now).max() > 0.1
    assert relative(seen["/net/Conv.9"][0][1], l + t - now) < 1e-5


def test_the_sweep_goes_on_with_what_the_visitor_gives() -> None:
    model = residual()
    changed = model.with_constants({"w1": 2 * model.constants["w1"]})
    x = draw(6, 3, 8, 8)
    given = {"w2": model.constants["w2"] / 2, "b2": model.constants["b2"] / 3}
    seen: Seen = {}
    found = sweep(model, changed, chunks(x, 3), listening(seen, {"/net/Conv.4": given}), workers=1)
    assert {name: found.constants[name].tolist() for name in given} == {n: a.tolist() for n, a in given.items()}
    assert np.array_equal(found.constants["w1"], changed.constants["w1"])
    (t,) = run(found, {"x": x}, ["t"])
    assert relative(np.concatenate([inputs for inputs, _ in seen["/net/Conv.7"]]), t) < 1e-5


def test_inputs_are_those_of_the_channels_that_were_kept_and_the_original_is_seen_whole() -> None:
    model = residual()
    cutting = cut_model(model)
    x = draw(6, 3, 8, 8)
    seen: Seen = {}
    sweep(model, cutting.model, chunks(x, 6), listening(seen), workers=1)
    assert list(seen) == ["/net/Conv.4", "/net/Conv.7", "/net/Conv.9", "/net/Gemm.14"]
    keep = cutting.kept["w3"][0]
    assert keep is not None
    (k,) = run(model, {"x": x}, ["k"])
    assert relative(seen["/net/Conv.7"][0][1], k) < 1e-5
    assert seen["/net/Conv.9"][0][0].shape[1] == len(keep)


@pytest.mark.parametrize("workers", [2, 3])
def test_results_are_the_same_bits_for_any_number_of_workers(workers: int) -> None:
    model = residual()
    cutting = cut_model(model)
    parts = chunks(draw(50, 3, 8, 8), 8)
    assert folded(model, cutting, parts, workers).data == folded(model, cutting, parts, 1).data


def test_a_broadcast_branch_corrects_nothing() -> None:
    """One value per channel is added to a whole map: what one position got wrong is not what another one did."""
    body = f"""a = {CONV}(x, w0, b0)  r = Relu(a)  g = GlobalAveragePool(r)  h = Conv<kernel_shape=[1,1]>(g, w1, b1)
        i = {CONV}(r, w2, b2)  s = Add(h, i)  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm(f, w3)"""
    model = parse(body, x="N,3,6,6", outputs="float[N,4] y", w0=kernel(8, 3, 3, 3), b0=B[:8], w1=kernel(6, 8, 1, 1),
                  b1=B[:6], w2=kernel(6, 8, 3, 3), b2=B[:6], w3=kernel(6, 4))  # fmt: skip
    x = draw(40, 3, 6, 6)
    cutting = cut(model, find_groups(model), {"/net/Conv.0": [1, 4]})
    seen: Seen = {}
    sweep(model, cutting.model, chunks(x, 40), listening(seen), workers=1)
    h, i = run(model, {"x": x}, ["h", "i"])
    assert relative(seen["/net/Conv.3"][0][1], h) < 1e-5
    assert relative(seen["/net/Conv.4"][0][1], i) < 1e-5
    fresh = draw(60, 3, 6, 6, seed=1)
    found = folded(model, cutting, chunks(x, 8))
    assert error(model, found, fresh) < error(model, cutting.model, fresh)


def test_a_branch_that_is_an_output_itself_is_not_bent() -> None:
    body = """a = Gemm(x, w0, b0)  r = Relu(a)  i = Gemm(r, w1, b1)  z = Gemm(r, w2, b2)  y = Add(z, i)"""
    model = parse(body, x="N,6", outputs="float[N,4] y, float[N,4] z", w0=kernel(6, 10), b0=B[:10], w1=kernel(10, 4),
                  b1=B[:4], w2=kernel(10, 4, seed=2), b2=B[:4])  # fmt: skip
    x = draw(30, 6)
    changed = model.with_constants({"w0": 2 * model.constants["w0"]})
    seen: Seen = {}
    sweep(model, changed, chunks(x, 30), listening(seen), workers=1)
    (z,) = run(model, {"x": x}, ["z"])
    assert relative(seen["/net/Gemm.3"][0][1], z) < 1e-5


def test_inputs_may_be_read_only_or_have_no_axes() -> None:
    body = "m = Mul(x, gain)  a = Gemm(m, w0, b0)  r = Relu(a)  y = Gemm(r, w1, b1)"
    model = parse(body, x="N,6", outputs="float[N,3] y", w0=kernel(6, 8), b0=B[:8], w1=kernel(8, 3), b1=B[:3])
    proto = model.edit()
    from onnx import TensorProto, helper

    proto.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, []))
    model = Model.of(proto)
    x = draw(8, 6)
    x.flags.writeable = False
    changed = model.with_constants({"w0": 2 * model.constants["w0"]})
    seen: Seen = {}
    sweep(model, changed, [{"x": x, "gain": np.array(0.5, np.float32)}], listening(seen), workers=1)
    assert list(seen) == ["/net/Gemm.3"]


def test_affordable_samples_are_bounded_by_memory_and_cover_a_run() -> None:
    small, large = residual(), parse(f"a = {CONV}(x, w)  y = Relu(a)", x="N,3,512,512", outputs="float[N,64,512,512] y",
                                     w=kernel(64, 3, 3, 3))  # fmt: skip
    from onnx import shape_inference

    small, large = (Model.of(shape_inference.infer_shapes(model.edit())) for model in (small, large))
    counts = [affordable(small, samples) for samples in (1, 10, 500, 10_000, 1_000_000)]
    assert counts == sorted(counts)
    assert counts[:3] == [1, 10, 500]
    assert 1000 < counts[-1] < 1_000_000
    assert affordable(large, 500) == 1
    fixed = parse(f"a = {CONV}(x, w)  y = Relu(a)", x="16,3,512,512", outputs="float[16,64,512,512] y",
                  w=kernel(64, 3, 3, 3))  # fmt: skip
    assert affordable(Model.of(shape_inference.infer_shapes(fixed.edit())), 500) == 16


# --- fold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_fold_repairs_most_of_what_the_cut_broke(seed: int) -> None:
    model = residual()
    cutting = cut_model(model, seed)
    found = folded(model, cutting, chunks(draw(160, 3, 8, 8)))
    fresh = draw(100, 3, 8, 8, seed=99)
    assert error(model, found, fresh) < 0.5 * error(model, cutting.model, fresh)
    assert {n: a.shape for n, a in found.constants.items()} == {n: a.shape for n, a in cutting.model.constants.items()}


def test_the_correction_of_residual_branches_is_worth_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block loses all its channels but one; the second one, left whole, mends what it can of the stream."""
    model = residual()
    fresh = draw(100, 3, 8, 8, seed=99)
    cuttings = [
        cut(model, find_groups(model), {"/net/Conv.2": [i for i in range(12) if i != stays]}) for stays in range(4)
    ]
    parts = chunks(draw(160, 3, 8, 8))
    with_it = [error(model, folded(model, cutting, parts), fresh, ["v"]) for cutting in cuttings]
    monkeypatch.setattr(module._Sweep, "_other", lambda *_: None)
    without = [error(model, folded(model, cutting, parts), fresh, ["v"]) for cutting in cuttings]
    assert all(a < 0.9 * b for a, b in zip(with_it, without, strict=True))


def test_an_identity_cut_folds_to_nothing() -> None:
    model = residual()
    assert folded(model, cut(model, find_groups(model), {}), chunks(draw(20, 3, 8, 8))).sha256 == model.sha256


class Slow:
    """Sequential refit of a stack of Gemm and Relu layers, written down as directly as possible."""

    def __init__(self, model: Model, kept: Sequence[np.ndarray], parts: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.model, self.kept, self.parts = model, kept, parts

    def run(self) -> list[np.ndarray]:
        layers = [matrix_of(self.model, view_of(self.model, position)) for position in (0, 2, 4)]
        now = [part["x"].astype(np.float64) for part in self.parts]
        then = list(now)
        fitted = []
        for number, matrix in enumerate(layers):
            rows = self.kept[number + 1]
            columns = np.append(self.kept[number], matrix.shape[1] - 1)
            targets = [self.ones(x) @ matrix.T for x in then]
            given = matrix[rows][:, columns]
            fit = given if number == 0 else self.fit([self.ones(x) for x in now], [y[:, rows] for y in targets], given)
            fitted.append(fit)
            then = [np.maximum(y, 0) for y in targets]
            now = [np.maximum(self.ones(x) @ fit.T, 0) for x in now]
        return fitted

    def fit(self, rows: list[np.ndarray], targets: list[np.ndarray], given: np.ndarray) -> np.ndarray:
        held = [i for i in range(len(rows)) if i % 4 == 3]
        rest = [i for i in range(len(rows)) if i % 4 != 3]
        x, y = (np.concatenate([side[i] for i in rest]) for side in (rows, targets))
        if not held:
            return self.ridge(x, y, given, FIXED)
        grid = [ridge for ridge in GRID if ridge >= 1e-4 or len(x) > 4 * x.shape[1]]
        other, wanted = (np.concatenate([side[i] for i in held]) for side in (rows, targets))
        errors = [((wanted - other @ self.ridge(x, y, given, ridge).T) ** 2).sum() for ridge in grid]
        best = grid[int(np.argmin(errors))]
        return self.ridge(np.concatenate(rows), np.concatenate(targets), given, best)

    @staticmethod
    def ridge(x: np.ndarray, y: np.ndarray, given: np.ndarray, ridge: float) -> np.ndarray:
        pull = np.append(np.full(x.shape[1] - 1, ridge * (x[:, :-1] ** 2).mean()), 1e-9)
        weight = np.sqrt(len(x) * pull)
        return np.asarray(
            np.linalg.lstsq(np.concatenate([x, np.diag(weight)]), np.concatenate([y, (given * weight).T]), rcond=None)[
                0
            ].T
        )

    @staticmethod
    def ones(x: np.ndarray) -> np.ndarray:
        return np.column_stack([x, np.ones(len(x))])


def stack(batch: str = "N") -> Model:
    body = """a = Gemm<transB=1>(x, w0, b0)  r = Relu(a)  c = Gemm(r, w1, b1)  s = Relu(c)
        y = Gemm<transB=1>(s, w2, b2)"""
    return parse(body, x=f"{batch},8", outputs=f"float[{batch},4] y", w0=kernel(14, 8), b0=B[:14], w1=kernel(14, 10),
                 b1=B[:10], w2=kernel(4, 10), b2=B[:4])  # fmt: skip


@pytest.mark.parametrize("size", [8, 32, 200])
@pytest.mark.parametrize("seed", range(3))
def test_fold_is_the_slow_sequential_refit(seed: int, size: int) -> None:
    model = stack()
    gone = removed(model, seed)
    cutting = cut(model, find_groups(model), gone)
    parts = chunks(draw(120, 8, seed=seed), size)
    found = folded(model, cutting, parts)
    first, second = (np.setdiff1d(np.arange(n), gone[f"/net/Gemm.{i}"]) for n, i in ((14, 0), (10, 2)))
    slow = Slow(model, [np.arange(8), first, second, np.arange(4)], parts).run()
    for number, matrix in enumerate(slow):
        assert relative(matrix_of(found, view_of(found, 2 * number)), matrix) < 1e-4


@pytest.mark.parametrize("size", [1, 3, 7])
def test_small_chunks_will_do(size: int) -> None:
    model = residual()
    cutting = cut_model(model)
    fresh = draw(60, 3, 8, 8, seed=99)
    found = folded(model, cutting, chunks(draw(40, 3, 8, 8), size))
    assert error(model, found, fresh) < error(model, cutting.model, fresh)


def test_a_fixed_batch_gives_what_a_free_one_gives() -> None:
    free, fixed = residual(), residual("4")
    parts = chunks(draw(40, 3, 8, 8), 4)
    first, second = (folded(model, cut_model(model), parts) for model in (free, fixed))
    for name, array in first.constants.items():
        assert np.array_equal(array, second.constants[name])


def shared() -> Model:
    """Two nodes read w1, each with a bias of its own and other inputs."""
    body = """a = Gemm(x, w0, b0)  r = Relu(a)  n = Neg(r)  m = Sigmoid(n)  i = Gemm(r, w1, b1)  j = Gemm(m, w1, b2)
        s = Concat<axis=1>(i, j)  t = Relu(s)  y = Gemm(t, w2, b3)"""
    return parse(body, x="N,6", outputs="float[N,3] y", w0=kernel(6, 12), b0=B[:12], w1=kernel(12, 5), b1=B[:5],
                 b2=B[5:10], w2=kernel(10, 3), b3=B[:3])  # fmt: skip


def test_weights_of_several_nodes_are_fitted_for_all_of_them() -> None:
    model = shared()
    cutting = cut(model, find_groups(model), {"/net/Gemm.0": [0, 5, 7]})
    x = draw(90, 6)
    found = folded(model, cutting, chunks(x, 90))  # one chunk: nothing is held out, the ridge is fixed
    keep = np.setdiff1d(np.arange(12), [0, 5, 7])
    r, m, i, j = (array.astype(np.float64) for array in run(model, {"x": x}, ["r", "m", "i", "j"]))
    zero, one = np.zeros((90, 1)), np.ones((90, 1))
    rows = np.block([[r[:, keep], one, zero], [m[:, keep], zero, one]])
    given = np.column_stack([model.constants["w1"][keep].T, model.constants["b1"], model.constants["b2"]])
    pull = np.sqrt(180 * np.append(np.full(9, FIXED * (rows[:, :9] ** 2).mean()), [1e-9, 1e-9]))
    both = np.concatenate([rows, np.diag(pull)]), np.concatenate([np.concatenate([i, j]), (given * pull).T])
    wanted = np.linalg.lstsq(*both, rcond=None)[0].T
    constants = found.constants
    now = np.column_stack([constants["w1"].T, constants["b1"], constants["b2"]])
    assert relative(now, wanted) < 1e-4
    fresh = draw(60, 6, seed=1)
    assert error(model, folded(model, cutting, chunks(x, 8)), fresh) < 0.7 * error(model, cutting.model, fresh)


def test_weights_that_someone_reads_in_another_way_are_left_alone() -> None:
    body = """a = Gemm(x, w0, b0)  r = Relu(a)  i = Gemm(r, w1, b1)  s = Relu(i)  q = ReduceSum<keepdims=0>(w1, one)
        t = Add(s, q)  y = Gemm(t, w2, b3)"""
    model = parse(body, x="N,6", outputs="float[N,3] y", w0=kernel(6, 12), b0=B[:12], w1=kernel(12, 5), b1=B[:5],
                  w2=kernel(5, 3), b3=B[:3], one=np.zeros(1, np.int64))  # fmt: skip
    changed = model.with_constants({"w0": 2 * model.constants["w0"]})
    found = fold(model, Cutting(changed, {}), chunks(draw(90, 6), 8), positions=20, seed=0, workers=1)
    assert np.array_equal(found.constants["w1"], model.constants["w1"])
    assert not np.array_equal(found.constants["w2"], model.constants["w2"])


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "flatten_chain", "grouped"])
def test_fold_runs_on_every_kind_of_graph_and_does_not_hurt(name: str) -> None:
    model = TOYS[name].build()
    (input_name,) = model.inputs
    shape = [size if isinstance(size, int) else 96 for size in model.inputs[input_name].shape or ()]
    gone = {group.name: [0] for group in find_groups(model).prunable}
    cutting = cut(model, find_groups(model), gone)
    x = draw(*shape)
    parts = [{input_name: part["x"]} for part in chunks(x, 8)]
    found = fold(model, cutting, parts, positions=20, seed=0, workers=2)
    fresh = draw(*shape, seed=5)
    wanted, plain, better = (run(item, {input_name: fresh})[0] for item in (model, cutting.model, found))
    assert ((better - wanted) ** 2).mean() <= 1.02 * ((plain - wanted) ** 2).mean()
