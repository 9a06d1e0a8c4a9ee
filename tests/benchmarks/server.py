"""A scripted server for benchmarks: it speaks the API, computes nothing, and costs about 0.1 ms for a request.

It stands in a process of its own, so that what it costs is never counted as the client's. One asyncio protocol reads
requests by hand. The parent sets the stage with ``POST /stage`` (a JSON object, the fields of :class:`Stage`) and reads
what happened with ``GET /stage``. Run it as a script: it prints its port.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import json
import random
import re
import select
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

HOLD_S = 30.0
"""How long a poll is held before "not yet"."""
_PROTO = b"application/x-protobuf"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model_id": ?"([^"]*)"')
_SAMPLER = re.compile(rb'"sampling_session_id": ?"([^"]*)"')
_REQUEST = re.compile(rb'"request_id": ?"([^"]*)"')
_CURSOR = re.compile(rb'"prev_cursor": ?(\d+)')
_NOW = re.compile(rb'"timeout": ?0(\.0)?[,}]')


@dataclasses.dataclass
class Stage:
    """How the server behaves; times in seconds."""

    form: str = "binary"  # or "json": no binary form either way
    bulk: bool = False  # offer retrieve_futures
    train_s: float = 0.0  # service time of forward_backward; the operations of a model queue up
    optim_s: float = 0.0
    sample_s: float = 0.0  # of asample; samples do not queue
    delay_s: float = 0.0  # of the network, there and back together
    faults: float = 0.0  # share of each of 429, 500 and reset
    outputs: int = 0  # datums in a forward_backward result
    values: int = 0  # logprobs of each
    tokens: int = 16  # in a sample
    seed: int = 0


class Future:
    """An operation: what it will answer, and when."""

    __slots__ = ("body", "due", "kind")

    def __init__(self, due: float, kind: str, body: tuple[bytes, bytes]) -> None:
        self.due = due
        self.kind = kind
        self.body = body


class State:
    """Everything that a stage has seen."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.random = random.Random(stage.seed)
        self.ids = itertools.count()
        self.futures: dict[bytes, Future] = {}
        self.free_at: dict[bytes, float] = collections.defaultdict(float)
        # Of each sampler, in order of completion: (due, request id).
        self.events: dict[bytes, list[tuple[float, bytes]]] = collections.defaultdict(list)
        self.requests: collections.Counter[str] = collections.Counter()
        self.bytes_in = 0
        self.faults = 0
        self.train = _output(stage.outputs, stage.values)
        self.sample = _sample(stage.tokens)

    def report(self) -> dict[str, Any]:
        """Return what was counted."""
        return {"requests": dict(self.requests), "bytes_in": self.bytes_in, "faults": self.faults}

    def add(self, due: float, kind: str, body: tuple[bytes, bytes], name: bytes) -> bytes:
        """Make a future and return its id."""
        request_id = b"%s:%d" % (name, next(self.ids))
        self.futures[request_id] = Future(due, kind, body)
        return request_id


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _logprobs(count: int) -> list[float]:
    return [-1.0 - (at * 7919 % 100003) / 100003 for at in range(count)]


def _output(datums: int, values: int) -> tuple[bytes, bytes]:
    """Return a forward_backward result in JSON and in binary form."""
    numbers = _logprobs(values)
    tensor = {"data": numbers, "dtype": "float32", "shape": [values]}
    metrics = {"loss:sum": 1.5}
    name = "CrossEntropyLossReturn"
    outputs = [{"logprobs": tensor}] * datums
    text = json.dumps({"loss_fn_output_type": name, "loss_fn_outputs": outputs, "metrics": metrics}).encode()
    packed = struct.pack(f"<{values}f", *numbers)
    offsets = struct.pack(f"<{datums + 1}q", *(at * len(packed) for at in range(datums + 1)))
    batched = _field(1, packed * datums) + _field(2, offsets) + b"\x18\x01"
    record = _field(2, _field(1, b"logprobs") + _field(2, batched)) + b"\x18" + _varint(datums)
    metric = _field(3, _field(1, b"loss:sum") + b"\x11" + struct.pack("<d", 1.5))
    return text, _field(1, name.encode()) + (_field(2, record) if datums else b"") + metric


def _sample(count: int) -> tuple[bytes, bytes]:
    """Return a sample in JSON and in binary form."""
    tokens, logprobs = list(range(100, 100 + count)), _logprobs(count)
    sequence = {"stop_reason": "length", "tokens": tokens, "logprobs": logprobs}
    text = json.dumps({"type": "sample", "sequences": [sequence]}).encode()
    arrays = _field(2, struct.pack(f"<{count}i", *tokens)) + _field(3, struct.pack(f"<{count}f", *logprobs))
    return text, _field(1, b"\x08\x01" + arrays)


class Server(asyncio.Protocol):
    """One connection."""

    state = State(Stage())
    loop: asyncio.AbstractEventLoop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.parts: list[bytes] = []
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return
        whole = data if len(self.parts) == 1 else b"".join(self.parts)
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            self.parts, self.missing = [whole], 0
            return
        head = whole[:end]
        length = _LENGTH.search(head)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(whole) < size:
            self.parts, self.missing = [whole], size - len(whole)
            return
        self.parts, self.missing = [], 0
        self.receive(head, whole[end + 4 : size])

    def receive(self, head: bytes, body: bytes) -> None:
        state = self.state
        path = head.split(b" ", 2)[1]
        if path == b"/stage":
            if body:
                Server.state = State(Stage(**json.loads(body)))
            self.send(json.dumps(self.state.report()).encode())
            return
        name = path.rpartition(b"/api/v1/")[2].partition(b"?")[0].decode()
        state.requests[name] += 1
        state.bytes_in += len(head) + 4 + len(body)
        if state.stage.delay_s:
            self.loop.call_later(state.stage.delay_s / 2, self.handle, name, head, body)
        else:
            self.handle(name, head, body)

    def handle(self, name: str, head: bytes, body: bytes) -> None:
        stage = self.state.stage
        handler = _HANDLERS.get(name)
        if handler is None:
            self.answer(b'{"detail": "Not Found"}', 404)
        elif stage.faults and name in _FAULTY and (draw := self.state.random.random()) < 3 * stage.faults:
            self.state.faults += 1
            if draw < stage.faults:
                self.answer(b'{"detail": "slow down"}', 429)
            elif draw < 2 * stage.faults:
                self.answer(b'{"detail": "oops"}', 500)
            else:
                self.reset()
        else:
            handler(self, head, body)

    def answer(self, body: bytes, status: int = 200, kind: bytes = b"application/json") -> None:
        delay = self.state.stage.delay_s
        if delay:
            self.loop.call_later(delay / 2, self.send, body, status, kind)
        else:
            self.send(body, status, kind)

    def send(self, body: bytes, status: int = 200, kind: bytes = b"application/json") -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body))
            self.transport.write(head + body)

    def reset(self) -> None:
        """Break the connection the hard way, so that the client's kernel reports a reset."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # --- endpoints --------------------------------------------------------------------------------------------------

    def config(self, head: bytes, body: bytes) -> None:
        stage = self.state.stage
        flags = {"proto_write_fwdbwd": stage.form == "binary", "sample_use_retrieve_futures": stage.bulk}
        # A server that is told of has a binary form: an old one names none of these.
        self.answer(json.dumps({name: True for name, on in flags.items() if on}).encode())

    def create_model(self, head: bytes, body: bytes) -> None:
        name = b"s:train:%d" % next(self.state.ids)
        made = json.dumps({"type": "create_model", "model_id": name.decode()}).encode()
        self.answer(_promise(self.state.add(0.0, "model", (made, made), name)))

    def create_sampler(self, head: bytes, body: bytes) -> None:
        name = b"s:sample:%d" % next(self.state.ids)
        self.answer(b'{"type": "create_sampling_session", "sampling_session_id": "%s"}' % name)

    def get_info(self, head: bytes, body: bytes) -> None:
        model = _match(_MODEL, body)
        self.answer(
            b'{"type": "get_info", "model_data": {"arch": "x", "model_name": "m", "tokenizer_id": "m"}, '
            b'"model_id": "%s", "is_lora": true, "lora_rank": 8, "model_name": "m"}' % model
        )

    def forward_backward(self, head: bytes, body: bytes) -> None:
        if _PROTO in head:
            if self.state.stage.form == "json":
                self.answer(b'{"detail": "JSON only"}', 415)
                return
            model = body[2 : 2 + body[1]]
        else:
            model = _match(_MODEL, body[-400:]) or _match(_MODEL, body[:400])
        self.answer(_promise(self.train(model, self.state.stage.train_s, self.state.train, "array")))

    def optim_step(self, head: bytes, body: bytes) -> None:
        done = b'{"metrics": null}'
        self.answer(_promise(self.train(_match(_MODEL, body), self.state.stage.optim_s, (done, done), "plain")))

    def train(self, model: bytes, service_s: float, result: tuple[bytes, bytes], kind: str) -> bytes:
        free_at = self.state.free_at
        free_at[model] = due = max(free_at[model], time.monotonic()) + service_s
        return self.state.add(due, kind, result, model)

    def asample(self, head: bytes, body: bytes) -> None:
        state = self.state
        sampler = _match(_SAMPLER, body[-400:]) or _match(_SAMPLER, body)
        due = time.monotonic() + state.stage.sample_s
        request_id = state.add(due, "array", state.sample, sampler)
        if state.stage.bulk:
            state.events[sampler].append((due, request_id))
        self.answer(b'{"request_id": "%s", "sample_sequence_ids": ["%s"]}' % (request_id, request_id))

    def retrieve_future(self, head: bytes, body: bytes) -> None:
        request_id = _match(_REQUEST, body)
        future = self.state.futures.get(request_id)
        if future is None:
            self.answer(b'{"detail": "unknown future"}', 404)
            return
        left = future.due - time.monotonic()
        if left <= 0:
            self.finish(future, head)
        elif left > HOLD_S:
            self.loop.call_later(HOLD_S, self.answer, b'{"type": "try_again", "queue_state": "active"}', 408)
        else:
            self.loop.call_later(left, self.finish, future, head)

    def finish(self, future: Future, head: bytes) -> None:
        binary = future.kind == "array" and self.state.stage.form == "binary" and _PROTO in head
        if binary:
            self.answer(future.body[1], kind=_PROTO)
        else:
            self.answer(future.body[0])

    def retrieve_futures(self, head: bytes, body: bytes) -> None:
        sampler, cursor = _match(_SAMPLER, body), int(_match(_CURSOR, body) or 0)
        wait = 0.0 if _NOW.search(body) else HOLD_S
        self.tell(sampler, cursor, time.monotonic() + wait)

    def tell(self, sampler: bytes, cursor: int, until: float) -> None:
        """Answer with what has ended since the cursor, as soon as there is something."""
        events, now = self.state.events[sampler], time.monotonic()
        ended = list(
            itertools.takewhile(lambda event: event[0] <= now, itertools.islice(events, cursor, cursor + 1000))
        )
        if not ended and now < until:
            due = events[cursor][0] if cursor < len(events) else now + 0.005
            self.loop.call_later(max(0.0, min(due, until) - now), self.tell, sampler, cursor, until)
            return
        done = b", ".join(b'{"state": "finished", "request_id": "%s"}' % request_id for _, request_id in ended)
        self.answer(b'{"completions": [%s], "cursor": %d}' % (done, cursor + len(ended)))


def _promise(request_id: bytes) -> bytes:
    return b'{"request_id": "%s"}' % request_id


def _match(pattern: re.Pattern[bytes], body: bytes) -> bytes:
    found = pattern.search(body)
    return found[1] if found else b""


def _fixed(text: bytes) -> Callable[[Server, bytes, bytes], None]:
    return lambda server, head, body: server.answer(text)


_HANDLERS: dict[str, Callable[[Server, bytes, bytes], None]] = {
    "client/config": Server.config,
    "client/dynamic_config": _fixed(b"{}"),
    "create_session": _fixed(b'{"type": "create_session", "session_id": "s"}'),
    "session_heartbeat": _fixed(b'{"type": "session_heartbeat"}'),
    "telemetry": _fixed(b'{"status": "accepted"}'),
    "sessions/s/finish": _fixed(b"{}"),
    "get_server_capabilities": _fixed(b'{"supported_models": [{"model_name": "m"}]}'),
    "create_model": Server.create_model,
    "create_sampling_session": Server.create_sampler,
    "get_info": Server.get_info,
    "forward_backward": Server.forward_backward,
    "optim_step": Server.optim_step,
    "asample": Server.asample,
    "retrieve_future": Server.retrieve_future,
    "retrieve_futures": Server.retrieve_futures,
}
_FAULTY = frozenset({"forward_backward", "optim_step", "asample", "retrieve_future"})


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits as long as it is told to: epoll counts whole milliseconds, and the delays here are some tens of them."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0 and hasattr(self, "fileno"):
            select.select([self.fileno()], [], [], timeout)
            timeout = 0.0
        return super().select(timeout)


async def _serve() -> None:
    loop = Server.loop = asyncio.get_running_loop()
    listener = await loop.create_server(Server, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{listener.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # The parent holds our standard input; when it ends, so do we.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.SelectorEventLoop(_Selector()).run_until_complete(_serve())
