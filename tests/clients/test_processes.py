"""Clients in other processes: what travels, and how."""

from __future__ import annotations

import base64
import multiprocessing
import pickle
import re
import sys
from pathlib import Path

import pytest

import tinkex
from tests.clients.conftest import until_collected
from tests.conftest import tinkex_threads
from tinkex import types
from tinkex.clients.processes import RANGE, shared_session

WAIT = 30.0
PROMPT = types.ModelInput.from_ints([1, 2, 3])


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spawned processes find this module, also where the folder of the tests is not on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])


@pytest.fixture
def sampler(stage) -> tinkex.SamplingClient:
    """A sampling client of the stage."""
    return stage.service.create_sampling_client(base_model="acme/small", record_stability_info=True)


def close_copy(copy: tinkex.SamplingClient) -> None:
    """End the connection that copies share."""
    copy._session.close()


def draw(sampler: tinkex.SamplingClient, number: int) -> tuple[int, list[int]]:
    """Work for a process: sample, and tell under which number."""
    future = sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=3, seed=number))
    tokens = future.result(WAIT).sequences[0].tokens
    return int(future.request_id.rpartition(":")[2]), tokens


def draw_by_handle(handle: str, key: str) -> tuple[int, list[int]]:
    """Work for a process that gets no pickle of a client."""
    return draw(tinkex.SamplingClient.from_sampler_handle(handle, api_key=key), 0)


def test_settings_pickle(stage):
    """A ClientConfig comes back equal, with the key in it."""
    config = stage.service.config
    copy = pickle.loads(pickle.dumps(config))
    assert config == copy
    assert config.api_key.reveal() == copy.api_key.reveal()


@pytest.mark.parametrize("numbered", [True, False])
def test_a_copy_samples_under_numbers_of_its_own(stage, sampler, numbered):
    """Whether the server numbers its clients or not, requests of copies cannot be taken for those of the original."""
    if not numbered:
        stage.faults.answer(200, {}, path="client/config", times=100)
    copies = [pickle.loads(pickle.dumps(sampler)) for _ in range(2)]
    numbers = [[draw(client, 0)[0] for _ in range(2)] for client in (sampler, *copies)]
    assert [0, 1] == numbers[0]
    blocks = [first // RANGE for first, _ in numbers]
    assert 3 == len(set(blocks))
    assert all([block * RANGE, block * RANGE + 1] == pair for block, pair in zip(blocks, numbers, strict=True))
    assert all(0 < block <= RANGE for block in blocks[1:])
    assert numbered == (stage.faults.count("join_sampling_session") == 2)
    assert copies[0]._session is copies[1]._session
    assert draw(sampler, 5)[1] == draw(copies[0], 5)[1]
    close_copy(copies[0])


def test_a_copy_of_a_copy_is_another_copy(sampler):
    """Its numbers are its own, too."""
    copy = pickle.loads(pickle.dumps(sampler))
    again = pickle.loads(pickle.dumps(copy))
    assert draw(copy, 0)[0] // RANGE != draw(again, 0)[0] // RANGE
    close_copy(copy)


def test_a_server_that_numbers_its_clients_is_asked(stage, sampler):
    """With sample_join_sampling_session the number of a copy is the server's."""
    stage.faults.answer(200, {"sample_join_sampling_session": True}, path="client/config")
    stage.faults.answer(200, {"client_counter": 7}, path="join_sampling_session")
    copy = pickle.loads(pickle.dumps(sampler))
    assert [7 * RANGE, 7 * RANGE + 1] == [draw(copy, 0)[0] for _ in range(2)]
    close_copy(copy)


def test_closed_copies_are_replaced(sampler):
    """After the shared connection was closed, the next copy opens a new one."""
    copy = pickle.loads(pickle.dumps(sampler))
    close_copy(copy)
    again = pickle.loads(pickle.dumps(sampler))
    assert draw(again, 0)[1]
    assert shared_session(sampler._session.config) is again._session
    close_copy(again)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the workers
def test_workers_of_multiprocessing_sample(stage, sampler):
    """Spawned processes get the client as an argument and sample side by side."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(draw, [(sampler, number) for number in range(6)], chunksize=1)
        by_handle = pool.apply(draw_by_handle, (sampler.get_sampler_handle(), stage.server.api_key))
        pool.close()
        pool.join()
    assert [draw(sampler, number)[1] for number in range(6)] == [tokens for _, tokens in results]
    assert all(number >= RANGE for number, _ in [*results, by_handle])
    assert by_handle[1] == results[0][1]


def test_workers_of_joblib_sample(sampler):
    """The same with loky."""
    joblib = pytest.importorskip("joblib")
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(draw)(sampler, number) for number in range(4))
    assert [draw(sampler, number)[1] for number in range(4)] == [tokens for _, tokens in results]


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the worker
def test_a_worker_finds_the_server_inside_its_parent():
    """A client of base_url="local" travels with the address of the server that this process runs."""
    pytest.importorskip("peft")
    with tinkex.ServiceClient(base_url="local", telemetry=False) as service:
        sampler = service.create_sampling_client(base_model="tinkex/tiny")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            number, tokens = pool.apply(draw, (sampler, 3))
            pool.close()
            pool.join()
        assert number >= RANGE
        assert draw(sampler, 3)[1] == tokens
    from tinkex.local import shared_local_server

    shared_local_server().stop()


def test_a_handle_has_no_key_and_no_secret(stage, monkeypatch):
    """get_sampler_handle names server and sampler; the key comes from the process that uses it."""
    with stage.new_service(default_headers={"X-Secret": "hush-hush"}) as service:
        sampler = service.create_sampling_client(base_model="acme/small")
        handle = sampler.get_sampler_handle()
        text = base64.urlsafe_b64decode(handle).decode()
        assert stage.server.api_key not in text
        assert "hush-hush" not in text
        monkeypatch.setenv("TINKER_API_KEY", stage.server.api_key)
        copy = tinkex.SamplingClient.from_sampler_handle(handle)
        assert draw(copy, 0)[1] == draw(sampler, 0)[1]
        assert "acme/small" == copy.get_base_model()
        close_copy(copy)


def test_something_else_is_not_a_handle():
    """The error says where handles come from."""
    for text in ("", "tinker://run/sampler_weights/x", "e30="):
        with pytest.raises(tinkex.InvalidInputError, match="get_sampler_handle"):
            tinkex.SamplingClient.from_sampler_handle(text, api_key="k")


def test_clients_that_stay_in_their_process_say_so(stage):
    """Pickling a service, training or REST client names the way out."""
    for client in (stage.service, stage.train(), stage.service.create_rest_client()):
        with pytest.raises(tinkex.LifecycleError, match=re.escape(f"a {type(client).__name__} cannot be pickled")):
            pickle.dumps(client)


def test_copies_that_nobody_holds_end_their_threads(sampler):
    """A collected copy takes its connection with it."""
    before = set(tinkex_threads())
    copy = pickle.loads(pickle.dumps(sampler))
    draw(copy, 0)
    threads = set(tinkex_threads()) - before
    assert threads
    del copy
    until_collected(*threads)


def test_a_server_that_gives_out_no_numbers_although_it_said_so_is_asked_once(stage):
    """A 404 of the path: copies number their requests in ranges of their own, as with servers that never say so."""
    stage.faults.answer(200, {"sample_join_sampling_session": True}, path="client/config", times=9)
    stage.faults.answer(404, {"detail": "Not Found"}, path="join_sampling_session", times=9)
    with stage.new_service() as service:
        session = service._session
        assert (None, None) == (session.join_sampler("s"), session.join_sampler("s"))
    assert 1 == stage.faults.count("join_sampling_session")
