"""One user's program on one server: every check, each with a time limit, by any client of the API.

    python -m tests.servers.user --client tinker|tinkex --base-url URL --base-model NAME [--json report.json]

A check that fails, or hangs, does not keep the others from running.
"""
# ruff: noqa: T201 - a program for people, too

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from tests.servers import sampling_checks, saving_checks, service_checks, training_checks
from tests.servers.world import CHECKS, World

SECTIONS = [module.__name__ for module in (training_checks, sampling_checks, saving_checks, service_checks)]
NAMES = sorted(CHECKS, key=lambda name: SECTIONS.index(CHECKS[name].__module__))


def attempt(world: World, name: str, limit_s: float) -> dict[str, Any]:
    """Run one check on a thread of its own; return how it went."""
    ended: list[str | None] = []

    def work() -> None:
        try:
            CHECKS[name](world)
        except BaseException as error:
            ended.append(f"{type(error).__name__}: {error}")
        else:
            ended.append(None)

    start = time.monotonic()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    error = ended[0] if ended else f"no answer in {limit_s:.0f} s"
    return {"error": error, "seconds": round(time.monotonic() - start, 2)}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--client", required=True, choices=["tinker", "tinkex"], help="what to import")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", default="tml-dummy")
    parser.add_argument("--base-model", required=True)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each check")
    parser.add_argument("--only", nargs="*", help="words; checks whose names have one of them")
    parser.add_argument("--json", type=Path, help="where to write the report")
    return parser.parse_args()


def main() -> None:
    """Run the checks, write the report, and leave, whatever is still under way."""
    options = arguments()
    warnings.simplefilter("ignore")
    world = World(options.client, options.base_url, options.api_key, options.base_model)
    report: dict[str, Any] = {"client": f"{options.client} {world.sdk.__version__}", "checks": {}}
    for name in NAMES:
        if not options.only or any(word in name for word in options.only):
            result = report["checks"][name] = attempt(world, name, options.limit)
            outcome = "ok    " if result["error"] is None else "FAILED"
            print(f"{outcome} {result['seconds']:6.2f} s  {name}  {(result['error'] or '')[:300]!r}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    passed = sum(result["error"] is None for result in report["checks"].values())
    print(f"{report['client']}: {passed} of {len(report['checks'])} checks passed", flush=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
