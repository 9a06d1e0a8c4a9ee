"""Run the benchmark: every workload, with each client in turn, against one scripted server."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import envs, report
from tests.benchmarks.cases import BATCH, CASES, Case, Run

HERE = Path(__file__).resolve().parent
_LONGEST_RUN_S = 300.0
Results = dict[str, dict[str, dict[str, float]]]
"""Medians by case, column and figure."""


class Server:
    """The scripted server, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "server.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def stage(self, **stage: Any) -> None:
        """Begin anew with this behaviour."""
        self._ask(json.dumps(stage).encode())

    def report(self) -> dict[str, Any]:
        """Return what came since then."""
        return self._ask(None)

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/stage", body)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            report: dict[str, Any] = json.load(answer)
        return report

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextlib.contextmanager
def scripted_server() -> Iterator[Server]:
    """Start a server, and end it."""
    server = Server()
    try:
        yield server
    finally:
        server.close()


def run_child(python: Path, script: str, options: dict[str, Any]) -> dict[str, float]:
    """Run a script of this folder in a fresh process and return the figures that it prints.

    Raises:
        RuntimeError: It failed, or took too long.
    """
    taken = ("TINKER_", "PYTHONSAFEPATH", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(taken)}
    command = [str(python), str(HERE / script), json.dumps(options)]
    try:
        ended = subprocess.run(
            command,
            env={**environ, "OMP_NUM_THREADS": "1"},
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=_LONGEST_RUN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{script} {options} took more than {_LONGEST_RUN_S:g} s") from error
    if ended.returncode or not ended.stdout.strip():
        raise RuntimeError(f"{script} {options} failed:\n{ended.stdout[-2000:]}{ended.stderr[-4000:]}")
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def measure(server: Server, environment: envs.Environment, case: Case, run: Run, quick: bool) -> dict[str, float]:
    """Run one workload once with one client."""
    stage = {**case.stage, **run.stage}
    options = dict(case.options)
    if quick:
        # Services take no time worth waiting for.
        stage = {name: min(value, 0.1) if name.endswith("_s") else value for name, value in stage.items()}
        options.update(case.quick)
    server.stage(**stage)
    request = {"name": environment.module, "url": server.url, "workload": case.workload, "options": options}
    figures = run_child(environment.python, "workloads.py", request)
    seen = server.report()
    figures["bytes"] = seen["bytes_in"] / options.get("batches", 1)
    figures["requests"] = sum(seen["requests"].values())
    if environment.size:
        figures["size"] = environment.size
        figures["packages"] = environment.packages
    return figures


def run_cases(
    server: Server, clients: dict[str, envs.Environment], cases: list[Case], quick: bool
) -> tuple[Results, dict[str, dict[str, list[dict[str, float]]]]]:
    """Run all workloads; return the medians, and every single figure."""
    raw: dict[str, dict[str, list[dict[str, float]]]] = {}
    for case in cases:
        columns = [run for run in case.runs if run.client in clients]
        found = raw[case.name] = {run.name: [] for run in columns}
        started = time.monotonic()
        for turn in range(1 if quick else max((run.repeats or case.repeats for run in columns), default=0)):
            for run in columns:
                if turn < (run.repeats or case.repeats):
                    found[run.name].append(measure(server, clients[run.client], case, run, quick))
        _say(f"{case.name:14} {time.monotonic() - started:6.1f} s   {case.title}")
    return {name: {column: _medians(runs) for column, runs in found.items()} for name, found in raw.items()}, raw


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def measure_references(server: Server, python: Path, quick: bool) -> dict[str, float]:
    """Measure what the same bytes cost without a client."""
    server.stage()
    batch = {"datums": 4, "length": 4096} if quick else BATCH
    return run_child(python, "references.py", {"url": server.url, **batch, "requests": 20 if quick else 2000})


def describe_machine(quick: bool) -> dict[str, str]:
    """Say what was measured on, and how."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores{_processor()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "command": "python -m tests.benchmarks" + (" --quick" if quick else ""),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((f" ({line.split(':', 1)[1].strip()})" for line in lines if line.startswith("model name")), "")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few of everything, once: does it run at all?")
    parser.add_argument("--clients", default=",".join(envs.CLIENTS), help="which clients, separated by commas")
    parser.add_argument("--only", default="", help="which cases: beginnings of their names, separated by commas")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinkex-benchmarks"
    parser.add_argument("--envs", type=Path, default=cache, help="where the environments of the clients are kept")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="CLIENT=PATH",
        help="a Python that has the client, instead of an environment made for it",
    )
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--write", action="store_true", help="write docs/explanation/speed.md and its plot")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and write the page if asked to; 1 if a limit is passed."""
    given = _parse(arguments)
    started = time.monotonic()
    pythons = dict(item.split("=", 1) for item in given.python)
    clients = {
        client: envs.existing(client, Path(pythons[client])) if client in pythons else envs.make(client, given.envs)
        for client in given.clients.split(",")
    }
    beginnings = tuple(given.only.split(","))
    cases = [case for case in CASES if case.name.startswith(beginnings)]
    facts = describe_machine(given.quick)
    with scripted_server() as server:
        references = measure_references(server, clients["tinkex"].python, given.quick) if "tinkex" in clients else {}
        results, raw = run_cases(server, clients, cases, given.quick)
    facts["took"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
    lines = report.table(results)
    sys.stdout.write("\n".join(["", *report.render(lines), "", *report.render(report.references(references)), ""]))
    if given.json:
        given.json.write_text(json.dumps({"facts": facts, "references": references, "raw": raw}, indent=1))
    if given.write:
        report.write(envs.ROOT / "docs" / "explanation", facts, lines, references)
    return 0 if given.quick or all(line.held is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
