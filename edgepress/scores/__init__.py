"""Importance of channels: one method per file, all behind the small types of ``base``, by name in ``registry``."""

from __future__ import annotations

from edgepress.scores.base import Detailed, Elimination, Options, Ordered, Ranking, Score, order_of
from edgepress.scores.redundancy import Redundancy

__all__ = ["Detailed", "Elimination", "Options", "Ordered", "Ranking", "Redundancy", "Score", "order_of"]
