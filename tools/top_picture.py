"""Draws ``docs/pictures/top.svg``: one frame of ``aetherflow top``, of the shop in ``deploy/app`` at work.

Run from the repository: ``python tools/top_picture.py``. It takes a quarter of a minute, and asks no network.
"""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from aetherflow.analysis.scrapes import Change, Scrape, ScrapeError, scrape
from aetherflow.cli.top_frame import Frame

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURE: Final = ROOT / "docs" / "pictures" / "top.svg"
_WIDTH: Final = 96
_WARM_UP, _INTERVAL = 5.0, 5.0
_FONTS: Final = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""Rich has them fetched from elsewhere; any font of one width will do."""


def picture(change: Change, url: str) -> str:
    """Draw what happened between two scrapes as SVG."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Frame(change, url))
    return console.export_svg(title="aetherflow top", code_format=_FONTS.sub("", CONSOLE_SVG_FORMAT), unique_id="top")


def _look(url: str) -> Scrape:
    for _ in range(100):
        try:
            return scrape(url)
        except ScrapeError:
            time.sleep(0.1)
    return scrape(url)


def main() -> None:
    """Open the shop, look twice, and draw."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    command = [sys.executable, "-m", "aetherflow", "serve", "shop:main", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").symlink_to(ROOT / "deploy" / "app" / "shop.py")
        with subprocess.Popen(command, cwd=folder) as shop:
            try:
                _look(url)
                time.sleep(_WARM_UP)
                before = _look(url)
                time.sleep(_INTERVAL)
                change = Change(before, _look(url))
            finally:
                shop.terminate()
    PICTURE.write_text(picture(change, "http://127.0.0.1:9464/metrics"), "utf-8")


if __name__ == "__main__":
    main()
