"""The scripts of tools/arm, which import each other as neighbours, for tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools" / "arm"


def tool(name: str) -> Any:
    """A module of tools/arm."""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))
    found: ModuleType = importlib.import_module(name)
    return found
