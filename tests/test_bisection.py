"""The search along the ladder of widths."""

from __future__ import annotations

import numpy as np
import pytest

from edgepress.pipeline.candidates import CLOSE_COST, _bisect


@pytest.mark.parametrize("count", [1, 2, 7, 40, 200])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.77, 1.0])
def test_bisection_ends_next_to_the_last_acceptable_state(count: int, share: float) -> None:
    depths = np.cumsum(np.random.default_rng(count).exponential(0.05, count))
    last = int(share * count) - 1  # the last acceptable position; -1: none is
    tried: list[int] = []

    def acceptable(position: int) -> bool:
        tried.append(position)
        return position <= last

    _bisect(acceptable, depths)
    best = max((position for position in tried if position <= last), default=-1)
    assert len(tried) == len(set(tried)) <= 2 + np.ceil(np.log2(count + 1)) + np.log2(1 + depths[-1] / CLOSE_COST)
    assert (best >= 0) == (last >= 0)  # something acceptable is found if there is anything
    if last >= 0:
        assert depths[last] - depths[best] <= CLOSE_COST


def test_nothing_to_try() -> None:
    def acceptable(position: int) -> bool:
        raise AssertionError(f"position {position} does not exist")

    _bisect(acceptable, np.empty(0))
