"""Every error that tinkex raises, in one tree.

::

    TinkexError
      ConfigurationError (ValueError)        settings that cannot work; raised before any I/O
      InvalidInputError (ValueError)         a value given to a call is wrong; names the field and the datum
      APIError                               one round trip to the server went wrong
        APIConnectionError                   no answer; ``maybe_sent`` tells whether the server may have acted
          APITimeoutError (TimeoutError)
          CircuitOpenError                   not even sent: the server has failed too often in a row
        APIStatusError                       the server answered with an error status
          BadRequestError 400 · AuthenticationError 401 · BillingError 402 · PermissionDeniedError 403
          NotFoundError 404 · ConflictError 409 · UnprocessableEntityError 422 · RateLimitError 429
          InternalServerError 5xx
        APIResponseValidationError           a 2xx body that does not fit its type
      OperationError                         the server accepted an operation and it failed later
        RequestFailedError                   with ``category``: user, server or unknown
        FutureExpiredError                   the result is gone (410)
        ProgressTimeoutError (TimeoutError)  the server has it, and nothing happened for too long
      LifecycleError                         the client object cannot do this now
        ClientClosedError                    with ``reason``
        PipelineBrokenError                  an earlier operation failed; it is the ``__cause__``
      ResultTimeoutError (TimeoutError)      a wait ended; the operation itself goes on
      FlowControlError (ValueError)          this request alone exceeds a budget
      UnexpectedError (RuntimeError)         a fault of tinkex; its ``__cause__`` is what happened

Names follow the official SDK where the meaning is the same, and so do the arguments by position. All of them pickle,
none contains the API key, and ``retryable`` and ``retry_after`` are the only place where status codes are interpreted.
"""

from __future__ import annotations

import concurrent.futures
import enum
import sys
from collections.abc import Mapping
from typing import Any, Literal

from tinkex._exchange import Request, Response, headers_of

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "CircuitOpenError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "FlowControlError",
    "FutureExpiredError",
    "InternalServerError",
    "InvalidInputError",
    "LifecycleError",
    "NotFoundError",
    "OperationError",
    "PermissionDeniedError",
    "PipelineBrokenError",
    "ProgressTimeoutError",
    "RateLimitError",
    "RequestFailedError",
    "ResultTimeoutError",
    "TinkexError",
    "UnexpectedError",
    "UnprocessableEntityError",
    "error_from_status",
]

FailureCategory = Literal["unknown", "server", "user"]


class RequestErrorCategory(str, enum.Enum):
    """Whose fault a failed operation is; each member equals its text."""

    Unknown = "unknown"
    Server = "server"
    User = "user"

    def __str__(self) -> str:
        """Return the text."""
        return self.value

    def __format__(self, spec: str) -> str:
        """Format the text, in all versions of Python."""
        return format(self.value, spec)


_FAR_AHEAD_S = 60.0


def _rebuild(cls: type[TinkexError], args: tuple[Any, ...], state: dict[str, Any]) -> TinkexError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class TinkexError(Exception):
    """Base of everything that tinkex raises on purpose.

    Attributes:
        message: What happened, for a reader.
        request_id: The server's name for the operation, if one is known.
        index: Position of what failed among many: of the prompt in ``sample_many``, of the datum in ``data``.
    """

    index: int | None = None

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        """Keep ``message`` and what is known about the operation."""
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    @property
    def retryable(self) -> bool:
        """True if the same request, sent again, may succeed."""
        return False

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked to wait before another attempt, if it did."""
        return None

    def _context(self) -> list[str]:
        return [f"request id {self.request_id}"] if self.request_id else []

    def __str__(self) -> str:
        """Return the message, then what identifies the request."""
        context = ", ".join(self._context())
        return f"{self.message} ({context})" if context else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state, so that subclasses may have any constructor."""
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


class ConfigurationError(TinkexError, ValueError):
    """The settings cannot work; nothing was sent."""


class InvalidInputError(TinkexError, ValueError):
    """A value handed to a call is wrong; nothing was sent.

    Attributes:
        field: Dotted name of the offending field, such as ``data[3].loss_fn_inputs['weights']``.
        index: Position of the offending datum in ``data``, if the field belongs to one.
    """

    def __init__(self, message: str, *, field: str | None = None, index: int | None = None) -> None:
        """Keep the place of the mistake beside the message."""
        super().__init__(message)
        self.field = field
        self.index = index


class APIError(TinkexError):
    """One round trip to the server went wrong.

    Attributes:
        method: HTTP method.
        path: Path below the base URL.
        body: The decoded JSON body of the answer, or its text; None if there is none.
        idempotency_key: Key shared by all attempts of the call, if it had one.
        attempts: How many times the request was sent, 1 for the first.
        repeated: An attempt before this one may have reached the server, which may have acted on it.
    """

    repeated: bool = False

    def __init__(
        self,
        message: str,
        request: Any = None,
        *,
        body: object = None,
        method: str = "",
        path: str = "",
        request_id: str | None = None,
        idempotency_key: str | None = None,
        attempts: int = 1,
    ) -> None:
        """Keep the message and what identifies the round trip."""
        super().__init__(message, request_id=request_id)
        self.method = method
        self.path = path
        self.body = body
        self.idempotency_key = idempotency_key
        self.attempts = attempts
        self._request = request

    @property
    def request(self) -> Any:
        """The request: ``method`` and ``url``, or what the error was made with."""
        return Request(self.method, self.path) if self._request is None else self._request

    def _context(self) -> list[str]:
        where = [f"{self.method} {self.path}".strip()] if self.path else []
        key = [f"idempotency key {self.idempotency_key}"] if self.idempotency_key else []
        tries = [f"{self.attempts} attempts"] if self.attempts > 1 else []
        return where + super()._context() + key + tries


class APIConnectionError(APIError):
    """The server gave no answer.

    Attributes:
        maybe_sent: False if the request surely never reached the server (no connection was made), True if the
            server may have acted on it. Sequence numbers and idempotency keys make sending again safe in both
            cases.
        permanent: True if sending again cannot help, as when the server's certificate is not trusted.
    """

    _usual = "Connection error."

    def __init__(
        self,
        message: Any = None,
        request: Any = None,
        *,
        maybe_sent: bool = True,
        permanent: bool = False,
        **context: Any,
    ) -> None:
        """Keep the message; ``context`` goes to :class:`APIError`. The request may stand first."""
        if not isinstance(message, (str, type(None))):
            message, request = request, message
        super().__init__(message or self._usual, request, **context)
        self.maybe_sent = maybe_sent
        self.permanent = permanent

    @property
    def retryable(self) -> bool:
        """True unless it is permanent: a lost connection says nothing about the request."""
        return not self.permanent


class APITimeoutError(APIConnectionError, TimeoutError):
    """The server did not answer within the timeout of the request."""

    _usual = "Request timed out."


class CircuitOpenError(APIConnectionError):
    """The circuit breaker has not let the request through; ``retry_after`` tells when it will try the server again."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, maybe_sent: bool = False, **context: Any
    ) -> None:
        """Keep the time that is left; ``context`` goes to :class:`APIConnectionError`."""
        super().__init__(message, maybe_sent=maybe_sent, **context)
        self._retry_after = retry_after

    @property
    def retry_after(self) -> float | None:
        """Seconds until the breaker lets a request through again."""
        return self._retry_after


class APIStatusError(APIError):
    """The server answered with an error status.

    Attributes:
        status_code: The HTTP status; of a class that has one of its own also on the class.
        headers: Response headers, names in lower case.
    """

    status_code: int

    def __init__(
        self,
        message: str,
        response: Any = None,
        body: object = None,
        *,
        status_code: int | None = None,
        headers: Mapping[str, str] | None = None,
        **context: Any,
    ) -> None:
        """Keep the answer; ``context`` goes to :class:`APIError`.

        Args:
            message: What happened.
            response: The answer as an object of an HTTP library, in place of its status and headers.
            body: The decoded body.
            status_code: The HTTP status.
            headers: Response headers.
            **context: What identifies the round trip.

        Raises:
            TypeError: There is neither a status nor an answer that has one.
        """
        super().__init__(message, getattr(response, "request", None), body=body, **context)
        status = getattr(response, "status_code", None) if status_code is None else status_code
        status = getattr(type(self), "status_code", None) if status is None else status
        if status is None:
            raise TypeError(f"{type(self).__name__} needs status_code=, or a response that has one")
        self.status_code = status
        given = headers_of(response) if headers is None else headers
        self.headers = {name.lower(): value for name, value in given.items()}
        self._response = response

    @property
    def response(self) -> Any:
        """The answer: ``status_code``, ``headers``, ``text``, ``json()``; or what the error was made with."""
        if self._response is not None:
            return self._response
        return Response(self.status_code, self.headers, self.body, self.request)

    @property
    def retryable(self) -> bool:
        """The server's ``x-should-retry`` if it sent one, else true for 408, 409, 425, 429 and 5xx except 501."""
        asked = self.headers.get("x-should-retry")
        if asked in ("true", "false"):
            return asked == "true"
        return self.status_code in (408, 409, 425, 429) or (self.status_code >= 500 and self.status_code != 501)

    @property
    def retry_after(self) -> float | None:
        """Seconds from ``retry-after-ms`` or ``retry-after``, if between 0 and 60."""
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            seconds = _parse_seconds(self.headers.get(name), unit)
            if seconds is not None and 0 < seconds <= _FAR_AHEAD_S:
                return seconds
        return None


class BadRequestError(APIStatusError):
    """400: the server could not make sense of the request."""

    status_code = 400


class AuthenticationError(APIStatusError):
    """401: no API key, or one that the server does not know."""

    status_code = 401


class BillingError(APIStatusError):
    """402: the account cannot pay for this; not retried unless asked for."""

    status_code = 402


class PermissionDeniedError(APIStatusError):
    """403: the API key may not do this."""

    status_code = 403


class NotFoundError(APIStatusError):
    """404: no such model, sampler, checkpoint, future or path."""

    status_code = 404


class ConflictError(APIStatusError):
    """409: another operation stands in the way.

    Attributes:
        lasting: What stands in the way stays there, such as a checkpoint that has the name: to send again is of no use.
    """

    lasting: bool = False

    @property
    def retryable(self) -> bool:
        """False if it is lasting; else as for every status."""
        return not self.lasting and super().retryable

    status_code = 409


class UnprocessableEntityError(APIStatusError):
    """422: the body is well-formed but a field is not acceptable."""

    status_code = 422


class RateLimitError(APIStatusError):
    """429: too many requests."""

    status_code = 429


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class APIResponseValidationError(APIError):
    """A successful answer whose body does not fit its type; the message has the path of the field.

    Attributes:
        status_code: The HTTP status.
    """

    status_code: int = 200

    def __init__(self, response: Any = None, body: object = None, message: str | None = None, **context: Any) -> None:
        """Keep the message, which may stand first; ``context`` goes to :class:`APIError`."""
        if isinstance(response, str):
            response, message = None, response
        text = message or "Data returned by API invalid for expected schema."
        super().__init__(text, getattr(response, "request", None), body=body, **context)
        self.status_code = getattr(response, "status_code", type(self).status_code)
        self._response = response

    @property
    def response(self) -> Any:
        """The answer, as that of :class:`APIStatusError`."""
        return self._response or Response(self.status_code, {}, self.body, self.request)


class OperationError(TinkexError):
    """The server accepted an operation, and it failed later.

    Attributes:
        operation: Name of the method, such as ``forward_backward``.
    """

    def __init__(self, message: str, *, operation: str | None = None, request_id: str | None = None) -> None:
        """Keep what identifies the operation."""
        super().__init__(message, request_id=request_id)
        self.operation = operation

    def _context(self) -> list[str]:
        return ([self.operation] if self.operation else []) + super()._context()


class RequestFailedError(OperationError):
    """The operation ran and failed on the server.

    Attributes:
        category: ``user`` if the request was at fault, ``server`` if the server was, else ``unknown``.
    """

    def __init__(
        self,
        message: str,
        request_id: str | None = None,
        category: FailureCategory | RequestErrorCategory = "unknown",
        **context: Any,
    ) -> None:
        """Keep the category; ``context`` goes to :class:`OperationError`."""
        super().__init__(message, request_id=request_id, **context)
        self.category = RequestErrorCategory(category)

    def _context(self) -> list[str]:
        return [*super()._context(), f"category {self.category}"]


class FutureExpiredError(OperationError):
    """The server no longer has the result (410)."""


class ProgressTimeoutError(OperationError, TimeoutError):
    """The server has accepted the operation, and for a long time none of its client has ended; nobody asks any more.

    The server may still do it: a model whose operation was given up is best continued from its last checkpoint.

    Attributes:
        silent_s: Seconds since there was progress.
        queue_state: The last word of the server on its queue; ``unknown`` if it could not be asked.
    """

    def __init__(self, message: str, *, silent_s: float = 0.0, queue_state: str = "unknown", **context: Any) -> None:
        """Keep what is known of the wait; ``context`` goes to :class:`OperationError`."""
        super().__init__(message, **context)
        self.silent_s = silent_s
        self.queue_state = queue_state


class LifecycleError(TinkexError):
    """The client object cannot do this in its present state."""


class ClientClosedError(LifecycleError):
    """The client was closed, its session ended, or it belongs to another process.

    Attributes:
        reason: Why it is closed.
    """

    def __init__(self, message: str, *, reason: str = "closed") -> None:
        """Keep the reason."""
        super().__init__(message)
        self.reason = reason


class PipelineBrokenError(LifecycleError):
    """An earlier operation of this model failed, and this one was submitted in ignorance of it, so it was not sent.

    The failure is the ``__cause__``. Once it was read, the next call goes on; the message says so, or what stands in
    the way.

    Attributes:
        operation: Name of the operation that failed first.
    """

    def __init__(self, message: str, *, operation: str | None = None, request_id: str | None = None) -> None:
        """Keep what identifies the first failure."""
        super().__init__(message, request_id=request_id)
        self.operation = operation


class UnexpectedError(TinkexError, RuntimeError):
    """tinkex itself failed, by an exception that it should not have met: the ``__cause__``. Please report it."""

    @classmethod
    def of(cls, error: BaseException) -> TinkexError:
        """Return the error itself if it is one of this tree, else one that has it as its cause."""
        if isinstance(error, TinkexError):
            return error
        made = cls(
            f"tinkex itself failed with {in_words(error)}. Please report it, with the traceback of this error; a "
            "training client is best continued from its last checkpoint"
        )
        made.__cause__ = error
        return made


class FlowControlError(TinkexError, ValueError):
    """This request alone is larger than a budget, so it could never be sent."""


if sys.version_info >= (3, 11):

    class ResultTimeoutError(TinkexError, TimeoutError):
        """``result(timeout)`` ended before the operation, which goes on and can be waited for again."""

else:

    class ResultTimeoutError(TinkexError, concurrent.futures.TimeoutError, TimeoutError):
        """``result(timeout)`` ended before the operation, which goes on and can be waited for again."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: BillingError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def in_words(error: BaseException) -> str:
    """Return the type and the text of an error, also of one whose text cannot be made: that is foreign code."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def error_from_status(message: str, *, status_code: int, **context: Any) -> APIStatusError:
    """Build the error class that belongs to an HTTP status.

    Args:
        message: What the server said.
        status_code: The HTTP status, 400 or above (or an unexpected one below).
        **context: ``body``, ``headers``, ``method``, ``path`` and what else :class:`APIStatusError` takes.

    Returns:
        The error, ready to be raised.
    """
    fallback = InternalServerError if status_code >= 500 else APIStatusError
    return _BY_STATUS.get(status_code, fallback)(message, status_code=status_code, **context)


def _parse_seconds(text: str | None, unit: float) -> float | None:
    if text is None:
        return None
    try:
        return float(text) * unit
    except ValueError:
        return _seconds_until(text)


def _seconds_until(http_date: str) -> float | None:
    # Rare, so the imports wait until a server sends a date instead of a number.
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(http_date)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return (when - datetime.now(timezone.utc)).total_seconds()
