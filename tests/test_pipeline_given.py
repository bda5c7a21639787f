"""What is said about single nodes and tensors: names are checked, overrides go in and come out, plans keep them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_models import CONVNET
from quantize_tools import Arrays

from edgepress.errors import InputError
from edgepress.model import Model
from edgepress.pipeline import apply, compress
from edgepress.plan import Plan, Quantization
from edgepress.quantize.activations.grids import Grid, grid_of
from edgepress.quantize.activations.ranges import Range
from edgepress.report import Report
from edgepress.request import Request

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """A small network with samples that may lose much, for the least file: it is quantized on every machine."""
    model = CONVNET.save(tmp_path / "net.onnx")
    data = CONVNET.save_samples(tmp_path / "x.npz", 160)
    return Request(
        model, tmp_path / "out.onnx", str(data), threads=1, bench_seconds=0.01, max_drop=60, prune=False, bits="8",
        target="arm64",
    )  # fmt: skip


def made(request: Request, **changes: Any) -> tuple[Report, Quantization]:
    """The report and the settings of the int8 form, which is the fastest whatever the clock of this machine says.

    Where all layers stay float by rule, there is none, and weights are stored as integers.
    """
    choose = importlib.import_module("edgepress.pipeline.choose")
    chosen = dataclasses.replace(request, **changes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choose, "_slower", lambda *_: False)
        patched.setattr(choose, "ratio_of", lambda name, _: 0.5 if "-int8" in name else 1.0)
        report = compress(chosen)
    assert chosen.output is not None
    settings = Plan.load(chosen.output.with_suffix(".plan.json")).quantization
    assert settings is not None
    return report, settings


def written(folder: Path, content: object) -> str:
    path = folder / "overrides.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def grids_in(path: Path, model: Path) -> dict[str, Grid]:
    """The grid of every activation in a file, by the name that it has in the float model."""
    made, source = Model.load(path), Model.load(model)
    names = {node.name: node.output for node in source.nodes}
    found = {}
    for node in made.nodes:
        if node.op == "QuantizeLinear":
            maker = made.producer(node.inputs[0])
            tensor = node.inputs[0] if maker is None else names[maker.name]
            scale, zero = (made.constants[name] for name in node.inputs[1:])
            found[tensor] = Grid(np.float32(scale), int(zero))
    return found


# --- names ---------------------------------------------------------------------------------------------------


WRONG = {
    "n_d": "'n_d' is the name of no node: did you mean .*'n_c'",
    "n_r1": "'n_r1' is a Relu without weights that could become integers, it is float as it is: did you mean",
    "strange": "is the name of no node: edgepress compress -v lists the layers",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_said_to_be_one(request_: Request, name: str) -> None:
    with pytest.raises(InputError, match=WRONG[name]):
        compress(dataclasses.replace(request_, keep_float=("n_c", name)))
    assert not (request_.model.parent / "out.onnx").exists()


def test_a_name_that_cleaning_folded_away_is_said_to_be_one(tmp_path: Path, request_: Request) -> None:
    import onnx

    proto = onnx.load(request_.model)
    scale = np.ones(16, np.float32)
    for name in ("s", "b", "m", "v"):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(scale, name))
    for node in proto.graph.node:
        node.input[:] = ["normal" if name == "a" else name for name in node.input]
    normal = onnx.helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["normal"], name="norm")
    proto.graph.node.insert(1, normal)
    onnx.save(proto, tmp_path / "bn.onnx")
    with pytest.raises(InputError, match="'norm' is no more after cleaning, which folded it into another node"):
        compress(dataclasses.replace(request_, model=tmp_path / "bn.onnx", keep_float=("norm",)))


def test_a_node_that_stays_float_has_float_weights(request_: Request) -> None:
    _, settings = made(request_, keep_float=("n_c",))
    assert settings.float_nodes == ("n_c",)
    assert request_.output is not None
    result = Model.load(request_.output)
    assert result.constants[result.node("n_c").inputs[1]].dtype == np.float32


# --- overrides -----------------------------------------------------------------------------------------------


def test_ranges_levels_and_scales_are_those_given_and_replayed(request_: Request, tmp_path: Path) -> None:
    scales = [0.01 * (i + 1) for i in range(16)]
    given = {
        "r1": [{"rmin": 0.0, "rmax": 2.5}],
        "w2": [{"axis": 0, "quant_type": "QInt4", "scale": scales[0], "zero_point": 0},
               *[{"scale": scale, "zero_point": 0} for scale in scales[1:]]],
        "y": [{"rmin": -1.0, "rmax": 1.0}],
    }  # fmt: skip
    report, settings = made(request_, overrides=written(tmp_path, given))
    assert settings.given_ranges == {"r1": (0.0, 2.5), "y": (-1.0, 1.0)}
    assert settings.given_scales == {"n_c": tuple(map(float, np.array(scales, np.float32)))}
    assert settings.levels == {"n_c": 16}
    assert request_.output is not None and request_.data is not None
    assert grids_in(request_.output, request_.model)["r1"] == grid_of(Range(0.0, 2.5))
    assert np.array(scales, np.float32).tobytes() in request_.output.read_bytes()
    again = tmp_path / "again.onnx"
    apply(request_.model, tmp_path / "out.plan.json", request_.data, again)
    assert again.read_bytes() == request_.output.read_bytes()
    assert report.taken.file_bytes == again.stat().st_size


def test_a_plan_with_scales_for_other_channels_is_refused(request_: Request, tmp_path: Path) -> None:
    given = {"w2": [{"axis": 0, "rmin": -1, "rmax": 1}] + [{"rmin": -1, "rmax": 1}] * 15}
    made(request_, overrides=written(tmp_path, given))
    plan = tmp_path / "out.plan.json"
    raw = json.loads(plan.read_text())
    raw["quantization"]["given_scales"]["n_c"].pop()
    plan.write_text(json.dumps(raw))
    assert request_.data is not None
    with pytest.raises(InputError, match="15 weight scales, but it has 16 output channels"):
        apply(request_.model, plan, request_.data, tmp_path / "again.onnx")


def by_onnxruntime(model: Path, overrides: Path, samples: dict[str, np.ndarray], folder: Path) -> Model:
    """What onnxruntime's own quantizer makes of a float model under overrides."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.static_quantize_runner import get_tensor_quant_overrides

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.chunks: Iterator[Any] = iter(Arrays(samples).chunks(8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            chunk = next(self.chunks, None)
            return None if chunk is None else dict(chunk.inputs)

    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(model), str(folder / "ort.onnx"), Reader(), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": get_tensor_quant_overrides(overrides)},
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return Model.load(folder / "ort.onnx")


def test_what_is_saved_gives_onnxruntime_the_same_grids_and_comes_back(request_: Request, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    made(request_, save_overrides=saved)
    assert request_.output is not None
    held = json.loads(saved.read_text())
    other = by_onnxruntime(request_.model, saved, CONVNET.arrays(16), tmp_path)
    for tensor, (entry,) in ((name, held[name]) for name in ("r1", "r2") if name in held):
        assert float(other.constants[f"{tensor}_scale"]) == entry["scale"]
        assert int(other.constants[f"{tensor}_zero_point"]) == entry["zero_point"]
    assert other.constants["w2_scale"].tolist() == [entry["scale"] for entry in held["w2"]]
    grids = grids_in(request_.output, request_.model)
    assert {name: float(grid.scale) for name, grid in grids.items()} == {name: held[name][0]["scale"] for name in grids}
    _, again = made(request_, overrides=str(saved), output=tmp_path / "again.onnx")
    assert {name: grid_of(Range(*pair)) for name, pair in again.given_ranges.items()} == {
        name: Grid(np.float32(entry["scale"]), entry["zero_point"])
        for name, (entry, *more) in held.items()
        if not more and not name.startswith("w")
    }
    assert again.given_scales["n_c"] == tuple(entry["scale"] for entry in held["w2"])


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to quantize": ({"quantize": False}, "--bits says how to quantize, and --no-quantize not to"),
    "equalized ranges": ({"equalize": True, "overrides": "o.json"}, "--equalize changes .* --overrides speaks of"),
    "equalized scales": ({"equalize": True, "save_overrides": Path("o.json")}, "--save-overrides speaks of"),
    "scales of cut weights": ({"prune": True, "save_overrides": Path("o.json")}, "which pruning cuts"),
    "speed of another device": ({"target": "qnn", "speedup": 2.0}, "--speedup cannot be checked for qnn"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_options_that_contradict_each_other(request_: Request, case: str) -> None:
    changes, message = CONTRADICTIONS[case]
    with pytest.raises(InputError, match=message):
        dataclasses.replace(request_, **changes)


def test_fixed_point_and_given_scales(request_: Request, tmp_path: Path) -> None:
    path = written(tmp_path, {"w2": [{"symmetric": True}]})
    with pytest.raises(InputError, match="gives weight scales, which --fixed-point would not keep"):
        compress(dataclasses.replace(request_, overrides=path, fixed_point=True))


def test_places_of_what_is_saved(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"would be written twice: give another path with --save-overrides"):
        compress(dataclasses.replace(request_, save_overrides=request_.output))
    with pytest.raises(InputError, match=r"does not exist: create it or give another path with --save-overrides"):
        compress(dataclasses.replace(request_, save_overrides=tmp_path / "none" / "o.json"))
