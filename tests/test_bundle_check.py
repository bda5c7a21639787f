"""The check that goes into every bundle: what it calls a difference, and what it calls damage."""

from __future__ import annotations

import ast
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import bundle_models as models
import numpy as np
import pytest

from edgepress.bundle import bundle, check

NAN, INF = math.nan, math.inf


def row(
    rule: str, got: Any, wanted: Any, *, relative: float = 0.0, absolute: float = 0.0, dtype: str = "float32"
) -> Any:
    """What is found of one output of one sample."""
    promise = {"output": "y", "rule": rule, "relative": relative, "absolute": absolute}
    mine, theirs = (np.array(values, dtype) for values in (got, wanted))
    (found,) = check.compare([promise], {"0/0": mine}, {"0/0": theirs}, 1)
    return found


@pytest.mark.parametrize(
    ("got", "wanted", "differ", "largest"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, 0.0),
        ([NAN], [NAN], 0, 0.0),
        ([0.0], [-0.0], 1, 0.0),
        ([1.0, 2.0], [1.0, np.nextafter(np.float32(2), np.float32(3))], 1, 2.0**-22),
        ([INF], [1.0], 1, INF),
        ([NAN], [1.0], 1, INF),
        (7.0, 8.0, 1, 1.0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0, 0.0),
    ],
)
def test_exact_is_bit_by_bit(got: Any, wanted: Any, differ: int, largest: float) -> None:
    found = row("exact", got, wanted)
    assert (found["differ"], found["largest"], found["agrees"]) == (differ, largest, not differ)
    assert found["allowed"] == 0.0


def test_equal_looks_at_values() -> None:
    assert row("equal", [0.0], [-0.0])["agrees"] and row("equal", [3], [3], dtype="int64")["agrees"]
    large = row("equal", [2**62 + 1], [2**62], dtype="int64")  # the same as floats
    assert (large["differ"], large["agrees"]) == (1, False)
    assert not row("equal", [True], [False], dtype="bool")["agrees"]


@pytest.mark.parametrize(
    ("got", "wanted", "agrees"),
    [
        ([0.0, 10.0], [0.0, 10.0], True),
        ([0.0, 10.09], [0.0, 10.0], True),  # 1 % of a span of 10
        ([0.0, 10.11], [0.0, 10.0], False),
        ([-10.19, 10.0], [-10.0, 10.0], True),  # of 20
        ([100.9, 100.0], [100.0, 100.0], True),  # zero counts
        ([INF], [INF], True),
        ([-INF], [INF], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [NAN, 1.0], False),
        ([1e-30], [0.0], False),
    ],
)
def test_close_is_a_share_of_the_span(got: Any, wanted: Any, agrees: bool) -> None:
    assert row("close", got, wanted, relative=0.01)["agrees"] == agrees


def test_small_integers_have_steps() -> None:
    assert row("close", [3, 250], [4, 251], absolute=1.0, dtype="uint8")["agrees"]
    found = row("close", [3, 255], [4, 0], absolute=1.0, dtype="uint8")  # no wrapping round
    assert (found["largest"], found["agrees"]) == (255.0, False)


def test_the_span_is_that_of_all_samples_and_the_first_wrong_one_is_named() -> None:
    promise = {"output": "y", "rule": "close", "relative": 0.1, "absolute": 0.0}
    wanted = {f"{number}/0": np.array([value], np.float32) for number, value in enumerate([10.0, 1.0, 2.0])}
    got = {**wanted, "1/0": np.array([1.9], np.float32), "2/0": np.array([4.0], np.float32)}
    (found,) = check.compare([promise], got, wanted, 3)
    assert (found["sample"], found["differ"], found["values"], found["allowed"]) == (2, 2, 3, 1.0)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (None, "it is missing"),
        (np.zeros(3, np.float32), "it is float32 [3] in place of float32 [2]"),
        (np.zeros(2, np.float64), "it is float64 [2] in place of float32 [2]"),
    ],
)
@pytest.mark.parametrize("rule", ["exact", "equal", "close"])
def test_another_kind_of_answer_never_agrees(rule: str, mine: Any, words: str) -> None:
    promise = {"output": "y", "rule": rule, "relative": 0.9, "absolute": 1e9}
    got = {} if mine is None else {"0/0": mine}
    (found,) = check.compare([promise], got, {"0/0": np.zeros(2, np.float32)}, 1)
    assert (found["agrees"], found["problem"], found["sample"], found["differ"]) == (False, words, 0, 2)
    assert words in check.sentence(found)


@pytest.mark.parametrize(
    ("version", "least", "older"),
    [("1.18.0", "1.18", False), ("1.9.0", "1.18", True), ("2.0", "1.18", False), ("1.17.3+dev", "1.18", True),
     ("1.31.1", "1.18", False), ("", "1.18", True), ("unknown", "1.14", True)],
)  # fmt: skip
def test_versions_are_numbers(version: str, least: str, older: bool) -> None:
    assert check.older(version, least) == older


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\\b", "a b", "é", "-rf", "a\n"])
def test_names_that_are_no_file_names(name: str) -> None:
    assert not check.plain(name)
    assert "no file of a bundle" in str(check.damage("nowhere", {name: {"bytes": 1, "sha256": ""}}))


def test_it_is_python_38_and_needs_numpy_alone() -> None:
    tree = ast.parse(Path(check.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.partition(".")[0] for name in modules if name} - sys.stdlib_module_names == {"numpy"}


def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Exit code, stdout and stderr of the check in a bundle."""
    monkeypatch.setattr(check, "__file__", str(folder / "check.py"))
    code = check.main(words)
    return (code, *capsys.readouterr())


def test_it_runs_where_the_bundle_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(models.saved(models.two(), tmp_path / "two.onnx"), tmp_path / "b")
    code, out, _ = run(tmp_path / "b", capsys, monkeypatch)
    assert code == 0 and out.count("agrees ") == 3 and "onnxruntime" in out
    # expected outputs that are another's, hashes and all
    with np.load(tmp_path / "b/expected.npz") as archive:
        arrays = dict(archive)
    arrays["1/1"] = arrays["1/1"] + 1
    np.savez(tmp_path / "b/expected.npz", **arrays)
    resealed(tmp_path / "b")
    code, out, _ = run(tmp_path / "b", capsys, monkeypatch)
    assert code == check.DIFFERS and "DIFFERS fourth: 2 of 3 values differ, by 1 at most (none may)" in out


def resealed(folder: Path) -> None:
    """Hashes and sizes of the files as they are now."""
    manifest = json.loads((folder / check.MANIFEST).read_text(encoding="utf-8"))
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": check.sha256(str(folder / name)), "bytes": (folder / name).stat().st_size}
    (folder / check.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    (folder / check.SUMS).write_text(check.sums(str(folder), hashes), encoding="utf-8")


def test_what_it_cannot_do_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(models.saved(models.linear(), tmp_path / "x.onnx"), tmp_path / "b")
    code, _, errors = run(tmp_path / "b", capsys, monkeypatch, "--model", "model.ort")
    assert code == check.BROKEN and "has no file 'model.ort'" in errors
    shutil.copy(tmp_path / "b/check.py", tmp_path / "b/model.onnx")
    code, _, errors = run(tmp_path / "b", capsys, monkeypatch)
    assert code == check.BROKEN and "model.onnx has" in errors and errors.count("\n") == 1
