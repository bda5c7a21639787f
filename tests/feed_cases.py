"""Small models and the same samples written in every kind of source, for the tests of feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from edgepress.model import Model

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def model_of(graph: str) -> Model:
    return Model.of(onnx.parser.parse_model(HEADER + graph))


def relu_model(batch: str = "N", tail: str = "3,4,5", dtype: str = "float") -> Model:
    """One input `x` that is passed through."""
    return model_of(f"agraph ({dtype}[{batch},{tail}] x) => ({dtype}[{batch},{tail}] y) {{ y = Identity(x) }}")


TWO = """agraph (float[N,3] x, int64[N,2] ids) => (float[N,3] y, int64[N,2] z) { y = Relu(x) z = Identity(ids) }"""
STATE = """agraph (float[1,3] x, float[2,1,4] state) => (float[1,3] y, float[2,1,4] next)
    { y = Relu(x) next = Relu(state) }"""


@dataclass(frozen=True)
class Case:
    """A model and samples: `arrays` as a user saves them, `runs` what the model must be fed, in order."""

    name: str
    model: Model
    arrays: Mapping[str, np.ndarray]
    runs: tuple[dict[str, np.ndarray], ...]
    rows_per_run: int = 1
    """Samples of one run, when every row of the arrays is a sample."""

    @property
    def batched(self) -> bool:
        return self.name.startswith(("batched", "two"))

    @property
    def stream_runs(self) -> tuple[dict[str, np.ndarray], ...]:
        """The runs when `runs` come one by one: with a free batch axis, rows of equal shape become samples."""
        if not self.batched:
            return self.runs
        return tuple(
            {name: array[i : i + 1] for name, array in run.items()}
            for run in self.runs
            for i in range(len(next(iter(run.values()))))
        )


def _rows(arrays: Mapping[str, np.ndarray], step: int = 1) -> tuple[dict[str, np.ndarray], ...]:
    count = len(next(iter(arrays.values()))) // step
    return tuple({name: a[i * step : (i + 1) * step] for name, a in arrays.items()} for i in range(count))


def _entries(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    count = len(next(iter(arrays.values())))
    return tuple({name: a[i] for name, a in arrays.items()} for i in range(count))


def cases() -> list[Case]:
    rng = np.random.default_rng(7)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rows = {"x": floats(12, 3, 4, 5)}
    entries = {"x": floats(6, 1, 3, 4, 5)}
    fours = {"x": floats(3, 4, 3, 4, 5)}
    two = {"x": floats(12, 3), "ids": rng.integers(0, 99, (12, 2))}
    state = {"x": floats(6, 1, 3), "state": floats(6, 2, 1, 4)}
    mixed = {"x": floats(6, 3), "state": floats(6, 2, 1, 4)}
    mixed_runs = tuple({"x": mixed["x"][i : i + 1], "state": mixed["state"][i]} for i in range(6))
    return [
        Case("batched", relu_model("N"), rows, _rows(rows)),
        Case("batched-entries", relu_model("N"), fours, _entries(fours)),
        Case("fixed1", relu_model("1"), rows, _rows(rows)),
        Case("fixed1-entries", relu_model("1"), entries, _entries(entries)),
        Case("fixed4", relu_model("4"), rows, _rows(rows, 4), 4),
        Case("fixed4-entries", relu_model("4"), fours, _entries(fours)),
        Case("two-inputs", model_of(TWO), two, _rows(two)),
        Case("state-entries", model_of(STATE), state, _entries(state)),
        Case("state-mixed", model_of(STATE), mixed, mixed_runs),
    ]


Writer = Callable[[Case, Path], str]


def write_npz(case: Case, folder: Path) -> str:
    np.savez(folder / "samples.npz", **case.arrays)  # type: ignore[arg-type]
    return str(folder / "samples.npz")


def write_compressed(case: Case, folder: Path) -> str:
    np.savez_compressed(folder / "samples.npz", **case.arrays)  # type: ignore[arg-type]
    return str(folder / "samples.npz")


def write_fortran(case: Case, folder: Path) -> str:
    fortran = {name: np.asfortranarray(array) for name, array in case.arrays.items()}
    np.savez_compressed(folder / "samples.npz", **fortran)  # type: ignore[arg-type]
    return str(folder / "samples.npz")


def write_big_endian(case: Case, folder: Path) -> str:
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in case.arrays.items()}
    np.savez(folder / "samples.npz", **swapped)  # type: ignore[arg-type]
    return str(folder / "samples.npz")


def write_npy(case: Case, folder: Path) -> str:
    np.save(folder / "samples.npy", case.arrays["x"])
    return str(folder / "samples.npy")


def write_npz_folder(case: Case, folder: Path) -> str:
    (folder / "parts").mkdir()
    for part, rows in enumerate((slice(0, 4), slice(4, 5), slice(5, None))):
        kept = {name: array[rows] for name, array in case.arrays.items()}
        if len(next(iter(kept.values()))):
            np.savez(folder / "parts" / f"{part}.npz", **kept)  # type: ignore[arg-type]
    return str(folder / "parts")


def write_npy_folder(case: Case, folder: Path) -> str:
    (folder / "parts").mkdir()
    for name, array in case.arrays.items():
        np.save(folder / "parts" / f"{name}.npy", array)
    return str(folder / "parts")


def write_npy_parts(case: Case, folder: Path) -> str:
    (folder / "parts").mkdir()
    for part, rows in enumerate((slice(0, 2), slice(2, None))):
        np.save(folder / "parts" / f"part{part}.npy", case.arrays["x"][rows])
    return str(folder / "parts")


def write_test_sets(case: Case, folder: Path) -> str:
    for number, run in enumerate(case.runs):
        path = folder / "sets" / f"test_data_set_{number}"
        path.mkdir(parents=True)
        for position, name in enumerate(case.model.inputs):
            tensor = numpy_helper.from_array(np.ascontiguousarray(run[name]))
            (path / f"input_{position}.pb").write_bytes(tensor.SerializeToString())
    return str(folder / "sets")


class Reader:
    """Looks like an onnxruntime CalibrationDataReader."""

    def __init__(self, runs: tuple[dict[str, np.ndarray], ...]) -> None:
        self._runs: Iterator[dict[str, np.ndarray]] = iter(runs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._runs, None)


def for_one_input(case: Case) -> bool:
    return list(case.arrays) == ["x"]


FILES: dict[str, Writer] = {
    "npz": write_npz,
    "npz-compressed": write_compressed,
    "npz-fortran": write_fortran,
    "npz-big-endian": write_big_endian,
    "npz-folder": write_npz_folder,
    "npy-folder": write_npy_folder,
    "test-sets": write_test_sets,
    "npy": write_npy,
    "npy-parts": write_npy_parts,
}
NEED_ONE_INPUT = {"npy", "npy-parts"}
