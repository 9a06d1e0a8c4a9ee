"""The order of work: one engine thread, strict order within a lane, turns among lanes.

A lane is a model or a sampler. Numbered jobs of a lane run by number, whatever order they arrive in: number n+1
waits for n. If n does not come in time, the jobs behind the gap fail and say which number is missing. Lanes take turns,
so that a busy model cannot starve another: a turn is one job, or one step of a long one. Neighbouring jobs of a lane
that have ``rows`` run as one batch.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import attrs

from tinkex.errors import InvalidInputError, LifecycleError

__all__ = ["Job", "JobQueue"]

logger = logging.getLogger(__name__)


@attrs.define(eq=False, kw_only=True)
class Job:
    """One piece of work for the engine thread.

    Attributes:
        lane: Which lane it belongs to.
        run: Returns the outcome, or a generator whose value is the outcome: other lanes have their turns where it
            yields, and no later job of its own lane begins before it has ended. With ``rows`` it is called with the
            payloads of a batch, and returns an outcome for each of them, where an exception stands for a failure.
        finish: Called once with the outcome, or with the exception that ``run`` raised.
        seq: Its number in the lane; None to run in order of arrival.
        rows: How many sequences it adds to a batch; 0 if it cannot be batched.
        payload: What it adds to a batch.
        queued_at: When it was put, on the monotonic clock.
        began_at: When it began to run; the same as ``queued_at`` until then.
        steps: What is left of a job that has begun and waits for its next turn.
    """

    lane: str
    run: Callable[..., Any]
    finish: Callable[[Any], None]
    seq: int | None = None
    rows: int = 0
    payload: Any = None
    queued_at: float = 0.0
    began_at: float = 0.0
    steps: Generator[None, None, Any] | None = attrs.field(default=None, init=False)


@attrs.define(eq=False)
class _Lane:
    name: str
    next_seq: int = 0
    ready: deque[Job] = attrs.field(factory=deque)
    waiting: dict[int, Job] = attrs.field(factory=dict)
    gap_since: float = 0.0


class JobQueue:
    """Runs jobs on one thread, ``tinkex-engine``."""

    def __init__(self, *, batch_rows: int, gap_s: float, clock: Callable[[], float]) -> None:
        """Make an idle queue; ``start`` makes it work."""
        self._batch_rows = batch_rows
        self._gap_s = gap_s
        self._clock = clock
        self._thread = threading.Thread(target=self._work, name="tinkex-engine", daemon=True)
        self._cond = threading.Condition()
        # Guarded by _cond:
        self._lanes: dict[str, _Lane] = {}
        self._gaps: dict[str, _Lane] = {}
        self._turns: deque[_Lane] = deque()
        self._running: Sequence[Job] = ()
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Let the running job end its step, fail all others and what is left of it, and end the thread.

        Args:
            timeout: Seconds to wait for the running job or step.

        Returns:
            True if the thread has ended.
        """
        with self._cond:
            self._closed = True
            self._cond.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        self._abandon()
        return not self._thread.is_alive()

    def put(self, job: Job) -> None:
        """Queue a job. If it can never run, it fails at once."""
        job.queued_at = job.began_at = self._clock()
        with self._cond:
            error = self._place_locked(job)
            self._cond.notify_all()
        if error is not None:
            job.finish(error)

    def withdraw(self, job: Job) -> bool:
        """Take a job back that has no number; False if it runs already, or has run."""
        with self._cond:
            lane = self._lanes.get(job.lane)
            if job.seq is not None or job.steps is not None or lane is None or job not in lane.ready:
                return False
            lane.ready.remove(job)
            if not lane.ready:
                self._turns.remove(lane)
            return True

    def explain(self, job: Job) -> str:
        """Say what a job waits for."""
        with self._cond:
            if job in self._running or job.steps is not None:
                return "running"
            lane = self._lanes.get(job.lane)
            if lane is None:
                return "queued"
            if job.seq is not None and job.seq in lane.waiting:
                return f"waits for seq_id {lane.next_seq} of {lane.name}, which has not arrived"
            ahead = lane.ready.index(job) if job in lane.ready else 0
            ahead += len(self._running)
            return f"{ahead} operation{'' if ahead == 1 else 's'} ahead"

    def _place_locked(self, job: Job) -> Exception | None:
        if self._closed:
            return LifecycleError("the server is stopping")
        lane = self._lanes.setdefault(job.lane, _Lane(job.lane))
        if job.seq is None:
            self._ready_locked(lane, job)
            return None
        if job.seq < lane.next_seq:
            return InvalidInputError(
                f"seq_id {job.seq} of {job.lane} comes too late: the model is at {lane.next_seq} already. "
                "Number the operations of a model 1, 2, 3, ... and send none twice with other content",
                field="seq_id",
            )
        if job.seq == lane.next_seq or not lane.waiting:
            lane.gap_since = self._clock()
        lane.waiting[job.seq] = job
        while lane.next_seq in lane.waiting:
            self._ready_locked(lane, lane.waiting.pop(lane.next_seq))
            lane.next_seq += 1
        self._gaps.pop(lane.name, None)
        if lane.waiting:
            self._gaps[lane.name] = lane
        return None

    def _suspend_locked(self, job: Job) -> None:
        """Let the other lanes have their turns, and go on with the job at the next one of its own."""
        lane = self._lanes.setdefault(job.lane, _Lane(job.lane))
        if lane.ready:
            self._turns.remove(lane)
        self._turns.append(lane)
        lane.ready.appendleft(job)

    def _ready_locked(self, lane: _Lane, job: Job) -> None:
        if not lane.ready:
            self._turns.append(lane)
        lane.ready.append(job)

    def _work(self) -> None:
        try:
            while True:
                jobs = self._take()
                if jobs is None:
                    return
                self._run(jobs)
        finally:
            # Whatever ended this thread, nobody may wait for it for ever.
            with self._cond:
                self._closed = True
            self._abandon()

    def _take(self) -> Sequence[Job] | None:
        while True:
            with self._cond:
                lane = self._overdue_locked()
                overdue, missing = self._give_up_locked(lane) if lane else ([], 0)
                if not overdue:
                    if self._closed:
                        return None
                    if self._turns:
                        self._running = self._next_locked()
                        return self._running
                    self._cond.wait(self._patience_locked())
            for job in overdue:
                job.finish(self._gap_error(job, missing))

    def _next_locked(self) -> list[Job]:
        lane = self._turns.popleft()
        jobs = [lane.ready.popleft()]
        rows = jobs[0].rows
        while rows and lane.ready and lane.ready[0].rows and rows + lane.ready[0].rows <= self._batch_rows:
            rows += lane.ready[0].rows
            jobs.append(lane.ready.popleft())
        if lane.ready:
            self._turns.append(lane)
        elif lane.next_seq == 0 and not lane.waiting:
            # Samplers come and go by the thousand, and an empty lane without numbers has nothing to remember.
            del self._lanes[lane.name]
        return jobs

    def _run(self, jobs: Sequence[Job]) -> None:
        began = self._clock()
        for job in jobs:
            job.began_at = began if job.steps is None else job.began_at
        outcomes = _attempt(jobs)
        if len(jobs) > 1 and isinstance(outcomes[0], BaseException) and _same(outcomes):
            # One request may have spoilt the batch; the others shall not pay for it.
            outcomes = [_attempt([job])[0] for job in jobs]
        with self._cond:
            self._running = ()
            if jobs[0].steps is not None:
                self._suspend_locked(jobs[0])
                return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.finish(outcome)

    def _overdue_locked(self) -> _Lane | None:
        now = self._clock()
        return next((lane for lane in self._gaps.values() if now - lane.gap_since >= self._gap_s), None)

    def _patience_locked(self) -> float | None:
        ends = [lane.gap_since + self._gap_s for lane in self._gaps.values()]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _give_up_locked(self, lane: _Lane) -> tuple[list[Job], int]:
        missing, jobs = lane.next_seq, [lane.waiting[seq] for seq in sorted(lane.waiting)]
        lane.next_seq = max(lane.waiting) + 1
        lane.waiting.clear()
        del self._gaps[lane.name]
        return jobs, missing

    def _gap_error(self, job: Job, missing: int) -> InvalidInputError:
        return InvalidInputError(
            f"seq_id {job.seq} of {job.lane} waited {self._gap_s:g} s for seq_id {missing}, which did not arrive, so "
            "it did not run. Send every number, or load the latest checkpoint into a new model",
            field="seq_id",
        )

    def _abandon(self) -> None:
        with self._cond:
            jobs, begun = [*self._running], []
            for lane in self._lanes.values():
                jobs += [*lane.ready, *lane.waiting.values()]
                begun += [job.steps for job in lane.ready if job.steps is not None]
                lane.ready.clear()
                lane.waiting.clear()
            self._turns.clear()
            self._gaps.clear()
        for job in jobs:
            job.finish(LifecycleError("the server was stopped before this operation had run"))
        for steps in begun:
            steps.close()


def _attempt(jobs: Sequence[Job]) -> list[Any]:
    try:
        if not jobs[0].rows:
            return [_advance(jobs[0])]
        outcomes = list(jobs[0].run([job.payload for job in jobs]))
        if len(outcomes) != len(jobs):
            raise RuntimeError(f"{len(jobs)} requests got {len(outcomes)} outcomes")
        return outcomes
    # Also KeyboardInterrupt and SystemExit raised by an engine: the thread lives on, and the caller is told.
    except BaseException as error:
        return [error] * len(jobs)


def _advance(job: Job) -> Any:
    """Run a job to its end or its next yield; return its outcome, which does not count if there are ``steps`` left."""
    outcome, job.steps = job.run() if job.steps is None else job.steps, None
    if not isinstance(outcome, Generator):
        return outcome
    try:
        next(outcome)
    except StopIteration as end:
        return end.value
    job.steps = outcome
    return None


def _same(outcomes: Sequence[Any]) -> bool:
    return all(outcome is outcomes[0] for outcome in outcomes)
