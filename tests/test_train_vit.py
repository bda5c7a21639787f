"""The script that trains the vision transformer: a few steps on made-up pictures, and what it writes then."""

from __future__ import annotations

import importlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner

from edgepress.cli import main

ROOT = Path(__file__).parents[1]


def script(name: str) -> Any:
    """A script of tools/, whose imports start at the root."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"tools.{name}")


train_vit = script("train_vit")
LOADER = """
import numpy as np

def load(path):
    with np.load(path) as stored:
        return dict(stored)

def fashion_input(image):
    return (image.astype(np.float32) / 255 - 0.3)[:, None]
"""


def pictures(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with two rows of each picture bright: which ones is its label."""
    label = rng.integers(0, 10, size)
    bright = np.arange(28)[None] // 2 == label[:, None] + 2
    return (rng.integers(0, 100, (size, 28, 28)) + 150 * bright[:, :, None]).astype(np.uint8), label.astype(np.uint8)


def train(folder: Path, out: Path, *options: str) -> str:
    """Run the script on the data of a folder; returns what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(train_vit.zoo, "SHARED", folder)
        train_vit.main(["--out", str(out), *options])
    return printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The script sets torch to one thread; the tests after it get back what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the real one, of 1000 pictures to train with and 200 to test with."""
    folder, rng = tmp_path_factory.mktemp("shared"), np.random.default_rng(0)
    (x_train, y_train), (x_test, y_test) = pictures(rng, 1000), pictures(rng, 200)
    (folder / "load_share.py").write_text(LOADER)
    (folder / "data").mkdir()
    np.savez(folder / "data/fashion_mnist.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The model after 24 steps, in a folder that was not there, and what was printed."""
    path = tmp_path_factory.mktemp("vit") / "new" / "vit.onnx"
    return path, train(data, path, "--epochs", "3")


def test_file_is_plain_and_whole(run: tuple[Path, str]) -> None:
    path, _ = run
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert list(path.parent.iterdir()) == [path]
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert proto.ir_version <= 10 and not proto.functions
    assert not any(weight.external_data for weight in proto.graph.initializer)
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    assert b".py" not in path.read_bytes(), "the exporter's remarks name files of this machine"


def test_onnxruntime_runs_it_at_any_batch(run: tuple[Path, str]) -> None:
    session = ort.InferenceSession(str(run[0]), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal((5, 1, 28, 28)).astype(np.float32)
    (logits,) = session.run(["logits"], {"input": image})
    single = np.concatenate([session.run(["logits"], {"input": row[None]})[0] for row in image])
    assert logits.shape == (5, 10)
    np.testing.assert_allclose(logits, single, rtol=1e-4, atol=1e-4)


def test_it_learned_and_says_so(run: tuple[Path, str], data: Path) -> None:
    path, printed = run
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with np.load(data / "data/fashion_mnist.npz") as stored:
        image, label = (stored["x_test"].astype(np.float32) / 255 - 0.3)[:, None], stored["y_test"]
    accuracy = float((session.run(["logits"], {"input": image})[0].argmax(1) == label).mean())
    assert accuracy > 0.3, "three times what guessing gives"
    said = re.match(r"test accuracy ([\d.]+)\ntrained in \d+ s .*\n(\d+) parameters", printed)
    assert said is not None
    assert float(said[1]) == pytest.approx(accuracy, abs=1e-4)
    folded = sum(int(np.prod(weight.dims)) for weight in onnx.load(path).graph.initializer)
    assert 0 <= folded - int(said[2]) < 500, "weights and a few constants of shapes and scales"


def test_edgepress_may_cut_heads_and_neurons_of_every_block(run: tuple[Path, str]) -> None:
    path, printed = run
    found = train_vit.grouping(path)
    wanted = [
        (f"blocks.{block}.{name}.MatMul", size)
        for block in range(4)
        for name, size in (("attention.q", 4), ("fc1", 256))
    ]
    assert [(group.name, group.size) for group in found.prunable] == wanted
    assert f"8 of {len(found.groups)} groups may shrink" in printed
    explained = CliRunner().invoke(main, ["explain", str(path)])
    assert explained.exit_code == 0, explained.output
    assert all(name in explained.stdout for name, _ in wanted)


def test_a_second_run_writes_the_same_bytes(run: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.onnx"
    train(data, path, "--epochs", "3")
    assert path.read_bytes() == run[0].read_bytes()


def test_another_seed_starts_and_goes_another_way() -> None:
    part = train_vit.Part(np.zeros((1, 1, 28, 28), np.float32), np.zeros(1, np.int64))
    one, other = (train_vit.trained(part, 1, seed).state_dict() for seed in (0, 1))
    assert (one["places"] != other["places"]).any() and (one["head.weight"] != other["head.weight"]).any()
    first, second = (np.concatenate(list(train_vit.batches(300, 2, seed))) for seed in (0, 1))
    assert (first != second).any()
    for rows in (first, second):
        assert sorted(rows[:300]) == sorted(rows[300:]) == list(range(300)), "every picture once in each epoch"


def test_without_data_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="set EDGEPRESS_SHARED to the folder"):
        train(tmp_path, tmp_path / "vit.onnx")
    assert not list(tmp_path.iterdir())


def test_no_epochs_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(data, tmp_path / "vit.onnx", "--epochs", "0")
    assert "--epochs must be at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_logits_is_not_written(
    run: tuple[Path, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_vit, "exported", lambda net: onnx.load(run[0]))  # the network of three epochs
    with pytest.raises(SystemExit, match="the export went wrong"):
        train(data, tmp_path / "vit.onnx", "--epochs", "1")
    assert not list(tmp_path.iterdir())
