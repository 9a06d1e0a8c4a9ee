"""Local metrics: what is counted, how exact the quantiles are, and that all of it stays small."""

from __future__ import annotations

import json
import math
import random
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinkex
from tinkex.pipeline import Durations, Metrics, OperationMetrics, PhaseChange


def tell(metrics: Metrics, phase: str, elapsed: float = 0.0, operation: str = "sample", after: float | None = None):
    """Tell of one change."""
    metrics(
        PhaseChange(
            operation=operation,
            phase=phase,
            request_id=None,
            elapsed=elapsed,
            queue_state="unknown",
            queue_state_reason=None,
            accepted_after=after,
        )
    )


def play(metrics: Metrics, *steps: tuple[object, ...]) -> None:
    """Tell of several changes."""
    for step in steps:
        tell(metrics, *step)


def test_operations_are_counted_by_kind_and_outcome():
    """Each call is in flight until it has one of the three outcomes."""
    metrics = Metrics()
    for phase in ("submitted",) * 6 + ("accepted", "queue_state", "ready", "ready", "failed", "cancelled"):
        tell(metrics, phase)
    tell(metrics, "submitted", operation="optim_step")
    operations = metrics.snapshot().operations
    assert list(operations) == ["optim_step", "sample"]
    told = operations["sample"]
    assert (told.submitted, told.done, told.failed, told.cancelled, told.in_flight) == (6, 2, 1, 1, 2)
    assert operations["optim_step"] == OperationMetrics(submitted=1, in_flight=1)


def test_durations_are_those_of_the_two_stretches_and_of_the_whole():
    """Until it was accepted, from then on, and in all; failures have no durations but that of being accepted."""
    metrics = Metrics()
    play(metrics, ("submitted",), ("accepted", 1.1, "sample", 1.0), ("ready", 4.0, "sample", 1.0))
    play(metrics, ("submitted",), ("accepted", 2.1, "sample", 2.0), ("failed", 9.0, "sample", 2.0))
    play(metrics, ("submitted",), ("ready", 2.0))
    told = metrics.snapshot().operations["sample"]
    assert (told.accepting_s.count, told.accepting_s.mean) == (2, 1.5)
    assert (told.working_s.count, told.working_s.mean) == (1, 3.0)
    assert (told.total_s.count, told.total_s.min, told.total_s.mean, told.total_s.max) == (2, 2.0, 3.0, 4.0)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=300))
def test_quantiles_are_off_by_one_per_cent_at_most(durations):
    """Of the duration that has the rank; count, mean and extremes are exact."""
    metrics = Metrics()
    for seconds in durations:
        tell(metrics, "ready", seconds)
    told, ranked = metrics.snapshot().operations["sample"].total_s, sorted(durations)
    for share, found in ((0.5, told.p50), (0.95, told.p95), (0.99, told.p99)):
        assert found == pytest.approx(ranked[math.ceil(share * len(ranked)) - 1], rel=0.0100001)
    assert (told.count, told.min, told.max) == (len(durations), ranked[0], ranked[-1])
    assert told.mean == pytest.approx(sum(durations) / len(durations))
    assert told.min <= told.p50 <= told.p95 <= told.p99 <= told.max


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e12])
def test_durations_beyond_all_bounds_do_no_harm(seconds):
    """A call of no length, or one of centuries, is itself when it is alone."""
    metrics = Metrics()
    tell(metrics, "ready", seconds)
    assert metrics.snapshot().operations["sample"].total_s == Durations(
        count=1, mean=seconds, min=seconds, p50=seconds, p95=seconds, p99=seconds, max=seconds
    )


def test_what_is_kept_does_not_grow_with_the_number_of_operations():
    """Durations of all sizes there are fill 1,500 buckets at most."""
    metrics, numbers = Metrics(), random.Random(7)
    for _ in range(20_000):
        tell(metrics, "ready", 10 ** numbers.uniform(-9, 9))
    assert len(metrics._kinds["sample"].total.buckets) <= 1500


def test_a_reset_begins_anew_and_leaves_what_is_in_flight():
    """Its end counts, and nothing becomes negative."""
    now = [100.0]
    metrics = Metrics(clock=lambda: now[0])
    play(metrics, ("submitted",), ("submitted",), ("ready", 1.0))
    now[0] = 130.0
    assert metrics.snapshot().elapsed_s == 30.0
    metrics.reset()
    now[0] = 132.0
    assert metrics.snapshot().elapsed_s == 2.0
    assert metrics.snapshot().operations == {"sample": OperationMetrics(in_flight=1)}
    tell(metrics, "failed")
    assert metrics.snapshot().operations == {"sample": OperationMetrics(failed=1)}
    metrics.reset()
    assert metrics.snapshot().operations == {}


def test_a_snapshot_stands_still_and_becomes_json():
    """What comes later does not change it."""
    metrics = Metrics(clock=lambda: 0.0)
    play(metrics, ("submitted",), ("ready", 0.5))
    snapshot = metrics.snapshot()
    tell(metrics, "submitted")
    assert snapshot.operations["sample"].submitted == 1
    told = json.loads(json.dumps(snapshot.as_dict()))
    assert told["operations"]["sample"]["total_s"]["p95"] == 0.5
    assert told["operations"]["sample"]["in_flight"] == 0


def test_threads_lose_nothing():
    """Operations end on many threads, and those of a new kind on several at once."""
    metrics, begin, kinds = Metrics(), threading.Barrier(8), [f"kind {number}" for number in range(500)]
    interval = sys.getswitchinterval()

    def work() -> None:
        begin.wait(10)
        for kind in kinds:
            play(metrics, ("submitted", 0.0, kind), ("ready", 2.0, kind, 1.0))

    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sys.setswitchinterval(interval)
    told = metrics.snapshot().operations.values()
    assert {(one.submitted, one.done, one.in_flight, one.working_s.count) for one in told} == {(8, 8, 0, 8)}


def test_it_has_a_name_at_the_top():
    """It is part of what a program holds."""
    assert tinkex.Metrics is Metrics
