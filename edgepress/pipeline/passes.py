"""Passes over the samples: as much in each as its Gram matrices take of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PASS_BYTES = 96 * 2**20
"""Gram matrices gathered in one pass over the samples."""


def passes(items: Iterable[T], need: Callable[[T], int]) -> Iterator[list[T]]:
    """Items in batches that need ``PASS_BYTES`` together, or one alone that needs more.

    Args:
        items: what is observed.
        need: bytes of the Grams of an item.
    """
    batch: list[T] = []
    used = 0
    for item in items:
        more = need(item)
        if batch and used + more > PASS_BYTES:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += more
    if batch:
        yield batch
