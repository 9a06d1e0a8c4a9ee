"""A scripted server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from typing_extensions import override

from tinkex.errors import APIConnectionError, RequestFailedError, error_from_status
from tinkex.pipeline import (
    ByteBudget,
    Part,
    Pending,
    Poller,
    PollPolicy,
    Ready,
    SampleDispatcher,
    SampleGate,
    Submission,
    Watched,
    Wiring,
)

BOUND = 20.0
"""Seconds after which something that must happen has not happened."""
FAST_POLLS = PollPolicy(initial_wait_s=0.0005, max_wait_s=0.002)


def tinkex_threads() -> list[str]:
    """Return the names of the threads of tinkex."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tinkex-")]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class InlineExecutor(Executor):
    """Runs each task at once, in the thread that submits it."""

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` now."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def refused(status: int = 422, **context: Any) -> Exception:
    """Return what a send raises that the server refuses."""
    return error_from_status(f"status {status}", status_code=status, **context)


def lost() -> Exception:
    """Return what a send raises that got no answer."""
    return APIConnectionError("connection reset")


def failed(category: Any = "server") -> RequestFailedError:
    """Return the error of an operation that failed on the server."""
    return RequestFailedError("it failed", category=category)


class Server:
    """Accepts requests and answers polls as each part was told to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seqs: list[int] = []
        self.labels: list[Any] = []
        self.polled: list[str] = []
        self.polling = 0
        self.most_polls = 0
        self.names = itertools.count(1)
        self.answers: dict[str, list[Any]] = {}

    def part(self, label: Any = None, *, answers: Any = None, refuse: Any = None, size: int = 10, **hooks: Any) -> Part:
        """Make a request.

        Args:
            label: Recorded when the request is accepted; also the result unless ``answers`` says otherwise.
            answers: What successive polls return or raise; the last is repeated.
            refuse: Exceptions that successive sends raise before one is accepted.
            size: Estimated bytes.
            **hooks: ``before``: called by send before anything else.
        """
        refusals = list(refuse) if isinstance(refuse, (list, tuple)) else [refuse] if refuse else []

        def send(seq_id: int) -> str:
            if "before" in hooks:
                hooks["before"]()
            if refusals:
                raise refusals.pop(0)
            with self.lock:
                request_id = f"r{next(self.names)}"
                self.seqs.append(seq_id)
                self.labels.append(label)
                self.answers[request_id] = list(answers) if answers is not None else [Ready(label)]
            return request_id

        return Part(send=send, size=size, request_type="Test", decode=label)

    def retrieve(self, watched: Watched) -> Any:
        """Answer a poll."""
        with self.lock:
            self.polled.append(watched.request_id)
            self.polling += 1
            self.most_polls = max(self.most_polls, self.polling)
            script = self.answers[watched.request_id]
            answer = script.pop(0) if len(script) > 1 else script[0]
        try:
            if callable(answer):
                answer = answer()
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            with self.lock:
                self.polling -= 1


class World:
    """A server, a poller and what hangs on it; closed in the right order."""

    def __init__(self, **poller: Any) -> None:
        self.server = Server()
        self.budget = ByteBudget(10_000)
        options = {"policy": FAST_POLLS, **poller}
        self.poller = Poller(self.server.retrieve, **options)
        self.keepers: list[Any] = []
        self.part = self.server.part

    def submission(self, name: str = "m", **options: Any) -> Submission:
        """Make a pipeline."""
        options.setdefault("budget", self.budget)
        pipeline = Submission(name, self.poller, **options)
        self.keepers.append(pipeline)
        return pipeline

    def dispatcher(self, **options: Any) -> SampleDispatcher:
        """Make a dispatcher."""
        options.setdefault("gate", SampleGate())
        dispatcher = SampleDispatcher("the session", self.poller, **options)
        self.keepers.append(dispatcher)
        return dispatcher

    def close(self) -> None:
        """Close all of it."""
        for keeper in self.keepers:
            keeper.close(drain=False, timeout=BOUND)
        self.poller.close()


@pytest.fixture
def new_world() -> Iterator[Callable[..., World]]:
    """Make worlds that are closed at the end."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """A world with the usual settings."""
    return new_world()


class Helpers:
    """What tests share; a fixture, because test modules cannot import one another."""

    BOUND = BOUND
    FAST_POLLS = FAST_POLLS
    Clock = Clock
    InlineExecutor = InlineExecutor
    Server = Server
    World = World
    refused = staticmethod(refused)
    lost = staticmethod(lost)
    failed = staticmethod(failed)
    threads = staticmethod(tinkex_threads)

    @staticmethod
    def inline(**options: Any) -> Wiring:
        """Return a wiring that runs everything in the calling thread."""
        return Wiring(executor=InlineExecutor(), **options)

    @staticmethod
    def first(results: list[Any]) -> Any:
        """Combine the results of one request."""
        return results[0]

    @staticmethod
    def held(event: threading.Event, answer: Any = None) -> Callable[[], Any]:
        """Return an answer that comes when ``event`` is set, like that of a long poll."""

        def wait() -> Any:
            return answer if event.wait(BOUND) and answer is not None else Pending()

        return wait


@pytest.fixture(scope="session")
def h() -> type[Helpers]:
    """The helpers."""
    return Helpers
