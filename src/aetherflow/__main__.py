"""``python -m aetherflow``: the same program as ``aetherflow``."""

from __future__ import annotations

import sys

from aetherflow.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
