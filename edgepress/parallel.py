"""A map over threads that keeps order and bits.

onnxruntime, torch and numpy release the interpreter lock, so threads are enough. Every item is computed with one thread
of its own; results come in order, so whoever folds them gets the same bits for any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """Map with ``workers`` threads, results in order, at most ``workers + 1`` items in flight.

    BLAS is held to one thread meanwhile, so that sums do not depend on how many workers there are.
    """
    with threadpool_limits(1, user_api="blas"):
        if workers <= 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(workers) as pool:
            pending: deque[Future[R]] = deque()
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
