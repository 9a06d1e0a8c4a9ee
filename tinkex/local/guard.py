"""What every request passes before it reaches its endpoint: faults, host, key, size and format of the body.

A plain ASGI wrapper. It reads the whole body, so that an endpoint never waits for one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from tinkex.local import codec
from tinkex.local.fault import Fault, FaultSource
from tinkex.local.problems import Problem
from tinkex.local.tokens import Tokens
from tinkex.wire import json

__all__ = ["API", "ARCHIVES", "Guard"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

API = "/api/v1/"
ARCHIVES = "/archives/"
_HEALTH = API + "healthz"
# RFC 6750: the token is at fault, not whom it stands for.
_BAD_TOKEN = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Guard:
    """Refuses what must not reach an endpoint."""

    def __init__(
        self,
        app: App,
        *,
        api_key: str,
        hosts: frozenset[str] | None,
        body_bytes: int,
        tokens: Tokens,
        faults: FaultSource | None = None,
        abort: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Wrap an app.

        Args:
            app: What answers the requests that pass.
            api_key: The key that a request must carry.
            hosts: Names that the Host header may have, against DNS rebinding; None for any.
            body_bytes: Largest body.
            tokens: What may stand for the key.
            faults: Asked what goes wrong with each request.
            abort: Cuts the connection of a request.
        """
        self._app = app
        self._api_key = api_key.encode()
        self._hosts = hosts
        self._body_bytes = body_bytes
        self._tokens = tokens
        self._faults = faults
        self._abort = abort

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_sender(scope["path"], headers)
            body = await self._read(receive)
            self._check_format(scope["method"], body, headers)
            body = codec.decompress(body, headers.get("content-encoding", "identity"), self._body_bytes)
        except Problem as problem:
            await _answer_problem(send, problem)
            return
        if self._faults is None:
            await self._app(scope, _replay(body, receive), send)
        else:
            await self._misbehave(self._faults, scope, body, receive, send)

    def _check_sender(self, path: str, headers: Mapping[str, str]) -> None:
        host = _host_name(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            raise Problem(
                403, f"Host {host!r:.100} is not a name of this server; call it as {' or '.join(sorted(self._hosts))}"
            )
        # The health check says nothing, and the name of an archive is a secret of its own.
        if path == _HEALTH or path.startswith(ARCHIVES):
            return
        key = headers.get("x-api-key", "")
        if self._tokens.offered and key.startswith("eyJ"):
            if not self._tokens.accepts(key):
                raise Problem(401, "this token has expired or is of another server; exchange the key again", _BAD_TOKEN)
        elif not secrets.compare_digest(key.encode(), self._api_key):
            state = "is not the key of this server" if key else "is missing"
            raise Problem(
                401, f"the X-API-Key header {state}; set TINKER_API_KEY to the key that the server was started with"
            )

    def _check_format(self, method: str, body: bytes, headers: Mapping[str, str]) -> None:
        content_type = headers.get("content-type", "")
        if method in ("POST", "PUT") and body and codec.media_type(content_type) not in codec.FORMATS:
            known = " or ".join(codec.FORMATS)
            raise Problem(415, f"Content-Type {content_type!r:.80} is not taken; send {known}")

    async def _read(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the connection ended before the body did")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            more = message.get("more_body", False)
            if size > self._body_bytes:
                raise self._too_large(size)
        return b"".join(pieces)

    def _too_large(self, size: int) -> Problem:
        return Problem(
            413,
            f"the body has {size} bytes or more, the limit is {self._body_bytes}; split the request into smaller ones",
        )

    async def _misbehave(
        self, faults: FaultSource, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send
    ) -> None:
        path = scope["path"]
        below = path[len(API) :] if path.startswith(API) else path
        fault = faults.next_fault(scope["method"], below) or Fault()
        if fault.gate is not None:
            await asyncio.wrap_future(fault.gate)
        if fault.action == "answer":
            await _answer(send, fault.status, fault.body, fault.headers)
            return
        if fault.action in ("drop", "duplicate"):
            await self._app(scope, _replay(body, receive), _swallow)
        if fault.action in ("drop", "reset"):
            if self._abort is not None:
                self._abort(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self._app(scope, _replay(body, receive), send)


def _host_name(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _swallow(message: Message) -> None:
    """Throw an answer away."""


async def _answer_problem(send: Send, problem: Problem) -> None:
    headers = {"content-type": "application/json", **problem.headers}
    await _answer(send, problem.status, json.encode({"detail": problem.detail}), headers)


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    sent = {"content-length": str(len(body)), **{name.lower(): value for name, value in headers.items()}}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
