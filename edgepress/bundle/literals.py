"""Literals: names of tensors, which may hold anything, as text of four languages and of Markdown; and their types.

Every escape is one that cannot run into what follows it (three octal digits, four hexadecimal ones, braces).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edgepress.report import numbers

CPP_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "Ort::Float16_t",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""C++ types that onnxruntime's header makes tensors of."""

KOTLIN_TYPES = {
    "float32": ("FloatBuffer.allocate", ""),
    "float64": ("DoubleBuffer.allocate", ""),
    "int16": ("ShortBuffer.allocate", ""),
    "int32": ("IntBuffer.allocate", ""),
    "int64": ("LongBuffer.allocate", ""),
    "float16": ("ShortBuffer.allocate", "OnnxJavaType.FLOAT16"),
    "int8": ("ByteBuffer.allocateDirect", "OnnxJavaType.INT8"),
    "uint8": ("ByteBuffer.allocateDirect", "OnnxJavaType.UINT8"),
    "bool": ("ByteBuffer.allocateDirect", "OnnxJavaType.BOOL"),
}
"""What makes a buffer, and the type it is to be read as where that is another."""

SWIFT_TYPES = {
    "float32": ".float",
    "int8": ".int8",
    "uint8": ".uInt8",
    "int32": ".int32",
    "uint32": ".uInt32",
    "int64": ".int64",
    "uint64": ".uInt64",
}
"""Element types of onnxruntime's Swift and Objective-C interface."""


def python(text: str) -> str:
    """A string literal of Python."""
    return ascii(text)


def cpp(text: str) -> str:
    """A string literal of C++, in UTF-8 whatever the compiler takes its source for."""
    return '"' + "".join(_octal(byte) for byte in text.encode()) + '"'


def kotlin(text: str) -> str:
    """A string literal of Kotlin."""
    units = struct.unpack(f"<{len(text.encode('utf-16-le')) // 2}H", text.encode("utf-16-le"))
    return '"' + "".join(chr(unit) if _simple(unit, '"\\$') else f"\\u{unit:04x}" for unit in units) + '"'


def swift(text: str) -> str:
    """A string literal of Swift."""
    return '"' + "".join(one if _simple(ord(one), '"\\') else f"\\u{{{ord(one):x}}}" for one in text) + '"'


def code(text: str) -> str:
    """A text as code in a cell of a Markdown table."""
    shown = numbers.clean(text).replace("|", r"\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def shape(sizes: Sequence[int | str | None] | None) -> str:
    """A shape in words, on one line."""
    if sizes is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else numbers.clean(str(size)) for size in sizes) + "]"


def _octal(byte: int) -> str:
    return chr(byte) if _simple(byte, '"\\?') else f"\\{byte:03o}"


def _simple(unit: int, special: str) -> bool:
    return 32 <= unit < 127 and chr(unit) not in special
