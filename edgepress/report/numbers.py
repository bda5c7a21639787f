"""Numbers: every number a person reads is formatted here, to three significant digits or so.

Times in µs, ms or s, sizes in kB (MB from 10 000 kB), counts in k, M or G, factors as ``2.40×``.
A value that was not measured (None or NaN) is a dash.
"""

from __future__ import annotations

import math

DASH = "—"
MINUS = "−"
EXACT = 200.0
"""From this signal to noise ratio in dB on, outputs are equal (float32 itself ends at about 150)."""


def significant(value: float, digits: int = 3) -> str:
    """``value`` with that many significant digits, no exponent; digits before the point are never dropped."""
    if value == 0 or not math.isfinite(value):
        return {0.0: "0", math.inf: "∞", -math.inf: f"{MINUS}∞"}.get(value, DASH)
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    rounded = round(value, decimals)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        decimals = max(decimals - 1, 0)  # 9.996 became 10.00: one digit less behind the point
    return f"{rounded:.{decimals}f}".replace("-", MINUS)


def missing(value: float | None) -> bool:
    """Nothing was measured."""
    return value is None or math.isnan(value)


def time(ms: float) -> str:
    """A duration given in ms."""
    if ms < 1:
        return f"{significant(1000 * ms)} µs"
    return f"{significant(ms)} ms" if ms < 1000 else seconds(ms / 1000)


def seconds(value: float) -> str:
    """A duration given in seconds."""
    return f"{significant(value)} s"


def size(count: float) -> str:
    """A number of bytes."""
    if count < 1000:
        return f"{count:.0f} B"
    return f"{significant(count / 1e3)} kB" if count < 1e7 else f"{significant(count / 1e6)} MB"


def count(value: float, digits: int = 3) -> str:
    """How many: multiply-adds, parameters, samples."""
    for least, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{significant(value / divisor, digits)} {unit}"
    return f"{value:.0f}"


def percent(value: float) -> str:
    """A share given in percent."""
    return f"{fixed(value)} %"


def decibel(value: float) -> str:
    """A ratio given in dB."""
    return "exact" if value >= EXACT else f"{fixed(value, 1)} dB"


def factor(value: float) -> str:
    """A factor as ``2.40×``."""
    return f"{significant(value)}×"


def short(value: float) -> str:
    """A number for a sentence: two significant digits."""
    return significant(value, 2)


def fixed(value: float, decimals: int = 2) -> str:
    """``value`` with that many decimals, a real minus sign and no negative zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def raw(value: float | int | None) -> str:
    """A number for a program: ASCII, six significant digits, integers in full; empty when not measured."""
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def clean(text: str) -> str:
    """Text from a file, fit for a terminal: control characters (escape sequences, newlines) become ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)
