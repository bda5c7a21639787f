"""A coded file that was made, and one that was decoded: data, on a terminal and in a pipe."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from edgepress.report import layout, numbers
from edgepress.report.result import dump, load

CODED_FORMAT = "edgepress-coded/1"
DECODED_FORMAT = "edgepress-decoded/1"

MOSTLY = 0.5
"""Share of the coded file from which floats are said to be most of it."""

FLOATS = "floats"
"""What nothing but their exponents can be coded of."""

WORDS = {
    "graph": "graph",
    "integers": "whole numbers",
    "steps": "multiples of steps",
    "codebook": "few distinct values",
    "digits": "packed digits",
    FLOATS: "floats",
    "stored": "plain bytes",
}
"""What is coded how, for people."""


@dataclass(frozen=True, slots=True)
class Part:
    """All tensors that were coded in one way, or the graph.

    Attributes:
        kind: ``graph``, ``integers``, ``steps``, ``codebook``, ``digits``, ``floats`` or ``stored``.
        tensors: how many.
        values: of all of them.
        original: bytes in the ONNX file.
        bytes: in the coded file.
    """

    kind: str
    tensors: int
    values: int
    original: int
    bytes: float

    @property
    def bits(self) -> float | None:
        """Bits of a value; None for the graph."""
        return 8 * self.bytes / self.values if self.values else None


@dataclass(frozen=True, slots=True)
class CodedFile:
    """A coded file that was written.

    Attributes:
        model: path of the ONNX file.
        written: path of the coded file.
        original: bytes of the ONNX file, with weights that it kept elsewhere.
        bytes: of the coded file.
        parts: by the way they were coded; their bytes add up to those of the file.
    """

    model: str
    written: str
    original: int
    bytes: int
    parts: tuple[Part, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller."""
        return self.original / self.bytes

    @property
    def verdict(self) -> str:
        """What to make of it, in a sentence."""
        said = f"Lossless: {numbers.significant(self.ratio)} times smaller, and decoding gives back every byte."
        floats = sum(part.bytes for part in self.parts if part.kind == FLOATS)
        if floats < MOSTLY * self.bytes:
            return said
        share = numbers.percent(floats / self.bytes)
        return f"{said} {share} of it are floats as training left them, of which only the exponents compress."

    def to_json(self) -> str:
        """The page as indented JSON."""
        return dump(CODED_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> CodedFile:
        """Read the page (InputError if it is none)."""
        return load(cls, CODED_FORMAT, text)


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """An ONNX file that was made of a coded file: paths, bytes of both, and the form of its weights."""

    coded: str
    written: str
    coded_bytes: int
    bytes: int
    form: str

    def to_json(self) -> str:
        """The page as indented JSON."""
        return dump(DECODED_FORMAT, self)


def render_coded(made: CodedFile, console: Console) -> None:
    """The page on a terminal."""
    console.print(made.verdict, width=layout.width(console))
    console.print()
    headings = ("", "tensors", "values", "in the model", "in the file", "bits a value")
    layout.show(console, layout.table(console, headings, [_cells(part) for part in made.parts]))
    layout.line(console, "size", f"{numbers.size(made.original)} to {numbers.size(made.bytes)}")
    layout.line(console, "written", made.written)
    layout.line(console, "next", f"edgepress decode {made.written} -o MODEL.onnx")


def _cells(part: Part) -> tuple[str, ...]:
    bits = part.bits
    return (
        WORDS[part.kind],
        str(part.tensors or ""),
        numbers.count(part.values) if part.values else "",
        numbers.size(part.original),
        numbers.size(part.bytes),
        "" if bits is None else numbers.significant(bits),
    )


def coded_pairs(made: CodedFile) -> list[tuple[str, str]]:
    """The page in a pipe."""
    pairs = [
        ("verdict", made.verdict),
        ("original_bytes", str(made.original)),
        ("bytes", str(made.bytes)),
        ("ratio", f"{made.ratio:.3f}"),
    ]
    for part in made.parts:
        pairs.append((f"{part.kind}_bytes", f"{part.bytes:.0f}"))
        if part.bits is not None:
            pairs.append((f"{part.kind}_bits_per_value", f"{part.bits:.3f}"))
    return [*pairs, ("written", made.written)]


def render_decoded(made: DecodedFile, console: Console) -> None:
    """The page on a terminal."""
    console.print(_told(made), width=layout.width(console))
    layout.line(console, "written", made.written)


def decoded_pairs(made: DecodedFile) -> list[tuple[str, str]]:
    """The page in a pipe."""
    return [("bytes", str(made.bytes)), ("form", made.form), ("written", made.written)]


def _told(made: DecodedFile) -> str:
    sizes = f"{numbers.size(made.coded_bytes)} became {numbers.size(made.bytes)}"
    if made.form == "same":
        return f"{sizes}: every byte is that of the file that was encoded."
    return f"{sizes}: weights are stored as {made.form}."
