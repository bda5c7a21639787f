"""Laws of feeds: chunks cover all samples, splits part them, memory stays flat."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from feed_cases import relu_model
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.calibrate import Feed, open_feed, rows, split
from edgepress.calibrate.inputs import wanted
from edgepress.calibrate.layout import arrange
from edgepress.calibrate.rows import Spool, Table, raw
from edgepress.errors import DataError

EXAMPLES = settings(max_examples=60, deadline=None)


def feed_of(values: list[int], labels: list[int] | None = None, batch: str = "N") -> Feed:
    """A feed of one number per sample; equal numbers are equal samples."""
    array = np.array(values, np.float32).reshape(-1, 1)
    spool = Spool()
    table = Table(array.shape, array.dtype, spool, spool.append([raw(array)]))
    inputs = wanted(relu_model(batch, "1"))
    known = None if labels is None else np.array(labels, np.int64)
    return Feed.over(arrange({"x": table}, known, inputs, "test"))


def values_of(feed: Feed, size: int = 64) -> list[int]:
    return [int(value) for chunk in feed.chunks(size) for value in chunk.inputs["x"].reshape(-1)]


numbers = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@EXAMPLES
@given(numbers, st.integers(1, 70), st.sampled_from(["N", "1", "3"]), st.data())
def test_chunks_are_all_samples_in_order(values: list[int], size: int, batch: str, data: st.DataObject) -> None:
    step = int(batch) if batch.isdigit() else 1
    values = values * step
    feed = feed_of(values, values, batch)
    chosen = data.draw(st.lists(st.integers(0, len(feed) - 1), max_size=40))
    for part, expected in ((feed, values), (feed.subset(chosen), [values[i] for i in chosen])):
        whole = expected[: len(expected) - len(expected) % step]
        chunks = list(part.chunks(size))
        assert values_of(part, size) == whole
        assert [label for chunk in chunks if chunk.labels is not None for label in chunk.labels] == whole
        assert [i for chunk in chunks for i in chunk.samples] == list(range(len(part)))
        full = size if batch == "N" else step
        widths = [len(chunk.samples) for chunk in chunks]
        assert all(width == full for width in widths[:-1]) and all(0 < width <= full for width in widths)
        assert len(part) + part.dropped == len(expected)


@EXAMPLES
@given(numbers, st.integers(0, 2**40), st.floats(0.01, 0.99), st.booleans())
def test_split_laws(values: list[int], seed: int, share: float, labelled: bool) -> None:
    feed = feed_of(values, [value % 3 for value in values] if labelled else None)
    fit, held = split(feed, seed=seed, hold_out=share)
    left, right = values_of(fit), values_of(held)
    assert not set(left) & set(right)  # disjoint, and duplicates on one side
    assert Counter(left) + Counter(right) == Counter(values)  # complete
    again = split(feed_of(values, [value % 3 for value in values] if labelled else None), seed=seed, hold_out=share)
    assert (again[0].sha256, again[1].sha256) == (fit.sha256, held.sha256)  # deterministic
    if len(set(values)) > 1:
        assert left and right
    for part, found in ((fit, left), (held, right)):
        assert (part.labels is not None) == labelled
        assert part.labels is None or part.labels.tolist() == [value % 3 for value in found]


@EXAMPLES
@given(st.permutations(range(40)), st.integers(0, 99))
def test_split_does_not_depend_on_the_order_of_the_samples(order: list[int], seed: int) -> None:
    parts = split(feed_of(order, [value % 4 for value in order]), seed=seed, hold_out=0.25)
    reference = split(feed_of(list(range(40)), [value % 4 for value in range(40)]), seed=seed, hold_out=0.25)
    assert [sorted(values_of(part)) for part in parts] == [values_of(part) for part in reference]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.75])
def test_split_holds_out_the_share_of_every_class(share: float) -> None:
    values = list(range(400))
    labels = [0 if value < 240 else 1 if value < 360 else 2 for value in values]
    _, held = split(feed_of(values, labels), seed=3, hold_out=share)
    assert held.labels is not None
    assert np.bincount(held.labels).tolist() == [240 * share, 120 * share, 40 * share]


def test_split_of_classes_of_one_sample_each() -> None:
    _, held = split(feed_of(list(range(100)), list(range(100))), seed=0, hold_out=0.2)
    assert len(held) == 20


def test_another_seed_gives_another_split() -> None:
    feed = feed_of(list(range(100)))
    assert len({split(feed, seed=seed, hold_out=0.2)[1].sha256 for seed in range(5)}) == 5


def test_split_of_a_fixed_batch_keeps_whole_runs() -> None:
    fit, held = split(feed_of(list(range(48)), batch="8"), seed=0, hold_out=0.2)
    assert (len(fit), fit.dropped, len(held), held.dropped) == (40, 0, 8, 0)


def test_split_keeps_the_rows_of_a_labelled_entry_together(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 4, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, label=np.arange(40).reshape(10, 4))
    fit, held = split(open_feed(str(tmp_path / "a.npz"), relu_model("4", "2")), seed=0, hold_out=0.3)
    assert fit.labels is not None and held.labels is not None
    assert (fit.labels.shape, held.labels.shape) == ((7, 4), (3, 4))


def test_one_sample_is_not_held_out() -> None:
    fit, held = split(feed_of([5, 5, 5]), seed=0, hold_out=0.5)
    assert (len(fit), len(held), list(held.chunks())) == (3, 0, [])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_must_be_a_share(share: float) -> None:
    with pytest.raises(DataError, match=r"over 0 and under 1"):
        split(feed_of([1, 2]), seed=0, hold_out=share)


SHAPE = (4096, 3, 16, 16)


def _save(kind: str, folder: Path) -> str:
    array = np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.float32)
    path = str(folder / "big.npz")
    if kind == "fortran":
        array = np.asfortranarray(array)
    (np.savez_compressed if kind == "compressed" else np.savez)(path, x=array)
    return path


@pytest.mark.parametrize("kind", ["stored", "compressed", "fortran"])
def test_memory_stays_flat(kind: str, tmp_path: Path) -> None:
    path = _save(kind, tmp_path)
    model = relu_model("N", "3,16,16")
    size = 4 * int(np.prod(SHAPE))
    tracemalloc.start()
    try:
        feed = open_feed(path, model)
        fit, _ = split(feed, seed=0, hold_out=0.2)
        total = sum(float(chunk.inputs["x"].sum()) for part in (feed, fit) for chunk in part.chunks(64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 0
    assert peak < size // 4, f"{peak} of {size} bytes"


def test_memory_stays_flat_for_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many_samples.py").write_text(
        "import numpy as np\ndef give():\n    for i in range(1024):\n"
        "        yield {'x': np.full((4, 3, 16, 16), i, np.float32)}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        feed = open_feed("many_samples:give", relu_model("N", "3,16,16"))
        last = [chunk.inputs["x"].max() for chunk in feed.chunks(64)][-1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(feed), last) == (4096, 1023)
    assert peak < np.prod(SHAPE)  # a quarter of the bytes


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (5, 1, 4), (6, 3, 2, 4)])
def test_rows_of_a_file_in_fortran_order(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 64)  # a few rows at a time
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    table = rows.read_npy(tmp_path / "a.npy", rows.Spool())
    chosen = np.arange(shape[0])[::-1]
    np.testing.assert_array_equal(table.read(chosen), array[chosen])


@EXAMPLES
@given(st.lists(st.integers(0, 40), max_size=30))
def test_runs_of_neighbours_cover_all_indices(indices: list[int]) -> None:
    found = list(rows.runs(np.array(indices, np.int64)))
    assert [i for start, stop in found for i in range(indices[start], indices[start] + stop - start)] == indices
