"""Samples in, statistics out: feeds over the user's data, the split into fit and hold-out, probes and runs."""

from __future__ import annotations

from edgepress.calibrate.feed import Chunk, Feed, overlap
from edgepress.calibrate.sources import open_feed
from edgepress.calibrate.split import split

__all__ = ["Chunk", "Feed", "open_feed", "overlap", "split"]
