"""A server as others write them: it names checkpoints in its own way, and tells saves apart by their names only."""

from __future__ import annotations

import collections
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["RUN", "StandIn", "running"]

RUN = "m-1"
BASE = "acme/small"
KINDS = {
    "save_weights": "weights",
    "save_weights_for_sampler": "sampler_weights",
    "save_weights_external": "external_weights",
}
TYPES = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
LISTED = "tinker://{run}/{kind}/{name}"
NOTHING = (404, {"detail": "Not Found"})
TAKEN = (409, {"detail": "Checkpoint with the same name already exists."})
FIXED = {
    "client/config": {"pjwt_auth_enabled": False},
    "create_session": {"session_id": "s-1"},
    "session_heartbeat": {},
    "create_model": {"request_id": "made"},
    "load_weights": {"request_id": "loaded"},
    "optim_step": {"request_id": "stepped"},
    "create_sampling_session": {"sampling_session_id": "sampler-1"},
    "weights_info": {"base_model": BASE, "is_lora": True, "lora_rank": 4},
    "get_info": {"model_id": RUN, "model_data": {"model_name": BASE}},
    f"training_runs/{RUN}": {
        "training_run_id": RUN,
        "base_model": BASE,
        "model_owner": "me",
        "is_lora": True,
        "lora_rank": 4,
        "last_request_time": "2026-12-01T00:00:00Z",
    },
}
RESULTS = {
    "made": {"type": "create_model", "model_id": RUN},
    "loaded": {"type": "load_weights", "model_id": RUN},
    "stepped": {"metrics": {}},
}


class StandIn:
    """What the server knows, and what it was asked.

    Attributes:
        form: How it writes the path of a checkpoint that it has saved.
        listed: How it writes it in the listing of the run.
        saved: Kind and name of each checkpoint.
        bare: It lists ids without their kind, and gives archives by such ids only.
        nothing: What it answers where it has no endpoint.
        unlisted: Listings that are answered before a checkpoint shows in them.
        missing: Endpoints that it does not have.
        lost: How many answers of an endpoint never arrive, although it has acted.
        asked: Method, path below ``/api/v1/`` and body of each request.
    """

    def __init__(self) -> None:
        self.form = self.listed = LISTED
        self.saved: list[tuple[str, str]] = []
        self.bare = False
        self.nothing = NOTHING
        self.unlisted = 0
        self.missing: set[str] = set()
        self.lost: collections.Counter[str] = collections.Counter()
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.url = ""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """The bodies that were sent to an endpoint."""
        return [body for _, asked, body in self.asked if asked == path]

    def paths(self, method: str) -> list[str]:
        """The paths that were asked with a method."""
        return [path for used, path, _ in self.asked if used == method]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of an answer."""
        if path in self.missing:
            return NOTHING
        if path in KINDS:
            return self._save(KINDS[path], body)
        if path == "retrieve_future":
            return 200, self._result(body["request_id"])
        if path == f"training_runs/{RUN}/checkpoints":
            self.unlisted -= 1
            return 200, {"checkpoints": [] if self.unlisted >= 0 else [self._entry(*each) for each in self.saved]}
        if path.startswith(f"training_runs/{RUN}/checkpoints/"):
            return self.nothing if self.bare and path.endswith("/archive") and path.count("/") > 4 else (200, {})
        return (200, FIXED[path]) if path in FIXED else NOTHING

    def path_of(self, kind: str, name: str, form: str | None = None) -> str:
        """How it writes the path of a checkpoint."""
        return (form or self.form).format(run=RUN, kind=kind, name=name)

    def _save(self, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = body.get("path") or f"ss{body['sampling_session_seq_id']}_seq{body['seq_id']}"
        if (kind, name) in self.saved:
            return TAKEN
        self.saved.append((kind, name))
        return 200, {"request_id": f"{kind}/{name}"}

    def _result(self, request_id: str) -> Any:
        kind, slash, name = request_id.partition("/")
        return {"path": self.path_of(kind, name)} if slash else RESULTS[request_id]

    def _entry(self, kind: str, name: str) -> dict[str, Any]:
        return {
            "checkpoint_id": name if self.bare else f"{kind}/{name}",
            "checkpoint_type": TYPES[kind],
            "time": "2026-12-01T00:00:00Z",
            "tinker_path": self.path_of(kind, name, self.listed),
        }


@contextmanager
def running(server: StandIn) -> Iterator[StandIn]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("/api/v1/")[2].partition("?")[0]
            body = json.loads(raw) if raw else {}
            server.asked.append((self.command, path, body))
            status, value = server.answer(path, body)
            if server.lost[path] > 0:
                server.lost[path] -= 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            archive = path.endswith("/archive") and status == 200
            content = json.dumps(value).encode()
            self.send_response(302 if archive else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if archive:
                self.send_header("Location", "http://files.test/archive")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names of the standard library

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
