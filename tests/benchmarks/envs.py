"""One virtual environment for each client, made once and kept."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ("0.38.0", "0.7.0")
CLIENTS = ("tinkex", *OFFICIAL)
# A CPU build of torch that is to hand satisfies it; a free range would ask for the newest CUDA build.
_TORCH = "torch>=2.6,<2.14"


class Environment:
    """Where a client is installed, and how much that took."""

    def __init__(self, client: str, python: Path, size: int, packages: int) -> None:
        self.client = client
        self.module = "tinkex" if client == "tinkex" else "tinker"
        self.python = python
        self.size = size
        self.packages = packages


def existing(client: str, python: Path) -> Environment:
    """Use a Python that has the client already; what else it has is unknown, so its size is 0."""
    return Environment(client, python, 0, 0)


def make(client: str, folder: Path) -> Environment:
    """Make the environment of a client, or return it if it is there; tinkex is installed anew each time."""
    home = folder / f"{client}-py{sys.version_info.major}{sys.version_info.minor}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    record = home / "installed.json"
    if not record.exists():
        venv.create(home, with_pip=True, clear=True)
        before = _weigh(home)
        _pip(python, str(ROOT) if client == "tinkex" else f"tinker=={client}", *_constraints(home))
        size, packages = (after - start for after, start in zip(_weigh(home), before, strict=True))
        if client == "tinkex":
            # Weighed without it: numpy is for programs that hold their data in arrays.
            _pip(python, "numpy")
        record.write_text(json.dumps({"size": size, "packages": packages}))
    elif client == "tinkex":
        _pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    return Environment(client, python, **json.loads(record.read_text()))


def _constraints(home: Path) -> list[str]:
    path = home / "constraints.txt"
    path.write_text(_TORCH + "\n")
    return ["--constraint", str(path)]


def _pip(python: Path, *what: str) -> None:
    command = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    subprocess.run(command, check=True)


def _weigh(home: Path) -> tuple[int, int]:
    """Return the bytes and the number of the packages in an environment, without compiled files."""
    folder = "Lib/site-packages" if sys.platform == "win32" else "lib/python*/site-packages"
    (packages,) = home.glob(folder)
    files = [path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sum(path.stat().st_size for path in files), len(list(packages.glob("*.dist-info")))
