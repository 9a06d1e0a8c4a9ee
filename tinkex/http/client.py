"""One logical call: headers, one idempotency key, attempts until one succeeds, statuses made into errors."""

from __future__ import annotations

import functools
import logging
import platform
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs
from requests.utils import urldefragauth

from tinkex._version import __version__
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.errors import APIConnectionError, APIError, ConflictError, TinkexError
from tinkex.http import retry
from tinkex.http._statuses import status_error
from tinkex.http.body import Body
from tinkex.http.breaker import Breaker, GuardedSender
from tinkex.http.credentials import Credentials
from tinkex.http.retry import RetryDetails
from tinkex.http.tracing import trace_headers
from tinkex.http.transport import Response, Sender, Transport

__all__ = ["Answer", "ApiClient", "CallRules"]

_log = logging.getLogger(__name__)

_KEY = "X-API-Key"
_HARMLESS = ("accept", "content-", "user-agent", "x-idempotency-", "x-sdk-", "x-stainless-", "x-tinker-")

# The names that the official SDK uses.
_SYSTEMS = {name: name for name in ("Linux", "Windows", "FreeBSD", "OpenBSD")} | {
    "Darwin": "MacOS",
    "": "Unknown",
}
_MACHINES = {
    "x86_64": "x64",
    "amd64": "x64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "arm": "arm",
    "": "unknown",
}


@attrs.frozen(kw_only=True, slots=True)
class CallRules:
    """What can be special about an endpoint.

    Attributes:
        retried: False for a single attempt, because whoever calls repeats by rules of its own.
        final: Statuses that are left to the caller at once although they could be tried again.
        redirects: Follow redirects; if False, a redirect is a successful answer.
        expects_body: A successful answer without a body cannot be a whole one.
        hint: What to do about a status, for the reader of the error.
    """

    retried: bool = True
    final: frozenset[int] = frozenset()
    redirects: bool = True
    expects_body: bool = True
    hint: Mapping[int, str] = attrs.field(factory=dict)


@attrs.define(slots=True)
class _Contact:
    """What the copies of a client know of the server together.

    Attributes:
        reached: It has answered once, whatever.
        known: It has answered as a server of the API does, so its address is right.
    """

    reached: bool = False
    known: bool = False


_ORDINARY = CallRules()
_ONCE = RetryPolicy.none()


@attrs.frozen(kw_only=True, slots=True)
class Answer:
    """The successful end of one call.

    Attributes:
        response: What the server sent.
        method: HTTP method.
        path: Path and query below the base URL.
        url: The whole address, without credentials.
        idempotency_key: What all attempts carried, None for a GET.
        attempts: How many there were.
    """

    response: Response
    method: str
    path: str
    url: str
    idempotency_key: str | None
    attempts: int


class ApiClient:
    """Sends calls to one server; safe for any number of threads."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        transport: Sender | None = None,
        stop: threading.Event | None = None,
        on_retry: Callable[[RetryDetails], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Put the constant headers together.

        Args:
            config: Address, key, timeouts, retry policy.
            transport: Makes the attempts; a new :class:`Transport` unless given.
            stop: Ends every wait between attempts, and forbids further ones.
            on_retry: Told of each wait between attempts.
            clock: Monotonic seconds.
            sleep: Waits between attempts; by default on ``stop``.
            credentials: What each request carries; those of the settings unless given.

        Raises:
            ConfigurationError: The settings cannot be used.
        """
        self.config = config
        self.credentials = credentials or Credentials(config, clock=clock)
        self.stop = stop or threading.Event()
        self._transport = _guarded(transport or Transport(config, clock=clock), config, clock)
        self._on_retry = on_retry
        self._clock = clock
        self._sleep = sleep
        self._trace_headers = trace_headers() if config.propagate_trace else None
        self._headers = _merge(_constant_headers(), config.default_headers)
        self._keyed = _has_key(self._headers)
        self._base_url = urldefragauth(config.base_url)
        # Asks the system for randomness once; a uuid4 would do so, and let go of the interpreter, for every request.
        self._keys = random.Random()  # noqa: S311 - names requests, guards nothing
        self._notes: set[str] = set()
        self._contact = _Contact()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
        rules: CallRules = _ORDINARY,
        late: Callable[[], Mapping[str, str]] = dict,
    ) -> Answer:
        """Send one request, again and again if policy and rules say so.

        Args:
            method: HTTP method.
            path: Path and query below the base URL, already quoted.
            body: What to send.
            headers: Headers of this call; they win over the constant ones.
            idempotency_key: The key that all attempts share; made here unless given. GET requests have none.
            timeout: Seconds to wait for bytes of one answer; None for that of the settings.
            request_id: The operation this is about, for errors.
            rules: What is special about the endpoint.
            late: Names what is in the body that a server may be too old to know, each with the version of the SDK that
                it came with; called only if the server refuses the body.

        Returns:
            The answer, with a status below 400.

        Raises:
            APIConnectionError: There was no answer.
            APIStatusError: The server refused; the class tells how.
            ClientClosedError: The client was closed before or while waiting.
        """
        key = None if method == "GET" else idempotency_key or self.new_key()
        wait = self.config.timeout if timeout is None else timeout
        constant = self._headers if self._trace_headers is None else _merge(self._trace_headers(), self._headers)
        sent = _merge({**constant, **_call_headers(method, key, wait)}, headers)
        keyed = self._keyed or _has_key(headers or ())

        def send(own: str | None) -> Response:
            carried = {**sent, _KEY: own} if own else sent
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("%s %s with %s", method, path, _shown(carried))
            return self._transport.send(
                method, path, body=body, headers=carried, timeout=wait, redirects=rules.redirects
            )

        def attempt(number: int) -> Answer:
            sent["x-stainless-retry-count"] = str(number - 1)
            own = None if keyed else self.credentials.value()
            try:
                response = send(own)
                self._contact.reached = True
                if own and _is_invalid_token(response):
                    another = self.credentials.replace(own)
                    response = send(another) if another else response
                self._check(response, method, path, rules, late, has_key=keyed or own is not None)
            except APIError as error:
                error.idempotency_key, error.request_id = key, request_id
                raise
            url = self._base_url + path
            return Answer(response=response, method=method, path=path, url=url, idempotency_key=key, attempts=number)

        started = self._clock()
        return retry.call(
            self.config.retry if rules.retried else _ONCE,
            attempt,
            stop=self.stop,
            operation=f"{method} {path}",
            retryable=lambda error: _is_worth_retrying(rules.final, error) and not self._is_hopeless(started),
            on_retry=self._on_retry,
            clock=self._clock,
            sleep=self._sleep,
        )

    def new_key(self) -> str:
        """Return an idempotency key that no other call has."""
        return f"tinkex-retry-{self._keys.getrandbits(128):032x}"

    def _is_hopeless(self, started: float) -> bool:
        """Tell whether the server has been silent from the start for so long that its address is likely wrong."""
        return not self._contact.reached and self._clock() - started >= self.config.retry.first_contact_s

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> ApiClient:
        """Make a client with other settings over the same connections; what is None stays as it is."""
        given = {"timeout": timeout, "retry": retry, "default_headers": default_headers}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        copy = ApiClient(
            attrs.evolve(self.config, **changes),
            transport=self._transport,
            stop=stop or self.stop,
            on_retry=self._on_retry,
            clock=self._clock,
            sleep=self._sleep,
            credentials=self.credentials,
        )
        copy._contact = self._contact
        return copy

    def close(self) -> None:
        """End waits between attempts and close the connections; may be called again, and from any thread."""
        self.stop.set()
        self._transport.close()

    def _check(
        self,
        response: Response,
        method: str,
        path: str,
        rules: CallRules,
        late: Callable[[], Mapping[str, str]],
        *,
        has_key: bool,
    ) -> None:
        self._show_deprecation(response.headers)
        if _is_lost(response, rules.expects_body):
            text = f"{self._base_url} answered {response.status} and nothing else, as when a server breaks off"
            raise APIConnectionError(text, method=method, path=path)
        if response.status >= 400 or (response.status >= 300 and rules.redirects):
            error = status_error(
                self._without_key(response),
                method=method,
                path=path,
                base_url=self._base_url,
                has_key=has_key,
                hint=rules.hint.get(response.status),
                late=late() if response.status in (400, 422) else {},
                known=self._contact.known,
            )
            if isinstance(error, ConflictError):
                error.lasting = response.status in rules.final
            raise error
        self._contact.known = self._contact.known or _speaks_the_api(response)

    def _without_key(self, response: Response) -> Response:
        """Blot out the API key where a server repeats it, so that no error or log shows it."""
        return attrs.evolve(response, content=self.credentials.blot_out(response.content))

    def _show_deprecation(self, headers: Mapping[str, str]) -> None:
        note = headers.get("x-deprecation-note")
        if note and note not in self._notes:
            self._notes.add(note)
            level = logging.ERROR if headers.get("x-deprecation-level") == "error" else logging.WARNING
            _log.log(level, "the server says: %s", note)


def _guarded(sender: Sender, config: ClientConfig, clock: Callable[[], float]) -> Sender:
    """Put the breaker before a sender if the settings want one; copies of a client have it together with the sender."""
    if config.circuit_breaker is None or isinstance(sender, GuardedSender):
        return sender
    return GuardedSender(sender, Breaker(config.circuit_breaker, urldefragauth(config.base_url), clock))


def _has_key(names: Iterable[str]) -> bool:
    return any(name.lower() == _KEY.lower() for name in names)


def _is_invalid_token(response: Response) -> bool:
    """Tell a token that a server does not accept, though nothing is wrong with who it stands for (RFC 6750)."""
    return response.status == 401 and 'error="invalid_token"' in response.headers.get("www-authenticate", "")


def _is_lost(response: Response, expects_body: bool) -> bool:
    """Tell what only looks like an answer of the server, so that the request is sent again."""
    if response.content:
        return False
    # A proxy that lost its server answers 400 without a body; and to http.client, a connection that ends
    # within the headers looks like headers without a body.
    cut_off = 200 <= response.status < 300 and "content-length" not in response.headers
    return response.status == 400 or (cut_off and expects_body)


def _speaks_the_api(response: Response) -> bool:
    """Tell a successful answer of the API from a page of whatever else may listen at an address."""
    kind = response.headers.get("content-type", "")
    return response.status < 300 and ("json" in kind or "protobuf" in kind)


def _is_worth_retrying(final: Collection[int], error: TinkexError) -> bool:
    return error.retryable and getattr(error, "status_code", None) not in final


def _constant_headers() -> dict[str, str]:
    return {"Accept": "application/json", "User-Agent": f"tinkex/Python {__version__}", **_platform_headers()}


def _call_headers(method: str, key: str | None, timeout: float) -> dict[str, str]:
    headers = {"x-stainless-read-timeout": f"{timeout:g}"}
    if method != "GET":
        headers["Content-Type"] = "application/json"
    if key:
        headers["X-Idempotency-Key"] = key
    return headers


@functools.cache
def _platform_headers() -> dict[str, str]:
    """What the official SDK tells about its surroundings, told of ours."""
    system = platform.system()
    machine = platform.machine().lower()
    return {
        "X-Stainless-Package-Version": __version__,
        "X-Stainless-OS": _SYSTEMS.get(system, f"Other:{system}"),
        "X-Stainless-Arch": _MACHINES.get(machine, f"other:{machine}"),
        "X-Stainless-Runtime": platform.python_implementation(),
        "X-Stainless-Runtime-Version": platform.python_version(),
        "X-Stainless-Async": "false",
    }


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for the log: whatever is not known to be harmless may be a credential, and shows its name only."""
    return {name: value if name.lower().startswith(_HARMLESS) else "..." for name, value in headers.items()}


def _merge(headers: Mapping[str, str], over: Mapping[str, str] | None) -> dict[str, str]:
    """Put headers over others; names are the same whatever their case."""
    if not over:
        return dict(headers)
    names = {name.lower() for name in over}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **over}
