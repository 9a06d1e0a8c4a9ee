"""The circuit breaker: every line of its table, what counts as a failure, and who shares it."""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinkex.config import CircuitBreaker, ClientConfig, RetryPolicy
from tinkex.errors import (
    APIConnectionError,
    APITimeoutError,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    InternalServerError,
    TinkexError,
)
from tinkex.http import ApiClient, CallRules, Response
from tinkex.http.breaker import Breaker
from tinkex.resources import TinkexAPI

URL = "http://tinker.test"
OK = Response(status=200, headers={"content-length": "2"}, content=b"{}")
LOST = APIConnectionError("lost")
ONCE = CallRules(retried=False)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Answers what the test has set, and counts."""

    def __init__(self, answer: Response | BaseException | Callable[[], Response] = LOST) -> None:
        self.answer = answer
        self.asked = 0

    def send(self, method: str, path: str, **_: object) -> Response:
        """Count the request, and answer it."""
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer

    def close(self) -> None:
        """Nothing to close."""


def status(code: int) -> Response:
    """Make an answer with a status."""
    return Response(status=code, headers={"content-length": "2"}, content=b"{}")


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """Opens after three failures, for ten seconds."""
    return Breaker(CircuitBreaker(failures=3, open_s=10.0, half_open=1), URL, clock)


def fail(breaker: Breaker, times: int = 3) -> None:
    """Let requests fail one after the other."""
    for _ in range(times):
        breaker.failed(breaker.enter(), "it broke")


def make(server: Server, clock: Clock, slept: Callable[[float], None] | None = None, **settings: object) -> ApiClient:
    """Make a client with a breaker of three failures and ten seconds."""
    given = {"circuit_breaker": CircuitBreaker(failures=3, open_s=10.0), "retry": RetryPolicy(jitter=0.0), **settings}
    return ApiClient(ClientConfig(base_url=URL, **given), transport=server, clock=clock, sleep=slept)


# --- The table ---------------------------------------------------------------------------------------------------


def test_it_opens_after_failures_in_a_row(breaker):
    """Not before the last of them, and an answer in between begins the count anew."""
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def test_an_open_one_refuses_and_says_for_how_long(breaker, clock):
    """The error has what is left of the time, why, and that nothing was sent."""
    fail(breaker)
    clock.now += 4
    with pytest.raises(
        CircuitOpenError, match=r"not sent: .*tinker\.test .* \(last: it broke\); it is .* in 6\.0 s"
    ) as e:
        breaker.enter()
    assert (e.value.retry_after, e.value.retryable, e.value.maybe_sent) == (6.0, True, False)
    assert pickle.loads(pickle.dumps(e.value)).retry_after == 6.0


def test_a_trial_that_is_answered_closes_it(breaker, clock):
    """One request goes through after the time, the others wait for how it ends."""
    fail(breaker)
    clock.now += 10
    assert breaker.state == "half-open"
    assert breaker.enter() is not None
    with pytest.raises(CircuitOpenError, match="one request is under way to try it") as caught:
        breaker.enter()
    assert caught.value.retry_after == 1.0
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.enter() is None


def test_a_trial_that_fails_opens_it_again(breaker, clock):
    """For the whole time, from then on."""
    fail(breaker)
    clock.now += 12
    breaker.failed(breaker.enter(), "still broken")
    clock.now += 9.5
    with pytest.raises(CircuitOpenError, match="still broken") as caught:
        breaker.enter()
    assert caught.value.retry_after == 0.5


def test_a_trial_without_a_verdict_makes_room_for_another(breaker, clock):
    """As when the program was interrupted during it."""
    fail(breaker)
    clock.now += 10
    breaker.gave_up(breaker.enter())
    assert breaker.state == "half-open"
    assert breaker.enter() is not None


def test_a_late_failure_of_an_earlier_request_changes_nothing(breaker, clock):
    """Else long polls that break one by one would hold it open."""
    early = [breaker.enter() for _ in range(3)]
    fail(breaker)
    clock.now += 9
    breaker.failed(early[0], "late")
    clock.now += 1
    trial = breaker.enter()
    breaker.failed(early[1], "late")
    breaker.gave_up(early[2])
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    breaker.failed(trial, "still broken")
    assert breaker.state == "open"


def test_a_late_answer_to_an_earlier_request_closes_it(breaker):
    """It is as good a sign of life as any."""
    breaker.enter()
    fail(breaker)
    breaker.succeeded()
    assert breaker.enter() is None


def test_a_trial_of_an_earlier_opening_is_not_one_of_this(breaker, clock):
    """Its failure comes too late to count, and its end frees no place."""
    fail(breaker)
    clock.now += 10
    old = breaker.enter()
    breaker.succeeded()
    fail(breaker)
    clock.now += 10
    assert breaker.enter() is not None
    breaker.gave_up(old)
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    breaker.failed(old, "late")
    assert breaker.state == "half-open"


def test_one_that_closes_while_a_request_asks_lets_it_through(breaker):
    """The look before the lock is only a look."""

    class Closing:
        def __enter__(self) -> None:
            breaker._open_until = None

        def __exit__(self, *_: object) -> None:
            pass

    fail(breaker)
    breaker._lock = Closing()
    assert breaker.enter() is None


STEPS = st.lists(
    st.one_of(
        st.just(("enter",)),
        st.tuples(st.sampled_from(["answer", "failure", "neither"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 5.0, 10.0])),
    ),
    max_size=80,
)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 3), st.integers(1, 3))
def test_whatever_happens_it_keeps_its_promises(steps, failures, half_open):
    """It lets pass, refuses and closes as the table says, for all outcomes and times of any requests at once."""
    clock = Clock()
    breaker = Breaker(CircuitBreaker(failures=failures, open_s=10.0, half_open=half_open), URL, clock)
    under_way: list[tuple[int | None, int]] = []
    opening, opened_at, in_a_row = 0, None, 0
    for what, *rest in steps:
        if what == "wait":
            clock.now += rest[0]
        elif what == "enter":
            left = 0.0 if opened_at is None else opened_at + 10.0 - clock.now
            trials = sum(mark is not None and of == opening for mark, of in under_way)
            if opened_at is not None and (left > 0 or trials == half_open):
                with pytest.raises(CircuitOpenError) as refusal:
                    breaker.enter()
                assert refusal.value.retry_after == (left if left > 0 else 1.0)
            else:
                mark = breaker.enter()
                assert (mark is None) is (opened_at is None)
                under_way.append((mark, opening))
        elif under_way:
            mark, of = under_way.pop(rest[0] % len(under_way))
            if what == "answer":
                breaker.succeeded()
                opened_at, in_a_row = None, 0
                # Trials that are still under way have become ordinary requests.
                opening += 1
            elif what == "neither":
                breaker.gave_up(mark)
            else:
                breaker.failed(mark, "it broke")
                if opened_at is None:
                    in_a_row += mark is None
                elif mark is not None and of == opening:
                    opened_at, opening = clock.now, opening + 1
                if opened_at is None and in_a_row >= failures:
                    opened_at, opening, in_a_row = clock.now, opening + 1, 0
        expected = "closed" if opened_at is None else "open" if clock.now < opened_at + 10.0 else "half-open"
        assert breaker.state == expected


# --- What is a failure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [LOST, APITimeoutError("slow"), status(500), status(503)])
def test_what_says_that_the_server_is_unwell_opens_it(clock, answer):
    """No answer, and the statuses of a server that fails."""
    server = Server(answer)
    client = make(server, clock)
    for _ in range(3):
        with pytest.raises((APIConnectionError, InternalServerError)):
            client.call("GET", "/x", rules=ONCE)
    with pytest.raises(CircuitOpenError) as caught:
        client.call("GET", "/x?a=1", rules=ONCE)
    assert (caught.value.path, server.asked) == ("/x?a=1", 3)


@pytest.mark.parametrize("code", [200, 400, 401, 404, 408, 422, 429, 501])
def test_every_other_answer_is_a_sign_of_life(clock, code):
    """Two failures, such an answer and two failures do not open it."""
    server = Server()
    client = make(server, clock)
    for answer in (LOST, LOST, status(code), LOST, LOST):
        server.answer = answer
        with contextlib.suppress(TinkexError):
            client.call("GET", "/x", rules=ONCE)
    assert server.asked == 5


@pytest.mark.parametrize(
    "error", [APIConnectionError("not trusted", permanent=True), ClientClosedError("closed"), KeyboardInterrupt()]
)
def test_what_no_waiting_would_mend_does_not_count(clock, error):
    """It neither opens a closed one nor ends the half-open state."""
    server = Server()
    client = make(server, clock)
    fails = pytest.raises(BaseException)
    server.answer = error
    for _ in range(4):
        with fails:
            client.call("GET", "/x", rules=ONCE)
    server.answer = LOST
    for _ in range(3):
        with fails:
            client.call("GET", "/x", rules=ONCE)
    clock.now += 10
    server.answer = error
    with fails:
        client.call("GET", "/x", rules=ONCE)
    server.answer = OK
    client.call("GET", "/x", rules=ONCE)
    assert server.asked == 9


# --- In a client -------------------------------------------------------------------------------------------------


def test_the_retry_layer_waits_until_it_may_try_again(clock, caplog):
    """A call comes through once the server is back: refused attempts wait as long as the breaker says."""
    server, slept = Server(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        server.answer = OK if clock.now > 109 else LOST

    client = make(server, clock, sleep)
    with caplog.at_level(logging.INFO):
        client.call("GET", "/x")
    assert slept == pytest.approx([0.02, 0.04, 0.08, 9.92])
    assert server.asked == 4
    assert "is unwell (lost): nothing is sent to it for 10 s" in caplog.text
    assert "tinker.test answers again" in caplog.text


def test_closing_ends_the_wait_for_it(clock):
    """As every wait between attempts."""
    server, waits = Server(), threading.Event()
    stop = threading.Event()
    config = ClientConfig(base_url=URL, circuit_breaker=CircuitBreaker(failures=1, open_s=30.0))
    client = ApiClient(config, transport=server, stop=stop, on_retry=lambda details: waits.set(), clock=clock)
    ended: list[BaseException] = []

    def call() -> None:
        try:
            client.call("GET", "/x")
        except ClientClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert waits.wait(10)
    client.close()
    thread.join(10)
    assert len(ended) == 1


def test_copies_of_a_client_share_it():
    """Heartbeats have other settings than the rest, and one server."""
    server = Server()
    api = TinkexAPI(ClientConfig(base_url=URL, circuit_breaker=CircuitBreaker(failures=1)), transport=server)
    copy = api.with_options(retry=RetryPolicy.none(), stop=threading.Event())
    with pytest.raises(APIConnectionError, match="lost"):
        copy.with_options(timeout=1).service.health_check()
    with pytest.raises(CircuitOpenError):
        copy.service.health_check()
    with pytest.raises(CircuitOpenError):
        api.with_options(retry=RetryPolicy.none()).service.health_check()
    assert server.asked == 1
    assert copy._client._transport is api._client._transport


def test_there_is_none_unless_asked_for(clock):
    """Off, nothing stands between a client and its transport."""
    server = Server()
    client = make(server, clock, circuit_breaker=None)
    for _ in range(10):
        with pytest.raises(APIConnectionError, match="lost"):
            client.call("GET", "/x", rules=ONCE)
    assert server.asked == 10
    assert client._transport is server


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CircuitBreaker(failures=0), "failures must be a whole number of at least 1, got 0"),
        (lambda: CircuitBreaker(open_s=0), "open_s must be a finite number of seconds above 0, got 0"),
        (lambda: CircuitBreaker(half_open=1.5), "half_open must be a whole number"),
        (lambda: ClientConfig(circuit_breaker=True), r"circuit_breaker must be a tinkex\.CircuitBreaker, got True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    """Each has its bounds."""
    with pytest.raises(ConfigurationError, match=message):
        make()
