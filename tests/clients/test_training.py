"""TrainingClient over a real socket."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
from types import SimpleNamespace

import pytest

import tinkex
from tinkex import types
from tinkex.clients import sampling, training

WAIT = 30.0
STEP = types.AdamParams(learning_rate=1e-3)


def test_200_pipelined_steps_reach_the_server_in_order_and_without_a_gap(stage, batch):
    """Steps submitted without waiting are numbered 1..n, run in that order, and finish in that order."""
    train = stage.train()
    finished: list[str] = []
    futures = []
    for _ in range(200):
        futures.append(train.forward_backward(batch, "cross_entropy"))
        futures.append(train.optim_step(STEP))
    for future in futures:
        future.add_done_callback(lambda done: finished.append(done.request_id))
    _, pending = concurrent.futures.wait(futures, timeout=WAIT)

    assert not pending
    expected = [f"{train.model_id}:{number}" for number in range(1, 401)]
    assert expected == [future.request_id for future in futures]
    assert expected == finished[-400:]
    assert ["forward_backward", "optim_step"] * 200 == stage.engine.operations(train.model_id)[-400:]


def test_losses_fall_and_have_one_output_for_each_datum(stage, batch):
    """The result of a batch has the loss and the logprobs of each datum, in order."""
    train = stage.train()
    first = train.forward_backward(batch, "cross_entropy").result(WAIT)
    train.optim_step(STEP).result(WAIT)
    second = train.forward_backward(batch, "cross_entropy").result(WAIT)

    assert [3, 2] == [len(output["logprobs"]) for output in first.loss_fn_outputs]
    assert second.metrics["loss:sum"] < first.metrics["loss:sum"]


def test_a_large_batch_is_split_and_joined_again(stage, datum):
    """Chunks get consecutive numbers, and the joined result is that of one request."""
    data = [datum(*range(1, size + 1)) for size in (3, 5, 2, 4, 1)]
    whole = stage.train().forward_backward(data, "cross_entropy").result(WAIT)
    with stage.new_service(max_chunk_len=2) as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        split = train.forward_backward(data, "cross_entropy").result(WAIT)
        step = train.optim_step(STEP)
        step.result(WAIT)
        assert f"{train.model_id}:4" == step.request_id

    assert [3, 5, 2, 4, 1] == [len(output["logprobs"]) for output in split.loss_fn_outputs]
    assert whole.metrics["loss:sum"] == pytest.approx(split.metrics["loss:sum"])


def test_forward_changes_nothing(stage, batch):
    """A forward pass reaches the engine as one, not as a gradient."""
    train = stage.train()
    train.forward(batch, "cross_entropy").result(WAIT)

    assert ["forward"] == [name for name in stage.engine.operations(train.model_id) if name.startswith("forward")]


def test_a_checkpoint_resumes_with_its_optimizer(stage, batch):
    """A model made from a saved state gives the loss that the original would have given next."""
    train = stage.train()
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(STEP)
    saved = train.save_state("step-1").result(WAIT)
    expected = train.forward_backward(batch, "cross_entropy").result(WAIT).metrics

    resumed = stage.service.create_training_client_from_state_with_optimizer(saved.path)
    assert f"tinker://{train.model_id}/weights/step-1" == saved.path
    assert expected == resumed.forward_backward(batch, "cross_entropy").result(WAIT).metrics
    fresh = stage.service.create_training_client_from_state(saved.path)
    assert expected == fresh.forward_backward(batch, "cross_entropy").result(WAIT).metrics


def test_state_loads_into_a_model_that_is_there(stage, batch):
    """load_state puts saved weights back in place."""
    train = stage.train()
    before = train.forward(batch, "cross_entropy").result(WAIT).metrics
    path = train.save_state("start").result(WAIT).path
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(STEP).result(WAIT)
    assert before != train.forward(batch, "cross_entropy").result(WAIT).metrics

    train.load_state(path).result(WAIT)
    assert before == train.forward(batch, "cross_entropy").result(WAIT).metrics
    train.load_state_with_optimizer(path).result(WAIT)
    assert before == train.forward(batch, "cross_entropy").result(WAIT).metrics


def test_a_sampler_keeps_the_weights_it_was_made_with(stage, batch):
    """What is trained after save_weights_and_get_sampling_client does not change its samples."""
    train = stage.train()
    sampler = train.save_weights_and_get_sampling_client()
    prompt, params = types.ModelInput.from_ints([1, 2]), types.SamplingParams(max_tokens=5, seed=1)
    before = sampler.sample(prompt, 1, params).result(WAIT)
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(STEP).result(WAIT)

    assert before == sampler.sample(prompt, 1, params).result(WAIT)


def test_a_named_sampler_checkpoint_can_be_opened_again(stage):
    """The name given to save_weights_and_get_sampling_client is kept."""
    train = stage.train()
    sampler = train.save_weights_and_get_sampling_client("final")
    path = f"tinker://{train.model_id}/sampler_weights/final"
    assert path == sampler.model_path
    assert path == train.save_weights_for_sampler("other").result(WAIT).path.replace("other", "final")
    assert path == train.create_sampling_client(path).model_path
    assert "acme/small" == sampler.get_base_model()


def test_a_failed_operation_breaks_the_pipeline_before_its_future_fails(stage, batch):
    """What was queued behind a failure is not run, and says which operation was at fault."""
    train = stage.train()
    stage.engine.fail("forward_backward", tinkex.InvalidInputError("data[0] is no good"), nth=2)
    good = train.forward_backward(batch, "cross_entropy")
    bad = train.forward_backward(batch, "cross_entropy")
    good.result(WAIT)
    concurrent.futures.wait([bad], WAIT)
    with pytest.raises(tinkex.PipelineBrokenError, match="forward_backward") as broken:
        train.optim_step(STEP)
    with pytest.raises(tinkex.RequestFailedError, match="data\\[0\\] is no good") as failure:
        bad.result(WAIT)
    assert "user" == failure.value.category
    assert bad.request_id == failure.value.request_id
    assert failure.value is broken.value.__cause__

    train.optim_step(STEP).result(WAIT)
    assert stage.engine.operations(train.model_id)[-1] == "optim_step"


def test_a_save_behind_a_failed_step_succeeds_and_check_tells(stage, batch):
    """What the server had been sent before the failure was known, it does; the futures of the step were dropped."""
    accepted = threading.Event()

    def listen(news):
        if (news.operation, news.phase) == ("save_state", "accepted"):
            accepted.set()

    with stage.new_service(observers=[listen]) as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        train.check()
        stage.engine.fail("optim_step", RuntimeError("out of memory"))
        with stage.engine.hold("forward_backward"):
            train.forward_backward(batch, "cross_entropy")
            train.optim_step(STEP)
            saved = train.save_state("step-1")
            assert accepted.wait(WAIT)
        assert saved.result(WAIT).path
        with pytest.raises(tinkex.PipelineBrokenError, match=r"optim_step.*out of memory") as broken:
            train.check()
        assert isinstance(broken.value.__cause__, tinkex.RequestFailedError)
    with pytest.raises(tinkex.ClientClosedError):
        train.check()


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_submit_that_fails_for_a_moment_is_repeated_with_its_number(stage, batch, status):
    """Transient statuses cost nothing: the operation runs once, under the number it had."""
    train = stage.train()
    stage.faults.answer(status, path="forward_backward", times=2)
    future = train.forward_backward(batch, "cross_entropy")
    future.result(WAIT)

    assert f"{train.model_id}:1" == future.request_id
    assert 1 == stage.engine.operations(train.model_id).count("forward_backward")


def test_a_lost_answer_does_not_run_the_operation_twice(stage, batch):
    """A connection that breaks after the server has acted is repeated, and the server knows the number."""
    train = stage.train()
    stage.faults.drop(path="optim_step")
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(STEP).result(WAIT)

    assert ["forward_backward", "optim_step"] == stage.engine.operations(train.model_id)[-2:]


def test_a_poll_that_fails_for_a_moment_is_repeated(stage, batch):
    """Neither errors nor resets of polls reach the caller."""
    train = stage.train()
    stage.faults.answer(500, path="retrieve_future", times=2)
    stage.faults.reset(path="retrieve_future", nth=4)
    train.forward_backward(batch, "cross_entropy").result(WAIT)
    train.optim_step(STEP).result(WAIT)


def test_a_timeout_says_what_it_waits_for_and_loses_nothing(stage, batch):
    """result(timeout) ends with a text that helps, and the operation goes on."""
    train = stage.train()
    with stage.engine.hold("forward_backward") as held:
        future = train.forward_backward(batch, "cross_entropy")
        assert held.reached.wait(WAIT)
        while future.request_id is None:
            threading.Event().wait(0.001)
        with pytest.raises(tinkex.ResultTimeoutError, match=r"forward_backward .* the server to finish it"):
            future.result(0.01)
        with pytest.raises(TimeoutError):
            future.result(0)
    assert future.result(WAIT).metrics


def test_futures_work_with_asyncio(stage, batch):
    """An APIFuture can be awaited, and so can a client."""

    async def train() -> float:
        client = await stage.train()
        outputs = await asyncio.gather(*(client.forward(batch, "cross_entropy") for _ in range(3)))
        return outputs[0].metrics["loss:sum"]

    assert asyncio.run(train()) > 0


def test_async_twins_give_what_the_official_sdk_gives(stage, batch):
    """Awaiting a creator gives the client, an operation its future, a sample and a lookup the value."""

    async def script() -> None:
        train = await stage.service.create_lora_training_client_async("acme/small", rank=4)
        step = await train.forward_backward_async(batch, "cross_entropy")
        update = await train.optim_step_async(adam_params=STEP)
        assert isinstance(step, tinkex.APIFuture)
        assert (await step.result_async(WAIT)).metrics
        await update
        sampler = await train.save_weights_and_get_sampling_client_async()
        prompt = types.ModelInput.from_ints([1])
        params = types.SamplingParams(max_tokens=1)
        sample = await sampler.sample_async(prompt=prompt, num_samples=1, sampling_params=params)
        assert 1 == len(sample.sequences)
        assert [None] == await sampler.compute_logprobs_async(prompt)
        runs = await stage.service.create_rest_client().list_training_runs_async()
        assert train.model_id == runs.training_runs[0].training_run_id

    asyncio.run(script())
    assert "forward_backward_async" == tinkex.TrainingClient.forward_backward_async.__name__


def test_clients_answer_result_with_themselves(stage):
    """Programs that treat a creator as returning a future run."""
    train = stage.train()
    assert train is train.result()
    sampler = stage.service.create_sampling_client(base_model="acme/small")
    assert sampler is sampler.result(timeout=1)
    rest = stage.service.create_rest_client()
    assert rest is rest.result()


def test_info_and_unload(stage):
    """get_info describes the model; after unload the server does not know it."""
    train = stage.train()
    info = train.get_info()
    assert (train.model_id, "acme/small", 4) == (info.model_id, info.model_data.model_name, info.lora_rank)
    assert train.model_id == train.unload().result(WAIT).model_id
    with pytest.raises(tinkex.NotFoundError):
        train.get_info()


def test_reprs_say_what_matters(stage, batch):
    """A client shows its model and its state, a future its operation."""
    train = stage.train()
    assert "open, 0 operations pending" in repr(train)
    assert "forward" in repr(train.forward(batch, "cross_entropy"))
    assert stage.server.base_url in repr(stage.service)
    assert stage.server.api_key not in repr(stage.service) + repr(stage.service.config)


def test_data_is_copied_when_it_is_submitted(stage, datum):
    """Changing a datum after the call changes nothing that was submitted."""
    train = stage.train()
    example = datum(1, 2, 3)
    with stage.engine.hold("optim_step") as held:
        train.optim_step(STEP)
        assert held.reached.wait(WAIT)
        future = train.forward([example], "cross_entropy")
        example.loss_fn_inputs.clear()
    assert 3 == len(future.result(WAIT).loss_fn_outputs[0]["logprobs"])


@pytest.mark.parametrize("one_call", [True, False])
@pytest.mark.parametrize("with_optimizer", [True, False])
def test_a_model_is_made_of_a_checkpoint_in_the_way_that_the_server_knows(stage, batch, one_call, with_optimizer):
    """One call where the server says so, else three; the model, its numbers and what comes of it are the same."""
    train = stage.train()
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(STEP)
    saved = train.save_state("a").result(WAIT)
    expected = train.forward(batch, "cross_entropy").result(WAIT).metrics
    if not one_call:
        stage.faults.answer(404, path="client/config", body=b"{}")
    with stage.new_service() as service:
        before = {path: stage.faults.count(path) for path in ("weights_info", "create_model", "load_weights")}
        make = service.create_training_client_from_state
        if with_optimizer:
            make = service.create_training_client_from_state_with_optimizer
        again = make(saved.path, user_metadata={"from": "a"})
        sent = [stage.faults.count(path) - count for path, count in before.items()]
        assert ([0, 0, 1] if one_call else [1, 1, 1]) == sent
        assert "acme/small" == again.base_model
        assert expected == again.forward(batch, "cross_entropy").result(WAIT).metrics
        run = service.create_rest_client().get_training_run(again.model_id).result(WAIT)
        assert {"from": "a"} == run.user_metadata
        # The dict stands second in SDKs before 0.38, where it is the metadata.
        old = make(saved.path, {"old": "way"})
        run = service.create_rest_client().get_training_run(old.model_id).result(WAIT)
        assert {"old": "way"} == run.user_metadata


@pytest.mark.parametrize("asked", [False, True])
def test_a_sampler_of_a_model_knows_what_the_model_knows(stage, monkeypatch, asked):
    """Its base model, and where the tokenizer is if the server has said so; the server is not asked again."""
    loaded = []
    for module in (training, sampling):
        monkeypatch.setattr(module, "load_tokenizer", lambda *names: loaded.append(names))
    train = stage.train()
    if asked:
        train.get_tokenizer()
    path = train.save_weights_for_sampler("a").result(WAIT).path
    known = [
        train.save_weights_and_get_sampling_client(),
        train.save_weights_and_get_sampling_client("b"),
        train.create_sampling_client(path),
    ]
    known.append(pickle.loads(pickle.dumps(known[0])))
    loaded.clear()
    for sampler in known:
        assert "acme/small" == sampler.get_base_model()
        sampler.get_tokenizer()
    assert [("acme/small", "acme/small" if asked else None)] * 4 == loaded
    assert 0 == stage.faults.count("samplers/*")


def test_a_sampler_of_another_model_is_asked_for_its_base_model(stage):
    """A checkpoint that a client did not make may have another one."""
    path = stage.train().save_weights_for_sampler("a").result(WAIT).path
    assert "acme/small" == stage.train().create_sampling_client(path).get_base_model()
    assert 1 == stage.faults.count("samplers/*")


def test_a_server_that_cannot_be_asked_about_a_model_has_its_tokenizer_by_name(stage, monkeypatch):
    """By that of the base model; where that is not known either, the error says what to do."""
    monkeypatch.setattr(training, "load_tokenizer", lambda *names: names)
    stage.faults.answer(404, {"detail": "Not Found"}, path="get_info", times=2)
    train = stage.train()
    assert ("acme/small", None) == train.get_tokenizer()
    train.base_model = ""
    with pytest.raises(tinkex.ConfigurationError, match="load the tokenizer of that model yourself"):
        train.get_tokenizer()


def test_a_loss_that_only_the_server_knows_is_sent(stage, datum):
    """With inputs and settings of its own, also texts."""
    train = stage.train()
    data = [datum(1, 2, 3, logprobs=[0.0] * 3, advantages=[1.0] * 3, values=[0.5] * 3)]
    for method in (train.forward, train.forward_backward):
        assert "loss:sum" in method(data, "dppo", {"delta_low": 0.1, "mode": "tv"}).result(WAIT).metrics


def test_an_optimizer_that_the_server_has_not_is_named(stage):
    """At creation and at the step, after which the next step is done."""
    with pytest.raises(tinkex.RequestFailedError, match="'dimuon'"):
        stage.train(optimizer=types.DimuonOptimizerConfig())
    train = stage.train(optimizer=types.AdamOptimizerConfig())
    with pytest.raises(tinkex.RequestFailedError, match="'dimuon'"):
        train.optim_step(types.DimuonParams(learning_rate=0.1)).result(WAIT)
    assert train.optim_step(STEP).result(WAIT).metrics


def test_the_owner_s_key_stands_for_the_caller_where_servers_know_no_other_way(stage, monkeypatch):
    """Servers before 0.26 are asked about another's weights with the other's key."""
    saved = stage.train().save_state("a").result(WAIT)
    with stage.new_service() as service:
        monkeypatch.setattr(service._session.settings, "restores_in_one_call", lambda: False)
        with pytest.raises(tinkex.AuthenticationError):
            service.create_training_client_from_state(saved.path, weights_access_token="tml-other")
        client = service.create_training_client_from_state(saved.path, weights_access_token=stage.server.api_key)
        assert client.model_id


def test_pages_of_the_console_are_those_of_the_hosted_service(stage):
    """Another server has none; a session, a model and a checkpoint of the service have one each."""
    train = stage.train()
    for client in (train, stage.service):
        with pytest.raises(tinkex.ConfigurationError, match="only the hosted service has a console"):
            client.get_console_url()
    with tinkex.ServiceClient(api_key="tml-key") as hosted:
        assert hosted.get_console_url().endswith("/sessions")
        assert tinkex.TrainingClient.get_console_url(fake_client(hosted)).endswith("/training_runs/s:train:0")
    saved = types.SaveWeightsForSamplerResponse(path="tinker://s:train:0/sampler_weights/a")
    assert saved.get_console_url().endswith("/checkpoints/s%3Atrain%3A0/sampler_weights%2Fa")
    assert "checkpoint=tinker%3A%2F%2Fs%3Atrain%3A0" in saved.get_playground_url()
    with pytest.raises(tinkex.InvalidInputError):
        types.SaveWeightsForSamplerResponse(sampling_session_id="s").get_console_url()


def fake_client(service):
    """Stand in for a model of the hosted service."""
    return SimpleNamespace(model_id="s:train:0", _session=service._session)
