"""What the machine allows: the same bytes without a client. Prints a JSON object of seconds of CPU."""

from __future__ import annotations

import json
import socket
import statistics
import struct
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import urllib3
from workloads import _numbers

_SMALL = b'{"model_id": "m", "seq_id": 1, "adam_params": {"learning_rate": 0.0001}}'
_ROUNDS = 5


def _cpu(work: Callable[[], Any], rounds: int = _ROUNDS) -> float:
    costs = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        costs.append(time.process_time() - started)
    return statistics.median(costs)


def _payload(batch: list[tuple[Any, Any, Any]]) -> dict[str, Any]:
    data = [
        {
            "model_input": {"chunks": [{"tokens": tokens, "type": "encoded_text"}]},
            "loss_fn_inputs": {
                "target_tokens": {"data": targets, "dtype": "int64", "shape": [len(targets)]},
                "weights": {"data": weights, "dtype": "float32", "shape": [len(weights)]},
            },
        }
        for tokens, targets, weights in batch
    ]
    return {"forward_backward_input": {"data": data, "loss_fn": "cross_entropy"}, "model_id": "m", "seq_id": 1}


def _masked(batch: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, Any]]:
    """Return the arrays with the weights, which are 0.0 and 1.0, as whole numbers."""
    return [(tokens, targets, weights.astype("int8")) for tokens, targets, weights in batch]


def _write_and_search(batch: list[tuple[Any, Any, Any]]) -> list[bytes]:
    """Write each list, and look for what is no number: null, true, false, texts, objects and lists in it."""
    texts = [orjson.dumps(part) for parts in batch for part in parts]
    for text in texts:
        if any(sign in text for sign in (b"u", b"f", b'"', b"{")) or text.rfind(b"[") > 0:
            raise ValueError(text[:80])
    return texts


def _pack(batch: list[tuple[Any, Any, Any]]) -> bytes:
    pieces = [(part, code) for parts in batch for part, code in zip(parts, "iqf", strict=True)]
    return b"".join(array(code, struct.pack(f"{len(part)}{code}", *part)) for part, code in pieces)


def _join(batch: list[tuple[Any, Any, Any]]) -> bytes:
    kinds = ("<i4", "<i8", "<f4")
    return b"".join(part.astype(kind) for parts in batch for part, kind in zip(parts, kinds, strict=True))


class _Socket:
    """HTTP over a bare socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._socket.sendall(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            self._socket.sendall(body)
        return self._socket.recv(65536)


def measure(url: str, datums: int, length: int, requests: int) -> dict[str, float]:
    """Measure all references against the scripted server."""
    lists, arrays = _numbers(datums, length, False), _numbers(datums, length, True)
    masked = _masked(arrays)
    text = orjson.dumps(_payload(lists))
    packed = _join(arrays)
    result = orjson.dumps({"data": [[-1.0 - at / 7919 for at in range(length)]] * datums})
    pieces = [orjson.dumps([-1.0 - at / 7919 for at in range(length)])] * datums
    raw = np.zeros(datums * length, "<f4").tobytes()
    host, port = url.removeprefix("http://").split(":")
    bare, pool = _Socket(host, int(port)), urllib3.PoolManager()

    def post(path: str, body: bytes) -> bytes:
        return pool.request("POST", f"{url}{path}", body=body).data

    def many(send: Callable[[str, bytes], bytes]) -> None:
        for _ in range(requests):
            send("/api/v1/optim_step", _SMALL)

    train = "/api/v1/forward_backward"
    return {
        "bytes_json": len(text),
        "bytes_binary": len(packed),
        "orjson, lists": _cpu(lambda: orjson.dumps(_payload(lists))),
        "orjson, arrays": _cpu(lambda: orjson.dumps(_payload(arrays), option=orjson.OPT_SERIALIZE_NUMPY)),
        "orjson, arrays, the mask as whole numbers": _cpu(
            lambda: orjson.dumps(_payload(masked), option=orjson.OPT_SERIALIZE_NUMPY)
        ),
        "orjson, lists one by one, searched": _cpu(lambda: _write_and_search(lists)),
        "packing lists": _cpu(lambda: _pack(lists)),
        "packing arrays": _cpu(lambda: _join(arrays)),
        "orjson.loads of the logprobs": _cpu(lambda: orjson.loads(result)),
        "orjson.loads of the logprobs, list by list": _cpu(lambda: [len(orjson.loads(piece)) for piece in pieces]),
        "reading packed logprobs": _cpu(lambda: np.frombuffer(raw, "<f4").copy()),
        "loopback, JSON bytes": _cpu(lambda: bare.post(train, text)),
        "loopback, binary bytes": _cpu(lambda: bare.post(train, packed)),
        "urllib3, JSON bytes": _cpu(lambda: post(train, text)),
        "bare socket, one small request": _cpu(lambda: many(bare.post)) / requests,
        "urllib3, one small request": _cpu(lambda: many(post)) / requests,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(**json.loads(sys.argv[1]))) + "\n")
