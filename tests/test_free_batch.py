"""Models of fixed batch, trained as if it were free, and handed over as they came."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numeric_tools import run
from pipeline_models import FIXED, FIXED_FOUR, Small
from score_tools import files, refused
from test_train_flow import METHODS
from train_tools import CONVNET, MLP, accuracy, job, prepare

from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.normalize.free_batch import fixed, fixed_batch, freed
from edgepress.pipeline.finetuning import finetune
from edgepress.pipeline.job import Job
from edgepress.train.settings import Settings

PLAIN = {"w": (16, 24), "v": (5, 16)}
DENSE = {"x": (24,)}


def dense(batch: int, middle: str, *, outputs: str = "float[{},5] y", **constants: Any) -> Small:
    """Two layers with something between them."""
    text = f"""g (float[{batch},24] x) => ({outputs.format(batch)}) {{
        a = Gemm<transB=1>(x,w)  {middle}  y = Gemm<transB=1>(h,v) }}"""
    return Small(text, PLAIN | constants, DENSE)


def attention(batch: int) -> Small:
    """Heads are split off by Reshape, four dimensions at once, and joined by another."""
    text = f"""g (float[{batch},6,8] x) => (float[{batch},6,8] y) {{
        q = MatMul(x,w)  s = Reshape(q,split)  t = Transpose<perm=[0,2,1,3]>(s)  u = Transpose<perm=[0,1,3,2]>(t)
        m = MatMul(t,u)  p = Softmax(m)  c = MatMul(p,t)  d = Transpose<perm=[0,2,1,3]>(c)  j = Reshape(d,join)
        y = Add(j,x) }}"""
    return Small(text, {"w": (8, 8), "split": [batch, 6, 2, 4], "join": [batch, 6, 8]}, {"x": (6, 8)})


TWO = Small(
    """g (float[2,24] x, float[2,8] z) => (float[2,5] y, float[2,16] h) {
    a = Gemm<transB=1>(x,w)  b = Gemm<transB=1>(z,u)  h = Add(a,b)  y = Gemm<transB=1>(h,v) }""",
    PLAIN | {"u": (16, 8)},
    {"x": (24,), "z": (8,)},
)

OPEN = {
    "flatten": FIXED,
    "flatten, four at a time": FIXED_FOUR,
    "the rest is inferred": dense(3, "r = Reshape(a,s)  h = Flatten(r)", s=[3, 4, -1]),
    "the batch is inferred": dense(1, "r = Reshape(a,s)  h = Reshape(r,t)", s=[-1, 4, 4], t=[1, 16]),
    "a target of two nodes": dense(1, "b = Reshape(a,s)  h = Reshape(b,s)", s=[1, 16]),
    "a size that is the batch": dense(4, "r = Reshape(a,s)  h = Reshape(r,t)", s=[4, 4, 4], t=[4, 16]),
    "a dimension is copied": dense(1, "h = Reshape(a,s)", s=[1, 0]),
    "a constant with the batch's size": dense(
        1, "c = Reshape(b,s)  h = Add(a,c)", b=(16,), s=[1, 16]
    ),
    "heads": attention(1),
    "heads, two at a time": attention(2),
    "two inputs and outputs": TWO,
}  # fmt: skip
CLOSED = {
    "the batch is joined with the rest": (dense(2, "r = Reshape(a,s)  h = Reshape(r,t)", s=[32], t=[2, 16]), "a node"),
    "samples see each other": (dense(2, "h = Softmax<axis=0>(a)"), "depends on the others"),
    "an output has no batch": (dense(1, "h = ReduceSum(a,axes)", axes=[0]), "depends on the others"),
    "an output is one number": (
        dense(1, "b = Relu(a) h = Identity(b)  n = ReduceSum<keepdims=0>(a)", outputs="float[{},5] y, float n"),
        "a node",
    ),
}


def cleaned(small: Small) -> tuple[Model, int, dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """A model ready to be freed, its batch, samples, and two runs of them."""
    model = Model.of(small.proto())
    batch = fixed_batch(model)
    assert batch is not None
    samples = {name: array for name, array in small.arrays(6 * batch).items() if name in model.inputs}
    runs = [{name: array[start : start + batch] for name, array in samples.items()} for start in (0, batch)]
    return normalize(model, runs).model, batch, samples, runs


@pytest.mark.parametrize("name", OPEN)
def test_samples_are_answered_alike_in_any_number(name: str) -> None:
    model, batch, samples, runs = cleaned(OPEN[name])
    found = freed(model, runs)
    assert isinstance(found, Model), found
    singles = [
        run(model, {each: array[start : start + batch] for each, array in samples.items()})
        for start in range(0, 6 * batch, batch)
    ]
    expected = [np.concatenate(parts) for parts in zip(*singles, strict=True)]
    for count in (1, 3, 6 * batch):
        given = {each: array[:count] for each, array in samples.items()}
        for mine, theirs in zip(run(found, given), expected, strict=True):
            np.testing.assert_allclose(mine, theirs[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPEN)
def test_the_batch_comes_back(name: str) -> None:
    model, batch, _, runs = cleaned(OPEN[name])
    found = freed(model, runs)
    assert isinstance(found, Model)
    assert fixed_batch(found) is None and all(
        kind.shape and kind.shape[0] == "batch" for kind in found.outputs.values()
    )
    back = fixed(found, batch)
    assert back.inputs == model.inputs and back.outputs == model.outputs
    for mine, theirs in zip(run(back, runs[0]), run(model, runs[0]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", CLOSED)
def test_what_counts_on_its_batch_is_left_alone(name: str) -> None:
    small, reason = CLOSED[name]
    model, _, _, runs = cleaned(small)
    found = freed(model, runs)
    assert isinstance(found, Refusal) and reason in found.reason


def test_inputs_without_a_batch_in_common_have_none_to_free() -> None:
    text = "g (float[2,4] x, float[3,4] t) => (float[2,3] y) { u = Transpose(t)  y = MatMul(x,u) }"
    model = Model.of(Small(text, {}, {"x": (4,), "t": (4,)}).proto())
    assert fixed_batch(model) is None
    found = freed(model, [])
    assert isinstance(found, Refusal) and "in common" in found.reason


# --- training ---------------------------------------------------------------------------------------------------


def with_batch(small: Small, batch: int) -> Small:
    """The same network, of fixed batch."""
    return dataclasses.replace(small, text=re.sub(r"\[N,", f"[{batch},", small.text))


def prepared(small: Small, batch: int, *, teacher_too: bool = True) -> None:
    """Teacher, network and samples of the current folder, of fixed batch."""
    prepare(small, 320)
    proto = with_batch(small, batch).proto()
    for name in ("net.onnx", "teacher.onnx")[: 2 if teacher_too else 1]:
        Model.of(proto).with_constants(Model.load(name).constants).save(name)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_a_model_of_fixed_batch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed over with its batch, and answers as what training made of the free model."""
    monkeypatch.chdir(tmp_path)
    given = {"method": name, "epochs": 2.0, **METHODS[name]}
    prepare(MLP, 320)
    free = finetune(job("free.onnx", **given))
    prepared(MLP, 1)
    found = finetune(job("out.onnx", **given))
    assert found.improved == free.improved and found.result == free.result
    small, same, before = Model.load("out.onnx"), Model.load("free.onnx"), Model.load("net.onnx")
    assert small.inputs == before.inputs and small.outputs == before.outputs and fixed_batch(small) == 1
    x = np.load("x.npz")["x"][:20]
    np.testing.assert_allclose(
        np.concatenate([run(small, {"x": row})[0] for row in x[:, None]]), run(same, {"x": x})[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("teacher", [True, False])
def test_the_teacher_may_have_another_batch(teacher: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared(CONVNET, 4, teacher_too=teacher)
    found = finetune(job(epochs=1.0))
    assert found.improved and fixed_batch(Model.load("out.onnx")) == 4
    assert found.result.kl < found.start.kl


def test_a_free_model_learns_from_a_fixed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(MLP, 320)
    before = accuracy("net.onnx")
    Model.of(with_batch(MLP, 8).proto()).with_constants(Model.load("teacher.onnx").constants).save("teacher.onnx")
    assert finetune(job(epochs=6.0)).improved
    assert fixed_batch(Model.load("out.onnx")) is None and accuracy("out.onnx") > before


def test_a_batch_that_cannot_be_freed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = CLOSED["samples see each other"][0]
    small.save(Path("net.onnx"))
    small.save_samples(Path("x.npz"), 64, label=np.arange(64) % 5)
    before = files()
    said = refused("finetune", "net.onnx", "--data", "x.npz", "-o", "out.onnx", "--labels", "--method", "entropy")
    assert "cannot be freed" in said and "export it with a free batch axis" in said
    assert files() == before


def test_a_real_model_of_batch_one(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 2018, whose weights are inputs, too."""
    monkeypatch.chdir(tmp_path)
    model, data = shared / "models" / "mnist8_opset8.onnx", shared / "calib" / "mnist8_calib.npz"
    settings = Settings(method="entropy", labels=True, epochs=2.0, batch=32, max_drop=2.0)
    found = finetune(Job(model, str(data), Path("out.onnx"), settings, threads=1))
    before, after = Model.load(model), Model.load("out.onnx")
    assert found.improved and found.coded is not None and after.inputs == before.inputs
    assert Path(found.coded).stat().st_size < before.size / 10
    with np.load(data) as arrays:
        rows = [run(after, {"Input3": row[None]})[0].argmax() for row in arrays["Input3"][:100]]
        assert np.mean(rows == arrays["label"][:100]) > 0.9
