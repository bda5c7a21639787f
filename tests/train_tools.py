"""Small networks and samples to train on, in the current folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numeric_tools import feed_of, run
from pipeline_models import Small

from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.pipeline.job import Job
from edgepress.report.training import Training
from edgepress.train.batches import Batches
from edgepress.train.losses import Loss, Teacher
from edgepress.train.method import Setting
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings

CLASSES = 4
MLP = Small(
    """g (float[N,12] x) => (float[N,4] y) {
        a = Gemm<transB=1>(x,w1,b1)  h = Relu(a)
        c = Gemm<transB=1>(h,w2,b2)  k = Relu(c)  y = Gemm<transB=1>(k,w3,b3) }""",
    {"w1": (24, 12), "b1": (24,), "w2": (16, 24), "b2": (16,), "w3": (CLASSES, 16), "b3": (CLASSES,)},
    {"x": (12,)},
)
CONVNET = Small(
    """g (float[N,1,8,8] x) => (float[N,4] y) {
        a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x,w1,b1)  h = Relu(a)
        m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(h)
        c = Conv<kernel_shape=[3,3]>(m,w2,b2)  k = Relu(c)  f = Flatten(k)  y = Gemm<transB=1>(f,w3,b3) }""",
    {"w1": (8, 1, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (CLASSES, 32), "b3": (CLASSES,)},
    {"x": (1, 8, 8)},
)


def labels_of(model: Model, x: np.ndarray) -> np.ndarray:
    """What a network answers."""
    return np.asarray(run(model, {"x": x})[0].argmax(1), np.int64)


def prepare(small: Small, samples: int, *, noise: float = 0.3, seed: int = 0) -> None:
    """``teacher.onnx``, ``net.onnx`` (the same with noisy weights) and ``x.npz``, labelled by the teacher."""
    x = small.arrays(samples)["x"]
    teacher = balanced(Model.of(small.proto(seed)), x)
    teacher.save("teacher.onnx")
    noisy(teacher, noise).save("net.onnx")
    np.savez("x.npz", x=x, label=labels_of(teacher, x))


def balanced(model: Model, x: np.ndarray) -> Model:
    """The model with the mean of every logit at zero: all classes occur."""
    bias = model.constants["b3"] - run(model, {"x": x})[0].mean(0)
    return model.with_constants({"b3": bias.astype(np.float32)})


def noisy(model: Model, noise: float) -> Model:
    """The model with noise on its weights, relative to their size."""
    random = np.random.default_rng(7)
    return model.with_constants(
        {
            name: (array + noise * array.std() * random.standard_normal(array.shape)).astype(np.float32)
            for name, array in model.constants.items()
        }
    )


def job(output: str = "out.onnx", *, teacher: bool = True, resume: bool = False, **settings: object) -> Job:
    """A run on the files of :func:`prepare`."""
    given = {"batch": 16, "epochs": 3.0, "lr": 3e-3, **settings}
    return Job(
        Path("net.onnx"), "x.npz", Path(output), Settings(**given),  # type: ignore[arg-type]
        teacher=Path("teacher.onnx") if teacher else None, resume=resume, threads=1,
    )  # fmt: skip


def setting(small: Small, samples: int = 256, **settings: object) -> Setting:
    """What a method works with, without files."""
    x = small.arrays(samples)["x"]
    model = balanced(Model.of(small.proto()), x)
    feed = feed_of(model, {"x": x, "label": labels_of(model, x)})
    own = Settings(**{"batch": 16, "labels": True, "keep": 0.5, "method": "flat", **settings})  # type: ignore[arg-type]
    loss = Loss(("y",), True, True, Teacher(Executor(model)), 0.5)
    return Setting(model, loss, Batches(feed, own, Ranks()), own, Ranks(), "cpu")


def report(output: str = "out.onnx") -> Training:
    """What was written beside a result."""
    return Training.from_json(Path(output).with_suffix(".report.json").read_text())


def accuracy(path: str, data: str = "x.npz") -> float:
    """Percent of right answers of a file, in onnxruntime."""
    with np.load(data) as arrays:
        return 100 * float((labels_of(Model.load(path), arrays["x"]) == arrays["label"]).mean())


def leaves(model: Model) -> dict[str, torch.Tensor]:
    """The weights of a model as tensors."""
    return {name: torch.from_numpy(array.copy()) for name, array in model.constants.items()}
