"""A plan of what goes wrong on a server, request by request: deterministic, and on real sockets.

::

    plan = FaultPlan()
    plan.answer(503, path="optim_step", nth=2, headers={"retry-after": "0.01"})
    plan.drop(path="save_weights")            # the server acts, the answer is lost
    gate = plan.stall(path="asample")         # ... until gate.release()
    with LocalServer(ScriptedEngine(), faults=plan) as server:
        ...
"""

from __future__ import annotations

import concurrent.futures
import fnmatch
import json
import threading
from collections.abc import Mapping
from typing import Any

import attrs

from tinkex.local.fault import Fault

__all__ = ["FaultPlan", "Gate"]


class Gate:
    """Holds requests until it is released."""

    def __init__(self) -> None:
        """Make a closed gate."""
        self.future: concurrent.futures.Future[None] = concurrent.futures.Future()

    def release(self) -> None:
        """Let the requests go on; nothing if that was done before."""
        if not self.future.done():
            self.future.set_result(None)


@attrs.define(kw_only=True)
class _Rule:
    fault: Fault
    method: str
    path: str
    nth: int
    times: int
    matched: int = 0

    def applies(self, method: str, path: str) -> bool:
        """Count a matching request; true if it is one of those that the rule is for."""
        if not (fnmatch.fnmatchcase(method, self.method) and fnmatch.fnmatchcase(path, self.path)):
            return False
        self.matched += 1
        return self.nth <= self.matched < self.nth + self.times


class FaultPlan:
    """Rules that are tried in the order in which they were added; the first that applies to a request is used.

    Every method that adds a rule takes ``method`` (``"*"`` for any), ``path`` (below ``/api/v1/``; ``*`` matches
    anything), ``nth`` (which matching request is the first, from 1) and ``times`` (how many are hit, from there on).
    May be used from any thread, also while the server runs.
    """

    def __init__(self) -> None:
        """Start with a plan in which nothing goes wrong."""
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._rules: list[_Rule] = []
        self._seen: list[tuple[str, str]] = []

    def answer(
        self,
        status: int,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "*",
        path: str = "*",
        nth: int = 1,
        times: int = 1,
    ) -> None:
        """Answer with a status instead of handling the request.

        Args:
            status: HTTP status.
            body: Bytes, or anything with a JSON form; ``{"detail": "planned"}`` unless given.
            headers: Headers of the answer; the content type is JSON unless they say otherwise.
            method: HTTP method.
            path: Path below ``/api/v1/``.
            nth: Which matching request is the first to be hit.
            times: How many are hit.
        """
        raw = body if isinstance(body, bytes) else json.dumps({"detail": "planned"} if body is None else body).encode()
        sent = {"content-type": "application/json", **{name.lower(): text for name, text in (headers or {}).items()}}
        self._add(Fault(action="answer", status=status, headers=sent, body=raw), method, path, nth, times)

    def reset(self, *, method: str = "*", path: str = "*", nth: int = 1, times: int = 1) -> None:
        """Cut the connection before the request is handled."""
        self._add(Fault(action="reset"), method, path, nth, times)

    def drop(self, *, method: str = "*", path: str = "*", nth: int = 1, times: int = 1) -> None:
        """Handle the request, then cut the connection: the server has acted, and the answer is lost."""
        self._add(Fault(action="drop"), method, path, nth, times)

    def duplicate(self, *, method: str = "*", path: str = "*", nth: int = 1, times: int = 1) -> None:
        """Handle the request twice and send the second answer."""
        self._add(Fault(action="duplicate"), method, path, nth, times)

    def stall(self, *, method: str = "*", path: str = "*", nth: int = 1, times: int = 1) -> Gate:
        """Hold the request until the gate is released, then handle it."""
        gate = Gate()
        self._add(Fault(gate=gate.future), method, path, nth, times)
        return gate

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with a request; the server asks this once for each."""
        with self._lock:
            self._seen.append((method, path))
            # All rules count the request, also those behind the one that is used.
            hits = [rule.fault for rule in self._rules if rule.applies(method, path)]
        return hits[0] if hits else None

    @property
    def seen(self) -> list[tuple[str, str]]:
        """Method and path of every request so far, in order."""
        with self._lock:
            return list(self._seen)

    def count(self, path: str) -> int:
        """Return how many requests there were for a path."""
        return sum(fnmatch.fnmatchcase(seen, path) for _, seen in self.seen)

    def _add(self, fault: Fault, method: str, path: str, nth: int, times: int) -> None:
        with self._lock:
            self._rules.append(_Rule(fault=fault, method=method, path=path, nth=nth, times=times))
