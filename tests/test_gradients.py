"""Gradients of whole networks: finite differences, per-sample gradients, captured tensors, tuning and writing back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from gradient_nets import NETS, Net, net, written

from edgepress import runtime
from edgepress.errors import DataError, UnsupportedError
from edgepress.executor import (
    Executor,
    differentiable,
    gradients,
    per_sample_gradients,
    require_parity,
    trainable,
    write_back,
)
from edgepress.model import Model
from edgepress.ops.kernels import KERNELS

Outputs = dict[str, torch.Tensor]
FIRST = "pre_activation_bn"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loss_of(outputs: Outputs) -> torch.Tensor:
    """A curved function of all outputs with a different slope everywhere, summed over samples."""
    total = torch.zeros((), dtype=torch.float64)
    for value in outputs.values():
        ramp = torch.linspace(-1, 1, value[:1].numel(), dtype=value.dtype).reshape(value[:1].shape)
        total = total + (value * ramp).sum() + (value**2 * ramp.cos()).sum()
    return total


def batched(name: str) -> bool:
    """All outputs have the samples first (the stack of the loop has its turns first)."""
    return name != "loop"


# --- all families -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_tensor_agrees_with_onnxruntime(name: str) -> None:
    require_parity(Executor(net(name).model), net(name).feed, tolerance=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_what_training_may_change_is_what_torch_called_parameters(name: str) -> None:
    found = net(name)
    chosen = trainable(found.model)
    assert sum(found.model.constants[key].size for key in chosen) == found.trained
    assert list(chosen) == [key for key in found.model.constants if key in chosen]


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_finite_differences(name: str) -> None:
    """Directional, all trainable parameters at once, float64: relative error at most 1e-6."""
    executor = Executor(net(name).model, dtype=torch.float64)
    feed = net(name).feed
    got = gradients(executor, feed, loss_of)
    assert got.parameters.keys() == set(executor.trainable)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        way = {k: torch.randn(g.shape, generator=generator, dtype=torch.float64) for k, g in got.parameters.items()}
        slope = sum((g * way[k]).sum().item() for k, g in got.parameters.items())

        def moved(step: float, way: Outputs = way) -> float:
            weights = {k: executor.parameters[k] + step * w for k, w in way.items()}
            return loss_of(executor.run(feed, parameters=weights)).item()

        measured = (moved(1e-6) - moved(-1e-6)) / 2e-6
        assert abs(slope) > 1e-3
        assert measured == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_per_sample_gradients_by_vmap_are_those_of_the_loop(name: str) -> None:
    executor = Executor(net(name).model, dtype=torch.float64)
    feed = net(name).feed
    together = per_sample_gradients(executor, feed, loss_of, chunk=2)
    apart = per_sample_gradients(executor, feed, loss_of, method="loop")
    whole = gradients(executor, feed, loss_of).parameters
    largest = max(tensor.abs().max().item() for tensor in whole.values())
    for key, single in apart.items():
        assert single.shape == (3, *executor.parameters[key].shape)
        torch.testing.assert_close(together[key], single, rtol=1e-9, atol=1e-9 * largest)
        if batched(name):
            torch.testing.assert_close(single.sum(0), whole[key], rtol=1e-9, atol=1e-9 * largest)


def test_there_are_enough_networks() -> None:
    assert len(NETS) >= 12


@pytest.mark.parametrize("name", ["depthwise_se_hardswish", "shuffle", "conformer", "native_attention", "if", "loop"])
def test_parameters_and_inputs_live_on_the_device_and_shapes_on_the_host(name: str) -> None:
    """The meta device has no numbers: whatever would read one from a tensor of the device fails."""
    executor = Executor(net(name).model, device="meta")
    found = executor.run(net(name).feed)
    expected = Executor(net(name).model).run(net(name).feed)
    assert {key: (value.shape, value.device.type) for key, value in found.items()} == {
        key: (value.shape, "meta") for key, value in expected.items()
    }
    assert all(executor.parameters[key].device.type == "meta" for key in executor.trainable)


# --- which parameters -------------------------------------------------------------------------------


def test_a_tied_embedding_is_one_trainable_name() -> None:
    model = net("bert_tied").model
    assert [name for name in trainable(model) if model.constants[name].shape == (11, 8)] == ["tokens.weight"]


def roles(text: str, shapes: dict[str, tuple[int, ...]], **fixed: np.ndarray) -> Net:
    return written(text, shapes, (2, 4, 6, 6), 21, **fixed)


SIZES = "s = Shape (x)  f = Cast <to = 1> (s)  m = Mul (f, scales)  c = Cast <to = 7> (m)"


@pytest.mark.parametrize(
    ("line", "trained"),
    [
        ("y = BatchNormalization (x, four, w4, c4, p4)", ("w4", "four")),
        ("y = Clip (x, low, high)", ()),
        ("y = Pow (x, c4t)", ()),
        ("y = Mul (x, low)", ()),
        ("y = Mul (x, c4t)", ("c4t",)),
        ("y = PRelu (x, c4t)", ("c4t",)),
        ("y = Resize (x, none, scales)", ()),
        ("y = Pad (x, pads, low)", ()),
        ("h = Identity (w33)  y = Conv (x, h)", ("w33",)),
        ("h = Transpose <perm = [1,0,2,3]> (w33)  g = Cast <to = 1> (h)  y = Conv (x, g)", ("w33",)),
        ("h = Reshape (c4t, flat)  y = BatchNormalization (x, four, w4, h, p4)", ("w4", "four")),
        ("h = Reshape (c4t, flat)  y = BatchNormalization (x, h, w4, c4, p4)", ("w4", "c4t")),
        ("y = BatchNormalization (x, four, c4, c4, p4)", ("four",)),
        ("c = Greater (x, c4t)  y = Where (c, x, c4t)", ()),
        ("c = Greater (x, c4t)  y = Cast <to = 1> (c)", ()),
        (f"{SIZES} y = Resize (x, none, none, c)", ()),
        ("h = Expand (c4t, whole)  y = Add (x, h)", ("c4t",)),
        ("y = Concat <axis = 1> (x, t1466)", ("t1466",)),
    ],
)  # fmt: skip
def test_roles(line: str, trained: tuple[str, ...]) -> None:
    shapes = {"w4": (4,), "w33": (4, 4, 3, 3), "four": (4,), "c4": (4,), "c4t": (4, 1, 1), "t1466": (2, 4, 6, 6)}
    fixed = {
        "p4": np.ones(4, np.float32),
        "low": np.array(-0.5, np.float32),
        "high": np.array(0.5, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "flat": np.array([4]),
        "whole": np.array([1, 4, 6, 6]),
    }
    found = roles(f"g (float[2,4,6,6] x) => (float[A,B,C,D] y) {{ {line} }}", shapes, **fixed)
    assert trainable(found.model) == trained


def test_uses_in_bodies_count_and_what_a_loop_starts_from_does_not() -> None:
    text = """g (float[N,4] x) => (float[N,4] y) {
        y = Loop (three, none, start) <
            body = b (int64 i, bool before, float[4] h) => (bool after, float[N,4] next) {
                after = Identity (before)  next = Gemm (x, w, h)
            } >
    }"""
    found = written(text, {"w": (4, 4), "start": (4,)}, (3, 4), 21, three=np.array(1))
    assert trainable(found.model) == ("w",)


def test_integers_are_never_trained() -> None:
    text = "g (int64[N,4] x) => (int64[N,4] y) { y = Add (x, w) }"
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>\n' + text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4), "w"))
    executor = Executor(Model.of(proto))
    assert executor.trainable == ()
    with pytest.raises(DataError, match="whole numbers"):
        gradients(executor, {"x": np.zeros((1, 4), np.int64)}, loss_of, parameters=["w"])


# --- one backward pass ------------------------------------------------------------------------------


def test_captured_tensors_come_with_their_gradients() -> None:
    executor = Executor(net(FIRST).model, dtype=torch.float64)
    relus = [node.output for node in executor.nodes if node.op == "Relu"]
    convs = [node.output for node in executor.nodes if node.op == "Conv"]
    got = gradients(executor, net(FIRST).feed, loss_of, capture=[*relus, *convs, "x", "y"])
    assert got.tensors.keys() == got.tensor_gradients.keys() == {*relus, *convs, "x", "y"}
    assert not any(
        t.requires_grad for side in (got.tensors, got.tensor_gradients, got.parameters) for t in side.values()
    )
    bias = executor.model.node(executor.model.producer(convs[0]).name).inputs[2]  # type: ignore[union-attr]
    torch.testing.assert_close(got.tensor_gradients[convs[0]].sum((0, 2, 3)), got.parameters[bias])
    plain = executor.run(net(FIRST).feed, capture=relus)
    for name in relus:
        torch.testing.assert_close(got.tensors[name], plain[name])
    step = 1e-6 * torch.randn(got.tensors["x"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sides = [loss_of(executor.run({"x": got.tensors["x"] + way * step})).item() for way in (1, -1)]
    assert (sides[0] - sides[1]) / 2 == pytest.approx((got.tensor_gradients["x"] * step).sum().item(), rel=1e-6)


def test_capturing_changes_no_gradient() -> None:
    executor = Executor(net("unet").model)
    names = [node.output for node in executor.nodes if node.op in ("Conv", "Concat", "Reshape", "Sigmoid")]
    plain = gradients(executor, net("unet").feed, loss_of)
    with_capture = gradients(executor, net("unet").feed, loss_of, capture=names)
    assert torch.equal(plain.loss, with_capture.loss)
    for name, gradient in plain.parameters.items():
        torch.testing.assert_close(gradient, with_capture.parameters[name])


def test_a_tensor_that_is_handed_on_unchanged_has_a_gradient_of_its_own() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { h = Identity (x)  g = Mul (h, w)  i = Identity (g)  y = Mul (g, i) }"
    found = written(text, {"w": (4,)}, (3, 4), 21)
    got = gradients(Executor(found.model), found.feed, lambda out: out["y"].sum(), capture=["x", "h", "g", "i", "w"])
    g, w = found.feed["x"] * found.model.constants["w"], torch.from_numpy(found.model.constants["w"].copy())
    np.testing.assert_allclose(got.tensor_gradients["i"].numpy(), g, rtol=1e-6)
    np.testing.assert_allclose(got.tensor_gradients["g"].numpy(), 2 * g, rtol=1e-6)
    torch.testing.assert_close(got.tensor_gradients["x"], got.tensor_gradients["g"] * w)
    assert torch.equal(got.tensor_gradients["x"], got.tensor_gradients["h"])
    assert torch.equal(got.tensor_gradients["w"], got.parameters["w"])


def test_an_initializer_may_be_captured_without_being_tuned() -> None:
    found = net("rnn")
    executor = Executor(found.model)
    name = executor.trainable[0]
    got = gradients(executor, found.feed, loss_of, parameters=[], capture=[name])
    assert got.parameters == {}
    assert torch.equal(got.tensors[name], executor.parameters[name])
    torch.testing.assert_close(got.tensor_gradients[name], gradients(executor, found.feed, loss_of).parameters[name])


def test_gradients_of_tensors_alone() -> None:
    executor = Executor(net(FIRST).model)
    got = gradients(executor, net(FIRST).feed, loss_of, parameters=[], capture=["x"])
    assert got.parameters == {}
    assert got.tensor_gradients["x"].abs().max() > 0


def test_gradients_at_other_values_than_those_of_the_model() -> None:
    executor = Executor(net("rnn").model, dtype=torch.float64)
    name = executor.trainable[0]
    shifted = executor.parameters[name] + 0.1
    got = gradients(executor, net("rnn").feed, loss_of, parameters={name: shifted})
    executor.parameters[name] = shifted
    torch.testing.assert_close(got.parameters[name], gradients(executor, net("rnn").feed, loss_of).parameters[name])
    assert not executor.parameters[name].requires_grad


def test_what_the_loss_does_not_depend_on_has_gradient_zero() -> None:
    executor = Executor(net("loop").model)
    got = gradients(executor, net("loop").feed, lambda out: out["all"][0].sum() * 0 + 1.0, capture=["x"])
    assert all(not gradient.any() for gradient in (*got.parameters.values(), *got.tensor_gradients.values()))
    constant = gradients(executor, net("loop").feed, lambda out: torch.ones(()))
    assert all(gradient.shape == executor.parameters[name].shape for name, gradient in constant.parameters.items())


def test_targets_are_handed_to_the_loss() -> None:
    executor = Executor(net("vit_fused").model)
    labels = torch.tensor([0, 3, 1])

    def entropy(out: Outputs, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(out["y"], target, reduction="sum")

    whole = gradients(executor, net("vit_fused").feed, entropy, targets=labels)
    rows = per_sample_gradients(executor, net("vit_fused").feed, entropy, targets=labels)
    for name, gradient in whole.parameters.items():
        torch.testing.assert_close(rows[name].sum(0), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"parameters": ["nobody"]}, DataError, "'nobody' is no initializer"),
        ({"capture": ["nobody"]}, DataError, "no tensor 'nobody'"),
        ({"targets": torch.zeros(2)}, TypeError, "argument"),
    ],
)
def test_wrong_names_are_told(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gradients(Executor(net(FIRST).model), net(FIRST).feed, loss_of, **settings)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_is_told() -> None:
    with pytest.raises(DataError, match="one float number"):
        gradients(Executor(net(FIRST).model), net(FIRST).feed, lambda out: out["y"])


def test_captured_whole_numbers_have_no_gradient() -> None:
    with pytest.raises(UnsupportedError, match=r"'x' holds torch\.int64"):
        gradients(Executor(net("bert_tied").model), net("bert_tied").feed, loss_of, capture=["x"])


# --- per sample -------------------------------------------------------------------------------------


def test_an_operator_that_reads_numbers_from_the_sample_is_named() -> None:
    text = """g (float[N,4] x) => (float[N,K] y) {
        h = Mul (x, w)  m = ReduceMax (x)  i = Cast <to = 7> (m)  k = Reshape (i, one)  f = Add (k, one)
        y, j = TopK (h, f)
    }"""
    found = written(text, {"w": (4,)}, (3, 4), 21, one=np.array([1]))
    executor = Executor(found.model)
    feed = {"x": np.array([[0.1, 1.2, 0.4, 0.3], [2.1, 0.2, 0.5, -1]], np.float32)}

    def loss(out: Outputs) -> torch.Tensor:
        return out["y"].sum()

    with pytest.raises(UnsupportedError, match=r'TopK .*method="loop"'):
        per_sample_gradients(executor, feed, loss)
    rows = per_sample_gradients(executor, feed, loss, method="loop")["w"]
    assert [(row != 0).sum().item() for row in rows] == [2, 3]


def test_an_operator_that_torch_would_loop_over_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no batching rule for histc, only a slow loop and a warning."""
    monkeypatch.setitem(KERNELS, "softsign", lambda call, x: x * torch.histc(x.detach(), bins=4).sum())
    found = written("g (float[N,4] x) => (float[N,4] y) { h = Mul (x, w)  y = Softsign (h) }", {"w": (4,)}, (3, 4), 21)
    executor = Executor(found.model)
    with pytest.raises(UnsupportedError, match=r"Softsign .*batching rule"):
        per_sample_gradients(executor, found.feed, lambda out: out["y"].sum())
    rows = per_sample_gradients(executor, found.feed, lambda out: out["y"].sum(), method="loop")["w"]
    np.testing.assert_allclose(rows.numpy(), 4 * found.feed["x"], rtol=1e-6)


def test_what_fails_without_vmap_too_is_told_as_it_is() -> None:
    executor = Executor(net(FIRST).model)
    with pytest.raises(RuntimeError, match="size mismatch"):
        per_sample_gradients(executor, net(FIRST).feed, lambda out: (out["y"] @ torch.ones(77)).sum())


def test_inputs_of_fixed_size_are_shared_by_all_samples() -> None:
    text = "g (float[N,4] x, float[2,4] t) => (float[N,2] y) { h = Mul (x, w)  u = Transpose (t)  y = MatMul (h, u) }"
    found = written(text, {"w": (4,)}, (3, 4), 21)
    feed = {**found.feed, "t": np.arange(8, dtype=np.float32).reshape(2, 4)}
    rows = per_sample_gradients(Executor(found.model), feed, lambda out: out["y"].sum())["w"]
    np.testing.assert_allclose(rows.numpy(), found.feed["x"] * feed["t"].sum(0), rtol=1e-5)


def test_samples_must_be_there_and_agree() -> None:
    text = "g (float[N,4] x, float[N,4] t) => (float[N,4] y) { h = Mul (x, w)  y = Add (h, t) }"
    executor = Executor(written(text, {"w": (4,)}, (3, 4), 21).model)
    wrong = {"x": np.zeros((3, 4), np.float32), "t": np.zeros((2, 4), np.float32)}
    with pytest.raises(DataError, match=r"\[2, 3\]"):
        per_sample_gradients(executor, wrong, loss_of)
    fixed = Executor(written("g (float[3,4] x) => (float[3,4] y) { y = Mul (x, w) }", {"w": (4,)}, (3, 4), 21).model)
    with pytest.raises(DataError, match="fixed batch"):
        per_sample_gradients(fixed, {"x": wrong["x"]}, loss_of)
    with pytest.raises(DataError, match="'both'"):
        per_sample_gradients(executor, wrong, loss_of, method="both")


# --- the gate ---------------------------------------------------------------------------------------


def test_gradients_are_refused_where_torch_and_onnxruntime_disagree() -> None:
    executor = Executor(net(FIRST).model)
    require_parity(executor, net(FIRST).feed)
    name = executor.trainable[0]
    executor.parameters[name] = executor.parameters[name] * 1.01
    reader = executor.model.consumers(name)[0]
    with pytest.raises(UnsupportedError, match=f"Tensor '{reader.output}', made by {reader.op} '{reader.name}'"):
        require_parity(executor, net(FIRST).feed)
    require_parity(executor, net(FIRST).feed, tolerance=0.1)


def test_differentiable_opens_the_gate_in_any_working_type(monkeypatch: pytest.MonkeyPatch) -> None:
    found = net("shuffle")
    executor = differentiable(found.model, found.feed, dtype=torch.float64)
    assert {tensor.dtype for name, tensor in executor.parameters.items() if name in executor.trainable} == {
        torch.float64
    }
    monkeypatch.setattr(Executor, "parity", lambda *_, **__: "y")
    with pytest.raises(UnsupportedError, match="'y'"):
        differentiable(found.model, found.feed)


# --- tuning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pre_activation_bn", "bert_tied", "lstm_gru", "unet", "swiglu_rope"])
def test_tuned_weights_written_back_run_in_onnxruntime(name: str) -> None:
    """A few steps of Adam in float32; what was not tuned keeps its bytes."""
    model, feed = net(name).model, net(name).feed
    executor = differentiable(model, feed)
    weights = {key: executor.parameters[key].clone().requires_grad_() for key in executor.trainable}
    adam = torch.optim.Adam(weights.values(), 1e-2)
    first = loss_of(executor.run(feed)).item()
    for _ in range(4):
        adam.zero_grad()
        loss = loss_of(executor.run(feed, parameters=weights))
        torch.autograd.backward(loss)
        adam.step()
    tuned = write_back(model, weights)
    onnx.checker.check_model(tuned.edit(), full_check=True)
    got = executor.run(feed, parameters={key: value.detach() for key, value in weights.items()})
    expected = runtime.run(runtime.session(tuned.data), feed)
    for key, wanted in expected.items():
        np.testing.assert_allclose(got[key].numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert loss_of(got).item() < first
    same = {key for key, array in model.constants.items() if array.tobytes() == tuned.constants[key].tobytes()}
    assert same == set(model.constants) - set(executor.trainable)
    assert write_back(model, executor.parameters).data == model.data
