"""Executor: whole models against onnxruntime, gradients, ties, releases, writing back, the same bits on any threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgepress import runtime
from edgepress.errors import DataError, ModelError, UnsupportedError
from edgepress.executor import Executor, parity, single_threaded, write_back
from edgepress.model import Model
from edgepress.normalize import normalize

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
Shapes = dict[str, tuple[int, ...]]


def build(text: str, weights: Shapes, *, dtype: str = "float32") -> Model:
    """A model from ONNX text; the named weights are drawn and added as initializers."""
    proto = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(7)
    for name, shape in weights.items():
        value = rng.normal(scale=0.4, size=shape).astype(dtype)
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(proto)
    return Model.of(proto)


def residual() -> Model:
    """Convolution, BatchNormalization, depthwise convolution, a residual join, pooling and a classifier."""
    text = """g (float[N,3,8,8] x) => (float[N,5] y) {
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w0, b0)
        n = BatchNormalization (a, scale, shift, mean, variance)
        r = Relu (n)
        d = Conv <kernel_shape = [3,3], pads = [1,1,1,1], group = 4> (r, w1)
        j = Add (d, r)
        p = AveragePool <kernel_shape = [2,2], strides = [2,2]> (j)
        f = Flatten (p)
        y = Gemm <transB = 1> (f, w2, b2)
    }"""
    shapes: Shapes = {"w0": (4, 3, 3, 3), "b0": (4,), "scale": (4,), "shift": (4,), "mean": (4,), "variance": (4,)}
    model = build(text, {**shapes, "w1": (4, 1, 3, 3), "w2": (5, 64), "b2": (5,)})
    return model.with_constants({"variance": np.abs(model.constants["variance"]) + np.float32(0.5)})


def tied() -> Model:
    """One weight in two convolutions, and branches joined by Concat."""
    text = """g (float[N,3,6,6] x) => (float[N,6,1,1] y) {
        a = Conv <kernel_shape = [3,3]> (x, w)
        b = Conv <kernel_shape = [3,3], dilations = [2,2], pads = [1,1,1,1]> (x, w)
        c = Concat <axis = 1> (a, b)
        s = Sigmoid (c)
        m = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [0,0,1,1]> (s)
        t = Mul (m, scale)
        y = GlobalAveragePool (t)
    }"""
    return build(text, {"w": (3, 3, 3, 3), "scale": (6, 1, 1)})


MODELS: dict[str, Callable[[], Model]] = {"residual": residual, "tied": tied}


def inputs_of(model: Model, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, kind in model.inputs.items():
        assert kind.shape is not None
        shape = [size if isinstance(size, int) else batch for size in kind.shape]
        found[name] = rng.normal(size=shape).astype(np.float32)
    return found


# --- against onnxruntime ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_run_agrees_with_onnxruntime(name: str) -> None:
    model = MODELS[name]()
    feed = inputs_of(model)
    expected = runtime.run(runtime.session(model.data), feed)["y"]
    np.testing.assert_allclose(Executor(model).run(feed)["y"].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_parity_holds_on_the_embedded_network(digits_model: Path, digits_npz: Path) -> None:
    model = Model.load(digits_model)
    with np.load(digits_npz) as archive:
        feed = {"image": archive["image"][:32]}
    normalized = normalize(model, [feed]).model
    assert Executor(normalized).parity(feed, tolerance=1e-4) is None


@pytest.mark.parametrize(
    "name",
    [
        "cifar10_resnet20_folded",
        "cifar10_resnet20_bn",
        "cifar10_resnet20_dynamo",
        "fashion_vgg7bn_bn",
        "imagenet_mobilenetv1_025_bn",
        "kws_dscnn",
        "mnist8_opset8",
        "ultraface_rfb320_opset9",
    ],
)
def test_parity_holds_on_real_models(shared: Path, name: str) -> None:
    model = Model.load(shared / "models" / f"{name}.onnx")
    feed = inputs_of(model)
    assert Executor(normalize(model, [feed]).model).parity(feed, tolerance=1e-4) is None


@pytest.mark.parametrize("room", [parity.SLICE_BYTES, 1])
@pytest.mark.parametrize(("changed", "first"), [("w0", "a"), ("w1", "d"), ("b2", "y")])
def test_parity_names_the_first_tensor_that_differs(
    monkeypatch: pytest.MonkeyPatch, changed: str, first: str, room: int
) -> None:
    monkeypatch.setattr(parity, "SLICE_BYTES", room)
    model = residual()
    executor = Executor(model)
    assert executor.parity(inputs_of(model)) is None
    executor.parameters[changed] = executor.parameters[changed] * 1.01
    assert executor.parity(inputs_of(model), tolerance=1e-3) == first
    assert executor.parity(inputs_of(model), tolerance=1.0) is None


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1e-8], [0.0], 0.01),
        ([1.0], [1.0, 1.0], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.nan], [np.nan], 0.0),
        ([1.0], [np.inf], np.inf),
    ],
)
def test_relative_difference(a: list[float], b: list[float], expected: float) -> None:
    got = parity.relative_difference(np.array(a, np.float32), np.array(b, np.float32))
    assert got == pytest.approx(expected, rel=1e-6)


# --- parts of a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_apply_node_by_node_is_run_and_releases_nothing_that_is_read_later(name: str) -> None:
    model = MODELS[name]()
    executor = Executor(model)
    feed = inputs_of(model)
    values = {key: torch.from_numpy(value) for key, value in feed.items()}
    for node, dead in zip(executor.nodes, executor.releases, strict=True):
        values.update(zip(node.outputs, executor.apply(node, values), strict=True))
        for tensor in dead:
            del values[tensor]
    assert values.keys() == model.outputs.keys()
    assert torch.equal(values["y"], executor.run(feed)["y"])


def test_releases_are_the_last_uses() -> None:
    executor = Executor(residual())
    by_output = {
        node.output: "".join(sorted(dead)) for node, dead in zip(executor.nodes, executor.releases, strict=True)
    }
    assert by_output == {"a": "x", "n": "a", "r": "n", "d": "", "j": "dr", "p": "j", "f": "p", "y": "f"}


def test_an_output_nobody_reads_is_released_at_once() -> None:
    model = build(
        "g (float[4,2] x) => (float[2,2] y) { y, unread = Split <num_outputs = 2> (x) }",
        {},
    )
    executor = Executor(model)
    assert [set(dead) for dead in executor.releases] == [{"x", "unread"}]
    assert executor.run(inputs_of(model)).keys() == {"y"}


def test_capture_returns_tensors_that_would_be_released() -> None:
    model = residual()
    got = Executor(model).run(inputs_of(model), capture=["a", "j", "x", "w1"])
    assert set(got) == {"y", "a", "j", "x", "w1"}
    expected = runtime.run(runtime.session(model.exposing(["a", "j"])), inputs_of(model))
    for name, value in expected.items():
        np.testing.assert_allclose(got[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_outputs_may_be_inputs_or_initializers() -> None:
    proto = build("g (float[2] x) => (float[2] y) { y = Add (x, w) }", {"w": (2,)}).edit()
    proto.graph.output.append(helper.make_tensor_value_info("w", 1, [2]))
    proto.graph.output.append(helper.make_tensor_value_info("x", 1, [2]))
    got = Executor(Model.of(proto)).run({"x": np.ones(2, np.float32)})
    assert torch.equal(got["y"], got["x"] + got["w"])


def test_inputs_may_be_read_only_reversed_or_tensors() -> None:
    model = tied()
    executor = Executor(model)
    array = inputs_of(model)["x"]
    expected = executor.run({"x": array.copy()})["y"]
    array.flags.writeable = False
    assert torch.equal(executor.run({"x": array})["y"], expected)
    assert torch.equal(executor.run({"x": np.flip(array, 3).copy()[..., ::-1]})["y"], expected)
    assert torch.equal(executor.run({"x": torch.tensor(array)})["y"], expected)


@pytest.mark.parametrize("names", [(), ("x", "z"), ("z",)])
def test_missing_and_unknown_inputs_are_named(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"takes the inputs \['x'\]"):
        Executor(tied()).run({name: np.zeros((1, 3, 6, 6), np.float32) for name in names})


def test_a_batch_that_does_not_fit_names_the_node() -> None:
    model = build(
        "g (float[N,4] x) => (float[M] y) { r = Reshape (x, to)  y = ReduceSum <keepdims = 0> (r) }", {"to": ()}
    )
    model = model.with_constants({"to": np.array([2, 4], np.int64)})
    executor = Executor(model)
    assert executor.run({"x": np.ones((2, 4), np.float32)})["y"].item() == 8
    with pytest.raises(ModelError, match=r"Reshape .* shapes"):
        executor.run({"x": np.ones((3, 4), np.float32)})


def test_the_first_operator_without_kernel_is_named() -> None:
    text = "g (float[2,2] x) => (float[2,2] z) { n = Relu (x)  y = Det (n)  u = Unique (n)  z = Mul (x, y) }"
    with pytest.raises(UnsupportedError, match="Det 'Det_1'"):
        Executor(build(text, {}))


def test_a_weight_torch_cannot_hold_is_refused() -> None:
    model = build("g (float[2] x) => (float[2] y) { y = Add (x, w) }", {"w": (2,)})
    odd = model.with_constants({"w": np.ones(2, np.uint16)})
    with pytest.raises(UnsupportedError, match="uint16"):
        Executor(odd)


def test_an_unsorted_graph_is_refused() -> None:
    proto = tied().edit()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    with pytest.raises(ModelError, match="before it is made"):
        Executor(Model.of(proto))


# --- parameters and gradients -----------------------------------------------------------------------


def test_every_initializer_is_one_parameter_in_its_own_type() -> None:
    model = tied()
    parameters = Executor(model).parameters
    assert parameters.keys() == model.constants.keys()
    for name, tensor in parameters.items():
        assert not tensor.requires_grad
        np.testing.assert_array_equal(tensor.numpy(), model.constants[name])


def test_run_makes_a_graph_only_when_something_requires_grad() -> None:
    model = tied()
    executor = Executor(model)
    assert executor.run(inputs_of(model))["y"].is_inference()
    weight = executor.parameters["w"].clone().requires_grad_()
    got = executor.run(inputs_of(model), parameters={"w": weight})["y"]
    assert got.requires_grad


def test_a_tied_weight_gets_the_gradient_of_all_its_uses() -> None:
    model = tied()
    executor = Executor(model)
    weight = executor.parameters["w"].clone().requires_grad_()
    values = {"x": torch.from_numpy(inputs_of(model)["x"])}
    first, second = (executor.apply(model.node(name), values, {"w": weight})[0] for name in ("Conv_0", "Conv_1"))
    together = torch.autograd.grad(first.sum() + second.sum(), [weight], retain_graph=True)[0]
    apart = [torch.autograd.grad(part.sum(), [weight], retain_graph=True)[0] for part in (first, second)]
    torch.testing.assert_close(together, apart[0] + apart[1])
    assert not torch.allclose(apart[0], apart[1])


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_all_parameters_match_finite_differences(name: str) -> None:
    model = MODELS[name]()
    executor = Executor(model)
    weights = {key: tensor.double().requires_grad_() for key, tensor in executor.parameters.items()}
    feed = {key: torch.from_numpy(value).double() for key, value in inputs_of(model).items()}
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(executor.run(feed, parameters=weights)["y"].shape, generator=generator, dtype=torch.float64)

    def loss(step: float, way: dict[str, torch.Tensor]) -> torch.Tensor:
        moved = {key: tensor + step * way[key] for key, tensor in weights.items()} if way else weights
        return ((executor.run(feed, parameters=moved)["y"] - target) ** 2).sum()

    gradients = torch.autograd.grad(loss(0.0, {}), list(weights.values()))
    for _ in range(3):
        way = {k: torch.randn(t.shape, generator=generator, dtype=torch.float64) for k, t in weights.items()}
        slope = sum((g * w).sum().item() for g, w in zip(gradients, way.values(), strict=True))
        measured = (loss(1e-6, way) - loss(-1e-6, way)).item() / 2e-6
        assert measured == pytest.approx(slope, rel=1e-6)


# --- writing back -----------------------------------------------------------------------------------


def test_write_back_carries_values_and_keeps_types() -> None:
    model = residual()
    executor = Executor(model)
    tuned = {name: executor.parameters[name].double().requires_grad_() * 1.5 for name in ("w0", "b2")}
    written = write_back(model, tuned)
    assert {name: array.dtype for name, array in written.constants.items()} == {
        name: array.dtype for name, array in model.constants.items()
    }
    again = Executor(written)
    feed = inputs_of(model)
    assert again.parity(feed, tolerance=1e-4) is None
    overridden = executor.run(feed, parameters={name: tensor.detach().float() for name, tensor in tuned.items()})["y"]
    assert torch.equal(again.run(feed)["y"], overridden)
    changed = {n for n in model.constants if not np.array_equal(model.constants[n], written.constants[n])}
    assert changed == {"w0", "b2"}


def test_write_back_without_change_keeps_every_byte() -> None:
    model = tied()
    assert write_back(model, Executor(model).parameters).data == model.data


def test_write_back_refuses_names_that_are_no_initializers() -> None:
    with pytest.raises(KeyError, match="nothing"):
        write_back(tied(), {"nothing": torch.zeros(1)})


# --- threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_single_threaded_results_are_the_same_bits(name: str) -> None:
    model = MODELS[name]()
    executor = Executor(model)
    feeds = [inputs_of(model, batch=16, seed=seed) for seed in range(4)]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for workers in (1, 2):
                with single_threaded(), ThreadPoolExecutor(workers) as pool:
                    assert torch.get_num_threads() == 1
                    results.append([out["y"].numpy().tobytes() for out in pool.map(executor.run, feeds)])
                assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(result == results[0] for result in results[1:])


def test_single_threaded_restores_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(DataError), single_threaded():
        Executor(tied()).run({})
    assert torch.get_num_threads() == before
