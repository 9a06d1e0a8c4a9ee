"""The beginning and the end: sessions, with, close, collection, fork, exit, Ctrl-C, a server that dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import tinkex
from tests.clients.conftest import until_collected
from tinkex import types

WAIT = 30.0
STEP = types.AdamParams()


def test_nothing_is_sent_before_it_is_needed(stage):
    """Making a ServiceClient opens no connection."""
    before = len(stage.faults.seen)
    with stage.new_service() as service:
        assert "no session yet" in repr(service)
        assert service.session_id is None
    assert before == len(stage.faults.seen)


def test_the_session_has_a_name_once_it_is_open(stage):
    """The one under which the server knows it."""
    stage.train()
    session_id = stage.service.session_id
    rest = stage.service.create_rest_client()
    assert session_id in rest.list_sessions().result(WAIT).sessions
    assert rest.get_session(session_id).result(WAIT).training_run_ids


def test_leaving_with_waits_for_what_was_submitted(stage, batch):
    """Every future is done with its result when the block is left."""
    with stage.new_service() as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        futures = [train.forward_backward(batch, "cross_entropy") for _ in range(20)]
    assert all(future.done() and future.exception() is None for future in futures)


def test_leaving_with_by_an_exception_cancels_what_is_queued(stage, batch, caplog):
    """The exception leaves at once; what was not sent is never sent, and the log says how much that was."""
    with stage.engine.hold("forward_backward") as held:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
            with stage.new_service() as service:
                train = service.create_lora_training_client("acme/small", rank=4)
                futures = [train.forward_backward(batch, "cross_entropy") for _ in range(3)]
                assert held.reached.wait(WAIT)
                raise ZeroDivisionError
        assert all(future.done() for future in futures)
        with pytest.raises(tinkex.ClientClosedError):
            futures[0].result()
    assert "closed with 3 operations that were not done" in caplog.text


def test_a_closed_client_says_so(stage, batch):
    """Every use after close raises, and closing again does nothing."""
    service = stage.new_service()
    train = service.create_lora_training_client("acme/small", rank=4)
    sampler = service.create_sampling_client(base_model="acme/small")
    rest = service.create_rest_client()
    service.close()
    service.close()
    for use in (
        lambda: train.forward(batch, "cross_entropy"),
        lambda: train.optim_step(STEP),
        lambda: sampler.compute_logprobs(types.ModelInput.from_ints([1])),
        lambda: rest.list_sessions(),
        lambda: service.create_lora_training_client("acme/small"),
    ):
        with pytest.raises(tinkex.ClientClosedError):
            use()
    assert "closed" in repr(service)


def test_closing_ends_the_session_on_the_server(stage):
    """The server is told, and refuses further work of the session."""
    service = stage.new_service()
    service.create_lora_training_client("acme/small", rank=4)
    service.close()
    assert any(path.endswith("/finish") for _, path in stage.faults.seen)


def how_it_ended(stage, name):
    """Ask the server how the session of this name ended."""
    rest = stage.service.create_rest_client()
    (found,) = rest.search_sessions(types.SessionSearchRequest(display_name=name)).result(WAIT).sessions
    return found.status


def test_the_server_is_told_how_the_program_ended(stage):
    """Leaving ``with`` says success, an exception says errored, Ctrl-C says interrupted."""
    for name, error in (("one", None), ("two", ValueError), ("three", KeyboardInterrupt), ("four", SystemExit)):
        with contextlib.suppress(error or ZeroDivisionError):
            with stage.new_service(display_name=name) as service:
                service.create_lora_training_client("acme/small", rank=4)
                if error:
                    raise error
    finished = [how_it_ended(stage, name).reason.type for name in ("one", "two", "three", "four")]
    assert ["success", "errored", "interrupted", "interrupted"] == finished


def test_close_takes_a_status_and_returns_a_future_that_is_done(stage):
    """As programs for the official SDK call it; the first reason counts."""
    service = stage.new_service(display_name="told")
    service.create_lora_training_client("acme/small", rank=4)
    future = service.close("errored", "the data ran out")
    assert (True, None) == (future.done(), future.result(0))
    assert service.close("success").done()
    status = how_it_ended(stage, "told")
    assert ("errored", "the data ran out") == (status.reason.type, status.detail)
    with pytest.raises(tinkex.InvalidInputError, match="'success', 'errored' or 'interrupted', got False"):
        stage.new_service().close(False)


def test_a_server_that_cannot_be_told_does_not_keep_close_waiting(stage):
    """Finish is one attempt; an old server without it is no problem."""
    for status in (404, 500):
        service = stage.new_service()
        service.create_lora_training_client("acme/small", rank=4)
        stage.faults.answer(status, path="*/finish")
        service.close()


def test_an_ended_session_breaks_the_pipelines_with_the_reason(stage, batch):
    """A heartbeat that is answered 410 shows at the next call."""
    with stage.new_service(heartbeat_interval_s=0.01) as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        stage.faults.answer(410, path="session_heartbeat", times=1000)
        # A 410 ends the heartbeat, after it has broken the pipelines.
        service._session._heartbeat._thread._thread.join(WAIT)
        with pytest.raises(tinkex.PipelineBrokenError, match="session_heartbeat"):
            train.forward(batch, "cross_entropy")


def test_clients_that_nobody_holds_stop_their_heartbeat(stage):
    """A dropped client is collected although its threads run."""
    service = stage.new_service()
    service.create_lora_training_client("acme/small", rank=4)
    session = service._session
    heartbeat = session._heartbeat._thread._thread
    assert heartbeat.is_alive()
    del service, session
    until_collected(heartbeat)


def test_several_clients_of_one_service_do_not_mix(stage, batch):
    """Models of one session train side by side, each with its own numbers."""
    trains = [stage.train() for _ in range(4)]
    futures = [[train.forward_backward(batch, "cross_entropy") for _ in range(5)] for train in trains]
    for train, own in zip(trains, futures, strict=True):
        own[-1].result(WAIT)
        assert [f"{train.model_id}:{n}" for n in range(1, 6)] == [future.request_id for future in own]


def test_many_threads_may_share_a_training_client(stage, batch):
    """Calls from 8 threads all arrive, numbered without a gap."""
    train = stage.train()
    futures: list[tinkex.APIFuture] = []

    def work() -> None:
        futures.extend(train.forward_backward(batch, "cross_entropy") for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for future in futures:
        future.result(WAIT)
    numbers = sorted(int(future.request_id.rpartition(":")[2]) for future in futures)
    assert list(range(1, 81)) == numbers


def test_a_server_that_dies_fails_what_waits_and_names_itself(stage, batch):
    """No future hangs when the server is gone for good."""
    retry = tinkex.RetryPolicy(max_elapsed_s=0.2, max_wait_s=0.05)
    service = stage.new_service(retry=retry)
    train = service.create_lora_training_client("acme/small", rank=4)
    train.forward(batch, "cross_entropy").result(WAIT)
    stage.server.stop()
    with pytest.raises(tinkex.APIConnectionError, match=r"127\.0\.0\.1"):
        train.optim_step(STEP).result(WAIT)
    with pytest.raises(tinkex.PipelineBrokenError):
        train.optim_step(STEP)
    service.close(drain=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forking with threads, which is the point
def test_a_forked_child_gets_an_error_and_not_a_hang(stage, batch):
    """Old futures and new calls fail in the child, naming the parent; the parent goes on."""
    train = stage.train()
    with stage.engine.hold("forward") as held:
        pending = train.forward(batch, "cross_entropy")
        assert held.reached.wait(WAIT)
        child = os.fork()
        if child == 0:
            os._exit(_try_in_child(stage, train, batch, pending))
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    pending.result(WAIT)


def _try_in_child(stage, train, batch, pending) -> int:
    uses = (
        lambda: pending.result(WAIT),
        lambda: train.optim_step(STEP),
        lambda: stage.service.create_lora_training_client("acme/small"),
        lambda: stage.service.create_rest_client().list_sessions(),
    )
    for code, use in enumerate(uses, start=1):
        try:
            use()
            return code
        except tinkex.ClientClosedError as error:
            if error.reason != "forked" or str(os.getppid()) not in str(error):
                return 10 + code
        except BaseException:
            return 20 + code
    return 0


PROGRAM = """
import sys, tinkex
from tinkex import types
service = tinkex.ServiceClient(base_url={url!r}, api_key={key!r}, telemetry=False)
train = service.create_lora_training_client("acme/small", rank=4)
data = [types.Datum(model_input=types.ModelInput.from_ints([1]), loss_fn_inputs={{"target_tokens": [1]}})]
{rest}
"""


def run_program(stage, rest: str, **options) -> subprocess.Popen[str]:
    text = PROGRAM.format(url=stage.server.base_url, key=stage.server.api_key, rest=textwrap.dedent(rest))
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_program_that_submits_and_ends_still_does_its_work(stage):
    """40 operations that nobody waited for are all done, and the program says that it waits."""
    with stage.engine.hold("optim_step") as held:
        program = run_program(
            stage,
            """
            for _ in range(20):
                train.forward_backward(data, "cross_entropy")
                train.optim_step(types.AdamParams())
            """,
        )
        assert held.reached.wait(WAIT)
    _, stderr = program.communicate(timeout=WAIT)
    assert 0 == program.returncode
    names = stage.engine.operations()
    assert (20, 20) == (names.count("forward_backward"), names.count("optim_step"))
    assert any(path.endswith("/finish") for _, path in stage.faults.seen), stderr


SAMPLES = """
sampler = service.create_sampling_client(base_model="acme/small")
params = types.SamplingParams(max_tokens=1)
futures = [sampler.sample(types.ModelInput.from_ints([1]), 1, params) for _ in range(50)]
"""


def test_samples_that_nobody_reads_do_not_hold_the_end_of_a_program(stage):
    """They are given up although the server is at work on them, and the program says how many."""
    with stage.engine.hold("sample"):
        program = run_program(stage, SAMPLES)
        _, stderr = program.communicate(timeout=WAIT)
    assert 0 == program.returncode
    assert "tinkex: gave up 50 samples that nobody can read any more\n" == stderr


@pytest.mark.parametrize(
    "reader",
    [
        "for future in futures: future.add_done_callback(lambda done: print(done.result() and 'sample', flush=True))",
        "import threading; read = lambda: [print(future.result() and 'sample', flush=True) for future in futures]\n"
        "threading.Thread(target=read).start()",
        "import concurrent.futures; pool = concurrent.futures.ThreadPoolExecutor(1)\n"
        "for future in futures: pool.submit(lambda future=future: print(future.result() and 'sample', flush=True))",
        "import atexit; read = lambda: [print(future.result() and 'sample', flush=True) for future in futures]\n"
        "atexit.register(read)",
    ],
    ids=["callback", "thread", "executor", "atexit"],
)
def test_samples_that_somebody_will_read_are_waited_for_at_the_end(stage, reader):
    """A callback, a thread that is no daemon, and a function of atexit get every result."""
    with stage.engine.hold("sample") as held:
        program = run_program(stage, SAMPLES + reader + "\nprint('end', flush=True)")
        assert held.reached.wait(WAIT)
        assert "end\n" == program.stdout.readline()
    stdout, stderr = program.communicate(timeout=WAIT)
    assert (0, 50) == (program.returncode, stdout.count("sample")), stderr


def test_ctrl_c_breaks_a_blocked_result_at_once(stage):
    """KeyboardInterrupt leaves result() although the operation is not done."""
    with stage.engine.hold("forward") as held:
        program = run_program(
            stage,
            """
            future = train.forward(data, "cross_entropy")
            try:
                print("waiting", flush=True)
                future.result()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                service.close(drain=False)
            """,
        )
        assert held.reached.wait(WAIT)
        assert "waiting\n" == program.stdout.readline()
        program.send_signal(signal.SIGINT)
        stdout, stderr = program.communicate(timeout=WAIT)
    assert "interrupted" in stdout, stderr
    assert 0 == program.returncode


def test_messages_of_the_server_reach_the_log(stage, caplog, monkeypatch):
    """What create_session has to say is logged at its level."""
    answer = types.CreateSessionResponse(session_id="s", info_message="i", warning_message="w", error_message="e")
    with stage.new_service() as service:
        monkeypatch.setattr(service._session.api.service, "create_session", lambda request: answer)
        with caplog.at_level("INFO", logger="tinkex"):
            assert "s" == service._session.open()
    assert [("INFO", "i"), ("WARNING", "w"), ("ERROR", "e")] == [
        (record.levelname, record.message) for record in caplog.records if record.message in "iwe"
    ]


def test_telemetry_tells_of_the_session_and_nothing_else(stage):
    """Start and end of the session arrive in one small request, unless telemetry is off."""
    with stage.new_service(telemetry=True) as service:
        service.create_sampling_client(base_model="acme/small")
    assert 1 == stage.faults.count("telemetry")
