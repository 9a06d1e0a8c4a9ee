"""What the clients put into the log by themselves, and what programs may hear."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import tinkex
from tinkex.clients.logs import PauseLog, follow_environment
from tinkex.pipeline import PhaseChange


@pytest.fixture
def logger():
    """The logger of tinkex, as it was before afterwards."""
    logger = logging.getLogger("tinkex")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.parametrize(("value", "level"), [("debug", logging.DEBUG), (" Info ", logging.INFO), ("loud", 0), ("", 0)])
def test_the_environment_sets_the_level(value: str, level: int, logger: logging.Logger) -> None:
    """TINKER_LOG is debug or info; anything else changes nothing."""
    logger.setLevel(0)
    follow_environment({"TINKER_LOG": value})
    assert logger.level == level


def test_a_program_without_logging_sees_the_lines() -> None:
    """Making a client is enough; what the program has set up itself is kept."""
    code = (
        "import logging, sys, tinkex; sys.argv[1:] and logging.basicConfig(format='mine %(message)s'); "
        "tinkex.ServiceClient(base_url='http://127.0.0.1:9'); tinkex.ServiceClient(base_url='http://127.0.0.1:9'); "
        "logging.getLogger('tinkex').info('seen')"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, *extra],
            capture_output=True,
            text=True,
            check=True,
            env={"TINKER_LOG": "info", "PYTHONPATH": ":".join(sys.path)},
        ).stderr
        for extra in ([], ["own"])
    ]
    assert said[0].endswith("tinkex INFO] seen\n")
    assert said[0].count("seen") == 1
    assert said[1] == "mine seen\n"


def test_headers_are_logged_without_what_may_be_secret(stage, caplog: pytest.LogCaptureFixture) -> None:
    """At the level debug each request is a line; of the key and of headers of one's own it has the names only."""
    caplog.set_level(logging.DEBUG, logger="tinkex")
    with stage.new_service(default_headers={"Authorization": "tml-mine"}) as service:
        service.get_server_capabilities()
    (line,) = {
        record.getMessage() for record in caplog.records if "get_server_capabilities with" in record.getMessage()
    }
    assert "'X-API-Key': '...'" in line
    assert "'Authorization': '...'" in line
    assert "'Accept': 'application/json'" in line
    assert stage.server.api_key not in caplog.text
    assert "tml-mine" not in caplog.text


def change(state: str, reason: str | None = None, phase: str = "queue_state") -> PhaseChange:
    return PhaseChange(
        operation="sample",
        phase=phase,
        request_id="r1",
        elapsed=1.0,
        queue_state=state,
        queue_state_reason=reason,
    )


def test_a_pause_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the server's reason; the end of a pause and other news are not worth one."""
    now = [0.0]
    pauses = PauseLog(clock=lambda: now[0])
    pauses(change("paused_capacity", "no room"))
    pauses(change("active"))
    pauses(change("paused_capacity", phase="ready"))
    pauses(change("paused_rate_limit"))
    now[0] = 60.0
    pauses(change("paused_rate_limit"))
    assert [record.getMessage() for record in caplog.records] == [
        "sample waits, because the server says paused_capacity: no room",
        "sample waits, because the server says paused_rate_limit",
    ]


def test_a_pause_of_the_server_is_logged(stage, caplog: pytest.LogCaptureFixture) -> None:
    """Of training and of samples, without any observer of the program."""
    paused = {"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room"}
    stage.faults.answer(200, paused, path="retrieve_future")
    sampling = stage.service.create_sampling_client(base_model="acme/small")
    sampling.sample(tinkex.ModelInput.from_ints([1]), 1, tinkex.SamplingParams(max_tokens=1)).result(timeout=10)
    assert "sample waits, because the server says paused_capacity: no room" in caplog.text


def test_a_program_may_observe_every_operation(stage, batch) -> None:
    """Observers given to a ServiceClient hear each phase of training, sampling and lookups."""
    heard: list[tuple[str, str]] = []
    with stage.new_service(observers=[lambda news: heard.append((news.operation, news.phase))]) as service:
        training = service.create_lora_training_client("acme/small", rank=4)
        training.forward_backward(batch, "cross_entropy").result(timeout=10)
        sampling = service.create_sampling_client(base_model="acme/small")
        prompt = tinkex.ModelInput.from_ints([1])
        sampling.sample(prompt, 1, tinkex.SamplingParams(max_tokens=1)).result(timeout=10)
        service.create_rest_client().list_sessions().result(timeout=10)
    for operation in ("forward_backward", "sample", "list_sessions"):
        phases = [phase for name, phase in heard if name == operation]
        assert phases[0] == "submitted"
        assert phases[-1] == "ready"


def test_metrics_observe_what_a_client_does(stage, batch) -> None:
    """The two stretches of an operation make up the whole."""
    metrics = tinkex.Metrics()
    with stage.new_service(observers=[metrics]) as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        for future in [train.forward_backward(batch, "cross_entropy") for _ in range(3)]:
            future.result(timeout=10)
    told = metrics.snapshot().operations["forward_backward"]
    assert (told.submitted, told.done, told.in_flight) == (3, 3, 0)
    assert told.accepting_s.count == told.working_s.count == 3
    assert told.accepting_s.mean + told.working_s.mean == pytest.approx(told.total_s.mean)
