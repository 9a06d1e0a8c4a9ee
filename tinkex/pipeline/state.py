"""The states of a pipeline, and why it is in one."""

from __future__ import annotations

import enum

import attrs

__all__ = ["Failure", "PipelineState"]


class PipelineState(enum.Enum):
    """What a :class:`~tinkex.pipeline.Submission` does with operations.

    Legal transitions::

        OPEN   -> BROKEN   an operation failed, could not be sent, or ``break_`` was called (the session has
                           ended). This happens before the future of the failed operation is completed.
        BROKEN -> OPEN     ``reopen()``, if nothing is in flight and it is certain which numbers the server
                           has used.
        OPEN   -> CLOSED   ``close()``, or the program ended and the time for sending what was queued is over.
        BROKEN -> CLOSED   ``close()``.

    Not a transition, on purpose: when the user's own loss in ``submit_staged`` raises, nothing is half-sent
    and the server has lost nothing. What was queued behind it fails like in BROKEN, but the pipeline stays
    OPEN.

    Illegal transitions::

        BROKEN -> OPEN     while an operation is in flight: it may fail too, and what follows would be wrong.
                           after a failure that leaves it open whether the server has used a number (no answer
                           to a submit, an expired result): the next number might be a gap or a duplicate.
                           by itself: the gradients or weights on the server are not what the program
                           believes.
        CLOSED -> any      the worker is gone; create a new client.
    """

    OPEN = "open"
    """Takes operations and sends them."""
    BROKEN = "broken"
    """Sends nothing. New and queued operations fail at once; what the server has is still waited for."""
    CLOSED = "closed"
    """Takes nothing. After ``close(drain=True)`` what is queued is still sent."""


@attrs.frozen(slots=True)
class Failure:
    """Why the pipeline is broken."""

    error: BaseException
    operation: str
    request_id: str | None
    # The text of an exception is foreign code: it is made once, before any lock is taken.
    text: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            text = f"{type(self.error).__name__}: {self.error}"
        except Exception:
            text = type(self.error).__name__
        object.__setattr__(self, "text", text)
