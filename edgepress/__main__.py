"""``python -m edgepress``: the same as the command ``edgepress``."""

from __future__ import annotations

from edgepress.cli import main

if __name__ == "__main__":
    main()
