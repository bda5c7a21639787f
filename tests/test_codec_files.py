"""encode and decode on the command line, and the forms that weights are decoded to, against onnxruntime."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from coded_models import MODELS, coded, of, whole
from quantize_tools import answers, kernel, parse, samples, sqnr, to_int8
from rich.console import Console
from score_tools import done, refused

from edgepress import storage
from edgepress.codec import decode, encode, grid_steps
from edgepress.codec.files import decode_file, encode_file
from edgepress.errors import ModelError, OutputError
from edgepress.model import Model
from edgepress.quantize.storage.reformed import FORMS, reformed
from edgepress.report import coding

CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
BODY = f"""a = {CONV}(x, w, b)  r = Relu(a)  c = {CONV}(r, v)  p = GlobalAveragePool(c)
           f = Flatten(p)  y = Gemm<transB=1>(f, m)"""


def network(seed: int, spread: float) -> Model:
    """A float network with weights as ``compress`` leaves them: whole numbers times steps on a grid."""
    random = np.random.default_rng(seed)

    def stepped(*shape: int) -> np.ndarray:
        rows = grid_steps(0.04, random.integers(-9, 9, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        numbers = whole(seed + shape[0], shape, spread).clip(-7, 7)
        return np.asarray(numbers * rows, np.float32)

    weights = {"w": stepped(24, 16, 3, 3), "v": stepped(32, 24, 3, 3), "m": stepped(40, 32)}
    return parse(BODY, outputs="float[N,K] y", arrays=weights, b=kernel(24))


def constants(model: Model) -> dict[str, int]:
    """Elements of all constants by their type."""
    found: dict[str, int] = {}
    for values in model.constants.values():
        found[values.dtype.name] = found.get(values.dtype.name, 0) + values.size
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.onnx").write_bytes(MODELS["steps"]())
    return tmp_path


# --- the commands ----------------------------------------------------------------------------------------------------


def test_there_and_back(here: Path) -> None:
    told = done("encode", "small.onnx", "-o", "small.epz")
    assert "Lossless: 12" in told
    assert dict(line.split("\t") for line in told.splitlines())["bytes"] == str(Path("small.epz").stat().st_size)
    assert "same" in done("decode", "small.epz", "-o", "again.onnx")
    assert Path("again.onnx").read_bytes() == Path("small.onnx").read_bytes()


def test_the_page_as_json(here: Path) -> None:
    page = coding.CodedFile.from_json(done("encode", "small.onnx", "-o", "small.epz", "--json"))
    assert page.bytes == Path("small.epz").stat().st_size
    assert sum(part.bytes for part in page.parts) == pytest.approx(page.bytes, abs=1)
    assert sum(part.original for part in page.parts) == page.original == Path("small.onnx").stat().st_size
    assert [part.kind for part in page.parts] == ["graph", "steps"]
    decoded = json.loads(done("decode", "small.epz", "-o", "again.onnx", "--json"))
    assert decoded["bytes"] == page.original


def test_pages_on_a_terminal(here: Path) -> None:
    screen = Console(file=io.StringIO(), width=80)
    coding.render_coded(coding.CodedFile.from_json(done("encode", "small.onnx", "-o", "s.epz", "--json")), screen)
    coding.render_decoded(coding.DecodedFile("s.epz", "s.onnx", 4000, 40000, "same"), screen)
    coding.render_decoded(coding.DecodedFile("s.epz", "s.onnx", 4000, 40000, "int8"), screen)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "multiples of steps" in shown and "every byte is that of the file" in shown and "stored as int8" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_what_training_left_is_not_promised_to_be_small(here: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    Path("float.onnx").write_bytes(of(w=weights))
    assert "floats as training left them, of which only the exponents compress" in done(
        "encode", "float.onnx", "-o", "float.epz"
    )


def test_every_way_of_coding_has_its_words() -> None:
    for name in ("steps", "integers", "floats"):
        assert {each.method for each in coded(name).tensors} <= coding.WORDS.keys()


def test_weights_kept_in_other_files_are_taken_in(here: Path) -> None:
    weights = whole(1, (64, 64)).astype(np.float32)
    model = onnx.load_from_string(of(w=weights))
    storage.save(model, Path("apart.onnx"))
    made = encode_file(Path("apart.onnx"), Path("apart.epz"))
    assert made.original > weights.nbytes
    back = Model.of(onnx.load_from_string(decode(Path("apart.epz").read_bytes())))
    assert np.array_equal(back.constants["w"], weights)


def test_what_cannot_be_encoded_or_decoded_is_said(here: Path) -> None:
    Path("text.txt").write_text("no model", encoding="utf-8")
    assert "not an ONNX file" in refused("encode", "text.txt", "-o", "a.epz")
    assert "no coded file" in refused("decode", "text.txt", "-o", "a.onnx")
    assert "not a file" in refused("decode", "nowhere.epz", "-o", "a.onnx")
    assert "small.onnx" in refused("encode", "small.onnx", "-o", "small.onnx")
    Path("cut.epz").write_bytes(coded("steps").data[:-9])
    assert "is damaged (it ends too early): copy it again" in refused("decode", "cut.epz", "-o", "a.onnx")
    newer = bytearray(encode(of()))
    newer[3] = 9
    Path("newer.epz").write_bytes(newer)
    assert "has version 9" in refused("decode", "newer.epz", "-o", "a.onnx")
    assert not Path("a.onnx").exists() and not Path("a.epz").exists()


def test_a_place_that_cannot_be_written_to_is_named(here: Path) -> None:
    with pytest.raises(OutputError):
        encode_file(Path("small.onnx"), here / "none" / "small.epz")
    Path("small.epz").write_bytes(coded("steps").data)
    with pytest.raises(OutputError):
        decode_file(Path("small.epz"), here / "none" / "small.onnx")


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["int8", "int4", "packed"])
def test_stored_floats_compute_the_very_same(form: str) -> None:
    model, feed = network(1, 0.8), samples(16, 14, 14)
    other = reformed(model, form)
    for before, after in zip(answers(model, feed), answers(other, feed), strict=True):
        assert np.array_equal(before, after)
    assert len(other.data) < {"int8": 0.32, "int4": 0.2, "packed": 0.25}[form] * len(model.data)
    assert constants(other).get("float32", 0) < 300


@pytest.mark.parametrize("form", ["int8", "int4", "packed"])
def test_int8_networks_compute_the_very_same(form: str) -> None:
    feed = samples(16, 14, 14)
    model = to_int8(network(2, 0.8), feed)
    other = reformed(model, form)
    for before, after in zip(answers(model, feed), answers(other, feed), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored", ["int8", "int4", "packed"])
def test_forms_are_made_of_each_other(form: str, stored: str) -> None:
    """From any form to any other: the same constants as straight from the original."""
    model = network(3, 0.8)
    first = reformed(model, stored)
    again, straight = reformed(first, form), model if form == "float" else reformed(model, form)
    feed = samples(16, 14, 14, count=4)
    for before, after in zip(answers(model, feed), answers(again, feed), strict=True):
        assert np.array_equal(before, after)
    assert constants(again) == constants(straight)


def test_weights_multiplied_out_are_near_what_int8_computed() -> None:
    feed = samples(16, 14, 14)
    model = to_int8(network(4, 0.8), feed)
    other = reformed(model, "float")
    assert "int8" not in constants(other)
    (before,), (after,) = answers(model, feed), answers(other, feed)
    assert sqnr(before, after) > 35


def test_weights_too_wide_for_int4_stay_int8() -> None:
    model = network(5, 0.8)
    wide = model.constants["v"].copy()
    wide[0, 0, 0, 0] = wide[0].max() * 15
    made = reformed(model.with_constants({"v": wide}), "int4")
    assert constants(made)["int8"] == wide.size


def test_what_has_no_other_form_is_said(here: Path) -> None:
    plain = parse(f"y = {CONV}(x, w)", w=kernel(32, 16, 3, 3))
    with pytest.raises(ModelError, match="made of whole numbers"):
        reformed(plain, "int8")
    older = onnx.load_from_string(network(6, 0.8).data)
    older.opset_import[0].version = 17
    with pytest.raises(ModelError, match="int4 needs operator set 21"):
        reformed(Model.of(older), "int4")
    Path("plain.onnx").write_bytes(plain.data)
    done("encode", "plain.onnx", "-o", "plain.epz")
    assert "quantize or compress it first" in refused("decode", "plain.epz", "-o", "a.onnx", "--form", "packed")


def test_decode_with_a_form(here: Path) -> None:
    model, feed = network(7, 0.8), samples(16, 14, 14)
    Path("net.onnx").write_bytes(model.data)
    done("encode", "net.onnx", "-o", "net.epz")
    assert "int8" in done("decode", "net.epz", "-o", "net8.onnx", "--form", "int8")
    for before, after in zip(answers(model, feed), answers(Model.load("net8.onnx"), feed), strict=True):
        assert np.array_equal(before, after)


def test_a_form_costs_the_coded_file_next_to_nothing() -> None:
    """Weights are coded by their whole numbers, however the ONNX file stores them."""
    model = network(8, 0.8)
    sizes = [len(encode(each.data)) for each in (model, *(reformed(model, form) for form in FORMS[1:3]))]
    assert max(sizes) < 1.1 * min(sizes)
