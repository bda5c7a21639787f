"""Releases of onnxruntime: versions are read, the table is what the wheels answered, the tool that asks them works."""

from __future__ import annotations

import re
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.errors import InputError
from edgepress.quantize.graph.qdq import IR_VERSION, OPSETS
from edgepress.targets.releases import RELEASES, REQUIRED, Release, release

few = settings(deadline=None, max_examples=100, derandomize=True)
ROOT = Path(__file__).parents[1]


def script(name: str) -> Any:
    """A script of tools/, which is no package."""
    spec = util.spec_from_file_location(f"tools.{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tool = script("releases")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.14", (1, 14)),
        ("1.24", (1, 24)),
        ("1.24.1", (1, 24)),
        ("1.23.2.post1", (1, 23)),
        ("1.25.0.dev20260417008", (1, 25)),
        ("1.16.3+cpu", (1, 16)),
        ("1.99", (1, 32)),
        ("2.0", (1, 32)),
        ("", REQUIRED.version),
    ],
)
def test_a_version_names_its_release(text: str, version: tuple[int, int]) -> None:
    assert release(text).version == version


@pytest.mark.parametrize(
    "text", ["1", "1.", ".24", "v1.24", "1.24 ", " 1.24", "1,24", "latest", "-1.24", "1.24.", "1.٢٤"]
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{text!r} is no version of onnxruntime: write it like 1.18.")):
        release(text)


@pytest.mark.parametrize("text", ["1.13.1", "1.0", "0.5"])
def test_too_old(text: str) -> None:
    with pytest.raises(InputError, match=rf"^onnxruntime {text} is too old .*: name 1\.14 or newer\.$"):
        release(text)


@few
@given(st.integers(1, 3), st.integers(14, 40), st.integers(0, 9))
def test_a_newer_version_loads_no_less(major: int, minor: int, patch: int) -> None:
    here, later = release(f"{major}.{minor}.{patch}"), release(f"{major}.{minor + 1}")
    assert release(str(here)) == here
    assert later.version >= here.version and later.loads(here.opset, here.ir)
    assert all(getattr(later, each) >= getattr(here, each) for each in ("holds4", "casts4", "casts2", "blocked4"))


def test_releases_follow_each_other() -> None:
    assert [known.version for known in RELEASES] == [(1, minor) for minor in range(14, 14 + len(RELEASES))]
    assert str(RELEASES[0]) == "1.14"


def test_what_a_cast_needs_is_loaded() -> None:
    for known in RELEASES:
        assert not known.casts4 or known.loads(21, 10)
        assert not known.casts2 or known.loads(25, 12)
        assert known.blocked4 or not known.casts4
        assert known.holds4 or not known.casts4


def test_the_required_release_loads_what_is_written() -> None:
    older = RELEASES[RELEASES.index(REQUIRED) - 1]
    assert REQUIRED.loads(OPSETS[0], IR_VERSION) and not older.loads(OPSETS[0], IR_VERSION)
    assert not REQUIRED.loads(22, 10) and not REQUIRED.loads(21, 11)
    assert not REQUIRED.casts4 and REQUIRED.blocked4


# --- what the wheels answered -----------------------------------------------------------------------------------------


def recorded() -> list[dict[str, str]]:
    """The first table of docs/releases.md."""
    text = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    lines = text[text.index("| onnxruntime |") :].split("\n\n")[0].splitlines()
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_every_release_but_the_oldest_was_tried() -> None:
    assert [release(row["onnxruntime"]) for row in recorded()] == list(RELEASES[1:])


@pytest.mark.parametrize("row", recorded(), ids=lambda row: row["onnxruntime"])
def test_the_table_is_what_was_tried(row: dict[str, str]) -> None:
    check(release(row["onnxruntime"]), row)


def check(known: Release, row: dict[str, str]) -> None:
    """Compare a release with the row of one of its wheels."""
    works = {name: answer == "fast" for name, answer in row.items()}
    assert (str(known.opset), str(known.ir)) == (row["set"], row["IR"])
    assert works["int4 Cast"] == works["uint4 codebook"] == known.casts4
    assert works["int2 Cast"] == works["uint2 codebook"] == known.casts2
    assert works["4-bit blocks"] == known.blocked4
    assert (row["int4 bare"] == "slow") == known.holds4 and row["int2 bare"] == "-"
    assert row["uint16"] == ("slow" if known.loads(21, 10) else "-")
    assert works["int8, set 21"] == known.loads(21, 10)
    always = ("int8", "uint8 codebook", "packed int64", "packed uint8", "int8 for float", "dynamic int8")
    assert all(works[name] for name in always)


def test_the_release_of_this_environment_answers_so_now(capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(["--errors", sys.executable])
    names, _, answers, *errors = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (names, answers)]
    row = dict(zip(*cells, strict=True))
    assert row["onnxruntime"] == ort.__version__
    assert [line.split(":")[0] for line in errors] == [f"{ort.__version__} int2 bare"]
    check(release(ort.__version__), row)


def test_given_files_are_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = tool.REFERENCES["int8"]
    good, newer = tmp_path / "good.onnx", tmp_path / "newer.onnx"
    good.write_bytes(tool.network(form).SerializeToString())
    newer.write_bytes(tool.network(tool.Form("newer", 99, 8, form.body, form.arrays, {}, "")).SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.ones((3, 16, 9, 9), np.float32))
    script("release_files").main(["--file", str(good), "--file", str(newer), "--data", str(tmp_path / "x.npz")])
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][:5] == ["good", ort.__version__, "3", "0", "0.0e+00"]
    assert rows[1][:5] == ["newer", ort.__version__, "-", "-", "-"] and "99" in rows[1][5]


# --- the tool can fail ------------------------------------------------------------------------------------------------


def test_a_decompressor_that_is_not_folded_is_slow(tmp_path: Path) -> None:
    form = tool.REFERENCES["int8"]
    body = form.body.replace("v2 = DequantizeLinear<axis=0>(w, ws)", "t = Cast<to=1>(x) v2 = Cast<to=1>(w)")
    other = tool.Form("other", 13, 8, body, form.arrays, form.kernels, "int8")
    assert answer(other, tmp_path) == "slow!"  # a layer in float, and other outputs


def test_other_values_are_seen(tmp_path: Path) -> None:
    form = tool.REFERENCES["int8"]
    changed = {**form.arrays, "w": form.arrays["w"][::-1].copy()}
    assert answer(tool.Form("other", 13, 8, form.body, changed, form.kernels, "int8"), tmp_path) == "fast!"
    assert answer(tool.Form("same", 13, 8, form.body, form.arrays, form.kernels, "int8"), tmp_path) == "fast"


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    form = tool.REFERENCES["int8"]
    newer = tool.Form("newer", 99, 8, form.body, form.arrays, form.kernels, "int8")
    assert "99" in tool.attempted(sys.executable, {"newer": tool.network(newer)}, tmp_path)["problems"]["newer"]


def answer(form: Any, folder: Path) -> str:
    """The cell of one form in this environment."""
    problems = tool.attempted(sys.executable, {form.name: tool.network(form)}, folder)["problems"]
    return str(tool.verdict(form, problems[form.name], folder))
