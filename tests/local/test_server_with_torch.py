"""The embedded server over the real engine: what a user of the tiny model does, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tinkex.data import TINY_NAME
from tinkex.local import LocalServer

for module in ("torch", "transformers", "peft"):
    pytest.importorskip(module)

pytestmark = pytest.mark.engine

TEXT = "the cat sat on the mat"


class Client:
    """Calls one endpoint after the other."""

    def __init__(self, server: LocalServer) -> None:
        self.base = f"{server.base_url}/api/v1/"
        self.http = requests.Session()
        self.http.headers["X-API-Key"] = server.api_key

    def post(self, path: str, body: Any) -> Any:
        """Send a body and return what comes back; the status must be as expected."""
        answer = self.http.post(self.base + path, json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def run(self, path: str, body: Any) -> Any:
        """Submit, and wait for a result that is no failure."""
        request_id = self.post(path, body)["request_id"]
        while True:
            answer = self.post("retrieve_future", {"request_id": request_id})
            if answer.get("type") != "try_again":
                assert "error" not in answer, answer
                return answer

    def session(self) -> str:
        """Make a session."""
        return self.post("create_session", {"tags": [], "user_metadata": {}, "sdk_version": "1"})["session_id"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """A client of a server with the tiny model."""
    with LocalServer(data_dir=folder, threads=1) as server:
        made = Client(server)
        yield made
        made.http.close()


def tokens_of(text: str) -> list[int]:
    """The tokens of a text: its bytes."""
    return list(text.encode())


def training_batch() -> dict[str, Any]:
    """One datum: the text after the begin token, ended by the end token."""
    tokens = [256, *tokens_of(TEXT), 257]
    target = {"data": tokens[1:], "dtype": "int64", "shape": [len(tokens) - 1]}
    datum = {"model_input": {"chunks": [{"tokens": tokens[:-1]}]}, "loss_fn_inputs": {"target_tokens": target}}
    return {"data": [datum], "loss_fn": "cross_entropy"}


def test_train_save_sample_load(client: Client) -> None:
    """The loss falls, the sample is what was learnt, and a model made from the checkpoint has the same loss."""
    session = client.session()
    body = {"session_id": session, "model_seq_id": 0, "base_model": TINY_NAME, "lora_config": {"rank": 8, "seed": 1}}
    model = client.run("create_model", body)["model_id"]
    losses = []
    for step in range(12):
        loss = {"model_id": model, "seq_id": 2 * step + 1, "forward_backward_input": training_batch()}
        losses.append(client.run("forward_backward", loss)["metrics"]["loss:sum"])
        adam = {"model_id": model, "seq_id": 2 * step + 2, "adam_params": {"learning_rate": 0.01}}
        client.run("optim_step", adam)
    assert losses[-1] < losses[0] / 4

    path = client.run("save_weights", {"model_id": model, "path": "learnt", "seq_id": 25})["path"]
    save = {"model_id": model, "sampling_session_seq_id": 0, "seq_id": 26}
    sampler = client.run("save_weights_for_sampler", save)["sampling_session_id"]
    request = {
        "sampling_session_id": sampler,
        "seq_id": 0,
        "prompt": {"chunks": [{"tokens": [256, *tokens_of(TEXT[:4])]}]},
        "sampling_params": {"max_tokens": 40, "temperature": 0.0},
        "prompt_logprobs": True,
    }
    result = client.run("asample", request)
    (sequence,) = result["sequences"]
    assert bytes(token for token in sequence["tokens"] if token < 256).decode() == TEXT[4:]
    assert sequence["stop_reason"] == "stop"
    assert len(result["prompt_logprobs"]) == 5

    load = {"session_id": session, "model_seq_id": 1, "path": path, "optimizer": True}
    other = client.run("load_weights", load)["model_id"]
    now, again = (
        client.run("forward", {"model_id": name, "seq_id": seq, "forward_input": training_batch()})["metrics"][
            "loss:sum"
        ]
        for name, seq in ((model, 27), (other, 1))
    )
    assert again == now
    info = client.post("weights_info", {"tinker_path": path})
    assert (info["base_model"], info["lora_rank"]) == (TINY_NAME, 8)


def test_a_mistake_is_the_users(client: Client) -> None:
    """A token that the model does not have fails the future and names the datum."""
    body = {"session_id": client.session(), "model_seq_id": 0, "base_model": "tiny", "lora_config": {"rank": 4}}
    model = client.run("create_model", body)["model_id"]
    batch = training_batch()
    batch["data"][0]["model_input"]["chunks"][0]["tokens"][3] = 100_000
    promise = client.post("forward_backward", {"model_id": model, "seq_id": 1, "forward_backward_input": batch})
    failure = client.post("retrieve_future", {"request_id": promise["request_id"]})
    assert failure["category"] == "user"
    assert "data[0]" in failure["error"]
    assert "100000" in failure["error"]
