"""edgepress: makes ONNX models smaller and faster, and says what that cost.

Remove channels, refit the layer behind them, quantize to int8, measure on samples held out::

    import edgepress

    request = edgepress.Request(model=Path("model.onnx"), output=Path("small.onnx"), data="samples.npz")
    report = edgepress.compress(request)

The public names below are loaded when first used (PEP 562), so that importing the package alone
loads neither torch nor onnxruntime nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepress.model import Model
    from edgepress.pipeline import apply, compress, explain
    from edgepress.pipeline import bench as bench_files
    from edgepress.plan import Plan
    from edgepress.request import Request

__version__ = "0.1.0"

__all__ = ["Model", "Plan", "Request", "apply", "bench_files", "compress", "explain"]

# public name -> (module, name there); `edgepress.bench` is a subpackage, so its verb has a longer name
_HOMES = {
    "Model": ("edgepress.model", "Model"),
    "Request": ("edgepress.request", "Request"),
    "Plan": ("edgepress.plan", "Plan"),
    "apply": ("edgepress.pipeline", "apply"),
    "bench_files": ("edgepress.pipeline", "bench"),
    "compress": ("edgepress.pipeline", "compress"),
    "explain": ("edgepress.pipeline", "explain"),
}


def __getattr__(name: str) -> object:
    """The public name ``name``, from its home module.

    Raises:
        AttributeError: no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """The names of the module and the public names not loaded yet."""
    return sorted({*globals(), *__all__})
