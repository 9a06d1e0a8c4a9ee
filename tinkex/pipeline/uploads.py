"""Sending the requests of an operation: one, or several side by side."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import attrs

from tinkex.errors import APIError, APIStatusError
from tinkex.pipeline.keeper import Part
from tinkex.pipeline.step import Outcome

__all__ = ["Sent", "Uploads", "all_sent", "is_too_large"]


@attrs.frozen(slots=True)
class Sent:
    """One accepted request.

    Attributes:
        request_id: The name of its result; empty if the server did not tell.
        submit_s: Seconds that sending it took.
        ask: How to find out the outcome, if the server did not tell the name.
    """

    request_id: str
    submit_s: float
    ask: Callable[[], Outcome] | None = None


class Uploads:
    """Sends requests on the calling thread, or on some that live as long as one call."""

    def __init__(self, name: str, threads: int | Callable[[], int], clock: Callable[[], float]) -> None:
        """Start nothing yet.

        Args:
            name: The model, for the names of the threads.
            threads: Requests that may be sent at once; or tells how many may be now.
            clock: Seconds.
        """
        self.name = name
        self._threads = threads
        self._clock = clock

    @property
    def threads(self) -> int:
        """Requests that may be sent at once."""
        return self._threads() if callable(self._threads) else self._threads

    def send(self, part: Part, seq_id: int) -> Sent:
        """Send one request here."""
        started, request_id, ask = self._clock(), "", None
        try:
            request_id = part.send(seq_id)
        except APIError as error:
            ask = part.look_up(error) if part.look_up is not None else None
            if ask is None:
                raise
        return Sent(request_id, self._clock() - started, ask)

    def send_all(self, parts: Sequence[Part], first_seq_id: int) -> list[Sent | BaseException]:
        """Send requests with consecutive numbers at once, and wait for all that have begun.

        After a failure no other begins. When the program has ended no thread starts any more; then they are sent here,
        one after the other.

        Returns:
            What became of each that has begun, in order; all of them if there is no failure.
        """
        failed = threading.Event()

        def send(part: Part, seq_id: int) -> Sent | BaseException | None:
            try:
                return None if failed.is_set() else self.send(part, seq_id)
            except BaseException as error:
                failed.set()
                return error

        results: list[Callable[[], Sent | BaseException | None]] = []
        with ThreadPoolExecutor(self.threads, thread_name_prefix=f"tinkex-upload-{self.name}") as pool:
            for seq_id, part in enumerate(parts, first_seq_id):
                # A context can be entered by one thread at a time.
                call = functools.partial(contextvars.copy_context().run, send, part, seq_id)
                try:
                    results.append(pool.submit(call).result)
                except RuntimeError:
                    results.append(call)
        return [outcome for result in results if (outcome := result()) is not None]


def all_sent(outcomes: Sequence[Sent | BaseException]) -> list[Sent]:
    """Return what was accepted, if there is nothing else; else raise the first error."""
    sent = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        sent.append(outcome)
    return sent


def is_too_large(error: BaseException) -> bool:
    """Tell whether the server, or a proxy before it, refused a request for its size."""
    return isinstance(error, APIStatusError) and error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
