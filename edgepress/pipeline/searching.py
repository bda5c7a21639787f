"""Look for the first of a row of places that is accepted, near a guess."""

from __future__ import annotations

from collections.abc import Callable


def first_accepted(
    accepted: Callable[[int], bool], count: int, guess: int, rounds: int, step: int = 2, refused: int = -1
) -> int | None:
    """The first place found that is accepted, assuming that all behind it are; None where none was tried that is.

    Steps double from the guess on, then what is between the accepted and the refused is halved.

    Args:
        accepted: tries a place.
        count: places, from 0 to ``count - 1``.
        guess: where to begin.
        rounds: places that are tried at the most.
        step: the first step.
        refused: the last place that needs no trial, as it would be refused.
    """
    low, high, place = refused, count, guess
    for _ in range(rounds):
        if high - low <= 1 or not low < place < high:
            break
        if accepted(place):
            high, place = place, max(place - step, (place + low) // 2)
        else:
            low, place = place, min(place + step, (place + high + 1) // 2)
        step *= 2
    return high if high < count else None
