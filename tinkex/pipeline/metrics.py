"""Local metrics: how many operations there were of each kind, how they ended, and how long they took.

Nothing of this leaves the program; telemetry is something else.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tinkex.pipeline.futures import PhaseChange

__all__ = ["Durations", "Metrics", "MetricsSnapshot", "OperationMetrics"]

_ERROR = 0.01
_GAMMA = (1 + _ERROR) / (1 - _ERROR)
_SCALE = 1 / math.log(_GAMMA)
_SHORTEST_S = 1e-6
_LONGEST_S = 1e7


@attrs.frozen(kw_only=True, slots=True)
class Durations:
    """How a number of durations are spread; seconds, all 0 if there are none.

    ``count``, ``mean``, ``min`` and ``max`` are exact. The quantiles are off by at most one per cent of their value,
    between a microsecond and four months, which is more than any operation takes.

    Attributes:
        count: How many.
        mean: Their mean.
        min: The shortest.
        p50: The median.
        p95: 95 of 100 were not longer.
        p99: 99 of 100 were not longer.
        max: The longest.
    """

    count: int = 0
    mean: float = 0.0
    min: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@attrs.frozen(kw_only=True, slots=True)
class OperationMetrics:
    """One kind of operation, such as ``forward_backward``.

    Attributes:
        submitted: Calls.
        done: Those with a result.
        failed: Those that failed.
        cancelled: Those that were cancelled.
        in_flight: Calls without an outcome at the moment of the snapshot; a reset does not touch them.
        accepting_s: From the call until the server has accepted it, each time if that was more than once.
        working_s: From then until the result was here.
        total_s: From the call to the result.
    """

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    in_flight: int = 0
    accepting_s: Durations = attrs.field(factory=Durations)
    working_s: Durations = attrs.field(factory=Durations)
    total_s: Durations = attrs.field(factory=Durations)


@attrs.frozen(kw_only=True, slots=True)
class MetricsSnapshot:
    """What was counted until a moment.

    Attributes:
        elapsed_s: Seconds since the metrics were made, or reset.
        operations: Each kind of operation by its name.
    """

    elapsed_s: float
    operations: Mapping[str, OperationMetrics]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as dicts, which ``json.dumps`` takes."""
        return attrs.asdict(self)


class _Histogram:
    """Counts durations in buckets each of which is about two per cent wider than the one before.

    This is the sketch of Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
    guarantees" (VLDB 2019): whatever comes, it has at most 1,500 buckets.
    """

    __slots__ = ("buckets", "count", "longest", "shortest", "total")

    def __init__(self) -> None:
        self.buckets: collections.Counter[int] = collections.Counter()
        self.count = 0
        self.total = 0.0
        self.shortest = math.inf
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.shortest = min(self.shortest, seconds)
        self.longest = max(self.longest, seconds)
        clipped = min(max(seconds, _SHORTEST_S), _LONGEST_S)
        self.buckets[math.ceil(math.log(clipped) * _SCALE)] += 1

    def spread(self) -> Durations:
        if not self.count:
            return Durations()
        p50, p95, p99 = self._quantiles(0.5, 0.95, 0.99)
        mean, shortest, longest = self.total / self.count, self.shortest, self.longest
        return Durations(count=self.count, mean=mean, min=shortest, p50=p50, p95=p95, p99=p99, max=longest)

    def _quantiles(self, *shares: float) -> list[float]:
        """Return the durations that these shares of all do not exceed; the shares ascend."""
        found: list[float] = []
        passed = 0
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            # A bucket ends at the power of gamma that names it; this is the value that is off least from all in it.
            middle = 2 * _GAMMA**bucket / (_GAMMA + 1)
            while len(found) < len(shares) and passed >= shares[len(found)] * self.count:
                found.append(min(max(middle, self.shortest), self.longest))
        return found


class _Kind:
    """What is counted of one kind of operation."""

    __slots__ = ("accepting", "counts", "total", "working")

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.accepting = _Histogram()
        self.working = _Histogram()
        self.total = _Histogram()


class Metrics:
    """Counts and times the operations of the clients that it observes.

    ::

        metrics = tinkex.Metrics()
        service = tinkex.ServiceClient(observers=[metrics])
        ...
        metrics.snapshot().operations["forward_backward"].total_s.p95

    Public methods are thread-safe. What is kept does not grow with the number of operations: at most 1,500 counts for
    each kind of operation and duration, and a few dozen in practice.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count; ``clock`` gives monotonic seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        # guarded by _lock
        self._kinds: dict[str, _Kind] = {}
        self._in_flight: collections.Counter[str] = collections.Counter()
        self._since = clock()

    def __call__(self, change: PhaseChange) -> None:
        """Hear of a change of an operation."""
        phase, name, accepted = change.phase, change.operation, change.accepted_after
        if phase == "queue_state":
            return
        with self._lock:
            kind = self._kinds.get(name)
            if kind is None:
                kind = self._kinds[name] = _Kind()
            kind.counts[phase] += 1
            if phase == "submitted":
                self._in_flight[name] += 1
            elif phase != "accepted":
                self._in_flight[name] -= 1
            if phase == "ready":
                kind.total.add(change.elapsed)
            if accepted is not None and phase == "accepted":
                kind.accepting.add(accepted)
            if accepted is not None and phase == "ready":
                kind.working.add(change.elapsed - accepted)

    def snapshot(self) -> MetricsSnapshot:
        """Return what was counted so far."""
        with self._lock:
            names = {*self._kinds, *(name for name, size in self._in_flight.items() if size)}
            operations = {name: self._metrics_locked(name) for name in sorted(names)}
            return MetricsSnapshot(elapsed_s=self._clock() - self._since, operations=operations)

    def reset(self) -> None:
        """Forget what was counted; operations that are in flight stay so, and their ends will be counted."""
        with self._lock:
            self._kinds = {}
            self._since = self._clock()

    def _metrics_locked(self, name: str) -> OperationMetrics:
        kind = self._kinds.get(name) or _Kind()
        return OperationMetrics(
            submitted=kind.counts["submitted"],
            done=kind.counts["ready"],
            failed=kind.counts["failed"],
            cancelled=kind.counts["cancelled"],
            in_flight=self._in_flight[name],
            accepting_s=kind.accepting.spread(),
            working_s=kind.working.spread(),
            total_s=kind.total.spread(),
        )
