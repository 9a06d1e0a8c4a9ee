"""Settings of a client, one frozen value made from arguments and the environment; and the one retry policy."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "LOCAL", "CircuitBreaker", "ClientConfig", "RetryPolicy", "Secret"]

DEFAULT_BASE_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
"""Where the hosted service lives; used when a key is given and no ``base_url``."""

LOCAL = "local"
"""The ``base_url`` that means: start a server inside this process."""

STORED_LOGIN = Path("~/.tinker/credentials.json")
"""Where ``tinker auth login`` of the official SDK keeps keys of the hosted service."""

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
_URL = re.compile(r"https?://[^/\s]+(/\S*)?")


@attrs.frozen(slots=True, repr=False)
class Secret:
    """A text that never shows itself: not in ``repr``, ``str``, logs or tracebacks."""

    _value: str = attrs.field()

    @_value.validator
    def _check(self, _: attrs.Attribute[str], value: Any) -> None:
        if not isinstance(value, str) or not _HEADER_SAFE.fullmatch(value):
            raise ConfigurationError(
                "api_key must be a non-empty text of printable ASCII characters without blanks; "
                "look for a stray newline or quotation mark"
            )

    def reveal(self) -> str:
        """Return the text itself; call this only where it goes on the wire."""
        return self._value

    def __repr__(self) -> str:
        """Say that there is a secret, not what it is."""
        return "Secret(********)"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{attribute.name} must be a whole number of at least 1, got {value!r}")


def _seconds(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ConfigurationError(f"{attribute.name} must be a finite number of seconds above 0, got {value!r}")


def _budget_s(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or not value >= 0:
        raise ConfigurationError(f"{attribute.name} must be a number of seconds of at least 0, got {value!r}")


def _share(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigurationError(f"{attribute.name} must be a number from 0 to 1, got {value!r}")


def _patience(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not _is_number(value) or not value > 0):
        raise ConfigurationError(f"{attribute.name} must be a number of seconds above 0, or None, got {value!r}")


@attrs.frozen(kw_only=True, slots=True)
class RetryPolicy:
    """When and how long a failed request is tried again, the only retry layer there is; and when waiting ends.

    An attempt that failed with a ``retryable`` error is repeated after the server's Retry-After if it sent
    one, else after ``initial_wait_s * 2**n`` (at most ``max_wait_s``), lowered by a random share of up to
    ``jitter``.
    """

    max_attempts: int = attrs.field(default=1000, converter=plain_number, validator=_count)
    max_elapsed_s: float = attrs.field(default=300.0, converter=plain_number, validator=_budget_s)
    """Give up when this long has passed since the first attempt."""
    first_contact_s: float = attrs.field(default=15.0, converter=plain_number, validator=_budget_s)
    """The same, as long as the server has never answered: a wrong address should not cost minutes."""
    initial_wait_s: float = attrs.field(default=0.02, converter=plain_number, validator=_budget_s)
    max_wait_s: float = attrs.field(default=10.0, converter=plain_number, validator=_budget_s)
    jitter: float = attrs.field(default=0.25, converter=plain_number, validator=_share)
    progress_timeout_s: float | None = attrs.field(default=7200.0, converter=plain_number, validator=_patience)
    """Fail the accepted operations of a model, or of a sampling client, with ``ProgressTimeoutError`` when for this
    long none was accepted or has ended and the server did not say that it is paused; None waits for ever."""

    @classmethod
    def none(cls) -> RetryPolicy:
        """Return the policy of a single attempt."""
        return cls(max_attempts=1)


@attrs.frozen(kw_only=True, slots=True)
class CircuitBreaker:
    """When requests to an unwell server fail at once instead of being sent; see :mod:`tinkex.http.breaker`."""

    failures: int = attrs.field(default=5, converter=plain_number, validator=_count)
    """Failed attempts in a row that open it: no answer, or a status of 500 and above except 501."""
    open_s: float = attrs.field(default=30.0, converter=plain_number, validator=_seconds)
    """How long it stays open before a request is let through as a trial."""
    half_open: int = attrs.field(default=1, converter=plain_number, validator=_count)
    """Trials that may be under way at once; one that is answered closes it."""


def _breaker(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, CircuitBreaker):
        raise ConfigurationError(f"{attribute.name} must be a tinkex.CircuitBreaker, got {value!r:.60}")


def _wire(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in ("auto", "json", "proto"):
        raise ConfigurationError(f"{attribute.name} (TINKEX_WIRE) must be 'auto', 'json' or 'proto', got {value!r:.40}")


def _clean_url(value: Any) -> str:
    url = value.strip().rstrip("/") if isinstance(value, str) else ""
    if url == LOCAL or _URL.fullmatch(url):
        return url
    raise ConfigurationError(
        f"base_url must start with http:// or https://, or be 'local' for the embedded server; got {value!r}"
    )


def _to_secret(value: str | Secret | None) -> Secret | None:
    return value if value is None or isinstance(value, Secret) else Secret(value)


def _to_tags(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigurationError(f"tags must be a list of texts, got the text {value!r}")
    return tuple(dict.fromkeys(value))


def _to_dict(value: Mapping[str, str]) -> dict[str, str]:
    return dict(value)


def _query(_: Any, attribute: attrs.Attribute[Any], value: Mapping[Any, Any]) -> None:
    # Unlike a name, a value may be a credential, so no message shows it.
    for name, text in value.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigurationError(f"a name in {attribute.name} must be a non-empty printable text, got {name!r:.60}")
        if not isinstance(text, str) or not text.isprintable():
            raise ConfigurationError(
                f"{attribute.name}[{name!r}] must be a printable text, got a {type(text).__name__}"
            )


def _names_only(headers: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: ..." for name in headers) + "}"


@attrs.frozen(kw_only=True, slots=True)
class ClientConfig:
    """Everything a client can be told, in one immutable, picklable value.

    Times are seconds, sizes are bytes. Use :meth:`from_env` to fill in what the environment says, and
    ``attrs.evolve`` to change a field.
    """

    base_url: str = attrs.field(default=DEFAULT_BASE_URL, converter=_clean_url)
    api_key: Secret | None = attrs.field(default=None, converter=_to_secret)
    credential_cmd: str | None = attrs.field(default=None, repr=False)
    """A line for the shell that prints a key or a JWT; for where there is no ``api_key``, or the server says so."""
    timeout: float = attrs.field(default=60.0, converter=plain_number, validator=_seconds)
    """How long to wait for the bytes of one answer."""
    connect_timeout: float = attrs.field(default=5.0, converter=plain_number, validator=_seconds)
    poll_timeout: float = attrs.field(default=45.0, converter=plain_number, validator=_seconds)
    """How long one poll of a future may stay open; the server answers earlier with "not yet"."""
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    circuit_breaker: CircuitBreaker | None = attrs.field(default=None, validator=_breaker)
    """Spares a server that fails again and again; off unless given."""
    default_headers: Mapping[str, str] = attrs.field(factory=dict, converter=_to_dict, repr=_names_only)
    """Sent with every request, over the headers that the environment asks for."""
    default_query: Mapping[str, str] = attrs.field(factory=dict, converter=_to_dict, validator=_query, repr=_names_only)
    """Parameters in the address of every request; one of the call itself goes before one of the same name. Servers and
    proxies write addresses into their logs, so a credential is better kept in a header."""
    tags: tuple[str, ...] = attrs.field(default=(), converter=_to_tags)
    project_id: str | None = None
    telemetry: bool = True
    report_exceptions: bool = False
    """Tell the server of exceptions that calls and futures raise, once there is a session: class, message, and the
    functions that they went through; never variables, lines of source or a credential. Off unless asked for, because
    a message may hold what your program works on. Needs ``telemetry``."""
    propagate_trace: bool = False
    """Put the trace headers of OpenTelemetry into each request: those of the context in which you made the call, though
    it is sent from another thread. Polls, heartbeats and telemetry have none. Needs ``tinkex[otel]``."""
    heartbeat_interval_s: float = attrs.field(default=10.0, converter=plain_number, validator=_seconds)
    wire: Literal["auto", "json", "proto"] = attrs.field(default="auto", validator=_wire)
    """Form of training requests and of results: ``"auto"`` asks the server for what it takes, and turns to the other
    form if it plainly refuses the first."""
    max_chunk_len: int = attrs.field(default=1024, converter=plain_number, validator=_count)
    """Datums in one forward_backward request; longer batches are split."""
    max_chunk_bytes: int = attrs.field(default=5_000_000, converter=plain_number, validator=_count)
    """Estimated size of one forward_backward request; larger batches are split."""
    max_upload_bytes: int = attrs.field(default=50_000_000, converter=plain_number, validator=_count)
    """Estimated size of the training requests being sent at once."""
    upload_threads: int = attrs.field(default=4, converter=plain_number, validator=_count)
    """Requests of one large batch being sent at once, where the server allows it; 1 sends one after the other."""
    max_sample_submits: int = attrs.field(default=400, converter=plain_number, validator=_count)
    """Samples being submitted at once."""
    max_sample_bytes: int = attrs.field(default=10_485_760, converter=plain_number, validator=_count)
    """Estimated size of the samples being submitted at once."""
    max_result_bytes: int = attrs.field(default=52_428_800, converter=plain_number, validator=_count)
    """Size of the large results being fetched at once, unless the server asks for less; a larger one comes alone."""
    sample_threads: int = attrs.field(default=16, converter=plain_number, validator=_count)
    retrieve_threads: int = attrs.field(default=32, converter=plain_number, validator=_count)
    """Polls that may be open at once."""
    close_timeout_s: float = attrs.field(default=300.0, converter=plain_number, validator=_budget_s)
    """How long ``close(drain=True)`` waits for submitted work."""
    exit_timeout_s: float = attrs.field(default=60.0, converter=plain_number, validator=_budget_s)
    """How long a program that ends without closing its clients waits for submitted work."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> ClientConfig:
        """Combine arguments with the environment; an argument that is not None wins.

        Reads ``TINKER_BASE_URL``, ``TINKER_API_KEY``, ``TINKER_CREDENTIAL_CMD``, ``TINKER_TAGS`` (comma-separated),
        ``TINKER_PROJECT_ID``, ``TINKEX_WIRE``, ``TINKER_TELEMETRY`` (``0``, ``false``, ``no`` or ``off`` turns it off),
        ``TINKEX_OTEL_PROPAGATE`` (``1``, ``true``, ``yes`` or ``on`` turns it on),
        ``CLOUDFLARE_ACCESS_CLIENT_ID`` / ``CLOUDFLARE_ACCESS_CLIENT_SECRET``, and ``TINKEX_DEFAULT_HEADERS`` and
        ``TINKEX_DEFAULT_QUERY`` (comma-separated ``name=value``), which those given are put over, one by one. An empty
        variable counts as unset, and so does an empty ``base_url`` or ``api_key``. Without key and command, the key for
        the hosted service is that of ``tinker auth login``; it is never sent to another server.

        Args:
            environ: The environment; ``os.environ`` unless given.
            **given: Fields of this class; None means "not given".

        Returns:
            The settings.

        Raises:
            ConfigurationError: There is neither a key nor a base URL, or a value cannot be used.
        """
        names = [field.name for field in attrs.fields(cls)]
        unknown = ", ".join(sorted(set(given) - set(names)))
        if unknown:
            raise ConfigurationError(f"unknown setting {unknown}; the settings are: {', '.join(names)}")
        values = _read_env(os.environ if environ is None else environ)
        joined = {name: {**values.get(name, {}), **(given.get(name) or {})} for name in _JOINED}
        values.update({name: value for name, value in given.items() if value is not None and value != ""})
        has_key = values.get("api_key") or values.get("credential_cmd")
        if not has_key and values.get("base_url", DEFAULT_BASE_URL) == DEFAULT_BASE_URL:
            values["api_key"] = stored_key()
        if not any(values.get(name) for name in ("base_url", "api_key", "credential_cmd")):
            raise ConfigurationError(
                "no API key and no base URL: set TINKER_API_KEY (or pass api_key=) to use the hosted "
                'service, or set TINKER_BASE_URL=local (or pass base_url="local") to train on this machine'
            )
        return cls(**{**values, **joined})

    @property
    def is_local(self) -> bool:
        """True if the server is to run inside this process."""
        return self.base_url == LOCAL


# The environment and the program both have a say in these.
_JOINED = ("default_headers", "default_query")


def _pairs(env: Mapping[str, str], variable: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in env.get(variable, "").split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(f"{variable} must be name=value, or several of these between commas")
        pairs[name.strip()] = value.strip()
    return pairs


def _read_env(environ: Mapping[str, str]) -> dict[str, Any]:
    env = {name: text.strip() for name, text in environ.items() if text.strip()}
    names = {
        "base_url": "TINKER_BASE_URL",
        "api_key": "TINKER_API_KEY",
        "credential_cmd": "TINKER_CREDENTIAL_CMD",
        "project_id": "TINKER_PROJECT_ID",
        "wire": "TINKEX_WIRE",
    }
    values: dict[str, Any] = {field: env[name] for field, name in names.items() if name in env}
    if "TINKER_TAGS" in env:
        values["tags"] = [tag.strip() for tag in env["TINKER_TAGS"].split(",") if tag.strip()]
    if "TINKER_TELEMETRY" in env:
        values["telemetry"] = env["TINKER_TELEMETRY"].lower() not in ("0", "false", "no", "off")
    if "TINKEX_OTEL_PROPAGATE" in env:
        values["propagate_trace"] = env["TINKEX_OTEL_PROPAGATE"].lower() in ("1", "true", "yes", "on")
    values["default_headers"] = _pairs(env, "TINKEX_DEFAULT_HEADERS")
    values["default_query"] = _pairs(env, "TINKEX_DEFAULT_QUERY")
    access = ("CLOUDFLARE_ACCESS_CLIENT_ID", "CLOUDFLARE_ACCESS_CLIENT_SECRET")
    if all(name in env for name in access):
        headers = ("CF-Access-Client-Id", "CF-Access-Client-Secret")
        values["default_headers"] |= {header: env[name] for header, name in zip(headers, access, strict=True)}
    return values


def login_path() -> Path:
    """Return the file of the stored login, which need not be there."""
    return STORED_LOGIN.expanduser()


def stored_key() -> str | None:
    """Return the key that ``tinker auth login`` has stored as the default one, if there is one."""
    path = login_path()
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the stored login {path} cannot be read ({error}); set TINKER_API_KEY") from error
    keys = stored.get("keys") if isinstance(stored, dict) else None
    record = keys.get(stored.get("default")) if isinstance(keys, dict) else None
    return record.get("key") if isinstance(record, dict) else None
