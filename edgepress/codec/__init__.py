"""What weights cost in an entropy-coded file: code lengths, and rounding that knows them."""

from __future__ import annotations

from edgepress.codec.lengths import (
    SLOPE,
    coded_bits,
    description_bits,
    empirical_bits,
    histogram_bits,
    rate_rounded,
    uniform_step,
)

__all__ = [
    "SLOPE",
    "coded_bits",
    "description_bits",
    "empirical_bits",
    "histogram_bits",
    "rate_rounded",
    "uniform_step",
]
