"""A map over threads that keeps order and bits.

onnxruntime, torch and numpy release the interpreter lock, so threads are enough. Every item is computed with one thread
of its own; results come in order, so whoever folds them gets the same bits for any number of workers. Items that
multiply matrices with numpy need :func:`one_blas_thread` around the whole loop: BLAS has one number of threads for the
process, so a map that is read lazily, beside another one, must not set it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS with one thread inside, so that sums depend neither on workers nor on cores; the old number after."""
    with threadpool_limits(1, user_api="blas"):
        yield


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """Map with ``workers`` threads, results in order, at most ``workers + 1`` items in flight."""
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
