"""What each release of onnxruntime loads and folds: the newest operator set and IR version, and low-bit storage.

Tried on the wheels of 1.15 to 1.32 by ``python -m tools.releases`` (``docs/releases.md`` has its table); 1.14, of which
there is no wheel for that interpreter, as onnx 1.13 is, on which it is built. A release loads every older operator set
(from 7 on) and IR version. What edgepress writes for a release it loads, with int8 kernels for every int8 layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgepress.errors import InputError

TYPES4 = (1, 19)
"""First release that loads 4-bit initializers, for DequantizeLinear alone: 1.18 knows the type and refuses them."""
CAST4 = (1, 23)
"""First release that has a Cast from int4 and uint4: 1.22 refuses the file."""
CAST2 = (1, 24)
"""First release that has 2-bit types. A DequantizeLinear must not read them bare: no release loads that."""
BLOCKED4 = (1, 17)
"""First release whose MatMulNBits has an accuracy level."""
BIASED4 = (1, 19)
"""First release whose MatMulNBits adds a bias: 1.18 refuses the file."""


@dataclass(frozen=True, slots=True)
class Release:
    """A minor release of onnxruntime.

    Attributes:
        version: major and minor number.
        opset: newest operator set it loads.
        ir: newest IR version it loads.
    """

    version: tuple[int, int]
    opset: int
    ir: int

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def holds4(self) -> bool:
        """DequantizeLinear of 4-bit initializers (operator set 21) runs; in a Conv it does so every time, in float."""
        return self.version >= TYPES4

    @property
    def casts4(self) -> bool:
        """4-bit initializers behind a Cast (operator set 21, IR version 10) fold to int8 weights."""
        return self.version >= CAST4

    @property
    def casts2(self) -> bool:
        """2-bit initializers behind a Cast (operator set 25, IR version 12) fold to int8 weights."""
        return self.version >= CAST2

    @property
    def blocked4(self) -> bool:
        """MatMulNBits with accuracy level 4 (4-bit weights in blocks, summed in int8)."""
        return self.version >= BLOCKED4

    @property
    def biased4(self) -> bool:
        """The same with a bias in it."""
        return self.version >= BIASED4

    def loads(self, opset: int, ir: int) -> bool:
        """Whether it takes files of that operator set and IR version."""
        return opset <= self.opset and ir <= self.ir


RELEASES = tuple(
    Release((1, minor), opset, ir)
    for minor, opset, ir in (
        (14, 18, 8),
        (15, 19, 9),
        (16, 19, 9),
        (17, 20, 9),
        (18, 21, 10),
        (19, 21, 10),
        (20, 21, 10),
        (21, 22, 10),
        (22, 22, 10),
        (23, 23, 11),
        (24, 25, 13),
        *((minor, 26, 13) for minor in range(25, 32)),
        (32, 28, 14),
    )
)
REQUIRED = RELEASES[4]
"""1.18, the oldest that loads IR version 10 and operator set 21, which the int8 form is written in. Plain int8, uint8
codebooks and packed weights fuse and fold in it exactly as in the newest (and, at operator set 13 and IR version 8,
back to 1.15)."""


def release(text: str) -> Release:
    """The release that a version such as ``1.24`` or ``1.24.1`` belongs to; newer than known is the newest known.

    Args:
        text: the version; empty for ``REQUIRED``.

    Raises:
        InputError: no version, or older than the oldest known.
    """
    if not text:
        return REQUIRED
    found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})(\.[\w.+-]+)?", text)
    if found is None:
        raise InputError(f"{text!r} is no version of onnxruntime: write it like {REQUIRED}.")
    version = (int(found[1]), int(found[2]))
    if version < RELEASES[0].version:
        raise InputError(f"onnxruntime {text} is too old for int8 models of edgepress: name {RELEASES[0]} or newer.")
    return max((known for known in RELEASES if known.version <= version), key=lambda known: known.version)
