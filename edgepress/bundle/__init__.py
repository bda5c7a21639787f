"""Bundle: a model with everything its deployment needs, and the check that it runs on a device as it does here."""

from __future__ import annotations

from edgepress.bundle.make import bundle
from edgepress.bundle.manifest import Manifest
from edgepress.bundle.verify import verify

__all__ = ["Manifest", "bundle", "verify"]
