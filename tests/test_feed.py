"""Feeds: every kind of source by every kind of model, fed to onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import feed_cases
import numpy as np
import pytest
from feed_cases import FILES, NEED_ONE_INPUT, Case, cases, for_one_input, model_of, relu_model
from onnx import numpy_helper

from edgepress import runtime
from edgepress.calibrate import Feed, open_feed, overlap
from edgepress.model import Model

CASES = {case.name: case for case in cases()}


MATRIX = [
    pytest.param(kind, case, id=f"{kind}-{case.name}")
    for kind in FILES
    for case in CASES.values()
    if kind not in NEED_ONE_INPUT or for_one_input(case)
]


def assert_feeds(feed: Feed, model: Model, runs: Sequence[dict[str, np.ndarray]]) -> None:
    """One run after the other is as expected, and onnxruntime takes it."""
    chunks = list(feed.chunks(1))
    assert len(chunks) == len(runs)
    opened = runtime.session(model.data)
    for chunk, run in zip(chunks, runs, strict=True):
        assert chunk.inputs.keys() == run.keys()
        for name, array in chunk.inputs.items():
            assert array.dtype == run[name].dtype and array.dtype.isnative
            np.testing.assert_array_equal(array, run[name])
        runtime.run(opened, chunk.inputs)


@pytest.mark.parametrize(("kind", "case"), MATRIX)
def test_files(kind: str, case: Case, tmp_path: Path) -> None:
    stream = kind == "test-sets"
    feed = open_feed(FILES[kind](case, tmp_path), case.model)
    assert_feeds(feed, case.model, case.stream_runs if stream else case.runs)
    assert feed.batched == case.batched
    per_run = 1 if stream else case.rows_per_run
    assert len(feed) == per_run * len(case.stream_runs if stream else case.runs)
    assert [i for chunk in feed.chunks(5) for i in chunk.samples] == list(range(len(feed)))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes a module of the user's into the current folder; returns `module:name`."""
    monkeypatch.chdir(tmp_path)
    made: list[str] = []

    def make(text: str, name: str = "give", **values: Any) -> str:
        module_name = f"user_code_{len(made)}_{tmp_path.name}"
        (tmp_path / f"{module_name}.py").write_text(
            f"import numpy as np\nimport feed_cases\n{text}\n", encoding="utf-8"
        )
        for key, value in values.items():
            monkeypatch.setattr(feed_cases, key, value, raising=False)
        made.append(module_name)
        return f"{module_name}:{name}"

    yield make
    for name in made:
        sys.modules.pop(name, None)


READERS = {
    "generator": "def give():\n    yield from feed_cases.RUNS",
    "list": "def give():\n    return list(feed_cases.RUNS)",
    "reader": "def give():\n    return feed_cases.Reader(feed_cases.RUNS)",
    "class": "class give(feed_cases.Reader):\n    def __init__(self):\n        super().__init__(feed_cases.RUNS)",
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("kind", READERS)
def test_readers(kind: str, case: Case, module: Callable[..., str]) -> None:
    before = list(sys.path)
    feed = open_feed(module(READERS[kind], RUNS=case.runs), case.model)
    assert sys.path == before
    assert_feeds(feed, case.model, case.stream_runs)
    assert_feeds(feed, case.model, case.stream_runs)  # several passes


def test_a_calibration_data_reader_of_onnxruntime_works(module: Callable[..., str]) -> None:
    text = (
        "from onnxruntime.quantization import CalibrationDataReader\n"
        "class give(CalibrationDataReader):\n"
        "    def __init__(self): self.left = iter(feed_cases.RUNS)\n"
        "    def get_next(self): return next(self.left, None)"
    )
    case = CASES["two-inputs"]
    assert_feeds(open_feed(module(text, RUNS=case.runs), case.model), case.model, case.runs)


def test_a_chunk_stacks_up_to_size_samples(tmp_path: Path) -> None:
    case = CASES["two-inputs"]
    feed = open_feed(FILES["npz"](case, tmp_path), case.model)
    assert [chunk.inputs["x"].shape for chunk in feed.chunks(5)] == [(5, 3), (5, 3), (2, 3)]
    assert [chunk.inputs["ids"].shape for chunk in feed.chunks()] == [(12, 2)]
    with pytest.raises(ValueError, match="size"):
        next(feed.chunks(0))


def test_a_single_test_set_is_a_source(tmp_path: Path) -> None:
    case = CASES["state-entries"]
    folder = FILES["test-sets"](case, tmp_path)
    assert_feeds(open_feed(f"{folder}/test_data_set_3", case.model), case.model, case.runs[3:4])


def test_named_tensors_of_a_test_set_go_by_name(tmp_path: Path) -> None:
    case = CASES["two-inputs"]
    for position, name in enumerate(("ids", "x")):
        tensor = numpy_helper.from_array(case.arrays[name], name)
        (tmp_path / f"input_{position}.pb").write_bytes(tensor.SerializeToString())
    assert_feeds(open_feed(str(tmp_path), case.model), case.model, case.runs)


def test_test_sets_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32)[:, None]
    case = Case("batched", relu_model("N", "1"), {"x": rows}, tuple({"x": row[None]} for row in rows))
    feed = open_feed(FILES["test-sets"](case, tmp_path), case.model)
    assert next(feed.chunks()).inputs["x"][:, 0].tolist() == list(range(12))


def test_readers_of_pictures_of_many_sizes_are_run_one_by_one(module: Callable[..., str]) -> None:
    runs = tuple({"x": np.full((1 + i, 1, 2 + i, 3), i, np.float32), "label": np.array(i)} for i in range(3))
    feed = open_feed(module(READERS["list"], RUNS=runs[:1] * 2 + runs), relu_model("N", "1,H,3"))
    assert feed.labels is not None and feed.labels.tolist() == [0, 0, 0, 1, 2]
    assert [chunk.inputs["x"].shape for chunk in feed.chunks(64)] == [(1, 1, 2, 3)] * 3 + [(2, 1, 3, 3), (3, 1, 4, 3)]


def test_labels_follow_their_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 10).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(10, 2)).astype(np.float32), label=labels[:, None])
    feed = open_feed(str(tmp_path / "a.npz"), relu_model("N", "2"))
    part = feed.subset([7, 2, 5])
    assert part.labels is not None and part.labels.dtype == np.int64
    assert part.labels.tolist() == labels[[7, 2, 5]].tolist()
    (chunk,) = part.chunks()
    assert chunk.labels is not None and chunk.labels.tolist() == part.labels.tolist()
    assert chunk.samples.tolist() == [0, 1, 2]
    assert part.sample_hashes() == [feed.sample_hashes()[i] for i in (7, 2, 5)]
    with pytest.raises(IndexError):
        part.subset([3])


@pytest.mark.parametrize(("labels", "per_chunk"), [((3,), 1), ((3, 1), 1), ((3, 4), 4)])
def test_labels_of_complete_inputs_are_per_entry_or_per_row(
    labels: tuple[int, ...], per_chunk: int, tmp_path: Path
) -> None:
    values = np.arange(np.prod(labels)).reshape(labels)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4, 2), np.float32), labels=values)
    chunks = list(open_feed(str(tmp_path / "a.npz"), relu_model("4", "2")).chunks())
    found = [[] if chunk.labels is None else chunk.labels.tolist() for chunk in chunks]
    assert found == values.reshape(3, per_chunk).tolist()


def test_labels_come_along_from_folders_and_readers(tmp_path: Path, module: Callable[..., str]) -> None:
    x, labels = np.arange(6, dtype=np.float32).reshape(6, 1), np.array([4, 0, 3, 1, 2, 5])
    for folder in ("npy", "npz", "parts"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "npy" / "x.npy", x)
    np.save(tmp_path / "npy" / "label.npy", labels)
    np.savez(tmp_path / "npz" / "0.npz", x=x[:4], label=labels[:4])
    np.savez(tmp_path / "npz" / "1.npz", x=x[4:], labels=labels[4:])
    np.save(tmp_path / "parts" / "0.npy", x[:1])
    np.save(tmp_path / "parts" / "1.npy", x[1:])
    np.save(tmp_path / "parts" / "labels.npy", labels)
    runs = ({"x": x[:4], "label": labels[:4]}, {"x": x[4:], "label": labels[4:]})
    sources = [str(tmp_path / folder) for folder in ("npy", "npz", "parts")] + [module(READERS["list"], RUNS=runs)]
    feeds = [open_feed(source, relu_model("N", "1")) for source in sources]
    assert all(feed.labels is not None and feed.labels.tolist() == labels.tolist() for feed in feeds)
    assert len({feed.sha256 for feed in feeds}) == 1


def test_an_input_may_be_called_label(tmp_path: Path) -> None:
    model = model_of("agraph (float[N,2] label) => (float[N,2] y) { y = Relu(label) }")
    np.savez(tmp_path / "a.npz", label=np.ones((3, 2), np.float32), labels=np.arange(3))
    feed = open_feed(str(tmp_path / "a.npz"), model)
    assert feed.labels is not None and feed.labels.tolist() == [0, 1, 2]


def test_a_fixed_batch_says_how_many_samples_it_drops(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(22, dtype=np.float32).reshape(11, 2))
    feed = open_feed(str(tmp_path / "a.npy"), relu_model("4", "2"))
    assert (len(feed), feed.dropped, feed.step) == (8, 3, 4)
    part = feed.subset([7, 1, 5, 3, 0])
    assert (len(part), part.dropped) == (4, 1)
    assert [chunk.inputs["x"][:, 0].tolist() for chunk in part.chunks()] == [[14, 2, 10, 6]]


def test_identity_is_that_of_the_values(tmp_path: Path) -> None:
    case = CASES["batched"]
    folders = [tmp_path / kind for kind in FILES]
    for folder in folders:
        folder.mkdir()
    feeds = [open_feed(FILES[kind](case, folder), case.model) for kind, folder in zip(FILES, folders, strict=True)]
    assert len({feed.sha256 for feed in feeds}) == 1
    assert len({tuple(feed.sample_hashes()) for feed in feeds}) == 1
    backwards = feeds[0].subset(range(len(feeds[0]))[::-1])
    assert backwards.sha256 != feeds[0].sha256
    assert backwards.subset(range(len(backwards))[::-1]).sha256 == feeds[0].sha256


def test_overlap_counts_common_samples_across_kinds(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(10, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x[:6], label=np.arange(6))
    np.save(tmp_path / "b.npy", x[4:].astype(np.float64))
    np.save(tmp_path / "c.npy", x[6:])
    a, b, c = (open_feed(str(tmp_path / name), relu_model("N", "2")) for name in ("a.npz", "b.npy", "c.npy"))
    assert (overlap(a, b), overlap(a, c), overlap(a, a)) == (2, 0, 6)


@pytest.mark.parametrize(
    ("stored", "wanted", "values"),
    [
        ("float64", "float", [0.5, -1.25]),
        ("float16", "float", [0.5, -1.25]),
        ("float32", "float16", [0.5, -1.25]),
        ("float32", "bfloat16", [0.5, -1.25]),
        ("int32", "int64", [-5, 7]),
        ("int64", "uint8", [0, 255]),
        ("uint8", "bool", [0, 1]),
        ("bool", "int32", [0, 1]),
    ],
)
def test_types_that_hold_the_values_are_cast(stored: str, wanted: str, values: list[float], tmp_path: Path) -> None:
    model = relu_model("N", "1", wanted)
    np.save(tmp_path / "a.npy", np.array(values, stored)[:, None])
    (chunk,) = open_feed(str(tmp_path / "a.npy"), model).chunks()
    assert str(chunk.inputs["x"].dtype) == model.inputs["x"].dtype
    assert chunk.inputs["x"][:, 0].tolist() == values


def test_a_scalar_input_takes_one_number_per_sample(tmp_path: Path) -> None:
    model = model_of("agraph (float[1,2] x, float scale) => (float[1,2] y) { y = Mul(x, scale) }")
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2), np.float32), scale=np.arange(3, dtype=np.float32))
    chunks = list(open_feed(str(tmp_path / "a.npz"), model).chunks())
    opened = runtime.session(model.data)
    assert [runtime.run(opened, chunk.inputs)["y"].tolist() for chunk in chunks] == [[[i, i]] for i in (0.0, 1.0, 2.0)]
