"""Training takes samples in batches of its own: the batch axis of models where it is fixed is freed before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgepress.calibrate import Feed
from edgepress.errors import DataError, Refusal
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.normalize.free_batch import fixed_batch, freed
from edgepress.pipeline.context import inputs_of
from edgepress.pipeline.prepare import Opened, feeds_of
from edgepress.request import Request


def with_any_batch(request: Request, opened: Opened) -> Opened:
    """A model and its samples, both with a free batch axis; as they are where it is free, or there are no samples.

    Raises:
        DataError: the batch is fixed and cannot be freed.
    """
    if opened.feed is None or opened.feed.batched:
        return opened
    model = any_batch(opened.model, opened.feed, request.model)
    feed, evaluation = feeds_of(request, model)
    return dataclasses.replace(opened, model=model, feed=feed, evaluation=evaluation)


def any_batch(model: Model, feed: Feed, path: Path) -> Model:
    """A model with a free batch axis, as it is where that is free already.

    Args:
        model: the model, of this or another batch than the feed.
        feed: samples to prove it on.
        path: where the model comes from, for messages.

    Raises:
        DataError: the batch is fixed and cannot be freed.
    """
    batch = fixed_batch(model)
    if batch is None:
        return model
    runs = inputs_of(feed, 2 * batch, chunk=batch)[:2]
    if sum(len(next(iter(run.values()))) for run in runs) < 2 * batch:
        raise DataError(f"{path} takes {batch} samples at a time, and to free that takes {2 * batch}: give more.")
    found = freed(normalize(model, runs).model, runs)
    if isinstance(found, Refusal):
        raise DataError(
            f"{path} has a fixed batch, which cannot be freed for training, as {found.reason}: export it with a free "
            "batch axis."
        )
    return found
