"""Channel groups: what is found on small models and real ones, and the laws of labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from group_models import TOYS, Toy
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.groups import Grouping, find_groups
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.ops.couple import RULES
from edgepress.ops.labels import Atoms, core, fill, spread, thin, varying
from edgepress.ops.rows import ROWS


@pytest.mark.parametrize("name", TOYS)
def test_expected_groups(name: str) -> None:
    toy = TOYS[name]
    grouping = find_groups(toy.build())
    assert tuple(group.size for group in grouping.prunable) == toy.sizes
    reasons = [group.refusal.reason for group in grouping.groups if group.refusal is not None]
    shared = [reason for reason in reasons if "residual stream" in reason]
    others = [reason for reason in reasons if "residual stream" not in reason]
    assert len(shared) == toy.shared
    assert len(others) == len(toy.stopped)
    assert all(piece in reason for piece, reason in zip(toy.stopped, others, strict=True)), others


@pytest.mark.parametrize("name", TOYS)
def test_groups_partition_channels(name: str) -> None:
    model = TOYS[name].build()
    owned: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for group in find_groups(model).groups:
        assert group.size > 0
        assert group.producers
        for site in group.sites:
            assert site.index.shape[0] == group.size
            assert len(np.unique(site.index)) == site.index.size, "two channels share a position"
            assert site.index.max() < model.constants[site.tensor].shape[site.axis]
            held = owned.setdefault((site.tensor, site.axis), {})
            assert np.array_equal(held.setdefault(group.name, site.index), site.index), "uses of a constant disagree"
    for (tensor, axis), parts in owned.items():
        together = np.concatenate([index.ravel() for index in parts.values()])
        assert len(np.unique(together)) == len(together), f"{tensor} axis {axis}: two groups share a position"


@pytest.mark.parametrize("name", TOYS)
def test_producing_axes_are_covered(name: str) -> None:
    model = TOYS[name].build()
    covered: dict[tuple[str, int], set[int]] = {}
    for group in find_groups(model).groups:
        for site in group.sites:
            if site.role == "out":
                covered.setdefault((site.tensor, site.axis), set()).update(site.index.ravel().tolist())
    assert covered
    for (tensor, axis), positions in covered.items():
        assert positions == set(range(model.constants[tensor].shape[axis]))


@pytest.mark.parametrize("name", TOYS)
def test_same_model_same_groups(name: str) -> None:
    first, second = (find_groups(TOYS[name].build()) for _ in range(2))
    assert repr(first.groups) == repr(second.groups)
    names = [group.name for group in first.groups]
    assert len(set(names)) == len(names)


def test_roles_of_a_depthwise_block() -> None:
    grouping = find_groups(TOYS["depthwise_multiplier"].build())
    group = grouping.group("n_a")
    roles = {(site.tensor, site.axis): (site.role, site.index.shape) for site in group.sites}
    assert roles == {
        ("w1", 0): ("out", (5, 1)),
        ("w2", 0): ("along", (5, 2)),
        ("b2", 0): ("along", (5, 2)),
        ("w3", 1): ("in", (5, 2)),
    }
    assert (group.producers, group.consumers) == (("n_a",), ("n_y",))


def test_flatten_gives_each_channel_its_columns() -> None:
    group = find_groups(TOYS["flatten_chain"].build()).group("n_a")
    columns = next(site.index for site in group.sites if site.tensor == "w2")
    assert np.array_equal(columns, np.arange(54).reshape(6, 9))


def test_walls_are_listed_once_with_what_they_stop() -> None:
    refusals = find_groups(TOYS["attention"].build()).refusals
    assert [refusal.what for refusal in refusals] == ["n_s"]
    assert refusals[0].reason.endswith("stops 2 groups (10 channels)")


def test_operators_newer_or_older_than_their_row_are_walls() -> None:
    grouping = find_groups(TOYS["mlp"].build(opset=12))  # every row holds there
    assert [group.size for group in grouping.prunable] == [8, 7]
    text = "g (float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv(x,w1) b = Sum(a,a) y = Conv(b,w2) }"
    old = Toy(text, {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)}, ()).build(opset=6)
    assert "unknown operator Sum" in str(find_groups(old).groups[0].refusal)


def test_foreign_operators_are_walls_and_leave_the_rest() -> None:
    proto = TOYS["unknown_operator"].proto()
    proto.graph.node[1].domain = "other.domain"
    proto.opset_import.append(onnx.helper.make_opsetid("other.domain", 1))
    grouping = find_groups(Model.of(proto))
    assert "unknown operator other.domain.GlobalLpPool" in str(grouping.group("n_a").refusal)
    assert not grouping.prunable, "behind it no shape is known"


SPATIAL = "g (float[N,3,H,8] x) => (float[N,4,H,8] y) { a = Conv(x,w1) y = Conv(a,w2) }"


def test_unknown_sizes_are_assumed_and_said() -> None:
    model = Toy(SPATIAL, {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)}, ()).build()
    grouping = find_groups(model)
    assert [group.size for group in grouping.prunable] == [6]
    assert grouping.assumed.keys() == {"H"}
    told = find_groups(model, {"H": 6})
    assert [group.size for group in told.prunable] == [6]
    assert (told.sizes["H"], dict(told.assumed)) == (6, {})


def test_every_rule_of_the_table_exists_and_is_used() -> None:
    assert {row.couple for row in ROWS} - {None} == set(RULES)


# --- labels -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=60), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_ties_are_the_finest_equivalence(pairs: list[tuple[int, int]], rounds: int) -> None:
    atoms = Atoms()
    atoms.fresh(30)
    naive = {label: {label} for label in range(1, 31)}
    for place in range(rounds):  # solved in between, too
        for left, right in pairs[place::rounds]:
            atoms.tie(np.array([left]), np.array([right]))
            merged = naive[left] | naive[right]
            naive |= dict.fromkeys(merged, merged)
        found = atoms.find(np.arange(1, 31))
        assert found.tolist() == [min(naive[label]) for label in range(1, 31)]


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=15), st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_pins_reach_everything_tied(pairs: list[tuple[int, int]], pinned: int) -> None:
    atoms = Atoms()
    every = atoms.fresh(12)
    why = atoms.source("here", "because", wall=True)
    atoms.pin(np.array([pinned]), why)
    for left, right in pairs:
        atoms.tie(np.array([left]), np.array([right]))
    found = atoms.find(every)
    dead = found == atoms.find(np.array([pinned]))
    assert np.array_equal(atoms.live(every) == 0, dead)
    assert atoms.sources[atoms.pinned()[found[dead][0]]].reason == "because"


def test_the_first_reason_stays() -> None:
    atoms = Atoms()
    label = atoms.fresh(1)
    for reason in ("first", "second"):
        atoms.pin(label, atoms.source("node", reason, wall=True))
    assert atoms.sources[atoms.pinned()[label[0]]].reason == "first"


@given(st.integers(0, 3), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_thin_is_the_same_array(axis: int, seed: int) -> None:
    shape = tuple(np.random.default_rng(seed).integers(1, 5, 4).tolist())
    dense = np.array(spread(np.arange(shape[axis]), shape, axis))
    assert np.array_equal(thin(dense), dense)
    assert varying(thin(dense)) == ([axis] if shape[axis] > 1 else [])
    assert core(thin(dense)).size == shape[axis]
    assert core(fill(3, shape)).size == 1


# --- size -------------------------------------------------------------------------------------------------


def deep_model() -> Model:
    """60 nodes of 256 channels at 56 x 56: Conv, Relu and a Concat, Split pair in turn."""
    lines, last = [], "x"
    constants: dict[str, Sequence[int]] = {"half": [128, 128]}
    for n in range(15):
        constants[f"w{n}"] = (256, 256, 1, 1)
        lines.append(f"c{n} = Conv({last},w{n}) r{n} = Relu(c{n}) a{n}, b{n} = Split<axis=1>(r{n},half)")
        lines.append(f"j{n} = Concat<axis=1>(b{n},a{n})")
        last = f"j{n}"
    text = f"g (float[N,256,56,56] x) => (float[N,256,56,56] y) {{ {' '.join(lines)} y = Conv({last},w0) }}"
    return Toy(text, constants, ()).build()


def test_large_maps_are_quick_and_small() -> None:
    model = deep_model()
    begin = time.perf_counter()
    grouping = find_groups(model)
    assert time.perf_counter() - begin < 5
    held = sum(core(numbers).nbytes for numbers in grouping.channels.values())
    assert held < 1_000_000, "channel numbers must be broadcast views"
    assert all(_memory(numbers) < 100_000 for numbers in grouping.channels.values())


def _memory(array: np.ndarray) -> int:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.flags.owndata else 0


# --- real models ------------------------------------------------------------------------------------------

INNER = (16,) * 3 + (32,) * 3 + (64,) * 3
REAL = {
    "cifar10_resnet20_bn": INNER,
    "cifar10_resnet20_folded": INNER,
    "cifar10_resnet20_dynamo": INNER,
    "cifar10_resnet8_mlperf": (16, 32, 64),
    "fashion_vgg7bn_bn": (16, 16, 32, 32, 64, 64),
    "imagenet_mobilenetv1_025_bn": (8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256),
    "kws_dscnn": (64,) * 5,
    "mnist_lenet300100": (300, 100),
    "mnist_lenet5caffe": (20, 50, 500),
    "mnist8_opset8": (8, 16),
}


def normalized(folder: Path, name: str) -> tuple[Model, Grouping]:
    """A real model, normalized, and its groups."""
    model = normalize(Model.load(folder / "models" / f"{name}.onnx"), []).model
    return model, find_groups(model)


@pytest.mark.parametrize("name", REAL)
def test_groups_of_real_models(shared: Path, name: str) -> None:
    _, grouping = normalized(shared, name)
    assert tuple(group.size for group in grouping.prunable) == REAL[name]


def test_groups_of_a_detector(shared: Path) -> None:
    _, grouping = normalized(shared, "ultraface_rfb320_opset9")
    assert len(grouping.prunable) >= 20
    assert {8, 12, 16, 64, 128, 256} <= {group.size for group in grouping.prunable}
    assert any("residual" in str(group.refusal) for group in grouping.groups)
