"""The coded file, and what weights cost in it: encoding, decoding, code lengths, rounding that knows them.

``encode(model bytes)`` gives the bytes of a coded file, ``decode`` the model's again; ``decoder`` is a file that a
device can carry alone. ``contexts`` tells what the coder charges for a number of a matrix; ``lengths`` what an ideal
coder without contexts does.
"""

from __future__ import annotations

from edgepress.codec.contexts import Contexts, matrix_bits
from edgepress.codec.decoder import CodedFileError, decode, decode_to, grid_steps
from edgepress.codec.encoder import Coded, CodedTensor, coded_size, encode, encoded
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
    "Coded",
    "CodedFileError",
    "CodedTensor",
    "Contexts",
    "coded_bits",
    "coded_size",
    "decode",
    "decode_to",
    "description_bits",
    "empirical_bits",
    "encode",
    "encoded",
    "grid_steps",
    "histogram_bits",
    "matrix_bits",
    "rate_rounded",
    "uniform_step",
]
