"""What the failure of one attempt means: the errors of requests, urllib3, ssl and socket in our words."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import attrs
import requests
import urllib3.exceptions

from tinkex.errors import APIConnectionError, APITimeoutError, ConfigurationError

__all__ = ["explain", "root_of"]


@attrs.frozen(slots=True)
class _Meaning:
    """What a kind of failure means; ``text`` may use the placeholders of :func:`explain`."""

    kinds: tuple[type[BaseException], ...]
    text: str
    maybe_sent: bool
    error: type[APIConnectionError] = APIConnectionError
    permanent: bool = False


_NO_CONNECTION = _Meaning(
    (urllib3.exceptions.ConnectTimeoutError,),
    "no connection within {connect_timeout:g} s; is the server reachable? base_url={base_url}",
    maybe_sent=False,
    error=APITimeoutError,
)
# The first line that fits any link of the chain of causes holds.
_MEANINGS = (
    _Meaning(
        (urllib3.exceptions.ProxyError, requests.exceptions.ProxyError),
        "the proxy did not let us through to {base_url}: {root}; it comes from HTTP_PROXY, HTTPS_PROXY or "
        "ALL_PROXY, and NO_PROXY lists the hosts to reach without it",
        maybe_sent=False,
    ),
    _Meaning(
        (ssl.SSLCertVerificationError,),
        "the certificate of {base_url} is not trusted: {root}; if that server is yours, set "
        "REQUESTS_CA_BUNDLE to the file with its certificate authority",
        maybe_sent=False,
        permanent=True,
    ),
    _Meaning(
        (socket.gaierror, urllib3.exceptions.NameResolutionError),
        "there is no host of that name: {root}; check base_url={base_url}, and the network",
        maybe_sent=False,
    ),
    _Meaning(
        (urllib3.exceptions.NewConnectionError, ConnectionRefusedError),
        "cannot connect: {root}; is the server running? base_url={base_url}",
        maybe_sent=False,
    ),
    _NO_CONNECTION,
    _Meaning(
        (urllib3.exceptions.ReadTimeoutError,),
        "no answer from {base_url} within {read_timeout:g} s",
        maybe_sent=True,
        error=APITimeoutError,
    ),
    _Meaning(
        (TimeoutError,),
        "{base_url} took none of the request for {connect_timeout:g} s",
        maybe_sent=True,
        error=APITimeoutError,
    ),
    _Meaning(
        (requests.TooManyRedirects,),
        "{base_url} redirects in a circle; check base_url",
        maybe_sent=True,
        permanent=True,
    ),
    _Meaning(
        (http.client.BadStatusLine,),
        "{base_url} gave no HTTP answer: {root}; is the scheme in base_url right?",
        maybe_sent=True,
    ),
    _Meaning((BaseException,), "the connection to {base_url} broke: {root}", maybe_sent=True),
)
_PLAIN_SERVER = _Meaning(
    (ssl.SSLError,),
    "{base_url} does not speak TLS ({root}); if it is a plain HTTP server, write http:// in base_url",
    maybe_sent=False,
    permanent=True,
)
# What OpenSSL says when the peer's first bytes are no TLS, by version.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


def explain(
    error: BaseException,
    *,
    method: str,
    path: str,
    base_url: str,
    connect_timeout: float,
    read_timeout: float,
) -> APIConnectionError | ConfigurationError:
    """Say what the failure of an attempt means and what can be done about it.

    Args:
        error: What ``requests`` or ``urllib3`` raised.
        method: HTTP method of the attempt.
        path: Its path.
        base_url: The server, without credentials.
        connect_timeout: Seconds allowed for connecting, and for sending one slice.
        read_timeout: Seconds allowed for the answer.

    Returns:
        The error to raise.
    """
    if isinstance(error, requests.RequestException) and isinstance(error, ValueError):
        # InvalidURL, InvalidProxyURL, InvalidSchema: only the settings can bring these about.
        return ConfigurationError(f"cannot reach {base_url}: {error}; check base_url and the proxy variables")
    links = list(_chain(error))
    meaning = _meaning(links)
    text = meaning.text.format(
        base_url=base_url, root=_words(links[-1]), connect_timeout=connect_timeout, read_timeout=read_timeout
    )
    return meaning.error(text, maybe_sent=meaning.maybe_sent, permanent=meaning.permanent, method=method, path=path)


def root_of(error: BaseException) -> BaseException:
    """Return where an error began."""
    return list(_chain(error))[-1]


def _meaning(links: list[BaseException]) -> _Meaning:
    if any(isinstance(link, ssl.SSLError) and getattr(link, "reason", "") in _NOT_TLS for link in links):
        return _PLAIN_SERVER
    # urllib3 takes a timeout of the TLS handshake for one of reading; only the text tells them apart.
    if any("handshake operation timed out" in str(link) for link in links):
        return _NO_CONNECTION
    return next(meaning for meaning in _MEANINGS if any(isinstance(link, meaning.kinds) for link in links))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to its root; urllib3 and requests keep causes in ``reason`` and ``args`` too."""
    link: BaseException | None = error
    while link is not None:
        yield link
        inner: list[Any] = [getattr(link, "reason", None), link.__cause__, *link.args]
        link = next((item for item in inner if isinstance(item, BaseException)), None)


def _words(root: BaseException) -> str:
    return f"{type(root).__name__}: {root}"[:300]
