"""Decoder of coded files: ``python3 decoder.py small.epz small.onnx``.

One file that needs Python 3.8 and numpy, and nothing of edgepress: a device can carry it as it is. ``decode(data)``
gives the bytes of the ONNX file, ``decode_to(data, write)`` gives them in pieces, so that no second copy is held.
What a file holds is specified in docs/coded-file.md. In short::

    file      "EPZ" version, size and CRC-32 of the ONNX file, then three sections: length, bytes, CRC-32
    head      the graph without its weights, and for each hole in it a recipe: how its values are coded
    codes     whole numbers, coded by a range coder (rANS) with adaptive tables
    side      whatever is as good as random: low bits, mantissas, rare large values

Only integers decide what is decoded, so every machine decodes the same bytes. Nothing is allocated before it is clear
that a file of that length can hold it.
"""

from __future__ import annotations

import base64
import bisect
import copy
import functools
import io
import lzma
import os
import struct
import sys
import zlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

MAGIC = b"EPZ"
VERSION = 1

EXPANSION = 1 << 16
"""Bytes that a coded byte may stand for, at the most (weights that are all alike cost next to nothing)."""

ROOM = 1 << 22
"""Bytes that any file may decode to."""

DEEPEST = 32
"""Graphs inside graphs, at the most."""

FEW_ROWS = 1 << 17
"""Rows of a matrix with fewer columns than that, at the most: each takes a moment."""

WRONG = (ArithmeticError, LookupError, TypeError, ValueError, MemoryError, struct.error, lzma.LZMAError, zlib.error)
"""What numpy and the standard library raise over bytes that no encoder wrote."""


class CodedFileError(ValueError):
    """A coded file that cannot be decoded: damaged, of a newer version, or something else altogether."""


def _damaged(what: str) -> CodedFileError:
    return CodedFileError(f"The coded file is damaged ({what}): copy it again.")


# --- the public functions -------------------------------------------------------------------------------------------


def decode(data: bytes) -> bytes:
    """The ONNX file that was encoded, byte for byte.

    Raises:
        CodedFileError: no coded file, one of a newer version, or a damaged one.
    """
    whole = io.BytesIO()
    decode_to(data, whole.write)
    return whole.getvalue()


def decode_to(data: bytes, write: Callable[[Any], Any]) -> int:
    """Hand the ONNX file to ``write`` in pieces; returns its size in bytes.

    The checksum of the whole is the last thing that is checked: what was written is good only once this returns.

    Raises:
        CodedFileError: as :func:`decode`; what was written until then is worthless.
    """
    try:
        with np.errstate(all="ignore"):
            return _decode_to(data, write)
    except WRONG as error:
        if isinstance(error, CodedFileError):
            raise
        raise _damaged(str(error) or type(error).__name__) from error


def _decode_to(data: bytes, write: Callable[[Any], Any]) -> int:
    size, checksum, sections = unwrapped(data)
    recipes = opened(sections[0])
    parts = graph_of(recipes)
    room = ROOM + EXPANSION * len(data)
    if sum(part.size if isinstance(part, Hole) else len(part) for part in parts) != size or size > room:
        raise _damaged("its sizes contradict each other")
    codes = Codes(sections[1])
    values = Values(recipes, codes, Bytes(sections[2]), room)
    seen = 0
    for part in parts:
        made = values.of(part) if isinstance(part, Hole) else part
        seen = zlib.crc32(made, seen)
        write(made)
    codes.finish()
    recipes.finish()
    values.side.finish()
    if seen != checksum:
        raise _damaged("the checksum of the decoded model does not match")
    return size


# --- the container --------------------------------------------------------------------------------------------------


class Bytes:
    """Reads numbers and pieces of a byte string, never past its end."""

    def __init__(self, data: bytes) -> None:
        """Read ``data`` from its start."""
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self.data) - self.at:
            raise _damaged("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """The next whole number from 0: seven bits a byte, the lowest first."""
        made, shift = 0, 0
        while True:
            each = self.byte()
            made |= (each & 127) << shift
            if each < 128:
                return made
            shift += 7
            if shift > 63:
                raise _damaged("a number is too long")

    def signed(self) -> int:
        """The next whole number of either sign: 0, -1, 1, -2, 2, ..."""
        made = self.number()
        return (made >> 1) ^ -(made & 1)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at)

    def mark(self, kind: int, field: int) -> None:
        """Tell what the next bytes are, for a source whose bytes are guessed by that (:class:`Guessed`)."""

    def finish(self) -> None:
        """Check that all was read."""
        if self.at != len(self.data):
            raise _damaged("a part has another size than it should")


def unwrapped(data: bytes) -> Tuple[int, int, List[bytes]]:
    """Size and CRC-32 of the ONNX file, and the three sections, whose checksums are right."""
    if data[:3] != MAGIC:
        raise CodedFileError("This is no coded file (its first bytes are not EPZ): make one with edgepress encode.")
    source = Bytes(memoryview(data))  # type: ignore[arg-type]  # slices of it are no copies
    source.take(3)
    version = source.byte()
    if version != VERSION:
        raise CodedFileError(
            f"The coded file has version {version}, this decoder reads version {VERSION}: take a newer edgepress."
        )
    size = source.number()
    checksum = int.from_bytes(source.take(4), "little")
    sections = []
    for name in ("head", "codes", "side"):
        payload = source.take(source.number())
        if payload and zlib.crc32(payload) != int.from_bytes(source.take(4), "little"):
            raise _damaged(f"the checksum of section {name!r} does not match")
        sections.append(payload)
    if source.rest():
        raise _damaged("something follows its end")
    return size, checksum, sections


# --- bytes ----------------------------------------------------------------------------------------------------------

PLAIN, XZ, GUESSED = range(3)


def lzma_filters(size: int) -> List[Dict[str, int]]:
    """The stdlib's raw LZMA stream of ``size`` bytes: no header, no checksum, no more memory than that."""
    reach = min(1 << 24, max(1 << 12, 1 << (size - 1).bit_length()))
    return [{"id": lzma.FILTER_LZMA1, "dict_size": reach, "lc": 3, "lp": 0, "pb": 0}]


def expanded(data: bytes, most: int) -> bytes:
    """Bytes that were compressed: the method, the size, the data; ``most`` is how many there may be."""
    source = Bytes(data)
    method, size = source.byte(), source.number()
    if size > most:
        raise _damaged("a part is larger than it can be")
    rest: Any = source.rest()
    if method == PLAIN:
        made = rest
    elif method == XZ:
        made = lzma.LZMADecompressor(lzma.FORMAT_RAW, None, lzma_filters(size)).decompress(rest, size)
    else:
        raise _damaged("it names an unknown way to pack bytes")
    if len(made) != size:
        raise _damaged("a part has another size than it should")
    return made  # type: ignore[no-any-return]


# --- bytes that are guessed, bit by bit ------------------------------------------------------------------------------

SQUASH = (1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
          3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094)  # fmt: skip
"""``4096 / (1 + exp(-x / 256))`` at every 128th x from -2048 on."""


def _squash(x: int) -> int:
    if not -2048 < x < 2048:
        return SQUASH[-1] if x > 0 else SQUASH[0]
    place, rest = (x >> 7) + 16, x & 127
    return (SQUASH[place] * (128 - rest) + SQUASH[min(place + 1, 32)] * rest + 64) >> 7


def _stretched() -> List[int]:
    """The inverse: for every probability of 4096 the least x that has it."""
    made: List[int] = []
    for x in range(-2047, 2048):
        made += [x] * (_squash(x) + 1 - len(made))
    return made + [2047] * (4096 - len(made))


STRETCH = _stretched()
OFTEN = 30
RATES = [65536 * 5 // (5 * seen + 7) for seen in range(OFTEN + 1)]
"""How far a bit moves a probability, by how often its context was seen."""

TRUST = [0] + [min(16, 6 + 2 * seen) for seen in range(1, OFTEN + 1)]
"""How much a context counts, in sixteenths, by the same."""

LEARNING = 2
FARTHEST = 31
FIRST_WEIGHT = 18000
VOICES = 9
LONGEST_MATCH = 15
MOST_GUESSED = 1 << 16
"""Bytes of a head that are guessed, at the most: a thousand take a tenth of a second."""


PRIMER = (
    "c-pO2y>BB`5P!4&+B^($-i45J19EAk*j|4pMDh6|5+%wh934nR`|<pd*xtR}wVj+qK}Qb~4Ml`RK}iD*ffGWaKuCvlqC+$^blg9Hn76x*9g{"
    "ufbg?z-c{9JAH}7M9<4+T^%o5hAYub7z9amNh#nt>8rLpe78oCq;6ch%<G|f3K@8|BCgHa|bo>`ha=JtU14xNr_@kXQ(IfDer(x{~xP6Pa}Z"
    "%R0>-8Hz=kQ$P(5K5uQAdgXP-W%rb<0BIlPvOZ^C{ZXgsHEkbF}^fstZkb^YbALG61jc`B5H*}HJ$Y4J1or2Sfx;-P-mdxjMn%WtDFglX=)U"
    "728P(2<F0kR*Hj7y1D=lN?ifZUf)8Qk3|f=yl)3C$4BF|JbCzlLa{KDZ0sdwZfigc)u)$Yvd7D8ey_{>SR&KjzYHIJ!h}&wLdl47^XA-Y;7<"
    "6$@-tMWc%Lkc6pa@r&!V!gI2EFt`uB8`p+q~b;M8z{p<F2g^oaPFMgA(W-gZ^ZJ#kmFcDGVr>EN%{6ymUBUOMgZ*M*C`aaM-q0tCN+JazuPn"
    "(1gMs!LiU3Pm^KdDP4HVLR;~CAjUOsEVTNZN4xOoLR<3nBTpCFvCycm4?JCH<{o)3C>};-V3ff<Lgffb$`kR?Xt2~-2=!c~nOY<yc}v2Dk~b"
    "Dd-)!zItdl=*CHqN<{PpzjwMK$OzXBid=<&f%n+^Fc`5s8*9s>UT;9z}6UW=Yh0Poj+*laAkNj{c*!1?ek1iTylH2{#`zkIa0^U?-+f)U<9z"
    "@H22>pO80{UQJ~KK%LH%`Lh?&Jl1R0N=$tz&R{P<dgAd8zi!a=C2iLy@BS>;iFe%dKINWfq{bcp*n7sO0MZ2=bCpt6ps)}naKXI=UFEFGhu="
    "o=buU_|5O>&LedOaVw$F40jy|^fqs)@<*`Z#SqZ8LNlz4bh^yoANOvalBL>GIV8g3!ue7hvhkXWvka#8oE5v1C?K5~Vlb6lF2?66~KcL_+aG"
    "#5EdlXy-!#T<wG8lzX?ufzoMksg8;N&?e_k_V|2<1LxQa(SsH;IeAK?h0!0ZJya)g1*!1*M2aQCX%D7|SRnG*&Y4ZPo2?JFr(!s%Woe68E{c"
    "xWG|EWBuwgK?jP80Bz<BPtm5K=x8^t(H;<mNFLH4q<jm#?XU#eC>;dMTyBho(nUFXv91!CbQRGR{Jv1U+)E~129eb{Wc>oE&Gr^Vw*9e>q)p"
    "&{uc1MInL(O!$o>V=7TQ0;EH&Yw7)Yr^6Ys!o3j9_=Qo%3DdY<C0JhjLv43BqV`eJoAwG?<)rm!V%EqKI}#)qdm>3kwU%OCil&ZH0G#=meQq"
    "$Kq!vFRc=+T60a<E&z#I9+qVV)@m=Y94*BO?{3zv~@0OQYlwhqg*N}dR42`i@czfDjI$aL#t{^p;9cWI?q>?Lb=>B3VM;N6{DuKxKUSH)p7;"
    "RC0)nh>1lAiqYkj*okN@V%@M~xaQVxbjd{1-aUB-z4%`|cw_+g6zW|U#Jh~NKCN(jB5{x4&q!feO@@*Ugi2;#+^E6+7?4ug6OwwZf<K(Sn^7"
    "?;$09Q@"
)
"""Graphs and recipes of two small networks, which a :class:`Guess` has seen before any other."""


class Guess:
    """Probabilities of the bits of a graph: contexts vote, those that were right before weigh more (logistic mixing).

    A context is what came before (one to six bytes), what the byte is (message, field, place in it), what stood there
    the last time, or a mixture. Source: Mahoney 2005, "Adaptive weighing of context models for lossless data
    compression". All in whole numbers.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.past = bytearray()
        self.nodes: Dict[Any, Dict[int, List[int]]] = {}
        self.weights = [[FIRST_WEIGHT] * (VOICES + 1) for _ in range(2 * VOICES + 2)]
        self.matched: List[List[int]] = [[3500 << 4, 8] for _ in range(LONGEST_MATCH + 1)]
        self.places: Dict[bytes, int] = {}
        self.match, self.length = 0, 0
        self.key: Any = None
        self.now = bytearray()
        self.last: Dict[Any, bytes] = {}

    def twin(self) -> Guess:
        """Another that knows the same."""
        made = copy.copy(self)
        made.past, made.now = bytearray(self.past), bytearray(self.now)
        made.nodes = {key: {bits: list(counter) for bits, counter in node.items()} for key, node in self.nodes.items()}
        made.weights, made.matched = [list(each) for each in self.weights], [list(each) for each in self.matched]
        made.places, made.last = dict(self.places), dict(self.last)
        return made

    def byte(self, kind: int, field: int, index: int, coder: Callable[[int], int]) -> int:
        """The next byte; ``coder`` is given the probability of a 1 in 4096 parts and says what the bit is."""
        key = (kind, field)
        if key != self.key or index == 0:
            if self.key is not None:
                self.last[self.key] = bytes(self.now)
            self.key, self.now = key, bytearray()
        nodes = [self.nodes.setdefault(each, {}) for each in self._contexts(key, index)]
        expected = self.past[self.match] | 256 if self.length else 0
        bits = 1
        for place in range(7, -1, -1):
            guess = expected >> place & 1 if expected and expected >> (place + 1) == bits else -1
            bits = bits << 1 | self._bit(nodes, bits, guess, coder)
        self._learn(bits & 255)
        return bits & 255

    def _contexts(self, key: Tuple[int, int], index: int) -> List[Any]:
        past = self.past
        last = self.last.get(key, b"")
        before = last[index] if index < len(last) else -1
        same = last[:index] == self.now[:index]
        one = past[-1] if past else 0
        return [(0, key, index), (1, key, one), (2, key, bytes(past[-2:])), (3, key[1], bytes(past[-3:])),
                (4, bytes(past[-4:])), (5, bytes(past[-6:])), (6, key, index, before, same), (7, one),
                (8, key, index, before, one)]  # fmt: skip

    def _bit(self, nodes: List[Any], bits: int, guess: int, coder: Callable[[int], int]) -> int:
        inputs, counters, known = [], [], 0
        for node in nodes:
            counter = node.get(bits)
            if counter is None:
                counter = node[bits] = [1 << 15, 0]
                inputs.append(0)
            else:
                inputs.append(STRETCH[counter[0] >> 4] * TRUST[counter[1]] >> 4)
                known += 1
            counters.append(counter)
        matched = self.matched[min(self.length, LONGEST_MATCH)]
        inputs.append(0 if guess < 0 else STRETCH[matched[0] >> 4] * (2 * guess - 1))
        weights = self.weights[2 * known + (guess >= 0)]
        chance = _squash(sum([each * weight for each, weight in zip(inputs, weights)]) >> 16)
        bit = coder(chance)
        error = ((bit << 12) - chance) * LEARNING
        weights[:] = [weight + (each * error + 512 >> 10) for each, weight in zip(inputs, weights)]
        target = bit * 65535
        for counter in counters:
            seen = counter[1]
            counter[0] += (target - counter[0]) * RATES[seen] >> 16
            if seen < OFTEN:
                counter[1] = seen + 1
        if guess >= 0:
            matched[0] += ((bit == guess) * 65535 - matched[0]) >> 6
        return bit

    def _learn(self, value: int) -> None:
        """Append a byte, and find the place where its like came last."""
        right = self.length and self.past[self.match] == value
        self.past.append(value)
        self.now.append(value)
        self.match, self.length = (self.match + 1, self.length + 1) if right else (0, 0)
        recent = bytes(self.past[-4:])
        if not self.length and recent in self.places:
            self.match, self.length = self.places[recent], 1
            before = self.past[: self.match - 1]
            while self.length < LONGEST_MATCH and before[-self.length :] == self.past[-1 - self.length : -1]:
                self.length += 1
        self.places[recent] = len(self.past)


class Guessed(Bytes):
    """Bytes that an arithmetic coder took apart with the chances of a :class:`Guess`."""

    def __init__(self, data: bytes, size: int) -> None:
        """``size`` bytes from the coded ``data``."""
        data = bytes(data)
        super().__init__(data)
        self.size, self.made = size, 0
        self.guess = primed()
        self.low, self.high = 0, 0xFFFFFFFF
        self.value = int.from_bytes((data + bytes(4))[:4], "big")
        self.next = 4
        self.kind, self.field, self.index = 0, 0, 0

    def mark(self, kind: int, field: int) -> None:
        """The next bytes are those of a field."""
        self.kind, self.field, self.index = kind, field, 0

    def byte(self) -> int:
        """The next byte."""
        if self.made >= self.size or self.next > len(self.data) + 8:
            raise _damaged("it ends too early")
        self.made += 1
        value = self.guess.byte(self.kind, self.field, min(self.index, FARTHEST), self._bit)
        self.index += 1
        return value

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > self.size - self.made:
            raise _damaged("it ends too early")
        return bytes([self.byte() for _ in range(count)])

    def finish(self) -> None:
        """Check that all was read."""
        if self.made != self.size:
            raise _damaged("a part has another size than it should")

    def _bit(self, chance: int) -> int:
        middle = self.low + (self.high - self.low >> 12) * chance
        bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) >> 24:
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            following = self.data[self.next] if self.next < len(self.data) else 0
            self.value = self.value << 8 & 0xFFFFFFFF | following
            self.next += 1
        return bit


class Known(Bytes):
    """Bytes that are known already, shown to a :class:`Guess` as they are read."""

    def __init__(self, data: bytes, guess: Guess) -> None:
        """Read ``data`` and teach ``guess``."""
        super().__init__(data)
        self.guess, self.kind, self.field, self.index = guess, 0, 0, 0
        self.value, self.place = 0, 0

    def mark(self, kind: int, field: int) -> None:
        """The next bytes are those of a field."""
        self.kind, self.field, self.index = kind, field, 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        made = super().take(count)
        for self.value in made:
            self.place = 8
            self.guess.byte(self.kind, self.field, min(self.index, FARTHEST), self._bit)
            self.index += 1
        return made

    def _bit(self, chance: int) -> int:
        self.place -= 1
        bit = self.value >> self.place & 1
        self.tell(chance, bit)
        return bit

    def tell(self, chance: int, bit: int) -> None:
        """Hear of a bit and the probability that it was a 1."""


def read_head(source: Bytes, recipes: Sequence[bytes]) -> None:
    """Read the graph and the recipes of a head that is known, as the decoder does."""
    graph_of(source)
    for recipe in recipes:
        source.mark(RECIPE, 0)
        source.take(len(recipe))


@functools.lru_cache(maxsize=1)
def _taught() -> Guess:
    guess = Guess()
    source = Bytes(zlib.decompress(base64.b85decode(PRIMER)))
    while source.at < len(source.data):
        graph = source.take(source.number())
        recipes = [source.take(source.number()) for _ in range(source.number())]
        read_head(Known(graph + b"".join(recipes), guess), recipes)
    return guess


def primed() -> Guess:
    """A guess that has seen the heads of two small networks."""
    return _taught().twin()


# --- the graph: protocol buffers without lengths, and holes where weights stood -------------------------------------

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, VALUE, TYPE, TENSOR_TYPE, SHAPE, LEAF, FUNCTION, RECIPE = range(12)

MESSAGES: Dict[int, Dict[int, int]] = {
    MODEL: {7: GRAPH, 8: LEAF, 14: LEAF, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 11: VALUE, 12: VALUE, 13: VALUE, 16: LEAF},
    FUNCTION: {7: NODE, 9: LEAF, 11: ATTRIBUTE, 12: VALUE, 14: LEAF},
    NODE: {5: ATTRIBUTE, 9: LEAF},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH},
    TENSOR: {16: LEAF},
    VALUE: {2: TYPE, 4: LEAF},
    TYPE: {1: TENSOR_TYPE},
    TENSOR_TYPE: {2: SHAPE},
    SHAPE: {1: LEAF},
    LEAF: {},
}
"""Fields of ONNX's messages that are messages themselves; all others are kept as they are."""

DIMS, DATA_TYPE, FLOAT_DATA, RAW_DATA = 1, 2, 4, 9
HOLE = 3
"""Wire type that marks a hole (protocol buffers gave it up, ONNX never used it). As a tag of its own: any bytes."""

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
        17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
"""Bits of an element by ONNX's number of its type."""

SIGNED = (3, 5, 6, 7, 22, 26)
"""Types of whole numbers with a sign."""

FLOAT, BYTE, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 10, 11, 16
MANTISSAS = {FLOAT: 23, FLOAT16: 10, BFLOAT16: 7}


class Hole:
    """Where values of a tensor go: type, dimensions, bytes."""

    def __init__(self, kind: int, dims: Sequence[int]) -> None:
        """A hole for a tensor of ONNX's type ``kind``."""
        self.kind, self.dims = kind, tuple(dims)
        self.bits = BITS.get(kind, 0)
        self.count = 1
        for each in dims:
            self.count *= each
        self.size = -(-self.count * self.bits // 8)
        if not self.bits or not 0 <= self.count < 1 << 48:
            raise _damaged("a tensor has an impossible shape")


def number(value: int) -> bytes:
    """A whole number from 0 as protocol buffers write it."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def opened(section: bytes) -> Bytes:
    """The bytes of the head, as a source: graph, then recipes."""
    if section[:1] != bytes([GUESSED]):
        return Bytes(expanded(section, ROOM + EXPANSION * len(section)))
    source = Bytes(section)
    source.byte()
    size = source.number()
    if size > MOST_GUESSED:
        raise _damaged("a part is larger than it can be")
    return Guessed(source.rest(), size)


def graph_of(source: Bytes) -> List[Any]:
    """The ONNX file as pieces of bytes and holes, from a source of tokens."""
    merged: List[Any] = []
    gathered: List[bytes] = []
    for part in _message(source, MODEL, 0):
        if isinstance(part, Hole):
            merged += [b"".join(gathered), part]
            gathered = []
        else:
            gathered.append(part)
    return [*merged, b"".join(gathered)]


def _message(source: Bytes, kind: int, depth: int) -> List[Any]:
    """One message up to its end mark, as pieces of bytes and holes."""
    if depth > 4 * DEEPEST:
        raise _damaged("its graphs are nested too deeply")
    parts: List[Any] = []
    dims: List[int] = []
    element = 0
    field = 0
    while True:
        source.mark(kind, -1 - field)
        tag = source.number()
        if tag == 0:
            return parts
        field, wire = tag >> 3, tag & 7
        source.mark(kind, field)
        if tag == HOLE:
            parts.append(Hole(BYTE, [source.number()]))
        elif wire == 0:
            value = source.number()
            parts.append(number(tag) + number(value))
            if kind == TENSOR and field == DIMS:
                dims.append(value)
            if kind == TENSOR and field == DATA_TYPE:
                element = value
        elif wire == HOLE:
            hole = Hole(element, dims)
            parts += [number(tag - 1) + number(hole.size), hole]
        elif wire == 2 and field in MESSAGES[kind]:
            inner = _message(source, MESSAGES[kind][field], depth + 1)
            length = sum(part.size if isinstance(part, Hole) else len(part) for part in inner)
            parts += [number(tag) + number(length), *inner]
        else:
            length = source.number() if wire == 2 else {1: 8, 5: 4}.get(wire, -1)
            if length < 0:
                raise _damaged("its graph has a field of an unknown kind")
            source.mark(kind, -1000 - field)
            parts.append(number(tag) + (number(length) if wire == 2 else b"") + source.take(length))


# --- adaptive tables ------------------------------------------------------------------------------------------------

MOST = 31
"""Largest symbol, up or down; what is larger is an escape."""

EDGES = (1, 3, 6, 10, 15, 22, 31, 42, 56, 76, 105, 150, 240, 380, 600)
"""Bounds of the classes of expected magnitude, in units of 1 / ``UNIT``."""

UNIT = 52
CLASSES = len(EDGES) + 1
CENTRES = (1, 4, 9, 16, 25, 37, 53, 73, 98, 132, 181, 255, 390, 620, 980, 1600)
"""Twice the middle of each class, in the same units."""

CLASS_OF = np.searchsorted(np.array(EDGES), np.arange(EDGES[-1] + 1), side="right").astype(np.int64)
"""The class of every expected magnitude."""

WEIGHT = 32
"""What one symbol adds to its count."""

STRENGTH = 48
"""Symbols that the first expectation is worth."""

MEMORY = 400
"""Symbols that a class remembers from the matrices before."""

LAPLACE, GAUSS = 0, 1


def _falling(ratio: int, shape: int) -> List[int]:
    """Weights of the magnitudes 0 .. MOST: each is the one before times ``ratio / 2^16`` (Gauss: ever smaller)."""
    made, step = [1 << 24], ratio
    for _ in range(MOST):
        made.append(made[-1] * step >> 16)
        if shape == GAUSS:
            step = step * (ratio * ratio >> 16) >> 16
    return made


def _expected(centre: int, shape: int) -> List[int]:
    """Counts of the symbols -MOST .. MOST whose mean magnitude is ``centre / (2 UNIT)``."""
    low, high = 0, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        weights = _falling(middle, shape)
        total = weights[0] + 2 * sum(weights[1:])
        mean = sum(2 * size * weight for size, weight in enumerate(weights))
        low, high = (middle, high) if mean * 2 * UNIT < centre * total else (low, middle)
    weights = _falling(low, shape)
    total = weights[0] + 2 * sum(weights[1:])
    return [max(1, weights[abs(symbol)] * STRENGTH * WEIGHT // total) for symbol in range(-MOST, MOST + 1)]


_PRIORS: Dict[int, np.ndarray] = {}


def prior(shape: int) -> np.ndarray:
    """Counts before anything was seen: int64 ``[CLASSES, 2 MOST + 1]``."""
    if shape not in _PRIORS:
        _PRIORS[shape] = np.array([_expected(centre, shape) for centre in CENTRES], np.int64)
    return _PRIORS[shape]


class Tables:
    """Counts of symbols by class, and the frequencies that are made of them now and then.

    ``frequencies`` is int64 ``[CLASSES, 2 limit + 1]`` and sums to ``1 << precision`` in every class. Both ends call
    ``learn`` with the same symbols in the same order, so both have the same tables.
    """

    def __init__(self, precision: int, leanings: int = 1) -> None:
        """Tables that know only the priors; ``precision`` is the bits of a frequency.

        With ``leanings`` there are as many tables in place of each, one after the other.
        """
        self.precision, self.leanings, self.classes = precision, leanings, CLASSES * leanings
        self.counts = self._prior(LAPLACE)
        self.pending: List[np.ndarray] = []
        self.begin(MOST, LAPLACE)

    def _prior(self, shape: int) -> np.ndarray:
        return np.repeat(prior(shape), self.leanings, 0)

    def begin(self, limit: int, shape: Optional[int]) -> None:
        """A new matrix of symbols -limit .. limit; ``shape`` forgets all that was learned before."""
        if self.pending:
            self._count()
        if shape is None:
            total = self.counts.sum(1, keepdims=True)
            most = MEMORY * WEIGHT
            self.counts = np.where(total > most, np.maximum(1, self.counts * most // total), self.counts)
        else:
            self.counts = self._prior(shape)
        self.limit, self.width = limit, 2 * limit + 1
        self.waiting, self.seen = 0, 0
        self._renew()

    def learn(self, classes: Any, symbols: np.ndarray) -> None:
        """Count symbols (0 .. 2 limit) that were coded with these classes."""
        self.pending.append(np.add(classes * self.width, symbols, dtype=np.int64))
        self.waiting += len(symbols)
        if self.waiting >= max(64, self.seen >> 3):
            self._count()
            self._renew()

    def _count(self) -> None:
        met = np.bincount(np.concatenate(self.pending), minlength=self.classes * self.width)
        low = MOST - self.limit
        self.counts[:, low : low + self.width] += met.reshape(self.classes, self.width) * WEIGHT
        self.seen += self.waiting
        self.pending, self.waiting = [], 0

    def _renew(self) -> None:
        low, whole = MOST - self.limit, 1 << self.precision
        counts = self.counts[:, low : low + self.width]
        made = 1 + counts * (whole - self.width) // counts.sum(1, keepdims=True)
        made[np.arange(self.classes), counts.argmax(1)] += whole - made.sum(1)
        self.frequencies = made
        self.starts = np.cumsum(made, 1) - made
        self.lookup: Any = None


# --- what is expected of each number of a matrix --------------------------------------------------------------------

ALIKE, BY_ROW, BY_CROSS, IN_KERNEL = 0, 1, 2, 3

LEANINGS = 4
"""How far the neighbours in a kernel lean to one side: 0, 1, 2, more."""

LEVELS = (2, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 51, 64, 81, 102, 128, 161, 203, 256, 323, 406, 512, 645, 813,
          1024, 1290, 1625, 2048, 2580, 3251, 4096, 5161, 6502)  # fmt: skip
"""Mean magnitude of a row by its level, in 256ths: a third of an octave apart."""

RAMP = 5
"""Columns are the plain mean of the first ``2^RAMP`` rows, then a running mean of that length."""


class Expectation:
    """Classes of the numbers of a matrix, row by row, known before the row is.

    mode       class of (row, column)
    ALIKE      the same everywhere
    BY_ROW     by the level of the row, which the file tells
    BY_CROSS   by level of the row times mean magnitude of the column in the rows before, over the mean level
    IN_KERNEL  the same, and by the sum of the neighbours to the left and above in the kernel of a convolution:
               its rows are the places of a kernel, one kernel after the other, its columns are channels.
               Where the sum is below 0, ``signs`` is -1, and the symbols stand for the numbers of the other sign.
    """

    def __init__(
        self, mode: int, mean: int, levels: np.ndarray, columns: int, kernel: Tuple[int, int] = (1, 1)
    ) -> None:
        """``mean`` counts where all are alike, ``levels`` [rows] where they are not; ``kernel``: places, width."""
        self.mode, self.row = mode, 0
        self.places, self.width = kernel
        self.alike = int(CLASS_OF[min(mean, EDGES[-1])])
        self.rows = np.array(LEVELS, np.int64)[levels]
        self.middle = max(1, int(self.rows.sum()) // max(1, len(self.rows)))
        self.column = np.full(columns, self.middle >> 1, np.int64)
        self.nothing = np.zeros(columns, np.int8)
        self.recent: List[np.ndarray] = []
        self.signs: Any = None

    def classes(self) -> Any:
        """Classes of the next row: one number, or int64 ``[columns]``."""
        if self.mode == ALIKE:
            return self.alike
        level = int(self.rows[self.row])
        if self.mode == BY_ROW:
            return int(CLASS_OF[min(level * UNIT >> 8, EDGES[-1])])
        factor = level * UNIT * 512 // self.middle
        made = CLASS_OF[np.minimum(self.column * factor >> 16, EDGES[-1])]
        if self.mode == BY_CROSS:
            return made
        place = self.row % self.places
        if place == 0:
            self.recent = []
        left = self.recent[place - 1] if place % self.width else self.nothing
        above = self.recent[place - self.width] if place >= self.width else self.nothing
        leaning = left + above
        self.signs = np.where(leaning < 0, -1, 1).astype(np.int8)
        return made * LEANINGS + np.minimum(np.abs(leaning), LEANINGS - 1)

    def learn(self, numbers: np.ndarray, floored: bool) -> None:
        """Go on to the next row; of numbers whose low bits were cut off, -1 is as near to zero as 0."""
        if self.mode >= BY_CROSS:
            wide = numbers.astype(np.int64)
            scaled = (wide ^ wide >> 63 if floored else np.abs(wide)) << 7
            if self.row < 1 << RAMP:
                self.column = (self.column * (self.row + 2) + scaled) // (self.row + 3)
            else:
                self.column += (scaled - self.column) >> RAMP
        if self.mode == IN_KERNEL:
            self.recent.append(numbers)
        self.row += 1


# --- the range coder ------------------------------------------------------------------------------------------------

FINE, COARSE = 16, 13
"""Bits of a frequency: of a single lane, which plain Python decodes; of many, which numpy decodes side by side."""

CHUNK = 1 << 23
"""Symbols after which the lanes are emptied, at the end of a row: what an encoder must hold in memory."""

MOST_LANES = 1 << 11

MOST_SINGLE = 1 << 24
"""Symbols of a single lane, at the most: a million take half a second."""

EMPTY = np.uint32(1 << 16)
"""The state that the lanes of an encoder start from. A single lane starts from 0: no lane can take its words."""


SLOT = np.uint32((1 << COARSE) - 1)


class Codes:
    """Whole numbers from the section of codes; ``tables`` for matrices, ``levels`` for levels of rows."""

    def __init__(self, data: bytes) -> None:
        """Read the section ``data``; an empty one has no codes."""
        source = Bytes(data)
        lanes = source.number() if data else 1
        if not 1 <= lanes <= MOST_LANES:
            raise _damaged("it has an impossible number of lanes")
        self.lanes = lanes
        self.coder: Any = Single(source) if lanes == 1 else Lanes(source, lanes)
        precision = FINE if lanes == 1 else COARSE
        self.tables, self.levels = Tables(precision), Tables(precision)
        self.kernels = Tables(precision, LEANINGS)

    def row(self, tables: Tables, classes: Any, count: int) -> np.ndarray:
        """The next ``count`` symbols, learned: uint8, 0 .. 2 limit."""
        symbols: np.ndarray = self.coder.row(tables, classes, count)
        tables.learn(classes, symbols)
        return symbols

    def finish(self) -> None:
        """Check that all was read, and that it was what an encoder wrote."""
        self.coder.finish()


def widths(count: int, lanes: int) -> List[int]:
    """Lengths of the rows that ``count`` numbers without rows of their own are coded in."""
    width = 256 if lanes == 1 else 4 * lanes
    whole, rest = divmod(count, width)
    return [width] * whole + [rest] * (rest > 0)


class Single:
    """One lane: a state under 2^48 and words of 16 bits."""

    def __init__(self, source: Bytes) -> None:
        """Read the state, then all words."""
        self.state = int.from_bytes(source.take(6), "little") if source.data else 0
        self.words = np.frombuffer(source.rest(), "<u2").tolist()
        self.at, self.count = 0, 0

    def row(self, tables: Tables, classes: Any, count: int) -> np.ndarray:
        """Decode ``count`` symbols."""
        self.count += count
        if self.count > MOST_SINGLE:
            raise _damaged("it has more numbers than one lane is given")
        if tables.lookup is None:
            tables.lookup = (tables.frequencies.tolist(), tables.starts.tolist())
        frequencies, starts = tables.lookup
        state, at, words, whole = self.state, self.at, self.words, len(self.words)
        mask = (1 << FINE) - 1
        each = [classes] * count if isinstance(classes, int) else classes.tolist()
        made = bytearray(count)
        for place, kind in enumerate(each):
            slot = state & mask
            begin = starts[kind]
            symbol = bisect.bisect_right(begin, slot) - 1
            state = frequencies[kind][symbol] * (state >> FINE) + slot - begin[symbol]
            while state < 1 << 32 and at < whole:
                state = state << 16 | words[at]
                at += 1
            made[place] = symbol
        self.state, self.at = state, at
        return np.frombuffer(made, np.uint8)

    def finish(self) -> None:
        """The state that an encoder starts from must be left."""
        if self.state or self.at != len(self.words):
            raise _damaged("its codes do not end where they should")


class Lanes:
    """Many lanes side by side: states of 32 bits, words of 16 bits that the lanes take in turn."""

    def __init__(self, source: Bytes, lanes: int) -> None:
        """Read the words of ``lanes`` lanes."""
        self.lanes = lanes
        self.words = np.frombuffer(source.rest(), "<u2")
        self.at, self.left = 0, 0
        self.states = np.full(lanes, EMPTY, np.uint32)

    def _open(self) -> None:
        """The states of the next chunk."""
        self.finish_chunk()
        end = self.at + 2 * self.lanes
        if end > len(self.words):
            raise _damaged("its codes end too early")
        self.states = self.words[self.at : end].copy().view("<u4").astype(np.uint32)
        self.at, self.left = end, CHUNK

    def row(self, tables: Tables, classes: Any, count: int) -> np.ndarray:
        """Decode ``count`` symbols."""
        if self.left <= 0:
            self._open()
        if tables.lookup is None:
            tables.lookup = _lookup(tables)
        made = np.empty(count, np.uint8)
        whole = isinstance(classes, int)
        for start in range(0, count, self.lanes):
            stop = min(start + self.lanes, count)
            self._step(tables, np.int64(classes) if whole else classes[start:stop], made[start:stop])
        self.left -= count
        return made

    def _step(self, tables: Tables, classes: Any, made: np.ndarray) -> None:
        slots_to_symbols, ranges = tables.lookup
        states = self.states[: len(made)]
        slots = states & SLOT
        np.take(slots_to_symbols, (classes << COARSE) + slots.astype(np.int64), out=made, mode="clip")
        found = ranges.take(classes * tables.width + made, mode="clip")
        states >>= np.uint32(COARSE)
        states *= found >> np.uint32(16)
        states += slots
        states -= found & np.uint32(0xFFFF)
        low = np.flatnonzero(states < EMPTY)
        if len(low):
            words = self.words[self.at : self.at + len(low)]
            if len(words) < len(low):
                raise _damaged("its codes end too early")
            self.at += len(words)
            states[low] = states[low] << np.uint32(16) | words

    def finish_chunk(self) -> None:
        """The states that an encoder starts from must be left."""
        if (self.states != EMPTY).any():
            raise _damaged("its codes do not end where they should")

    def finish(self) -> None:
        """All chunks must be read."""
        self.finish_chunk()
        if self.at != len(self.words):
            raise _damaged("its codes do not end where they should")


def _lookup(tables: Tables) -> Tuple[np.ndarray, np.ndarray]:
    """The symbol of every class and slot; the frequency and start (high and low 16 bits) of every class and symbol."""
    frequencies = tables.frequencies.ravel()
    symbols = np.repeat(np.tile(np.arange(tables.width, dtype=np.uint8), tables.classes), frequencies)
    return symbols, (frequencies << 16 | tables.starts.ravel()).astype(np.uint32)


# --- matrices of whole numbers --------------------------------------------------------------------------------------

MODE, FRESH_LAPLACE, FRESH_GAUSS, TURNED, ESCAPES, SHIFTED, COLUMNS = 3, 4, 8, 16, 32, 64, 128
"""Bits of the first byte of a recipe of whole numbers."""

LEVEL_CLASS = 8
"""Class of the levels of rows, about their base."""

BLOCK = 1 << 20


class Layout:
    """How the numbers of a tensor are laid out as a matrix: the same at both ends.

    ``outer x inner x places`` numbers as the tensor has them. Without a kernel there is one place, rows are outer and
    columns inner, or the other way round where ``turned``. With one, a row is one place of all inner kernels of an
    outer index (the other way round where turned).
    """

    def __init__(self, count: int, columns: int, places: int, width: int, turned: bool) -> None:
        """``count`` numbers, ``columns`` of them for each outer index; ``places`` of a kernel, in rows of ``width``."""
        columns, places = max(1, columns), max(1, places)
        self.shape = (count // columns, columns // places, places)
        self.kernel, self.turned = (places, max(1, width)), turned
        if self.shape[0] * self.shape[1] * self.shape[2] != count or places % self.kernel[1]:
            raise _damaged("a matrix has an impossible shape")
        first, second = self.shape[1::-1] if turned else self.shape[:2]
        self.rows, self.columns = first * places, second
        self.levels = self.rows if first == 1 else first
        """How many levels there are: one for each first index, or for each row if there is a single one."""
        if self.rows > max(FEW_ROWS, self.columns):
            raise _damaged("a matrix has too many rows")

    @classmethod
    def of(cls, mode: int, count: int, shape: Tuple[int, int, int], turned: bool) -> Layout:
        """The layout of a mode, for a shape as :func:`shape_of` gives it."""
        if mode == ALIKE:
            return cls(count, count, 1, 1, False)
        return cls(count, shape[0], *(shape[1:] if mode == IN_KERNEL else (1, 1)), turned=turned)

    def each_row(self, levels: np.ndarray) -> np.ndarray:
        """The level of every row."""
        return np.repeat(levels, self.rows // max(1, self.levels))

    def laid(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers in the order of the tensor as the matrix, ``[rows, columns]``."""
        axes = (1, 2, 0) if self.turned else (0, 2, 1)
        return np.ascontiguousarray(numbers.reshape(self.shape).transpose(axes)).reshape(self.rows, self.columns)

    def back(self, numbers: np.ndarray) -> np.ndarray:
        """A matrix in the order of the tensor, flat."""
        outer, inner, places = self.shape
        if self.turned:
            return np.ascontiguousarray(numbers.reshape(inner, places, outer).transpose(2, 0, 1)).ravel()
        return np.ascontiguousarray(numbers.reshape(outer, places, inner).transpose(0, 2, 1)).ravel()


def matrix(recipe: Bytes, codes: Codes, side: Bytes, count: int, shape: Sequence[int]) -> np.ndarray:
    """Whole numbers as their recipe says: ``count`` of them, in order, int8 to int64.

    The recipe: flags, limit; columns, places of a kernel and its width if they are not those of the tensor's ``shape``;
    offset and shift if there are any; then the mean (``ALIKE``), or base and limit of the levels of rows.
    """
    flags, limit = recipe.byte(), recipe.byte()
    if limit > MOST:
        raise _damaged("it names an impossible symbol")
    columns, places, width = shape_of(shape, count)
    if flags & COLUMNS:
        columns, places, width = recipe.number(), recipe.number(), recipe.number()
    offset, shift = (recipe.signed(), recipe.byte()) if flags & SHIFTED else (0, 0)
    if shift > 62:
        raise _damaged("it names an impossible shift")
    mode = flags & MODE
    layout = Layout.of(mode, count, (columns, places, width), bool(flags & TURNED))
    tables = codes.kernels if mode == IN_KERNEL else codes.tables
    tables.begin(limit, LAPLACE if flags & FRESH_LAPLACE else GAUSS if flags & FRESH_GAUSS else None)
    made = _coded_rows(recipe, codes, tables, mode, layout, bool(shift))
    if flags & (ESCAPES | SHIFTED):
        return _corrected(made, side, limit if flags & ESCAPES else 0, shift, offset)
    return made


def shape_of(shape: Sequence[int], count: int) -> Tuple[int, int, int]:
    """Columns, places of a kernel and its width, of a tensor of some shape: kernels are what is beyond two axes."""
    columns = count // shape[0] if len(shape) > 1 and shape[0] else count
    places = 1
    for size in shape[2:]:
        places *= size
    return columns, max(1, places), max(1, shape[-1]) if len(shape) > 2 else 1


def _coded_rows(recipe: Bytes, codes: Codes, tables: Tables, mode: int, layout: Layout, floored: bool) -> np.ndarray:
    count = layout.rows * layout.columns
    made = np.empty(count, np.int8)
    if mode == ALIKE:
        expectation = Expectation(mode, recipe.number(), np.zeros(0, np.int64), 0)
        lengths = widths(count, codes.lanes)
    else:
        levels = layout.each_row(_levels(recipe, codes, layout.levels if count else 0))
        expectation = Expectation(mode, 0, levels, layout.columns, layout.kernel)
        lengths = [layout.columns] * layout.rows if count else []
    start = 0
    for length in lengths:
        row = made[start : start + length]
        row[:] = codes.row(tables, expectation.classes(), length)
        row -= tables.limit
        if mode == IN_KERNEL:
            row *= expectation.signs
        expectation.learn(row, floored)
        start += length
    return made if mode == ALIKE or not count else layout.back(made)


def _levels(recipe: Bytes, codes: Codes, rows: int) -> np.ndarray:
    base, limit = recipe.byte(), recipe.byte()
    codes.levels.begin(min(limit, MOST), None)
    levels = base + codes.row(codes.levels, LEVEL_CLASS, rows).astype(np.int64) - limit if rows else np.zeros(0, int)
    if limit > MOST or (levels < 0).any() or (levels >= len(LEVELS)).any():
        raise _damaged("it names an impossible level")
    return levels


def _corrected(small: np.ndarray, side: Bytes, limit: int, shift: int, offset: int) -> np.ndarray:
    """The numbers in full: escapes, low bits, offset. Those of ``limit`` or more are told apart in the side section."""
    places = np.flatnonzero((small == limit) | (small == -limit)) if limit else np.zeros(0, np.int64)
    excess = np.array([side.number() for _ in range(len(places))], np.uint64).astype(np.int64)
    bound = abs(offset) + (MOST + 1 + max(0, int(excess.max(initial=0)), -int(excess.min(initial=0))) << shift)
    made: Any = small.astype(np.int16 if bound < 1 << 15 else np.int32 if bound < 1 << 31 else np.int64)
    made[places] += np.where(small[places] > 0, excess, -excess).astype(made.dtype)
    for start in range(0, len(made) if shift else 0, BLOCK):
        part: Any = made[start : start + BLOCK]
        packed = np.frombuffer(side.take(-(-len(part) * shift // 8)), np.uint8)
        bits = np.unpackbits(packed, count=len(part) * shift).reshape(len(part), shift)
        part <<= shift
        for place in range(shift):
            part |= bits[:, place].astype(part.dtype) << (shift - 1 - place)
    made += np.asarray(offset).astype(made.dtype)
    return np.asarray(made)


# --- tensors --------------------------------------------------------------------------------------------------------

STORED, INTEGERS, STEPS, BOOK, SPLIT, DIGITS, HALVES = range(7)

KINDS = {1: "<f4", 2: "<u1", 3: "<i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "<u1", 10: "<u2", 11: "<u8",
         12: "<u4", 13: "<u8", 16: "<u2"}  # fmt: skip
"""numpy's name of ONNX's types; floats that numpy lacks, or whose bits matter, as whole numbers."""

ONE_STEP, STEP_EACH, STEP_GRID = 0, 1, 2
LAST_AXIS, ZERO_SIGNS = 4, 8
"""Bits of the first byte of a recipe of steps."""

OCTAVE = 64
"""Codes of a grid of steps that double the step."""


def _powers() -> np.ndarray:
    """``2^(k / 64)`` for k = 0 .. 63, correctly rounded: from whole numbers, since no two libraries' pow agree."""
    bits, made = 400, [1 << 400]
    roots = []
    root = 2 << bits
    for _ in range(6):  # 2^(1/2), 2^(1/4), .. 2^(1/64)
        root = _square_root(root << bits)
        roots.append(root)
    for value in roots:
        made = [each for one in made for each in (one, one * value >> bits)]
    return np.array([value / (1 << bits) for value in made], np.float64)


def _square_root(value: int) -> int:
    guess = 1 << (value.bit_length() + 1) // 2
    while True:
        better = (guess + value // guess) >> 1
        if better >= guess:
            return guess
        guess = better


POWERS = _powers()


def grid_steps(base: float, codes: Any) -> np.ndarray:
    """Steps on a grid, float32: ``base * 2^(code / 64)`` in double precision, rounded once. The same everywhere."""
    codes = np.asarray(codes, np.int64)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(np.float64(base) * POWERS[codes % OCTAVE], codes // OCTAVE), np.float32)


class Values:
    """Makes the values of holes, one after the other."""

    def __init__(self, recipes: Bytes, codes: Codes, side: Bytes, room: int) -> None:
        """``room`` bounds what may be allocated."""
        self.recipes, self.codes, self.side, self.room = recipes, codes, side, room

    def of(self, hole: Hole) -> Any:
        """The bytes of the next hole."""
        self.recipes.mark(RECIPE, 0)
        return self._made(hole)

    def _made(self, hole: Hole) -> Any:
        makers = (self._stored, self._integers, self._steps, self._book, self._split, self._digits, self._halves)
        method = self.recipes.byte()
        if method >= len(makers):
            raise _damaged("it names an unknown way to code a tensor")
        made = makers[method](hole)
        view = memoryview(made) if isinstance(made, bytes) else np.ascontiguousarray(made).data.cast("B")
        if len(view) != hole.size:
            raise _damaged("a tensor has another size than it should")
        return view

    def _blob(self, size: int) -> bytes:
        """Bytes of the side section, compressed or not."""
        return expanded(self.side.take(self.side.number()), size)

    def _whole(self, hole: Hole) -> np.ndarray:
        return matrix(self.recipes, self.codes, self.side, hole.count, hole.dims)

    def _stored(self, hole: Hole) -> bytes:
        return self._blob(hole.size)

    def _integers(self, hole: Hole) -> np.ndarray:
        whole = self._whole(hole)
        if hole.bits < 8:
            return _packed(whole, hole.bits)
        return whole.astype(_kind(hole), copy=False)

    def _steps(self, hole: Hole) -> np.ndarray:
        """``float(q) * step`` in single precision, one rounding, the same on every machine."""
        flags = self.recipes.byte()
        axis = hole.dims[-1:] if flags & LAST_AXIS else hole.dims[:1]
        rows = axis[0] if axis else 1
        if rows > max(1, hole.count):
            raise _damaged("a tensor has more steps than values")
        kind = flags & 3
        if kind == STEP_GRID:
            base = struct.unpack("<d", self.recipes.take(8))[0]
            steps = grid_steps(base, matrix(self.recipes, self.codes, self.side, rows, ()))
        elif kind == STEP_EACH:
            steps = np.frombuffer(self._blob(4 * rows), "<f4")
        else:
            steps = np.frombuffer(self.recipes.take(4), "<f4")
        whole = self._whole(hole)
        made = whole.astype("<f4")
        if kind == ONE_STEP:
            made *= steps[0]
        elif flags & LAST_AXIS:
            made.reshape(-1, rows)[...] *= steps
        else:
            made.reshape(rows, -1)[...] *= steps[:, None]
        if flags & ZERO_SIGNS:
            zeros = np.flatnonzero(whole == 0)
            signs = np.unpackbits(np.frombuffer(self.side.take(-(-len(zeros) // 8)), np.uint8), count=len(zeros))
            made[zeros[signs == 1]] = -0.0
        return made

    def _book(self, hole: Hole) -> np.ndarray:
        kind = np.dtype(_kind(hole))
        size = self.recipes.number()
        book = np.frombuffer(self._blob(size * kind.itemsize), kind)
        return np.asarray(book[self._whole(hole)])

    def _split(self, hole: Hole) -> np.ndarray:
        """Exponents as whole numbers; signs and mantissas in planes of bytes, the highest first."""
        kind, mantissa = np.dtype(_kind(hole).replace("f", "u")), MANTISSAS.get(hole.kind, 0)
        exponent = self._whole(hole).astype(kind)
        rest = np.zeros(hole.count, kind)
        for place in range(mantissa // 8, -1, -1):
            plane = np.frombuffer(self._blob(hole.count), np.uint8)
            rest |= plane.astype(kind) << kind.type(8 * place)
        exponent <<= kind.type(mantissa)
        exponent |= rest & kind.type((1 << mantissa) - 1)
        exponent |= rest >> kind.type(mantissa) << kind.type(8 * kind.itemsize - 1)
        return exponent

    def _digits(self, hole: Hole) -> np.ndarray:
        """Words whose digits are the numbers: the first digit has the least weight, the last word zeros at its end."""
        base, each, missing = self.recipes.number(), self.recipes.byte(), self.recipes.byte()
        count = hole.count * each - missing
        if (
            not 2 <= base <= 256
            or not 1 <= each <= hole.bits
            or base**each > 1 << hole.bits
            or not 0 <= missing < each
            or count < 0
        ):
            raise _damaged("it names impossible digits")
        digits = np.zeros(hole.count * each, np.uint8)
        digits[:count] = matrix(self.recipes, self.codes, self.side, count, ())
        words = np.zeros(hole.count, np.uint64)
        for place in range(each):
            words += digits[place::each].astype(np.uint64) * np.uint64(base**place)
        return np.asarray(words.astype(_kind(hole)))

    def _halves(self, hole: Hole) -> np.ndarray:
        if hole.kind != FLOAT:
            raise _damaged("a tensor has a type that cannot be coded in this way")
        inner = self._made(Hole(FLOAT16, hole.dims))
        return np.frombuffer(inner, "<f2").astype("<f4")


def _kind(hole: Hole) -> str:
    if hole.kind not in KINDS:
        raise _damaged("a tensor has a type that cannot be coded in this way")
    return KINDS[hole.kind]


def _packed(whole: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of 4 or 2 bits in bytes, the first in the lowest bits."""
    each = 8 // bits
    padded = np.zeros(-(-len(whole) // each) * each, np.uint8)
    padded[: len(whole)] = whole & ((1 << bits) - 1)
    made = np.zeros(len(padded) // each, np.uint8)
    for place in range(each):
        made |= padded[place::each] << (bits * place)
    return made


# --- the command ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """``decoder.py FILE.epz FILE.onnx``: decode beside the place, then rename."""
    if len(arguments) != 2:
        print("usage: decoder.py FILE.epz FILE.onnx", file=sys.stderr)
        return 2
    beside = f"{arguments[1]}.{os.getpid()}.part"
    try:
        with open(arguments[0], "rb") as source:
            data = source.read()
        with open(beside, "wb") as target:
            decode_to(data, target.write)
        os.replace(beside, arguments[1])
    except (CodedFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
