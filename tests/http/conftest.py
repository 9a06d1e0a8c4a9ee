"""A server that is a script over a raw socket, so that it can break in every way a real one can."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from tinkex.config import ClientConfig
from tinkex.http import Transport

PATIENCE_S = 10.0


@attrs.frozen
class Request:
    """A request as it came over the socket; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection that a client opened."""

    def __init__(self, connection: socket.socket, server: FaultServer) -> None:
        self._connection = connection
        self._server = server
        self._pending = b""

    def read(self) -> Request:
        """Read one request."""
        while b"\r\n\r\n" not in self._pending:
            self._pending += self._receive()
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            rest += self._receive()
        self._pending = rest[length:]
        request = Request(method, target, headers, rest[:length])
        self._server.requests.append(request)
        return request

    def _receive(self) -> bytes:
        data = self._connection.recv(1 << 20)
        if not data:
            raise ConnectionError("the client closed the connection in the middle of a request")
        return data

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self._connection.sendall(data)

    def answer(self, status: int = 200, body: bytes = b"{}", **headers: str) -> None:
        """Send a whole answer; underscores in header names stand for dashes."""
        given = {"content-type": "application/json", "content-length": str(len(body))}
        given.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.send(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + body)

    def serve(self, status: int = 200, body: bytes = b"{}", **headers: str) -> Request:
        """Read one request and answer it."""
        request = self.read()
        self.answer(status, body, **headers)
        return request

    def wait_for_close(self) -> bool:
        """Wait until the client closes; True if it did so cleanly."""
        return self._connection.recv(1) == b""

    def stall(self) -> None:
        """Do nothing until the test is over."""
        self._server.released.wait(PATIENCE_S)

    def reset(self) -> None:
        """Drop the connection without the farewell of TCP."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


Script = Callable[[Peer], object]


class FaultServer:
    """Runs one script for each connection, in the order of the connections."""

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._scripts = scripts
        self._connections: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name="fault-server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(script, connection), daemon=True)
            self._connections.append(thread)
            thread.start()

    def _run(self, script: Script, connection: socket.socket) -> None:
        # A client that leaves early is part of the play; any other error of a script fails the test.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE_S)
            script(Peer(connection, self))

    def join(self) -> None:
        """Wait for all scripts to end."""
        self._thread.join(PATIENCE_S)
        for thread in self._connections:
            thread.join(PATIENCE_S)

    def close(self) -> None:
        """Release what stalls, and see to it that nothing is left running."""
        self.released.set()
        self._listener.close()
        self.join()
        assert not any(thread.is_alive() for thread in [self._thread, *self._connections])


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    """Start servers from scripts; they end with the test."""
    servers: list[FaultServer] = []

    def start(*scripts: Script) -> FaultServer:
        servers.append(FaultServer(*scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Transport]]:
    """Make transports; they are closed after the test."""
    transports: list[Transport] = []

    def make(base_url: str, **settings: object) -> Transport:
        transports.append(Transport(ClientConfig(base_url=base_url, **settings)))
        return transports[-1]

    yield make
    for transport in transports:
        transport.close()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
