"""A request that is answered at once with an error status."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Problem"]


class Problem(Exception):  # noqa: N818 - it is an answer, not a failure of the server
    """Ends the handling of a request with ``{"detail": ...}``.

    Attributes:
        status: HTTP status, 400 or above.
        detail: What is wrong, for a reader: the field, its value, the limit and the way out.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep what goes on the wire."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
