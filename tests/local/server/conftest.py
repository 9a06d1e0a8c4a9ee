"""A server over a scripted engine, and a small client that shows the raw answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tinkex.local import Limits, LocalServer
from tinkex.testing.engine import ScriptedEngine

BASE = "tinkex/tiny-0.9m"
WAIT_S = 10


class Api:
    """Calls a server over a real socket; keeps connections open as a client would."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["X-API-Key"] = server.api_key
        self._numbers = itertools.count()

    def url(self, path: str) -> str:
        """Where an endpoint is."""
        return f"{self.server.base_url}/api/v1/{path}"

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request and return the raw answer."""
        return self.http.request(method, self.url(path), json=body, timeout=WAIT_S, allow_redirects=False, **options)

    def post(self, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        """Send a body and return what comes back; the status must be as expected."""
        answer = self.call("POST", path, {} if body is None else body, **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def get(self, path: str, status: int = 200) -> Any:
        """Fetch something; the status must be as expected."""
        answer = self.call("GET", path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def result(self, request_id: str) -> Any:
        """Poll until there is a result."""
        while True:
            answer = self.post("retrieve_future", {"request_id": request_id})
            if answer.get("type") != "try_again":
                return answer

    def run(self, path: str, body: Any) -> Any:
        """Submit and wait."""
        return self.result(self.post(path, body)["request_id"])

    @staticmethod
    def batch(tokens: int = 3, token: int = 5) -> dict[str, Any]:
        """A batch of one datum, in the form that the oldest clients send."""
        target = {"data": [token] * tokens, "dtype": "int64", "shape": [tokens]}
        datum = {"model_input": {"chunks": [{"tokens": [token] * tokens}]}, "loss_fn_inputs": {"target_tokens": target}}
        return {"data": [datum], "loss_fn": "cross_entropy", "loss_fn_config": None}

    @staticmethod
    def sample(sampler_id: str | None, seq: int | None, **more: Any) -> dict[str, Any]:
        """The body of asample."""
        body = {"sampling_session_id": sampler_id, "seq_id": seq, "prompt": {"chunks": [{"tokens": [1, 2]}]}}
        return {**body, "sampling_params": {"max_tokens": 2, "seed": 1}, **more}

    def forward_backward(self, model_id: str, seq: int | None, **more: Any) -> dict[str, Any]:
        """The body of forward_backward."""
        return {"model_id": model_id, "seq_id": seq, "forward_backward_input": self.batch(**more)}

    def optim_step(self, model_id: str, seq: int | None) -> dict[str, Any]:
        """The body of optim_step."""
        return {"model_id": model_id, "seq_id": seq, "adam_params": {"learning_rate": 0.1}}

    def session(self) -> str:
        """Make a session."""
        return self.post("create_session", {"tags": [], "user_metadata": None, "sdk_version": "1"})["session_id"]

    def model(self, session_id: str, seq: int = 0, rank: int = 8) -> str:
        """Make a model."""
        body = {"session_id": session_id, "model_seq_id": seq, "base_model": BASE, "lora_config": {"rank": rank}}
        return self.run("create_model", body)["model_id"]

    def new_model(self) -> str:
        """Make a model in a session of its own."""
        return self.model(self.session())

    def sampler(self, session_id: str, model_path: str | None = None) -> str:
        """Make a sampler of a path, or of the base model."""
        body = {"session_id": session_id, "sampling_session_seq_id": next(self._numbers)}
        source = {"base_model": BASE} if model_path is None else {"model_path": model_path}
        return self.post("create_sampling_session", {**body, **source})["sampling_session_id"]


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    """One engine for a module; ids of models and samplers never repeat, so tests do not see each other."""
    return ScriptedEngine()


@pytest.fixture(scope="module")
def api(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with the usual settings, for all tests of a module."""
    limits = Limits(live_models=1000)
    with LocalServer(engine, data_dir=tmp_path_factory.mktemp("data"), limits=limits) as server:
        shared = Api(server)
        yield shared
        shared.http.close()


@pytest.fixture
def serve(engine: ScriptedEngine, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start servers with other settings; they are stopped at the end."""
    with ExitStack() as stack:

        def start(limits: Limits | None = None, **settings: Any) -> Api:
            settings.setdefault("data_dir", tmp_path)
            server = LocalServer(settings.pop("engine", engine), limits=limits, **settings)
            own = Api(stack.enter_context(server))
            stack.callback(own.http.close)
            return own

        yield start
