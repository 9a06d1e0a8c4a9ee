"""One logical call over a fake transport: headers, the key, statuses, and what the errors say."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import attrs
import pytest

from tinkex import errors
from tinkex._version import __version__
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.http import ApiClient, CallRules, Response, Transport

SECRET = "tml-very-secret-key"
URL = "http://tinker.test/base"


@attrs.define
class Sent:
    """What the client handed to the transport for one attempt."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]
    timeout: float | None
    redirects: bool


class Script:
    """A transport that answers from a list, and keeps answering with its last item."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[Sent] = []
        self.closed = 0

    def send(self, method, path, *, body=None, headers=None, timeout=None, redirects=True) -> Response:
        """Note the request, and give the next answer."""
        self.sent.append(Sent(method, path, body, dict(headers), timeout, redirects))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Count."""
        self.closed += 1


def answer(status: int = 200, body: object = None, **headers: str) -> Response:
    """Make an answer; underscores in header names stand for dashes."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers={"content-length": str(len(content)), **names}, content=content)


OK = answer(200, {})


def client(script: Script, slept: list[float] | None = None, **settings: object) -> ApiClient:
    """Make a client that waits for nothing and gives up soon."""
    settings = {"base_url": URL, "api_key": SECRET, "retry": RetryPolicy(max_attempts=3, jitter=0.0), **settings}
    kept: list[float] = [] if slept is None else slept
    return ApiClient(ClientConfig(**settings), transport=script, sleep=kept.append)


def test_a_post_carries_what_the_server_wants_to_know():
    """The headers of the wire, with our values."""
    script = Script(OK)
    client(script).call("POST", "/api/v1/x", body=b"{}")
    headers = script.sent[0].headers
    assert headers["Accept"] == headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == f"tinkex/Python {__version__}"
    assert headers["X-API-Key"] == SECRET
    assert headers["X-Stainless-Package-Version"] == __version__
    assert headers["X-Stainless-Async"] == "false"
    assert headers["x-stainless-read-timeout"] == "60"
    assert headers["x-stainless-retry-count"] == "0"
    assert headers["X-Idempotency-Key"].startswith("tinkex-retry-")
    assert all(headers[f"X-Stainless-{name}"] for name in ("OS", "Arch", "Runtime", "Runtime-Version"))


def test_a_get_has_neither_a_content_type_nor_an_idempotency_key():
    """A GET changes nothing, so nothing needs to be told apart."""
    script = Script(OK)
    assert client(script).call("GET", "/api/v1/x").idempotency_key is None
    assert {"Content-Type", "X-Idempotency-Key"} & set(script.sent[0].headers) == set()


def test_without_a_key_none_is_sent():
    """A local server needs no key."""
    script = Script(OK)
    client(script, api_key=None).call("GET", "/x")
    assert "X-API-Key" not in script.sent[0].headers


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "USER-AGENT"])
def test_headers_of_the_settings_and_of_the_call_replace_ours_whatever_their_case(name):
    """A name is never sent twice."""
    script = Script(OK)
    client(script, default_headers={name: "mine", "X-More": "1"}).call("GET", "/x", headers={"x-MORE": "2"})
    lower = [(key.lower(), value) for key, value in script.sent[0].headers.items()]
    assert [value for key, value in lower if key == "user-agent"] == ["mine"]
    assert [value for key, value in lower if key == "x-more"] == ["2"]


def test_all_attempts_share_one_key_and_count_themselves():
    """The key is made before the first attempt; the count goes up."""
    script = Script(answer(503), errors.APIConnectionError("lost"), OK)
    result = client(script).call("POST", "/x", body=b"{}")
    assert [sent.headers["x-stainless-retry-count"] for sent in script.sent] == ["0", "1", "2"]
    assert {sent.headers["X-Idempotency-Key"] for sent in script.sent} == {result.idempotency_key}
    assert result.attempts == 3


def test_every_call_has_a_key_of_its_own_unless_one_is_given():
    """Two calls are two operations; the caller may say otherwise."""
    script = Script(OK)
    api = client(script)
    keys = [api.call("POST", "/x").idempotency_key for _ in range(2)]
    assert keys[0] != keys[1]
    assert api.call("POST", "/x", idempotency_key="mine").idempotency_key == "mine"
    assert script.sent[-1].headers["X-Idempotency-Key"] == "mine"


def test_the_timeout_of_the_call_is_used_and_told():
    """The server learns how long it has."""
    script = Script(OK)
    client(script).call("GET", "/x", timeout=7.5)
    assert (script.sent[0].timeout, script.sent[0].headers["x-stainless-read-timeout"]) == (7.5, "7.5")


STATUSES = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BillingError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.APIStatusError,
    409: errors.ConflictError,
    410: errors.APIStatusError,
    418: errors.APIStatusError,
    422: errors.UnprocessableEntityError,
    425: errors.APIStatusError,
    429: errors.RateLimitError,
    500: errors.InternalServerError,
    503: errors.InternalServerError,
    599: errors.InternalServerError,
}
RETRIED = {408, 409, 425, 429, 500, 503, 599}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_its_error(status):
    """The class, the status, the server's words, the body and the round trip are in the error."""
    script = Script(answer(status, {"detail": "the server's words"}))
    with pytest.raises(errors.APIStatusError, match="the server's words") as caught:
        client(script).call("POST", "/api/v1/x", idempotency_key="mine", request_id="r1")
    error = caught.value
    assert type(error) is STATUSES[status]
    assert (error.status_code, error.body) == (status, {"detail": "the server's words"})
    assert (error.method, error.path, error.idempotency_key, error.request_id) == ("POST", "/api/v1/x", "mine", "r1")
    assert len(script.sent) == error.attempts == (3 if status in RETRIED else 1)
    for part in (str(status), "POST /api/v1/x", "r1", "mine"):
        assert part in str(error)


BODIES = [
    ({"detail": "plain"}, "HTTP 500 Internal Server Error: plain"),
    (
        {"detail": [{"loc": ["body", "seq_id"], "msg": "not an int"}, {"loc": ["body"], "msg": "bad"}]},
        "seq_id: not an int; bad",
    ),
    ({"detail": [{"loc": ["query", "limit"], "msg": "too large"}]}, "query.limit: too large"),
    ({"detail": ["one", "two"]}, "one; two"),
    ({"error": {"message": "nested"}}, "nested"),
    ({"message": "other"}, "other"),
    ({"detail": {"code": 7}}, '{"code": 7}'),
    (["odd"], '["odd"]'),
    (b"plain text\n", "plain text"),
    (b"<html><style>p {}</style><h1>Bad&nbsp;Gateway</h1><p>nginx</p></html>", "Bad Gateway nginx"),
    (b"\xff\xfe", "\ufffd\ufffd"),
]


@pytest.mark.parametrize(("body", "text"), BODIES)
def test_the_server_s_words_are_found_whatever_form_they_have(body, text):
    """FastAPI's forms, other servers' keys, plain text and pages all end in a readable line."""
    script = Script(answer(500, body))
    with pytest.raises(errors.InternalServerError) as caught:
        client(script).call("GET", "/x")
    assert text in caught.value.message.replace("\xa0", " ")
    assert "<" not in caught.value.message


def test_a_long_page_is_cut():
    """A message stays readable."""
    script = Script(answer(500, b"x" * 100_000))
    with pytest.raises(errors.InternalServerError) as caught:
        client(script).call("GET", "/x")
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("key", "text"),
    [(None, "no API key was sent: set TINKER_API_KEY"), (SECRET, "is not accepted: check TINKER_API_KEY")],
)
def test_401_says_whether_a_key_was_sent_and_what_to_do(key, text):
    """The two causes of a 401 have two different ways out."""
    with pytest.raises(errors.AuthenticationError, match=text):
        client(Script(answer(401, {"detail": "no"})), api_key=key).call("GET", "/x")


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, b"<h1>404</h1>", None])
def test_404_of_an_unknown_path_points_at_the_base_url(body):
    """A server that does not know the path is probably not the right one."""
    with pytest.raises(errors.NotFoundError, match=f"check base_url={URL}"):
        client(Script(answer(404, body))).call("GET", "/x")


@pytest.mark.parametrize(("status", "body"), [(404, {"detail": "Not Found"}), (404, b"<h1>404</h1>"), (405, None)])
@pytest.mark.parametrize(
    "known", [answer(200, {}, content_type="application/json"), answer(200, b"", content_type="application/x-protobuf")]
)
def test_a_server_that_is_known_to_be_one_lacks_what_it_does_not_find(status, body, known):
    """The address has proved right, also for copies of the client: no advice on it."""
    first = client(Script(known, answer(status, body)))
    first.call("GET", "/y", rules=CallRules(expects_body=False))
    for one in (first, first.with_options(timeout=3)):
        with pytest.raises(errors.APIStatusError, match="this server does not offer POST /x") as caught:
            one.call("POST", "/x?limit=1")
        assert "base_url" not in str(caught.value)


@pytest.mark.parametrize("page", [answer(200, b"<h1>Sign in</h1>", content_type="text/html"), answer(204)])
def test_a_page_of_something_else_does_not_make_a_server_known(page):
    """It may listen at the address by mistake."""
    one = client(Script(page, answer(404, b"<h1>404</h1>")))
    one.call("GET", "/y", rules=CallRules(expects_body=False))
    with pytest.raises(errors.NotFoundError, match="check base_url"):
        one.call("GET", "/x")


def test_404_of_an_unknown_thing_does_not():
    """A server that names what it did not find is the right one."""
    with pytest.raises(errors.NotFoundError) as caught:
        client(Script(answer(404, {"detail": "model m:0 is unknown"}))).call("GET", "/x")
    assert "base_url" not in str(caught.value)


def test_the_endpoint_s_own_advice_is_given():
    """A status can mean something particular at one endpoint."""
    rules = CallRules(final=frozenset({409}), hint={409: "choose another name"})
    script = Script(answer(409, {"detail": "taken"}))
    with pytest.raises(errors.ConflictError, match="taken; choose another name"):
        client(script).call("POST", "/x", rules=rules)
    assert len(script.sent) == 1, "409 is final here"


def test_a_redirect_that_was_not_followed_says_where_to_go():
    """The way out of http:// instead of https:// is in the message, without the query."""
    script = Script(answer(301, location="https://tinker.test/base/x?signature=1"))
    with pytest.raises(errors.APIStatusError, match=r"redirects to https://tinker\.test/base/x: correct base_url"):
        client(script).call("POST", "/x")


def test_a_redirect_is_an_answer_where_it_is_expected():
    """With redirects off, 302 is a success."""
    script = Script(answer(302, location="https://storage.test/a"))
    assert client(script).call("GET", "/x", rules=CallRules(redirects=False)).response.status == 302
    assert script.sent[0].redirects is False


HALF_ANSWERS = {
    "a 400 without a body": answer(400),
    "a 400 without a body or a length": Response(status=400),
    "headers that end before their end": Response(status=200),
}


@pytest.mark.parametrize("kind", HALF_ANSWERS)
def test_what_only_looks_like_an_answer_is_a_lost_connection(kind):
    """Such a request is sent again."""
    script = Script(HALF_ANSWERS[kind], OK)
    assert client(script).call("POST", "/x").attempts == 2
    with pytest.raises(errors.APIConnectionError) as caught:
        client(Script(HALF_ANSWERS[kind])).call("POST", "/x")
    assert caught.value.maybe_sent


def test_an_answer_without_a_body_is_whole_where_none_is_expected():
    """204 and an empty 200 are successes of an endpoint that answers nothing."""
    for whole in (Response(status=204), Response(status=200), answer(200)):
        assert client(Script(whole)).call("DELETE", "/x", rules=CallRules(expects_body=False)).attempts == 1


def test_headers_that_end_early_on_a_real_socket_are_noticed(serve):
    """http.client takes a connection that ends within the headers for a whole answer; the client does not."""
    server = serve(
        lambda peer: (peer.read(), peer.send(b"HTTP/1.1 200 OK\r\nserver: x\r\n")),
        lambda peer: peer.serve(body=b'{"a":1}'),
    )
    api = ApiClient(ClientConfig(base_url=server.url), sleep=lambda seconds: None)
    result = api.call("POST", "/x", body=b"{}")
    api.close()
    assert (result.attempts, result.response.content) == (2, b'{"a":1}')
    assert server.requests[0].headers["x-idempotency-key"] == server.requests[1].headers["x-idempotency-key"]


def _in() -> str:
    """Return the date that is half a minute from now; called when the test runs, which may be long after it is read."""
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry_after": "3"}, 3, 3),
        ({"retry_after": "0.5"}, 0.5, 0.5),
        ({"retry_after_ms": "250"}, 0.25, 0.25),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25, 0.25),
        ({"retry_after": _in}, 25, 30),
        ({"retry_after": "3600"}, 0.02, 0.02),
        ({"retry_after": "-1"}, 0.02, 0.02),
        ({"retry_after": "soon"}, 0.02, 0.02),
        ({"retry_after": "nan"}, 0.02, 0.02),
        ({}, 0.02, 0.02),
    ],
)
def test_the_server_s_wait_is_obeyed_within_reason(headers, low, high):
    """Seconds, milliseconds and dates count up to a minute; anything else is as if it had not been sent."""
    slept: list[float] = []
    given = {name: value() if callable(value) else value for name, value in headers.items()}
    client(Script(answer(429, **given), OK), slept).call("POST", "/x")
    assert len(slept) == 1
    assert low <= slept[0] <= high


@pytest.mark.parametrize(("status", "asked", "attempts"), [(404, "true", 3), (503, "false", 1), (503, "maybe", 3)])
def test_the_server_may_overrule_the_status(status, asked, attempts):
    """x-should-retry holds in both directions."""
    script = Script(answer(status, {"detail": "x"}, x_should_retry=asked))
    with pytest.raises(errors.APIStatusError):
        client(script).call("POST", "/x")
    assert len(script.sent) == attempts


def test_a_single_attempt_is_one_attempt():
    """Endpoints whose callers repeat by their own rules are never repeated here."""
    script = Script(answer(503))
    with pytest.raises(errors.InternalServerError):
        client(script).call("POST", "/x", rules=CallRules(retried=False))
    assert len(script.sent) == 1


def test_close_ends_a_wait_between_attempts():
    """A call that backs off for a minute ends with close, after exactly one attempt."""
    script = Script(answer(503, retry_after="60"))
    waiting = threading.Event()
    api = ApiClient(ClientConfig(base_url=URL), transport=script, on_retry=lambda details: waiting.set())
    caught: list[BaseException] = []

    def work():
        try:
            api.call("POST", "/x")
        except errors.TinkexError as error:
            caught.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert waiting.wait(10)
    api.close()
    worker.join(10)
    assert [type(error) for error in caught] == [errors.ClientClosedError]
    assert (len(script.sent), script.closed) == (1, 1)


def test_a_deprecation_is_told_once_at_the_level_the_server_chose(caplog):
    """A note on every answer is one line in the log."""
    old = answer(200, {}, x_deprecation_note="upgrade", x_deprecation_level="error")
    new = answer(200, {}, x_deprecation_note="soon")
    api = client(Script(old, old, new, new))
    for _ in range(4):
        api.call("GET", "/x")
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [(logging.ERROR, "the server says: upgrade"), (logging.WARNING, "the server says: soon")]


def test_options_make_a_client_over_the_same_connections():
    """Settings differ, the transport is shared, the original is unchanged."""
    script = Script(OK)
    api = client(script)
    other = api.with_options(timeout=3.0, default_headers={"X-Who": "other"})
    other.call("GET", "/x")
    api.call("GET", "/x")
    assert [sent.timeout for sent in script.sent] == [3.0, 60.0]
    assert ["X-Who" in sent.headers for sent in script.sent] == [True, False]
    other.close()
    assert script.closed == 1


def test_a_client_with_a_stop_of_its_own_works_while_the_original_closes():
    """The last words of a session can still be sent."""
    script = Script(OK)
    api = client(script)
    last_words = api.with_options(stop=threading.Event())
    api.stop.set()
    with pytest.raises(errors.ClientClosedError):
        api.call("POST", "/x")
    assert last_words.call("POST", "/x").attempts == 1


def _everything(error: BaseException) -> str:
    """All that a log, a pickle or a debugger's repr of an error would show."""
    shown = [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
    if error.__cause__ is not None:
        shown.append(_everything(error.__cause__))
    return " ".join(shown)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422, 429, 500])
def test_no_error_shows_the_key_even_if_the_server_repeats_it(status, caplog):
    """Message, repr, state, pickle and log are free of the credential."""
    caplog.set_level(logging.DEBUG)
    api = client(Script(answer(status, {"detail": f"key {SECRET} is bad", "echo": SECRET}, retry_after="0.6")))
    with pytest.raises(errors.APIStatusError) as caught:
        api.call("POST", "/x")
    assert SECRET not in _everything(caught.value) + caplog.text + repr(api.config)


def test_no_connection_error_shows_the_key(serve, caplog):
    """The causes that come from the libraries below are free of it too."""
    caplog.set_level(logging.DEBUG)
    server = serve(lambda peer: (peer.read(), peer.reset()))
    config = ClientConfig(base_url=server.url, api_key=SECRET, retry=RetryPolicy.none())
    api = ApiClient(config, transport=Transport(config))
    with pytest.raises(errors.APIConnectionError) as caught:
        api.call("POST", "/x", body=b"{}")
    api.close()
    assert server.requests[0].headers["x-api-key"] == SECRET
    assert SECRET not in _everything(caught.value) + caplog.text


def test_a_server_that_never_answered_is_given_up_soon():
    """A wrong address costs seconds, not the minutes that a server which is known to exist is given."""
    policy = RetryPolicy(initial_wait_s=4.0, jitter=0.0, max_wait_s=4.0, first_contact_s=10.0, max_elapsed_s=100.0)
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    refused = errors.APIConnectionError("refused", maybe_sent=False)
    script = Script(refused)
    caller = ApiClient(
        ClientConfig(base_url=URL, retry=policy), transport=script, sleep=pass_time, clock=lambda: now[0]
    )
    with pytest.raises(errors.APIConnectionError):
        caller.call("GET", "/x")
    assert 10.0 <= now[0] <= 14.0

    script.answers = [OK, refused]
    caller.call("GET", "/x")
    now[0] = 0.0
    with pytest.raises(errors.APIConnectionError):
        caller.call("GET", "/x")
    assert 90.0 < now[0] <= 100.0
