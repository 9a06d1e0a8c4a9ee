"""Large results over a real socket: announced by their size, and fetched a few at a time."""

from __future__ import annotations

import concurrent.futures

import pytest

import tinkex
from tests.clients.conftest import BASE, Stage, until
from tinkex import types
from tinkex.local import Limits, LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan

WAIT = 30.0
PROMPT = types.ModelInput.from_ints([1, 2, 3])
LARGE = types.SamplingParams(max_tokens=800)


def make_stage(tmp_path, **limits):
    """Make a server that announces every result of more than a few kilobytes."""
    engine, faults = ScriptedEngine([BASE]), FaultPlan()
    return engine, faults, LocalServer(engine, data_dir=tmp_path, faults=faults, limits=Limits(**limits))


@pytest.fixture(params=["each", "bulk"])
def stage(request, tmp_path):
    """A stage with a budget of about two large results; with and without retrieve_futures."""
    engine, faults, server = make_stage(tmp_path, large_result_bytes=4000, bulk_retrieval=request.param == "bulk")
    with server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        config = tinkex.ClientConfig.from_env(max_result_bytes=30_000, **settings)
        with tinkex.ServiceClient(config=config) as service:
            yield Stage(service, server, engine, faults)


def sampler_of(stage) -> tinkex.SamplingClient:
    return stage.service.create_sampling_client(base_model=BASE)


def test_large_results_come_whole_and_give_their_bytes_back(stage):
    """More than fit at once, among small ones; each has its tokens, and in the end nothing is held."""
    sampler = sampler_of(stage)
    small = types.SamplingParams(max_tokens=1)
    futures = [sampler.sample(PROMPT, 1, LARGE if number % 2 else small) for number in range(40)]
    _, pending = concurrent.futures.wait(futures, timeout=WAIT)
    assert not pending
    lengths = [len(future.result().sequences[0].tokens) for future in futures]
    assert [1, 800] * 20 == lengths
    until(lambda: stage.service._session._poller._held == 0)


def test_fetches_that_are_cut_short_are_repeated(stage):
    """A lost answer costs another request, not the bytes."""
    stage.faults.drop(path="retrieve_future", nth=2, times=5)
    sampler = sampler_of(stage)
    futures = [sampler.sample(PROMPT, 1, LARGE) for _ in range(6)]
    assert [800] * 6 == [len(future.result(WAIT).sequences[0].tokens) for future in futures]
    until(lambda: stage.service._session._poller._held == 0)


def test_training_results_are_announced_too(stage, datum):
    """The outputs of a large batch come in order, each after a word of its size."""
    train = stage.train()
    batch = [datum(*range(1, 500)) for _ in range(8)]
    futures = [train.forward_backward(batch, "cross_entropy") for _ in range(3)]
    assert all(8 == len(future.result(WAIT).loss_fn_outputs) for future in futures)
    assert 2 * 3 + 1 <= stage.faults.count("retrieve_future")


def test_one_request_brings_a_small_result_and_two_a_large_one(tmp_path):
    """The announcement costs a round trip only where it is of use; without the endpoint for many."""
    _, faults, server = make_stage(tmp_path, large_result_bytes=4000)
    with server, tinkex.ServiceClient(base_url=server.base_url, api_key=server.api_key, telemetry=False) as service:
        sampler = service.create_sampling_client(base_model=BASE)
        for params, requests in ((types.SamplingParams(max_tokens=1), 1), (LARGE, 2)):
            before = faults.count("retrieve_future")
            sampler.sample(PROMPT, 1, params).result(WAIT)
            assert requests == faults.count("retrieve_future") - before


def test_the_server_says_how_many_bytes_may_be_fetched_at_once(stage):
    """Its setting lowers the client's, as it is learned."""
    stage.faults.answer(200, {"inflight_response_bytes_semaphore_size": 9000}, path="client/config")
    with stage.new_service() as service:
        service.create_sampling_client(base_model=BASE)
        assert 9000 == service._session._poller._max_result_bytes


def test_a_sample_can_be_given_up_while_its_bytes_are_fetched(stage):
    """Closing the client leaves nobody waiting for bytes."""
    sampler = sampler_of(stage)
    gate = stage.faults.stall(path="retrieve_future", times=100)
    futures = [sampler.sample(PROMPT, 1, LARGE) for _ in range(10)]
    until(lambda: stage.faults.count("retrieve_future"))
    stage.service.close(drain=False)
    assert all(future.done() for future in futures)
    gate.release()


def test_only_those_who_allow_it_get_a_size_instead_of_a_result(stage, datum):
    """An SDK that does not ask for it gets the result at once; the size is that of the bytes."""
    done = stage.train().forward_backward([datum(*range(1, 900))], "cross_entropy")
    done.result(WAIT)
    futures, kind = stage.service._session.api.futures, types.ForwardBackwardOutput
    ask = types.FutureRetrieveRequest(request_id=done.request_id, allow_metadata_only=True)
    told = futures.retrieve(ask, kind)
    assert isinstance(told, types.ResultMetadata)
    whole = futures.with_raw_response.retrieve(types.FutureRetrieveRequest(request_id=done.request_id), kind)
    assert told.response_payload_size == len(whole.content)
