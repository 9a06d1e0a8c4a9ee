"""What all resources share: the description of an endpoint, the way from typed values to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

import attrs
from typing_extensions import ParamSpec, TypedDict

from tinkex.errors import APIResponseValidationError, InvalidInputError
from tinkex.http import Answer, ApiClient, Body, CallRules
from tinkex.types._base import late_fields
from tinkex.wire.json import decode, encode

__all__ = ["APIResponse", "Endpoint", "ReadOptions", "Resource", "WriteOptions", "raw"]

T = TypeVar("T")
P = ParamSpec("P")

# ids hold colons, checkpoint ids a slash; both travel as they are.
_SAFE = {"checkpoint_id": ":/"}
_ROOT = "/api/v1"


class ReadOptions(TypedDict, total=False):
    """What every method takes besides its own arguments.

    Attributes:
        timeout: Seconds to wait for bytes of one answer; by default that of the endpoint or of the settings.
        extra_headers: Headers of this call; they win over all others.
    """

    timeout: float | None
    extra_headers: Mapping[str, str] | None


class WriteOptions(ReadOptions, total=False):
    """What methods take that may change something on the server.

    Attributes:
        idempotency_key: Names this call, so that the server can tell a repeated request from a new one. Made
            once per call and shared by all its attempts unless given.
    """

    idempotency_key: str | None


@attrs.frozen(kw_only=True, slots=True)
class Endpoint(CallRules, Generic[T]):
    """One endpoint of the API.

    Attributes:
        name: ``<resource>.<method>``.
        method: HTTP method.
        path: Path below ``/api/v1``, with the names of ids in braces.
        request: Type of the body; None for no body, dict for one that is built from arguments.
        response: Type of the answer; None if there is nothing in it.
        timeout: Seconds to wait for bytes of one answer; None for that of the settings.
        headers: Headers of this endpoint.

    The other fields are those of :class:`~tinkex.http.CallRules`.
    """

    name: str
    method: str
    path: str
    request: type[Any] | None = None
    response: type[T] | None
    timeout: float | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    expects_body: bool = attrs.field()

    @expects_body.default
    def _(self) -> bool:
        return self.response is not None

    @property
    def idempotent(self) -> bool:
        """True if calls carry an idempotency key."""
        return self.method != "GET"

    def url(self, ids: Mapping[str, str], query: Mapping[str, Any] | None = None) -> str:
        """Fill in the ids and append the query; what is None in the query is left out.

        Raises:
            InvalidInputError: An id is no text, empty, or would lead to another path.
        """
        path = _ROOT + self.path.format_map({name: _quote(name, value) for name, value in ids.items()})
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return f"{path}?{urlencode(given)}" if given else path


def check_id(name: str, value: Any) -> None:
    """Refuse what cannot stand in a path: no text, an empty one, or one that would lead to another path.

    Raises:
        InvalidInputError: With the name of the argument.
    """
    if not isinstance(value, str) or any(part in ("", ".", "..") for part in value.split("/")):
        raise InvalidInputError(f"{name} must be a non-empty id, got {value!r:.120}", field=name)


def _quote(name: str, value: str) -> str:
    check_id(name, value)
    return quote(value, safe=_SAFE.get(name, ":"))


@attrs.frozen(kw_only=True, slots=True)
class APIResponse(Generic[T]):
    """An answer before it is read.

    Attributes:
        status_code: HTTP status.
        headers: Response headers, names in lower case.
        content: The body, decompressed.
        method: HTTP method of the request.
        url: Address of the request; the API key is not in it.
        idempotency_key: What all attempts carried, None for a GET.
        attempts: How many there were.
        elapsed: Seconds that the last one took.
    """

    status_code: int
    headers: Mapping[str, str]
    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")
    method: str
    url: str
    idempotency_key: str | None
    attempts: int
    elapsed: float
    _answer: Answer = attrs.field(repr=False, eq=False)
    _read: Callable[[Answer], T] = attrs.field(repr=False, eq=False)

    @classmethod
    def of(cls, answer: Answer, read: Callable[[Answer], T]) -> APIResponse[T]:
        """Wrap an answer and the function that reads it."""
        response = answer.response
        return cls(
            status_code=response.status,
            headers=response.headers,
            content=response.content,
            method=answer.method,
            url=answer.url,
            idempotency_key=answer.idempotency_key,
            attempts=answer.attempts,
            elapsed=response.elapsed,
            answer=answer,
            read=read,
        )

    def parse(self) -> T:
        """Read the body as the method itself would have.

        Raises:
            APIResponseValidationError: The body does not fit its type.
        """
        return self._read(self._answer)


class Resource:
    """A group of endpoints over one client."""

    def __init__(self, client: ApiClient, *, keep_answers: bool = False) -> None:
        """Use a client.

        Args:
            client: Sends the requests.
            keep_answers: Return :class:`APIResponse` instead of values; see :func:`raw`.
        """
        self._client = client
        self._keep_answers = keep_answers

    def _call(
        self,
        endpoint: Endpoint[T],
        request: object = None,
        *,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        write: Callable[[Any], Body] = encode,
        read: Callable[[Answer], T] | None = None,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> T:
        if endpoint.request is not None and not isinstance(request, endpoint.request):
            wanted, got = endpoint.request.__name__, type(request).__name__
            raise InvalidInputError(f"{endpoint.name} takes a {wanted}, got {got}", field="request")
        answer = self._client.call(
            endpoint.method,
            endpoint.url(ids or {}, query),
            body=None if request is None else write(request),
            headers={**endpoint.headers, **(headers or {}), **(extra_headers or {})},
            idempotency_key=idempotency_key,
            timeout=endpoint.timeout if timeout is None else timeout,
            request_id=request_id,
            rules=endpoint,
            late=lambda: late_fields(request),
        )
        reader = read or (lambda answer: read_json(answer, endpoint.response))
        if self._keep_answers:
            return cast(T, APIResponse.of(answer, reader))
        return reader(answer)


def raw(method: Callable[P, T]) -> Callable[P, APIResponse[T]]:
    """Take a method of a resource and return the same one, except that it hands out the answer unread."""
    resource = cast(Any, method).__self__
    twin = type(resource)(resource._client, keep_answers=True)
    return cast("Callable[P, APIResponse[T]]", getattr(twin, cast(Any, method).__name__))


def read_json(answer: Answer, cls: type[T] | None) -> T:
    """Read a JSON answer; None for an endpoint that answers nothing.

    Raises:
        APIResponseValidationError: The body does not fit; the message has the path of the field.
    """
    if cls is None:
        return cast(T, None)
    return read_with(answer, lambda content: decode(content, cls))


def read_with(answer: Answer, read: Callable[[bytes], T]) -> T:
    """Read the body of an answer, and let a misfit be the fault of the answer, not of the caller's input."""
    content = answer.response.content
    try:
        return read(content)
    except InvalidInputError as error:
        raise invalid_answer(answer, f"the answer does not fit: {error.message}{_start(answer)}") from error


def invalid_answer(answer: Answer, message: str) -> APIResponseValidationError:
    """Build the error for a successful answer that cannot be used."""
    return APIResponseValidationError(
        message,
        method=answer.method,
        path=answer.path,
        idempotency_key=answer.idempotency_key,
        attempts=answer.attempts,
    )


def _start(answer: Answer) -> str:
    """Show how a body begins that is not JSON at all: a page of a proxy or of a login, mostly."""
    kind = answer.response.headers.get("content-type", "")
    if "json" in kind:
        return ""
    start = answer.response.content[:60]
    return f"; it is {kind or 'of no stated type'} and begins with {start!r}: check base_url"
