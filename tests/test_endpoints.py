"""Every endpoint of the resources, called on the embedded server over a real socket."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests

from tinkex import types
from tinkex.config import ClientConfig
from tinkex.errors import APIStatusError
from tinkex.local import Limits, LocalServer
from tinkex.resources import ENDPOINTS, TinkexAPI
from tinkex.testing.engine import ScriptedEngine

BASE = "acme/small"
DATUM = types.Datum(model_input=types.ModelInput.from_ints([1, 2]), loss_fn_inputs={"target_tokens": [2, 3]})
BATCH = types.ForwardBackwardInput(data=[DATUM], loss_fn="cross_entropy")


@attrs.define
class World:
    """A server with one session, one model, one sampler and one checkpoint of each kind."""

    api: TinkexAPI
    session: str = ""
    model: str = ""
    sampler: str = ""
    seq: int = 0
    saved: str = ""

    def number(self) -> int:
        self.seq += 1
        return self.seq

    def wait(self, promise: types.UntypedAPIFuture, expected: type[Any]) -> Any:
        """Ask until the result is there."""
        answer: Any = types.TryAgainResponse()
        while isinstance(answer, types.TryAgainResponse):
            answer = self.api.futures.retrieve(types.FutureRetrieveRequest(request_id=promise.request_id), expected)
        assert isinstance(answer, expected), answer
        return answer

    def save(self, name: str) -> str:
        request = types.SaveWeightsRequest(model_id=self.model, path=name, seq_id=self.number())
        return self.wait(self.api.weights.save(request), types.SaveWeightsResponse).path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The world, over a real socket."""
    limits = Limits(bulk_retrieval=True, token_s=3600)
    with LocalServer(ScriptedEngine([BASE]), data_dir=tmp_path, limits=limits) as server:
        with TinkexAPI(ClientConfig(base_url=server.base_url, api_key=server.api_key)) as api:
            world = World(api)
            request = types.CreateSessionRequest(tags=["t"], user_metadata={"a": "b"}, sdk_version="1")
            world.session = api.service.create_session(request).session_id
            world.model = create_model(world).model_id
            world.sampler = create_sampler(world).sampling_session_id
            world.saved = world.save("kept")
            yield world


def create_model(w: World, number: int = 0) -> types.CreateModelResponse:
    request = types.CreateModelRequest(
        session_id=w.session, model_seq_id=number, base_model=BASE, lora_config=types.LoraConfig(rank=4)
    )
    return w.wait(w.api.models.create(request), types.CreateModelResponse)


def create_sampler(w: World, number: int = 0) -> types.CreateSamplingSessionResponse:
    return w.api.service.create_sampling_session(
        types.CreateSamplingSessionRequest(session_id=w.session, sampling_session_seq_id=number, base_model=BASE)
    )


def finish(w: World) -> None:
    w.api.service.finish_session(w.session)


def train(w: World, method: str) -> types.ForwardBackwardOutput:
    if method == "forward":
        request: Any = types.ForwardRequest(forward_input=BATCH, model_id=w.model, seq_id=w.number())
    else:
        request = types.ForwardBackwardRequest(forward_backward_input=BATCH, model_id=w.model, seq_id=w.number())
    return w.wait(getattr(w.api.training, method)(request), types.ForwardBackwardOutput)


def step(w: World) -> types.OptimStepResponse:
    request = types.OptimStepRequest(adam_params=types.AdamParams(), model_id=w.model, seq_id=w.number())
    return w.wait(w.api.training.optim_step(request), types.OptimStepResponse)


def sample(w: World) -> types.SampleResponse:
    request = types.SampleRequest(
        prompt=types.ModelInput.from_ints([1]),
        sampling_params=types.SamplingParams(max_tokens=2),
        sampling_session_id=w.sampler,
        seq_id=0,
        num_samples=2,
    )
    promise = w.api.sampling.asample(request)
    assert 2 == len(promise.sample_sequence_ids)
    return w.wait(promise, types.SampleResponse)


def load(w: World) -> types.LoadWeightsResponse:
    request = types.LoadWeightsRequest(model_id=w.model, seq_id=w.number(), path=w.saved, optimizer=True)
    return w.wait(w.api.weights.load(request), types.LoadWeightsResponse)


def save_for_sampler(w: World) -> types.SaveWeightsForSamplerResponse:
    request = types.SaveWeightsForSamplerRequest(model_id=w.model, path="s", seq_id=w.number())
    return w.wait(w.api.weights.save_for_sampler(request), types.SaveWeightsForSamplerResponse)


def unload(w: World) -> types.UnloadModelResponse:
    return w.wait(w.api.models.unload(types.UnloadModelRequest(model_id=w.model)), types.UnloadModelResponse)


def send_telemetry(w: World) -> types.TelemetryResponse:
    return w.api.telemetry.send(
        types.TelemetrySendRequest(events=[], platform="Linux", sdk_version="1", session_id=w.session)
    )


def archive_names(w: World) -> set[str]:
    url = w.api.weights.get_checkpoint_archive_url(w.model, "weights/kept").url
    content = requests.get(url, timeout=10).content
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        return set(archive.getnames())


def retrieve(w: World) -> types.OptimStepResponse:
    return step(w)


def save_external(w: World) -> types.SaveWeightsExternalResponse:
    request = types.SaveWeightsExternalRequest(model_id=w.model, path="e", seq_id=w.number())
    return w.wait(w.api.weights.save_external(request), types.SaveWeightsExternalResponse)


def external_files(w: World) -> dict[str, bytes]:
    save_external(w)
    urls = w.api.weights.get_external_weights_urls(w.model, "external_weights/e").urls
    return {name: requests.get(url, timeout=10).content for name, url in urls.items()}


def retrieve_many(w: World) -> types.FuturesRetrieveResponse:
    sample(w)
    target = types.SamplingSessionFuturesTarget(sampling_session_id=w.sampler)
    return w.api.futures.retrieve_many(types.FuturesRetrieveRequest(target=target))


def refused(call: Callable[[], Any], status: int) -> bool:
    """Tell whether the server refuses with this status."""
    with pytest.raises(APIStatusError) as caught:
        call()
    return caught.value.status_code == status


CUSTOM_LOSS = types.CreateCustomLossRequest(
    session_id="s",
    custom_loss_seq_id=0,
    name="mine",
    inputs=[types.CustomLossInput(name="logprobs", rank=1)],
    graph=types.CustomLossGraph(nodes=[]),
)
CLIENT_ONLY: dict[str, Callable[[World], Any]] = {
    "service.get_audit_log": lambda w: w.api.service.get_audit_log(),
    "service.get_billing_usage": lambda w: w.api.service.get_billing_usage(datetime.min, datetime.max),
    "service.get_current_checkpoint_storage_usage": (lambda w: w.api.service.get_current_checkpoint_storage_usage()),
}
"""What an administrator asks of an organization, which the embedded server has not."""

CHECKS: dict[str, tuple[Callable[[World], Any], Callable[[World, Any], bool]]] = {
    "service.get_server_capabilities": (
        lambda w: w.api.service.get_server_capabilities(),
        lambda w, answer: BASE in [model.model_name for model in answer.supported_models],
    ),
    "service.health_check": (lambda w: w.api.service.health_check(), lambda w, answer: answer.status == "ok"),
    "service.create_session": (
        lambda w: w.api.service.create_session(types.CreateSessionRequest(tags=[], user_metadata={}, sdk_version="1")),
        lambda w, answer: answer.session_id != w.session,
    ),
    "service.session_heartbeat": (
        lambda w: w.api.service.session_heartbeat(types.SessionHeartbeatRequest(session_id=w.session)),
        lambda w, answer: isinstance(answer, types.SessionHeartbeatResponse),
    ),
    "service.create_sampling_session": (
        lambda w: create_sampler(w, 1),
        lambda w, answer: answer.sampling_session_id == f"{w.session}:sample:1",
    ),
    "service.get_session": (
        lambda w: w.api.service.get_session(w.session),
        lambda w, answer: answer.training_run_ids == [w.model] and answer.sampler_ids == [w.sampler],
    ),
    "service.list_sessions": (lambda w: w.api.service.list_sessions(), lambda w, answer: w.session in answer.sessions),
    "service.get_sampler": (
        lambda w: w.api.service.get_sampler(w.sampler),
        lambda w, answer: answer.base_model == BASE,
    ),
    "service.client_config": (
        lambda w: w.api.service.client_config("0.38.0"),
        lambda w, answer: answer.pjwt_auth_enabled and answer.sample_use_retrieve_futures,
    ),
    "service.client_dynamic_config": (
        lambda w: w.api.service.client_dynamic_config("0.38.0"),
        lambda w, answer: answer.sample_cancel_enabled,
    ),
    "service.finish_session": (finish, lambda w, answer: answer is None),
    "service.search_sessions": (
        lambda w: w.api.service.search_sessions(types.SessionSearchRequest(user_metadata={"a": "b"})),
        lambda w, answer: [found.session_id for found in answer.sessions] == [w.session],
    ),
    "service.assign_session_project": (
        lambda w: w.api.service.assign_session_project(w.session, "p"),
        lambda w, answer: w.api.service.search_sessions(types.SessionSearchRequest()).sessions[0].project_id == "p",
    ),
    "service.export_session_trace": (
        lambda w: requests.get(w.api.service.export_session_trace(w.session).url, timeout=10).json(),
        lambda w, trace: {"create_model", "save_weights"} <= {event["name"] for event in trace["traceEvents"]},
    ),
    "service.auth_token": (
        lambda w: w.api.service.auth_token(),
        lambda w, answer: w.api.service.get_server_capabilities(extra_headers={"X-API-Key": answer.jwt}),
    ),
    "service.get_api_key": (
        lambda w: w.api.service.get_api_key(),
        lambda w, answer: answer.details.org_details.name == "local",
    ),
    "service.delete_api_key": (lambda w: refused(w.api.service.delete_api_key, 403), lambda w, refused: refused),
    "models.create": (lambda w: create_model(w, 1), lambda w, answer: answer.model_id == f"{w.session}:train:1"),
    "models.get_info": (
        lambda w: w.api.models.get_info(types.GetInfoRequest(model_id=w.model)),
        lambda w, answer: (answer.model_id, answer.lora_rank) == (w.model, 4),
    ),
    "models.unload": (unload, lambda w, answer: answer.model_id == w.model),
    "models.list_training_runs": (
        lambda w: w.api.models.list_training_runs(),
        lambda w, answer: [run.training_run_id for run in answer.training_runs] == [w.model],
    ),
    "models.get_training_run": (
        lambda w: w.api.models.get_training_run(w.model),
        lambda w, answer: answer.last_checkpoint.tinker_path == w.saved,
    ),
    "weights.load": (load, lambda w, answer: answer.model_id in (None, w.model)),
    "weights.save": (lambda w: w.save("other"), lambda w, path: path == f"tinker://{w.model}/weights/other"),
    "weights.save_for_sampler": (
        save_for_sampler,
        lambda w, answer: answer.path == f"tinker://{w.model}/sampler_weights/s",
    ),
    "weights.list": (
        lambda w: w.api.weights.list(w.model),
        lambda w, answer: [item.checkpoint_id for item in answer.checkpoints] == ["weights/kept"],
    ),
    "weights.delete_checkpoint": (
        lambda w: w.api.weights.delete_checkpoint(w.model, "weights/kept"),
        lambda w, answer: w.api.weights.list(w.model).checkpoints == [],
    ),
    "weights.get_checkpoint_archive_url": (
        archive_names,
        lambda w, names: {"adapter_config.json", "checkpoint_complete"} <= names,
    ),
    "weights.list_user_checkpoints": (
        lambda w: w.api.weights.list_user_checkpoints(),
        lambda w, answer: answer.cursor.total_count == 1,
    ),
    "weights.publish": (
        lambda w: w.api.weights.publish(w.model, "weights/kept"),
        lambda w, answer: w.api.weights.list(w.model).checkpoints[0].public,
    ),
    "weights.unpublish": (
        lambda w: (
            w.api.weights.publish(w.model, "weights/kept"),
            w.api.weights.unpublish(w.model, "weights/kept"),
        ),
        lambda w, answer: not w.api.weights.list(w.model).checkpoints[0].public,
    ),
    "weights.set_ttl": (
        lambda w: w.api.weights.set_ttl(w.model, "weights/kept", 3600),
        lambda w, answer: w.api.weights.list(w.model).checkpoints[0].expires_at is not None,
    ),
    "weights.weights_info": (
        lambda w: w.api.weights.weights_info(types.WeightsInfoRequest(tinker_path=w.saved)),
        lambda w, answer: (answer.base_model, answer.lora_rank) == (BASE, 4),
    ),
    "weights.save_external": (
        save_external,
        lambda w, answer: (answer.path, answer.size_bytes > 0) == (f"tinker://{w.model}/external_weights/e", True),
    ),
    "weights.get_external_weights_urls": (
        external_files,
        lambda w, files: set(files) == {"adapter_config.json", "adapter_model.safetensors"},
    ),
    "weights.copy": (
        lambda w: w.api.weights.copy(types.CopyWeightsRequest(source_path=w.saved, destination_project_id="p")),
        lambda w, answer: (
            w.api.weights.weights_info(types.WeightsInfoRequest(tinker_path=answer.tinker_path)).lora_rank == 4
        ),
    ),
    "training.create_custom_loss": (
        lambda w: refused(lambda: w.api.training.create_custom_loss(CUSTOM_LOSS), 501),
        lambda w, refused: refused,
    ),
    "training.forward": (
        lambda w: train(w, "forward"),
        lambda w, answer: len(answer.loss_fn_outputs[0]["logprobs"]) == 2,
    ),
    "training.forward_backward": (
        lambda w: train(w, "forward_backward"),
        lambda w, answer: answer.metrics["loss:sum"] > 0,
    ),
    "training.optim_step": (step, lambda w, answer: isinstance(answer, types.OptimStepResponse)),
    "sampling.join_sampling_session": (
        lambda w: w.api.sampling.join_sampling_session(types.JoinSamplingSessionRequest(sampling_session_id=w.sampler)),
        lambda w, answer: answer.client_counter == 1,
    ),
    "futures.retrieve_many": (
        retrieve_many,
        lambda w, answer: [done.request_id for done in answer.completions] == [f"{w.sampler}:0"],
    ),
    "futures.cancel": (
        lambda w: w.api.futures.cancel(types.CancelFutureRequest(request_id=f"{w.model}:0")),
        lambda w, answer: answer is None,
    ),
    "sampling.asample": (sample, lambda w, answer: len(answer.sequences) == 2),
    "futures.retrieve": (retrieve, lambda w, answer: isinstance(answer, types.OptimStepResponse)),
    "telemetry.send": (send_telemetry, lambda w, answer: answer.status == "accepted"),
}


@pytest.mark.parametrize("name", sorted(CLIENT_ONLY))
def test_what_only_organizations_have_is_not_there(world: World, name: str) -> None:
    """The answer is 404, as for a path that does not exist."""
    assert refused(lambda: CLIENT_ONLY[name](world), 404)


@pytest.mark.parametrize("name", sorted(set(ENDPOINTS) - set(CLIENT_ONLY)))
def test_the_endpoint_answers_over_a_real_socket(world: World, name: str) -> None:
    """The call through resources/ gets a decoded answer that says what the server did."""
    call, check = CHECKS[name]
    assert check(world, call(world))
