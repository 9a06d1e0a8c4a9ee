"""Saves whose answer was lost: what it means that the server calls the name of the repeated one taken."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from typing import Any

import attrs

from tinkex.config import RetryPolicy
from tinkex.errors import APIError, ConflictError, TinkexError
from tinkex.pipeline import Failed, Outcome, Pending, Ready
from tinkex.resources import TinkexAPI
from tinkex.types import Checkpoint, CheckpointType, UntypedAPIFuture

__all__ = ["Saves"]

logger = logging.getLogger("tinkex")


class Saves:
    """The saves of one model. Used by the thread that sends its operations.

    A server that tells saves apart by their names alone answers 409 to the second attempt of one whose first it has.
    Then the checkpoint in the listing of the run is that of the save, unless this client had saved one of this name
    before: then the first attempt has met the same conflict.
    """

    def __init__(self, api: TinkexAPI, model_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of no saves."""
        # The poller repeats what fails.
        self._api = api.with_options(retry=RetryPolicy.none())
        self._patience_s = api.config.retry.max_elapsed_s
        self._model_id = model_id
        self._clock = clock
        self._accepted: set[tuple[CheckpointType, str]] = set()

    def send(self, kind: CheckpointType, name: str | None, send: Callable[[], UntypedAPIFuture]) -> UntypedAPIFuture:
        """Send a save and remember that the server has it."""
        promise = send()
        if name is not None:
            self._accepted.add((kind, name))
        return promise

    def look_up(
        self, kind: CheckpointType, name: str | None, make: Callable[[Checkpoint], Any], error: APIError
    ) -> Callable[[], Outcome] | None:
        """Return how to find out what became of a save that the server has refused, if it may have it nevertheless.

        Args:
            kind: What is saved.
            name: Name of the checkpoint; None for one that has none.
            make: Makes the result out of the checkpoint.
            error: The refusal.
        """
        taken = isinstance(error, ConflictError) and error.repeated
        if not taken:
            return None
        if name is None:
            return lambda: Failed(_unresolved(error, "without a name it cannot be looked up; save again"))
        if (kind, name) in self._accepted:
            return None
        self._accepted.add((kind, name))
        logger.info("the answer to a save of %r was lost; looking for the checkpoint in the listing", name)
        return _Search(
            api=self._api,
            model_id=self._model_id,
            kind=kind,
            name=name,
            make=make,
            conflict=error,
            patience_s=self._patience_s,
            clock=self._clock,
        )


@attrs.define(kw_only=True, slots=True, eq=False)
class _Search:
    """Looks for a checkpoint in the listing of its run, which may come to have it only when the save is done."""

    api: TinkexAPI
    model_id: str
    kind: CheckpointType
    name: str
    make: Callable[[Checkpoint], Any]
    conflict: APIError
    patience_s: float
    clock: Callable[[], float]
    until: float | None = attrs.field(default=None, init=False)

    def __call__(self) -> Outcome:
        """Look once. The time runs from the first look, because everything before the save is done by then."""
        now = self.clock()
        self.until = now + self.patience_s if self.until is None else self.until
        over = now >= self.until
        try:
            listed = self.api.weights.list(self.model_id).checkpoints
        except TinkexError as error:
            if error.retryable and not over:
                raise
            return Failed(_unresolved(self.conflict, f"the checkpoints of the run could not be listed ({error})"))
        for item in listed:
            if item.checkpoint_type == self.kind and item.checkpoint_id.rsplit("/", 1)[-1] == self.name:
                return Ready(self.make(item))
        if over:
            return Failed(
                _unresolved(self.conflict, f"the listing of the run did not have it within {self.patience_s:g} s")
            )
        return Pending("active", "the answer to the save was lost, and the listing of the run does not have it yet")


def _unresolved(conflict: APIError, reason: str) -> APIError:
    error = copy.copy(conflict)
    hint = "an earlier attempt of this save may have reached the server, so the checkpoint may be its own"
    error.message += f"; {hint}, but {reason}"
    return error
