"""``python -m tests.servers NAME``: start a server, be its user with both clients, and print the table."""
# ruff: noqa: T201 - a program for people

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tests.servers import launch, report

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "servers.md"
TOLERANCE = 1e-4

Launcher = Callable[[Path, Path], contextlib.AbstractContextManager[str]]
SERVERS: dict[str, tuple[str, Launcher, float]] = {
    "tuft": ("TuFT", launch.tuft, 60.0),
    # Each shape is compiled once, which takes seconds.
    "skyrl": ("SkyRL", launch.skyrl, 120.0),
}
"""What each is called, how it is started, and the seconds that a check may take."""


def main() -> int:
    """Print the tables; return 1 if the SDK passes a check that tinkex fails, or if the shards disagree."""
    options = _arguments()
    with _folder(options.work) as folder:
        launch.make_model(folder)
        print(f"{' '.join(_versions(options.server))}; logs are in {folder}", flush=True)
        lines, good = checks(options.server, folder, options.only)
        if options.server == "skyrl" and not options.only:
            compared, same = shards(folder)
            lines, good = [*lines, "", *compared], good and same
    print("\n".join(lines))
    if options.write:
        report.write(options.page, options.server, [_source(options.server), "", *lines])
    return 0 if good else 1


def checks(server: str, folder: Path, only: Sequence[str]) -> tuple[list[str], bool]:
    """Run every check with each client on a server of its own, so that neither finds what the other has left.

    Returns:
        The table with its counts, and whether tinkex passes all that the SDK passes.
    """
    _, start, limit_s = SERVERS[server]
    reports = []
    for client in ("tinker", "tinkex"):
        with start(folder, folder / f"server-{client}.log") as url:
            reports.append(_use(client, url, folder, limit_s, only))
    sdk, tinkex = reports
    lines = [*report.counts(sdk, tinkex), "", *report.table(sdk, tinkex)]
    return lines, not report.passed(sdk) - report.passed(tinkex)


def _use(client: str, url: str, folder: Path, limit_s: float, only: Sequence[str]) -> dict[str, Any]:
    path = folder / f"{client}.json"
    address = ["--base-url", url, "--api-key", launch.API_KEY, "--base-model", launch.BASE_MODEL]
    command = [sys.executable, "-m", "tests.servers.user", "--client", client, *address, "--limit", str(limit_s)]
    command += ["--json", str(path), *(["--only", *only] if only else [])]
    path.unlink(missing_ok=True)
    log = path.with_suffix(".log")
    with log.open("w") as file:
        subprocess.run(command, cwd=folder, env=launch.environment(TINKER_TELEMETRY="0"), stdout=file, stderr=file)
    if not path.exists():
        raise RuntimeError(f"no report of {client}:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def shards(folder: Path) -> tuple[list[str], bool]:
    """Run one training script on an engine of one device and on one that is split between two.

    Returns:
        The losses side by side, and whether they are the same.
    """
    losses = []
    for number, backend in enumerate((launch.ONE_DEVICE, launch.TWO_DEVICES), 1):
        with launch.skyrl(folder, folder / f"devices-{number}.log", backend) as url:
            losses.append(_train(url, folder))
    rows = [("step", "one device", "two devices", "difference")]
    pairs = list(zip(*losses, strict=True))
    rows += [(str(at), f"{a:.6f}", f"{b:.6f}", f"{abs(a - b):.1e}") for at, (a, b) in enumerate(pairs)]
    largest = max(abs(a - b) for a, b in pairs)
    verdict = f"Mean loss of each step; the largest difference is {largest:.1e}, and {TOLERANCE:.0e} is allowed."
    return [verdict, "", *report.draw(rows)], largest <= TOLERANCE


def _train(url: str, folder: Path) -> list[float]:
    environment = launch.environment(TINKER_BASE_URL=url, TINKER_API_KEY=launch.API_KEY, TINKER_TELEMETRY="0")
    command = [sys.executable, "-m", "tests.servers.train", launch.BASE_MODEL]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    losses: list[float] = json.loads(done.stdout)
    return losses


def _versions(server: str) -> list[str]:
    name = SERVERS[server][0]
    packages = ((name, server), ("the SDK", "tinker"), ("tinkex", "tinkex"))
    found = ", ".join(f"{label} {importlib.metadata.version(package)}" for label, package in packages)
    return [f"{found},", f"Python {platform.python_version()}"]


def _source(server: str) -> str:
    return f"Printed on {date.today()} by `tox -e {server} -- --write`: {' '.join(_versions(server))}."


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--only", nargs="*", default=[], help="words; checks whose names have one of them")
    parser.add_argument("--work", type=Path, help="a folder to keep: model, logs, compiled functions")
    parser.add_argument("--write", action="store_true", help="put the table into the page, too")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()
