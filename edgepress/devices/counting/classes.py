"""Classes of A64 instructions, told by their bits. The counting plugin is compiled from this table.

A pattern has the 32 bits of an instruction, highest first: ``0`` and ``1`` must be so, ``.`` may be either. The first
row that fits decides. Encodings are those of the Arm Architecture Reference Manual (DDI 0487), chapter C4.1, "A64
instruction set encoding"; groups below are named as there.

What the classes are good for: ``fp_fma`` times 4 and ``int_dot`` times 16 are the multiply-adds of a float and an int8
network within a percent, where its kernels use them.
"""

from __future__ import annotations

from typing import NamedTuple

NAMES = (
    "fp_fma",
    "int_dot",
    "int_mmla",
    "int_widen_mla",
    "simd_other",
    "sve_sme",
    "ld_vec",
    "st_vec",
    "ld_int",
    "st_int",
    "branch",
    "int_other",
)


class Row(NamedTuple):
    """Instructions that fit a pattern are of a class."""

    pattern: str
    name: str
    what: str

    @property
    def mask(self) -> int:
        """The bits that count."""
        return int(self.pattern.replace(" ", "").replace("0", "1").replace(".", "0"), 2)

    @property
    def value(self) -> int:
        """What they must be."""
        return int(self.pattern.replace(" ", "").replace(".", "0"), 2)


ROWS = (
    # Data processing, SIMD and floating point: what multiplies and adds. Bit 30 is Q (128 bits wide), bit 29 is U.
    Row("0.00 1110 ..1. .... 1100 11.. .... ....", "fp_fma", "FMLA, FMLS (vector), single and double"),
    Row("0.00 1110 .10. .... 0000 11.. .... ....", "fp_fma", "FMLA, FMLS (vector), half"),
    Row("0.00 1111 1... .... 0.01 .0.. .... ....", "fp_fma", "FMLA, FMLS (by element), single and double"),
    Row("0.00 1111 00.. .... 0.01 .0.. .... ....", "fp_fma", "FMLA, FMLS (by element), half"),
    Row("0.. 01110 100. .... 1001 01.. .... ....", "int_dot", "SDOT, UDOT (vector)"),
    Row("0.00 1110 100. .... 1001 11.. .... ....", "int_dot", "USDOT (vector)"),
    Row("0.. 01111 10.. .... 1110 .0.. .... ....", "int_dot", "SDOT, UDOT (by element)"),
    Row("0.00 1111 .0.. .... 1111 .0.. .... ....", "int_dot", "USDOT, SUDOT (by element)"),
    Row("01. 01110 100. .... 1010 .1.. .... ....", "int_mmla", "SMMLA, UMMLA, USMMLA"),
    Row("0.. 01110 ..1. .... 1000 00.. .... ....", "int_widen_mla", "SMLAL, UMLAL (vector)"),
    Row("0.. 01110 ..1. .... 1100 00.. .... ....", "int_widen_mla", "SMULL, UMULL (vector)"),
    Row("0.. 01111 .... .... 0010 .0.. .... ....", "int_widen_mla", "SMLAL, UMLAL (by element)"),
    Row("0.. 01111 .... .... 1010 .0.. .... ....", "int_widen_mla", "SMULL, UMULL (by element)"),
    Row("0.. 01110 ..10 0000 0110 10.. .... ....", "int_widen_mla", "SADALP, UADALP: sums of pairs of products"),
    Row(".... 111. .... .... .... .... .... ....", "simd_other", "the rest of SIMD and floating point"),
    # Extensions that no core of ours has.
    Row("1..0 000. .... .... .... .... .... ....", "sve_sme", "SME"),
    Row("...0 010. .... .... .... .... .... ....", "sve_sme", "SVE"),
    # Loads and stores. Bit 26 is V (SIMD register).
    Row("0.00 110. .1.. .... .... .... .... ....", "ld_vec", "LD1 to LD4: structures"),
    Row("0.00 110. .0.. .... .... .... .... ....", "st_vec", "ST1 to ST4: structures"),
    Row("..00 1000 .1.. .... .... .... .... ....", "ld_int", "LDXR, LDAR and the like: exclusive, ordered"),
    Row("..00 1000 .0.. .... .... .... .... ....", "st_int", "STXR, STLR and the like: exclusive, ordered"),
    Row("..01 1001 000. .... .... .... .... ....", "st_int", "STLUR: release, unscaled"),
    Row("..01 1001 .... .... .... .... .... ....", "ld_int", "LDAPUR: acquire, unscaled"),
    Row("..01 1100 .... .... .... .... .... ....", "ld_vec", "LDR (literal)"),
    Row("..01 1000 .... .... .... .... .... ....", "ld_int", "LDR (literal), PRFM"),
    Row("..10 110. .1.. .... .... .... .... ....", "ld_vec", "LDP, LDNP"),
    Row("..10 110. .0.. .... .... .... .... ....", "st_vec", "STP, STNP"),
    Row("..10 100. .1.. .... .... .... .... ....", "ld_int", "LDP, LDNP"),
    Row("..10 100. .0.. .... .... .... .... ....", "st_int", "STP, STNP"),
    Row("..11 110. .1.. .... .... .... .... ....", "ld_vec", "LDR, LDUR: opc 01, and 11 for 128 bits"),
    Row("..11 110. .0.. .... .... .... .... ....", "st_vec", "STR, STUR: opc 00, and 10 for 128 bits"),
    Row("..11 1000 ..1. .... .... 00.. .... ....", "ld_int", "LDADD, SWP and the like: atomic, load and store"),
    Row("..11 100. 00.. .... .... .... .... ....", "st_int", "STR, STUR"),
    Row("..11 100. .... .... .... .... .... ....", "ld_int", "LDR, LDUR, signed ones too, PRFM"),
    # The rest.
    Row("...1 01.. .... .... .... .... .... ....", "branch", "branches, exceptions, system instructions"),
    Row(".... .... .... .... .... .... .... ....", "int_other", "integers: immediates and registers"),
)


def class_of(word: int) -> str:
    """The class of an instruction, from its encoding."""
    return next(row.name for row in ROWS if word & row.mask == row.value)


def header() -> str:
    """The table as the C header ``classes.h``."""
    names = ", ".join(f'"{name}"' for name in NAMES)
    rows = "".join(
        f"    {{{row.mask:#010x}u, {row.value:#010x}u, {NAMES.index(row.name)}}}, /* {row.what} */\n" for row in ROWS
    )
    return (
        "/* Made by edgepress/devices/counting/classes.py, which explains it. */\n"
        f"enum {{ CLASSES = {len(NAMES)} }};\n"
        f"static const char *const NAMES[CLASSES] = {{{names}}};\n"
        f"static const struct {{ uint32_t mask, value; int class; }} ROWS[] = {{\n{rows}}};\n"
    )
