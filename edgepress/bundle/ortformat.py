"""The model in onnxruntime's own format (``.ort``), by the converter that comes with onnxruntime, and what it costs.

Only onnxruntime builds without the ONNX reader (minimal builds) need it. The converter optimizes for one kind of
processor and stores the result: every device runs what was right for that one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from edgepress.errors import InputError, ModelError
from edgepress.model import Model
from edgepress.targets import Target

NAME = "model.ort"
CONFIG = "required_operators.config"
TIMEOUT_S = 600.0
EXPANDED = 1.5
"""The format takes some more room anyway; times that many bytes are weights that were stored in few bits."""

PLATFORMS = {"arm64": "arm", "x64": "amd64"}
"""What the converter calls the families of targets."""

_CONVERTER = "onnxruntime.tools.convert_onnx_models_to_ort"
_FLOATS = ("Conv", "ConvTranspose")


def platform(target: Target | None) -> str:
    """What to convert for.

    Raises:
        InputError: nobody says which processor, or it is none that the format is for.
    """
    if target is None:
        raise InputError("An .ort file is made for one kind of processor: name it by --target, arm64 say.")
    if target.family not in PLATFORMS:
        raise InputError(f"There is no .ort format for {target.name}: leave --ort out.")
    return PLATFORMS[target.family]


def convert(model: Path, folder: Path, target: Target | None) -> None:
    """Write ``model.ort`` and the list of operators a minimal build must have into a folder.

    Raises:
        InputError: as :func:`platform`.
        ModelError: the converter fails.
    """
    kind = platform(target)
    with tempfile.TemporaryDirectory(prefix="edgepress-") as work:
        for source in model.parent.glob(f"{model.name}*"):  # with its weights, if they are in a file of their own
            shutil.copyfile(source, Path(work) / source.name)
        words = [sys.executable, "-m", _CONVERTER, "--optimization_style", "Fixed", "--target_platform", kind, work]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, cwd=work)
        except subprocess.TimeoutExpired:
            raise ModelError(f"The .ort converter was not done after {TIMEOUT_S:g} s: leave --ort out.") from None
        made, config = Path(work) / model.with_suffix(".ort").name, Path(work) / CONFIG
        if done.returncode or not made.is_file() or not config.is_file():
            raise ModelError(f"onnxruntime cannot convert the model to .ort: {_reason(done.stdout, done.stderr)}")
        shutil.copyfile(made, folder / NAME)
        (folder / CONFIG).write_text(_without_paths(config.read_text(encoding="utf-8")), encoding="utf-8")


def warnings(model: Model, target: Target | None, onnx_bytes: int, ort_bytes: int) -> tuple[str, ...]:
    """What to know before using the .ort file."""
    kind = platform(target)
    found = [
        "The .ort file is only needed for minimal builds of onnxruntime; all others read the .onnx file.",
        f"The .ort file was made by onnxruntime {version('onnxruntime')}: use that release or a newer one for it.",
    ]
    if kind == "amd64" and any(node.op in _FLOATS for node in model.nodes) and not _has_grids(model):
        found.append("Float convolutions in an .ort file lose their blocked layout on x64 and run slower there.")
    if kind == "arm" and _has_grids(model):
        found.append("The .ort file is for ARM: with int8 activations it runs many times slower than the .onnx on x64.")
    if ort_bytes > EXPANDED * onnx_bytes:
        found.append(
            f"The .ort file has {ort_bytes} bytes, the .onnx file {onnx_bytes}: weights stored in few bits are "
            "expanded in it."
        )
    return tuple(found)


def _has_grids(model: Model) -> bool:
    return any("QuantizeLinear" in node.op or "DequantizeLinear" in node.op for node in model.nodes)


def _reason(stdout: str, stderr: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in (stdout + "\n" + stderr).splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


def _without_paths(config: str) -> str:
    """The list of operators without the names of temporary files."""
    kept = [line for line in config.splitlines() if not line.startswith("# - ")]
    return "\n".join(kept) + "\n"
