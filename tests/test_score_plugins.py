"""The score of the documentation, exactly as it stands there, installed as a package and used by the commands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numeric_tools import run as answers
from pipeline_models import MLP
from score_tools import done, refused, save, shards

from edgepress.model import Model
from edgepress.report.scores import Scores

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
SAMPLES = 60


def block(language: str) -> str:
    """The only block of a language on the page."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def install(site: Path, code: str, entry_points: str) -> None:
    """A package as pip leaves it: a module, and what its pyproject says about entry points."""
    info = site / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (site / "acme_scores.py").write_text(code)


def entry_points() -> str:
    """The lines of the pyproject as an installer writes them."""
    name, value = re.findall(r'^(\w+) = "(.*)"$', block("toml"), re.MULTILINE)[0]
    assert block("toml").startswith('[project.entry-points."edgepress.scores"]\n')
    return f"[edgepress.scores]\n{name} = {value}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a model and samples, and the package of the documentation in a folder beside them."""
    monkeypatch.chdir(tmp_path)
    save(MLP, SAMPLES)
    install(tmp_path / "site", block("py"), entry_points())
    yield tmp_path
    sys.modules.pop("acme_scores", None)


@pytest.fixture
def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the package on the path of this process."""
    monkeypatch.syspath_prepend(str(here / "site"))
    return here


SCORE = ("score", "net.onnx", "--data", "x.npz", "--score", "active")


def test_it_has_fifteen_lines() -> None:
    """Of code: no imports, no docstring, no empty lines."""
    tree = ast.parse(block("py"))
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    lines = [line for node in body for line in (ast.get_source_segment(block("py"), node) or "").splitlines()]
    assert 0 < len([line for line in lines if line.strip()]) <= 15


def test_it_scores(here: Path) -> None:
    """In a process of its own, as a user has it."""
    found_out = subprocess.run(
        [sys.executable, "-m", "edgepress", *SCORE, "-o", "s.json", "-q"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(here / "site")])},
    )  # fmt: skip
    assert (found_out.returncode, found_out.stderr) == (0, "")
    found = Scores.from_json(Path("s.json").read_text())
    inner = answers(Model.load("net.onnx"), MLP.arrays(SAMPLES), ["r", "s"])  # every sample is a row of its own
    for row, values in zip(found.groups, inner, strict=True):
        assert np.allclose(row.scores, (values != 0).mean(0))
        assert list(row.order) == np.argsort(row.scores, kind="stable").tolist()


def test_shards_of_it_are_the_whole(installed: Path) -> None:
    done("merge", *reversed(shards("active,fisher", 2)), "-o", "all.npz")
    done("score", "net.onnx", "--statistics", "all.npz", "--score", "active=1,fisher=1", "-o", "a.json")
    done("score", "net.onnx", "--data", "x.npz", "--score", "active=1,fisher=1", "-o", "b.json")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_without_the_package_it_is_unknown(here: Path) -> None:
    assert refused(*SCORE).startswith("There is no score 'active': ")


@pytest.mark.parametrize(
    ("code", "message"),
    [("raise RuntimeError('half there')", "half there"), ("Active = 3", "acme_scores:Active cannot be used")],
)
def test_a_broken_package_is_named(code: str, message: str, installed: Path) -> None:
    Path("site/acme_scores.py").write_text(code)
    assert message in refused(*SCORE)


OWN = """
from dataclasses import dataclass
import numpy as np
from edgepress.calibrate.statistics import Probe

@dataclass
class Count:
    rows: int
    def merge(self, other):
        return Count(self.rows + other.rows)

class Active:
    name = "active"
    def __init__(self, options):
        pass
    def needs(self, model, group):
        return (Probe("rows", ("x",), lambda values, chunk: Count(len(values["x"]))),)
    def score(self, model, group, statistics):
        return np.arange(group.size) * float(statistics["rows"].rows)
"""


def test_a_statistic_of_its_own_works_from_data_only(installed: Path) -> None:
    Path("site/acme_scores.py").write_text(OWN)
    done(*SCORE, "-o", "s.json")
    assert Scores.from_json(Path("s.json").read_text()).groups[0].scores[1] == SAMPLES
    told = refused("calibrate", "net.onnx", "--data", "x.npz", "--score", "active", "-o", "saved.npz")
    assert told.startswith("The probe 'rows' observes a Count, which cannot be saved")
