"""The embedded server as a program of its own, for the official SDK."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "tml-peer"

# Each generation of the SDK has an environment of its own in tox.ini; elsewhere there is nothing to test.
collect_ignore = [] if importlib.util.find_spec("tinker") else ["test_peers.py"]


def environment() -> dict[str, str]:
    """Return the environment of a program that finds the modules beside it, and reaches nothing but this machine."""
    taken = ("TINKER_", "TINKEX_", "PYTHONSAFEPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(taken)}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server is; ``TINKEX_SERVER_PYTHON`` names another Python to run it, if the SDK's cannot."""
    python = os.environ.get("TINKEX_SERVER_PYTHON", sys.executable)
    folder = tmp_path_factory.mktemp("data")
    command = [python, "-m", "tinkex", "serve", "--port", "0", "--data-dir", str(folder), "--api-key", KEY]
    # In a folder of its own, so that nothing but the installed package is imported.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment()) as server:
        try:
            line = server.stdout.readline()
            assert "TINKER_BASE_URL=" in line, f"the server said {line!r}"
            yield line.split("TINKER_BASE_URL=")[1].split()[0]
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def peer(base_url: str, tmp_path_factory: pytest.TempPathFactory):
    """Run the steps with a client; return the report."""

    def run(*options: str) -> dict:
        report = tmp_path_factory.mktemp("report") / "report.json"
        script = Path(__file__).with_name("peer.py")
        address = ["--base-url", base_url, "--api-key", KEY]
        command = [sys.executable, str(script), *address, "--json", str(report), *options]
        output = report.with_suffix(".txt")
        with output.open("w") as file:
            subprocess.run(command, env=environment(), stdout=file, stderr=file, cwd=report.parent, timeout=420)
        assert report.exists(), output.read_text()
        return json.loads(report.read_text())

    return run
