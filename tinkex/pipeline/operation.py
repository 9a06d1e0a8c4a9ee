"""One operation of a model while it is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tinkex.pipeline.futures import Promise
from tinkex.pipeline.keeper import Part

__all__ = ["Operation"]


class Operation:
    """One call: the requests still to be sent, and the results that have come."""

    __slots__ = ("between", "charge", "combine", "doomed", "left", "parts", "promise", "read_only", "results")

    def __init__(
        self,
        promise: Promise[Any],
        parts: Sequence[Part],
        combine: Callable[[list[Any]], Any],
        *,
        between: Callable[[list[Any]], Sequence[Part]] | None = None,
        read_only: bool = False,
    ) -> None:
        """Begin with the requests of the first stage.

        Args:
            promise: Whose result it makes.
            parts: The requests.
            combine: Makes the result from those of the requests, in order.
            between: Makes the requests of a second stage from the results of the first.
            read_only: It cannot change the model.
        """
        self.promise = promise
        self.combine = combine
        self.between = between
        self.read_only = read_only
        self.doomed = False  # its failure is known, and whoever knows completes the future
        self.charge = 0
        self.load(parts)

    def load(self, parts: Sequence[Part]) -> None:
        """Take on the requests of the next stage."""
        self.parts = deque(parts)
        self.results: list[Any] = [None] * len(parts)
        self.left = len(parts)
        self.charge += sum(part.size for part in parts)

    def replace(self, index: int, parts: Sequence[Part]) -> None:
        """Send other requests in the place of one that was taken; none to leave everything as it is."""
        if parts:
            self.parts.extendleft(reversed(parts))
            self.results[index : index + 1] = [None] * len(parts)
            self.left += len(parts) - 1

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.promise.future.operation
