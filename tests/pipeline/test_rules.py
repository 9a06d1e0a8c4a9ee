"""Rules that hold for the pipeline as a whole."""

from __future__ import annotations

import ast
import itertools
import pathlib
import subprocess
import sys
import threading

import pytest

import tinkex.pipeline
from tinkex.pipeline import Failed, Pending, Ready, Wiring

SOURCES = sorted(pathlib.Path(tinkex.pipeline.__file__).parent.glob("*.py"))


def test_no_foreign_code_runs_under_a_lock(h, new_world):
    """Whatever the pipeline calls - requests, polls, losses, observers, callbacks - can take any of its locks.

    Each piece of foreign code takes every lock of the pipeline itself; a lock that its own thread holds would never
    come free.
    """
    problems = []
    locks = {}
    submitted = threading.Event()  # none may fail before the one behind it is there

    def foreign(where):
        def run(*ignored):
            for name, lock in locks.items():
                if lock.acquire(timeout=h.BOUND):
                    lock.release()
                else:
                    problems.append((where, name))

        return run

    world = new_world()
    wiring = Wiring(observers=[foreign("observer")])
    pipeline, dispatcher = world.submission(wiring=wiring), world.dispatcher(wiring=wiring)
    locks.update(
        pipeline=pipeline._lock,
        dispatcher=dispatcher._lock,
        poller=world.poller._lock,
        budget=world.budget._lock,
        gate=dispatcher._gate._lock,
    )

    def part(label, **options):
        poll = foreign("poll")
        last = options.pop("last", Ready(label))
        answers = [Pending("active"), Pending("paused_capacity"), lambda: poll() or (submitted.wait(h.BOUND) and last)]
        return world.part(label, before=foreign("send"), answers=answers, **options)

    def combine(results):
        foreign("combine")()
        return results

    def loss(results):
        foreign("loss")()
        return [part("second half")]

    futures = [
        pipeline.submit("fb", [part(1), part(2)], combine),
        pipeline.submit_staged("custom", [part(3)], loss, combine),
        dispatcher.submit("sample", part(4), itertools.count(), combine),
        dispatcher.submit("refused", part(5, refuse=h.refused()), itertools.count()),
        pipeline.submit("fails", [part(6, last=Failed(h.failed()))], combine),
        pipeline.submit("behind", [part(7)], combine),
    ]
    submitted.set()
    for future in futures:
        future.add_done_callback(foreign("callback"))
    failed = {future.operation for future in futures if future.exception(h.BOUND) is not None}
    assert {"refused", "fails"} <= failed <= {"refused", "fails", "behind"}
    stuck = pipeline_stuck(world, foreign, h)
    assert stuck.exception(h.BOUND) is not None
    assert [] == problems


def pipeline_stuck(world, foreign, h):
    """Close a pipeline over an operation that is in flight: its callbacks are foreign code too."""
    other = world.submission("n")
    future = other.submit("never", [world.part("never", answers=[Pending()])], h.first)
    future.add_done_callback(foreign("callback at close"))
    other.close(drain=False, timeout=h.BOUND)
    return future


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_waits_can_be_interrupted(path):
    """Nothing sleeps: every wait is one that ``close`` can end."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"time.sleep", "sleep", "time.time"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_methods_that_need_a_lock_are_called_with_it(path):
    """A ``_locked`` method is called inside ``with self._lock``, or by another ``_locked`` method."""
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if function.name.endswith("_locked") or function.name == "__init__":
            continue
        guarded = {
            id(inner)
            for node in ast.walk(function)
            if isinstance(node, ast.With) and any("_lock" in ast.unparse(item) for item in node.items)
            for inner in ast.walk(node)
        }
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).endswith("_locked"):
                assert id(call) in guarded, f"{path.name}:{call.lineno} calls {ast.unparse(call.func)} without the lock"


def test_importing_the_pipeline_is_light():
    """Neither NumPy nor an HTTP library nor asyncio comes with it."""
    script = "import sys, tinkex.pipeline; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert not {"numpy", "torch", "requests", "asyncio", "orjson"} & set(done.stdout.split())


def test_public_names_are_exported_and_documented():
    """Each name in ``__all__`` exists and says what it is for."""
    for name in tinkex.pipeline.__all__:
        value = getattr(tinkex.pipeline, name)
        if callable(value) and name not in ("Observer", "Outcome"):
            assert value.__doc__, name
