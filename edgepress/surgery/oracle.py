"""The oracle of surgery: removing channels must equal zeroing the weights that consume them.

    error = max over outputs of  max|y_silenced - y_cut| / max(max|y_silenced|, 0.1)

The guarantee is error <= 1e-4, that is 1e-4 of the largest output, but never less than 1e-5 in absolute
terms: float32 sums in another order, nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgepress import runtime
from edgepress.errors import InvariantError, ModelError
from edgepress.groups import Grouping
from edgepress.model import Model
from edgepress.surgery.cut import Cutting, Removed, silence

TOLERANCE = 1e-4
FLOOR = 0.1
"""Outputs smaller than this are measured against it: ``TOLERANCE * FLOOR`` is the absolute floor, 1e-5."""


def check_cut(
    original: Model,
    grouping: Grouping,
    removed: Removed,
    cutting: Cutting,
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> float:
    """Compare a cut model with the silenced original on some inputs, in onnxruntime.

    Args:
        original: the model before the cut.
        grouping: its groups.
        removed: the channels that were removed.
        cutting: the result of ``cut(original, grouping, removed)``.
        feeds: model inputs by name, one mapping per run.

    Returns:
        The largest relative difference of any output (see the module).

    Raises:
        InvariantError: the difference is above ``TOLERANCE``, shapes differ, or the cut model does not run.
        ModelError: the original does not run on these inputs.
    """
    expected = _outputs(silence(original, grouping, removed), feeds)
    try:
        found = _outputs(cutting.model, feeds)
    except ModelError as error:
        raise InvariantError(f"A cut made a model that does not run ({error}): please report it with it.") from error
    pairs = zip(expected, found, strict=True)
    worst = max((_difference(name, a[name], b[name]) for a, b in pairs for name in a), default=0.0)
    if worst > TOLERANCE:
        raise InvariantError(
            f"A cut changed the outputs by {worst:.1e} beyond what its channels did: please report it with the model."
        )
    return worst


def _outputs(model: Model, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    opened = model.session()
    return [runtime.run(opened, feed) for feed in feeds]


def _difference(name: str, expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        raise InvariantError(f"A cut changed the shape of output {name!r}: please report it with the model.")
    if not np.issubdtype(expected.dtype, np.number) or not expected.size:
        return 0.0
    left, right = expected.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf")
    finite = np.isfinite(left)
    gap = np.abs(left - right)[finite].max(initial=0.0)
    return float(gap / max(np.abs(left)[finite].max(initial=0.0), FLOOR))
