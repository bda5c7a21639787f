"""The encoding end of the range coder (rANS): what ``decoder`` takes apart, put together back to front.

    state = state // f * 2^p + state % f + start           f, start: frequency and place of the symbol, p: their bits

A state that would grow too large gives its low 16 bits to the output first. The decoder reads forward what was coded
backward, so symbols are collected with the tables of their time, and coded when a chunk is full.

Source: Duda 2013, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate
of arithmetic coding" (arXiv 1311.2540); Giesen 2014, "Interleaved entropy coders" (arXiv 1402.3392): the lanes.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgepress.codec.decoder import CHUNK, COARSE, EMPTY, FINE, LEANINGS, MOST_LANES, Tables, number
from edgepress.codec.room import Pages, room

PER_LANE = 4096
"""Symbols that pay for the state of a lane: about half a kilobyte of codes for four bytes."""

FEW_SYMBOLS = 1 << 20
"""Up to here one lane is decoded in a moment, and four bytes are worth having."""


def lanes_for(symbols: int, widest: int) -> int:
    """How many lanes a file gets.

    Args:
        symbols: numbers that it codes.
        widest: columns of its widest matrix; further lanes would never be used.
    """
    return 1 if symbols <= FEW_SYMBOLS else max(2, min(MOST_LANES, symbols // PER_LANE, widest))


MORE = 1 << 20
"""Symbols that room is made for beyond what is needed: memory that stays in one piece leaves no gaps behind."""

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows of symbols: frequencies and starts of their tables at the time (of a class, if there is a single one), and the
places of the symbols in them."""


class Learned:
    """All tables of a file: of matrices, of levels of rows, of kernels."""

    def __init__(self, precision: int) -> None:
        """Tables that have learned nothing."""
        self.tables, self.levels, self.kernels = Tables(precision), Tables(precision), Tables(precision, LEANINGS)

    @property
    def precision(self) -> int:
        """Bits of a frequency."""
        return self.tables.precision

    def twin(self) -> Learned:
        """Tables that have learned the same, to try something with."""
        made = Learned.__new__(Learned)
        made.tables, made.levels, made.kernels = _twin(self.tables), _twin(self.levels), _twin(self.kernels)
        return made


class Coder:
    """Collects symbols; ``finish`` gives the section of codes.

    ``ideal`` is the sum of ``-log2`` of all probabilities so far: bits that no coder with these tables goes below.
    """

    def __init__(self, lanes: int) -> None:
        """Code into ``lanes`` lanes."""
        self.lanes = lanes
        self.learned = Learned(FINE if lanes == 1 else COARSE)
        self.ideal = 0.0
        self._rows: list[Piece] = []
        self._places = room(2 * (MORE if lanes == 1 else CHUNK + MORE), np.uint8)
        self._open, self._used = 0, 0
        self._codes = Pages()

    def row(self, tables: Tables, classes: Any, symbols: np.ndarray) -> None:
        """Code one row of symbols, 0 .. 2 limit."""
        places = np.add(classes * tables.width, symbols, dtype=np.int64)
        self.ideal += len(symbols) * tables.precision - float(np.log2(tables.frequencies.take(places)).sum())
        if isinstance(classes, int):
            self._rows.append((tables.frequencies[classes], tables.starts[classes], self._kept(symbols, np.uint8)))
        else:
            self._rows.append((tables.frequencies, tables.starts, self._kept(places, np.uint16)))
        self._open += len(symbols)
        tables.learn(classes, symbols)
        if self.lanes > 1 and self._open >= CHUNK:
            self._flush()

    def _kept(self, places: np.ndarray, kind: Any) -> np.ndarray:
        """A copy of places as integers of some type, for the time until they are coded."""
        size = len(places) * np.dtype(kind).itemsize
        if self._used + size > len(self._places):  # what is full stays with the rows that are in it
            self._places, self._used = room(size + 2 * MORE, np.uint8), 0
        kept: np.ndarray = self._places[self._used : self._used + size].view(kind)
        kept[:] = places
        self._used += size + size % 2  # so that the next ones are aligned
        return kept

    def finish(self) -> Pages:
        """The section of codes, with which this ends; empty if there was nothing to code."""
        if self._open:
            self._flush()
        self._places = np.empty(0, np.uint8)
        return self._codes

    def _flush(self) -> None:
        if not self._codes:
            self._codes += number(self.lanes)
        pieces = _single(self._rows) if self.lanes == 1 else _many(self._rows, self.lanes, self._open)
        for piece in pieces:
            self._codes += piece.data
        self._rows, self._open, self._used = [], 0, 0


def _single(rows: list[Piece]) -> tuple[np.ndarray, np.ndarray]:
    state, words = 0, []
    for frequencies, starts, places in reversed(rows):
        back = places[::-1]
        for frequency, start in zip(frequencies.take(back).tolist(), starts.take(back).tolist(), strict=True):
            if state >= frequency << (48 - FINE):
                words.append(state & 0xFFFF)
                state >>= 16
            whole, rest = divmod(state, frequency)
            state = (whole << FINE) + rest + start
    return np.frombuffer(state.to_bytes(6, "little"), np.uint8), np.array(words[::-1], "<u2")


def _many(rows: list[Piece], lanes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    states = np.full(lanes, EMPTY, np.uint32)
    words, at = room(count, "<u2"), count  # filled from its end; a symbol gives a word at the most
    known, narrow_frequencies, narrow_starts = None, states, states
    for frequencies, starts, places in reversed(rows):
        if frequencies is not known:
            known, narrow_frequencies = frequencies, frequencies.ravel().astype(np.uint32)
            narrow_starts = starts.ravel().astype(np.uint32)
        for begin in range((len(places) - 1) // lanes * lanes, -1, -lanes):
            frequency = narrow_frequencies.take(places[begin : begin + lanes])
            start = narrow_starts.take(places[begin : begin + lanes])
            state = states[: len(start)]
            full = np.flatnonzero(state >> np.uint32(32 - COARSE) >= frequency)
            if len(full):
                over = state[full]
                words[at - len(full) : at] = over & np.uint32(0xFFFF)
                at -= len(full)
                state[full] = over >> np.uint32(16)
            whole = state // frequency
            state += whole * (np.uint32(1 << COARSE) - frequency) + start
    return states.astype("<u4"), words[at:]


def cost(tables: Tables, classes: Any, symbols: np.ndarray) -> float:
    """Bits of a row of symbols, which are learned."""
    frequencies = tables.frequencies[classes, symbols]
    tables.learn(classes, symbols)
    return float(len(symbols) * tables.precision - np.log2(frequencies).sum())


def _twin(tables: Tables) -> Tables:
    made = copy.copy(tables)
    made.counts, made.pending = tables.counts.copy(), list(tables.pending)
    return made
