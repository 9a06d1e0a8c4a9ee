"""What a user of the official SDK does, step by step, against any server that speaks the API.

    python tests/peers/peer.py --base-url URL --api-key KEY [--client tinkex] [--json report.json]

The same steps run with the official SDK of each generation and with tinkex, on the same data, so that their numbers can
be compared. Each step checks what came back and notes numbers; a failed step does not keep the others from running.
"""
# ruff: noqa: T201 - a program for people, too

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import sampling_steps
import service_steps
import training_steps
from world import STEPS, World, names_of

__all__ = ["main", "sampling_steps", "service_steps", "training_steps"]


def run(world: World, name: str) -> dict[str, Any]:
    """Run one step; return how it went."""
    start = time.perf_counter()
    try:
        world.begin()
        STEPS[name].run(world)
        world.end()
        error = None
    except Exception:
        error = traceback.format_exc()
    seconds = round(time.perf_counter() - start, 2)
    print(f"{'ok    ' if error is None else 'FAILED'} {seconds:6.2f} s  {name}", flush=True)
    return {"error": error, "seconds": seconds, "numbers": world.numbers}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--api-key", default="tml-peer")
    parser.add_argument("--client", default="tinker", choices=["tinker", "tinkex"], help="what to import")
    parser.add_argument("--generation", help="whose steps to run; the version of the client unless given")
    parser.add_argument("--only", nargs="*", help="names of steps")
    parser.add_argument("--json", type=Path, help="where to write the report")
    return parser.parse_args()


def main() -> int:
    """Run the steps; return how many failed."""
    options = arguments()
    world = World(options.client, options.generation, options.base_url, options.api_key)
    names = [name for name in names_of(world) if not options.only or name in options.only]
    report = {
        "client": f"{options.client} {world.version}",
        "steps": {name: run(world, name) for name in names},
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    failures = [(name, result["error"]) for name, result in report["steps"].items() if result["error"]]
    for name, error in failures:
        print(f"\n{name}:\n{error}")
    print(f"{report['client']}: {len(names) - len(failures)} steps passed, {len(failures)} failed")
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
