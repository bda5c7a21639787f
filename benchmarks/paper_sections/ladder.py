"""Which setting is taken of those that were tried, by hold-out samples alone.

    floor     the accuracy that the original has on images it has not seen, as its maker gives it, less half of the
              points that the goal allows to be lost; the other half is kept for chance
    taken     the smallest coded file among the rows whose accuracy on the hold-out samples is the floor or more;
              if there is none, the row with the best accuracy there

The floor was written down before any row but one was made. The original's own accuracy on the hold-out samples is of
no use: they are training images of it, which it knows by heart (100 %), and long training forgets them whatever the
file is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def floor_of(known: float, limit: float) -> float:
    """Least accuracy on the hold-out samples, in percent.

    Args:
        known: accuracy of the original on images it has not seen.
        limit: points that may be lost.
    """
    return known - limit / 2


def chosen(rows: Sequence[Row], floor: float) -> Row:
    """The row whose setting is taken.

    Args:
        rows: with ``hold_out_accuracy`` (percent) and ``coded_bytes`` (None: nothing could be coded).
        floor: least accuracy on the hold-out samples.

    Raises:
        ValueError: nothing was tried.
    """
    coded = [row for row in rows if row["coded_bytes"] is not None]
    kept = [row for row in coded if row["hold_out_accuracy"] >= floor]
    if kept:
        return min(kept, key=lambda row: (row["coded_bytes"], -row["hold_out_accuracy"]))
    return max(coded or rows, key=lambda row: row["hold_out_accuracy"])
