"""Every network of the zoo, exported once: exact cuts, the expected groups, parity, redistribution that helps.

The whole matrix of exporters and operator sets is ``benchmarks/architectures.py``.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import NETS, ExportError, Variant, export
from zoo.control import CONTROL
from zoo.parts import DYNAMO, LEGACY, expected
from zoo.proof import Analyzed, analyze, errors, exactness, feeds_of, groups_by_module

from edgepress import runtime
from edgepress.executor import Executor
from edgepress.groups import find_groups
from edgepress.model import Model
from edgepress.surgery.cut import cut
from edgepress.surgery.oracle import check_cut

TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exports are kept: shared by the workers of one run, as every file is written whole or not at all."""
    place = tmp_path_factory.getbasetemp()
    shared = (place.parent if place.name.startswith("popen-") else place) / "zoo"
    shared.mkdir(exist_ok=True)
    return shared


def exported(folder: Path, name: str) -> Path:
    """The quick export of a network."""
    path = folder / f"{name}.{NETS[name].quick}.onnx"
    if not path.exists():
        export(NETS[name], NETS[name].quick, path)
    return path


@cache
def analyzed(path: Path, name: str) -> Analyzed:
    """Normalized, with groups: once for all tests of a network."""
    return analyze(Model.load(path), feeds_of(NETS[name], NETS[name].quick))


def known(name: str) -> Any:
    """A network as a parameter; expected to fail where it is known what is not found yet."""
    gap = NETS[name].gaps[NETS[name].quick.exporter]
    return pytest.param(name, marks=[pytest.mark.xfail(reason=gap)] if gap else [])


@pytest.mark.parametrize("name", [known(name) for name in NETS])
def test_what_must_be_prunable_is_and_nothing_else(name: str, folder: Path) -> None:
    path = exported(folder, name)
    found = groups_by_module(NETS[name], path, analyzed(path, name).grouping)
    wanted = NETS[name].groups[NETS[name].quick.exporter]
    assert found == wanted, f"missing {wanted - found}, not expected {found - wanted}"


@pytest.mark.parametrize("name", NETS)
def test_cuts_equal_silence(name: str, folder: Path) -> None:
    net = NETS[name]
    found = exactness(analyzed(exported(folder, name), name), feeds_of(net, net.quick), net.seed)
    assert found.worst <= TOLERANCE
    assert found.moved > 1e-3 or not found.groups  # or the comparison would say nothing


@pytest.mark.parametrize("name", NETS)
def test_torch_agrees_with_onnxruntime(name: str, folder: Path) -> None:
    net = NETS[name]
    executor = Executor(analyzed(exported(folder, name), name).model)
    for feed in feeds_of(net, net.quick):
        assert executor.parity(feed) is None


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.groups[net.quick.exporter]])
def test_redistribution_beats_removal(name: str, folder: Path) -> None:
    found = errors(NETS[name], analyzed(exported(folder, name), name))
    assert found is not None
    assert found.plain > 1e-9
    assert found.refitted < found.plain


@pytest.mark.parametrize("name", CONTROL)
def test_control_flow_stops_channels_at_its_bodies_alone(name: str) -> None:
    control = CONTROL[name]
    feeds = [control.samples(count, seed) for count, seed in ((1, 0), (3, 1), (2, 2))]
    model, grouping = (found := analyze(control.model(), feeds)).model, found.grouping
    assert {group.name: group.size for group in grouping.prunable} == control.groups
    refused = {producer for group in grouping.groups if group.refusal for producer in group.producers}
    assert set(control.walled) <= refused
    assert Executor(model).parity(feeds[1]) is None
    for names in ([group.name for group in grouping.prunable], *([group.name] for group in grouping.prunable)):
        removed = {group: [0, 3] for group in names}
        assert check_cut(model, grouping, removed, cut(model, grouping, removed), feeds) <= TOLERANCE


def test_free_lengths_stay_free(folder: Path) -> None:
    """A decoder cut for one length runs on others, and on other batches."""
    name = "decoder"
    model, grouping = (found := analyzed(exported(folder, name), name)).model, found.grouping
    small = cut(model, grouping, {group.name: [0] for group in grouping.prunable}).model
    assert [known.shape for known in small.inputs.values()] == [known.shape for known in model.inputs.values()]
    opened = runtime.session(small.data)
    for batch, length in ((1, 1), (2, 5), (4, 31)):
        tokens = np.arange(batch * length).reshape(batch, length) % 30
        assert runtime.run(opened, {"x": tokens})["out"].shape == (batch, length, 30)


def test_groups_do_not_depend_on_the_samples(folder: Path) -> None:
    name = "conformer"
    model = analyzed(exported(folder, name), name).model
    short, long = (find_groups(model, {"time": length}) for length in (4, 19))
    assert [(group.name, group.size) for group in short.groups] == [(group.name, group.size) for group in long.groups]


# --- the zoo itself ----------------------------------------------------------------------------------------


def test_the_zoo_is_large_and_mixed() -> None:
    assert len(NETS) >= 70
    quick = Counter(net.quick.exporter for net in NETS.values())
    assert quick[LEGACY] >= 40
    assert quick[DYNAMO] >= 20
    assert {net.quick.opset for net in NETS.values()} == {13, 15, 17, 18, 20, 21, 23}
    assert sum(net.quick not in net.variants for net in NETS.values()) == 0


def test_expectations_are_read_as_they_are_meant() -> None:
    assert expected("b+a:8 c:3*2") == Counter({"a+b:8": 1, "c:3": 2})


def test_weights_and_samples_are_seeded() -> None:
    net = NETS["cnn"]
    first, second = (dict(net.module().named_parameters()) for _ in range(2))
    assert all(bool((first[name] == second[name]).all()) for name in first)
    assert np.array_equal(net.samples(4)["x"], net.samples(4)["x"])
    assert not np.array_equal(net.samples(4)["x"], net.samples(4, 1)["x"])


def test_an_export_that_torch_cannot_write_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export(NETS["decoder_rms"], Variant(LEGACY, 17), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
