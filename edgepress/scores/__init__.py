"""Importance of channels: one method per file, all behind the two small types of ``base``."""

from __future__ import annotations

from edgepress.scores.base import Elimination, Ranking, Score
from edgepress.scores.redundancy import Redundancy

__all__ = ["Elimination", "Ranking", "Redundancy", "Score"]
