"""The concurrency kernel: submits in order, polls, resolves futures; does no HTTP, is handed callables."""

from __future__ import annotations

from tinkex.pipeline.batching import (
    BINARY,
    JSON,
    SizeRule,
    combine_outputs,
    estimate_datum,
    estimate_input,
    split,
)
from tinkex.pipeline.dispatch import SampleDispatcher
from tinkex.pipeline.flow import ByteBudget, SampleGate, SamplePolicy
from tinkex.pipeline.futures import APIFuture, Observer, PhaseChange, Phases
from tinkex.pipeline.heartbeat import Heartbeat
from tinkex.pipeline.herald import Herald, News
from tinkex.pipeline.keeper import Part, Wiring
from tinkex.pipeline.metrics import Durations, Metrics, MetricsSnapshot, OperationMetrics
from tinkex.pipeline.patience import Patience
from tinkex.pipeline.periodic import Periodic
from tinkex.pipeline.poller import Poller, Watched
from tinkex.pipeline.pool import CallPool
from tinkex.pipeline.process import ExitDeadline, forked_error
from tinkex.pipeline.reporter import Reporter
from tinkex.pipeline.state import PipelineState
from tinkex.pipeline.step import Failed, Large, Outcome, Pending, PollPolicy, Ready
from tinkex.pipeline.submission import Submission

__all__ = [
    "BINARY",
    "JSON",
    "APIFuture",
    "ByteBudget",
    "CallPool",
    "Durations",
    "ExitDeadline",
    "Failed",
    "Heartbeat",
    "Herald",
    "Large",
    "Metrics",
    "MetricsSnapshot",
    "News",
    "Observer",
    "OperationMetrics",
    "Outcome",
    "Part",
    "Patience",
    "Pending",
    "Periodic",
    "PhaseChange",
    "Phases",
    "PipelineState",
    "PollPolicy",
    "Poller",
    "Ready",
    "Reporter",
    "SampleDispatcher",
    "SampleGate",
    "SamplePolicy",
    "SizeRule",
    "Submission",
    "Watched",
    "Wiring",
    "combine_outputs",
    "estimate_datum",
    "estimate_input",
    "forked_error",
    "split",
]
