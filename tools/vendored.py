"""Get the libraries of the report from the npm registry, at pinned versions; run it to see or to renew them.

Needs ``npm``. ``--check`` writes nothing, and fails where a file here is not the published one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

PACKAGES: Final = {
    "uplot@1.6.32": {
        "dist/uPlot.iife.min.js": "uPlot.iife.min.js",
        "dist/uPlot.min.css": "uPlot.min.css",
        "LICENSE": "uPlot.LICENSE",
    },
    "@dagrejs/dagre@3.1.3": {"dist/dagre.min.js": "dagre.min.js", "LICENSE": "dagre.LICENSE"},
}
VENDOR: Final = Path(__file__).resolve().parent.parent / "src/aetherflow/report/assets/vendor"


def published(package: str, files: dict[str, str]) -> dict[str, bytes]:
    """Give the files of a package, by the names that they have here."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            found = {}
            for inside, name in files.items():
                stream = packed.extractfile(f"package/{inside}")
                if stream is None:
                    raise FileNotFoundError(f"{package} has no {inside}")
                found[name] = stream.read()
            return found


def main() -> int:
    """Write the files, or compare them, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a file differs")
    check = parser.parse_args().check
    differing = []
    for package, files in PACKAGES.items():
        for name, content in published(package, files).items():
            here = VENDOR / name
            if not here.exists() or here.read_bytes() != content:
                differing.append(name)
                if not check:
                    here.write_bytes(content)
    print(f"{'differ' if check else 'written'}: {', '.join(differing)}" if differing else "all as published")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
