"""What a fault plan can ask the server to do to one request; the plan itself is in :mod:`tinkex.testing.faults`."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Literal, Protocol

import attrs

__all__ = ["Fault", "FaultSource"]

FaultAction = Literal["handle", "answer", "reset", "drop", "duplicate"]


@attrs.frozen(kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        action: ``handle`` the request as ever, ``answer`` with ``status`` instead of handling it, ``reset`` the
            connection before handling it, ``drop`` the connection after handling it (the answer is lost), or handle
            it twice (``duplicate``) and send the second answer.
        gate: Wait until this future is done before anything else.
        status: Status to answer with.
        headers: Headers to answer with.
        body: Bytes to answer with.
    """

    action: FaultAction = "handle"
    gate: concurrent.futures.Future[None] | None = None
    status: int = 500
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""


class FaultSource(Protocol):
    """Asked once for each request."""

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with this request; None for nothing.

        Args:
            method: HTTP method.
            path: Path below ``/api/v1/``, such as ``optim_step``.
        """
        ...
