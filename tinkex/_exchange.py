"""What an error says of its request and answer, in the shape that HTTP libraries give them; no credential is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Request", "Response", "headers_of"]


class Request:
    """The request that failed.

    Attributes:
        method: HTTP method.
        url: Path below the base URL.
        headers: Empty: those of a request hold the key.
    """

    def __init__(self, method: str, url: str) -> None:
        """Keep both."""
        self.method = method
        self.url = url
        self.headers: dict[str, str] = {}

    def __repr__(self) -> str:
        """Show method and path."""
        return f"<Request({self.method!r}, {self.url!r})>"


class Response:
    """The answer that told of a failure.

    Attributes:
        status_code: HTTP status.
        headers: Names in lower case.
        request: What was answered.
    """

    def __init__(self, status_code: int, headers: Mapping[str, str], body: object, request: Request) -> None:
        """Keep the answer."""
        self.status_code = status_code
        self.headers = dict(headers)
        self.request = request
        self._body = body

    @property
    def url(self) -> str:
        """Path below the base URL."""
        return self.request.url

    @property
    def text(self) -> str:
        """The body as a text."""
        if self._body is None:
            return ""
        return self._body if isinstance(self._body, str) else json.dumps(self._body, ensure_ascii=False)

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        return self.text.encode()

    @property
    def is_success(self) -> bool:
        """Tell whether the status is 2xx."""
        return 200 <= self.status_code < 300

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            ValueError: It is no JSON.
        """
        return json.loads(self.text)

    def __repr__(self) -> str:
        """Show the status."""
        return f"<Response [{self.status_code}]>"


def headers_of(response: object) -> dict[str, str]:
    """Return the headers of an answer of whichever library."""
    headers = getattr(response, "headers", None)
    return {str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
