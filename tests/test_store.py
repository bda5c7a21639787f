"""Saved statistics: read back bit for bit, merged in any order, and nothing that is damaged or hostile gets through."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.calibrate import store
from edgepress.calibrate.coding import SHAPES, arrays_of, outline, read_back
from edgepress.calibrate.features import Features
from edgepress.calibrate.run import UNITS, merged_units
from edgepress.calibrate.slopes import Gates, Outer, Slopes
from edgepress.calibrate.statistics import Gram, Moments, SplitGram
from edgepress.calibrate.store import Header, Statistics
from edgepress.errors import DataError, OutputError, PluginError, Refusal


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def gram(seed: int = 0) -> Gram:
    return Gram(draw(4, 4, seed=seed), draw(3, 4, seed=seed), draw(3, seed=seed), 7)


def slopes(seed: int = 0) -> Slopes:
    return Slopes(draw(3, 5, seed=seed), draw(3, 5, seed=seed + 1), 2, 9)


def gates(seed: int = 0) -> Gates:
    parts = {"/odd name.npy": slopes(seed), "": slopes(seed + 1)}
    return Gates(draw(4, seed=seed), draw(4, seed=seed), draw(4, seed=seed), 5, parts)


VALUES: dict[str, Callable[[int], Any]] = {
    "gram": gram,
    "no outputs": lambda seed: Gram(draw(4, 4, seed=seed), np.zeros((0, 4)), np.zeros(0), 3),
    "by columns": lambda seed: Gram(np.asfortranarray(draw(4, 4, seed=seed)), draw(4, 3, seed=seed).T, draw(3), 7),
    "fit": lambda seed: SplitGram(gram(seed), None),
    "held": lambda seed: SplitGram(None, gram(seed)),
    "both": lambda seed: SplitGram(gram(seed), gram(seed + 1)),
    "moments": lambda seed: Moments(draw(4, seed=seed), draw(4, seed=seed) ** 2, 4),
    "outer": lambda seed: Outer(draw(3, 3, seed=seed), 9, 3),
    "slopes": slopes,
    "gates": gates,
    "no gates": lambda seed: Gates(draw(4, seed=seed), draw(4), draw(4), 5, {}),
    "features": lambda seed: Features(draw(6, 4, seed=seed), 100),
    "extremes": lambda _: Moments(np.array([5e-324, -0.0, 1.7e308]), np.array([1 / 3, 0.1, 2.0]), 2**62),
}

HEADER = Header(
    "1.0", "m" * 64, "d" * 64, 100, 3, 7, "fisher,mint=2", False, ("answer",), ("g", "h#2"),
    (Refusal("stem", "a stream", "leave it"),), {"length": 5},
)  # fmt: skip


def equal(found: Any, wanted: Any) -> None:
    """Class, shape, order in memory and every bit."""
    assert type(found) is type(wanted)
    a: dict[str, np.ndarray] = {}
    b: dict[str, np.ndarray] = {}
    assert outline(found, "v", a) == outline(wanted, "v", b)
    for name in b:
        assert (a[name].dtype, a[name].shape, a[name].flags.f_contiguous) == (
            b[name].dtype, b[name].shape, b[name].flags.f_contiguous,
        )  # fmt: skip
        assert a[name].tobytes() == b[name].tobytes()


def statistics(held: range, kind: str = "both") -> Statistics:
    """Units with two statistics each; the second is missing in odd ones, both in every fifth."""
    units: dict[int, dict[str, Any]] = {}
    for unit in held:
        if unit % 5 != 3:
            second = {} if unit % 2 else {"other": VALUES["moments"](unit)}
            units[unit] = {"first": VALUES[kind](unit), **second}
    return Statistics.of(HEADER, held, units)


def saved(path: Path, held: range, **more: Any) -> Path:
    store.save(path, statistics(held, **more))
    return path


# --- there and back -------------------------------------------------------------------------------------------------


def test_every_class_that_can_be_saved_is_here() -> None:
    def classes(value: Any) -> set[type]:
        if isinstance(value, Mapping):
            return {kind for item in value.values() for kind in classes(item)}
        if not dataclasses.is_dataclass(value):
            return set()
        inner = (classes(getattr(value, field.name)) for field in dataclasses.fields(value))
        return {type(value)}.union(*inner)

    assert {kind for made in VALUES.values() for kind in classes(made(0))} == SHAPES.keys()


@pytest.mark.parametrize("kind", VALUES)
def test_a_statistic_comes_back(kind: str) -> None:
    arrays: dict[str, np.ndarray] = {}
    wanted = VALUES[kind](1)
    drawn = json.loads(json.dumps(outline(wanted, "7", arrays)))
    equal(read_back(type(wanted), drawn, arrays.__getitem__), wanted)
    assert len(arrays) == len(arrays_of(wanted))


@pytest.mark.parametrize("kind", VALUES)
def test_a_file_comes_back(kind: str, tmp_path: Path) -> None:
    wanted = statistics(range(4, 9), kind)
    size = store.save(tmp_path / "s.npz", wanted)
    found = store.load(tmp_path / "s.npz")
    assert size == (tmp_path / "s.npz").stat().st_size
    assert (found.header, found.held, found.missing) == (HEADER, wanted.held, wanted.missing)
    assert found.units.keys() == wanted.units.keys()
    for unit in wanted.units:
        assert found.units[unit].keys() == wanted.units[unit].keys()
        for name in wanted.units[unit]:
            equal(found.units[unit][name], wanted.units[unit][name])


def test_what_is_read_merges_to_the_same_bits(tmp_path: Path) -> None:
    for kind in VALUES:
        first, second = VALUES[kind](1), VALUES[kind](2)
        for number, value in enumerate((first, second)):
            store.save(tmp_path / f"{number}.npz", Statistics.of(HEADER, [number], {number: {"v": value}}))
        found = [store.load(tmp_path / f"{number}.npz").units[number]["v"] for number in (0, 1)]
        if kind != "extremes":
            equal(found[0].merge(found[1]), first.merge(second))


def test_the_file_is_an_npz_without_pickle(tmp_path: Path) -> None:
    saved(tmp_path / "s.npz", range(3))
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert json.loads(arrays["outline"].tobytes())["format"] == "edgepress-statistics/1"
        assert all(arrays[name].dtype == np.float64 for name in arrays.files if name != "outline")


def test_npz_is_what_numpy_reads() -> None:
    arrays = {"file": draw(3), "/a/b": draw(2, 2), "a#2": np.asfortranarray(draw(2, 3)), "none": np.zeros((0, 4))}
    with np.load(io.BytesIO(store.npz(arrays))) as found:
        assert set(found.files) == arrays.keys()
        for name, array in arrays.items():
            assert found[name].shape == array.shape and (found[name] == array).all()
    assert store.npz(arrays) == store.npz(dict(arrays))


# --- merging --------------------------------------------------------------------------------------------------------


def shards(folder: Path, count: int) -> list[Path]:
    held = [range(i * UNITS // count, (i + 1) * UNITS // count) for i in range(count)]
    return [saved(folder / f"{count}-{i}.npz", part) for i, part in enumerate(held)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_shards_in_any_order_are_the_whole(count: int, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npz", range(UNITS)).read_bytes()
    files = shards(tmp_path, count)
    random = np.random.default_rng(count)
    orders = [random.permutation(count) for _ in range(4)] if count > 3 else permutations(range(count))
    for order in orders:
        store.save(tmp_path / "merged.npz", store.merge([files[i] for i in order]))
        assert (tmp_path / "merged.npz").read_bytes() == whole


def test_merging_bit_by_bit(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npz", range(UNITS)).read_bytes()
    a, b, c, d, e = shards(tmp_path, 5)
    store.save(tmp_path / "db.npz", store.merge([d, b]))
    store.save(tmp_path / "ae.npz", store.merge([e, a]))
    assert store.parts_text(store.load(tmp_path / "ae.npz").missing) == "4-12"
    store.save(tmp_path / "all.npz", store.merge([tmp_path / "db.npz", c, tmp_path / "ae.npz"]))
    assert (tmp_path / "all.npz").read_bytes() == whole


def test_the_whole_is_merged_in_the_order_of_units(tmp_path: Path) -> None:
    units = {unit: {"v": gram(unit)} for unit in range(UNITS)}
    found = Statistics.of(HEADER, range(UNITS), units)
    assert found.units.keys() == {0} and found.missing == ()
    equal(found.whole["v"], merged_units(units)["v"])
    backwards = gram(UNITS - 1)
    for unit in reversed(range(UNITS - 1)):
        backwards = backwards.merge(gram(unit))
    assert (backwards.inner != found.whole["v"].inner).any()  # so the order matters, and equal bits mean something


def test_nothing_is_merged_over_a_gap() -> None:
    found = statistics(range(4, 9))
    assert found.units.keys() == {4, 5, 6, 7} and found.missing == (0, 1, 2, 3, *range(9, UNITS))
    assert statistics(range(4)).units.keys() == {0}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "x"}, "another model"),
    "data": ({"data": "x"}, "other samples"),
    "seed": ({"seed": 4}, "another seed"),
    "score": ({"score": "fisher"}, "other scores"),
    "labels": ({"labels": True}, "other gradients"),
    "version": ({"version": "2.0"}, "another version"),
    "groups": ({"groups": ("g",)}, "another list of groups"),
    "positions": ({"positions": 8}, "another number of positions"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_files_of_different_calibrations_are_not_merged(what: str, tmp_path: Path) -> None:
    changes, message = OTHERS[what]
    a = saved(tmp_path / "a.npz", range(3))
    other = statistics(range(3, 6))
    store.save(tmp_path / "b.npz", dataclasses.replace(other, header=dataclasses.replace(HEADER, **changes)))
    with pytest.raises(DataError, match=rf"b\.npz is of {message}.* than .*a\.npz"):
        store.merge([a, tmp_path / "b.npz"])


def test_a_part_is_held_once(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.npz", range(3)), saved(tmp_path / "b.npz", range(2, 6))
    with pytest.raises(DataError, match=r"a\.npz and .*b\.npz both hold part 3 of 16"):
        store.merge([a, b])
    with pytest.raises(DataError, match="both hold part 1 of 16"):
        store.merge([a, a])


def test_statistics_that_do_not_fit_are_not_merged(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.npz", range(3))
    odd = Statistics.of(HEADER, [3], {3: {"first": SplitGram(Gram(draw(9, 9), draw(2, 9), draw(2), 1), None)}})
    store.save(tmp_path / "b.npz", odd)
    with pytest.raises(DataError, match=r"b\.npz does not fit"):
        store.merge([a, tmp_path / "b.npz"])


@pytest.mark.parametrize(
    ("units", "text"), [((), ""), ((0,), "1"), ((0, 1, 2), "1-3"), ((0, 2, 3, 15), "1, 3-4, 16"), ((4, 6), "5, 7")]
)
def test_parts_in_words(units: tuple[int, ...], text: str) -> None:
    assert store.parts_text(units) == text


# --- what cannot be saved -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Own:
    total: np.ndarray


def test_a_class_of_somebody_else_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'p' observes a Own, which cannot be saved"):
        store.save(tmp_path / "s.npz", Statistics.of(HEADER, [0], {0: {"p": Own(draw(2))}}))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        store.save(tmp_path / "no" / "s.npz", statistics(range(2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_told(value: float) -> None:
    held = gram()
    held.cross[1, 2] = value
    store.finite({"fine": gram(), "own": Own(draw(1)), "other": object()})
    with pytest.raises(DataError, match="NaN or infinite values at 'bad'"):
        store.finite({"fine": gram(), "bad": SplitGram(None, held)})


# --- damaged and hostile files ------------------------------------------------------------------------------------


def content(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return json.loads(found.pop("outline").tobytes()), found


def written(path: Path, raw: Any, arrays: Mapping[str, np.ndarray]) -> Path:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    path.write_bytes(store.npz({"outline": np.frombuffer(text.encode(), np.uint8), **arrays}))
    return path


def first(raw: dict[str, Any]) -> dict[str, Any]:
    """The outline of the first statistic."""
    entry: dict[str, Any] = raw["statistics"]["first"]["4"]
    return entry


def put(*places: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    """Set the last of the places, which lead into the outline, to a value."""
    *way, last, value = places

    def change(raw: dict[str, Any], _: dict[str, np.ndarray]) -> None:
        inner: Any = raw
        for place in way:
            inner = inner[place]
        inner[last] = value

    return change


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    """Change the array ``inner`` of the first statistic."""

    def changed(raw: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        name = first(raw)["value"]["fit"]["inner"]
        arrays[name] = change(arrays[name])

    return changed


FIRST = ("statistics", "first", "4")
FIT = (*FIRST, "value", "fit")
HOSTILE: dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], None]] = {
    "another format": put("format", "edgepress-statistics/2"),
    "no header": lambda raw, _: raw.pop("header"),
    "no statistics": lambda raw, _: raw.pop("statistics"),
    "statistics that are a list": put("statistics", []),
    "units that are a list": put("statistics", "first", []),
    "a statistic that is a number": put(*FIRST, 3),
    "a class that is none of ours": put(*FIRST, "kind", "Popen"),
    "a class that is a list": put(*FIRST, "kind", ["Gram"]),
    "another class": put(*FIRST, "kind", "Outer"),
    "a value that is a list": put(*FIRST, "value", []),
    "a field too many": put(*FIT, "more", 1),
    "a field too few": lambda raw, _: first(raw)["value"]["fit"].pop("rows"),
    "a count below zero": put(*FIT, "rows", -1),
    "a count that is a fraction": put(*FIT, "rows", 1.5),
    "a count that is a text": put(*FIT, "rows", "7"),
    "a count that is a truth": put(*FIT, "rows", True),
    "a count that is huge": put(*FIT, "rows", 10**400),
    "an array that is not there": put(*FIT, "inner", "nowhere"),
    "an array that is a number": put(*FIT, "inner", 5),
    "an array that is nothing": put(*FIT, "inner", None),
    "the outline as an array": put(*FIT, "inner", "outline"),
    "an array that is read twice": lambda raw, _: first(raw)["value"]["fit"].update(
        inner=raw["statistics"]["first"]["5"]["value"]["fit"]["inner"]
    ),
    "an array that is not square": array(lambda old: old[:-1]),
    "an array of other lengths": array(lambda old: draw(9, 9)),
    "an array of one axis more": array(lambda old: old[None]),
    "an array that is a single number": array(lambda old: old[0, 0]),
    "an array of another type": array(lambda old: old.astype(np.float32)),
    "an array of other bytes": array(lambda old: old.astype(">f8")),
    "an array of texts": array(lambda old: old.astype("U8")),
    "an array of pairs": array(lambda old: old.view([("a", "f8")])),
    "NaN": array(lambda old: np.where(old > 0, np.nan, old)),
    "infinity": array(lambda old: np.where(old > 0, np.inf, old)),
    "a unit that is no number": lambda raw, _: raw["statistics"]["first"].update(x=first(raw)),
    "a unit that is not held": lambda raw, _: raw["statistics"]["first"].update({"12": first(raw)}),
    "a unit out of range": put("held", [4, 5, 99]),
    "units twice": put("held", [4, 4, 5]),
    "units in disorder": put("held", [5, 4, 6, 7, 8]),
    "held that is a number": put("held", 4),
    "a seed that is a text": put("header", "seed", "3"),
    "no seed": lambda raw, _: raw["header"].pop("seed"),
    "groups that are a text": put("header", "groups", "g"),
    "a group that is a number": put("header", "groups", [1]),
    "a refusal that is a text": put("header", "refusals", ["no"]),
    "sizes that are a list": put("header", "sizes", []),
    "samples cut in another way": put("header", "cutting", [8, 32, 8]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_refused(what: str, tmp_path: Path) -> None:
    raw, arrays = content(saved(tmp_path / "s.npz", range(4, 9)))
    assert store.load(written(tmp_path / "s.npz", raw, arrays)).held == (4, 5, 6, 7, 8)
    HOSTILE[what](raw, arrays)
    with pytest.raises(DataError) as told:
        store.load(written(tmp_path / "s.npz", raw, arrays))
    assert str(told.value).endswith(": make it again with edgepress calibrate.") and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"format": "\\ud800"}'], ids=lambda text: text[:9]
)
def test_an_outline_that_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is damaged or of another version"):
        store.load(written(tmp_path / "s.npz", text, {}))


def test_a_merged_file_holds_no_unit_that_was_merged(tmp_path: Path) -> None:
    raw, arrays = content(saved(tmp_path / "s.npz", range(UNITS)))
    raw["statistics"]["first"]["7"] = raw["statistics"]["first"].pop("0")
    with pytest.raises(DataError, match="it holds part 8"):
        store.load(written(tmp_path / "s.npz", raw, arrays))


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    raw, arrays = content(saved(tmp_path / "s.npz", range(4, 9)))
    name = first(raw)["value"]["fit"]["inner"]
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], object), allow_pickle=True)
    written(tmp_path / "s.npz", raw, {key: value for key, value in arrays.items() if key != name})
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive:
        archive.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(DataError, match="holds object"):
        store.load(tmp_path / "s.npz")


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    raw, arrays = content(saved(tmp_path / "s.npz", range(4, 9)))
    name = first(raw)["value"]["fit"]["inner"]
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    written(tmp_path / "s.npz", raw, {key: value for key, value in arrays.items() if key != name})
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive:
        archive.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(DataError, match="is damaged"):
        store.load(tmp_path / "s.npz")


def test_a_compressed_file_is_not_unpacked(tmp_path: Path) -> None:
    raw, arrays = content(saved(tmp_path / "s.npz", range(4, 9)))
    text = np.frombuffer(json.dumps(raw).encode(), np.uint8)
    np.savez_compressed(tmp_path / "s.npz", outline=text, **arrays)  # type: ignore[arg-type]  # the stub takes no mapping
    with pytest.raises(DataError, match="not as edgepress stores them"):
        store.load(tmp_path / "s.npz")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("statistics")
    np.savez(tmp_path / "samples.npz", x=draw(3))
    np.save(tmp_path / "x.npy", draw(3))
    for name, message in (
        ("missing", "There is no file"),
        (".", "There is no file"),
        ("text", "is not an .npz file"),
        ("x.npy", "is not an .npz file"),
        ("samples.npz", "does not hold statistics"),
    ):
        with pytest.raises(DataError, match=message):
            store.load(tmp_path / name)


def test_a_truncated_file(tmp_path: Path) -> None:
    data = saved(tmp_path / "s.npz", range(4, 9)).read_bytes()
    for length in {0, 1, *np.random.default_rng(0).integers(0, len(data), 40).tolist(), len(data) - 1}:
        (tmp_path / "cut.npz").write_bytes(data[:length])
        with pytest.raises(DataError):
            store.load(tmp_path / "cut.npz")


def test_damaged_bytes_are_found_or_do_not_matter(tmp_path: Path) -> None:
    """Any byte may be changed: what is read is then refused, or what was written."""
    wanted = statistics(range(4, 9))
    data = saved(tmp_path / "s.npz", range(4, 9)).read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for place in random.integers(0, len(data), 400).tolist():
        changed = bytearray(data)
        changed[place] ^= int(random.integers(1, 256))
        (tmp_path / "s.npz").write_bytes(changed)
        try:
            found = store.load(tmp_path / "s.npz")
        except DataError:
            refused += 1
            continue
        assert (found.header, found.held) == (wanted.header, wanted.held)
        for unit, values in wanted.units.items():
            for name, value in values.items():
                equal(found.units[unit][name], value)
    assert refused > 300
