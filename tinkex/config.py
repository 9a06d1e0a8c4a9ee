"""Settings of a client: one frozen value, made from arguments and the environment, and the one retry policy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import attrs

from tinkex.errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "LOCAL", "ClientConfig", "RetryPolicy", "Secret"]

DEFAULT_BASE_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
"""Where the hosted service lives; used when a key is given and no ``base_url``."""

LOCAL = "local"
"""The ``base_url`` that means: start a server inside this process."""

_HEADER_SAFE = re.compile(r"^[\x21-\x7e]+$")


@attrs.frozen(slots=True, repr=False)
class Secret:
    """A text that never shows itself: not in ``repr``, ``str``, logs or tracebacks."""

    _value: str = attrs.field()

    @_value.validator
    def _check(self, attribute: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str) or not _HEADER_SAFE.match(value):
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

    __str__ = __repr__


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{attribute.name} must be a number above 0, got {value!r}")


def _not_negative(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigurationError(f"{attribute.name} must be a number of at least 0, got {value!r}")


@attrs.frozen(kw_only=True, slots=True)
class RetryPolicy:
    """When and how long a failed request is tried again; the only retry layer there is.

    An attempt that failed with a ``retryable`` error is repeated after the server's Retry-After if it sent one,
    else after ``initial_wait_s * 2**n`` (at most ``max_wait_s``), lowered by a random share of up to ``jitter``.
    """

    max_attempts: int = attrs.field(default=1000, validator=_positive)
    max_elapsed_s: float = attrs.field(default=300.0, validator=_not_negative)
    """Give up when this long has passed since the first attempt."""
    initial_wait_s: float = attrs.field(default=0.02, validator=_not_negative)
    max_wait_s: float = attrs.field(default=10.0, validator=_not_negative)
    jitter: float = attrs.field(default=0.25, validator=_not_negative)

    @classmethod
    def none(cls) -> RetryPolicy:
        """Return the policy of a single attempt."""
        return cls(max_attempts=1)


def _clean_url(value: str | None) -> str:
    url = (value or "").strip().rstrip("/")
    if url == LOCAL or re.match(r"^https?://[^/\s]+", url):
        return url
    raise ConfigurationError(
        f"base_url must start with http:// or https://, or be 'local' for the embedded server; got {value!r}"
    )


def _to_secret(value: str | Secret | None) -> Secret | None:
    return value if value is None or isinstance(value, Secret) else Secret(value)


def _to_tags(value: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


@attrs.frozen(kw_only=True, slots=True)
class ClientConfig:
    """Everything a client can be told, in one immutable, picklable value.

    Times are seconds, sizes are bytes. Use :meth:`from_env` to fill in what the environment says, and
    ``attrs.evolve`` to change a field.
    """

    base_url: str = attrs.field(default=DEFAULT_BASE_URL, converter=_clean_url)
    api_key: Secret | None = attrs.field(default=None, converter=_to_secret)
    timeout: float = attrs.field(default=60.0, validator=_positive)
    """How long to wait for the bytes of one answer."""
    connect_timeout: float = attrs.field(default=5.0, validator=_positive)
    poll_timeout: float = attrs.field(default=45.0, validator=_positive)
    """How long one poll of a future may stay open; the server answers earlier with "not yet"."""
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    default_headers: Mapping[str, str] = attrs.field(factory=dict, converter=dict)
    tags: tuple[str, ...] = attrs.field(default=(), converter=_to_tags)
    project_id: str | None = None
    telemetry: bool = True
    heartbeat_interval_s: float = attrs.field(default=10.0, validator=_positive)
    max_chunk_len: int = attrs.field(default=1024, validator=_positive)
    """Datums in one forward_backward request; longer batches are split."""
    max_chunk_bytes: int = attrs.field(default=5_000_000, validator=_positive)
    """Estimated size of one forward_backward request; larger batches are split."""
    max_upload_bytes: int = attrs.field(default=50_000_000, validator=_positive)
    """Estimated size of the training requests being sent at once."""
    max_sample_submits: int = attrs.field(default=400, validator=_positive)
    """Samples being submitted at once."""
    max_sample_bytes: int = attrs.field(default=10_485_760, validator=_positive)
    """Estimated size of the samples being submitted at once."""
    sample_threads: int = attrs.field(default=16, validator=_positive)
    retrieve_threads: int = attrs.field(default=32, validator=_positive)
    """Polls that may be open at once."""
    close_timeout_s: float = attrs.field(default=300.0, validator=_not_negative)
    """How long ``close(drain=True)`` waits for submitted work."""
    exit_timeout_s: float = attrs.field(default=60.0, validator=_not_negative)
    """How long a program that ends without closing its clients waits for submitted work."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> ClientConfig:
        """Combine arguments with the environment; an argument that is not None wins.

        Reads ``TINKER_BASE_URL``, ``TINKER_API_KEY``, ``TINKER_TAGS`` (comma-separated), ``TINKER_PROJECT_ID``,
        ``TINKER_TELEMETRY`` (``0``, ``false``, ``no`` or ``off`` turns it off) and
        ``CLOUDFLARE_ACCESS_CLIENT_ID`` / ``CLOUDFLARE_ACCESS_CLIENT_SECRET``. An empty variable counts as unset.

        Args:
            environ: The environment; ``os.environ`` unless given.
            **given: Fields of this class; None means "not given".

        Returns:
            The settings.

        Raises:
            ConfigurationError: There is neither a key nor a base URL, or a value cannot be used.
        """
        env = os.environ if environ is None else environ
        values = _read_env(env)
        values.update({name: value for name, value in given.items() if value is not None})
        if not values.get("base_url") and not values.get("api_key"):
            raise ConfigurationError(
                "no API key and no base URL: set TINKER_API_KEY (or pass api_key=) to use the hosted service, "
                'or set TINKER_BASE_URL=local (or pass base_url="local") to train on this machine'
            )
        unknown = sorted(set(values) - {field.name for field in attrs.fields(cls)})
        if unknown:
            names = ", ".join(field.name for field in attrs.fields(cls))
            raise ConfigurationError(f"unknown setting {', '.join(unknown)}; the settings are: {names}")
        return cls(**values)

    @property
    def is_local(self) -> bool:
        """True if the server is to run inside this process."""
        return self.base_url == LOCAL


def _read_env(env: Mapping[str, str]) -> dict[str, Any]:
    names = {"base_url": "TINKER_BASE_URL", "api_key": "TINKER_API_KEY", "project_id": "TINKER_PROJECT_ID"}
    values: dict[str, Any] = {
        field: env[name].strip() for field, name in names.items() if env.get(name, "").strip()
    }
    if env.get("TINKER_TAGS"):
        values["tags"] = tuple(tag.strip() for tag in env["TINKER_TAGS"].split(",") if tag.strip())
    if env.get("TINKER_TELEMETRY"):
        values["telemetry"] = env["TINKER_TELEMETRY"].strip().lower() not in ("0", "false", "no", "off")
    access = {
        "CF-Access-Client-Id": env.get("CLOUDFLARE_ACCESS_CLIENT_ID", ""),
        "CF-Access-Client-Secret": env.get("CLOUDFLARE_ACCESS_CLIENT_SECRET", ""),
    }
    if all(access.values()):
        values["default_headers"] = access
    return values
