"""TensorQuantOverrides: onnxruntime's quantizer takes what is written, what it takes is read, nothing is left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from quantize_tools import CONV, Arrays, kernel, parse, rounded_weights, samples

from edgepress.errors import InputError
from edgepress.model import Model
from edgepress.plan import Quantization
from edgepress.quantize import (
    Range,
    activation_ranges,
    activations_to_observe,
    observe,
    ranges,
    read_overrides,
    to_json,
    weight_levels,
    weight_scales,
)
from edgepress.quantize.activations.grids import Grid, grid_of

BODY = (
    f"a = {CONV}(x, first, b1) h = Relu(a) c = {CONV}(h, second, b2) d = LeakyRelu<alpha=0.125>(c) "
    "g = GlobalAveragePool(d) f = Flatten(g) y = Gemm<transB=1>(f, third, b3)"
)


def net(transposed: int = 1) -> Model:
    arrays = {"first": kernel(16, 16, 3, 3), "second": kernel(16, 16, 3, 3, seed=1), "third": kernel(8, 16)}
    arrays["third"] = arrays["third"] if transposed else arrays["third"].T
    arrays |= {"b1": kernel(16), "b2": kernel(16, seed=1), "b3": kernel(8)}
    return parse(BODY.replace("transB=1", f"transB={transposed}"), outputs="float[N,K] y", arrays=arrays)


def feed() -> Arrays:
    return samples(16, 14, 14, count=8)


def quantized(model: Model, folder: Path, overrides: dict[str, Any]) -> dict[str, np.ndarray]:
    """The constants that onnxruntime's own quantizer makes under overrides."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.chunks: Iterator[Any] = iter(feed().chunks(4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            chunk = next(self.chunks, None)
            return None if chunk is None else dict(chunk.inputs)

    model.save(folder / "float.onnx")
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(folder / "float.onnx"),
            str(folder / "int8.onnx"),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": overrides},
        )
    finally:
        logging.disable(logging.NOTSET)
    made = Model.load(folder / "int8.onnx")
    made.session()
    return dict(made.constants)


def written(folder: Path, content: object) -> Path:
    path = folder / "overrides.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("transposed", [0, 1])
def test_onnxruntime_takes_what_is_written_and_gives_the_same_scales(tmp_path: Path, transposed: int) -> None:
    from onnxruntime.quantization.static_quantize_runner import get_tensor_quant_overrides

    model, chosen = net(transposed), Quantization(ranges="mse", weight_limit=100)
    seen = observe(model, feed(), activations_to_observe(model))
    grids = {name: grid_of(found) for name, found in ranges(seen, chosen).items()}
    rounded = rounded_weights(model, chosen, {})
    path = written(tmp_path, to_json(model, grids, rounded))
    made = quantized(model, tmp_path, get_tensor_quant_overrides(path))
    for tensor in ("x", "h", "c", "d", "g"):
        assert made[f"{tensor}_scale"] == grids[tensor].scale, tensor
        assert made[f"{tensor}_zero_point"] == grids[tensor].zero
    for name, item in rounded.items():
        weight = model.node(name).inputs[1]
        assert np.array_equal(made[f"{weight}_scale"], item.scale)
        assert np.array_equal(made[f"{weight}_quantized"], item.values)
    back = read_overrides(path, model)
    assert {name: grid_of(found) for name, found in activation_ranges(back).items()} == grids
    assert weight_levels(model, back) == {}
    scales = weight_scales(model, back)
    assert scales.keys() == rounded.keys()
    assert all(np.array_equal(scales[name], item.scale) for name, item in rounded.items())


def test_what_onnxruntime_quantizes_with_is_read_back(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType

    numbers = {"scale": 0.021, "zero_point": 77}
    plain: dict[str, list[dict[str, Any]]] = {
        "x": [{"rmin": -3.0, "rmax": 2.5}],
        "h": [{"quant_type": "QInt8", "rmin": -0.5, "rmax": 4.0}],
        "c": [numbers],
        "d": [{"rmin": -1.0, "rmax": 3.0, "symmetric": True}],
        "first": [{"quant_type": "QInt8", "axis": 0, "rmin": -0.25, "rmax": 0.5}, *[{"rmin": -1.0, "rmax": 0.0}] * 15],
        "second": [{"axis": 0, "scale": 0.001 * (i + 1), "zero_point": 0} for i in range(16)],
        "third": [{"reduce_range": True}],
    }
    taken = {
        name: [
            {
                key: QuantType.from_string(value)
                if key == "quant_type"
                else np.array(value, np.float32)
                if key in ("rmin", "rmax", "scale")
                else np.array(value, np.uint8 if name == "c" else np.int8)
                if key == "zero_point"
                else value
                for key, value in entry.items()
            }
            for entry in entries
        ]
        for name, entries in plain.items()
    }
    model = net()
    made = quantized(model, tmp_path, taken)
    back = read_overrides(written(tmp_path, plain), model)
    shift = {"h": 128}
    assert activation_ranges(back).keys() == {"x", "h", "c", "d"}
    for tensor, found in activation_ranges(back).items():
        grid = grid_of(found)
        assert made[f"{tensor}_scale"] == pytest.approx(grid.scale, rel=1e-6), tensor
        assert abs(int(made[f"{tensor}_zero_point"]) + shift.get(tensor, 0) - grid.zero) <= (tensor == "d"), tensor
    assert grid_of(back.activations["c"]) == Grid(np.float32(0.021), 77)
    scales = weight_scales(model, back)
    for name in ("first", "second", "third"):
        node = model.consumers(name)[0].name
        assert np.allclose(made[f"{name}_scale"], scales[node], rtol=1e-6), name
    assert weight_levels(model, back) == {model.consumers("third")[0].name: 129}


def test_four_bit_weights_are_those_of_onnxruntime(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType

    model = net()
    for reduced in (False, True):
        made = quantized(model, tmp_path, {"third": [{"quant_type": QuantType.QInt4, "reduce_range": reduced}]})
        given = {"third": [{"quant_type": "QuantType.QInt4", "reduce_range": reduced}]}
        back = read_overrides(written(tmp_path, given), model)
        node = model.consumers("third")[0].name
        assert weight_levels(model, back) == {node: 8 if reduced else 16}
        assert weight_scales(model, back)[node] == pytest.approx(np.full(8, made["third_scale"]), rel=1e-6)
        packed = numpy_helper.to_array(
            next(item for item in onnx.load(tmp_path / "int8.onnx").graph.initializer if "third_q" in item.name)
        )
        low, high = (-4, 3) if reduced else (-8, 7)
        assert low <= packed.astype(int).min()
        assert packed.astype(int).max() <= high


@settings(deadline=None, max_examples=60)
@given(st.integers(-70, 100), st.floats(1, 2, width=32), st.integers(0, 255))
def test_exact_grids_come_through_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, power: int, scale: float, zero: int
) -> None:
    model, grid = net(), Grid(np.float32(scale * 2.0**power), zero)
    path = written(tmp_path_factory.mktemp("json"), to_json(model, {"c": grid}, {}))
    assert grid_of(read_overrides(path, model).activations["c"]) == grid


def test_entries_that_decide_nothing_change_nothing(tmp_path: Path) -> None:
    given: dict[str, list[dict[str, object]]] = {
        "x": [],
        "h": [{}],
        "c": [{"quant_type": "quint8"}],
        "first": [{"axis": 0}],
    }
    model = net()
    back = read_overrides(written(tmp_path, given), model)
    assert activation_ranges(back) == {}
    assert weight_levels(model, back) == {}
    assert weight_scales(model, back) == {}
    assert weight_scales(model, read_overrides(written(tmp_path, {"first": [{"symmetric": True}]}), model)).keys()
    dead = model.with_constants({"first": np.zeros((16, 16, 3, 3), np.float32)})
    found = weight_scales(dead, read_overrides(written(tmp_path, {"first": [{"symmetric": True}]}), dead))
    assert [set(each) for each in found.values()] == [{1.0}]
    assert read_overrides(written(tmp_path, {"x": [{"rmin": -1, "rmax": [2]}]}), model).activations == {
        "x": Range(-1, 2)
    }


def channels(**change: object) -> list[dict[str, object]]:
    return [{"axis": 0, "scale": 0.1, "zero_point": 0}, *({"scale": 0.1, "zero_point": 0, **change} for _ in range(7))]


WRONG: dict[str, tuple[object, str]] = {
    "not JSON": ("{", r"not JSON \(line 1\): mend"),
    "too deep": ("[" * 100000, "not JSON"),
    "a number without end": ('{"x": [{"rmin": 0, "rmax": ' + "9" * 5000 + "}]}", "not JSON|give a number"),
    "a list": ([], "no object: write"),
    "no list": ({"x": {"rmin": 0}}, "no list of objects"),
    "no objects": ({"x": [3]}, "no list of objects"),
    "an unknown tensor": ({"firs": [{}]}, "'firs' are of a tensor that the model has not: name 'first'"),
    "a strange tensor": ({"qqqqqqqq": [{}]}, "take them out"),
    "a bias": ({"b1": [{"scale": 1, "zero_point": 0}]}, "no Conv, Gemm or MatMul has for its weight"),
    "an unknown key": ({"x": [{"rmax": 1, "rmim": 0}]}, "'rmim' that is none: write 'rmin'"),
    "convert": ({"x": [{"convert": {"quant_type": "QUInt16"}}]}, "take 'convert' out"),
    "16 bits": ({"x": [{"quant_type": "QUInt16"}]}, "'QUInt16', .* write 'QUInt8' or 'QInt8'"),
    "float8": ({"first": [{"quant_type": "QFLOAT8E4M3FN"}]}, "write 'QInt8' or 'QInt4'"),
    "a number for type": ({"x": [{"quant_type": 1}]}, "want the type 1"),
    "unsigned weights": ({"first": [{"quant_type": "QUInt8"}]}, "want the type 'QUInt8'"),
    "four-bit activations": ({"x": [{"quant_type": "QUInt4"}]}, "want the type 'QUInt4'"),
    "NaN": ('{"x": [{"scale": NaN, "zero_point": 0}]}', "'scale' of nan: give a number that is above zero"),
    "infinity": ('{"x": [{"rmin": 0, "rmax": Infinity}]}', "'rmax' of inf"),
    "zero": ({"x": [{"scale": 0, "zero_point": 0}]}, "above zero"),
    "too small": ({"x": [{"scale": 1e-60, "zero_point": 0}]}, "above zero"),
    "too large": ({"x": [{"scale": 1e60, "zero_point": 0}]}, "above zero"),
    "text": ({"x": [{"scale": "0.1", "zero_point": 0}]}, "above zero"),
    "a truth": ({"x": [{"scale": True, "zero_point": 0}]}, "above zero"),
    "two scales": ({"x": [{"scale": [0.1, 0.2], "zero_point": 0}]}, "above zero"),
    "half a zero": ({"x": [{"scale": 1, "zero_point": 0.5}]}, "whole"),
    "zero too far": ({"x": [{"scale": 1, "zero_point": 256}]}, "within 0..255"),
    "signed zero": ({"x": [{"quant_type": "qint8", "scale": 1, "zero_point": 128}]}, "within -128..127"),
    "scale alone": ({"x": [{"scale": 1}]}, "give both, for every channel"),
    "scale and range": ({"x": [{"scale": 1, "zero_point": 0, "rmin": 0, "rmax": 1}]}, "take 'rmin' and 'rmax' out"),
    "one end": ({"x": [{"rmin": 0}]}, "give both"),
    "ends exchanged": ({"x": [{"rmin": 1, "rmax": 0}]}, "exchange"),
    "no flag": ({"x": [{"symmetric": 1}]}, "neither true nor false"),
    "symmetry alone": ({"x": [{"symmetric": True}]}, "give 'rmin' and 'rmax'"),
    "a reduced activation": ({"x": [{"rmin": 0, "rmax": 1, "reduce_range": True}]}, "take 'reduce_range' out"),
    "activation channels": ({"x": [{"axis": 1, "rmin": 0, "rmax": 1}]}, "without 'axis'"),
    "asymmetric weights": ({"first": [{"symmetric": False}]}, "take 'symmetric' out"),
    "weight zero point": ({"first": [{"scale": 0.1, "zero_point": 3}]}, "give 0"),
    "no axis": ({"third": [{"scale": 0.1, "zero_point": 0}] * 8}, "without an 'axis'"),
    "axis too far": ({"third": [{"axis": 2}]}, r"within -2\.\.1"),
    "axis a truth": ({"third": [{"axis": True}]}, "outside"),
    "two axes": ({"third": channels(axis=1)}, "differ in 'axis'"),
    "two types": ({"third": channels(quant_type="QInt4")}, "differ in 'quant_type'"),
    "too few channels": ({"third": channels()[:5]}, "number 5 for 8 channels"),
    "one for all channels": ({"third": channels()[:1]}, "number 1 for 8 channels: give one object for each"),
    "channels without scale": ({"third": [*channels()[:7], {}]}, "give both, for every channel"),
    "channels without range": ({"third": [{"axis": 0, "rmin": 0, "rmax": 1}, *[{}] * 7]}, "some channels only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(case: str, tmp_path: Path) -> None:
    content, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        read_overrides(written(tmp_path, content), net())
    assert ": " in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_files_that_cannot_be_read_and_axes_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(InputError, match="cannot be read"):
        read_overrides(tmp_path / "none.json", model)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_overrides(tmp_path / "bytes.json", model)
    given = {"third": [{"axis": -1, "rmin": -1, "rmax": 1}] * 16}
    back = read_overrides(written(tmp_path, given), model)
    with pytest.raises(InputError, match=r"along axis 1, but its output channels are axis 0"):
        weight_scales(model, back)


def test_other_widths_of_activations_are_written_with_their_type() -> None:
    made = json.loads(to_json(net(), {"c": Grid(np.float32(0.5), 3, 16)}, {}))
    assert made == {"c": [{"quant_type": "QUInt16", "scale": 0.5, "zero_point": 3}]}
