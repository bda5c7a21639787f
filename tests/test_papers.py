"""What ``benchmarks/papers.py`` decides by itself: how CIFAR-10 is read, and which setting is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper_sections.cifar import TEST, TRAIN, pictures
from benchmarks.paper_sections.ladder import chosen, low
from edgepress.errors import DataError


def records(labels: list[int]) -> np.ndarray:
    """Records whose red plane holds the label, the green one 100 and the blue one 200."""
    found = np.empty((len(labels), 3073), np.uint8)
    found[:, 0] = labels
    found[:, 1:1025] = found[:, :1]
    found[:, 1025:2049], found[:, 2049:] = 100, 200
    return found


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    for number, name in enumerate(TRAIN):
        records([number, number + 1]).tofile(tmp_path / name)
    records([9]).tofile(tmp_path / TEST[0])
    return tmp_path


def test_all_batches_are_read_in_order(cifar: Path) -> None:
    x, y = pictures(cifar, "train")
    assert y.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5] and y.dtype == np.int64
    assert x.shape == (10, 3, 32, 32) and x.dtype == np.uint8
    assert (x[:, 0] == y[:, None, None]).all() and (x[:, 1] == 100).all() and (x[:, 2] == 200).all()


def test_test_images_are_others(cifar: Path) -> None:
    x, y = pictures(cifar, "test")
    assert y.tolist() == [9] and x.shape == (1, 3, 32, 32)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"")
    with pytest.raises(DataError, match="binary version"):
        pictures(tmp_path, "train")


@pytest.mark.parametrize(("damage", "said"), [("missing", "has no"), ("short", "get it anew"), ("labels", "above 9")])
def test_what_is_no_cifar_is_refused(cifar: Path, damage: str, said: str) -> None:
    place = cifar / TRAIN[2]
    if damage == "missing":
        place.unlink()
    elif damage == "short":
        place.write_bytes(place.read_bytes()[:-1])
    else:
        records([77]).tofile(place)
    with pytest.raises(DataError, match=said):
        pictures(cifar, "train")


def tried(*rows: tuple[int | None, float]) -> list[dict[str, object]]:
    return [{"coded_bytes": size, "hold_out_accuracy": accuracy, "held_out": 2500} for size, accuracy in rows]


def test_the_interval_is_that_of_a_share() -> None:
    assert low(tried((1, 80.0))[0]) == pytest.approx(80 - 1.96 * 0.8)  # sqrt(0.8 * 0.2 / 2500) = 0.8 points


def test_the_smallest_file_within_is_taken() -> None:
    rows = tried((4000, 98.6), (3000, 98.4), (2000, 98.2), (None, 99.0))
    assert [round(low(row), 1) for row in rows] == [98.1, 97.9, 97.7, 98.6]
    assert chosen(rows, 97.85) is rows[1]


def test_the_most_accurate_is_taken_where_none_is_within() -> None:
    rows = tried((4000, 97.9), (3000, 98.0))
    assert chosen(rows, 97.8) is rows[1]
