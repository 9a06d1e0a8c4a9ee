"""The states of a pipeline, and why it is in one."""

from __future__ import annotations

import enum

import attrs

from tinkex.errors import PipelineBrokenError, in_words

__all__ = ["Failure", "Failures", "PipelineState"]

_UNCERTAIN = (
    "and the server may or may not have used its number, so nothing more can be sent; create a new client from the "
    "last checkpoint"
)
_IN_FLIGHT = "and other operations are still in flight; wait for their futures and try again"
_IGNORANT = (
    "so this one, submitted in ignorance of it, was not sent. The next call goes on with the model as it is; if that "
    "is not what you want, create a new client from the last checkpoint"
)


class PipelineState(enum.Enum):
    """What a :class:`~tinkex.pipeline.Submission` does with operations.

    A failure governs what was submitted in ignorance of it, and no more:

    1. An operation that cannot change the model (``forward``, the saves) fails alone; what stands behind it goes on.
    2. An operation that changes it breaks the pipeline first and fails then. What was submitted behind it fails with
       ``PipelineBrokenError``, which names it.
    3. Once the failure was told, the next call opens the pipeline, with a warning in the log. It was told when somebody
       has read the exception of the failed operation, or of one that it took along, or when a call has raised it.
    4. Where it is not certain which numbers the server has used, the pipeline stays broken.

    Legal transitions::

        OPEN   -> BROKEN   an operation that changes the model failed, also one whose loss raised; an operation of any
                           kind could not be sent and left its number uncertain; or ``break_`` was called (the session
                           has ended). This happens before the future of the failed operation is completed.
        BROKEN -> OPEN     the next call, once every failure was told; or ``reopen()``. Both only if nothing is in
                           flight and it is certain which numbers the server has used.
        OPEN   -> CLOSED   ``close()``, or the program ended and the time for sending what was queued is over.
        BROKEN -> CLOSED   ``close()``.

    Illegal transitions::

        BROKEN -> OPEN     while an operation is in flight: it may fail too, and what follows would be wrong.
                           after a failure that leaves it open whether the server has used a number (no answer
                           to a submit, an expired result): the next number might be a gap or a duplicate.
                           by a call whose program cannot know of the failure yet: the gradients or weights on the
                           server are not what it believes.
        CLOSED -> any      the worker is gone; create a new client.
    """

    OPEN = "open"
    """Takes operations and sends them."""
    BROKEN = "broken"
    """Sends nothing. New and queued operations fail at once; what the server has is still waited for."""
    CLOSED = "closed"
    """Takes nothing. After ``close(drain=True)`` what is queued is still sent."""


@attrs.define(slots=True, eq=False)
class Failure:
    """Why the pipeline is broken.

    Attributes:
        error: What went wrong.
        operation: Name of the method that failed.
        request_id: The server's name for it, if it has one.
        told: The program knows of it.
        text: The error in words. To make them runs foreign code, so it is done once, before any lock is taken.
    """

    error: BaseException
    operation: str
    request_id: str | None
    told: bool = attrs.field(default=False, init=False)
    text: str = attrs.field(init=False)

    @text.default
    def _(self) -> str:
        return in_words(self.error)

    def tell(self) -> None:
        """Note that the program knows of it."""
        self.told = True

    def broken(self, model: str, obstacle: str | None = None, others: int = 0) -> PipelineBrokenError:
        """Return the error of an operation that it takes along.

        Args:
            model: Name of the pipeline.
            obstacle: Why the next call cannot go on either, if it cannot.
            others: How many operations failed besides.
        """
        more = f", and {others} more," if others else ","
        error = PipelineBrokenError(
            f"an earlier {self.operation} of {model} failed ({self.text}){more} {obstacle or _IGNORANT}",
            operation=self.operation,
            request_id=self.request_id,
        )
        error.__cause__ = self.error
        return error


@attrs.define(slots=True, eq=False)
class Failures:
    """The failures that govern what is submitted; the lock of the pipeline guards them.

    Attributes:
        governing: Those of the time since the pipeline was open, the oldest first; none if it is.
        latest: The last of all, also when it governs nothing any more.
        uncertain: It is not known which numbers the server has used. Nothing ends that.
    """

    governing: list[Failure] = attrs.field(factory=list)
    latest: Failure | None = None
    uncertain: bool = False

    def add(self, failure: Failure, *, certain: bool) -> None:
        """Let a failure govern."""
        self.governing.append(failure)
        self.latest = failure
        self.uncertain = self.uncertain or not certain

    def end(self) -> list[Failure]:
        """Let them govern nothing any more, and return them."""
        ended, self.governing = self.governing, []
        return ended

    def obstacle(self, *, unsettled: bool) -> str | None:
        """Return why no call can go on now, or None.

        Args:
            unsettled: Requests are being sent, or in flight.
        """
        return _UNCERTAIN if self.uncertain else _IN_FLIGHT if unsettled else None

    def were_told(self) -> bool:
        """Tell whether the program knows of each."""
        return all(failure.told for failure in self.governing)

    def tell(self, model: str, obstacle: str | None) -> PipelineBrokenError:
        """Return the error for a call, which tells the program of each; its cause is the first that is untold."""
        untold = [failure for failure in self.governing if not failure.told]
        for failure in untold:
            failure.tell()
        first = (untold or self.governing)[0]
        return first.broken(model, obstacle, max(0, len(untold) - 1))


def named(failures: list[Failure]) -> str:
    """Name what failed, for the log."""
    more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"a failed {failures[0].operation} ({failures[0].text}){more}"
