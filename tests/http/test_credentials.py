"""What stands in the X-API-Key header: keys, commands, tokens, and when each is renewed."""

from __future__ import annotations

import base64
import itertools
import json
import sys
import threading

import attrs
import pytest

from tinkex.config import ClientConfig, RetryPolicy
from tinkex.errors import (
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    error_from_status,
)
from tinkex.http import ApiClient, Credentials, Response, read_claims
from tinkex.http.credentials import run_command

URL = "http://tinker.test"
KEY = "tml-key"
EPOCH = 1_800_000_000.0
PATIENCE_S = 10.0


def jwt(*, life: float = 1000.0, made: float = EPOCH, **claims: object) -> str:
    """Make a token that nobody has signed."""
    said = {"iat": made, "exp": made + life, **claims}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "x"}, said)]
    return ".".join([*parts, "signature"])


@attrs.define
class Bench:
    """Credentials with made-up clocks, a made-up command and a made-up server."""

    key: str | None = None
    command: str | None = None
    now: float = 0.0
    printed: list[str] = attrs.field(factory=list)
    ran: int = 0
    asked: list[tuple[str, bool]] = attrs.field(factory=list)
    answers: list[str | Exception] = attrs.field(factory=list)
    made: Credentials = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = ClientConfig(base_url=URL, api_key=self.key, credential_cmd=self.command)
        self.made = Credentials(config, run=self.run, clock=lambda: self.now, wall_clock=lambda: EPOCH + self.now)

    def run(self, command: str) -> str:
        assert command == self.command
        self.ran += 1
        return self.printed.pop(0) if len(self.printed) > 1 else self.printed[0]

    def exchange(self, credential: str, worth_waiting: bool) -> str:
        """Answer as the server would."""
        self.asked.append((credential, worth_waiting))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


# --- Keys and commands ------------------------------------------------------------------------------------------


def test_a_key_is_sent_as_it_is():
    """Nothing is asked and nothing is run; no key is no header."""
    assert Bench(key=KEY).made.value() == KEY
    assert Bench().made.value() is None


def test_a_key_goes_before_a_command():
    """The command is for where there is no key."""
    bench = Bench(key=KEY, command="print-key", printed=["tml-printed"])
    assert (bench.made.value(), bench.ran) == (KEY, 0)


def test_a_command_is_run_once():
    """A key that was printed is good until the server says otherwise."""
    bench = Bench(command="print-key", printed=["tml-a", "tml-b"])
    assert [bench.made.value() for _ in range(3)] == ["tml-a"] * 3
    assert bench.made.replace("tml-a") == "tml-b"
    assert (bench.made.value(), bench.ran) == ("tml-b", 2)


def test_a_printed_token_is_printed_again_before_it_expires():
    """In its last minute, and not before."""
    first, second = jwt(life=1000), jwt(life=5000)
    bench = Bench(command="print-token", printed=[first, second])
    assert bench.made.value() == first
    bench.now = 939
    assert bench.made.value() == first
    bench.now = 941
    assert (bench.made.value(), bench.ran) == (second, 2)


def test_an_expired_token_is_refused_before_anything_is_sent():
    """As a key it needs a new one, as output of the command the command needs a look."""
    with pytest.raises(ConfigurationError, match="api_key is a JWT that has expired"):
        Bench(key=jwt(life=-1)).made.value()
    with pytest.raises(ConfigurationError, match="TINKER_CREDENTIAL_CMD printed a JWT that has expired"):
        Bench(command="x", printed=[jwt(life=-1)]).made.value()
    assert Bench(key=jwt(life=5)).made.value()


@pytest.mark.parametrize("bad", ["eyJ", "eyJ.###.x", "eyJ.bnVsbA.x"])
def test_a_token_that_cannot_be_read_is_refused(bad):
    """It begins like a JWT and is none."""
    with pytest.raises(ConfigurationError, match="JWT"):
        Bench(key=bad).made.value()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("print('tml-printed')", None),
        ("raise SystemExit(3)", "ended with status 3"),
        ("pass", "printed nothing"),
        ("import sys; sys.exit('who are you?')", "ended with status 1: who are you"),
        ("print('two words')", "must print one credential and nothing else"),
    ],
)
def test_the_command_is_a_line_for_the_shell(script, problem):
    """What it prints is the credential; what goes wrong is told in its own words."""
    line = f'"{sys.executable}" -c "{script}"'
    if problem is None:
        assert run_command(line) == "tml-printed"
    else:
        with pytest.raises(ConfigurationError, match=problem):
            run_command(line)


# --- Tokens for credentials -------------------------------------------------------------------------------------


def test_a_token_is_renewed_at_about_half_its_life():
    """Not before 45 % of it, and not after 55 %, counted from its receipt: clocks that differ do not matter."""
    first, second = jwt(made=5.0, life=10_000), jwt(made=5.0, life=10_000, again=1)
    bench = Bench(key=KEY, answers=[first, second])
    bench.made.exchange_with(bench.exchange)
    assert bench.made.value() == first
    bench.now = 4499
    assert bench.made.value() == first
    bench.now = 5501
    assert bench.made.value() == second
    assert bench.asked == [(KEY, True), (KEY, False)]


def test_an_old_token_is_used_while_it_cannot_be_renewed():
    """The server is asked again a minute later, and when the token is dead the failure is the caller's."""
    token = jwt(life=1000)
    bench = Bench(key=KEY, answers=[token, APIConnectionError("no network")])
    bench.made.exchange_with(bench.exchange)
    bench.made.value()
    for bench.now, asked in ((600, 2), (659, 2), (661, 3), (980, 4), (999, 4)):
        assert bench.made.value() == token
        assert len(bench.asked) == asked
    bench.now = 1041
    with pytest.raises(APIConnectionError, match="no network"):
        bench.made.value()
    assert bench.asked[-1] == (KEY, True)


def test_a_credential_that_is_not_accepted_any_more_is_told_in_the_last_minute():
    """Before that the old token is good, and nobody is disturbed."""
    token = jwt(life=1000)
    refused = error_from_status("no", status_code=401)
    bench = Bench(key=KEY, answers=[token, refused])
    bench.made.exchange_with(bench.exchange)
    bench.made.value()
    bench.now = 600
    assert bench.made.value() == token
    bench.now = 945
    with pytest.raises(AuthenticationError):
        bench.made.value()


def test_a_token_that_does_not_say_how_long_it_lives_is_renewed_every_minute():
    """And used until the server calls it invalid."""
    bench = Bench(key=KEY, answers=["opaque-1", "opaque-2", APIConnectionError("no network")])
    bench.made.exchange_with(bench.exchange)
    assert bench.made.value() == "opaque-1"
    bench.now = 61
    assert bench.made.value() == "opaque-2"
    bench.now = 10_000
    assert bench.made.value() == "opaque-2"


def test_others_go_on_with_the_old_token_while_one_renews_it():
    """Only the caller that asks the server waits for it."""
    first, second = jwt(life=1000), jwt(life=1000, again=1)
    bench, asking, go_on = Bench(key=KEY, answers=[first, second]), threading.Event(), threading.Event()

    def slow(credential: str, worth_waiting: bool) -> str:
        if bench.asked:
            asking.set()
            assert go_on.wait(PATIENCE_S)
        return bench.exchange(credential, worth_waiting)

    bench.made.exchange_with(slow)
    bench.made.value()
    bench.now = 600
    got: list[str | None] = []
    renewing = threading.Thread(target=lambda: got.append(bench.made.value()))
    renewing.start()
    assert asking.wait(PATIENCE_S)
    assert bench.made.value() == first
    go_on.set()
    renewing.join(PATIENCE_S)
    assert (got, bench.made.value()) == ([second], second)


def test_many_rejections_of_one_token_cost_one_exchange():
    """Whoever comes second gets what the first one got."""
    bench = Bench(key=KEY, answers=[jwt(), jwt(again=1), jwt(again=2)])
    bench.made.exchange_with(bench.exchange)
    rejected = bench.made.value()
    got = [bench.made.replace(rejected) for _ in range(5)]
    assert set(got) == {jwt(again=1)}
    assert len(bench.asked) == 2


def test_the_first_token_is_asked_for_once():
    """Threads that come while the first exchange runs wait for it."""
    bench, asking, go_on = Bench(key=KEY, answers=[jwt()]), threading.Event(), threading.Event()

    def slow(credential: str, worth_waiting: bool) -> str:
        asking.set()
        assert go_on.wait(PATIENCE_S)
        return bench.exchange(credential, worth_waiting)

    bench.made.exchange_with(slow)
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.append(bench.made.value())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert asking.wait(PATIENCE_S)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got == [jwt()] * 4
    assert len(bench.asked) == 1


def test_the_command_goes_before_the_key_where_the_server_wants_that():
    """It is run for each exchange; a key that is a JWT itself needs no command; without either there is an error."""
    tokens = (jwt(life=100, n=n) for n in itertools.count())
    bench = Bench(key=KEY, command="c", printed=["tml-1", "tml-2"])
    bench.answers = [next(tokens), next(tokens)]
    bench.made.exchange_with(bench.exchange, prefer_command=True)
    bench.made.value()
    bench.now = 99
    bench.made.value()
    assert [credential for credential, _ in bench.asked] == ["tml-1", "tml-2"]
    own = Bench(key=jwt(), command="c", answers=[jwt(again=1)])
    own.made.exchange_with(own.exchange, prefer_command=True)
    own.made.value()
    assert own.asked == [(jwt(), True)]
    with pytest.raises(ConfigurationError, match="TINKER_CREDENTIAL_CMD"):
        Bench(key=KEY).made.exchange_with(bench.exchange, prefer_command=True)


def test_who_is_calling_is_known_from_a_token_only():
    """A plain key says nothing."""
    assert Bench(key=KEY).made.identity() is None
    assert Bench(key=jwt()).made.identity() == jwt()
    bench = Bench(key=KEY, answers=[jwt(sub="u")])
    bench.made.exchange_with(bench.exchange)
    assert read_claims(bench.made.identity())["sub"] == "u"


# --- On the wire ------------------------------------------------------------------------------------------------


class Server:
    """A transport that accepts one key."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        self.seen: list[tuple[str, str | None]] = []

    def send(self, method, path, *, body=None, headers=None, timeout=None, redirects=True) -> Response:
        """Accept or refuse."""
        key = headers.get("X-API-Key")
        self.seen.append((headers.get("X-Idempotency-Key"), key))
        if key == self.accepted:
            return Response(status=200, headers={"content-length": "2"}, content=b"{}")
        detail = json.dumps({"detail": f"{key} is no good"}).encode()
        headers = {"www-authenticate": 'Bearer error="invalid_token"'} if key != "tml-wrong" else {}
        return Response(status=401, headers=headers, content=detail)

    def close(self) -> None:
        """Nothing to close."""


def client(bench: Bench, server: Server, **settings) -> ApiClient:
    """Make a client over the server."""
    config = ClientConfig(base_url=URL, api_key=bench.key, retry=RetryPolicy.none(), **settings)
    return ApiClient(config, transport=server, credentials=bench.made)


def test_an_invalid_token_is_exchanged_and_the_request_sent_once_more():
    """Under the same idempotency key; a second refusal is final."""
    bench = Bench(key=KEY, answers=["token-1", "token-2"])
    bench.made.exchange_with(bench.exchange)
    server = Server("token-2")
    client(bench, server).call("POST", "/x")
    assert [key for _, key in server.seen] == ["token-1", "token-2"]
    assert len({name for name, _ in server.seen}) == 1
    strict = Server("nothing")
    with pytest.raises(AuthenticationError):
        client(bench, strict).call("POST", "/x")
    assert len(strict.seen) == 2


def test_a_refused_key_is_not_sent_twice():
    """A plain 401 is final, and so is any 401 where there is no other credential."""
    for key in ("tml-wrong", KEY):
        server = Server("nothing")
        with pytest.raises(AuthenticationError, match="is not accepted"):
            client(Bench(key=key), server).call("POST", "/x")
        assert len(server.seen) == 1


def test_a_key_in_the_headers_of_a_call_or_of_the_settings_wins():
    """Then no credential is asked for, whatever its state."""
    expired = Bench(key=jwt(life=-1))
    server = Server("tml-given")
    client(expired, server).call("POST", "/x", headers={"x-api-key": "tml-wrong", "X-API-Key": "tml-given"})
    client(expired, server, default_headers={"X-API-Key": "tml-given"}).call("POST", "/x")
    assert [key for _, key in server.seen] == ["tml-given"] * 2


def test_no_credential_is_shown_where_a_server_repeats_it():
    """Neither the key, nor what the command printed, nor a token."""
    bench = Bench(command="c", printed=["tml-wrong"], answers=["token-1", "token-2"])
    with pytest.raises(AuthenticationError) as caught:
        client(bench, Server("nothing")).call("POST", "/x")
    assert "tml-wrong" not in str(caught.value)
    bench.made.exchange_with(bench.exchange)
    with pytest.raises(AuthenticationError) as caught:
        client(bench, Server("nothing")).call("POST", "/x")
    assert "token-2" not in str(caught.value)
    assert "********" in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "said", "shown"),
    [
        ("x", "application/x-protobuf, not x: 'x'", "application/x-protobuf, not ********: '********'"),
        ("k-1", "no k-1, k-10 or ak-1", "no ********, k-10 or ak-1"),
        ("seven77", "seven777 seven77.", "seven777 ********."),
        ("eight888", "eight8889 xeight888", "********9 x********"),
        ("a.b", "axb a.b", "axb ********"),
    ],
)
def test_a_short_credential_is_hidden_where_it_stands_by_itself(secret, said, shown):
    """Any text may be a key, and a word that has it as a part is none."""
    assert shown.encode() == Credentials(ClientConfig(base_url=URL, api_key=secret)).blot_out(said.encode())


def test_a_failed_exchange_is_the_failure_of_the_call():
    """Nothing is sent without a credential."""
    bench = Bench(key=KEY, answers=[error_from_status("down", status_code=503)])
    bench.made.exchange_with(bench.exchange)
    server = Server("x")
    with pytest.raises(InternalServerError, match="down"):
        client(bench, server).call("POST", "/x")
    assert server.seen == []
