"""Settings: arguments before environment before defaults, checked at once, and the key never shown."""

from __future__ import annotations

import copy
import json
import logging
import math
import pickle
import traceback

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.config import DEFAULT_BASE_URL, LOCAL, ClientConfig, RetryPolicy, Secret
from tinkex.errors import ConfigurationError

KEY = "tml-do-not-show"
CLOUDFLARE = {"CLOUDFLARE_ACCESS_CLIENT_ID": "who", "CLOUDFLARE_ACCESS_CLIENT_SECRET": "hush"}


def from_env(environ=None, **given):
    """Read settings from a made-up environment."""
    return ClientConfig.from_env(environ or {}, **given)


# --- Secret ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%s".__mod__, lambda value: f"{value!r} {value!s} {value}"])
def test_a_secret_never_shows_itself(show):
    """No way of turning it into text gives it away."""
    config = from_env(api_key=KEY, default_headers={"X-Secret": "hush"})
    for value in (Secret(KEY), config, [config.api_key], {"key": config.api_key}):
        assert "do-not-show" not in show(value)
        assert "hush" not in show(value)


def test_a_secret_does_not_appear_in_a_log_or_a_traceback(caplog):
    """Neither logging it nor failing with it in hand gives it away."""
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("config %s %r", from_env(api_key=KEY), Secret(KEY))
    assert "do-not-show" not in caplog.text
    with pytest.raises(ConfigurationError) as caught:
        Secret(KEY + "\n")
    shown = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert "do-not-show" not in str(caught.value)
    assert "do-not-show" not in shown
    assert "stray newline" in shown


def test_a_secret_is_revealed_on_request_and_pickles():
    """The transport needs the text, also in another process."""
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    for other in (pickle.loads(pickle.dumps(secret)), copy.deepcopy(secret)):
        assert other == secret
        assert other.reveal() == KEY
    assert secret != Secret("other")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        secret._value = "x"


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\n", "\ta", "cl\u00e9", "a\x7f", None, 5, b"key"])
def test_a_secret_fits_into_a_header(bad):
    """What no header can carry is refused at once, with the usual cause."""
    with pytest.raises(ConfigurationError, match="printable ASCII characters without blanks; look for a stray newline"):
        Secret(bad)


# --- The environment -------------------------------------------------------------------------------------------


# --- Where the key comes from -----------------------------------------------------------------------------------


@pytest.fixture
def login(tmp_path, monkeypatch):
    """A stored login, as the official SDK writes it."""
    path = tmp_path / "credentials.json"
    key = {"type": "manual", "key": "tml-stored", "name": "laptop"}
    path.write_text(json.dumps({"version": 1, "default": "7", "keys": {"7": key, "8": {**key, "key": "tml-x"}}}))
    monkeypatch.setattr("tinkex.config.STORED_LOGIN", path)
    return path


def test_the_key_comes_from_the_first_place_that_has_one(login):
    """Argument, variable, command, stored login."""
    command = {"TINKER_CREDENTIAL_CMD": "print-key"}
    assert from_env({"TINKER_API_KEY": KEY, **command}, api_key="tml-given").api_key == Secret("tml-given")
    both = from_env({"TINKER_API_KEY": KEY, **command})
    assert (both.api_key, both.credential_cmd) == (Secret(KEY), "print-key")
    alone = from_env(command)
    assert (alone.api_key, alone.credential_cmd, alone.base_url) == (None, "print-key", DEFAULT_BASE_URL)
    assert from_env().api_key == Secret("tml-stored")
    assert from_env(base_url=DEFAULT_BASE_URL).api_key == Secret("tml-stored")


def test_a_stored_login_stays_with_the_hosted_service(login):
    """It was made for that service, and no other server is told of it."""
    for url in ("http://host.test", LOCAL):
        assert from_env(base_url=url).api_key is None


def test_a_stored_login_without_a_default_is_none(login):
    """Then the usual error says what to set."""
    for stored in ({"keys": {}}, {"default": "9", "keys": {}}, {"default": "7"}, []):
        login.write_text(json.dumps(stored))
        with pytest.raises(ConfigurationError, match="no API key"):
            from_env()


def test_a_stored_login_that_cannot_be_read_is_told(login):
    """The file is named, and the way around it."""
    login.write_text("{")
    with pytest.raises(ConfigurationError, match=r"credentials\.json cannot be read .* set TINKER_API_KEY"):
        from_env()


def test_the_command_is_not_shown():
    """It may have a password in it."""
    assert "print-key" not in repr(from_env({"TINKER_CREDENTIAL_CMD": "print-key"}))


def test_each_variable_is_read():
    """All variables of the official SDK that concern us have their setting."""
    config = from_env(
        {
            "TINKER_BASE_URL": "https://host.test/base/",
            "TINKER_API_KEY": KEY,
            "TINKER_TAGS": "a, b,,a",
            "TINKER_PROJECT_ID": "p1",
            "TINKER_TELEMETRY": "0",
            "TINKEX_WIRE": "proto",
            **CLOUDFLARE,
        }
    )
    assert config == ClientConfig(
        base_url="https://host.test/base",
        api_key=KEY,
        tags=["a", "b"],
        project_id="p1",
        telemetry=False,
        wire="proto",
        default_headers={"CF-Access-Client-Id": "who", "CF-Access-Client-Secret": "hush"},
    )


@pytest.mark.parametrize(
    ("variable", "value", "given", "field"),
    [
        ("TINKER_BASE_URL", "https://env.test", "https://given.test", "base_url"),
        ("TINKER_API_KEY", "env", "given", "api_key"),
        ("TINKER_TAGS", "env", ("given",), "tags"),
        ("TINKER_PROJECT_ID", "env", "given", "project_id"),
        ("TINKER_TELEMETRY", "1", False, "telemetry"),
        ("TINKEX_WIRE", "json", "proto", "wire"),
    ],
)
def test_an_argument_goes_before_its_variable(variable, value, given, field):
    """What the call says wins; None and an empty text mean "not given"."""
    environ = {"TINKER_API_KEY": KEY, variable: value}
    expected = Secret(given) if field == "api_key" else given
    assert getattr(from_env(environ, **{field: given}), field) == expected
    assert from_env(environ, **{field: None}) == from_env(environ)
    if isinstance(given, str):
        assert from_env(environ, **{field: ""}) == from_env(environ)


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(empty):
    """``export TINKER_BASE_URL=`` does not break a program."""
    names = ("TINKER_BASE_URL", "TINKER_TAGS", "TINKER_PROJECT_ID", "TINKER_TELEMETRY", *CLOUDFLARE)
    environ = {"TINKER_API_KEY": KEY, **dict.fromkeys(names, empty)}
    assert from_env(environ) == from_env(api_key=KEY) == ClientConfig(api_key=KEY)
    with pytest.raises(ConfigurationError, match="no API key and no base URL"):
        from_env({"TINKER_API_KEY": empty})


def test_a_key_alone_means_the_hosted_service():
    """Nobody has to know its address."""
    assert from_env(api_key=KEY).base_url == DEFAULT_BASE_URL


@pytest.mark.parametrize("url", ["local", " local ", "http://127.0.0.1:8000", "https://host.test/a/b/"])
def test_a_base_url_alone_is_enough(url):
    """A server of one's own may need no key."""
    config = from_env({"TINKER_BASE_URL": url})
    assert config.base_url == url.strip().rstrip("/")
    assert config.api_key is None
    assert config.is_local is ("local" in url)


def test_neither_key_nor_url_names_both_ways_out():
    """The first error that a newcomer meets tells how to go on, with and without an account."""
    with pytest.raises(ConfigurationError) as caught:
        from_env()
    for way_out in ("TINKER_API_KEY", "api_key=", "TINKER_BASE_URL=local", 'base_url="local"'):
        assert way_out in str(caught.value)


@pytest.mark.parametrize("given", [{"base_uri": "local"}, {"base_uri": None}, {"api_key": KEY, "base_uri": 1}])
def test_an_unknown_setting_is_refused_with_the_known_ones(given):
    """A misspelt setting is an error even if it is None, and the right name is in the message."""
    with pytest.raises(ConfigurationError, match=r"unknown setting base_uri; the settings are: base_url, api_key, "):
        from_env(**given)


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("0", False),
        ("false", False),
        ("No", False),
        ("OFF", False),
        (" 0 ", False),
        ("1", True),
        ("true", True),
        ("yes", True),
        ("", True),
    ],
)
def test_telemetry_is_switched_off_by_a_word(text, on):
    """The words that mean no, in any case."""
    assert from_env({"TINKER_API_KEY": KEY, "TINKER_TELEMETRY": text}).telemetry is on


@pytest.mark.parametrize("missing", CLOUDFLARE)
def test_half_a_cloudflare_credential_is_none(missing):
    """Both variables are needed for the headers."""
    environ = {name: value for name, value in CLOUDFLARE.items() if name != missing}
    assert from_env(environ, api_key=KEY).default_headers == {}


def test_headers_of_the_call_join_those_of_the_environment():
    """A header of one's own does not lock one out, and may replace one of the environment."""
    config = from_env(CLOUDFLARE, api_key=KEY, default_headers={"X-Mine": "1", "CF-Access-Client-Id": "me"})
    assert config.default_headers == {
        "X-Mine": "1",
        "CF-Access-Client-Id": "me",
        "CF-Access-Client-Secret": "hush",
    }


def test_headers_and_parameters_come_from_the_environment_too():
    """One may give them without touching the program, and the program's own go before them."""
    environ = {"TINKEX_DEFAULT_HEADERS": "X-Mine=1, X-Odd = a=b,", "TINKEX_DEFAULT_QUERY": "team=red,shard=7"}
    config = from_env({**environ, **CLOUDFLARE}, api_key=KEY, default_query={"shard": "8"})
    assert config.default_headers == {
        "X-Mine": "1",
        "X-Odd": "a=b",
        "CF-Access-Client-Id": "who",
        "CF-Access-Client-Secret": "hush",
    }
    assert config.default_query == {"team": "red", "shard": "8"}


@pytest.mark.parametrize("text", ["hush-hush", "a=1,hush-hush", "=hush-hush"])
@pytest.mark.parametrize("variable", ["TINKEX_DEFAULT_HEADERS", "TINKEX_DEFAULT_QUERY"])
def test_a_variable_that_is_not_made_of_pairs_is_named(variable, text):
    """The message has the form that is wanted, and not the text, which may be a secret."""
    with pytest.raises(ConfigurationError, match=f"{variable} must be name=value") as caught:
        from_env({variable: text}, api_key=KEY)
    assert "hush" not in str(caught.value)


def test_the_process_environment_is_read_by_default(monkeypatch):
    """Without an argument it is ``os.environ`` that counts."""
    monkeypatch.setenv("TINKER_BASE_URL", LOCAL)
    assert ClientConfig.from_env().is_local


# --- ClientConfig ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        "",
        None,
        5,
        "host.test",
        "ftp://host.test",
        "http://",
        "http:///x",
        "https://host test",
        "https://host.test/a b",
        "locale",
    ],
)
def test_a_base_url_is_http_or_local(bad):
    """Anything else is refused before the first request."""
    with pytest.raises(ConfigurationError, match="base_url must start with http:// or https://, or be 'local'"):
        ClientConfig(base_url=bad)


SECONDS = ["timeout", "connect_timeout", "poll_timeout", "heartbeat_interval_s"]
COUNTS = [
    "max_chunk_len",
    "max_chunk_bytes",
    "max_upload_bytes",
    "upload_threads",
    "max_sample_submits",
    "max_sample_bytes",
    "sample_threads",
    "retrieve_threads",
]


@pytest.mark.parametrize("field", SECONDS)
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "5", None, True])
def test_waits_are_finite_and_positive(field, bad):
    """No wait is endless, and none is no wait at all."""
    with pytest.raises(ConfigurationError, match=f"{field} must be a finite number of seconds above 0, got"):
        ClientConfig(**{field: bad})


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("bad", [0, -1, 1.5, "5", None, True])
def test_limits_are_whole_and_positive(field, bad):
    """Half a thread or no byte at all is a mistake."""
    with pytest.raises(ConfigurationError, match=f"{field} must be a whole number of at least 1, got"):
        ClientConfig(**{field: bad})


@pytest.mark.parametrize("field", [*SECONDS, *COUNTS])
def test_the_smallest_settings_are_accepted(field):
    """One is allowed everywhere."""
    assert getattr(ClientConfig(**{field: 1}), field) == 1


@pytest.mark.parametrize("bad", [-0.1, math.nan, "5", None, False])
def test_the_time_to_close_is_not_negative(bad):
    """Zero means not to wait at all, which is allowed."""
    assert ClientConfig(close_timeout_s=0).close_timeout_s == 0
    with pytest.raises(ConfigurationError, match="close_timeout_s must be a number of seconds of at least 0"):
        ClientConfig(close_timeout_s=bad)


def test_tags_are_each_sent_once_in_order():
    """Duplicates go; a text is not a list of letters."""
    assert ClientConfig(tags=["b", "a", "b"]).tags == ("b", "a")
    with pytest.raises(ConfigurationError, match="tags must be a list of texts"):
        ClientConfig(tags="nightly")


@pytest.mark.parametrize("value", [0, -1, "60", True, float("nan")])
def test_a_time_without_progress_is_a_number_or_none(value):
    """Infinity and None both mean for ever."""
    with pytest.raises(ConfigurationError, match="progress_timeout_s"):
        RetryPolicy(progress_timeout_s=value)
    assert RetryPolicy(progress_timeout_s=float("inf")) != RetryPolicy(progress_timeout_s=None)


def test_a_config_pickles_evolves_and_does_not_follow_its_source():
    """It goes to other processes whole, one field may be changed in a copy, and its dict is its own."""
    headers = {"X-Mine": "1"}
    config = from_env(api_key=KEY, default_headers=headers, retry=RetryPolicy.none())
    headers.clear()
    assert pickle.loads(pickle.dumps(config)) == config
    assert attrs.evolve(config, timeout=1).retry == RetryPolicy(max_attempts=1)
    assert attrs.evolve(config, timeout=1).api_key.reveal() == KEY
    assert config.default_headers == {"X-Mine": "1"}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.timeout = 1


def test_headers_do_not_follow_their_source():
    """The dict may be reused."""
    headers = {"X-Mine": "1"}
    config = ClientConfig(default_headers=headers)
    headers.clear()
    assert config.default_headers == {"X-Mine": "1"}


def test_the_names_of_headers_are_shown_but_not_their_values():
    """One can see that a credential is sent, not which."""
    assert "default_headers={'X-Mine': ...}" in repr(ClientConfig(default_headers={"X-Mine": "hush"}))


def test_a_parameter_shows_its_name_and_not_its_value():
    """As a header does."""
    assert "default_query={'token': ...}" in repr(ClientConfig(default_query={"token": "hush"}))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"": "x"}, "a name in default_query must be a non-empty printable text, got ''"),
        ({5: "x"}, "a name in default_query must be a non-empty printable text, got 5"),
        ({"a\n": "x"}, "a name in default_query must be a non-empty printable text"),
        ({"a": 5}, r"default_query\['a'\] must be a printable text, got a int"),
        ({"a": None}, r"default_query\['a'\] must be a printable text, got a NoneType"),
        ({"a": "hush\0"}, r"default_query\['a'\] must be a printable text, got a str"),
    ],
)
def test_parameters_are_texts(query, message):
    """The name is in the message, the value is not."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        ClientConfig(default_query=query)
    assert "hush" not in str(caught.value)


# --- RetryPolicy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number of at least 1, got 0"),
        ({"max_attempts": 1.5}, "max_attempts must be a whole number"),
        ({"max_attempts": True}, "max_attempts must be a whole number"),
        ({"max_elapsed_s": -1}, "max_elapsed_s must be a number of seconds of at least 0, got -1"),
        ({"max_elapsed_s": math.nan}, "max_elapsed_s must be a number"),
        ({"initial_wait_s": "1"}, "initial_wait_s must be a number"),
        ({"max_wait_s": False}, "max_wait_s must be a number"),
        ({"jitter": 1.01}, "jitter must be a number from 0 to 1, got 1.01"),
        ({"jitter": -0.1}, "jitter must be a number from 0 to 1"),
        ({"jitter": True}, "jitter must be a number from 0 to 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields, message):
    """Each setting has its bounds."""
    with pytest.raises(ConfigurationError, match=message):
        RetryPolicy(**fields)


@given(st.integers(1), st.floats(0), st.floats(0), st.floats(0), st.floats(0, 1))
def test_a_policy_within_bounds_is_kept(attempts, elapsed, initial, longest, jitter):
    """Every sound combination is accepted as it is; endless retrying too, if someone wants it."""
    policy = RetryPolicy(
        max_attempts=attempts,
        max_elapsed_s=elapsed,
        initial_wait_s=initial,
        max_wait_s=longest,
        jitter=jitter,
    )
    assert (policy.max_attempts, policy.max_elapsed_s) == (attempts, elapsed)
    assert (policy.initial_wait_s, policy.max_wait_s, policy.jitter) == (initial, longest, jitter)


def test_no_retries_is_one_attempt():
    """``none`` still tries once."""
    assert RetryPolicy.none().max_attempts == 1
