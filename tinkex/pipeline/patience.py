"""How long accepted operations may make no progress, all of one client together."""

from __future__ import annotations

import math

import attrs

__all__ = ["Patience"]


@attrs.define(slots=True, eq=False)
class Patience:
    """Shared by the operations of one model, or of one sampling client.

    Progress is that one of them is accepted or has ended, or that the server says that it is paused: who is told to
    wait is not forgotten. Seeing progress costs one assignment; a :class:`~tinkex.pipeline.poller.Poller` looks at it
    once in ``limit_s``.

    Attributes:
        limit_s: Seconds without progress after which all are given up; infinite for never.
        last: When there was progress; written by any thread, without a lock.
        armed: The poller will look at it; guarded by the poller.
    """

    limit_s: float = math.inf
    last: float = attrs.field(default=-math.inf, init=False)
    armed: bool = attrs.field(default=False, init=False)
