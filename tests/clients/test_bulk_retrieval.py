"""Samples on a server that tells of many results at once, over a real socket."""

from __future__ import annotations

import concurrent.futures
import pickle
import threading

import pytest

import tinkex
from tests.clients.conftest import BASE, Stage, until
from tinkex import types
from tinkex.local import Limits, LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan

WAIT = 30.0
PROMPT = types.ModelInput.from_ints([1, 2, 3])
PARAMS = types.SamplingParams(max_tokens=2)


@pytest.fixture
def stage(tmp_path):
    """A stage whose server offers retrieve_futures."""
    engine, faults = ScriptedEngine([BASE]), FaultPlan()
    with LocalServer(engine, data_dir=tmp_path, faults=faults, limits=Limits(bulk_retrieval=True)) as server:
        with tinkex.ServiceClient(base_url=server.base_url, api_key=server.api_key, telemetry=False) as service:
            yield Stage(service, server, engine, faults)


@pytest.fixture
def sampler(stage):
    """A sampling client of it."""
    return stage.service.create_sampling_client(base_model=BASE)


def results(futures) -> list[types.SampleResponse]:
    """Wait for all."""
    _, pending = concurrent.futures.wait(futures, timeout=WAIT)
    assert not pending
    return [future.result() for future in futures]


def test_each_result_is_asked_for_once(stage, sampler):
    """Nobody polls for a sample before it has ended: one request for each result, and a few for the news."""
    gate = stage.faults.stall(path="retrieve_futures")
    with stage.engine.hold("sample"):
        futures = [sampler.sample(PROMPT, 1, PARAMS) for _ in range(300)]
        until(lambda: all(future.request_id for future in futures))
        assert 0 == stage.faults.count("retrieve_future")
        retrieving = [thread for thread in threading.enumerate() if thread.name.startswith("tinkex-retrieve")]
        assert [] == retrieving
    logs = stage.server._parts().service.completions._logs
    until(lambda: 300 == sum(len(log.ended) for log in logs.values()))
    gate.release()
    assert 300 == len(results(futures))
    assert 300 == stage.faults.count("retrieve_future")
    assert 1 <= stage.faults.count("retrieve_futures") < 100


def test_what_was_fetched_is_acknowledged(stage, sampler):
    """The server is told soon that it need not keep a result, and asking for it again finds nothing."""
    future = sampler.sample(PROMPT, 1, PARAMS)
    future.result(WAIT)
    ask = types.FutureRetrieveRequest(request_id=future.request_id)

    def gone() -> bool:
        try:
            stage.service._session.api.futures.retrieve(ask, types.SampleResponse)
        except tinkex.APIStatusError as error:
            return error.status_code in (404, 410)
        return False

    until(gone)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_the_endpoint_is_asked_for_each(stage, sampler, status):
    """A 404 ends the attempt for good, and a 500 for a second; the results come in both cases."""
    stage.faults.answer(status, path="retrieve_futures")
    assert 20 == len(results([sampler.sample(PROMPT, 1, PARAMS) for _ in range(20)]))
    if status == 404:
        assert 1 == stage.faults.count("retrieve_futures")


def test_failed_and_lost_samples_are_told_as_always(stage, sampler):
    """A refusal fails its own future; a lost result is drawn again."""
    stage.faults.answer(410, path="retrieve_future")
    lost = sampler.sample(PROMPT, 1, PARAMS)
    assert results([lost])
    assert lost.request_id.endswith(":1")
    bad = sampler.sample(types.ModelInput.from_ints([999_999]), 1, PARAMS)
    with pytest.raises(tinkex.RequestFailedError, match="999999"):
        bad.result(WAIT)


def test_a_cancelled_sample_is_not_fetched(stage, sampler):
    """The others are."""
    with stage.engine.hold("sample"):
        futures = [sampler.sample(PROMPT, 1, PARAMS) for _ in range(3)]
        until(lambda: all(future.request_id for future in futures))
        assert futures[1].cancel()
        until(lambda: futures[1].request_id not in sampler._herald._expected)
    assert 2 == len(results([futures[0], futures[2]]))
    assert 2 == stage.faults.count("retrieve_future")


def test_copies_hear_of_their_own_samples(stage, sampler):
    """Each copy of a client has news of its own."""
    copy = pickle.loads(pickle.dumps(sampler))
    futures = [client.sample(PROMPT, 1, PARAMS) for _ in range(10) for client in (sampler, copy)]
    assert 20 == len(results(futures))
    assert 20 == stage.faults.count("retrieve_future")
    copy._session.close()


def test_closing_ends_the_wait(stage, sampler):
    """What the server still draws fails at once; no thread stays, as the fixture that counts them sees."""
    with stage.engine.hold("sample"):
        future = sampler.sample(PROMPT, 1, PARAMS)
        until(lambda: stage.faults.count("retrieve_futures"))
        stage.service.close(drain=False)
        with pytest.raises(tinkex.ClientClosedError):
            future.result(WAIT)


def test_a_server_that_tells_of_no_results_although_it_said_so_is_asked_once(stage):
    """Its samples are asked for one by one, and those of the next sampler from the start."""
    stage.faults.answer(404, {"detail": "Not Found"}, path="retrieve_futures", times=99)
    for _ in range(2):
        sampler = stage.service.create_sampling_client(base_model=BASE)
        assert 1 == len(results([sampler.sample(PROMPT, 1, PARAMS)]))
    assert 1 == stage.faults.count("retrieve_futures")
