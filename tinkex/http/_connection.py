"""The adapter of ``requests``, without the work that it repeats for every request though it is about none."""

from __future__ import annotations

import socket
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection

from tinkex.http._headers import Reply, header_line
from tinkex.http.body import SENDALL_BYTES, Block

__all__ = ["Adapter"]

_SMALL_BYTES = 64 * 1024
_NEVER_TWICE = "X-Idempotency-Key"


class _OneWrite(HTTPConnection):
    """Hands head and body of a small request to the socket together: one system call, and one packet."""

    response_class = Reply
    _held: list[bytes] | None = None

    @override
    def request(self, *args: Any, **options: Any) -> None:
        self._held = []
        try:
            super().request(*args, **options)
            self._let_go()
        finally:
            self._held = None

    @override
    def putheader(self, header: Any, *values: Any) -> None:
        # Nearly all headers are those of the request before.
        if header != _NEVER_TWICE and len(values) == 1 and isinstance(values[0], str):
            self._output(header_line(header, values[0]))  # type: ignore[attr-defined]
        else:
            super().putheader(header, *values)

    @override
    def send(self, data: Any) -> None:
        if isinstance(data, Block):
            self._let_go()
            self._send_block(data)
        elif self._held is None:
            super().send(data)
        elif isinstance(data, bytes) and len(data) <= _SMALL_BYTES:
            self._held.append(data)
        else:
            self._let_go()
            super().send(data)

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held:
            super().send(b"".join(held))

    def _send_block(self, block: Block) -> None:
        """Send a block of a large body; see :class:`~tinkex.http.Pieces`."""
        joined = memoryview(b"".join(block))
        for start in range(0, len(joined), SENDALL_BYTES):
            super().send(joined[start : start + SENDALL_BYTES])


class _Plain(_OneWrite):
    if hasattr(socket.socket, "sendmsg"):  # not on Windows

        @override
        def _send_block(self, block: Block) -> None:
            # The kernel takes the buffers from where they are, and the time limit is one for each part that it takes.
            buffers: list[Any] = block
            left = block.size
            while left:
                sent = self.sock.sendmsg(buffers)
                left -= sent
                if left:
                    buffers = _after(buffers, sent)


class _Secure(_OneWrite, HTTPSConnection):
    pass


def _after(buffers: list[Any], sent: int) -> list[Any]:
    """Return what is left when the first bytes are gone."""
    at = 0
    while sent >= (size := memoryview(buffers[at]).nbytes):
        sent -= size
        at += 1
    return [memoryview(buffers[at]).cast("B")[sent:], *buffers[at + 1 :]]


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Adapter(HTTPAdapter):
    """Connections to the servers of one transport, whose proxies and TLS settings never change."""

    def __init__(self, **options: Any) -> None:
        """Make no connection yet; the options are those of ``HTTPAdapter``."""
        self._pools: dict[str, Any] = {}
        super().__init__(**options)

    @override
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)  # type: ignore[no-untyped-call, unused-ignore]
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    @override
    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        origin = _origin(request)
        pool = self._pools.get(origin)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._pools[origin] = pool
        return pool

    @override
    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        # Only a request that goes through a proxy names the server in its first line.
        if any(proxies.values()):
            return super().request_url(request, proxies)
        return str(request.url)[len(_origin(request)) :] or "/"

    @override
    def build_response(self, req: PreparedRequest, resp: Any) -> requests.Response:
        """Make no more of an answer than what the transport reads, unless it is a redirect, which requests follows."""
        if resp.get_redirect_location():
            return super().build_response(req, resp)
        response = requests.Response.__new__(requests.Response)
        response.status_code = resp.status
        response.headers = resp.headers
        response.raw = resp
        response.request, response.url, response.history = req, str(req.url), []
        return response

    @override
    def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.close()
        super().close()  # type: ignore[no-untyped-call, unused-ignore]


def _origin(request: PreparedRequest) -> str:
    """Return scheme, host and port of a request."""
    return "/".join(str(request.url).split("/", 3)[:3])
