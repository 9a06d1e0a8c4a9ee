"""One HTTP attempt over ``requests``: connections, timeouts, redirects.

``Session.request`` merges environment, netrc, cookies, hooks and redirects for every call. Here the
environment is read once per transport and a finished request goes straight to the session's adapter, which is
still that of ``requests``: its TLS, proxy and pooling rules hold, and ``responses`` intercepts it in tests.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

import attrs
import requests
import urllib3.exceptions
from requests.models import PreparedRequest
from requests.utils import DEFAULT_ACCEPT_ENCODING, urldefragauth

from tinkex.config import ClientConfig
from tinkex.errors import ClientClosedError, ConfigurationError
from tinkex.http._causes import explain, root_of
from tinkex.http._connection import Adapter
from tinkex.http.body import SENDALL_BYTES, Body, Pieces

__all__ = ["Response", "Sender", "Transport"]

_log = logging.getLogger(__name__)

# What may follow a redirect to another host: nothing that could identify the user.
_PUBLIC_HEADERS = frozenset({"accept", "accept-encoding", "content-length", "content-type", "user-agent"})


@attrs.frozen(kw_only=True, slots=True)
class Response:
    """What the server answered to one attempt.

    Attributes:
        status: HTTP status.
        headers: Response headers, names in lower case.
        content: The body, decompressed.
        elapsed: Seconds from the start of the attempt to the last byte.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    content: bytes = attrs.field(default=b"", repr=lambda content: f"<{len(content)} bytes>")
    elapsed: float = 0.0


class Sender(Protocol):
    """What makes one attempt; :class:`Transport` is one, and a test may bring its own."""

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> Response:
        """Send one request once."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Transport:
    """Sends requests to one server, one attempt each; safe for any number of threads.

    Every thread has its own session, so a thread that sends one request after the other stays on one warm
    connection and no thread waits for another's.
    """

    def __init__(self, config: ClientConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the settings and the environment (proxies, ``REQUESTS_CA_BUNDLE``); connect to nothing yet.

        Args:
            config: Base URL, parameters of every address, timeouts.
            clock: Monotonic seconds.

        Raises:
            ConfigurationError: The base URL cannot be used, or the bundle of certificates is not there.
        """
        self._clock = clock
        self._connect_timeout = config.connect_timeout
        self._read_timeout = config.timeout
        self.base_url, self._headers = _prepare_base(config.base_url)
        self._query = dict(config.default_query)
        self._environment = _read_environment(self.base_url)
        self._closed = threading.Event()
        self._sessions = _Sessions()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> Response:
        """Send one request once and read the whole answer.

        Args:
            method: HTTP method.
            path: Path and query below the base URL, already quoted, beginning with ``/``.
            body: What to send; None for no body.
            headers: All headers of the request, except ``Content-Length`` and ``Accept-Encoding``.
            timeout: Seconds to wait for bytes of the answer; None for that of the settings.
            redirects: Follow redirects. Only 307 and 308 are followed for anything but GET, because the
                others would turn the request into a GET. Headers that identify the user stay with this
                server.

        Returns:
            The answer, whatever its status.

        Raises:
            APIConnectionError: There was no whole answer; ``maybe_sent`` tells if the request may have
                arrived.
            APITimeoutError: Connecting, sending or receiving took too long.
            ClientClosedError: The transport is closed.
        """
        if self._closed.is_set():
            raise ClientClosedError(f"cannot send {method} {path}: the client is closed")
        started = self._clock()
        read_timeout = self._read_timeout if timeout is None else timeout
        prepared = self._prepare(method, path, body, headers or {})
        try:
            reply = self._exchange(prepared, (self._connect_timeout, read_timeout), redirects)
            content = reply.raw.read(decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise explain(
                error,
                method=method,
                path=path,
                base_url=self.base_url,
                connect_timeout=self._connect_timeout,
                read_timeout=read_timeout,
            ) from self._harmless(error)
        elapsed = self._clock() - started
        _log.debug("%s %s -> %d, %d bytes, %.3f s", method, path, reply.status_code, len(content), elapsed)
        fields = {name.lower(): value for name, value in reply.headers.items()}
        return Response(status=reply.status_code, headers=fields, content=content, elapsed=elapsed)

    def close(self) -> None:
        """Close the connections of all threads, from any of them; a read in progress goes on."""
        self._closed.set()
        for session in self._current_sessions().all():
            session.close()

    def _prepare(self, method: str, path: str, body: Body | None, headers: Mapping[str, str]) -> PreparedRequest:
        prepared = PreparedRequest()
        prepared.method = method
        prepared.url = self.base_url + (_with_query(path, self._query) if self._query else path)
        sent: dict[str, str] = {**self._headers, **headers}
        if body is not None:
            sent["Content-Length"] = str(len(body))
            prepared.body = _as_sent(body)  # type: ignore[assignment]
        prepared.headers = sent  # type: ignore[assignment]
        return prepared

    def _harmless(self, error: BaseException) -> BaseException:
        """Return the cause of an error to show; urllib3 shows addresses, and so what may be secret in their query."""
        return _without_request(root_of(error) if self._query else error)

    def _exchange(self, prepared: PreparedRequest, timeout: tuple[float, float], redirects: bool) -> requests.Response:
        session = self._current_sessions().mine()
        adapter = session.get_adapter(prepared.url)  # type: ignore[arg-type]
        reply = adapter.send(prepared, timeout=timeout, **self._environment)
        if redirects and reply.is_redirect and (prepared.method == "GET" or reply.status_code in (307, 308)):
            prepared.prepare_cookies({})
            replies = session.resolve_redirects(reply, prepared, timeout=timeout, **self._environment)
            final: requests.Response = [reply, *replies][-1]
            return final
        return reply

    def _current_sessions(self) -> _Sessions:
        # Sockets shared between a parent and its fork would mix up their answers.
        if self._sessions.pid != os.getpid():
            self._sessions = _Sessions()
        return self._sessions


class _Sessions:
    """The sessions of one process: one per thread, known to all so that any thread can close them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._local = threading.local()
        self._lock = threading.Lock()
        # Guarded by _lock. Weak, so that a thread that ends takes its connections with it.
        self._all: weakref.WeakSet[requests.Session] = weakref.WeakSet()

    def mine(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            with self._lock:
                self._all.add(session)
        return session

    def all(self) -> list[requests.Session]:
        with self._lock:
            return list(self._all)


class _Session(requests.Session):
    """A session that hides from other hosts what names the user; requests hides ``Authorization`` only."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, Adapter(pool_connections=4, pool_maxsize=1, max_retries=0))

    def rebuild_auth(self, prepared_request: PreparedRequest, response: requests.Response) -> None:
        strips: bool = self.should_strip_auth(response.request.url, prepared_request.url)  # type: ignore[no-untyped-call]
        if strips:
            kept = {n: v for n, v in prepared_request.headers.items() if n.lower() in _PUBLIC_HEADERS}
            prepared_request.headers = kept  # type: ignore[assignment]


def _prepare_base(base_url: str) -> tuple[str, dict[str, str]]:
    """Check a base URL once, and take a user and password out of it so that no message shows them."""
    try:
        prepared = requests.Request("GET", base_url).prepare()
    except (requests.RequestException, ValueError) as error:
        raise ConfigurationError(f"base_url {base_url!r} cannot be used: {error}") from None
    headers = {"Accept-Encoding": DEFAULT_ACCEPT_ENCODING}
    if "Authorization" in prepared.headers:
        headers["Authorization"] = prepared.headers["Authorization"]
    return urldefragauth(str(prepared.url)).rstrip("/"), headers


def _read_environment(base_url: str) -> dict[str, Any]:
    """Resolve proxies and certificates as requests does, but no netrc: the API key is the credential."""
    with requests.Session() as session:
        settings = session.merge_environment_settings(base_url, {}, True, None, None)
    bundle = settings["verify"]
    if isinstance(bundle, str) and not os.path.exists(bundle):  # noqa: PTH110
        raise ConfigurationError(
            f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names {bundle!r}, which is not there; correct or unset it"
        )
    return dict(settings)


def _with_query(path: str, query: Mapping[str, str]) -> str:
    """Append the parameters that the path does not have itself."""
    bare, _, own = path.partition("?")
    taken = {name for name, _ in parse_qsl(own, keep_blank_values=True)}
    added = urlencode([(name, value) for name, value in query.items() if name not in taken])
    return f"{bare}?{'&'.join(filter(None, (own, added)))}"


def _as_sent(body: Body) -> Body:
    if len(body) <= SENDALL_BYTES:
        return bytes(body)
    return Pieces([body], len(body)) if isinstance(body, bytes) else body


def _without_request(error: BaseException) -> BaseException:
    """Keep the cause of an error without the request it carries, whose headers have the API key."""
    if isinstance(error, requests.RequestException):
        error.request = None
        error.response = None
    return error
