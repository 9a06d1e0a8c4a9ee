"""The exception tree: one root, messages that help, and nothing lost in a pickle."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import pickle
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from tinkex import errors
from tinkex.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    FlowControlError,
    FutureExpiredError,
    InternalServerError,
    InvalidInputError,
    OperationError,
    PipelineBrokenError,
    RequestFailedError,
    ResultTimeoutError,
    TinkexError,
    error_from_status,
)

CLASSES = [value for name in errors.__all__ if inspect.isclass(value := getattr(errors, name))]
STATUS = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BillingError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
}


def example(cls):
    """Make an error of a class with every field set."""
    fields = {}
    if issubclass(cls, APIError):
        fields.update(method="POST", path="/api/v1/asample", request_id="m:7", idempotency_key="key-1", attempts=3)
    if issubclass(cls, APIConnectionError):
        fields.update(maybe_sent=False)
    if issubclass(cls, APIStatusError):
        fields.update(status_code=418, body={"detail": "no"}, headers={"Retry-After": "2"})
    if issubclass(cls, OperationError | PipelineBrokenError):
        fields.update(operation="optim_step", request_id="m:7")
    if issubclass(cls, RequestFailedError):
        fields.update(category="user")
    if issubclass(cls, ClientClosedError):
        fields.update(reason="the session ended")
    if issubclass(cls, InvalidInputError):
        fields.update(field="data[3].x", index=3)
    return cls("it went wrong", **fields)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_one_of_ours_and_documented(cls):
    """``except TinkexError`` catches all, and each class says when it is raised."""
    assert issubclass(cls, TinkexError)
    assert cls.__doc__


def test_every_error_is_exported():
    """The tree has no branch that cannot be caught by name."""
    own = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and not name.startswith("_")
    }
    assert own == {cls.__name__ for cls in CLASSES}
    assert set(errors.__all__) == own | {"error_from_status"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_crosses_to_another_process_whole(cls, through):
    """Class, arguments, every attribute and the text survive."""
    error = example(cls)
    back = through(error)
    assert type(back) is cls
    assert back.args == error.args == ("it went wrong",)
    assert vars(back) == vars(error)
    assert str(back) == str(error)
    assert (back.retryable, back.retry_after) == (error.retryable, error.retry_after)


@pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if issubclass(cls, APIError | OperationError | PipelineBrokenError)]
)
def test_the_text_of_an_error_has_its_request_id(cls):
    """Support asks for it first."""
    assert "it went wrong (" in str(example(cls))
    assert "request id m:7" in str(example(cls))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_text_of_an_error_without_context_is_its_message(cls):
    """Empty brackets help nobody."""
    required = {"status_code": 500} if issubclass(cls, APIStatusError) else {}
    context = " (category unknown)" if cls is RequestFailedError else ""
    assert str(cls("it went wrong", **required)) == "it went wrong" + context


def test_the_text_tells_the_whole_round_trip():
    """Where, which request, which key, how often; and the operation and the category of one that failed later."""
    expected = "it went wrong (POST /api/v1/asample, request id m:7, idempotency key key-1, 3 attempts)"
    assert str(example(errors.RateLimitError)) == expected
    assert str(APIError("x", path="/p", attempts=1)) == "x (/p)"
    assert str(example(RequestFailedError)) == "it went wrong (optim_step, request id m:7, category user)"


def test_builtin_families_are_kept():
    """Code that knows nothing of us catches time-outs and bad values as it always did."""
    assert issubclass(APITimeoutError, TimeoutError)
    assert issubclass(ResultTimeoutError, TimeoutError)
    assert issubclass(ResultTimeoutError, concurrent.futures.TimeoutError)
    for cls in (ConfigurationError, InvalidInputError, FlowControlError):
        assert issubclass(cls, ValueError)
    assert not issubclass(ResultTimeoutError, APIError)


@pytest.mark.parametrize("status", [*STATUS, 408, 410, 413, 418, 425, 451, 499, 500, 502, 503, 504, 529, 599, 302, 204])
def test_each_status_has_its_class(status):
    """5xx share a class, and what has none of its own gets the general one."""
    error = error_from_status("no", status_code=status, body={"detail": "no"}, method="GET", path="/p")
    expected = STATUS.get(status, InternalServerError if status >= 500 else APIStatusError)
    assert type(error) is expected
    assert (error.status_code, error.body, error.method, error.path) == (status, {"detail": "no"}, "GET", "/p")


@pytest.mark.parametrize("status", range(400, 600))
def test_statuses_that_may_pass_are_retryable(status):
    """Time-outs, conflicts, too early, too many, and the server's own failures; not what it cannot do at all."""
    expected = status in (408, 409, 425, 429) or (status >= 500 and status != 501)
    assert error_from_status("no", status_code=status).retryable is expected


@pytest.mark.parametrize("status", [400, 402, 409, 503])
@pytest.mark.parametrize(("header", "expected"), [("true", True), ("false", False), ("maybe", None)])
def test_the_server_may_say_whether_to_retry(status, header, expected):
    """``x-should-retry`` overrides the status both ways; anything else in it is ignored."""
    plain = error_from_status("no", status_code=status).retryable
    error = error_from_status("no", status_code=status, headers={"X-Should-Retry": header})
    assert error.retryable is (plain if expected is None else expected)


def test_only_round_trips_are_retryable():
    """A lost connection says nothing about the request; a failed operation would fail again."""
    assert APIConnectionError("x").retryable
    assert APITimeoutError("x").retryable
    others = [cls for cls in CLASSES if not issubclass(cls, APIStatusError | APIConnectionError)]
    assert not any(example(cls).retryable for cls in others)
    assert all(example(cls).retry_after is None for cls in others)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"RETRY-AFTER-MS": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": "61"}, None),
        ({"retry-after-ms": "60001"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Sun, 01 Mar 2026 99:00:00 GMT"}, None),
    ],
)
def test_the_wait_that_the_server_asks_for_is_taken_within_reason(headers, seconds):
    """Milliseconds before seconds, and only what lies between 0 and 60 seconds."""
    assert error_from_status("no", status_code=503, headers=headers).retry_after == seconds


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=5))])
@pytest.mark.parametrize("ahead", [30, -30, 300])
def test_the_wait_may_be_a_date(zone, ahead):
    """A date in the near future is that many seconds away."""
    when = datetime.now(timezone.utc) + timedelta(seconds=ahead)
    text = format_datetime(when.astimezone(zone))
    waited = error_from_status("no", status_code=503, headers={"retry-after": text}).retry_after
    assert waited is None if ahead != 30 else 0 < waited <= 30


def test_a_date_without_a_zone_is_in_utc(monkeypatch):
    """The clock of this machine may stand anywhere in the world."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        text = format_datetime(datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=30))
        waited = error_from_status("no", status_code=503, headers={"retry-after": text}).retry_after
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 0 < waited <= 30


def test_an_expired_result_names_its_operation():
    """A result that is gone is a failure of the operation, not of a round trip."""
    error = FutureExpiredError("gone", operation="forward", request_id="m:1")
    assert str(error) == "gone (forward, request id m:1)"
    assert not isinstance(error, APIError)


def test_an_input_error_knows_the_place():
    """Programs that skip bad datums ask for the index."""
    error = InvalidInputError("x", field="data[2].model_input", index=2)
    assert (error.field, error.index, error.message) == ("data[2].model_input", 2, "x")


def test_headers_are_found_whatever_their_case():
    """Transports write names in upper, title and lower case."""
    error = error_from_status("no", status_code=500, headers={"X-Request-ID": "Abc"})
    assert error.headers == {"x-request-id": "Abc"}


# --- As the official SDK has them ------------------------------------------------------------------------------------


class Answer:
    """An answer of some HTTP library."""

    def __init__(self, status_code, **headers):
        self.status_code, self.headers, self.request = status_code, headers, Asked()


class Asked:
    """A request of some HTTP library."""

    method, url = "GET", "http://127.0.0.1/x"


@pytest.mark.parametrize(("status", "cls"), STATUS.items())
def test_a_status_error_is_made_of_an_answer(status, cls):
    """Message, answer and body, by position or by name; the answer and its request are kept as they came."""
    answer = Answer(status, **{"Retry-After": "2"})
    for error in (cls("m", answer, {"detail": "no"}), cls("m", response=answer, body={"detail": "no"})):
        assert (error.status_code, error.body, str(error), error.retry_after) == (status, {"detail": "no"}, "m", 2.0)
        assert error.response is answer
        assert error.request is answer.request
        assert pickle.loads(pickle.dumps(error)).response.status_code == status
    assert cls.status_code == cls("m").status_code == status


def test_an_error_of_any_status_needs_one():
    """The general class has no status of its own."""
    with pytest.raises(TypeError, match="APIStatusError needs status_code="):
        APIStatusError("m")
    assert InternalServerError("m", Answer(503)).status_code == 503


@pytest.mark.parametrize(
    ("cls", "usual"), [(APIConnectionError, "Connection error."), (APITimeoutError, "Request timed out.")]
)
def test_a_lost_connection_is_made_of_its_request(cls, usual):
    """Of the request alone, by position or by name, with or without a message."""
    asked = Asked()
    for error in (cls(asked), cls(request=asked)):
        assert (str(error), error.message, error.request) == (usual, usual, asked)
    for error in (cls(asked, "m"), cls(message="m", request=asked), cls("m", asked)):
        assert (str(error), error.request) == ("m", asked)
    assert cls(asked).body is None


def test_an_answer_that_does_not_fit_is_an_error_of_that_answer():
    """Answer, body and message."""
    answer = Answer(200)
    error = errors.APIResponseValidationError(answer, {"a": 1}, "m")
    assert (str(error), error.body, error.status_code, error.response) == ("m", {"a": 1}, 200, answer)
    assert "expected schema" in str(errors.APIResponseValidationError(response=answer, body=None))


def test_a_failed_operation_is_made_by_position():
    """Message, request id and category, which may be a member of the enum or its text."""
    error = RequestFailedError("m", "m:7", errors.RequestErrorCategory.User)
    assert (error.request_id, error.category, f"{error.category}") == ("m:7", "user", "user")
    assert error.category is RequestFailedError("m", category="user").category
    assert RequestFailedError("m").category is errors.RequestErrorCategory.Unknown


def test_our_errors_tell_of_request_and_answer():
    """The shape is that of HTTP libraries; there is no place for a key in it, and it survives a pickle."""
    error = pickle.loads(pickle.dumps(example(errors.RateLimitError)))
    assert (error.request.method, error.request.url, error.request.headers) == ("POST", "/api/v1/asample", {})
    answer = error.response
    assert (answer.status_code, answer.headers, answer.json()) == (418, {"retry-after": "2"}, {"detail": "no"})
    assert (answer.text, answer.content, answer.url) == ('{"detail": "no"}', b'{"detail": "no"}', "/api/v1/asample")
    assert not answer.is_success
    assert "418" in repr(answer)
    assert "asample" in repr(error.request)
    assert error_from_status("no", status_code=502, body="<html>").response.text == "<html>"
    assert error_from_status("no", status_code=502).response.text == ""
    assert example(errors.APIResponseValidationError).response.request.url == "/api/v1/asample"
