"""Telemetry: what a program logs, which exceptions are told, and what is never told."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading

import pytest

import tinkex
from tinkex import errors, types
from tinkex.clients.events import Telemetry
from tinkex.clients.reports import Redactor, Report, is_user_error, plain
from tinkex.config import ClientConfig, Secret
from tinkex.http import Credentials, Transport

WAIT = 30.0
KEY = "plain-key-of-the-program"


@pytest.fixture
def sent(monkeypatch) -> list[dict[str, object]]:
    """The events that were sent, as the server reads them."""
    events: list[dict[str, object]] = []
    send = Transport.send

    def note(self, method, path, **options):
        if path.endswith("/telemetry"):
            events.extend(json.loads(options["body"])["events"])
        return send(self, method, path, **options)

    monkeypatch.setattr(Transport, "send", note)
    return events


def others(events: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the events that are not about the session."""
    return [event for event in events if not str(event["event"]).startswith("SESSION")]


# --- Logging -----------------------------------------------------------------------------------------------------


def test_a_program_logs_events_of_its_own(stage, sent):
    """They arrive with name, particulars and severity, numbered between the beginning and the end of the session."""
    with stage.new_service(telemetry=True) as service:
        telemetry = service.get_telemetry()
        assert telemetry.log("epoch_done", {"epoch": 3, "loss": 0.5, "note": None, "list": [1, "a"]}, "DEBUG")
        assert telemetry.log("other")
        assert telemetry.flush(WAIT)
        first, second = others(sent)
    assert (first["event"], first["event_name"], first["severity"]) == ("GENERIC_EVENT", "epoch_done", "DEBUG")
    assert first["event_data"] == {"epoch": 3, "loss": 0.5, "note": None, "list": [1, "a"]}
    assert (second["event_name"], second["severity"], second["event_data"]) == ("other", "INFO", {})
    assert [event["event_session_index"] for event in sent] == [0, 1, 2, 3]
    assert [event["event"] for event in sent] == ["SESSION_START", "GENERIC_EVENT", "GENERIC_EVENT", "SESSION_END"]


def test_all_clients_of_a_session_share_the_handle(stage):
    """Whichever is at hand."""
    with stage.new_service(telemetry=True) as service:
        rest = service.create_rest_client()
        assert rest.get_telemetry() is None
        telemetry = service.get_telemetry()
        training = service.create_lora_training_client("acme/small", rank=4)
        sampling = service.create_sampling_client(base_model="acme/small")
        assert {client.get_telemetry() for client in (service, training, sampling, rest)} == {telemetry}


def test_there_is_no_handle_where_telemetry_is_off(stage):
    """And no session is opened for it."""
    with stage.new_service(telemetry=False) as service:
        assert service.get_telemetry() is None
        assert "no session yet" in repr(service)
        assert stage.train().get_telemetry() is None


def test_after_the_end_nothing_is_taken(stage):
    """The answer is no, and nothing raises."""
    with stage.new_service(telemetry=True) as service:
        telemetry = service.get_telemetry()
    assert telemetry.log("late") is False
    assert telemetry.log_exception_sync(ValueError("late")) is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "event_name must be a non-empty text, got None"),
        ((5,), "event_name must be a non-empty text, got 5"),
        (("x", [1]), r"event_data must be a mapping, got \[1\]"),
        (("x", None, "LOUD"), "severity must be one of"),
    ],
)
def test_what_is_no_event_is_refused(arguments, message):
    """At the call, with the name of the argument."""
    with pytest.raises(errors.InvalidInputError, match=message):
        Telemetry(print, "s").log(*arguments)


def test_programs_for_the_official_sdk_can_log_exceptions(stage, sent):
    """There logging one is a coroutine, with a plain twin, and a fatal one is sent before it returns."""
    with stage.new_service(telemetry=True) as service:
        telemetry = service.get_telemetry()

        async def program() -> list[bool]:
            return [await telemetry.log_exception(ValueError("a")), await telemetry.log_fatal_exception(OSError("b"))]

        assert asyncio.run(program()) == [True, True]
        assert telemetry.log_exception_sync(ValueError("c"), severity="WARNING")
        assert telemetry.log_fatal_exception_sync(KeyboardInterrupt(), "CRITICAL")
        told = [(event["error_type"], event["error_message"], event["severity"]) for event in others(sent)]
    assert told == [
        ("ValueError", "a", "ERROR"),
        ("OSError", "b", "ERROR"),
        ("ValueError", "c", "WARNING"),
        ("KeyboardInterrupt", "", "CRITICAL"),
    ]


# --- Exceptions by themselves ------------------------------------------------------------------------------------


def break_things(service: tinkex.ServiceClient, training: tinkex.TrainingClient) -> None:
    """Meet with a refused argument, twice the same failure, what was queued behind it, and a lookup that fails."""
    prompt = types.ModelInput.from_ints([1])
    with pytest.raises(errors.InvalidInputError):
        service.create_sampling_client("tinker://m/weights/nonsense")
    with pytest.raises(errors.NotFoundError):
        service.create_rest_client().get_training_run("none").result(WAIT)
    sampling = service.create_sampling_client(base_model="acme/small")
    future = sampling.sample(prompt, 1, types.SamplingParams(max_tokens=1))
    with pytest.raises(errors.RequestFailedError):
        future.result(WAIT)
    with pytest.raises(errors.RequestFailedError):
        future.result(WAIT)
    with pytest.raises(errors.RequestFailedError):
        service.create_lora_training_client("acme/none", rank=4)


def test_exceptions_are_told_once_where_the_program_wants_that(stage, sent):
    """Those of calls and of futures; a mistake of the program is a user_error."""
    stage.engine.fail("sample", RuntimeError("it broke"))
    with stage.new_service(telemetry=True, report_exceptions=True) as service:
        break_things(service, service.create_lora_training_client("acme/small", rank=4))
        assert service.get_telemetry().flush(WAIT)
    kinds = [(event.get("event_name") or event["event"], event["severity"]) for event in others(sent)]
    assert sorted(kinds) == [("UNHANDLED_EXCEPTION", "ERROR"), *[("user_error", "WARNING")] * 3], others(sent)


def test_exceptions_are_not_told_unless_asked_for(stage, sent):
    """Off, and the methods are those of the class."""
    stage.engine.fail("sample", RuntimeError("it broke"))
    with stage.new_service(telemetry=True) as service:
        training = service.create_lora_training_client("acme/small", rank=4)
        break_things(service, training)
        assert not {"forward_backward", "create_sampling_client"} & {*vars(training), *vars(service)}
    assert others(sent) == []


def test_what_only_repeats_a_failure_is_not_told(stage, batch, sent):
    """One event for a pipeline that breaks, however much was queued behind."""
    stage.engine.fail("forward_backward", RuntimeError("it broke"))
    with stage.new_service(telemetry=True, report_exceptions=True) as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        with stage.engine.hold("forward_backward"):
            future, *_ = [train.forward_backward(batch, "cross_entropy") for _ in range(300)]
        assert future.exception(WAIT) is not None
        with pytest.raises(errors.PipelineBrokenError):
            train.optim_step(types.AdamParams())
    with pytest.raises(errors.ClientClosedError):
        service.create_sampling_client(base_model="acme/small")
    assert len(others(sent)) == 1


def test_an_error_that_was_told_still_pickles(stage):
    """The mark that it has does not stand in the way."""
    with stage.new_service(telemetry=True, report_exceptions=True) as service:
        service.get_telemetry()
        with pytest.raises(errors.InvalidInputError) as caught:
            service.create_sampling_client("tinker://m/weights/nonsense")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_key_is_in_no_event(stage, sent):
    """Not even where an error or the program has it in a text."""
    with stage.new_service(telemetry=True, report_exceptions=True) as service:
        telemetry, key = service.get_telemetry(), service.config.api_key.reveal()
        telemetry.log("mine", {"text": f"my {key}", "inner": [{"deep": key, "api_key": "x"}], key: 1, "api_key": "x"})
        telemetry.log_exception(ValueError(f"refused {key}"))
        with pytest.raises(errors.InvalidInputError):
            service.create_sampling_client(f"tinker://{key}/weights/a")
        assert telemetry.flush(WAIT)
    assert len(others(sent)) == 3
    assert key not in json.dumps(sent)
    assert "api_key" not in json.dumps(sent)


# --- What is told of an exception --------------------------------------------------------------------------------


@pytest.fixture
def hide() -> Redactor:
    """Knows a key, headers, a parameter, a command and a password."""
    config = ClientConfig(
        base_url="http://me:pass-of-the-url@host.test",
        api_key=KEY,
        credential_cmd="print-the-credential",
        default_headers={"X-Odd": "hush-hush-hush", "X-Short": "1"},
        default_query={"q": "hush-too-please"},
    )
    return Redactor(config, Credentials(config))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"sent {KEY}", "sent ********"),
        ("X-Odd is hush-hush-hush, X-Short is 1", "X-Odd is ********, X-Short is 1"),
        ("q hush-too-please", "q ********"),
        ("ran print-the-credential", "ran ********"),
        ("password pass-of-the-url", "password ********"),
        ("another tml-key_of-other.", "another ********."),
        ("jwt eyJhbGciOi.eyJzdWIi.c2ln!", "jwt ********!"),
        ("http://a:b@c.test/x", "http://********@c.test/x"),
        ("api_key='abc', seed=5", "api_key=********, seed=5"),
        ('{"Authorization": "Bearer abc", "a": 1}', '{"Authorization": ********, "a": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: ********"),
        ("/x?token=abc&limit=5", "/x?token=********&limit=5"),
        ("target_tokens: [1, 2], 3 tokens", "target_tokens: [1, 2], 3 tokens"),
        ("HTTP 404: no such key (GET /x)", "HTTP 404: no such key (GET /x)"),
        ("\udcff broken", "? broken"),
    ],
)
def test_credentials_are_hidden_in_texts(hide, text, shown):
    """Those of the client, what looks like one, and what stands behind the name of one; nothing else is lost."""
    assert hide(text) == shown


def lose(secret: str) -> None:
    local = secret + "-local"
    raise ValueError(f"it has {len(local)} letters")


def test_a_report_says_where_it_came_from_and_holds_no_values(hide):
    """Modules, lines and functions of the error and of its causes; neither variables nor lines of source nor paths."""
    with pytest.raises(RuntimeError) as caught:  # noqa: PT012 - the block is what is tested
        try:
            lose("the-value")
        except ValueError as error:
            raise RuntimeError("it went wrong") from error
    told = Report.of(caught.value, hide)
    assert (told.kind, told.message) == ("RuntimeError", "it went wrong")
    lines = told.trace.splitlines()
    assert lines[0] == "builtins.RuntimeError: it went wrong"
    assert lines[2] == "builtins.ValueError: it has 15 letters"
    assert lines[3].startswith(f"  {__name__}:")
    assert lines[4].endswith("in lose")
    for absent in ("the-value", "secret", "raise", ".py"):
        assert absent not in told.trace


def test_a_report_stays_small_whatever_the_error(hide):
    """A long text, a deep recursion, a long chain of causes, and an error that cannot say what it is."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise KeyError

    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 10_000)
        dive(depth - 1)

    with pytest.raises(ValueError, match="x") as caught:
        dive(200)
    told = Report.of(caught.value, hide)
    assert len(told.message) == 2_000
    assert told.trace.count("\n") == 50
    error = ValueError("0")
    for number in range(1, 9):
        follower = ValueError(str(number))
        follower.__cause__, error = error, follower
    assert Report.of(error, hide).trace.count("ValueError") == 5
    assert Report.of(MuteError(), hide).message == ""


def test_a_hidden_context_is_not_told(hide):
    """``from None`` means that the error before is nobody's affair."""
    with pytest.raises(RuntimeError) as caught:  # noqa: PT012 - the block is what is tested
        try:
            lose("x")
        except ValueError:
            raise RuntimeError("clean") from None
    assert "ValueError" not in Report.of(caught.value, hide).trace


@pytest.mark.parametrize(
    ("error", "mistake"),
    [
        (errors.error_from_status("x", status_code=404), True),
        (errors.error_from_status("x", status_code=408), False),
        (errors.error_from_status("x", status_code=500), False),
        (errors.RequestFailedError("x", category="user"), True),
        (errors.RequestFailedError("x", category="server"), False),
        (errors.InvalidInputError("x"), True),
        (ValueError("x"), False),
    ],
)
def test_mistakes_of_the_program_are_told_apart(error, mistake):
    """By status, by category, and what was refused here."""
    assert is_user_error(error) is mistake


def test_particulars_become_json(hide):
    """Numbers that JSON does not have and objects of other kinds become texts, without credentials."""
    data = {"nan": float("nan"), 5: (1, True), "set": {"tml-abc"}, "secret": Secret("x"), "thread": threading.Lock}
    assert plain(data, hide) == {
        "nan": "nan",
        "5": [1, True],
        "set": "{'********'}",
        "secret": "Secret(********)",
        "thread": repr(threading.Lock),
    }
