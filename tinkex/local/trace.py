"""What the operations of a session did when, as a trace that https://ui.perfetto.dev shows."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Any

import attrs

from tinkex.wire import json

__all__ = ["Span", "Traces"]

_SPANS = 20_000
_SESSIONS = 100
_MICROSECONDS = 1e6


@attrs.frozen(kw_only=True, slots=True)
class Span:
    """One operation; times are monotonic seconds.

    Attributes:
        request_id: Its name in the API.
        operation: What it does.
        lane: The model or sampler that it belongs to.
        queued: It arrived.
        began: The engine began with it.
        ended: It had a result.
        failed: The result was a failure.
    """

    request_id: str
    operation: str
    lane: str
    queued: float
    began: float
    ended: float
    failed: bool


class Traces:
    """The latest operations of the latest sessions. Methods may be called from any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._spans: OrderedDict[str, deque[Span]] = OrderedDict()

    def add(self, span: Span) -> None:
        """Keep an operation."""
        session_id = span.lane.partition(":")[0]
        with self._lock:
            self._spans.setdefault(session_id, deque(maxlen=_SPANS)).append(span)
            self._spans.move_to_end(session_id)
            while len(self._spans) > _SESSIONS:
                self._spans.popitem(last=False)

    def export(self, session_id: str) -> bytes:
        """Write what is kept of a session in the Trace Event Format: one row for each model and sampler."""
        with self._lock:
            spans = list(self._spans.get(session_id, ()))
        rows = {lane: row for row, lane in enumerate(dict.fromkeys(span.lane for span in spans), start=1)}
        zero = min((span.queued for span in spans), default=0.0)
        named = [_event("M", "thread_name", row, args={"name": lane}) for lane, row in rows.items()]
        drawn = [_drawn(span, rows[span.lane], zero) for span in spans]
        return json.encode({"traceEvents": named + drawn, "displayTimeUnit": "ms"})


def _drawn(span: Span, row: int, zero: float) -> dict[str, Any]:
    told = {"request_id": span.request_id, "queued_s": span.began - span.queued, "failed": span.failed}
    begin, length = span.began - zero, span.ended - span.began
    return _event("X", span.operation, row, ts=begin * _MICROSECONDS, dur=length * _MICROSECONDS, args=told)


def _event(phase: str, name: str, row: int, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": 1, "tid": row, **more}
