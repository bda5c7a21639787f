"""edgepress calibrate and merge: shards of any number, in any order, are one run and give the scores that data give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pipeline_models
import pytest
from pipeline_models import CONVNET, MLP, UNKNOWN_OPERATOR, Small
from score_tools import calibrate, done, files, refused, run, save, shards

from edgepress.calibrate import store
from edgepress.calibrate.run import UNITS
from edgepress.pipeline.calibrating import units_of
from edgepress.report.result import load
from edgepress.report.scores import SAVED_FORMAT, Saved
from edgepress.scores.registry import BUILT_IN

SAMPLES = 130
EVERY = ",".join(BUILT_IN)
FEW = "redundancy,fisher,kfac@labels,mint"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a convolutional classifier and labelled samples."""
    monkeypatch.chdir(tmp_path)
    save(CONVNET, SAMPLES, classes=5)
    return tmp_path


def scored(score: str, *source: str) -> dict[str, bytes]:
    """The two files that score writes."""
    done("score", "net.onnx", *source, "--score", score, "-o", "s.json", "-q")
    return {name: Path(name).read_bytes() for name in ("s.json", "s.npz")}


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Statistics of everything observed at once."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save(CONVNET, SAMPLES, classes=5)
        calibrate(FEW, "all.npz")
        return {"all.npz": Path("all.npz").read_bytes()}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_merged_shards_are_one_run_byte_for_byte(count: int, here: Path, whole: dict[str, bytes]) -> None:
    names = shards(FEW, count, "--workers", str(1 + count % 3))
    order = np.random.default_rng(count).permutation(count)
    assert done("merge", *(names[i] for i in order), "-o", "merged.npz").splitlines()[-1] == "parts\t16 of 16"
    assert Path("merged.npz").read_bytes() == whole["all.npz"]


def test_every_score_from_merged_shards_is_that_from_data(here: Path) -> None:
    names = shards(EVERY, 3)
    done("merge", *reversed(names), "-o", "merged.npz")
    for score in (*BUILT_IN, "fisher=1,wanda=0.5"):
        assert scored(score, "--statistics", "merged.npz") == scored(score, "--data", "x.npz"), score


def test_gradients_of_labels_and_of_outputs(here: Path) -> None:
    done("merge", *shards("taylor@outputs,kfac", 2, "--labels"), "-o", "merged.npz")
    for score, more in (("taylor@outputs", []), ("kfac", ["--labels"]), ("kfac@labels", [])):
        assert scored(score, "--statistics", "merged.npz", *more) == scored(score, "--data", "x.npz", *more)
    labelled = json.loads(scored("kfac", "--data", "x.npz", "--labels")["s.json"])["groups"]
    assert labelled != json.loads(scored("kfac", "--data", "x.npz")["s.json"])["groups"]


@pytest.mark.parametrize("name", ["MLP", "FIXED", "FIXED_FOUR", "TIME_FIRST", "TWO_INPUTS", "MAP", "TINY"])
def test_models_of_every_kind(name: str, here: Path) -> None:
    small: Small = getattr(pipeline_models, name)
    save(small, 40)
    done("merge", *shards("redundancy,fisher,mint", 3), "-o", "merged.npz")
    calibrate("redundancy,fisher,mint", "all.npz")
    assert Path("merged.npz").read_bytes() == Path("all.npz").read_bytes()
    for score in ("redundancy", "fisher", "mint"):
        assert scored(score, "--statistics", "merged.npz") == scored(score, "--data", "x.npz")


def test_fewer_chunks_than_shards(here: Path) -> None:
    """Most shards have nothing to do, and that is fine."""
    save(MLP, 9)
    names = shards("redundancy,fisher", 16)
    assert sum(not store.load(Path(name)).units for name in names) > 8
    done("merge", *names, "-o", "merged.npz")
    calibrate("redundancy,fisher", "all.npz")
    assert Path("merged.npz").read_bytes() == Path("all.npz").read_bytes()


def test_partly_merged_files_are_merged_further(here: Path, whole: dict[str, bytes]) -> None:
    a, b, c = shards(FEW, 3)
    assert done("merge", a, c, "-o", "ac.npz").splitlines()[-1] == "missing\t6,7,8,9,10"
    assert refused("score", "net.onnx", "--statistics", "ac.npz").startswith("ac.npz lacks part 6-10 of 16 of the ")
    done("merge", b, "ac.npz", "-o", "all.npz")
    assert Path("all.npz").read_bytes() == whole["all.npz"]


def test_the_units_of_shards_are_all_of_them_once() -> None:
    for count in range(1, UNITS + 1):
        found = [unit for number in range(1, count + 1) for unit in units_of(f"{number}/{count}")]
        assert found == list(range(UNITS))
        sizes = {len(units_of(f"{number}/{count}")) for number in range(1, count + 1)}
        assert max(sizes) - min(sizes) <= 1


def test_seed_and_samples_matter(here: Path) -> None:
    calibrate("mint", "a.npz")
    calibrate("mint", "b.npz", "--seed", "1")
    a, b = store.load(Path("a.npz")), store.load(Path("b.npz"))
    assert (a.header.seed, b.header.seed) == (0, 1) and a.header.data == b.header.data
    assert scored("mint", "--statistics", "b.npz") == scored("mint", "--data", "x.npz", "--seed", "1")
    assert scored("mint", "--statistics", "b.npz") != scored("mint", "--data", "x.npz")


# --- what is printed --------------------------------------------------------------------------------------------------


def test_what_calibrate_prints(here: Path) -> None:
    lines = dict(line.split("\t") for line in calibrate("wanda", "w.npz", "--shard", "2/4").splitlines())
    size = str(Path("w.npz").stat().st_size)
    assert lines.pop("missing") == "1,2,3,4,9,10,11,12,13,14,15,16"
    assert lines == {"written": "w.npz", "bytes": size, "score": "wanda", "samples": "130", "groups": "2",
                     "parts": "4 of 16"}  # fmt: skip
    told = json.loads(done("merge", "w.npz", "-o", "again.npz", "--json"))
    assert load(Saved, SAVED_FORMAT, json.dumps(told)).held == (4, 5, 6, 7)
    assert json.loads(calibrate("wanda", "w.npz", "--json"))["missing"] == []


def test_progress_goes_to_stderr(here: Path) -> None:
    found = run("calibrate", "net.onnx", "--data", "x.npz", "-o", "a.npz", "--shard", "1/2")
    assert [line.split("\t")[0] for line in found.stderr.splitlines()] == ["read", "groups", "observe"]
    assert "part 1-8 of 16" in found.stderr


# --- what cannot be used ----------------------------------------------------------------------------------------------


CALIBRATE = ("calibrate", "net.onnx", "--data", "x.npz", "-o", "out.npz")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/17", "1", "a/b", "1/0", "-1/3", "1/3/2", "", "1/1000000000000"])
def test_a_shard_that_is_none(shard: str, here: Path) -> None:
    assert refused(*CALIBRATE, "--shard", shard).startswith(f"--shard is {shard}: give i/n")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--score", "fishr"], "There is no score 'fishr': did you mean fisher?"),
        (["--score", "fisher@label"], "give one of answer, labels, outputs"),
        (["--score", "fisher,"], "There is no score ''"),
        (["--recipe", "r.json"], "leave --recipe out"),
        (["--seed", "-1"], "--seed is -1"),
        (["--workers", "0"], "--workers is 0"),
        (["-o", "x.npz"], "is the same file as the input x.npz"),
        (["-o", "net.onnx"], "is the same file as the input net.onnx"),
        (["-o", "no/out.npz"], "The folder no does not exist"),
    ],
)
def test_bad_options(more: list[str], message: str, here: Path) -> None:
    assert message in refused(*CALIBRATE, *more)


@pytest.mark.parametrize("more", [["--labels"], ["--score", "fisher@labels"], ["--score", "wanda,taylor@labels=2"]])
def test_labels_that_are_not_there(more: list[str], here: Path) -> None:
    CONVNET.save_samples(Path("x.npz"), 20)
    assert refused(*CALIBRATE, *more).endswith("but the samples have none: leave the labels out.")


def test_no_samples(here: Path) -> None:
    assert "give them by --data" in refused("calibrate", "net.onnx", "-o", "out.npz")
    assert "There is no file or folder 'y.npz'" in refused("calibrate", "net.onnx", "--data", "y.npz", "-o", "out.npz")


def test_gradients_that_torch_cannot_take(here: Path) -> None:
    save(UNKNOWN_OPERATOR, 20, classes=5)
    told = refused(*CALIBRATE, "--score", "fisher", code=1)
    assert told.startswith("--score fisher needs gradients, but Det ")
    assert told.endswith(": choose a score without gradients.")
    done(*CALIBRATE, "--score", "mint")


def test_merging_what_does_not_belong_together(here: Path) -> None:
    a, b = shards("wanda", 2)
    calibrate("wanda", "seed.npz", "--shard", "2/2", "--seed", "1")
    calibrate("fisher", "score.npz", "--shard", "2/2")
    before = files()
    assert "seed.npz is of another seed than 2-1.npz" in refused("merge", a, "seed.npz", "-o", "m.npz")
    assert "score.npz is of other scores than 2-1.npz" in refused("merge", a, "score.npz", "-o", "m.npz")
    assert "both hold part 1 of 16" in refused("merge", a, b, a, "-o", "m.npz")
    assert "is the same file as the input 2-2.npz" in refused("merge", a, b, "-o", "./2-2.npz")
    assert "x.npz does not hold statistics" in refused("merge", a, "x.npz", "-o", "m.npz")
    assert "There is no file 3.npz" in refused("merge", a, "3.npz", "-o", "m.npz")
    CONVNET.save(Path("net.onnx"), seed=1)
    calibrate("wanda", "model.npz", "--shard", "2/2")
    assert "model.npz is of another model than 2-1.npz" in refused("merge", a, "model.npz", "-o", "m.npz")
    CONVNET.save(Path("net.onnx"))
    CONVNET.save_samples(Path("x.npz"), SAMPLES, seed=2)
    calibrate("wanda", "data.npz", "--shard", "2/2")
    assert "data.npz is of other samples than 2-1.npz" in refused("merge", a, "data.npz", "-o", "m.npz")
    assert {name: files()[name] for name in (a, b)} == {name: before[name] for name in (a, b)}
