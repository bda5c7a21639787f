"""edgepress finetune: what is written, that it is never worse than the start, and that a killed run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numeric_tools import run as answers
from pipeline_models import MAP
from score_tools import done, files, refused
from train_tools import CONVNET, MLP, accuracy, job, noisy, prepare, report

from edgepress.model import Model
from edgepress.pipeline import finetuning
from edgepress.pipeline.finetuning import finetune
from edgepress.train import loop
from edgepress.train.batches import Batches
from edgepress.train.checkpoint import checkpoint_path
from edgepress.train.loop import Loop

ROOT = Path(__file__).parents[1]
METHODS: dict[str, dict[str, Any]] = {
    "distil": {},
    "entropy": {"labels": True, "max_drop": 100.0},
    "relaxed": {"method": "entropy", "form": "relaxed", "labels": True, "max_drop": 100.0},
    "flat": {"labels": True, "keep": 0.5, "max_drop": 100.0},
    "anneal": {"labels": True, "max_drop": 100.0},
    "mint": {"labels": True, "keep": 0.5, "max_drop": 100.0},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a teacher, a noisy copy of it and samples."""
    monkeypatch.chdir(tmp_path)
    prepare(MLP, 320)
    return tmp_path


def test_distillation_brings_a_network_nearer_to_its_teacher_without_labels(here: Path) -> None:
    with np.load("x.npz") as arrays:
        np.savez("plain.npz", x=arrays["x"])
    arguments = ("--teacher", "teacher.onnx", "--epochs", "6", "--batch", "16", "--lr", "0.003", "-q")
    printed = done("finetune", "net.onnx", "--data", "plain.npz", "-o", "out.onnx", *arguments)
    found = report()
    assert found.improved and found.result.measure == "agreement"
    assert found.result.kl < found.start.kl / 4
    assert accuracy("out.onnx") > accuracy("net.onnx") + 3
    assert "verdict\tFrom" in printed and "written\tout.report.json" in printed
    assert not checkpoint_path(Path("out.onnx")).exists()
    before, after = onnx.load("net.onnx"), onnx.load("out.onnx")
    assert before.graph.input == after.graph.input and before.graph.output == after.graph.output
    assert [row.number for row in found.epochs] == [1, 2, 3, 4, 5, 6]
    assert min(row.kl for row in found.epochs) == found.result.kl  # the best is handed over, whichever it was


def test_a_training_that_makes_it_worse_hands_over_the_start(here: Path) -> None:
    found = finetune(job(lr=3.0, epochs=1.0))
    assert not found.improved and "start is handed over" in found.verdict
    x = np.load("x.npz")["x"]
    np.testing.assert_allclose(
        answers(Model.load("out.onnx"), {"x": x})[0], answers(Model.load("net.onnx"), {"x": x})[0], atol=1e-5
    )


def test_nothing_is_trained_on_the_samples_held_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[bytes] = []
    judged: list[bytes] = []
    batches, judge = Batches, finetuning._Run._judge

    def watched(feed: Any, *rest: Any) -> Any:
        trained.extend(feed.sample_hashes())
        return batches(feed, *rest)

    def watching(self: Any, known: Any, feed: Any) -> Any:
        judged.extend(feed.sample_hashes())
        return judge(self, known, feed)

    monkeypatch.setattr(finetuning, "Batches", watched)
    monkeypatch.setattr(finetuning._Run, "_judge", watching)
    finetune(job(epochs=1.0))
    assert trained and judged and not set(trained) & set(judged)
    assert len(set(trained)) + len(set(judged)) == 320


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_best(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = loop.Loop._step

    def poisoned(self: Loop, moment: Any) -> None:
        if moment.step == 25:
            value = next(iter(self.method.adam.values.values()))
            value.data.fill_(float("nan"))
        true(self, moment)

    monkeypatch.setattr(Loop, "_step", poisoned)
    found = finetune(job(epochs=5.0))
    assert "not a number at step 26" in found.notes[-1]
    assert found.improved and found.result.kl < found.start.kl  # of the first epoch
    assert all(np.isfinite(array).all() for array in Model.load("out.onnx").constants.values())


def test_training_ends_when_nothing_gets_better(here: Path) -> None:
    found = finetune(job(lr=3.0, epochs=20.0, patience=2))
    assert len(found.epochs) == 2 and "ended early" in found.notes[-1]


def test_the_report_on_other_samples_decides_nothing(here: Path) -> None:
    MLP.save_samples(Path("other.npz"), 50, seed=9, label=np.arange(50) % 4)
    arguments = ("--teacher", "teacher.onnx", "--batch", "16", "--epochs", "1", "-q", "--data", "x.npz")
    done("finetune", "net.onnx", *arguments, "-o", "a.onnx")
    done("finetune", "net.onnx", *arguments, "-o", "b.onnx", "--eval-data", "other.npz")
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    found = report("b.onnx")
    assert found.evaluated_result is not None and found.evaluated_result.samples == 50
    assert found.evaluated_result.value == pytest.approx(accuracy("b.onnx", "other.npz"))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_from_wherever_it_was_stopped(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of the second epoch: a checkpoint of a moment before, and the same bytes at the end."""
    given = {"method": name, **METHODS[name]}
    whole = finetune(job("whole.onnx", **given))
    monkeypatch.setattr(loop, "EVERY", -1.0)  # a checkpoint after every step
    true, steps = Loop._step, []

    def stopping(self: Loop, moment: Any) -> None:
        steps.append(moment.step)
        if len(steps) == 20:
            raise KeyboardInterrupt
        true(self, moment)

    monkeypatch.setattr(Loop, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(job("part.onnx", **given))
    assert checkpoint_path(Path("part.onnx")).exists() and not Path("part.onnx").exists()
    again = finetune(job("part.onnx", resume=True, **given))
    assert again.resumed == 19
    assert Path("whole.onnx").read_bytes() == Path("part.onnx").read_bytes()
    assert repr(again.epochs) == repr(whole.epochs)  # NaN differs from itself
    if name in ("entropy", "relaxed"):
        assert Path("whole.epz").read_bytes() == Path("part.epz").read_bytes()


def test_a_process_that_is_killed_goes_on_with_the_same_result(here: Path) -> None:
    arguments = [
        "--teacher",
        "teacher.onnx",
        "--data",
        "x.npz",
        "--batch",
        "8",
        "--epochs",
        "60",
        "--threads",
        "1",
        "-q",
    ]
    command = [sys.executable, "-m", "edgepress", "finetune", "net.onnx", *arguments, "-o", "killed.onnx"]
    place = checkpoint_path(Path("killed.onnx"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while not place.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and place.exists() and not Path("killed.onnx").exists()
    assert "go on with --resume" in refused("finetune", "net.onnx", *arguments, "-o", "killed.onnx")
    done("finetune", "net.onnx", *arguments, "-o", "killed.onnx", "--resume")
    done("finetune", "net.onnx", *arguments, "-o", "whole.onnx")
    assert Path("killed.onnx").read_bytes() == Path("whole.onnx").read_bytes()
    assert report("killed.onnx").resumed > 0 and not place.exists()


def test_two_processes_train_as_one(here: Path) -> None:
    """The same batches, cut in two: the same weights up to the order of sums."""
    arguments = ["--teacher", "teacher.onnx", "--data", "x.npz", "--batch", "16", "--epochs", "2", "--threads", "1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "edgepress", "finetune", "net.onnx", *arguments, "-o", "two.onnx"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("verdict\t") == 1  # only the first process speaks
    done("finetune", "net.onnx", *arguments, "-o", "one.onnx", "-q")
    one, two = Model.load("one.onnx"), Model.load("two.onnx")
    for name, array in one.constants.items():
        np.testing.assert_allclose(two.constants[name], array, rtol=2e-3, atol=2e-4)
    assert report("two.onnx").processes == 2


def test_pictures_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(CONVNET, 160)
    found = finetune(job(augment="flip", epochs=2.0))
    assert found.improved and found.result.kl < found.start.kl


def test_inner_tensors_can_be_compared_too(here: Path) -> None:
    found = finetune(job(features=0.5, epochs=2.0))
    assert found.improved and found.result.kl < found.start.kl
    plain = finetune(job("plain.onnx", epochs=2.0))
    assert plain.epochs[0].loss < found.epochs[0].loss  # there is more to be near to


def test_a_network_that_does_not_classify_is_trained_on_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    MAP.save(Path("teacher.onnx"))
    noisy(Model.load("teacher.onnx"), 0.2).save("net.onnx")
    MAP.save_samples(Path("x.npz"), 128)
    arguments = ("--teacher", "teacher.onnx", "--data", "x.npz", "--epochs", "4", "--batch", "16", "-q")
    done("finetune", "net.onnx", *arguments, "-o", "out.onnx")
    found = report()
    assert found.result.measure == "sqnr" and found.result.value > found.start.value + 3
    assert "one output [samples, classes]" in refused("finetune", "net.onnx", *arguments, "-o", "b.onnx", "--labels")


# --- what cannot be used ------------------------------------------------------------------------------


def wrong(*more: str) -> str:
    return refused("finetune", "net.onnx", "--data", "x.npz", "-o", "out.onnx", "-q", *more)


def test_options_that_make_no_sense_are_said_in_a_sentence(here: Path) -> None:
    assert "name that by --teacher" in wrong()
    assert "too small" in wrong("--labels", "--batch", "2")
    assert "fewer than one batch of 5000" in wrong("--labels", "--batch", "5000")
    assert "give it by --keep" in wrong("--method", "flat", "--labels")
    assert "leave it out" in wrong("--method", "entropy", "--keep", "0.5")
    assert "starts from a trained model" in wrong("--method", "entropy", "--from-scratch")
    assert "needs --labels, or a --teacher" in wrong("--method", "flat", "--keep", "0.5", "--from-scratch")
    assert "--lr is 0.0" in wrong("--labels", "--lr", "0")
    assert "give them by --data" in refused("finetune", "net.onnx", "-o", "out.onnx")


def test_labels_must_be_there_where_they_are_asked_for(here: Path) -> None:
    MLP.save_samples(Path("plain.npz"), 64)
    told = refused("finetune", "net.onnx", "--data", "plain.npz", "-o", "out.onnx", "--labels", "-q", "--batch", "16")
    assert "the samples have none" in told


def test_the_teacher_must_have_the_same_outputs(here: Path) -> None:
    CONVNET.save(Path("other.onnx"))
    proto = onnx.load("teacher.onnx")
    proto.graph.output[0].name = "z"
    proto.graph.node[-1].output[0] = "z"
    onnx.save(proto, "other.onnx")
    assert "other inputs or outputs" in wrong("--teacher", "other.onnx")


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", -1.0)
    true = Loop._step

    def stopping(self: Loop, moment: Any) -> None:
        if moment.step == 3:
            raise KeyboardInterrupt
        true(self, moment)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_step", stopping)
        finetune(job())
    place = checkpoint_path(Path("out.onnx"))
    arguments = ("--teacher", "teacher.onnx", "--batch", "16", "--resume", "--epochs", "9")
    assert "another model, other samples or other options" in wrong(*arguments)
    place.write_bytes(place.read_bytes()[:-100])
    assert "is damaged" in wrong(*arguments)
    assert files()["out.checkpoint.npz"]
