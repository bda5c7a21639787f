"""What is wrong with samples is said before any work starts, in one sentence that names the way out."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_cases import STATE, TWO, model_of, relu_model
from onnx import TensorProto, numpy_helper

from edgepress.calibrate import open_feed
from edgepress.errors import DataError
from edgepress.model import Model

ONES = np.ones((4, 2), np.float32)
NAN = np.where(np.arange(8).reshape(4, 2) == 5, np.nan, 1).astype(np.float32)
LABEL = np.zeros(4, np.int64)

BATCHED = relu_model("N", "2")
FIXED4 = relu_model("4", "2")
INTEGER = relu_model("N", "2", "uint8")
TWO_INPUTS = model_of(TWO)
STATEFUL = model_of(STATE)
IDS = np.zeros((4, 2), np.int64)

ARRAYS: dict[str, tuple[Model, dict[str, Any], str]] = {
    "wrong name, near match": (BATCHED, {"x_": ONES}, r"expected x; found x_.*rename 'x_', perhaps to 'x'"),
    "wrong name": (BATCHED, {"images": ONES}, r"expected x; found images.*perhaps to 'x'"),
    "missing input": (TWO_INPUTS, {"x": np.ones((4, 3), np.float32)}, r"the input 'ids' is missing .*found x\)"),
    "extra array": (BATCHED, {"x": ONES, "target": LABEL}, r"'target' is no input.*call it 'label'"),
    "labels twice": (BATCHED, {"x": ONES, "label": LABEL, "labels": LABEL}, r"both 'label' and 'labels'"),
    "wrong rank": (BATCHED, {"x": np.ones(4, np.float32)}, r"shape \[4\], but the model takes \[N, 2\]"),
    "rank two more": (BATCHED, {"x": np.ones((4, 1, 1, 2), np.float32)}, r"shape \[4, 1, 1, 2\].*\[samples, N, 2\]"),
    "wrong shape": (BATCHED, {"x": np.ones((4, 3), np.float32)}, r"shape \[4, 3\], but the model takes \[N, 2\]"),
    "wrong shape of entries": (FIXED4, {"x": np.ones((5, 3, 2), np.float32)}, r"\[5, 3, 2\], but .* \[4, 2\]"),
    "single number": (BATCHED, {"x": np.float32(1)}, r"'x' is a single number"),
    "counts": (TWO_INPUTS, {"x": np.ones((3, 3), np.float32), "ids": IDS}, r"different numbers .*x 3, ids 4"),
    "kinds": (TWO_INPUTS, {"x": np.ones((4, 3), np.float32), "ids": IDS[:, None]}, r"'x' holds single samples"),
    "state rows": (
        STATEFUL,
        {"x": np.ones((3, 3), np.float32), "state": np.ones((3, 1, 4), np.float32)},
        "multiple of 2",
    ),
    "empty": (BATCHED, {"x": ONES[:0]}, r"'x' is empty \(shape \[0, 2\]\)"),
    "fewer than a batch": (FIXED4, {"x": ONES[:3]}, r"3 samples, but one run of the model takes 4"),
    "labels too few": (BATCHED, {"x": ONES, "label": LABEL[:3]}, r"labels have shape \[3\], but there are 4 samples"),
    "labels one-hot": (BATCHED, {"x": ONES, "label": np.zeros((4, 2), int)}, r"labels have shape \[4, 2\]"),
    "labels float": (BATCHED, {"x": ONES, "label": LABEL.astype(float)}, "labels are float64, not integers"),
    "label single": (BATCHED, {"x": ONES, "label": np.int64(3)}, "'label' is a single number"),
    "nan": (BATCHED, {"x": NAN}, r"'x' holds NaN or infinite values, first in sample 2"),
    "overflow": (BATCHED, {"x": np.array([[1, 1], [1e300, 1]])}, r"infinite values, first in sample 1"),
    "uint8 pictures": (BATCHED, {"x": ONES.astype(np.uint8)}, r"uint8, but the model takes float32: scale .* training"),
    "bool": (BATCHED, {"x": ONES > 0}, r"bool, but the model takes float32: scale"),
    "float for integers": (INTEGER, {"x": ONES}, r"float32, but the model takes uint8: save whole numbers"),
    "too large": (INTEGER, {"x": np.array([[0, 256]])}, r"outside 0..255, which uint8"),
    "negative": (INTEGER, {"x": np.array([[0, -1]])}, r"outside 0..255, which uint8"),
    "text": (BATCHED, {"x": np.array([["a", "b"]])}, r"<U1, not numbers"),
    "complex": (BATCHED, {"x": ONES.astype(complex)}, r"complex128, not numbers"),
    "nothing": (BATCHED, {}, r"is empty: save one array per input"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str, save: Callable[..., None], tmp_path: Path) -> None:
    model, arrays, message = ARRAYS[name]
    save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        open_feed(str(tmp_path / "a.npz"), model)
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickles_are_never_loaded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    objects = np.array([{"a": 1}, None], object)
    np.save(path, objects, allow_pickle=True) if kind == "npy" else np.savez(path, x=objects)
    with pytest.raises(DataError, match="pickle"):
        open_feed(str(path), BATCHED)


def npy(folder: Path, name: str = "a.npy", array: np.ndarray = ONES) -> Path:
    np.save(folder / name, array)
    return folder / name


def npz(folder: Path, name: str = "a.npz", **arrays: np.ndarray) -> Path:
    np.savez(folder / name, **(arrays or {"x": ONES}))  # type: ignore[arg-type]
    return folder / name


def text(folder: Path, name: str, content: str = "hello") -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def pb(folder: Path, *arrays: np.ndarray) -> Path:
    for position, array in enumerate(arrays):
        data = numpy_helper.from_array(array).SerializeToString()
        (folder / f"input_{position}.pb").write_bytes(data)
    return folder


def pb_bytes(folder: Path, data: bytes) -> Path:
    (folder / "input_0.pb").write_bytes(data)
    return folder


def external(folder: Path) -> Path:
    tensor = TensorProto(data_type=1, dims=[1, 2], data_location=TensorProto.EXTERNAL)
    return pb_bytes(folder, tensor.SerializeToString())


def encrypted(folder: Path) -> Path:
    data = bytearray(npz(folder).read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    (folder / "a.npz").write_bytes(data)
    return folder / "a.npz"


def damaged(folder: Path) -> Path:
    data = bytearray(npz(folder).read_bytes())
    data[data.index(ONES.tobytes())] ^= 1
    (folder / "a.npz").write_bytes(data)
    return folder / "a.npz"


def negative(folder: Path) -> Path:
    data = npy(folder).read_bytes().replace(b"(4, 2)", b"(-4,2)")
    (folder / "a.npy").write_bytes(data)
    return folder / "a.npy"


def member_cut(folder: Path) -> Path:
    data = npy(folder, "cut.npy").read_bytes()
    (folder / "cut.npy").unlink()
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("x.npy", data[:-4])
    return folder / "a.npz"


def several(*steps: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        for step in steps:
            step(folder)
        return folder

    return build


PATHS: dict[str, tuple[Model, Callable[[Path], Path], str]] = {
    "no such path": (BATCHED, lambda f: f / "no.npz", "There is no file or folder"),
    "unsupported": (
        BATCHED,
        lambda f: text(f, "a.csv"),
        "a.csv is of a kind that cannot be read: give an .npz or .npy",
    ),
    "single pb": (BATCHED, lambda f: pb(f, ONES) / "input_0.pb", "of a kind that cannot be read"),
    "empty folder": (BATCHED, lambda f: f, "holds no samples: give"),
    "folder of other files": (BATCHED, lambda f: text(f, "a.csv").parent, "holds no samples"),
    "mixed folder": (BATCHED, several(npy, npz), "holds .npz files and .npy files"),
    "not an npz": (BATCHED, lambda f: text(f, "a.npz"), "not an .npz file, or it is truncated"),
    "encrypted npz": (BATCHED, encrypted, "encrypted"),
    "damaged npz": (BATCHED, damaged, "truncated or damaged"),
    "cut npz member": (BATCHED, member_cut, "x.npy.* is truncated"),
    "not an npy": (BATCHED, lambda f: text(f, "a.npy"), "not a .npy array or is truncated"),
    "negative size": (BATCHED, negative, "negative size"),
    "npy for two inputs": (TWO_INPUTS, npy, "holds one array, but the model has the inputs x, ids"),
    "npy folder for two inputs": (TWO_INPUTS, lambda f: npy(f).parent, "expected x, ids; found a"),
    "npy folder, extra file": (
        BATCHED,
        several(lambda f: npy(f, "x.npy"), lambda f: npy(f, "mask.npy")),
        "'mask' is no",
    ),
    "npy folder, labels only": (BATCHED, lambda f: npy(f, "label.npy").parent, "'x' is missing"),
    "npy folder, labels twice": (
        BATCHED,
        several(npy, lambda f: npy(f, "label.npy", LABEL), lambda f: npy(f, "labels.npy", LABEL)),
        "both label",
    ),
    "npy parts differ": (
        BATCHED,
        several(npy, lambda f: npy(f, "b.npy", ONES.astype(np.float64))),
        r"b.npy: 'x' is float64 \[4, 2\], but .*a.npy holds float32 \[4, 2\]",
    ),
    "npz parts differ": (
        relu_model("N", "W"),
        several(npz, lambda f: npz(f, "b.npz", x=np.ones((4, 3), np.float32))),
        r"b.npz: 'x' is float32 \[4, 3\]",
    ),
    "some npz labelled": (BATCHED, several(npz, lambda f: npz(f, "b.npz", x=ONES, label=LABEL)), "a.npz has no labels"),
    "test set, shape": (BATCHED, lambda f: pb(f, np.ones((2, 3), np.float32)), r"\[2, 3\], but .* takes \[N, 2\]"),
    "test set, too many": (BATCHED, lambda f: pb(f, ONES, ONES), r"has 2 inputs, but the model has 1 \(x\)"),
    "test set, too few": (TWO_INPUTS, lambda f: pb(f, np.ones((2, 3), np.float32)), "'ids' is missing"),
    "test set, not a tensor": (BATCHED, lambda f: pb_bytes(f, b"hello"), "not an ONNX tensor or is truncated"),
    "test set, empty file": (BATCHED, lambda f: pb_bytes(f, b""), "not an ONNX tensor or is truncated"),
    "test set, external data": (BATCHED, external, "keeps its values in another file"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths(name: str, tmp_path: Path) -> None:
    model, build, message = PATHS[name]
    with pytest.raises(DataError, match=message) as caught:
        open_feed(str(build(tmp_path)), model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed"])
def test_a_file_cut_anywhere_is_an_error(kind: str, tmp_path: Path) -> None:
    path = npy(tmp_path) if kind == "npy" else npz(tmp_path)
    if kind == "npz-compressed":
        np.savez_compressed(path, x=ONES)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match="truncated"):
            open_feed(str(path), BATCHED)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = npy(tmp_path)
    feed = open_feed(str(path), BATCHED)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="changed or went away"):
        list(feed.chunks())


GIVE_RUNS = "def give():\n    yield dict(x=np.ones((1, 2), np.float32))\n"
READERS: dict[str, tuple[str, str, str]] = {
    "no such function": ("", "give", "has no 'give'"),
    "not callable": ("give = 3", "give", "is of type int, not a function"),
    "needs arguments": ("def give(path): pass", "give", "needs arguments"),
    "gives nothing": ("def give(): pass", "give", "gives type NoneType: return an iterable"),
    "gives a dictionary": ("def give(): return {'x': np.ones((1, 2))}", "give", "gives type dict: return an iterable"),
    "gives arrays": ("def give(): yield np.ones((1, 2))", "give", "item 0 is of type ndarray: give dictionaries"),
    "gives lists": ("def give(): yield {'x': [[1.0, 2.0]]}", "give", "'x' is of type list: give numpy arrays"),
    "gives objects": ("def give(): yield {'x': np.array([[None, 1]])}", "give", "holds object, not numbers"),
    "gives no sample": ("def give(): yield from ()", "give", "gives no samples"),
    "gives samples without batch axis": (
        "def give(): yield {'x': np.ones(2)}",
        "give",
        r"\[2\], but one run .*\[N, 2\]",
    ),
    "gives uint8": ("def give(): yield {'x': np.ones((1, 2), np.uint8)}", "give", "scale the values"),
    "gives an empty batch": ("def give(): yield {'x': np.ones((0, 2))}", "give", "'x' is empty"),
    "gives wrong names": ("def give(): yield {'y': np.ones((1, 2))}", "give", "item 0: wrong input names"),
    "gives NaN": (
        "def give(): yield {'x': np.full((1, 2), np.nan)}",
        "give",
        "NaN or infinite values, first in sample 0",
    ),
    "labels some": (
        "def give():\n    yield {'x': np.ones((1, 2)), 'label': 3}\n    yield {'x': np.ones((1, 2))}",
        "give",
        "item 1: labels come with some samples only",
    ),
    "labels too many": ("def give(): yield {'x': np.ones((1, 2)), 'label': [1, 2]}", "give", "2 labels for 1 samples"),
    "labels float": ("def give(): yield {'x': np.ones((1, 2)), 'label': 0.5}", "give", "not integers"),
}


@pytest.mark.parametrize("name", READERS)
def test_readers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, function, message = READERS[name]
    module = f"wrong_{list(READERS).index(name)}"
    text(tmp_path, f"{module}.py", f"import numpy as np\n{code}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        open_feed(f"{module}:{function}", BATCHED)
    assert "\n" not in str(caught.value)


def test_a_reader_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'no_such_module' .*cannot be imported .*: run edgepress in the folder"):
        open_feed("no_such_module:give", BATCHED)


def test_errors_of_the_users_code_pass_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text(tmp_path, "breaks.py", "def give():\n    yield {}['no']\n")
    with pytest.raises(KeyError, match="no"):
        open_feed("breaks:give", BATCHED)


def test_inputs_of_different_counts_in_one_item(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"different numbers of samples \(x 2, ids 3\)"):
        open_feed(str(pb(tmp_path, np.ones((2, 3), np.float32), np.ones((3, 2), np.int64))), TWO_INPUTS)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("agraph (string[N] x) => (string[N] y) { y = Identity(x) }", "'x' is of type object"),
        ("agraph (seq(float[N]) x) => (seq(float[N]) y) { y = Identity(x) }", "'x' is of type sequence_type"),
        ("agraph () => (float[1] y) { y = Constant <value_floats = [1.0]> () }", "has no inputs"),
    ],
)
def test_models_that_cannot_be_fed(graph: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_feed(str(npy(tmp_path)), model_of(graph))
